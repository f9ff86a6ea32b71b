"""Files that appear whole or not at all: written aside in the same folder, then renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
