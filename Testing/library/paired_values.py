"""Three sets of people measured twice, for tests of statistics: one like the paper's, one small with ties, one rough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paired:
    """(N,) values of the test and of the reference, and the limit that parts the reference's values."""

    test: np.ndarray
    reference: np.ndarray
    limit: float

    @property
    def positive(self) -> np.ndarray:
        return self.reference < self.limit


def like_the_paper() -> Paired:
    """421 people, reference 125 +- 34, the test compressed and a little low."""
    rng = np.random.default_rng(20240216)
    reference = rng.normal(125.2, 33.9, 421)
    return Paired(24.0 + 0.79 * reference + rng.normal(0.0, 8.0, 421), reference, 80.0)


def peak_flow() -> Paired:
    """The 17 people of Bland and Altman, Lancet 1986;1:307-310, table 1: Wright's large and mini peak flow meters."""
    large = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    return Paired(np.array(large, float), np.array(mini, float), 400.0)


def rough() -> Paired:
    """60 people on a short scale of whole numbers: skewed, many ties, a few far outliers."""
    rng = np.random.default_rng(7)
    reference = np.round(rng.gamma(2.0, 5.0, 60))
    test = np.round(1.1 * reference + rng.normal(0.0, 2.0, 60))
    test[:3] += (25.0, -9.0, 40.0)
    return Paired(test, reference, 6.0)


DATA = {"like the paper": like_the_paper(), "peak flow": peak_flow(), "rough": rough()}
