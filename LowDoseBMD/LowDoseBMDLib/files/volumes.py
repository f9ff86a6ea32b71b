"""CT volumes and label maps in NIfTI, NRRD and MetaImage files, through SimpleITK."""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..failures import is_memory
from ..flags import Refusal
from ..geometry import Geometry
from .atomic import whole_file

if TYPE_CHECKING:
    import SimpleITK

logger = logging.getLogger(__name__)

KINDS: dict[str, str] = {
    ".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd", ".nhdr": "nrrd",
    ".mha": "metaimage", ".mhd": "metaimage",
}
"""File endings that are read here, and the ``Acquisition.source`` that they give."""

SHEAR_TOLERANCE = 2e-3
"""Largest cosine between two axes that still counts as a right angle: 0.1 degrees, far above float rounding."""

_ERRNO = "Reason: "
"""Begins what ITK says last: the system's last error, which is of something else when a file is too short."""

_NRRD = b"NRRD"
LONGEST_NRRD_FIELD = 500
"""Bytes of a line of a NRRD header that says how the values lie: three axes take some 250. In ITK 5.4 the NRRD library
writes beyond its memory somewhere between 500 and 1000."""
_FREE_FIELD = b"content"
"""The one field of any text."""

MOST_PACKED = 1100
"""Voxels for a byte of a file: deflate packs at most 1032 bytes into one."""
_HEADERS_ALONE = frozenset({".nhdr", ".mhd"})
"""Files that name another one, which holds the values."""

_SHORT = "The file is shorter than its header says. Copy or export it again."

_FAST = 1
"""Level of compression: files a tenth larger than at level 6, in a third of the time."""
_GZIP = zlib.MAX_WBITS | 16
_GZIP_END = struct.Struct("<II")
"""Last in a gzip file: the checksum (CRC-32) of what it holds, and its length modulo 2^32 (RFC 1952, 2.3.1)."""
_CHUNK_BYTES = 1 << 16
"""Unpacked at a time: 67 MB at most, whatever the file holds."""


def kind_of(path: Path) -> str | None:
    """``nifti``, ``nrrd`` or ``metaimage`` by the file's ending; None for anything else."""
    name = path.name.lower()
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)


def read_volume(path: Path) -> tuple[np.ndarray, Geometry]:
    """One 3D scalar image as it lies in the file.

    Returns the array (k, j, i) in the file's type and its grid; axes as stored, not yet canonical.
    Raises Refusal: ``truncated``, ``unreadable``, ``colour``, ``not_3d``, ``sheared``.
    """
    import SimpleITK as sitk

    if path.stat().st_size == 0:
        raise Refusal("truncated", "The file is empty. Copy or export it again.")
    refuse_wild_nrrd(path)
    try:
        image = _read(path)
    except RuntimeError as error:
        if is_memory(error):
            raise MemoryError(str(error)) from error
        _content_bytes(path)
        raise _reading_failed(path, error) from error
    refuse_shear(Geometry.from_image(image).direction)
    return sitk.GetArrayFromImage(image), Geometry.from_image(image)


def write_volume(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """One image or label map (k, j, i) as a compressed file of the kind that its ending says, whole or not at all.

    The file holds values and where they lie, and nothing else.
    """
    import SimpleITK as sitk

    with whole_file(path) as aside:
        sitk.WriteImage(geometry.to_image(array), str(aside), useCompression=True, compressionLevel=_FAST)


def _read(path: Path) -> SimpleITK.Image:
    """Raises RuntimeError for what ITK cannot read."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    _refuse_layout(reader)
    if path.suffix.lower() not in _HEADERS_ALONE and math.prod(reader.GetSize()) > MOST_PACKED * path.stat().st_size:
        raise Refusal("truncated", _SHORT)
    image = _execute(reader, path)
    if reader.HasMetaDataKey("bitpix"):  # the NIfTI library fills what is missing with zeros, without an error
        offset = int(float(reader.GetMetaData("vox_offset")))
        if not _packed_as_read(path, offset, image) and _content_bytes(path) < _nifti_bytes(reader):
            raise Refusal("truncated", _SHORT)
    return _drop_unit_axes(image)


def _execute(reader: SimpleITK.ImageFileReader, path: Path) -> SimpleITK.Image:
    """Raises MemoryError too: the NIfTI library does not say that there was no room for what a whole file holds."""
    try:
        return reader.Execute()
    except RuntimeError as error:
        if "nifti_image_load failed" in str(error) and _content_bytes(path) >= _nifti_bytes(reader):
            raise MemoryError(str(error)) from error
        raise


def _nifti_bytes(reader: SimpleITK.ImageFileReader) -> int:
    """What a whole NIfTI file holds by its header."""
    voxels_bytes = math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    return int(float(reader.GetMetaData("vox_offset"))) + voxels_bytes


def _refuse_layout(reader: SimpleITK.ImageFileReader) -> None:
    if reader.GetNumberOfComponents() > 1:
        raise Refusal("colour", f"The image holds {reader.GetNumberOfComponents()} values per voxel (colour or "
                      "vectors), not HU. Export the original CT series as a scalar volume.")
    long_axes = sum(n > 1 for n in reader.GetSize())
    if long_axes != 3 or any(n > 1 for n in reader.GetSize()[3:]):
        raise Refusal("not_3d", f"The image has {long_axes} dimensions (size {tuple(reader.GetSize())}); one 3D "
                      "CT is needed. Export a single volume, not one slice or a time series.")
    if {"sform_code", "srow_x", "srow_y", "srow_z"} <= set(reader.GetMetaDataKeys()):
        _refuse_nifti_shear(reader)


def _refuse_nifti_shear(reader: SimpleITK.ImageFileReader) -> None:
    """ITK falls back to the qform when the sform is sheared, and then places the voxels wrongly."""
    if int(reader.GetMetaData("sform_code")) <= 0:
        return
    rows = [[float(v) for v in reader.GetMetaData(f"srow_{axis}").split()] for axis in "xyz"]
    axes = np.array(rows)[:, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if np.all(lengths > 0):
        refuse_shear(axes / lengths)


def refuse_shear(direction: np.ndarray) -> None:
    """Raise Refusal ``sheared`` when the axes, (3, 3) unit columns, are not at right angles."""
    cosines = np.abs(direction.T @ direction - np.eye(3))
    if cosines.max() > SHEAR_TOLERANCE:
        angle = float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
        raise Refusal("sheared", f"The image axes are not at right angles ({angle:.1f} degrees off: a tilted "
                      "gantry that was not resampled). Resample the volume to a straight grid, for example in 3D "
                      "Slicer: DICOM import with 'apply regularization transform', harden it, export again.")


def _drop_unit_axes(image: SimpleITK.Image) -> SimpleITK.Image:
    import SimpleITK as sitk

    if image.GetDimension() == 3:
        return image
    size = [*image.GetSize()[:3], *([0] * (image.GetDimension() - 3))]
    return sitk.Extract(image, size, [0] * image.GetDimension())


def _reading_failed(path: Path, error: RuntimeError) -> Refusal:
    """Without the file's path: the sentence goes into reports, and paths often name the patient."""
    text = str(error).replace(str(path), "the file").replace(path.name, "the file")
    if "orthonormal" in text.lower():
        return Refusal("sheared", "The image axes are not at right angles. Resample the volume to a straight grid "
                       "(3D Slicer: Resample Scalar/Vector/DWI Volume) and export again.")
    reason = text.strip().splitlines()[-1].split("): ")[-1][:160]
    told = "" if reason.startswith(_ERRNO) else f" ({reason})"
    return Refusal("unreadable", f"The file cannot be read as an image{told}. It may be incomplete: copy or "
                   "export it again.")


def refuse_wild_nrrd(path: Path) -> None:
    """Raise Refusal ``unreadable`` for a NRRD header with which the library that reads it would crash. Other files pass."""
    with path.open("rb") as file:
        if file.read(len(_NRRD)) != _NRRD:
            return
        file.readline()
        while line := file.readline().rstrip(b"\r\n"):
            name, colon, value = line.partition(b":")
            key = colon and value.startswith(b"=") and len(name) <= LONGEST_NRRD_FIELD
            free = key or line.startswith(b"#") or name.strip().lower() == _FREE_FIELD
            if not free and len(line) > LONGEST_NRRD_FIELD:
                raise Refusal("unreadable", f"The NRRD header holds a line of {len(line)} characters where a few numbers "
                              "belong: it is damaged. Copy or export the file again.")


def _content_bytes(path: Path) -> int:
    """Length of a file, unpacked where it is a .gz, which ITK reads without an error when it ends too early.

    Raises Refusal ``truncated``.
    """
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    length = _unpacked_bytes(path)
    if length is None:
        raise Refusal("truncated", "The compressed file ends too early or is damaged. Copy or export it again.")
    return length


def _packed_as_read(path: Path, offset: int, image: SimpleITK.Image) -> bool:
    """Whether a .gz ends with the checksum and length of its first ``offset`` bytes and the image's values: then all of it
    was read as it was packed, and need not be unpacked again. False where values were scaled, or bytes were swapped.
    """
    import SimpleITK as sitk

    if not path.name.lower().endswith(".gz"):
        return False
    values = sitk.GetArrayViewFromImage(image)
    with path.open("rb") as file:
        try:
            start = zlib.decompressobj(_GZIP).decompress(file.read(offset + _CHUNK_BYTES), offset)
        except zlib.error:
            return False
        file.seek(-len(_GZIP_END.pack(0, 0)), os.SEEK_END)
        checksum, length = _GZIP_END.unpack(file.read())
    return (zlib.crc32(values, zlib.crc32(start)), (len(start) + values.nbytes) % 2**32) == (checksum, length)


def _unpacked_bytes(path: Path) -> int | None:
    """What a gzip file holds, all of its members together; None when it is damaged."""
    stream, length = zlib.decompressobj(_GZIP), 0
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                length += len(stream.decompress(chunk))
                while stream.eof and stream.unused_data.strip(b"\0"):
                    rest = stream.unused_data
                    stream = zlib.decompressobj(_GZIP)
                    length += len(stream.decompress(rest))
        except zlib.error:
            logger.debug("gzip check failed", exc_info=True)
            return None
    return length if stream.eof else None
