"""The commands by which the models help annotators: predraw and rank."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LowDoseBMDLib.cli_output import SOME_FAILED, UNUSABLE, progress_for, say
from LowDoseBMDLib.failures import explain
from LowDoseBMDLib.inference import DEVICES, ENGINES, Cancelled, Progress

from .cases import Case, open_for_writing, read_image
from .cli_quality import DONE, chosen_cases

if TYPE_CHECKING:
    from LowDoseBMDLib.pipeline import Models
    from LowDoseBMDLib.worker import JobProgress

    from .project import Project

CANCELLED = 3
"""Exit status when the command was asked to stop; what was done until then is kept."""


def add_assist_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands, with their options, to those of the command line."""
    predraw = commands.add_parser("predraw", help="draw cases with the models, for a person to correct")
    predraw.add_argument("--again", action="store_true", help="also over labels that are there, but never over a completed "
                         "case")
    predraw.add_argument("--other-bones", action="store_true", help="sternum, humeri, hips and sacrum too")
    predraw.add_argument("--bodies", action="store_true", help="bodies of T12, L1 and L2 too")
    predraw.add_argument("--to", type=Path, metavar="FOLDER", help="write the proposal of one case there, and leave the "
                         "case, which may be open elsewhere, as it is")
    predraw.set_defaults(run=run_predraw)
    rank = commands.add_parser("rank", help="how uncertain the models are of each case, the most uncertain first")
    rank.add_argument("--again", action="store_true", help="also of cases whose uncertainty is known")
    rank.add_argument("--seed", type=int, default=1)
    rank.set_defaults(run=run_rank)
    for command in (predraw, rank):
        command.epilog = ("exit status: 0 all done, 1 some case could not be, 2 unusable arguments, 3 stopped. With --json, "
                          "an object per line: progress (stage, fraction), case, and at the end done, failed or cancelled")
        command.add_argument("project", type=Path)
        command.add_argument("cases", nargs="*", metavar="CASE", help="these; without any, all that are not completed")
        command.add_argument("--models", metavar="MODELS", help="folder or name of a set of models, of the project or the "
                             "user (default: the product's own)")
        command.add_argument("--engine", choices=ENGINES, default="auto")
        command.add_argument("--device", choices=DEVICES, default="auto")
        command.add_argument("--json", action="store_true", help="events for programs on standard output")
        command.add_argument("--stop", type=Path, metavar="FILE", help="stop as soon as this file is there")


def run_predraw(options: argparse.Namespace) -> int:
    """Pre-draw cases one by one."""
    from .predraw import STAGE_SHARES, Wanted, predraw, predraw_case, why_not, write_result

    wanted = Wanted(options.other_bones, options.bodies)
    if options.to and len(options.cases) != 1:
        raise ValueError(f"--to {options.to} takes the proposal of one case; name that one case")

    def do(case: Case, models: Models, progress: Progress) -> str:
        if options.to:
            progress("reading the CT", 0.0)
            write_result(options.to, predraw(read_image(case), models, wanted, progress).labels)
            return f"proposal in {options.to}"
        mine = predraw_case(case, models, wanted, options.again, progress)
        return "pre-drawn" if mine else "proposal kept beside the labels that are there"

    def skip(case: Case) -> str:
        return "" if options.to else why_not(case, options.again)

    return Assistant(options, STAGE_SHARES, skip, do).run()


def run_rank(options: argparse.Namespace) -> int:
    """Measure the uncertainty of cases, then list all that wait in their order."""
    from .cases import Status
    from .predraw import ANNOTATOR
    from .project import open_project
    from .uncertainty import STAGE_SHARES, measure_uncertainty
    from .worklist import degree, waiting

    def skip(case: Case) -> str:
        if case.problem:
            return f"it cannot be read: {case.problem}"
        if case.status in (Status.COMPLETED, Status.FLAGGED):
            return f"it is {case.status}"
        return "" if case.uncertainty is None or options.again else "its uncertainty is known"

    def do(case: Case, models: Models, progress: Progress) -> str:
        progress("reading the CT", 0.0)
        found = measure_uncertainty(read_image(case), models, options.seed, progress=progress)
        with open_for_writing(case, ANNOTATOR) as writing:
            writing.record(uncertainty=found.value)
        points = ", ".join(f"{level} {mm:.0f} mm" for level, mm in found.keypoint_mm.items())
        return f"uncertainty {found.value:.2f}, {degree(found.value)} (bones {found.bones:.2f}{points and '; ' + points})"

    status = Assistant(options, STAGE_SHARES, skip, do).run()
    if not options.json and status != CANCELLED:
        say("Next, the most uncertain first:")
        for case in waiting(open_project(options.project).cases()):
            say(f"  {case.name}  {case.status:<12}  " + ("not known" if case.uncertainty is None else
                                                         f"{case.uncertainty:.2f}  {degree(case.uncertainty)}"))
    return status


@dataclass
class Assistant:
    """A command that does one thing to many cases with the models, and can be followed and stopped.

    skip: why a case is passed over, or empty. do: does it, returns what there is to say. shares: of its stages.
    """

    options: argparse.Namespace
    shares: Mapping[str, float]
    skip: Callable[[Case], str]
    do: Callable[[Case, Models, Progress], str]

    def run(self) -> int:
        """Returns the exit status; raises ValueError for unusable arguments where no program listens."""
        from .project import open_project

        with self._events() as (send, progress):
            try:
                project = open_project(self.options.project)
                cases = self._wanted(chosen_cases(project, self.options.cases), send)
                failed = self._each(project, cases, send, progress) if cases else 0
            except (Cancelled, KeyboardInterrupt):
                send("cancelled")
                return CANCELLED
            except Exception as error:
                if not self.options.json:
                    raise
                send("failed", message=explain(error))
                return UNUSABLE if isinstance(error, ValueError) else SOME_FAILED
            send("done", failed=failed)
        return SOME_FAILED if failed else DONE

    def _wanted(self, cases: Sequence[Case], send: Callable[..., None]) -> list[Case]:
        """Those that are not passed over; the others are named where they were asked for."""
        wanted = []
        for case in cases:
            why = self.skip(case)
            if not why:
                wanted.append(case)
            elif self.options.cases or case.problem:
                send("case", case=case.name, state="skipped", text=why)
        return wanted

    def _each(self, project: Project, cases: Sequence[Case], send: Callable[..., None],
              progress: Callable[[int, int, str], Progress]) -> int:
        """Number of cases that could not be done."""
        from LowDoseBMDLib.pipeline import open_models

        models = open_models(models_of(project, self.options.models), self.options.engine, self.options.device)
        failed = 0
        for number, case in enumerate(cases):
            try:
                text, state = self.do(case, models, progress(number, len(cases), case.name)), "done"
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                text, state = explain(error), "failed"
                failed += 1
            send("case", case=case.name, state=state, text=text)
        return failed

    @contextlib.contextmanager
    def _events(self) -> Iterator[tuple[Callable[..., None], Callable[[int, int, str], Progress]]]:
        """What sends an event, and what gives the progress callback of a case (number, of how many, name)."""
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            with self._for_programs() if self.options.json else contextlib.nullcontext((_tell, self._for_people)) as both:
                yield both
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextlib.contextmanager
    def _for_programs(self) -> Iterator[tuple[Callable[..., None], Callable[[int, int, str], Progress]]]:
        from LowDoseBMDLib.worker import Channel, JobProgress

        channel = Channel(sys.stdout.fileno())
        alive = threading.Thread(target=channel.end_when_unread, daemon=True)
        whole: list[JobProgress] = []

        def progress(number: int, count: int, _name: str) -> Progress:
            if not whole:
                whole.append(JobProgress(channel, self.options.stop, self.shares, count))
            whole[0].begin_part(number)
            return whole[0]

        alive.start()
        try:
            yield channel.send, progress
        finally:
            channel.over()
            alive.join()

    def _for_people(self, _number: int, _count: int, name: str) -> Progress:
        shown = progress_for(False, f"{name}: ")

        def progress(stage: str, part: float) -> None:
            if self.options.stop is not None and self.options.stop.exists():
                raise Cancelled
            shown(stage, part)

        return progress


def models_of(project: Project, chosen: str | None) -> Path | None:
    """Folder of a set of models: one of the project by its name, else as LowDoseBMD finds it; None for the product's own.

    Raises ValueError when there is none.
    """
    from LowDoseBMDLib.bundle import find_models

    if chosen is None:
        return None
    own = project.models_folder / chosen
    return own if Path(chosen).name == chosen and own.is_dir() else find_models(chosen)


def _stop(_number: int, _frame: object) -> None:
    """Once: a second signal must not interrupt the clearing away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Cancelled


def _tell(event: str, **content: Any) -> None:
    """An event in words."""
    from LowDoseBMDLib.cli_output import passing

    passing("")
    if event == "case":
        say(f"{content['case']}: {'' if content['state'] == 'done' else content['state'] + ': '}{content['text']}")
    elif event == "cancelled":
        say("Stopped, as was asked. What was done until then is kept.")
