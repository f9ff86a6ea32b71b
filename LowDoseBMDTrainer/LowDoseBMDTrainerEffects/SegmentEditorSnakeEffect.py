"""The effect "Snake" of the Segment Editor: ITK-SNAP's active contour. Bindings between its form and the snake's scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from LowDoseBMDTrainerLib.presegmentation import Clusters, Edges, Presegmentation, Threshold, WholeBone
from LowDoseBMDTrainerLib.snake import STEP_ITERATIONS, Forces
from LowDoseBMDTrainerMRML.snake_scene import SnakeScene
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

NAME = "Snake"
"""By which modules find the effect."""

RESOURCES = Path(__file__).resolve().parents[1] / "Resources"

BONE, THRESHOLD, CLUSTERS, EDGES = "bone", "threshold", "clusters", "edges"
"""Ways to say where the snake may go."""

SHOWN = {BONE: ("lower", "upper", "contrast", "sigma", "gap"), THRESHOLD: ("lower", "upper", "smoothness", "sigma", "gap"),
         CLUSTERS: ("clusters", "sought", "sigma"), EDGES: ("contrast", "sigma", "advection")}
"""Settings that each way has."""

PRESETS = {BONE: WholeBone(), THRESHOLD: Threshold(), CLUSTERS: Clusters(), EDGES: Edges()}

LOOK_AFTER_MS = 200
"""A look at where the snake may go is made when a setting has rested so long."""

TICK_SECONDS = 0.1
"""While it plays, a step takes about so long: the window answers in between."""

SPEED_OPACITY = 0.35


class SegmentEditorSnakeEffect(AbstractScriptedSegmentEditorEffect):
    """What Slicer calls: an effect whose form stands below the effects while it is active."""

    def __init__(self, scriptedEffect: Any) -> None:
        scriptedEffect.name = NAME
        scriptedEffect.title = _("Snake")
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.snake: SnakeScene | None = None
        self._iterations = STEP_ITERATIONS
        self._layers: list[tuple[Any, str | None, float]] = []
        self._playTimer, self._lookTimer = qt.QTimer(), qt.QTimer()
        for timer in (self._playTimer, self._lookTimer):
            timer.setSingleShot(True)
        self._playTimer.connect("timeout()", self._onTick)
        self._lookTimer.connect("timeout()", self._look)

    def clone(self) -> Any:
        effect = slicer.qSlicerSegmentEditorScriptedEffect(None)
        effect.setPythonSource(Path(__file__).as_posix())
        return effect

    def icon(self) -> Any:
        return qt.QIcon(str(RESOURCES / "Icons" / "Snake.png"))

    def helpText(self) -> str:
        return _("Grow a structure from bubbles, as in ITK-SNAP.<br>1. Place the box, and see in red where the snake may "
                 "go.<br>2. Put bubbles into the structure.<br>3. Let it grow and stop it when it fills the structure."
                 "<br>Finish adds it to the segment in one step of undo; Cancel leaves all as it was.")

    def cleanup(self) -> None:
        self._playTimer.disconnect("timeout()", self._onTick)
        self._lookTimer.disconnect("timeout()", self._look)

    # --- the form ----------------------------------------------------------------------------------------------

    def setupOptionsFrame(self) -> None:
        """Called once by the segment editor: the form of the snake, with its signals connected."""
        self.form = slicer.util.loadUI(str(RESOURCES / "UI" / "SnakeEffect.ui"))
        self.scriptedEffect.addOptionsWidget(self.form)
        self.ui = ui = slicer.util.childWidgetVariables(self.form)
        for text, way in ((_("whole bone"), BONE), (_("thresholds"), THRESHOLD), (_("clusters"), CLUSTERS),
                          (_("edges"), EDGES)):
            ui.wayComboBox.addItem(text, way)
        ui.wayComboBox.connect("currentIndexChanged(int)", self._onWay)
        for name in ("lower", "upper", "smoothness", "contrast", "sigma", "gap"):
            self._box(name).connect("valueChanged(double)", self._onSetting)
        for name in ("clusters", "sought"):
            self._box(name).connect("valueChanged(int)", self._onSetting)
        for button, action in self._actions().items():
            button.connect("clicked(bool)", lambda _checked=False, action=action: self._try(action))
        ui.lookCheckBox.connect("toggled(bool)", lambda _on: self._onSetting())
        ui.playButton.connect("toggled(bool)", self._onPlay)
        self._onWay()

    def _actions(self) -> dict[Any, Callable[[], None]]:
        ui = self.ui
        return {ui.boxButton: self._moveBox, ui.crosshairButton: lambda: self._add(_crosshairRas()),
                ui.deleteButton: self._delete, ui.stepButton: lambda: self._step(STEP_ITERATIONS), ui.backButton: self._back,
                ui.restartButton: self._restart, ui.finishButton: self.finish, ui.cancelButton: self.cancel}

    def _box(self, name: str) -> Any:
        return getattr(self.ui, f"{name}SpinBox")

    def _onWay(self, _index: int = 0) -> None:
        """Show the settings of this way, as they are proposed."""
        way = self.ui.wayComboBox.currentData
        for name in {name for names in SHOWN.values() for name in names}:
            for part in (self._box(name), getattr(self.ui, f"{name}Label")):
                part.setVisible(name in SHOWN[way])
        self.ui.lowerLabel.text = _("Soft tissue below") if way == BONE else _("From")
        self.ui.upperLabel.text = _("Cortex above") if way == BONE else _("Up to")
        self.ui.contrastLabel.text = _("Held by a fall of") if way == BONE else _("Held by a change of")
        self._propose(PRESETS[way])
        self._onSetting()

    def _propose(self, preset: Presegmentation) -> None:
        upper = getattr(preset, "cortex_hu", getattr(preset, "upper_hu", None))
        contrast = getattr(preset, "fall_hu_mm", getattr(preset, "contrast_hu_mm", None))
        values = {"lower": getattr(preset, "lower_hu", None), "upper": upper, "contrast": contrast,
                  "sigma": preset.sigma_mm, "gap": getattr(preset, "gap_mm", None)}
        for name, value in values.items():
            if value is not None:
                blocked = self._box(name).blockSignals(True)
                self._box(name).value = value
                self._box(name).blockSignals(blocked)

    @property
    def way(self) -> Presegmentation:
        """Where the snake may go, as the form says."""
        value = {name: self._box(name).value for name in ("lower", "upper", "smoothness", "contrast", "sigma", "gap",
                                                           "clusters", "sought")}
        kind = self.ui.wayComboBox.currentData
        if kind == BONE:
            return WholeBone(value["lower"], value["upper"], value["contrast"], value["sigma"], value["gap"])
        if kind == THRESHOLD:
            return Threshold(value["lower"], value["upper"], value["smoothness"], value["sigma"], value["gap"])
        if kind == CLUSTERS:
            return Clusters(int(value["clusters"]), (int(value["sought"]) - 1,), value["sigma"])
        return Edges(value["sigma"], value["contrast"])

    @property
    def forces(self) -> Forces:
        ui = self.ui
        return Forces(ui.balloonSpinBox.value, ui.curvatureSpinBox.value, ui.advectionSpinBox.value)

    # --- Slicer's calls ----------------------------------------------------------------------------------------

    def activate(self) -> None:
        self.say(_("Put bubbles into the structure: choose \"Click in a slice\", then click."))
        self._refresh()

    def deactivate(self) -> None:
        """Another effect, another module: as Cancel."""
        self._close()

    def setMRMLDefaults(self) -> None:
        """The settings stand in the form; nothing of them is kept in the scene."""

    def updateGUIFromMRML(self) -> None:
        """Nothing of the form is in the scene."""

    def updateMRMLFromGUI(self) -> None:
        """Nothing of the form is in the scene."""

    def sourceVolumeNodeChanged(self) -> None:
        self._close()

    def createCursor(self, _viewWidget: Any) -> Any:
        return qt.QCursor(qt.Qt.CrossCursor)

    def interactionNodeModified(self, _interactionNode: Any) -> None:
        """Dragging the box must not end the effect."""

    def processInteractionEvents(self, interactor: Any, eventId: int, viewWidget: Any) -> bool:
        """A click in a slice places a bubble, while that is chosen."""
        wanted = eventId == vtk.vtkCommand.LeftButtonPressEvent and self.ui.clickButton.checked
        if not wanted or viewWidget.className() != "qMRMLSliceWidget" or interactor.GetShiftKey():
            return False
        ras = self.xyToRas(interactor.GetEventPosition(), viewWidget)
        self._try(lambda: self._add(ras))
        return True

    # --- what the annotator does -------------------------------------------------------------------------------

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ValueError as error:
            self.stop()
            self.say(str(error))
        self._refresh()

    def _started(self, centreRas: tuple[float, float, float]) -> SnakeScene:
        """The snake; its box is placed around the point when there is none yet. Raises ValueError without a CT."""
        if self.snake is None:
            node = self.scriptedEffect.parameterSetNode()
            volumeNode, segmentationNode = node.GetSourceVolumeNode(), node.GetSegmentationNode()
            chosen = node.GetSelectedSegmentID() if segmentationNode is not None else ""
            if volumeNode is None or not chosen:
                raise ValueError(_("Choose a CT and a segment first."))
            segment = segmentationNode.GetSegmentation().GetSegment(chosen)
            self.snake = SnakeScene(slicer.mrmlScene, volumeNode, centreRas, segment.GetColor())
            self.snake.way = self.way
            self._onSetting()
        return self.snake

    def _moveBox(self) -> None:
        """The box comes to the cross-hair."""
        ras = _crosshairRas()
        self._started(ras).roi_node.SetCenter(*ras)
        self._onSetting()

    def _add(self, ras: tuple[float, float, float]) -> None:
        self._started(ras).add_bubble(ras, self.ui.radiusSpinBox.value)
        self._fillList()
        self.say(_("Add bubbles where the structure is wide, then step or play."))

    def _delete(self) -> None:
        row = self.ui.bubblesList.currentRow
        if self.snake is not None and 0 <= row < len(self.snake.bubbles):
            self.snake.set_bubbles(self.snake.bubbles[:row] + self.snake.bubbles[row + 1:])
            self._fillList()

    def _step(self, iterations: int) -> None:
        if self.snake is None:
            raise ValueError(_("Place a bubble first."))
        front = self.snake.step(self.way, self.forces, iterations)
        self.say(_("iteration {count}, {volume} ml{state}").format(
            count=front.iterations, volume=f"{self.snake.volume_ml:.1f}", state=_(", it stands") if front.settled else ""))
        if front.settled:
            self.stop()

    def _back(self) -> None:
        if self.snake is not None:
            self.snake.back()
            self.say(_("iteration {count}").format(count=self.snake.front.iterations if self.snake.front else 0))

    def _restart(self) -> None:
        if self.snake is not None:
            self.stop()
            self.snake.restart()

    def _onPlay(self, on: bool) -> None:
        self._playTimer.start(0) if on else self._playTimer.stop()
        self._refresh()

    def _onTick(self) -> None:
        """One step, of as many iterations as there is time for; the next is asked for when the window was drawn."""
        began = time.monotonic()
        self._try(lambda: self._step(self._iterations))
        took = time.monotonic() - began
        self._iterations = max(1, min(10, round(self._iterations * TICK_SECONDS / max(took, 1e-3))))
        if self.ui.playButton.checked:
            self._playTimer.start(10)

    def stop(self) -> None:
        """Play no more; the front stays where it is."""
        self.ui.playButton.checked = False

    def finish(self) -> None:
        """Add the snake to the segment, as one step of undo, and put the tool away."""
        if self.snake is None or self.snake.front is None:
            raise ValueError(_("There is no snake yet: place a bubble."))
        self.stop()
        effect = self.scriptedEffect
        if effect.confirmCurrentSegmentVisible() == effect.NotConfirmed:
            return
        effect.saveStateForUndo()
        effect.modifySelectedSegmentByLabelmap(self.snake.image, effect.ModificationModeAdd)
        self._close()
        self.say(_("Added to the segment."))

    def cancel(self) -> None:
        """Put the tool away; the segment stays as it was."""
        self._close()
        self.say("")

    # --- what is shown -----------------------------------------------------------------------------------------

    def _onSetting(self, _value: Any = None) -> None:
        self._lookTimer.start(LOOK_AFTER_MS)

    def _look(self) -> None:
        """Where the snake may go, over the CT in all slices; or no longer."""
        if self.snake is None or not self.ui.lookCheckBox.checked:
            self._restoreLayers()
            return
        try:
            speedNode = self.snake.look(self.way)
        except ValueError as error:
            self.say(str(error))
            return
        if not self._layers:
            for name in slicer.app.layoutManager().sliceViewNames():
                composite = slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()
                self._layers.append((composite, composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()))
        for composite, _id, _opacity in self._layers:
            composite.SetForegroundVolumeID(speedNode.GetID())
            composite.SetForegroundOpacity(SPEED_OPACITY)

    def _restoreLayers(self) -> None:
        for composite, volumeId, opacity in self._layers:
            composite.SetForegroundVolumeID(volumeId)
            composite.SetForegroundOpacity(opacity)
        self._layers = []

    def _close(self) -> None:
        self._lookTimer.stop()
        if self.snake is None:
            return
        self.stop()
        self._restoreLayers()
        self.snake.close()
        self.snake = None
        self.ui.clickButton.checked = False
        self._fillList()
        self._refresh()

    def _fillList(self) -> None:
        self.ui.bubblesList.clear()
        for bubble in self.snake.bubbles if self.snake else ():
            x, y, z = (-bubble.centre_lps_mm[0], -bubble.centre_lps_mm[1], bubble.centre_lps_mm[2])
            self.ui.bubblesList.addItem(f"{bubble.radius_mm:.1f} mm  R {x:.0f}  A {y:.0f}  S {z:.0f}")

    def _refresh(self) -> None:
        ui, front = self.ui, self.snake.front if self.snake else None
        for button in (ui.stepButton, ui.playButton, ui.restartButton, ui.finishButton):
            button.enabled = front is not None or bool(self.snake and self.snake.bubbles)
        ui.backButton.enabled = bool(self.snake and self.snake.can_go_back)
        ui.deleteButton.enabled = bool(self.snake and self.snake.bubbles)
        ui.cancelButton.enabled = self.snake is not None
        ui.playButton.text = _("Stop") if ui.playButton.checked else _("Play")

    def say(self, text: str) -> None:
        """One sentence below the form."""
        self.ui.stateLabel.text = text


def _crosshairRas() -> tuple[float, float, float]:
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    return tuple(crosshair.GetCrosshairRAS())
