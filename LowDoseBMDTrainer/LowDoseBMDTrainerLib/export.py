"""From a training run to a bundle: fp16 weights, the same network as ONNX, checked equal; and what is known of it.

A bundle holds weights and numbers: no image, no path, no name, no UID of what it was trained on.
"""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LowDoseBMDLib.bundle import GRAPH, METADATA, WEIGHTS, Bundle, load_bundle, save_metadata
from LowDoseBMDLib.files.atomic import write_whole
from LowDoseBMDLib.inference import open_engine

from .evaluation_subject import note_export
from .model_card import card_text, limits_of, scores_of, training_of
from .score_files import CARD
from .synthesis import CLIP_HU, SCALE_HU, TASKS
from .training_log import BEST
from .training_recipe import OUTPUTS, Recipe, arguments, build
from .training_step import Trained, load_trained

EQUAL_LOGITS = 2e-2
"""Largest difference of logits between the engines that counts as the same network: far below what moves a
boundary, above fp32 rounding over some forty layers."""


def export_run(run: Path, models: Path, version: str = "0.1", evaluation: Path | None = None, replace: bool = False,
               monai: bool = False) -> Bundle:
    """Bundle of a run's best network in ``models/TASK``, with its card.

    evaluation: folder of an evaluation of this network, for the scores. replace: what lies there already. monai: a MONAI
    bundle in ``models/monai/TASK`` too. Raises ValueError when the run has no network, the evaluation is of another one, or
    something lies there.
    """
    trained = load_trained(run / BEST)
    scores = scores_of(evaluation, run) if evaluation else {}
    training = training_of(run, trained)
    limits = limits_of(training, scores)
    task = trained.recipe.task
    with _new_folder(models / task, replace) as folder:
        bundle = export_bundle(trained.recipe, trained.weights, folder, version, training, scores, limits)
        write_whole(folder / CARD, card_text(bundle))
        note_export(run, bundle)
    bundle = load_bundle(models / task)
    if monai:
        from .monai_bundle import write_monai_bundle

        with _new_folder(models / "monai" / task, replace) as folder:
            write_monai_bundle(bundle, folder)
    return bundle


@contextmanager
def _new_folder(folder: Path, replace: bool) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder`` when the block ends well and is removed when it does not."""
    if folder.exists() and not replace:
        raise ValueError(f"{folder} exists already; choose another folder, or --replace it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.parent / f".{uuid.uuid4().hex[:12]}-{folder.name}"
    aside.mkdir()
    old = aside.with_name(f"{aside.name}-old")
    try:
        yield aside
        if folder.exists():
            os.replace(folder, old)
        os.replace(aside, folder)
    finally:
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)


def bundle_of(recipe: Recipe, version: str, training: Mapping[str, Any] | None = None,
              scores: Mapping[str, Any] | None = None, limits: tuple[str, ...] = (), folder: Path = Path()) -> Bundle:
    """What is known of a recipe's network."""
    kind = "attention_unet" if recipe.task == "keypoints" else "res_unet"
    return Bundle(recipe.task, version, kind, arguments(recipe), TASKS[recipe.task].spacing_mm, CLIP_HU, SCALE_HU,
                  OUTPUTS[recipe.task], training or {}, scores or {}, limits, folder=folder)


def rounded(trained: Trained) -> torch.nn.Module:
    """The network with its weights rounded to fp16, as a bundle has them, ready to run in fp32."""
    network = build(trained.recipe)
    network.load_state_dict({name: value.half().float() for name, value in trained.weights.items()})
    return network.eval()


def export_bundle(recipe: Recipe, weights: dict[str, torch.Tensor], folder: Path, version: str,
                  training: Mapping[str, Any], scores: Mapping[str, Any], limits: tuple[str, ...]) -> Bundle:
    """Write a bundle and check that both engines give the same logits; raises ValueError when they do not.

    weights: state of the network; they are rounded to fp16 first, so that both files hold the very same numbers.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() for k, v in weights.items()}
    save_file(half, folder / WEIGHTS)
    network = build(recipe)
    network.load_state_dict({k: v.float() for k, v in half.items()})
    _write_graph(network.eval(), folder / GRAPH)
    save_metadata(bundle_of(recipe, version, training, scores, limits, folder))
    shutil.copymode(folder / METADATA, folder / WEIGHTS)  # safetensors makes files that only their owner can read
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
