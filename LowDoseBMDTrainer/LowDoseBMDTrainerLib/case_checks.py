"""All that can be seen to be wrong with the labels of a case before it is called completed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from LowDoseBMDLib.anatomy import BONES, STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.inference import Progress, silent
from LowDoseBMDLib.rois import NO_VOXELS, Mask

from .cases import Labels
from .checks_image import body_of, in_air, outside_body, vertebrae_hu
from .checks_keypoints import keypoint_findings
from .checks_place import misplaced, one_sided, overlaps
from .checks_shape import holes, islands, slice_gaps
from .checks_spine import midline_of
from .findings import MUST, Finding

STAGE = "checking the labels"


def check_case(labels: Labels, ct: CTVolume | None = None, progress: Progress = silent) -> tuple[Finding, ...]:
    """What is wrong, what must be put right first; empty when nothing was found.

    ct: without it, what depends on HU is not checked. progress is called between the checks and may raise
    inference.Cancelled. Raises ValueError when labels and CT do not lie on one grid.
    """
    if ct is not None and not labels.geometry.same_grid(ct.geometry):
        raise ValueError(f"the labels lie on a grid of {labels.geometry.shape_kji} voxels, the CT on one of "
                         f"{ct.geometry.shape_kji}, or elsewhere; give the CT that they were drawn on")
    masks = {name: mask for name, mask in labels.masks.items() if not mask.empty and name in STRUCTURES}
    found = list(_found(labels, masks, ct, progress))
    return tuple(sorted(found, key=lambda finding: finding.severity != MUST))


def _found(labels: Labels, masks: Mapping[str, Mask], ct: CTVolume | None, progress: Progress) -> Iterator[Finding]:
    if not masks:
        yield Finding("nothing_drawn", MUST, "Nothing is labelled yet.")
    elif "vertebrae" not in masks:
        yield Finding("no_vertebrae", MUST, "No vertebrae are labelled, though every CT of a trunk shows some.")
    midline = midline_of(masks.get("vertebrae", NO_VOXELS), labels.geometry)
    body = None if ct is None else body_of(ct)
    if midline is not None:
        yield from misplaced(masks, midline, labels.geometry)
        yield from one_sided(masks, midline, labels.geometry, body)
    yield from overlaps(masks, labels.geometry)
    yield from keypoint_findings(labels.keypoints, masks, labels.geometry)
    for number, (name, mask) in enumerate(masks.items()):
        progress(STAGE, number / len(masks))
        yield from slice_gaps(name, mask, labels.geometry, midline)
        yield from islands(name, mask, labels.geometry)
        yield from holes(name, mask, _others(name, masks), labels.geometry)
        if ct is not None and name in BONES:
            yield from in_air(name, mask, ct)
            yield from outside_body(name, mask, ct, body)
    if ct is not None and "vertebrae" in masks:
        yield from vertebrae_hu(masks["vertebrae"], ct)


def _others(name: str, masks: Mapping[str, Mask]) -> np.ndarray:
    """What the other structures fill in a structure's box."""
    box = masks[name].box
    filled = np.zeros(masks[name].voxels.shape, bool)
    for other, mask in masks.items():
        if other != name:
            inner = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, mask.box, strict=True)]
            if all(part.stop > part.start for part in inner):
                here = tuple(slice(p.start - a.start, p.stop - a.start) for p, a in zip(inner, box, strict=True))
                there = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(inner, mask.box, strict=True))
                filled[here] |= mask.voxels[there]
    return filled
