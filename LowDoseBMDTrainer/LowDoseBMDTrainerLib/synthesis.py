"""Synthetic CTs from label maps of people: what the first networks are trained on.

One sample is drawn in four steps, on torch tensors, without a file in the loop: a pose (scale, rotation, bends,
elastic deformation, organs shifted against the skeleton) gives for each target voxel a place in the person; the
person's tissues and bones near there are rendered to HU drawn anew (cortex decays into trabecular bone, fat layer,
contrast phases); both are interpolated to the target grid; scanner effects follow (slice thickness, kernel, noise,
streaks, couch, field of view, scan range).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional

from .people import BONE_PARTS, PARTS, TISSUES, Person, bone_targets

AIR_HU = -1000.0
CLIP_HU, SCALE_HU = (AIR_HU, 1500.0), 500.0
"""Network input is clip(HU) / scale; a bundle carries both, so that inference does the same."""

KEYPOINT_LEVELS: tuple[str, ...] = (*(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6)))
"""Channels of the keypoint network: all that can be counted from the first rib down or from the sacrum up, so that a
scan that shows one end only names its levels too."""

HEATMAP_SD_VOXELS = 1.6

HU_RANGES: dict[str, tuple[float, float]] = {
    "unnamed": (20, 70), "lung": (-890, -700), "liver": (30, 75), "spleen": (35, 60), "kidney": (20, 45),
    "heart": (20, 55), "artery": (25, 55), "vein": (25, 55), "bowel": (-30, 60), "stomach": (-30, 60),
    "organ": (-10, 60), "airway": (-1000, -900), "cord": (10, 50), "disc": (40, 120), "cartilage": (50, 200),
    "muscle": (20, 75), "psoas": (30, 75), "paraspinal": (0, 70), "fat": (-125, -80),
}
"""Unenhanced HU at 100-140 kVp, from low to high end of what is seen in adults."""

CONTRAST_HU: dict[str, tuple[float, float]] = {
    "liver": (10, 80), "spleen": (20, 120), "kidney": (40, 220), "heart": (20, 350), "artery": (60, 430),
    "vein": (20, 300), "organ": (0, 60), "bowel": (0, 60), "stomach": (0, 40),
}
"""HU added by intravenous contrast, any phase."""


@dataclass(frozen=True)
class Task:
    """What one network sees: grid of a sample and which target is drawn.

    target: bones (class map), parts (people.PARTS) or keypoints (heatmaps).
    """

    target: str
    spacing_mm: float
    shape_kji: tuple[int, int, int]


TASKS: dict[str, Task] = {
    "bones": Task("bones", 3.0, (96, 96, 96)),
    "bodies": Task("parts", 1.5, (96, 80, 80)),
    "keypoints": Task("keypoints", 5.0, (80, 48, 80)),
}


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _smooth_field(rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float, period_mm: float,
                  channels: int = 1) -> torch.Tensor:
    """(channels, K, J, I) standard normal values on nodes period_mm apart, interpolated in between."""
    nodes = [max(2, int(np.ceil(n * spacing_mm / period_mm)) + 1) for n in shape]
    values = torch.from_numpy(rng.standard_normal((1, channels, *nodes)).astype(np.float32))
    return functional.interpolate(values, size=shape, mode="trilinear", align_corners=True)[0]


def _rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    matrix = np.eye(3)
    for axis in range(3):
        angle = np.deg2rad(rng.normal(0, degrees / 2))
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def draw_pose(rng: np.random.Generator, person: Person, task: Task, centre_kji: np.ndarray) -> torch.Tensor:
    """(3, K, J, I) place in the person (voxels k, j, i) of each target voxel, about centre_kji.

    Scale 0.75-1.3 and 0.88-1.14 per axis, rotation with an SD of 5 degrees about each axis (rarely 12), bends of
    the spine with an SD of 8 mm, elastic deformation 7 / 2.5 / 0.8 mm SD at 130 / 55 / 26 mm, mirrored left-right
    in one of two.
    """
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in task.shape_kji]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")) * task.spacing_mm
    zoom = _uniform(rng, 0.75, 1.3) * rng.uniform(0.88, 1.14, 3)
    if rng.random() < 0.5:
        zoom[2] = -zoom[2]
    matrix = _rotation(rng, 24.0 if rng.random() < 0.15 else 10.0) / zoom
    place = torch.einsum("ab,bkji->akji", torch.from_numpy(matrix.astype(np.float32)), grid)
    for period, sd in ((130.0, 7.0), (55.0, 2.5), (26.0, 0.8)):
        place += sd * _smooth_field(rng, task.shape_kji, task.spacing_mm, period, 3)
    bend = _smooth_field(rng, (task.shape_kji[0], 2, 2), task.spacing_mm, 110.0, 2)[:, :, :1, :1] * 8.0
    place[1:] += bend
    return place / person.spacing_mm + torch.from_numpy(centre_kji.astype(np.float32)).reshape(3, 1, 1, 1)


def draw_table(rng: np.random.Generator) -> np.ndarray:
    """(len(TISSUES),) HU of each tissue for one CT, in some with contrast."""
    contrast = rng.random() < 0.45
    phase = _uniform(rng, 0.2, 1.0)
    table = np.zeros(len(TISSUES), np.float32)
    muscle = _uniform(rng, *HU_RANGES["muscle"])
    for n, name in enumerate(TISSUES):
        table[n] = _uniform(rng, *HU_RANGES[name])
        if name in ("muscle", "psoas", "unnamed"):
            table[n] = muscle + rng.normal(0, 4)
        if contrast and name in CONTRAST_HU:
            table[n] += _uniform(rng, *CONTRAST_HU[name]) * phase
    return table


def _box(place: torch.Tensor, shape: tuple[int, int, int], margin: int = 2) -> tuple[slice, ...] | None:
    low = place.flatten(1).amin(1).floor().long() - margin
    high = place.flatten(1).amax(1).ceil().long() + margin + 1
    box = tuple(slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, shape, strict=True))
    return None if any(s.stop - s.start < 2 for s in box) else box


def _crop(array: np.ndarray, box: tuple[slice, ...]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[box]))


def render_soft(rng: np.random.Generator, person: Person, box: tuple[slice, ...]) -> torch.Tensor:
    """HU of everything but bone inside ``box`` of the person's grid, float32 (k, j, i)."""
    table = draw_table(rng)
    tissue = _crop(person.tissue, box).int()
    hu = torch.from_numpy(table)[tissue]
    shape = tuple(tissue.shape)
    inside, outside = _crop(person.inside_mm, box), _crop(person.outside_mm, box)
    patches = _smooth_field(rng, shape, person.spacing_mm, _uniform(rng, 8, 25))[0]
    fat = float(table[TISSUES.index("fat")])
    loose = (tissue == 0) & (patches > torch.where(inside < _uniform(rng, 6, 18), 1.0, _uniform(rng, -1.0, 0.5)))
    hu[loose] = fat
    gas = (tissue == TISSUES.index("bowel")) | (tissue == TISSUES.index("stomach"))
    hu[gas & (patches < _uniform(rng, -2.5, -0.5))] = -900.0
    hu += _uniform(rng, 0, 12) * patches
    lung = tissue == TISSUES.index("lung")
    hu[lung] += _uniform(rng, 20, 120) * _smooth_field(rng, shape, person.spacing_mm, 9.0)[0][lung].clamp(-1, 3)
    thickness = min(_uniform(rng, 0, 1) ** 2 * 45.0 + 2.0, 33.0)
    layer = thickness * (1.0 + 0.35 * _smooth_field(rng, shape, person.spacing_mm, 150.0)[0]).clamp(0.3, 1.8)
    hu = torch.where(outside == 0, hu, torch.where(outside <= layer, fat, AIR_HU))
    hu[(outside > layer) & (outside <= layer + 2.5)] = _uniform(rng, -60, 50)
    return hu


def draw_bones(rng: np.random.Generator, person: Person, box: tuple[slice, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """HU of bone (float32, 0 elsewhere) and the bone parts (uint8) inside ``box``, both (k, j, i).

    Trabecular bone 20-280 HU, cortex 250-900 HU that decays over 0.7-2.2 mm. Twelfth ribs are sometimes short or
    absent.
    """
    bone = _crop(person.bone, box).clone()
    _shorten_last_ribs(rng, person, box, bone)
    where = bone > 0
    parts = bone[where].int()
    trabecular = rng.uniform(20, 280) * rng.uniform(0.85, 1.15, len(BONE_PARTS))
    trabecular[26:] = rng.uniform(20, 350, len(BONE_PARTS) - 26)
    cortex = rng.uniform(250, 900) * rng.uniform(0.8, 1.2, len(BONE_PARTS))
    inner = torch.from_numpy(trabecular.astype(np.float32))[parts]
    inner += 60.0 * (_crop(person.part, box)[where] == PARTS.index("posterior elements"))
    shell = torch.from_numpy(cortex.astype(np.float32))[parts]
    depth = _crop(person.depth_mm, box)[where].float() - 0.5 * person.spacing_mm
    values = inner + (shell - inner).clamp(min=0) * torch.exp(-depth / _uniform(rng, 0.7, 2.2))
    grain = torch.from_numpy(rng.standard_normal(values.numel()).astype(np.float32))
    values += _uniform(rng, 5, 45) * grain
    hu = torch.zeros(bone.shape)
    hu[where] = values
    return hu, bone


def _shorten_last_ribs(rng: np.random.Generator, person: Person, box: tuple[slice, ...], bone: torch.Tensor) -> None:
    if "T12" not in person.centres_kji or rng.random() > 0.45:
        return
    middle = person.centres_kji["T12"][2] - box[2].start
    reach = torch.abs(torch.arange(bone.shape[2]) - middle) * person.spacing_mm
    beyond = (reach > _uniform(rng, 25, 110)).reshape(1, 1, -1)
    bone[(bone == BONE_PARTS.index("rib_12")) & beyond] = 0


def _sample_linear(channels: torch.Tensor, place: torch.Tensor, box: tuple[slice, ...]) -> torch.Tensor:
    """channels (C, k, j, i) inside ``box``, read at place (3, K, J, I); zero beyond."""
    size = torch.tensor([s.stop - s.start for s in box], dtype=torch.float32).reshape(3, 1, 1, 1)
    start = torch.tensor([s.start for s in box], dtype=torch.float32).reshape(3, 1, 1, 1)
    unit = ((place - start) / (size - 1) * 2 - 1).flip(0).permute(1, 2, 3, 0)
    return functional.grid_sample(channels[None], unit[None], mode="bilinear", padding_mode="zeros",
                                  align_corners=True)[0]


def _sample_nearest(array: torch.Tensor, place: torch.Tensor, box: tuple[slice, ...]) -> torch.Tensor:
    index = [(place[a] - box[a].start + 0.5).floor().int() for a in range(3)]
    valid = torch.ones(place.shape[1:], dtype=torch.bool)
    for a in range(3):
        valid &= (index[a] >= 0) & (index[a] < array.shape[a])
        index[a] = index[a].clamp(0, array.shape[a] - 1)
    flat = (index[0] * array.shape[1] + index[1]) * array.shape[2] + index[2]
    values = torch.take(array, flat.long())
    values[~valid] = 0
    return values


def _organ_shift(rng: np.random.Generator, person: Person, task: Task) -> torch.Tensor:
    """(3, K, J, I) voxels: organs slide against the skeleton, most along the body, so that they name no level."""
    shift = _smooth_field(rng, task.shape_kji, task.spacing_mm, 200.0, 3)
    scale = torch.tensor([14.0, 2.5, 2.5]).reshape(3, 1, 1, 1) * _uniform(rng, 0, 1)
    return shift * scale / person.spacing_mm


def draw_ct(rng: np.random.Generator, person: Person, task: Task,
            place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(HU, bone parts, vertebra parts), each (K, J, I) on the target grid, before scanner effects."""
    real = person.hu is not None and rng.random() < 0.5
    bone_box = _box(place, person.bone.shape)
    if bone_box is None:
        empty = torch.zeros(task.shape_kji, dtype=torch.uint8)
        return torch.full(task.shape_kji, AIR_HU), empty, empty.clone()
    if real:
        hu = _real_hu(rng, person, place, bone_box)
        bone = _crop(person.bone, bone_box)
    else:
        slid = place if task.target == "parts" else place + _organ_shift(rng, person, task)
        soft_box = _box(slid, person.bone.shape) or bone_box
        soft = _sample_linear((render_soft(rng, person, soft_box) - AIR_HU)[None], slid, soft_box)[0] + AIR_HU
        bone_hu, bone = draw_bones(rng, person, bone_box)
        cover = _sample_linear(torch.stack([(bone > 0).float(), bone_hu]), place, bone_box)
        hu = cover[1] + (1 - cover[0]) * soft
    part = _crop(person.part, bone_box)
    return hu, _sample_nearest(bone, place, bone_box), _sample_nearest(part, place, bone_box)


def _real_hu(rng: np.random.Generator, person: Person, place: torch.Tensor, box: tuple[slice, ...]) -> torch.Tensor:
    hu = _sample_linear((_crop(person.hu, box).float() - AIR_HU)[None], place, box)[0] + AIR_HU
    dense = hu > 120
    hu[dense] = 120 + (hu[dense] - 120) * _uniform(rng, 0.6, 1.3)
    return hu + _uniform(rng, -25, 25) * (hu > -300)


def _blur(hu: torch.Tensor, sigma_voxels: tuple[float, float, float]) -> torch.Tensor:
    for axis, sigma in enumerate(sigma_voxels):
        if sigma < 0.15:
            continue
        radius = int(np.ceil(2.5 * sigma))
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis], pad[4 - 2 * axis], pad[5 - 2 * axis] = -1, radius, radius
        padded = functional.pad(hu[None, None], pad, mode="replicate")
        hu = functional.conv3d(padded, (kernel / kernel.sum()).reshape(shape))[0, 0]
    return hu


def _add_couch(rng: np.random.Generator, hu: torch.Tensor, spacing_mm: float) -> None:
    """A shell with foam behind the patient, flat or curved."""
    behind = torch.nonzero((hu > -300).any(0).any(1))
    if rng.random() > 0.75 or behind.numel() == 0:
        return
    _, depth, width = hu.shape
    across = (torch.arange(width) - width * _uniform(rng, 0.4, 0.6)) * spacing_mm
    top = int(behind.max()) * spacing_mm + _uniform(rng, -6, 12)
    surface = top - _uniform(rng, 0, 0.0008) * across**2
    below = (torch.arange(depth) * spacing_mm)[:, None] - surface[None]
    wide = (across.abs() < _uniform(rng, 180, 260))[None]
    air = hu < -300
    shell = _uniform(rng, 1.5, 5.0)
    height = _uniform(rng, 20, 60)
    foam = wide & (below > 0) & (below < height)
    hu[air & foam[None]] = _uniform(rng, -990, -800)
    hard = wide & (((below > 0) & (below < shell)) | ((below > height - shell) & (below < height)))
    hu[air & hard[None]] = _uniform(rng, -400, 350)


def _add_noise(rng: np.random.Generator, hu: torch.Tensor) -> torch.Tensor:
    sd = float(np.exp(_uniform(rng, np.log(3), np.log(55))))
    noise = torch.from_numpy(rng.standard_normal(hu.shape, dtype=np.float32))
    sigma = _uniform(rng, 0, 0.9)
    if sigma > 0.2:
        noise = _blur(noise, (0.3 * sigma, sigma, sigma))
        noise /= noise.std()
    hu = hu + sd * noise * (hu > -950)
    if rng.random() < 0.3:
        rows = torch.from_numpy(rng.standard_normal((*hu.shape[:2], 1), dtype=np.float32))
        hu = hu + _uniform(rng, 0, 30) * rows * (hu > -600)
    return hu


def scan(rng: np.random.Generator, hu: torch.Tensor, spacing_mm: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scanner effects on HU (K, J, I). Returns the HU and the bool mask of what lies in the scan."""
    _add_couch(rng, hu, spacing_mm)
    slice_sigma = _uniform(rng, 1, 7) / 2.355 / spacing_mm if rng.random() < 0.7 else 0.0
    plane_sigma = _uniform(rng, 0, 0.6)
    hu = _blur(hu, (slice_sigma, plane_sigma, plane_sigma))
    hu = _add_noise(rng, hu)
    if rng.random() < 0.3:
        hu = hu + _uniform(rng, 0.2, 0.9) * (hu - _blur(hu, (0, 0.8, 0.8)))
    hu = hu * _uniform(rng, 0.97, 1.03) + _uniform(rng, -15, 15)
    seen = _field_of_view(rng, hu)
    hu[~seen] = AIR_HU
    return hu, seen


def _field_of_view(rng: np.random.Generator, hu: torch.Tensor) -> torch.Tensor:
    slices, depth, width = hu.shape
    seen = torch.ones(hu.shape, dtype=torch.bool)
    if rng.random() < 0.4:
        seen[: int(rng.uniform(0.0, 0.6) * slices)] = False
    if rng.random() < 0.25:
        seen[slices - int(rng.uniform(0.0, 0.5) * slices):] = False
    if rng.random() < 0.3:
        y = torch.arange(depth)[:, None] - depth * _uniform(rng, 0.4, 0.6)
        x = torch.arange(width)[None] - width * _uniform(rng, 0.4, 0.6)
        seen &= ((y**2 + x**2).sqrt() < width * _uniform(rng, 0.4, 0.75))[None]
    return seen


def peak_map(shape: tuple[int, int, int], peak: tuple[int, int, int]) -> torch.Tensor:
    """(K, J, I) float32 Gaussian of HEATMAP_SD_VOXELS, 1 at the voxel ``peak``."""
    axes = [torch.arange(n, dtype=torch.float32) - p for n, p in zip(shape, peak, strict=True)]
    k, j, i = (torch.exp(-0.5 * axis**2 / HEATMAP_SD_VOXELS**2) for axis in axes)
    return k[:, None, None] * j[:, None] * i


def heatmaps(person: Person, place: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(len(KEYPOINT_LEVELS), K, J, I) Gaussians at the body centres that lie in the scan; NaN when the person's
    label map has no such body, so that nothing is taught there."""
    shape = place.shape[1:]
    maps = torch.zeros(len(KEYPOINT_LEVELS), *shape)
    for channel, level in enumerate(KEYPOINT_LEVELS):
        centre = person.centres_kji.get(level)
        if centre is None:
            maps[channel] = torch.nan
            continue
        squared = sum((place[a] - centre[a]) ** 2 for a in range(3))
        flat = int(squared.argmin())
        peak = np.unravel_index(flat, shape)
        if float(squared.flatten()[flat]) > 9.0 or not bool(seen[peak]):
            continue
        maps[channel] = peak_map(shape, peak)
    return maps


def _choose_centre(rng: np.random.Generator, person: Person, task: Task, anchors: dict[int, np.ndarray]) -> np.ndarray:
    """A place (k, j, i voxels) to centre a sample on: bones by class, or the spine."""
    if task.target == "bones" and rng.random() < 0.7:
        points = anchors[rng.choice(list(anchors))]
        return points[rng.integers(len(points))] + rng.normal(0, 28, 3) / person.spacing_mm
    levels = list(person.centres_kji)
    if task.target == "parts":
        low = [n for n in levels if n in ("T10", "T11", "T12", "L1", "L2", "L3")]
        pool = low if low and rng.random() < 0.7 else levels
        return np.array(person.centres_kji[pool[rng.integers(len(pool))]]) + rng.normal(0, 14, 3) / person.spacing_mm
    shape = np.array(person.bone.shape)
    centre = np.array([rng.uniform(0, 1), 0.5, 0.5]) * shape
    if task.target == "keypoints" and rng.random() < 0.75:
        centre[0] = person.centres_kji[levels[rng.integers(len(levels))]][0] + rng.normal(0, 60) / person.spacing_mm
    return centre + rng.normal(0, 1, 3) * np.array([0, 18, 25]) / person.spacing_mm


def anchors_of(person: Person, per_class: int = 4000) -> dict[int, np.ndarray]:
    """For each bone class of the person, up to per_class voxel positions (N, 3) k, j, i to centre samples on.

    The twelfth ribs, which name the levels and are easily missed, count as a class of their own.
    """
    classes = bone_targets()[person.bone]
    classes[person.bone == BONE_PARTS.index("rib_12")] = 6
    rng = np.random.default_rng(0)
    found = {}
    for value in range(1, 7):
        flat = np.flatnonzero(classes == value)
        if flat.size:
            chosen = rng.choice(flat, min(per_class, flat.size), replace=False)
            found[value] = np.stack(np.unravel_index(chosen, classes.shape), axis=1)
    return found


def normalise(hu: torch.Tensor) -> torch.Tensor:
    """Network input from HU."""
    return hu.clamp(*CLIP_HU) / SCALE_HU


def draw_sample(rng: np.random.Generator, person: Person, task: Task,
                anchors: dict[int, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """One training pair: image (1, K, J, I) float32 normalised, target (K, J, I) uint8 or heatmaps float32."""
    centre = _choose_centre(rng, person, task, anchors)
    place = draw_pose(rng, person, task, centre)
    hu, bone, part = draw_ct(rng, person, task, place)
    hu, seen = scan(rng, hu, task.spacing_mm)
    image = normalise(hu)[None]
    if task.target == "keypoints":
        return image, heatmaps(person, place, seen)
    target = torch.from_numpy(bone_targets())[bone.int()] if task.target == "bones" else part
    target[~seen] = 0
    return image, target
