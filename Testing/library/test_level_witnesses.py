"""What each witness of the levels says, on spines and ribs drawn by arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LowDoseBMDLib.anatomy import BONES, SPINE
from LowDoseBMDLib.bodies import Body, Spine
from LowDoseBMDLib.bones import Bones
from LowDoseBMDLib.flags import LEVELS_NAMED
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.keypoints import Heatmaps
from LowDoseBMDLib.level_chain import STEP_MM, chain_of, crowded
from LowDoseBMDLib.level_ribs import HIGHER_MM, OwnRibs, kind_of, map_ribs, own_ribs
from LowDoseBMDLib.level_witnesses import BELOW_CENTRE, count_witness, heat_witness, rib_witness, sacrum_witness
from LowDoseBMDLib.levels import name_levels

WHOLE = SPINE[SPINE.index("C6"):SPINE.index("L4")]
T12, L1, L5 = (SPINE.index(name) for name in ("T12", "L1", "L5"))
VOXEL_MM = 3.0


def bodies_of(names: tuple[str, ...], lowest_mm: float = 40.0) -> tuple[Body, ...]:
    """Bodies as far apart as in an adult, head to foot."""
    first = SPINE.index(names[0])
    depth = np.concatenate([[0.0], np.cumsum(STEP_MM[first:first + len(names) - 1])])
    return tuple(Body(n + 1, np.array([0.0, 0.0, lowest_mm + depth[-1] - z]), 25000.0) for n, z in enumerate(depth))


def spine_of(bodies: tuple[Body, ...]) -> Spine:
    blank = np.zeros((1, 1, 1), np.float32)
    return Spine(Geometry((1, 1, 1), np.eye(4)), blank, blank, blank.astype(np.uint8), bodies)


def bones_of(bodies: tuple[Body, ...], names: tuple[str, ...], pairs: int = 12, missing: tuple[int, ...] = (),
             top_mm: float = 30.0, reach_mm: dict[int, float] | None = None) -> Bones:
    """Ribs of a chest, bars to both sides at the height that they have there. top_mm: scan above the first body. missing:
    ribs that the network did not show, counted from 1. reach_mm: of ribs that do not reach 120 mm."""
    steps = {name: STEP_MM[SPINE.index(name)] for name in names}
    height = bodies[0].centre_lps_mm[2] + top_mm
    shape = (round(height / VOXEL_MM), 40, 90)
    matrix = np.diag([VOXEL_MM] * 3 + [1.0])
    matrix[:3, 3] = (-VOXEL_MM * (shape[2] - 1) / 2, -45.0, VOXEL_MM / 2)
    grid = Geometry(shape, matrix)
    chance = np.zeros((len(BONES), *shape), np.float32)
    places = {name: body.centre_lps_mm for name, body in zip(names, bodies, strict=True)}
    for number in range(1, pairs + 1):
        name = SPINE[SPINE.index("T1") + number - 1]
        if name not in places or number in missing:
            continue
        z = places[name][2] - BELOW_CENTRE[number][0] * steps[name]
        for side in (-1, 1):
            behind = 5.0 if number == 1 else 23.0  # the first rib lies before the second, hardly higher
            ends = [grid.to_kji(np.array([side * x, behind, z])) for x in (21.0, (reach_mm or {}).get(number, 120.0))]
            (k, j, a), (_, _, b) = np.round(ends).astype(int)
            if 0 < k < shape[0] - 1:
                chance[BONES.index("ribs"), k - 1:k + 1, j - 2:j + 3, min(a, b):max(a, b) + 1] = 1.0
    return Bones(grid, chance, np.zeros(shape, np.float32))


SHORT_TWELFTH = {12: 75.0}


def no_heat() -> Heatmaps:
    return Heatmaps(("T12", "L1", "L2"), Geometry((2, 2, 2), np.eye(4)), np.zeros((3, 2, 2, 2), np.float32))


# --- the chain ---------------------------------------------------------------------------------------------

def test_a_name_is_carried_along_the_chain() -> None:
    """One body known for sure names its neighbours, where distances are the usual ones."""
    bodies = bodies_of(("T10", "T11", "T12", "L1", "L2"))
    emission = np.full((5, len(SPINE) + 2), 1e-6)
    emission[1:] = 1.0
    emission[0, SPINE.index("T10")] = 1.0
    spread = chain_of(np.array([body.centre_lps_mm for body in bodies])).spread(emission)
    assert [SPINE[place] for place in spread.argmax(axis=1)] == ["T10", "T11", "T12", "L1", "L2"]
    assert spread[4, SPINE.index("L2")] > 0.9
    np.testing.assert_allclose(spread.sum(axis=1), 1.0)


@pytest.mark.parametrize("missed", [("T11",), ("T9", "T10"), ("T5", "T11")])
def test_bodies_that_were_missed_leave_their_names_free(missed: tuple[str, ...]) -> None:
    kept = [(name, body) for name, body in zip(WHOLE, bodies_of(WHOLE), strict=True) if name not in missed]
    emission = np.ones((len(kept), len(SPINE) + 2))
    emission[-1] = np.arange(len(SPINE) + 2) == SPINE.index(WHOLE[-1])
    found = chain_of(np.array([body.centre_lps_mm for _, body in kept])).best(emission)
    assert [SPINE[place] for place in found] == [name for name, _ in kept]


def test_a_distance_between_one_and_two_is_doubtful() -> None:
    places = np.array([0.0, 30.0, 60.0, 60.0 + 44.0, 134.0])
    emission = np.ones((5, len(SPINE) + 2))
    emission[0] = np.arange(len(SPINE) + 2) == SPINE.index("T9")
    spread = chain_of(np.column_stack([0 * places, 0 * places, -places])).spread(emission)
    assert spread[1].max() > 0.9 > spread[3].max()


@pytest.mark.parametrize(("close", "found"), [(2, True), (0, False), (4, False)])
def test_only_what_the_scan_may_cut_lies_close_without_doubt(close: int, found: bool) -> None:
    """One distance of five is 0.6 of its usual one: within the chain, at its first body, at its last one."""
    places = np.arange(T12 - 1, T12 + 5)
    steps = STEP_MM[places[:-1]] * np.where(np.arange(5) == close, 0.6, 1.0)
    heights = np.concatenate([[0.0], -np.cumsum(steps)])
    assert crowded(np.column_stack([0 * heights, 0 * heights, heights]), places) == found


# --- ribs --------------------------------------------------------------------------------------------------

def test_ribs_counted_from_the_first_name_the_chain() -> None:
    bodies = bodies_of(WHOLE)
    witness = count_witness(bodies, map_ribs(bodies, bones_of(bodies, WHOLE)))
    assert witness.saw == "12 on the right, 12 on the left"
    told = chain_of(np.array([body.centre_lps_mm for body in bodies])).spread(witness.emission[0])
    assert [SPINE[place] for place in told.argmax(axis=1)] == list(WHOLE)


@pytest.mark.parametrize("missing", [(1,), (5,)])
def test_a_missed_rib_ends_the_count(missing: tuple[int, ...]) -> None:
    """Without the first rib the second and third lie too far apart; without another there is a hole."""
    bodies = bodies_of(WHOLE)
    assert count_witness(bodies, map_ribs(bodies, bones_of(bodies, WHOLE, missing=missing))).silent


def test_ribs_that_run_out_of_the_scan_are_not_counted() -> None:
    """A scan that begins in the chest shows ribs whose upper parts are cut off."""
    names = SPINE[SPINE.index("T4"):SPINE.index("L4")]
    bodies = bodies_of(names)
    bones = bones_of(bodies, names, top_mm=18.0)
    bones.chance[BONES.index("ribs"), -9:, 10:20, 70:76] = 1.0  # the rib above comes down at the side
    assert map_ribs(bodies, bones).counted_mm == ()


def test_a_count_and_ribs_agree_without_heatmaps() -> None:
    bodies = bodies_of(WHOLE)
    numbering = name_levels(spine_of(bodies), no_heat(), bones_of(bodies, WHOLE, reach_mm=SHORT_TWELFTH))
    assert numbering.names == WHOLE and not numbering.asks
    (flag,) = numbering.flags
    assert flag.code == LEVELS_NAMED and flag.level == "T12"
    assert "of the vertebra read as L1: lowest ribs (seen at 13 vertebrae, the lowest short) L1" in flag.sentence
    assert "ribs counted from the first (12 on the right, 12 on the left) L1" in flag.sentence


@pytest.mark.parametrize("pairs", [11, 13])
def test_eleven_and_thirteen_pairs_are_never_named_wrongly_for_sure(pairs: int) -> None:
    bodies = bodies_of(WHOLE)
    reach = {13: 65.0} if pairs == 13 else {}
    numbering = name_levels(spine_of(bodies), no_heat(), bones_of(bodies, WHOLE, pairs, reach_mm=reach))
    assert numbering.names == WHOLE or numbering.asks
    assert WHOLE in (numbering.names, numbering.second)


def test_a_body_at_the_end_of_the_scan_may_have_hidden_ribs() -> None:
    names = ("T8", "T9", "T10", "T11", "T12")
    bodies = bodies_of(names, lowest_mm=18.0)
    ribs = own_ribs(bodies, map_ribs(bodies, bones_of(bodies, names, missing=(12,))))
    assert [kind_of(rib) for rib in ribs][-1] == "hidden" and rib_witness(ribs[-1:], ribs[-1:]).silent


def test_length_and_sides_of_a_rib_tell_the_twelfth_from_the_eleventh() -> None:
    def odds(rib: OwnRibs) -> float:
        emission = rib_witness((rib,), (rib,)).emission[0, 0]
        return float(emission[T12] / emission[T12 - 1])

    assert odds(OwnRibs(2, 75.0, share=0.62)) > 2 and odds(OwnRibs(2, 110.0, share=0.90)) < 0.1
    assert odds(OwnRibs(1, 75.0, share=0.62)) > odds(OwnRibs(2, 75.0, share=0.62)), "elevenths are seldom missed on a side"
    assert odds(OwnRibs(2, 75.0, cut=True, share=0.62)) < odds(OwnRibs(2, 75.0, share=0.62)), "it goes on below the scan"


def test_ribs_that_are_missed_in_a_scan_say_less_against_a_thoracic_vertebra() -> None:
    """A body without ribs amid others with ribs shows that the network misses ribs in this scan."""
    seen, none = OwnRibs(2, 110.0, share=1.0), OwnRibs()

    def odds(ribs: tuple[OwnRibs, ...]) -> float:
        emission = rib_witness(ribs, ribs).emission[0, -1]
        return float(emission[T12 - 1] / emission[L1])

    whole, holes = odds((seen,) * 8 + (none,)), odds((seen, none, none, seen, none, none, none, seen, none))
    assert whole < 0.06 and holes > 3 * whole


def test_an_eleventh_rib_is_looked_for_higher_than_a_twelfth_one() -> None:
    """Beside the body the eleventh rib lies a third of a vertebra higher than the twelfth does."""
    names = ("T9", "T10", "T11", "T12", "L1", "L2")
    bodies = bodies_of(names)
    bones = bones_of(bodies, names, pairs=10)
    for side in (-1, 1):
        ends = [bones.geometry.to_kji(bodies[2].centre_lps_mm + np.array([side * x, 23.0, 3.0])) for x in (30.0, 100.0)]
        (k, j, a), (_, _, b) = np.round(ends).astype(int)
        bones.chance[BONES.index("ribs"), k - 1:k + 1, j - 2:j + 3, min(a, b):max(a, b) + 1] = 1.0
    mapped = map_ribs(bodies, bones)
    assert own_ribs(bodies, mapped)[2].sides == 0 and own_ribs(bodies, mapped, HIGHER_MM)[2].sides == 2


def test_one_rib_taken_far_to_the_side_does_not_make_the_others_short() -> None:
    names = ("T8", "T9", "T10", "T11", "T12", "L1")
    bodies = bodies_of(names)
    reach_mm = {8: 132.0, 9: 80.0, 10: 80.0, 11: 80.0, 12: 50.0}
    ribs = own_ribs(bodies, map_ribs(bodies, bones_of(bodies, names, reach_mm=reach_mm)))
    assert [round(rib.share, 1) for rib in ribs[:4]] == [1.0, 1.0, 1.0, 1.0] and ribs[4].share < 0.7


# --- sacrum and heatmaps -----------------------------------------------------------------------------------

def with_other(bones: Bones, *boxes: tuple[float, float, float, float]) -> Bones:
    """Other bone in boxes: half width to either side, and z from, to; and how far from the middle they begin."""
    other = np.zeros(bones.geometry.shape_kji, np.float32)
    i, _, k = np.meshgrid(*[np.arange(n) for n in bones.geometry.shape_kji[::-1]], indexing="ij")
    x, z = (np.moveaxis(axis, (0, 1, 2), (2, 1, 0)) for axis in
            (bones.geometry.ijk_to_lps[0, 3] + VOXEL_MM * i, bones.geometry.ijk_to_lps[2, 3] + VOXEL_MM * k))
    for inner, outer, low, high in boxes:
        other[(np.abs(x) >= inner) & (np.abs(x) <= outer) & (z >= low) & (z <= high)] = 1.0
    return replace(bones, other=other)


def test_the_body_above_the_sacrum_is_the_fifth_lumbar_one() -> None:
    names = ("T12", "L1", "L2", "L3", "L4", "L5")
    bodies = bodies_of(names, lowest_mm=60.0)
    bones = bones_of(bodies, names, pairs=0)
    assert sacrum_witness(bodies, None, bones).silent
    witness = sacrum_witness(bodies, None, with_other(bones, (0.0, 45.0, 0.0, 42.0)))
    assert witness.emission[0, -1].argmax() == L5
    told = chain_of(np.array([body.centre_lps_mm for body in bodies])).spread(witness.emission[0])
    assert told[1, L1] > 0.8


def test_a_sacral_body_far_below_may_hold_the_fifth_lumbar_one() -> None:
    """The body network joins L5 and S1 now and then: what lies above is L4 as well as L5."""
    names = ("T12", "L1", "L2", "L3", "L4")
    bodies = bodies_of(names, lowest_mm=90.0)
    bones = bones_of(bodies, names, pairs=0)
    near, far = (sacrum_witness(bodies, Body(6, np.array([0.0, 5.0, 90.0 - step]), 30000.0), bones) for step in (35.0, 50.0))
    assert near.emission[0, -1, L5] > 10 * near.emission[0, -1, L5 - 1]
    assert far.emission[0, -1, L5] == pytest.approx(far.emission[0, -1, L5 - 1], rel=0.2)


def test_wings_beside_a_body_make_it_the_sacrums() -> None:
    """A body network may draw the first sacral body too; then the lumbar ones end above it."""
    names = ("T12", "L1", "L2", "L3", "L4", "L5")
    bodies = bodies_of(names, lowest_mm=90.0)
    first_sacral = Body(7, np.array([0.0, 8.0, 58.0]), 20000.0)
    bones = with_other(bones_of(bodies, names, pairs=0), (22.0, 60.0, 0.0, 72.0), (0.0, 22.0, 0.0, 40.0))
    numbering = name_levels(spine_of((*bodies, first_sacral)), no_heat(), bones)
    assert numbering.names == (*names, None)


def test_a_heatmap_that_sees_nothing_says_nothing() -> None:
    bodies = bodies_of(("T12", "L1"))
    assert heat_witness(bodies, no_heat()).silent


@pytest.mark.parametrize("channels", [("T10", "T11", "T12", "L1", "L2", "L3", "L4"), SPINE[SPINE.index("T1"):]])
def test_heatmaps_of_any_levels_name_what_they_show(channels: tuple[str, ...]) -> None:
    names = ("T9", "T10", "T11", "T12", "L1", "L2")
    bodies = bodies_of(names)
    matrix = np.diag([5.0, 5.0, 5.0, 1.0])
    matrix[:3, 3] = (-40.0, -40.0, 0.0)
    grid = Geometry((60, 16, 16), matrix)
    chance = np.zeros((len(channels), *grid.shape_kji), np.float32)
    for name, body in zip(names, bodies, strict=True):
        if name in channels:
            chance[(channels.index(name), *np.round(grid.to_kji(body.centre_lps_mm)).astype(int))] = 0.8
    witness = heat_witness(bodies, Heatmaps(channels, grid, chance))
    told = chain_of(np.array([body.centre_lps_mm for body in bodies])).spread(witness.emission[0])
    assert [SPINE[place] for place in told.argmax(axis=1)] == list(names)
