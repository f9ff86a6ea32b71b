"""The adapter's slicer side: dialogs, .ui files, MRML widgets, modules; and that nothing of it stays behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

slicer = pytest.importorskip("slicer")


def test_a_message_box_is_recorded_and_answered(a_slicer):
    import qt

    slicer.util.errorDisplay("No CT is chosen.", windowTitle="LowDoseBMD")
    a_slicer.answer(qt.QMessageBox.Yes, qt.QMessageBox.No)
    assert slicer.util.confirmYesNoDisplay("Reopen?") is True
    assert slicer.util.confirmYesNoDisplay("Reopen?") is False
    assert [d.text for d in a_slicer.dialogs] == ["No CT is chosen.", "Reopen?", "Reopen?"]


def test_an_unanswered_question_fails_the_test(a_slicer):

    with pytest.raises(AssertionError, match="Reopen"):
        slicer.util.confirmYesNoDisplay("Reopen?")


def test_a_file_dialog_takes_its_answer_from_the_test(a_slicer):
    import qt

    a_slicer.answer("/data/out")
    assert qt.QFileDialog.getExistingDirectory(None, "Export") == "/data/out"


def test_packages_are_asked_for_and_never_installed(a_slicer):
    import os

    import qt

    if os.environ.get("SLICER_PYTHON_FOLDER"):
        pytest.skip("the real slicer.packaging installs")
    slicer.packaging.pip_ensure("numpy")
    a_slicer.answer(qt.QMessageBox.Cancel, qt.QMessageBox.Ok)
    with pytest.raises(RuntimeError):
        slicer.packaging.pip_ensure(["no-such-package==1"], requester="LowDoseBMD")
    slicer.packaging.pip_ensure(["numpy", "no-such-package==1"])
    assert slicer.packaging.installed == [["no-such-package==1"]]


UI = """<?xml version="1.0" encoding="UTF-8"?><ui version="4.0"><class>Panel</class>
<widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="layout">
<item><widget class="qMRMLNodeComboBox" name="inputSelector">
  <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
  <property name="noneEnabled"><bool>true</bool></property>
  <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property></widget></item>
<item><widget class="ctkCollapsibleButton" name="settings"><property name="text"><string>Settings</string></property>
 <layout class="QFormLayout" name="form"><item row="0" column="1"><widget class="QCheckBox" name="wholeBox">
  <property name="text"><string>whole</string></property>
  <property name="SlicerParameterName" stdset="0"><string>whole</string></property></widget></item></layout></widget></item>
<item><widget class="qMRMLSegmentEditorWidget" name="editor"/></item>
</layout></widget>
<customwidgets/><connections>
<connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>inputSelector</receiver>
<slot>setMRMLScene(vtkMRMLScene*)</slot></connection>
<connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>editor</receiver>
<slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


@pytest.fixture
def a_panel(a_slicer, tmp_path):

    file = tmp_path / "Panel é.ui"
    file.write_text(UI, encoding="utf-8")
    widget = slicer.util.loadUI(str(file))
    ui = slicer.util.childWidgetVariables(widget)
    widget.setMRMLScene(slicer.mrmlScene)
    return widget, ui


def test_a_ui_file_is_loaded_with_its_connections(a_panel):
    import qt

    widget, ui = a_panel
    assert type(widget) is slicer.qMRMLWidget and type(ui.wholeBox) is qt.QCheckBox
    assert ui.inputSelector.mrmlScene() is slicer.mrmlScene and ui.editor.mrmlScene() is slicer.mrmlScene
    assert ui.inputSelector.nodeTypes == ("vtkMRMLScalarVolumeNode",)


@pytest.mark.parametrize(("was", "becomes"), [
    ("qMRMLNodeComboBox", "qMRMLNodeComboBocks"), ("noneEnabled", "noneEnabeld"),
    ("mrmlSceneChanged(vtkMRMLScene*)", "mrmlSceneChanged()"), ("setMRMLScene(vtkMRMLScene*)", "useScene(vtkMRMLScene*)")])
def test_a_mistake_in_a_ui_file_is_said(a_slicer, tmp_path, was, becomes):

    file = tmp_path / "Panel.ui"
    file.write_text(UI.replace(was, becomes), encoding="utf-8")
    with pytest.raises(ValueError):
        slicer.util.loadUI(str(file))


def test_a_node_combo_box_follows_the_scene(a_panel):

    _widget, ui = a_panel
    seen = []
    assert ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Chest")
    assert ui.inputSelector.currentNode() is None and ui.inputSelector.nodeCount() == 1
    ui.inputSelector.setCurrentNode(volume)
    assert ui.inputSelector.currentNodeID == volume.GetID()
    slicer.mrmlScene.RemoveNode(volume)
    assert seen == [volume, None] and ui.inputSelector.currentNode() is None


def test_a_parameter_node_binds_to_the_ui_file(a_panel):
    from slicer.parameterNodeWrapper import parameterNodeWrapper
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

    @parameterNodeWrapper
    class Parameters:
        inputVolume: slicer.vtkMRMLScalarVolumeNode
        whole: bool = True

    _widget, ui = a_panel
    parameters = Parameters(ScriptedLoadableModuleLogic().getParameterNode())
    tag = parameters.connectGui(ui)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Chest")
    assert ui.wholeBox.checked is True
    ui.wholeBox.checked = False
    ui.inputSelector.setCurrentNode(volume)
    assert parameters.whole is False and parameters.inputVolume is volume
    parameters.whole = True
    assert ui.wholeBox.checked is True
    parameters.disconnectGui(tag)
    ui.wholeBox.checked = False
    assert parameters.whole is True


def test_a_collapsible_button_hides_what_is_in_it(a_panel):
    widget, ui = a_panel
    widget.show()
    ui.settings.collapsed = True
    assert not ui.wholeBox.visible
    ui.settings.collapsed = False
    assert ui.wholeBox.visible


def test_the_segment_editor_selects_segments_and_undoes(a_panel):

    _widget, ui = a_panel
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "regions")
    for name in ("body_L1", "psoas_left"):
        segmentation.GetSegmentation().AddEmptySegment(name, name)
    ui.editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    ui.editor.setSegmentationNode(segmentation)
    ui.editor.setCurrentSegmentID("psoas_left")
    ui.editor.setActiveEffectByName("Paint")
    assert ui.editor.currentSegmentID() == "psoas_left"
    assert ui.editor.activeEffect().name == "Paint"
    ui.editor.saveStateForUndo()
    segmentation.GetSegmentation().RemoveSegment("body_L1")
    ui.editor.undo()
    assert sorted(segmentation.GetSegmentation().GetSegmentIDs()) == ["body_L1", "psoas_left"]


def test_the_layout_gives_real_slice_nodes(a_slicer):

    manager = slicer.app.layoutManager()
    assert sorted(manager.sliceViewNames()) == ["Green", "Red", "Yellow"]
    red = manager.sliceWidget("Red")
    assert red.mrmlSliceNode() is red.sliceLogic().GetSliceNode()
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Chest")
    slicer.util.setSliceViewerLayers(background=volume)
    assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActiveVolumeID(volume.GetID())
    slicer.app.applicationLogic().PropagateVolumeSelection(0)
    with pytest.raises(AttributeError):
        slicer.app.setLayout(3)


def test_a_console_process_reports_in_the_main_thread(a_slicer):

    lines, codes = [], []
    slicer.util.launchConsoleProcess(["PythonSlicer", "-c", "print('stage 1'); raise SystemExit(3)"], blocking=False,
                                     logCallback=lines.append, completedCallback=codes.append)
    a_slicer.wait_until(lambda: codes)
    assert (lines, codes) == (["stage 1"], [3])


MODULE = '''
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget
import qt

class Small(ScriptedLoadableModule):
    def __init__(self, parent):
        super().__init__(parent)
        self.parent.title = _("Small")

class SmallWidget(ScriptedLoadableModuleWidget):
    calls = []
    def setup(self):
        super().setup()
        self.button = qt.QPushButton(_("Measure"))
        self.layout.addWidget(self.button)
        self.calls.append("setup")
    def enter(self):
        self.calls.append("enter")
    def exit(self):
        self.calls.append("exit")
    def cleanup(self):
        self.calls.append("cleanup")
'''


@pytest.fixture
def a_module(tmp_path, monkeypatch):
    (tmp_path / "Small.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "Small"


def test_a_module_is_loaded_opened_left_and_cleaned_up(a_module, a_slicer):

    widget = a_slicer.open(a_module)
    assert slicer.modules.small.title == "Small" and slicer.modules.SmallWidget is widget
    assert widget.resourcePath("UI/Small.ui").endswith("Resources/UI/Small.ui")
    slicer.util.selectModule("Volumes")
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit("Small")
    assert widget.calls == ["setup", "enter", "exit", "cleanup"]


def test_a_widget_is_drawn_with_legible_text(a_slicer, grab, tmp_path):
    import qt

    label = qt.QLabel("vBMD 96 mg/cm³")
    label.setStyleSheet("background: white; color: black")
    file = grab(label, tmp_path / "label.png", 200, 40)
    image = qt.QImage(str(file))
    dark = sum(qt.QColor(image.pixel(x, y)).lightness() < 100 for x in range(image.width()) for y in range(image.height()))
    assert 150 < dark < 1500


def test_nothing_is_left_behind():
    from slicer_adapter import installed_session

    before = set(vars(slicer))
    with installed_session():
        import qt  # noqa: F401
        assert slicer.mrmlScene is not None
    assert set(vars(slicer)) == before
    assert not {"qt", "ctk", "slicer.i18n", "slicer.modules"} & set(sys.modules)


def test_the_adapter_stands_in_tests_only():
    product = Path(__file__).resolve().parents[2] / "LowDoseBMD"
    assert not [f for f in product.rglob("*.py") if "slicer_adapter" in f.read_text(encoding="utf-8")]
