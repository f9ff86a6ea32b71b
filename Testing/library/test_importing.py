"""CTs and labels from elsewhere: what is mapped, what is not, and what cannot be read."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import small_cases
from dicom_series import write_ct_series
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_label_map
from LowDoseBMDLib.files.segmentation import write_segmentation
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Keypoint, Rois
from LowDoseBMDLib.schemes import PUBLIC
from LowDoseBMDTrainerLib.cases import Labels, Status, open_for_writing, read_anatomy, read_history, read_image, read_labels
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.importing import Imported, ImportOptions, find_all, import_cases
from LowDoseBMDTrainerLib.itksnap import SnapLabel, export_workspace, write_label_descriptions
from LowDoseBMDTrainerLib.layouts.verse import read_centres
from LowDoseBMDTrainerLib.people import BONE_PARTS, tables
from LowDoseBMDTrainerLib.project import Project, create_project
from small_cases import block, ct_file

TOTAL = {name: label for label, name in PUBLIC["totalsegmentator"].items()}
BONE_LABELS = {
    "vertebrae": [TOTAL[name] for name in TOTAL if name.startswith("vertebrae_") and name != "vertebrae_S1"],
    "ribs": [TOTAL[name] for name in TOTAL if name.startswith("rib_")],
    "clavicles": [TOTAL["clavicula_left"], TOTAL["clavicula_right"]],
    "scapulae": [TOTAL["scapula_left"], TOTAL["scapula_right"]],
    "other_bones": [TOTAL[name] for name in ("sternum", "humerus_left", "humerus_right", "hip_left", "hip_right", "sacrum")],
}
EYE_MM = 6.0
"""Distance of a keypoint from what an eye read: that is good to 2 mm, the labels were made by a model on 3 mm voxels."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path / "project")


@pytest.fixture
def lidc(shared_data: Path, tmp_path: Path) -> Path:
    """A folder with a real CT of 3 mm, its label map of over a hundred structures, and their names."""
    folder = tmp_path / "lidc"
    folder.mkdir()
    for name in ("ct", "labels"):
        shutil.copy(shared_data / "lidc0001" / f"lidc0001_{name}_3mm.nii.gz", folder / f"{name}.nii.gz")
    shutil.copy(shared_data / "lidc0001" / "structures.csv", folder)
    return folder


def take(project: Project, *sources: Path, **options: object) -> list[Imported]:
    how = ImportOptions(**options)
    return list(import_cases(project, find_all(sources, how), how))


def same_region(labels: Labels, name: str, array: np.ndarray, grid: Geometry) -> None:
    assert grid.same_grid(labels.geometry)
    np.testing.assert_array_equal(labels.masks[name].full(labels.geometry), array, err_msg=name)


def same_keypoints(labels: Labels, read_by_eye: dict, levels: Sequence[str] = LEVELS, within_mm: float = EYE_MM) -> None:
    assert [point.level for point in labels.keypoints] == list(levels)
    for point in labels.keypoints:
        apart_mm = np.linalg.norm(np.subtract(point.position_lps_mm, read_by_eye[point.level]["centre_lps_mm"]))
        assert apart_mm < within_mm, f"{point.level}: {apart_mm:.1f} mm"


@pytest.fixture
def by_eye(shared_data: Path) -> dict:
    return json.loads((shared_data / "levels.json").read_text())["lidc0001"]


# --- public sets -------------------------------------------------------------------------------------------

def test_a_ct_with_a_label_map_of_everything(project: Project, lidc: Path, by_eye: dict) -> None:
    [done] = take(project, lidc)
    assert (done.outcome, done.problem, done.case.status, done.case.annotator) == ("added", "", Status.COMPLETED, "import")
    whole, grid = read_label_map(lidc / "labels.nii.gz")
    labels = read_labels(done.case)
    assert set(labels.masks) == set(BONE_LABELS)
    for name, numbers in BONE_LABELS.items():
        same_region(labels, name, np.isin(whole, numbers), grid)
    same_keypoints(labels, by_eye)
    assert "aorta" in done.mapped.unmapped and "costal_cartilages" in done.mapped.unmapped
    assert "rib_left_3" in done.mapped.mapped["ribs"] and "vertebrae_T12" in done.mapped.mapped["vertebrae"]
    told = read_history(done.case)[0]
    assert told["mapped"]["clavicles"] == ["clavicula_left", "clavicula_right"] and "aorta" in told["not_mapped"]


def test_the_whole_label_map_stays_with_the_case_for_synthesis(project: Project, lidc: Path) -> None:
    [done] = take(project, lidc)
    labels, grid, names = read_anatomy(done.case)
    whole, given = read_label_map(lidc / "labels.nii.gz")
    np.testing.assert_array_equal(labels, whole)
    assert grid.same_grid(given)
    with (lidc / "structures.csv").open(newline="") as file:
        rows = {int(row["id"]): row["structure"] for row in csv.DictReader(file)}
    assert names == {int(label): rows[label] for label in np.unique(whole) if label}
    _, bone = tables(names)
    assert BONE_PARTS[bone[TOTAL["vertebrae_L1"]]] == "L1" and BONE_PARTS[bone[TOTAL["rib_right_12"]]] == "rib_12"


def test_a_folder_of_totalsegmentator(project: Project, lidc: Path, tmp_path: Path, by_eye: dict) -> None:
    """One mask for each structure, an empty one, and one that no task ``total`` knows."""
    whole, grid = read_label_map(lidc / "labels.nii.gz")
    case = tmp_path / "Totalsegmentator_dataset_v2" / "s0001"
    (case / "segmentations").mkdir(parents=True)
    shutil.copy(lidc / "ct.nii.gz", case)
    drawn = [name for name in TOTAL if TOTAL[name] in sum(BONE_LABELS.values(), [])] + ["liver", "femur_left"]
    for name in drawn:
        write_volume(case / "segmentations" / f"{name}.nii.gz", (whole == TOTAL[name]).astype(np.uint8), grid)
    write_volume(case / "segmentations" / "tumour.nii.gz", (whole == TOTAL["spleen"]).astype(np.uint8), grid)
    [done] = take(project, tmp_path / "Totalsegmentator_dataset_v2")
    assert done.case.source == "TotalSegmentator s0001" and done.case.status is Status.COMPLETED
    labels = read_labels(done.case)
    for name, numbers in BONE_LABELS.items():
        same_region(labels, name, np.isin(whole, numbers), grid)
    same_keypoints(labels, by_eye)
    assert done.mapped.unmapped == ("liver", "tumour")
    stored, _, names = read_anatomy(done.case)
    assert names[TOTAL["liver"]] == "liver" and names[118] == "tumour"
    np.testing.assert_array_equal(stored == 118, whole == TOTAL["spleen"])


def verse_folder(shared_data: Path, folder: Path, number: str, orientation: str | None = None) -> tuple[Path, Path]:
    """A subject as VerSe lays it out: mask and centres are real, its CT has three values. orientation: of both images."""
    mask = sitk.ReadImage(str(shared_data / "verse_masks" / f"verse{number}_vertebrae.nii.gz"))
    if orientation:
        mask = sitk.DICOMOrient(mask, orientation)
    array = sitk.GetArrayFromImage(mask)
    hu = np.where(array > 0, 300, 40).astype(np.int16)
    hu[:2] = -1000
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(mask)
    raw, made = folder / "rawdata" / f"sub-verse{number}", folder / "derivatives" / f"sub-verse{number}"
    raw.mkdir(parents=True)
    made.mkdir(parents=True)
    sitk.WriteImage(image, str(raw / f"sub-verse{number}_dir-sag_ct.nii.gz"))
    sitk.WriteImage(mask, str(made / f"sub-verse{number}_dir-sag_seg-vert_msk.nii.gz"))
    centres = made / f"sub-verse{number}_dir-sag_seg-subreg_ctd.json"
    shutil.copy(shared_data / "verse_masks" / f"verse{number}_centres.json", centres)
    return made / f"sub-verse{number}_dir-sag_seg-vert_msk.nii.gz", centres


def known_centres(shared_data: Path, number: str) -> dict[int, np.ndarray]:
    """By SimpleITK, on the mask as it was published: its axes run to P, I and R, so that X, Y, Z are its own voxels."""
    image = sitk.ReadImage(str(shared_data / "verse_masks" / f"verse{number}_vertebrae.nii.gz"))
    entries = json.loads((shared_data / "verse_masks" / f"verse{number}_centres.json").read_text())[1:]
    return {entry["label"]: np.array(image.TransformContinuousIndexToPhysicalPoint([entry[axis] for axis in "XYZ"]))
            for entry in entries}


@pytest.mark.parametrize("orientation", [None, "LPS", "RAS", "SAL"])
def test_a_folder_of_verse_with_its_centres(project: Project, shared_data: Path, tmp_path: Path, orientation: str) -> None:
    """The centres are those of the published mask, whatever way the axes of this one run."""
    mask, _ = verse_folder(shared_data, tmp_path / "verse", "004", orientation)
    [done] = take(project, tmp_path / "verse")
    assert done.case.source == "VerSe sub-verse004_dir-sag" and done.problem == "" and done.mapped.notes == ()
    labels, (whole, grid) = read_labels(done.case), read_label_map(mask)
    same_region(labels, "vertebrae", whole > 0, grid)
    known = known_centres(shared_data, "004")
    assert [point.level for point in labels.keypoints] == ["T12", "L1", "L2"]
    for point, label in zip(labels.keypoints, (19, 20, 21), strict=True):
        np.testing.assert_allclose(point.position_lps_mm, known[label], atol=0.01)
    assert set(labels.masks) == {"vertebrae"} and done.mapped.missing == ("clavicles", "scapulae", "ribs")
    assert done.case.status is Status.IN_PROGRESS and "no clavicles, scapulae, ribs" in done.case.reason
    assert read_anatomy(done.case)[2][19] == "vertebrae_T12"


def test_without_centres_the_bodies_centres_are_taken(shared_data: Path, tmp_path: Path, project: Project) -> None:
    """Within 4 mm of what VerSe's experts set (measured: 1.2, 2.8 and 0.7 mm)."""
    _, centres = verse_folder(shared_data, tmp_path / "verse", "004")
    centres.unlink()
    [done] = take(project, tmp_path / "verse")
    known = known_centres(shared_data, "004")
    assert [point.level for point in done.mapped.labels.keypoints] == ["T12", "L1", "L2"] and done.mapped.notes == ()
    for point, label in zip(done.mapped.labels.keypoints, (19, 20, 21), strict=True):
        assert np.linalg.norm(np.subtract(point.position_lps_mm, known[label])) < 4.0


def test_centres_in_another_unit_are_noticed(shared_data: Path, tmp_path: Path, project: Project) -> None:
    """They lie outside of their vertebrae. L1 of this person, who shows no T12, is crushed: a person has to look."""
    _, centres = verse_folder(shared_data, tmp_path / "verse", "010")
    entries = json.loads(centres.read_text())
    for entry in entries[1:]:
        entry.update({axis: 3.0 * entry[axis] for axis in "XYZ"})
    centres.write_text(json.dumps(entries))
    [done] = take(project, tmp_path / "verse")
    assert [point.level for point in done.mapped.labels.keypoints] == ["L2"]
    notes = done.mapped.notes
    assert len(notes) == 3 and all("outside of the vertebra" in note for note in notes[:2]) and "L1: no keypoint" in notes[2]


@pytest.mark.parametrize("entries", [[], {}, [{"label": 20, "X": 1, "Y": 2, "Z": 3}], [{"direction": ["P", "I"]}],
                                     [{"direction": ["P", "I", "A"]}, {"label": 20, "X": 1, "Y": 2, "Z": 3}]])
def test_centres_without_a_direction_are_refused(tmp_path: Path, entries: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="direction"):
        read_centres(tmp_path / "a.json", small_cases.geometry())


def test_centres_by_arithmetic(tmp_path: Path) -> None:
    """Grid of 24 x 20 x 22 voxels k, j, i of 2, 1.25 and 1.5 mm from (-15, 7, -120). X runs to A, Y to R, Z to S: j is
    19 - X, i is 21 - Y, k is Z."""
    (tmp_path / "a.json").write_text(json.dumps([{"direction": ["A", "R", "S"]}, {"label": 20, "X": 4, "Y": 1, "Z": 10.5},
                                                 {"label": 21, "X": float("nan"), "Y": 1, "Z": 1}]))
    centres = read_centres(tmp_path / "a.json", small_cases.geometry())
    assert list(centres) == [20]
    np.testing.assert_allclose(centres[20], (-15 + 20 * 1.5, 7 + 15 * 1.25, -120 + 10.5 * 2), atol=1e-9)


def test_folders_of_ctspine1k(project: Project, lidc: Path, tmp_path: Path, by_eye: dict) -> None:
    whole, grid = read_label_map(lidc / "labels.nii.gz")
    numbers = {name: label for label, name in PUBLIC["verse"].items()}
    spine = np.zeros(whole.shape, np.uint8)
    for label in BONE_LABELS["vertebrae"]:
        spine[whole == label] = numbers[PUBLIC["totalsegmentator"][label]]
    (tmp_path / "set" / "volumes" / "COVID").mkdir(parents=True)
    shutil.copy(lidc / "ct.nii.gz", tmp_path / "set" / "volumes" / "COVID" / "volume-covid19-A-0003_ct.nii.gz")
    (tmp_path / "set" / "labels").mkdir()
    write_volume(tmp_path / "set" / "labels" / "volume-covid19-A-0003_ct_seg.nii.gz", spine, grid)
    [done] = take(project, tmp_path / "set", layout="ctspine1k")
    labels = read_labels(done.case)
    same_region(labels, "vertebrae", spine > 0, grid)
    same_keypoints(labels, by_eye)
    assert done.mapped.missing == ("clavicles", "scapulae", "ribs")


def test_files_of_ribseg(project: Project, lidc: Path, tmp_path: Path) -> None:
    whole, grid = read_label_map(lidc / "labels.nii.gz")
    ribs = np.isin(whole, BONE_LABELS["ribs"])
    (tmp_path / "set" / "ribfrac-train-images").mkdir(parents=True)
    shutil.copy(lidc / "ct.nii.gz", tmp_path / "set" / "ribfrac-train-images" / "RibFrac7-image.nii.gz")
    (tmp_path / "set" / "seg").mkdir()
    write_volume(tmp_path / "set" / "seg" / "RibFrac7-rib-seg.nii.gz", np.where(ribs, whole - 91, 0).astype(np.uint8), grid)
    [done] = take(project, tmp_path / "set")
    labels = read_labels(done.case)
    assert set(labels.masks) == {"ribs"} and labels.keypoints == () and done.mapped.unmapped == ()
    same_region(labels, "ribs", ribs, grid)
    assert done.case.source == "RibSeg RibFrac7" and "vertebrae" in done.case.reason


# --- a clinic's own files ----------------------------------------------------------------------------------

def label_file(path: Path, *blocks: tuple[int, tuple[int, int, int]], dtype: type = np.uint16) -> np.ndarray:
    """A label map on the small grid: (label, first voxel) of blocks of 3 x 4 x 5 voxels."""
    labels = np.zeros(small_cases.SHAPE_KJI, dtype)
    for label, start in blocks:
        mask = block(start)
        labels[mask.box][mask.voxels] = label
    write_volume(path, labels, small_cases.geometry())
    return labels


def test_labels_of_itk_snap_by_their_descriptions(project: Project, tmp_path: Path) -> None:
    """Odd numbers and names that a person would write; the one that is described but not drawn is not there."""
    folder = ct_file(tmp_path / "a", name="case7_image.nii.gz").parent
    labels = label_file(folder / "case7_seg.nii.gz", (300, (1, 1, 1)), (17, (5, 1, 1)), (18, (9, 1, 1)), (2, (13, 1, 1)),
                        (9, (17, 1, 1)), (44, (17, 10, 10)))
    write_label_descriptions(folder / "case7_seg.label", [
        SnapLabel(300, "Th12", (1, 2, 3)), SnapLabel(17, "rib left 3", (1, 2, 3)), SnapLabel(18, "R Rib #4", (1, 2, 3)),
        SnapLabel(2, "Left Clavicle", (1, 2, 3)), SnapLabel(9, "Tumour", (1, 2, 3)), SnapLabel(5, "scapula", (1, 2, 3))])
    [done] = take(project, folder)
    got = read_labels(done.case)
    assert set(got.masks) == {"vertebrae", "ribs", "clavicles"}
    same_region(got, "ribs", np.isin(labels, (17, 18)), small_cases.geometry())
    same_region(got, "vertebrae", labels == 300, small_cases.geometry())
    assert done.mapped.mapped == {"vertebrae": ("Th12",), "ribs": ("rib left 3", "R Rib #4"),
                                  "clavicles": ("Left Clavicle",)}
    assert done.mapped.unmapped == ("Tumour", "label 44") and done.mapped.missing == ("scapulae",)


def test_a_workspace_of_itk_snap(project: Project, tmp_path: Path) -> None:
    masks = {"vertebrae": block((2, 2, 2)), "ribs": block((9, 2, 2))}
    export_workspace(tmp_path / "snap", small_cases.ct(), Labels(small_cases.geometry(), masks))
    [done] = take(project, tmp_path / "snap" / "workspace.itksnap")
    assert done.case.source == "ITK-SNAP workspace" and Path(done.case.image) == tmp_path / "snap" / "image.nii.gz"
    for name, mask in masks.items():
        same_region(read_labels(done.case), name, mask.full(small_cases.geometry()), small_cases.geometry())


def test_our_own_segmentation_beside_a_ct(project: Project, tmp_path: Path) -> None:
    """Taken before a label map of the same case; regions that an annotator does not draw are told."""
    folder = ct_file(tmp_path / "a", name="p1_ct.nrrd").parent
    masks = {"vertebrae": block((2, 2, 2)), "ribs": block((9, 2, 2)), "aorta": block((15, 2, 2))}
    write_segmentation(folder / "p1.seg.nrrd", Rois(small_cases.geometry(), masks))
    label_file(folder / "p1_labels.nii.gz", (1, (1, 1, 1)))
    [done] = take(project, folder)
    assert set(read_labels(done.case).masks) == {"vertebrae", "ribs"} and done.mapped.unmapped == ("aorta",)


def test_a_numbering_by_its_name(project: Project, tmp_path: Path) -> None:
    path = ct_file(tmp_path / "a")
    label_file(path.with_name("any.nii.gz"), (STRUCTURES["ribs"].label, (2, 2, 2)), (STRUCTURES["body_L1"].label, (9, 2, 2)))
    [done] = take(project, path, labels=path.with_name("any.nii.gz"), scheme="lowdosebmd")
    labels = read_labels(done.case)
    assert set(labels.masks) == {"vertebrae", "ribs", "body_L1"} and done.case.status is Status.IN_PROGRESS
    same_region(labels, "vertebrae", labels.masks["body_L1"].full(labels.geometry), labels.geometry)


def test_a_bone_without_a_voxel_is_absent_from_the_ct_only_when_somebody_says_so(project: Project, tmp_path: Path) -> None:
    """A map of vertebrae alone, in a numbering that knows ribs: the ribs of the CT must not become background."""
    for name, seed, complete in (("a", 0, False), ("b", 1, True)):
        folder = ct_file(tmp_path / name, seed).parent
        label_file(folder / "labels.nii.gz", (TOTAL["vertebrae_T12"], (2, 2, 2)))
        [done] = take(project, folder, scheme="totalsegmentator", complete=complete)
        assert ("ribs" in read_labels(done.case).masks) is complete
        assert done.case.status is (Status.COMPLETED if complete else Status.IN_PROGRESS)


def test_numbers_without_names_are_not_guessed(project: Project, tmp_path: Path) -> None:
    folder = ct_file(tmp_path / "a").parent
    label_file(folder / "labels.nii.gz", (20, (2, 2, 2)))
    [done] = take(project, folder)
    assert "--names" in done.problem and "--scheme" in done.problem
    assert done.outcome == "added" and done.case.status is Status.NOT_STARTED and read_labels(done.case).masks == {}


def test_labels_of_another_scan_are_left_out(project: Project, tmp_path: Path) -> None:
    folder = ct_file(tmp_path / "a").parent
    grid = small_cases.geometry()
    write_volume(folder / "labels.nii.gz", np.ones(grid.shape_kji, np.uint8), grid.crop((0, 0, 500), grid.shape_kji))
    [done] = take(project, folder, scheme="verse")
    assert "another scan" in done.problem and done.case.status is Status.NOT_STARTED


def test_labels_that_come_later_are_added_but_never_over_a_persons_work(project: Project, tmp_path: Path) -> None:
    folder = ct_file(tmp_path / "a").parent
    [first] = take(project, folder)
    label_file(folder / "labels.nii.gz", (1, (2, 2, 2)))
    [second] = take(project, folder, scheme="lowdosebmd")
    assert (second.outcome, second.case.name) == ("labels added", first.case.name)
    with open_for_writing(project.add(ct_file(tmp_path / "b", 1)), "AB"):
        label_file(tmp_path / "b" / "labels.nii.gz", (1, (2, 2, 2)))
        [taken] = take(project, tmp_path / "b", scheme="lowdosebmd")
        assert taken.outcome == "there already" and "being edited by AB" in taken.problem
    with open_for_writing(second.case, "AB") as writing:
        writing.save(Labels(small_cases.geometry(), {"ribs": block((9, 2, 2))}))
    [third] = take(project, folder, scheme="lowdosebmd")
    assert third.outcome == "there already" and set(read_labels(project.case("0001")).masks) == {"ribs"}
    assert len(project.cases()) == 2


def test_imported_labels_may_wait_for_a_person(project: Project, tmp_path: Path) -> None:
    folder = ct_file(tmp_path / "a").parent
    label_file(folder / "labels.nii.gz", (1, (2, 2, 2)))
    [done] = take(project, folder, scheme="lowdosebmd", to_check=True, complete=True)
    assert (done.case.status, done.case.reason) == (Status.IN_PROGRESS, "to be checked")


def test_dicom_leaves_no_name_behind_and_keeps_patients_together(project: Project, tmp_path: Path) -> None:
    """Two studies of one patient and one of another, in one tree, copied."""
    for seed, (study, patient) in enumerate((("1.2.1", "ID7"), ("1.2.2", "ID7"), ("1.2.3", "ID8"))):
        volume = small_cases.ct(seed)
        write_ct_series(tmp_path / "cds" / study, CTVolume(np.clip(volume.hu, -1000, 1100), volume.geometry), study,
                        PatientID=patient)
    done = take(project, tmp_path / "cds", copy=True)
    assert [each.outcome for each in done] == ["added"] * 3
    assert [each.case.patient for each in done] == ["1", "1", "2"]
    written = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    for secret in (b"SECRET", b"ID7", b"ID8", b"19600102", b"cds"):
        assert not [path for path, content in written.items() if secret in content], secret
    shutil.rmtree(tmp_path / "cds")
    assert read_image(project.case("0003")).hu.shape == small_cases.SHAPE_KJI


def test_a_dicom_folder_is_referred_to_with_its_series(project: Project, tmp_path: Path) -> None:
    volume = small_cases.ct()
    series = write_ct_series(tmp_path / "cd" / "a", CTVolume(np.clip(volume.hu, -1000, 1100), volume.geometry), "1.2.3")
    [done] = take(project, tmp_path / "cd")
    assert (done.case.image, done.case.series) == (str(tmp_path / "cd" / "a"), series)
    np.testing.assert_array_equal(read_image(done.case).hu, np.clip(volume.hu, -1000, 1100))


def test_two_dicom_studies_of_one_folder_that_cannot_be_read_are_two_cases(project: Project, tmp_path: Path) -> None:
    for study in ("1.2.1", "1.2.2"):
        volume = small_cases.ct()
        write_ct_series(tmp_path / study, CTVolume(np.full_like(volume.hu, 40), volume.geometry), study)
        (tmp_path / "flat").mkdir(exist_ok=True)
        for file in (tmp_path / study).iterdir():
            file.rename(tmp_path / "flat" / f"{study}-{file.name}")
    assert [each.outcome for each in take(project, tmp_path / "flat")] == ["cannot be read"] * 2
    assert [each.outcome for each in take(project, tmp_path / "flat")] == ["cannot be read"] * 2
    assert len({case.series for case in project.cases()}) == len(project.cases()) == 2


def test_what_cannot_be_read_is_marked_and_the_rest_goes_on(project: Project, tmp_path: Path) -> None:
    folder = ct_file(tmp_path / "a", 1, "b.nii.gz").parent
    whole = (folder / "b.nii.gz").read_bytes()
    (folder / "a.nii.gz").write_bytes(whole[:len(whole) // 2])
    ct_file(folder, 2, "c.nii.gz")
    outcomes = take(project, folder)
    assert [each.outcome for each in outcomes] == ["cannot be read", "added", "added"]
    first = project.cases()[0]
    assert first.name == "0001" and first.problem == outcomes[0].problem and "ends too early" in first.problem
    ct_file(folder, 3, "a.nii.gz")
    assert [each.outcome for each in take(project, folder)] == ["added", "there already", "there already"]
    assert [(case.name, case.problem) for case in project.cases()] == [("0001", ""), ("0002", ""), ("0003", "")]


def test_a_label_map_alone_makes_no_case(project: Project, tmp_path: Path) -> None:
    folder = ct_file(tmp_path / "a").parent
    label_file(folder / "vertebrae.nii.gz", (20, (2, 2, 2)))
    assert [each.outcome for each in take(project, folder)] == ["added", "no CT"] and len(project.cases()) == 1


@pytest.mark.parametrize(("options", "named"), [
    ({"layout": "verse"}, "layout of verse"), ({"layout": "nnunet"}, "nnunet"), ({"scheme": "nnunet"}, "nnunet"),
    ({"labels": Path("x.nii.gz")}, "2 CTs"), ({"names": Path("missing.csv")}, "missing.csv")])
def test_what_cannot_be_meant_is_said_before_anything_is_imported(tmp_path: Path, options: dict, named: str) -> None:
    ct_file(tmp_path, 1, "a.nii.gz")
    ct_file(tmp_path, 2, "b.nii.gz")
    with pytest.raises((ValueError, OSError), match=named):
        find_all([tmp_path], ImportOptions(**options))
    with pytest.raises(ValueError, match="nothing at"):
        find_all([tmp_path / "missing"])


# --- the commands ------------------------------------------------------------------------------------------

def test_a_project_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project, folder = tmp_path / "project", ct_file(tmp_path / "cts", 1, "a_ct.nii.gz").parent
    label_file(folder / "a_labels.nii.gz", (1, (2, 2, 2)), (4, (9, 2, 2)), (77, (15, 2, 2)))
    (folder / "z.nii.gz").write_bytes(b"hello")
    assert main(["new", str(project), "--title", "Site A"]) == 0
    assert main(["import", str(project), str(folder), "--scheme", "lowdosebmd", "--complete"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert not any("--patient" in line for line in lines)
    assert lines[1] == f"[1/2] 0001 added: {folder / 'a_ct.nii.gz'}"
    assert "    ribs: ribs" in lines and "    not mapped: label 77" in lines
    assert any(line.startswith("[2/2] 0002 cannot be read: ") for line in lines) and lines[-1] == "1 added, 1 cannot be read"
    assert main(["list", str(project)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Site A: 2 cases" and lines[-1] == "1 completed, 1 cannot be read"
    assert lines[2].split()[:3] == ["0001", "completed", "import"] and lines[3].startswith("0002  cannot be read: ")
    assert main(["set", str(project), "0001", "--status", "flagged", "--reason", "motion", "--annotator", "AB"]) == 0
    assert "flagged      AB" in capsys.readouterr().out
    assert main(["labels", str(project), "0001", "--itksnap", str(tmp_path / "snap")]) == 0
    assert {path.name for path in (tmp_path / "snap").iterdir()} == {"image.nii.gz", "segmentation.nii.gz", "labels.txt",
                                                                     "workspace.itksnap", "keypoints.mrk.json"}


def test_a_project_inside_of_what_is_imported_is_left_out(project: Project, tmp_path: Path) -> None:
    project.add(ct_file(tmp_path / "a"), copy=True)
    found = find_all([tmp_path], skip=project.folder)
    assert [each.place for each in found] == [tmp_path / "a" / "ct.nii.gz"]


def test_what_was_drawn_in_itk_snap_comes_back_into_its_case(project: Project, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    """Ribs were moved and scapulae wiped out there, under names of the person's own; the keypoint of the case stays."""
    case, grid = project.add(ct_file(tmp_path / "a")), small_cases.geometry()
    point = (Keypoint("L1", (1.0, 20.0, -100.0)),)
    with open_for_writing(case, "AB") as writing:
        writing.save(Labels(grid, {"ribs": block((2, 2, 2)), "scapulae": block((9, 2, 2))}, point))
    assert main(["labels", str(project.folder), "0001", "--itksnap", str(tmp_path / "snap")]) == 0
    drawn = label_file(tmp_path / "snap" / "segmentation.nii.gz", (4, (5, 2, 2)), (6, (15, 2, 2)))
    named = [SnapLabel(4, "Ribs", (0, 0, 1)), SnapLabel(6, "T12", (9, 9, 9))]
    write_label_descriptions(tmp_path / "snap" / "labels.txt", named)
    take = ["labels", str(project.folder), "0001", "--take", str(tmp_path / "snap" / "segmentation.nii.gz")]
    assert main(take) == 2 and "--annotator" in capsys.readouterr().err
    assert main([*take, "--annotator", "CD"]) == 0
    assert "    vertebrae: T12" in capsys.readouterr().out.splitlines()
    labels = read_labels(project.case("0001"))
    same_region(labels, "ribs", drawn == 4, grid)
    same_region(labels, "vertebrae", drawn == 6, grid)
    assert labels.masks["scapulae"].empty and labels.keypoints == point and project.case("0001").annotator == "CD"
    label_file(tmp_path / "snap" / "segmentation.nii.gz", (77, (5, 2, 2)))
    assert main([*take, "--annotator", "CD"]) == 2 and "label 77" in capsys.readouterr().err
    same_region(read_labels(project.case("0001")), "ribs", drawn == 4, grid)


@pytest.mark.parametrize("arguments", [
    ["list", "missing"], ["new", "."], ["import", "missing", "missing"], ["labels", "missing", "0001", "--itksnap", "x"],
    ["set", "missing", "0001", "--annotator", "AB"]])
def test_unusable_arguments_are_status_2(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("lowdosebmd-train: ")
