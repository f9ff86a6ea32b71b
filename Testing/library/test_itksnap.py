"""ITK-SNAP's files: label descriptions and workspaces as its own reader takes them, voxels where they should lie."""

from __future__ import annotations

import gzip
import re
import shutil
import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
import small_cases
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDTrainerLib.cases import DRAWN, Labels
from LowDoseBMDTrainerLib.itksnap import (
    CLEAR,
    SnapLabel,
    export_workspace,
    read_label_descriptions,
    read_workspace,
    registry_labels,
    write_label_descriptions,
)
from LowDoseBMDTrainerLib.mapping import map_file
from small_cases import block

SAMPLE = '''################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "Vertebrae"
    4     0  128  255     0.53  1  0    "rib left 3 (upper)"
  300    12   34   56        1  0  1    "T12"

65535   205  133   63    1e-05  1  1    "Wirbelk\u00f6rper, L1 body"
'''
"""In the form that ITK-SNAP 3 and 4 write: the clear label, sparse and large indices, fractions, blanks and commas."""


def by_streams(text: str) -> dict[int, tuple]:
    """What a reader makes of a file that takes white-space separated numbers and then the text between two quotation marks,
    line by line, as ITK-SNAP's reader does with C++ streams. Fails where that reader would."""
    found = {}
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        numbers, rest = line[:line.index('"')].split(), line[line.index('"') + 1:]
        index, red, green, blue = (int(word) for word in numbers[:4])
        assert len(numbers) == 7 and 0 <= index < 65536 and all(0 <= c < 256 for c in (red, green, blue))
        found[index] = ((red, green, blue), float(numbers[4]), int(numbers[5]), int(numbers[6]), rest[:rest.index('"')])
    return found


def test_a_file_of_itk_snap_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.label").write_text(SAMPLE, encoding="utf-8")
    assert read_label_descriptions(tmp_path / "a.label") == (
        CLEAR, SnapLabel(1, "Vertebrae", (255, 0, 0)), SnapLabel(4, "rib left 3 (upper)", (0, 128, 255), 0.53, True, False),
        SnapLabel(300, "T12", (12, 34, 56), 1.0, False, True),
        SnapLabel(65535, "Wirbelk\u00f6rper, L1 body", (205, 133, 63), 1e-05, True, True))


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text,
                                    lambda text: text.replace("    ", "\t"), lambda text: text.rstrip()])
def test_files_that_other_editors_have_saved_are_read(tmp_path: Path, change) -> None:
    (tmp_path / "a.txt").write_bytes(change(SAMPLE).encode("utf-8"))
    assert [label.index for label in read_label_descriptions(tmp_path / "a.txt")] == [0, 1, 4, 300, 65535]


def test_a_name_without_quotation_marks_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("  3  1 2 3  1  1 1  Left scapula \n")
    assert read_label_descriptions(tmp_path / "a.txt") == (SnapLabel(3, "Left scapula", (1, 2, 3)),)


@pytest.mark.parametrize("text", ["1 2 3\n", "hello\n", "1 255 0 0 1 1 1\n", '-1 0 0 0 1 1 1 "x"\n', "", "# a comment\n",
                                  '1 255 0 0 . 1 1 "x"\n'])
def test_what_is_no_label_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError):
        read_label_descriptions(tmp_path / "a.txt")


def test_the_line_that_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SAMPLE.replace("  300 ", "  xyz "), encoding="utf-8")
    with pytest.raises(ValueError, match="a.txt, line 8"):
        read_label_descriptions(tmp_path / "a.txt")


def test_what_is_written_has_the_fields_that_itk_snap_reads(tmp_path: Path) -> None:
    labels = (SnapLabel(7, 'so-called "hump"\n of T8', (1, 2, 3), 0.25, False, True), SnapLabel(40000, "  ", (255,) * 3),
              SnapLabel(2, "\u80cb\u9aa8", (0, 0, 0), 1 / 3))
    write_label_descriptions(tmp_path / "a.txt", labels)
    text = (tmp_path / "a.txt").read_bytes().decode("utf-8")
    assert "\r" not in text and text.endswith("\n")
    assert by_streams(text) == {
        0: ((0, 0, 0), 0.0, 0, 0, "Clear Label"), 2: ((0, 0, 0), 0.33, 1, 1, "\u80cb\u9aa8"),
        7: ((1, 2, 3), 0.25, 0, 1, "so-called 'hump' of T8"), 40000: ((255, 255, 255), 1.0, 1, 1, "")}


def test_the_registry_goes_out_and_comes_back(tmp_path: Path) -> None:
    write_label_descriptions(tmp_path / "a.txt", registry_labels())
    read = read_label_descriptions(tmp_path / "a.txt")
    assert read[0] == CLEAR
    assert {label.index: (label.name, label.colour) for label in read[1:]} == {
        each.label: (each.title, each.colour) for each in STRUCTURES.values()}


@pytest.mark.parametrize("label", [SnapLabel(65536, "x", (0, 0, 0)), SnapLabel(1, "x", (0, 256, 0)),
                                   SnapLabel(-1, "x", (0, 0, 0))])
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, label: SnapLabel) -> None:
    with pytest.raises(ValueError, match="ITK-SNAP"):
        write_label_descriptions(tmp_path / "a.txt", [label])


# --- workspace ---------------------------------------------------------------------------------------------

LABELS = Labels(small_cases.geometry(), {
    "vertebrae": block((4, 8, 9), (10, 6, 7)), "ribs": block((6, 2, 1), (2, 3, 4)), "body_L1": block((5, 8, 9), (4, 3, 5)),
    "scapulae": NO_VOXELS}, (Keypoint("L1", (1.0, 2.0, 3.0)),))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / 'out & "in"'
    assert export_workspace(folder, small_cases.ct(), LABELS) == ("vertebrae",)
    return folder


def test_the_workspace_has_what_itk_snap_looks_for(exported: Path) -> None:
    """Keys as its reader asks for them, with folders and entries only."""
    root = ElementTree.parse(exported / "workspace.itksnap").getroot()
    assert root.tag == "registry" and {node.tag for node in root.iter()} == {"registry", "folder", "entry"}
    keys = {"entry": {"key", "value"}, "folder": {"key"}, "registry": set()}
    assert all(set(node.attrib) == keys[node.tag] for node in root.iter())
    values = flat(root)
    assert values["SaveLocation"] == str(exported) and values["Version"].isdecimal()
    assert values["Layers.Layer[000].Role"] == "MainRole" and values["Layers.Layer[001].Role"] == "SegmentationRole"
    assert values["Layers.Layer[000].AbsolutePath"] == str(exported / "image.nii.gz")
    settings = "Layers.Layer[000].ProjectMetaData."
    assert values[settings + "Files.Grey.Dimensions"] == "22 20 24"  # otherwise it ignores the rest
    table = settings + "IRIS.LabelTable."
    assert values[table + "NumberOfElements"] == "8"
    assert [values[f"{table}Element[{n}].Index"] for n in range(8)] == ["1", "2", "3", "4", "5", "11", "12", "13"]
    assert values[table + "Element[0].Label"] == "Vertebrae" and values[table + "Element[0].Color"] == "230 220 170"
    assert values[table + "Element[0].Flags"] == "1 1" and values[table + "Element[0].Alpha"] == "255"


def test_the_workspace_shows_bones(exported: Path) -> None:
    """The curve takes t, a part of the image's range, to x of the grey scale: the ends lie at -500 and 1300 HU."""
    values, hu = flat(ElementTree.parse(exported / "workspace.itksnap").getroot()), small_cases.ct().hu
    curve = "Layers.Layer[000].ProjectMetaData.IRIS.DisplayMapping.Curve."
    seen = [(float(hu.min()) + float(values[f"{curve}ControlPoint[{n}].tValue"]) * float(np.ptp(hu.astype(int))),
             float(values[f"{curve}ControlPoint[{n}].xValue"])) for n in range(3)]
    np.testing.assert_allclose(seen, [(-500, 0), (400, 0.5), (1300, 1)], atol=0.5)


def flat(folder: ElementTree.Element, prefix: str = "") -> dict[str, str]:
    found = {prefix + entry.get("key"): entry.get("value") for entry in folder.findall("entry")}
    for child in folder.findall("folder"):
        found |= flat(child, f"{prefix}{child.get('key')}.")
    return found


def test_a_workspace_is_read_where_it_was_moved_to(exported: Path, tmp_path: Path) -> None:
    shutil.move(exported, tmp_path / "moved")
    workspace = read_workspace(tmp_path / "moved" / "workspace.itksnap")
    assert workspace.image == tmp_path / "moved" / "image.nii.gz" and workspace.image.exists()
    assert workspace.segmentation == tmp_path / "moved" / "segmentation.nii.gz"
    assert workspace.labels == registry_labels(DRAWN)[1:]


@pytest.mark.parametrize("text", ["", "<registry>", "<registry></registry>", "hello"])
def test_what_is_no_workspace_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.itksnap").write_text(text)
    with pytest.raises(ValueError, match="no workspace"):
        read_workspace(tmp_path / "a.itksnap")


def test_what_was_exported_is_imported_again(exported: Path) -> None:
    """The body lies in the vertebrae's voxels in the file, and within the vertebrae again when it is read."""
    mapped = map_file(exported / "segmentation.nii.gz", small_cases.ct())
    assert mapped.unmapped == () and set(mapped.labels.masks) == {"vertebrae", "ribs", "body_L1"}
    for name, mask in mapped.labels.masks.items():
        np.testing.assert_array_equal(mask.full(small_cases.geometry()), LABELS.masks[name].full(small_cases.geometry()))


# --- orientation -------------------------------------------------------------------------------------------

def oblique() -> Geometry:
    """Turned by 20 degrees about the patient's z and 10 about x."""
    a, b = np.radians(20), np.radians(10)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(small_cases.SPACING_MM)
    matrix[:3, 3] = (-15.0, 7.0, -120.0)
    return Geometry(small_cases.SHAPE_KJI, matrix)


def nifti_header(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())[:352]


def affines_of(header: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(sform, qform) from the bytes of a NIfTI-1 header, after the standard's formulas: voxel i, j, k to RAS mm."""
    assert struct.unpack_from("<i", header, 0)[0] == 348 and header[344:348] == b"n+1\0"
    qform_code, sform_code = struct.unpack_from("<hh", header, 252)
    assert qform_code > 0 and sform_code > 0, "ITK-SNAP, FSL and others look at different ones of the two"
    sform = np.vstack([np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4), [0, 0, 0, 1]])
    b, c, d, x, y, z = struct.unpack_from("<6f", header, 256)
    pixdim = struct.unpack_from("<8f", header, 76)
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array([[a * a + b * b - c * c - d * d, 2 * b * c - 2 * a * d, 2 * b * d + 2 * a * c],
                     [2 * b * c + 2 * a * d, a * a + c * c - b * b - d * d, 2 * c * d - 2 * a * b],
                     [2 * b * d - 2 * a * c, 2 * c * d + 2 * a * b, a * a + d * d - c * c - b * b]])
    qform = np.eye(4)
    qform[:3, :3] = turn * np.array([pixdim[1], pixdim[2], pixdim[3] * (-1 if pixdim[0] < 0 else 1)])
    qform[:3, 3] = x, y, z
    return sform, qform


@pytest.mark.parametrize("grid", [small_cases.geometry(), oblique()], ids=["straight", "oblique"])
def test_a_voxel_at_a_known_place_lies_there_for_every_reader(tmp_path: Path, grid: Geometry) -> None:
    """One voxel, k 5, j 3, i 17: image and segmentation, by the header's bytes and by SimpleITK."""
    hu = np.full(grid.shape_kji, -1000, np.int16)
    hu[5, 3, 17] = 900
    mask = Mask(np.ones((1, 1, 1), bool), (5, 3, 17))
    export_workspace(tmp_path, CTVolume(hu, grid), Labels(grid, {"ribs": mask}))
    lps = grid.ijk_to_lps @ [17, 3, 5, 1]
    for name, value in (("image.nii.gz", 900), ("segmentation.nii.gz", STRUCTURES["ribs"].label)):
        for affine in affines_of(nifti_header(tmp_path / name)):
            np.testing.assert_allclose(affine @ [17, 3, 5, 1], lps * [-1, -1, 1, 1], atol=1e-3)
        image = sitk.ReadImage(str(tmp_path / name))
        assert image.TransformPhysicalPointToIndex(lps[:3]) == (17, 3, 5)
        array = sitk.GetArrayFromImage(image)
        assert array[5, 3, 17] == value and np.count_nonzero(array == value) == 1
        stored = gzip.decompress((tmp_path / name).read_bytes())
        bytes_each = struct.unpack_from("<h", stored, 72)[0] // 8  # i runs fastest in the file
        at = int(struct.unpack_from("<f", stored, 108)[0]) + ((5 * 20 + 3) * 22 + 17) * bytes_each
        assert int.from_bytes(stored[at:at + bytes_each], "little") == value
    headers = [nifti_header(tmp_path / name) for name in ("image.nii.gz", "segmentation.nii.gz")]
    assert headers[0][40:56] == headers[1][40:56] and headers[0][76:108] == headers[1][76:108], "dimensions and spacing"
    assert headers[0][252:328] == headers[1][252:328], "both forms of the position are the same to the bit"


def test_no_name_or_description_leaves_with_the_image(exported: Path) -> None:
    header = nifti_header(exported / "image.nii.gz")
    assert re.fullmatch(rb"\0*", header[148:252]), "descrip and aux_file"


def test_labels_on_another_grid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another grid"):
        export_workspace(tmp_path, small_cases.ct(), Labels(oblique(), {}))


def test_an_empty_case_is_exported_with_all_labels_to_draw(tmp_path: Path) -> None:
    export_workspace(tmp_path, small_cases.ct(), Labels(small_cases.geometry()))
    assert read_workspace(tmp_path / "workspace.itksnap").labels == registry_labels(DRAWN)[1:]
