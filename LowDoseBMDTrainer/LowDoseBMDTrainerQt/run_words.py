"""Cases and training runs in words: what a person reads of them in the section Train."""

from __future__ import annotations

import time
from collections.abc import Sequence

from LowDoseBMDQt.models_box import networkName
from LowDoseBMDTrainerLib.cases import ANATOMY, Case, Status
from LowDoseBMDTrainerLib.runs import Run, RunState, task_of
from LowDoseBMDTrainerLib.training_log import LOG, TrainingLog
from slicer.i18n import tr as _

from .section import durationText, warningHtml

FEW_CASES = 5
"""Fewer completed cases than these can improve a network, not make one. Judgement."""


def completed(cases: Sequence[Case]) -> list[Case]:
    """The cases that networks learn from."""
    return [case for case in cases if case.status is Status.COMPLETED and not case.problem]


def hasAnatomy(case: Case) -> bool:
    """Whether a case came with a complete label map, from which synthetic CTs can be drawn."""
    return not case.problem and (case.folder / ANATOMY).exists()


def dataHtml(cases: Sequence[Case]) -> str:
    """What there is to learn from, and whether it is little; rich text."""
    done = completed(cases)
    lines = [_("<b>{cases} completed cases</b> of {patients} patients").format(
        cases=len(done), patients=len({case.patient for case in done}))]
    synthetic = sum(case.synthetic for case in done)
    if synthetic:
        lines[0] += " " + _("({count} synthetic)").format(count=synthetic)
    maps = sum(map(hasAnatomy, cases))
    if maps:
        lines[0] += " · " + _("label maps for synthetic CTs: {count}").format(count=maps)
    if 0 < len(done) < FEW_CASES:
        lines.append(warningHtml(_("Few cases: begin with LowDoseBMD's own network, and take no score for proof.")))
    return "<br>".join(lines)


def runRow(run: Run) -> list[str]:
    """Texts of a run's row, by column."""
    log, task = run.log, task_of(run)
    step = f"{log.step}/{log.steps}" if log.steps else "-"
    return [run.name, networkName(task) or "-", stateText(run.state), step, scoreText(log)]


def stateText(state: RunState) -> str:
    """The state of a run in a word or two."""
    return {RunState.RUNNING: _("running"), RunState.FINISHED: _("finished"), RunState.EARLY_STOP: _("ended early"),
            RunState.CANCELLED: _("cancelled"), RunState.FAILED: _("failed"),
            RunState.INTERRUPTED: _("interrupted")}[state]


def scoreText(log: TrainingLog) -> str:
    """The best score so far with its unit; a hyphen before the first validation."""
    best = log.best
    if best is None:
        return "-"
    return _("{mm:.1f} mm").format(mm=-best.score) if best.keypoint_mm else _("Dice {dice:.2f}").format(dice=best.score)


def runTip(run: Run) -> str:
    """What the table has no room for."""
    log, lines = run.log, [run.name, stateText(run.state)]
    if log.failed:
        lines.append(log.failed)
    if log.training:
        lines.append(_("learns from {names}").format(names=", ".join(log.training)))
        lines.append(_("held out: {names}").format(names=", ".join(log.validation_cases) or _("nothing")))
    if log.device:
        lines.append(_("on {device}").format(device=log.device))
    return "\n".join(lines)


def progressText(run: Run | None) -> str:
    """How far a run is: step, time left, loss, best score; before the first step what it will take."""
    if run is None:
        return _("starting")
    log = run.log
    if not log.points:
        if log.expected_seconds is None:
            return _("reading the cases and timing a few steps")
        return _("{steps} steps · about {time} · {memory:.1f} GB of memory").format(
            steps=log.steps, time=durationText(log.expected_seconds), memory=log.expected_memory_gb or 0.0)
    parts = [_("step {step} of {steps}").format(step=log.step, steps=log.steps),
             _("{time} left").format(time=durationText(leftSeconds(run))),
             _("loss {loss:.3f}").format(loss=log.points[-1].loss)]
    if log.best is not None:
        parts.append(_("best {score} at step {step}").format(score=scoreText(log), step=log.best.step))
    return " · ".join(parts)


def leftSeconds(run: Run) -> float:
    """Time left: as of the last line of the log, less what has passed since."""
    try:
        since = time.time() - (run.folder / LOG).stat().st_mtime
    except OSError:
        since = 0.0
    return max(0.0, (run.log.left_seconds or 0.0) - max(0.0, since))
