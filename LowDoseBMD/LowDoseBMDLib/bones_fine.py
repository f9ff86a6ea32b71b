"""Stage 1b, bones drawn finely: a second residual UNet at 1.5 mm looks again where the first one found bone.

The first network sees the whole chest at 3 mm and says which bone is which; the second sees less of it and says where a bone
ends. What is drawn serves the eye: levels, tissues and numbers rest on the first drawing and on the vertebral bodies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import ndimage

from .anatomy import BONES
from .bones import AIR_HU, OTHER, Bones, drop_specks
from .ctvolume import CTVolume
from .geometry import Geometry, resample
from .inference import Engine, Progress, predict, silent, softmax
from .nearby import near

TILE_KJI = (96, 96, 96)
"""144 mm at 1.5 mm, as in the training."""

TILES_KJI: tuple[tuple[int, int, int], ...] = (
    TILE_KJI, (112, 96, 96), (96, 96, 112), (112, 96, 112), (112, 96, 128), (128, 96, 112), (128, 96, 128), (112, 112, 112))
"""Tiles of which those are taken that look at the fewest voxels in all. Chests are flat: eight of 128 x 96 x 128 take three
quarters of the time of eighteen of 96 x 96 x 96."""

MARGIN_VOXELS = 8
"""So near to its faces a tile is not relied on: the network sees too little round there. 12 mm at 1.5 mm (judgement)."""

REDRAWN: tuple[str, ...] = ("clavicles", "scapulae", "ribs")
"""Vertebrae are drawn along the spine, by the network of their bodies."""

FOUND = 0.3
"""Chance of a bone in the first drawing from which on it is worth a second look."""

REACH_MM = 6.0
"""Nothing is drawn further than this from what the first network found: two of its voxels (judgement)."""

IDENTITY_MM = 3.0
"""Standard deviation of the blur by which the first drawing names what the second one finds beside it."""

DOUBT = 0.0002
"""Least weight of a name in that: a name that the first network did not think of near there must be 5,000 times likelier
than the others by the second one. Of 0.02, 0.002 and this, clavicles and scapulae of LIDC-IDRI-0001 come out best so."""

FAINT = 0.1
"""Chance of bone below which nothing is drawn, nor named."""


@dataclass(frozen=True, eq=False)
class _First:
    """What the first drawing says, on its grid. weight: by name (k, j, i) float32, of each name for a bone that is found
    there. places: (k, j, i) bool, where a bone may be drawn."""

    geometry: Geometry
    weight: dict[str, np.ndarray]
    places: np.ndarray


def refine_bones(ct: CTVolume, bones: Bones, engine: Engine, progress: Progress = silent,
                 names: Collection[str] = REDRAWN) -> Bones:
    """The named bones (of anatomy.BONES, or bones.OTHER where both networks know it) on the grid of a finer network; the
    chance of the others is 0. ``bones`` itself where it holds none of them.

    Raises inference.Cancelled when the progress callback asks.
    """
    first = _first(bones, engine.bundle.outputs, names)
    if not first.places.any():
        return bones
    grid, tile, starts = place_tiles(first.places, first.geometry, ct.geometry.with_spacing(engine.bundle.spacing_mm))
    hu = resample(ct.hu, ct.geometry, grid, outside=AIR_HU)
    chance = np.zeros((len(BONES) + 1, *grid.shape_kji), np.float32)  # what is never written takes no memory
    fields = {name: field for name, field in zip((*BONES, OTHER), chance, strict=True)
              if name in names and name in first.weight}
    weight, bell = np.zeros(grid.shape_kji, np.float32), _bell(tile)
    for done, start in enumerate(starts):
        progress("drawing ribs, clavicles and scapulae", done / len(starts))
        box = tuple(slice(s, s + n) for s, n in zip(start, tile, strict=True))
        weight[box] += bell
        logits = predict(engine, hu[box], tile)
        at, bone, name_of = _named(logits, engine.bundle.outputs, first, grid.crop(start, tile))
        for number, name in enumerate(first.weight):
            if name in fields:
                own = tuple(along[name_of == number] for along in at)
                fields[name][box][own] += bone[name_of == number] * bell[own]
    for field in fields.values():
        np.divide(field, weight, out=field, where=field > 0)
        drop_specks(field, grid)
    return Bones(grid, chance[:-1], chance[-1] if OTHER in fields else None)


def _first(bones: Bones, outputs: tuple[str, ...], names: Collection[str]) -> _First:
    known = {name: bones.of(name) for name in BONES if name in outputs}
    if bones.other is not None and OTHER in outputs:
        known[OTHER] = bones.other
    spacing = bones.geometry.spacing_kji_mm
    found = np.any([np.zeros(bones.geometry.shape_kji), *(known[name] > FOUND for name in known if name in names)], axis=0)
    blur = [IDENTITY_MM / s for s in spacing]
    weight = {name: ndimage.gaussian_filter(values, blur, truncate=3.0) + DOUBT for name, values in known.items()}
    return _First(bones.geometry, weight, near(found, REACH_MM, spacing))


def _named(logits: np.ndarray, outputs: tuple[str, ...], first: _First,
           tile: Geometry) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Of a tile's voxels that may be bone: their k, j, i, the chance that they are, and the number of its name in
    ``first.weight``.

    Whether there is bone is what the second network says. It is all of one name, that with the greatest product of its
    chance and the first one's weight: shares of many names would each stay below one half at a border.
    """
    ends = first.geometry.to_kji(tile.to_lps(np.array([[0, 0, 0], tile.shape_kji])))
    there = [np.linspace(low, high, n, endpoint=False) for low, high, n in zip(*ends, tile.shape_kji, strict=True)]
    nearest = [np.clip(np.rint(along).astype(int), 0, n - 1) for along, n in zip(there, first.places.shape, strict=True)]
    at = np.nonzero(first.places[np.ix_(*nearest)])
    chance = softmax(logits[(slice(None), *at)])[[outputs.index(name) for name in first.weight]]
    seen = chance.sum(axis=0) > FAINT
    at, chance = tuple(along[seen] for along in at), chance[:, seen]
    places = [along[n] for along, n in zip(there, at, strict=True)]
    weight = [ndimage.map_coordinates(values, places, order=1, mode="nearest") for values in first.weight.values()]
    return at, chance.sum(axis=0), np.argmax(chance * weight, axis=0)


def _bell(shape: tuple[int, int, int]) -> np.ndarray:
    """(k, j, i) float32 weight of a tile's voxels where tiles overlap: it falls towards the faces."""
    sides = [np.minimum(1.0, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / (2 * MARGIN_VOXELS)) for n in shape]
    return np.einsum("k,j,i->kji", *sides).astype(np.float32)


# --- tiles -------------------------------------------------------------------------------------------------

Start = tuple[int, int, int]
"""First voxel (k, j, i) of a tile."""


def place_tiles(places: np.ndarray, source: Geometry, whole: Geometry) -> tuple[Geometry, Start, list[Start]]:
    """Tiles over all true voxels of ``places`` (k, j, i on ``source``, not empty): the part of the fine grid ``whole`` that
    they take up, their shape, which is one of TILES_KJI, and where each begins in that part.

    The scan is cut into slabs along one axis, these along another, and so on, each where there is something to see in it;
    of the shapes, and the orders of the axes, that with the fewest voxels is taken.
    """
    steps = np.divide(whole.spacing_kji_mm, source.spacing_kji_mm)
    margins = [int(np.ceil(MARGIN_VOXELS * step)) for step in steps]
    found = [(shape, _cover(places, order, [max(1, int(n * step)) for n, step in zip(shape, steps, strict=True)], margins))
             for shape in TILES_KJI for order in permutations(range(3))]
    shape, coarse = min(found, key=lambda tiles: len(tiles[1]) * np.prod(tiles[0]))
    starts = np.rint(whole.to_kji(source.to_lps(np.array(coarse) - 0.5)) + 0.5).astype(int)
    first = starts.min(axis=0)
    grid = whole.crop(tuple(first), tuple(starts.max(axis=0) + shape - first))
    return grid, shape, [tuple(int(n) for n in start - first) for start in starts]


def _cover(places: np.ndarray, axes: tuple[int, ...], sides: list[int], margins: list[int],
           start: Start = (0, 0, 0)) -> list[Start]:
    """First voxels of tiles over what is true, cut along these axes; ``start`` has the axes that were cut before."""
    if not axes:
        return [start]
    axis = axes[0]
    rows = np.flatnonzero(places.any(axis=tuple(n for n in range(3) if n != axis)))
    found = []
    for first, piece in _cuts(rows, places.shape[axis], sides[axis], margins[axis]):
        part = places[tuple(piece if n == axis else slice(None) for n in range(3))]
        found += _cover(part, axes[1:], sides, margins, tuple(first if n == axis else s for n, s in enumerate(start)))
    return found


def _cuts(rows: np.ndarray, size: int, side: int, margin: int) -> Iterator[tuple[int, slice]]:
    """(first row of a tile, the rows that it is relied on for), from the first of the rows that must be seen to the last.

    Only at an end of the scan does a tile reach all rows up to its face.
    """
    while rows.size:
        low = int(rows[0])
        end = max(low - margin, 0) + side
        own = rows[rows < (end if end >= size else end - margin)]
        rows = rows[own.size:]
        middle = (low + int(own[-1]) + 1 - side) // 2
        yield max(0, min(middle, size - side)), slice(low, int(own[-1]) + 1)
