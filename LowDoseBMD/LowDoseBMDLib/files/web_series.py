"""CT series of a DICOMweb server: which studies there are, which series of one to measure, and that series on disk."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..flags import Refusal
from .dicom import CT_CLASSES, HEADER_TAGS, planes_of_header
from .dicomweb import BROKEN_CONTENT, Server, WebError, asking
from .series import Plane, choose_series, group_planes

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pydicom import Dataset

log = logging.getLogger(__name__)

PAGE = 500
"""Studies asked for at a time; servers cut longer lists at limits of their own."""
MAX_STUDIES = 1_000_000
"""A list that is longer than any archive's comes from a server that lists without end."""
AS_STORED = (("application/dicom", "*"),)
"""Asks for instances in the transfer syntax that they are stored in: nothing is compressed or decompressed on the way."""

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class WebStudy:
    """One study on a server. date: YYYYMMDD as listed, or empty."""

    uid: str
    date: str = ""


@dataclass(frozen=True)
class WebSource:
    """Where a study is, as a process that measures it is told. store: its results are to be stored there."""

    server: Server
    study_uid: str
    store: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON data, for from_dict."""
        data = asdict(self)
        data["server"]["ca"] = self.server.ca and str(self.server.ca.absolute())
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> WebSource:
        server = dict(data["server"])
        server["ca"] = server["ca"] and Path(server["ca"])
        return WebSource(Server(**server), data["study_uid"], data["store"])


@dataclass(frozen=True, eq=False)
class WebSeries:
    """The series of a study that is to be measured. sop_uids: of its CT instances. why: as of choose_series."""

    study_uid: str
    uid: str
    sop_uids: frozenset[str]
    why: str | None


def read_study_uids(path: Path) -> list[WebStudy]:
    """Study Instance UIDs from a text file, one a line; blank lines and what follows a ``#`` are left out.

    Raises ValueError when a line is no UID or there is none; OSError when the file cannot be read.
    """
    studies: dict[str, WebStudy] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        uid = line.partition("#")[0].strip()
        if uid and not _UID.fullmatch(uid):
            raise ValueError(f"{path.name}, line {number}: not a Study Instance UID (digits and dots). Give one a line.")
        if uid:
            studies.setdefault(uid, WebStudy(uid))
    if not studies:
        raise ValueError(f"{path.name} holds no Study Instance UID. Give one a line.")
    return list(studies.values())


def find_web_studies(server: Server, since: date | None = None, until: date | None = None) -> list[WebStudy]:
    """Studies with CT on a server (QIDO-RS), of the days from ``since`` to ``until``, both included, oldest first.

    Raises WebError when the server does not answer as it should, or has none.
    """
    with asking(server) as client:
        listed = list(_listed(client, _filters(since, until)))
    studies = {}
    for entry in listed:
        study = WebStudy(_value(entry, "0020000D"), _value(entry, "00080020"))
        has_ct = "CT" in (_values(entry, "00080061") or ["CT"])
        if _UID.fullmatch(study.uid) and has_ct and _within(study.date, since, until):
            studies[study.uid] = study
    if not studies:
        raise WebError("The server lists no CT studies of that time. Check --since and --until, and what this user may see.")
    return sorted(studies.values(), key=lambda study: (study.date, study.uid))


def _filters(since: date | None, until: date | None) -> dict[str, str]:
    filters = {"ModalitiesInStudy": "CT"}
    if since or until:
        filters["StudyDate"] = f"{since:%Y%m%d}-" if since else "-"
        filters["StudyDate"] += f"{until:%Y%m%d}" if until else ""
    return filters


def _within(day: str, since: date | None, until: date | None) -> bool:
    """Some servers ignore a filter that they do not know; a study without a date is what the server says it is."""
    return not day or ((since is None or day >= f"{since:%Y%m%d}") and (until is None or day <= f"{until:%Y%m%d}"))


def _listed(client: DICOMwebClient, filters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Page after page, until one holds nothing new: some servers cut pages short, and some send the first one for ever."""
    seen: set[str] = set()
    while len(seen) < MAX_STUDIES:
        page = client.search_for_studies(search_filters=dict(filters), limit=PAGE, offset=len(seen))
        new = {_value(entry, "0020000D"): entry for entry in page if _value(entry, "0020000D") not in seen}
        yield from new.values()
        seen |= set(new)
        if not new:
            return


def _values(entry: Mapping[str, Any], tag: str) -> list[str]:
    return [str(value).strip() for value in entry.get(tag, {}).get("Value", []) if value is not None]


def _value(entry: Mapping[str, Any], tag: str) -> str:
    return next(iter(_values(entry, tag)), "")


def choose_web_series(server: Server, study_uid: str) -> WebSeries:
    """The CT series of a study that suits best, by the headers that the server has of its instances (WADO-RS metadata).

    Raises WebError when the server does not answer as it should, Refusal as choose_series does: ``no_axial_ct``,
    ``no_position``, and ``not_ct`` when the study holds no CT.
    """
    with asking(server) as client:
        images = {uid: [entry for entry in client.retrieve_series_metadata(study_uid, uid) if _is_ct_of(entry, uid)]
                  for uid in _ct_series(client, study_uid)}
        planes = [plane for entries in images.values() for entry in entries for plane in _planes(entry)]
    if not planes:
        raise Refusal("not_ct", "The server has no CT images in this study. Check that the study is still there, and that "
                                "this user may see it.")
    best, why = choose_series(group_planes(planes))
    return WebSeries(study_uid, best.uid, frozenset(_value(entry, "00080018") for entry in images[best.uid]), why)


def _ct_series(client: DICOMwebClient, study_uid: str) -> list[str]:
    listed = client.search_for_series(study_uid, search_filters={"Modality": "CT"})
    uids = [_value(entry, "0020000E") for entry in listed if _value(entry, "00080060") in ("CT", "")]
    return list(dict.fromkeys(uid for uid in uids if _UID.fullmatch(uid)))


def _is_ct_of(entry: Mapping[str, Any], series_uid: str) -> bool:
    return _value(entry, "00080016") in CT_CLASSES and _value(entry, "0020000E") == series_uid


def _planes(entry: Mapping[str, Any]) -> list[Plane]:
    """Of an instance's JSON headers; none when they cannot be read: it is fetched all the same, and judged then."""
    try:
        header = _header(entry)
        return list(planes_of_header(Path(str(header.SOPInstanceUID)), header))
    except BROKEN_CONTENT as error:
        log.debug("a header holds what cannot be read: %s", type(error).__name__)
        return []


def _header(entry: Mapping[str, Any]) -> Dataset:
    """What is read of a header, and nothing that names the patient."""
    from pydicom import Dataset
    from pydicom.datadict import tag_for_keyword

    wanted = {f"{tag_for_keyword(name):08X}" for name in HEADER_TAGS}
    return Dataset.from_json({tag: value for tag, value in entry.items() if tag.upper() in wanted})


def fetch_series(server: Server, series: WebSeries, folder: Path) -> list[Path]:
    """Fetch a series (WADO-RS) into ``folder``, one instance after the other; files are named by their order.

    Only CT instances of that series are kept. Raises WebError when one is missing or belongs elsewhere, or when the server
    does not answer as it should; OSError when a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    with asking(server) as client:
        for dataset in client.iter_series(series.study_uid, series.uid, media_types=AS_STORED):
            uid = _checked(dataset, series)
            if uid in series.sop_uids and uid not in files:
                files[uid] = folder / f"{len(files):06d}.dcm"
                dataset.save_as(files[uid])
    _refuse_incomplete(files, series.sop_uids)
    return list(files.values())


def _checked(dataset: Dataset, series: WebSeries) -> str:
    """The instance's UID. Raises WebError when it belongs to another series or study."""
    if (dataset.get("SeriesInstanceUID"), dataset.get("StudyInstanceUID")) != (series.uid, series.study_uid):
        raise WebError("The server sent an image of another series than the one that was asked for; it may be another "
                       "person's. Nothing of it was used. Tell the server's administrator.")
    return str(dataset.get("SOPInstanceUID")) if dataset.get("SOPClassUID") in CT_CLASSES else ""


def _refuse_incomplete(files: Collection[str], expected: Collection[str]) -> None:
    if len(files) < len(expected):
        raise WebError(f"The server sent {len(files)} of the {len(expected)} images of the series. Nothing of it was used; "
                       "try again.")
