"""Subcutaneous fat of the abdominal wall: anterior, else flank, else posterior.

The body's outline gives the skin, the closed ring of muscle, ribs and spine gives the fascia; subcutaneous
fat is what lies between them. Visceral fat is never taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .ctvolume import CTVolume
from .nearby import deeper, near
from .tissue_grid import CLIP_HU, Blocks, SpineFrame, average_blocks

FAT_WINDOW_HU = (-190.0, -30.0)
"""Subcutaneous fat on a smoothed copy (Sci Rep 2025, s41598-025-96238-6, table 1)."""

FAT_GATE_HU = (-130.0, -70.0)
"""Accepted mean of adipose tissue, -100 +- 30 HU (gate of the Ogo package, ImageCalibration.py)."""

SMOOTHING_MM = 2.0
"""Sigma of the smoothed copy on which the mask is made; fat layers below 5 mm are blurred away anyway."""

UNIFORM_SD_HU = 25.0
"""SD of the smoothed HU inside the region (clinical reference of this project): more means septa or skin."""

ALIKE_HU = 25.0
"""Smoothed HU within this of the layer's median stay: vessels and septa go, noise (5-8 HU) is not cut."""

BODY_HU = -400.0
"""Half way from air to fat and soft tissue; foam mats and blankets are below."""

COUCH_OPENING_MM = 6.0
"""Radius that parts the couch's shell (2-4 mm) and tubes from the body where they touch."""

RING_SMOOTHING_KJI_MM = (4.0, 0.8, 0.8)
"""Sigma of the copy on which the muscle ring is found: keeps a rectus of 3 mm above the fat's window."""

LEAST_FIRM_MM3 = 3000.0
"""Smaller pieces are veins and scars in the fat, not the wall."""

CLOSING_MM = 8.0
"""Radius that closes the gaps of the muscle ring: linea alba, umbilicus, lumbar triangles."""

MARGIN_MM = 3.0
"""Kept from skin and from fascia (clinical reference of this project)."""

THIN_MARGIN_MM = 1.5
"""The margin where the layer is thin."""

SKIN_MM = 1.5
"""Thickness of abdominal skin, left out on the outer side (1-2 mm by ultrasound)."""

LEAST_THICKNESS_MM = 8.0
"""Of the fat between skin and fascia; a thinner layer leaves less than one voxel between the margins."""

THIN_THICKNESS_MM = 6.0
"""Where no site has the full thickness, a layer from this on is read, with a flag; below, none is."""

WANTED_MM3 = 2000.0
"""Volume wanted."""

EXTENSION_MM = 20.0
"""How far above L1 and below L2 is searched when the height of L1-L2 holds too little."""

BLOCK_MM = (3.0, 1.5, 1.5)
"""Working blocks (k, j, i): the layer is thin in plane and long in z."""

SITE_LIMIT_MM = {"anterior": 60.0, "left": 45.0, "right": 45.0, "posterior": 70.0}
"""How far from the middle of each site: from the midline in front (inside the costal arch) and behind, from
FLANK_BEHIND_MM in the two flanks."""

FLANK_BEHIND_MM = -20.0
"""Middle of the flank, behind (here: ahead of) the centre of the bodies."""

INWARDS = {"anterior": (1, False), "posterior": (1, True), "left": (2, True), "right": (2, False)}
"""Per site: the array axis that runs from skin to fascia, and whether against its direction."""

THIN_PERCENTILE = 30.0
GAP_FACTOR = 1.5
GAP_STEP_MM = 3.0
"""Where the layer is thicker than this factor of the site's thinner part (this percentile) and the step, the
fascia has a gap (linea alba, umbilicus, hernia, a wasted rectus) and visceral fat follows. Within 60 mm of
the midline the layer itself varied by less than 1.4 on the four scans of development."""

SITES = ("anterior", "flank", "posterior")

LESS_MM = 1e-3
"""Turns "further than" into "at least": distances between blocks differ by more."""

FILLER_HU = -1100.0
"""Below air: what scanners and exporters write outside the field of view."""


@dataclass(frozen=True, eq=False)
class FatRegion:
    """A fat region of blocks at one site. thickness_mm: median of the layer; sd_hu: of the smoothed HU."""

    site: str
    blocks: Blocks
    region: np.ndarray
    volume_mm3: float
    thickness_mm: float
    mean_hu: float
    sd_hu: float

    @property
    def plausible(self) -> bool:
        return self.volume_mm3 > 0 and FAT_GATE_HU[0] <= self.mean_hu <= FAT_GATE_HU[1]


@dataclass(frozen=True, eq=False)
class Wall:
    """The trunk's wall in blocks. body: all inside the skin; inner: all inside the fascia; fat: between both."""

    blocks: Blocks
    smooth: np.ndarray
    body: np.ndarray
    inner: np.ndarray
    fat: np.ndarray

    def beneath_skin(self, depth_mm: float) -> np.ndarray:
        """(k, j, i) bool: at least depth_mm inside the body's outline, in plane."""
        return deeper(self.body, depth_mm - LESS_MM, self.blocks.spacing_kji_mm[1:])

    def ahead_of_fascia(self, distance_mm: float) -> np.ndarray:
        """(k, j, i) bool: at least distance_mm from all inside the fascia, in plane."""
        return ~near(self.inner, distance_mm - LESS_MM, self.blocks.spacing_kji_mm[1:])


def _filled(region: np.ndarray) -> np.ndarray:
    """Each slice without its holes: all that cannot be reached from the frame. Faster than binary_fill_holes."""
    outside = [ndimage.label(np.pad(~plane, 1, constant_values=True))[0] for plane in region]
    return np.asarray(outside)[:, 1:-1, 1:-1] != 1  # the frame's corner is met first


def _with_seed(region: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected part of a region that holds most of the seed; empty when none does."""
    labels, _ = ndimage.label(region)
    votes = np.bincount(labels[seed & region])
    if votes.size == 0 or votes[1:].size == 0:
        return np.zeros_like(region)
    return labels == int(votes[1:].argmax()) + 1


def body_outline(blocks: Blocks, seed: np.ndarray) -> np.ndarray:
    """(k, j, i) bool: the body around a seed (bool, the spine), couch and tubes off, holes filled per slice."""
    spacing = blocks.spacing_kji_mm[1:]
    body = _filled(blocks.hu > BODY_HU)
    core = _with_seed(deeper(body, COUCH_OPENING_MM, spacing), seed)
    if not core.any():
        return core
    return body & near(core, COUCH_OPENING_MM + spacing[1], spacing)


def _firm(blocks: Blocks, body: np.ndarray) -> np.ndarray:
    """(k, j, i) bool: muscle, ribs, spine and organs, skin left out. Smoothed along z only: the
    abdominal wall hardly changes with z, and its thin sheets must not blur into the fat."""
    sigma = [RING_SMOOTHING_KJI_MM[axis] / blocks.spacing_kji_mm[axis] for axis in range(3)]
    sheets = ndimage.gaussian_filter(np.clip(blocks.hu, *CLIP_HU), sigma, truncate=3.0)
    deep = deeper(body, MARGIN_MM + SKIN_MM, blocks.spacing_kji_mm[1:])
    labels, count = ndimage.label(deep & (sheets > FAT_WINDOW_HU[1]))
    large = np.bincount(labels.ravel(), minlength=count + 1) * np.prod(blocks.spacing_kji_mm) >= LEAST_FIRM_MM3
    large[0] = False
    return large[labels]


def _closed(firm: np.ndarray, spacing_ji_mm: tuple[float, float]) -> np.ndarray:
    """(k, j, i) bool: everything inside the fascia: the ring of muscle, ribs and spine, closed and filled."""
    wide = _filled(near(firm, CLOSING_MM, spacing_ji_mm))
    return firm | deeper(wide, CLOSING_MM, spacing_ji_mm)


def _offsets_mm(blocks: Blocks, frame: SpineFrame) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the blocks behind (k, j, 1) and left of (k, 1, i) the vertebral bodies, mm."""
    z = blocks.centres_mm(0)
    return (blocks.centres_mm(1)[None, :, None] - frame.at(frame.y_mm, z)[:, None, None],
            blocks.centres_mm(2)[None, None, :] - frame.at(frame.x_mm, z)[:, None, None])


def trunk_wall(blocks: Blocks, frame: SpineFrame) -> Wall:
    """Skin, subcutaneous fat and fascia of a slab of the trunk."""
    behind, left = _offsets_mm(blocks, frame)
    seed = (np.abs(left) < 15.0) & (np.abs(behind) < 12.0)
    smooth = blocks.smoothed(SMOOTHING_MM)
    body = body_outline(blocks, seed)
    inner = _closed(_firm(blocks, body), blocks.spacing_kji_mm[1:])
    window = (smooth >= FAT_WINDOW_HU[0]) & (smooth <= FAT_WINDOW_HU[1])
    return Wall(blocks, smooth, body, inner, body & ~inner & window)


def _site_place(wall: Wall, frame: SpineFrame, site: str) -> np.ndarray:
    """(k, j, i) bool: where a site lies, whatever the tissue; "left" and "right" are the two flanks."""
    behind, left = _offsets_mm(wall.blocks, frame)
    limit = SITE_LIMIT_MM[site]
    if site == "anterior":
        return (np.abs(left) <= limit) & (behind < -30.0)
    if site == "posterior":
        return (np.abs(left) <= limit) & (behind > 30.0)
    return (np.abs(behind - FLANK_BEHIND_MM) <= limit) & ((left > 70.0) if site == "left" else (left < -70.0))


def _cut_by_view(wall: Wall, axis: int, order: tuple[slice, ...]) -> np.ndarray:
    """Bool per line along ``axis``: the body begins at the frame or at filler, so what is met first is not skin."""
    body = wall.body[order]
    frame = np.full_like(np.take(wall.blocks.hu, [0], axis=axis), -np.inf)
    before = np.delete(np.concatenate([frame, wall.blocks.hu[order]], axis=axis), -1, axis=axis)
    first = body & (np.cumsum(body, axis=axis) == 1)
    return (first & (before < FILLER_HU)).any(axis=axis)


def _layer(wall: Wall, place: np.ndarray, site: str) -> tuple[np.ndarray, np.ndarray]:
    """(layer, thickness in mm), both (k, j, i): the fat of a site that is met before the fascia on a straight way
    inwards from the skin, and how thick it is there. Gaps of the fascia, where it is suddenly thick, are left out."""
    axis, backwards = INWARDS[site]
    inwards = slice(None, None, -1) if backwards else slice(None)
    order = tuple(inwards if n == axis else slice(None) for n in range(3))
    beneath = np.logical_or.accumulate(wall.inner[order], axis=axis)[order]
    layer = wall.fat & place & wall.beneath_skin(SKIN_MM + 0.5 * wall.blocks.spacing_kji_mm[axis]) & ~beneath
    lines = layer.sum(axis=axis).astype(np.float32) * wall.blocks.spacing_kji_mm[axis]
    lines[_cut_by_view(wall, axis, order)] = 0.0
    if lines.any():
        thin = float(np.percentile(lines[lines > 0], THIN_PERCENTILE))
        lines[lines > GAP_FACTOR * thin + GAP_STEP_MM] = 0.0
    thickness = np.broadcast_to(np.expand_dims(lines, axis), layer.shape)
    return layer & (thickness > 0), thickness


def _read(wall: Wall, frame: SpineFrame, site: str, least_mm: float) -> FatRegion:
    """The fat between the margins at one site, where the layer is at least least_mm thick."""
    margin = MARGIN_MM if least_mm >= LEAST_THICKNESS_MM else THIN_MARGIN_MM
    half = 0.5 * min(wall.blocks.spacing_kji_mm[1:])
    between = wall.beneath_skin(margin + SKIN_MM + half) & wall.ahead_of_fascia(margin + half)
    region, thickness = np.zeros(wall.fat.shape, bool), np.zeros(wall.fat.shape, np.float32)
    for part in ("left", "right") if site == "flank" else (site,):
        layer, depth = _layer(wall, _site_place(wall, frame, part), part)
        here = layer & between & (depth >= least_mm)
        region |= here
        thickness[here] = depth[here]
    if region.any():
        region &= np.abs(wall.smooth - np.median(wall.smooth[region])) <= ALIKE_HU
    if not region.any():
        return FatRegion(site, wall.blocks, region, 0.0, 0.0, float("nan"), float("nan"))
    return FatRegion(site, wall.blocks, region, wall.blocks.volume_mm3(region), float(np.median(thickness[region])),
                     float(wall.blocks.hu[region].mean()), float(wall.smooth[region].std()))


def _slab(ct: CTVolume, frame: SpineFrame, extension_mm: float) -> Blocks:
    """Blocks of the whole cross-section from L2 to L1, extended; the lowest 40 mm when the scan ends above."""
    spacing = ct.geometry.spacing_kji_mm[0]
    low = frame.height_of(2.0) - extension_mm
    slices, rows, columns = ct.hu.shape
    low = max(0.0, min(low, slices * spacing - 2 * EXTENSION_MM))
    high = max(frame.height_of(1.0) + extension_mm, low + 2 * EXTENSION_MM)
    return average_blocks(ct, (int(low / spacing), 0, 0), (int(high / spacing) + 1, rows, columns), BLOCK_MM)


def find_fat(ct: CTVolume, frame: SpineFrame) -> FatRegion | None:
    """The subcutaneous-fat region to read: the first site with a layer of LEAST_THICKNESS_MM and WANTED_MM3.

    Tried in order: anterior at L1-L2, anterior of the extended height, flank, posterior; then the largest
    plausible region of any site, also with a layer of THIN_THICKNESS_MM only. None when there is none.
    """
    found: list[FatRegion] = []
    for extension, sites in ((0.0, SITES[:1]), (EXTENSION_MM, SITES)):
        wall = trunk_wall(_slab(ct, frame, extension), frame)
        for site in sites:
            found.append(_read(wall, frame, site, LEAST_THICKNESS_MM))
            if found[-1].plausible and found[-1].volume_mm3 >= WANTED_MM3 and found[-1].sd_hu <= UNIFORM_SD_HU:
                return found[-1]
    found += [_read(wall, frame, site, THIN_THICKNESS_MM) for site in SITES]
    usable = [region for region in found if region.plausible]
    return max(usable, key=lambda region: region.volume_mm3, default=None)
