"""From HU to mg/cm3 without a phantom: what every calibration offers, the two-point line, and the file format.

The published fraction (Zhao 2024, step 4) is mis-set: its units do not match. The line meant passes through
the two reference tissues, v = MD + (S - M)(MD - FD)/(M - F): muscle reads its own density, fat its own.
The other models, which a site fits on its own cohort, are in calibration_models.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import date as Date
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

SCHEMA_VERSION = 2
"""Of a calibration file. Version 1 (two_point only, without the fields in _SINCE_VERSION_2) is still read."""
UNIT = "K2HPO4"
"""The density scale of the 80 and 120 mg/cm3 limits (Cann-Genant, Mindways); hydroxyapatite reads lower."""

DEFAULT_MUSCLE_MG_CM3 = 50.0
DEFAULT_FAT_MG_CM3 = -78.0
"""Densities of muscle and subcutaneous fat on the K2HPO4 scale at 120 kVp, UNCALIBRATED. The paper prints
none; these follow from applying a published Mindways-style line (0.8003 mg/cm3 per HU, +8.12) to muscle of
48-58 HU and fat of -100..-110 HU."""

DEFAULT_MUSCLE_SD_MG_CM3 = 10.0
DEFAULT_FAT_SD_MG_CM3 = 11.5
"""How wrong the defaults may be. Plausible are 30..60 and -55..-90 mg/cm3; taken as uniform, their root mean
square distance from the default is sqrt(30^2/12 + 5^2) = 10.0 and sqrt(35^2/12 + 5.5^2) = 11.5."""

DEFAULT_CORRELATION = -0.5
"""Muscle and fat constants err together: another energy or phantom scales both towards or away from water
(50/-76 by a phantom line, 33/-58 by theory), which makes their errors opposite in sign. Judgement."""

MUSCLE_BIOLOGICAL_SD_HU = 5.5
"""Between-subject SD of psoas HU, healthy 19-40 y (J Frailty Sarcopenia Falls 2022;7:38)."""
FAT_BIOLOGICAL_SD_HU = 4.0
"""Between-subject SD of subcutaneous fat HU (about -105 +- 4..6)."""

UNCALIBRATED, SYNTHETIC, SITE = STATUSES = ("uncalibrated", "synthetic", "site")
LARGEST = 1e9
"""No field of a calibration is larger; numbers whose squares overflow are slips, or a damaged file."""
Z95 = 1.959964
"""97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True)
class Variance:
    """Variance of a vBMD, (mg/cm3)^2; numbers, or arrays of one shape. spine: from this level's own HU, so it averages
    over levels. common: muscle, fat, constants and residual; shared by all levels of a patient."""

    spine: float
    common: float

    @property
    def total(self) -> float:
        return self.spine + self.common

    @property
    def sd(self) -> float:
        return self.total**0.5


class Gradient(NamedTuple):
    """Derivatives of vBMD (mg/cm3): by spine, muscle, fat HU and by the densities of muscle and fat."""

    spine_hu: float
    muscle_hu: float
    fat_hu: float
    muscle_density: float
    fat_density: float


class Calibration(Protocol):
    """What every calibration model offers to the measurement.

    vbmd is linear in spine_hu; vbmd and variance also work elementwise on arrays. needs_tissue: muscle and fat enter the
    value; where it is False their HU and errors are not read and may be NaN.
    """

    kind: ClassVar[str]
    name: str
    unit: str
    status: str
    kvp: float
    scanner: str
    kernel: str
    cohort_size: int
    date: str
    scans_from: str
    scans_to: str
    reference: str
    lowest_mg_cm3: float
    highest_mg_cm3: float
    expected_muscle_hu: float | None
    expected_fat_hu: float | None
    muscle_spread_hu: float | None
    fat_spread_hu: float | None

    @property
    def provisional(self) -> bool: ...

    @property
    def needs_tissue(self) -> bool: ...

    def vbmd(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> float: ...

    def variance(self, spine_hu: float, muscle_hu: float, fat_hu: float,
                 spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance: ...


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a calibration comes from and what it holds for; the base of every model.

    kvp, scanner, kernel: of the fitted scans, as in their DICOM headers; several scanners or kernels are separated by
    ";", empty means any or not known. cohort_size: people. date: of the fit; scans_from, scans_to: of the first and
    last scan; all ISO (2024-03-01) or empty. status: "uncalibrated" (literature), "synthetic" (fitted on people drawn by
    a program) or "site". reference: the QCT method in words. lowest_mg_cm3, highest_mg_cm3: range of the reference
    densities; both 0 when not known. expected_*_hu: mean HU of the cohort's muscle and fat; *_spread_hu: SD between its
    people, all scatter included; None when not known. Raises ValueError naming the field when a value cannot be.
    """

    name: str
    unit: str = UNIT
    kvp: float = 120.0
    scanner: str = ""
    kernel: str = ""
    cohort_size: int = 0
    date: str = ""
    status: str = UNCALIBRATED
    scans_from: str = ""
    scans_to: str = ""
    reference: str = ""
    lowest_mg_cm3: float = 0.0
    highest_mg_cm3: float = 0.0
    expected_muscle_hu: float | None = None
    expected_fat_hu: float | None = None
    muscle_spread_hu: float | None = None
    fat_spread_hu: float | None = None

    needs_tissue: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_types(self)
        _check_provenance(self)
        self._check()

    @property
    def provisional(self) -> bool:
        """True until a site's fit is loaded: the class that follows from vBMD is then provisional."""
        return self.status != SITE

    def _check(self) -> None:
        """Checks of the model's own fields. Raises ValueError."""


@dataclass(frozen=True, kw_only=True)
class TwoPointCalibration(Provenance):
    """The paper's line through muscle and fat; with the defaults the constants are those of the literature.

    Densities in mg/cm3 on ``unit``; *_variance and covariance in (mg/cm3)^2: what is not known of the two
    constants. residual_sd_mg_cm3: held-out residual SD of the model less what is propagated here.
    *_biological_sd_hu: between-subject SD of the tissue's HU; no ROI is large enough to reduce it.
    """

    name: str = "Two-point, literature constants"
    muscle_mg_cm3: float = DEFAULT_MUSCLE_MG_CM3
    fat_mg_cm3: float = DEFAULT_FAT_MG_CM3
    muscle_variance: float = DEFAULT_MUSCLE_SD_MG_CM3**2
    fat_variance: float = DEFAULT_FAT_SD_MG_CM3**2
    covariance: float = DEFAULT_CORRELATION * DEFAULT_MUSCLE_SD_MG_CM3 * DEFAULT_FAT_SD_MG_CM3
    residual_sd_mg_cm3: float = 0.0
    muscle_biological_sd_hu: float = MUSCLE_BIOLOGICAL_SD_HU
    fat_biological_sd_hu: float = FAT_BIOLOGICAL_SD_HU

    kind: ClassVar[str] = "two_point"

    def vbmd(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> float:
        """vBMD in mg/cm3 of bone that reads spine_hu; also elementwise on arrays.

        Raises ZeroDivisionError for scalars with muscle_hu == fat_hu; the measurement refuses such tissue.
        """
        return self.muscle_mg_cm3 + (spine_hu - muscle_hu) * self._slope(muscle_hu, fat_hu)

    def gradient(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> Gradient:
        """Derivatives of vbmd: k, -k(1+t), k t, 1+t, -t with t = (S-M)/(M-F), k = (MD-FD)/(M-F)."""
        k = self._slope(muscle_hu, fat_hu)
        t = (spine_hu - muscle_hu) / (muscle_hu - fat_hu)
        return Gradient(k, -k * (1 + t), k * t, 1 + t, -t)

    def variance(self, spine_hu: float, muscle_hu: float, fat_hu: float,
                 spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance:
        """Variance of vbmd by first-order propagation of ROI errors, biology, constants and residual.

        The *_se_hu are standard errors of the ROI means. As vbmd is linear in spine_hu, the mean of n levels
        has the variance at their mean HU with spine_se_hu = sqrt(sum(se^2)) / n: only the spine part shrinks.
        """
        return self._propagated(self.gradient(spine_hu, muscle_hu, fat_hu), spine_se_hu, muscle_se_hu, fat_se_hu)

    def _propagated(self, d: Gradient, spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance:
        muscle, fat = self._tissue_variances(muscle_se_hu, fat_se_hu)
        constants = (d.muscle_density**2 * self.muscle_variance + d.fat_density**2 * self.fat_variance
                     + 2 * d.muscle_density * d.fat_density * self.covariance)
        common = d.muscle_hu**2 * muscle + d.fat_hu**2 * fat + not_negative(constants) + self.residual_sd_mg_cm3**2
        return Variance(d.spine_hu**2 * spine_se_hu**2, common)

    def _tissue_variances(self, muscle_se_hu: float, fat_se_hu: float) -> tuple[float, float]:
        """HU^2 by which the patient's muscle and fat may miss the HU that belongs to their densities."""
        return (muscle_se_hu**2 + self.muscle_biological_sd_hu**2, fat_se_hu**2 + self.fat_biological_sd_hu**2)

    def _slope(self, muscle_hu: float, fat_hu: float) -> float:
        return (self.muscle_mg_cm3 - self.fat_mg_cm3) / (muscle_hu - fat_hu)

    def _check(self) -> None:
        check_not_negative(self, "muscle_variance", "fat_variance", "residual_sd_mg_cm3", "muscle_biological_sd_hu",
                           "fat_biological_sd_hu")
        if self.muscle_mg_cm3 <= self.fat_mg_cm3:
            raise ValueError(f"calibration field 'muscle_mg_cm3' ({self.muscle_mg_cm3}) must exceed 'fat_mg_cm3' "
                             f"({self.fat_mg_cm3}); were the two exchanged?")
        check_covariance(self, "muscle_variance", "fat_variance")


def not_negative(variance: float) -> float:
    """A variance that rounding brought a hair below 0 is 0; also elementwise."""
    return variance * (variance > 0)


def check_not_negative(calibration: Provenance, *names: str) -> None:
    """Raises ValueError naming the first of the fields that is below 0; None passes."""
    for name in names:
        if (value := getattr(calibration, name)) is not None and value < 0:
            raise ValueError(f"calibration field {name!r} is {value}; it cannot be negative")


def check_covariance(calibration: Any, first: str, second: str) -> None:
    """Raises ValueError when ``covariance`` cannot belong to the variances in the fields first and second."""
    if calibration.covariance**2 > getattr(calibration, first) * getattr(calibration, second) * (1 + 1e-9):
        raise ValueError(f"calibration field 'covariance' is {calibration.covariance}; its square exceeds "
                         f"{first} * {second}; fit the calibration again")


def _check_types(calibration: Provenance) -> None:
    for entry in fields(calibration):
        value = getattr(calibration, entry.name)
        if entry.type == "str":
            if not isinstance(value, str):
                raise ValueError(f"calibration field {entry.name!r} is {value!r}; it must be text")
        elif entry.type in ("int", "float") or (entry.type == "float | None" and value is not None):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
                raise ValueError(f"calibration field {entry.name!r} is {value!r}; it must be a finite number")
            if entry.type == "int" and int(value) != value:
                raise ValueError(f"calibration field {entry.name!r} is {value!r}; it must be a whole number")


def _check_provenance(c: Provenance) -> None:
    check_not_negative(c, "cohort_size", "muscle_spread_hu", "fat_spread_hu")
    if c.unit != UNIT:
        raise ValueError(f"calibration field 'unit' is {c.unit!r}; the 80 and 120 mg/cm3 limits hold for {UNIT!r} "
                         "only: refit against K2HPO4 reference values")
    if c.kvp <= 0:
        raise ValueError(f"calibration field 'kvp' is {c.kvp}; give the tube voltage of the fitted scans")
    if c.status not in STATUSES:
        raise ValueError(f"calibration field 'status' is {c.status!r}; choose one of {', '.join(STATUSES)}")
    if c.status == SITE and c.cohort_size < 1:
        raise ValueError(f"calibration field 'cohort_size' is {c.cohort_size}; a site calibration must say how "
                         "many people it was fitted on")
    if c.highest_mg_cm3 <= c.lowest_mg_cm3 and (c.lowest_mg_cm3, c.highest_mg_cm3) != (0, 0):
        raise ValueError(f"calibration field 'highest_mg_cm3' ({c.highest_mg_cm3}) must exceed 'lowest_mg_cm3' "
                         f"({c.lowest_mg_cm3}); give 0 for both when the range is not known")
    if None not in (c.expected_muscle_hu, c.expected_fat_hu) and c.expected_muscle_hu <= c.expected_fat_hu:
        raise ValueError(f"calibration field 'expected_muscle_hu' ({c.expected_muscle_hu}) must exceed 'expected_fat_hu' "
                         f"({c.expected_fat_hu}); were the two exchanged?")
    _check_dates(c)


def _check_dates(c: Provenance) -> None:
    for name in ("date", "scans_from", "scans_to"):
        if (text := getattr(c, name)) and not _is_iso(text):
            raise ValueError(f"calibration field {name!r} is {text!r}; write the date as 2024-03-01, or leave it empty")
    if c.scans_from and c.scans_to and c.scans_from > c.scans_to:
        raise ValueError(f"calibration field 'scans_from' ({c.scans_from}) is later than 'scans_to' ({c.scans_to})"
                         "; were the two exchanged?")


def _is_iso(text: str) -> bool:
    try:
        return Date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


# --- the file ----------------------------------------------------------------------------------------------

_SINCE_VERSION_2 = frozenset({
    "scans_from", "scans_to", "reference", "lowest_mg_cm3", "highest_mg_cm3", "expected_muscle_hu", "expected_fat_hu",
    "muscle_spread_hu", "fat_spread_hu"})


def _kinds() -> dict[str, type[Provenance]]:
    from .calibration_models import MODELS  # which builds on this file

    return {model.kind: model for model in (TwoPointCalibration, *MODELS)}


def calibration_to_dict(calibration: Calibration) -> dict[str, Any]:
    """The calibration as plain data: schema_version, kind and every field by its own name and unit."""
    return {"schema_version": SCHEMA_VERSION, "kind": calibration.kind,
            **{entry.name: _plain(getattr(calibration, entry.name)) for entry in fields(calibration)}}


def _plain(value: Any) -> Any:
    if isinstance(value, Provenance):
        return calibration_to_dict(value)
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def calibration_from_dict(data: Any) -> Calibration:
    """The inverse of calibration_to_dict. Raises ValueError naming the field that is wrong and the way out."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, bool) or version not in (1, SCHEMA_VERSION):
        raise ValueError(f"calibration field 'schema_version' is {version!r}; this program reads 1 to {SCHEMA_VERSION}: "
                         "write the file again with calibration.save_calibration, or update the program")
    model = _kind_of(data)
    given = {key: value for key, value in data.items() if key not in ("schema_version", "kind")}
    _check_names({entry.name for entry in fields(model)} - (_SINCE_VERSION_2 if version == 1 else set()), given)
    if isinstance(given.get("base"), dict):
        given["base"] = _base_from_dict(given["base"])
    return model(**given)


def _kind_of(data: dict[str, Any]) -> type[Provenance]:
    kind, version = data.get("kind"), data["schema_version"]
    known = _kinds() if version > 1 else {TwoPointCalibration.kind: TwoPointCalibration}
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(f"calibration field 'kind' is {kind!r}; with schema_version {version} this program knows "
                         f"{', '.join(known)}: update the program or fit one of these")
    return known[kind]


def _base_from_dict(data: dict[str, Any]) -> Calibration:
    if data.get("kind") == "rescaled":
        raise ValueError("calibration field 'base' is itself of kind 'rescaled'; combine the two lines into one")
    try:
        return calibration_from_dict(data)
    except ValueError as error:
        raise ValueError(f"calibration field 'base': {error}") from error


def _check_names(wanted: set[str], given: dict[str, Any]) -> None:
    if missing := sorted(wanted - given.keys()):
        raise ValueError(f"calibration field {missing[0]!r} is missing; write the file again with "
                         "calibration.save_calibration (all fields are required)")
    if unknown := sorted(given.keys() - wanted):
        raise ValueError(f"calibration field {unknown[0]!r} is unknown; remove it or correct its spelling")


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration file (JSON). Raises ValueError naming file, field and way out; OSError if unreadable."""
    path = Path(path)
    try:
        return calibration_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); give a file written by calibration.save_calibration") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_calibrations(folder: Path) -> tuple[Calibration, ...]:
    """All calibrations of a folder (*.json), by file name. Raises ValueError when there is none or one cannot be used."""
    found = tuple(load_calibration(path) for path in sorted(folder.glob("*.json")))
    if not found:
        raise ValueError(f"{folder} holds no calibration file (*.json); write one with: lowdosebmd calibrate COHORT.csv "
                         "-o CALIBRATION.json")
    return found


def save_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration file (JSON); it appears whole or not at all."""
    from .files.atomic import write_whole

    write_whole(Path(path), json.dumps(calibration_to_dict(calibration), indent=2, allow_nan=False) + "\n")
