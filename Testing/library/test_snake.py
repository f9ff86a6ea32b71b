"""The snake: balls, slits and a real vertebra whose answers are known by arithmetic or from a label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDTrainerLib.presegmentation import (
    Clusters,
    Edges,
    Presegmentation,
    Speed,
    Threshold,
    WholeBone,
    cluster_centres_hu,
    speed_image,
)
from LowDoseBMDTrainerLib.scores import dice
from LowDoseBMDTrainerLib.snake import Bubble, Forces, Snake, box_around, box_geometry
from placed_bubbles import BUBBLES, ITERATIONS, covering_bubbles, grown
from scipy import ndimage

CENTRE = np.array([7.0, -3.0, 20.0])
"""LPS mm of the ball in the phantoms."""

TURNED = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
"""A grid whose rows run to the front, as in many NIfTI files."""


def a_grid(spacing_mm: tuple[float, float, float], size_mm: float = 40.0, axes: np.ndarray | None = None) -> Geometry:
    """A cube of ``size_mm`` around CENTRE; spacing along i, j, k."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if axes is None else axes) * np.array(spacing_mm)
    shape = tuple(int(np.ceil(size_mm / s)) for s in spacing_mm[::-1])
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Geometry(shape, matrix)


def distances_mm(grid: Geometry) -> np.ndarray:
    """(k, j, i) distance of each voxel's centre to CENTRE."""
    return np.linalg.norm(positions(grid) - CENTRE, axis=-1)


def positions(grid: Geometry) -> np.ndarray:
    return grid.to_lps(np.moveaxis(np.indices(grid.shape_kji), 0, -1))


def all_bright(grid: Geometry) -> Snake:
    """A snake that may go everywhere, at full speed."""
    return Snake.of(np.full(grid.shape_kji, 1000.0), grid, Threshold(lower_hu=0.0))


GRIDS = [a_grid((1.0, 1.0, 1.0)), a_grid((0.7, 0.7, 2.5)), a_grid((0.8, 2.0, 0.8), axes=TURNED)]


@pytest.mark.parametrize("grid", GRIDS, ids=["cubes", "thick slices", "turned"])
@pytest.mark.parametrize("way", [Threshold(lower_hu=200.0), Clusters(count=2, sigma_mm=0.5), Edges()],
                         ids=["threshold", "clusters", "edges"])
def test_a_bubble_in_a_bright_ball_fills_the_ball_to_within_half_a_voxel(grid: Geometry, way: Presegmentation) -> None:
    distance = distances_mm(grid)
    hu = 400.0 / (1.0 + np.exp((distance - 13.0) / 0.4))  # a border blurred as by a scanner; half of its height at 13 mm
    snake = Snake.of(hu, grid, way)
    front = snake.run(snake.start([Bubble(tuple(CENTRE + (3.0, -2.0, 2.0)), 5.0)]))
    assert front.settled
    inside, half = snake.mask(front), max(grid.spacing_mm) / 2
    assert inside[distance < 13.0 - half].all()
    assert not inside[distance > 13.0 + half].any()


@pytest.mark.parametrize("grid", GRIDS, ids=["cubes", "thick slices", "turned"])
def test_the_front_moves_as_fast_along_thick_slices_as_across(grid: Geometry) -> None:
    snake = all_bright(grid)
    front = snake.start([Bubble(tuple(CENTRE), 6.0)])
    for _ in range(10):
        front = snake.step(front, Forces(curvature_mm=0.0))
    reach = [np.ptp(positions(grid)[snake.mask(front)], axis=0)[axis] / 2 for axis in range(3)]
    steps = np.abs(grid.ijk_to_lps[:3, :3]).max(axis=1)
    assert np.all(np.abs(np.diff(reach)) <= steps.max()), reach
    assert min(reach) > 9.0, "it has grown"


def test_the_balloon_below_zero_shrinks_and_a_front_from_outside_comes_back() -> None:
    grid = a_grid((1.0, 1.0, 1.0))
    distance = distances_mm(grid)
    snake = Snake.of(np.where(distance < 13.0, 400.0, 0.0), grid, Threshold(lower_hu=200.0))
    gone = snake.run(snake.start([Bubble(tuple(CENTRE), 8.0)]), Forces(balloon=-1.0))
    assert not gone.inside.any()
    assert not snake.step(gone).inside.any(), "nothing grows out of nothing"
    back = snake.mask(snake.run(snake.start([Bubble(tuple(CENTRE), 18.0)])))
    assert dice(back, distance < 13.0) > 0.98


@pytest.mark.parametrize(("curvature_mm", "grows"), [(1.0, True), (6.0, False)])
def test_a_ball_grows_only_where_its_radius_is_above_twice_the_curvature(curvature_mm: float, grows: bool) -> None:
    """Speed 1 less curvature x (1/r + 1/r): at a radius of 6 mm it is 2/3 and -1."""
    snake = all_bright(a_grid((1.0, 1.0, 1.0)))
    start = snake.start([Bubble(tuple(CENTRE), 6.0)])
    after = snake.step(start, Forces(curvature_mm=curvature_mm), 20)
    assert (after.inside.sum() > start.inside.sum()) == grows


@pytest.mark.parametrize(("curvature_mm", "leaks"), [(0.2, True), (2.5, False)])
def test_curvature_holds_the_front_back_at_a_hole(curvature_mm: float, leaks: bool) -> None:
    """Two halls with a round hole of 3 mm radius in the wall: a front that bulges through it bends by 2/3 per mm."""
    grid = a_grid((1.0, 1.0, 1.0))
    x, y, z = np.moveaxis(positions(grid) - CENTRE, -1, 0)
    wall = (np.abs(x) < 3.0) & (y**2 + z**2 >= 9.0)
    snake = Snake.of(np.where(wall, 0.0, 400.0), grid, Threshold(lower_hu=200.0, sigma_mm=0.0))
    front = snake.start([Bubble(tuple(CENTRE - (11.0, 0.0, 0.0)), 7.0)])
    front = snake.run(front, Forces(curvature_mm=curvature_mm), 200)
    assert snake.mask(front)[x < -4.0].any()
    assert snake.mask(front)[x > 4.0].any() == leaks


def test_whole_bones_hold_marrow_and_cortex_but_not_the_disc_as_dark_as_marrow() -> None:
    """Marrow of 100 HU in 2 mm of cortex of 500 HU; all round, a disc of 90 HU, which no threshold tells from marrow."""
    grid = a_grid((1.0, 1.0, 1.0))
    distance = distances_mm(grid)
    hu = np.select([distance < 11.0, distance < 13.0], [100.0, 500.0], 90.0)
    hu = ndimage.gaussian_filter(hu, 0.5)
    filled = {}
    for way in (WholeBone(), Threshold(lower_hu=70.0)):
        snake = Snake.of(hu, grid, way)
        front = snake.start([Bubble(tuple(CENTRE), 5.0)])
        for _ in range(16):
            front = snake.step(front)
        filled[type(way)] = dice(snake.mask(front), distance < 13.0)
    assert filled[WholeBone] > 0.95
    assert filled[Threshold] < 0.8


def test_stopping_going_on_and_going_back_are_the_same_as_never_having_stopped() -> None:
    grid = a_grid((0.7, 0.7, 2.5))
    snake = Snake.of(np.where(distances_mm(grid) < 18.0, 400.0, 0.0), grid, WholeBone())
    start = snake.start([Bubble(tuple(CENTRE), 5.0)])
    kept = start.level.copy()
    straight = snake.step(snake.step(start))
    again = snake.step(snake.step(start))
    assert np.array_equal(straight.level, again.level), "the same to the last digit"
    assert np.array_equal(start.level, kept), "earlier fronts stay as they were"
    assert straight.iterations == 10


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.35, 0.35, 3.0)])
def test_a_front_fills_its_box_to_the_edge(spacing_mm: tuple[float, float, float]) -> None:
    grid = a_grid(spacing_mm, size_mm=20.0)
    snake = all_bright(grid)
    assert snake.mask(snake.run(snake.start([Bubble(tuple(CENTRE), 4.0)]), most_iterations=200)).all()


def test_a_bubble_takes_its_voxel_however_small_it_is_and_outside_of_the_box_it_is_refused() -> None:
    grid = a_grid((0.7, 0.7, 2.5))
    snake = all_bright(grid)
    assert snake.start([Bubble(tuple(CENTRE), 0.1)]).inside.sum() == 1
    with pytest.raises(ValueError, match="no bubble lies in the box"):
        snake.start([Bubble(tuple(CENTRE + 100.0), 5.0)])
    with pytest.raises(ValueError, match="is not of this box"):
        snake.step(all_bright(a_grid((1.0, 1.0, 1.0))).start([Bubble(tuple(CENTRE), 5.0)]))


def test_the_box_around_bubbles_reaches_as_many_millimetres_beyond_them() -> None:
    grid = a_grid((0.7, 0.7, 2.5))
    box = box_around(grid, [Bubble(tuple(CENTRE), 5.0)], margin_mm=4.0)
    reach = np.abs(positions(box_geometry(grid, box)) - CENTRE).max(axis=(0, 1, 2))
    assert np.all(reach >= 9.0)
    assert np.all(reach <= 9.0 + 2 * grid.spacing_mm)
    with pytest.raises(ValueError, match="outside of the CT"):
        box_around(grid, [Bubble(tuple(CENTRE + 500.0), 5.0)], margin_mm=4.0)


# --- speed images ------------------------------------------------------------------------------------------


def test_the_speed_is_zero_at_the_thresholds_and_full_far_from_them() -> None:
    hu = np.array([-1000.0, 200.0, 260.0, 800.0, 3000.0, 9000.0]).reshape(6, 1, 1)
    speed = speed_image(hu, (1, 1, 1), Threshold(200.0, 3000.0, smoothness_hu=60.0, sigma_mm=0.0)).still.ravel()
    assert speed == pytest.approx([-1.0, 0.0, np.tanh(1.0), 1.0, 0.0, -1.0], abs=1e-4)


def test_clusters_are_found_where_the_intensities_are() -> None:
    generator = np.random.default_rng(5)
    hu = np.concatenate([generator.normal(mean, 15.0, 4000) for mean in (-100.0, 60.0, 400.0)]).reshape(30, 40, 10)
    assert cluster_centres_hu(hu, 3) == pytest.approx([-100.0, 60.0, 400.0], abs=3.0)
    middle = speed_image(hu, (1, 1, 1), Clusters(3, foreground=(1,), sigma_mm=0.0)).still
    assert np.all(middle[np.abs(hu - 60.0) < 50.0] > 0)
    assert np.all(middle[(hu < -60.0) | (hu > 300.0)] < 0)


def test_the_speed_at_edges_is_half_at_the_contrast() -> None:
    ramp = np.tile(np.arange(20.0) * 80.0, (20, 20, 1))  # 40 HU/mm on voxels of 2 mm
    speed = speed_image(ramp, (1.0, 1.0, 2.0), Edges(sigma_mm=0.0, contrast_hu_mm=40.0)).still
    assert speed == pytest.approx(0.5)


def test_a_fall_outwards_slows_the_front_and_a_rise_does_not() -> None:
    ramp = np.tile(100.0 + np.arange(20.0) * 7.0, (20, 20, 1))
    speed = speed_image(ramp, (1.0, 1.0, 1.0), WholeBone(fall_hu_mm=7.0, sigma_mm=0.0, gap_mm=0.0))
    ahead = [np.zeros(ramp.shape), np.zeros(ramp.shape), np.ones(ramp.shape)]
    assert speed.towards(ahead) == pytest.approx(speed.still), "it gets brighter to the left"
    assert speed.towards([-n for n in ahead]) == pytest.approx(speed.still / 2)


@pytest.mark.parametrize(("way", "sentence"), [
    (Threshold(300.0, 100.0), "300 to 100 HU hold nothing"), (Threshold(smoothness_hu=0.0), "smoothness of 0 HU"),
    (Clusters(1), "at least 2"), (Clusters(3, (0, 1, 2)), "some, not all"), (Clusters(3, (7,)), "some, not all"),
    (Edges(contrast_hu_mm=0.0), "edge contrast of 0"), (WholeBone(300.0, 60.0), "300 to 60 HU hold nothing"),
    (WholeBone(fall_hu_mm=-1.0), "fall of -1")])
def test_settings_that_cannot_be_used_are_refused_with_their_value(way: Presegmentation, sentence: str) -> None:
    hu = np.random.default_rng(1).normal(0.0, 100.0, (8, 8, 8))
    with pytest.raises(ValueError, match=sentence):
        speed_image(hu, (1, 1, 1), way)
    with pytest.raises(ValueError, match="choose fewer"):
        speed_image(np.zeros((8, 8, 8)), (1, 1, 1), Clusters(3))


def test_a_speed_image_without_directions_is_the_same_from_everywhere() -> None:
    still = np.ones((2, 2, 2), np.float32)
    assert Speed(still).towards([still, still, still]) is still


# --- a real vertebra ---------------------------------------------------------------------------------------

REACHED = {"T12": 0.83, "L1": 0.85, "L2": 0.82}
"""Dice that must be reached against a public model's label; L1 is the one that was asked for."""


@pytest.mark.slow
@pytest.mark.parametrize(("level", "label"), [("T12", 32), ("L1", 31), ("L2", 30)])
def test_a_vertebra_of_a_real_ct_is_filled_from_bubbles_in_body_and_arch(shared_data: Path, level: str, label: int) -> None:
    labels = sitk.ReadImage(str(shared_data / "lidc0001" / "labels.nii.gz"))
    grid = Geometry.from_image(labels)
    truth = sitk.GetArrayFromImage(labels) == label
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "lidc0001" / "ct.nii.gz")))
    found = grown(hu, grid, covering_bubbles(truth, grid, BUBBLES))[ITERATIONS]
    assert dice(found, truth) >= REACHED[level]
