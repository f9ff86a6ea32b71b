"""What a study's process needs, loaded once for all: runner.py forks its tasks from a process that has imported this.

Importing takes about two seconds of processor, a fork of what has been imported a hundredth of that. Nothing here starts a
thread, and no network is opened: neither would survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded; tasks beside each other share the cores

MODULES: tuple[str, ...] = (
    "SimpleITK", "onnxruntime", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.patheffects", "jinja2",
    "pydicom", "highdicom.seg", "highdicom.sr", "LowDoseBMDLib.study", "LowDoseBMDLib.web_study",
    "LowDoseBMDLib.report.html", "LowDoseBMDLib.report.figures", "LowDoseBMDLib.report.tables",
    "LowDoseBMDLib.files.dicom_results", "LowDoseBMDLib.files.dicom_seg", "LowDoseBMDLib.files.dicom_sr",
)
"""Not the modules that tasks run as their main program: those must be new in each."""


def load(modules: Sequence[str]) -> None:
    """Import what there is of them."""
    gc.disable()  # a quarter of the time of importing is else spent on looking for what could be freed: nothing can
    for name in modules:
        with contextlib.suppress(ImportError):  # whoever needs it says what is missing
            importlib.import_module(name)
    gc.freeze()  # no task looks through it again, which would also copy its memory
    gc.enable()


load(MODULES)
