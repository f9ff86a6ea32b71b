"""The Trainer's panel: which part shows what, and what a person does. Each part has a file of its own."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDLib.anatomy import BONES, OTHER_BONES, STRUCTURES
from LowDoseBMDLib.bones import MIN_PIECE_MM3
from LowDoseBMDMRML.segments import SURFACE
from LowDoseBMDQt import views
from LowDoseBMDQt.bones3d import Bones3D
from LowDoseBMDQt.correct import reveal
from LowDoseBMDQt.session import defer
from LowDoseBMDQt.shortcuts import Shortcuts
from LowDoseBMDTrainerLib.cases import Case, Labels, Status, checked_name
from LowDoseBMDTrainerLib.project import Project, create_project, open_project
from LowDoseBMDTrainerLib.worklist import IN_ORDER, UNCERTAIN, next_case
from LowDoseBMDTrainerMRML.case_nodes import ANNOTATED, set_opacity, set_visible
from LowDoseBMDTrainerMRML.painting import ADAPTIVE, dab
from slicer.i18n import tr as _

from . import cursor
from .agreement_section import AgreementSection
from .annotation import Annotation
from .editor import Editor
from .evaluate_section import EvaluateSection
from .export_section import ExportSection
from .finishing import Finisher
from .import_box import ImportBox
from .labels_row import KeypointsRow, LabelsRow
from .predraw_box import PredrawBox
from .rank_box import RankBox
from .rescue import rescue
from .slice_brush import SliceBrush
from .slices_bar import SlicesBar, nextGap
from .tools import BRUSH, CURSOR, ERASE, INTERPOLATE, ToolRow, step
from .train_section import TrainSection
from .worklist import Worklist

PROJECT_SETTING, ANNOTATOR_SETTING = "LowDoseBMDTrainer/Project", "LowDoseBMDTrainer/Annotator"
"""Keys of the application's settings: the project that was open last, and who drew last, on this computer."""

OPACITY_STEP = 10
BRUSH_STEP = 1.25


class Panel:
    """Binds the widgets of LowDoseBMDTrainer.ui (``ui``) to an Annotation.

    It is the host of the sections Agreement, Train, Evaluate and Export: ``project``, ``currentCase``, ``volumeNode``,
    ``annotator``, ``say``, ``openCase``, ``openReading`` and ``listeners`` are theirs.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui
        self.listeners: list[Callable[[], None]] = []
        self._told: tuple[Any, ...] = ()
        self._live: Any = None
        self._said = ""
        self.annotation = Annotation(slicer.mrmlScene, defer, self._onLoss)
        self.editor = Editor(ui.segmentEditor)
        self.worklist = Worklist(ui.casesTable, self.openCase)
        self.labels = LabelsRow(ui, self._onLabel)
        self.keypoints = KeypointsRow(ui, self._onPlaced)
        self.cursor = cursor.Cursor(self._onCursor, self._showSlices)
        self.brush = SliceBrush(self._onDab)
        self.tools = ToolRow(ui, self.editor, self.brush, self._onTool)
        self.finisher = Finisher(ui, self.annotation, self.say, self.next, self.labels.choose)
        self.predraw = PredrawBox(ui, self.annotation.background, self._onProposed, self.say)
        self.rank = RankBox(ui, self.predraw.packages, self.annotation.refresh, self.say)
        self.importer = ImportBox(ui, lambda: self.project and self.project.folder, self.annotation.refresh)
        self.slices = SlicesBar(ui.slicesBar)
        self.bones = Bones3D(views.show3D)
        self.shortcuts = Shortcuts(self._keys())
        ui.orderComboBox.addItem(_("most uncertain"), UNCERTAIN)
        ui.orderComboBox.addItem(_("in order"), IN_ORDER)
        ui.annotatorLineEdit.text = str(qt.QSettings().value(ANNOTATOR_SETTING) or "")
        self._connect()
        self.sections = (AgreementSection(ui.agreementFrame, self), TrainSection(ui.trainFrame, self),
                         EvaluateSection(ui.evaluateFrame, self), ExportSection(ui.exportFrame, self))
        self.annotation.listeners.append(self.update)
        self._openLast()
        self.update()

    def _connect(self) -> None:
        ui = self.ui
        clicks = {ui.openButton: self._onOpen, ui.newButton: self._onNew, ui.nextButton: self.next,
                  ui.rankButton: self._onRank, ui.undoButton: self.undo, ui.redoButton: self.redo,
                  ui.gapButton: self._onGap, ui.copySliceButton: self.copySlice, ui.predrawButton: self._onPredraw}
        for button, action in clicks.items():
            button.connect("clicked(bool)", lambda _checked=False, action=action: action())
        for button in (ui.agreementButton, ui.trainButton, ui.evaluateButton, ui.exportButton):
            button.connect("contentsCollapsed(bool)", lambda folded, button=button: folded or defer(lambda: reveal(button)))
        ui.annotatorLineEdit.connect("editingFinished()", self._onAnnotator)
        ui.showCheckBox.connect("toggled(bool)", lambda _checked: self._showOpacity())
        ui.opacitySlider.connect("valueChanged(int)", lambda _value: self._showOpacity())
        ui.surfacesCheckBox.connect("toggled(bool)", lambda _checked: self._showSurfaces())

    def _keys(self) -> dict[str, Callable[[], None]]:
        ui = self.ui
        keys = {"S": lambda: _toggle(ui.showCheckBox), "A": lambda: self._fade(-OPACITY_STEP),
                "D": lambda: self._fade(OPACITY_STEP), "B": lambda: self._choose(BRUSH), "E": lambda: self._choose(ERASE),
                "Shift+B": lambda: self._choose(ADAPTIVE), "G": lambda: self._choose("polygon"), "C": self.copySlice,
                "Shift+C": lambda: self.copySlice(instead=True),
                "+": lambda: step(ui.brushSpinBox, BRUSH_STEP), "-": lambda: step(ui.brushSpinBox, 1 / BRUSH_STEP),
                "V": self._onHide, "T": lambda: _toggle(ui.thresholdCheckBox), "Escape": self._onEscape,
                "N": self.next, "PgDown": lambda: self._step(1), "PgUp": lambda: self._step(-1),
                "Ctrl+Z": self.undo, "Ctrl+Y": self.redo, "Ctrl+Shift+Z": self.redo, "Ctrl+Return": self.finisher.complete}
        for number, label in enumerate(BONES, 1):
            keys[str(number)] = lambda label=label: self.labels.choose(label)
        return keys

    # --- the host of the sections --------------------------------------------------------------------------------

    @property
    def project(self) -> Project | None:
        return self.annotation.project

    @property
    def currentCase(self) -> Case | None:
        return self.annotation.case

    @property
    def volumeNode(self) -> Any:
        """The CT of the open case; None when none is open."""
        return self._live.nodes.volume_node if self._live is not None else None

    @property
    def annotator(self) -> str:
        return self.ui.annotatorLineEdit.text.strip()

    def say(self, text: str) -> None:
        """Show a sentence above the tools; it stays until the next one."""
        self._said = text
        self._showState()

    # --- module opened, left, scene closed -----------------------------------------------------------------------

    def enter(self) -> None:
        self.editor.enter()
        self.cursor.start()
        self.shortcuts.install()
        self.annotation.refresh()

    def exit(self) -> None:
        """Another module is shown: what was drawn is saved."""
        self.shortcuts.remove()
        self.keypoints.cancel()
        self.tools.choose(CURSOR)
        self.cursor.stop()
        self.editor.exit()
        self.annotation.save()

    def forgetScene(self) -> None:
        """Before the scene is closed: the case is saved and left."""
        self.keypoints.cancel()
        self.annotation.leave(closing=True)
        self.editor.forgetScene()

    def close(self) -> None:
        """The module goes: nothing is lost."""
        self.exit()
        self.forgetScene()
        self.bones.close()
        for part in (*self.sections, self.predraw, self.rank, self.importer):
            part.close()
        self.annotation.close()

    # --- the project ---------------------------------------------------------------------------------------------

    def _openLast(self) -> None:
        path = str(qt.QSettings().value(PROJECT_SETTING) or "")
        if path and Path(path).is_dir():
            self.openProject(path)

    def _onOpen(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(None, _("Project"), self.ui.projectLineEdit.text)
        if path:
            self.openProject(path)

    def _onNew(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(None, _("An empty folder for the new project"))
        if path:
            self.openProject(path, create_project)

    def openProject(self, path: str, how: Callable[[Path], Project] = open_project) -> None:
        """Work on the project in a folder; says why not when there is none."""
        try:
            project = how(Path(path))
        except (ValueError, OSError) as error:
            self.say(str(error))
            return
        self._said = ""
        qt.QSettings().setValue(PROJECT_SETTING, str(project.folder))
        self.annotation.openProject(project)

    # --- cases ---------------------------------------------------------------------------------------------------

    def openReading(self, case: Case) -> None:
        """Draw this case as a second reader, from nothing, beside the labels that are there."""
        self.openCase(case, asReader=True)

    def openCase(self, case: Case, asReader: bool = False) -> None:
        """Draw this case; the one that is open is saved."""
        if case.problem:
            self.say(_("{case} cannot be opened: {problem}").format(case=case.name, problem=case.problem))
            return
        try:
            annotator = checked_name(self.annotator)
        except ValueError:
            self.say(_("Say who you are first: initials in the field Annotator."))
            self.ui.annotatorLineEdit.setFocus()
            return
        self._said = ""
        self.annotation.open(case, annotator, annotator if asReader else "")

    def next(self) -> None:
        """Open the next case that is not completed."""
        if self.project is None:
            return
        self.annotation.refresh()
        current = self.currentCase.name if self.currentCase is not None else ""
        case = next_case(self.annotation.cases, self.ui.orderComboBox.currentData, current, self.annotator)
        if case is None:
            self.say(_("Every case is completed or flagged.") if self.annotation.cases else
                     _("The project has no cases yet: import some."))
        else:
            self.openCase(case)

    def _onRank(self) -> None:
        if self.rank.running:
            self.rank.cancel()
        elif self.project is not None:
            self.rank.start(self.project, self.currentCase.name if self.currentCase is not None else "")

    def _step(self, step: int) -> None:
        """The next row of the table, or the one before, whatever its status."""
        cases = [case for case in self.annotation.cases if not case.problem]
        names = [case.name for case in cases]
        current = self.currentCase.name if self.currentCase is not None else ""
        place = names.index(current) + step if current in names else 0
        if 0 <= place < len(cases):
            self.openCase(cases[place])

    def _onAnnotator(self) -> None:
        qt.QSettings().setValue(ANNOTATOR_SETTING, self.annotator)
        self.update()

    def _onPredraw(self) -> None:
        case, live = self.currentCase, self._live
        if case is None or not self.annotation.editable:
            return
        drawn = {name for name, mask in live.labels.masks.items() if not mask.empty}
        self._said = ""
        self.predraw.start(self.project, case, any(name.startswith("body") for name in {*drawn, self.labels.current}),
                           OTHER_BONES in {*drawn, self.labels.current})

    def _onProposed(self, case: Case, proposal: Labels) -> None:
        if self.currentCase is None or self.currentCase.name != case.name or not self.annotation.editable:
            self.say(_("{case} is not open any more: what the model drew was left out.").format(case=case.name))
            return
        self.annotation.propose(proposal)
        self.say(_("The model has drawn; correct it. Undo brings back what was there."))

    def _onLoss(self, case: Case, labels: Labels, error: Exception) -> None:
        folder = rescue(case, labels, error)
        if folder is not None:
            self.say(_("Saved to {folder}").format(folder=folder))

    # --- drawing -------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        if self._live is not None:
            self._live.undo()

    def redo(self) -> None:
        if self._live is not None:
            self._live.redo()

    def _onLabel(self, label: str) -> None:
        if self._live is None:
            return
        self._live.flush()
        self._live.active = label
        self.tools.setLabel(label)
        self._showSlices()

    def _onTool(self) -> None:
        self.cursor.jumping = self.tools.current == CURSOR
        if self.tools.current != CURSOR:
            self.keypoints.cancel()
        self._showSurfaces()
        self._showOpacity()
        if self.ui.segmentEditor.visible:
            defer(lambda: reveal(self.ui.segmentEditor))

    def _onDab(self, positionRas: tuple[float, float, float], axis: int, begins: bool) -> None:
        """Our own brush touched the CT."""
        live = self._live
        if live is not None and self.brush.brush is not None:
            stroke = dab(live.ct, self.brush.brush, positionRas, axis)
            live.paint(self.labels.current, stroke, self.tools.rules(self.labels.visible), begins,
                       erase=self.tools.current == ERASE)

    def copySlice(self, instead: bool = False) -> None:
        """Copy the label from the nearest axial slice that has it. instead: in place of what the slice has of the label."""
        if not self.annotation.editable:
            return
        try:
            self._live.flush()
            self._live.copy_slice(self.labels.current, self._here(), instead)
        except ValueError as error:
            self.say(str(error))

    def _onHide(self) -> None:
        self.labels.toggleVisible()
        self._showOpacity()

    def _choose(self, tool: str) -> None:
        if self.annotation.editable:
            self.tools.choose(tool)

    def _onPlaced(self, level: str, positionLps: tuple[float, float, float]) -> None:
        if self.annotation.editable:
            self._live.place(level, positionLps)

    def _onEscape(self) -> None:
        self.predraw.cancel()
        self.keypoints.cancel()
        self.tools.choose(CURSOR)

    def _onGap(self) -> None:
        if self._live is None:
            return
        gap = nextGap(self._live.slices_of(self.labels.current), self._here())
        if gap is not None:
            cursor.showSlice(self._live.slice_ras(gap))

    def _here(self) -> int:
        position = cursor.axialPosition()
        return -1 if position is None else self._live.slice_at(*position)

    def _fade(self, step: int) -> None:
        self.ui.opacitySlider.value = self.ui.opacitySlider.value + step

    # --- what is shown -------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Show the cases and the open one as they are now."""
        annotation, live = self.annotation, self.annotation.live
        if live is not self._live:
            self._follow(live)
        self._showCases()
        self._showState()
        self._showDrawing()
        state = (annotation.project, annotation.cases, annotation.case)
        if state != self._told:
            self._told = state
            for listener in tuple(self.listeners):
                listener()

    def _follow(self, live: Any) -> None:
        """Another case, or none, is shown from now on."""
        self._live = live
        self.keypoints.cancel()
        self.editor.attach(None)
        self.finisher.begin()
        self._showSurfaces()
        if live is None:
            self.tools.setLabel("")
            return
        live.listeners.append(self.bones.refresh)
        with slicer.util.RenderBlocker():
            self._begin(live)

    def _begin(self, live: Any) -> None:
        """Views, tools and lists for a case that was opened."""
        self.editor.attach(live.nodes)
        views.showFourUp()
        views.showVolume(live.nodes.volume_node)
        self.tools.fillOver(ANNOTATED)
        self.tools.setLeastPiece(math.ceil(MIN_PIECE_MM3 / live.ct.geometry.voxel_volume_mm3))
        self.labels.choose(self.labels.current)
        self.tools.choose(CURSOR)
        self.predraw.fillModels(self.project)
        cursor.goTo(live.slice_ras(len(live.slices_of("")) // 2))

    def _showCases(self) -> None:
        ui, annotation = self.ui, self.annotation
        opened = annotation.project is not None
        ui.projectLineEdit.text = str(annotation.project.folder) if opened else ""
        self.worklist.show(annotation.cases, annotation.opening or (annotation.case.name if annotation.case else ""))
        done = sum(case.status is Status.COMPLETED for case in annotation.cases)
        ui.doneLabel.text = _("{done} / {all} done").format(done=done, all=len(annotation.cases)) if opened else ""
        ui.casesTable.visible = opened
        for widget in (ui.nextButton, ui.orderComboBox, ui.importButton, ui.rankButton):
            widget.enabled = opened

    def _showState(self) -> None:
        problem = self.annotation.message
        lines = (self._stateLine(), _red(problem) if problem else "", html.escape(self._said))
        self.ui.stateLabel.text = "<br>".join(filter(None, lines))

    def _stateLine(self) -> str:
        annotation, case = self.annotation, self.annotation.case
        if annotation.opening:
            return _("Opening {case}...").format(case=html.escape(annotation.opening))
        if annotation.project is None:
            return _("Open a project, or make a new one in an empty folder.")
        if case is None:
            return _("Double click a case, or press Next.") if annotation.cases else _("Import CTs to begin.")
        parts = [f"<b>{html.escape(case.name)}</b>", html.escape(str(_statusWord(case)))]
        if annotation.reader:
            parts.append(_("second reading by {who}").format(who=html.escape(annotation.reader)))
        if annotation.readOnly:
            parts.append(_red(_("read only: {why}").format(why=annotation.readOnly)))
        parts += [html.escape(text) for text in (_("not saved yet") if annotation.unsaved and not annotation.saved
                                                 else annotation.saved,) if text]
        return " · ".join(parts)

    def _showDrawing(self) -> None:
        ui, annotation, live = self.ui, self.annotation, self.annotation.live
        ui.drawFrame.visible = live is not None
        if live is None:
            return
        can = annotation.editable
        for widget in (ui.labelsWidget, ui.brushSpinBox, ui.shapeComboBox, ui.overComboBox, ui.thresholdCheckBox,
                       ui.segmentEditor, ui.copySliceButton, ui.modelsComboBox):
            widget.enabled = can
        self.tools.enable(can)
        self.finisher.show()
        ui.predrawButton.enabled = can and not annotation.reader and not self.predraw.running
        for name in ("T12", "L1", "L2"):
            getattr(ui, f"keypoint{name}Button").enabled = can
        ui.undoButton.enabled, ui.redoButton.enabled = live.can_undo, live.can_redo
        self.keypoints.show(frozenset(point.level for point in live.labels.keypoints))
        self._showSlices()

    def _showSlices(self) -> None:
        if self._live is not None and self._live.nodes.whole:
            held = self._live.slices_of(self.labels.current)
            self.slices.show(held, self._here())
            self.ui.gapButton.enabled = nextGap(held, 0) is not None

    def _showOpacity(self) -> None:
        if self._live is not None:
            node = self._live.nodes.segmentation_node
            # "Fill between slices" takes every label that is seen.
            shown = {self.labels.current} if self.tools.current == INTERPOLATE else self.labels.visible
            set_visible(node, bool(self.ui.showCheckBox.checked), shown)
            set_opacity(node, self.ui.opacitySlider.value / 100.0)

    def _showSurfaces(self) -> None:
        """The labels in 3D, while nothing is drawn: Slicer's brushes make all surfaces anew with each stroke, and wait."""
        node = self._live.nodes.segmentation_node if self._live is not None else None
        shown = bool(self.ui.surfacesCheckBox.checked) and self.tools.current == CURSOR
        self.bones.show(node if shown else None)
        if node is not None and not shown:
            node.GetSegmentation().RemoveRepresentation(SURFACE)

    def _onCursor(self, positionRas: tuple[float, float, float] | None) -> None:
        if self._live is None:
            return
        self.annotation.activity.touch()
        name, hu = self._live.label_at(*positionRas) if positionRas is not None else ("", None)
        title = STRUCTURES[name].title if name in STRUCTURES else name or _("no label")
        self.ui.cursorLabel.text = "" if hu is None else _("{label} · {hu:.0f} HU").format(label=title, hu=hu)


def _statusWord(case: Case) -> str:
    words = {Status.NOT_STARTED: _("not started"), Status.IN_PROGRESS: _("in progress"), Status.COMPLETED: _("completed"),
             Status.FLAGGED: _("flagged: {reason}").format(reason=case.reason)}
    word = words[case.status]
    return _("{status}, {who}").format(status=word, who=case.annotator) if case.annotator else word


def _red(text: str) -> str:
    return f"<span style='color:#a11622'>{html.escape(text)}</span>"


def _toggle(checkBox: Any) -> None:
    if checkBox.enabled:
        checkBox.checked = not checkBox.checked
