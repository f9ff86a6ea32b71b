"""Stand-ins for the CTK widgets that Slicer's panels use, with the public names of the real ones."""

from __future__ import annotations

from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets

from slicer_adapter import dialogs
from slicer_adapter.standins import standin, stored

HEADER_MARGIN_PX = 6
UNLIMITED_PX = 16777215
"""Qt's own bound of a widget's height."""


@standin("ctk")
class ctkCollapsibleButton(QtWidgets.QAbstractButton):  # noqa: N801
    """A titled section that folds."""

    contentsCollapsed = QtCore.Signal(bool)
    collapsedHeight = stored(int, "collapsedHeight", 10)
    flat = stored(bool, "flat", False)
    contentsFrameShape = stored(int, "contentsFrameShape", 0)
    contentsFrameShadow = stored(int, "contentsFrameShadow", 0)
    contentsLineWidth = stored(int, "contentsLineWidth", 1)
    contentsMidLineWidth = stored(int, "contentsMidLineWidth", 0)
    buttonTextAlignment = stored(int, "buttonTextAlignment", 0)
    indicatorAlignment = stored(int, "indicatorAlignment", 0)

    def __init__(self, *arguments) -> None:
        texts = [a for a in arguments if isinstance(a, str)]
        super().__init__(next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None))
        self.setText(texts[0] if texts else "")
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Maximum)
        self._folded: list[QtWidgets.QWidget] = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self._header_px(), 0, 0)
        self.toggled.connect(self._fold)

    def _collapsed(self) -> bool:
        return not self.isChecked()

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = QtCore.Property(bool, _collapsed, _set_collapsed, notify=contentsCollapsed)

    def _header_px(self) -> int:
        return self.fontMetrics().height() + 2 * HEADER_MARGIN_PX

    def _fold(self, opened: bool) -> None:
        if opened:
            self._show_again()
        else:
            children = [c for c in self.children() if isinstance(c, QtWidgets.QWidget) and not c.isHidden()]
            self._folded = children
            for child in children:
                child.hide()
        self.setMaximumHeight(UNLIMITED_PX if opened else self._header_px())
        self.updateGeometry()
        self.update()
        self.contentsCollapsed.emit(not opened)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """A child that comes while the section is folded stays hidden until it opens."""
        super().childEvent(event)
        child = event.child()
        if event.polished() and not self.isChecked() and isinstance(child, QtWidgets.QWidget) and not child.isHidden():
            self._folded.append(child)
            child.hide()

    def _show_again(self) -> None:
        for child in self._folded:
            child.show()
        self._folded = []

    def sizeHint(self) -> QtCore.QSize:
        inner = self.layout().totalSizeHint() if self.layout() and self.isChecked() else QtCore.QSize(0, 0)
        text = self.fontMetrics().horizontalAdvance(self.text()) + 40
        return QtCore.QSize(max(inner.width(), text), max(inner.height(), self._header_px()))

    def minimumSizeHint(self) -> QtCore.QSize:
        inner = self.layout().totalMinimumSize() if self.layout() and self.isChecked() else QtCore.QSize(0, 0)
        return QtCore.QSize(inner.width(), max(inner.height(), self._header_px()))

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._header_px()

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self._header_px())
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = "▾" if self.isChecked() else "▸"
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), int(QtCore.Qt.AlignmentFlag.AlignVCenter),
                         f"{arrow}  {self.text()}")


@standin("ctk")
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):  # noqa: N801
    """A group box whose check box folds it."""

    collapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(self._fold)

    def _fold(self, opened: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(opened)

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


@standin("ctk")
class ctkDoubleSpinBox(QtWidgets.QWidget):  # noqa: N801
    """A spin box for reals."""

    valueChanged = QtCore.Signal(float)
    editingFinished = QtCore.Signal()
    decimalsChanged = QtCore.Signal(int)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self.valueChanged)
        self._box.editingFinished.connect(self.editingFinished)

    value = QtCore.Property(float, lambda self: self._box.value(), lambda self, v: self._box.setValue(v))
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), lambda self, v: self._box.setMinimum(v))
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), lambda self, v: self._box.setMaximum(v))
    singleStep = QtCore.Property(float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v))
    decimals = QtCore.Property(int, lambda self: self._box.decimals(), lambda self, v: self._box.setDecimals(v))
    prefix = QtCore.Property(str, lambda self: self._box.prefix(), lambda self, v: self._box.setPrefix(v))
    suffix = QtCore.Property(str, lambda self: self._box.suffix(), lambda self, v: self._box.setSuffix(v))
    readOnly = QtCore.Property(bool, lambda self: self._box.isReadOnly(), lambda self, v: self._box.setReadOnly(v))

    def setValue(self, value: float) -> None:
        self._box.setValue(value)


@standin("ctk")
class ctkSliderWidget(QtWidgets.QWidget):  # noqa: N801
    """A slider and a spin box on one real value."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)
    pageStep = stored(float, "pageStep", 10.0)
    tracking = stored(bool, "tracking", True)
    tickInterval = stored(float, "tickInterval", 0.0)
    popupSlider = stored(bool, "popupSlider", False)
    invertedAppearance = stored(bool, "invertedAppearance", False)
    invertedControls = stored(bool, "invertedControls", False)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, 1000)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._box_moved)
        self._slider.sliderMoved.connect(self._slider_moved)

    def _box_moved(self, value: float) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._slider.setValue(round(1000 * (value - self._box.minimum()) / span) if span else 0)
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    def _slider_moved(self, position: int) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._box.setValue(self._box.minimum() + span * position / 1000)

    def _set_minimum(self, value: float) -> None:
        self._box.setMinimum(value)
        self._box_moved(self._box.value())

    def _set_maximum(self, value: float) -> None:
        self._box.setMaximum(value)
        self._box_moved(self._box.value())

    value = QtCore.Property(float, lambda self: self._box.value(), lambda self, v: self._box.setValue(v))
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), _set_minimum)
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), _set_maximum)
    singleStep = QtCore.Property(float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v))
    decimals = QtCore.Property(int, lambda self: self._box.decimals(), lambda self, v: self._box.setDecimals(v))
    prefix = QtCore.Property(str, lambda self: self._box.prefix(), lambda self, v: self._box.setPrefix(v))
    suffix = QtCore.Property(str, lambda self: self._box.suffix(), lambda self, v: self._box.setSuffix(v))
    spinBoxVisible = QtCore.Property(bool, lambda self: not self._box.isHidden(), lambda self, v: self._box.setVisible(v))

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    def setDecimals(self, decimals: int) -> None:
        self._box.setDecimals(decimals)

    def reset(self) -> None:
        self._box.setValue(0.0)


@standin("ctk")
class ctkComboBox(QtWidgets.QComboBox):  # noqa: N801
    """A combo box with a text for "nothing chosen"."""

    defaultText = stored(str, "defaultText", "")
    forceDefault = stored(bool, "forceDefault", False)
    currentUserDataAsString = QtCore.Property(
        str, lambda self: str(self.currentData() or ""), lambda self, v: self.setCurrentIndex(self.findData(v)))


@standin("ctk")
class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801
    """A path with a browse button."""

    Dirs, Files, Readable, Writable = 0x1, 0x2, 0x10, 0x20
    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    label = stored(str, "label", "")
    filters = stored(int, "filters", 0)
    options = stored(int, "options", 0)
    settingKey = stored(str, "settingKey", "")
    showBrowseButton = stored(bool, "showBrowseButton", True)
    showHistoryButton = stored(bool, "showHistoryButton", True)
    nameFilters = stored("QStringList", "nameFilters", [])

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit(self)
        button = QtWidgets.QToolButton(self)
        button.setText("…")
        button.clicked.connect(self.browse)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit, 1)
        layout.addWidget(button)
        self._edit.textChanged.connect(self.currentPathChanged)

    currentPath = QtCore.Property(str, lambda self: self._edit.text(), lambda self, v: self._edit.setText(v))

    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    def browse(self) -> None:
        answer = dialogs.asked("ctkPathLineEdit.browse", self._stored_label if hasattr(self, "_stored_label") else "")
        if answer:
            self._edit.setText(answer)

    def addCurrentPathToHistory(self) -> None:
        """The history belongs to the settings; nothing to imitate."""


@standin("ctk")
class ctkDirectoryButton(QtWidgets.QWidget):  # noqa: N801
    """A button that shows a folder and asks for another."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)
    caption = stored(str, "caption", "")
    text = stored(str, "text", "")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._button = QtWidgets.QPushButton(str(Path.cwd()), self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(self.browse)

    def _set_directory(self, path: str) -> None:
        if path != self._button.text():
            self._button.setText(path)
            self.directoryChanged.emit(path)

    directory = QtCore.Property(str, lambda self: self._button.text(), _set_directory, notify=directoryChanged)

    def browse(self) -> str:
        answer = dialogs.asked("ctkDirectoryButton.browse", self.caption) or ""
        if answer:
            self._set_directory(answer)
            self.directorySelected.emit(answer)
        return answer


@standin("ctk")
class ctkMessageBox(QtWidgets.QMessageBox):  # noqa: N801
    """A message box; shown means recorded, and answered by the test."""

    dontShowAgain = stored(bool, "dontShowAgain", False)
    dontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")
    dontShowAgainVisible = stored(bool, "dontShowAgainVisible", False)

    def setDontShowAgain(self, dont_show: bool) -> None:
        self.dontShowAgain = dont_show


@standin("ctk")
class ctkCheckBox(QtWidgets.QCheckBox):  # noqa: N801
    """A check box."""


@standin("ctk")
class ctkSearchBox(QtWidgets.QLineEdit):  # noqa: N801
    """A line edit with a search icon."""

    showSearchIcon = stored(bool, "showSearchIcon", False)


@standin("ctk")
class ctkMenuButton(QtWidgets.QPushButton):  # noqa: N801
    """A push button with a menu at its side."""


@standin("ctk")
class ctkFittedTextBrowser(QtWidgets.QTextBrowser):  # noqa: N801
    """A text browser as high as its text."""

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(200, int(self.document().size().height()) + 4)


@standin("ctk")
class ctkRangeWidget(QtWidgets.QWidget):  # noqa: N801
    """Two reals that bound a range."""

    valuesChanged = QtCore.Signal(float, float)
    rangeChanged = QtCore.Signal(float, float)
    decimals = stored(int, "decimals", 2)
    singleStep = stored(float, "singleStep", 1.0)
    prefix = stored(str, "prefix", "")
    suffix = stored(str, "suffix", "")
    minimum = stored(float, "minimum", 0.0)
    maximum = stored(float, "maximum", 99.0)
    minimumValue = stored(float, "minimumValue", 0.0, after="_moved")
    maximumValue = stored(float, "maximumValue", 99.0, after="_moved")

    def _moved(self) -> None:
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.rangeChanged.emit(minimum, maximum)

    def setValues(self, minimum: float, maximum: float) -> None:
        self.minimumValue, self.maximumValue = minimum, maximum


@standin("ctk")
class ctkDoubleRangeSlider(ctkRangeWidget):  # noqa: N801
    """The slider of a range."""


@standin("ctk")
class ctkDoubleSlider(ctkSliderWidget):  # noqa: N801
    """A slider on a real value."""


@standin("ctk")
class ctkCheckablePushButton(QtWidgets.QPushButton):  # noqa: N801
    """A push button with a check box in it."""

    checkBoxControlsButton = stored(bool, "checkBoxControlsButton", True)
    checkBoxControlsButtonToggleState = stored(bool, "checkBoxControlsButtonToggleState", True)


@standin("ctk")
class ctkColorPickerButton(QtWidgets.QPushButton):  # noqa: N801
    """A button with a colour."""

    colorChanged = QtCore.Signal(QtGui.QColor)
    displayColorName = stored(bool, "displayColorName", True)
    color = stored(QtGui.QColor, "color", QtGui.QColor(), after="_chosen")

    def _chosen(self) -> None:
        self.colorChanged.emit(self.color)
