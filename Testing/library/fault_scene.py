"""A small phantom written as files, one run of the command line on it, and what came of the run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import IO, Any

import numpy as np
import SimpleITK as sitk
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(MODULE)}
LONGEST_SECONDS = 300.0
"""No run of a small phantom takes that long: it hangs."""

SPEC = PhantomSpec(seed=4, spacing_mm=(2.5, 2.5, 3.0), scan_top=("T7", 0.0), noise_hu=10.0)
"""T7 to L3, coarse enough to be quick: 76 slices of 130 x 119."""

PLAIN_FLAGS = frozenset({"grey_zone_80", "uncalibrated", "kvp_unknown", "labels_given", "edited"})
"""Codes of flags that the phantom has when nothing is wrong."""

Change = Callable[[FileDataset], None]


@dataclass(frozen=True, eq=False)
class Scene:
    """The phantom: HU (k, j, i) on canonical axes, and what is measured on it when nothing is wrong.

    ct: as NIfTI. labels: its vertebrae in VerSe numbers. rois: the regions of the plain measurement; as they lie in
    patient space, every way of storing the same CT must give ``levels`` with them.
    """

    folder: Path
    hu: np.ndarray
    geometry: Geometry
    ct: Path
    labels: Path
    rois: Path
    levels: list[dict[str, Any]]


def make_scene(folder: Path) -> Scene:
    """Make, write and measure the phantom."""
    phantom = make_phantom(SPEC)
    hu, geometry = phantom.ct.hu, phantom.ct.geometry
    ct = write_volume(folder / "ct.nii", hu, geometry)
    labels = write_volume(folder / "verse.nii.gz", phantom.vertebra_index, geometry)
    outcome = run(Given(ct, ("--labels", str(labels), "--scheme", "verse")), folder / "plain")
    assert outcome.status == "measured", outcome
    rois = folder / "plain" / "segmentation.seg.nrrd"
    again = run(Given(ct, ("--rois", str(rois))), folder / "again")
    return Scene(folder, hu, geometry, ct, labels, rois, again.record["levels"])


# --- writing -----------------------------------------------------------------------------------------------


def write_volume(path: Path, array: np.ndarray, geometry: Geometry) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(geometry.to_image(array), str(path))
    return path


@dataclass(frozen=True)
class Lie:
    """How the patient lies in the stored slices: where rows, columns and slices advance to (L, R, P, A, S, I)."""

    row: str = "L"
    column: str = "P"
    slices: str = "S"


_AXES = {"L": (2, 1), "R": (2, -1), "P": (1, 1), "A": (1, -1), "S": (0, 1), "I": (0, -1)}
"""Direction of the patient -> axis of (k, j, i), and its sign."""


def write_series(folder: Path, hu: np.ndarray, geometry: Geometry, change: Change | None = None, lie: Lie = Lie(),
                 study: str | None = None, number: int = 2, **attributes: Any) -> Path:
    """A CT series of single slices, stored as HU + 1024 in 16 bits; change: of each header before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = [_AXES[letter] for letter in (lie.slices, lie.column, lie.row)]
    stored = hu.transpose([axis for axis, _ in axes])[tuple(slice(None, None, sign) for _, sign in axes)]
    first = np.zeros(3)
    for axis, sign in axes:
        first[axis] = 0 if sign > 0 else hu.shape[axis] - 1
    steps = np.array([sign * np.eye(3)[axis] for axis, sign in axes])
    origin = geometry.to_lps(first)
    vectors = geometry.to_lps(first + steps) - origin
    uids = {"StudyInstanceUID": study or generate_uid(), "SeriesInstanceUID": generate_uid(),
            "FrameOfReferenceUID": generate_uid()}
    for k, plane in enumerate(stored):
        file = _slice(plane, origin + k * vectors[0], vectors[2], vectors[1])
        for name, value in {**uids, "SeriesNumber": number, "InstanceNumber": k + 1, **attributes}.items():
            setattr(file, name, value)
        if change:
            change(file)
        file.save_as(folder / f"{number}-{k:04d}.dcm")
    return folder


def _slice(plane: np.ndarray, position: np.ndarray, along_row: np.ndarray, along_column: np.ndarray) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.Modality, file.Manufacturer, file.ManufacturerModelName = "CT", "ACME", "Scan 64"
    file.PatientName, file.PatientID, file.StudyDate = "NOBODY", "0", "20240131"
    file.KVP, file.ConvolutionKernel, file.ImageType = 120, "B30f", ["ORIGINAL", "PRIMARY", "AXIAL"]
    file.SeriesDescription, file.SliceThickness = "Chest", "3"
    file.ImagePositionPatient = [f"{value:.6f}" for value in position]
    unit = [*(along_row / np.linalg.norm(along_row)), *(along_column / np.linalg.norm(along_column))]
    file.ImageOrientationPatient = [f"{value:.8f}" for value in unit]
    file.PixelSpacing = [f"{np.linalg.norm(v):.6f}" for v in (along_column, along_row)]
    file.Rows, file.Columns = plane.shape
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.PixelData = np.ascontiguousarray(plane.astype(np.int32) + 1024).astype("<u2").tobytes()
    return file


# --- one run -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a run gets. before: a command that runs ours in a process of its own (limits); environment: for that process.

    out: instead of the usual folder. after: what is to be undone. own_process: even without these.
    """

    ct: Path
    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    out: Path | None = None
    after: Callable[[], None] | None = None
    own_process: bool = False

    @property
    def apart(self) -> bool:
        return bool(self.own_process or self.before or self.environment)


@dataclass(frozen=True)
class Outcome:
    """status: measured, refused, failed, or crashed (a traceback, a signal, no sentence). lost: what was lost, or empty."""

    status: str
    code: str
    sentence: str
    lost: str
    seconds: float
    peak_mb: float | None = None
    record: Mapping[str, Any] | None = None
    said: str = ""


NOT_HERE = Outcome("not here", "", "This fault cannot be produced on this machine.", "", 0.0)


def run(given: Given, out: Path) -> Outcome:
    """``lowdosebmd measure``; what is in OUT afterwards is looked through for half-written files."""
    out = given.out or out
    earlier, inputs = _result_of(out), _digest(given.ct)
    arguments = ["measure", str(given.ct), "-o", str(out), *given.options]
    start = time.monotonic()
    status, said, errors, peak_mb = (_apart if given.apart else _here)(arguments, given)
    seconds = time.monotonic() - start
    try:
        lost = _lost(out, earlier, inputs, given.ct)
        record = _result_of(out)
        name, code, sentence = _name(status, errors, record if record != earlier else None)
        return Outcome(name, code, sentence, lost, seconds, peak_mb, record, said + errors)
    finally:
        if given.after:
            given.after()


def _here(arguments: list[str], _given: Given) -> tuple[int, str, str, None]:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = main(arguments)
        except Exception as error:  # what a user would meet as a traceback
            status = -1
            errors.write(f"Traceback: {type(error).__name__}: {error}")
    return status, out.getvalue(), errors.getvalue(), None


def _apart(arguments: list[str], given: Given) -> tuple[int, str, str, float]:
    command = [*given.before, sys.executable, "-m", "LowDoseBMDLib", *arguments]
    environment = {**ENVIRONMENT, **given.environment}
    with TemporaryFile() as out, TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=errors, cwd="/")
        watchdog = Timer(LONGEST_SECONDS, process.kill)
        watchdog.start()
        _, state, usage = os.wait4(process.pid, 0)
        watchdog.cancel()
        process.returncode = os.waitstatus_to_exitcode(state)
        said, told = (_text(file) for file in (out, errors))
    return process.returncode, said, told, usage.ru_maxrss / 1024


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


def _name(status: int, errors: str, record: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if "Traceback" in errors or status < 0 or status > 2:
        return "crashed", f"exit {status}", errors.strip().splitlines()[-1] if errors.strip() else ""
    if record and status in (0, 1):
        flags = [flag for flag in record["flags"] if flag["code"] not in PLAIN_FLAGS]
        flags = [flag for flag in flags if flag["severity"] == "refused"] or flags
        return (record["status"], " ".join(flag["code"] for flag in flags),
                " ".join(flag["sentence"] for flag in flags))
    sentences = [line.removeprefix("lowdosebmd: ") for line in errors.splitlines()
                 if line.startswith("lowdosebmd: ")]
    return ("failed" if sentences else "crashed"), f"exit {status}", " ".join(sentences)


# --- what was lost -----------------------------------------------------------------------------------------


def _result_of(out: Path) -> dict[str, Any] | None:
    """The content of measurement.json, None when there is none. Raises ValueError when it is not whole."""
    path = out / "measurement.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _digest(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


_ENDINGS = {".png": b"IEND\xaeB`\x82", ".html": b"</html>"}
"""How whole files of a kind end."""


def _lost(out: Path, earlier: Mapping[str, Any] | None, inputs: str, ct: Path) -> str:
    """What is worse than before the run: input changed, an earlier result gone, a file half-written; empty when nothing."""
    found = []
    if _digest(ct) != inputs:
        found.append("the input was changed")
    if not out.is_dir():
        return "; ".join(found)
    try:
        record = _result_of(out)
    except ValueError:
        return "measurement.json is half-written"
    if earlier and not record:
        found.append("the earlier result is gone")
    for path in out.iterdir():
        if path.name.startswith("."):
            found.append(f"{path.name} was left behind")
        elif not path.read_bytes().rstrip().endswith(_ENDINGS.get(path.suffix, b"")):
            found.append(f"{path.name} is half-written")
    return "; ".join(found)
