"""The weights that a training begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from LowDoseBMDLib.bundle import METADATA, WEIGHTS, Bundle, file_sha256, load_bundle, models_folder

from .training_log import BEST
from .training_recipe import OUTPUTS, Recipe, arguments
from .training_step import load_trained


def starting_point(recipe: Recipe, start: str) -> tuple[Recipe, dict[str, torch.Tensor] | None]:
    """The recipe with the network of ``start``, and its weights in float32; None where they are drawn from the seed.

    start: ``none``, ``embedded`` for the bundle that comes with the product, or a folder: a bundle, a set of models, or a
    run. Raises ValueError when there is no such thing or it is another task's.
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

    _refuse_other_task(recipe, bundle.name, bundle.outputs, bundle.folder)
    own = {name: bundle.arguments[name] for name in ("res_units", "features") if name in bundle.arguments}
    recipe = replace(recipe, channels=tuple(bundle.arguments["channels"]), start=bundle.identity, **own)
    theirs = {name: tuple(v) if isinstance(v, list) else v for name, v in bundle.arguments.items()}
    if arguments(recipe) != theirs or bundle.spacing_mm != recipe.sample.spacing_mm:
        raise ValueError(f"{bundle.folder}: this network ({theirs}, {bundle.spacing_mm} mm) is not one that is trained "
                         "here; begin with --start embedded or none")
    return recipe, {name: value.float() for name, value in load_file(bundle.folder / WEIGHTS).items()}


def _refuse_other_task(recipe: Recipe, task: str, outputs: tuple[str, ...], folder: Path) -> None:
    if tuple(outputs) != OUTPUTS[recipe.task]:
        raise ValueError(f"{folder} is a network for {task} ({', '.join(outputs)}), not for {recipe.task}; choose another "
                         "folder for --start")
