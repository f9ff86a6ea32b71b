"""Sample data: a synthetic CT whose vBMD is known, made on this computer; nothing is fetched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDLib.exchange import CT_FACTS_FILE, read_ct
from LowDoseBMDMRML.volumes import node_from_ct
from slicer.i18n import tr as _

from .processes import endTree, pythonSlicer, startProcess

CATEGORY, NAME = "LowDoseBMD", "LowDoseBMDPhantom"
SEED = 1
"""The phantom that ``lowdosebmd demo`` makes."""

MAKER = ("-m", "LowDoseBMDLib.phantom")
POLL_MS = 200


def registerSampleData(thumbnail: str) -> None:
    """Offer the phantom in the module Sample Data."""
    from SampleData import SampleDataLogic

    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY, sampleName=NAME, uris="", fileNames="", nodeNames=NAME, thumbnailFileName=thumbnail,
        loadFiles=False, customDownloader=lambda _source=None: PhantomMaker.start())
    slicer.app.connect("aboutToQuit()", PhantomMaker.stop)


class PhantomMaker:
    """Makes the phantom in a process of its own, which takes half a minute once, and loads it when it is there."""

    _current: PhantomMaker | None = None

    def __init__(self, command: Sequence[str], folder: Path, onLoaded: Callable[[Any], None]) -> None:
        self._folder = folder
        self._onLoaded = onLoaded
        self._process = startProcess([*command, str(folder), "--seed", str(SEED)])
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self._poll)
        self._timer.start()

    @classmethod
    def start(cls, onLoaded: Callable[[Any], None] = lambda node: None) -> None:
        """Load the phantom; it is made first when that was never done here. One at a time."""
        folder = Path(slicer.app.cachePath) / f"LowDoseBMD-phantom-{SEED}"
        if (folder / CT_FACTS_FILE).is_file():
            onLoaded(loadPhantom(folder))
        elif cls._current is None:
            python = pythonSlicer()
            if python is None:
                raise RuntimeError(_("PythonSlicer was not found: this Slicer is incomplete, install it again."))
            slicer.util.showStatusMessage(_("Making the phantom, about half a minute..."))
            cls._current = cls([python, *MAKER], folder, onLoaded)

    @classmethod
    def stop(cls) -> None:
        """Give up, as when the module goes."""
        if cls._current is not None:
            cls._current._timer.stop()
            endTree(cls._current._process, force=True)
            cls._current._process.stdout.close()
            cls._current._process.wait()
            cls._current = None

    def _poll(self) -> None:
        status = self._process.poll()
        if status is None:
            return
        self._timer.stop()
        PhantomMaker._current = None
        with self._process.stdout:
            said = self._process.stdout.read().decode("utf-8", errors="replace")
        if status:
            logging.error("the phantom could not be made: %s", said)
            slicer.util.errorDisplay(_("The phantom could not be made."), detailedText=said)
            return
        slicer.util.showStatusMessage("")
        self._onLoaded(loadPhantom(self._folder))


def loadPhantom(folder: Path) -> Any:
    """A volume node with the phantom of a folder, shown in the views."""
    node = node_from_ct(slicer.mrmlScene, read_ct(folder), _("Phantom (synthetic)"))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node
