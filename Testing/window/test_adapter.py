"""The adapter keeps PythonQt's ways, as measured in a running Slicer: a regression here lets the window go wrong there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

slicer = pytest.importorskip("slicer")


def test_a_property_is_a_plain_attribute_and_calling_it_is_an_error(a_slicer):
    import qt

    edit = qt.QLineEdit()
    edit.text = "L1"
    assert edit.text == "L1"
    with pytest.raises(TypeError):
        edit.text()
    button = qt.QPushButton("Measure")
    assert (button.text, button.checked, button.enabled) == ("Measure", False, True)
    assert isinstance(button.width, int)


def test_methods_that_are_no_properties_stay_methods(a_slicer):
    import qt

    box = qt.QCheckBox("use")
    box.checked = True
    assert box.isChecked() is True
    box.setChecked(False)
    assert box.checked is False
    combo = qt.QComboBox()
    combo.addItem("one", 1)
    assert combo.itemData(0) == 1
    assert combo.currentText == "one"
    widget = qt.QWidget()
    layout = qt.QVBoxLayout(widget)
    layout.addWidget(box)
    assert widget.layout() is layout
    assert box.parent() is widget


@pytest.mark.parametrize("make", ["QPushButton", "QTimer", "QAction"])
def test_an_unknown_attribute_of_a_plain_object_raises_on_reading_and_writing(a_slicer, make):
    import qt

    thing = getattr(qt, make)()
    with pytest.raises(AttributeError):
        _ = thing.notThere
    with pytest.raises(AttributeError):
        thing.notThere = 1


def test_a_method_or_read_only_property_cannot_be_overwritten(a_slicer):
    import qt

    button = qt.QPushButton()
    for name in ("click", "clicked", "width"):
        with pytest.raises(AttributeError):
            setattr(button, name, 3)


def test_a_property_refuses_what_cannot_become_its_type(a_slicer):
    import qt

    spin = qt.QSpinBox()
    spin.value = 7.9
    assert spin.value == 7
    with pytest.raises(AttributeError, match="does not accept"):
        spin.value = "seven"
    label = qt.QLabel()
    label.text = 96
    assert label.text == "96"


def test_a_dynamic_property_becomes_readable_and_writable(a_slicer):
    import qt

    button = qt.QPushButton()
    button.setProperty("foo", 3)
    assert button.foo == 3
    assert button.property("foo") == 3
    button.foo = 4
    assert button.property("foo") == 4
    assert button.property("bar") is None


def test_connect_by_signature_and_disconnect(a_slicer):
    import qt

    button, seen = qt.QPushButton(), []
    button.checkable = True
    assert button.connect("clicked(bool)", seen.append) is True
    button.click()
    assert seen == [True]
    assert button.disconnect("clicked(bool)", seen.append) is True
    button.click()
    assert seen == [True]
    assert button.disconnect("clicked(bool)", seen.append) is False


def test_an_unknown_signal_is_false_and_no_error(a_slicer):
    import qt

    assert qt.QPushButton().connect("pressedVeryHard()", print) is False
    assert qt.QPushButton().connect("clicked(QString)", print) is False


def test_a_signal_attribute_connects_and_passes_its_bool(a_slicer):
    import qt

    button, seen = qt.QPushButton(), []
    button.clicked.connect(lambda checked: seen.append(checked))
    button.clicked.connect(lambda: seen.append("nothing"))
    button.click()
    assert seen == [False, "nothing"]
    button.clicked.disconnect()
    button.click()
    assert len(seen) == 2


def test_a_default_of_a_lambda_takes_what_the_signal_carries(a_slicer):
    """The trap of loops: ``lambda level=level: ...`` on clicked(bool) receives False, on clicked() the level."""
    import qt

    button, seen = qt.QPushButton(), []
    button.connect("clicked(bool)", lambda level="L1": seen.append(level))
    button.connect("clicked()", lambda level="L1": seen.append(level))
    button.click()
    assert sorted(seen, key=str) == [False, "L1"]


def test_a_connection_between_two_objects(a_slicer):
    import qt

    box, edit = qt.QCheckBox(), qt.QLineEdit()
    edit.enabled = False
    assert box.connect("toggled(bool)", edit, "setEnabled(bool)")
    box.checked = True
    assert edit.enabled


def test_an_error_in_a_slot_is_kept_and_does_not_reach_the_caller(a_slicer):
    import qt

    button = qt.QPushButton()
    button.clicked.connect(lambda: 1 / 0)
    button.click()
    assert [type(e) for e in a_slicer.slot_errors] == [ZeroDivisionError]
    a_slicer.slot_errors.clear()


def test_enumerators_are_plain_integers(a_slicer):
    import qt

    both = qt.Qt.AlignLeft | qt.Qt.AlignTop
    assert type(both) is int and both == 0x21
    label = qt.QLabel("x")
    label.setAlignment(both)
    assert label.alignment == both
    label.alignment = qt.Qt.AlignRight
    assert label.alignment == 2
    label.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
    assert label.sizePolicy.horizontalPolicy() == qt.QSizePolicy.Expanding
    with pytest.raises(AttributeError):
        _ = qt.Qt.AlignmentFlag.AlignLeft


def test_delete_makes_a_wrapper_falsy(a_slicer):
    import qt

    button = qt.QPushButton()
    assert button
    button.delete()
    assert not button
    with pytest.raises(ValueError, match="destroyed"):
        _ = button.text
    with pytest.raises(AttributeError, match="destroyed"):
        button.text = "x"


def test_deleting_a_parent_makes_the_childs_wrapper_falsy(a_slicer):
    import qt

    parent = qt.QWidget()
    child = qt.QPushButton(parent)
    parent.delete()
    assert not child


def test_there_are_no_keywords(a_slicer):
    import qt

    with pytest.raises(TypeError):
        qt.QPushButton("x", parent=None)
    with pytest.raises(TypeError):
        qt.QPushButton("x").setText(text="y")


def test_a_path_is_no_text(a_slicer, tmp_path):
    import qt

    with pytest.raises(TypeError, match="path"):
        qt.QFile(tmp_path)


def test_qt_is_one_flat_namespace(a_slicer):
    import qt

    for name in ("QObject", "QTimer", "QProcess", "QSettings", "QIcon", "QKeySequence", "QShortcut", "QAction", "QFile",
                 "QPushButton", "QTableWidgetItem", "QTextDocument", "QPdfWriter", "QPrinter", "QUiLoader", "Qt"):
        assert getattr(qt, name).__name__ == name
    for name in ("QtCore", "QtWidgets", "Signal", "Slot", "QTextCodec", "QRegExp", "QPushBtn"):
        with pytest.raises(AttributeError):
            getattr(qt, name)


def test_wrapper_classes_do_not_inherit_from_one_another(a_slicer):
    """PythonQt gives every class one and the same base: isinstance says nothing about C++ inheritance."""
    import qt

    button = qt.QPushButton()
    assert type(button) is qt.QPushButton
    assert not isinstance(button, qt.QWidget)


def test_object_name_is_also_name_and_children_are_found_by_it(a_slicer):
    import qt

    widget = qt.QWidget()
    button = qt.QPushButton(widget)
    button.name = "measureButton"
    assert button.objectName == "measureButton"
    assert widget.findChild(qt.QPushButton, "measureButton") is button
    assert widget.findChildren("QPushButton") == (button,)
    assert widget.measureButton is button
    assert button.className() == "QPushButton" and button.inherits("QAbstractButton")


def test_a_python_class_overrides_a_virtual_method_and_keeps_its_own_attributes(a_slicer):
    import qt

    class Watcher(qt.QObject):
        def eventFilter(self, watched, event):
            self.seen = (watched, event.type())
            return False

    watcher, button = Watcher(), qt.QPushButton()
    watcher.mine = 1
    button.installEventFilter(watcher)
    button.enabled = False
    assert watcher.mine == 1
    assert watcher.seen[0] is button and watcher.seen[1] == qt.QEvent.EnabledChange


def test_a_shortcut_is_pressed(a_slicer):
    import qt

    window, seen = qt.QWidget(), []
    shortcut = qt.QShortcut(qt.QKeySequence("Ctrl+E"), window)
    shortcut.connect("activated()", lambda: seen.append(1))
    a_slicer.press(window, "Ctrl+E")
    assert seen == [1]


def test_a_document_is_printed_as_pdf(a_slicer, tmp_path):
    import qt

    document = qt.QTextDocument()
    document.setHtml("<h1>vBMD 96</h1>")
    writer = qt.QPdfWriter(str(tmp_path / "report.pdf"))
    document.print_(writer)
    del writer
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_an_object_without_parent_goes_with_its_wrapper(a_slicer):
    """As in Slicer: a timer, shortcut or dialog that nothing holds is gone."""
    import gc

    import qt

    parent = qt.QWidget()
    kept = qt.QLabel(parent)
    kept.name, gone = "kept", []
    timer = qt.QTimer()
    timer.connect("destroyed()", lambda: gone.append(1))
    del kept, timer
    gc.collect()
    assert gone == [1] and parent.findChild(qt.QLabel, "kept")


def test_a_timer_calls_back(a_slicer):
    import qt

    seen = []
    qt.QTimer.singleShot(0, lambda: seen.append("shot"))
    timer = qt.QTimer()
    timer.interval = 1
    timer.singleShot = True
    timer.connect("timeout()", lambda: seen.append("timeout"))
    timer.start()
    a_slicer.wait_until(lambda: len(seen) == 2)


def test_keywords_of_python_carry_an_underscore(a_slicer):
    import qt

    a_slicer.answer(qt.QDialog.Accepted)
    assert qt.QDialog().exec_() == qt.QDialog.Accepted


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
