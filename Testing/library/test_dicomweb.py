"""DICOMweb: studies come from a real Orthanc and results go back into it; servers that misbehave do no harm."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import PATIENT, write_ct_series
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.files import dicomweb
from LowDoseBMDLib.files.dicom_seg import write_dicom_seg
from LowDoseBMDLib.files.dicomweb import PASSWORD as PASSWORD_NAME
from LowDoseBMDLib.files.dicomweb import TOKEN as TOKEN_NAME
from LowDoseBMDLib.files.dicomweb import USER as USER_NAME
from LowDoseBMDLib.files.dicomweb import Server, WebError
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.files.segmentation import write_segmentation
from LowDoseBMDLib.files.web_series import (
    WebSeries,
    WebStudy,
    choose_web_series,
    fetch_series,
    find_web_studies,
    read_study_uids,
)
from LowDoseBMDLib.files.web_store import ALREADY_THERE, REFUSED, STORED, UNCONFIRMED, refuse_not_stored, store_results
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
from LowDoseBMDLib.rois import Mask, Rois
from LowDoseBMDLib.study import Settings
from LowDoseBMDLib.web_study import INCOMING, measure_web_study, store_study
from odd_server import OddServer, cutting_relay, odd_server, send
from orthanc_server import PASSWORD, USER, Orthanc, running_orthanc

STUDY = "1.2.3.4"
REGIONS = {"trabecular_L1": ((26, 30, 30), 120), "trabecular_L2": ((8, 30, 30), 100), "psoas_left": ((8, 30, 48), 55),
           "fat_anterior": ((8, 6, 24), -105)}
"""First voxel k, j, i of cubes of 12 x 12 x 12 voxels of 3 mm, and their HU."""
JSON, SEG_CLASS, SR_CLASS = "application/dicom+json", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"


def a_ct() -> CTVolume:
    """A block of soft tissue in air, with a bar of bone and four cubes of known HU."""
    hu = np.full((40, 64, 72), -1000, np.int16)
    hu[:, 4:60, 14:68] = 40
    hu[:, 50:54, 30:42] = 500
    for (k, j, i), value in REGIONS.values():
        hu[k:k + 12, j:j + 12, i:i + 12] = value
    return CTVolume(hu, Geometry(hu.shape, np.diag([3.0, 3.0, 3.0, 1.0])), Acquisition())


def given_regions(path: Path) -> Settings:
    """Settings that measure the four cubes, without networks."""
    masks = {name: Mask(np.ones((12, 12, 12), bool), start) for name, (start, _) in REGIONS.items()}
    write_segmentation(path, Rois(a_ct().geometry, masks))
    return Settings(rois=path)


def quick(url: str, **changes: object) -> Server:
    """A server that is given up soon, so that tests are."""
    return replace(Server(url, retries=2, pause_seconds=0.01, read_seconds=2.0), **changes)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (USER_NAME, PASSWORD_NAME, TOKEN_NAME):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER_NAME, USER)
    monkeypatch.setenv(PASSWORD_NAME, PASSWORD)


# --- addresses and credentials -----------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "words"), [
    ("ftp://pacs/dicom-web", "https://"), ("pacs.example.org/dicom-web", "https://"),
    ("https://ann:hunter2@pacs.example.org/dicom-web", USER_NAME), ("https://pacs.example.org/rs?x=1", "root"),
    ("http://pacs.example.org/dicom-web", "--insecure-http"), ("http://127.0.0.1.example.org/rs", "--insecure-http")])
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_sent(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Server(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8042/rs", "http://localhost/rs", "http://[::1]/rs", "https://pacs/rs"])
def test_plain_http_stays_on_this_machine_unless_it_is_asked_for(url: str) -> None:
    assert Server(url).url == url
    assert Server("http://pacs.example.org/rs", insecure_http=True).insecure_http


def test_certificates_that_are_not_there_are_told() -> None:
    with pytest.raises(ValueError, match="--ca"):
        Server("https://pacs/rs", ca=Path("nowhere.pem"))


@pytest.mark.parametrize(("given", "sent"), [
    ({}, None), ({TOKEN_NAME: "t0k"}, "Bearer t0k"),
    ({USER_NAME: "ann", PASSWORD_NAME: "hunter2"}, "Basic YW5uOmh1bnRlcjI=")])
def test_credentials_come_from_the_environment_and_go_nowhere_else(given, sent, monkeypatch, caplog) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.DEBUG)
    with odd_server(lambda handler: send(handler, 403)) as server, pytest.raises(WebError, match="403") as caught:
        find_web_studies(quick(server.url))
    assert [headers.get("Authorization") for headers in server.headers] == [sent]
    assert server.headers[0]["Host"] == server.url.split("/")[2], "the port is part of the host"
    for secret in ("hunter2", "YW5uOmh1bnRlcjI", "t0k"):
        assert secret not in caplog.text + str(caught.value)


@pytest.mark.parametrize("given", [
    {USER_NAME: "ann"}, {PASSWORD_NAME: "x"}, {USER_NAME: "a", PASSWORD_NAME: "b", TOKEN_NAME: "c"}])
def test_half_given_credentials_are_a_mistake(given, monkeypatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=USER_NAME):
        find_web_studies(quick("http://127.0.0.1:9/rs"))


def test_study_uids_from_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "uids.txt"
    listed.write_text("\ufeff1.2.3\n\n# old ones\n 4.5.6  # Ann\n1.2.3\n", encoding="utf-8")
    assert read_study_uids(listed) == [WebStudy("1.2.3"), WebStudy("4.5.6")]
    listed.write_text("1.2.3\n../../etc\n")
    with pytest.raises(ValueError, match="line 2"):
        read_study_uids(listed)
    listed.write_text("\n")
    with pytest.raises(ValueError, match="no Study Instance UID"):
        read_study_uids(listed)


# --- servers that misbehave ------------------------------------------------------------------------------------


def dicom_json(**values: object) -> dict:
    ds = pydicom.Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds.to_json_dict()


def multipart(parts: list[bytes], whole: bool = True) -> bytes:
    body = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    return body + b"--edge--\r\n" if whole else body[:-40]


def instance(folder: Path, **changes: str) -> tuple[bytes, pydicom.Dataset]:
    ct = a_ct()
    small = CTVolume(ct.hu[:1], Geometry((1, *ct.hu.shape[1:]), ct.geometry.ijk_to_lps), Acquisition())
    write_ct_series(folder / "one", small, STUDY)
    ds = pydicom.dcmread(folder / "one" / "0000.dcm")
    for name, value in changes.items():
        setattr(ds, name, value)
    with BytesIO() as file:
        ds.save_as(file)
        return file.getvalue(), ds


def forever(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, b"[")
    try:
        while True:
            handler.wfile.write(b" " * 65536)
    except OSError:
        pass


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


ODD_ANSWERS: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], str, int]] = {
    "wrong password": (lambda h: send(h, 401), "refuses the log-in", 1),
    "not a DICOMweb root": (lambda h: send(h, 404), "HTTP 404", 1),
    "bad request": (lambda h: send(h, 400), "refuses the request", 1),
    "down": (lambda h: send(h, 503, **{"Retry-After": "3600"}), "Try again later", 3),
    "broken": (lambda h: send(h, 500), "fault of its own", 1),
    "log-in page": (lambda h: send(h, 200, b"<html>Please log in", "text/html"), "not DICOMweb", 1),
    "cut JSON": (lambda h: send(h, 200, b'[{"0020000D": {"vr"'), "not DICOMweb", 1),
    "bottomless JSON": (lambda h: send(h, 200, b"[" * 200_000), "not DICOMweb", 1),
    "other JSON": (lambda h: send(h, 200, b'["studies", 3]'), "not DICOMweb", 1),
    "endless": (forever, "longer than 1 MiB", 1),
    "never answers": (silent, "did not answer in time", 2),
    "hangs up": (lambda h: h.connection.close(), "closed the connection", 2),
    "elsewhere": (lambda h: send(h, 302, Location="http://127.0.0.1:9/other"), "points to another address", 1),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_an_odd_answer_ends_in_a_clear_sentence_and_only_a_passing_fault_is_tried_again(name, monkeypatch, capfd) -> None:
    answer, words, asked = ODD_ANSWERS[name]
    monkeypatch.setattr(dicomweb, "MAX_TEXT_BYTES", 2**20)
    with odd_server(answer) as server, pytest.raises(WebError, match=words):
        find_web_studies(quick(server.url, read_seconds=0.3))
    assert len(server.requests) == asked


def test_a_server_that_comes_back_within_the_pauses_is_no_fault() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        busy = len(server.requests) < 3
        send(handler, 503 if busy else 200, json.dumps([dicom_json(StudyInstanceUID=STUDY)]).encode())

    with odd_server(answer) as server:
        assert find_web_studies(quick(server.url)) == [WebStudy(STUDY)]
    assert len(server.requests) == 4, "two passing faults, a page, and a page with nothing new"


def test_a_certificate_is_trusted_only_when_it_is_given(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    pem = tmp_path / "server.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "ca.pem"],
                   check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "ca.pem").read_text())
    listed = json.dumps([dicom_json(StudyInstanceUID=STUDY)]).encode()
    with odd_server(lambda handler: send(handler, 200, listed), pem) as server:
        with pytest.raises(WebError, match="--ca FILE"):
            find_web_studies(quick(server.url))
        assert server.requests == []
        assert find_web_studies(quick(server.url, ca=tmp_path / "ca.pem")) == [WebStudy(STUDY)]


def test_nobody_at_the_address() -> None:
    with odd_server(silent) as server:
        pass
    with pytest.raises(WebError, match="cannot be reached"):
        find_web_studies(quick(server.url))


@pytest.mark.parametrize("page", [3, 500])
def test_short_pages_are_all_read_and_what_was_not_asked_for_is_left_out(page: int) -> None:
    """A server that cuts pages short; one that knows no filter and no offset, and sends everything each time."""
    listed = [dicom_json(StudyInstanceUID=f"1.2.{n}", StudyDate=f"202401{n + 1:02d}", ModalitiesInStudy=["CT"])
              for n in range(9)]
    listed += [dicom_json(StudyInstanceUID="1.3", StudyDate="20240105", ModalitiesInStudy=["MR"]),
               dicom_json(StudyInstanceUID="../1", StudyDate="20240105", ModalitiesInStudy=["CT"])]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        first = int(handler.path.partition("offset=")[2].partition("&")[0]) if page == 3 else 0
        send(handler, 200, json.dumps(listed[first:first + page]).encode())

    with odd_server(answer) as server:
        found = find_web_studies(quick(server.url), date(2024, 1, 3), date(2024, 1, 7))
    assert found == [WebStudy(f"1.2.{n}", f"202401{n + 1:02d}") for n in range(2, 7)]
    assert "StudyDate=20240103-20240107" in server.requests[0][1] and "ModalitiesInStudy=CT" in server.requests[0][1]
    assert len(server.requests) == (5 if page == 3 else 2)


def test_an_image_whose_header_cannot_be_read_belongs_to_its_series_still(a_study: Path) -> None:
    """It is fetched with the others and judged by the reader of files: leaving it out would hide a missing slice."""
    files = sorted((a_study / "smooth").iterdir())
    headers = [pydicom.dcmread(path, stop_before_pixels=True).to_json_dict() for path in files]
    headers[0]["00280010"] = {"vr": "US", "Value": ["many"]}
    uid = headers[0]["0020000E"]["Value"][0]
    listed = [dicom_json(SeriesInstanceUID=uid, Modality="CT"), dicom_json(SeriesInstanceUID="1.9/../..", Modality="CT")]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, json.dumps(headers if handler.path.endswith("metadata") else listed).encode())

    with odd_server(answer) as server:
        chosen = choose_web_series(quick(server.url), STUDY)
    assert (chosen.uid, len(chosen.sop_uids)) == (uid, 40)
    assert len(server.requests) == 2, "what is no UID is not asked for"


@contextmanager
def sending(content: bytes, kind: str = 'multipart/related; type="application/dicom"; boundary=edge') -> Iterator[OddServer]:
    with odd_server(lambda handler: send(handler, 200, content, kind)) as server:
        yield server


def test_an_instance_comes_as_it_was_sent_under_a_name_of_ours(tmp_path: Path) -> None:
    content, ds = instance(tmp_path)
    series = WebSeries(STUDY, ds.SeriesInstanceUID, frozenset({ds.SOPInstanceUID}), None)
    with sending(multipart([content, content])) as server:
        files = fetch_series(quick(server.url), series, tmp_path / "in")
    assert [path.name for path in files] == ["000000.dcm"] and files[0].read_bytes() == content
    assert "transfer-syntax=*" in server.headers[0]["Accept"]


@pytest.mark.parametrize(("case", "words"), [
    ("cut off", "broke off"), ("cut off between parts", "broke off"), ("one is missing", "1 of the 2 images"),
    ("no DICOM", "not DICOMweb"), ("another series", "another series"), ("another study", "another series"),
    ("not CT", "0 of the 1 images"), ("too large", "longer than")])
def test_a_series_that_is_not_the_one_asked_for_is_not_used(case, words, tmp_path, monkeypatch) -> None:
    changes = {"another series": {"SeriesInstanceUID": "1.9"}, "another study": {"StudyInstanceUID": "1.9"},
               "not CT": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}}.get(case, {})
    content, ds = instance(tmp_path, **changes)
    uids = {str(ds.SOPInstanceUID)} | ({"1.8"} if case == "one is missing" else set())
    series = WebSeries(STUDY, "1.7" if case == "another series" else str(ds.SeriesInstanceUID), frozenset(uids), None)
    if case == "too large":
        monkeypatch.setattr(dicomweb, "MAX_SERIES_BYTES", 3000)
    body = {"cut off": multipart([content], whole=False), "no DICOM": multipart([b"<html>"]),
            "cut off between parts": multipart([content])[:-len(b"--edge--\r\n")]}.get(case, multipart([content]))
    with sending(body) as server, pytest.raises(WebError, match=words):
        fetch_series(quick(server.url), series, tmp_path / "in")


# --- storing ------------------------------------------------------------------------------------------------------


def results(folder: Path) -> list[Path]:
    """Two objects of one study; any will do."""
    for name in ("a", "b"):
        (folder / f"{name}.dcm").write_bytes(instance(folder / name)[0])
    return [folder / "a.dcm", folder / "b.dcm"]


def stow_answer(stored: list[str], failed: dict[str, int] | None = None, warned: dict[str, int] | None = None) -> bytes:
    items = [{"ReferencedSOPInstanceUID": uid, **({"WarningReason": warned[uid]} if uid in (warned or {}) else {})}
             for uid in stored]
    lost = [{"ReferencedSOPInstanceUID": uid, "FailureReason": code} for uid, code in (failed or {}).items()]
    sequences = {name: [pydicom.Dataset.from_json(dicom_json(**item)) for item in entries]
                 for name, entries in (("ReferencedSOPSequence", items), ("FailedSOPSequence", lost)) if entries}
    return json.dumps(dicom_json(**sequences)).encode()


STOW = {
    "both": (200, lambda a, b: stow_answer([a, b]), [STORED, STORED]),
    "one refused": (202, lambda a, b: stow_answer([a], {b: 0x0122}), [STORED, REFUSED]),
    "both refused": (409, lambda a, b: stow_answer([], {a: 0xA701, b: 0xC123}), [REFUSED, REFUSED]),
    "changed": (200, lambda a, b: stow_answer([a, b], warned={b: 0xB000}), [STORED, STORED]),
    "says nothing": (200, lambda a, b: b"", [UNCONFIRMED, UNCONFIRMED]),
    "says of others": (200, lambda a, b: stow_answer(["1.9", b]), [UNCONFIRMED, STORED]),
}


@pytest.mark.parametrize("name", STOW)
def test_only_what_the_server_confirms_counts_as_stored(name: str, tmp_path: Path) -> None:
    status, content, states = STOW[name]
    files = results(tmp_path)
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in files]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            send(handler, 200, b"[]")
        else:
            send(handler, status, content(*uids), f"{JSON}; charset=utf-8")

    with odd_server(answer) as server:
        found = store_results(quick(server.url), files)
    assert [entry.state for entry in found] == states
    assert [entry.sop_uid for entry in found] == uids
    lost = [entry.file for entry in found if entry.state != STORED]
    if lost:
        with pytest.raises(WebError, match="not stored") as caught:
            refuse_not_stored(found)
        assert all(file in str(caught.value) for file in lost)
    notes = {"one refused": "does not take objects of this SOP class", "both refused": "cannot understand",
             "changed": "changed attributes"}
    assert notes.get(name, "") in found[1].note


def test_a_server_that_is_busy_when_results_come_gets_them_whole_the_second_time(tmp_path: Path) -> None:
    files = results(tmp_path)
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in files]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        posts = sum(method == "POST" for method, _ in server.requests)
        if handler.command == "GET":
            send(handler, 200, b"[]")
        else:
            send(handler, 503 if posts == 1 else 200, stow_answer(uids))

    with odd_server(answer) as server:
        assert [entry.state for entry in store_results(quick(server.url), files)] == [STORED, STORED]
    lengths = [headers.get("Content-Length") for headers in server.headers if "multipart" in headers.get("Content-Type", "")]
    assert len(lengths) == 2 and lengths[0] == lengths[1] and int(lengths[0]) > sum(path.stat().st_size for path in files)


def test_the_same_regions_are_the_same_object_and_others_another(a_study: Path, tmp_path: Path) -> None:
    """What an archive knows an object by follows from its content, so that no result is stored twice."""
    files = sorted((a_study / "smooth").iterdir())
    box = np.ones((12, 12, 12), bool)
    other = box.copy()
    other[3, 4, 5] = False
    found = []
    for n, voxels in enumerate((box, box, other)):
        write_dicom_seg(tmp_path / f"{n}.dcm", Rois(a_ct().geometry, {"psoas_left": Mask(voxels, (8, 30, 48))}), files)
        ds = pydicom.dcmread(tmp_path / f"{n}.dcm")
        found.append((ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.SegmentSequence[0].TrackingUID))
        assert ds.pixel_array.sum() == voxels.sum()
    assert found[0] == found[1] and not set(found[0]) & set(found[2])
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in (*found[0], *found[2])) and len(set(found[0])) == 3


# --- a real server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as server:
        yield server


@pytest.fixture(scope="module")
def a_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth series, a sharp one and a localizer, on disk."""
    folder, ct = tmp_path_factory.mktemp("study"), a_ct()
    write_ct_series(folder / "sharp", ct, STUDY, ConvolutionKernel="B70f", SeriesNumber=1)
    write_ct_series(folder / "smooth", ct, STUDY)
    one = CTVolume(ct.hu[:1], Geometry((1, *ct.hu.shape[1:]), ct.geometry.ijk_to_lps), Acquisition())
    write_ct_series(folder / "scout", one, STUDY, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return folder


@pytest.fixture
def an_archive(orthanc: Orthanc, a_study: Path, logged_in: None) -> Orthanc:
    """Orthanc with that study, stored by STOW-RS, and nothing else."""
    archive(orthanc, a_study)
    return orthanc


def archive(orthanc: Orthanc, folder: Path) -> None:
    for study in orthanc.ask("/studies"):
        orthanc.remove(f"/studies/{study}")
    with dicomweb.asking(quick(orthanc.url, read_seconds=60.0), chunk_bytes=2**30) as client:
        client.store_instances([pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))])


def by_modality(server: Orthanc) -> dict[str, list[dict]]:
    """Series of the archive, as its own interface lists them."""
    found: dict[str, list[dict]] = {}
    for series in server.ask("/series?expand"):
        found.setdefault(series["MainDicomTags"]["Modality"], []).append(series)
    return found


def test_the_series_is_chosen_from_headers_alone_as_it_is_from_files(an_archive: Orthanc, a_study, tmp_path: Path) -> None:
    server = quick(an_archive.url)
    assert find_web_studies(server, date(2024, 1, 31), date(2024, 1, 31)) == [WebStudy(STUDY, "20240131")]
    with pytest.raises(WebError, match="no CT studies"):
        find_web_studies(server, since=date(2024, 2, 1))
    acquisition = read_ct(a_study).acquisition
    chosen = choose_web_series(server, STUDY)
    assert (chosen.uid, chosen.why) == (acquisition.series_uid, acquisition.series_choice)
    assert acquisition.kernel == "B30f" and "sharp kernel" in chosen.why
    files = fetch_series(server, chosen, tmp_path / "in")
    sent = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (a_study / "smooth").iterdir())}
    assert len(files) == len(sent) == 40
    for path in files:
        ds = pydicom.dcmread(path)
        assert ds == sent[ds.SOPInstanceUID] and ds.PixelData == sent[ds.SOPInstanceUID].PixelData


@pytest.mark.parametrize("after_kb", [20, 150])
def test_a_server_that_goes_away_in_the_middle_leaves_nothing_half(after_kb: int, an_archive: Orthanc, tmp_path) -> None:
    """After 20 kB it goes while it lists headers, after 150 kB while it sends images."""
    with cutting_relay(an_archive.port, 1000 * after_kb) as port, pytest.raises(WebError, match=r"[Tt]ry again"):
        measure_web_study(quick(f"http://127.0.0.1:{port}/dicom-web"), STUDY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_that_could_not_be_stored_stay_and_are_stored_later(an_archive, tmp_path, monkeypatch, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    server, settings, out = quick(an_archive.url), given_regions(tmp_path / "r.seg.nrrd"), tmp_path / "out"
    record = measure_web_study(server, STUDY, out, settings)
    assert {level["name"]: level["hu_mean"] for level in record["levels"] if level["hu_mean"]} == {"L1": 120.0, "L2": 100.0}
    assert "sharp kernel" in record["acquisition"]["series_choice"] and not (out / INCOMING).exists()
    kept = {name: (out / name).read_bytes() for name in ("segmentation.dcm", "report.dcm")}
    monkeypatch.setenv(PASSWORD_NAME, "wrong")
    with pytest.raises(WebError, match="log-in"):
        store_study(server, out)
    assert {name: (out / name).read_bytes() for name in kept} == kept and not (out / "stored.json").exists()
    monkeypatch.setenv(PASSWORD_NAME, PASSWORD)
    assert [entry.state for entry in store_study(server, out)] == [STORED, STORED]
    assert PATIENT not in caplog.text and PASSWORD not in caplog.text


def test_a_study_that_the_server_does_not_have_is_refused(an_archive: Orthanc, tmp_path: Path) -> None:
    record = measure_web_study(quick(an_archive.url), "1.2.9", tmp_path / "out")
    assert record["status"] == "refused" and record["flags"][0]["code"] == "not_ct"


# --- the command line --------------------------------------------------------------------------------------------


def run_batch(*arguments: object) -> subprocess.CompletedProcess[str]:
    module = Path(__file__).resolve().parents[2] / "LowDoseBMD"
    return subprocess.run([sys.executable, "-m", "LowDoseBMDLib", "batch", *map(str, arguments)], text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(module)}, capture_output=True)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_batch_takes_studies_out_of_the_archive_and_puts_results_back_once(orthanc, logged_in, tmp_path) -> None:
    """A phantom of 3 mm voxels, through the networks: the server dies, the batch is resumed, then all is done once more."""
    phantom = make_phantom(PhantomSpec(seed=4, spacing_mm=(3.0, 3.0, 3.0), scan_top=("T11", 0.3), scan_bottom=("L2", 1.3),
                                       noise_hu=10.0))
    write_ct_series(tmp_path / "ct", phantom.ct, STUDY)
    archive(orthanc, tmp_path / "ct")
    (tmp_path / "uids.txt").write_text(f"{STUDY}\n")
    out, asked = tmp_path / "out", ("--store", "--dicomweb")

    with cutting_relay(orthanc.port, 300_000) as port:
        done = run_batch(*asked, f"http://127.0.0.1:{port}/dicom-web", "--study-uids", tmp_path / "uids.txt", "-o", out)
    assert done.returncode == 1 and "1 failed" in done.stdout
    assert rows(out)[0]["status"] == "failed" and "again" in rows(out)[0]["reason"]

    done = run_batch(*asked, orthanc.url, "--since", "2024-01-31", "-o", out, "--resume")
    assert (done.returncode, rows(out)[0]["status"]) == (0, "measured"), done.stderr
    expected = np.mean([phantom.truth.vbmd_mg_cm3[name] for name in rows(out)[0]["mean_of"].split()])
    assert float(rows(out)[0]["mean_vbmd_mg_cm3"]) == pytest.approx(expected, abs=15)
    results = out / rows(out)[0]["study"]
    assert len(orthanc.ask("/studies")) == 1, "results belong to the study"
    series = by_modality(orthanc)
    assert {name: len(entries) for name, entries in series.items()} == {"CT": 1, "SEG": 1, "SR": 1}
    for modality, name, sop_class in (("SEG", "segmentation.dcm", SEG_CLASS), ("SR", "report.dcm", SR_CLASS)):
        (identifier,) = series[modality][0]["Instances"]
        back = pydicom.dcmread(BytesIO(orthanc.file(f"/instances/{identifier}/file")))
        ours = pydicom.dcmread(results / name)
        assert back == ours and back.SOPClassUID == sop_class and back.StudyInstanceUID == STUDY
        assert back.get("PixelData") == ours.get("PixelData")
    for path in (*out.glob("*.*"), *results.iterdir()):
        if path.suffix != ".dcm":
            assert PATIENT.encode() not in path.read_bytes() and PASSWORD.encode() not in path.read_bytes(), path.name

    done = run_batch(*asked, orthanc.url, "-o", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "again" / rows(tmp_path / "again")[0]["study"] / "stored.json").read_text())
    assert [entry["state"] for entry in stored] == [ALREADY_THERE, ALREADY_THERE]
    assert len(orthanc.ask("/instances")) == len(phantom.ct.hu) + 2


@pytest.mark.parametrize(("arguments", "words"), [
    (("--dicomweb", "http://127.0.0.1:9/rs", "folder"), "either"), (("folder", "--store"), "--store belongs to --dicomweb"),
    ((), "either"),
    (("--dicomweb", "http://127.0.0.1:9/rs", "--since", "2024-02-01", "--until", "2024-01-01"), "lies after"),
    (("--dicomweb", "http://127.0.0.1:9/rs", "--study-uids", "x", "--since", "2024-02-01"), "leave out --since"),
    (("--dicomweb", "http://pacs/rs"), "--insecure-http")])
def test_arguments_that_contradict_each_other_are_told(arguments, words, tmp_path, capsys) -> None:
    assert main(["batch", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_the_client_its_name_is_told(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "dicomweb_client", None)
    assert main(["batch", "--dicomweb", "https://pacs/rs", "-o", str(tmp_path / "out")]) == 2
    assert "pip install 'lowdosebmd[dicomweb]'" in capsys.readouterr().err
