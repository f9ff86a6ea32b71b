"""Projects of cases: one writer at a time, nothing lost in a crash, and a worklist that opens whatever a file holds."""

from __future__ import annotations

import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_cases
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint
from LowDoseBMDTrainerLib.cases import (
    CASE_FILE,
    HISTORY,
    Case,
    CaseTaken,
    Effort,
    Labels,
    Status,
    open_for_writing,
    read_anatomy,
    read_case,
    read_history,
    read_image,
    read_labels,
    read_proposal,
    readers_of,
    writer_of,
)
from LowDoseBMDTrainerLib.project import Anatomy, Arrival, CaseThere, Project, create_project, open_project
from small_cases import block, ct, ct_file, geometry, python

OLD = Labels(geometry(), {"ribs": block((2, 3, 4)), "scapulae": NO_VOXELS}, (Keypoint("L1", (1.5, 20.0, -100.0)),))
NEW = Labels(geometry(), {"ribs": block((9, 3, 4))}, (Keypoint("L2", (2.5, 21.0, -90.0)),))

HOLD = """
import sys
from pathlib import Path
from LowDoseBMDTrainerLib.cases import open_for_writing, read_case
with open_for_writing(read_case(Path(sys.argv[1])), "AB"):
    print("open", flush=True)
    sys.stdin.read()
"""

SAVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from LowDoseBMDLib.rois import Keypoint, Mask
from LowDoseBMDTrainerLib.cases import Labels, open_for_writing, read_case

def dies(source, target, replace=os.replace):
    if os.path.basename(target) == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

case = read_case(Path(sys.argv[1]))
with open_for_writing(case, "AB") as writing:
    os.replace = dies
    mask = Mask(np.ones((3, 4, 5), bool), (9, 3, 4))
    writing.save(Labels(case.geometry, {"ribs": mask}, (Keypoint("L2", (2.5, 21.0, -90.0)),)))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path / "project", "Two annotators")


@pytest.fixture
def case(project: Project, tmp_path: Path) -> Case:
    return project.add(ct_file(tmp_path / "images"))


def test_a_case_returns_as_it_was_written(project: Project, case: Case) -> None:
    assert (case.name, case.status, case.patient, case.problem) == ("0001", Status.NOT_STARTED, "1", "")
    with open_for_writing(case, "AB") as writing:
        writing.save(OLD)
        writing.record(Effort(90.0, 12, 0.95), 0.25)
        writing.set_status(Status.FLAGGED, "metal in L2")
    [found] = project.cases()
    assert found == replace(case, status=Status.FLAGGED, annotator="AB", reason="metal in L2", changed=found.changed,
                            effort=Effort(90.0, 12, 0.95), uncertainty=0.25)
    assert found.geometry.same_grid(geometry())
    labels = read_labels(found)
    assert set(labels.masks) == {"ribs", "scapulae"} and labels.masks["scapulae"].empty
    assert labels.masks["ribs"].start_kji == (2, 3, 4) and labels.masks["ribs"].voxels.shape == (3, 4, 5)
    assert labels.keypoints == OLD.keypoints
    np.testing.assert_array_equal(read_image(found).hu, ct().hu)


def test_a_first_save_starts_a_case_and_nothing_is_there_before(project: Project, case: Case) -> None:
    assert read_labels(case).masks == {} and read_labels(case).keypoints == () and read_proposal(case) is None
    with open_for_writing(case, "AB") as writing:
        writing.save(Labels(geometry()))
    assert project.case("0001").status is Status.IN_PROGRESS
    assert all(mask.empty for mask in read_labels(case).masks.values())


def test_proposals_and_second_readings_lie_beside_the_truth(project: Project, case: Case) -> None:
    with open_for_writing(case, "AB") as writing:
        writing.save(OLD)
        writing.save_proposal(NEW)
        writing.save_reading("李 C.D", NEW)
    assert readers_of(case) == ("李 C.D",)
    assert read_labels(case).keypoints == OLD.keypoints
    assert read_labels(case, "李 C.D").keypoints == read_proposal(case).keypoints == NEW.keypoints


@pytest.mark.parametrize("name", ["", "../AB", "a/b", ".", "A" * 41, "AB\nC"])
def test_a_name_that_cannot_name_a_folder_is_refused(case: Case, name: str) -> None:
    with pytest.raises(ValueError, match="initials"), open_for_writing(case, name):
        pass


def test_history_tells_who_did_what_and_survives_a_torn_line(case: Case) -> None:
    with open_for_writing(case, "AB") as writing:
        writing.save(OLD)
    with open(case.folder / HISTORY, "a", encoding="utf-8") as file:
        file.write('{"time": "2026-01-01T00:00')
    with open_for_writing(case, "CD") as writing:
        writing.set_status(Status.COMPLETED)
    history = read_history(case)
    assert [(entry["who"], entry["what"]) for entry in history] == [("", "added"), ("AB", "labels saved"), ("CD", "status")]
    assert history[2]["before"] == "in progress" and history[2]["status"] == "completed"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["time"]) for entry in history)


# --- one writer --------------------------------------------------------------------------------------------

def test_a_second_process_is_told_who_has_the_case(case: Case) -> None:
    holder = python(HOLD, case.folder)
    assert holder.stdout.readline() == "open\n"
    try:
        with pytest.raises(CaseTaken) as taken, open_for_writing(case, "CD"):
            pass
        told = str(taken.value)
        assert re.search(rf"0001 is being edited by AB on host {re.escape(socket.gethostname())} since \d\d:\d\d "
                         rf"\(process {holder.pid}\)", told), told
        assert writer_of(case).startswith("AB on host")
        second = python(HOLD, case.folder)
        _, error = second.communicate(timeout=60)
        assert second.returncode == 1 and "is being edited by AB" in error
        assert read_labels(case).masks == {}  # anybody may look
    finally:
        holder.communicate(timeout=60)
    assert writer_of(case) is None
    with open_for_writing(case, "CD") as writing:
        writing.save(OLD)


def test_the_same_process_is_told_too(case: Case) -> None:
    with open_for_writing(case, "AB"), pytest.raises(CaseTaken, match="AB on host"), open_for_writing(case, "AB"):
        pass


def test_a_writer_that_was_killed_leaves_no_lock(case: Case) -> None:
    holder = python(HOLD, case.folder)
    assert holder.stdout.readline() == "open\n"
    holder.kill()
    holder.wait(timeout=60)
    holder.communicate()
    assert writer_of(case) is None
    with open_for_writing(case, "CD") as writing:
        writing.save(OLD)


@pytest.mark.parametrize("file", ["labels.seg.nrrd", "keypoints.mrk.json", "case.json"])
def test_a_power_cut_while_saving_leaves_every_file_whole(case: Case, file: str) -> None:
    """Killed between writing aside and the rename of each file in turn."""
    with open_for_writing(case, "AB") as writing:
        writing.save(OLD)
    writer = python(SAVE_AND_DIE, case.folder, file)
    _, error = writer.communicate(timeout=60)
    assert writer.returncode == -9, error
    assert [path for path in case.folder.iterdir() if path.name.endswith(f"-{file}")], "it was killed before it wrote"
    labels = read_labels(read_case(case.folder))
    before = {"labels.seg.nrrd": 0, "keypoints.mrk.json": 1, "case.json": 2}[file]
    assert labels.masks["ribs"].start_kji == ((2, 3, 4) if before == 0 else (9, 3, 4))
    assert labels.keypoints == (OLD.keypoints if before <= 1 else NEW.keypoints)
    with open_for_writing(case, "CD") as writing:
        writing.save(NEW)
    assert read_labels(case).masks["ribs"].start_kji == (9, 3, 4)
    assert {path.name for path in case.folder.iterdir()} == {"case.json", "labels.seg.nrrd", "keypoints.mrk.json",
                                                             "history.jsonl", ".lock"}


def test_two_processes_that_add_cases_give_each_a_number(project: Project, tmp_path: Path) -> None:
    code = ("import sys\nfrom pathlib import Path\nfrom LowDoseBMDTrainerLib.project import open_project\n"
            "for path in sys.argv[2:]:\n    print(open_project(Path(sys.argv[1])).add(Path(path)).name, flush=True)\n")
    files = [ct_file(tmp_path / "images", seed, f"{seed}.nii.gz") for seed in range(6)]
    workers = [python(code, project.folder, *files[n::2]) for n in range(2)]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), outputs
    names = sorted(name for output, _ in outputs for name in output.split())
    assert names == [case.name for case in project.cases()] == [f"{n:04d}" for n in range(1, 7)]
    assert sorted(int(case.patient) for case in project.cases()) == list(range(1, 7))


def test_a_power_cut_while_adding_leaves_no_half_of_a_case(project: Project, case: Case, tmp_path: Path) -> None:
    code = ("import os, signal, sys\nfrom pathlib import Path\nfrom LowDoseBMDTrainerLib.project import open_project\n"
            "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "open_project(Path(sys.argv[1])).add(Path(sys.argv[2]), copy=True)\n")
    path = ct_file(tmp_path / "images", 1, "b.nii.gz")
    killed = python(code, project.folder, path)
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert [each.name for each in project.cases()] == ["0001"]
    assert len(list((project.folder / "cases").iterdir())) == 2, "it was killed before it wrote"
    assert project.add(path).name == "0002"
    assert {each.name for each in (project.folder / "cases").iterdir()} == {"0001", "0002"}


# --- the worklist opens whatever a file holds --------------------------------------------------------------

@pytest.mark.parametrize(("content", "named"), [
    ("", "case.json"), ("{", "case.json"), ("[]", "no JSON object"), ("{}", "schema_version"),
    ('{"schema_version": 9}', "schema_version is 9"), ('{"schema_version": 1, "status": "done"}', "done"),
    ('{"schema_version": 1, "status": "completed", "annotator": 7}', "annotator is 7"),
    ('{"schema_version": 1, "status": "completed", "grid": {"shape_kji": [1], "ijk_to_lps": []}}', "grid"),
    ("[" * 100_000, "case.json"), ("\udcff", "case.json")])
def test_a_case_file_broken_by_hand_is_named_and_the_others_open(project: Project, tmp_path: Path, content: str,
                                                                 named: str) -> None:
    first = project.add(ct_file(tmp_path / "images"))
    project.add(ct_file(tmp_path / "images", 1, "b.nii.gz"))
    (first.folder / CASE_FILE).write_text(content, encoding="utf-8", errors="surrogateescape")
    broken, whole = open_project(project.folder).cases()
    assert named in broken.problem and "Correct it" in broken.problem and broken.name == "0001"
    assert whole.problem == "" and whole.geometry is not None
    with pytest.raises(ValueError, match="0001"), open_for_writing(broken, "AB"):
        pass
    with pytest.raises(ValueError, match="0001"):
        read_labels(broken)


def test_a_folder_without_a_case_file_is_a_problem_too(project: Project, case: Case) -> None:
    (case.folder / CASE_FILE).unlink()
    assert "has no case.json" in project.cases()[0].problem


def test_labels_that_cannot_be_read_name_the_case(case: Case) -> None:
    (case.folder / "labels.seg.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(ValueError, match="0001: .*segmentation"):
        read_labels(case)


# --- images and patients -----------------------------------------------------------------------------------

def test_the_same_ct_is_known_again_in_another_file(project: Project, case: Case, tmp_path: Path) -> None:
    with pytest.raises(CaseThere) as there:
        project.add(ct_file(tmp_path / "elsewhere", 0, "other.nrrd"))
    assert there.value.case.name == "0001" and len(project.cases()) == 1


def test_a_project_with_copies_can_be_moved(project: Project, tmp_path: Path) -> None:
    project.add(ct_file(tmp_path / "images"), copy=True)
    shutil.rmtree(tmp_path / "images")
    shutil.move(project.folder, tmp_path / "moved")
    [case] = open_project(tmp_path / "moved").cases()
    np.testing.assert_array_equal(read_image(case).hu, ct().hu)
    assert str(tmp_path) not in (case.folder / CASE_FILE).read_text(encoding="utf-8")


def test_a_ct_that_was_moved_is_found_again_and_another_is_refused(case: Case, tmp_path: Path) -> None:
    moved, other = ct_file(tmp_path / "moved"), ct_file(tmp_path / "moved", 5, "other.nii.gz")
    Path(case.image).unlink()
    with pytest.raises(ValueError, match="set PROJECT 0001 --image"):
        read_image(case)
    with open_for_writing(case, "AB") as writing:
        with pytest.raises(ValueError, match="voxels differ"):
            writing.set_image(other)
        writing.set_image(moved)
    np.testing.assert_array_equal(read_image(read_case(case.folder)).hu, ct().hu)


def test_another_ct_at_the_same_place_is_noticed(case: Case) -> None:
    volume = ct()
    from LowDoseBMDLib.files.volumes import write_volume

    write_volume(Path(case.image), volume.hu[:, :, :-1], volume.geometry.crop((0, 0, 0), (24, 20, 21)))
    with pytest.raises(ValueError, match="another one than the case was drawn on"):
        read_image(case)


def test_patients_are_numbers_by_a_secret_hash(project: Project, tmp_path: Path) -> None:
    arrivals = ["DOE^JANE 1950", None, "DOE^JANE 1950", "ROE^RICHARD"]
    cases = [project.add(ct_file(tmp_path / "images", seed, f"{seed}.nii.gz"), arrival=Arrival(patient=patient))
             for seed, patient in enumerate(arrivals)]
    assert [case.patient for case in cases] == ["1", "2", "1", "3"]
    written = b"".join(path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    assert b"DOE" not in written and b"JANE" not in written
    assert (project.folder / ".patients.json").stat().st_mode & 0o077 == 0


def test_a_damaged_key_of_patients_is_named(project: Project, tmp_path: Path) -> None:
    (project.folder / ".patients.json").write_text('{"next": 3}')
    with pytest.raises(ValueError, match="patients.json cannot be read"):
        project.add(ct_file(tmp_path / "images"))


def test_a_patients_group_is_set_by_number_only(case: Case) -> None:
    with open_for_writing(case, "AB") as writing:
        writing.set_patient("7")
        with pytest.raises(ValueError, match="no name"):
            writing.set_patient("Jane")
    assert read_case(case.folder).patient == "7"


def test_a_case_that_cannot_be_read_becomes_one_when_it_can(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "images" / "ct.nii.gz"
    first = project.add_unreadable(path, "the file is cut short")
    again = project.add_unreadable(path, "it is still cut short")
    assert (first.name, again.name, again.problem) == ("0001", "0001", "it is still cut short")
    case = project.add(ct_file(tmp_path / "images"))
    assert [each.name for each in project.cases()] == ["0001"] and case.problem == "" and case.geometry is not None


def test_a_foreign_label_map_is_kept_whole(project: Project, tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 118, small_cases.SHAPE_KJI).astype(np.uint8)
    anatomy = Anatomy(labels, geometry(), {5: "liver", 32: "vertebrae_T12"})
    case = project.add(ct_file(tmp_path / "images"), arrival=Arrival(anatomy=anatomy))
    stored, grid, names = read_anatomy(case)
    np.testing.assert_array_equal(stored, labels)
    assert grid.same_grid(geometry()) and names == anatomy.names


def test_numbers_out_of_range_are_refused(case: Case) -> None:
    with open_for_writing(case, "AB") as writing:
        with pytest.raises(ValueError, match="1.5 is not between"):
            writing.record(uncertainty=1.5)
        with pytest.raises(ValueError, match="-1"):
            writing.record(Effort(-1.0))


@pytest.mark.parametrize("name", ["", "..", "0002", "../cases/0001", ".lock"])
def test_a_case_that_is_not_there_is_refused(project: Project, case: Case, name: str) -> None:
    with pytest.raises(ValueError, match="no case"):
        project.case(name)


def test_projects_are_made_once_and_recognised(project: Project, tmp_path: Path) -> None:
    assert open_project(project.folder).title == "Two annotators"
    with pytest.raises(ValueError, match="a project already"):
        create_project(project.folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        create_project(tmp_path / "full")
    with pytest.raises(ValueError, match="lowdosebmd-train new"):
        open_project(tmp_path / "full")
    (project.folder / "project.json").write_text(json.dumps({"schema_version": 2, "title": "x"}))
    with pytest.raises(ValueError, match="version 2"):
        open_project(project.folder)
