"""A measurement as a DICOM Structured Report: numbers with units and codes, tied to the regions and the slices.

Standard: DICOM PS3.16 TID 1500 (Measurement Report), TID 1411 (one group per region), TID 1501 (pooled regions and the
mean). What no dictionary has a code for (vBMD and its class) uses the private scheme ``99SBMD``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..anatomy import LEFT, RIGHT, STRUCTURES, Code, Structure
from ..review import ACCEPTED
from .atomic import whole_file
from .dicom_report_text import algorithm_parameters, sentences
from .dicom_seg import concept, finish
from .dicom_segments import StoredSegment, stored_segments
from .dicom_source import MANUFACTURER, SCHEME, SourceSeries, content_uid, read_source

if TYPE_CHECKING:
    import highdicom
    from pydicom import Dataset

SERIES_NUMBER = 8002
SERIES_DESCRIPTION = "LowDoseBMD measurement"

VBMD = Code("VBMD", SCHEME, "Trabecular volumetric BMD, K2HPO4-equivalent")
VBMD_LOW = Code("VBMDCI95L", SCHEME, "Lower limit of the 95 % interval of vBMD")
VBMD_HIGH = Code("VBMDCI95U", SCHEME, "Upper limit of the 95 % interval of vBMD")
P_BELOW_80 = Code("PBELOW80", SCHEME, "Probability that vBMD is below 80 mg/cm3")
METHOD = Code("INTCAL", SCHEME, "Internal calibration on muscle and subcutaneous fat")
OTHER_METHODS = {"line": Code("LINECAL", SCHEME, "Line of the scanner, without reference tissue"),
                 "regression": Code("REGCAL", SCHEME, "Regression on the attenuation of bone, muscle and fat")}
"""By the kind of calibration; the others read muscle and fat as the density scale."""
VBMD_CLASS = Code("VBMDCLASS", SCHEME, "Class of mean vBMD")
CLASSES = {
    "normal": Code("NORMAL", SCHEME, "Normal (above 120 mg/cm3)"),
    "low_bone_mass": Code("LOWMASS", SCHEME, "Low bone mass (80 to 120 mg/cm3)"),
    "osteoporosis_range": Code("OPRANGE", SCHEME, "Range of osteoporosis (below 80 mg/cm3)"),
    None: Code("NOTMEASURED", SCHEME, "Not measured"),
}
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
VOLUME = Code("118565006", "SCT", "Volume")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MEDIAN = Code("373099004", "SCT", "Median")
VERTEBRA = Code("51282000", "SCT", "Vertebra")
HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MM3 = Code("mm3", "UCUM", "cubic millimeter")
MG_CM3 = Code("mg/cm3", "UCUM", "mg/cm3")
NO_UNIT = Code("1", "UCUM", "no units")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


def write_dicom_sr(path: Path, record: Mapping[str, Any], sources: Sequence[Path] | SourceSeries, seg: Path | None) -> None:
    """Write a record as one Comprehensive 3D SR of the study that was measured.

    record: content of measurement.json. sources: the measured series, or its files. seg: the DICOM Segmentation of the same
    measurement (``write_dicom_seg``); its segments are referred to; None leaves the references to the slices. A refused
    study gives a report too: without a mean, with the reasons. The document is VERIFIED, and names the reader, only when
    the record holds an accepting review. The file appears whole or not at all.

    Raises DicomResultError when the sources cannot be referred to or highdicom is missing; OSError when the file cannot be
    written.
    """
    source = sources if isinstance(sources, SourceSeries) else read_source(sources)
    segments = stored_segments(seg) if seg else {}
    document = _document(record, source, segments, _segmentation_header(seg))
    with whole_file(Path(path)) as aside:
        document.save_as(aside)


def _segmentation_header(seg: Path | None) -> list[Dataset]:
    import pydicom

    return [pydicom.dcmread(seg, stop_before_pixels=True)] if seg else []


def _document(record: Mapping[str, Any], source: SourceSeries, segments: Mapping[str, StoredSegment],
              segmentation: list[Dataset]) -> Dataset:
    from highdicom.sr import Comprehensive3DSR

    review = _accepted(record)
    uid = content_uid("report", __version__, source.sop_uids, [str(header.SOPInstanceUID) for header in segmentation],
                      _said(record))
    document = Comprehensive3DSR(
        [*source.headers, *segmentation], _content(record, source, segments)[0],
        series_instance_uid=content_uid("series", uid), series_number=SERIES_NUMBER, sop_instance_uid=uid,
        instance_number=1, manufacturer=MANUFACTURER,
        is_complete=True, is_final=review is not None, is_verified=review is not None,
        verifying_observer_name=person_name(review["reader"]) if review else None,
        verifying_organization=_institution(source) if review else None,
        manufacturer_model_name="LowDoseBMD", software_versions=__version__, series_description=SERIES_DESCRIPTION)
    if review:
        document.VerifyingObserverSequence[0].VerificationDateTime = dicom_time(review["signed_at"])
    finish(document)
    return document


def _said(record: Mapping[str, Any]) -> str:
    """All that makes one report of a series another one: not how long it took, nor on which computer."""
    said = {name: value for name, value in record.items() if name not in ("seconds", "software", "acquisition")}
    return json.dumps([said, algorithm_parameters(record)], sort_keys=True)


def _accepted(record: Mapping[str, Any]) -> Mapping[str, str] | None:
    review = record.get("review")
    return review if review and review["decision"] == ACCEPTED else None


def _institution(source: SourceSeries) -> str:
    """Of the scanner: Verifying Organization may not be empty, and who signed here works where the scan was read."""
    return str(source.headers[0].get("InstitutionName") or "").strip() or "not stated"


def _content(record: Mapping[str, Any], source: SourceSeries,
             segments: Mapping[str, StoredSegment]) -> highdicom.sr.MeasurementReport:
    from highdicom.sr import ContainerContentItem, ContentSequence, MeasurementReport, TextContentItem
    from pydicom.sr.codedict import codes

    groups = [_mean_group(record), *_level_groups(record, source, segments), *_tissue_groups(record, segments)]
    report = MeasurementReport(_observers(record), codes.cid100.CTUnspecifiedBodyRegion, groups)
    remarks = ContainerContentItem(concept(QUALITATIVE_EVALUATIONS), relationship_type="CONTAINS")
    remarks.ContentSequence = ContentSequence(
        [TextContentItem(concept(COMMENT), sentence, relationship_type="CONTAINS") for sentence in sentences(record)])
    report[0].ContentSequence.append(remarks)
    return report


def _observers(record: Mapping[str, Any]) -> highdicom.sr.ObservationContext:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
        PersonObserverIdentifyingAttributes,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(_device_uid(), name="LowDoseBMD", manufacturer_name=MANUFACTURER,
                                                 model_name=f"LowDoseBMD {__version__}")
    person = None
    if review := _accepted(record):
        person = ObserverContext(codes.DCM.Person, PersonObserverIdentifyingAttributes(person_name(review["reader"])))
    return ObservationContext(person, ObserverContext(codes.DCM.Device, device))


def _device_uid() -> str:
    """The same for every report of one version: the program is the device that observed."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_DNS, f'lowdosebmd-{__version__}').int}"


def _mean_group(record: Mapping[str, Any]) -> highdicom.sr.MeasurementsAndQualitativeEvaluations:
    numbers = [*_vbmd(record, record["mean_vbmd_mg_cm3"], record["mean_vbmd_ci95"], MEAN),
               _number(P_BELOW_80, record["p_below_80"], NO_UNIT)]
    return _pooled("mean_vbmd", VERTEBRA, [f"trabecular_{name}" for name in record["mean_of"]], record, numbers,
                   classes=[_class_of(record)])


def _class_of(record: Mapping[str, Any]) -> Code:
    """The coded class; a provisional one has its own code, so that it is never read without that word."""
    found = CLASSES[record["category"]]
    if record["category"] is None or not record["category_provisional"]:
        return found
    return Code(f"{found.value}P", SCHEME, f"{found.meaning}, provisional")


def _level_groups(record: Mapping[str, Any], source: SourceSeries, segments: Mapping[str, StoredSegment]) -> list[Any]:
    return [_group(f"trabecular_{level['name']}", record,
                   [*_statistics(level), *_vbmd(record, level["vbmd_mg_cm3"], level["vbmd_ci95"])],
                   segments, _slice_at(source, level["centre_lps_mm"]))
            for level in record["levels"] if level["hu_mean"] is not None]


def _tissue_groups(record: Mapping[str, Any], segments: Mapping[str, StoredSegment]) -> list[Any]:
    """One group per tissue; a tissue pooled from two sides has a group for the whole and one for each side."""
    groups = []
    for tissue in filter(None, (record["muscle"], record["fat"])):
        names = tissue["structures"]
        if len(names) == 1:
            groups.append(_group(names[0], record, _statistics(tissue), segments))
            continue
        groups.append(_pooled("_".join(names), STRUCTURES[names[0]].type, names, record, _statistics(tissue)))
        groups += [_group(name, record, [_number(ATTENUATION, tissue["side_hu"][name], HU, MEAN)], segments)
                   for name in names]
    return groups


def _statistics(entry: Mapping[str, Any]) -> list[highdicom.sr.Measurement | None]:
    return [_number(ATTENUATION, entry["hu_mean"], HU, MEAN), _number(ATTENUATION, entry["hu_sd"], HU, STANDARD_DEVIATION),
            _number(ATTENUATION, entry["hu_median"], HU, MEDIAN), _number(VOLUME, entry["volume_mm3"], MM3)]


def _vbmd(record: Mapping[str, Any], value: float | None, ci95: Sequence[float] | None,
          derivation: Code | None = None) -> list[highdicom.sr.Measurement | None]:
    low, high = ci95 or (None, None)
    calibration = record["calibration"].get("base") or record["calibration"]
    method = OTHER_METHODS.get(calibration["kind"], METHOD)
    return [_number(VBMD, value, MG_CM3, derivation, method), _number(VBMD_LOW, low, MG_CM3),
            _number(VBMD_HIGH, high, MG_CM3)]


def _number(name: Code, value: float | None, unit: Code, derivation: Code | None = None,
            method: Code | None = None) -> highdicom.sr.Measurement | None:
    """One measurement (TID 300); None where the value is not known."""
    from highdicom.sr import Measurement

    if value is None:
        return None
    return Measurement(concept(name), value, concept(unit), derivation=concept(derivation) if derivation else None,
                       method=concept(method) if method else None)


def _group(name: str, record: Mapping[str, Any], numbers: Sequence[highdicom.sr.Measurement | None],
           segments: Mapping[str, StoredSegment], seen_on: Dataset | None = None) -> Any:
    """The measurements of one region: TID 1411 with its segment, TID 1501 with a slice when there is none."""
    from highdicom.sr import TrackingIdentifier, VolumetricROIMeasurementsAndQualitativeEvaluations

    structure = STRUCTURES[name]
    segment = segments.get(name)
    if segment is None:
        return _pooled(name, structure.type, [name], record, numbers, seen_on=seen_on)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(segment.tracking_uid, name), referenced_segment=segment.reference(),
        finding_category=concept(structure.category), finding_type=concept(structure.type), finding_sites=[_site(structure)],
        algorithm_id=_algorithm(record), measurements=[n for n in numbers if n is not None])


def _pooled(identifier: str, finding: Code, names: Sequence[str], record: Mapping[str, Any],
            numbers: Sequence[highdicom.sr.Measurement | None], classes: Sequence[Code] = (),
            seen_on: Dataset | None = None) -> highdicom.sr.MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.uid import generate_uid

    images = [SourceImageForMeasurementGroup(seen_on.SOPClassUID, seen_on.SOPInstanceUID)] if seen_on is not None else None
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(generate_uid(prefix=None), identifier), finding_type=concept(finding), source_images=images,
        finding_sites=[_site(STRUCTURES[name]) for name in names], algorithm_id=_algorithm(record),
        measurements=[n for n in numbers if n is not None],
        qualitative_evaluations=[QualitativeEvaluation(concept(VBMD_CLASS), concept(value)) for value in classes])


def _site(structure: Structure) -> highdicom.sr.FindingSite:
    from highdicom.sr import FindingSite

    modifier = concept(structure.modifier) if structure.modifier else None
    if structure.modifier in (LEFT, RIGHT):
        return FindingSite(concept(structure.type), laterality=modifier)
    return FindingSite(concept(structure.type), topographical_modifier=modifier)


def _algorithm(record: Mapping[str, Any]) -> highdicom.sr.AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification("LowDoseBMD", str(record["software"].get("version") or __version__),
                                   algorithm_parameters(record))


def _slice_at(source: SourceSeries, position_lps_mm: Sequence[float] | None) -> Dataset | None:
    """Header of the slice nearest to a position; of a multi-frame file, the file's."""
    if position_lps_mm is None:
        return None
    k = round(float(source.geometry.to_kji(position_lps_mm)[0]))
    return source.headers[0 if source.multi_frame else min(max(k, 0), len(source.headers) - 1)]


def person_name(text: str) -> str:
    """A name as typed, as a DICOM person name (PN): the whole of it as its first component."""
    plain = " ".join(text.translate(str.maketrans("\\^=", "   ")).split())
    return f"{plain[:63]}^"


def dicom_time(iso: str) -> str:
    """ISO 8601 -> DICOM date-time (DT) with its zone."""
    return datetime.fromisoformat(iso).strftime("%Y%m%d%H%M%S%z")
