"""The page of a batch: how many were measured, the distribution of vBMD, flags, failures, and a row for each study."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.atomic import write_whole
from ..measurement import NORMAL_ABOVE_MG_CM3, OSTEOPOROSIS_BELOW_MG_CM3
from .html import CATEGORY_TITLES, STATEMENTS
from .numbers import NO_VALUE, number
from .study_page import render

BIN_MG_CM3 = 10.0
"""Width of a bar of the histogram; the limits of the classes are multiples of it, so that no bar spans two classes."""

CLASSES = ("osteoporosis_range", "low_bone_mass", "normal")
PICTURE = "sagittal.png"
THUMBNAIL_PX = 110
"""Longest side of a study's small picture."""
THUMBNAILS = 400
"""At most so many pictures are put into the page, about 12 KB each; the other studies have theirs in their reports."""

EXAMPLES = 12
"""At most so many studies are named beside a reason that they share; the table has all."""

WIDTH, HEIGHT, FOOT = 900, 150, 24
"""Of the histogram in units of its drawing; the foot holds the axis."""

STATE_ORDER = ("failed", "refused", "measured")


@dataclass(frozen=True)
class Overview:
    """What the page is made of.

    rows: of the summary, with ``study``, ``note``, perhaps ``path``, and study_process.ROW. total: how many studies there
    are, ended or not. folder: where each study's folder lies. made_by: as in the manifest.
    """

    rows: Sequence[Mapping[str, Any]]
    total: int
    folder: Path
    made_by: Mapping[str, Any]


def write_overview(path: Path, overview: Overview) -> None:
    """Write the page, self-contained but for the links to the studies' reports. Raises OSError."""
    write_whole(path, render("overview.html.j2", _view(overview)))


def _view(overview: Overview) -> dict[str, Any]:
    rows = overview.rows
    states = Counter(row["status"] for row in rows)
    measured = [row for row in rows if row["mean_vbmd_mg_cm3"] is not None]
    waiting = overview.total - len(rows)
    return {
        "title": "Trabecular bone density from chest CT: a batch of studies",
        "heading": [f"{overview.total} studies", f"LowDoseBMD {overview.made_by['version']}",
                    *overview.made_by["models"].values()],
        "synthetic": f"{waiting} studies were not measured yet: go on with --resume." if waiting else "",
        "findings": _findings(states, measured),
        "statements": STATEMENTS,
        "classes": [_class(name, measured) for name in CLASSES],
        "provisional": sum(bool(row["category_provisional"]) for row in measured),
        "histogram": _histogram([row["mean_vbmd_mg_cm3"] for row in measured]),
        "flags": [(code.replace("_", " "), count, _share(count, len(rows))) for code, count in _flag_counts(rows)],
        "reasons": _reasons(rows),
        "identified": any("path" in row for row in rows),
        "notes": any(row["note"] for row in rows),
        "rows": [_row(row, picture) for row, picture in zip(_sorted(rows), _pictures(overview), strict=True)],
    }


def _sorted(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What needs a person first, then by density."""
    return sorted(rows, key=lambda row: (STATE_ORDER.index(row["status"]), row["mean_vbmd_mg_cm3"] or 0.0))


def _findings(states: Mapping[str, int], measured: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = ", ".join(f"{states[name]} {name}" for name in reversed(STATE_ORDER) if states.get(name))
    lines = [f"{counts}."] if counts else []
    values = sorted(row["mean_vbmd_mg_cm3"] for row in measured)
    if values:
        middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        lines.append(f"vBMD from {number(values[0], 1)} to {number(values[-1], 1)} mg/cm³, median {number(middle, 1)}.")
    return lines


def _class(name: str, measured: Sequence[Mapping[str, Any]]) -> tuple[str, str, int, str]:
    count = sum(row["category"] == name for row in measured)
    low, high = f"{OSTEOPOROSIS_BELOW_MG_CM3:.0f}", f"{NORMAL_ABOVE_MG_CM3:.0f}"
    limits = {"osteoporosis_range": f"below {low}", "low_bone_mass": f"{low} to {high}", "normal": f"above {high}"}
    return CATEGORY_TITLES[name], limits[name], count, _share(count, len(measured))


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else NO_VALUE


def _flag_counts(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(code for row in rows for code in (row["flags"] or "").split())
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _reasons(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Why studies were not measured, the most frequent reason first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reason"]:
            groups.setdefault((row["status"], row["reason"]), []).append(row["study"])
    return [{"status": status, "reason": reason, "count": len(studies), "studies": studies[:EXAMPLES],
             "more": len(studies) - EXAMPLES}
            for (status, reason), studies in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))]


def _row(row: Mapping[str, Any], picture: str) -> dict[str, Any]:
    low, high = row["ci95_low_mg_cm3"], row["ci95_high_mg_cm3"]
    return {
        "study": row["study"], "status": row["status"], "picture": picture, "path": row.get("path", ""),
        "report": row["status"] != "failed", "vbmd": number(row["mean_vbmd_mg_cm3"], 1),
        "interval": NO_VALUE if low is None else f"{number(low, 0)} to {number(high, 0)}",
        "levels": " ".join((row["mean_of"] or NO_VALUE).split()),
        "category": CATEGORY_TITLES.get(row["category"], NO_VALUE),
        "flags": ", ".join(code.replace("_", " ") for code in (row["flags"] or "").split()),
        "reason": row["reason"] or "", "note": row["note"] or "",
    }


# --- pictures ----------------------------------------------------------------------------------------------

def _histogram(values: Sequence[float]) -> dict[str, Any] | None:
    """Bars and axis of the drawing; None without values."""
    if not values:
        return None
    first = min(math.floor(min(values) / BIN_MG_CM3), 4)
    last = max(math.floor(max(values) / BIN_MG_CM3), 15)
    counts = Counter(math.floor(value / BIN_MG_CM3) for value in values)
    wide, most = WIDTH / (last + 1 - first), max(counts.values())
    bars = [{"x": round((n - first) * wide + 1, 1), "width": round(wide - 2, 1), "count": counts[n],
             "height": round((HEIGHT - 16) * counts[n] / most, 1), "category": _category_of(n * BIN_MG_CM3)}
            for n in range(first, last + 1) if counts[n]]
    ticks = [(round((n - first) * wide, 1), f"{n * BIN_MG_CM3:.0f}") for n in range(first, last + 2) if n % 2 == 0]
    limits = [round((limit / BIN_MG_CM3 - first) * wide, 1) for limit in (OSTEOPOROSIS_BELOW_MG_CM3, NORMAL_ABOVE_MG_CM3)]
    return {"bars": bars, "ticks": ticks, "limits": limits, "width": WIDTH, "height": HEIGHT, "foot": FOOT}


def _category_of(low_mg_cm3: float) -> str:
    """Class of a bar that begins at low_mg_cm3."""
    if low_mg_cm3 < OSTEOPOROSIS_BELOW_MG_CM3:
        return CLASSES[0]
    return CLASSES[1] if low_mg_cm3 < NORMAL_ABOVE_MG_CM3 else CLASSES[2]


def _pictures(overview: Overview) -> Iterable[str]:
    """A small picture of each row as base64 PNG, "" where there is none."""
    left = THUMBNAILS
    for row in _sorted(overview.rows):
        path = overview.folder / row["study"] / PICTURE
        picture = _thumbnail(path) if left and row["status"] == "measured" else ""
        left -= bool(picture)
        yield picture


def _thumbnail(path: Path) -> str:
    """Means over blocks of pixels: a picture that may be a fraction smaller than asked, and needs no resampling."""
    from matplotlib import image

    try:
        pixels = image.imread(path)
    except (OSError, SyntaxError):  # Pillow's word for a damaged PNG
        return ""
    step = max(1, -(-max(pixels.shape[:2]) // THUMBNAIL_PX))
    height, width = (length // step for length in pixels.shape[:2])
    blocks = pixels[:height * step, :width * step, :3].reshape(height, step, width, step, -1)
    small = io.BytesIO()
    image.imsave(small, blocks.mean(axis=(1, 3)), format="png")
    return base64.b64encode(small.getvalue()).decode("ascii")
