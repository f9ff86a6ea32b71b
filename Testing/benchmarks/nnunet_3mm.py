"""How long nnU-Net v2 takes on a CT with a network as its planner lays one out for a body at 3 mm, weights at random.

    python Testing/benchmarks/nnunet_3mm.py CT [--threads 2]

Speed does not depend on the weights. The plans of TotalSegmentator's 3 mm model were not at hand: PlainConvUNet of six
stages, 32 to 320 features, two convolutions each, patches of 128 x 112 x 112; 117 structures and background. The CT is
resampled to 3 mm beforehand; tiles overlap by half, no mirroring, fp32, CPU: nnU-Net's own predictor does the rest. Prints
one JSON object; exit status 3 when nnunetv2 is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "LowDoseBMD"))

PATCH = (128, 112, 112)
CLASSES = 118
SPACING_MM = 3.0
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 1, 1))
"""112 can be halved four times before its maps are smaller than 4, 128 five times."""
NETWORK = {
    "n_stages": 6, "features_per_stage": [32, 64, 128, 256, 320, 320], "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 6, "strides": [list(stride) for stride in STRIDES], "n_conv_per_stage": [2] * 6,
    "n_conv_per_stage_decoder": [2] * 5, "conv_bias": True, "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}
RESAMPLING = "resample_data_or_seg_to_shape"
ORDERS = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def plans() -> dict:
    """As nnUNetv2_plan_experiment writes them."""
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": list(PATCH), "median_image_size_in_voxels": [128.0, 112.0, 112.0], "spacing": [SPACING_MM] * 3,
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING, "resampling_fn_probabilities": RESAMPLING, "resampling_fn_data_kwargs": ORDERS,
        "resampling_fn_seg_kwargs": ORDERS, "resampling_fn_probabilities_kwargs": {**ORDERS, "order": 1},
        "batch_dice": False,
        "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                         "arch_kwargs": NETWORK, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}}
    hu = {"max": 3000.0, "mean": -50.0, "median": 20.0, "min": -1024.0, "percentile_00_5": -1000.0,
          "percentile_99_5": 1000.0, "std": 300.0}
    return {"dataset_name": "Dataset000_random", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
            "original_median_spacing_after_transp": [SPACING_MM] * 3, "original_median_shape_after_transp": list(PATCH),
            "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "configurations": {"3d_fullres": configuration},
            "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": hu}}


def predictor(threads: int):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    manager = PlansManager(plans())
    configuration = manager.get_configuration("3d_fullres")
    network = get_network_from_plans(
        configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import, 1, CLASSES, allow_init=True, deep_supervision=False)
    dataset = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 1,
               "labels": {"background": 0, **{f"structure {n}": n for n in range(1, CLASSES)}}}
    made = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False, perform_everything_on_device=False,
                           device=torch.device("cpu"), verbose=False, allow_tqdm=False)
    made.manual_initialization(network, manager, configuration, [network.state_dict()], dataset, "nnUNetTrainer", None)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, os.devnull)  # else it warns that they are not set
    try:
        import nnunetv2  # noqa: F401
    except ImportError:
        print("nnunetv2 is not installed")
        return 3
    from LowDoseBMDLib.files.read import read_ct
    from LowDoseBMDLib.geometry import resample

    ct = read_ct(options.ct)
    grid = ct.geometry.with_spacing(SPACING_MM)
    image = resample(ct.hu, ct.geometry, grid, outside=-1000.0).astype(np.float32)[None]
    del ct
    made = predictor(options.threads)
    begun, processor = time.perf_counter(), time.process_time()
    found = made.predict_single_npy_array(image, {"spacing": [SPACING_MM] * 3}, None, None, False)
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    weights = sum(part.numel() for part in made.network.parameters()) / 1e6
    print(json.dumps({"seconds": round(seconds, 2), "cpu_seconds": round(processor, 2), "peak_mb": round(peak_mb),
                      "shape": list(found.shape), "million_weights": round(weights, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
