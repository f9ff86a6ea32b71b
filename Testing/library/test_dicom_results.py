"""DICOM Segmentation and Structured Report: every voxel, code and number comes back, and strangers' headers do no harm."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.calibration import TwoPointCalibration, calibration_to_dict
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.dicom import source_files
from LowDoseBMDLib.files.dicom_results import write_dicom_results
from LowDoseBMDLib.files.dicom_seg import cielab, write_dicom_seg
from LowDoseBMDLib.files.dicom_source import DicomResultError
from LowDoseBMDLib.files.dicom_sr import write_dicom_sr
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.record import to_dict
from LowDoseBMDLib.results import DISCLAIMER
from LowDoseBMDLib.review import Review
from LowDoseBMDLib.rois import LevelFinding, Mask, Rois
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid
from test_calibration_models import RESCALED_LINE

SHAPE_KJI = (24, 22, 26)
"""22 x 26 pixels do not fill whole bytes, so frames of a bit per pixel share some."""
SPACING_IJK_MM = (0.8, 0.9, 2.5)
ORIGIN_MM = (-31.5, 12.25, -400.0)
STUDY_UID, FRAME_UID = "1.2.3", "1.2.3.4"
LETTERS = {"L": (2, 1), "R": (2, -1), "P": (1, 1), "A": (1, -1), "S": (0, 1), "I": (0, -1)}
"""Direction of the patient -> axis of the canonical array (k, j, i), and its sign."""

BOXES = {
    "trabecular_L1": ((14, 22), (2, 12), (2, 12)), "body_L1": ((13, 23), (1, 13), (1, 13)),
    "trabecular_L2": ((2, 10), (2, 12), (2, 12)), "body_L2": ((1, 11), (1, 13), (1, 13)),
    "psoas_left": ((2, 12), (2, 8), (16, 24)), "psoas_right": ((13, 23), (2, 8), (16, 24)),
    "fat_anterior": ((2, 22), (15, 21), (4, 12)),
}
HU = {"trabecular_L1": 150, "trabecular_L2": 130, "psoas_left": 54, "psoas_right": 58, "fat_anterior": -105}


@dataclass(frozen=True)
class Orientation:
    """How slices are stored: where columns, rows and slices advance to; the patient turned by some degrees."""

    columns: str
    rows: str
    slices: str
    degrees: float = 0.0


ORIENTATIONS = {
    "usual": Orientation("L", "P", "S"), "head to foot": Orientation("L", "P", "I"), "prone": Orientation("R", "A", "S"),
    "feet first": Orientation("R", "P", "I"), "mirrored rows": Orientation("L", "A", "S"),
    "turned": Orientation("L", "P", "S", 12.0), "columns along rows": Orientation("P", "L", "S"),
    "sagittal": Orientation("P", "I", "L"), "coronal": Orientation("L", "I", "A", 7.0),
}


def canonical_geometry(degrees: float = 0.0) -> Geometry:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * SPACING_IJK_MM
    matrix[:3, 3] = ORIGIN_MM
    return Geometry(SHAPE_KJI, matrix)


def make_masks() -> dict[str, Mask]:
    """Boxes with holes, so that no flip maps a region onto itself."""
    rng = np.random.default_rng(3)
    masks = {}
    for name, box in BOXES.items():
        start, stop = zip(*box, strict=True)
        masks[name] = Mask(rng.random(np.subtract(stop, start)) > 0.1, start)
    masks["ribs"] = Mask(np.zeros((0, 0, 0), bool), (0, 0, 0))
    return masks


def make_hu(masks: dict[str, Mask]) -> np.ndarray:
    hu = np.random.default_rng(7).integers(-1000, 800, SHAPE_KJI).astype(np.int16)
    for name, value in HU.items():
        hu[masks[name].box][masks[name].voxels] = value
    return hu


def make_header(kind: str, series_uid: str) -> pydicom.FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "SECRET^NAME", "ID7", "19600102", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY_UID, series_uid, FRAME_UID
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240131", "0930", "S1", "A1"
    ds.ReferringPhysicianName = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.InstitutionName = "CT", 3, 1, "Town Hospital"
    ds.Manufacturer, ds.KVP, ds.ConvolutionKernel, ds.ImageType = "ACME", 120, "B30f", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    return ds


def stored_planes(hu: np.ndarray, grid: Geometry, stored: Orientation) -> list[tuple[np.ndarray, dict[str, list[float]]]]:
    """(pixels, position and orientation) of each slice of a canonical CT stored in another orientation."""
    axes = [LETTERS[letter] for letter in (stored.slices, stored.rows, stored.columns)]
    flips = tuple(slice(None, None, sign) for _, sign in axes)
    array = hu.transpose([axis for axis, _ in axes])[flips]
    first = np.zeros(3)
    for axis, sign in axes:
        first[axis] = 0 if sign > 0 else SHAPE_KJI[axis] - 1
    steps = [sign * np.eye(3)[axis] for axis, sign in axes]
    row_vector, column_vector = (grid.to_lps(first + step) - grid.to_lps(first) for step in (steps[2], steps[1]))
    spacing = [float(np.linalg.norm(column_vector)), float(np.linalg.norm(row_vector))]
    cosines = [*(row_vector / spacing[1]), *(column_vector / spacing[0])]
    place = {"ImageOrientationPatient": [round(float(v), 12) for v in cosines],
             "PixelSpacing": [round(v, 6) for v in spacing]}
    return [(pixels, {**place, "ImagePositionPatient": [round(float(v), 6) for v in grid.to_lps(first + n * steps[0])]})
            for n, pixels in enumerate(array)]


def write_series(folder: Path, hu: np.ndarray, stored: Orientation = ORIENTATIONS["usual"],
                 change: Callable[[Dataset], None] = lambda ds: None) -> str:
    """Single-frame slices under names in no useful order; returns the series UID."""
    folder.mkdir(parents=True)
    uid = generate_uid()
    for n, (pixels, place) in enumerate(stored_planes(hu, canonical_geometry(stored.degrees), stored)):
        ds = make_header(CTImageStorage, uid)
        ds.InstanceNumber, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = n + 1, 2.5, 1, -1024
        for name, value in place.items():
            setattr(ds, name, [f"{v:.10f}"[:16] for v in value])
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = (pixels + 1024).astype("<u2").tobytes()
        change(ds)
        ds.save_as(folder / f"slice{(n * 7) % 53:02d}_{n}")
    return uid


def write_enhanced(folder: Path, hu: np.ndarray) -> str:
    """All slices in one file, the frames from head to foot."""
    folder.mkdir(parents=True)
    ds = make_header(EnhancedCTImageStorage, generate_uid())
    planes = stored_planes(hu, canonical_geometry(), ORIENTATIONS["head to foot"])
    ds.NumberOfFrames, (ds.Rows, ds.Columns) = len(planes), planes[0][0].shape
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = planes[0][1]["ImageOrientationPatient"]
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = planes[0][1]["PixelSpacing"]
    shared.PixelMeasuresSequence[0].SliceThickness = 2.5
    shared.PixelValueTransformationSequence = [Dataset()]
    values = shared.PixelValueTransformationSequence[0]
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for _, place in planes:
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = place["ImagePositionPatient"]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.PixelData = np.stack([pixels + 1024 for pixels, _ in planes]).astype("<u2").tobytes()
    ds.save_as(folder / "enhanced.dcm")
    return str(ds.SeriesInstanceUID)


def make_rois(geometry: Geometry, masks: dict[str, Mask], **changes: object) -> Rois:
    levels = (LevelFinding("L1", True), LevelFinding("L2", True))
    return Rois(geometry, masks, levels=levels, **changes)


@dataclass(frozen=True)
class Study:
    """A series on disk and what was measured on it."""

    folder: Path
    out: Path
    ct: CTVolume
    rois: Rois
    record: dict

    @property
    def files(self) -> list[Path]:
        return source_files(self.folder, self.ct.acquisition.series_uid)

    def write(self) -> None:
        write_dicom_results(self.out, self.folder, self.rois, self.record)


def measured(folder: Path, review: Review | None = None, **changes: object) -> Study:
    """Read what lies in a folder, take the regions as drawn, and measure."""
    ct = read_ct(folder)
    rois = make_rois(ct.geometry, make_masks(), **changes)
    software = {"version": "9.9", "networks": {"bones": "bones 0.1 (abc123)"}}
    record = to_dict(measure(ct, rois, TwoPointCalibration()), ct.acquisition, software, 1.0)
    record["review"] = asdict(review) if review else None
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    return Study(folder, out, ct, rois, record)


@pytest.fixture
def a_study(tmp_path: Path) -> Study:
    write_series(tmp_path / "ct", make_hu(make_masks()))
    return measured(tmp_path / "ct", edited=frozenset({"psoas_left"}))


@pytest.fixture(scope="module")
def a_written_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same with its DICOM results; tests only read it."""
    root = tmp_path_factory.mktemp("study")
    write_series(root / "ct", make_hu(make_masks()))
    study = measured(root / "ct", edited=frozenset({"psoas_left"}))
    study.write()
    return study


def read_document(path: Path) -> highdicom.sr.Comprehensive3DSR:
    return highdicom.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(path))


def voxels_by_arithmetic(path: Path) -> dict[str, np.ndarray]:
    """Label -> (N, 3) LPS mm of each voxel: PS3.3 C.7.6.2.1.1 on the headers, the bits unpacked by pydicom."""
    ds = pydicom.dcmread(path)
    titles = {int(segment.SegmentNumber): str(segment.SegmentLabel) for segment in ds.SegmentSequence}
    shared = ds.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    found: dict[str, list[np.ndarray]] = {title: [] for title in titles.values()}
    for pixels, frame in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True):
        assert pixels.any(), "a frame that holds nothing"
        rows, columns = np.nonzero(pixels)
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        lps = position + columns[:, None] * column_mm * cosines[:3] + rows[:, None] * row_mm * cosines[3:]
        found[titles[int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]].append(lps)
    return {title: np.concatenate(parts) for title, parts in found.items()}


def voxels_by_highdicom(path: Path) -> dict[str, np.ndarray]:
    """The same through highdicom's own volumes."""
    seg = highdicom.seg.segread(path)
    found = {}
    for number in seg.segment_numbers:
        volume = seg.get_volume(segment_numbers=[number], combine_segments=False, allow_missing_positions=True)
        found[seg.get_segment_description(number).segment_label] = \
            volume.map_indices_to_reference(np.argwhere(volume.array[..., 0]))
    return found


def assert_same_points(found: np.ndarray, expected: np.ndarray) -> None:
    """Both (N, 3) mm, in any order."""
    assert len(found) == len(expected)
    found, expected = (points[np.lexsort(np.round(points, 2).T)] for points in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def assert_voxels(found: dict[str, np.ndarray], rois: Rois) -> None:
    drawn = {name: mask for name, mask in rois.masks.items() if not mask.empty}
    assert set(found) == {STRUCTURES[name].title for name in drawn}
    for name, mask in drawn.items():
        expected = rois.geometry.to_lps(np.argwhere(mask.full(rois.geometry)))
        assert_same_points(found[STRUCTURES[name].title], expected)


# --- segmentation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_comes_back_at_its_place_in_every_orientation(name: str, tmp_path: Path) -> None:
    stored = ORIENTATIONS[name]
    write_series(tmp_path / "ct", make_hu(make_masks()), stored)
    rois = make_rois(canonical_geometry(stored.degrees), make_masks())
    write_dicom_seg(tmp_path / "seg.dcm", rois, sorted((tmp_path / "ct").iterdir()))
    assert_voxels(voxels_by_arithmetic(tmp_path / "seg.dcm"), rois)
    assert_voxels(voxels_by_highdicom(tmp_path / "seg.dcm"), rois)


def test_frames_of_a_multi_frame_ct_are_referred_to_by_number(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "ct", make_hu(make_masks()))
    study = measured(tmp_path / "ct")
    study.write()
    assert_voxels(voxels_by_arithmetic(study.out / "segmentation.dcm"), study.rois)
    assert_voxels(voxels_by_highdicom(study.out / "segmentation.dcm"), study.rois)
    source = pydicom.dcmread(study.files[0])
    for frame in pydicom.dcmread(study.out / "segmentation.dcm").PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = source.PerFrameFunctionalGroupsSequence[int(image.ReferencedFrameNumber) - 1].PlanePositionSequence[0]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == place.ImagePositionPatient
    assert read_document(study.out / "report.dcm").VerificationFlag == "UNVERIFIED"


def test_each_frame_refers_to_the_slice_it_lies_on(a_written_study: Study) -> None:
    slices = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, a_written_study.files)}
    for frame in pydicom.dcmread(a_written_study.out / "segmentation.dcm").PerFrameFunctionalGroupsSequence:
        source = slices[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert source.ImagePositionPatient == frame.PlanePositionSequence[0].ImagePositionPatient


def test_names_codes_colours_and_origin_of_each_segment(a_written_study: Study) -> None:
    seg = highdicom.seg.segread(a_written_study.out / "segmentation.dcm")
    assert seg.number_of_segments == len(BOXES)
    by_title = {structure.title: structure for structure in STRUCTURES.values()}
    for number in seg.segment_numbers:
        segment = seg.get_segment_description(number)
        structure = by_title[segment.segment_label]
        for found, code in ((segment.segmented_property_category, structure.category),
                            (segment.segmented_property_type, structure.type)):
            assert (found.value, found.scheme_designator, found.meaning) == (code.value, code.scheme, code.meaning)
        modifiers = segment.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert [m.CodeValue for m in modifiers] == ([structure.modifier.value] if structure.modifier else [])
        edited = structure.name == "psoas_left"
        assert segment.algorithm_type.value == ("SEMIAUTOMATIC" if edited else "AUTOMATIC")
        assert segment.algorithm_identification.name == "LowDoseBMD"
        assert segment.tracking_id == structure.name
        lightness, a, b = segment.RecommendedDisplayCIELabValue
        colour = highdicom.color.CIELabColor(lightness * 100 / 65535, a * 255 / 65535 - 128, b * 255 / 65535 - 128)
        np.testing.assert_allclose(colour.to_rgb(), structure.colour, atol=1)


def test_the_size_of_the_frames_is_that_of_the_slices(a_written_study: Study) -> None:
    seg, source = pydicom.dcmread(a_written_study.out / "segmentation.dcm"), pydicom.dcmread(a_written_study.files[0])
    assert (seg.Rows, seg.Columns) == (source.Rows, source.Columns) == SHAPE_KJI[1:]
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == [0.9, 0.8]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (2.5, 2.5)
    assert seg.SegmentsOverlap == "YES"


def test_regions_that_a_reader_gave_are_not_called_automatic(a_study: Study) -> None:
    rois = make_rois(a_study.rois.geometry, make_masks(), erosion="edited")
    write_dicom_seg(a_study.out / "seg.dcm", rois, a_study.files)
    kinds = {s.TrackingID: s.SegmentAlgorithmType for s in pydicom.dcmread(a_study.out / "seg.dcm").SegmentSequence}
    assert kinds["trabecular_L1"] == "SEMIAUTOMATIC"
    assert kinds["fat_anterior"] == "AUTOMATIC"


@pytest.mark.parametrize(("colour", "lab"), [
    ((255, 255, 255), (65535, 32896, 32896)), ((0, 0, 0), (0, 32896, 32896)), ((255, 0, 0), (34894, 53485, 50170)),
])
def test_colours_become_cielab(colour: tuple[int, int, int], lab: Sequence[int]) -> None:
    """White, black and sRGB red (L 53.24, a 80.09, b 67.20) in DICOM's scaling."""
    np.testing.assert_allclose(cielab(colour), lab, atol=30)


def test_the_objects_belong_to_the_study_and_are_series_of_their_own(a_written_study: Study) -> None:
    source = pydicom.dcmread(a_written_study.files[0])
    seg, sr = (pydicom.dcmread(a_written_study.out / name) for name in ("segmentation.dcm", "report.dcm"))
    for ds in (seg, sr):
        for name in ("StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                     "AccessionNumber"):
            assert ds[name].value == source[name].value
        assert ds.CodingSchemeIdentificationSequence[-1].CodingSchemeDesignator == "99SBMD"
    assert seg.FrameOfReferenceUID == FRAME_UID
    assert len({source.SeriesInstanceUID, seg.SeriesInstanceUID, sr.SeriesInstanceUID}) == 3
    assert len({source.SOPInstanceUID, seg.SOPInstanceUID, sr.SOPInstanceUID}) == 3


def test_nothing_but_the_two_files_appears(a_study: Study) -> None:
    root = a_study.out.parent
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    a_study.write()
    after = {path for path in root.rglob("*") if path.is_file()}
    assert after - before.keys() == {a_study.out / "segmentation.dcm", a_study.out / "report.dcm"}
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_grid_rounded_by_another_reader_still_fits(a_study: Study) -> None:
    matrix = a_study.rois.geometry.ijk_to_lps.copy()
    matrix[:3, 3] += 0.02
    rois = make_rois(Geometry(SHAPE_KJI, matrix), make_masks())
    write_dicom_seg(a_study.out / "seg.dcm", rois, a_study.files)
    assert_voxels(voxels_by_arithmetic(a_study.out / "seg.dcm"), a_study.rois)


def shifted(geometry: Geometry) -> Geometry:
    return geometry.crop((0, 0, 1), geometry.shape_kji)


def shorter(geometry: Geometry) -> Geometry:
    return geometry.crop((0, 0, 0), (20, *geometry.shape_kji[1:]))


@pytest.mark.parametrize("change", [shifted, shorter])
def test_regions_of_another_scan_are_refused(change: Callable[[Geometry], Geometry], a_study: Study) -> None:
    with pytest.raises(DicomResultError, match="not those on which the regions lie"):
        write_dicom_seg(a_study.out / "seg.dcm", make_rois(change(a_study.rois.geometry), make_masks()), a_study.files)
    assert not list(a_study.out.iterdir())


# --- report ----------------------------------------------------------------------------------------------


def numbers_of(group: highdicom.sr.Template) -> dict[tuple[str, str | None], tuple[float, str]]:
    """(code of the quantity, code of the derivation) -> (value, unit)."""
    return {(m.name.value, m.derivation.value if m.derivation else None): (float(m.value), m.unit.value)
            for m in group.get_measurements()}


MEAN, SD, MEDIAN = "373098007", "386136009", "373099004"


def test_the_numbers_of_each_region_come_back_with_their_units(a_written_study: Study) -> None:
    content = read_document(a_written_study.out / "report.dcm").content
    groups = {group.tracking_identifier: group for group in content.get_volumetric_roi_measurement_groups()}
    assert set(groups) == {"trabecular_L1", "trabecular_L2", "psoas_left", "psoas_right", "fat_anterior"}
    level = next(level for level in a_written_study.record["levels"] if level["name"] == "L1")
    numbers = numbers_of(groups["trabecular_L1"])
    assert numbers["112031", MEAN] == (150.0, "[hnsf'U]")
    assert numbers["112031", SD] == (level["hu_sd"], "[hnsf'U]")
    assert numbers["112031", MEDIAN] == (150.0, "[hnsf'U]")
    assert numbers["118565006", None] == (level["volume_mm3"], "mm3")
    assert numbers["VBMD", None] == (level["vbmd_mg_cm3"], "mg/cm3")
    assert numbers["VBMDCI95L", None] == (level["vbmd_ci95"][0], "mg/cm3")
    assert numbers_of(groups["psoas_left"])["112031", MEAN] == (54.0, "[hnsf'U]")
    assert numbers_of(groups["fat_anterior"])["112031", MEAN] == (-105.0, "[hnsf'U]")
    assert numbers_of(groups["fat_anterior"])["118565006", None] == (a_written_study.record["fat"]["volume_mm3"], "mm3")


def test_the_mean_is_the_line_through_fat_and_muscle(a_written_study: Study) -> None:
    content = read_document(a_written_study.out / "report.dcm").content
    pooled = {group.tracking_identifier: group for group in content.get_image_measurement_groups()}
    muscle_hu = numbers_of(pooled["psoas_left_psoas_right"])["112031", MEAN][0]
    left, right = (np.count_nonzero(a_written_study.rois.masks[name].voxels) for name in ("psoas_left", "psoas_right"))
    assert muscle_hu == pytest.approx((54 * left + 58 * right) / (left + right), abs=0.05)
    expected = 50 + (140 - muscle_hu) * (50 + 78) / (muscle_hu + 105)
    numbers = numbers_of(pooled["mean_vbmd"])
    assert numbers["VBMD", MEAN] == (pytest.approx(expected, abs=0.1), "mg/cm3")
    assert [numbers[code, None][0] for code in ("VBMDCI95L", "VBMDCI95U")] == a_written_study.record["mean_vbmd_ci95"]
    evaluation, = pooled["mean_vbmd"].get_qualitative_evaluations()
    assert evaluation.value.value == "LOWMASSP"
    assert "provisional" in evaluation.value.meaning
    assert [site.value.meaning for site in pooled["mean_vbmd"].finding_sites] == ["L1 vertebra", "L2 vertebra"]


def test_each_group_refers_to_its_segment_and_slices(a_written_study: Study) -> None:
    seg = pydicom.dcmread(a_written_study.out / "segmentation.dcm")
    segments = {int(s.SegmentNumber): s for s in seg.SegmentSequence}
    content = read_document(a_written_study.out / "report.dcm").content
    for group in content.get_volumetric_roi_measurement_groups():
        reference, *images = group.referenced_segment
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        segment = segments[reference.ReferencedSOPSequence[0].ReferencedSegmentNumber]
        assert (segment.TrackingID, segment.TrackingUID) == (group.tracking_identifier, group.tracking_uid)
        low, high = BOXES[segment.TrackingID][0]
        assert len(images) == high - low


def texts(path: Path, code: str) -> list[str]:
    """Text items of a concept anywhere in a report."""
    found = []

    def walk(item: Dataset) -> None:
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == code and "TextValue" in item:
            found.append(str(item.TextValue))
        for child in item.get("ContentSequence", []):
            walk(child)
    walk(pydicom.dcmread(path))
    return found


def test_the_report_says_what_bears_on_the_numbers(a_written_study: Study) -> None:
    comments = texts(a_written_study.out / "report.dcm", "121106")
    assert "provisional" in comments[0]
    assert f"{a_written_study.record['mean_vbmd_mg_cm3']:.1f} mg/cm3" in comments[0]
    for flag in a_written_study.record["flags"]:
        assert f"[{flag['severity']}] {flag['sentence']}" in comments
    assert any("T12 was not measured" in comment for comment in comments)
    assert any("A reader drew or changed: Psoas left." in comment for comment in comments)
    assert comments[-1] == DISCLAIMER
    parameters = texts(a_written_study.out / "report.dcm", "111002")
    assert "network bones=bones 0.1 (abc123)" in parameters
    assert "calibration muscle_mg_cm3=50.0" in parameters
    assert "9.9" in texts(a_written_study.out / "report.dcm", "111003")


def test_only_an_accepted_measurement_is_verified(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", make_hu(make_masks()))
    signed = datetime.fromisoformat("2026-02-03T14:05:06+01:00")
    for decision, flag in (("accepted", "VERIFIED"), ("rejected", "UNVERIFIED")):
        study = measured(tmp_path / "ct", Review(decision, "Dr. 王 =^ Ærø", "seen", signed.isoformat()))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            study.write()
        sr = read_document(study.out / "report.dcm")
        assert flag == sr.VerificationFlag
        assert any(f"{decision.title()} by Dr. 王" in c and "seen" in c for c in texts(study.out / "report.dcm", "121106"))
        persons = [item for item in sr.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "121008"]
        if decision == "rejected":
            assert not persons
            assert "VerifyingObserverSequence" not in sr
            continue
        observer, = sr.VerifyingObserverSequence
        assert str(observer.VerifyingObserverName) == str(persons[0].PersonName) == "Dr. 王 Ærø^"
        assert observer.VerificationDateTime == "20260203140506+0100"
        assert observer.VerifyingOrganization == "Town Hospital"


def test_a_report_without_segmentation_refers_to_slices(a_study: Study) -> None:
    write_dicom_sr(a_study.out / "report.dcm", a_study.record, a_study.files, None)
    content = read_document(a_study.out / "report.dcm").content
    assert not content.get_volumetric_roi_measurement_groups()
    groups = {group.tracking_identifier: group for group in content.get_image_measurement_groups()}
    image, = groups["trabecular_L1"].source_images
    z = a_study.record["levels"][1]["centre_lps_mm"][2]
    source = next(ds for ds in map(pydicom.dcmread, a_study.files) if ds.SOPInstanceUID == image.referenced_sop_instance_uid)
    assert abs(float(source.ImagePositionPatient[2]) - z) <= SPACING_IJK_MM[2] / 2


def test_the_method_of_a_vbmd_is_that_of_its_calibration(a_study: Study) -> None:
    """A rescaled line; the method of the two-point line is "INTCAL", muscle and fat as the scale."""
    record = a_study.record | {"calibration": calibration_to_dict(RESCALED_LINE)}
    write_dicom_sr(a_study.out / "report.dcm", record, a_study.files, None)
    groups = read_document(a_study.out / "report.dcm").content.get_image_measurement_groups()
    told = [number.method.value for group in groups for number in group.get_measurements() if number.name.value == "VBMD"]
    assert told and set(told) == {"LINECAL"}


def test_a_refused_study_reports_why_and_has_no_segmentation(a_study: Study) -> None:
    rois = Rois(a_study.ct.geometry)
    record = to_dict(measure(a_study.ct, rois, TwoPointCalibration()), a_study.ct.acquisition, {}, 1.0)
    write_dicom_results(a_study.out, a_study.folder, rois, record)
    assert [path.name for path in a_study.out.iterdir()] == ["report.dcm"]
    content = read_document(a_study.out / "report.dcm").content
    group, = content.get_image_measurement_groups()
    assert not group.get_measurements()
    assert group.get_qualitative_evaluations()[0].value.value == "NOTMEASURED"
    assert any("neither T12, L1 nor L2" in comment for comment in texts(a_study.out / "report.dcm", "121106"))


# --- sources as they are ---------------------------------------------------------------------------------


def test_source_files_are_those_of_the_series_only(a_study: Study) -> None:
    wanted = sorted(a_study.folder.iterdir())
    write_series(a_study.folder / "other", make_hu(make_masks()))
    (a_study.folder / "readme.txt").write_text("no image")
    assert a_study.files == wanted
    assert source_files(wanted[3], a_study.ct.acquisition.series_uid) == wanted


def anonymise(ds: Dataset) -> None:
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                 "AccessionNumber", "ReferringPhysicianName", "SliceThickness", "InstitutionName"):
        delattr(ds, name)


def mistype(ds: Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.PatientSex, ds.PatientAge = "female", "about 60"
        ds.add_new("PatientBirthDate", "DA", "1960/1/2")
        ds.add_new("StudyTime", "TM", "9:30")
        ds.PatientID, ds.AccessionNumber = "X" * 80, "Y" * 30


def in_chinese(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "GB18030"
    ds.PatientName, ds.PatientID, ds.InstitutionName = "王^小东", "号7", "医院"


@pytest.mark.parametrize("change", [anonymise, mistype, in_chinese])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_incomplete_and_odd_headers_give_results_too(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(tmp_path / "ct", make_hu(make_masks()), change=change)
    study = measured(tmp_path / "ct", Review("accepted", "A", "", "2026-02-03T14:05:06+01:00"))
    study.write()
    assert_voxels(voxels_by_arithmetic(study.out / "segmentation.dcm"), study.rois)
    sr = read_document(study.out / "report.dcm")
    if change is in_chinese:
        assert str(sr.PatientName) == str(pydicom.dcmread(study.out / "segmentation.dcm").PatientName) == "王^小东"
        assert sr.PatientID == "号7"


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_headers_that_cannot_be_referred_to_are_named(name: str, tmp_path: Path) -> None:
    write_series(tmp_path / "ct", make_hu(make_masks()), change=lambda ds: delattr(ds, name))
    study = measured(tmp_path / "ct")
    (study.out / "segmentation.dcm").write_text("of an earlier run")
    (study.out / "measurement.json").write_text("{}")
    with pytest.raises(DicomResultError, match=f"No DICOM results were written.*{name}") as caught:
        study.write()
    assert "SECRET" not in str(caught.value)
    assert [path.name for path in study.out.iterdir()] == ["measurement.json"]


def test_a_series_that_is_gone_is_said(a_study: Study) -> None:
    for path in a_study.folder.iterdir():
        path.unlink()
    with pytest.raises(DicomResultError, match="No DICOM image"):
        a_study.write()


def test_without_a_usable_segmentation_the_report_is_still_written(a_study: Study) -> None:
    elsewhere = make_rois(shifted(a_study.rois.geometry), make_masks())
    with pytest.raises(DicomResultError, match="only report.dcm was written.*regions lie"):
        write_dicom_results(a_study.out, a_study.folder, elsewhere, a_study.record)
    assert [path.name for path in a_study.out.iterdir()] == ["report.dcm"]


def test_files_serve_as_well_as_their_folder(a_study: Study) -> None:
    record = {**a_study.record, "acquisition": {**a_study.record["acquisition"], "series_uid": None}}
    write_dicom_results(a_study.out, [*a_study.files, a_study.folder / "gone"], a_study.rois, record)
    assert_voxels(voxels_by_arithmetic(a_study.out / "segmentation.dcm"), a_study.rois)


def test_missing_highdicom_is_said(a_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(DicomResultError, match="highdicom 0.27"):
        a_study.write()


def test_highdicom_is_not_imported_before_it_is_needed() -> None:
    library = Path(sys.modules["LowDoseBMDLib"].__file__).parents[1]
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import LowDoseBMDLib.cli, LowDoseBMDLib.files.dicom_results, "
            "LowDoseBMDLib.files.dicom_seg, LowDoseBMDLib.files.dicom_sr; sys.exit('highdicom' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code, str(library)], check=False).returncode == 0
