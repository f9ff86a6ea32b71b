"""The weights that a training begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from LowDoseBMDLib.bundle import METADATA, WEIGHTS, Bundle, file_sha256, load_bundle, models_folder

from .training_log import BEST
from .training_recipe import OUTPUTS, Recipe, arguments, build
from .training_step import load_trained

OUTPUT_LAYER = "output."
"""Weights of the keypoint network with one row for each level: LowDoseBMDLib.networks.attention_unet."""


def starting_point(recipe: Recipe, start: str) -> tuple[Recipe, dict[str, torch.Tensor] | None]:
    """The recipe with the network of ``start``, and its weights in float32; None where they are drawn from the seed.

    start: ``none``, ``embedded`` for the bundle that comes with the product, or a folder: a bundle, a set of models, or a
    run. A bundle that finds other levels keeps what it knows of the levels that both have; the others begin anew.
    Raises ValueError when there is no such thing or it is another task's.
    """
    if start == "none":
        return recipe, None
    folder = models_folder() if start == "embedded" else Path(start)
    if (folder / BEST).exists():
        trained = load_trained(folder / BEST)
        _refuse_other_task(recipe, trained.recipe.task, OUTPUTS[trained.recipe.task], folder)
        own = trained.recipe
        identity = f"{folder.name} ({file_sha256(folder / BEST)[:12]})"
        return replace(recipe, channels=own.channels, res_units=own.res_units, features=own.features,
                       start=identity), trained.weights
    bundle = load_bundle(folder if (folder / METADATA).exists() else folder / recipe.task)
    return _of_bundle(recipe, bundle)


def _of_bundle(recipe: Recipe, bundle: Bundle) -> tuple[Recipe, dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    outputs = OUTPUTS[recipe.task]
    keeps = recipe.task == bundle.name == "keypoints" and set(bundle.outputs) & set(outputs)
    if not keeps:
        _refuse_other_task(recipe, bundle.name, bundle.outputs, bundle.folder)
    own = {name: bundle.arguments[name] for name in ("res_units", "features") if name in bundle.arguments}
    recipe = replace(recipe, channels=tuple(bundle.arguments["channels"]), start=bundle.identity, **own)
    theirs = {name: tuple(v) if isinstance(v, list) else v for name, v in bundle.arguments.items()}
    expected = {**arguments(recipe), "out_channels": len(bundle.outputs)}
    if expected != theirs or bundle.spacing_mm != recipe.sample.spacing_mm:
        raise ValueError(f"{bundle.folder}: this network ({theirs}, {bundle.spacing_mm} mm) is not one that is trained "
                         "here; begin with --start embedded or none")
    weights = {name: value.float() for name, value in load_file(bundle.folder / WEIGHTS).items()}
    return recipe, weights if bundle.outputs == outputs else _with_levels(recipe, weights, bundle.outputs)


def _with_levels(recipe: Recipe, weights: dict[str, torch.Tensor], levels: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The weights of a network for ``levels``, for the recipe's levels: rows of the same name are kept."""
    fresh, wanted = build(recipe).state_dict(), OUTPUTS[recipe.task]
    kept = {level: row for row, level in enumerate(levels) if level in wanted}
    result = dict(weights)
    for name in (name for name in weights if name.startswith(OUTPUT_LAYER)):
        result[name] = fresh[name].clone()
        for level, row in kept.items():
            result[name][wanted.index(level)] = weights[name][row]
    return result


def _refuse_other_task(recipe: Recipe, task: str, outputs: tuple[str, ...], folder: Path) -> None:
    if tuple(outputs) != OUTPUTS[recipe.task]:
        raise ValueError(f"{folder} is a network for {task} ({', '.join(outputs)}), not for {recipe.task}; choose another "
                         "folder for --start")
