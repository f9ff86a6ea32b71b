"""The adapter keeps PythonQt's ways, as measured in a running Slicer: a regression here lets the window go wrong there."""

from __future__ import annotations

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
    timer.setSingleShot(True)
    timer.connect("timeout()", lambda: seen.append("timeout"))
    timer.start()
    a_slicer.wait_until(lambda: len(seen) == 2)


def test_keywords_of_python_carry_an_underscore(a_slicer):
    import qt

    a_slicer.answer(qt.QDialog.Accepted)
    assert qt.QDialog().exec_() == qt.QDialog.Accepted


def test_a_timer_becomes_single_shot_by_its_setter_only(a_slicer) -> None:
    """PythonQt finds the static function before the property."""
    import qt

    timer = qt.QTimer()
    with pytest.raises(AttributeError, match="singleShot"):
        timer.singleShot = True
    timer.setSingleShot(True)
    assert timer.isSingleShot()
