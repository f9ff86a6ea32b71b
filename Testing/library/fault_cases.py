"""Faults of files, series and people, and of the machine: what is given, and what must come of it."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from fault_scene import NOT_HERE, Given, Lie, Outcome, Scene, run, write_series, write_volume
from LowDoseBMDLib.geometry import Geometry
from pydicom.dataset import FileDataset
from pydicom.uid import MRImageStorage, generate_uid

Make = Callable[[Scene, Path], Given | Outcome]


@dataclass(frozen=True)
class Fault:
    """name and given: what the table shows. status, codes: what must come of it (codes: one of them among the flags).

    same: every level's HU, volume and vBMD equal those of the plain CT. heavy: not among the tests, only in the table.
    """

    name: str
    given: str
    make: Make
    status: str
    codes: tuple[str, ...] = ()
    same: bool = False
    heavy: bool = False

    def run(self, scene: Scene, folder: Path) -> Outcome:
        """Make the fault in ``folder``, an empty one, and run the command line on it."""
        made = self.make(scene, folder)
        return made if isinstance(made, Outcome) else run(made, folder / "out")

    def wrong(self, outcome: Outcome, scene: Scene) -> str:
        """What is not as it must be; empty when all is."""
        if outcome == NOT_HERE:
            return ""
        found = [f"{outcome.status}, not {self.status}"] if outcome.status not in self.status.split(" or ") else []
        if self.codes and outcome.code not in self.codes and not set(self.codes) & set(outcome.code.split()):
            found.append(f"code {outcome.code}, not {' or '.join(self.codes)}")
        if self.same and outcome.record and not _same(outcome.record["levels"], scene.levels):
            found.append("another number than the plain CT")
        if outcome.status != "measured" and len(outcome.sentence.split()) < 5:
            found.append("no sentence")
        return "; ".join([*found, *([outcome.lost] if outcome.lost else [])])


def _same(levels: list[dict], plain: list[dict]) -> bool:
    """Without standard errors, which depend on the number of voxels that a region is divided into.

    A volume may differ by the rounding of the record and of a spacing of 0.045 mm, which NIfTI stores in 32 bits.
    """
    names = ("name", "hu_mean", "vbmd_mg_cm3")
    return all([one[name] for name in names] == [other[name] for name in names]
               and abs(one["volume_mm3"] - other["volume_mm3"]) < 0.15 for one, other in zip(levels, plain, strict=True))


def with_regions(scene: Scene, ct: Path) -> Given:
    """With the regions of the plain measurement: quick, and every number must come out the same."""
    return Given(ct, ("--rois", str(scene.rois)))


def write_ct_series(scene: Scene, folder: Path, **how: object) -> Path:
    """The phantom as a DICOM series in ``folder/ct``."""
    return write_series(folder / "ct", scene.hu, scene.geometry, **how)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# --- files -------------------------------------------------------------------------------------------------


def _cut_pixels(scene: Scene, folder: Path, keep: float = 0.5, which: int = 30) -> Given:
    """keep: share of the file of the slice; 0.01 ends within its header."""
    path = files_of(write_ct_series(scene, folder))[which]
    content = path.read_bytes()
    path.write_bytes(content[:int(keep * len(content))])
    return with_regions(scene, folder / "ct")


def _cut_volume(scene: Scene, folder: Path, ending: str) -> Given:
    path = write_volume(folder / f"ct{ending}", scene.hu, scene.geometry)
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    return with_regions(scene, path)


def _missing(scene: Scene, folder: Path) -> Given:
    for path in files_of(write_ct_series(scene, folder))[30:33]:
        path.unlink()
    return with_regions(scene, folder / "ct")


def _copies(scene: Scene, folder: Path) -> Given:
    for path in files_of(write_ct_series(scene, folder))[::5]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    return with_regions(scene, folder / "ct")


def _doubled(scene: Scene, folder: Path, same_uid: bool) -> Given:
    """The second of two files at one place shows something else: bone that is 50 HU denser."""
    for path in files_of(write_ct_series(scene, folder))[::5]:
        file = pydicom.dcmread(path)
        file.RescaleIntercept = -974
        if not same_uid:
            file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.save_as(path.with_name(f"0-{path.name}"))
    return with_regions(scene, folder / "ct")


def _two_kernels(scene: Scene, folder: Path) -> Given:
    study = generate_uid()
    write_ct_series(scene, folder, study=study)
    write_series(folder / "ct", scene.hu + 30, scene.geometry, study=study, number=3, ConvolutionKernel="B70f")
    return with_regions(scene, folder / "ct")


def _two_studies(scene: Scene, folder: Path) -> Given:
    write_ct_series(scene, folder)
    write_series(folder / "ct", scene.hu + 30, scene.geometry, number=3)
    return with_regions(scene, folder / "ct")


def _foreign_slice(scene: Scene, folder: Path) -> Given:
    """One slice is replaced by one of another matrix that bears the same series."""
    path = files_of(write_ct_series(scene, folder))[30]
    file = pydicom.dcmread(path)
    file.Rows, file.PixelData = 64, file.PixelData[:64 * file.Columns * 2]
    file.save_as(path)
    return with_regions(scene, folder / "ct")


def _compressed(scene: Scene, folder: Path, syntax: str) -> Given:
    def compress(file: FileDataset) -> None:
        file.compress(getattr(pydicom.uid, syntax))
    return with_regions(scene, write_ct_series(scene, folder, change=compress))


def _jpeg_lossless(scene: Scene, folder: Path) -> Given:
    """pydicom has no encoder of JPEG lossless: ITK's compresses the pixels."""
    def compress(file: FileDataset) -> None:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(folder / "one.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(file.pixel_array[None].astype(np.uint16)))
        one = pydicom.dcmread(folder / "one.dcm")
        file.file_meta.TransferSyntaxUID = one.file_meta.TransferSyntaxUID
        file["PixelData"] = one["PixelData"]
    return with_regions(scene, write_ct_series(scene, folder, change=compress))


def _deflated(scene: Scene, folder: Path) -> Given:
    def deflate(file: FileDataset) -> None:
        file.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    return with_regions(scene, write_ct_series(scene, folder, change=deflate))


def _unknown_compression(scene: Scene, folder: Path) -> Given:
    def mislead(file: FileDataset) -> None:
        file.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        file.PixelData = pydicom.encaps.encapsulate([file.PixelData])
        file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    return with_regions(scene, write_ct_series(scene, folder, change=mislead))


# --- values ------------------------------------------------------------------------------------------------


def _attributes(scene: Scene, folder: Path, **attributes: object) -> Given:
    return with_regions(scene, write_ct_series(scene, folder, **attributes))


def _no_rescale(scene: Scene, folder: Path) -> Given:
    def forget(file: FileDataset) -> None:
        del file.RescaleSlope, file.RescaleIntercept
    return with_regions(scene, write_ct_series(scene, folder, change=forget))


_SLOPE = struct.pack("<HH2sH", 0x0028, 0x1053, b"DS", 4)


def _raw_text(scene: Scene, folder: Path, old: bytes, new: bytes) -> Given:
    """What no writer writes: the bytes of an attribute are changed behind its back."""
    for path in files_of(write_ct_series(scene, folder)):
        path.write_bytes(path.read_bytes().replace(old, new, 1))
    return with_regions(scene, folder / "ct")


def _offset_by_slice(scene: Scene, folder: Path) -> Given:
    """Every slice has its own rescale, as PET-CT and some reconstructions write: HU are the same in the end."""
    def shift(file: FileDataset) -> None:
        k = file.InstanceNumber
        file.PixelData = (np.frombuffer(file.PixelData, "<u2") + k).astype("<u2").tobytes()
        file.RescaleIntercept = -1024 - k
    return with_regions(scene, write_ct_series(scene, folder, change=shift))


def _unsigned(scene: Scene, folder: Path) -> Given:
    """Stored values up to 65535, which a reader that takes them for signed turns over."""
    def raise_values(file: FileDataset) -> None:
        file.PixelData = (np.frombuffer(file.PixelData, "<u2").astype(np.int64) + 60000).astype("<u2").tobytes()
        file.RescaleIntercept = -61024
    return with_regions(scene, write_ct_series(scene, folder, change=raise_values))


def _unsigned_volume(scene: Scene, folder: Path) -> Given:
    values = np.maximum(scene.hu.astype(np.int32) + 1024, 0).astype(np.uint16)
    return with_regions(scene, write_volume(folder / "ct.nii", values, scene.geometry))


def _nan(scene: Scene, folder: Path) -> Given:
    hu = scene.hu.astype(np.float32)
    hu[30, 60:64, 60] = np.nan
    return with_regions(scene, write_volume(folder / "ct.nrrd", hu, scene.geometry))


def _float_pixels(scene: Scene, folder: Path) -> Given:
    """CT whose pixels are floating-point numbers, some of them NaN, as no CT object may have."""
    def to_float(file: FileDataset) -> None:
        values = np.frombuffer(file.PixelData, "<u2").astype("<f4")
        values[5000:5010] = np.nan
        del file.PixelData, file.PixelRepresentation, file.BitsStored, file.HighBit
        file.BitsAllocated, file.FloatPixelData = 32, values.tobytes()
    return with_regions(scene, write_ct_series(scene, folder, change=to_float))


def _wrong_numbers(scene: Scene, folder: Path, scale: float, shift: float) -> Given:
    """HU = scale * true + shift."""
    hu = np.rint(scene.hu * scale + shift).astype(np.int16)
    return with_regions(scene, write_volume(folder / "ct.nii", hu, scene.geometry))


# --- geometry ----------------------------------------------------------------------------------------------


def _tilted(scene: Scene, folder: Path) -> Given:
    def tilt(file: FileDataset) -> None:
        file.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(np.radians(15)):.8f}", f"{-np.sin(np.radians(15)):.8f}"]
    return with_regions(scene, write_ct_series(scene, folder, change=tilt))


def _one_slice(scene: Scene, folder: Path, dicom: bool) -> Given:
    grid = scene.geometry.crop((30, 0, 0), (1, *scene.hu.shape[1:]))
    if not dicom:
        return with_regions(scene, write_volume(folder / "ct.nii", scene.hu[30:31], grid))
    for path in files_of(write_ct_series(scene, folder))[1:]:
        path.unlink()
    return with_regions(scene, folder / "ct")


def _finer(scene: Scene, folder: Path, times_kji: tuple[int, int, int], dicom: bool = False) -> Given:
    """Every voxel divided into equal ones: the same HU by arithmetic."""
    hu = scene.hu
    for axis, times in enumerate(times_kji):
        hu = hu.repeat(times, axis)
    step = np.array(times_kji[::-1], float)
    matrix = scene.geometry.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ ((1 / step - 1) / 2)
    matrix[:3, :3] = matrix[:3, :3] / step
    grid = Geometry(hu.shape, matrix)
    ct = write_series(folder / "ct", hu, grid) if dicom else write_volume(folder / "ct.nii", hu, grid)
    return replace(with_regions(scene, ct), own_process=True)


def _flipped(scene: Scene, folder: Path, axes: tuple[int, ...]) -> Given:
    """The array turned over under an unchanged header; networks and all."""
    return Given(write_volume(folder / "ct.nii", np.flip(scene.hu, axes), scene.geometry))


def _lying(scene: Scene, folder: Path, position: str, lie: Lie) -> Given:
    return with_regions(scene, write_ct_series(scene, folder, lie=lie, PatientPosition=position))


LIES: dict[str, Lie] = {
    "HFS": Lie("L", "P", "S"), "FFS": Lie("R", "P", "I"), "HFP": Lie("R", "A", "S"), "FFP": Lie("L", "A", "I"),
    "HFDR": Lie("A", "L", "S"), "HFDL": Lie("P", "R", "S"), "FFDR": Lie("P", "L", "I"), "FFDL": Lie("A", "R", "I"),
}
"""How scanners store slices for each Patient Position: columns and rows as the operator sees the patient on the table
(DICOM PS3.3, C.7.3.1.1.2)."""


# --- what is no CT of a trunk ------------------------------------------------------------------------------


def _mr(scene: Scene, folder: Path, intercept: float) -> Given:
    """T1-weighted signal in the phantom's tissues: fat bright, muscle grey, cortical bone and air dark."""
    signal = np.interp(scene.hu, [-1000, -500, -100, 50, 150, 300, 1000], [5, 20, 900, 350, 500, 80, 10]).astype(np.int16)
    return Given(write_series(folder / "ct", signal - 1024, scene.geometry, RescaleIntercept=intercept))


def _mr_class(scene: Scene, folder: Path) -> Given:
    return Given(write_ct_series(scene, folder, Modality="MR", SOPClassUID=MRImageStorage))


def _everywhere(scene: Scene, folder: Path, hu: float, noise: float) -> Given:
    values = np.random.default_rng(1).normal(hu, noise, scene.hu.shape).astype(np.int16)
    return Given(write_volume(folder / "ct.nii", values, scene.geometry))


def _metal(scene: Scene, folder: Path, networks: bool) -> Given:
    """A block of 40 x 40 x 45 mm of 3071 HU in the place of L1, dark and bright streaks beside it."""
    level = next(level for level in scene.levels if level["name"] == "L1")
    k, j, i = (int(n) for n in np.rint(scene.geometry.to_kji(np.array(level["centre_lps_mm"]))))
    hu = scene.hu.astype(np.int32)
    hu[k - 7:k + 8, j - 3:j + 4] += np.where(np.arange(hu.shape[2]) % 4 < 2, 300, -300)
    hu[k - 7:k + 8, j - 8:j + 8, i - 8:i + 8] = 3071
    given = Given(write_volume(folder / "ct.nii", np.clip(hu, -1024, 3071).astype(np.int16), scene.geometry))
    return given if networks else replace(given, options=("--labels", str(scene.labels), "--scheme", "verse"))


# --- all of them -------------------------------------------------------------------------------------------


def _offiles_of() -> Iterator[Fault]:
    yield Fault("truncated DICOM", "one slice's pixels cut", _cut_pixels, "refused", ("truncated",))
    yield Fault("truncated DICOM", "one slice ends in its header", partial(_cut_pixels, keep=0.01), "refused",
                ("truncated", "missing_slices"))
    yield Fault("truncated DICOM", "the last slice ends in its header", partial(_cut_pixels, keep=0.01, which=75),
                "measured", ("damaged_files",))
    yield Fault("truncated DICOM", "the last slice is empty", partial(_cut_pixels, keep=0.0, which=75), "measured",
                ("damaged_files",))
    for ending in (".nii", ".nii.gz", ".nrrd", ".mha"):
        yield Fault("truncated volume", f"half of a {ending}", partial(_cut_volume, ending=ending), "refused",
                    ("truncated", "unreadable"))
    yield Fault("missing slices", "3 of 76 slices gone", _missing, "refused", ("missing_slices",))
    yield Fault("duplicate slices", "16 exact copies", _copies, "measured", same=True)
    yield Fault("duplicate slices", "16 positions twice", partial(_doubled, same_uid=False), "refused", ("doubled_slices",))
    yield Fault("duplicate slices", "the same, UIDs equal too", partial(_doubled, same_uid=True), "refused",
                ("doubled_slices",))
    yield Fault("mixed series", "sharp kernel beside smooth", _two_kernels, "measured", same=True)
    yield Fault("mixed series", "two studies in a folder", _two_studies, "refused", ("several_studies",))
    yield Fault("mixed series", "a slice of another matrix", _foreign_slice, "refused", ("missing_slices",))
    for syntax in ("JPEGLSLossless", "JPEG2000Lossless", "RLELossless"):
        yield Fault("compressed", syntax, partial(_compressed, syntax=syntax), "measured", same=True)
    yield Fault("compressed", "JPEG lossless", _jpeg_lossless, "measured", same=True)
    yield Fault("compressed", "deflated", _deflated, "measured", same=True)
    yield Fault("compressed", "a video's syntax", _unknown_compression, "refused", ("compression", "truncated"))


def _of_values() -> Iterator[Fault]:
    yield Fault("wrong rescale", "no slope and intercept", _no_rescale, "refused", ("no_rescale",))
    yield Fault("wrong rescale", "slope 0", partial(_attributes, RescaleSlope=0), "refused", ("no_rescale",))
    yield Fault("wrong rescale", "intercept 0", partial(_attributes, RescaleIntercept=0), "refused", ("hu_implausible",))
    yield Fault("wrong rescale", "intercept -2048", partial(_attributes, RescaleIntercept=-2048), "refused",
                ("hu_implausible", "not_a_body"))
    yield Fault("wrong rescale", "intercept 1000 too high", partial(_attributes, RescaleIntercept=-24), "refused",
                ("hu_implausible", "not_a_body"))
    yield Fault("wrong rescale", "slope 10", partial(_attributes, RescaleSlope=10), "refused",
                ("hu_implausible", "not_a_body"))
    yield Fault("wrong rescale", "type OD, not HU", partial(_attributes, RescaleType="OD"), "refused", ("no_rescale",))
    yield Fault("wrong rescale", "slope is no number", partial(_raw_text, old=_SLOPE + b"1.0 ", new=_SLOPE + b"one "),
                "refused", ("no_rescale",))
    yield Fault("wrong rescale", "slope is NaN", partial(_raw_text, old=_SLOPE + b"1.0 ", new=_SLOPE + b"nan "), "refused",
                ("no_rescale",))
    yield Fault("wrong rescale", "HU 10 % and 30 HU too high", partial(_wrong_numbers, scale=1.1, shift=30), "measured",
                ("muscle_hu",))
    yield Fault("rescale by slice", "another one in each slice", _offset_by_slice, "measured", same=True)
    yield Fault("16-bit unsigned", "DICOM, stored up to 65535", _unsigned, "measured", same=True)
    yield Fault("16-bit unsigned", "NIfTI, HU + 1024", _unsigned_volume, "refused", ("hu_implausible",))
    yield Fault("NaN", "4 voxels of a NRRD", _nan, "refused", ("not_finite",))
    yield Fault("NaN", "DICOM of floating-point pixels", _float_pixels, "refused", ("not_finite", "float_pixels"))


def _of_geometry() -> Iterator[Fault]:
    yield Fault("gantry tilt", "15 degrees, sheared slices", _tilted, "refused", ("gantry_tilt",))
    yield Fault("1 slice", "DICOM", partial(_one_slice, dicom=True), "refused", ("too_few_slices",))
    yield Fault("1 slice", "NIfTI", partial(_one_slice, dicom=False), "refused", ("not_3d", "too_few_slices"))
    yield Fault("5,000 slices", "NIfTI, 5016 x 130 x 119", partial(_finer, times_kji=(66, 1, 1)), "measured", same=True,
                heavy=True)
    yield Fault("5,000 slices", "DICOM, 5016 files", partial(_finer, times_kji=(66, 1, 1), dicom=True), "measured",
                same=True, heavy=True)
    yield Fault("1024 matrix", "DICOM, 1040 x 952", partial(_finer, times_kji=(1, 8, 8), dicom=True), "measured", same=True,
                heavy=True)
    yield Fault("upside-down", "head and foot exchanged", partial(_flipped, axes=(0,)), "refused",
                ("orientation_head_foot",))
    yield Fault("upside-down", "front and back exchanged", partial(_flipped, axes=(1,)), "refused",
                ("orientation_front_back",))
    yield Fault("upside-down", "both exchanged", partial(_flipped, axes=(0, 1)), "refused", ("orientation_rotated",))
    yield Fault("mirrored", "left and right exchanged", partial(_flipped, axes=(2,)), "measured", heavy=True)
    for position, lie in LIES.items():
        yield Fault("patient position", position, partial(_lying, position=position, lie=lie), "measured", same=True)
    yield Fault("patient position", "HFS said to be FFP", partial(_lying, position="FFP", lie=LIES["HFS"]), "measured",
                same=True)


def _of_content() -> Iterator[Fault]:
    yield Fault("MR labelled CT", "no negative value", partial(_mr, intercept=0), "refused", ("hu_implausible",))
    yield Fault("MR labelled CT", "values less 1024", partial(_mr, intercept=-1024), "refused",
                ("hu_implausible", "not_a_body"))
    yield Fault("MR", "modality MR", _mr_class, "refused", ("not_ct",))
    yield Fault("all air", "-1000 HU, noise 20", partial(_everywhere, hu=-1000, noise=20), "refused")
    yield Fault("all air", "-1000 HU, no noise", partial(_everywhere, hu=-1000, noise=0), "refused", ("constant",))
    yield Fault("all bone", "400 HU, noise 50", partial(_everywhere, hu=400, noise=50), "refused")
    yield Fault("metal block", "in L1, networks", partial(_metal, networks=True), "measured or refused",
                ("metal", "level_unknown"), heavy=True)
    yield Fault("metal block", "in L1, label map", partial(_metal, networks=False), "measured", ("metal",))


FAULTS: tuple[Fault, ...] = (*_offiles_of(), *_of_values(), *_of_geometry(), *_of_content())
