"""What a case costs an annotator: seconds, and what had to be changed in what the model drew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from LowDoseBMDLib.rois import NO_VOXELS, Mask

from .cases import Case, Effort, Labels, Status, Writing, read_history, read_proposal
from .raters import disagreement
from .scores import cut_to_both


def effort_between(proposal: Labels | None, final: Labels, seconds: float) -> Effort:
    """What it took to come from the model's proposal to the final labels.

    changed_voxels: voxels of the CT at which some structure was added, removed or renamed. dice: of all structures
    together, 2 sum |a and b| / sum (|a| + |b|). Both are None without a proposal, dice also when neither holds anything.
    seconds: of work. Raises ValueError when the two do not lie on one grid.
    """
    if proposal is None:
        return Effort(seconds)
    if not proposal.geometry.same_grid(final.geometry):
        raise ValueError(f"the proposal lies on a grid of {proposal.geometry.shape_kji} voxels, the labels on one of "
                         f"{final.geometry.shape_kji}; draw on the CT that the proposal was made for")
    pairs = _pairs(proposal, final)
    shared = sum(np.count_nonzero(np.logical_and(*cut_to_both(*pair))) for pair in pairs)
    total = sum(np.count_nonzero(mask.voxels) for pair in pairs for mask in pair)
    return Effort(seconds, int(np.count_nonzero(disagreement(pairs).voxels)), 2.0 * shared / total if total else None)


def _pairs(proposal: Labels, final: Labels) -> list[tuple[Mask, Mask]]:
    return [(proposal.masks.get(name, NO_VOXELS), final.masks.get(name, NO_VOXELS))
            for name in {**proposal.masks, **final.masks}]


def complete(writing: Writing, final: Labels, seconds: float = 0.0) -> Effort:
    """Save the final labels of a case, say that it is completed and record what it cost.

    seconds: of work since the case was opened; they are added to those of earlier sittings.
    """
    writing.save(final)
    effort = effort_between(read_proposal(writing.case), final, writing.case.effort.seconds + seconds)
    writing.record(effort=effort)
    writing.set_status(Status.COMPLETED)
    return effort


RECENT = 5
"""Cases over which the curve of minutes runs."""


@dataclass(frozen=True)
class Cost:
    """One completed case. when: ISO 8601, UTC."""

    case: str
    when: str
    annotator: str
    effort: Effort


def costs(cases: Iterable[Case]) -> tuple[Cost, ...]:
    """What the completed cases of a project have cost, in the order in which they were completed; those of which nothing
    was recorded, because they came with their labels, are left out."""
    found = [Cost(case.name, _completed_at(case), case.annotator, case.effort) for case in cases
             if case.status is Status.COMPLETED and not case.problem and case.effort != Effort()]
    return tuple(sorted(found, key=lambda cost: (cost.when, cost.case)))


def _completed_at(case: Case) -> str:
    times = [entry["time"] for entry in read_history(case)
             if entry.get("what") == "status" and entry.get("status") == Status.COMPLETED]
    return times[-1] if times else case.changed


def trend(found: Sequence[Cost]) -> tuple[float, float] | None:
    """Mean seconds of the first and of the last third of the cases; None for fewer than six."""
    third = len(found) // 3
    if third < 2:
        return None
    return fmean(cost.effort.seconds for cost in found[:third]), fmean(cost.effort.seconds for cost in found[-third:])


def sentence(found: Sequence[Cost]) -> str:
    """How many cases, how long they took, and whether they take less time by now."""
    if not found:
        return "No completed case has a time yet: it is recorded when a case is completed in the window."
    mean = fmean(cost.effort.seconds for cost in found) / 60
    text = f"{len(found)} completed, {mean:.1f} minutes on average"
    both = trend(found)
    if both is None:
        return f"{text}. With six or more, the first are compared with the last."
    before, now = (seconds / 60 for seconds in both)
    change = "" if before == 0 else f" ({100 * (now - before) / before:+.0f} %)"
    return f"{text}; the first third took {before:.1f}, the last {now:.1f}{change}."


COLUMNS: tuple[str, ...] = ("case", "completed", "annotator", "seconds", "changed_voxels", "dice_with_proposal")
"""Of effort.csv, one row a completed case, in the order in which they were completed."""


def table(found: Sequence[Cost]) -> list[list[object]]:
    """The rows of effort.csv."""
    return [[cost.case, cost.when, cost.annotator, round(cost.effort.seconds, 1), cost.effort.changed_voxels,
             None if cost.effort.dice is None else round(cost.effort.dice, 4)] for cost in found]


def draw_curve(found: Sequence[Cost]) -> bytes:
    """PNG: minutes of each case and their running mean over five, and Dice between proposal and final labels."""
    from LowDoseBMDLib.report.agreement_figures import as_file
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.2), facecolor="white", layout="constrained")
    time, dice = figure.subplots(2, 1, sharex=True)
    place = np.arange(1, len(found) + 1)
    minutes = np.array([cost.effort.seconds / 60 for cost in found])
    shared = np.array([np.nan if cost.effort.dice is None else cost.effort.dice for cost in found])
    for axes, values, colour in ((time, minutes, "#0072b2"), (dice, shared, "#d55e00")):
        axes.plot(place, values, "o", color=colour, markersize=4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    recent = [minutes[max(0, n - RECENT):n].mean() for n in place]
    time.plot(place, recent, color="#0072b2", linewidth=1.2, label=f"mean of the last {RECENT}")
    time.legend(fontsize=8, frameon=False)
    time.set_ylim(bottom=0)
    time.set_ylabel("minutes", fontsize=9)
    dice.set_ylim(top=1.005)
    dice.set_ylabel("Dice, proposal\nto final labels", fontsize=9)
    dice.set_xlabel("completed cases, in their order", fontsize=9)
    dice.xaxis.get_major_locator().set_params(integer=True)
    return as_file(figure, "png")
