"""Bubbles as a careful annotator would place them, and what grows from them in a bone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDTrainerLib.presegmentation import WholeBone
from LowDoseBMDTrainerLib.snake import STEP_ITERATIONS, Bubble, Snake, box_around, box_geometry
from scipy import ndimage

BUBBLES = 24
"""In body, arch and processes of a vertebra."""

ITERATIONS = 45
"""After which the annotator stops."""

MARGIN_MM = 8.0
"""By which the box reaches beyond the bubbles."""


def grown(hu: np.ndarray, grid: Geometry, bubbles: Sequence[Bubble], iterations: int = ITERATIONS) -> dict[int, np.ndarray]:
    """The region (k, j, i, bool, on the CT's grid) after each step, by the number of iterations, settings as proposed."""
    box = box_around(grid, bubbles, MARGIN_MM)
    snake = Snake.of(hu[box], box_geometry(grid, box), WholeBone())
    front, found = snake.start(bubbles), {}
    while front.iterations < iterations:
        front = snake.step(front, iterations=STEP_ITERATIONS)
        found[front.iterations] = np.zeros(grid.shape_kji, bool)
        found[front.iterations][box] = snake.mask(front)
    return found


def covering_bubbles(truth: np.ndarray, grid: Geometry, count: int) -> list[Bubble]:
    """Balls inside of a region (k, j, i), each where it covers most of what the others have not; 500 places are tried."""
    box = ndimage.find_objects(truth.view(np.uint8))[0]
    spacing = np.array(grid.spacing_kji_mm)
    depth = ndimage.distance_transform_edt(np.pad(truth[box], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(truth[box])
    tried = np.random.default_rng(0).permutation(np.argwhere(depth > 1.4))[:500]
    radii = np.clip(depth[tuple(tried.T)], 1.5, 12.0)
    balls = [((voxels - place) * spacing) ** 2 @ np.ones(3) < radius**2 for place, radius in zip(tried, radii, strict=True)]
    left, chosen = np.ones(len(voxels), bool), []
    for _ in range(count):
        best = int(np.argmax([np.count_nonzero(ball & left) for ball in balls]))
        left &= ~balls[best]
        corner = np.array([s.start for s in box])
        chosen.append(Bubble(tuple(map(float, grid.to_lps(tried[best] + corner))), float(radii[best])))
    return chosen
