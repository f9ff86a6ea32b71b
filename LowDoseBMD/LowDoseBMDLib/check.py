"""Is this CT fit to measure? What image and header say before any network has looked."""

from __future__ import annotations

import numpy as np

from .ctvolume import Acquisition, CTVolume
from .flags import Flag, Refusal, Severity
from .geometry import Geometry
from .headers import is_sharp, names_contrast
from .nearby import deeper
from .orientation import COARSE_MM, CoarseBody, Cues, coarse_body, read_cues

REFUSE_LEAD = 1.5
"""Lead of a flipped hypothesis over the header's (of at most 6) that is strong evidence: nearly two full cues.

Of 88 windows of 220 mm cut from eight people (four CTs, four label maps filled with HU) none that lies
upright reaches a lead of 1; each of the flipped CTs reaches 1.9 or more.
"""

CONFIRMED_LEAD = 0.3
"""Lead of the header's hypothesis below which the image does not confirm it."""

MIN_BODY_MM3 = 5e5
"""0.5 L: less than a slab of 60 mm through a thin child's trunk."""

SOFT_TISSUE_HU = (-200.0, 200.0)
MIN_SOFT_SHARE = 0.2
"""Share of fat, muscle and organs within the outline: 0.70 to 0.94 in four chest and abdominal CTs."""

MIN_FAT_AND_BONE_SHARE = 0.002
"""Both fat and bone are in every trunk (0.24 and 0.04 at least in those CTs); a water box has neither."""

FAT_HU = (-140.0, -50.0)
TRUNK_BONE_HU = 150.0

CAUTION_SLICE_MM, LIMITED_SLICE_MM = 3.0, 6.0
SLICE_ROUNDING_MM = 0.05

PADDING_BELOW_HU = -1500.0
"""Below any air: scanners clip at -1024, interpolation overshoots to -1200; fillers are -2000 and lower."""

EDGE_MM = 6.0
"""The body touches the edge of the image when it lies within one and a half coarse voxels of it."""

EDGE_CONTACT_MM = 40.0
"""Length of contact on one side of a slice that is more than a hand or an elbow."""

TRUNCATED_SHARE = 0.2


def check_ct(ct: CTVolume) -> tuple[Flag, ...]:
    """Content against header, and what the header says of the acquisition.

    Raises Refusal: ``not_a_body``; ``orientation_front_back``, ``orientation_head_foot`` or
    ``orientation_rotated`` when the image strongly contradicts its header. Flags what is doubtful. A patient
    mirrored left to right is not detected: that needs organs, and some people are mirrored.
    """
    coarse = coarse_body(ct)
    refuse_not_a_body(coarse)
    return (
        *ct.flags,
        *orientation_flags(read_cues(coarse)),
        *truncation_flags(ct, coarse),
        *padding_flags(ct.hu),
        *spacing_flags(ct.geometry, ct.acquisition),
        *acquisition_flags(ct.acquisition),
    )


def refuse_not_a_body(coarse: CoarseBody) -> None:
    """Raise Refusal ``not_a_body`` when the volume holds no trunk: air, a water box, a block of bone."""
    volume_mm3 = float(coarse.body.sum()) * COARSE_MM**3
    if volume_mm3 < MIN_BODY_MM3:
        raise Refusal("not_a_body", f"Only {volume_mm3 / 1e6:.2f} L of the volume is denser than air: this is not "
                      "the trunk of a person. Choose the CT of chest or abdomen.")
    inside = coarse.hu[coarse.body]
    soft = _share(inside, *SOFT_TISSUE_HU)
    fat, bone = _share(inside, *FAT_HU), _share(inside, TRUNK_BONE_HU, np.inf)
    if soft < MIN_SOFT_SHARE or min(bone, fat) < MIN_FAT_AND_BONE_SHARE:
        raise Refusal("not_a_body", f"The content is not a person's trunk in HU: {100 * soft:.0f} % soft tissue, "
                      f"{100 * fat:.1f} % fat, {100 * bone:.1f} % bone. Choose the CT of chest or abdomen; if it "
                      "is one, its values are not HU: export the original DICOM series.")


def _share(values: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((values >= low) & (values <= high)))


_WRONG_WAYS: dict[tuple[int, int], tuple[str, str, str]] = {
    (-1, 1): ("orientation_front_back", "front and back are exchanged", "Anterior and Posterior"),
    (1, -1): ("orientation_head_foot", "head and foot are exchanged", "Superior and Inferior"),
    (-1, -1): ("orientation_rotated", "front and back, and head and foot, are exchanged",
               "both Anterior/Posterior and Superior/Inferior"),
}
"""(front-back, head-foot) signs -> code, what is wrong, what to exchange."""


def orientation_flags(cues: Cues) -> tuple[Flag, ...]:
    """Nothing when the image agrees with its header, a flag when in doubt; Refusal when it clearly contradicts."""
    way = max(_WRONG_WAYS, key=lambda signs: cues.score(*signs))
    lead = cues.score(*way) - cues.score(1, 1)
    code, wrong, exchange = _WRONG_WAYS[way]
    seen = f"(spine {cues.spine:+.1f}, ribs {cues.ribs:+.1f}, lungs {cues.lungs:+.1f}; +1 agrees with the header)"
    if lead >= REFUSE_LEAD:
        raise Refusal(code, f"The image contradicts its header: {wrong} {seen}. Export the CT again from the "
                      f"original DICOM series; if that is lost, exchange {exchange} in the file's direction.")
    if lead > 0:
        return (Flag("orientation_doubtful", Severity.LIMITED, f"It may be that {wrong} {seen}: compare the views "
                     "with the original series before the levels are trusted."),)
    if lead > -CONFIRMED_LEAD:
        return (Flag("orientation_unconfirmed", Severity.CAUTION, "The image shows too little of spine, ribs and "
                     f"lungs to confirm which way up it lies {seen}."),)
    return ()


def spacing_flags(geometry: Geometry, acquisition: Acquisition) -> tuple[Flag, ...]:
    """Slices further apart, or thicker, than 3 mm (CAUTION) or 6 mm (LIMITED)."""
    widest = max(float(geometry.spacing_mm[2]), acquisition.slice_thickness_mm or 0.0)
    if widest <= CAUTION_SLICE_MM + SLICE_ROUNDING_MM:
        return ()
    severity = Severity.LIMITED if widest > LIMITED_SLICE_MM + SLICE_ROUNDING_MM else Severity.CAUTION
    return (Flag("thick_slices", severity, f"Slices of {widest:.1f} mm mix endplates and discs into the "
                 f"trabecular region; use a series of at most {CAUTION_SLICE_MM:g} mm."),)


def acquisition_flags(acquisition: Acquisition) -> tuple[Flag, ...]:
    """What kernel and contrast agent in the header mean for the number; nothing for what is unknown."""
    return (*_kernel(acquisition.kernel), *_contrast(acquisition.contrast_agent))


def _kernel(kernel: str | None) -> tuple[Flag, ...]:
    if not is_sharp(kernel):
        return ()
    return (Flag("sharp_kernel", Severity.INFO, f"The kernel {kernel} enhances edges: more noise, and about 3 "
                 "mg/cm3 of difference to a smooth one (Eur Radiol Exp 2024, 10.1186/s41747-024-00483-9)."),)


def _contrast(agent: str | None) -> tuple[Flag, ...]:
    if not names_contrast(agent):
        return ()
    return (Flag("contrast_header", Severity.CAUTION, "The header names a contrast agent; intravenous contrast "
                 "raises bone and muscle HU by about 10 to 25 %. An unenhanced series is better."),)


def padding_flags(hu: np.ndarray) -> tuple[Flag, ...]:
    """Filler values below any HU of air, usual outside the round field of view."""
    lowest = float(hu.min())
    if lowest >= PADDING_BELOW_HU:
        return ()
    count = int(np.count_nonzero(hu < PADDING_BELOW_HU))
    return (Flag("padding", Severity.INFO, f"{100 * count / hu.size:.1f} % of the voxels are filler "
                 f"({lowest:g} HU) outside the field of view; they are not read as tissue."),)


def truncation_flags(ct: CTVolume, coarse: CoarseBody) -> tuple[Flag, ...]:
    """The body is cut off at the left or right edge of the image over many slices.

    INFO when that is so in the upper half of the scan only (shoulders and arms), else CAUTION.
    """
    slices = np.flatnonzero(coarse.body.any(axis=(1, 2)))
    contact = _lateral_contact_mm(coarse.body, _inside_view(ct, coarse.body.shape)) >= EDGE_CONTACT_MM
    cut = np.flatnonzero(contact.any(axis=1))
    if cut.size <= TRUNCATED_SHARE * slices.size:
        return ()
    grid = ct.geometry.with_spacing(COARSE_MM)
    centre = (np.asarray(grid.shape_kji) - 1) / 2
    low, high = (grid.to_lps(np.array([k, centre[1], centre[2]]))[2] for k in cut[[0, -1]])
    severity = Severity.INFO if cut[0] > slices.mean() else Severity.CAUTION
    return (Flag("truncated_view", severity, f"The body is cut off at the side of the field of view in {cut.size} "
                 f"of {slices.size} layers of {COARSE_MM:g} mm, between z = {low:.0f} and {high:.0f} mm; HU are "
                 "distorted near that edge. If the levels lie there, use a larger reconstruction."),)


def _inside_view(ct: CTVolume, shape_kji: tuple[int, int, int]) -> np.ndarray:
    """bool (k, j, i) on the coarse grid: inside the array and not filler."""
    grid = ct.geometry.with_spacing(COARSE_MM)
    axes = [ct.geometry.to_kji(grid.to_lps(np.eye(3)[axis] * np.arange(n)[:, None]))[:, axis]
            for axis, n in enumerate(shape_kji)]
    k, j, i = (np.ceil(at - 0.5 - 1e-6).astype(int) for at in axes)
    last = np.array(ct.hu.shape) - 1
    view = ct.hu[np.ix_(np.minimum(k, last[0]), np.minimum(j, last[1]), np.minimum(i, last[2]))] >= PADDING_BELOW_HU
    return view & (k <= last[0])[:, None, None] & (j <= last[1])[:, None] & (i <= last[2])


def _lateral_contact_mm(body: np.ndarray, view: np.ndarray) -> np.ndarray:
    """(k, 2) length over which the body touches the left and the right edge of the view, front to back, in mm.

    The edge counts where it is nearer to the side than to front or back of the view.
    """
    touching = body & _edge(view)
    j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in body.shape[1:]), indexing="ij")
    sides = [touching & (np.abs(i) > np.abs(j)) & (sign * i > 0) for sign in (-1, 1)]
    return np.stack([side.any(axis=2).sum(axis=1) for side in sides], axis=1) * COARSE_MM


def _edge(view: np.ndarray) -> np.ndarray:
    """Voxels (k, j, i) within ``EDGE_MM`` of the view's edge in their slice."""
    return view & ~deeper(view, EDGE_MM, (COARSE_MM, COARSE_MM))
