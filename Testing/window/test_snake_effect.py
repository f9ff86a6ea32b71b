"""The effect "Snake": driven by its buttons on the imitated editor, what it shows, adds, undoes and leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry

SPACING_MM = (1.0, 1.0, 2.5)
CENTRE_RAS = (-24.5, -24.5, 30.0)
RADIUS_MM = 14.0


def a_ball() -> tuple[CTVolume, np.ndarray]:
    """A CT of 50 x 50 x 25 voxels with a ball of bone (500 HU) in muscle below air, and the voxels of the ball."""
    geometry = Geometry((25, 50, 50), np.diag([*SPACING_MM, 1.0]))
    places = geometry.to_lps(np.moveaxis(np.indices(geometry.shape_kji), 0, -1))
    inside = np.linalg.norm(places - (-CENTRE_RAS[0], -CENTRE_RAS[1], CENTRE_RAS[2]), axis=-1) < RADIUS_MM
    hu = np.where(inside, 500, 50).astype(np.int16)
    hu[:, :2] = -1000
    return CTVolume(hu, geometry), inside


class Driven:
    """An editor with the effect turned on."""

    def __init__(self) -> None:
        import slicer
        from LowDoseBMDMRML import segments, volumes
        from LowDoseBMDTrainerEffects import registerEffects

        registerEffects()
        registerEffects()
        self.ct, self.truth = a_ball()
        self.scene = slicer.mrmlScene
        self.volume_node = volumes.node_from_ct(self.scene, self.ct, "CT")
        self.segmentation = segments.create_segmentation(self.scene, self.volume_node, "labels")
        self.id = self.segmentation.GetSegmentation().AddEmptySegment("bone", "bone")
        self.widget = slicer.qMRMLSegmentEditorWidget()
        node = slicer.vtkMRMLSegmentEditorNode()
        self.scene.AddNode(node)
        self.widget.setMRMLScene(self.scene)
        self.widget.setMRMLSegmentEditorNode(node)
        self.widget.setSegmentationNode(self.segmentation)
        self.widget.setSourceVolumeNode(self.volume_node)
        self.widget.setCurrentSegmentID(self.id)
        crosshair = self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is None:
            crosshair = self.scene.AddNode(slicer.vtkMRMLCrosshairNode())
        crosshair.SetCrosshairRAS(*CENTRE_RAS)
        slicer.app.layoutManager().sliceWidget("Red")  # the views' nodes come with the first look at them,
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)  # and so does this one
        self.nodes_before = self.nodes()
        self.widget.setActiveEffectByName("Snake")
        self.effect = self.widget.activeEffect().self()
        self.ui = self.effect.ui
        self.ui.wayComboBox.setCurrentIndex(1)
        self.ui.lowerSpinBox.value = 275.0

    def nodes(self) -> list[str]:
        return sorted(self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes()))

    def drawn(self) -> np.ndarray:
        from LowDoseBMDMRML import segments

        return segments.read_region(self.segmentation, self.id, self.ct.geometry).full(self.ct.geometry)


@pytest.fixture
def driven(a_slicer: Any) -> Driven:
    return Driven()


def test_a_ball_is_filled_by_clicks_added_in_one_step_of_undo_and_nothing_is_left(driven: Driven) -> None:
    ui = driven.ui
    assert not ui.stepButton.enabled, "nothing to step yet"
    ui.crosshairButton.click()
    assert ui.bubblesList.count == 1
    shown = driven.effect.snake.volume_ml
    assert shown == pytest.approx(4 / 3 * np.pi * 5.0**3 / 1000, rel=0.15), "the bubble is shown"
    ui.stepButton.click()
    assert "iteration 5" in ui.stateLabel.text
    assert driven.effect.snake.volume_ml > shown
    assert not driven.drawn().any(), "the segment is not touched before Finish"
    while not driven.effect.snake.front.settled:
        ui.stepButton.click()
    assert "it stands" in ui.stateLabel.text
    ui.finishButton.click()
    found = driven.drawn()
    assert 2 * np.count_nonzero(found & driven.truth) / (found.sum() + driven.truth.sum()) > 0.97
    driven.widget.undo()
    assert not driven.drawn().any()
    driven.widget.redo()
    assert np.array_equal(driven.drawn(), found)
    assert driven.nodes() == driven.nodes_before


def test_cancel_and_another_tool_leave_all_as_it_was(driven: Driven) -> None:
    for leave in (driven.ui.cancelButton.click, lambda: driven.widget.setActiveEffectByName("Paint")):
        driven.widget.setActiveEffectByName("Snake")
        driven.ui.crosshairButton.click()
        driven.ui.lookCheckBox.checked = True
        driven.effect._look()
        driven.ui.stepButton.click()
        assert driven.nodes() != driven.nodes_before
        leave()
        assert driven.nodes() == driven.nodes_before
        assert not driven.drawn().any()
        assert driven.ui.bubblesList.count == 0


def test_it_plays_in_short_steps_stops_by_itself_and_goes_back(driven: Driven, a_slicer: Any) -> None:
    driven.ui.crosshairButton.click()
    driven.ui.playButton.checked = True
    a_slicer.wait_until(lambda: not driven.ui.playButton.checked, 60.0)
    front = driven.effect.snake.front
    assert front.settled
    driven.ui.backButton.click()
    assert driven.effect.snake.front.iterations < front.iterations
    driven.ui.restartButton.click()
    assert driven.effect.snake.front.iterations == 0


def test_it_adds_to_what_was_drawn_before(driven: Driven) -> None:
    from LowDoseBMDLib.rois import Mask
    from LowDoseBMDMRML import segments, volumes

    corner = np.zeros(driven.ct.hu.shape, bool)
    corner[2:4, 2:4, 2:4] = True
    segments.write_region(driven.segmentation, volumes.node_grid(driven.volume_node), driven.id, Mask.from_array(corner),
                          driven.ct.geometry)
    driven.ui.crosshairButton.click()
    driven.ui.stepButton.click()
    driven.ui.finishButton.click()
    assert driven.drawn()[corner].all()
    assert driven.drawn().sum() > corner.sum() + 200


def test_bubbles_are_deleted_and_what_cannot_be_done_is_a_sentence(driven: Driven) -> None:
    driven.ui.crosshairButton.click()
    driven.ui.crosshairButton.click()
    driven.ui.bubblesList.setCurrentRow(0)
    driven.ui.deleteButton.click()
    assert driven.ui.bubblesList.count == 1
    driven.effect.snake.roi_node.SetCenter(900.0, 900.0, 900.0)
    driven.ui.stepButton.click()
    assert driven.ui.stateLabel.text == "The box lies outside of the CT: drag it over the structure."
    driven.ui.boxButton.click()
    driven.ui.lowerSpinBox.value = 3500.0
    driven.ui.stepButton.click()
    assert "the upper must be the higher" in driven.ui.stateLabel.text


def test_where_it_may_go_is_shown_over_the_ct_and_taken_away(driven: Driven, a_slicer: Any) -> None:
    import slicer
    from LowDoseBMDMRML import volumes

    driven.ui.boxButton.click()
    driven.ui.lookCheckBox.checked = True
    a_slicer.wait_until(lambda: driven.effect.snake.speed_node is not None)
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == driven.effect.snake.speed_node.GetID()
    speed = volumes.node_voxels(driven.effect.snake.speed_node)
    assert speed.max() > 0.9
    assert speed.min() < -0.9
    driven.ui.lookCheckBox.checked = False
    a_slicer.wait_until(lambda: composite.GetForegroundVolumeID() is None)


def test_the_form_offers_the_settings_of_each_way_only(driven: Driven, grab: Any, tmp_path: Path) -> None:
    driven.ui.wayComboBox.setCurrentIndex(2)
    assert not driven.ui.soughtSpinBox.isHidden()
    assert driven.ui.lowerSpinBox.isHidden()
    driven.ui.wayComboBox.setCurrentIndex(0)
    assert driven.ui.soughtSpinBox.isHidden()
    assert driven.ui.upperSpinBox.value == 300.0
    assert grab(driven.effect.form, tmp_path / "form.png", 440).stat().st_size > 5000
