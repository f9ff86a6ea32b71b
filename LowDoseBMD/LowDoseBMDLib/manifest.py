"""What a long run has done, as JSON lines on disk: append only, one writer, whole after a crash at any moment."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .files.locks import Held, Lock, lock

log = logging.getLogger(__name__)


def lock_of(path: Path) -> Path:
    """The file whose lock the writer of a manifest holds; see files.locks.holder_of."""
    return path.with_name(f".{path.name}.lock")


class Manifest:
    """JSON objects, one a line, in the order in which they were appended; each is on the disk when append returns.

    A crash may tear the last line: it counts as never written. The first append makes this the only writer until close,
    the end of the ``with`` block or the end of the process, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock: Lock | None = None

    def __enter__(self) -> Manifest:
        self.claim()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _traceback: TracebackType | None) -> None:
        self.close()

    def claim(self) -> None:
        """Become the only writer. Raises ValueError when another process is, OSError when the folder cannot be written."""
        if self._lock is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = lock(lock_of(self.path), f"process {os.getpid()} on {socket.gethostname()}")
            except Held as held:
                raise ValueError(f"another run writes to {self.path.parent} ({held.holder or 'unknown process'}). Wait for "
                                 "its end, or choose another folder.") from None

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it.

        Raises ValueError when another process writes here or the entry is no JSON, OSError when the disk is full.
        """
        self.claim()
        append_line(self.path, entry)

    def entries(self) -> list[dict[str, Any]]:
        """All whole lines, oldest first; empty when there is no file."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        return [entry for line in lines if line.strip() and (entry := _parsed(line)) is not None]

    def latest(self) -> dict[str, dict[str, Any]]:
        """The newest entry of each ``key``; entries without one are left out."""
        return {entry["key"]: entry for entry in self.entries() if "key" in entry}


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Write one line at the end of ``path`` and wait until the disk has it; whoever calls sees to it that nobody else does.

    Raises ValueError when the entry is no JSON, OSError when the disk is full.
    """
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    with path.open("ab+", buffering=0) as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line  # what was torn stays a line of its own
        while line:
            line = line[file.write(line):]
        os.fsync(file.fileno())


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for a torn line: no beginning of a JSON object is one."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        log.warning("a line of the manifest is not whole and does not count")
        return None
    return entry if isinstance(entry, dict) else None
