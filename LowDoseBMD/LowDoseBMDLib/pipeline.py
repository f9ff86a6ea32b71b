"""From a CT to regions: the stages in their order, whoever supplies the first of them.

``propose_rois`` runs the networks; ``rois_from_labels`` starts from somebody else's label map; ``rois_from_masks``
takes regions as a reader left them. What follows bones and names is the same code for all three.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .anatomy import BONES, LEVELS, OTHER_BONES, SIDES, SPINE, STRUCTURES
from .bodies import draw_bodies
from .bones import OTHER, Bones, segment_bones
from .bones_fine import refine_bones
from .bundle import MODELS, identities, load_models
from .ctvolume import CTVolume
from .flags import Flag, Severity
from .geometry import Geometry
from .inference import Engine, Progress, open_engine, silent
from .keypoints import find_keypoints
from .levels import name_levels
from .rois import Keypoint, LevelFinding, Mask, Rois, Vertebra
from .schemes import read_scheme
from .splitting import split_vertebrae
from .tissues import find_tissues
from .vertebrae import assess_levels, trabecular_mask

EROSIONS: tuple[str, ...] = ("physical", "paper", "voxels")

DETAILS: tuple[str, ...] = ("full", "fast")
"""How much is drawn. fast leaves out what no number rests on: the regions of ribs, clavicles and scapulae, and most
pictures; every number, level and flag is that of full."""

NEAR_LEVELS = ("T11", *LEVELS, "L3")
"""Levels that are measured and the neighbours beside which muscle and fat are looked for."""

DRAWN_LEVELS = SPINE[SPINE.index("T8"):]
"""Bodies drawn on the CT's grid: those measured, their neighbours, and what a reader may move the names to."""

MUSCLE_NAMES: dict[str, str] = {
    **{f"{theirs}_{side}": f"{ours}_{side}" for side in SIDES
       for theirs, ours in (("iliopsoas", "psoas"), ("psoas", "psoas"), ("paraspinal", "paraspinal"))},
}
"""Muscles of a label map that stand for ours."""


@dataclass(frozen=True)
class Models:
    """The networks, ready to run. bones_fine: None where bones are drawn as ``bones`` found them."""

    bones: Engine
    bodies: Engine
    keypoints: Engine
    bones_fine: Engine | None = None

    @property
    def engines(self) -> dict[str, Engine]:
        """Those that there are, by name."""
        return {name: engine for name in MODELS if (engine := getattr(self, name)) is not None}

    @property
    def identities(self) -> dict[str, str]:
        """Name, version and hash of each, for reports."""
        return identities({name: engine.bundle for name, engine in self.engines.items()})


@dataclass
class Stopwatch:
    """Seconds spent in each stage; also passes the stage's name on as progress."""

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        started = time.perf_counter()
        self.progress(name, 0.0)
        try:
            yield self.progress
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def open_models(folder: Path | None = None, engine: str = "auto", device: str = "auto", detail: str = "full") -> Models:
    """Load and verify the bundles of a folder (default: those of the product, which also stand in for those that the folder
    does not hold; see bundle.load_models). detail: of DETAILS; fast leaves out bones_fine.

    Raises bundle.BundleError when one is damaged or not what it says, ValueError when the engine is not there.
    """
    bundles = load_models(folder, fine=detail == "full")
    return Models(**{name: open_engine(bundle, engine, device) for name, bundle in bundles.items()})


@dataclass(frozen=True, eq=False)
class Skeleton:
    """What the networks find. bones: by name of the registry; bodies: of DRAWN_LEVELS by the vertebra's name; keypoints:
    centres of LEVELS, as named by all witnesses together; flags: what naming them had to say."""

    bones: Mapping[str, Mask]
    bodies: Mapping[str, Mask] = field(default_factory=dict)
    keypoints: tuple[Keypoint, ...] = ()
    flags: tuple[Flag, ...] = ()


def find_skeleton(ct: CTVolume, models: Models, watch: Stopwatch | None = None, other_bones: bool = False,
                  detail: str = "full") -> Skeleton:
    """Bones, vertebral bodies and their names, on the CT's grid. other_bones: bones that are not measured too. detail: of
    DETAILS.

    Raises flags.Refusal when there is no spine, inference.Cancelled when the progress callback asks.
    """
    watch = watch or Stopwatch()
    with watch.stage("bones") as progress:
        bones = segment_bones(ct, models.bones, progress)
    with watch.stage("vertebral bodies") as progress:
        spine = draw_bodies(ct, bones, models.bodies, progress)
    with watch.stage("keypoints") as progress:
        numbering = name_levels(spine, find_keypoints(ct, models.keypoints, progress), bones)
    beside = [name for name in BONES if name != "vertebrae"] if detail == "full" else []
    drawn = draw_bones(ct, bones, models, watch, [*beside, OTHER_BONES] if other_bones else beside)
    with watch.stage("drawing regions"):
        bodies = {name: spine.mask(body, ct.geometry)
                  for name, body in zip(numbering.names, spine.bodies, strict=True) if name in DRAWN_LEVELS}
        masks = {**drawn, "vertebrae": spine.vertebrae(ct.geometry)}
    keypoints = tuple(
        Keypoint(name, tuple(float(c) for c in body.centre_lps_mm), numbering.probability)
        for name, body in zip(numbering.names, spine.bodies, strict=True) if name in LEVELS)
    return Skeleton(masks, bodies, keypoints, numbering.flags)


def draw_bones(ct: CTVolume, bones: Bones, models: Models, watch: Stopwatch,
               names: Collection[str] = (*BONES, OTHER_BONES)) -> dict[str, Mask]:
    """The named bones (of BONES, or OTHER_BONES) on the CT's grid: as the network bones_fine draws them again, where there
    is one, else as they were found; vertebrae always as they were found.

    Raises inference.Cancelled when the progress callback asks.
    """
    fine, again = bones, [name for name in names if name != "vertebrae"]
    if again and models.bones_fine is not None:
        with watch.stage("fine bones") as progress:
            fine = refine_bones(ct, bones, models.bones_fine, progress,
                                [OTHER if name == OTHER_BONES else name for name in again])
    with watch.stage("drawing regions"):
        masks = {**bones.masks(ct.geometry, set(names) - set(again)), **fine.masks(ct.geometry, again)}
        if OTHER_BONES in names:
            masks[OTHER_BONES] = (bones if fine.other is None else fine).other_mask(ct.geometry)
    return masks


def propose_rois(ct: CTVolume, models: Models, erosion: str = "physical", watch: Stopwatch | None = None,
                 detail: str = "full") -> Rois:
    """All regions of a CT by the networks and geometry. detail: of DETAILS.

    Raises flags.Refusal when there is no spine to measure, inference.Cancelled when the progress callback asks.
    """
    found = find_skeleton(ct, models, watch, detail=detail)
    return _complete(ct, found.bodies, found.bones, found.keypoints, found.flags, erosion, watch=watch)


def rois_from_labels(ct: CTVolume, labels: np.ndarray, scheme: str, erosion: str = "physical",
                     watch: Stopwatch | None = None) -> Rois:
    """All regions of a CT from an existing label map.

    labels: (k, j, i) integers on the CT's grid. scheme: totalsegmentator, verse or lowdosebmd (schemes.py).
    Raises flags.Refusal when the map holds no vertebra of the scheme.
    """
    watch = watch or Stopwatch()
    with watch.stage("reading labels"):
        anatomy = read_scheme(labels, scheme)
    with watch.stage("vertebral bodies"):
        bodies = dict(anatomy.bodies)
        missing = {name: mask for name, mask in anatomy.vertebrae.items() if name not in bodies}
        bodies.update({name: split.body for name, split in split_vertebrae(missing, ct.geometry).items()})
    keypoints = tuple(Keypoint(name, centre_of(bodies[name], ct.geometry))
                      for name in LEVELS if name in bodies and not bodies[name].empty)
    muscles = {ours: anatomy.others[theirs] for theirs, ours in MUSCLE_NAMES.items() if theirs in anatomy.others}
    flag = Flag("labels_given", Severity.INFO, f"Bones and levels were taken from a label map (scheme {scheme}), not "
                                               "from the networks of this program.")
    return _complete(ct, bodies, dict(anatomy.bones), keypoints, (flag,), erosion, muscles, watch)


def _complete(ct: CTVolume, bodies: Mapping[str, Mask], bones: Mapping[str, Mask], keypoints: tuple[Keypoint, ...],
              flags: tuple[Flag, ...], erosion: str, muscles: Mapping[str, Mask] | None = None,
              watch: Stopwatch | None = None) -> Rois:
    """The stages after bones and names: completeness, trabecular masks, tissues."""
    watch = watch or Stopwatch()
    bodies = {name: mask for name, mask in bodies.items() if not mask.empty}
    near = {name: bodies[name] for name in NEAR_LEVELS if name in bodies}
    with ThreadPoolExecutor(1) as beside:
        cores = beside.submit(lambda: _trabecular(ct, near, assess_levels(near, ct.geometry, ct), erosion))
        with watch.stage("muscle and fat") as progress:
            tissues = find_tissues(ct, near, bones.get("vertebrae"), muscles, progress)
        with watch.stage("trabecular bone"):  # what is left of it
            masks, findings = cores.result()
    body_masks = {f"body_{name}": bodies[name] for name in LEVELS if name in bodies}
    kept = {name: bones[name] for name in BONES if name in bones and not bones[name].empty}
    spine = tuple(Vertebra(place, bodies[name]) for place, name in enumerate(SPINE) if name in bodies)
    return Rois(ct.geometry, {**kept, **body_masks, **masks, **tissues.masks}, keypoints, findings,
                (*flags, *tissues.flags), erosion, spine)


def _trabecular(ct: CTVolume, bodies: Mapping[str, Mask], findings: tuple[LevelFinding, ...],
                erosion: str) -> tuple[dict[str, Mask], tuple[LevelFinding, ...]]:
    masks, updated = {}, []
    for finding in findings:
        if finding.complete:
            mask, finding = trabecular_core(ct, bodies[finding.name], finding, erosion)
            if not mask.empty:
                masks[f"trabecular_{finding.name}"] = mask
        updated.append(finding)
    return masks, tuple(updated)


def trabecular_core(ct: CTVolume, body: Mask, finding: LevelFinding, erosion: str) -> tuple[Mask, LevelFinding]:
    """The core of one body, and its finding with the erosion distance that was used."""
    posterior = np.array(finding.axes_lps[1]) if finding.axes_lps else None
    mask, distance_mm = trabecular_mask(body, ct.geometry, erosion, posterior=posterior)
    return mask, replace(finding, erosion_mm=distance_mm)


def rois_from_masks(ct: CTVolume, masks: Mapping[str, Mask], keypoints: tuple[Keypoint, ...] = (),
                    erosion: str = "physical") -> Rois:
    """Regions as a reader left them, under registry names.

    A trabecular region in ``masks`` is measured as it is, even when its body looks incomplete (a flag says so); an
    empty one leaves its level out; a body without one is assessed and eroded as usual.
    """
    bodies = {name: masks[f"body_{name}"] for name in LEVELS
              if f"body_{name}" in masks and not masks[f"body_{name}"].empty}
    cores = {name: masks[f"trabecular_{name}"] for name in LEVELS if f"trabecular_{name}" in masks}
    findings = {f.name: f for f in assess_levels(bodies, ct.geometry, ct)} if bodies else {}
    derived, made = _trabecular(ct, bodies, tuple(f for f in findings.values() if f.name not in cores), erosion)
    levels = {f.name: f for f in made} | {name: drawn_level(name, core, findings.get(name)) for name, core in cores.items()}
    points = {point.level: point for point in keypoints}
    for name in LEVELS:
        if name not in points and name in bodies:
            points[name] = Keypoint(name, centre_of(bodies[name], ct.geometry))
    kept = {name: mask for name, mask in masks.items() if name in STRUCTURES and not mask.empty}
    flag = Flag("regions_given", Severity.INFO, "Regions and level names were taken from a segmentation file, as a "
                                                "reader left them.")
    return Rois(ct.geometry, {**kept, **derived}, tuple(points[n] for n in LEVELS if n in points),
                tuple(levels[name] for name in LEVELS if name in levels), (flag,),
                "edited" if any(not core.empty for core in cores.values()) else erosion)


def drawn_level(name: str, core: Mask, assessed: LevelFinding | None) -> LevelFinding:
    """What is known of a level whose trabecular region a reader drew: it is measured as it is, or left out when empty.

    assessed: what its body looks like, where there is one.
    """
    if core.empty:
        return LevelFinding(name, False, "a reader left its region empty")
    found = assessed or LevelFinding(name, True)
    return replace(found, complete=True, reason="", overridden=found.reason, erosion_mm=None)


def centre_of(mask: Mask, geometry: Geometry) -> tuple[float, float, float]:
    """Centre of mass of a region that is not empty, LPS mm."""
    x, y, z = mask.centroid_lps_mm(geometry)
    return float(x), float(y), float(z)
