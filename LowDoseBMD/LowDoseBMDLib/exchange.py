"""What two processes hand to each other in a folder: a CT, and regions with everything known of them.

Quick and lossless, for the way from Slicer's window to its worker and back, and for a scene that is stored and opened
again; files that people keep are written in ``files``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .anatomy import LEVELS
from .ctvolume import Acquisition, CTVolume
from .files.atomic import whole_file, write_whole
from .flags import Flag, Severity
from .geometry import Geometry
from .rois import Keypoint, LevelFinding, Mask, Rois, Vertebra

STATE_VERSION = 1

HU_FILE, CT_FACTS_FILE = "ct.npy", "ct.json"
_MASK, _SPINE = "mask_", "spine_"
_BITS, _BOX = "_bits", "_box"
_STATE = "state"


@dataclass(frozen=True)
class Proposal:
    """What the networks proposed for one CT. networks: identities of the models and the engine that ran.

    A refused study is a proposal too: its ``rois`` hold a flag of severity REFUSED and perhaps no mask.
    """

    rois: Rois
    networks: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_ct(folder: Path, ct: CTVolume) -> None:
    """Write a CT to ct.npy and ct.json of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / HU_FILE) as aside:
        np.save(aside, ct.hu)
    facts = {"version": STATE_VERSION, "ijk_to_lps": ct.geometry.ijk_to_lps.tolist(),
             "acquisition": asdict(ct.acquisition)}
    write_whole(folder / CT_FACTS_FILE, json.dumps(facts))


def read_ct(folder: Path) -> CTVolume:
    """The CT of a folder; HU are mapped, not copied. Raises OSError or ValueError when it is not whole."""
    facts = _versioned(json.loads((folder / CT_FACTS_FILE).read_text(encoding="utf-8")))
    hu = np.load(folder / HU_FILE, mmap_mode="r", allow_pickle=False)
    return CTVolume(hu, Geometry(hu.shape, np.array(facts["ijk_to_lps"])), Acquisition(**facts["acquisition"]))


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Write a proposal to one .npz file; masks are stored as bits inside their boxes."""
    rois = proposal.rois
    arrays = {}
    for prefix, masks in ((_MASK, rois.masks), (_SPINE, {str(n): v.body for n, v in enumerate(rois.spine)})):
        for name, mask in masks.items():
            arrays[f"{prefix}{name}{_BITS}"] = np.packbits(mask.voxels)
            arrays[f"{prefix}{name}{_BOX}"] = np.array([mask.start_kji, mask.voxels.shape])
    content = {"rois": rois_state(rois), "shape_kji": rois.geometry.shape_kji,
               "ijk_to_lps": rois.geometry.ijk_to_lps.tolist(), "networks": dict(proposal.networks),
               "seconds": dict(proposal.seconds)}
    arrays[_STATE] = np.frombuffer(json.dumps(content).encode("utf-8"), np.uint8)
    with whole_file(path) as aside, open(aside, "wb") as file:
        np.savez(file, **arrays)


def read_proposal(path: Path) -> Proposal:
    """The inverse of write_proposal. Raises OSError or ValueError when the file is not whole or of another version."""
    with np.load(path, allow_pickle=False) as arrays:
        content = json.loads(arrays[_STATE].tobytes())
        masks = {prefix: {name.removeprefix(prefix).removesuffix(_BOX): _unpack(arrays, name.removesuffix(_BOX))
                          for name in arrays.files if name.startswith(prefix) and name.endswith(_BOX)}
                 for prefix in (_MASK, _SPINE)}
    geometry = Geometry(tuple(content["shape_kji"]), np.array(content["ijk_to_lps"]))
    spine = tuple(masks[_SPINE][str(n)] for n in range(len(masks[_SPINE])))
    return Proposal(rois_from_state(content["rois"], geometry, masks[_MASK], spine), content["networks"],
                    content["seconds"])


def _unpack(arrays: Mapping[str, np.ndarray], name: str) -> Mask:
    start, shape = (tuple(int(n) for n in row) for row in arrays[f"{name}{_BOX}"])
    bits = np.unpackbits(arrays[f"{name}{_BITS}"], count=int(np.prod(shape)))
    return Mask(bits.astype(bool).reshape(shape), start)


def rois_state(rois: Rois) -> dict[str, Any]:
    """All that is known of regions but their voxels and grid, as JSON data."""
    return {
        "version": STATE_VERSION,
        "keypoints": [asdict(point) for point in rois.keypoints],
        "levels": [asdict(level) for level in rois.levels],
        "flags": [{**asdict(flag), "severity": flag.severity.value} for flag in rois.flags],
        "erosion": rois.erosion,
        "places": [vertebra.place for vertebra in rois.spine],
        "bodies": {level: number for level in LEVELS for number, vertebra in enumerate(rois.spine)
                   if vertebra.body is rois.masks.get(f"body_{level}")},
        "edited": sorted(rois.edited),
        "excluded": dict(rois.excluded),
    }


def rois_from_state(state: Mapping[str, Any], geometry: Geometry, masks: Mapping[str, Mask],
                    spine: tuple[Mask, ...]) -> Rois:
    """Regions from their state and voxels. spine: bodies from head to foot, one for each place of the state; those that
    are a level's body are that mask itself.

    Raises ValueError when the state is of another version or does not fit the bodies.
    """
    _versioned(state)
    if len(spine) != len(state["places"]):
        raise ValueError(f"{len(spine)} vertebral bodies do not fit the {len(state['places'])} that were stored")
    bodies = list(spine)
    for level, number in state["bodies"].items():
        bodies[number] = masks.get(f"body_{level}", bodies[number])
    return Rois(
        geometry, dict(masks),
        tuple(Keypoint(p["level"], tuple(p["position_lps_mm"]), p["confidence"]) for p in state["keypoints"]),
        tuple(_finding(level) for level in state["levels"]),
        tuple(_flag(flag) for flag in state["flags"]),
        state["erosion"],
        tuple(Vertebra(place, body) for place, body in zip(state["places"], bodies, strict=True)),
        frozenset(state["edited"]), dict(state["excluded"]))


def _finding(data: Mapping[str, Any]) -> LevelFinding:
    axes = data["axes_lps"]
    height = data["height_mm"]
    return LevelFinding(**{**data, "axes_lps": axes and tuple(tuple(row) for row in axes),
                           "height_mm": height and tuple(height)})


def _flag(data: Mapping[str, Any]) -> Flag:
    position = data["position_lps_mm"]
    return Flag(**{**data, "severity": Severity(data["severity"]), "position_lps_mm": position and tuple(position)})


def _versioned(content: Mapping[str, Any]) -> Mapping[str, Any]:
    if content.get("version") != STATE_VERSION:
        raise ValueError(f"regions of version {content.get('version')!r} are stored; this program reads {STATE_VERSION}: "
                         "measure again")
    return content
