"""Keypoints as a Slicer point list (.mrk.json), which a reader can move and which is read back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ..anatomy import LEVELS, STRUCTURES
from ..flags import Refusal
from ..geometry import lps_to_ras
from ..rois import Keypoint
from .atomic import write_whole

SCHEMA = ("https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
          "markups-schema-v1.0.3.json#")
_COORDINATES = {"LPS": "LPS", "RAS": "RAS", "1": "LPS", "0": "RAS"}
"""Slicer's names of the coordinate systems, and the numbers that older files hold."""
_CONFIDENCE = re.compile(r"confidence\s+([01](?:\.\d+)?)", re.IGNORECASE)


def write_keypoints(path: Path, keypoints: tuple[Keypoint, ...]) -> None:
    """Write a point list with the three names T12, L1, L2, positions in LPS mm.

    The number of points is fixed and a level that was not found is an unplaced point: in Slicer a reader
    places it with one click under its right name, and cannot delete a name.
    """
    found = {entry.level: entry for entry in keypoints}
    points = [_point(n, level, found.get(level)) for n, level in enumerate(LEVELS)]
    markup = {
        "type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": False,
        "fixedNumberOfControlPoints": True, "labelFormat": "%N-%d", "lastUsedControlPointNumber": len(points),
        "controlPoints": points, "measurements": [], "display": _display(),
    }
    write_whole(path, json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1))


def read_keypoints(path: Path) -> tuple[Keypoint, ...]:
    """Placed points of a Slicer point list whose names are T12, L1 or L2, from head to foot, LPS mm.

    Other points are passed over; of two points with one name the first counts.

    Raises
    ------
    Refusal
        code ``keypoints_unreadable``: not a Slicer point list, or its units or coordinates are unknown.
    """
    found: dict[str, Keypoint] = {}
    for markup in _markups(path):
        for point in markup.get("controlPoints") or []:
            keypoint = _keypoint(path, markup, point)
            if keypoint is not None:
                found.setdefault(keypoint.level, keypoint)
    return tuple(found[level] for level in LEVELS if level in found)


def _point(number: int, level: str, keypoint: Keypoint | None) -> dict:
    confidence = keypoint.confidence if keypoint else None
    return {
        "id": str(number + 1),
        "label": level,
        "description": "" if confidence is None else f"confidence {confidence:.3f}",
        "associatedNodeID": "",
        "position": [float(x) for x in keypoint.position_lps_mm] if keypoint else "",
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined" if keypoint else "undefined",
    }


def _display() -> dict:
    colour = [c / 255 for c in STRUCTURES[f"trabecular_{LEVELS[1]}"].colour]
    return {"visibility": True, "opacity": 1.0, "color": colour, "selectedColor": colour,
            "propertiesLabelVisibility": False, "pointLabelsVisibility": True, "textScale": 3.0,
            "glyphType": "Sphere3D", "glyphScale": 2.0, "useGlyphScale": True}


def _markups(path: Path) -> list[dict]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "it is not JSON") from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(entry, dict) for entry in markups):
        raise _unreadable(path, "it holds no markups")
    return markups


def _keypoint(path: Path, markup: dict, point: dict) -> Keypoint | None:
    level = str(point.get("label", "")).strip().upper()
    if level not in LEVELS or point.get("positionStatus", "defined") != "defined":
        return None
    if markup.get("coordinateUnits", "mm") not in ("mm", ["mm", "UCUM", "millimeter"]):
        raise _unreadable(path, f"its unit is {markup['coordinateUnits']!r}, not mm")
    system = _COORDINATES.get(str(markup.get("coordinateSystem", "LPS")))
    if system is None:
        raise _unreadable(path, f"its coordinate system is {markup['coordinateSystem']!r}, not LPS or RAS")
    position = _position(path, point.get("position"))
    lps = position if system == "LPS" else lps_to_ras(position)
    match = _CONFIDENCE.search(str(point.get("description", "")))
    return Keypoint(level, tuple(float(x) for x in lps), float(match.group(1)) if match else None)


def _position(path: Path, value: object) -> np.ndarray:
    try:
        position = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise _unreadable(path, f"a position is {value!r}") from error
    if position.shape != (3,) or not np.isfinite(position).all():
        raise _unreadable(path, f"a position is {value!r}")
    return position


def _unreadable(path: Path, why: str) -> Refusal:
    return Refusal("keypoints_unreadable", f"{Path(path).name} cannot be read as a Slicer point list: {why}. "
                                           "Save the points from Slicer as .mrk.json and try again.")
