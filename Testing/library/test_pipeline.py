"""The whole way from files to numbers: on phantoms whose vBMD is known, and on real CTs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.anatomy import BONES
from LowDoseBMDLib.bundle import load_models
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.files.segmentation import load_segmentation
from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
from LowDoseBMDLib.pipeline import open_models

TRUE_WITHIN_MG_CM3 = 5.0


@pytest.fixture(scope="module")
def a_phantom():
    """Chest to L3, coarse enough to be quick."""
    return make_phantom(PhantomSpec(seed=4, spacing_mm=(1.0, 1.0, 2.0)))


@pytest.fixture(scope="module")
def phantom_files(a_phantom, tmp_path_factory):
    """The phantom's CT and its vertebrae (VerSe numbers) as NIfTI."""
    folder = tmp_path_factory.mktemp("phantom")
    grid = a_phantom.ct.geometry
    sitk.WriteImage(grid.to_image(a_phantom.ct.hu), str(folder / "ct.nii.gz"), True, 1)
    sitk.WriteImage(grid.to_image(a_phantom.vertebra_index.astype(np.uint8)), str(folder / "labels.nii.gz"), True, 1)
    return folder


@pytest.fixture(scope="module")
def measured(phantom_files, tmp_path_factory):
    """Results of measuring the phantom from its label map."""
    out = tmp_path_factory.mktemp("out")
    status = main(["measure", str(phantom_files / "ct.nii.gz"), "--labels", str(phantom_files / "labels.nii.gz"),
                   "--scheme", "verse", "-o", str(out)])
    assert status == 0
    return out


def _record(out: Path) -> dict:
    return json.loads((out / "measurement.json").read_text(encoding="utf-8"))


def _levels(record: dict) -> dict[str, dict]:
    return {level["name"]: level for level in record["levels"]}


def test_labels_give_the_true_vbmd(measured, a_phantom):
    levels = _levels(_record(measured))
    for name, true in a_phantom.truth.vbmd_mg_cm3.items():
        assert levels[name]["vbmd_mg_cm3"] == pytest.approx(true, abs=TRUE_WITHIN_MG_CM3)
        np.testing.assert_allclose(levels[name]["centre_lps_mm"], a_phantom.truth.centres_lps_mm[name], atol=2.0)


def test_every_promised_file_is_there_and_no_half_file(measured):
    names = {path.name for path in measured.iterdir()}
    assert {"measurement.json", "measurement.csv", "report.html", "segmentation.seg.nrrd", "keypoints.mrk.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    report = (measured / "report.html").read_text(encoding="utf-8")
    assert "cannot be used to rule out" in report and "<script" not in report and "http" not in report.split("<body")[1]


def test_unedited_regions_reproduce_the_number_exactly(measured, phantom_files, tmp_path):
    status = main(["measure", str(phantom_files / "ct.nii.gz"), "--rois", str(measured / "segmentation.seg.nrrd"),
                   "-o", str(tmp_path)])
    assert status == 0
    first, again = _record(measured), _record(tmp_path)
    assert again["mean_vbmd_mg_cm3"] == first["mean_vbmd_mg_cm3"]
    assert again["mean_vbmd_ci95"] == first["mean_vbmd_ci95"]
    for name, level in _levels(first).items():
        assert {k: v for k, v in _levels(again)[name].items() if k != "confidence"} == {
            k: v for k, v in level.items() if k != "confidence"}


def test_an_edited_region_changes_the_number_accordingly(measured, phantom_files, a_phantom, tmp_path):
    """The upper half of L1's region is erased; its HU is then the mean of the lower half."""
    from LowDoseBMDLib.files.segmentation import load_segmentation, write_segmentation
    from LowDoseBMDLib.rois import Mask, Rois

    grid = a_phantom.ct.geometry
    masks = load_segmentation(measured / "segmentation.seg.nrrd", grid).masks
    whole = masks["trabecular_L1"]
    lower = whole.voxels.copy()
    lower[lower.shape[0] // 2:] = False
    masks = {**masks, "trabecular_L1": Mask.from_array(lower, whole.start_kji)}
    write_segmentation(tmp_path / "edited.seg.nrrd", Rois(grid, masks))
    assert main(["measure", str(phantom_files / "ct.nii.gz"), "--rois", str(tmp_path / "edited.seg.nrrd"),
                 "-o", str(tmp_path / "out")]) == 0
    expected = float(masks["trabecular_L1"].values(a_phantom.ct.hu).mean())
    assert _levels(_record(tmp_path / "out"))["L1"]["hu_mean"] == pytest.approx(expected, abs=0.06)
    assert _record(tmp_path / "out")["mean_vbmd_mg_cm3"] != _record(measured)["mean_vbmd_mg_cm3"]


@pytest.mark.parametrize("arguments", [
    ["measure", "nowhere.nii.gz", "-o", "{out}", "--calibration", "nowhere.json"],
    ["batch", "nowhere", "-o", "{out}"],
])
def test_unusable_arguments_exit_with_2(arguments, tmp_path, capsys):
    assert main([text.format(out=tmp_path / "out") for text in arguments]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_missing_ct_is_a_refusal_with_a_report(tmp_path):
    assert main(["measure", str(tmp_path / "nothing.nii.gz"), "-o", str(tmp_path / "out")]) == 1
    assert _record(tmp_path / "out")["status"] == "refused"
    assert "There is nothing at" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_demo_finds_the_levels_and_the_true_vbmd(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path), "--seed", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["phantom"]
    assert [row["level"] for row in rows] == ["T12", "L1", "L2"]
    for row in rows:
        assert abs(row["difference_mg_cm3"]) <= TRUE_WITHIN_MG_CM3
        assert row["centre_error_mm"] <= 4.0


@pytest.mark.slow
def test_both_engines_measure_the_same(phantom_files, tmp_path):
    values = []
    for engine in ("onnx", "torch"):
        assert main(["measure", str(phantom_files / "ct.nii.gz"), "-o", str(tmp_path / engine), "--engine", engine,
                     "--device", "cpu"]) == 0
        values.append([level["vbmd_mg_cm3"] for level in _record(tmp_path / engine)["levels"]])
    np.testing.assert_allclose(values[0], values[1], atol=0.1)


def _spoken(out: Path) -> dict:
    """What a record says of the patient, not how it was made."""
    return {name: value for name, value in _record(out).items() if name not in ("detail", "seconds", "software")}


@pytest.mark.slow
def test_fast_says_the_same_with_fewer_regions_and_pictures(phantom_files, tmp_path):
    for detail in ("full", "fast"):
        assert main(["measure", str(phantom_files / "ct.nii.gz"), "-o", str(tmp_path / detail), "--detail", detail]) == 0
    full, fast = tmp_path / "full", tmp_path / "fast"
    assert _spoken(fast) == _spoken(full)
    assert (_record(full)["detail"], _record(fast)["detail"]) == ("full", "fast")
    stored = {out: load_segmentation(out / "segmentation.seg.nrrd", read_ct(phantom_files / "ct.nii.gz").geometry).masks
              for out in (full, fast)}
    assert {"ribs", "scapulae"} <= stored[full].keys() - stored[fast].keys() <= set(BONES) - {"vertebrae"}
    for name, mask in stored[fast].items():
        assert np.array_equal(mask.voxels, stored[full][name].voxels), name
    assert {path.name for path in full.iterdir()} - {path.name for path in fast.iterdir()} == {
        "coronal.png", "axial_bone.png", "histogram.png"}


@pytest.mark.slow
def test_measuring_needs_neither_torch_nor_monai(phantom_files, tmp_path):
    code = ("import sys\n"
            "sys.modules['torch'] = sys.modules['monai'] = None  # what an import of a package that is not there meets\n"
            "from LowDoseBMDLib.cli import main\n"
            "sys.exit(main(sys.argv[1:]))\n")
    home = Path(__file__).resolve().parents[2] / "LowDoseBMD"
    run = subprocess.run([sys.executable, "-c", code, "measure", str(phantom_files / "ct.nii.gz"), "-o", str(tmp_path)],
                         env={**os.environ, "PYTHONPATH": str(home)}, check=False)
    assert run.returncode == 0 and _record(tmp_path)["status"] == "measured"


def test_models_open_from_the_product():
    identities = open_models(device="cpu").identities
    assert set(identities) == set(load_models()) >= {"bones", "bodies", "keypoints"}


# Real CTs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(shared_data):
    """What a careful eye read on the real CTs."""
    return json.loads((shared_data / "levels.json").read_text(encoding="utf-8"))


def _measure_real(shared_data: Path, name: str, out: Path, *more: str) -> tuple[int, dict]:
    status = main(["measure", str(shared_data / name / "ct.nii.gz"), "-o", str(out), *more])
    return status, _record(out)


@pytest.mark.slow
def test_real_chest_ct_from_its_label_map(shared_data, reader, tmp_path):
    status, record = _measure_real(shared_data, "lidc0001", tmp_path, "--labels",
                                   str(shared_data / "lidc0001" / "labels.nii.gz"))
    assert status == 0
    for name, level in _levels(record).items():
        true = reader["lidc0001"][name]
        assert np.linalg.norm(np.subtract(level["centre_lps_mm"], true["centre_lps_mm"])) <= 4.0
        assert abs(level["hu_mean"] - true["hu_mean"]) <= 6.0 or (
            true["hu_range"][0] <= level["hu_mean"] <= true["hu_range"][1])


@pytest.mark.slow
def test_real_chest_ct_by_the_networks(shared_data, reader, tmp_path):
    status, record = _measure_real(shared_data, "lidc0001", tmp_path)
    assert status == 0
    for name, level in _levels(record).items():
        true = reader["lidc0001"][name]
        assert np.linalg.norm(np.subtract(level["centre_lps_mm"], true["centre_lps_mm"])) <= 8.0
        assert level["hu_mean"] == pytest.approx(true["hu_mean"], abs=12.0)
    assert 30 <= record["muscle"]["hu_mean"] <= 75
    assert -120 <= record["fat"]["hu_mean"] <= -85
    assert "contrast" in {flag["code"] for flag in record["flags"]}


@pytest.mark.slow
def test_a_scan_without_lumbar_vertebrae_is_refused(shared_data, tmp_path):
    status, record = _measure_real(shared_data, "lidc0314", tmp_path)
    assert status == 1 and record["status"] == "refused"
    assert "Not measured" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_abdomen_with_short_ribs_has_right_levels_or_asks(shared_data, reader, tmp_path):
    _, record = _measure_real(shared_data, "crlm1006", tmp_path)
    codes = {flag["code"] for flag in record["flags"]}
    for name, level in _levels(record).items():
        if level["vbmd_mg_cm3"] is not None and "level_uncertain" not in codes:
            true = reader["crlm1006"][name]["centre_lps_mm"]
            assert np.linalg.norm(np.subtract(level["centre_lps_mm"], true)) <= 10.0
    assert {"thick_slices", "contrast"} <= codes


def test_a_region_left_empty_by_the_reader_stays_out_of_the_mean(measured, a_phantom):
    from LowDoseBMDLib.calibration import TwoPointCalibration
    from LowDoseBMDLib.files.segmentation import load_segmentation
    from LowDoseBMDLib.measurement import measure
    from LowDoseBMDLib.pipeline import rois_from_masks
    from LowDoseBMDLib.rois import Mask

    masks = load_segmentation(measured / "segmentation.seg.nrrd", a_phantom.ct.geometry).masks
    masks["trabecular_L2"] = Mask.from_array(np.zeros((1, 1, 1), bool))
    result = measure(a_phantom.ct, rois_from_masks(a_phantom.ct, masks), TwoPointCalibration())
    assert result.mean_of == ("T12", "L1")
    assert "left its region empty" in result.levels[2].reason


def test_a_refusal_leaves_no_older_number_beside_it_but_the_segmentation(measured, phantom_files, tmp_path):
    import shutil

    out = shutil.copytree(measured, tmp_path / "out")
    assert main(["measure", str(tmp_path / "nothing.nii.gz"), "-o", str(out)]) == 1
    assert {path.name for path in out.iterdir()} == {"measurement.json", "measurement.csv", "report.html",
                                                     "segmentation.seg.nrrd"}
    assert (out / "segmentation.seg.nrrd").read_bytes() == (measured / "segmentation.seg.nrrd").read_bytes()


def test_a_failing_stage_is_a_refusal_and_not_a_wrong_argument(measured, phantom_files, tmp_path, monkeypatch):
    from LowDoseBMDLib import study

    def broken(*_arguments, **_options):
        raise ValueError("index out of range")

    monkeypatch.setattr(study, "rois_from_masks", broken)
    assert main(["measure", str(phantom_files / "ct.nii.gz"), "--rois", str(measured / "segmentation.seg.nrrd"),
                 "-o", str(tmp_path)]) == 1
    assert _record(tmp_path)["flags"][0]["code"] == "internal"
