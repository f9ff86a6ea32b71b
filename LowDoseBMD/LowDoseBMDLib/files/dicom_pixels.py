"""The pixels of image planes: decoded, whatever compressed them, and stacked in HU."""

from __future__ import annotations

import logging
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..flags import Refusal
from .series import Plane

if TYPE_CHECKING:
    from pydicom.uid import UID

logger = logging.getLogger(__name__)

_INT16 = np.iinfo(np.int16)
_WHOLE_LIMIT = 30000
"""Rescale slopes and intercepts up to this, times a stored value of 16 bits, fit in 32 bits."""


def stack_hu(planes: list[Plane]) -> np.ndarray:
    """(k, j, i) HU of the planes in the given order; whole numbers, int16 where they fit, when every rescale is whole."""
    whole = all(float(n).is_integer() and abs(n) <= _WHOLE_LIMIT for p in planes for n in (p.slope, p.intercept))
    kind = np.int32 if whole else np.float32
    shape = len(planes), int(planes[0].header.Rows), int(planes[0].header.Columns)
    hu = np.empty(shape, np.int16 if whole else np.float32)
    decoded: tuple[Path | None, np.ndarray | None] = None, None
    for k, plane in enumerate(planes):
        if plane.path != decoded[0]:
            decoded = plane.path, decode(plane)
        stored = decoded[1] if plane.frame is None else decoded[1].reshape(-1, *shape[1:])[plane.frame]
        if stored.shape != shape[1:]:
            raise _damaged(plane)
        values = stored * kind(plane.slope) + kind(plane.intercept)
        if hu.dtype == np.int16 and (values.min() < _INT16.min or values.max() > _INT16.max):
            hu = hu.astype(np.int32)
        hu[k] = values
    return hu


def decode(plane: Plane) -> np.ndarray:
    """Stored values (rows, columns), or (frames, rows, columns), of a plane's file as int32."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        dataset = pydicom.dcmread(plane.path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return _whole(dataset.pixel_array)
    except RuntimeError as error:
        # pydicom raises RuntimeError when no installed plugin decodes this compression; ITK's GDCM often does.
        logger.debug("pydicom cannot decode this compression: %s", type(error).__name__)
        return _decode_with_gdcm(plane, dataset.file_meta.TransferSyntaxUID)
    except Refusal:
        raise
    except damages() as error:
        raise _damaged(plane) from error


@cache
def damages() -> tuple[type[Exception], ...]:
    """What pydicom raises on a damaged file."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, AttributeError, LookupError,
            ArithmeticError, NotImplementedError, struct.error, zlib.error)


def _damaged(plane: Plane) -> Refusal:
    return Refusal("truncated", f"The pixel data of the slice at {place(plane)} are incomplete or damaged. Send the series "
                   "from the archive again.")


def _whole(stored: np.ndarray) -> np.ndarray:
    if stored.dtype.kind == "f":
        raise Refusal("float_pixels", "The slices hold floating-point numbers, which no CT image may: they were made on a "
                      "workstation. Export the original CT series.")
    return stored.astype(np.int32)


def _decode_with_gdcm(plane: Plane, syntax: UID) -> np.ndarray:
    """Stored values through ITK, which applies the rescale itself: undo it, since it rounds as it likes."""
    import SimpleITK as sitk

    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(plane.path)))
    except RuntimeError as error:
        name = f"{syntax.name}, transfer syntax {syntax}" if syntax.name != syntax else f"transfer syntax {syntax}"
        raise Refusal("compression", f"The slice at {place(plane)} is compressed in a way that cannot be read here ({name}"
                      "). Export the series without compression (Explicit VR Little Endian).") from error
    stored = np.rint((values.astype(np.float64) - plane.intercept) / plane.slope).astype(np.int32)
    return stored[0] if plane.frame is None else stored


def place(plane: Plane) -> str:
    """Where a slice lies, in words."""
    if plane.position is None:
        return "an unknown position"
    return f"({plane.position[0]:.1f}, {plane.position[1]:.1f}, {plane.position[2]:.1f}) mm"
