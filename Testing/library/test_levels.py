"""Separating and naming vertebral bodies on made-up spines whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDLib.anatomy import BONES
from LowDoseBMDLib.bodies import Body, Spine, separate
from LowDoseBMDLib.bones import Bones
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.keypoints import Heatmaps
from LowDoseBMDLib.level_ribs import kind_of, map_ribs, own_ribs
from LowDoseBMDLib.levels import name_levels

CHANNELS = ("T10", "T11", "T12", "L1", "L2", "L3", "L4")
HEIGHT_MM = 30.0


def _grid(shape, spacing):
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = -0.5 * spacing * np.array([shape[2] - 1, shape[1] - 1, 0])
    return Geometry(shape, matrix)


def _spine(names):
    """Bodies 30 mm apart, head to foot, the lowest at z = 20 mm."""
    bodies = [Body(n + 1, np.array([0.0, 0.0, 20.0 + HEIGHT_MM * (len(names) - 1 - n)]), 25000.0)
              for n in range(len(names))]
    grid = _grid((4, 4, 4), 1.0)
    empty = np.zeros(grid.shape_kji, np.float32)
    return Spine(grid, empty, empty, empty.astype(np.uint8), tuple(bodies))


def _bones(spine, ribbed, short=(3,), shorter=()):
    """Level ribs beside the bodies whose index is in ``ribbed``, from 30 mm to the side, as true ones lie higher further in,
    to 120 mm, 75 mm those in ``short``, 104 mm in ``shorter``."""
    grid = _grid((110, 40, 100), 3.0)
    chance = np.zeros((len(BONES), *grid.shape_kji), np.float32)
    for n in ribbed:
        z = spine.bodies[n].centre_lps_mm[2]
        for side in (-1, 1):
            end_mm = 75.0 if n in short else 104.0 if n in shorter else 120.0
            ends = [grid.to_kji(np.array([side * x, 15.0, z - 6.0])) for x in (30.0, end_mm)]
            (k, j, a), (_, _, b) = np.round(ends).astype(int)
            chance[BONES.index("ribs"), k - 1:k + 2, j - 2:j + 3, min(a, b):max(a, b) + 1] = 1.0
    return Bones(grid, chance)


def _heat(spine, names, value=0.8):
    """A heatmap spot at each body for the name given to it."""
    grid = _grid((70, 30, 30), 5.0)
    chance = np.zeros((len(CHANNELS), *grid.shape_kji), np.float32)
    for body, name in zip(spine.bodies, names, strict=True):
        if name in CHANNELS:
            k, j, i = np.round(grid.to_kji(body.centre_lps_mm)).astype(int)
            chance[CHANNELS.index(name), k, j, i] = value
    return Heatmaps(CHANNELS, grid, chance)


TRUE = ("T9", "T10", "T11", "T12", "L1", "L2", "L3")


def test_agreeing_witnesses_name_the_chain_without_asking():
    spine = _spine(TRUE)
    numbering = name_levels(spine, _heat(spine, TRUE), _bones(spine, range(4), shorter=(2,)))
    assert numbering.names == TRUE
    assert numbering.probability > 0.95 and not numbering.asks


def test_disagreeing_witnesses_ask_for_confirmation():
    spine = _spine(TRUE)
    shifted = ("T10", "T11", "T12", "L1", "L2", "L3", "L4")
    numbering = name_levels(spine, _heat(spine, shifted), _bones(spine, range(4)))
    assert [flag.code for flag in numbering.flags] == ["level_uncertain"]
    assert {numbering.names[4], numbering.second[4]} == {"L1", "L2"}


def test_two_bodies_where_one_vertebra_is_expected_ask_for_confirmation():
    """A vertebra drawn as two moves all names below it; heatmaps that go along do not make these certain."""
    names = (*TRUE, "L4")
    spine = _spine(names)
    bones = _bones(spine, range(4), shorter=(2,))
    raised = [Body(body.number, body.centre_lps_mm + np.array([0.0, 0.0, 13.0 * (n >= 6)]), 9000.0)
              for n, body in enumerate(spine.bodies)]
    close = Spine(spine.geometry, spine.body, spine.posterior, spine.numbers, tuple(raised))
    assert not name_levels(spine, _heat(spine, names), bones).asks
    numbering = name_levels(close, _heat(close, names), bones)
    assert numbering.names == names and numbering.probability > 0.95 and numbering.asks
    assert "one vertebra may have been taken for two" in numbering.flags[0].sentence


def test_missing_twelfth_ribs_do_not_shift_the_levels_silently():
    spine = _spine(TRUE)
    numbering = name_levels(spine, _heat(spine, TRUE), _bones(spine, range(3), short=()))
    assert numbering.names == TRUE or numbering.asks


def test_only_ribbed_vertebrae_give_no_lumbar_name():
    names = ("T8", "T9", "T10", "T11", "T12")
    spine = _spine(names)
    numbering = name_levels(spine, _heat(spine, names), _bones(spine, range(5), short=(4,)))
    assert numbering.names == names
    assert not any(name and name.startswith("L") for name in numbering.names)


def test_without_any_evidence_nothing_is_certain():
    spine = _spine(TRUE)
    numbering = name_levels(spine, _heat(spine, TRUE, value=0.0), _bones(spine, []))
    assert numbering.probability < 0.9


def test_a_body_that_was_not_found_leaves_its_name_free():
    spine = _spine(TRUE)
    kept = Spine(spine.geometry, spine.body, spine.posterior, spine.numbers, spine.bodies[:4] + spine.bodies[5:])
    names = TRUE[:4] + TRUE[5:]
    numbering = name_levels(kept, _heat(kept, names), _bones(kept, range(4)))
    assert numbering.names == names


@pytest.mark.parametrize("gap_mm", [6.0, 0.0])
def test_bodies_are_separated_even_when_bridged(gap_mm):
    """Three 40 x 28 x 24 mm bodies; without a gap a 10 mm bridge (an osteophyte) joins neighbours."""
    grid = _grid((100, 40, 50), 1.5)
    z, y, x = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * 1.5 for n in grid.shape_kji], indexing="ij")
    chance = np.zeros(grid.shape_kji, np.float32)
    tops = np.array([-36.0, 0.0, 36.0])
    for centre in tops:
        chance[(np.abs(z - centre) <= 12) & ((x / 20) ** 2 + (y / 14) ** 2 <= 1)] = 1.0
    if gap_mm == 0.0:
        chance[(np.abs(z) <= 36) & (np.abs(y + 10) <= 4) & (np.abs(x) <= 5)] = 1.0
    numbers, bodies = separate(chance, grid)
    assert len(bodies) == 3
    found = [body.centre_lps_mm[2] - grid.to_lps(np.array([49.5, 0, 0]))[2] for body in bodies]
    np.testing.assert_allclose(found, tops[::-1], atol=2.0)
    assert numbers.max() == 3


def test_a_long_lowest_rib_is_the_eleventh():
    """The twelfth rib was missed: what carries the lowest, long rib is T11, however the heatmaps lean."""
    spine = _spine(TRUE)
    ribs = map_ribs(spine.bodies, _bones(spine, range(3), short=()))
    kinds = [kind_of(rib) for rib in own_ribs(spine.bodies, ribs)]
    assert kinds == ["long", "long", "long", "none", "none", "none", "hidden"]
    leaning = _heat(spine, ("T10", "T11", "T12", "L1", "L2", "L3", "L4"), value=0.4)
    numbering = name_levels(spine, leaning, _bones(spine, range(3), short=()))
    assert numbering.names == TRUE or numbering.asks


@pytest.mark.parametrize("count", [1, 2, 30])
def test_any_number_of_bodies_is_named_without_repeating_a_name(count):
    spine = _spine(["T12"] * count)
    numbering = name_levels(spine, _heat(spine, [None] * count), _bones(spine, []))
    named = [name for name in numbering.names if name]
    assert len(numbering.names) == count and len(set(named)) == len(named)
