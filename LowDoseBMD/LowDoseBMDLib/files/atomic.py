"""Files that appear whole or not at all: written aside in the same folder, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ASIDE = re.compile(r"\.[0-9a-f]{12}-.+")
"""Names of what was being written when a process was killed."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well and is removed when it does not.

    The path lies in the same folder, so that the rename is atomic, and has the same endings (.seg.nrrd), so
    that writers which choose a format by name choose the same. An existing ``path`` stays untouched until
    the rename.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        yield aside
        _flush_to_disk(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_results(out: Path, clear: Callable[[], None], last: str) -> Iterator[Path]:
    """A folder to write to, inside ``out``, whose files move to ``out`` when the block ends well.

    ``clear`` removes earlier results before that. The file named ``last`` moves last: where it lies, so does all else. When
    the block does not end well (a full disk, a stop), ``out`` is as it was.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = out / f".{uuid.uuid4().hex[:12]}-results"
    folder.mkdir()
    try:
        yield folder
        clear()
        for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
            os.replace(path, out / path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8, newlines as given) or bytes to ``path``, whole or not at all."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with whole_file(path) as aside:
        aside.write_bytes(data)


def write_private(path: Path, text: str) -> None:
    """Write text (UTF-8, newlines as given) to a file that only its owner may read, whole or not at all."""
    with whole_file(path) as aside:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left in ``folder``; nobody may be writing there."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
