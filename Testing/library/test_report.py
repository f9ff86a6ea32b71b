"""What a reader takes away: the answer first, in words that hold, from a record that is known."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.flags import Flag, Refusal, Severity
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.measurement import Measurement, measure
from LowDoseBMDLib.record import to_dict
from LowDoseBMDLib.report.figures import make_figures
from LowDoseBMDLib.report.html import render_report
from LowDoseBMDLib.report.tables import COLUMNS, neutralise, write_csv, write_json
from LowDoseBMDLib.rois import Rois

NASTY = "LUNG\"'><script>alert(1)</script>&"
SOFTWARE = {"name": "LowDoseBMD", "version": "9.8.7", "networks": {"bones": "bones 1 sha256:abc123"}}


def measured(**findings) -> Measurement:
    return measure(torso.ct(), torso.rois(**findings), TwoPointCalibration())


def as_record(measurement: Measurement, acquisition: Acquisition = Acquisition()) -> dict:
    """The record as it comes back from measurement.json."""
    return json.loads(json.dumps(to_dict(measurement, acquisition, SOFTWARE, {"bones": 1.25, "reading": 2.0})))


def refused_measurement() -> Measurement:
    flag = Refusal("no_spine", "The scan ends above T12. Use a scan that reaches below L2.").flag
    return Measurement("refused", (), None, None, TwoPointCalibration(), flags=(flag,))


class Page(HTMLParser):
    """Text, tags and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def png_size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3]


def has_colour(png: bytes, name: str) -> bool:
    """Whether a picture holds pixels of about a structure's own colour."""
    wanted = np.array(STRUCTURES[name].colour) / 255
    return int((np.abs(pixels(png) - wanted).max(axis=-1) < 0.04).sum()) > 20


# --- the page ----------------------------------------------------------------------------------------------

def test_answer_comes_first_with_unit_interval_class_and_levels() -> None:
    record = as_record(measured())
    text = Page(render_report(record)).text
    low, high = record["mean_vbmd_ci95"]
    answer = text[:text.index("Vertebral levels")]
    assert f"{record['mean_vbmd_mg_cm3']:.1f} mg/cm³ vBMD" in answer
    assert f"95 % interval {low:.0f} to {high:.0f} mg/cm³" in answer
    assert "provisional class: uncalibrated" in answer
    assert "mean of L1 and L2" in answer
    assert text.index("mg/cm³ vBMD") < text.index("Caution")


@pytest.mark.parametrize(("level", "title"), [(0.0, "Range of osteoporosis"), (90.0, "Low bone mass"),
                                              (250.0, "Normal")])
def test_class_follows_the_value(level: float, title: str) -> None:
    record = as_record(measure(torso.ct(L1=level, L2=level), torso.rois(), TwoPointCalibration()))
    assert title in Page(render_report(record)).text


def test_a_site_calibration_is_not_called_provisional() -> None:
    site = TwoPointCalibration(name="Our scanner", status="site", cohort_size=60, date="2026-01-01")
    text = Page(render_report(as_record(measure(torso.ct(), torso.rois(), site)))).text
    assert "provisional" not in text
    assert "Our scanner" in text and "60 pairs" in text


def test_every_level_and_tissue_has_its_numbers() -> None:
    record = as_record(measured(**torso.incomplete("L2")))
    text = Page(render_report(record)).text
    levels = {level["name"]: level for level in record["levels"]}
    assert "not measured: its lower endplate lies outside the scan" in text
    for name in ("T12", "L1"):
        assert f"{levels[name]['vbmd_mg_cm3']:.1f}" in text
        assert f"{levels[name]['volume_mm3'] / 1000:.1f}" in text
    assert "mean of T12 and L1" in text
    assert "Muscle psoas left 50, psoas right 50 HU 50 ± 0 50" in text
    assert "−100 ± 0" in text, "a true minus sign"


def test_flags_are_sorted_by_how_grave_they_are() -> None:
    flags = tuple(Flag(f"c{n}", severity, f"sentence {n}") for n, severity in
                  enumerate((Severity.INFO, Severity.LIMITED, Severity.CAUTION)))
    record = as_record(replace(measured(), flags=flags))
    text = Page(render_report(record)).text
    assert text.index("Limited sentence 1") < text.index("Caution sentence 2") < text.index("Note sentence 0")


def test_a_refused_study_has_a_report_with_reason_and_way_out_and_no_number() -> None:
    text = Page(render_report(as_record(refused_measurement()))).text
    answer = text[:text.index("Acquisition")]
    assert "Not measured The scan ends above T12. Use a scan that reaches below L2." in answer
    assert "What to do" in answer
    assert not re.search(r"\d mg/cm³ vBMD", text)
    assert "Normal" not in text and "Low bone mass" not in text


def test_refused_for_want_of_muscle_the_levels_still_show_hu() -> None:
    rois = torso.without(torso.rois(), "psoas_left", "psoas_right")
    record = as_record(measure(torso.ct(), rois, TwoPointCalibration()))
    text = Page(render_report(record)).text
    assert text.count("No vBMD: no psoas") == 1, "the reason stands once, in the headline"
    assert "130 ± 0" in text


def test_the_statements_stand_in_every_report() -> None:
    for measurement in (measured(), refused_measurement()):
        text = Page(render_report(as_record(measurement))).text
        for words in ("not a medical device", "cannot be used to rule out low bone density", "not a DXA T-score",
                      "least significant change", "QCT or DXA", "Intravenous contrast"):
            assert words in text


def test_acquisition_software_and_run_time_are_told() -> None:
    acquisition = Acquisition("dicom", kvp=120.0, tube_current_ma=40.0, kernel="LUNG", slice_thickness_mm=1.25,
                              study_date="20240131", series_uid="1.2.3.4", series_choice="thinnest of 3")
    text = Page(render_report(as_record(measured(), acquisition))).text
    for words in ("120 kV · 40 mA", "LUNG", "1.25 mm", "study of 2024-01-31", "1.2.3.4", "thinnest of 3",
                  "LowDoseBMD 9.8.7", "sha256:abc123", "3.2 s", "muscle +50.0, fat −78.0 mg/cm³"):
        assert words in text


@pytest.mark.parametrize(("age", "sex", "words"), [
    (57.0, "F", ["Age 57 years", "Sex female"]), (90.0, "M", ["Age 90 years or older", "Sex male"]),
    (1.5, None, ["Age 18 months"]), (None, None, [])])
def test_age_and_sex_are_told_when_they_are_known(age: float | None, sex: str | None, words: list[str]) -> None:
    page = Page(render_report(as_record(measured(), Acquisition(patient_age_years=age, patient_sex=sex))))
    text = " ".join(page.text.split())
    assert [title for title in ("Age ", "Sex ") if title in text] == [word[:4] for word in words]
    assert all(word in text for word in words)


def test_a_record_of_an_older_program_without_age_and_sex_is_shown() -> None:
    record = as_record(measured())
    for name in ("patient_age_years", "patient_sex"):
        del record["acquisition"][name]
    assert "Sex" not in Page(render_report(record)).text


def test_text_from_files_is_text_not_markup() -> None:
    acquisition = Acquisition("dicom", manufacturer=NASTY, kernel=NASTY, series_description=NASTY, series_uid=NASTY,
                              study_date=NASTY, contrast_agent=NASTY)
    flags = (Flag("unknown_segments", Severity.INFO, f"Left out: {NASTY}", "L1"),)
    measurement = replace(measured(), flags=flags, calibration=TwoPointCalibration(name=NASTY, scanner=NASTY))
    record = as_record(measurement, acquisition) | {"software": {"networks": {NASTY: NASTY}}}
    page = Page(render_report(record, {NASTY: b"png"}))
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 8, "shown as it was written"
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_the_page_needs_nothing_from_outside() -> None:
    html = render_report(as_record(measured()), make_figures(torso.ct(), torso.rois(), measured()))
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert ("lang", "en") in page.attributes
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 5 and all(value.startswith("data:image/png;base64,") for value in sources)
    assert "url(" not in html and "@import" not in html
    assert page.tags.count("caption") == page.tags.count("table") == 2
    assert len([value for name, value in page.attributes if name == "scope"]) > 10


def test_a_record_of_a_newer_program_is_not_misread() -> None:
    with pytest.raises(ValueError, match="update the program"):
        render_report(as_record(measured()) | {"schema_version": 99})


# --- tables ------------------------------------------------------------------------------------------------

def read_rows(path: Path) -> Iterator[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def test_table_holds_the_numbers_of_the_record(tmp_path: Path) -> None:
    record = as_record(measured(**torso.incomplete("L2")))
    write_csv(tmp_path / "a.csv", record)
    rows = {row["region"]: row for row in read_rows(tmp_path / "a.csv")}
    assert list(rows) == ["mean", "T12", "L1", "L2", "muscle", "fat", "aorta"]
    assert tuple(rows["mean"]) == COLUMNS
    assert float(rows["L1"]["hu_mean"]) == 130.0
    assert float(rows["fat"]["hu_mean"]) == -100.0, "a negative number stays a number"
    assert float(rows["mean"]["vbmd_mg_cm3"]) == record["mean_vbmd_mg_cm3"]
    assert rows["L2"]["vbmd_mg_cm3"] == "" and rows["L2"]["state"] == "not measured"
    assert rows["mean"]["note"] == "T12 L1"


def test_table_of_a_refused_study_says_why(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", as_record(refused_measurement()))
    (row,) = read_rows(tmp_path / "a.csv")
    assert row["state"] == "refused" and row["vbmd_mg_cm3"] == ""
    assert row["note"].startswith("The scan ends above T12")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "\n=1"])
def test_cells_that_a_spreadsheet_would_run_are_neutralised(tmp_path: Path, text: str) -> None:
    assert neutralise(text) == f"'{text}"
    record = as_record(replace(measured(), calibration=TwoPointCalibration(name=text if text.strip() else "x")))
    record["levels"][0]["reason"] = text
    write_csv(tmp_path / "a.csv", record)
    rows = list(read_rows(tmp_path / "a.csv"))
    assert rows[1]["note"] == f"'{text}"
    assert rows[0]["calibration"].startswith("'")


def test_a_carriage_return_does_not_break_the_row(tmp_path: Path) -> None:
    record = as_record(measured())
    record["levels"][0]["reason"] = "one\rtwo\r\n=three"
    write_csv(tmp_path / "a.csv", record)
    rows = list(read_rows(tmp_path / "a.csv"))
    assert len(rows) == 7 and rows[1]["note"] == "one\ntwo\n=three"


def test_harmless_text_stays() -> None:
    assert [neutralise(text) for text in ("", "L1 L2", "a=b", "1-2")] == ["", "L1 L2", "a=b", "1-2"]


def test_json_returns_and_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    record = as_record(measured(), Acquisition(kernel="Ümlaut"))
    write_json(tmp_path / "a.json", record)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == record
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", record | {"seconds": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# --- pictures ----------------------------------------------------------------------------------------------

def test_pictures_have_the_scans_proportions() -> None:
    """128 mm high; 90 mm deep and 120 mm wide: voxels of 1.5 x 1.5 x 2 mm must not show as squares."""
    bare = Measurement("refused", (), None, None, TwoPointCalibration())
    figures = make_figures(torso.ct(), Rois(torso.geometry()), bare)
    assert set(figures) == {"sagittal", "coronal"}
    for name, width_mm in (("sagittal", 90.0), ("coronal", 120.0)):
        width, height = png_size(figures[name])
        assert width / height == pytest.approx(width_mm / 128.0, rel=0.02)


def test_regions_are_outlined_in_their_colours_where_they_are() -> None:
    figures = make_figures(torso.ct(), torso.rois(), measured())
    assert list(figures) == ["sagittal", "coronal", "axial_bone", "axial_tissue", "histogram"]
    for level in ("T12", "L1", "L2"):
        assert has_colour(figures["sagittal"], f"body_{level}") and has_colour(figures["coronal"], f"body_{level}")
    for name in ("psoas_left", "fat_anterior"):
        assert has_colour(figures["axial_tissue"], name)
        assert not has_colour(figures["coronal"], name)
    without = make_figures(torso.ct(), torso.without(torso.rois(), "psoas_left"), measured())
    assert not has_colour(without["axial_tissue"], "psoas_left")


def test_sides_are_those_of_a_reading_screen() -> None:
    """A bright block on the patient's left, in front and above: right in the coronal and axial picture, left in the
    sagittal one, at the top of both long ones."""
    grid = Geometry((60, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    hu = np.full(grid.shape_kji, -60.0, np.float32)
    hu[35:55, 5:25, 35:55] = 1000.0
    keypoint = torso.rois().keypoints[0].__class__("L1", (90.0, 30.0, 90.0))
    figures = make_figures(CTVolume(hu, grid), Rois(grid, {}, (keypoint,)), Measurement(
        "refused", (), None, None, TwoPointCalibration()))
    for name, left, top in (("sagittal", True, True), ("coronal", False, True), ("axial_bone", False, True)):
        grey = pixels(figures[name]).mean(axis=-1)
        rows, columns = np.nonzero(grey > 0.95)
        assert (np.median(columns) < grey.shape[1] / 2) == left, name
        assert (np.median(rows) < grey.shape[0] / 2) == top, name


def test_the_cut_follows_a_crooked_spine() -> None:
    """Bodies stand in a line that slants by 60 mm; a plane cut would miss two of the three."""
    grid = Geometry((80, 60, 80), np.diag([1.5, 1.5, 2.0, 1.0]))
    points, masks = [], {}
    for n, name in enumerate(("T12", "L1", "L2")):
        k, i = 60 - 20 * n, 10 + 25 * n
        masks[f"body_{name}"] = torso.box((k - 5, 25, i - 5), (10, 12, 10))
        points.append(torso.rois().keypoints[0].__class__(name, tuple(grid.to_lps(np.array([k, 30, i])))))
    rois = Rois(grid, masks, tuple(points))
    bare = Measurement("refused", (), None, None, TwoPointCalibration())
    sagittal = make_figures(CTVolume(np.zeros(grid.shape_kji, np.int16), grid), rois, bare)["sagittal"]
    assert all(has_colour(sagittal, f"body_{name}") for name in ("T12", "L1", "L2"))


def test_regions_and_keypoints_beyond_the_scan_do_no_harm() -> None:
    rois = torso.rois()
    away = replace(rois.keypoints[0], position_lps_mm=(0.0, 0.0, 5000.0))
    rois = replace(torso.without(rois, *(n for n in rois.masks if "L2" in n)), keypoints=(away,))
    figures = make_figures(torso.ct(), rois, measure(torso.ct(), rois, TwoPointCalibration()))
    assert {"sagittal", "coronal", "axial_bone"} <= set(figures)


def test_a_real_chest(shared_data: Path) -> None:
    """Pictures and page of the small version of a real scan, with regions eroded from its label map."""
    import SimpleITK as sitk
    from LowDoseBMDLib.rois import Keypoint, LevelFinding, Mask
    from scipy.ndimage import binary_erosion

    folder = shared_data / "lidc0001"
    image = sitk.DICOMOrient(sitk.ReadImage(str(folder / "lidc0001_ct_T11-L3_1.5x1.5x2.5.nii.gz")), "LPS")
    labels = sitk.GetArrayFromImage(sitk.DICOMOrient(
        sitk.ReadImage(str(folder / "lidc0001_labels_T11-L3_1.5x1.5x2.5.nii.gz")), "LPS"))
    ct = CTVolume(sitk.GetArrayFromImage(image), Geometry.from_image(image))
    masks, keypoints = {}, []
    for name, value in (("T12", 32), ("L1", 31), ("L2", 30)):
        masks[f"trabecular_{name}"] = Mask.from_array(binary_erosion(labels == value, iterations=4))
        centre = masks[f"trabecular_{name}"].centroid_lps_mm(ct.geometry)
        keypoints.append(Keypoint(name, tuple(float(c) for c in centre)))
    for name, value in (("psoas_left", 88), ("psoas_right", 89)):
        masks[name] = Mask.from_array(binary_erosion(labels == value, iterations=2))
    rois = Rois(ct.geometry, masks, tuple(keypoints), tuple(LevelFinding(n, True) for n in ("T12", "L1", "L2")))
    measurement = measure(ct, rois, TwoPointCalibration())
    figures = make_figures(ct, rois, measurement)
    assert set(figures) == {"sagittal", "coronal", "axial_bone", "axial_tissue", "histogram"}
    assert all(has_colour(figures["coronal"], f"body_{name}") for name in ("T12", "L1", "L2"))
    html = render_report(as_record(measurement), figures)
    assert "Not measured" in html, "no fat region was given"
    assert len(html) < 3_000_000
