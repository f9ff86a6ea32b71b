"""Calibrations that a site fits on its own cohort: line, regression, shrunk two-point, and one that rescales another.

Each holds what it was fitted on (calibration.Provenance) and how far its coefficients are known; none of them knows how
it was fitted (calibration_fit.py). residual_sd_mg_cm3 is always what held-out people still scatter after the parts that
``variance`` propagates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .calibration import (
    LARGEST,
    Calibration,
    Gradient,
    Provenance,
    TwoPointCalibration,
    Variance,
    check_covariance,
    check_not_negative,
    not_negative,
)

COEFFICIENTS = ("intercept", "spine", "muscle", "fat")
"""Rows and columns of RegressionCalibration.coefficient_covariance."""


@dataclass(frozen=True, kw_only=True)
class LineCalibration(Provenance):
    """vBMD = intercept + slope * HU of bone, for one scanner that stays as it is; muscle and fat are not read.

    *_variance and covariance: what is not known of the two coefficients, in the squares of their units. This is what
    asynchronous calibration with a phantom gives; it does not follow a scanner that drifts.
    """

    intercept_mg_cm3: float
    slope_mg_cm3_per_hu: float
    intercept_variance: float
    slope_variance: float
    covariance: float
    residual_sd_mg_cm3: float

    kind: ClassVar[str] = "line"
    needs_tissue: ClassVar[bool] = False

    def vbmd(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> float:
        """vBMD in mg/cm3 of bone that reads spine_hu; muscle_hu and fat_hu are not read."""
        return self.intercept_mg_cm3 + self.slope_mg_cm3_per_hu * spine_hu

    def variance(self, spine_hu: float, muscle_hu: float, fat_hu: float,
                 spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance:
        """Variance of vbmd from the ROI of bone, the coefficients and the residual."""
        coefficients = self.intercept_variance + spine_hu**2 * self.slope_variance + 2 * spine_hu * self.covariance
        return Variance(self.slope_mg_cm3_per_hu**2 * spine_se_hu**2,
                        not_negative(coefficients) + self.residual_sd_mg_cm3**2)

    def _check(self) -> None:
        check_not_negative(self, "intercept_variance", "slope_variance", "residual_sd_mg_cm3")
        _check_rises(self, "slope_mg_cm3_per_hu")
        check_covariance(self, "intercept_variance", "slope_variance")


@dataclass(frozen=True, kw_only=True)
class RegressionCalibration(Provenance):
    """vBMD = intercept + b1 * bone + b2 * muscle + b3 * fat, HU, by regression on a site's own pairs.

    coefficient_covariance: 4 x 4, in the order of COEFFICIENTS and the squares of their units; any nested sequence is
    taken. How muscle and fat differ between people is in the coefficients and the residual, so that only the errors of
    their ROIs are propagated.
    """

    intercept_mg_cm3: float
    spine_mg_cm3_per_hu: float
    muscle_mg_cm3_per_hu: float
    fat_mg_cm3_per_hu: float
    coefficient_covariance: tuple[tuple[float, ...], ...]
    residual_sd_mg_cm3: float

    kind: ClassVar[str] = "regression"

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficient_covariance", _covariance(self.coefficient_covariance))
        super().__post_init__()

    def vbmd(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> float:
        """vBMD in mg/cm3 of bone that reads spine_hu."""
        return (self.intercept_mg_cm3 + self.spine_mg_cm3_per_hu * spine_hu + self.muscle_mg_cm3_per_hu * muscle_hu
                + self.fat_mg_cm3_per_hu * fat_hu)

    def variance(self, spine_hu: float, muscle_hu: float, fat_hu: float,
                 spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance:
        """Variance of vbmd from the ROIs, the coefficients (x' C x with x = (1, bone, muscle, fat)) and the residual."""
        x = (1.0, spine_hu, muscle_hu, fat_hu)
        coefficients = sum(covariance * x[row] * x[column] for row, line in enumerate(self.coefficient_covariance)
                           for column, covariance in enumerate(line))
        tissue = (self.muscle_mg_cm3_per_hu * muscle_se_hu)**2 + (self.fat_mg_cm3_per_hu * fat_se_hu)**2
        return Variance((self.spine_mg_cm3_per_hu * spine_se_hu)**2,
                        tissue + not_negative(coefficients) + self.residual_sd_mg_cm3**2)

    def _check(self) -> None:
        check_not_negative(self, "residual_sd_mg_cm3")
        _check_rises(self, "spine_mg_cm3_per_hu")


@dataclass(frozen=True, kw_only=True)
class ShrunkTwoPointCalibration(TwoPointCalibration):
    """The two-point line, with the patient's tissue drawn towards what this scanner's tissue is known to read.

    M* = E + w (M - E) with E = expected_muscle_hu and w = scanner^2 / (scanner^2 + biological^2); fat likewise.
    *_scanner_sd_hu: how far the scanner's own HU may have moved from expected_*_hu. A scanner known to be stable (0)
    ignores the patient's tissue, w = 0; one of which nothing is known takes it as it is, w -> 1. The weight does not
    hold the error of the ROI, because ``vbmd`` does not know it; of a usual ROI it is below a third of the biology.
    """

    name: str = field()
    muscle_scanner_sd_hu: float
    fat_scanner_sd_hu: float

    kind: ClassVar[str] = "shrunk_two_point"

    @property
    def weights(self) -> tuple[float, float]:
        """Weight of the patient's own muscle and fat, 0..1."""
        return (_weight(self.muscle_scanner_sd_hu, self.muscle_biological_sd_hu),
                _weight(self.fat_scanner_sd_hu, self.fat_biological_sd_hu))

    def vbmd(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> float:
        """vBMD in mg/cm3 of bone that reads spine_hu, on the line through the shrunk tissue."""
        return super().vbmd(spine_hu, *self._shrunk(muscle_hu, fat_hu))

    def gradient(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> Gradient:
        """Derivatives of vbmd by the patient's own HU: those of the two-point line, tissue times its weight."""
        line = super().gradient(spine_hu, *self._shrunk(muscle_hu, fat_hu))
        muscle, fat = self.weights
        return line._replace(muscle_hu=muscle * line.muscle_hu, fat_hu=fat * line.fat_hu)

    def variance(self, spine_hu: float, muscle_hu: float, fat_hu: float,
                 spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance:
        """Variance of vbmd as of the two-point line, with what is left unknown of muscle and fat.

        M* misses the HU of muscle on this scanner today by w biology + w ROI - (1 - w) drift, whose variance is
        w biological^2 + w^2 se^2.
        """
        return self._propagated(super().gradient(spine_hu, *self._shrunk(muscle_hu, fat_hu)),
                                spine_se_hu, muscle_se_hu, fat_se_hu)

    def _tissue_variances(self, muscle_se_hu: float, fat_se_hu: float) -> tuple[float, float]:
        muscle, fat = self.weights
        return (muscle * self.muscle_biological_sd_hu**2 + (muscle * muscle_se_hu)**2,
                fat * self.fat_biological_sd_hu**2 + (fat * fat_se_hu)**2)

    def _shrunk(self, muscle_hu: float, fat_hu: float) -> tuple[float, float]:
        muscle, fat = self.weights
        return (self.expected_muscle_hu + muscle * (muscle_hu - self.expected_muscle_hu),
                self.expected_fat_hu + fat * (fat_hu - self.expected_fat_hu))

    def _check(self) -> None:
        super()._check()
        check_not_negative(self, "muscle_scanner_sd_hu", "fat_scanner_sd_hu")
        for name in ("expected_muscle_hu", "expected_fat_hu"):
            if getattr(self, name) is None:
                raise ValueError(f"calibration field {name!r} is missing; this kind draws the patient's tissue towards it: "
                                 "give the cohort's mean HU, or use kind 'two_point'")


@dataclass(frozen=True, kw_only=True)
class RescaledCalibration(Provenance):
    """v' = intercept + slope * v of another calibration: for classes, not for the least error of prediction.

    Regression draws the extremes to the middle, which costs sensitivity at 80 mg/cm3; this line gives the spread of the
    reference back. base: any model but another of this kind.
    """

    base: Calibration
    intercept_mg_cm3: float
    slope: float

    kind: ClassVar[str] = "rescaled"

    @property
    def needs_tissue(self) -> bool:
        """As the base."""
        return self.base.needs_tissue

    def vbmd(self, spine_hu: float, muscle_hu: float, fat_hu: float) -> float:
        """vBMD in mg/cm3 of bone that reads spine_hu."""
        return self.intercept_mg_cm3 + self.slope * self.base.vbmd(spine_hu, muscle_hu, fat_hu)

    def variance(self, spine_hu: float, muscle_hu: float, fat_hu: float,
                 spine_se_hu: float, muscle_se_hu: float, fat_se_hu: float) -> Variance:
        """slope^2 times the variance of the base."""
        own = self.base.variance(spine_hu, muscle_hu, fat_hu, spine_se_hu, muscle_se_hu, fat_se_hu)
        return Variance(self.slope**2 * own.spine, self.slope**2 * own.common)

    def _check(self) -> None:
        _check_rises(self, "slope")
        if not isinstance(self.base, Provenance) or isinstance(self.base, RescaledCalibration):
            raise ValueError(f"calibration field 'base' is {self.base!r}; it must be a calibration of another kind than "
                             "'rescaled'")
        if self.base.kvp != self.kvp:
            raise ValueError(f"calibration field 'base' was fitted at {self.base.kvp:g} kV, 'kvp' is {self.kvp:g}; fit both "
                             "on the same scans")


MODELS = (LineCalibration, RegressionCalibration, ShrunkTwoPointCalibration, RescaledCalibration)


def _weight(scanner_sd_hu: float, biological_sd_hu: float) -> float:
    if scanner_sd_hu == 0:
        return 0.0
    return scanner_sd_hu**2 / (scanner_sd_hu**2 + biological_sd_hu**2)


def _check_rises(calibration: Any, name: str) -> None:
    if getattr(calibration, name) <= 0:
        raise ValueError(f"calibration field {name!r} is {getattr(calibration, name)}; density rises with HU, so it must "
                         "exceed 0: look at the pairs it was fitted on")


def _covariance(given: Any) -> tuple[tuple[float, ...], ...]:
    """given as 4 x 4 tuples of floats. Raises ValueError when it is no covariance matrix."""
    name = "calibration field 'coefficient_covariance'"
    try:
        matrix = np.asarray(given, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {given!r}; it must be 4 rows of 4 numbers") from error
    if matrix.shape != (4, 4) or not np.all(np.abs(matrix) <= LARGEST):
        raise ValueError(f"{name} has the shape {matrix.shape}; it must be 4 rows of 4 finite numbers")
    sd = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    sd[sd == 0] = 1.0
    # As correlations, because the variances of intercept and slopes differ by several powers of ten.
    correlation = matrix / np.outer(sd, sd)
    if not np.allclose(correlation, correlation.T, atol=1e-9) or np.linalg.eigvalsh(correlation).min() < -1e-9:
        raise ValueError(f"{name} is not symmetric or gives a negative variance; fit the calibration again")
    return tuple(tuple(float(value) for value in row) for row in matrix)
