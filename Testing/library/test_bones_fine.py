"""The second, finer drawing of bones: on tubes whose place is known, by an engine that sees bone where HU are high."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib import bundle as bundles
from LowDoseBMDLib.anatomy import BONES, OTHER_BONES
from LowDoseBMDLib.bones import OTHER, Bones
from LowDoseBMDLib.bones_fine import MARGIN_VOXELS, place_tiles, refine_bones
from LowDoseBMDLib.bundle import BONES_FINE, Bundle, load_models, model_sets, models_folder
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry, resample
from LowDoseBMDLib.inference import Cancelled
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
from LowDoseBMDLib.pipeline import Models, Stopwatch, draw_bones, open_models, propose_rois

OUTPUTS = ("background", *BONES, OTHER)
BONE_HU, SOFT_HU = 600.0, 40.0
TUBES = {"ribs": ((0.0, 60.0, 12.0), (150.0, 60.0, 30.0), 5.0), "clavicles": ((0.0, 60.0, 28.0), (150.0, 78.0, 62.0), 6.0),
         OTHER: ((20.0, 20.0, 10.0), (20.0, 20.0, 70.0), 8.0)}
"""Ends (x, y, z) and radius in mm; rib and clavicle pass at 4 mm from each other."""


class Threshold:
    """Bone where HU exceed half of that of bone, whichever: by ``lean``
    some names are likelier than others."""

    description = "a threshold"

    def __init__(self, lean: dict[str, float] | None = None, above_hu: float = 0.5 * (BONE_HU + SOFT_HU)) -> None:
        self.above_hu = above_hu
        self.bundle = Bundle("bones_fine", "0", "res_unet", {}, 1.5, (-1000.0, 1500.0), 500.0, OUTPUTS, sha256={
            "model.safetensors": "0" * 64})
        self.lean = [(lean or {}).get(name, 0.0) for name in OUTPUTS[1:]]
        self.seen: list[np.ndarray] = []

    def run(self, tile: np.ndarray) -> np.ndarray:
        hu = 500.0 * tile[0, 0]
        self.seen.append(hu)
        bone = (hu - self.above_hu) / 40.0
        return np.stack([-bone, *(bone + lean for lean in self.lean)])


def tube(geometry: Geometry, name: str) -> np.ndarray:
    """(k, j, i) bool: voxels whose centres lie in a tube."""
    a, b, radius = (np.array(value) for value in TUBES[name])
    at = geometry.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape_kji), indexing="ij"), axis=-1)) - a
    along = np.clip(at @ (b - a) / ((b - a) @ (b - a)), 0, 1)[..., None]
    return np.linalg.norm(at - along * (b - a), axis=-1) <= radius


@pytest.fixture(scope="module")
def a_ct() -> CTVolume:
    geometry = Geometry((66, 110, 190), np.diag([0.8, 0.8, 1.25, 1.0]))
    hu = np.full(geometry.shape_kji, SOFT_HU, np.float32)
    for name in TUBES:
        hu[tube(geometry, name)] = BONE_HU
    return CTVolume(hu.astype(np.int16), geometry)


def found(ct: CTVolume) -> Bones:
    """The tubes as a network at 3 mm finds them: by their share in its voxels, and generously."""
    grid = ct.geometry.with_spacing(3.0)
    share = {name: np.minimum(1.0, 1.6 * resample(tube(ct.geometry, name).astype(np.float32), ct.geometry, grid, outside=0))
             for name in TUBES}
    nothing = np.zeros(grid.shape_kji, np.float32)
    return Bones(grid, np.stack([share.get(name, nothing) for name in BONES]), share[OTHER])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def some_models(fine: Threshold | None) -> Models:
    return Models(None, None, None, fine)


def test_bones_are_drawn_finer_and_keep_their_names(a_ct: CTVolume) -> None:
    coarse = found(a_ct)
    before = draw_bones(a_ct, coarse, some_models(None), Stopwatch())
    after = draw_bones(a_ct, coarse, some_models(Threshold()), Stopwatch())
    assert set(after) == {"ribs", "clavicles", OTHER_BONES}
    for name in TUBES:
        key, truth = (OTHER_BONES if name == OTHER else name), tube(a_ct.geometry, name)
        was, now = (dice(masks[key].full(a_ct.geometry), truth) for masks in (before, after))
        assert now > 0.96 and now > was + 0.03, (name, was, now)


@pytest.mark.parametrize("name", ["clavicles", "scapulae"])
def test_a_name_that_the_finer_network_prefers_does_not_spread(a_ct: CTVolume, name: str) -> None:
    """It takes every bone for this one: three times likelier than each of the others."""
    fine = refine_bones(a_ct, found(a_ct), Threshold({name: np.log(3.0)}))
    masks = fine.masks(a_ct.geometry)
    assert "scapulae" not in masks, "where the first network has found none there is none"
    truth = tube(a_ct.geometry, "ribs")
    assert np.count_nonzero(masks["ribs"].full(a_ct.geometry) & truth) > 0.9 * np.count_nonzero(truth)
    assert not (masks["clavicles"].full(a_ct.geometry) & truth).sum() > 0.05 * np.count_nonzero(truth)


def test_nothing_is_drawn_far_from_what_was_found(a_ct: CTVolume) -> None:
    coarse = found(a_ct)
    fine = refine_bones(a_ct, replace(coarse, chance=coarse.chance * (np.arange(coarse.geometry.shape_kji[2]) < 25)),
                        Threshold(), names=("ribs",))
    at = np.argwhere(fine.of("ribs") > 0.5)
    assert 79.0 < fine.geometry.to_lps(at)[:, 0].max() < 25 * 3.0 + 8.0
    assert not fine.of("clavicles").any() and fine.other is None
    nowhere = replace(coarse, chance=0 * coarse.chance)
    assert refine_bones(a_ct, nowhere, Threshold()) is nowhere


def test_places_without_bone_are_not_looked_at(a_ct: CTVolume) -> None:
    engine, told = Threshold(), []
    refine_bones(a_ct, found(a_ct), engine, lambda _stage, fraction: told.append(fraction))
    assert len(engine.seen) == 1 == len(told), "152 x 88 x 82 mm is one tile of 112 x 96 x 96 voxels"
    wide = Geometry((400, 400, 400), np.diag([1.0, 1.0, 1.0, 1.0]))
    hu = np.broadcast_to(np.int16(SOFT_HU), wide.shape_kji)
    grid = wide.with_spacing(3.0)
    chance = np.zeros((len(BONES), *grid.shape_kji), np.float32)
    for corner in np.ndindex(2, 2, 2):
        chance[(BONES.index("ribs"), *(slice(5 + 110 * n, 15 + 110 * n) for n in corner))] = 1.0
    engine = Threshold()
    refine_bones(CTVolume(hu, wide), Bones(grid, chance), engine)
    assert len(engine.seen) == 8, "one at each corner; nothing between them"


@pytest.mark.parametrize("spacing_mm", [3.0, 2.3])
def test_tiles_show_every_place_and_what_lies_round_it(spacing_mm: float) -> None:
    source = Geometry((150, 110, 140), np.diag([spacing_mm] * 3 + [1.0]))
    rng = np.random.default_rng(2)
    places = np.zeros(source.shape_kji, bool)
    for start in rng.integers(0, 100, (12, 3)):
        places[tuple(slice(s, s + 8) for s in start)] = True
    whole = source.with_spacing(1.5)
    grid, tile, starts = place_tiles(places, source, whole)
    at = whole.to_kji(source.to_lps(np.argwhere(places)))
    first = np.array(starts) + np.rint(whole.to_kji(grid.to_lps(np.zeros(3))))
    low, high = first[:, None] + MARGIN_VOXELS - 2, first[:, None] + np.array(tile) - MARGIN_VOXELS + 1
    inside = ((at >= low) | (first[:, None] <= 0)) & ((at <= high) | (high + MARGIN_VOXELS > whole.shape_kji))
    assert inside.all(axis=-1).any(axis=0).all()
    assert len(starts) < np.prod(np.ceil(np.array(whole.shape_kji) / (np.array(tile) - 2 * MARGIN_VOXELS)))
    assert (np.array(starts).min(axis=0) == 0).all()
    assert (np.array(starts).max(axis=0) + tile == grid.shape_kji).all()


def test_it_can_be_stopped_between_tiles() -> None:
    wide = Geometry((40, 100, 400), np.diag([1.0, 1.0, 1.0, 1.0]))
    grid = wide.with_spacing(3.0)
    chance = np.ones((len(BONES), *grid.shape_kji), np.float32)
    engine = Threshold()

    def stop(_stage: str, fraction: float) -> None:
        if fraction > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        refine_bones(CTVolume(np.zeros(wide.shape_kji, np.int16), wide), Bones(grid, chance), engine, stop)
    assert len(engine.seen) == 1


# --- in the pipeline ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def loins() -> CTVolume:
    return make_phantom(PhantomSpec(seed=4, spacing_mm=(3.0, 3.0, 3.0), scan_top=("T10", 0.0), scan_bottom=("L4", 0.5),
                                    couch=False)).ct


def test_numbers_are_the_same_with_and_without_it(loins: CTVolume) -> None:
    """All that is measured, named and flagged: with the finer network, without it, and in less detail."""
    own = replace(open_models(engine="onnx", device="cpu"), bones_fine=None)
    engine = Threshold(above_hu=120.0)
    watch = Stopwatch()
    full = propose_rois(loins, replace(own, bones_fine=engine), watch=watch)
    without, fast = propose_rois(loins, own), propose_rois(loins, replace(own, bones_fine=engine), detail="fast")
    seen = len(engine.seen)
    assert seen > 0 and "fine bones" in watch.seconds
    for other in (without, fast):
        assert (other.flags, other.levels, other.keypoints) == (full.flags, full.levels, full.keypoints)
        assert measure(loins, other, TwoPointCalibration()) == measure(loins, full, TwoPointCalibration())
        assert all(mask.same_as(full.masks[name]) for name, mask in other.masks.items() if name != "ribs")
    assert not without.masks["ribs"].same_as(full.masks["ribs"]) and "ribs" not in fast.masks
    assert propose_rois(loins, replace(own, bones_fine=engine), detail="fast") and len(engine.seen) == seen


# --- which set of models has it ----------------------------------------------------------------------------

@pytest.fixture
def a_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The product's models with a bones_fine, which is its bones by another name."""
    product = tmp_path / "product"
    for name in ("bones", "bodies", "keypoints"):
        shutil.copytree(models_folder() / name, product / name)
    as_fine(product)
    monkeypatch.setattr(bundles, "models_folder", lambda: product)
    monkeypatch.setenv("LOWDOSEBMD_MODELS", str(tmp_path / "sets"))
    return product


def as_fine(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = shutil.copytree(models_folder() / "bones", folder / BONES_FINE)
    record = json.loads((source / "bundle.json").read_text())
    (source / "bundle.json").write_text(json.dumps({**record, "name": BONES_FINE, "spacing_mm": 1.5}))


def test_the_product_has_it_for_full_detail_only(a_product: Path) -> None:
    assert tuple(load_models()) == ("bones", "bodies", "keypoints", BONES_FINE)
    assert BONES_FINE not in load_models(fine=False)
    assert set(open_models(device="cpu").identities) == set(load_models())
    assert set(open_models(device="cpu", detail="fast").identities) == {"bones", "bodies", "keypoints"}
    shutil.rmtree(a_product / BONES_FINE)
    assert open_models(device="cpu").bones_fine is None
    assert model_sets()[0].completed_by == ()


@pytest.mark.parametrize(("brings", "taken_from"), [
    (("bones",), None), (("keypoints",), "product"), ((BONES_FINE,), "ward"), (("bones", BONES_FINE), "ward")])
def test_a_site_with_bones_of_its_own_is_not_drawn_over(a_product: Path, tmp_path: Path, brings: tuple[str, ...],
                                                        taken_from: str | None) -> None:
    ward = tmp_path / "sets" / "ward"
    for name in brings:
        if name == BONES_FINE:
            as_fine(ward)
        else:
            shutil.copytree(a_product / name, ward / name)
    fine = load_models(ward).get(BONES_FINE)
    assert (fine and fine.folder.parent.name) == taken_from
    listed = model_sets()[1]
    assert set(listed.holds) == set(brings)
    assert (BONES_FINE in listed.completed_by) == (taken_from == "product")
