"""Starting and ending the processes that a job needs, and the folders that they work in, on every system."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

MODULE_FOLDER = Path(__file__).resolve().parents[1]
"""What must be on the path of a process that imports LowDoseBMDLib."""

FOLDER_PREFIX = "LowDoseBMD-job-"
LEFT_OVER_SECONDS = 24 * 3600
"""A job's folder that is older than this belongs to nobody: a job takes a minute."""

WINDOWS = os.name == "nt"


def pythonSlicer() -> str | None:
    """The Python in which Slicer's packages are, as a program; None when this Slicer is incomplete."""
    return shutil.which("PythonSlicer")


def workerEnvironment(folders: Sequence[Path] = ()) -> dict[str, str]:
    """This process's environment, such that LowDoseBMDLib is found and text is UTF-8 whatever the system's language.

    folders: where other packages that the process imports lie.
    """
    paths = [str(MODULE_FOLDER), *map(str, folders), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1",
                         "PYTHONIOENCODING": "utf-8"}


def startProcess(command: Sequence[str], folders: Sequence[Path] = (),
                 output: BinaryIO | None = None) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, without a console; its errors come with its output. Raises OSError.

    folders: see workerEnvironment. output: an open file for what it says; a pipe otherwise. With a file, the process does
    not depend on this one: it goes on when Slicer is closed. It starts in the module's folder: Windows does not let go of
    a folder in which a process works.
    """
    options = {}
    if WINDOWS:
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        options["start_new_session"] = True
    return subprocess.Popen(command, env=workerEnvironment(folders), cwd=MODULE_FOLDER, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE if output is None else output, stderr=subprocess.STDOUT, **options)


def endTree(process: subprocess.Popen[bytes], force: bool) -> None:
    """End a process and all that it started: PythonSlicer is a launcher, the work is done by its child.

    force False asks them to end, where the system knows how to ask. Does nothing when the process has been waited for: its
    number could be another's by now.
    """
    if process.returncode is not None:
        return
    if WINDOWS:
        _endTreeOnWindows(process)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)


def _endTreeOnWindows(process: subprocess.Popen[bytes]) -> None:
    try:
        import psutil
    except ImportError:  # Slicer does not bundle it
        subprocess.Popen(["taskkill", "/F", "/T", "/PID", str(process.pid)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for each in [*parent.children(recursive=True), parent]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def makeJobFolder(temporaryFolder: str | Path) -> Path:
    """A new folder that only this user can read; its name says whose it is."""
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=temporaryFolder))


def removeFolder(folder: Path) -> None:
    """What cannot be removed now is removed at a later start."""
    shutil.rmtree(folder, ignore_errors=True)


def clearLeftOvers(temporaryFolder: str | Path) -> None:
    """Remove what crashed sessions left: they hold patients' images."""
    for folder in Path(temporaryFolder).glob(f"{FOLDER_PREFIX}*-*"):
        if folder.is_dir() and not folder.is_symlink() and _leftOver(folder):
            removeFolder(folder)


def _leftOver(folder: Path) -> bool:
    owner = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
    if not owner.isdigit() or int(owner) == os.getpid():
        return False
    try:
        old = time.time() - folder.stat().st_mtime > LEFT_OVER_SECONDS
    except OSError:
        return False
    return old or not _lives(int(owner))


def _lives(pid: int) -> bool:
    """Whether a process lives; on Windows, where asking is not harmless, it is taken to."""
    if WINDOWS:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
