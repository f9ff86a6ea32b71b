"""Bundles are verified before they run, and both engines compute the same network."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from LowDoseBMDLib.bundle import (
    EMBEDDED,
    BundleError,
    find_models,
    identities,
    load_bundle,
    load_models,
    model_sets,
    models_folder,
    user_models_folder,
)
from LowDoseBMDLib.cli import build_parser, settings_from
from LowDoseBMDLib.inference import choose_engine, open_engine, predict, tile_starts

TASKS = tuple(load_models())


@pytest.fixture()
def a_copy(tmp_path):
    """A bundle of the product, copied so that a test may damage it."""
    return shutil.copytree(models_folder() / "keypoints", tmp_path / "keypoints")


@pytest.mark.parametrize("task", TASKS)
def test_product_models_are_whole_and_small(task):
    bundle = load_bundle(models_folder() / task)
    assert bundle.outputs[0] in ("background", "T1")
    assert bundle.limits, "a model states its limits"
    for path in bundle.folder.iterdir():
        assert path.stat().st_size <= 15 * 2**20


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_changed_weights_are_refused(a_copy, name):
    data = bytearray((a_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (a_copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=name):
        load_bundle(a_copy)


@pytest.mark.parametrize(("key", "value"), [("format", 99), ("network", "mystery"), ("unheard_of", 1)])
def test_unknown_metadata_is_refused(a_copy, key, value):
    path = a_copy / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(BundleError):
        load_bundle(a_copy)


def test_missing_and_broken_metadata_are_refused(a_copy, tmp_path):
    with pytest.raises(BundleError, match="not a model bundle"):
        load_bundle(tmp_path)
    (a_copy / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(a_copy)


@pytest.fixture()
def a_user_folder(tmp_path, monkeypatch):
    """The user's sets of models: one with bones only, one that is damaged."""
    home = tmp_path / "sets"
    monkeypatch.setenv("LOWDOSEBMD_MODELS", str(home))
    shutil.copytree(models_folder() / "bones", home / "ward" / "bones")
    shutil.copytree(models_folder() / "keypoints", home / "broken" / "keypoints")
    (home / "broken" / "keypoints" / "model.onnx").write_bytes(b"")
    return home


def test_a_set_is_completed_by_the_models_of_the_product_and_says_so(a_user_folder):
    bundles = load_models(a_user_folder / "ward")
    assert bundles["bones"].folder.parent == a_user_folder / "ward"
    assert bundles["bodies"].folder == models_folder() / "bodies"
    said = identities(bundles)
    assert said["bones"] == bundles["bones"].identity
    assert said["bodies"] == f"{bundles['bodies'].identity}, of LowDoseBMD"
    assert all("of LowDoseBMD" not in text for text in identities(load_models()).values())


def test_a_folder_without_models_is_no_set(tmp_path):
    with pytest.raises(BundleError, match="no set of models"):
        load_models(tmp_path)


def test_a_model_in_the_wrong_place_is_refused(tmp_path):
    shutil.copytree(models_folder() / "keypoints", tmp_path / "bones")
    with pytest.raises(BundleError, match="bones.*does not find vertebrae"):
        load_models(tmp_path)


def test_sets_are_listed_with_what_they_hold_and_what_is_wrong_with_them(a_user_folder):
    (a_user_folder / ".aside").mkdir()
    own, broken, ward = model_sets()
    assert (own.name, tuple(own.holds), own.completed_by) == (EMBEDDED, TASKS, ())
    assert (ward.name, tuple(ward.holds), ward.completed_by) == ("ward", ("bones",), ("bodies", "keypoints"))
    assert not ward.problem and ward.holds["bones"] == own.holds["bones"]
    assert broken.name == "broken" and "model.onnx" in broken.problem


def test_without_a_folder_of_the_user_there_is_the_set_of_the_product(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWDOSEBMD_MODELS", str(tmp_path / "none"))
    assert [entry.name for entry in model_sets()] == [EMBEDDED]
    monkeypatch.delenv("LOWDOSEBMD_MODELS")
    assert user_models_folder().parts[-2:] == ("lowdosebmd", "models")


@pytest.mark.parametrize("option", ["--models", "--model-dir"])
def test_the_command_line_takes_a_folder_or_a_name(a_user_folder, option):
    def chosen(text: str):
        return settings_from(build_parser().parse_args(["measure", "ct.nii.gz", "-o", "out", option, text])).models

    assert chosen("ward") == a_user_folder / "ward" == chosen(str(a_user_folder / "ward"))
    assert chosen(EMBEDDED) is None
    with pytest.raises(ValueError, match="broken, ward"):
        find_models("absent")


@pytest.mark.parametrize("task", TASKS)
def test_engines_agree(task):
    bundle = load_bundle(models_folder() / task)
    rng = np.random.default_rng(3)
    image = np.clip(rng.normal(0, 1, (1, 1, 32, 48, 32)), -2, 3).astype(np.float32)
    onnx, torch = (open_engine(bundle, engine, "cpu").run(image) for engine in ("onnx", "torch"))
    assert onnx.shape == (len(bundle.outputs), 32, 48, 32)
    assert np.abs(onnx - torch).max() < 2e-2
    assert np.std(onnx) > 0.1, "the network answers to its input"


@pytest.mark.parametrize(("length", "tile", "overlap"), [(10, 16, 4), (100, 32, 8), (33, 32, 8), (256, 128, 32)])
def test_tiles_cover_everything_with_overlap(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and max(starts) + tile >= length
    assert all(b - a <= tile - overlap for a, b in zip(starts, starts[1:], strict=False))


class _Brightness:
    """An engine whose answer is known: two channels, the input and its negative."""

    def __init__(self) -> None:
        self.bundle = load_bundle(models_folder() / "bones")
        self.bundle = type(self.bundle)(**{**vars(self.bundle), "outputs": ("a", "b")})

    def run(self, tile: np.ndarray) -> np.ndarray:
        return np.stack([tile[0, 0], -tile[0, 0]])


def test_fused_tiles_return_what_the_engine_said_everywhere():
    hu = np.random.default_rng(0).uniform(-900, 1400, (50, 37, 70)).astype(np.float32)
    logits = predict(_Brightness(), hu, (32, 32, 32), overlap=12)
    assert logits.shape == (2, 50, 37, 70)
    np.testing.assert_allclose(logits[0], hu / 500, atol=1e-4)
    np.testing.assert_allclose(logits[1], -hu / 500, atol=1e-4)


@pytest.mark.parametrize("max_tile", [(32, 32, 32), (64, 64, 80)], ids=["tiles", "one tile"])
def test_values_that_are_no_numbers_are_refused(max_tile):
    class Overflowing(_Brightness):
        def run(self, tile: np.ndarray) -> np.ndarray:
            logits = super().run(tile)
            logits[0, 3, 4, 5] = np.nan
            return logits

    with pytest.raises(RuntimeError, match="no numbers.*--engine"):
        predict(Overflowing(), np.zeros((50, 37, 70), np.float32), max_tile, overlap=12)


def test_unknown_engine_or_missing_device_is_said():
    import torch

    with pytest.raises(ValueError, match="warp"):
        choose_engine("warp", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device cpu"):
            choose_engine("auto", "cuda")
    assert choose_engine("auto", "cpu") == ("onnx", "cpu")
