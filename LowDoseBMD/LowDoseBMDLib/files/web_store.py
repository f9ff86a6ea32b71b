"""Results into an archive: DICOM files stored on a DICOMweb server (STOW-RS), and what the server says of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .dicomweb import Server, WebError, asking

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pydicom import Dataset

log = logging.getLogger(__name__)

STORED, ALREADY_THERE, REFUSED, UNCONFIRMED = "stored", "already there", "refused", "not confirmed"
THERE = frozenset({STORED, ALREADY_THERE})

REASONS = {
    0xA700: "the server is out of resources", 0xA900: "the object does not match its SOP class",
    0xC000: "the server cannot understand the object", 0xC122: "the server does not take this transfer syntax",
    0x0110: "the server failed in processing", 0x0122: "the server does not take objects of this SOP class",
    0x0124: "this user may not store", 0xB000: "the server changed attributes of it",
    0xB006: "the server left out elements of it", 0xB007: "the object does not match its SOP class",
}
"""Failure and Warning Reason (PS3.18, Store Instances Response; PS3.7 C.5). A7xx, A9xx and Cxxx stand for families."""


@dataclass(frozen=True)
class Stored:
    """What became of one file. state: stored, already there, refused, not confirmed; note: the server's words, or empty."""

    file: str
    sop_uid: str
    state: str
    note: str = ""


def store_results(server: Server, files: Sequence[Path]) -> tuple[Stored, ...]:
    """Store DICOM files of one study; those that the server has already are not sent again.

    Only what the server confirms by its SOP Instance UID counts as stored. Raises WebError when the server cannot be
    reached, refuses the log-in, or does not answer as it should; what became of the files is then not known, and another
    try is safe.
    """
    import pydicom

    datasets = [pydicom.dcmread(path) for path in files]
    with asking(server, chunk_bytes=_whole_message(files)) as client:
        missing = {str(dataset.SOPInstanceUID): dataset for dataset in datasets if not _has(client, dataset)}
        answer = _send(client, list(missing.values())) if missing else None
    uids = [str(dataset.SOPInstanceUID) for dataset in datasets]
    return tuple(_outcome(path.name, uid, answer if uid in missing else None)
                 for path, uid in zip(files, uids, strict=True))


def _whole_message(files: Sequence[Path]) -> int:
    """Bytes that no message of these files exceeds: a message in one piece can be sent again after a passing fault."""
    return sum(path.stat().st_size + 2**16 for path in files) + 2**16


def _has(client: DICOMwebClient, dataset: Dataset) -> bool:
    found = client.search_for_instances(dataset.StudyInstanceUID, search_filters={"SOPInstanceUID": dataset.SOPInstanceUID})
    return any(dataset.SOPInstanceUID in entry.get("00080018", {}).get("Value", []) for entry in found)


def _send(client: DICOMwebClient, datasets: Sequence[Dataset]) -> Dataset:
    """The server's answer. One that refuses all comes with an HTTP error (409), whose content is the same kind of list."""
    import pydicom
    import requests

    try:
        return client.store_instances(datasets, str(datasets[0].StudyInstanceUID))
    except requests.exceptions.HTTPError as error:
        if error.response.status_code != requests.codes.conflict:
            raise
        return pydicom.Dataset.from_json(error.response.json())


def _outcome(name: str, uid: str, answer: Dataset | None) -> Stored:
    if answer is None:
        return Stored(name, uid, ALREADY_THERE)
    failed = _item(answer, "FailedSOPSequence", uid)
    if failed is not None:
        return Stored(name, uid, REFUSED, _reason(failed, "FailureReason"))
    stored = _item(answer, "ReferencedSOPSequence", uid)
    if stored is not None:
        return Stored(name, uid, STORED, _reason(stored, "WarningReason") if "WarningReason" in stored else "")
    return Stored(name, uid, UNCONFIRMED, "the server did not say whether it stored it")


def _item(answer: Dataset, sequence: str, uid: str) -> Dataset | None:
    return next((item for item in answer.get(sequence) or () if item.get("ReferencedSOPInstanceUID") == uid), None)


def _reason(item: Dataset, name: str) -> str:
    code = item.get(name)
    if code is None:
        return "the server gives no reason"
    found = (REASONS.get(int(code) & mask) for mask in (0xFFFF, 0xFF00, 0xF000))
    return f"{next(filter(None, found), 'for a reason unknown here')} (code {int(code):04X}H)"


def refuse_not_stored(results: Sequence[Stored]) -> None:
    """Raises WebError that names each file which the server does not hold for certain."""
    lost = [f"{result.file} was {result.state} ({result.note})" for result in results if result.state not in THERE]
    if lost:
        raise WebError(f"Measured, but not stored: {'; '.join(lost)}. The files lie whole in the study's folder.")
    for result in results:
        if result.note:
            log.warning("%s: %s", result.file, result.note)
