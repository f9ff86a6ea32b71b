"""What the sections Agreement, Train, Evaluate and Export have in common: a form in a frame, a host, sentences, progress."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDQt.job import jsonObject
from LowDoseBMDQt.packages_box import PackagesBox
from LowDoseBMDTrainerLib.project import Project
from slicer.i18n import tr as _

from .trainer_process import TrainerProcess

RESOURCES = Path(__file__).resolve().parents[1] / "Resources"
REQUIREMENTS = RESOURCES / "trainer_requirements.txt"

TITLE = "LowDoseBMD Trainer"
ROW_HEIGHT = 23
MOST_ROWS = 7
"""Rows of a table that are seen at once; more are scrolled."""

PROGRESS_MS = 500


class Section:
    """host: the panel, with ``project`` (or None), ``currentCase`` (or None), ``annotator``, ``say(text)``, ``listeners``.

    form: name of the .ui file. frame: the empty frame that the form is put into. fold: what the frame lies in; nothing is
    read while it is folded.
    """

    FORM = ""

    def __init__(self, frame: Any, host: Any) -> None:
        self.host = host
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / f"{self.FORM}.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        layout = qt.QVBoxLayout(frame)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.widget)
        self._log = ""
        self.fold = frame.parentWidget()
        if hasattr(self.fold, "collapsed"):
            self.fold.connect("contentsCollapsed(bool)", lambda _collapsed=False: self.update())
        if hasattr(self.ui, "messageLabel"):
            self.ui.messageLabel.connect("linkActivated(QString)", self._onLink)
        host.listeners.append(self.update)

    @property
    def shown(self) -> bool:
        """Whether the section is unfolded."""
        return not bool(getattr(self.fold, "collapsed", False))

    def update(self) -> None:
        """Show the host's project and case as they are now; nothing is read while the section is folded."""
        if self.shown:
            self.show()

    def show(self) -> None:
        """Fill the form; each section its own."""
        raise NotImplementedError

    def openedProject(self, label: Any) -> Project | None:
        """The project that is open; without one the form is disabled and ``label`` asks for it."""
        project = self.host.project
        self.widget.enabled = project is not None
        if project is None:
            label.text = _("Open a project first.")
        return project

    def close(self) -> None:
        """The module goes."""
        if self.update in self.host.listeners:
            self.host.listeners.remove(self.update)

    def say(self, text: str, log: str = "") -> None:
        """A sentence in the section, empty for none. log: what a person may want to read besides."""
        self._log = log
        label = self.ui.messageLabel
        label.text = problemHtml(text) + (f" <a href='log:'>{_('Show the log')}</a>" if log.strip() else "")
        label.visible = bool(text)

    def _onLink(self, link: str) -> None:
        if link == "log:":
            slicer.util.infoDisplay(_("What the command said:"), windowTitle=TITLE, detailedText=self._log)


class CommandSection(Section):
    """A section that runs one command of lowdosebmd-train at a time; its button starts or cancels it.

    withPackages: the command needs torch and the like, which is said, and offered, when they are not there.
    """

    def __init__(self, frame: Any, host: Any, button: str, withPackages: bool = True, lasting: bool = False) -> None:
        super().__init__(frame, host)
        self.process = TrainerProcess(lasting)
        self._button = getattr(self.ui, button)
        self._title = self._button.text
        self._last, self._fraction = "", None
        self._button.connect("clicked(bool)", lambda _checked=False: self.press())
        self._ticker = qt.QTimer()
        self._ticker.interval = PROGRESS_MS
        self._ticker.connect("timeout()", self.tick)
        self.packages = PackagesBox(self.ui, str(REQUIREMENTS), self.update, withTorch=True) if withPackages else None

    def press(self) -> None:
        """As if the button was pressed."""
        if self.process.running:
            self.process.cancel()
            self._last = _("stopping")
            self.tick()
        elif self.packages is None or self.packages.complete():
            self.begin()

    def begin(self) -> None:
        """Start the command; each section its own."""
        raise NotImplementedError

    def run(self, arguments: Sequence[str], output: Path, onDone: Callable[[], None], result: Path | None = None) -> bool:
        """Start a command whose output goes to a file, and show how far it is; False, with a sentence, when it cannot be.

        result: the last file that the command writes. When it was written, a failure is one of some case, of which the
        result tells.
        """
        self.say("")
        self._last, self._fraction = "", None
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            before = modifiedAt(result)
            self.process.start(arguments, output, self._onLine, lambda: self._end(onDone), lambda sentence, log: self._end(
                onDone if modifiedAt(result) != before else lambda: self.onFailed(sentence, log)),
                lambda: self._end(self.onCancelled))
        except (OSError, RuntimeError) as error:
            self.say(str(error))
            return False
        self._ticker.start()
        self.tick()
        return True

    def onFailed(self, sentence: str, log: str) -> None:
        self.say(sentence, log)

    def onCancelled(self) -> None:
        self.say(_("Cancelled."))

    def _onLine(self, line: str) -> None:
        """A command says how far it is in JSON, when it can, and other things in words."""
        event = jsonObject(line)
        if "progress" in event:
            self._last, self._fraction = str(event["progress"]), event.get("fraction")
        elif line and not event:
            self._last = line

    def _end(self, then: Callable[[], None]) -> None:
        self._ticker.stop()
        self.tick()
        then()
        self.update()

    def tick(self) -> None:
        """Show whether the command runs, and the last that it said."""
        ui, running = self.ui, self.process.running
        self._button.text = _("Cancel") if running else self._title
        ui.progressBar.visible = ui.progressLabel.visible = running
        ui.progressBar.maximum = 0 if self._fraction is None else 1000  # without an end the bar only moves
        ui.progressBar.value = round(1000 * (self._fraction or 0.0))
        seconds = _("{seconds:.0f} s").format(seconds=self.process.elapsed)
        ui.progressLabel.text = html.escape(" · ".join(filter(None, [self._last, seconds])))

    def close(self) -> None:
        self._ticker.stop()
        self.process.close()
        super().close()


def modifiedAt(path: Path | None) -> float | None:
    """When a file was last written; None when it is not there."""
    try:
        return path.stat().st_mtime if path is not None else None
    except OSError:
        return None


def problemHtml(text: str) -> str:
    """A sentence on what went wrong, as rich text."""
    return f"<span style='color:#a11622'>{html.escape(text)}</span>".replace("\n", "<br>") if text else ""


def warningHtml(text: str) -> str:
    """A sentence on what a person should know, as rich text."""
    return f"<span style='color:#8a5a00'>{html.escape(text)}</span>"


def durationText(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return _("{seconds:.0f} s").format(seconds=max(0.0, seconds))
    if seconds < 5400:
        return _("{minutes:.0f} min").format(minutes=seconds / 60)
    return _("{hours:.1f} h").format(hours=seconds / 3600)


def prepareTable(table: Any, widths: Mapping[int, int], stretched: int) -> None:
    """Give the columns their widths in pixels; one takes what is left."""
    header = table.horizontalHeader()
    for column, width in widths.items():
        table.setColumnWidth(column, width)
    header.setSectionResizeMode(stretched, qt.QHeaderView.Stretch)
    header.highlightSections = False
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
    fillTable(table, [])


def fillTable(table: Any, rows: Sequence[Sequence[str]], tips: Sequence[str] = ()) -> None:
    """Show rows of texts, the first column left, the others centred; the chosen row stays chosen. Empty: hidden."""
    if table.rowCount != len(rows):
        table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            item = table.item(number, column)
            if not item:
                item = qt.QTableWidgetItem()
                item.setTextAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter if column == 0 else qt.Qt.AlignCenter)
                table.setItem(number, column, item)
            if item.text() != text:
                item.setText(text)
            item.setToolTip(tips[number] if tips else text)
    table.visible = bool(rows)
    height = table.horizontalHeader().sizeHint.height() + min(len(rows), MOST_ROWS) * ROW_HEIGHT
    table.setFixedHeight(height + 2 * table.frameWidth)


def fillCombo(box: Any, entries: Sequence[tuple[str, str]], chosen: str) -> None:
    """List (title, value) and select the value ``chosen``, or the first; nothing changes while the list stays the same."""
    if [(box.itemText(n), box.itemData(n)) for n in range(box.count)] != list(entries):
        blocked = box.blockSignals(True)
        box.clear()
        for title, value in entries:
            box.addItem(title, value)
        place = next((n for n, (_title, value) in enumerate(entries) if value == chosen), 0)
        box.setCurrentIndex(place if entries else -1)
        box.blockSignals(blocked)


def link(path: Path, title: str) -> str:
    """A link to a file or folder, as rich text."""
    return f"<a href='{html.escape(path.as_uri(), quote=True)}'>{html.escape(title)}</a>"
