"""What is varied about the anatomy is varied as said, and the truth follows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from LowDoseBMDTrainerLib.people import BONE_PARTS, PARTS, bone_targets
from LowDoseBMDTrainerLib.synthesis import KEYPOINT_LEVELS, TASKS, Task, draw_sample, heatmaps
from LowDoseBMDTrainerLib.synthesis_anatomy import (
    Anatomy,
    Fracture,
    draw_anatomy,
    edit_bones,
    kinds,
    metal_in,
    rib_12_kind,
    true_centres,
)
from LowDoseBMDTrainerLib.synthesis_fields import Chance, Grid
from LowDoseBMDTrainerLib.synthesis_pose import Pose, collapse, renumber
from LowDoseBMDTrainerLib.synthesis_scanner import scan
from LowDoseBMDTrainerLib.synthesis_subject import Subject, make_subject
from LowDoseBMDTrainerLib.synthesis_tissue import METAL_HU, draw_ct
from scipy import ndimage
from spine_person import HALF, MIDDLE_I, MIDDLE_J, PERIOD, SPACING_MM, spine_person

RIB = BONE_PARTS.index("rib_12")


@pytest.fixture(scope="module")
def a_subject() -> Subject:
    return make_subject(spine_person())


def chance(seed: int = 1) -> Chance:
    return Chance(np.random.default_rng(seed))


def own_grid(subject: Subject) -> torch.Tensor:
    """The place of each of the person's voxels, (3, k, j, i)."""
    axes = [torch.arange(n, dtype=torch.float32) for n in subject.bone.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def edited(subject: Subject, anatomy: Anatomy) -> torch.Tensor:
    bone, depth = subject.bone.clone(), subject.depth_mm.clone()
    edit_bones(chance(), subject, anatomy, bone, depth, tuple(slice(0, n) for n in bone.shape))
    assert (depth[bone > 0] > 0).all(), "what is added has a cortex"
    return bone


def looked_up(array: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The nearest voxel of array (k, j, i) at each place; 0 beyond it."""
    index = place.round().long()
    size = torch.tensor(array.shape).reshape(3, 1, 1, 1)
    valid = ((index >= 0) & (index < size)).all(0)
    return torch.where(valid, array[tuple(torch.minimum(index.clamp(min=0), size - 1))], 0)


# --- ribs --------------------------------------------------------------------------------------------------

def test_ribs_of_l1_lie_one_vertebra_below_the_twelfth_and_end_where_they_should(a_subject):
    bone = edited(a_subject, Anatomy(rib_l1_mm=(45.0, 30.0)))
    k = int(a_subject.centres["L1"][0])
    new = (bone == RIB) & (a_subject.bone != RIB)
    where = new.nonzero()
    assert set(where[:, 0].tolist()) == {k - 1, k}
    side_mm = (where[:, 2] - MIDDLE_I) * SPACING_MM
    assert (side_mm.max(), -side_mm.min()) == (45.0, 30.0), "left and right"
    assert bone_targets()[RIB] == 4


def test_eleven_pairs_leave_no_twelfth_rib_and_short_ones_end_early(a_subject):
    assert not (edited(a_subject, Anatomy(rib_12_mm=(0.0, 0.0))) == RIB).any()
    where = (edited(a_subject, Anatomy(rib_12_mm=(36.0, np.inf))) == RIB).nonzero()
    side_mm = (where[:, 2] - MIDDLE_I) * SPACING_MM
    assert side_mm.max() == 36.0 and side_mm.min() == -60.0


def test_a_longer_rib_goes_on_in_its_own_direction_inside_the_trunk(a_subject):
    bone = edited(a_subject, Anatomy(longer_mm=(9.0, 60.0)))
    where = (bone == RIB).nonzero()
    side_mm = (where[:, 2] - MIDDLE_I) * SPACING_MM
    assert side_mm.max() == 60.0 + 9.0, "9 mm longer on the left"
    assert (a_subject.inside_mm[tuple(where.T)] > 0).all() and 69.0 < -side_mm.min() < 120.0, "the skin ends it on the right"
    assert set(where[:, 0].tolist()) == set((a_subject.bone == RIB).nonzero()[:, 0].tolist()), "straight on"


def test_the_report_says_what_is_unusual(a_subject):
    assert kinds(Anatomy(), a_subject) == () and rib_12_kind(Anatomy(), a_subject) == "usual"
    odd = Anatomy(rib_l1_mm=(40.0, 50.0), lumbar=6, changed_at="L2", metal=("cement",),
                  fractures={"L1": Fracture("crush", 0.3, False)})
    assert kinds(odd, a_subject) == ("13 pairs of ribs", "6 lumbar vertebrae", "fracture", "metal: cement")
    assert kinds(Anatomy(rib_12_mm=(0.0, 0.0)), a_subject) == ("11 pairs of ribs",)
    assert rib_12_kind(Anatomy(rib_12_mm=(30.0, 0.0)), a_subject) == "short"


# --- lumbar vertebrae --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("anatomy", "names"), [
    (Anatomy(), ["L1", "L2", "L3", "L4", "L5"]),
    (Anatomy(lumbar=4, changed_at="L2"), ["L1", "L2", "L3", "L4"]),
    (Anatomy(lumbar=4, changed_at="L1"), ["L1", "L2", "L3", "L4"]),
    (Anatomy(lumbar=6, changed_at="L3"), ["L1", "L2", "L3", "L4", "L5", "L6"]),
])
def test_every_body_of_a_changed_spine_has_its_name_counted_from_above(a_subject, anatomy, names):
    axes = [torch.arange(-24.0 * (n == 0), size) for n, size in enumerate(a_subject.bone.shape)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # with room for a sixth below the person's own
    sharp = place if anatomy.lumbar == 5 else renumber(a_subject, anatomy, place)[0]
    body = looked_up(a_subject.part, sharp) == PARTS.index("vertebral body")
    centres = {level: centre for level, centre in true_centres(a_subject, anatomy).items() if centre is not None}
    assert [level for level in centres if level[0] == "L"] == names
    pieces, count = ndimage.label(body.numpy())
    assert count == len(centres), "as many bodies as names"
    middles = sorted(ndimage.center_of_mass(body.numpy(), pieces, range(1, count + 1)), reverse=True)
    for middle, centre in zip(middles, centres.values(), strict=True):
        np.testing.assert_allclose(np.array(middle) - [24, 0, 0], centre, atol=0.5)


def test_a_vertebra_that_is_not_there_is_taught_as_absent(a_subject):
    anatomy = Anatomy(lumbar=4, changed_at="L2")
    place, seen = own_grid(a_subject), torch.ones(a_subject.bone.shape, dtype=torch.bool)
    maps = dict(zip(KEYPOINT_LEVELS, heatmaps(true_centres(a_subject, anatomy), place, seen), strict=True))
    assert maps["L4"].max() == 1 and maps["L5"].max() == 0
    assert int(maps["L4"].argmax()) == int(dict(zip(KEYPOINT_LEVELS, heatmaps(
        true_centres(a_subject, Anatomy()), place, seen), strict=True))["L4"].argmax()), "all are equally high here"
    assert maps["T1"].max() == 0, "above the label map's end there is nothing"


def test_beyond_an_end_of_the_label_map_that_is_far_nothing_is_known(a_subject):
    person = spine_person("T12", "L3")
    centres = true_centres(make_subject(person), Anatomy())
    assert centres["T11"] is centres["L4"] is None
    fewer = replace(person, centres_kji={name: at for name, at in person.centres_kji.items() if name != "L3"})
    assert set(true_centres(make_subject(fewer), Anatomy())) & {"L2", "L3", "L4"} == {"L2"}


# --- bodies ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("fracture", "front", "back"), [
    (Fracture("crush", 1 / 3, False), 2 / 3, 2 / 3), (Fracture("crush", 0.5, True), 3 / 4, 3 / 4),
    (Fracture("wedge", 0.5, False), 0.536, 0.857)])
def test_a_fractured_body_loses_its_share_of_height_and_its_neighbours_none(a_subject, fracture, front, back):
    fine = own_grid(a_subject)[:, :, MIDDLE_J - 4:MIDDLE_J + 3, MIDDLE_I:MIDDLE_I + 1].repeat_interleave(8, 1)
    fine[0] += (torch.arange(8).repeat(a_subject.bone.shape[0]) / 8 - 0.4375)[:, None, None]
    place = fine.clone()
    collapse(a_subject, "L2", fracture, place)
    for level in ("L1", "L2", "L3"):
        own = BONE_PARTS.index(level)
        heights = [(looked_up(a_subject.bone, p) == own).sum(0)[:, 0].float() for p in (fine, place)]
        share = heights[1] / heights[0]
        expected = (front, back) if level == "L2" else (1.0, 1.0)
        assert float(share[0]) == pytest.approx(expected[0], abs=0.09), level
        assert float(share[-1]) == pytest.approx(expected[1], abs=0.09), level


def test_osteophytes_are_vertebra_but_no_body(a_subject):
    bone = edited(a_subject, Anatomy(osteophytes_mm=8.0))
    grown = (bone > 0) & (a_subject.bone == 0)
    assert 10 < int(grown.sum()) < 0.2 * int((a_subject.bone > 0).sum())
    assert set(bone_targets()[bone[grown].numpy()].tolist()) == {1}
    assert not (a_subject.part[grown] == PARTS.index("vertebral body")).any()
    near_disc = ndimage.distance_transform_edt((a_subject.part != PARTS.index("disc")).numpy()) * SPACING_MM
    assert near_disc[grown.numpy()].max() <= 8.0, "at the rims"


def test_screws_and_cement_are_denser_than_bone_and_make_streaks(a_subject):
    task = Task("bones", 3.0, tuple(a_subject.bone.shape))
    for kind in ("screws", "cement"):
        metal = metal_in(chance(), a_subject, Anatomy(metal=(kind,)), own_grid(a_subject), task.grid)
        assert metal.max() == 1 and 40 < int((metal > 0.5).sum()) < 600
        assert (a_subject.bone[metal > 0.9] > 0).float().mean() > 0.3, "it is in the vertebrae"
    assert metal_in(chance(), a_subject, Anatomy(metal=("joints",)), own_grid(a_subject), task.grid) is None
    hu = torch.zeros(a_subject.bone.shape)
    plain, _ = scan(chance(4), hu.clone(), task.grid, cropped=False)
    hu[40:44, 28:30, 38:42] = METAL_HU
    streaked, _ = scan(chance(4), hu, task.grid, cropped=False)
    assert plain[42].std() < 0.5 * streaked[42, 5:20].std(), "far from the metal, in its slice"


def test_arms_lie_outside_of_the_trunk_and_are_no_ribs(a_subject):
    axes = [torch.arange(float(a), float(b)) for a, b in ((0, 118), (-20, 76), (-40, 121))]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    grid = Grid(tuple(place.shape[1:]), (SPACING_MM,) * 3)
    pose = Pose(place, place, place)
    (plain, without, _), (hu, bone, _) = (draw_ct(chance(), a_subject, Anatomy(arms_down=down), grid, pose)
                                          for down in (False, True))
    changed, new = hu != plain, bone != without
    assert set(bone_targets()[bone[new].numpy()].tolist()) == {5} and changed[new].all()
    left_mm = (place[2][new] - MIDDLE_I) * SPACING_MM
    assert left_mm.min() < -a_subject.half_width_mm and left_mm.max() > a_subject.half_width_mm, "on both sides"
    assert (looked_up(a_subject.inside_mm, place)[changed] == 0).all(), "no trunk is changed"


# --- samples -----------------------------------------------------------------------------------------------

def test_what_is_drawn_is_as_frequent_as_said(a_subject):
    drawn = [draw_anatomy(chance(seed), a_subject) for seed in range(1500)]
    share = {"thirteen": np.mean([any(a.rib_l1_mm) for a in drawn]),
             "eleven": np.mean([max(a.rib_12_mm) == 0 for a in drawn]),
             "four": np.mean([a.lumbar == 4 for a in drawn]), "six": np.mean([a.lumbar == 6 for a in drawn])}
    for name, expected in (("thirteen", 0.09), ("eleven", 0.09), ("four", 0.07), ("six", 0.07)):
        assert share[name] == pytest.approx(expected, abs=0.03), name
    assert all(draw_anatomy(chance(seed), a_subject, organs=False).lumbar == 5 for seed in range(40))


@pytest.mark.parametrize("task", list(TASKS))
def test_everything_is_made_on_the_device_of_the_subject(a_subject, task):
    """Tensors that are made without a device are made elsewhere here, and do not go together with the subject's."""
    small = Task(TASKS[task].target, 4.0, (32, 32, 32))
    for seed in range(12):
        with torch.device("meta"):
            image, target = draw_sample(np.random.default_rng(seed), a_subject, small)
        assert image.device.type == target.device.type == "cpu"


def test_the_ends_of_bodies_are_where_the_figures_say():
    person = spine_person()
    column = person.part[:, MIDDLE_J, MIDDLE_I] == PARTS.index("vertebral body")
    assert column.sum() == (2 * HALF + 1) * len(person.centres_kji) and PERIOD > 2 * HALF + 1
