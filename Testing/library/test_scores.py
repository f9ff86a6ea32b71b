"""Scores: answers known by arithmetic, and MONAI's metrics as a second opinion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDTrainerLib.scores import (
    SurfaceScores,
    cut_to_both,
    dice,
    identified,
    keypoint_errors_mm,
    surface_scores,
)

SPACING_KJI_MM = (2.5, 0.7, 0.9)


def cube(start_kji: tuple[int, int, int], side: int = 10, shape: tuple[int, int, int] = (30, 30, 30)) -> np.ndarray:
    array = np.zeros(shape, bool)
    array[tuple(slice(s, s + side) for s in start_kji)] = True
    return array


def test_dice_of_a_shifted_cube() -> None:
    assert dice(cube((5, 5, 5)), cube((5, 5, 5))) == 1.0
    assert dice(cube((5, 5, 5)), cube((5, 5, 8))) == pytest.approx(0.7)
    assert dice(cube((5, 5, 5)), cube((5, 5, 15))) == 0.0


@pytest.mark.parametrize(("shift", "millimetres"), [((1, 0, 0), 2.5), ((0, 2, 0), 1.4), ((0, 0, 3), 2.7)])
def test_one_layer_shifted_along_an_axis_lies_that_far_off(shift: tuple[int, int, int], millimetres: float) -> None:
    """Two slabs without common voxels: each voxel's nearest partner lies straight across."""
    plane = np.zeros((30, 30, 30), bool)
    axis = int(np.flatnonzero(shift)[0])
    index: list = [slice(5, 25)] * 3
    index[axis] = 10
    plane[tuple(index)] = True
    moved = np.roll(plane, shift, axis=(0, 1, 2))
    found = surface_scores(plane, moved, SPACING_KJI_MM)
    assert found.hd95_mm == pytest.approx(millimetres) and found.mean_mm == pytest.approx(millimetres)
    assert found.nsd == (1.0 if millimetres <= 2.0 else 0.0)


def test_a_shell_round_a_cube() -> None:
    """A 10-cube inside a 14-cube of 1 mm voxels: every inner surface voxel is 2 mm from the outer surface, of the
    outer surface those over the inner faces are too, and edges and corners farther."""
    inner, outer = cube((10, 10, 10), 10), cube((8, 8, 8), 14)
    within = 10**3 - 8**3 + 6 * 10**2
    total = 10**3 - 8**3 + 14**3 - 12**3
    assert surface_scores(inner, outer, (1, 1, 1), 2.0).nsd == pytest.approx(within / total)
    assert surface_scores(inner, outer, (1, 1, 1), 1.9).nsd == 0.0


def test_empty_regions() -> None:
    nothing, something = np.zeros((30, 30, 30), bool), cube((5, 5, 5))
    assert math.isnan(dice(nothing, nothing))
    assert all(math.isnan(value) for value in vars(surface_scores(nothing, nothing, (1, 1, 1))).values())
    for a, b in ((nothing, something), (something, nothing)):
        assert dice(a, b) == 0.0
        assert surface_scores(a, b, (1, 1, 1)) == SurfaceScores(0.0, math.inf, math.inf)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one grid"):
        dice(cube((5, 5, 5)), cube((5, 5, 5), shape=(31, 30, 30)))


def test_monai_gives_the_same_scores() -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )
    from scipy import ndimage

    rng = np.random.default_rng(4)
    fields = [ndimage.gaussian_filter(rng.normal(size=(28, 40, 36)), 3) for _ in range(2)]
    a, b = (field > 0.01 for field in (fields[0], 0.8 * fields[0] + 0.4 * fields[1]))
    pair = [torch.from_numpy(np.stack([~x, x])[None]) for x in (a, b)]
    own = surface_scores(a, b, SPACING_KJI_MM)
    spacing = list(SPACING_KJI_MM)
    assert dice(a, b) == pytest.approx(float(compute_dice(*pair, include_background=False)), rel=1e-5)
    assert own.nsd == pytest.approx(float(compute_surface_dice(*pair, [2.0], spacing=spacing)), rel=1e-3)
    assert own.hd95_mm == pytest.approx(float(compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)), rel=1e-4)
    assert own.mean_mm == pytest.approx(
        float(compute_average_surface_distance(*pair, symmetric=True, spacing=spacing)), rel=1e-3)
    assert 0.3 < own.nsd < 0.999, "the regions differ"


def test_masks_are_cut_to_the_box_of_both() -> None:
    full = cube((3, 4, 5), 4), cube((8, 9, 2), 6)
    a, b = cut_to_both(*(Mask.from_array(array) for array in full))
    assert a.shape == (11, 11, 7) and a.sum() == 64 and b.sum() == 216
    np.testing.assert_array_equal(a, full[0][3:14, 4:15, 2:9])
    alone, none = cut_to_both(Mask.from_array(full[0]), NO_VOXELS)
    assert alone.all() and alone.shape == (4, 4, 4) and not none.any()
    assert math.isnan(dice(*cut_to_both(NO_VOXELS, NO_VOXELS)))


def test_keypoint_errors() -> None:
    truth = (Keypoint("T12", (0, 0, 0)), Keypoint("L1", (0, 0, -30)))
    assert keypoint_errors_mm((Keypoint("T12", (3, 4, 0)),), truth) == {"T12": 5.0, "L1": math.inf}


def test_identification_follows_verse() -> None:
    truth = {"T12": (0, 0, 0), "L1": (0, 0, -30), "L2": (0, 0, -60)}
    shifted = {"T12": (0, 0, -30), "L1": (0, 0, -60), "L2": (0, 0, -90)}
    assert identified(truth, truth) == dict.fromkeys(truth, True)
    assert identified(shifted, truth) == dict.fromkeys(truth, False)
    assert identified({"L1": (0, 19, -30)}, truth) == {"T12": False, "L1": True, "L2": False}
    assert not identified({"L1": (0, 20, -30)}, truth)["L1"], "20 mm is too far"
    assert not identified({"L1": (0, 10, -30), "T12": (0, 9, -30)}, truth)["L1"], "another level lies nearer"
