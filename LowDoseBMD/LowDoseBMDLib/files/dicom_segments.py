"""The segments of a DICOM Segmentation, as a report refers to them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import highdicom
    from pydicom import Dataset


@dataclass(frozen=True)
class StoredSegment:
    """One segment of a segmentation file. images: (SOP class, SOP instance, frames or none) of the slices it lies on."""

    object_class: str
    object_uid: str
    number: int
    tracking_uid: str
    images: tuple[tuple[str, str, tuple[int, ...]], ...]

    def reference(self) -> highdicom.sr.ReferencedSegment:
        from highdicom.sr import ReferencedSegment, SourceImageForSegmentation

        images = [SourceImageForSegmentation(kind, uid, list(frames) or None) for kind, uid, frames in self.images]
        return ReferencedSegment(self.object_class, self.object_uid, self.number, source_images=images)


def segment_number(segmentation: Dataset, frame: Dataset) -> int:
    """Which segment a frame shows. frame: its functional groups; what all frames share stands in the shared ones."""
    groups = (frame, segmentation.SharedFunctionalGroupsSequence[0])
    own = next(group for group in groups if "SegmentIdentificationSequence" in group)
    return int(own.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def stored_segments(path: Path) -> dict[str, StoredSegment]:
    """The segments of a file of ``write_dicom_seg`` by structure name (their tracking identifier)."""
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True)
    images: dict[int, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for group in header.PerFrameFunctionalGroupsSequence:
        number = segment_number(header, group)
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        frames = images[number][str(image.ReferencedSOPClassUID), str(image.ReferencedSOPInstanceUID)]
        if "ReferencedFrameNumber" in image:
            frames.append(int(image.ReferencedFrameNumber))
    return {str(segment.TrackingID): StoredSegment(
        str(header.SOPClassUID), str(header.SOPInstanceUID), int(segment.SegmentNumber), str(segment.TrackingUID),
        tuple((*image, tuple(frames)) for image, frames in images[int(segment.SegmentNumber)].items()))
        for segment in header.SegmentSequence}
