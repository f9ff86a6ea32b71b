"""Where the vertebrae are: sizes by level, the curve of the spine, and each vertebra's own axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..anatomy import SPINE

LEVELS: tuple[str, ...] = SPINE[5:]
"""C6 to L5: the vertebrae that the phantom models."""

_WIDTH_MM = (25, 27, 28, 27.5, 27, 27, 27.5, 28.5, 29.5, 31.5, 34, 36.8, 39.8, 42.5, 44, 46, 48, 50, 52)
_DEPTH_MM = (16, 16.5, 17.5, 18.5, 19.5, 21, 22.5, 24, 25.5, 27, 28.3, 29.5, 30.5, 31.2, 32, 33, 34, 35, 35)
_HEIGHT_MM = (12.5, 14, 16, 16.8, 17.2, 17.6, 18, 18.5, 19, 19.6, 20.5, 21.7, 23.1, 24.7, 26, 27, 27.5, 27.5, 27)
_DISC_MM = (5.5, 5, 4.4, 3.8, 3.6, 3.7, 3.9, 4.1, 4.3, 4.6, 5, 5.6, 6.2, 7, 8, 9, 10, 10.5, 10)
"""Bodies (transverse, front to back, height) and the disc below each, C6 to L5: rounded means of adults."""

_TILT_KYPHOSIS = (0.45, 0.55, 0.58, 0.56, 0.51, 0.44, 0.35, 0.25, 0.14, 0.03, -0.09, -0.22, -0.34, -0.42, -0.38, -0.28,
                  -0.12, 0.1, 0.3)
"""Forward tilt of each vertebra as a fraction of the kyphosis angle; T1 less T12 is 1."""

_SIDE_TILT = (0.0, 0.1, 0.15, 0.2, 0.28, 0.36, 0.44, 0.5, 0.5, 0.42, 0.25, 0.05, -0.2, -0.4, -0.5, -0.48, -0.35, -0.2,
              -0.05)
"""Sideways tilt of each vertebra as a fraction of the Cobb angle (between T8 and L1)."""

AXIAL_PER_COBB = 0.35
"""Axial rotation at the apex per degree of Cobb angle."""

NOMINAL_KYPHOSIS_DEG = 42.0
T7_Y_MM = 74.0
"""Where the centre of T7 lies behind the middle of the trunk at scale 1."""


@dataclass(frozen=True, eq=False)
class Vertebra:
    """One vertebra: name, size of its body, centre (LPS mm), and axes as rows (left, posterior, superior)."""

    name: str
    width_mm: float
    depth_mm: float
    height_mm: float
    disc_mm: float
    centre: np.ndarray
    axes: np.ndarray

    @property
    def index(self) -> int:
        """T1 is 1, T12 is 12, L1 is 13."""
        return LEVELS.index(self.name) - 1

    def point(self, left: float, back: float, up: float) -> np.ndarray:
        """LPS place of a point given in the vertebra's own axes, mm from the body's centre."""
        return self.centre + np.array([left, back, up]) @ self.axes


def _axes(tilt_deg: float, side_deg: float, turn_deg: float) -> np.ndarray:
    tilt, side, turn = np.deg2rad([tilt_deg, side_deg, turn_deg])
    up = np.array([np.sin(side) * np.cos(tilt), -np.sin(tilt), np.cos(side) * np.cos(tilt)])
    left = np.array([np.cos(side), 0.0, -np.sin(side)])
    back = np.cross(up, left)
    left, back = left * np.cos(turn) + back * np.sin(turn), back * np.cos(turn) - left * np.sin(turn)
    return np.stack([left, back / np.linalg.norm(back), up / np.linalg.norm(up)])


def build_spine(scale: float, kyphosis_deg: float, curvature_deg: float,
                jitter: np.random.Generator | None = None) -> tuple[Vertebra, ...]:
    """C6 to L5 from head to foot; the centre of T7 lies at z = 0.

    jitter: draws small deviations of each vertebra's size (2 %), so that no two spines are scaled copies.
    """
    sizes = np.array([_WIDTH_MM, _DEPTH_MM, _HEIGHT_MM, _DISC_MM], float) * scale
    if jitter is not None:
        sizes = sizes * (1 + np.clip(jitter.normal(0, 0.02, sizes.shape), -0.04, 0.04)) \
            * (1 + np.clip(jitter.normal(0, 0.03, (4, 1)), -0.06, 0.06))
    axes = [_axes(a * kyphosis_deg, b * curvature_deg, AXIAL_PER_COBB * curvature_deg * np.cos(np.pi * (n - 10) / 16))
            for n, (a, b) in enumerate(zip(_TILT_KYPHOSIS, _SIDE_TILT, strict=True))]
    centres = [np.zeros(3)]
    for n in range(len(LEVELS) - 1):
        centre = centres[-1] - axes[n][2] * (sizes[2, n] + sizes[3, n]) / 2
        centres.append(centre - axes[n + 1][2] * (sizes[2, n + 1] + sizes[3, n]) / 2)
    middle = np.array(centres)
    shift = np.array([np.mean(middle[2:17, 0]), middle[8, 1] - T7_Y_MM * scale, middle[8, 2]])
    return tuple(Vertebra(name, *sizes[:, n], middle[n] - shift, axes[n]) for n, name in enumerate(LEVELS))


class SpineLine:
    """The line through the bodies' centres, and positions named by level number (T1 is 1, L1 is 13)."""

    def __init__(self, spine: tuple[Vertebra, ...]) -> None:
        self.numbers = np.array([v.index for v in spine], float)
        self.points = np.array([v.centre for v in spine])

    def number_at(self, z_mm: np.ndarray) -> np.ndarray:
        """Level number at a height; ends are continued in a straight line."""
        z, n = self.points[::-1, 2], self.numbers[::-1]
        low, high = (n[1] - n[0]) / (z[1] - z[0]), (n[-1] - n[-2]) / (z[-1] - z[-2])
        z_mm = np.asarray(z_mm, float)
        return np.interp(z_mm, z, n) + low * np.minimum(z_mm - z[0], 0) + high * np.maximum(z_mm - z[-1], 0)

    def at(self, number: float | np.ndarray) -> np.ndarray:
        """(..., 3) point of the line at a level number."""
        return np.stack([np.interp(number, self.numbers, self.points[:, c]) for c in range(3)], axis=-1)

    def z(self, number: float) -> float:
        return float(self.at(number)[2])

    def xy_at(self, z_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the line at heights."""
        z = self.points[::-1, 2]
        return np.interp(z_mm, z, self.points[::-1, 0]), np.interp(z_mm, z, self.points[::-1, 1])
