"""Where the samples of a training come from: annotated cases, label maps by synthesis, or both; and what is held out.

A sample is a function of the recipe's seed and the sample's number, whatever process draws it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .cases import ANATOMY, ANATOMY_NAMES, Case, Status, read_anatomy, read_image
from .people import BONE_TARGETS, TISSUES, Person, bone_targets, load_person, people_files, person_for, save_person
from .project import PROJECT_FILE, Project, open_project
from .synthesis import Task, draw_sample
from .synthesis_subject import make_subject
from .training_cases import PreparedCase, anchors, case_digest, draw_from_case, prepared_case
from .training_recipe import OUTPUTS, Recipe, chosen_samples

PREPARED = "prepared"
"""Folder of a project where cases lie as the networks see them. It can be removed: it is made anew from the cases."""

EMPTY_SHARE = 0.1
"""Share of the samples without any bone that is kept."""

VALIDATION_SAMPLES = 8
"""Synthetic samples that a network is validated on where no annotated case is held out."""

MOST_VALIDATION_CASES = 8
"""Held-out cases that the curve is drawn from; all of them are scored at the end by ``evaluate``."""

SOFT_TISSUES = 3
"""Kinds of soft tissue that a label map must name to be the anatomy of a person: synthesis derives the trunk from them."""

AHEAD = 4
"""Samples that a GPU has drawn before they are needed, so that the network seldom waits for one."""

FOR_SAMPLE, FOR_FOLDS = 1, 2
"""Parts of the seed that keep streams of chance apart."""


class Source:
    """One patient's data, of which samples are drawn. name: of the case or person. digest: changes with the data."""

    name: str
    patient: str
    digest: str
    weight: float
    synthetic: bool

    @property
    def on_cpu(self) -> bool:
        """The samples are drawn by the processor."""
        return True

    def draw(self, rng: np.random.Generator, task: Task) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image (1, K, J, I), target (K, J, I) or heatmaps (levels, K, J, I), known classes (outputs,) bool."""
        raise NotImplementedError


@dataclass(eq=False)
class CaseSource(Source):
    """An annotated case."""

    case: PreparedCase
    digest: str
    weight: float = 1.0
    synthetic = False

    def __post_init__(self) -> None:
        self.name, self.patient = self.case.name, self.case.patient
        self.known, self.anchors = torch.from_numpy(self.case.known), anchors(self.case)

    def draw(self, rng: np.random.Generator, task: Task) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return *draw_from_case(rng, self.case, task, self.anchors), self.known


@dataclass(eq=False)
class PersonSource(Source):
    """A label map by synthesis."""

    person: Person
    patient: str
    digest: str
    outputs: int
    weight: float = 1.0
    synthetic = True

    def __post_init__(self) -> None:
        self.name, self.subject = self.person.name, make_subject(self.person)
        self.known = torch.ones(self.outputs, dtype=torch.bool)
        if self.outputs == len(BONE_TARGETS) and self.person.hu is not None:
            self.known[1:] = torch.from_numpy(np.isin(np.arange(1, self.outputs), bone_targets()[self.person.bone]))

    def draw(self, rng: np.random.Generator, task: Task) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return *draw_sample(rng, self.subject, task), self.known

    @property
    def on_cpu(self) -> bool:
        return self.subject.device.type == "cpu"

    def move(self, device: str) -> None:
        """Draw on another device from now on."""
        self.subject = self.subject.to(device)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a run trains on and what it holds out. validation: empty when nothing is held out; other samples of the training
    data stand in for it then. notes: what a person should know, such as cases that were left out and why."""

    training: tuple[Source, ...]
    validation: tuple[Source, ...]
    notes: tuple[str, ...] = ()

    @property
    def mixed(self) -> bool:
        """Annotated cases and synthesis together."""
        return len({source.synthetic for source in self.training}) == 2

    def digests(self) -> dict[str, dict[str, str]]:
        """By which it is seen, when a run goes on, that its data are still the same."""
        return {"training": _digests(self.training), "validation": _digests(self.validation)}


def _digests(sources: Iterable[Source]) -> dict[str, str]:
    return {f"{source.name} (synthesis)" if source.synthetic else source.name: source.digest for source in sources}


# --- finding the data --------------------------------------------------------------------------------------

def load_data(recipe: Recipe, data: Path, people: Path | None = None, use: str = "both",
              weights: Mapping[str, float] | None = None, device: str = "cpu") -> TrainingData:
    """The data of a run.

    data: a project, or a folder of prepared people (*.npz). people: such a folder beside a project. use: ``annotated``,
    ``synthetic`` or ``both``, of what is there. weights: how often sources whose name begins so are drawn, 1 for the others.
    device: where samples are synthesised when there is nothing else; beside annotated cases the processor draws them all.
    Raises ValueError when there is nothing to train on.
    """
    sources: list[Source] = []
    notes: list[str] = []
    if (data / PROJECT_FILE).exists():
        sources, notes = project_sources(open_project(data), recipe, use)
    elif people is None:
        people = data
    else:
        open_project(data)
    if people is not None and use != "annotated":
        sources += people_sources(people, len(OUTPUTS[recipe.task]))
    for source in sources:
        source.weight = next((w for name, w in (weights or {}).items() if source.name.startswith(name)), 1.0)
    if not sources:
        raise ValueError(f"{data} has nothing to train {recipe.task} on. " + (" ".join(notes) or "Complete a case first, or "
                         "give label maps of people with --people."))
    if all(source.synthetic for source in sources):
        for source in sources:
            source.move(device)
    training, validation = divide(sources, recipe)
    if not training:
        raise ValueError(f"fold {recipe.fold} of {recipe.folds} holds out everything; use fewer folds, or none")
    if not validation:
        notes.append("nothing is held out: the score is on other samples of the training data, and flatters the network")
    return TrainingData(tuple(training), tuple(validation), tuple(notes))


def divide(sources: Sequence[Source], recipe: Recipe) -> tuple[list[Source], list[Source]]:
    """(training, validation): whole patients are held out; annotated patients alone where there are any.

    A patient's annotated case and label map are never on different sides. Label maps of held-out patients validate where
    there is no annotated case.
    """
    annotated = [source for source in sources if not source.synthetic]
    held = held_out({source.patient for source in annotated or sources}, recipe)
    training = [source for source in sources if source.patient not in held]
    validation = [source for source in annotated or sources if source.patient in held]
    return training, validation


def held_out(patients: Iterable[str], recipe: Recipe) -> set[str]:
    """The patients of the recipe's fold; none when there are no folds or only one patient."""
    names = sorted(set(patients))
    folds = min(recipe.folds, len(names))
    if folds < 2:
        return set()
    order = np.random.default_rng([recipe.seed, FOR_FOLDS]).permutation(len(names))
    return {names[n] for place, n in enumerate(order) if place % folds == recipe.fold % folds}


def project_sources(project: Project, recipe: Recipe, use: str) -> tuple[list[Source], list[str]]:
    """Completed cases of a project and what was left out, one sentence each."""
    sources: list[Source] = []
    notes: list[str] = []
    home, task = project.folder / PREPARED / recipe.task, recipe.sample
    for case in project.cases():
        if case.problem or case.status is not Status.COMPLETED:
            continue
        if use != "synthetic":
            try:
                sources.append(CaseSource(prepared_case(case, task, home), case_digest(case, task)))
            except (ValueError, OSError) as error:
                notes.append(f"left out: {error}.")
        if use != "annotated":
            try:
                sources += _anatomy(case, recipe, home)
            except (ValueError, OSError) as error:
                notes.append(f"left out of the synthesis: {error}.")
    return sources, notes


def _anatomy(case: Case, recipe: Recipe, home: Path) -> list[Source]:
    """The person of a case that came with its complete label map. Raises ValueError when it cannot be made."""
    files = [case.folder / ANATOMY, case.folder / ANATOMY_NAMES]
    if not all(file.exists() for file in files):
        return []
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files) + case.fingerprint.encode()).hexdigest()[:16]
    path = home / "people" / f"{case.name}-{digest}.npz"
    if not path.exists():
        save_person(path, _person(case, recipe.task))
    return [PersonSource(load_person(path), case.patient, digest, len(OUTPUTS[recipe.task]))]


def _person(case: Case, task: str) -> Person:
    labels, geometry, names = read_anatomy(case)
    ct = read_image(case)
    if not ct.geometry.same_grid(geometry, 0.5):
        raise ValueError(f"{case.name}: its CT and its complete label map do not lie on the same grid")
    person = person_for(task, case.name, labels, geometry, names, ct.hu)
    kinds = np.unique(person.tissue)
    if task != "bodies" and np.count_nonzero(kinds != TISSUES.index("unnamed")) < SOFT_TISSUES:
        raise ValueError(f"{case.name}: its label map names bones but hardly any organ, so no CT can be synthesised from it")
    return person


def people_sources(folder: Path, outputs: int) -> list[Source]:
    """Every prepared person of a folder. Raises ValueError when there is none."""
    people = [(load_person(path), hashlib.sha256(path.read_bytes()).hexdigest()[:16]) for path in people_files(folder)]
    return [PersonSource(person, person.name, digest, outputs) for person, digest in people]


# --- samples -----------------------------------------------------------------------------------------------

class Samples(torch.utils.data.Dataset):
    """Sample n of a run, for any n: (n, image half, target uint8 or half, known bool)."""

    def __init__(self, recipe: Recipe, sources: Sequence[Source], first: int = 0) -> None:
        self.recipe, self.sources, self.first = recipe, tuple(sources), first
        synthetic = np.array([source.synthetic for source in sources])
        share = np.array([source.weight for source in sources], float)
        if synthetic.any() and not synthetic.all():
            share[synthetic] *= recipe.synthetic_share / share[synthetic].sum()
            share[~synthetic] *= (1 - recipe.synthetic_share) / share[~synthetic].sum()
        self.share = share / share.sum()

    def __getitem__(self, n: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.recipe.seed, FOR_SAMPLE, self.first + n])
        task = self.recipe.sample
        with one_thread():
            while True:
                source = self.sources[rng.choice(len(self.sources), p=self.share)]
                image, target, known = source.draw(rng, task)
                if task.target == "keypoints" or bool((target > 0).any()) or rng.random() < EMPTY_SHARE:
                    return n, image.half(), target.half() if target.is_floating_point() else target, known


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: sums are taken in the same order in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images (N, 1, K, J, I), targets, known classes (N, outputs)."""


class Batches:
    """The batches of some streams from a step on. After an interruption the pool is drawn again, sample by sample, as it is
    needed. Where a GPU draws the samples, a thread of this process has it do so beside the steps, without workers."""

    def __init__(self, recipe: Recipe, sources: Sequence[Source], streams: Sequence[int], step: int, workers: int) -> None:
        self.recipe, self.streams, self.step = recipe, tuple(streams), step
        self.kept: dict[int, Batch] = {}
        on_cpu = all(source.on_cpu for source in sources)
        workers = workers if on_cpu else 0
        loader = torch.utils.data.DataLoader(
            Samples(recipe, sources), batch_size=None, sampler=_Order(recipe, self.streams, step), num_workers=workers,
            prefetch_factor=4 if workers else None, worker_init_fn=_start_worker)
        self.drawn = iter(loader) if on_cpu else drawn_ahead(iter(loader), torch.cuda.Stream())

    def next(self) -> list[Batch]:
        """One batch for each stream."""
        wanted = [chosen_samples(self.recipe, self.step, stream) for stream in self.streams]
        for n in [n for numbers in wanted for n in numbers if n not in self.kept]:
            if n not in self.kept:
                number, *sample = next(self.drawn)
                self.kept[int(number)] = tuple(sample)
        batches = [tuple(torch.stack(part) for part in zip(*(self.kept[n] for n in numbers), strict=True))
                   for numbers in wanted]
        self.step += 1
        oldest = oldest_sample(self.recipe, self.step)
        self.kept = {n: sample for n, sample in self.kept.items() if n >= oldest}
        return batches


Drawn = tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]


def drawn_ahead(samples: Iterator[Drawn], stream: torch.cuda.Stream | None) -> Iterator[Drawn]:
    """The same samples, AHEAD of them drawn by a thread before they are asked for. stream: of the GPU that draws them."""
    def draw() -> Drawn | None:
        with torch.cuda.stream(stream):
            sample = next(samples, None)
        if stream is not None:
            stream.synchronize()
        return sample

    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(draw) for _ in range(AHEAD))
        while (sample := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(draw))
            for part in sample[1:]:
                if part.is_cuda:  # its memory may be used again only when the stream of the steps is done with it
                    part.record_stream(torch.cuda.current_stream())
            yield sample


def oldest_sample(recipe: Recipe, step: int) -> int:
    """Samples of lower numbers are not used at ``step`` and later."""
    return max(0, (step + 1) * recipe.fresh - recipe.pool) * recipe.streams


class _Order(torch.utils.data.Sampler):
    """Numbers of samples in the order in which the batches of some streams first need them."""

    def __init__(self, recipe: Recipe, streams: Sequence[int], step: int) -> None:
        self.recipe, self.streams, self.step = recipe, streams, step

    def __iter__(self) -> Iterator[int]:
        drawn: set[int] = set()
        for step in range(self.step, self.recipe.steps):
            for stream in self.streams:
                for n in chosen_samples(self.recipe, step, stream):
                    if n not in drawn:
                        drawn.add(n)
                        yield n
            oldest = oldest_sample(self.recipe, step + 1)
            drawn = {n for n in drawn if n >= oldest}


def _start_worker(_number: int) -> None:
    """Ctrl-C and the system's request to end are for the process that trains; it ends its workers."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
