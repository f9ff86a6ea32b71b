"""Bodies, cores and completeness, on vertebrae whose answer is known by arithmetic and on real label maps."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_ct, read_labels
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask
from LowDoseBMDLib.schemes import read_scheme
from LowDoseBMDLib.vertebrae import assess_levels, describe_body, split_vertebrae, trabecular_mask
from scipy import ndimage

CHEST = (0.7, 0.7, 2.5)
SEMI_AXES_MM = (21.0, 16.0, 14.0)


def grid_of(size_mm: tuple[float, ...], spacing_mm: tuple[float, ...], shift: float = 0.0) -> Geometry:
    """A grid of ``size_mm`` (x, y, z) centred on the LPS origin, moved by a part of a voxel."""
    matrix = np.diag([*spacing_mm, 1.0])
    shape = [int(np.ceil(s / h)) for s, h in zip(size_mm, spacing_mm, strict=True)]
    matrix[:3, 3] = [(-0.5 * n + 0.5 + shift) * h for n, h in zip(shape, spacing_mm, strict=True)]
    return Geometry(tuple(shape[::-1]), matrix)


def points(geometry: Geometry) -> np.ndarray:
    return geometry.to_lps(np.stack(np.indices(geometry.shape_kji), axis=-1))


def turned(tilt_deg: float, side_deg: float = 0.0, rotation_deg: float = 0.0) -> np.ndarray:
    """(3, 3) rows left, posterior, superior of a vertebra tilted forward, to the side, and rotated."""
    angles = np.radians([tilt_deg, side_deg, rotation_deg])
    (ct, cs, cr), (st, ss, sr) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
    about_y = np.array([[cs, 0, ss], [0, 1, 0], [-ss, 0, cs]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).T


def vertebra_at(lps: np.ndarray, centre: np.ndarray, axes: np.ndarray,
                height: float = 26.0) -> tuple[np.ndarray, np.ndarray]:
    """(body, posterior elements) of a model vertebra: an elliptic drum cut flat behind, pedicles, an arch round a
    canal of 18 x 16 mm, transverse processes and a spinous process that points down."""
    x, y, z = np.moveaxis((lps - centre) @ axes.T, -1, 0)
    body = ((x / 21) ** 2 + (y / 17) ** 2 < 1) & (y < 12) & (np.abs(z) < height / 2)
    ring = ((x / 15) ** 2 + ((y - 20) / 14) ** 2 < 1) & ((x / 9) ** 2 + ((y - 20) / 8) ** 2 >= 1)
    arch = ring & (y >= 12) & (np.abs(z + 2) < np.where(y < 22, 6, 10))
    transverse = (np.abs(x) < 34) & (np.abs(x) > 9) & (np.abs(y - 22) < 4) & (np.abs(z) < 5)
    spinous = (np.abs(x) < 3) & (y > 28) & (y < 52) & (np.abs(z + 4 + 0.4 * (y - 28)) < 7)
    return body, (arch | transverse | spinous) & ~body


@dataclass(frozen=True)
class Column:
    """Five model vertebrae, their true bodies and the CT they lie in."""

    geometry: Geometry
    vertebrae: dict[str, Mask]
    bodies: dict[str, Mask]
    axes: np.ndarray

    @property
    def ct(self) -> CTVolume:
        hu = np.random.default_rng(0).integers(20, 60, self.geometry.shape_kji).astype(np.int16)
        return CTVolume(hu, self.geometry)


def column(spacing_mm: tuple[float, float, float] = CHEST, axes: np.ndarray | None = None,
           names: tuple[str, ...] = ("T12", "L1", "L2"), height_mm: float | None = None) -> Column:
    axes = np.eye(3) if axes is None else axes
    geometry = grid_of((96, 130, height_mm or 40.0 * len(names) + 40), spacing_mm)
    lps = points(geometry)
    vertebrae, bodies = {}, {}
    for n, name in enumerate(names):
        centre = (0.5 * (len(names) - 1) - n) * 36.0 * axes[2]
        body, posterior = vertebra_at(lps, centre, axes)
        if (body | posterior).any():
            vertebrae[name] = Mask.from_array(body | posterior)
        if body.any():
            bodies[name] = Mask.from_array(body)
    return Column(geometry, vertebrae, bodies, axes)


def dice(one: Mask, two: Mask, geometry: Geometry) -> float:
    a, b = one.full(geometry), two.full(geometry)
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def angle_deg(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(one, two), -1, 1))))


ATTITUDES = {"straight": turned(0), "kyphotic": turned(25), "scoliotic": turned(10, 18),
             "rotated": turned(10, 8, 15)}


@pytest.mark.parametrize("spacing_mm", [CHEST, (1.5, 1.5, 1.5), (3.0, 3.0, 3.0)], ids=["chest", "1.5mm", "3mm"])
@pytest.mark.parametrize("attitude", ATTITUDES)
def test_bodies_are_cut_by_their_own_axes(spacing_mm, attitude):
    spine = column(spacing_mm, ATTITUDES[attitude])
    split = split_vertebrae(spine.vertebrae, spine.geometry)
    assert list(split) == ["T12", "L1", "L2"]
    for name, parts in split.items():
        assert dice(parts.body, spine.bodies[name], spine.geometry) > (0.93 if spacing_mm[0] < 2 else 0.90)
        offset = parts.body.centroid_lps_mm(spine.geometry) - spine.bodies[name].centroid_lps_mm(spine.geometry)
        assert np.linalg.norm(offset) < 1.5
        assert angle_deg(parts.axes[2], spine.axes[2]) < 4
        assert angle_deg(parts.axes[1], spine.axes[1]) < 6


def test_body_and_posterior_elements_are_the_vertebra():
    spine = column()
    parts = split_vertebrae(spine.vertebrae, spine.geometry)["L1"]
    body, posterior = parts.body.full(spine.geometry), parts.posterior.full(spine.geometry)
    assert not (body & posterior).any()
    assert np.array_equal(body | posterior, spine.vertebrae["L1"].full(spine.geometry))


def test_a_vertebra_without_a_closed_ring_is_cut_at_its_neighbours_canal():
    spine = column()
    open_ring = spine.vertebrae["L1"].full(spine.geometry) & (points(spine.geometry)[..., 1] < 17)
    split = split_vertebrae({**spine.vertebrae, "L1": Mask.from_array(open_ring)}, spine.geometry)
    assert dice(split["L1"].body, spine.bodies["L1"], spine.geometry) > 0.93


def test_one_vertebra_alone_can_be_cut():
    spine = column(names=("L1",))
    split = split_vertebrae(spine.vertebrae, spine.geometry)
    assert dice(split["L1"].body, spine.bodies["L1"], spine.geometry) > 0.93


def test_processes_without_their_body_are_no_body():
    """Of T11 only lamina and spinous process are labelled, more than a sliver."""
    spine = column(names=("T11", "T12", "L1", "L2"))
    behind = spine.vertebrae["T11"].full(spine.geometry) & (points(spine.geometry)[..., 1] > 24)
    only = Mask.from_array(behind)
    assert only.volume_mm3(spine.geometry) > 2000
    assert list(split_vertebrae({**spine.vertebrae, "T11": only}, spine.geometry)) == ["T12", "L1", "L2"]


def test_no_vertebra_no_body():
    assert split_vertebrae({}, grid_of((10, 10, 10), (1, 1, 1))) == {}


@pytest.mark.parametrize("attitude", ATTITUDES)
def test_size_and_axes_of_a_body_alone(attitude):
    spine = column((1.0, 1.0, 1.25), ATTITUDES[attitude])
    centres = {name: mask.centroid_lps_mm(spine.geometry) for name, mask in spine.bodies.items()}
    shape = describe_body(spine.bodies["L1"], spine.geometry, centres["T12"], centres["L2"])
    assert angle_deg(shape.axes[2], spine.axes[2]) < 2
    assert shape.height_mm == pytest.approx((26, 26, 26), abs=1.2)
    assert shape.depth_mm == pytest.approx(29, abs=2)
    assert shape.width_mm == pytest.approx(42, abs=3)
    assert np.allclose(shape.axes @ shape.axes.T, np.eye(3), atol=1e-9) and np.linalg.det(shape.axes) > 0


def test_a_wedged_body_is_lower_in_front():
    geometry = grid_of((60, 60, 50), (1.0, 1.0, 1.0))
    x, y, z = np.moveaxis(points(geometry), -1, 0)
    wedge = (np.abs(x) < 20) & (np.abs(y) < 15) & (np.abs(z) < 10 + 4 * y / 15)
    height = describe_body(Mask.from_array(wedge), geometry).height_mm
    assert height == pytest.approx((20 - 8 * 0.7, 20, 20 + 8 * 0.7), abs=1.0)


def ellipsoid(geometry: Geometry) -> Mask:
    local = points(geometry) @ turned(8, 6).T / SEMI_AXES_MM
    return Mask.from_array((local**2).sum(axis=-1) < 1)


def parallel_ellipsoid_mm3(distance_mm: float) -> float:
    """Volume inside the parallel surface, by Steiner's formula V - S d + M d2 - 4/3 pi d3."""
    a, b, c = SEMI_AXES_MM
    heights = np.linspace(-1, 1, 401)[:-1] + 1 / 400
    z, turn = np.meshgrid(heights, np.linspace(0, 2 * np.pi, 400, endpoint=False), indexing="ij")
    u = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=-1)
    surface = 4 * np.pi * a * b * c * np.sqrt(((u / SEMI_AXES_MM) ** 2).sum(-1)).mean()
    curvature = 4 * np.pi * np.sqrt(((u * SEMI_AXES_MM) ** 2).sum(-1)).mean()
    volume = 4 / 3 * np.pi * a * b * c
    return volume - surface * distance_mm + curvature * distance_mm**2 - 4 / 3 * np.pi * distance_mm**3


@pytest.mark.parametrize("distance_mm", [4.0, 5.5])
@pytest.mark.parametrize("spacing_mm", [CHEST, (0.7, 0.7, 1.25), (1.0, 1.0, 1.0), (1.5, 1.5, 1.5)])
def test_the_core_does_not_depend_on_the_spacing(spacing_mm, distance_mm):
    volumes = []
    for shift in (0.0, 0.3, 0.6):
        geometry = grid_of((50, 44, 40), spacing_mm, shift)
        core, used = trabecular_mask(ellipsoid(geometry), geometry, "physical", distance_mm)
        volumes.append(core.volume_mm3(geometry))
        assert used == distance_mm
    assert np.mean(volumes) == pytest.approx(parallel_ellipsoid_mm3(distance_mm), rel=0.04)


def test_a_core_never_leaves_the_body_and_shrinks_with_the_distance():
    geometry = grid_of((50, 44, 40), CHEST)
    body = ellipsoid(geometry)
    cores = [trabecular_mask(body, geometry, "physical", d)[0].full(geometry) for d in (3.0, 4.0, 5.0, 6.0)]
    assert not (cores[0] & ~body.full(geometry)).any()
    for wide, narrow in zip(cores, cores[1:], strict=False):
        assert not (narrow & ~wide).any() and narrow.sum() < wide.sum()


def test_a_small_body_is_eroded_less_and_says_so():
    geometry = grid_of((40, 40, 30), (0.7, 0.7, 1.25))
    body = Mask.from_array((np.abs(points(geometry)) < (13, 11, 7.5)).all(axis=-1))
    core, used = trabecular_mask(body, geometry)
    assert 3.0 <= used < 5.5 and core.volume_mm3(geometry) >= 1000
    again, _ = trabecular_mask(body, geometry, distance_mm=used + 0.5)
    assert (26 - 2 * used - 1) * (22 - 2 * used - 1) * (15 - 2 * used - 1) < 1000 or again.volume_mm3(geometry) > 0


def test_the_literal_ball_has_a_radius_of_four_voxels_on_any_grid():
    geometry = grid_of((40, 40, 80), CHEST)
    body = Mask.from_array((np.abs(points(geometry)) < (16, 14, 30)).all(axis=-1))
    k, j, i = np.ogrid[-4:5, -4:5, -4:5]
    expected = ndimage.binary_erosion(body.full(geometry), k**2 + j**2 + i**2 <= 16)
    core, used = trabecular_mask(body, geometry, "voxels")
    assert used is None and np.array_equal(core.full(geometry), expected)


@pytest.mark.parametrize("spacing_mm", [(0.977, 0.977, 1.25), (0.5, 0.5, 0.625)])
def test_the_papers_ellipsoid_takes_the_same_mm_on_any_grid(spacing_mm):
    geometry = grid_of((60, 60, 60), spacing_mm)
    body = Mask.from_array((np.abs(points(geometry)) < (20, 15, 13)).all(axis=-1))
    core, used = trabecular_mask(body, geometry, "paper")
    size = np.array(core.voxels.shape[::-1]) * spacing_mm
    assert used is None
    assert size == pytest.approx([40 - 7.82, 30 - 7.82, 26 - 10.0], abs=2.1 * max(spacing_mm))


@pytest.mark.parametrize(("mode", "distance_mm"), [("ball", 5.5), ("physical", 0.0), ("physical", -1.0)])
def test_a_wrong_erosion_is_refused(mode, distance_mm):
    geometry = grid_of((50, 44, 40), (2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="erosion"):
        trabecular_mask(ellipsoid(geometry), geometry, mode, distance_mm)


def findings(spine: Column, bodies: dict[str, Mask] | None = None, ct: CTVolume | None = None) -> dict:
    return {f.name: f for f in assess_levels(bodies or spine.bodies, spine.geometry, ct or spine.ct)}


FIVE = ("T11", "T12", "L1", "L2", "L3")


def test_whole_bodies_are_complete_and_measured():
    found = findings(column(names=FIVE))
    assert list(found) == ["T12", "L1", "L2"] and all(f.complete and f.reason == "" for f in found.values())
    assert found["L1"].height_mm == pytest.approx((26, 26, 26), abs=2.0)
    assert np.allclose(found["L1"].axes_lps, np.eye(3), atol=0.06)


@pytest.mark.parametrize("missing_mm", [0.0, 6.0])
def test_a_body_cut_by_the_end_of_the_scan_is_not_complete(missing_mm):
    """L2's lower endplate lies 49 mm below the origin; the scan ends 39 mm below it, its mask a little earlier."""
    whole = column(names=("T12", "L1", "L2"), height_mm=220)
    first = int(np.ceil(whole.geometry.to_kji(np.array([0, 0, -39.0]))[0]))
    slices, *plane = whole.geometry.shape_kji
    geometry = whole.geometry.crop((first, 0, 0), (slices - first, *plane))
    skipped = first + int(missing_mm / CHEST[2])
    bodies = {}
    for name, mask in whole.bodies.items():
        array = mask.full(whole.geometry)
        array[:skipped] = False
        bodies[name] = Mask.from_array(array[first:])
    found = findings(Column(geometry, {}, bodies, np.eye(3)))
    assert found["L1"].complete and found["T12"].complete
    assert not found["L2"].complete and "L2" in found["L2"].reason and "lower end" in found["L2"].reason


def test_padded_slices_at_the_end_are_no_scan():
    spine = column(names=("T12", "L1", "L2"))
    hu = spine.ct.hu.copy()
    hu[:spine.bodies["L2"].start_kji[0] + 1] = -2000
    found = findings(spine, ct=CTVolume(hu, spine.geometry))
    assert not found["L2"].complete and found["L1"].complete


def test_a_body_at_the_round_field_of_views_padding_is_not_complete():
    spine = column(names=("T12", "L1", "L2"))
    hu = spine.ct.hu.copy()
    k, j, i = spine.bodies["L1"].box
    hu[k, j, :i.start + 3] = -3024
    found = findings(spine, ct=CTVolume(hu, spine.geometry))
    assert not found["L1"].complete and "field of view" in found["L1"].reason and found["T12"].complete


def test_a_half_drawn_body_is_not_complete():
    spine = column(names=FIVE)
    array = spine.bodies["L1"].full(spine.geometry)
    array[:, :, array.shape[2] // 2:] = False
    found = findings(spine, {**spine.bodies, "L1": Mask.from_array(array)})
    assert not found["L1"].complete and "volume" in found["L1"].reason


@pytest.fixture(scope="module")
def lidc(shared_data):
    ct = read_ct(shared_data / "lidc0001" / "ct.nii.gz")
    labels = read_labels(shared_data / "lidc0001" / "labels.nii.gz", ct.geometry)
    near = ("T10", "T11", "T12", "L1", "L2", "L3")
    vertebrae = read_scheme(labels, "totalsegmentator").vertebrae
    split = split_vertebrae({name: vertebrae[name] for name in near}, ct.geometry)
    truth = json.loads((shared_data / "levels.json").read_text())["lidc0001"]
    return ct, split, truth


@pytest.mark.parametrize("level", ["T12", "L1", "L2"])
def test_real_bodies_lie_where_a_reader_saw_them(lidc, level):
    ct, split, truth = lidc
    centre = split[level].body.centroid_lps_mm(ct.geometry)
    assert np.linalg.norm(centre - truth[level]["centre_lps_mm"]) < 4.0


@pytest.mark.parametrize(("level", "within_hu"), [("T12", 6.0), ("L1", 9.0), ("L2", 6.0)])
def test_real_cores_read_what_a_reader_read(lidc, level, within_hu):
    """L1 is uneven: the reader's own ROI moved by 2 mm reads up to 106 HU; the others agree closely."""
    ct, split, truth = lidc
    core, used = trabecular_mask(split[level].body, ct.geometry)
    assert used == 5.5
    assert core.values(ct.hu).mean() == pytest.approx(truth[level]["hu_mean"], abs=within_hu)


def test_the_real_scan_that_ends_in_l3_has_three_whole_levels(lidc):
    ct, split, _ = lidc
    bodies = {name: parts.body for name, parts in split.items()}
    posterior = {name: parts.posterior for name, parts in split.items()}
    found = {f.name: f for f in assess_levels(bodies, ct.geometry, ct, posterior, ("T12", "L1", "L2", "L3"))}
    assert [name for name, f in found.items() if f.complete] == ["T12", "L1", "L2"]
    assert "lower end" in found["L3"].reason


def test_bodies_agree_with_another_models_bodies_at_3_mm(shared_data):
    ct = read_ct(shared_data / "ts_example" / "ct.nii.gz")
    labels = read_labels(shared_data / "ts_example" / "vertebrae.nii.gz", ct.geometry)
    other = read_labels(shared_data / "ts_example" / "vertebral_bodies.nii.gz", ct.geometry) == 1
    vertebrae = read_scheme(labels, "totalsegmentator").vertebrae
    split = split_vertebrae(vertebrae, ct.geometry)
    for level in ("T12", "L1", "L2", "L3", "L4", "L5"):
        truth = Mask.from_array(vertebrae[level].full(ct.geometry) & other)
        assert dice(split[level].body, truth, ct.geometry) > 0.94
    findings = assess_levels({n: s.body for n, s in split.items()}, ct.geometry, ct)
    assert {f.name: f.complete for f in findings} == {"T12": False, "L1": True, "L2": True}


def test_the_core_stays_ahead_of_the_back():
    """A box 40 x 30 x 30 mm at 1 mm: 5.5 mm from the front and sides, 7 mm from the back along its own direction."""
    geometry = Geometry((40, 50, 60), np.eye(4))
    array = np.zeros(geometry.shape_kji, bool)
    array[5:35, 10:40, 10:50] = True
    body = Mask.from_array(array)
    plain, _ = trabecular_mask(body, geometry)
    ahead, used = trabecular_mask(body, geometry, posterior=np.array([0.0, 1.0, 0.0]))
    assert used == 5.5
    rows = np.flatnonzero(ahead.full(geometry).any(axis=(0, 2)))
    assert (rows[0], rows[-1]) == (np.flatnonzero(plain.full(geometry).any(axis=(0, 2)))[0], 31)
    assert ahead.voxels.shape[0] == plain.voxels.shape[0] and ahead.voxels.shape[2] == plain.voxels.shape[2]


def test_fragments_alone_are_no_levels():
    geometry = Geometry((40, 50, 60), np.eye(4))
    array = np.zeros(geometry.shape_kji, bool)
    array[10:14, 10:20, 10:20] = True
    ct = CTVolume(np.zeros(geometry.shape_kji, np.int16), geometry)
    (finding,) = assess_levels({"L1": Mask.from_array(array)}, geometry, ct)
    assert not finding.complete and "fragment" in finding.reason
    assert assess_levels({}, geometry, ct) == ()
