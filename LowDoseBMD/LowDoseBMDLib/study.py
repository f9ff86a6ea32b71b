"""One study from its files to its results on disk."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from .anatomy import STRUCTURES
from .calibration import Calibration, TwoPointCalibration
from .calibration_match import best_match
from .check import check_ct
from .ctvolume import Acquisition, CTVolume
from .failures import is_memory, refusal_of
from .files.read import read_ct, read_labels
from .files.segmentation import load_segmentation
from .flags import Flag, Refusal, Severity
from .inference import Progress, silent
from .measurement import Measurement, measure
from .pipeline import Models, Stopwatch, open_models, propose_rois, rois_from_labels, rois_from_masks
from .record import to_dict
from .results import FAST_PICTURES, PICTURES, software, write_refused, write_results
from .rois import Rois

log = logging.getLogger(__name__)

NETWORK_MODULES = ("onnxruntime",)
PICTURE_MODULES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.patheffects")
"""Loaded while a CT is read, which leaves a core idle; they are needed later."""

AIR_BELOW_HU = -300.0
"""Lung, bowel gas and the room; fat, the lightest tissue of a region, is near -110 HU."""
MAX_AIR = 0.25
"""Share of air above which a region was not drawn on this CT; gas in a disc or beside the skin is far less."""


@dataclass(frozen=True)
class Settings:
    """How a study is measured.

    calibration: for every scan. Without it a scan takes the one of ``calibrations`` for its scanner and voltage
    (calibration_match.best_match); without that the default two-point line, uncalibrated. labels and scheme: start from a
    label map; rois: measure a segmentation file as it is; both None: the networks. detail: of pipeline.DETAILS.
    """

    erosion: str = "physical"
    engine: str = "auto"
    device: str = "auto"
    series: str | None = None
    models: Path | None = None
    calibration: Calibration | None = None
    labels: Path | None = None
    scheme: str = "totalsegmentator"
    rois: Path | None = None
    calibrations: tuple[Calibration, ...] = ()
    detail: str = "full"

    @property
    def given(self) -> bool:
        """Regions, or labels to start from, are given: no network runs."""
        return bool(self.rois or self.labels)

    def calibration_for(self, acquisition: Acquisition) -> Calibration:
        """The calibration with which a scan is measured."""
        if self.calibration is not None:
            return self.calibration
        chosen = best_match(self.calibrations, acquisition)
        return TwoPointCalibration() if chosen is None else self.calibrations[chosen]


def measure_study(source: Path | Sequence[Path], out: Path, settings: Settings = Settings(), progress: Progress = silent,
                  models: Models | None = None) -> dict[str, Any]:
    """Read, measure and write one study; returns the content of measurement.json.

    source: as of files.read.read_ct. A study that cannot be measured is a result too: its record has status ``refused`` and
    says why. models: already opened networks, for batches. Raises OSError when ``out`` cannot be written, MemoryError when
    there is not enough, and BundleError or ValueError when the settings cannot be met. A stage that fails on a scan refuses
    it (code ``internal``, logged).
    """
    watch = Stopwatch(progress)

    def read() -> CTVolume:
        with watch.stage("reading"):
            return read_ct(source, settings.series)

    return measure_from(read, source, out, settings, watch, models)


def measure_from(read: Callable[[], CTVolume], source: Path | Sequence[Path], out: Path, settings: Settings = Settings(),
                 watch: Stopwatch | None = None, models: Models | None = None) -> dict[str, Any]:
    """As measure_study, for a CT that ``read`` brings. source: where its files then lie, for results in DICOM."""
    watch = watch or Stopwatch()
    _refuse_unwritable(out)
    ahead = PICTURE_MODULES if settings.given else NETWORK_MODULES + PICTURE_MODULES
    threading.Thread(target=_import, args=(ahead,), daemon=True).start()
    try:
        ct = read()
    except Refusal as refusal:
        return _write_refused(out, refusal, Acquisition(), settings, watch)
    except (TypeError, AttributeError, LookupError, ArithmeticError, EOFError, struct.error) as error:
        # What a header may hold has no end. Its values stay out of the log: they may name the patient.
        log.error("reading failed: %s", type(error).__name__)
        refusal = Refusal("unreadable", f"The files cannot be read ({type(error).__name__}): a header holds what no reader "
                          "expects. Export the original series from the archive.")
        return _write_refused(out, refusal, Acquisition(), settings, watch)
    return measure_ct(ct, out, settings, watch, models, source if ct.acquisition.source == "dicom" else None)


def measure_ct(ct: CTVolume, out: Path, settings: Settings = Settings(), watch: Stopwatch | None = None,
               models: Models | None = None, dicom: Path | Sequence[Path] | None = None) -> dict[str, Any]:
    """As measure_study, for a CT in memory. dicom: where its series lies, or its files, for results in DICOM."""
    watch = watch or Stopwatch()
    _refuse_unwritable(out)
    networks: dict[str, str] = {}
    if not settings.given:
        with watch.stage("loading the networks"):
            models = models or open_models(settings.models, settings.engine, settings.device, settings.detail)
        networks = {**models.identities, "engine": models.bones.description}
    try:
        with watch.stage("checking"):
            flags = check_ct(ct)
        if networks:
            rois = propose_rois(ct, models, settings.erosion, watch, settings.detail)
        else:
            rois = _given_rois(ct, settings, watch)
            _refuse_in_air(ct, rois)
    except Refusal as refusal:
        return _write_refused(out, refusal, ct.acquisition, settings, watch, ct)
    except (ValueError, IndexError, RuntimeError) as error:
        if is_memory(error):  # no property of the scan: another run may have enough
            raise MemoryError(str(error)) from error
        log.exception("a stage failed")
        refusal = refusal_of(error)
        return _write_refused(out, refusal, ct.acquisition, settings, watch, ct)
    rois = replace(rois, flags=(*flags, *rois.flags))
    with watch.stage("measuring"):
        measurement = measure(ct, rois, settings.calibration_for(ct.acquisition))
    return write_results(
        out, ct, rois, measurement,
        lambda: to_dict(measurement, ct.acquisition, software(networks), _rounded(watch), detail=settings.detail), watch,
        given=settings.rois, dicom=dicom or (), pictures=PICTURES if settings.detail == "full" else FAST_PICTURES)


def _import(modules: Sequence[str]) -> None:
    """For a thread of its own, while files are read. Whoever needs a module says when it is missing.

    Nobody may wait for its end: a KeyboardInterrupt within an import of the main thread can leave Python's lock of that
    module held, for which this thread then waits for ever.
    """
    for name in modules:
        with suppress(ImportError, MemoryError):
            import_module(name)


def _refuse_unwritable(out: Path) -> None:
    """Before the work, not after it. Raises OSError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from None


def _given_rois(ct: CTVolume, settings: Settings, watch: Stopwatch) -> Rois:
    if settings.labels:
        return rois_from_labels(ct, read_labels(settings.labels, ct.geometry), settings.scheme, settings.erosion, watch)
    with watch.stage("reading regions"):
        stored = load_segmentation(settings.rois, ct.geometry)
        rois = rois_from_masks(ct, stored.masks, erosion=settings.erosion)
    flags = []
    if stored.unknown:
        flags.append(Flag("unknown_segments", Severity.INFO, "Segments with unknown names were left out: "
                                                             f"{', '.join(stored.unknown)}."))
    if stored.resampled:
        flags.append(Flag("regions_resampled", Severity.CAUTION, "The regions lie on another grid than the CT and were "
                          "moved to the nearest voxels: their borders may be off by up to a voxel. Save them on the CT's "
                          "grid."))
    return replace(rois, flags=(*rois.flags, *flags))


def _refuse_in_air(ct: CTVolume, rois: Rois) -> None:
    """Raises Refusal ``regions_elsewhere``: given regions that lie in lung or air were not drawn on this CT."""
    for name, mask in rois.masks.items():
        if STRUCTURES[name].group in ("trabecular", "muscle", "fat") and not mask.empty:
            air = float((mask.values(ct.hu) < AIR_BELOW_HU).mean())
            if air > MAX_AIR:
                raise Refusal("regions_elsewhere", f"{100 * air:.0f} % of the region {STRUCTURES[name].title!r} is air or "
                              "lung in this CT: the regions belong to another scan, or were moved. Give those that were "
                              "drawn on this CT, or correct the region.")


def _write_refused(out: Path, refusal: Refusal, acquisition: Acquisition, settings: Settings, watch: Stopwatch,
                   ct: CTVolume | None = None) -> dict[str, Any]:
    bare = Measurement("refused", (), None, None, settings.calibration_for(acquisition),
                       flags=(refusal.flag,), erosion=settings.erosion)
    figures = {}
    if ct is not None:
        from .report.figures import make_figures

        figures = make_figures(ct, Rois(ct.geometry), bare)
    record = to_dict(bare, acquisition, software({}), _rounded(watch), detail=settings.detail)
    write_refused(out, record, figures)
    return record


def _rounded(watch: Stopwatch) -> dict[str, float]:
    return {name: round(seconds, 2) for name, seconds in watch.seconds.items()}
