"""The Trainer's panel as an annotator uses it: the real .ui, the real scene, a project on the disk."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer_adapter")
import slicer
import small_torso as torso
from LowDoseBMDLib.bones import MIN_PIECE_MM3
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.rois import Keypoint, Mask
from LowDoseBMDTrainerLib.cases import Labels, Status, open_for_writing, read_history, read_labels, read_proposal
from LowDoseBMDTrainerLib.project import Arrival, Project, create_project
from reader import torso_ct

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tests' PythonSlicer is a shell script")

SIDE_PANEL_PIXELS = 450
"""About the width of Slicer's side panel on a small screen."""

VERTEBRAE = torso.box((12, 20, 28), (30, 20, 24))


@pytest.fixture
def a_project(tmp_path: Path) -> Project:
    """Three cases of one small torso: 0001 with vertebrae, the others empty; 0004 cannot be read."""
    project = create_project(tmp_path / "site ü")
    labels = Labels(torso.geometry(), {"vertebrae": VERTEBRAE}, (Keypoint("L1", (0.0, 40.0, -340.0)),))
    for number in range(3):
        path = tmp_path / f"{number}.nii.gz"
        ct = torso_ct()
        hu = ct.hu.copy()
        hu[0, 5, 5] = number
        write_volume(path, hu, ct.geometry)
        project.add(path, arrival=Arrival(labels=labels if number == 0 else None, synthetic=True))
    project.add_unreadable(tmp_path / "gone.nii", "the file is cut off")
    return project


class Annotator:
    """A person at the panel."""

    def __init__(self, session: Any, project: Project) -> None:
        self.session, self.project = session, project
        self.widget = session.open("LowDoseBMDTrainer")
        self.panel, self.ui = self.widget.panel, self.widget.ui
        self.widget.parent.show()
        self.ui.annotatorLineEdit.text = "AB"
        self.panel.openProject(str(project.folder))

    @property
    def annotation(self) -> Any:
        return self.panel.annotation

    @property
    def live(self) -> Any:
        return self.annotation.live

    @property
    def state(self) -> str:
        return self.ui.stateLabel.text

    def settle(self) -> None:
        """Wait until nothing is read or written."""
        self.session.wait(10)
        self.session.wait_until(lambda: not self.annotation.background.busy)
        self.session.wait(10)

    def open(self, name: str) -> None:
        """Double click a case."""
        self.ui.casesTable.cellDoubleClicked.emit(int(name) - 1, 0)
        self.settle()

    def paint(self, name: str, mask: Mask) -> None:
        """A stroke with the brush."""
        self.panel.labels.choose(name)
        k, j, i = ((part.start, part.stop - 1) for part in mask.box)
        self.widget_module().paintBox(self.live.nodes, name, (*i, *j, *k))
        self.session.wait(20)

    def widget_module(self) -> Any:
        import LowDoseBMDTrainer

        return LowDoseBMDTrainer

    def cell(self, row: int, column: int) -> str:
        return self.ui.casesTable.item(row, column).text()

    def case(self, name: str) -> Any:
        return self.project.case(name)


@pytest.fixture
def a_trainer(a_slicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes PythonSlicer run a script with the arguments of a command of lowdosebmd-train."""
    def offer(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
        paths = os.pathsep.join(path for path in sys.path if "Testing" in path or "LowDoseBMD" in path)
        launcher = folder / "PythonSlicer"
        command = f'"{sys.executable}" "{folder / "script.py"}" "$@"'
        launcher.write_text(f'#!/bin/sh\nshift 2\nPYTHONPATH="{paths}" exec {command}\n', encoding="utf-8")
        launcher.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return offer


@pytest.fixture
def an_annotator(a_slicer: Any, a_project: Project) -> Annotator:
    return Annotator(a_slicer, a_project)


def test_self_test_of_the_module(a_slicer: Any) -> None:
    module = a_slicer.load("LowDoseBMDTrainer")
    module.LowDoseBMDTrainerTest().runTest()


def test_the_worklist_shows_every_case_and_why_one_cannot_be_read(an_annotator: Annotator) -> None:
    assert [an_annotator.cell(row, 0) for row in range(4)] == ["0001", "0002", "0003", "0004"]
    assert an_annotator.cell(1, 1) == "not started"
    assert "unreadable" in an_annotator.cell(3, 1) and "cut off" in an_annotator.cell(3, 1)
    assert an_annotator.ui.doneLabel.text == "0 / 4 done"
    an_annotator.open("0004")
    assert an_annotator.live is None and "cut off" in an_annotator.state


def test_what_is_drawn_is_saved_behind_and_undo_takes_it_back(an_annotator: Annotator) -> None:
    an_annotator.open("0002")
    assert an_annotator.ui.drawFrame.visible and "▶" in an_annotator.cell(1, 0)
    stroke = torso.box((5, 5, 5), (3, 4, 6))
    an_annotator.paint("ribs", stroke)
    assert "not saved yet" in an_annotator.state
    an_annotator.session.wait_until(lambda: "saved " in an_annotator.state and not an_annotator.annotation.unsaved)
    assert read_labels(an_annotator.case("0002")).masks["ribs"].same_as(stroke)
    assert an_annotator.case("0002").status is Status.IN_PROGRESS and an_annotator.cell(1, 1) == "in progress"
    an_annotator.ui.undoButton.click()
    an_annotator.annotation.leave()
    an_annotator.settle()
    assert "ribs" not in read_labels(an_annotator.case("0002")).masks


def test_completing_saves_records_the_work_and_opens_the_next(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    an_annotator.paint("clavicles", torso.box((5, 5, 5), (2, 2, 2)))
    an_annotator.live.place("T12", (0.0, 40.0, -390.0))  # below L1
    an_annotator.annotation.activity.seconds = 90.0
    an_annotator.ui.completeButton.click()
    an_annotator.settle()
    assert "Not completed yet" in an_annotator.state and an_annotator.ui.findingsList.count
    an_annotator.ui.completeButton.click()
    an_annotator.settle()
    an_annotator.settle()
    done = an_annotator.case("0001")
    assert (done.status, done.annotator) == (Status.COMPLETED, "AB")
    assert done.effort.seconds == pytest.approx(90.0, abs=5.0)
    assert "clavicles" in read_labels(done).masks
    assert an_annotator.panel.currentCase.name == "0002"
    assert an_annotator.ui.doneLabel.text == "1 / 4 done"


def test_a_completed_case_is_locked_until_it_is_reopened(an_annotator: Annotator) -> None:
    with open_for_writing(an_annotator.case("0001"), "CD") as writing:
        writing.set_status(Status.COMPLETED)
    an_annotator.open("0001")
    an_annotator.paint("ribs", torso.box((5, 5, 5), (3, 4, 6)))
    assert "ribs" not in an_annotator.live.labels.masks
    assert an_annotator.ui.completeButton.text == "Reopen"
    an_annotator.ui.completeButton.click()
    an_annotator.settle()
    an_annotator.paint("ribs", torso.box((5, 5, 5), (3, 4, 6)))
    assert "ribs" in an_annotator.live.labels.masks


def test_a_flag_asks_why_without_a_dialog(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    an_annotator.ui.flagButton.click()
    assert an_annotator.ui.flagFrame.visible
    an_annotator.ui.flagYesButton.click()
    assert an_annotator.case("0001").status is not Status.FLAGGED and "why" in an_annotator.state
    an_annotator.ui.reasonLineEdit.text = "metal"
    an_annotator.ui.flagYesButton.click()
    an_annotator.settle()
    an_annotator.settle()
    assert (an_annotator.case("0001").status, an_annotator.case("0001").reason) == (Status.FLAGGED, "metal")
    assert an_annotator.cell(0, 1) == "flagged: metal"


def test_a_case_that_somebody_else_draws_opens_read_only_and_says_who(an_annotator: Annotator) -> None:
    with open_for_writing(an_annotator.case("0001"), "CD"):
        an_annotator.open("0001")
        assert "read only" in an_annotator.state and "CD" in an_annotator.state
        an_annotator.paint("ribs", torso.box((5, 5, 5), (3, 4, 6)))
        assert "ribs" not in an_annotator.live.labels.masks
        assert not an_annotator.ui.completeButton.enabled
    before = read_history(an_annotator.case("0001"))
    an_annotator.annotation.leave()
    an_annotator.settle()
    assert read_history(an_annotator.case("0001")) == before


def test_nobody_draws_without_a_name(an_annotator: Annotator) -> None:
    an_annotator.ui.annotatorLineEdit.text = ""
    an_annotator.open("0001")
    assert an_annotator.live is None and "who you are" in an_annotator.state


@pytest.mark.parametrize("end", ["scene", "module", "program"])
def test_nothing_is_lost_when_the_scene_the_module_or_the_program_closes(an_annotator: Annotator, end: str) -> None:
    an_annotator.open("0002")
    stroke = torso.box((5, 5, 5), (3, 4, 6))
    an_annotator.paint("ribs", stroke)
    session = an_annotator.session
    if end == "scene":
        session.close_scene()
        an_annotator.settle()
        assert an_annotator.live is None
    elif end == "module":
        session.leave()
        an_annotator.settle()
    else:
        session.modules.unload(slicer.app.moduleManager())
    assert read_labels(an_annotator.case("0002")).masks["ribs"].same_as(stroke)


def test_labels_that_cannot_be_saved_are_offered_another_folder(an_annotator: Annotator, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    from LowDoseBMDTrainerLib.cases import Writing

    def full(_self: Writing, _labels: Labels) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writing, "save", full)
    an_annotator.open("0002")
    an_annotator.paint("ribs", torso.box((5, 5, 5), (3, 4, 6)))
    an_annotator.session.answer(0x4000, str(tmp_path))
    an_annotator.annotation.leave()
    an_annotator.settle()
    saved = [path for path in tmp_path.glob("0002 *") if path.is_dir()]
    assert len(saved) == 1 and (saved[0] / "labels.seg.nrrd").is_file()
    assert "No space left" in str(an_annotator.session.dialogs[0].text)


def test_tools_and_masks_reach_the_editor(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    ui, node = an_annotator.ui, an_annotator.panel.editor.node
    an_annotator.panel.labels.choose("ribs")
    ui.brushButton.click()
    assert node.GetActiveEffectName() == "Paint" and node.GetSelectedSegmentID() == "ribs"
    ui.brushSpinBox.value = 12.0
    assert float(node.GetAttribute("BrushAbsoluteDiameter")) == 12.0 and node.GetAttribute("BrushDiameterIsRelative") == "0"
    ui.shapeComboBox.setCurrentIndex(ui.shapeComboBox.findData("ball"))
    assert node.GetAttribute("BrushSphere") == "1"
    ui.overComboBox.setCurrentIndex(ui.overComboBox.findData("vertebrae"))
    assert node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    assert node.GetMaskSegmentID() == "vertebrae"
    ui.overComboBox.setCurrentIndex(ui.overComboBox.findData("clear"))
    assert node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments
    ui.overComboBox.setCurrentIndex(ui.overComboBox.findData("visible"))
    assert node.GetOverwriteMode() == node.OverwriteVisibleSegments
    ui.thresholdCheckBox.checked = True
    assert node.GetSourceVolumeIntensityMask() and node.GetSourceVolumeIntensityMaskRange() == (150.0, 3071.0)
    ui.islandsButton.click()
    effect = ui.segmentEditor.activeEffect()
    assert effect.parameter("Operation") == "REMOVE_SMALL_ISLANDS"
    least = effect.integerParameter("MinimumSize")
    assert 0 <= least - MIN_PIECE_MM3 / an_annotator.live.ct.geometry.voxel_volume_mm3 < 1
    ui.cursorButton.click()
    assert not node.GetActiveEffectName() and an_annotator.panel.cursor.jumping


def test_the_3d_view_shows_the_labels_while_nothing_is_drawn(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    ui, session, points = an_annotator.ui, an_annotator.session, _pointsOfSurfaces(an_annotator)
    session.wait(200)
    assert not points(), "only when it is asked for"
    ui.surfacesCheckBox.checked = True
    session.wait_until(lambda: set(points()) == {"vertebrae"}, 30.0)
    an_annotator.panel.labels.choose("ribs")
    ui.brushButton.click()
    assert not points(), "a stroke would wait for them"
    an_annotator.paint("ribs", torso.box((5, 5, 5), (3, 4, 6)))
    session.wait(200)
    assert not points()
    ui.cursorButton.click()
    session.wait_until(lambda: set(points()) == {"vertebrae", "ribs"}, 30.0)
    an_annotator.live.undo()
    session.wait_until(lambda: set(points()) == {"vertebrae"}, 30.0)
    ui.surfacesCheckBox.checked = False
    assert not points()


def _pointsOfSurfaces(an_annotator: Annotator) -> Callable[[], dict[str, int]]:
    """A function: number of points of the surface of each label that has one."""
    segmentation = an_annotator.live.nodes.segmentation_node.GetSegmentation()
    surfaces = {name: lambda name=name: segmentation.GetSegment(name).GetRepresentation("Closed surface")
                for name in segmentation.GetSegmentIDs()}
    return lambda: {name: surface().GetNumberOfPoints() for name, surface in surfaces.items() if surface() is not None}


def test_a_finding_takes_the_views_to_its_place(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    an_annotator.paint("vertebrae", torso.box((2, 2, 2), (1, 1, 1)))  # an island
    an_annotator.ui.checkButton.click()
    an_annotator.settle()
    texts = [an_annotator.ui.findingsList.item(row).text() for row in range(an_annotator.ui.findingsList.count)]
    row = next(n for n, text in enumerate(texts) if "island" in text or "piece" in text)
    an_annotator.ui.findingsList.setCurrentRow(row)
    an_annotator.ui.findingsList.itemClicked.emit(an_annotator.ui.findingsList.item(row))
    assert an_annotator.panel._here() == 2 and an_annotator.panel.labels.current == "vertebrae"


def test_square_and_adaptive_brushes_paint_in_the_views(an_annotator: Annotator) -> None:
    from LowDoseBMDTrainerQt import cursor

    an_annotator.open("0002")
    ui, panel = an_annotator.ui, an_annotator.panel
    panel.labels.choose("ribs")
    ui.shapeComboBox.setCurrentIndex(ui.shapeComboBox.findData("square"))
    ui.brushButton.click()
    assert panel.brush.brush is not None and not panel.editor.node.GetActiveEffectName()
    here = panel._here()
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    for event, x in (("MouseMoveEvent", 100), ("LeftButtonPressEvent", 100), ("MouseMoveEvent", 140),
                     ("LeftButtonReleaseEvent", 140), ("MouseMoveEvent", 60)):
        view.interactor().SetEventInformation(x, 100, 0, 0, chr(0), 0, None)
        view.interactor().InvokeEvent(event)
    assert [k for k, there in enumerate(an_annotator.live.slices_of("ribs")) if there] == [here]
    strokes = an_annotator.live.labels.masks["ribs"]
    dabbed = strokes.voxels.shape[2] * 1.5  # mm
    moved = 40 * _mmOfAPixel()
    assert dabbed == pytest.approx(8.0 + moved, abs=3.0), "the brush paints along the way, not beyond the release"
    an_annotator.ui.undoButton.click()
    assert not an_annotator.live.can_undo, "press, drag and release are one step"
    an_annotator.ui.redoButton.click()
    assert an_annotator.live.labels.masks["ribs"] is strokes
    ui.adaptiveButton.click()
    assert panel.brush.brush.kind == "adaptive"
    ui.brushSpinBox.value = 20.0
    assert panel.brush.brush.diameter_mm == 20.0
    ui.cursorButton.click()
    assert panel.brush.brush is None
    cursor.showSlice(an_annotator.live.slice_ras(here + 1))
    ui.copySliceButton.click()
    assert sum(an_annotator.live.slices_of("ribs")) == 2


def _mmOfAPixel() -> float:
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    return node.GetFieldOfView()[0] / node.GetDimensions()[0]


def test_interpolating_shows_the_drawn_label_alone(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    display = an_annotator.live.nodes.segmentation_node.GetDisplayNode()
    an_annotator.panel.labels.choose("ribs")
    an_annotator.ui.interpolateButton.click()
    assert display.GetSegmentVisibility("ribs") and not display.GetSegmentVisibility("vertebrae")
    an_annotator.ui.cursorButton.click()
    assert display.GetSegmentVisibility("vertebrae")
    an_annotator.session.press(an_annotator.session.window, "V")
    assert not display.GetSegmentVisibility("ribs") and display.GetSegmentVisibility("vertebrae")


def test_a_second_reading_begins_empty_and_leaves_the_labels_alone(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    an_annotator.ui.annotatorLineEdit.text = "EF"
    an_annotator.panel.openReading(an_annotator.panel.currentCase)
    an_annotator.settle()
    assert an_annotator.live.labels.masks == {} and "second reading by EF" in an_annotator.state
    stroke = torso.box((5, 5, 5), (3, 4, 6))
    an_annotator.paint("ribs", stroke)
    an_annotator.ui.completeButton.click()
    an_annotator.settle()
    case = an_annotator.case("0001")
    assert read_labels(case, "EF").masks["ribs"].same_as(stroke)
    assert "ribs" not in read_labels(case).masks and case.annotator != "EF"


def test_what_the_model_draws_comes_as_one_step_and_is_kept_to_compare(an_annotator: Annotator, a_trainer) -> None:
    a_trainer("""
        import json, sys
        from pathlib import Path
        import small_torso as torso
        from LowDoseBMDLib.rois import Keypoint
        from LowDoseBMDTrainerLib.cases import Labels
        from LowDoseBMDTrainerLib.predraw import write_result
        assert sys.argv[1] == "predraw" and sys.argv[3] == "0002", sys.argv
        print(json.dumps({"event": "progress", "stage": "bones", "fraction": 0.5}), flush=True)
        labels = Labels(torso.geometry(), {"ribs": torso.box((5, 5, 5), (3, 4, 6))}, (Keypoint("L1", (0.0, 40.0, -340.0)),))
        write_result(Path(sys.argv[sys.argv.index("--to") + 1]), labels)
        print(json.dumps({"event": "done", "failed": 0}), flush=True)
        """)
    an_annotator.open("0002")
    an_annotator.ui.predrawButton.click()
    assert an_annotator.ui.cancelButton.visible and not an_annotator.ui.predrawButton.enabled
    an_annotator.session.wait_until(lambda: not an_annotator.panel.predraw.running, 60.0)
    an_annotator.settle()
    assert an_annotator.live.labels.masks["ribs"].voxels.sum() == 72
    assert [point.level for point in an_annotator.live.labels.keypoints] == ["L1"]
    assert read_proposal(an_annotator.case("0002")).masks["ribs"].voxels.sum() == 72
    an_annotator.ui.undoButton.click()
    assert not an_annotator.live.labels.masks and an_annotator.ui.predrawButton.enabled


def test_a_model_that_fails_says_why_and_changes_nothing(an_annotator: Annotator, a_trainer) -> None:
    a_trainer("""
        import json, sys
        print(json.dumps({"event": "failed", "message": "the models are damaged"}), flush=True)
        sys.exit(2)
        """)
    an_annotator.open("0002")
    an_annotator.ui.predrawButton.click()
    an_annotator.session.wait_until(lambda: not an_annotator.panel.predraw.running, 60.0)
    assert "the models are damaged" in an_annotator.state and not an_annotator.live.can_undo


def test_ranking_fills_the_worklist_case_by_case_and_leaves_out_the_open_one(an_annotator: Annotator, a_trainer) -> None:
    a_trainer("""
        import json, sys, time
        from pathlib import Path
        from LowDoseBMDTrainerLib.cases import open_for_writing
        from LowDoseBMDTrainerLib.project import open_project
        assert sys.argv[1] == "rank" and sys.argv[3:] == ["0001", "0003", "--json"], sys.argv
        project = open_project(Path(sys.argv[2]))
        for name, value in (("0001", 0.1), ("0003", 0.7)):
            print(json.dumps({"event": "progress", "stage": "reading the CT", "fraction": value}), flush=True)
            with open_for_writing(project.case(name), "model") as writing:
                writing.record(uncertainty=value)
            print(json.dumps({"event": "case", "case": name, "state": "done", "text": ""}), flush=True)
            while not (project.folder / name).exists():  # until the test has looked
                time.sleep(0.02)
        print(json.dumps({"event": "done", "failed": 0}), flush=True)
        """)
    ui, session, panel = an_annotator.ui, an_annotator.session, an_annotator.panel
    an_annotator.open("0002")
    ui.rankButton.click()
    assert ui.rankButton.text == "Stop" and ui.rankBar.visible and "1 of 2" in ui.rankLabel.text
    session.wait_until(lambda: an_annotator.cell(0, 4) == "low", 60.0)
    assert an_annotator.cell(2, 4) == "-" and panel.rank.running
    for name in ("0001", "0003"):
        (an_annotator.project.folder / name).touch()
    session.wait_until(lambda: not panel.rank.running, 60.0)
    assert [an_annotator.cell(row, 4) for row in range(3)] == ["low", "-", "HIGH"]
    assert ui.rankButton.text == "Rank" and not ui.rankBar.visible and "ranked" in an_annotator.state
    ui.nextButton.click()
    an_annotator.settle()
    assert panel.currentCase.name == "0003", "the most uncertain of those that wait"


def test_ranking_can_be_stopped_and_says_what_failed(an_annotator: Annotator, a_trainer) -> None:
    ui, session, panel = an_annotator.ui, an_annotator.session, an_annotator.panel
    a_trainer("import time; time.sleep(120)")
    ui.rankButton.click()
    ui.rankButton.click()
    session.wait_until(lambda: not panel.rank.running, 60.0)
    assert "stopped" in an_annotator.state and ui.rankButton.text == "Rank"
    a_trainer("""
        import json, sys
        print(json.dumps({"event": "case", "case": "0001", "state": "failed", "text": "the CT is gone"}), flush=True)
        sys.exit(1)
        """)
    ui.rankButton.click()
    session.wait_until(lambda: not panel.rank.running, 60.0)
    assert "0001: the CT is gone" in an_annotator.state


def test_when_every_case_is_known_all_are_ranked_again(an_annotator: Annotator, a_trainer) -> None:
    a_trainer("""
        import sys
        assert sys.argv[3:] == ["0001", "0002", "0003", "--json", "--again"], sys.argv
        """)
    for name in ("0001", "0002", "0003"):
        with open_for_writing(an_annotator.case(name), "model") as writing:
            writing.record(uncertainty=0.3)
    an_annotator.ui.rankButton.click()
    an_annotator.session.wait_until(lambda: not an_annotator.panel.rank.running, 60.0)
    assert "ranked" in an_annotator.state


def test_the_panel_fits_the_width_of_the_side_panel(an_annotator: Annotator) -> None:
    """With all that unfolds, beside Slicer's own margins and scroll bar."""
    from slicer_adapter.pythonqt import unwrap

    ui = an_annotator.ui
    an_annotator.open("0001")
    for frame in (ui.importFrame, ui.flagFrame, ui.packagesFrame, ui.findingsList, ui.rankLabel, ui.segmentEditor):
        frame.visible = True
    for button in (ui.agreementButton, ui.trainButton, ui.evaluateButton, ui.exportButton):
        button.collapsed = False
    an_annotator.session.wait(50)
    assert unwrap(ui.drawFrame).minimumSizeHint().width() > 200, "it is laid out"
    assert unwrap(an_annotator.widget.parent).minimumSizeHint().width() <= SIDE_PANEL_PIXELS


def test_import_reports_and_fills_the_worklist(an_annotator: Annotator, a_trainer) -> None:
    a_trainer("""
        import sys
        from LowDoseBMDTrainerLib.cli import main
        sys.exit(main(sys.argv[1:]))
        """)
    ct = torso_ct()
    folder = an_annotator.project.folder.parent / "new"
    folder.mkdir()
    write_volume(folder / "ct.nii.gz", ct.hu - 1, ct.geometry)
    an_annotator.ui.importButton.click()
    assert an_annotator.ui.importFrame.visible
    an_annotator.session.answer(str(folder))
    an_annotator.ui.importFolderButton.click()
    an_annotator.session.wait_until(lambda: not an_annotator.panel.importer.running, 60.0)
    an_annotator.session.wait(20)
    assert "added" in an_annotator.ui.importLabel.text and "report" in an_annotator.ui.importLabel.text
    assert an_annotator.ui.casesTable.rowCount == 5


def test_keys(an_annotator: Annotator) -> None:
    an_annotator.open("0001")
    window = an_annotator.session.window
    an_annotator.session.press(window, "4")
    assert an_annotator.panel.labels.current == "ribs"
    an_annotator.session.press(window, "S")
    assert not an_annotator.live.nodes.segmentation_node.GetDisplayNode().GetVisibility()
    an_annotator.session.press(window, "D")
    assert an_annotator.ui.opacitySlider.value == 50
    an_annotator.session.press(window, "PgDown")
    an_annotator.settle()
    assert an_annotator.panel.currentCase.name == "0002"
    an_annotator.session.press(window, "PgUp")
    an_annotator.settle()
    assert an_annotator.panel.currentCase.name == "0001"


def test_keypoints_are_placed_one_after_the_other(an_annotator: Annotator) -> None:
    an_annotator.open("0002")
    an_annotator.ui.keypointT12Button.click()
    for n, level in enumerate(("T12", "L1", "L2")):
        assert getattr(an_annotator.ui, f"keypoint{level}Button").checked
        node = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")[-1]
        node.AddControlPoint(1.0, 2.0, 30.0 - n)
        an_annotator.session.wait(30)
    assert [point.level for point in an_annotator.live.labels.keypoints] == ["T12", "L1", "L2"]
    assert not an_annotator.panel.keypoints.active
    assert "✓" in an_annotator.ui.keypointL2Button.text


def test_slices_left_out_are_found(an_annotator: Annotator) -> None:
    from LowDoseBMDTrainerQt.slices_bar import gaps, nextGap

    assert gaps([False, True, False, True, False]) == [2] and gaps([False]) == []
    assert nextGap([True, False, True, False, True], 1) == 3 and nextGap([True, False, True], 1) == 1
    an_annotator.open("0002")
    an_annotator.paint("ribs", torso.box((5, 5, 5), (1, 4, 6)))
    assert not an_annotator.ui.gapButton.enabled
    an_annotator.paint("ribs", torso.box((9, 5, 5), (1, 4, 6)))
    assert an_annotator.ui.gapButton.enabled
    an_annotator.ui.gapButton.click()
    assert an_annotator.panel._here() in (6, 7, 8)


def test_pauses_are_no_work() -> None:
    from LowDoseBMDTrainerQt.activity import Activity

    now = [0.0]
    activity = Activity(lambda: now[0])
    activity.begin()
    for now[0] in (10.0, 50.0, 1000.0, 1020.0):
        activity.touch()
    assert activity.take() == 70.0 and activity.take() == 0.0
