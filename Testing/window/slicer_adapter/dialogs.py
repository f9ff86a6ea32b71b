"""Dialogs that would wait for a person: recorded, and answered by the test that runs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from PySide6 import QtWidgets


@dataclass(frozen=True)
class Shown:
    """A dialog that a person would have seen. kind: its class, or class and static method."""

    kind: str
    text: str
    title: str = ""
    detailed_text: str = ""
    answer: Any = None


shown: list[Shown] = []
_answers: deque[Any] = deque()


class UnansweredDialog(AssertionError):
    """A dialog asks, and the test has no answer ready."""


def answer(*values: Any) -> None:
    """Queue answers for the dialogs to come, in their order."""
    _answers.extend(values)


def unused_answers() -> list[Any]:
    """Answers that no dialog asked for."""
    return list(_answers)


def forget() -> None:
    """Drop records and answers."""
    shown.clear()
    _answers.clear()


def asked(kind: str, text: str, title: str = "") -> Any:
    """The queued answer to a question.

    Raises
    ------
    UnansweredDialog
        When the test queued none.
    """
    if not _answers:
        shown.append(Shown(kind, text, title))
        raise UnansweredDialog(f"{kind} asks {text!r} and no answer is queued")
    given = _answers.popleft()
    shown.append(Shown(kind, text, title, answer=given))
    return given


def show_message_box(box: QtWidgets.QMessageBox) -> int:
    """Record a message box. One with a single button is acknowledged, any other takes a queued answer."""
    buttons = [box.standardButton(b) for b in box.buttons()]
    if not buttons or (len(buttons) == 1 and not _answers):
        given = int(buttons[0].value) if buttons else int(QtWidgets.QMessageBox.StandardButton.Ok.value)
        shown.append(Shown(type(box).__name__, box.text(), box.windowTitle().strip(), box.detailedText(), given))
        return given
    if not _answers:
        raise UnansweredDialog(f"a message box asks {box.text()!r} and no answer is queued")
    given = int(_answers.popleft())
    shown.append(Shown(type(box).__name__, box.text(), box.windowTitle().strip(), box.detailedText(), given))
    return given


def execute(dialog: QtWidgets.QDialog) -> int:
    """``exec`` of any dialog."""
    if isinstance(dialog, QtWidgets.QMessageBox):
        return show_message_box(dialog)
    return int(asked(type(dialog).__name__, "", dialog.windowTitle()))


def static_question(kind: str, arguments: tuple[Any, ...]) -> Any:
    """A static method that opens a dialog: QMessageBox.question, QFileDialog.getSaveFileName, QInputDialog.getText."""
    texts = [a for a in arguments if isinstance(a, str)]
    return asked(kind, texts[1] if len(texts) > 1 else "", texts[0] if texts else "")
