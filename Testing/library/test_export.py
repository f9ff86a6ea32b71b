"""Export: a bundle that both engines run alike and that holds nothing of what it was trained on; a MONAI bundle of it."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from LowDoseBMDLib.anatomy import BONES, OTHER_BONES
from LowDoseBMDLib.bundle import MODELS, Bundle, file_sha256, load_bundle, load_models, model_sets
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.inference import open_engine
from LowDoseBMDLib.pipeline import open_models
from LowDoseBMDLib.rois import Keypoint, Mask
from LowDoseBMDTrainerLib.cases import Labels, Status, fingerprint_of, read_image
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.evaluation_subject import HELD_OUT, NEW, TRAINED, UNKNOWN, open_run, open_subject, scope_of
from LowDoseBMDTrainerLib.export import export_run
from LowDoseBMDTrainerLib.model_card import INTENDED_USE, card_text, limits_of
from LowDoseBMDTrainerLib.monai_bundle import TILES
from LowDoseBMDTrainerLib.project import Arrival, Project, create_project
from LowDoseBMDTrainerLib.training_parallel import Ranks
from LowDoseBMDTrainerLib.training_recipe import Recipe
from LowDoseBMDTrainerLib.training_step import new_state, save_best

CHANNELS = (4, 8, 8, 16, 16)
SECRETS = {"patient": "SECRET-PATIENT-7", "annotator": "Anna Secretova", "file": "secret_file_name"}


@pytest.fixture(scope="module")
def a_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two cases, of which everything that could name somebody says SECRET."""
    home = tmp_path_factory.mktemp("place")
    project = create_project(home / "project", "SECRET project")
    geometry = Geometry((32, 32, 32), np.diag([3.0, 3.0, 3.0, 1.0]))
    for n in range(2):
        hu = np.random.default_rng(n).integers(-1000, 900, geometry.shape_kji).astype(np.int16)
        path = home / f"{SECRETS['file']}_{n}.nii.gz"
        sitk.WriteImage(geometry.to_image(hu), str(path))
        labels = Labels(geometry, {"ribs": Mask(np.ones((9, 9, 9), bool), (5, 5, 5))}, (Keypoint("L1", (40, 40, 40)),))
        project.add(path, arrival=Arrival(patient=f"{SECRETS['patient']}{n}", labels=labels, status=Status.COMPLETED,
                                          annotator=SECRETS["annotator"], source="nifti"))
    return project


def make_run(project: Project, task: str, name: str = "", **more: object) -> Path:
    """A run as training leaves it: a small network as it is drawn, after no step."""
    run = project.runs_folder / (name or f"secret_run_{task}")
    run.mkdir()
    recipe = Recipe(task, channels=CHANNELS, seed=3, folds=2, **more)
    save_best(run / "best.pt", new_state(recipe, Ranks("cpu")), recipe, 0.5)
    start = {"event": "start", "task": task, "steps": 4000, "start_step": 0, "device": "cpu, 2 threads, fp32",
             "cases": {"training": ["0001", "0001 (synthesis)"], "validation": ["0002"]}}
    (run / "log.jsonl").write_text(json.dumps(start) + "\n")
    return run


@pytest.fixture(scope="module")
def runs(a_project: Project) -> dict[str, Path]:
    return {task: make_run(a_project, task) for task in ("bones", "keypoints")}


@pytest.fixture(scope="module")
def exported(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    models = tmp_path_factory.mktemp("export") / "models"
    return {task: export_run(run, models, "1.2", monai=True) for task, run in runs.items()}


@pytest.mark.parametrize("task", ["bones", "keypoints"])
def test_a_bundle_is_the_networks_of_the_run(runs: dict[str, Path], exported: dict[str, Bundle], task: str) -> None:
    image = np.random.default_rng(1).normal(0, 1, (1, 1, 32, 48, 32)).astype(np.float32)
    _, engine = open_run(runs[task], "cpu")
    own = engine.run(image)
    assert own.std() > 1e-3
    for kind in ("onnx", "torch"):
        np.testing.assert_allclose(open_engine(exported[task], kind, "cpu").run(image), own, atol=2e-3)


def test_a_set_with_the_bundle_is_listed_at_once_and_completed(exported: dict[str, Bundle]) -> None:
    models = exported["bones"].folder.parent
    listed = next(entry for entry in model_sets(models.parent) if entry.name == "models")
    assert set(listed.holds) == {"bones", "keypoints"} and not listed.problem
    assert load_models(models)["bones"].identity.startswith("bones 1.2 (")


@pytest.mark.parametrize("task", ["bones", "keypoints"])
def test_a_bundle_holds_weights_and_numbers_only(exported: dict[str, Bundle], task: str) -> None:
    """Every number of the weights file is a parameter of the network, the graph holds hardly more, and that is all."""
    import onnx
    from safetensors import safe_open

    folder = exported[task].folder
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "card.md", "model.safetensors", "model.onnx"}
    network = open_engine(exported[task], "torch", "cpu").network
    parameters = sum(value.numel() for value in network.state_dict().values())
    with safe_open(folder / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(network.state_dict()) and not file.metadata()
        assert sum(file.get_tensor(key).size for key in file.keys()) == parameters  # noqa: SIM118
    graph = onnx.load(folder / "model.onnx")
    held = sum(int(np.prod(tensor.dims)) for tensor in graph.graph.initializer)
    constants = sum(int(np.prod(attribute.t.dims)) for node in graph.graph.node for attribute in node.attribute
                    if node.op_type == "Constant")
    assert held <= parameters and constants < 0.05 * parameters + 2000
    assert not graph.metadata_props and not any(node.doc_string for node in graph.graph.node)


def test_nothing_of_the_people_is_in_the_files(a_project: Project, exported: dict[str, Bundle]) -> None:
    """Names, paths, UIDs and digests of images are nowhere in the bundles, MONAI's included."""
    from LowDoseBMDTrainerLib.cases import read_image

    prints = [fingerprint_of(read_image(case)) for case in a_project.cases()]
    forbidden = [*SECRETS.values(), "SECRET", "secret", str(a_project.folder.parent), *prints, *(p[:12] for p in prints)]
    files = [path for path in exported["bones"].folder.parent.rglob("*") if path.is_file()]
    assert len(files) > 12
    for path in files:
        content = path.read_bytes()
        found = [word for word in forbidden if word.encode() in content]
        assert not found, f"{path.name}: {found}"
        if path.suffix in (".json", ".md", ".py"):
            text = content.decode()
            assert not re.search(r"(?<![\w.])/(?:home|tmp|root|work|opt|Users)/", text), path
            assert not re.search(r"\b[12]\.\d+\.\d+\.\d+\.\d+", text), f"{path}: a UID"


def test_the_card_counts_and_names_its_limits(exported: dict[str, Bundle]) -> None:
    bundle = exported["bones"]
    assert bundle.training["annotated_cases"] == bundle.training["annotated_people"] == 1
    assert bundle.training["label_maps"] == bundle.training["held_out_cases"] == 1
    assert bundle.training["sources"] == {"nifti": 1}
    card = (bundle.folder / "card.md").read_text()
    for words in ("# bones 1.2", "not a medical device", "cannot be used to rule out low bone density",
                  "annotated cases: 1 of 1 person (1 nifti)", "None: the model was not evaluated",
                  "There was no external test", bundle.sha256["model.onnx"]):
        assert words in card
    assert any("Few data: 2" in sentence for sentence in bundle.limits)
    assert stat.S_IMODE((bundle.folder / "model.safetensors").stat().st_mode) == stat.S_IMODE(
        (bundle.folder / "bundle.json").stat().st_mode)


@pytest.mark.parametrize("task", ["bones", "bodies", "keypoints"])
def test_models_that_were_not_exported_here_have_a_card_too(task: str) -> None:
    bundle = load_models()[task]
    card = card_text(bundle)
    assert "LIDC-IDRI-0001" in card and "not a medical device" in card and bundle.limits[0] in card


@pytest.mark.parametrize(("groups", "words"), [
    ({TRAINED: 3}, "only: the scores say nothing"), ({HELD_OUT: 1, TRAINED: 3}, "on 1 held-out case by"),
    ({UNKNOWN: 2}, "not known of all"), ({}, "Not evaluated")])
def test_limits_say_what_the_scores_are_worth(exported: dict[str, Bundle], groups: dict[str, int], words: str) -> None:
    scores = {"by_exposure": [{"name": name, "cases": cases} for name, cases in groups.items()]}
    assert any(words in sentence for sentence in limits_of(exported["bones"].training, scores))


def test_a_run_that_did_not_move_exports_the_very_weights_it_began_with(a_project: Project, tmp_path: Path) -> None:
    """Out of a bundle and into one: nothing is lost on the way."""
    from LowDoseBMDTrainerLib.training_start import starting_point

    recipe, weights = starting_point(Recipe("keypoints"), "embedded")
    run = a_project.runs_folder / "unmoved"
    run.mkdir()
    save_best(run / "best.pt", new_state(recipe, Ranks("cpu"), weights), recipe, None)
    bundle = export_run(run, tmp_path)
    assert bundle.sha256["model.safetensors"] == load_models()["keypoints"].sha256["model.safetensors"]


def test_the_name_of_the_run_that_gave_the_first_weights_stays_at_home(a_project: Project, tmp_path: Path) -> None:
    run = make_run(a_project, "bones", "third", start="secret_run_bones (0123456789ab)")
    bundle = export_run(run, tmp_path)
    assert bundle.training["recipe"]["start"] == "weights 0123456789ab"
    assert any("Began with trained weights 0123456789ab" in sentence for sentence in bundle.limits)


def test_scores_of_the_run_go_into_the_bundle_and_others_are_refused(a_project: Project, runs: dict[str, Path],
                                                                      tmp_path: Path) -> None:
    spread = {"median": 0.91, "worst": 0.8, "low": None, "high": None}
    group = {"name": HELD_OUT, "cases": 1, "patients": 1, "keypoints": [], "trabecular": [], "levels": None,
             "structures": [{"structure": "ribs", "cases": 1, "dice": spread, "nsd": spread, "hd95_mm": spread}]}
    record = {"title": "the run", "checkpoint_sha256": file_sha256(runs["bones"] / "best.pt"), "by_exposure": [group],
              "by_perturbation": [], "cases": [{"case": "0001", "problem": "SECRET"}]}
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    with pytest.raises(ValueError, match="holds no scores.json"):
        export_run(runs["bones"], tmp_path / "models", evaluation=evaluation)
    (evaluation / "scores.json").write_text(json.dumps(record))
    bundle = export_run(runs["bones"], tmp_path / "models", evaluation=evaluation)
    assert bundle.scores["by_exposure"][0]["structures"][0]["dice"]["median"] == 0.91
    card = (bundle.folder / "card.md").read_text()
    assert "held out of the training: 1 case of 1 person" in card and "| Ribs | 1 | 0.910 |" in card
    assert "SECRET" not in (bundle.folder / "bundle.json").read_text()
    with pytest.raises(ValueError, match="evaluate it again"):
        export_run(runs["keypoints"], tmp_path / "models", evaluation=evaluation)
    assert not (tmp_path / "models" / "keypoints").exists()


def test_an_exported_set_is_known_by_the_run_that_made_it(a_project: Project, exported: dict[str, Bundle]) -> None:
    subject = open_subject(exported["bones"].folder.parent, a_project, device="cpu")
    exposures = {case.name: subject.exposure(case) for case in a_project.cases()}
    assert exposures == {"0001": TRAINED, "0002": HELD_OUT}
    assert subject.otherwise == UNKNOWN, "the bodies are LowDoseBMD's own"
    assert "of LowDoseBMD" in subject.identities["bodies"]


def test_a_run_is_evaluated_with_what_it_knows(a_project: Project, runs: dict[str, Path]) -> None:
    subject = open_subject(runs["bones"], a_project, device="cpu")
    assert [subject.exposure(case) for case in a_project.cases()] == [TRAINED, HELD_OUT] and subject.otherwise == NEW
    assert subject.checkpoint_sha256 == file_sha256(runs["bones"] / "best.pt")
    assert subject.scope.structures == (*BONES, OTHER_BONES) and not subject.scope.keypoints


def test_the_finer_drawing_of_bones_is_trained_evaluated_and_exported_like_the_others(
        a_project: Project, tmp_path: Path) -> None:
    """A run of bones_fine is scored as measuring would use it, behind LowDoseBMD's own bones; other runs without it."""
    assert set(INTENDED_USE) == set(TILES) == set(MODELS)
    run = make_run(a_project, "bones_fine")
    subject = open_subject(run, a_project, device="cpu")
    assert "vertebrae" not in subject.scope.structures and {"ribs", OTHER_BONES} <= set(subject.scope.structures)
    stages: list[str] = []
    found = subject.predict(read_image(a_project.cases()[0]), lambda stage, _fraction: stages.append(stage))
    assert "fine bones" in stages and OTHER_BONES in found.labels.masks
    bundle = export_run(run, tmp_path / "models")
    assert (bundle.name, bundle.spacing_mm) == ("bones_fine", 1.5)
    assert open_models(tmp_path / "models", device="cpu").bones_fine.bundle.identity == bundle.identity
    other = open_subject(make_run(a_project, "bodies"), a_project, device="cpu")
    assert other.models.bones_fine is None and "bones_fine" not in other.identities


def test_bones_that_a_network_does_not_know_are_not_scored(runs: dict[str, Path], a_project: Project) -> None:
    models = open_subject(runs["bones"], a_project, device="cpu").models
    bundle = replace(models.bones.bundle, outputs=("background", *BONES))
    fewer = replace(models, bones=replace(models.bones, bundle=bundle))
    assert scope_of("bones", fewer).structures == BONES


def test_the_command_replaces_only_when_it_is_told(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("LOWDOSEBMD_MODELS", str(tmp_path))
    command = ["export", str(runs["bones"]), "--install", "ward"]
    assert main(command) == 0 and "--model-dir ward" in capsys.readouterr().out
    assert load_bundle(tmp_path / "ward" / "bones").version == "0.1"
    assert main([*command, "--version", "0.2"]) == 2 and "--replace" in capsys.readouterr().err
    assert main([*command, "--version", "0.2", "--replace"]) == 0
    assert load_bundle(tmp_path / "ward" / "bones").version == "0.2"
    assert [path.name for path in (tmp_path / "ward").iterdir()] == ["bones"], "nothing is left over"
    assert main(["export", str(tmp_path), "--install", "other"]) == 2 and "best.pt" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


# --- MONAI -------------------------------------------------------------------------------------------------

def monai_folder(bundle: Bundle) -> Path:
    return bundle.folder.parent / "monai" / bundle.name


@pytest.mark.parametrize("task", ["bones", "keypoints"])
def test_monai_finds_its_bundle_complete_and_its_network_as_described(exported: dict[str, Bundle], task: str) -> None:
    """MONAI's own check of the network: channels, sides and type of the output are those of metadata.json."""
    from monai.bundle import ConfigParser, verify_net_in_out

    folder = monai_folder(exported[task])
    files = {name: str(folder / "configs" / f"{name}.json") for name in ("metadata", "inference")}
    verify_net_in_out("network_def", files["metadata"], files["inference"], device="cpu", n=2, bundle_root=str(folder))
    metadata = ConfigParser.load_config_file(files["metadata"])
    assert {"schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
            "description", "authors", "copyright", "network_data_format"} <= set(metadata)
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == list(exported[task].outputs)


@pytest.mark.parametrize("task", ["bones", "keypoints"])
def test_the_network_of_the_monai_bundle_gives_the_same_logits(exported: dict[str, Bundle], task: str) -> None:
    from monai.bundle import ConfigParser

    folder = monai_folder(exported[task])
    parser = ConfigParser(ConfigParser.load_config_file(str(folder / "configs" / "inference.json")))
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    image = np.random.default_rng(2).normal(0, 1, (1, 1, 32, 32, 48)).astype(np.float32)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(open_engine(exported[task], "torch", "cpu").run(image), logits, atol=1e-5)


def test_the_monai_bundle_sees_a_scan_as_the_product_does(exported: dict[str, Bundle]) -> None:
    """Its preprocessing, after the file is read: axes, spacing and HU of a scan that lies in another order of axes."""
    pytest.importorskip("nibabel", reason="MONAI reads and turns images by nibabel")
    from LowDoseBMDLib.inference import normalise
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor

    bundle = exported["bones"]
    parser = ConfigParser(ConfigParser.load_config_file(str(monai_folder(bundle) / "configs" / "inference.json")))
    parser["preprocessing"]["transforms"] = parser["preprocessing"]["transforms"][1:]
    hu = np.random.default_rng(5).uniform(-1100, 1700, (20, 24, 28)).astype(np.float32)
    ras = np.ascontiguousarray(hu.transpose(2, 1, 0)[::-1, ::-1])  # i to Right, j to Anterior, k to Superior
    scan = MetaTensor(torch.from_numpy(ras.copy()), affine=torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0])),
                      meta={"original_channel_dim": "no_channel"})
    seen = parser.get_parsed_content("preprocessing")({"image": scan})["image"][0].numpy()
    assert seen.shape == TILES["bones"]
    np.testing.assert_allclose(seen[:20, :24, :28], normalise(hu, bundle), atol=1e-4)
    assert (seen[20:] == bundle.clip_hu[0] / bundle.scale_hu).all()
