"""However a file stores a CT, its axes turned, oblique, cropped, in any number type, HU and vBMD come out the same."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk
from fault_scene import write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.files.segmentation import load_segmentation
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.measurement import Measurement, measure
from LowDoseBMDLib.pipeline import rois_from_masks
from small_torso import SHAPE_KJI, hu, masks, vbmd

REGIONS = {name: mask for name, mask in masks().items() if not name.startswith("body")}
BOX_KJI = tuple((min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes))
                for boxes in [[mask.box for mask in REGIONS.values()]] for axis in range(3))
"""First voxel of the regions and the first behind them, along k, j, i: no crop cuts them."""

STEPS_HU = {"int16": 1.0, "int32": 1.0, "float32": 0.25, "float64": 0.125}
"""Which HU a number type is given: multiples of these, whose sums are exact in float64, in whatever order they are added."""

RESCALES = {"unsigned": (1.0, -1024, 0), "signed": (1.0, 0, 1), "steep": (2.0, -1100, 0), "fine": (0.5, -1000, 0)}
"""Slope and intercept of a DICOM series, and whether its pixels are signed."""
OFFSET = 1024
"""What write_series adds to the values that it stores."""

ROUNDED = 1e-6
"""Relative: the three spacings of a NIfTI header are float32, each off by at most 2^-24 = 6e-8."""
ROUNDED_MM = 2e-3
"""Origins up to 1000 mm in float32 are off by 6e-5, an axis' direction over 300 mm by 300 x 6e-8; a quaternion of three
such numbers loses up to a few times that."""


@dataclass(frozen=True)
class Storage:
    """How a file keeps a CT. order, flips: of the file's axes; turn: rotation vector of the grid in radians; crop: voxels
    taken off at both ends of k, j, i, as shares of what may go."""

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    turn: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    crop: tuple[tuple[float, float], ...]
    kind: str
    seed: int

    def ct(self, step_hu: float) -> tuple[CTVolume, np.ndarray, tuple[int, ...]]:
        """The CT with canonical axes, (k, j, i) labels of its regions, and the index of its first voxel before the crop."""
        noise = np.random.default_rng(self.seed).integers(-800, 801, SHAPE_KJI) * step_hu / 4
        values = hu() + np.trunc(noise / step_hu) * step_hu
        values[::7, 0, ::7], values[::7, -1, ::7] = -1000.0, 900.0
        values[:, BOX_KJI[1][0], BOX_KJI[2][0]], values[:, BOX_KJI[1][0] + 1, BOX_KJI[2][0]] = -1000.0, 900.0
        labels = np.zeros(SHAPE_KJI, np.uint8)
        for name, mask in REGIONS.items():
            labels[mask.box][mask.voxels] = STRUCTURES[name].label
        box = tuple(slice(round(low * a), n - round((n - high) * b))
                    for (low, high), n, (a, b) in zip(BOX_KJI, SHAPE_KJI, self.crop, strict=True))
        matrix = np.eye(4)
        matrix[:3, :3] = rotation(self.turn) * np.array(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        cut = values[box]
        return CTVolume(cut, Geometry(cut.shape, matrix)), labels[box], tuple(part.start for part in box)

    def image(self, array: np.ndarray, geometry: Geometry) -> sitk.Image:
        """The array (k, j, i) with the file's axes: they, not the patient, are exchanged and turned round."""
        matrix = geometry.ijk_to_lps.copy()
        for axis, flip in enumerate(self.flips):
            if flip:
                matrix[:3, 3] += matrix[:3, axis] * (array.shape[2 - axis] - 1)
                matrix[:3, axis] *= -1
                array = np.flip(array, 2 - axis)
        matrix[:3, :3] = matrix[:3, list(self.order)]
        array = array.transpose([2 - axis for axis in self.order[::-1]])
        return Geometry(array.shape, matrix).to_image(np.ascontiguousarray(array))


def rotation(vector: tuple[float, ...]) -> np.ndarray:
    """(3, 3) by Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = np.array(vector) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def turns(most_degrees: float) -> st.SearchStrategy:
    """Rotation vectors about any axis; no axis of the grid then leaves the patient's by more than the angle."""
    side = np.radians(most_degrees) / np.sqrt(3)
    return st.tuples(*[st.floats(-side, side)] * 3)


def storages(most_degrees: float, kinds: tuple[str, ...], orders: tuple[tuple[int, ...], ...]) -> st.SearchStrategy[Storage]:
    share = st.floats(0, 1)
    return st.builds(
        Storage, order=st.sampled_from(orders), flips=st.tuples(*[st.booleans()] * 3), turn=turns(most_degrees),
        spacing_mm=st.tuples(st.floats(0.9, 1.6), st.floats(0.9, 1.6), st.floats(1.0, 3.0)),
        origin_mm=st.tuples(*[st.floats(-1000, 1000)] * 3), crop=st.tuples(*[st.tuples(share, share)] * 3),
        kind=st.sampled_from(kinds), seed=st.integers(0, 99))


def measured(path: Path, regions: Path) -> Measurement:
    """By the product's own way from files to numbers."""
    ct = read_ct(path)
    stored = load_segmentation(regions, ct.geometry)
    assert not stored.resampled and not stored.unknown
    return measure(ct, rois_from_masks(ct, stored.masks), TwoPointCalibration())


def check(found: Measurement, ct: CTVolume, first_kji: tuple[int, ...]) -> None:
    """Against numpy on the array that was written: HU to the last digit, vBMD by the printed formula, place and volume."""
    def truth(*names: str) -> float:
        boxes = [tuple(slice(b.start - f, b.stop - f) for b, f in zip(REGIONS[name].box, first_kji, strict=True))
                 for name in names]
        return float(np.concatenate([ct.hu[box].ravel() for box in boxes]).astype(np.float64).mean())

    muscle, fat = truth("psoas_left", "psoas_right"), truth("fat_anterior")
    assert (found.muscle.hu_mean, found.fat.hu_mean, found.aorta.hu_mean) == (muscle, fat, truth("aorta"))
    for name in LEVELS:
        level, mask = found.level(name), REGIONS[f"trabecular_{name}"]
        assert level.hu_mean == truth(f"trabecular_{name}")
        assert level.vbmd_mg_cm3 == pytest.approx(vbmd(level.hu_mean, muscle, fat), rel=1e-12)
        assert level.volume_mm3 == pytest.approx(mask.voxels.size * ct.geometry.voxel_volume_mm3, rel=ROUNDED)
        centre = np.subtract(mask.start_kji, first_kji) + (np.array(mask.voxels.shape) - 1) / 2
        assert np.abs(np.subtract(level.centre_lps_mm, ct.geometry.to_lps(centre))).max() < ROUNDED_MM
    mean = np.mean([truth("trabecular_L1"), truth("trabecular_L2")])
    assert found.mean_vbmd_mg_cm3 == pytest.approx(vbmd(mean, muscle, fat), rel=1e-12)


quick = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)


@settings(quick, max_examples=30)
@given(storages(44, tuple(STEPS_HU), tuple(permutations(range(3)))), st.sampled_from((".nrrd", ".nii", ".nii.gz", ".mha")),
       st.sampled_from((".nrrd", ".nii.gz")))
def test_a_volume_file_may_store_a_ct_in_any_way(storage: Storage, ending: str, regions_ending: str) -> None:
    ct, labels, first_kji = storage.ct(STEPS_HU[storage.kind])
    with TemporaryDirectory() as folder:
        path, regions = Path(folder) / f"ct{ending}", Path(folder) / f"regions{regions_ending}"
        sitk.WriteImage(storage.image(ct.hu.astype(storage.kind), ct.geometry), str(path))
        sitk.WriteImage(storage.image(labels, ct.geometry), str(regions))
        check(measured(path, regions), ct, first_kji)


@settings(quick, max_examples=12)
@given(storages(31, tuple(RESCALES), ((0, 1, 2), (1, 0, 2))), st.integers(0, 99))
def test_a_dicom_series_may_store_a_ct_in_any_way(storage: Storage, shuffle: int) -> None:
    slope, intercept, signed = RESCALES[storage.kind]
    ct, labels, first_kji = storage.ct(slope)
    image = storage.image((ct.hu - intercept) / slope - OFFSET, ct.geometry)
    with TemporaryDirectory() as folder:
        series = write_series(Path(folder) / "ct", sitk.GetArrayFromImage(image), Geometry.from_image(image),
                              RescaleSlope=slope, RescaleIntercept=intercept, PixelRepresentation=signed)
        files = sorted(series.iterdir())
        for path, number in zip(files, np.random.default_rng(shuffle).permutation(len(files)), strict=True):
            path.rename(series / f"slice{number}")
        regions = Path(folder) / "regions.nrrd"
        sitk.WriteImage(storage.image(labels, ct.geometry), str(regions))
        check(measured(series, regions), ct, first_kji)
