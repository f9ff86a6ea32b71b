"""Where a snake may go: a CT becomes a speed image, positive inside of what is sought and negative outside.

The three ways of ITK-SNAP (Yushkevich et al., NeuroImage 31:1116, 2006): intensity between two thresholds, clusters of
intensities, and attraction to edges; and one for whole bones, marrow within cortex. Arrays are (k, j, i) in HU; the speed
is float32 without a unit, -1 to 1 (edges: 0 to 1), and says how fast the front moves at a balloon force of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

BONE_LOWER_HU = 120.0
"""Between muscle with contrast agent (36 to 66 HU in the shared scans) and cancellous bone of the young. Judgement."""

BONE_UPPER_HU = 3000.0
"""Above cortical bone; metal is brighter."""

SOFT_TISSUE_HU = 30.0
"""Over so many HU the speed in whole bones goes to 76 percent: as much as fat, muscle and discs vary. Judgement."""

MOST_SAMPLES = 50_000
"""Voxels from which the clusters are learnt; more change their means by less than a HU."""

MOST_ROUNDS = 100
"""Rounds of k-means; intensities settle in 10 to 30."""


@dataclass(frozen=True)
class Threshold:
    """Between two thresholds the speed is positive. smoothness_hu: over how many HU it goes from 0 to 76 percent of its
    full value (tanh). sigma_mm: the CT is smoothed by a Gaussian of this width first; 0 leaves it as it is.
    gap_mm: dark gaps between bright walls that are narrower than this, such as joints and discs, are made darker, so
    that the front does not pass to the next bone; 0 leaves them as they are.
    """

    lower_hu: float = BONE_LOWER_HU
    upper_hu: float = BONE_UPPER_HU
    smoothness_hu: float = 60.0
    sigma_mm: float = 0.5
    gap_mm: float = 0.0


@dataclass(frozen=True)
class Clusters:
    """The intensities fall into ``count`` clusters; those of ``foreground`` (0 is the darkest; empty: the brightest) are
    sought.
    """

    count: int = 3
    foreground: tuple[int, ...] = ()
    sigma_mm: float = 1.0


@dataclass(frozen=True)
class Edges:
    """The front slows down where the smoothed CT changes. contrast_hu_mm: the gradient at which the speed is one half;
    exponent: how sharply it falls there.
    """

    sigma_mm: float = 1.0
    contrast_hu_mm: float = 40.0
    exponent: float = 3.0


@dataclass(frozen=True)
class WholeBone:
    """Marrow within cortex. No threshold finds both: marrow is as dark as a disc. The front passes from marrow to cortex,
    where it gets brighter, and is held where it gets darker outwards: at soft tissue, discs and joints.

    lower_hu: below it is soft tissue, and the front goes back. cortex_hu: above it is bone, and nothing holds the front.
    fall_hu_mm: the fall of HU outwards at which the speed is one half. sigma_mm and gap_mm: as of Threshold.
    """

    lower_hu: float = 60.0
    cortex_hu: float = 300.0
    fall_hu_mm: float = 7.0
    sigma_mm: float = 0.7
    gap_mm: float = 3.0


Presegmentation = Threshold | Clusters | Edges | WholeBone


@dataclass(frozen=True, eq=False)
class Speed:
    """still: (k, j, i) float32, the speed of a front wherever it comes from. The others, None where they play no part,
    let it depend on that: steps, (3, k, j, i) float32, change of HU per mm along k, j, i, of the fall that halves the
    speed; least, (k, j, i) float32, the speed that no fall takes away.
    """

    still: np.ndarray
    steps: np.ndarray | None = None
    least: np.ndarray | None = None

    def part(self, window: tuple[slice, ...]) -> Speed:
        """The speed in a window of its grid."""
        if self.steps is None or self.least is None:
            return Speed(self.still[window])
        return Speed(self.still[window], self.steps[(slice(None), *window)], self.least[window])

    def towards(self, normals: Sequence[np.ndarray]) -> np.ndarray:
        """(k, j, i) float32 speed of a front that moves along the normals, three arrays of length 1 (or 0: nowhere)."""
        if self.steps is None or self.least is None:
            return self.still
        change = sum(step * normal for step, normal in zip(self.steps, normals, strict=True))
        held = self.still / (1.0 + np.minimum(change, 0.0) ** 2)
        return np.where(self.still > 0, np.maximum(held, self.least), self.still).astype(np.float32)


def speed_image(hu: np.ndarray, spacing_kji_mm: Sequence[float], way: Presegmentation) -> Speed:
    """The speed of a front in this CT (k, j, i).

    Raises ValueError for settings that cannot give one.
    """
    if isinstance(way, Threshold):
        return Speed(_threshold(hu, spacing_kji_mm, way))
    if isinstance(way, Clusters):
        return Speed(_clusters(hu, spacing_kji_mm, way))
    if isinstance(way, Edges):
        return Speed(_edges(hu, spacing_kji_mm, way))
    return _whole_bone(hu, spacing_kji_mm, way)


def cluster_centres_hu(hu: np.ndarray, count: int) -> np.ndarray:
    """(count,) mean HU of the clusters, ascending: k-means on intensities, begun at their percentiles (no chance in it).

    Raises ValueError when the CT has fewer different values than clusters.
    """
    if count < 2:
        raise ValueError(f"{count} cluster: at least 2 are needed, one for what is sought and one for the rest")
    values = np.sort(hu, axis=None)
    values = values[:: max(1, values.size // MOST_SAMPLES)].astype(float)
    centres = np.unique(np.percentile(values, 100 * (np.arange(count) + 0.5) / count))
    if centres.size < count:
        centres = np.linspace(values[0], values[-1], count)
    for _ in range(MOST_ROUNDS):
        parts = np.split(values, np.searchsorted(values, (centres[1:] + centres[:-1]) / 2))
        if not all(part.size for part in parts):
            raise ValueError(f"{count} clusters are more than this box has different intensities: choose fewer")
        moved = np.array([part.mean() for part in parts])
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def smoothed(hu: np.ndarray, spacing_kji_mm: Sequence[float], sigma_mm: float) -> np.ndarray:
    """(k, j, i) float32, convolved with a Gaussian that is as wide in mm along every axis."""
    array = np.asarray(hu, dtype=np.float32)
    return ndimage.gaussian_filter(array, [sigma_mm / s for s in spacing_kji_mm]) if sigma_mm > 0 else array


# --- the three ways ----------------------------------------------------------------------------------------


def _threshold(hu: np.ndarray, spacing_kji_mm: Sequence[float], way: Threshold) -> np.ndarray:
    _require_order(way.lower_hu, way.upper_hu)
    if way.smoothness_hu <= 0:
        raise ValueError(f"a smoothness of {way.smoothness_hu:g} HU: it must be above 0")
    image = smoothed(hu, spacing_kji_mm, way.sigma_mm)
    if way.gap_mm > 0:
        image = darken_gaps(image, spacing_kji_mm, way.gap_mm, 2 * way.lower_hu)
    nearer = np.minimum(image - way.lower_hu, way.upper_hu - image)
    return np.tanh(nearer / way.smoothness_hu).astype(np.float32)


def _require_order(lower_hu: float, upper_hu: float) -> None:
    if upper_hu <= lower_hu:
        raise ValueError(f"thresholds {lower_hu:g} to {upper_hu:g} HU hold nothing: the upper must be the higher")


def darken_gaps(image: np.ndarray, spacing_kji_mm: Sequence[float], gap_mm: float, wall_hu: float) -> np.ndarray:
    """(k, j, i) the image less its black top-hat: what is darker than its two sides, at most ``gap_mm`` apart, is darker
    by as much again. Walls brighter than wall_hu count as wall_hu, so that the marrow of a thin bone stays what it is.
    """
    import SimpleITK as sitk

    capped = sitk.GetImageFromArray(np.minimum(image, wall_hu))
    radius_ijk = [max(1, round(0.5 * gap_mm / s)) for s in spacing_kji_mm[::-1]]
    closed = sitk.GetArrayFromImage(sitk.GrayscaleMorphologicalClosing(capped, radius_ijk, sitk.sitkBall))
    return image - (closed - np.minimum(image, wall_hu))


def _clusters(hu: np.ndarray, spacing_kji_mm: Sequence[float], way: Clusters) -> np.ndarray:
    """How much nearer (in HU, of their distance) the voxel is to the nearest cluster that is sought than to any other."""
    image = smoothed(hu, spacing_kji_mm, way.sigma_mm)
    centres = cluster_centres_hu(image, way.count)
    sought = sorted(set(way.foreground)) or [way.count - 1]
    if not set(sought) < set(range(way.count)):
        raise ValueError(f"clusters {sought} of {way.count}: choose some, not all, of 0 to {way.count - 1}")
    others = [n for n in range(way.count) if n not in sought]
    near, far = (_nearest(image, centres[part]) for part in (sought, others))
    return ((far - near) / np.maximum(far + near, 1e-6)).astype(np.float32)


def _nearest(image: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.min([np.abs(image - centre) for centre in centres], axis=0)


def _edges(hu: np.ndarray, spacing_kji_mm: Sequence[float], way: Edges) -> np.ndarray:
    """1 / (1 + (gradient / contrast)^exponent), as in Caselles, Kimmel and Sapiro, IJCV 22:61, 1997."""
    if way.contrast_hu_mm <= 0:
        raise ValueError(f"an edge contrast of {way.contrast_hu_mm:g} HU/mm: it must be above 0")
    gradients = np.gradient(smoothed(hu, spacing_kji_mm, way.sigma_mm), *spacing_kji_mm)
    steepness = np.sqrt(sum(g * g for g in gradients)) / way.contrast_hu_mm
    return (1.0 / (1.0 + steepness**way.exponent)).astype(np.float32)


def _whole_bone(hu: np.ndarray, spacing_kji_mm: Sequence[float], way: WholeBone) -> Speed:
    _require_order(way.lower_hu, way.cortex_hu)
    if way.fall_hu_mm <= 0:
        raise ValueError(f"a fall of {way.fall_hu_mm:g} HU/mm: it must be above 0")
    image = smoothed(hu, spacing_kji_mm, way.sigma_mm)
    if way.gap_mm > 0:
        image = darken_gaps(image, spacing_kji_mm, way.gap_mm, way.cortex_hu)
    steps = np.stack(np.gradient(image, *spacing_kji_mm)) / way.fall_hu_mm
    still = np.tanh((image - way.lower_hu) / SOFT_TISSUE_HU)
    least = np.tanh((image - way.cortex_hu) / (2 * SOFT_TISSUE_HU))
    return Speed(still.astype(np.float32), steps.astype(np.float32), least.astype(np.float32))
