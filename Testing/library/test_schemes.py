"""Label maps of other tools in our names."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.schemes import PUBLIC, SCHEMES, joined, read_scheme, structure_named


def blocks(*labels: int) -> np.ndarray:
    """(40, 6, 6) map with one 2-slice block per label, in order from below."""
    array = np.zeros((40, 6, 6), np.uint8)
    for n, label in enumerate(labels):
        array[2 * n + 1:2 * n + 3, 1:5, 2:4] = label
    return array


@pytest.mark.parametrize(("scheme", "label", "name"), [
    ("totalsegmentator", 27, "L5"), ("totalsegmentator", 31, "L1"), ("totalsegmentator", 32, "T12"),
    ("totalsegmentator", 43, "T1"), ("totalsegmentator", 44, "C7"), ("totalsegmentator", 50, "C1"),
    ("verse", 1, "C1"), ("verse", 8, "T1"), ("verse", 19, "T12"), ("verse", 20, "L1"), ("verse", 25, "L6"),
    ("verse", 28, "T13"),
])
def test_a_vertebra_is_found_where_it_lies(scheme, label, name):
    anatomy = read_scheme(blocks(label), scheme)
    assert list(anatomy.vertebrae) == [name]
    mask = anatomy.vertebrae[name]
    assert mask.start_kji == (1, 1, 2) and mask.voxels.shape == (2, 4, 2) and mask.voxels.all()


def test_ribs_and_shoulders_of_totalsegmentator_are_joined_and_muscles_keep_their_side():
    labels = blocks(31, 92, 115, 71, 72, 73, 88, 89, 52, 6)
    anatomy = read_scheme(labels, "totalsegmentator")
    assert set(anatomy.bones) == {"vertebrae", "clavicles", "scapulae", "ribs"}
    assert np.count_nonzero(anatomy.bones["ribs"].voxels) == np.count_nonzero(np.isin(labels, (92, 115)))
    assert set(anatomy.others) == {"iliopsoas_left", "iliopsoas_right", "aorta"}
    assert anatomy.others["iliopsoas_left"].start_kji[0] == 13


def test_all_vertebrae_together_are_the_bone_class():
    anatomy = read_scheme(blocks(20, 21, 22), "verse")
    assert np.count_nonzero(anatomy.bones["vertebrae"].voxels) == 3 * 16


def test_our_own_labels_come_from_the_registry():
    body, psoas = STRUCTURES["body_L1"].label, STRUCTURES["psoas_left"].label
    anatomy = read_scheme(blocks(body, psoas, STRUCTURES["ribs"].label), "lowdosebmd")
    assert list(anatomy.bodies) == ["L1"] and not anatomy.vertebrae
    assert set(anatomy.others) == {"psoas_left"} and set(anatomy.bones) == {"ribs"}
    assert set(SCHEMES["lowdosebmd"].values()) == set(STRUCTURES)


@pytest.mark.parametrize(("text", "name"), [
    ("Vertebrae", "vertebrae"), ("spine", "vertebrae"), ("T12", "T12"), ("th 12", "T12"), ("vertebrae_L1", "L1"),
    ("L02 vertebra", "L2"), ("T13", "T13"), ("body_T12", "body_T12"), ("L1 vertebral body", "body_L1"),
    ("vertebral body L2", "body_L2"), ("rib left 3", "ribs"), ("Rib_01", "ribs"), ("R Rib #4", "ribs"),
    ("clavicula_left", "clavicles"), ("Right Clavicle", "clavicles"), ("SCAPULA (R)", "scapulae"),
    ("Sternum", "other_bones"), ("hip_left", "other_bones"), ("vertebrae_S1", "other_bones"), ("Other bones", "other_bones"),
    ("psoas_left", "psoas_left"), ("椎骨", "vertebrae"), ("胸12椎", "T12"), ("第1腰椎", "L1"), ("腰1椎体", "body_L1"),
    ("胸椎12", "T12"), ("左侧第3肋骨", "ribs"), ("锁骨", "clavicles"), ("右肩胛骨", "scapulae"), ("胸骨", "other_bones"),
    ("肋软骨", None), ("椎间盘", None), ("spinal cord", None), ("costal_cartilages", None), ("vertebral artery", None),
    ("disc L1 L2", None), ("iliopsoas_left", None), ("C12", None), ("T1w", None),
    ("Clear Label", None), ("", None), ("rib fracture", None), ("scribble", None)])
def test_a_name_is_understood_however_it_is_written(text: str, name: str | None) -> None:
    assert structure_named(text) == name


def test_the_numbers_of_public_sets_are_whole() -> None:
    """117 classes of TotalSegmentator's task, at numbers that its documentation gives; 24 ribs; C1 to L6 and T13."""
    total = PUBLIC["totalsegmentator"]
    assert len(set(total.values())) == 117 and list(total) == list(range(1, 118))
    assert [total[n] for n in (1, 25, 26, 50, 51, 79, 91, 92, 104, 116, 117)] == [
        "spleen", "sacrum", "vertebrae_S1", "vertebrae_C1", "heart", "spinal_cord", "skull", "rib_left_1", "rib_right_1",
        "sternum", "costal_cartilages"]
    assert sorted(PUBLIC["verse"]) == [*range(1, 26), 28] and sorted(PUBLIC["ribseg"]) == list(range(1, 25))


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(Refusal, match="totalsegmentator") as refusal:
        read_scheme(blocks(31), "nnunet")
    assert refusal.value.code == "scheme_unknown"


def test_a_map_without_vertebrae_is_refused():
    with pytest.raises(Refusal, match="no vertebra") as refusal:
        read_scheme(blocks(92), "totalsegmentator")
    assert refusal.value.code == "labels_no_vertebrae"


def test_labels_beyond_the_scheme_are_passed_over():
    assert list(read_scheme(blocks(20, 250).astype(np.int16), "verse").vertebrae) == ["L1"]


def test_joined_masks_cover_each_part_once():
    masks = read_scheme(blocks(20, 22), "verse").vertebrae
    union = joined(masks.values())
    assert union.start_kji == (1, 1, 2) and np.count_nonzero(union.voxels) == 32


def test_real_label_map_holds_the_spine(shared_data):
    volumes = pytest.importorskip("LowDoseBMDLib.files.volumes")
    labels, _ = volumes.read_volume(shared_data / "lidc0001" / "lidc0001_labels_3mm.nii.gz")
    anatomy = read_scheme(labels, "totalsegmentator")
    assert {"T1", "T12", "L1", "L2", "L3"} <= set(anatomy.vertebrae) and "L4" not in anatomy.vertebrae
    assert {"aorta", "iliopsoas_left", "autochthon_right", "sternum"} <= set(anatomy.others)
