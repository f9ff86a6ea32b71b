"""What a layout finds in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from LowDoseBMDLib.ctvolume import CTVolume

from ..mapping import Mapped

ReadLabels = Callable[[CTVolume], Mapped]
"""Reads the labels of a CT. Raises ValueError or OSError when they cannot be read."""


@dataclass(frozen=True)
class Found:
    """One CT to import.

    sources: the volume file, or the DICOM files of one study. place: what a case refers to: the file, or the folder that
    holds the DICOM files. source: what kind of data it is, with the set's own name of the case, never a patient's. patient:
    what tells the patient from others; None when nothing is known. read_labels: None when there are none. series: UID of the
    only CT series of a DICOM study, else None.
    """

    sources: tuple[Path, ...]
    place: Path
    source: str
    patient: str | None = None
    read_labels: ReadLabels | None = None
    dicom: bool = False
    series: str | None = None


def files_with_masks(folder: Path, ct: str, mask: str) -> Iterator[tuple[str, Path, Path]]:
    """(name, CT, mask) of every CT ``name + ct`` that has a mask ``name + mask`` somewhere in a folder tree, in the order of
    the masks' paths."""
    images = {path.name: path for path in sorted(folder.rglob(f"*{ct}")) if not path.name.endswith(mask)}
    for path in sorted(folder.rglob(f"*{mask}")):
        name = path.name.removesuffix(mask)
        if name + ct in images:
            yield name, images[name + ct], path
