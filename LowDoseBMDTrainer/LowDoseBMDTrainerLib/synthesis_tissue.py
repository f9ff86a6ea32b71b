"""HU of a varied person: soft tissue with contrast, fat and gas, bone with its cortex, metal, arms beside the trunk.

Soft tissue and bone are rendered on the person's own grid round where the sample looks, and interpolated from there.
"""

from __future__ import annotations

import numpy as np
import torch

from .people import BONE_PARTS, PARTS, TISSUES, with_density
from .synthesis_anatomy import Anatomy, edit_bones, metal_in
from .synthesis_fields import AIR_HU, Box, Chance, Grid, box_of, sample_linear, sample_nearest
from .synthesis_pose import Pose
from .synthesis_subject import Subject

METAL_HU = 3000.0

SHOULDER_MM = 250.0
"""Arms at the sides begin so far above L1, where the elbow lies (judgement)."""

SKIN_MM = 2.5

HU_RANGES: dict[str, tuple[float, float]] = {
    "unnamed": (20, 70), "lung": (-890, -700), "liver": (30, 75), "spleen": (35, 60), "kidney": (20, 45),
    "heart": (20, 55), "artery": (25, 55), "vein": (25, 55), "bowel": (-30, 60), "stomach": (-30, 60),
    "organ": (-10, 60), "airway": (-1000, -900), "cord": (10, 50), "disc": (40, 120), "cartilage": (50, 200),
    "muscle": (40, 75), "psoas": (40, 75), "paraspinal": (35, 70), "fat": (-125, -80),
}
"""Unenhanced HU at 100-140 kVp, from low to high end of what is seen in adults; muscle before its fat is taken off."""

PHASES: dict[str, dict[str, tuple[float, float]]] = {
    "pulmonary": {"vein": (50, 2000), "heart": (100, 350), "artery": (20, 250)},
    "arterial": {"artery": (150, 430), "heart": (100, 300), "kidney": (40, 160), "spleen": (20, 100), "liver": (5, 25),
                 "vein": (0, 60), "bowel": (0, 40), "organ": (0, 50)},
    "portal": {"artery": (80, 160), "vein": (80, 160), "heart": (70, 140), "liver": (40, 80), "spleen": (50, 80),
               "kidney": (100, 200), "bowel": (10, 60), "stomach": (0, 40), "organ": (10, 60)},
    "delayed": {"artery": (30, 80), "vein": (30, 80), "heart": (30, 80), "liver": (20, 50), "spleen": (20, 50),
                "kidney": (80, 220), "organ": (10, 50)},
}
"""HU added by intravenous contrast in each phase: what textbooks of CT show, widened; undiluted in the veins of the arm and
the chest in the first seconds."""

CORTEX_HU = (250.0, 1400.0)
"""At the surface, drawn on a logarithmic scale and by a fifth more or less for each bone. On a grid of 1.5 mm the densest
tenth of the ribs' voxels has 460 HU in LIDC-IDRI-0001, 1090 in LIDC-IDRI-0314."""

COMPACT, COMPACT_GAIN = ("clavicle", "scapula", "humerus"), (1.0, 1.5)
"""Bones with a thicker cortex, and by how much it is denser: that of the clavicles of LIDC-IDRI-0314 has 1470 to 1620 HU."""

DENSITY = (0.6, 1.8)
"""How many times as dense the bones of a real CT are made."""

CONTRAST, ORAL_CONTRAST = 0.45, 0.06
"""Shares of CTs with contrast in the veins, and in the bowel."""


def draw_table(chance: Chance, anatomy: Anatomy) -> torch.Tensor:
    """(len(TISSUES),) HU of each tissue for one CT."""
    phase = PHASES[str(chance.rng.choice(list(PHASES)))] if chance.happens(CONTRAST) else {}
    strength = chance.uniform(0.6, 1.1)
    oral = chance.uniform(100, 400) if chance.happens(ORAL_CONTRAST) else 0.0
    fat = chance.uniform(*HU_RANGES["fat"])
    muscle = chance.uniform(*HU_RANGES["muscle"])
    table = np.zeros(len(TISSUES), np.float32)
    for n, name in enumerate(TISSUES):
        table[n] = fat if name == "fat" else chance.uniform(*HU_RANGES[name])
        if name in ("muscle", "psoas", "unnamed"):
            table[n] = muscle + chance.rng.normal(0, 4)
        if name in ("muscle", "psoas", "unnamed", "paraspinal"):
            table[n] += anatomy.build.muscle_fat * (1.5 if name == "paraspinal" else 0.7) * (fat - muscle)
        if name in phase:
            table[n] += chance.uniform(*phase[name]) * strength
        if name in ("bowel", "stomach"):
            table[n] += oral
    return torch.from_numpy(table).to(chance.device)


def _is(tissue: torch.Tensor, name: str) -> torch.Tensor:
    return tissue == TISSUES.index(name)


def render_soft(chance: Chance, subject: Subject, anatomy: Anatomy, box: Box) -> torch.Tensor:
    """HU of everything but bone inside ``box`` of the person's grid, float32 (k, j, i)."""
    table, build = draw_table(chance, anatomy), anatomy.build
    tissue = subject.tissue[box]
    grid = Grid(tuple(tissue.shape), (subject.spacing_mm,) * 3)
    hu = table[tissue.int()]
    inside = subject.inside_mm[box]
    patches = chance.field(grid, chance.uniform(8, 25))[0]
    fat = float(table[TISSUES.index("fat")])
    looseness = chance.uniform(-1.0, 0.5) - 0.6 * (build.layer_mm > 20)
    loose = _is(tissue, "unnamed") & (patches > torch.where(inside < chance.uniform(6, 18), 1.0, looseness))
    loose |= _is(tissue, "paraspinal") & (patches > 2.6 - 3.5 * build.muscle_fat)
    hu = hu.masked_fill(loose, fat)
    gas = (_is(tissue, "bowel") | _is(tissue, "stomach")) & (patches < chance.uniform(-2.5, -0.5))
    hu = hu.masked_fill(gas, -900.0)
    hu += chance.uniform(0, 12) * patches
    hu += (_is(tissue, "artery") & (patches > 2.4 - build.age)) * (chance.uniform(100, 700) * build.age)
    hu += (_is(tissue, "cartilage") & (patches > 1.0)) * (chance.uniform(0, 500) * build.age)
    texture = chance.field(grid, 9.0)[0].clamp(-1, 3)
    hu += chance.uniform(20, 120) * texture * _is(tissue, "lung")
    return _round_the_trunk(chance, subject, anatomy, box, hu, fat, patches)


def _round_the_trunk(chance: Chance, subject: Subject, anatomy: Anatomy, box: Box, hu: torch.Tensor, fat: float,
                     patches: torch.Tensor) -> torch.Tensor:
    """Subcutaneous fat, breasts and skin."""
    outside = subject.outside_mm[box]
    coarse = Grid(tuple(hu.shape), (subject.spacing_mm,) * 3)
    layer = anatomy.build.layer_mm * (1.0 + 0.35 * chance.field(coarse, 150.0)[0]).clamp(0.3, 1.8)
    k, j, i = (torch.arange(s.start, s.stop, device=subject.device, dtype=torch.float32) for s in box)
    middle = float(subject.spine_ji[:, 0].mean())
    ahead = ((middle - 20.0 / subject.spacing_mm - j) * subject.spacing_mm / 80.0).clamp(-1, 1)
    layer = layer * (1 + anatomy.build.front * ahead)[None, :, None]
    glands = torch.zeros_like(hu, dtype=torch.bool)
    if anatomy.build.breast_mm and "T6" in subject.centres:
        at = subject.centres["T6"]
        bumps = [torch.exp(-((i - float(at[2])) * subject.spacing_mm - side * 80.0) ** 2 / 45.0**2) for side in (-1, 1)]
        along = torch.exp(-(((k - float(at[0])) * subject.spacing_mm + 10.0) / 50.0) ** 2)
        bump = anatomy.build.breast_mm * along[:, None, None] * (ahead > 0)[:, None] * (bumps[0] + bumps[1])
        glands = (bump > layer) & (outside > 4) & (outside < bump - 4) & (patches > chance.uniform(-0.5, 2.0))
        layer = torch.maximum(layer, bump)
    hu = torch.where(outside == 0, hu, torch.where(outside <= layer, fat, AIR_HU))
    hu = hu.masked_fill(glands, chance.uniform(10, 50))
    return hu.masked_fill((outside > layer) & (outside <= layer + SKIN_MM), chance.uniform(-60, 50))


def draw_bones(chance: Chance, subject: Subject, anatomy: Anatomy, box: Box) -> tuple[torch.Tensor, torch.Tensor]:
    """HU of bone (float32, 0 elsewhere) and the bone parts (uint8) inside ``box``, both (k, j, i).

    Trabecular bone 20-280 HU, less with age, cortex of CORTEX_HU that decays over 0.7-2.2 mm, in COMPACT bones over more.
    """
    bone, depth = subject.bone[box].clone(), subject.depth_mm[box].clone()
    edit_bones(chance, subject, anatomy, bone, depth, box)
    where = bone > 0
    parts = bone[where].int()
    trabecular = chance.uniform(20, 280) * (1.25 - 0.5 * anatomy.build.age) * chance.rng.uniform(0.85, 1.15, len(BONE_PARTS))
    trabecular[26:] = chance.rng.uniform(20, 350, len(BONE_PARTS) - 26)
    cortex = np.exp(chance.uniform(*np.log(CORTEX_HU))) * chance.rng.uniform(0.8, 1.2, len(BONE_PARTS))
    decay_mm = np.full(len(BONE_PARTS), chance.uniform(0.7, 2.2))
    compact = [BONE_PARTS.index(part) for part in COMPACT]
    cortex[compact] *= chance.uniform(*COMPACT_GAIN)
    decay_mm[compact] *= chance.uniform(1.0, 2.0)
    for level in anatomy.fractures:
        trabecular[BONE_PARTS.index(level)] += chance.uniform(0, 150)
    inner = _values(chance, trabecular)[parts]
    inner += 60.0 * (subject.part[box][where] == PARTS.index("posterior elements"))
    shell = _values(chance, cortex)[parts]
    below = depth[where].float() - 0.5 * subject.spacing_mm
    values = inner + (shell - inner).clamp(min=0) * torch.exp(-below / _values(chance, decay_mm)[parts])
    values += chance.uniform(5, 45) * chance.normal(values.numel())
    if "joints" in anatomy.metal:
        values = torch.where((parts == BONE_PARTS.index("humerus")) | (parts == BONE_PARTS.index("other")), METAL_HU, values)
    hu = torch.zeros(bone.shape, device=subject.device)
    hu[where] = values
    return hu, bone


def _values(chance: Chance, numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.float32)).to(chance.device)


def draw_ct(chance: Chance, subject: Subject, anatomy: Anatomy, grid: Grid, pose: Pose,
            real: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(HU, bone parts, vertebra parts), each (K, J, I) on the target grid, before scanner effects.

    real: the person's own CT, in which only what is changed about the bones is drawn.
    """
    box = box_of(pose.bones, subject.bone.shape)
    if box is None:
        empty = torch.zeros(grid.shape_kji, dtype=torch.uint8, device=subject.device)
        return torch.full(grid.shape_kji, AIR_HU, device=subject.device), empty, empty.clone()
    bone_hu, bone = draw_bones(chance, subject, anatomy, box)
    if real:
        hu = _real_hu(chance, subject, bone, bone_hu, pose.bones, box)
    else:
        soft_box = box_of(pose.soft, subject.bone.shape) or box
        soft = render_soft(chance, subject, anatomy, soft_box) - AIR_HU
        soft = sample_linear(soft[None], pose.soft, soft_box)[0] + AIR_HU
        cover = sample_linear(torch.stack([(bone > 0).float(), bone_hu]), pose.bones, box)
        hu = cover[1] + (1 - cover[0]) * soft
    bone = sample_nearest(bone, pose.bones, box)
    part = sample_nearest(subject.part[box], pose.bones, box)
    metal = metal_in(chance, subject, anatomy, pose.bones, grid)
    if metal is not None:
        hu = torch.where(metal > 0, hu + metal * (METAL_HU - hu), hu)
    if anatomy.arms_down:
        _lay_arms(chance, subject, anatomy, pose.varied, hu, bone)
    return hu, bone, part


def _real_hu(chance: Chance, subject: Subject, bone: torch.Tensor, bone_hu: torch.Tensor, place: torch.Tensor,
             box: Box) -> torch.Tensor:
    """The person's CT with other density, and with the bones as they were changed."""
    hu = sample_linear((subject.hu[box].float() - AIR_HU)[None], place, box)[0] + AIR_HU
    hu = with_density(hu, chance.uniform(*DENSITY))
    hu = hu + chance.uniform(-25, 25) * (hu > -300)
    before = subject.bone[box]
    gone = ((before > 0) & (bone == 0)).float()
    gone = torch.nn.functional.max_pool3d(gone[None, None], 3, 1, 1)[0, 0] * (bone == 0)
    changed = torch.maximum(gone, ((bone > 0) & (before == 0)).float())
    if not bool(changed.any()):
        return hu
    values = torch.where(bone > 0, bone_hu, chance.uniform(20, 60))
    cover = sample_linear(torch.stack([changed, changed * values]), place, box)
    return cover[1] + (1 - cover[0]) * hu


def _lay_arms(chance: Chance, subject: Subject, anatomy: Anatomy, place: torch.Tensor, hu: torch.Tensor,
              bone: torch.Tensor) -> None:
    """Arms beside the trunk, in place: where there is air, with one bone down to the elbow at about L1 and two below."""
    middle = subject.centres.get("L1", next(iter(subject.centres.values())))
    up = (place[0] - float(middle[0])) * subject.spacing_mm
    for side in (-1, 1):
        away = subject.half_width_mm + anatomy.build.layer_mm + chance.uniform(38, 70)
        left = (place[2] - float(middle[2])) * subject.spacing_mm * side - away - chance.uniform(-0.08, 0.12) * up
        ahead = (place[1] - float(middle[1])) * subject.spacing_mm + chance.uniform(0, 60) - chance.uniform(-0.2, 0.2) * up
        reach = (left**2 + ahead**2).sqrt()
        muscle, layer = chance.uniform(26, 42), chance.uniform(3, 15)
        free = (hu <= AIR_HU + 1) & (up < SHOULDER_MM)
        arm = free & (reach < muscle + layer)
        shafts = torch.where(up > 0, reach - 10.0, _to_the_nearer(left, ahead, 12.0) - 6.0)
        hu[arm] = torch.where(reach < muscle, 50.0 - 40.0 * anatomy.build.muscle_fat, -100.0)[arm]
        core = arm & (shafts < 0)
        hu[core] = torch.where(shafts > -4.0, chance.uniform(400, 1200), chance.uniform(-60, 150))[core]
        bone[core] = BONE_PARTS.index("humerus")


def _to_the_nearer(left: torch.Tensor, ahead: torch.Tensor, apart_mm: float) -> torch.Tensor:
    """Distance to the nearer one of two shafts that lie apart_mm to the left and to the right."""
    return torch.minimum(((left - apart_mm) ** 2 + ahead**2).sqrt(), ((left + apart_mm) ** 2 + ahead**2).sqrt())
