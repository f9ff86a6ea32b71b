"""Regions as a Slicer segmentation (.seg.nrrd): written with names, colours and codes, read back exactly.

The trabecular core lies inside its body and the body inside the vertebrae, so segments overlap: the file
holds several layers (a 4D NRRD whose first axis is the list of layers), and in each layer every segment has
its own label value. Only the box around all segments is stored. Format: Slicer's documentation, "Segmentation
file format (.seg.nrrd)", and http://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..anatomy import BY_LABEL, STRUCTURES, Code, Structure
from ..flags import Refusal
from ..geometry import Geometry, resample
from ..rois import NO_VOXELS, Mask, Rois
from .atomic import whole_file
from .volumes import refuse_wild_nrrd

if TYPE_CHECKING:
    import SimpleITK

_log = logging.getLogger(__name__)

_GZIP = 31
"""zlib's window bits for a gzip stream."""
_COMPRESSION_LEVEL = 1
"""Masks are long runs: level 1 gives files within a factor of two of level 6 in a third of the time."""
MIN_INSIDE = 0.5
"""Share of the regions' volume that must lie inside the CT to believe that they belong to it."""
_TERMINOLOGY = "Segmentation category and type - 3D Slicer General Anatomy list"
_SEGMENT_ID = re.compile(r"Segment(\d+)_ID")
_REGIONS = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class StoredSegmentation:
    """What a segmentation file held.

    masks: by structure name, on the CT's grid. unknown: segments (or labels) that name no structure of the
    registry and were left out. resampled: the file's grid was not aligned with the CT's, so masks were
    moved to it by nearest neighbour.
    """

    masks: dict[str, Mask]
    unknown: tuple[str, ...] = ()
    resampled: bool = False


@dataclass(frozen=True)
class _Segment:
    """One entry of a file: the structure it names (None: unknown), what the file calls it, and where it is."""

    structure: Structure | None
    title: str
    layer: int
    value: int


# --- writing -----------------------------------------------------------------------------------------------

def write_segmentation(path: Path, rois: Rois) -> None:
    """Write every mask of ``rois`` to a .seg.nrrd that Slicer opens with names, colours and DICOM codes.

    Empty masks become empty segments. The file is written whole or not at all.

    Raises
    ------
    ValueError
        A mask's name is not in the registry.
    """
    unknown = [name for name in rois.masks if name not in STRUCTURES]
    if unknown:
        raise ValueError(f"masks {unknown} are not in the registry; add them to anatomy.py first")
    masks = {name: rois.masks[name] for name in STRUCTURES if name in rois.masks}
    start, shape = _union_box(masks, rois.geometry)
    layers, layer_of = _layers(masks, start, shape)
    header = _header(rois.geometry, masks, layer_of, start, layers)
    with whole_file(Path(path)) as aside, open(aside, "wb") as file:
        file.write(header.encode("utf-8"))
        _write_compressed(file, layers)


def _union_box(masks: Mapping[str, Mask], geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """(start, shape), each (3,) k, j, i, of the box round all masks, at least two voxels wide where the
    grid is: Slicer 5.12 crashes on a stored image of a single voxel."""
    boxes = [mask for mask in masks.values() if not mask.empty]
    start = np.min([mask.start_kji for mask in boxes], axis=0) if boxes else np.zeros(3, int)
    stop = np.max([np.add(mask.start_kji, mask.voxels.shape) for mask in boxes], axis=0) if boxes else start
    if np.any(start < 0) or np.any(stop > geometry.shape_kji):
        raise ValueError(f"a mask reaches from {start} to {stop}, beyond the grid of {geometry.shape_kji}")
    stop = np.minimum(np.maximum(stop, start + 2), geometry.shape_kji)
    start = np.maximum(0, np.minimum(start, stop - 2))
    return start, stop - start


def _layers(masks: Mapping[str, Mask], start: np.ndarray,
            shape: np.ndarray) -> tuple[list[np.ndarray], dict[str, int]]:
    """Spread masks over the fewest layers without overlap, first fit: (k, j, i) uint8 each, and who is where."""
    layers: list[np.ndarray] = []
    layer_of: dict[str, int] = {}
    for name, mask in masks.items():
        box = tuple(slice(b.start - s, b.stop - s) for b, s in zip(mask.box, start, strict=True))
        if mask.empty:
            box = (slice(0, 0),) * 3
        number = next((n for n, layer in enumerate(layers) if not layer[box][mask.voxels].any()), len(layers))
        if number == len(layers):
            layers.append(np.zeros(shape, np.uint8))
        layers[number][box][mask.voxels] = STRUCTURES[name].label
        layer_of[name] = number
    return layers or [np.zeros(shape, np.uint8)], layer_of


def _header(geometry: Geometry, masks: Mapping[str, Mask], layer_of: Mapping[str, int], start: np.ndarray,
            layers: list[np.ndarray]) -> str:
    stored = geometry.crop(tuple(start), layers[0].shape)
    columns = [_vector(stored.ijk_to_lps[:3, axis]) for axis in range(3)]
    sizes = " ".join(str(n) for n in stored.shape_kji[::-1])
    many = len(layers) > 1
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        "type: unsigned char",
        f"dimension: {4 if many else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' if many else ''}{sizes}",
        f"space directions: {'none ' if many else ''}{' '.join(columns)}",
        f"kinds: {'list ' if many else ''}domain domain domain",
        "encoding: gzip",
        f"space origin: {_vector(stored.ijk_to_lps[:3, 3])}",
    ]
    for number, (name, mask) in enumerate(masks.items()):
        lines += _segment_lines(number, STRUCTURES[name], layer_of[name], mask, start)
    lines += [
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        f"Segmentation_ConversionParameters:=Reference image geometry|{_reference_geometry(geometry)}||&",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        f"Segmentation_ReferenceImageExtentOffset:={' '.join(str(n) for n in start[::-1])}",
    ]
    return "\n".join(lines) + "\n\n"


def _segment_lines(number: int, structure: Structure, layer: int, mask: Mask, start: np.ndarray) -> list[str]:
    low = np.subtract(mask.start_kji, start)[::-1]
    high = low + mask.voxels.shape[::-1] - 1
    extent = [0, -1] * 3 if mask.empty else [n for pair in zip(low, high, strict=True) for n in pair]
    fields = {
        "Color": " ".join(f"{c / 255:.6g}" for c in structure.colour),
        "ColorAutoGenerated": "0",
        "Extent": " ".join(str(n) for n in extent),
        "ID": structure.name,
        "LabelValue": str(structure.label),
        "Layer": str(layer),
        "Name": structure.title,
        "NameAutoGenerated": "0",
        "Tags": f"TerminologyEntry:{terminology_entry(structure)}|",
    }
    return [f"Segment{number}_{key}:={value}" for key, value in fields.items()]


def terminology_entry(structure: Structure) -> str:
    """Slicer's serialised terminology of one structure: context, category, type, modifier, no region."""
    modifier = _code(structure.modifier) if structure.modifier else "^^"
    return "~".join((_TERMINOLOGY, _code(structure.category), _code(structure.type), modifier,
                     _REGIONS, "^^", "^^"))


def _code(code: Code) -> str:
    return f"{code.scheme}^{code.value}^{code.meaning}"


def _vector(values: np.ndarray) -> str:
    return f"({','.join(repr(float(v)) for v in values)})"


def _reference_geometry(geometry: Geometry) -> str:
    """The CT's whole grid as Slicer serialises it (IJK to RAS, row by row; extent), so that drawing in
    Slicer is not confined to the stored box."""
    matrix = geometry.ijk_to_ras
    extent = [n for size in geometry.shape_kji[::-1] for n in (0, size - 1)]
    return "".join(f"{v!r};" for v in [*map(float, matrix.ravel()), *map(int, extent)])


def _write_compressed(file, layers: list[np.ndarray]) -> None:
    """Interleave the layers slice by slice (the list axis runs fastest) and gzip them as one stream."""
    packer = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP)
    for slices in zip(*layers, strict=True):
        file.write(packer.compress(np.stack(slices, axis=-1).tobytes()))
    file.write(packer.flush())


# --- reading -----------------------------------------------------------------------------------------------

def read_segmentation(path: Path, geometry: Geometry) -> dict[str, Mask]:
    """Masks by structure name on the CT's grid; see `load_segmentation`, which also says what was left out."""
    return load_segmentation(path, geometry).masks


def load_segmentation(path: Path, geometry: Geometry) -> StoredSegmentation:
    """Read regions from a .seg.nrrd (ours, or re-saved by Slicer) or a label map with the registry's labels.

    A segment belongs to the structure that its visible name names (title or registry name, in any case);
    failing that, to the one that its ID names. Of two segments for one structure the first counts and the
    other is reported as unknown. Aligned grids (any axis order, integer offset) are read exactly, others by
    nearest neighbour. What lies beyond the CT is cut off.

    Raises
    ------
    Refusal
        code ``segmentation_unreadable``, ``segmentation_unmatched`` (the message lists expected names),
        ``segmentation_foreign_labels``: a label map in another numbering, or ``segmentation_elsewhere``: most of
        it lies outside the CT.
    """
    import SimpleITK as sitk

    image = _read_image(Path(path))
    segments, unknown = _distinct(_segments(image))
    if not any(segment.structure for segment in segments):
        raise _unmatched(unknown)
    if unknown:
        _log.warning("segments not in the registry were left out: %s", ", ".join(unknown))
    masks: dict[str, Mask] = {}
    resampled = False
    stored_mm3 = kept_mm3 = 0.0
    for number in sorted({segment.layer for segment in segments}):
        layer = _layer(image, number)
        array, start, moved = _on_grid(layer, geometry)
        resampled |= moved
        stored_mm3 += np.count_nonzero(sitk.GetArrayViewFromImage(layer)) * float(np.prod(layer.GetSpacing()))
        kept_mm3 += np.count_nonzero(array) * geometry.voxel_volume_mm3
        masks |= _split(array, start, [s for s in segments if s.layer == number])
    if kept_mm3 < MIN_INSIDE * stored_mm3:
        raise Refusal("segmentation_elsewhere", f"Only {100 * kept_mm3 / stored_mm3:.0f} % of the regions lie inside the "
                      "CT: the segmentation belongs to another scan, or its position was lost. Save it with this CT.")
    return StoredSegmentation({name: masks[name] for name in STRUCTURES if name in masks}, unknown, resampled)


def _read_image(path: Path) -> SimpleITK.Image:
    import SimpleITK as sitk

    if not path.is_file():
        raise Refusal("segmentation_unreadable", "There is no segmentation file at the given path; check it.")
    refuse_wild_nrrd(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise Refusal("segmentation_unreadable", "The file cannot be read as a segmentation; expected "
                                                 "a .seg.nrrd, or a label map (.nrrd, .nii.gz).") from error
    if image.GetDimension() != 3:
        raise Refusal("segmentation_unreadable", f"The segmentation has {image.GetDimension()} dimensions, "
                                                 "not 3. Save it as .seg.nrrd from 3D Slicer.")
    return image


def _layer(image: SimpleITK.Image, number: int) -> SimpleITK.Image:
    import SimpleITK as sitk

    if image.GetNumberOfComponentsPerPixel() == 1:
        return image
    return sitk.VectorIndexSelectionCast(image, number)


def _segments(image: SimpleITK.Image) -> list[_Segment]:
    """Entries of the file: Slicer's Segment{n}_* keys when it has them, else one per label value."""
    keys = set(image.GetMetaDataKeys())
    numbers = sorted(int(match.group(1)) for match in map(_SEGMENT_ID.fullmatch, keys) if match)
    if not numbers:
        return _labels(image)
    entries = []
    for n in numbers:
        values = {field: image.GetMetaData(f"Segment{n}_{field}") if f"Segment{n}_{field}" in keys else ""
                  for field in ("ID", "Name", "Layer", "LabelValue")}
        structure = _named(values["Name"]) or _named(values["ID"])
        entries.append(_Segment(structure, values["Name"] or values["ID"], _whole(values["Layer"], 0),
                                _whole(values["LabelValue"], 1)))
    return entries


def _whole(text: str, missing: int) -> int:
    try:
        return int(text or missing)
    except ValueError:
        raise Refusal("segmentation_unreadable", f"The segmentation says {text[:20]!r} where the number of a layer or label "
                                                 "belongs. Save it again from 3D Slicer.") from None


def _labels(image: SimpleITK.Image) -> list[_Segment]:
    """Entries of a label map without names. Any number outside the registry means another numbering (or an
    image), where even a number that exists would stand for the wrong structure: refused, not guessed."""
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(_layer(image, 0))
    values = [int(v) for v in np.unique(array) if v != 0]
    foreign = [str(v) for v in values if v not in BY_LABEL]
    if foreign:
        raise Refusal("segmentation_foreign_labels", (
            f"The label map holds values that are not ours ({', '.join(foreign[:8])}), so its numbering is "
            "another one. Save it as .seg.nrrd with named segments, or start from it with --labels and --scheme."))
    return [_Segment(BY_LABEL[v], f"label {v}", 0, v) for v in values]


def _named(text: str) -> Structure | None:
    wanted = _plain(text)
    return next((s for s in STRUCTURES.values() if wanted in (_plain(s.title), _plain(s.name))), None)


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def _distinct(entries: list[_Segment]) -> tuple[list[_Segment], tuple[str, ...]]:
    """The first entry of every structure, and the titles of all others."""
    chosen: dict[str, _Segment] = {}
    unknown = []
    for entry in entries:
        if entry.structure is None or entry.structure.name in chosen:
            unknown.append(entry.title)
        else:
            chosen[entry.structure.name] = entry
    return list(chosen.values()), tuple(unknown)


def _on_grid(layer: SimpleITK.Image, geometry: Geometry) -> tuple[np.ndarray, tuple[int, int, int], bool]:
    """One layer as (k, j, i) labels along the CT's axes, the index of its first voxel, and if it was moved."""
    import SimpleITK as sitk

    layer = sitk.DICOMOrient(layer, "LPS")
    stored = Geometry.from_image(layer)
    labels = sitk.GetArrayFromImage(layer)
    if labels.dtype.kind == "f":
        labels = np.rint(labels).astype(np.int32)
    start = tuple(int(n) for n in np.rint(geometry.to_kji(stored.ijk_to_lps[:3, 3])))
    if not geometry.crop(start, stored.shape_kji).same_grid(stored):
        return resample(labels, stored, geometry, 0, nearest=True), (0, 0, 0), True
    low = np.maximum(0, np.negative(start))
    high = np.minimum(stored.shape_kji, np.subtract(geometry.shape_kji, start))
    inside = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    return labels[inside], tuple(int(n) for n in np.add(start, low)), False


def _split(labels: np.ndarray, start: tuple[int, int, int], segments: list[_Segment]) -> dict[str, Mask]:
    from scipy.ndimage import find_objects

    boxes = find_objects(labels) if labels.size else []
    masks = {}
    for segment in segments:
        box = boxes[segment.value - 1] if 0 < segment.value <= len(boxes) else None
        if box is None:
            masks[segment.structure.name] = NO_VOXELS
        else:
            corner = tuple(s + b.start for s, b in zip(start, box, strict=True))
            masks[segment.structure.name] = Mask.from_array(labels[box] == segment.value, corner)
    return masks


def _unmatched(unknown: tuple[str, ...]) -> Refusal:
    titles = ", ".join(f"'{s.title}'" for s in STRUCTURES.values())
    found = ", ".join(f"'{name}'" for name in unknown) or "no segment"
    return Refusal("segmentation_unmatched", f"The segmentation holds {found}, which names no region that "
                                             f"is measured. Name the segments as one of: {titles}.")
