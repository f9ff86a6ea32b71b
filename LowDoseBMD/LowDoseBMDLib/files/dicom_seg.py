"""Regions as a DICOM Segmentation on the very slices of the CT, for archives and any DICOM viewer.

Standard: DICOM PS3.3 A.51 (Segmentation IOD) and C.8.20. highdicom writes the object; the bits are packed here, mask by
mask, because its array of all segments over all slices would take gigabytes where the masks take megabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..anatomy import STRUCTURES, Code, Structure
from ..rois import Mask, Rois
from .atomic import whole_file
from .dicom_segments import segment_number
from .dicom_source import (
    MANUFACTURER,
    SCHEME,
    SCHEME_NAME,
    DicomResultError,
    SourceSeries,
    content_uid,
    frame_headers,
    mask_on_slices,
    read_source,
)

if TYPE_CHECKING:
    import highdicom
    from pydicom import Dataset

SERIES_NUMBER = 8001
SERIES_DESCRIPTION = "LowDoseBMD regions"
READER_DREW = "edited"
"""``Rois.erosion`` when a reader gave the trabecular regions."""

FRAMES_AT_ONCE = 8
"""Eight frames of any size fill whole bytes, so blocks of them can be packed one by one."""

# sRGB to CIE XYZ (IEC 61966-2-1, D65), relative to the white point, and the constants of CIELAB (CIE 15).
_XYZ_OF_RGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _XYZ_OF_RGB.sum(axis=1)
_LINEAR_BELOW, _EPSILON, _KAPPA = 0.04045, 216 / 24389, 24389 / 27


def write_dicom_seg(path: Path, rois: Rois, sources: Sequence[Path] | SourceSeries) -> None:
    """Write every region that is not empty as one binary DICOM Segmentation.

    sources: the series on which the regions lie, or its files (``source_files``); ``rois.geometry`` must be its grid up to
    the order and direction of the axes. Voxels are assigned to the stored slices by position, never resampled; frames
    that hold nothing are left out; segments may overlap. The object belongs to the study of the sources and is a series of
    its own. The file appears whole or not at all.

    Raises DicomResultError when there is no region, when the sources do not fit the regions or cannot be referred to, and
    when highdicom is missing; OSError when the file cannot be written.
    """
    source = sources if isinstance(sources, SourceSeries) else read_source(sources, rois.geometry)
    masks = {name: mask_on_slices(rois.masks[name], rois.geometry, source.geometry)
             for name in STRUCTURES if name in rois.masks and not rois.masks[name].empty}
    masks = {name: mask for name, mask in masks.items() if not mask.empty}
    if not masks:
        raise DicomResultError("Every region is empty.")
    segmentation = _segmentation(source, rois, masks)
    with whole_file(Path(path)) as aside:
        segmentation.save_as(aside)


def _segmentation(source: SourceSeries, rois: Rois, masks: Mapping[str, Mask]) -> Dataset:
    from highdicom import PixelMeasuresSequence
    from highdicom.seg import Segmentation

    uid = content_uid("segmentation", __version__, source.sop_uids, *_content(masks, drawn_by_reader(rois)))
    row_mm, column_mm = source.geometry.spacing_kji_mm[1:]
    segmentation = Segmentation(
        frame_headers(source), _presence(source, masks), "BINARY",
        [_description(n, STRUCTURES[name], name in drawn_by_reader(rois), uid) for n, name in enumerate(masks, 1)],
        series_instance_uid=content_uid("series", uid), series_number=SERIES_NUMBER, sop_instance_uid=uid, instance_number=1,
        manufacturer=MANUFACTURER, manufacturer_model_name="LowDoseBMD", software_versions=__version__,
        device_serial_number="none", content_label="LOWDOSEBMD", content_description="Regions of a vBMD measurement",
        pixel_measures=PixelMeasuresSequence((row_mm, column_mm), source.slice_thickness_mm,
                                             source.geometry.spacing_kji_mm[0]),
        series_description=SERIES_DESCRIPTION)
    segmentation.Rows, segmentation.Columns = source.geometry.shape_kji[1:]
    segmentation.SegmentsOverlap = "YES" if _overlap(masks, source.geometry.shape_kji) else "NO"
    segmentation.PixelData = _packed(segmentation, source, tuple(masks.values()))
    finish(segmentation)
    return segmentation


def _content(masks: Mapping[str, Mask], drawn: Collection[str]) -> Iterator[str | bytes]:
    """All that makes one segmentation of a series another one: names, who drew them, and their voxels."""
    for name, mask in masks.items():
        yield f"{name} {name in drawn} {mask.start_kji} {mask.voxels.shape}"
        yield np.packbits(mask.voxels).tobytes()


def _presence(source: SourceSeries, masks: Mapping[str, Mask]) -> np.ndarray:
    """(frames, 1, 1, segments) uint8: 1 where a frame of the source holds any of a segment."""
    held = np.zeros((source.frame_count, 1, 1, len(masks)), np.uint8)
    for n, mask in enumerate(masks.values()):
        for k in np.flatnonzero(mask.voxels.any(axis=(1, 2))):
            held[source.frame_of(int(k) + mask.start_kji[0]), 0, 0, n] = 1
    return held


def _overlap(masks: Mapping[str, Mask], shape_kji: tuple[int, int, int]) -> bool:
    taken = np.zeros(shape_kji, bool)
    for mask in masks.values():
        if (taken[mask.box] & mask.voxels).any():
            return True
        taken[mask.box] |= mask.voxels
    return False


def _packed(segmentation: Dataset, source: SourceSeries, masks: Sequence[Mask]) -> bytes:
    """The frames' pixels in the order of the object's frames, eight to a byte, first pixel in the lowest bit."""
    frames = list(_frames(segmentation, source))
    packed = bytearray()
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        block = frames[first:first + FRAMES_AT_ONCE]
        pixels = np.zeros((len(block), *source.geometry.shape_kji[1:]), np.uint8)
        for plane, (segment, k) in zip(pixels, block, strict=True):
            mask = masks[segment - 1]
            plane[mask.box[1:]] = mask.voxels[k - mask.start_kji[0]]
        packed += np.packbits(pixels.ravel(), bitorder="little").tobytes()
    return bytes(packed) + b"\0" * (len(packed) % 2)


def _frames(segmentation: Dataset, source: SourceSeries) -> Iterator[tuple[int, int]]:
    """(segment number, k on the stored slices) of each frame, as the object's own references say."""
    k_of_uid = {str(header.SOPInstanceUID): k for k, header in enumerate(source.headers)}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        if source.multi_frame:
            k = source.planes_by_frame[int(image.ReferencedFrameNumber) - 1]
        else:
            k = k_of_uid[str(image.ReferencedSOPInstanceUID)]
        yield segment_number(segmentation, group), k


def _description(number: int, structure: Structure, edited: bool, segmentation_uid: str) -> highdicom.seg.SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence("LowDoseBMD", codes.cid7162.ArtificialIntelligence, __version__,
                                                source=MANUFACTURER)
    description = SegmentDescription(
        number, structure.title, concept(structure.category), concept(structure.type),
        "SEMIAUTOMATIC" if edited else "AUTOMATIC", algorithm,
        tracking_uid=content_uid("segment", segmentation_uid, structure.name), tracking_id=structure.name)
    description.RecommendedDisplayCIELabValue = list(cielab(structure.colour))
    if structure.modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(structure.modifier)]
    return description


def drawn_by_reader(rois: Rois) -> frozenset[str]:
    """Names of the structures that a person drew or changed."""
    if rois.erosion != READER_DREW:
        return rois.edited
    return rois.edited | {name for name in rois.masks if STRUCTURES[name].group == "trabecular"}


def concept(code: Code) -> highdicom.sr.CodedConcept:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def finish(dataset: Dataset) -> None:
    """Store text as UTF-8, and say where the private codes come from (Coding Scheme Identification Sequence)."""
    from pydicom import Dataset

    dataset.SpecificCharacterSet = "ISO_IR 192"
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = SCHEME, SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    dataset.CodingSchemeIdentificationSequence = [*dataset.get("CodingSchemeIdentificationSequence", ()), item]


def cielab(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """An sRGB colour (0-255) as DICOM's unsigned 16-bit CIELab (PS3.3 C.10.7.1.1): L 0..100, a and b -128..127."""
    rgb = np.asarray(colour) / 255
    linear = np.where(rgb > _LINEAR_BELOW, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _XYZ_OF_RGB @ linear / _WHITE
    fx, fy, fz = np.where(xyz > _EPSILON, np.cbrt(xyz), (_KAPPA * xyz + 16) / 116)
    lab = 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
    scaled = lab[0] / 100, (lab[1] + 128) / 255, (lab[2] + 128) / 255
    lightness, a, b = (int(round(65535 * min(1.0, max(0.0, value)))) for value in scaled)
    return lightness, a, b
