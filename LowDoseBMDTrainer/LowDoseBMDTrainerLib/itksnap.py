"""ITK-SNAP's files: label descriptions in and out, and a workspace of image and segmentation.

Label descriptions: text, one label a line, ``IDX R G B A VIS MSH "LABEL"``, lines with # are comments, index 0 is the
clear label; a name ends at the next quotation mark, so that it cannot hold one. Workspace (.itksnap): XML of folders and
entries (a "registry"); layer 0 is the image, its metadata hold the label table, and paths are found again when image and
workspace move together. Published by ITK-SNAP's own reader and writer (github.com/pyushkevich/itksnap).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.atomic import write_whole
from LowDoseBMDLib.files.markups import write_keypoints
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask

from .cases import DRAWN, Labels

IMAGE, SEGMENTATION, DESCRIPTIONS, WORKSPACE = "image.nii.gz", "segmentation.nii.gz", "labels.txt", "workspace.itksnap"
KEYPOINTS = "keypoints.mrk.json"

LARGEST_INDEX = 65535
"""ITK-SNAP's labels are 16 bits wide."""

WORKSPACE_VERSION = "20230925"
"""Release date of the ITK-SNAP (4.2) whose workspaces these are like; it must be there for a file to be a workspace."""

BONE_WINDOW_HU = (1800.0, 400.0)
"""Width and centre of the window in which bones are drawn."""

_LINE = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.eE+-]+)\s+(\d+)\s+(\d+)\s*"([^"]*)"?')
_LINE_NO_QUOTES = re.compile(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.eE+-]+)\s+(\d+)\s+(\d+)\s+(\S.*?)\s*")


@dataclass(frozen=True)
class SnapLabel:
    """One label. colour: sRGB 0-255. opacity: 0 to 1. visible: in slices; in_3d: as a surface."""

    index: int
    name: str
    colour: tuple[int, int, int]
    opacity: float = 1.0
    visible: bool = True
    in_3d: bool = True


CLEAR = SnapLabel(0, "Clear Label", (0, 0, 0), 0.0, False, False)
"""ITK-SNAP's background."""


def registry_labels(names: Iterable[str] | None = None) -> tuple[SnapLabel, ...]:
    """The clear label and structures of the registry, in the order of their labels. names: all when None."""
    chosen = STRUCTURES.values() if names is None else (STRUCTURES[name] for name in names)
    ordered = sorted(chosen, key=lambda structure: structure.label)
    return CLEAR, *(SnapLabel(each.label, each.title, each.colour) for each in ordered)


# --- label descriptions ------------------------------------------------------------------------------------

def write_label_descriptions(path: Path, labels: Iterable[SnapLabel]) -> None:
    """A label-description file. Quotation marks and line breaks in names, which the format cannot hold, become ' and blanks.

    Raises ValueError for an index beyond LARGEST_INDEX, one that occurs twice, or a colour beyond 0-255.
    """
    rows = sorted({label.index: label for label in (CLEAR, *labels)}.values(), key=lambda label: label.index)
    head = ["# ITK-SnAP Label Description File",
            "# Each line: index, red, green, blue (0 to 255), opacity (0 to 1),",
            "# visible in slices (0 or 1), visible as a surface (0 or 1), name",
            "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL"]
    write_whole(path, "\n".join([*head, *map(_line, rows)]) + "\n")


def _line(label: SnapLabel) -> str:
    if not 0 <= label.index <= LARGEST_INDEX or not all(0 <= c <= 255 for c in label.colour):
        raise ValueError(f"label {label.index} {label.name!r} of colour {label.colour}: ITK-SNAP's labels go from 0 to "
                         f"{LARGEST_INDEX}, colours from 0 to 255")
    red, green, blue = label.colour
    return (f"{label.index:5d}   {red:3d}  {green:3d}  {blue:3d}  {label.opacity:7.2g}  {label.visible:d}  {label.in_3d:d}"
            f'    "{_storable(label.name)}"')


def _storable(name: str) -> str:
    return " ".join(name.replace('"', "'").split())


def read_label_descriptions(path: Path) -> tuple[SnapLabel, ...]:
    """The labels of a label-description file in the order of their lines; of two with one index the last counts.

    Raises ValueError naming the first line that is no label, or when there is none at all.
    """
    found: dict[int, SnapLabel] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line) or _LINE_NO_QUOTES.fullmatch(line)
        if match is None:
            raise ValueError(f"{path.name}, line {number}: {line.strip()[:60]!r} is no label of ITK-SNAP. It needs: index, "
                             'red, green, blue, opacity, visible, surface, "name".')
        index, red, green, blue = (int(text) for text in match.group(1, 2, 3, 4))
        found[index] = SnapLabel(index, match[8], (red, green, blue), _opacity(match[5]), match[6] != "0", match[7] != "0")
    if not found:
        raise ValueError(f"{path.name} describes no label")
    return tuple(found.values())


def _opacity(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no opacity between 0 and 1") from None


# --- workspace ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Workspace:
    """What a workspace names: its image, its first segmentation (None when there is none) and its labels."""

    image: Path
    segmentation: Path | None
    labels: tuple[SnapLabel, ...]


def export_workspace(folder: Path, ct: CTVolume, labels: Labels) -> tuple[str, ...]:
    """Image, segmentation, label descriptions, keypoints and a workspace that opens them together.

    ct: written with canonical axes, as NIfTI. labels: on any grid; the segmentation lies voxel for voxel on the image's.
    Where structures overlap, the voxel is the smaller one's (a body within the vertebrae). Returns the names of structures
    that gave way somewhere. The folder is made when it is not there; files of an earlier export are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array, covered = label_map(labels.masks, labels.geometry)
    if not labels.geometry.same_grid(ct.geometry):
        raise ValueError("the labels lie on another grid than the CT; read them on the CT's grid")
    write_volume(folder / IMAGE, ct.hu, ct.geometry)
    write_volume(folder / SEGMENTATION, array, ct.geometry)
    described = registry_labels({*DRAWN, *labels.masks})
    write_label_descriptions(folder / DESCRIPTIONS, described)
    write_keypoints(folder / KEYPOINTS, labels.keypoints)
    write_workspace(folder / WORKSPACE, folder / IMAGE, folder / SEGMENTATION, described, ct)
    return covered


def label_map(masks: Mapping[str, Mask], geometry: Geometry) -> tuple[np.ndarray, tuple[str, ...]]:
    """(k, j, i) uint8 with the registry's labels, and the names of structures that are covered in part by others."""
    array, covered = np.zeros(geometry.shape_kji, np.uint8), set()
    for name in sorted(masks, key=lambda name: (STRUCTURES[name].group != "bone", STRUCTURES[name].label)):
        if not masks[name].empty:
            box, voxels = array[masks[name].box], masks[name].voxels
            covered.update(int(label) for label in np.unique(box[voxels]) if label)
            box[voxels] = STRUCTURES[name].label
    return array, tuple(name for name in masks if STRUCTURES[name].label in covered)


def write_workspace(path: Path, image: Path, segmentation: Path, labels: Iterable[SnapLabel], ct: CTVolume) -> None:
    """A workspace file of an image, which holds ``ct`` (layer 0), and its segmentation (layer 1), seen in a bone window."""
    root = ElementTree.Element("registry")
    _entries(root, {"SaveLocation": path.resolve().parent.as_posix(), "Version": WORKSPACE_VERSION})
    layers = _folder(root, "Layers")
    for number, (file, role) in enumerate(((image, "MainRole"), (segmentation, "SegmentationRole"))):
        layer = _folder(layers, f"Layer[{number:03d}]")
        _entries(layer, {"AbsolutePath": file.resolve().as_posix(), "Role": role, "Tags": ""})
        if number == 0:
            _settings(layer, labels, ct)
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="unicode", xml_declaration=True).replace("utf-8", "UTF-8") + "\n")


def _settings(layer: ElementTree.Element, labels: Iterable[SnapLabel], ct: CTVolume) -> None:
    """ITK-SNAP reads these only where the dimensions are those of the image."""
    settings = _folder(layer, "ProjectMetaData")
    grey = _folder(_folder(settings, "Files"), "Grey")
    _entries(grey, {"Dimensions": " ".join(str(n) for n in ct.geometry.shape_kji[::-1])})
    iris = _folder(settings, "IRIS")
    _window(_folder(_folder(iris, "DisplayMapping"), "Curve"), ct)
    rows = [label for label in labels if label.index > 0]
    table = _folder(iris, "LabelTable")
    _entries(table, {"NumberOfElements": str(len(rows))})
    for number, label in enumerate(rows):
        _entries(_folder(table, f"Element[{number}]"), {
            "Alpha": str(round(255 * label.opacity)), "Color": " ".join(str(c) for c in label.colour),
            "Flags": f"{label.in_3d:d} {label.visible:d}", "Index": str(label.index), "Label": label.name})


def _window(curve: ElementTree.Element, ct: CTVolume) -> None:
    """The bone window as a curve: t of the image's range of values, x of the grey scale."""
    low, high = float(ct.hu.min()), float(ct.hu.max())
    centre, half = BONE_WINDOW_HU[1], BONE_WINDOW_HU[0] / 2
    points = [((hu - low) / (high - low), x) for hu, x in ((centre - half, 0), (centre, 0.5), (centre + half, 1))]
    _entries(curve, {"NumberOfControlPoints": str(len(points))})
    for number, (t, x) in enumerate(points):
        _entries(_folder(curve, f"ControlPoint[{number}]"), {"tValue": f"{t:g}", "xValue": f"{x:g}"})


def _folder(parent: ElementTree.Element, key: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, "folder", key=key)


def _entries(parent: ElementTree.Element, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(parent, "entry", key=key, value=value)


def read_workspace(path: Path) -> Workspace:
    """What a workspace names, found beside it when it was moved together with its images.

    Raises ValueError when the file is no workspace or names no image.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path.name} is no workspace of ITK-SNAP: {error}") from None
    saved = Path(_value(root, "SaveLocation"))
    files: dict[str, Path] = {}
    for layer in root.findall("./folder[@key='Layers']/folder"):
        files.setdefault(_value(layer, "Role"), _moved(Path(_value(layer, "AbsolutePath")), saved, path.resolve().parent))
    if "MainRole" not in files:
        raise ValueError(f"{path.name} names no main image: it is no workspace of ITK-SNAP")
    table = root.findall(".//folder[@key='LabelTable']/folder")
    return Workspace(files["MainRole"], files.get("SegmentationRole"), tuple(_table_label(row) for row in table))


def _value(folder: ElementTree.Element, key: str) -> str:
    entry = folder.find(f"./entry[@key='{key}']")
    return "" if entry is None else entry.get("value", "")


def _moved(file: Path, saved: Path, now: Path) -> Path:
    beside = now / file.relative_to(saved) if saved.parts and file.is_relative_to(saved) else now / file
    return beside if beside.exists() else file


def _table_label(row: ElementTree.Element) -> SnapLabel:
    red, green, blue = (int(text) for text in _value(row, "Color").split())
    in_3d, visible = (text != "0" for text in (_value(row, "Flags") or "1 1").split())
    return SnapLabel(int(_value(row, "Index")), _value(row, "Label"), (red, green, blue),
                     int(_value(row, "Alpha") or 255) / 255, visible, in_3d)
