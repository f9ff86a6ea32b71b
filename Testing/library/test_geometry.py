"""Averaging a CT for the networks, and drawing their regions on its grid, against plain arithmetic and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDLib.geometry import Geometry, draw_mask, resample
from scipy import ndimage


def grid(shape_kji: tuple[int, int, int], spacing_mm: tuple[float, float, float], origin_mm=(-20.0, 5.0, 30.0)) -> Geometry:
    matrix = np.diag([*spacing_mm, 1.0])
    matrix[:3, 3] = origin_mm
    return Geometry(shape_kji, matrix)


@pytest.mark.parametrize("high_hu", [300, 30000])
def test_a_coarser_grid_holds_the_means_of_whole_blocks(high_hu: int) -> None:
    """Metal of 30000 HU, summed over a block, does not fit the CT's own type. Halves are rounded up."""
    source = grid((6, 9, 8), (1.0, 1.0, 1.0))
    hu = np.random.default_rng(3).integers(-1024, high_hu, source.shape_kji).astype(np.int16)
    found = resample(hu, source, source.with_spacing((2.0, 2.0, 3.0)), outside=0)
    padded = np.pad(hu.astype(int), ((0, 0), (0, 1), (0, 0)), mode="edge")
    means = padded.reshape(2, 3, 5, 2, 4, 2).mean(axis=(1, 3, 5))
    np.testing.assert_array_equal(found, np.floor(means + 0.5))


def test_filler_counts_as_air_where_that_is_asked_for() -> None:
    source = grid((4, 4, 4), (1.0, 1.0, 1.0))
    hu = np.full(source.shape_kji, 100, np.int16)
    hu[0, 0, 0] = -30000
    target = source.with_spacing(2.0)
    assert resample(hu, source, target, 0, lowest=-1024.0)[0, 0, 0] == round((7 * 100 - 1024) / 8)
    assert resample(hu, source, target, 0)[0, 0, 0] == round((7 * 100 - 30000) / 8)


def test_a_part_of_the_ct_reads_as_it_does_in_the_whole() -> None:
    source = grid((30, 40, 40), (0.7, 0.7, 1.3))
    hu = np.random.default_rng(5).integers(-1000, 1000, source.shape_kji).astype(np.int16)
    whole = source.with_spacing(1.5)
    start, shape = (5, 4, 6), (9, 8, 7)
    part = resample(hu, source, whole.crop(start, shape), outside=0)
    inside = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    assert np.abs(part - resample(hu, source, whole, outside=0)[inside]).max() <= 1, "the rounding of its place"


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 2.0), (0.5, 0.5, 0.5), (2.9, 2.9, 2.9)])
def test_a_region_is_drawn_where_the_interpolated_chance_exceeds_the_threshold(spacing_mm) -> None:
    source = grid((40, 37, 45), (3.0, 3.0, 3.0))
    noise = np.random.default_rng(1).random(source.shape_kji)
    chance = np.clip(3 * ndimage.gaussian_filter(noise, 2.0) - 1.0, 0, 1).astype(np.float32)
    target = source.with_spacing(spacing_mm)
    kji = source.to_kji(target.to_lps(np.moveaxis(np.indices(target.shape_kji), 0, -1)))
    expected = ndimage.map_coordinates(chance, np.moveaxis(kji, -1, 0), order=1, mode="nearest")
    drawn = draw_mask(chance, source, target).full(target)
    clear = (np.abs(expected - 0.5) > 1e-5) & np.all((kji > -0.5) & (kji < np.array(source.shape_kji) - 0.5), axis=-1)
    assert 0.05 < drawn.mean() < 0.95
    np.testing.assert_array_equal(drawn[clear], expected[clear] > 0.5)


def test_grids_that_are_turned_against_each_other_are_refused() -> None:
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    with pytest.raises(ValueError, match="same directions"):
        draw_mask(np.ones((4, 4, 4), np.float32), grid((4, 4, 4), (1.0, 1.0, 1.0)), Geometry((4, 4, 4), turned))
