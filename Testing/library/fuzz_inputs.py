"""Damaged inputs for every reader: sound files, ways to damage them, and what a reader may do with the result.

Input ``number`` of a seed is always the same: ``attempt`` with the folder of ``make_seeds`` and the reader that ``plan``
names for it.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
import small_torso
from fault_scene import SPEC, write_series, write_volume
from LowDoseBMDLib.bundle import GRAPH, METADATA, WEIGHTS, Bundle, load_bundle, save_metadata
from LowDoseBMDLib.calibration import TwoPointCalibration, load_calibration, save_calibration
from LowDoseBMDLib.calibration_models import LineCalibration, RegressionCalibration
from LowDoseBMDLib.cohort import read_cohort, write_cohort
from LowDoseBMDLib.cohort_synthesis import synthetic_cohort
from LowDoseBMDLib.drift_records import read_archive
from LowDoseBMDLib.files.dicom import identity_of, planes_of
from LowDoseBMDLib.files.dicom_pixels import decode
from LowDoseBMDLib.files.markups import read_keypoints, write_keypoints
from LowDoseBMDLib.files.read import read_ct, read_label_map
from LowDoseBMDLib.files.segmentation import load_segmentation, write_segmentation
from LowDoseBMDLib.files.studies import find_studies
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.manifest import Manifest
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.phantom import make_phantom
from LowDoseBMDLib.pipeline import rois_from_labels
from LowDoseBMDLib.record import to_dict
from LowDoseBMDLib.report.tables import write_json
from LowDoseBMDLib.results import software
from LowDoseBMDLib.study import Settings, measure_study
from pydicom.fileset import FileSet

Random = np.random.Generator

ACCEPTED, REFUSED, WRONG = "accepted", "refused", "wrong"
REFUSALS = (Refusal, MemoryError)
ORDINARY = (ValueError, OSError, MemoryError)
"""What those who call a reader turn into a sentence."""


# --- sound files -------------------------------------------------------------------------------------------

SMALL_KJI = (20, 34, 36)


def make_seeds(home: Path) -> None:
    """Sound inputs of every reader, each in ``home / reader / input``: a file, or a folder."""
    for reader in READERS.values():
        folder = home / reader.name
        folder.mkdir(parents=True)
        reader.seeds(folder)


def small() -> tuple[np.ndarray, Geometry]:
    """HU (k, j, i) from -1000 to 800 on the least grid that is read."""
    matrix = np.diag([0.8, 0.9, 2.5, 1.0])
    matrix[:3, 3] = (-31.5, 12.25, -400.0)
    return np.random.default_rng(7).integers(-1000, 801, SMALL_KJI).astype(np.int16), Geometry(SMALL_KJI, matrix)


def slices(folder: Path) -> None:
    """One slice in every way in which it may be stored, and some frames in one file."""
    kept = (None, pydicom.uid.RLELossless, pydicom.uid.JPEGLSLossless, pydicom.uid.JPEG2000Lossless,
            pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.DeflatedExplicitVRLittleEndian)
    source = next(write_series(folder.parent / "made", *small()).iterdir())
    for number, syntax in enumerate(kept):
        file = pydicom.dcmread(source)
        if syntax is not None and syntax.is_encapsulated:
            file.compress(syntax)
        elif syntax is not None:
            file.file_meta.TransferSyntaxUID = syntax
        file.save_as(folder / f"{number}.dcm", implicit_vr=syntax == pydicom.uid.ImplicitVRLittleEndian,
                     little_endian=True)
    shutil.rmtree(folder.parent / "made")
    _frames(folder / "frames.dcm", folder / "0.dcm")


def _frames(path: Path, single: Path) -> None:
    file, frames = pydicom.dcmread(single), []
    for n in range(3):
        frame, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, 3 * n]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    measures, turn, scale, shared = (pydicom.Dataset() for _ in range(4))
    measures.PixelSpacing, turn.ImageOrientationPatient = [0.9, 0.8], [1, 0, 0, 0, 1, 0]
    scale.RescaleSlope, scale.RescaleIntercept = 1, -1024
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    shared.PixelValueTransformationSequence = [scale]
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    file.NumberOfFrames, file.PixelData = 3, file.PixelData * 3
    file.PerFrameFunctionalGroupsSequence, file.SharedFunctionalGroupsSequence = frames, [shared]
    file.save_as(path)


def _series(folder: Path) -> None:
    write_series(folder / "scan", *small())


def _volumes(*endings: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        hu, grid = small()
        for n, ending in enumerate(endings):
            write_volume(folder / f"{n}{ending}", hu if n else hu.astype(np.float32), grid)
            sitk.WriteImage(grid.to_image(hu), str(folder / f"packed{n}{ending}"), True)
    return write


def _segmentations(folder: Path) -> None:
    write_segmentation(folder / "all.seg.nrrd", small_torso.rois())
    labels = np.zeros(small_torso.SHAPE_KJI, np.uint8)
    labels[10:20, 20:30, 20:30] = 1
    write_volume(folder / "labels.nrrd", labels, small_torso.geometry())


def _keypoints(folder: Path) -> None:
    write_keypoints(folder / "points.mrk.json", small_torso.rois().keypoints)


def _calibrations(folder: Path) -> None:
    site = {"cohort_size": 20, "status": "site", "date": "2026-01-31", "intercept_mg_cm3": 8.0, "residual_sd_mg_cm3": 5.0}
    save_calibration(LineCalibration(name="line", slope_mg_cm3_per_hu=0.8, intercept_variance=2.0, slope_variance=1e-4,
                                     covariance=0.0, **site), folder / "line.json")
    save_calibration(RegressionCalibration(name="regression", spine_mg_cm3_per_hu=0.8, muscle_mg_cm3_per_hu=-0.1,
                                           fat_mg_cm3_per_hu=0.1, coefficient_covariance=np.eye(4).tolist(), **site),
                     folder / "regression.json")
    save_calibration(TwoPointCalibration(), folder / "two_point.json")


def _cohorts(folder: Path) -> None:
    write_cohort(folder / "cohort.csv", synthetic_cohort(12))
    text = (folder / "cohort.csv").read_text(encoding="utf-8")
    (folder / "german.csv").write_text(text.replace(",", ";").replace(".", ","), encoding="utf-8")


def _manifests(folder: Path) -> None:
    lines = [{"key": f"{n:012x}", "state": state, "seconds": 1.5, "row": {"status": "measured", "reason": None}}
             for n in range(8) for state in ("started", "ended")]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def _bundles(folder: Path) -> None:
    bundle = folder / "bones"
    bundle.mkdir()
    for name in (WEIGHTS, GRAPH):
        (bundle / name).write_bytes(name.encode() * 10)
    save_metadata(Bundle("bones", "1", "res_unet", {"outputs": 5}, 3.0, (-1000.0, 1000.0), 1000.0, ("none", "vertebrae"),
                         folder=bundle))


def _lists(folder: Path) -> None:
    (folder / "studies.csv").write_text("path,labels\na.nii.gz,b.nrrd\nfolder,\n../c.nrrd,\n", encoding="utf-8")


def _directories(folder: Path) -> None:
    made = FileSet()
    for path in write_series(folder.parent / "made", *small(), StudyTime="0930", StudyID="1", PatientName="N").iterdir():
        made.add(path)
    made.write(folder / "media")
    shutil.rmtree(folder.parent / "made")


def _records(folder: Path) -> None:
    ct = small_torso.ct()
    record = to_dict(measure(ct, small_torso.rois(), TwoPointCalibration()), ct.acquisition, software({}), {"reading": 0.5})
    write_json(folder / "measurement.json", record)


def _studies(folder: Path) -> None:
    phantom = make_phantom(SPEC)
    write_series(folder / "study" / "scan", phantom.ct.hu, phantom.ct.geometry)
    write_segmentation(folder / "study" / "regions.seg.nrrd", rois_from_labels(phantom.ct, phantom.vertebra_index, "verse"))


# --- damage ------------------------------------------------------------------------------------------------

NASTY = (b"", b"0", b"-1", b"nan", b"inf", b"1e999", b"-1e308", b"99999999999999999999", b"9" * 5000, b"null", b"true",
         b'"x"', b"{}", b"[" * 50000, b'{"a":' * 20000, b"\0", b"\xff\xfe", b"../../../x", b"\xed\xa0\x80", b"%s%n" * 9)
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_WORD = re.compile(rb"[A-Za-z_]{3,}")
NASTY_TEXT = ("../../../../x", "/x/y", "C:\\x", "a" * 70, "<script>", "=1+1", "..", ".", "", "\n\r", "~", "%00")


def damage(content: bytes, random: Random) -> bytes:
    """One to three of: bytes changed, cut off, a block doubled, moved, dropped or filled, a number or word replaced."""
    for _ in range(random.integers(1, 4)):
        content = DAMAGES[random.integers(len(DAMAGES))](content, random)
    return content


def _place(content: bytes, random: Random) -> int:
    """Anywhere, and half of the times near the beginning, where headers lie."""
    most = max(1, len(content))
    return int(min(most - 1, 2 ** random.uniform(0, np.log2(most + 1)))) if random.random() < 0.5 else int(
        random.integers(most))


def _block(content: bytes, random: Random) -> slice:
    start = _place(content, random)
    return slice(start, start + int(2 ** random.uniform(0, np.log2(len(content) + 2))))


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(int(2 ** random.uniform(0, 5))):
        if changed:
            changed[_place(content, random)] ^= int(random.integers(1, 256))
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[:_place(content, random)]


def _double(content: bytes, random: Random) -> bytes:
    block, at = content[_block(content, random)], _place(content, random)
    return content[:at] + block + content[at:]


def _move(content: bytes, random: Random) -> bytes:
    block = _block(content, random)
    rest, at = content[:block.start] + content[block.stop:], _place(content, random)
    return rest[:at] + content[block] + rest[at:]


def _drop(content: bytes, random: Random) -> bytes:
    block = _block(content, random)
    return content[:block.start] + content[block.stop:]


def _fill(content: bytes, random: Random) -> bytes:
    block = _block(content, random)
    return content[:block.start] + bytes([(0, 255, 32)[random.integers(3)]]) * len(content[block]) + content[block.stop:]


def _replace(content: bytes, random: Random) -> bytes:
    found = list((_NUMBER if random.random() < 0.7 else _WORD).finditer(content[:4000]))
    if not found:
        return content
    match = found[random.integers(len(found))]
    return content[:match.start()] + NASTY[random.integers(len(NASTY))] + content[match.end():]


DAMAGES = (_flip, _flip, _cut, _double, _move, _drop, _fill, _replace, _replace)


def damage_file(path: Path, random: Random) -> None:
    """In place; half of the packed files are damaged inside their packing."""
    content = path.read_bytes()
    inside = path.suffix == ".gz" and random.random() < 0.5
    content = damage(gzip.decompress(content) if inside else content, random)
    path.write_bytes(gzip.compress(content, 1) if inside else content)


def _damage_one(path: Path, random: Random) -> None:
    """A file, or one to three files of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for index in random.integers(len(files), size=random.integers(1, 4) if len(files) > 1 else 1):
        damage_file(files[index], random)


def _damage_bundle(path: Path, random: Random) -> None:
    damage_file(path / (METADATA, METADATA, METADATA, WEIGHTS, GRAPH)[random.integers(5)], random)


def _damage_directory(path: Path, random: Random) -> None:
    damage_file(path / "DICOMDIR", random)


def _damage_words(path: Path, random: Random) -> None:
    """Words of a header that some program may take for a path, a formula or HTML; a third of the times bytes too."""
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "Manufacturer", "StudyDate",
             "ManufacturerModelName", "ConvolutionKernel", "PatientName", "PatientID", "AccessionNumber", "StudyID")
    chosen = {name: NASTY_TEXT[random.integers(len(NASTY_TEXT))] for name in random.choice(names, 3, replace=False)}
    with pydicom.config.disable_value_validation():
        for file in sorted((path / "scan").iterdir()):
            header = pydicom.dcmread(file)
            for name, value in chosen.items():
                setattr(header, name, value + file.name * (name == "SOPInstanceUID"))
            header.save_as(file)
    if random.random() < 1 / 3:
        _damage_one(path / "scan", random)


# --- readers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """run: reads an input, and may write into the folder that it is given besides. share: of all inputs, in thousandths."""

    name: str
    share: int
    seeds: Callable[[Path], None]
    run: Callable[[Path, Path], Any]
    allowed: tuple[type[BaseException], ...] = ORDINARY
    damage: Callable[[Path, Random], None] = _damage_one


def _read_slice(path: Path, _out: Path) -> None:
    identity_of(path)
    for plane in planes_of(path):
        decode(plane)


def _read_study(path: Path, out: Path) -> None:
    record = measure_study(path / "scan", out, Settings(rois=path / "regions.seg.nrrd"))
    if record["status"] == "refused":
        raise Refusal(record["flags"][0]["code"], record["flags"][0]["sentence"])


def _check_ct(path: Path, _out: Path) -> None:
    ct = read_ct(path)
    if not np.isfinite(ct.hu).all() or not np.isfinite(ct.geometry.ijk_to_lps).all() or min(ct.geometry.spacing_mm) <= 0:
        raise AssertionError("a CT with values or places that are no numbers was accepted")


READERS: dict[str, Reader] = {reader.name: reader for reader in (
    Reader("DICOM slice", 250, slices, _read_slice, REFUSALS),
    Reader("DICOM series", 90, _series, _check_ct, REFUSALS),
    Reader("DICOMDIR", 25, _directories, lambda path, _: find_studies(path / "DICOMDIR"), damage=_damage_directory),
    Reader("NIfTI", 140, _volumes(".nii", ".nii.gz"), _check_ct, REFUSALS),
    Reader("NRRD", 120, _volumes(".nrrd", ".mha"), _check_ct, REFUSALS),
    Reader("label map", 40, _volumes(".nrrd", ".nii.gz"), lambda path, _: read_label_map(path), REFUSALS),
    Reader(".seg.nrrd", 90, _segmentations, lambda path, _: load_segmentation(path, small_torso.geometry()), REFUSALS),
    Reader("markups JSON", 50, _keypoints, lambda path, _: read_keypoints(path)),
    Reader("calibration JSON", 55, _calibrations, lambda path, _: load_calibration(path)),
    Reader("cohort CSV", 50, _cohorts, lambda path, _: read_cohort(path)),
    Reader("list of studies", 20, _lists, lambda path, _: find_studies(path)),
    Reader("manifest", 25, _manifests, lambda path, _: Manifest(path).latest()),
    Reader("measurement JSON", 20, _records, lambda path, _: read_archive([path])),
    Reader("bundle", 20, _bundles, lambda path, _: load_bundle(path), damage=_damage_bundle),
    Reader("whole study", 5, _studies, _read_study, (), _damage_words),
)}


def plan(count: int, seed: int) -> list[str]:
    """Which reader gets which input: each its share, at least one, in random order."""
    total = sum(reader.share for reader in READERS.values())
    names = [name for name, reader in READERS.items() for _ in range(max(1, round(count * reader.share / total)))]
    return [str(name) for name in np.random.default_rng(seed).permutation(names)]


@dataclass(frozen=True)
class Result:
    """outcome: ACCEPTED, REFUSED or WRONG; detail: the kind of exception, or what is wrong."""

    outcome: str
    detail: str


def attempt(name: str, seeds: Path, number: int, seed: int, folder: Path) -> Result:
    """Make input ``number`` in ``folder``, an empty one, and let the reader have it."""
    make_input(name, seeds, number, seed, folder)
    reader, out = READERS[name], folder / "out"
    before = _listing(folder)
    with writes_outside(out) as written:
        result = _run(reader, next(path for path in folder.iterdir() if path != out), out)
    after = {path: size for path, size in _listing(folder).items() if out not in (path, *path.parents)}
    if after != before:
        return Result(WRONG, "files beside the input were written, changed or removed")
    return Result(WRONG, f"it wrote outside: {written[0]}") if written else result


def make_input(name: str, seeds: Path, number: int, seed: int, folder: Path) -> Path:
    random = np.random.default_rng([seed, number])
    sound = sorted((seeds / name).iterdir())
    source = sound[random.integers(len(sound))]
    path = folder / source.name
    shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
    READERS[name].damage(path, random)
    return path


def _run(reader: Reader, path: Path, out: Path) -> Result:
    try:
        reader.run(path, out)
    except reader.allowed as error:
        return Result(REFUSED, getattr(error, "code", None) or type(error).__name__)
    except Refusal as error:
        return Result(REFUSED, error.code)
    except Exception as error:  # what a user would meet as a traceback
        return Result(WRONG, f"{type(error).__name__}: {error}"[:300])
    return Result(ACCEPTED, "")


def _listing(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# --- writing -----------------------------------------------------------------------------------------------

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
                      "shutil.rmtree", "shutil.move"})
_STARTS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"})
_watched: list[tuple[Path, list[str]]] = []


@contextmanager
def writes_outside(folder: Path) -> Iterator[list[str]]:
    """What Python code does meanwhile that leaves a trace outside ``folder``: files, programs, connections."""
    if not _HOOKED:
        import matplotlib.font_manager  # noqa: F401 - once for each person it writes what fonts there are

        sys.addaudithook(_heard)  # which cannot be removed again
        _HOOKED.append(True)
    found: list[str] = []
    _watched.append((folder, found))
    try:
        yield found
    finally:
        _watched.pop()


_HOOKED: list[bool] = []


def _heard(event: str, arguments: Sequence[Any]) -> None:
    if not _watched:
        return
    folder, found = _watched[-1]
    if event in _STARTS:
        found.append(event)
    elif event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
        path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)) and not _inside(os.fsdecode(path), folder):
            found.append(f"{event} {os.fsdecode(path)}")


def _inside(path: str, folder: Path) -> bool:
    absolute = os.path.abspath(path)
    return absolute == os.devnull or absolute == str(folder) or absolute.startswith(f"{folder}{os.sep}")
