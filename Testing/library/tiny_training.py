"""Small cases and recipes for the tests of training: boxes in noise, a network of a few hundred weights."""

from __future__ import annotations

import numpy as np
from LowDoseBMDTrainerLib.datasets import CaseSource, TrainingData
from LowDoseBMDTrainerLib.training_cases import PreparedCase
from LowDoseBMDTrainerLib.training_recipe import Recipe

TINY = {"shape_kji": (16, 16, 16), "channels": (4, 8), "learning_rate": 2e-2, "batch": 2, "deterministic": True}
"""Parts of a recipe whose steps take some hundredths of a second."""


def a_case(name: str, patient: str = "", seed: int = 0) -> PreparedCase:
    """Noise with a box of each bone class, the brighter the higher the class; all six classes are known."""
    rng = np.random.default_rng(seed)
    hu, target = rng.normal(0, 20, (24, 24, 24)).astype(np.int16), np.zeros((24, 24, 24), np.uint8)
    for value, centre in enumerate(((12, 12, 12), (5, 5, 18), (18, 18, 5), (5, 18, 5), (18, 5, 18)), start=1):
        box = tuple(slice(c - 3, c + 4) for c in centre)
        hu[box] += 250 * value
        target[box] = value
    return PreparedCase(name, patient or name, hu, target, np.ones(6, bool), {})


def some_data(training: int = 3) -> TrainingData:
    """``training`` cases to train on and one held out."""
    sources = [CaseSource(a_case(f"{n:04d}", seed=n), f"digest {n}") for n in range(training + 1)]
    return TrainingData(tuple(sources[:training]), tuple(sources[training:]))


def a_recipe(**changes) -> Recipe:
    """Twelve steps, validated every five."""
    return Recipe("bones", **{**TINY, "steps": 12, "validate_every": 5, "fresh": 2, **changes})
