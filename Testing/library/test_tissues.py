"""Muscle, fat and aorta regions: a made-up trunk whose HU are known, and real CTs read by eye."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.flags import Severity
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.nearby import near
from LowDoseBMDLib.rois import Mask
from LowDoseBMDLib.tissue_grid import Blocks, average_blocks
from LowDoseBMDLib.tissues import Tissues, find_tissues
from scipy import ndimage

SHAPE_KJI = (48, 120, 170)
SPACING_MM = (2.0, 2.0, 2.5)
CENTRE_XY_MM = (170.0, 150.0)
LEVEL_Z_MM = {"T12": 100.0, "L1": 68.0, "L2": 36.0}
FAT_HU, VISCERAL_HU = -105.0, -70.0


@dataclass(frozen=True)
class Trunk:
    """What a made-up trunk holds, in HU and mm. The spine stands 40 mm behind the middle of the trunk."""

    front_mm: float = 14.0
    flank_mm: float = 14.0
    back_mm: float = 14.0
    psoas_hu: tuple[float, float] = (50.0, 60.0)
    """Left, right."""
    erector_hu: float = 45.0
    aorta_hu: float = 40.0
    kidney_hu: float = 200.0
    noise_hu: float = 10.0
    fascia_gap_mm: float = 0.0
    couch: bool = False
    width_mm: float = 300.0


def grid() -> Geometry:
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = -100.0, 50.0, -700.0
    return Geometry(SHAPE_KJI, matrix)


def axes_mm() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z, y, x) in mm from voxel 0, broadcastable; x and y from the middle of the trunk."""
    k, j, i = np.ogrid[tuple(slice(n) for n in SHAPE_KJI)]
    return k * SPACING_MM[2], j * SPACING_MM[1] - CENTRE_XY_MM[1] + 30.0, i * SPACING_MM[0] - CENTRE_XY_MM[0]


def ellipse(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], half: tuple[float, float]) -> np.ndarray:
    return ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 <= 1.0


def inside_fascia(trunk: Trunk, x: np.ndarray, y: np.ndarray, wall_mm: float = 0.0) -> np.ndarray:
    """The trunk less its fat, and less the muscle wall where wall_mm is given."""
    half = trunk.width_mm / 2 - trunk.flank_mm, 110.0 - (trunk.front_mm + trunk.back_mm) / 2
    centre = 0.0, (trunk.front_mm - trunk.back_mm) / 2
    return ellipse(x, y, centre, (half[0] - wall_mm, half[1] - wall_mm))


def psoas_place(side: str) -> np.ndarray:
    """The muscle itself: 26 x 36 mm, from the disc L1/L2 down, in the notch beside the body."""
    z, y, x = axes_mm()
    left = x if side == "left" else -x
    return ellipse(left, y, (37.0, 46.0), (13.0, 18.0)) & (z < 62.0)


def draw(trunk: Trunk) -> CTVolume:
    """A CT of the trunk: air, skin, fat, muscle wall, visceral fat, spine, muscles, kidneys, aorta."""
    z, y, x = axes_mm()
    shape = np.broadcast_shapes(z.shape, y.shape, x.shape)
    hu = np.full(shape, -1000.0)
    everywhere = np.ones_like(z, bool)

    def fill(region: np.ndarray, value: float) -> None:
        hu[np.broadcast_to(region & everywhere, shape)] = value

    fill(ellipse(x, y, (0, 0), (trunk.width_mm / 2, 110.0)), 20.0)
    fill(ellipse(x, y, (0, 0), (trunk.width_mm / 2 - 2.0, 108.0)), FAT_HU)
    fill(inside_fascia(trunk, x, y), 50.0)
    fill(inside_fascia(trunk, x, y, 8.0), VISCERAL_HU)
    fill(inside_fascia(trunk, x, y) & (np.abs(x) < trunk.fascia_gap_mm / 2) & (y < 0), VISCERAL_HU)
    fill(ellipse(np.abs(x), y, (32.0, 80.0), (28.0, 12.0)), trunk.erector_hu)
    fill(ellipse(np.abs(x), y, (75.0, 45.0), (22.0, 28.0)), trunk.kidney_hu)
    fill(psoas_place("left"), trunk.psoas_hu[0])
    fill(psoas_place("right"), trunk.psoas_hu[1])
    fill(ellipse(x, y, (10.0, 10.0), (10.0, 10.0)), trunk.aorta_hu)
    fill(ellipse(x, y, (0.0, 40.0), (21.0, 16.0)), 90.0)
    for level in LEVEL_Z_MM.values():
        body = np.abs(z - level) <= 13.0
        fill(ellipse(x, y, (0.0, 40.0), (21.0, 16.0)) & body, 500.0)
        fill(ellipse(x, y, (0.0, 40.0), (18.5, 13.5)) & body, 140.0)
    fill((np.abs(x) < 14.0) & (y > 58.0) & (y < 76.0), 400.0)
    fill((np.abs(x) < 9.0) & (y > 58.0) & (y < 70.0), 30.0)
    fill((np.abs(x) >= 9.0) & (np.abs(x) < 14.0) & (y > 45.0) & (y < 62.0), 400.0)
    fill((np.abs(x) < 4.0) & (y >= 76.0) & (y < 92.0), 400.0)
    if trunk.couch:
        fill((np.abs(y - 112.0) <= 2.0) & (np.abs(x) < 160.0), 0.0)
    hu += np.random.default_rng(7).normal(0.0, trunk.noise_hu, shape)
    return CTVolume(np.round(hu).astype(np.int16), grid())


def ellipsoid(geometry: Geometry, centre_lps_mm: np.ndarray, half_mm: tuple[float, float, float] = (21.0, 15.0, 12.5)
              ) -> Mask:
    """A rough body: an elliptic cylinder (half widths along x, y, z) round a body's centre."""
    centre = geometry.to_kji(np.asarray(centre_lps_mm, float))
    radius = np.asarray(half_mm[::-1]) / geometry.spacing_kji_mm
    low = np.maximum(0, np.floor(centre - radius)).astype(int)
    high = np.minimum(geometry.shape_kji, np.ceil(centre + radius).astype(int) + 1)
    k, j, i = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = ((j - centre[1]) / radius[1]) ** 2 + ((i - centre[2]) / radius[2]) ** 2 <= 1.0
    return Mask.from_array(inside & (np.abs(k - centre[0]) <= radius[0]), tuple(int(v) for v in low))


def bodies_of_trunk(*names: str) -> dict[str, Mask]:
    geometry = grid()
    origin = geometry.to_lps(np.zeros(3))
    at = {name: origin + [CENTRE_XY_MM[0], CENTRE_XY_MM[1] - 30.0 + 40.0, LEVEL_Z_MM[name]] for name in names}
    return {name: ellipsoid(geometry, centre) for name, centre in at.items()}


ALL = bodies_of_trunk("T12", "L1", "L2")


def mean_hu(ct: CTVolume, mask: Mask) -> float:
    return float(mask.values(ct.hu).mean())


def codes(tissues: Tissues) -> set[str]:
    return {flag.code for flag in tissues.flags}


@pytest.fixture(scope="module")
def a_trunk() -> CTVolume:
    return draw(Trunk())


@pytest.fixture(scope="module")
def its_tissues(a_trunk: CTVolume) -> Tissues:
    return find_tissues(a_trunk, ALL)


def test_psoas_of_each_side_reads_its_own_hu(a_trunk, its_tissues):
    assert mean_hu(a_trunk, its_tissues.masks["psoas_left"]) == pytest.approx(50.0, abs=1.0)
    assert mean_hu(a_trunk, its_tissues.masks["psoas_right"]) == pytest.approx(60.0, abs=1.0)


def test_left_is_the_patients_left(a_trunk, its_tissues):
    left, right = (its_tissues.masks[f"psoas_{side}"].centroid_lps_mm(a_trunk.geometry) for side in ("left", "right"))
    assert left[0] - right[0] > 50.0


@pytest.mark.parametrize("side", ["left", "right"])
def test_psoas_region_lies_inside_the_muscle_and_off_its_border(a_trunk, its_tissues, side):
    mask = its_tissues.masks[f"psoas_{side}"]
    assert mask.values(psoas_place(side)).mean() > 0.98
    assert mask.volume_mm3(a_trunk.geometry) > 2000.0


def test_a_good_scan_raises_no_flag(its_tissues):
    assert its_tissues.flags == ()
    assert set(its_tissues.masks) == {"psoas_left", "psoas_right", "fat_anterior", "aorta"}


def test_fat_is_subcutaneous_and_in_front(a_trunk, its_tissues):
    fat = its_tissues.masks["fat_anterior"]
    assert mean_hu(a_trunk, fat) == pytest.approx(FAT_HU, abs=1.0)
    assert fat.centroid_lps_mm(a_trunk.geometry)[1] < ALL["L1"].centroid_lps_mm(a_trunk.geometry)[1] - 100.0
    assert fat.volume_mm3(a_trunk.geometry) > 2000.0


@pytest.mark.parametrize("blood_hu", [40.0, 180.0, 340.0])
def test_aorta_reads_its_blood_with_and_without_contrast(blood_hu):
    ct = draw(Trunk(aorta_hu=blood_hu))
    aorta = find_tissues(ct, ALL).masks["aorta"]
    assert mean_hu(ct, aorta) == pytest.approx(blood_hu, abs=2.0)
    assert aorta.volume_mm3(ct.geometry) > 500.0


def test_a_missing_aorta_is_said():
    ct = draw(Trunk(aorta_hu=VISCERAL_HU))
    tissues = find_tissues(ct, ALL)
    assert "aorta" not in tissues.masks
    assert [f.severity for f in tissues.flags if f.code == "aorta_not_found"] == [Severity.INFO]


@pytest.mark.parametrize("noise_hu", [30.0, 60.0])
def test_noise_of_a_low_dose_does_not_move_the_means(noise_hu):
    ct = draw(Trunk(noise_hu=noise_hu))
    tissues = find_tissues(ct, ALL)
    assert mean_hu(ct, tissues.masks["psoas_left"]) == pytest.approx(50.0, abs=4.0)
    assert mean_hu(ct, tissues.masks["psoas_right"]) == pytest.approx(60.0, abs=4.0)
    assert mean_hu(ct, tissues.masks["fat_anterior"]) == pytest.approx(FAT_HU, abs=2.0)


def test_fat_behind_a_gap_of_the_fascia_is_not_read():
    ct = draw(Trunk(fascia_gap_mm=40.0))
    assert mean_hu(ct, find_tissues(ct, ALL).masks["fat_anterior"]) == pytest.approx(FAT_HU, abs=2.0)


@pytest.mark.parametrize(("thin", "site"), [
    ({"front_mm": 4.0}, "fat_flank"),
    ({"front_mm": 4.0, "flank_mm": 4.0}, "fat_posterior"),
])
def test_where_the_front_is_thin_another_site_is_read_and_said(thin, site):
    ct = draw(Trunk(**thin))
    tissues = find_tissues(ct, ALL)
    assert [name for name in tissues.masks if name.startswith("fat")] == [site]
    assert [f.severity for f in tissues.flags if f.code == site] == [Severity.CAUTION]
    assert mean_hu(ct, tissues.masks[site]) == pytest.approx(FAT_HU, abs=3.0)


def test_fat_of_the_back_is_not_taken_from_a_couch_that_touches():
    ct = draw(Trunk(front_mm=4.0, flank_mm=4.0, couch=True))
    tissues = find_tissues(ct, ALL)
    assert mean_hu(ct, tissues.masks["fat_posterior"]) == pytest.approx(FAT_HU, abs=3.0)


def test_a_thin_layer_all_round_is_read_with_a_flag():
    ct = draw(Trunk(front_mm=8.0, flank_mm=4.0, back_mm=4.0))
    tissues = find_tissues(ct, ALL)
    assert "fat_thin" in codes(tissues)
    assert mean_hu(ct, tissues.masks["fat_anterior"]) == pytest.approx(FAT_HU, abs=12.0)


def test_no_fat_no_mask():
    tissues = find_tissues(draw(Trunk(front_mm=3.0, flank_mm=3.0, back_mm=3.0)), ALL)
    assert not [name for name in tissues.masks if name.startswith("fat")]
    assert [f.severity for f in tissues.flags if f.code == "fat_not_found"] == [Severity.LIMITED]


@pytest.mark.parametrize("hu", [VISCERAL_HU, 150.0, 200.0])
def test_without_psoas_the_back_muscle_stands_in(hu):
    """Fat, bowel with contrast or kidney where psoas should be is never read as psoas."""
    ct = draw(Trunk(psoas_hu=(hu, hu)))
    tissues = find_tissues(ct, ALL)
    assert not {"psoas_left", "psoas_right"} & set(tissues.masks)
    assert [f.severity for f in tissues.flags if f.code == "muscle_paraspinal"] == [Severity.LIMITED]
    for side in ("left", "right"):
        assert mean_hu(ct, tissues.masks[f"paraspinal_{side}"]) == pytest.approx(45.0, abs=1.5)


def test_psoas_on_one_side_only_is_said():
    tissues = find_tissues(draw(Trunk(psoas_hu=(VISCERAL_HU, 60.0))), ALL)
    assert "psoas_left" not in tissues.masks
    assert "psoas_right" in tissues.masks
    assert "muscle_one_side" in codes(tissues)


def test_without_any_muscle_none_is_made_up():
    tissues = find_tissues(draw(Trunk(psoas_hu=(-70.0, -70.0), erector_hu=-70.0)), ALL)
    assert not [name for name in tissues.masks if name.startswith(("psoas", "paraspinal"))]
    assert [f.severity for f in tissues.flags if f.code == "muscle_not_found"] == [Severity.LIMITED]


def test_a_scan_that_ends_above_l2_uses_what_is_there(a_trunk):
    first = int(LEVEL_Z_MM["L1"] / SPACING_MM[2]) - 6
    geometry = a_trunk.geometry.crop((first, 0, 0), (SHAPE_KJI[0] - first, *SHAPE_KJI[1:]))
    ct = CTVolume(a_trunk.hu[first:], geometry)
    bodies = {name: Mask(mask.voxels, (mask.start_kji[0] - first, *mask.start_kji[1:]))
              for name, mask in ALL.items() if name != "L2"}
    tissues = find_tissues(ct, bodies)
    assert mean_hu(ct, tissues.masks["fat_anterior"]) == pytest.approx(FAT_HU, abs=1.0)
    assert {"muscle_paraspinal", "muscle_small"} & codes(tissues)


@pytest.mark.parametrize("names", [("L1",), ("T12", "L2"), ("L1", "L2")])
def test_any_of_the_levels_will_do(a_trunk, names):
    tissues = find_tissues(a_trunk, bodies_of_trunk(*names))
    assert mean_hu(a_trunk, tissues.masks["psoas_left"]) == pytest.approx(50.0, abs=2.0)
    assert mean_hu(a_trunk, tissues.masks["psoas_right"]) == pytest.approx(60.0, abs=2.0)


def test_rough_bodies_may_be_too_wide_and_off_centre(a_trunk):
    shifted = {name: ellipsoid(a_trunk.geometry, mask.centroid_lps_mm(a_trunk.geometry) + [4.0, -3.0, 3.0],
                               (25.0, 17.0, 13.0)) for name, mask in ALL.items()}
    tissues = find_tissues(a_trunk, shifted)
    assert mean_hu(a_trunk, tissues.masks["psoas_left"]) == pytest.approx(50.0, abs=1.5)
    assert mean_hu(a_trunk, tissues.masks["psoas_right"]) == pytest.approx(60.0, abs=1.5)


def test_a_muscle_segmentation_that_is_given_bounds_the_region(a_trunk):
    z, _, _ = axes_mm()
    drawn = np.broadcast_to(psoas_place("left") & (z < 40.0), SHAPE_KJI)
    tissues = find_tissues(a_trunk, ALL, muscles={"psoas_left": Mask.from_array(drawn)})
    region = tissues.masks["psoas_left"].full(a_trunk.geometry)
    assert region.any()
    assert not (region & ~drawn).any()
    assert mean_hu(a_trunk, tissues.masks["psoas_left"]) == pytest.approx(50.0, abs=1.0)


def test_bone_that_is_given_is_kept_out(a_trunk):
    _, y, _ = axes_mm()
    bone = np.broadcast_to(psoas_place("left") & (y > 46.0), SHAPE_KJI)
    region = find_tissues(a_trunk, ALL, bone=Mask.from_array(bone)).masks["psoas_left"].full(a_trunk.geometry)
    assert region.any()
    assert not (region & bone).any()


def test_a_wrong_name_is_refused(a_trunk):
    with pytest.raises(ValueError, match="iliopsoas"):
        find_tissues(a_trunk, ALL, muscles={"iliopsoas": ALL["L1"]})
    with pytest.raises(ValueError, match="vertebra"):
        find_tissues(a_trunk, {"vertebra": ALL["L1"]})


def test_without_any_body_nothing_is_found_and_said(a_trunk):
    tissues = find_tissues(a_trunk, {"L1": Mask.from_array(np.zeros((1, 1, 1), bool))})
    assert tissues.masks == {}
    assert codes(tissues) == {"muscle_not_found", "fat_not_found", "aorta_not_found"}


@pytest.mark.parametrize("level", ["T5", "T10"])
def test_no_psoas_is_read_beside_thoracic_bodies(a_trunk, level):
    assert not [name for name in find_tissues(a_trunk, {level: ALL["L1"]}).masks if name.startswith("psoas")]


def test_a_low_lumbar_body_alone_breaks_nothing(a_trunk):
    masks = find_tissues(a_trunk, {"L5": ALL["L1"]}).masks
    assert mean_hu(a_trunk, masks["fat_anterior"]) == pytest.approx(FAT_HU, abs=2.0)


def test_progress_runs_to_the_end_and_can_stop_the_run(a_trunk):
    seen: list[float] = []
    find_tissues(a_trunk, ALL, progress=lambda _stage, fraction: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def stop(_stage: str, fraction: float) -> None:
        if fraction >= 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_tissues(a_trunk, ALL, progress=stop)


def test_blocks_average_whole_voxels_and_map_back_exactly():
    hu = np.arange(4 * 6 * 6, dtype=np.int16).reshape(4, 6, 6)
    ct = CTVolume(hu, Geometry((4, 6, 6), np.diag([1.0, 1.0, 2.0, 1.0])))
    blocks = average_blocks(ct, (0, 1, 1), (4, 6, 6), (2.0, 2.0, 2.0))
    assert blocks.hu.shape == (4, 2, 2)
    assert blocks.hu[0, 0, 0] == hu[0, 1:3, 1:3].mean()
    region = np.zeros((4, 2, 2), bool)
    region[1, 0, 1] = True
    mask = blocks.to_mask(region)
    assert mask.start_kji == (1, 1, 3)
    assert mask.voxels.shape == (1, 2, 2)
    assert np.array_equal(blocks.from_mask(mask), region)
    assert blocks.from_mask(replace(mask, start_kji=(0, 40, 0))).sum() == 0


REAL = {
    "lidc0001": ((57.0, 57.0), 8.0, -107.1, 6.0, 405.0, 20.0),
    "ts_example": ((43.5, 41.8), 5.0, -106.4, 5.0, 41.5, 7.0),
    "crlm1006": ((56.1, 56.1), 6.0, -111.3, 5.0, 148.4, 8.0),
}
"""Scan: psoas left and right, tolerance, fat, tolerance, aorta, tolerance (HU), as a reader's ROIs had them."""


@pytest.fixture(scope="module")
def load_scan(shared_data):
    sitk = pytest.importorskip("SimpleITK")
    levels = json.loads((shared_data / "levels.json").read_text())

    def load(name: str, file: str = "ct.nii.gz") -> tuple[CTVolume, dict[str, Mask]]:
        path = shared_data / name / file
        if not path.is_file():
            pytest.skip(f"{name} is not here")
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
        ct = CTVolume(sitk.GetArrayFromImage(image), Geometry.from_image(image))
        return ct, {name: ellipsoid(ct.geometry, entry["centre_lps_mm"])
                    for name, entry in levels[name].items() if name in ("T12", "L1", "L2")}

    return load


@pytest.mark.parametrize("name", REAL)
def test_real_scans_read_as_a_reader_read_them(load_scan, name):
    psoas, psoas_off, fat, fat_off, aorta, aorta_off = REAL[name]
    ct, bodies = load_scan(name)
    tissues = find_tissues(ct, bodies)
    assert tissues.flags == ()
    for side, hu in zip(("left", "right"), psoas, strict=True):
        assert mean_hu(ct, tissues.masks[f"psoas_{side}"]) == pytest.approx(hu, abs=psoas_off)
        assert tissues.masks[f"psoas_{side}"].volume_mm3(ct.geometry) >= 2000.0
    assert mean_hu(ct, tissues.masks["fat_anterior"]) == pytest.approx(fat, abs=fat_off)
    assert mean_hu(ct, tissues.masks["aorta"]) == pytest.approx(aorta, abs=aorta_off)


def test_psoas_and_aorta_lie_inside_their_labels(load_scan):
    ct, bodies = load_scan("lidc0001")
    labels, _ = load_scan("lidc0001", "labels.nii.gz")
    masks = find_tissues(ct, bodies).masks
    for name, label in (("psoas_left", 88), ("psoas_right", 89), ("aorta", 52)):
        assert (masks[name].values(labels.hu) == label).mean() >= 0.9


def test_a_scan_without_l1_falls_back_and_says_so(load_scan):
    ct, bodies = load_scan("lidc0314")
    tissues = find_tissues(ct, bodies)
    assert "muscle_paraspinal" in codes(tissues)
    assert mean_hu(ct, tissues.masks["fat_anterior"]) == pytest.approx(-83.0, abs=6.0)
    assert mean_hu(ct, tissues.masks["aorta"]) == pytest.approx(35.5, abs=7.0)
    for side in ("left", "right"):
        assert 30.0 < mean_hu(ct, tissues.masks[f"paraspinal_{side}"]) < 65.0


@pytest.mark.parametrize(("view_mm", "site"), [(400, "fat_anterior"), (161, "fat_posterior"), (102, None)])
def test_a_narrow_view_never_reads_visceral_fat(view_mm, site):
    """Where the view cuts the belly off, the fat at its frame is visceral: another site stands in, or none."""
    from LowDoseBMDLib.phantom import LABEL, PhantomSpec, make_phantom

    phantom = make_phantom(PhantomSpec(seed=3, spacing_mm=(1.5, 1.5, 3.0), scan_top=("T11", 0.0)))
    grid = phantom.ct.geometry
    half = view_mm / 2 / 1.5
    _, j, i = grid.to_kji(np.array(phantom.truth.centres_lps_mm["L1"]))
    low = [max(0, int(v - half)) for v in (j, i)]
    box = (slice(None), *(slice(a, int(v + half)) for a, v in zip(low, (j, i), strict=True)))
    hu = np.ascontiguousarray(phantom.ct.hu[box])
    ct = CTVolume(hu, grid.crop((0, *low), hu.shape))
    bodies = {level: Mask.from_array(phantom.body_mask(level).full(grid)[box]) for level in ("T12", "L1", "L2")}
    fat = {name: mask for name, mask in find_tissues(ct, bodies).masks.items() if name.startswith("fat_")}
    assert list(fat) == ([site] if site else [])
    for mask in fat.values():
        assert (mask.values(phantom.labels[box]) == LABEL["visceral_fat"]).mean() < 0.02


@pytest.mark.parametrize(("spacing_mm", "distance_mm"), [
    ((2.5, 1.5, 1.5), 2.0), ((2.0, 1.4, 1.3), 4.0), ((3.0, 3.0, 3.0), 6.0), ((1.5, 1.5), 8.0), ((1.37, 1.6), 3.9)])
def test_near_is_what_a_distance_transform_says(spacing_mm, distance_mm):
    """Also where a block lies exactly as far away, as at 3 mm and 6 mm."""
    region = np.random.default_rng(1).random((9, 40, 31)) < 0.004
    if len(spacing_mm) == 3:
        expected = ndimage.distance_transform_edt(~region, sampling=spacing_mm) <= distance_mm
    else:
        expected = np.array([ndimage.distance_transform_edt(~plane, sampling=spacing_mm) <= distance_mm if plane.any()
                             else plane for plane in region])
    assert region.any() and not expected.all()
    np.testing.assert_array_equal(near(region, distance_mm, spacing_mm), expected)


def test_depth_is_measured_from_the_surface_not_from_the_box():
    """Of a slab of 4 x 5 blocks that runs through the box along k, and of one that fills it."""
    blocks = Blocks(np.zeros((6, 12, 15), np.float32), (0, 0, 0), (1, 1, 1), (2.0, 1.0, 1.0))
    region = np.zeros(blocks.hu.shape, bool)
    region[:, 3:7, 4:9] = True
    j, i = np.ogrid[:12, :15]
    depth = np.minimum(np.minimum(j - 2, 7 - j), np.minimum(i - 3, 9 - i)).clip(0) - 0.5
    np.testing.assert_allclose(blocks.depth_mm(region), np.broadcast_to(depth, region.shape))
    assert np.isinf(blocks.depth_mm(np.ones_like(region))).all()
    np.testing.assert_array_equal(blocks.depth_mm(np.zeros_like(region)), -0.5)
