"""Drawing slice by slice: labelled slices and the adaptive brush."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDTrainerLib.slices import adaptive_brush, labelled_slices


def a_region() -> np.ndarray:
    """(9, 6, 5): slices 1, 2, 4 and 7 of axis 0 are drawn, each at another place."""
    mask = np.zeros((9, 6, 5), bool)
    for index in (1, 2, 4, 7):
        mask[index, index % 6, 1:3] = True
    return mask


def test_labelled_slices_are_found_along_every_axis() -> None:
    assert np.flatnonzero(labelled_slices(a_region(), 0)).tolist() == [1, 2, 4, 7]
    assert np.flatnonzero(labelled_slices(a_region(), 1)).tolist() == [1, 2, 4]
    assert np.flatnonzero(labelled_slices(a_region(), 2)).tolist() == [1, 2]


def test_the_adaptive_brush_stops_at_an_edge_and_at_what_does_not_hang_together() -> None:
    hu = np.full((20, 40, 40), 50.0)
    hu[:, :, 15:20] = 800.0
    near, box = adaptive_brush(hu, (2.0, 1.0, 1.0), (10, 20, 10), 12.0)
    painted = np.zeros(hu.shape, bool)
    painted[box] = near
    assert not painted[:, :, 14:].any(), "neither the wall nor the soft tissue behind it"
    k, j, i = np.indices(hu.shape)
    ball = (2.0 * (k - 10)) ** 2 + (j - 20.0) ** 2 + (i - 10.0) ** 2 <= 12.0**2
    assert np.array_equal(painted[:, :, :13], ball[:, :, :13]), "away from the edge it is the whole ball, in mm"


def test_the_adaptive_brush_paints_bone_only_from_inside_and_one_slice_only_when_flat() -> None:
    hu = np.full((9, 30, 30), 0.0)
    hu[:, 10:20, 10:20] = 600.0
    near, box = adaptive_brush(hu, (2.5, 1.0, 1.0), (4, 15, 15), 12.0, flat_axis=0)
    assert box[0] == slice(4, 5)
    painted = np.zeros(hu.shape, bool)
    painted[box] = near
    assert painted[4, 11:19, 11:19].all()
    assert not (painted & (hu == 0.0)).any()


def test_a_brush_beside_the_ct_is_refused() -> None:
    hu = np.zeros((4, 4, 4))
    with pytest.raises(ValueError, match="does not touch the CT"):
        adaptive_brush(hu, (1, 1, 1), (4, 0, 0), 5.0)
    with pytest.raises(ValueError, match="radius 0 mm"):
        adaptive_brush(hu, (1, 1, 1), (0, 0, 0), 0.0)
