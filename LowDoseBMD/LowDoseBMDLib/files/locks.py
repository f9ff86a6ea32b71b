"""Locks that no crash leaves behind: one writer at a time, on this machine or through a shared drive that has locks."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

LOCKED_BYTE = 1 << 20
"""Which byte of the lock file is locked: far behind the text, because Windows lets nobody read a locked byte."""

LONGEST_TEXT = 1000
"""Bytes of a lock file that are read; what holders write about themselves is shorter."""

_HELD_BY_ANOTHER = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""Some network drives have no locks; work there is worth more than the guard against a second writer."""


class Held(ValueError):
    """Another process, or another part of this one, has the lock. holder: what it wrote about itself, may be empty."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lock is held by {holder or 'an unknown process'}")
        self.holder = holder


@dataclass(frozen=True)
class Lock:
    """A lock that is held until release() or the end of the process, however it ends."""

    descriptor: int

    def release(self) -> None:
        """Let others have it; the lock file stays, empty."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


def lock(path: Path, holder: str) -> Lock:
    """Take the lock of ``path``, a file made for it in an existing folder, and write into it who has it.

    Raises Held when another has it, OSError when the folder cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # who may write in the folder may take the lock
    try:
        _lock_byte(descriptor)
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            log.warning("the drive of %s has no locks: take care that no second process writes there", path.parent)
            return Lock(descriptor)
        text = _text(descriptor)
        os.close(descriptor)
        if error.errno not in _HELD_BY_ANOTHER:
            raise
        raise Held(text) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, holder.encode("utf-8")[:LONGEST_TEXT])
    return Lock(descriptor)


def holder_of(path: Path) -> str | None:
    """What the holder of the lock of ``path`` wrote about itself; None when nobody has it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        text = _text(descriptor)
        if text:  # a holder that crashed leaves its text, but not its lock
            _lock_byte(descriptor)
        return None
    except OSError as error:
        return text if error.errno in _HELD_BY_ANOTHER else None
    finally:
        os.close(descriptor)


def _text(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, LONGEST_TEXT).decode("utf-8", errors="replace").strip()


def _lock_byte(descriptor: int) -> None:
    """Raises OSError at once when it is locked already, by this process too."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
