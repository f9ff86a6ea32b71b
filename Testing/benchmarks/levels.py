"""Whether a vertebra is ever named wrongly without asking: CTs cut at random heights, mirrored, and made smaller or larger.

    python Testing/benchmarks/levels.py NAME=CT [NAME=CT ...] --centres CENTRES.json [--models FOLDER] [--cuts 20] [--seed 1]

CENTRES.json holds, by NAME, the true centres of T12, L1 and L2 as far as the scan shows them, LPS mm:
{"NAME": {"T12": [x, y, z], ...}}, or {"centre_lps_mm": [x, y, z]} in place of the list. A body that is named T12, L1 or L2
and does not lie at that level's centre is wrong. Cuts take slices away above, below, or on both sides, at heights drawn
with --seed. Sizes change the spacing of the voxels, and so the person. Prints a table; exit status 1 when a wrong level
would have been measured without asking, 0 else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "LowDoseBMD"))

from LowDoseBMDLib.anatomy import LEVELS  # noqa: E402
from LowDoseBMDLib.bodies import Spine, draw_bodies  # noqa: E402
from LowDoseBMDLib.bones import segment_bones  # noqa: E402
from LowDoseBMDLib.ctvolume import CTVolume  # noqa: E402
from LowDoseBMDLib.files.read import read_ct  # noqa: E402
from LowDoseBMDLib.flags import Refusal  # noqa: E402
from LowDoseBMDLib.geometry import Geometry  # noqa: E402
from LowDoseBMDLib.keypoints import find_keypoints  # noqa: E402
from LowDoseBMDLib.levels import Numbering, name_levels  # noqa: E402
from LowDoseBMDLib.pipeline import Models, open_models  # noqa: E402

SIZES = (0.8, 0.9, 1.1, 1.2)
LEAST_MM = 120.0
"""Of a scan, that a cut leaves: four vertebrae."""
SAME_MM = 14.0
"""A body this near to a level's true centre is that level, in a person of ordinary size; neighbours are 22 to 40 mm away."""
OUTCOMES = ("sure, right", "asks, right", "asks, right one second", "asks, neither", "none named", "SURE AND WRONG")

Centres = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Variant:
    """One scan to name. kind: row of the table. centres: true ones, LPS mm, by level. size: of the person, 1 as scanned."""

    kind: str
    ct: CTVolume
    centres: Centres
    size: float = 1.0


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cts", nargs="+", metavar="NAME=CT")
    parser.add_argument("--centres", type=Path, required=True)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    models, known = open_models(options.models), json.loads(options.centres.read_text(encoding="utf-8"))
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, _, path in (entry.partition("=") for entry in options.cts):
        for variant in variants(read_ct(Path(path)), centres_of(known[name]), options.cuts, options.seed):
            outcome, said = judged(variant, models)
            counts[name, variant.kind, outcome] += 1
            print(f"{name}, {variant.kind}: {outcome} {said}", file=sys.stderr, flush=True)
    show(counts)
    return int(any(outcome == OUTCOMES[-1] for _, _, outcome in counts))


def centres_of(entry: Mapping[str, object]) -> Centres:
    """True centres of the levels from one entry of CENTRES.json."""
    found = {}
    for level in LEVELS:
        if level in entry:
            value = entry[level]
            found[level] = np.array(value["centre_lps_mm"] if isinstance(value, dict) else value, float)
    return found


# --- scans -------------------------------------------------------------------------------------------------

def variants(ct: CTVolume, centres: Centres, cuts: int, seed: int) -> Iterator[Variant]:
    """The scan as it is, mirrored, in other sizes, and cut."""
    whole = Variant("as it is", ct, centres)
    yield whole
    yield mirrored(whole)
    yield from (resized(whole, size) for size in SIZES)
    for number in range(cuts):
        yield cut(whole, np.random.default_rng((seed, number)))


def mirrored(whole: Variant) -> Variant:
    """Left and right exchanged about the middle of the grid."""
    grid, last = whole.ct.geometry, whole.ct.geometry.shape_kji[2] - 1
    moved = {level: grid.to_lps(grid.to_kji(place) * (1, 1, -1) + (0, 0, last)) for level, place in whole.centres.items()}
    return Variant("mirrored", replace(whole.ct, hu=np.ascontiguousarray(whole.ct.hu[:, :, ::-1])), moved)


def resized(whole: Variant, size: float) -> Variant:
    """The same voxels, ``size`` times as large."""
    matrix = whole.ct.geometry.ijk_to_lps.copy()
    matrix[:3] *= size
    ct = replace(whole.ct, geometry=Geometry(whole.ct.geometry.shape_kji, matrix))
    return Variant(f"size {size:g}", ct, {level: size * place for level, place in whole.centres.items()}, size)


def cut(whole: Variant, rng: np.random.Generator) -> Variant:
    """Slices taken away above, below, or on both sides of what stays."""
    slices, grid = whole.ct.geometry.shape_kji[0], whole.ct.geometry
    least = min(slices, int(np.ceil(LEAST_MM / grid.spacing_kji_mm[0])))
    kind = rng.choice(["cut below", "cut above", "cut on both sides"])
    stays = int(rng.integers(least, slices + 1))
    start = {"cut below": slices - stays, "cut above": 0}.get(kind, int(rng.integers(0, slices - stays + 1)))
    part = grid.crop((start, 0, 0), (stays, *grid.shape_kji[1:]))
    return replace(whole, kind="cut", ct=replace(whole.ct, hu=whole.ct.hu[start:start + stays], geometry=part))


# --- names -------------------------------------------------------------------------------------------------

def judged(variant: Variant, models: Models) -> tuple[str, str]:
    """(one of OUTCOMES, what was read)."""
    try:
        bones = segment_bones(variant.ct, models.bones)
        spine = draw_bodies(variant.ct, bones, models.bodies)
    except Refusal:
        return "none named", ""
    numbering = name_levels(spine, find_keypoints(variant.ct, models.keypoints), bones)
    named = [f"{name} {100 * numbering.probability:.0f} %" for name in numbering.names if name in LEVELS]
    return outcome_of(numbering, spine, variant), ", ".join(named)


def outcome_of(numbering: Numbering, spine: Spine, variant: Variant) -> str:
    """One of OUTCOMES."""
    asks, right = numbering.asks, fits(numbering.names, spine, variant)
    if not any(name in LEVELS for name in numbering.names):
        return "none named"
    if not asks:
        return "sure, right" if right else OUTCOMES[-1]
    if right:
        return "asks, right"
    return "asks, right one second" if fits(numbering.second, spine, variant) else "asks, neither"


def fits(names: tuple[str | None, ...], spine: Spine, variant: Variant) -> bool:
    """Whether each body that is named T12, L1 or L2 lies at that level's true centre."""
    return all(name in variant.centres
               and np.linalg.norm(body.centre_lps_mm - variant.centres[name]) <= SAME_MM * variant.size
               for name, body in zip(names, spine.bodies, strict=True) if name in LEVELS)


def show(counts: Counter[tuple[str, str, str]]) -> None:
    """Print the table."""
    rows = list(dict.fromkeys((name, kind) for name, kind, _ in counts))
    wide = max(len(f"{name}, {kind}") for name, kind in rows) + 2
    print(" " * wide + "".join(f"{outcome:>24}" for outcome in OUTCOMES))
    for name, kind in [*rows, ("all", "")]:
        cells = [sum(n for (a, b, c), n in counts.items() if (a, b) == (name, kind) or name == "all" if c == outcome)
                 for outcome in OUTCOMES]
        print(f"{f'{name}, {kind}' if kind else name:{wide}}" + "".join(f"{cell or '':>24}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
