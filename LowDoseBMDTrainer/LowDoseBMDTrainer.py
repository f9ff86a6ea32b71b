"""The Slicer module of the Trainer. For now it points to the command line; annotation and training will follow."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class LowDoseBMDTrainer(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "LowDoseBMD Trainer"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["LowDoseBMD"]
        self.parent.contributors = ["LowDoseBMD contributors"]
        self.parent.helpText = _("Annotate cases and train, evaluate and export models for LowDoseBMD.")
        self.parent.acknowledgementText = ""


class LowDoseBMDTrainerWidget(ScriptedLoadableModuleWidget):
    """The panel says what works today and what does not yet."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        label = qt.QLabel(introductionHtml())
        label.wordWrap = True
        label.textInteractionFlags = qt.Qt.TextSelectableByMouse
        self.layout.addWidget(label)
        self.layout.addStretch(1)


def introductionHtml() -> str:
    """What the Trainer can do from the command line and what its panel will do, as rich text."""
    return "<br><br>".join((
        _("This panel will hold a queue of cases, annotation tools, training curves and the export of models. "
          "It does not yet: nothing can be annotated or trained here."),
        _("From a terminal, in a Python with torch and MONAI, the same work runs today:"),
        "<code>lowdosebmd-train --help</code>",
        _("A trained model is used with the option --models of the command line: lowdosebmd measure CT -o OUT "
          "--models FOLDER.")))


class LowDoseBMDTrainerTest(ScriptedLoadableModuleTest):
    """Self test: the panel names the command that works."""

    def runTest(self) -> None:
        self.setUp()
        self.test_NamesTheCommand()

    def test_NamesTheCommand(self) -> None:
        self.assertIn("lowdosebmd-train", introductionHtml())
