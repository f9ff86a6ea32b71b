"""The same model as a MONAI bundle: weights, a description, and a configuration that runs it without this program.

The layout is that of MONAI's bundle specification: configs/metadata.json, configs/inference.json, models/model.pt,
docs/README.md; the keypoint network, which MONAI does not have, is code in scripts/.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from LowDoseBMDLib import bodies, bones, bones_fine, keypoints, networks
from LowDoseBMDLib.bundle import WEIGHTS, Bundle
from LowDoseBMDLib.inference import STRIDE
from LowDoseBMDLib.results import DISCLAIMER

from .model_card import INTENDED_USE, card_text

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""What a metadata.json of MONAI is checked against."""

TILES: dict[str, tuple[int, int, int]] = {"bones": bones.MAX_TILE_KJI, "bones_fine": bones_fine.TILE_KJI,
                                          "bodies": bodies.TILE_KJI, "keypoints": keypoints.MAX_TILE_KJI}
"""Voxels k, j, i that the network sees at a time."""

AXES = "SPL"
"""Axes of the network's input, first to last, as MONAI's Orientation names them: k, j, i of this program."""

READERS: dict[str, str] = {"nibabel": "5.4.2", "pytorch-ignite": "0.5.5"}
"""What MONAI needs besides torch to run configs/inference.json; the versions with which it was run."""

CUSTOM_NETWORK = "attention_unet.py"


def write_monai_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the MONAI bundle of a verified bundle. Raises OSError when the folder cannot be written."""
    from safetensors.torch import load_file

    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    weights = {name: value.float() for name, value in load_file(bundle.folder / WEIGHTS).items()}
    torch.save(weights, folder / "models" / "model.pt")
    for name, content in (("metadata.json", metadata(bundle)), ("inference.json", inference(bundle))):
        (folder / "configs" / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "docs" / "README.md").write_text(card_text(bundle), encoding="utf-8")
    if bundle.network == "attention_unet":
        (folder / "scripts").mkdir(exist_ok=True)
        shutil.copyfile(Path(networks.__file__).parent / CUSTOM_NETWORK, folder / "scripts" / CUSTOM_NETWORK)


def metadata(bundle: Bundle) -> dict[str, Any]:
    """The content of configs/metadata.json."""
    sides = [f"{STRIDE}*n"] * 3
    low, high = (hu / bundle.scale_hu for hu in bundle.clip_hu)
    channels = {str(n): name for n, name in enumerate(bundle.outputs)}
    return {
        "schema": SCHEMA,
        "version": bundle.version,
        "changelog": {bundle.version: "exported by LowDoseBMDTrainer"},
        "monai_version": version("monai"), "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": dict(READERS),
        "name": f"LowDoseBMD {bundle.name}", "task": INTENDED_USE[bundle.name],
        "description": f"{INTENDED_USE[bundle.name]} {DISCLAIMER}",
        "authors": "those who exported it", "copyright": "as agreed for the data it was trained on",
        "intended_use": f"{INTENDED_USE[bundle.name]} {DISCLAIMER}",
        "data_type": "CT", "eval_metrics": {}, "references": [],
        "network_data_format": {
            "inputs": {"image": {
                "type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1, "spatial_shape": sides,
                "dtype": "float32", "value_range": [low, high], "is_patch_data": True, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {
                "type": "image", "format": "segmentation" if bundle.name != "keypoints" else "probabilities",
                "num_channels": len(bundle.outputs), "spatial_shape": sides, "dtype": "float32", "value_range": [],
                "is_patch_data": True, "channel_def": channels}}},
    }


def inference(bundle: Bundle) -> dict[str, Any]:
    """The content of configs/inference.json: reads images of dataset_dir, writes what is found to output_dir.

    A scan that is smaller than a tile is padded at its end, as LowDoseBMDLib.inference.predict does: a network that halves
    its grid sees other corners otherwise.
    """
    low, high = (hu / bundle.scale_hu for hu in bundle.clip_hu)
    return {
        "imports": ["$import glob", "$import os", "$import runpy"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz')))",
        "network_def": _network(bundle),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": AXES},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [bundle.spacing_mm] * 3, "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": bundle.clip_hu[0], "a_max": bundle.clip_hu[1],
             "b_min": low, "b_max": high, "clip": True},
            {"_target_": "SpatialPadd", "keys": "image", "spatial_size": list(TILES[bundle.name]), "method": "end",
             "mode": "constant", "constant_values": low},
            {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"}]},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': path} for path in @datalist]",
                    "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": list(TILES[bundle.name]), "sw_batch_size": 1,
                    "overlap": 0.25, "mode": "gaussian", "padding_mode": "constant", "cval": low},
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(bundle)},
        "handlers": [{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'",
                      "load_dict": {"model": "@network"}, "map_location": "@device"}],
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
                      "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing",
                      "val_handlers": "@handlers"},
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
        "run": ["$@evaluator.run()"],
    }


def _network(bundle: Bundle) -> Any:
    arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in bundle.arguments.items()}
    if bundle.network == "attention_unet":
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        path = f"@bundle_root + '/scripts/{CUSTOM_NETWORK}'"
        return f"$runpy.run_path({path})['build_attention_unet']({given})"
    return {"_target_": "UNet", "spatial_dims": 3, "in_channels": arguments["in_channels"],
            "out_channels": arguments["out_channels"], "channels": arguments["channels"],
            "strides": [2] * (len(arguments["channels"]) - 1), "num_res_units": arguments["res_units"], "norm": "INSTANCE"}


def _postprocessing(bundle: Bundle) -> list[dict[str, Any]]:
    heatmaps = bundle.name == "keypoints"
    found = [{"_target_": "Activationsd", "keys": "pred", "sigmoid" if heatmaps else "softmax": True},
             {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
              "nearest_interp": False, "to_tensor": True}]
    if not heatmaps:
        found.append({"_target_": "AsDiscreted", "keys": "pred", "argmax": True})
    return [*found, {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "resample": False}]
