"""From a training run to a bundle: fp16 weights, the same network as ONNX, checked equal."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from LowDoseBMDLib.bundle import GRAPH, WEIGHTS, Bundle, load_bundle, save_metadata
from LowDoseBMDLib.inference import open_engine

from .synthesis import CLIP_HU, SCALE_HU, TASKS
from .training_recipe import OUTPUTS, Recipe, arguments, build

EQUAL_LOGITS = 2e-2
"""Largest difference of logits between the engines that counts as the same network: far below what moves a
boundary, above fp32 rounding over some forty layers."""


def export_bundle(recipe: Recipe, weights: dict[str, torch.Tensor], folder: Path, version: str,
                  training: dict, scores: dict, limits: tuple[str, ...]) -> Bundle:
    """Write a bundle and check that both engines give the same logits; raises ValueError when they do not.

    weights: state of the network (not of the running mean's wrapper); they are rounded to fp16 first, so that both
    files hold the very same numbers.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() for k, v in weights.items()}
    save_file(half, folder / WEIGHTS)
    network = build(recipe)
    network.load_state_dict({k: v.float() for k, v in half.items()})
    _write_graph(network.eval(), folder / GRAPH)
    keypoints = recipe.task == "keypoints"
    bundle = Bundle(
        recipe.task, version, "attention_unet" if keypoints else "res_unet",
        arguments(recipe),
        TASKS[recipe.task].spacing_mm, CLIP_HU, SCALE_HU, OUTPUTS[recipe.task], training, scores, limits,
        folder=folder)
    save_metadata(bundle)
    bundle = load_bundle(folder)
    _check_equal(bundle)
    return bundle


def _write_graph(network: torch.nn.Module, path: Path) -> None:
    import onnx

    image = torch.randn(1, 1, 32, 32, 32)
    axes = {0: "n", 2: "k", 3: "j", 4: "i"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (image,), str(path), input_names=["image"], output_names=["logits"],
                          dynamic_axes={"image": axes, "logits": axes}, opset_version=17, dynamo=False)
    graph = onnx.load(str(path))
    _halve_initializers(graph)
    onnx.save(graph, str(path))


def _halve_initializers(model: object) -> None:
    """Store weights as fp16 and cast them to fp32 when the graph is loaded: half the size, the same numbers."""
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or tensor.dims == []:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < 64 or not np.array_equal(values, values.astype(np.float16).astype(np.float32)):
            continue
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), tensor.name + "_half"))
        casts.append(helper.make_node("Cast", [tensor.name + "_half"], [tensor.name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)


def _check_equal(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(0, 1, (1, 1, 48, 32, 64)), -2, 3).astype(np.float32)
    outputs = [open_engine(bundle, kind, "cpu").run(image) for kind in ("onnx", "torch")]
    worst = float(np.abs(outputs[0] - outputs[1]).max())
    if worst > EQUAL_LOGITS:
        raise ValueError(f"{bundle.name}: ONNX and torch logits differ by {worst:.3g}; the export is not used")
