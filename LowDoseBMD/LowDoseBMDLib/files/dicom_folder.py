"""Which files of a DICOM folder are looked at, and what is told of those that are not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..flags import Flag, Severity

logger = logging.getLogger(__name__)

DICOMDIR = "DICOMDIR"
PACKED = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"})
"""Endings of packed files. They are never opened: what lies in one may be a bomb, or name files outside."""


@dataclass(frozen=True)
class Folder:
    """The files of a folder and its subfolders in the order of their paths, without DICOMDIR.

    links: how many links lead out of the folder, to files or folders; they are not followed.
    """

    files: tuple[Path, ...]
    links: int = 0

    @property
    def packed(self) -> int:
        return sum(path.suffix.lower() in PACKED for path in self.files)

    @property
    def unopened(self) -> str:
        """What was not opened, in words; empty when there was nothing."""
        found = ((self.links, "link that leads out of the folder", "links that lead out of the folder"),
                 (self.packed, "packed file (zip or the like)", "packed files (zip or the like)"))
        return " and ".join(f"{count} {one if count == 1 else many}" for count, one, many in found if count)


def look_into(folder: Path) -> Folder:
    """The files below ``folder``; a link counts as what it leads to when that lies in the folder too."""
    home = folder.resolve()
    paths = sorted(folder.rglob("*"))
    outside = {path for path in paths if path.is_symlink() and leads_out(path, home)}
    if outside:
        logger.warning("%d links that lead out of the folder were not followed", len(outside))
    return Folder(tuple(path for path in paths if path not in outside and path.is_file() and path.name.upper() != DICOMDIR),
                  len(outside))


def leads_out(path: Path, home: Path) -> bool:
    """home: resolved. A link that leads nowhere, or round in a circle, leads out."""
    try:
        return not path.resolve(strict=True).is_relative_to(home)
    except (OSError, RuntimeError):
        return True


def left_out_flags(folder: Folder, damaged: Sequence[Path]) -> tuple[Flag, ...]:
    """damaged: DICOM files of which it is not known to which series they belong."""
    flags = []
    if damaged:
        which = "1 file is" if len(damaged) == 1 else f"{len(damaged)} files are"
        flags.append(Flag("damaged_files", Severity.CAUTION, f"{which} cut short or damaged and could not be read: the scan "
                          "may be longer than what was measured. Send the series from the archive again."))
    if folder.unopened:
        flags.append(Flag("files_left_out", Severity.INFO, f"Not opened: {folder.unopened}. If the CT needs them, unpack or "
                          "copy them into its folder."))
    return tuple(flags)
