"""What Slicer's DICOM database knows of the series that a volume was loaded from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.headers import age_years, plain_agent, plain_words, sex

TAGS: dict[str, str] = {
    "modality": "0008,0060", "manufacturer": "0008,0070", "scanner": "0008,1090", "contrast_agent": "0018,0010",
    "kernel": "0018,1210", "study_date": "0008,0020", "study_uid": "0020,000d", "series_uid": "0020,000e",
    "series_description": "0008,103e",
}
NUMBER_TAGS: dict[str, str] = {
    "kvp": "0018,0060", "tube_current_ma": "0018,1151", "slice_thickness_mm": "0018,0050",
    "field_of_view_mm": "0018,1100",
}
AGE_TAG, SEX_TAG = "0010,1010", "0010,0040"
"""Nothing that names the patient is read here."""

INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"


def acquisitionFromDicom(volumeNode: Any) -> Acquisition | None:
    """The acquisition of a volume that came from the DICOM database; None when it did not, or is no longer there."""
    files = dicomFiles(volumeNode)
    if not files:
        return None
    database, instances = slicer.dicomDatabase, _instances(volumeNode)

    def value(tag: str) -> str | None:
        return (database.instanceValue(instances[0], tag) or "").strip() or None

    facts = {name: value(tag) for name, tag in TAGS.items()}
    facts |= {"series_description": plain_words(facts["series_description"]),
              "contrast_agent": plain_agent(facts["contrast_agent"])}
    numbers = {name: _number(value(tag)) for name, tag in NUMBER_TAGS.items()}
    return Acquisition(source="dicom", **facts, **numbers, patient_age_years=age_years(value(AGE_TAG)),
                       patient_sex=sex(value(SEX_TAG)))


def dicomFiles(volumeNode: Any) -> tuple[Path, ...]:
    """The files that a volume was loaded from; none when it did not come from the DICOM database, or they are gone."""
    database = getattr(slicer, "dicomDatabase", None)  # Slicer can be built without DICOM
    instances = _instances(volumeNode)
    if not instances or not database or not database.isOpen:
        return ()
    files = [database.fileForInstance(uid) for uid in instances]
    return tuple(Path(file) for file in files) if all(files) else ()


def _instances(volumeNode: Any) -> list[str]:
    return (volumeNode.GetAttribute(INSTANCES_ATTRIBUTE) or "").split()


def patientName(volumeNode: Any) -> str:
    """The patient above a volume in the subject hierarchy, for the eyes of the reader only; empty when there is none."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    if hierarchy is None:
        return ""
    item = hierarchy.GetItemByDataNode(volumeNode)
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    return hierarchy.GetItemName(patient) if patient else ""


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").split("\\")[0])
    except ValueError:
        return None
