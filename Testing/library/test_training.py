"""A run can be killed, resumed, shared and stopped without changing what it comes to, and says how it goes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from LowDoseBMDLib.bundle import GRAPH, WEIGHTS, save_metadata
from LowDoseBMDTrainerLib import datasets
from LowDoseBMDTrainerLib.export import bundle_of
from LowDoseBMDTrainerLib.synthesis import KEYPOINT_LEVELS
from LowDoseBMDTrainerLib.training import Conditions, train_run
from LowDoseBMDTrainerLib.training_expectation import expectation, needed_gb, refuse_without_memory, schedule
from LowDoseBMDTrainerLib.training_log import (
    BEST,
    CANCELLED,
    DONE,
    EARLY_STOP,
    FINISHED,
    LAST,
    LOG,
    RECIPE,
    STOP,
    ask_to_stop,
    log_of,
    read_log,
)
from LowDoseBMDTrainerLib.training_parallel import Ranks
from LowDoseBMDTrainerLib.training_recipe import Recipe, build, chosen_samples, learning_rate, recipe_of, record_of
from LowDoseBMDTrainerLib.training_start import starting_point
from LowDoseBMDTrainerLib.training_step import load_trained, new_state, train_step
from safetensors.torch import save_file
from tiny_training import a_recipe, some_data

ALONE = Conditions(workers=0)


@pytest.fixture(scope="module")
def an_unbroken_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    assert train_run(run, a_recipe(), some_data(), conditions=ALONE) == FINISHED
    return run


def curve(run: Path) -> tuple:
    """What the log says, without what the clock says."""
    log = read_log(run)
    return [(point.step, point.loss, point.learning_rate) for point in log.points], log.validations, log.reason


def tensors(record: object) -> list[torch.Tensor]:
    if isinstance(record, torch.Tensor):
        return [record]
    parts = record.values() if isinstance(record, dict) else record if isinstance(record, (list, tuple)) else []
    return [tensor for part in parts for tensor in tensors(part)]


def same_bits(a: Path, b: Path, name: str = LAST) -> bool:
    """Network, running mean and the optimiser's moments of two runs are equal."""
    both = [tensors(torch.load(run / name, weights_only=True)) for run in (a, b)]
    return len(both[0]) == len(both[1]) > 10 and all(map(torch.equal, *both))


# --- the folder and the log ---------------------------------------------------------------------------------

def test_a_run_leaves_its_recipe_its_log_its_best_network_and_why_it_ended(an_unbroken_run):
    log = read_log(an_unbroken_run)
    assert (log.task, log.steps, log.reason, log.failed) == ("bones", 12, FINISHED, "")
    assert log.training == ("0000", "0001", "0002") and log.validation_cases == ("0003",)
    assert [point.step for point in log.points] == list(range(1, 13))
    assert [entry.step for entry in log.validations] == [5, 10, 12]
    assert set(log.validations[0].dice) == {"vertebrae", "clavicles", "scapulae", "ribs", "other bone"}
    assert log.expected_memory_gb > 0.1 and log.expected_seconds > 0
    done = json.loads((an_unbroken_run / DONE).read_text())
    assert done["reason"] == FINISHED and done["steps"] == 12
    assert (done["best_step"], done["best_score"]) == (log.best.step, log.best.score)
    trained = load_trained(an_unbroken_run / BEST)
    assert (trained.step, trained.score) == (log.best.step, log.best.score)
    build(trained.recipe).load_state_dict(trained.weights)


def test_the_loss_falls(an_unbroken_run):
    losses = [point.loss for point in read_log(an_unbroken_run).points]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


def test_a_log_that_was_interrupted_is_read_as_one_curve():
    start = {"event": "start", "task": "bones", "steps": 9, "start_step": 0, "cases": {"training": ["1"], "validation": []},
             "device": "cpu", "expected_seconds": 1.0, "expected_memory_gb": 1.0}
    point = {"event": "step", "step": 1, "loss": 3.0, "seconds": 1.0, "left_seconds": 8.0, "learning_rate": 0.1}
    lines = [start, point, {**point, "step": 2, "loss": 2.5}, {**point, "step": 3, "loss": 2.0},
             {"event": "failed", "message": "disk full"},
             {**start, "start_step": 2}, {**point, "step": 3, "loss": 1.5}, {"event": "later versions"}]
    log = log_of(lines)
    assert [(point.step, point.loss) for point in log.points] == [(1, 3.0), (2, 2.5), (3, 1.5)]
    assert log.failed == "" and log.reason == "" and log.left_seconds == 8.0
    assert log_of(lines[:5]).failed == "disk full"


def test_there_is_no_log_before_a_run(tmp_path):
    assert read_log(tmp_path).steps == 0


# --- going on after a kill ----------------------------------------------------------------------------------

def _child(run: Path, moment: str, marker: Path) -> None:
    """Train with a checkpoint after every step; at the moment make the marker and wait to be killed."""
    from LowDoseBMDTrainerLib import training

    def pause() -> None:
        marker.touch()
        time.sleep(600)

    def at(count: int, really: Callable, after: bool = False) -> Callable:
        """``really``, which pauses at its call number ``count``."""
        def call(*args, **kwargs):
            calls.append(1)
            done = really(*args, **kwargs) if after or len(calls) < count else None
            if len(calls) == count:
                pause()
            return done if after or done is not None else really(*args, **kwargs)

        calls: list[int] = []
        return call

    def half_a_file(record: object, path: Path) -> None:
        Path(path).write_bytes(b"half a checkpoint")
        pause()

    changes = {}
    if moment == "while a sample is drawn":
        datasets.draw_from_case = at(4, datasets.draw_from_case)
    elif moment == "between gradient and step":
        torch.nn.utils.clip_grad_norm_ = at(2, torch.nn.utils.clip_grad_norm_)
    elif moment == "after a step, before its checkpoint":
        training.save_state = at(3, training.save_state)
    elif moment == "while a checkpoint is written":
        torch.save = half_a_file
    elif moment == "between the best network and the checkpoint":
        training.save_best = at(1, training.save_best, after=True)
    elif moment == "between two steps":
        changes["wanted"] = at(2, lambda: True)
    elif moment == "after the last checkpoint":
        training._Course.end = at(1, training._Course.end)
    train_run(run, a_recipe(), some_data(), conditions=Conditions(workers=0, save_seconds=0.0, **changes))


MOMENTS = ("after a step, before its checkpoint", "while a sample is drawn", "between two steps",
           "while a checkpoint is written", "between gradient and step", "between the best network and the checkpoint",
           "after the last checkpoint")


@pytest.fixture(scope="module")
def children():
    """Real processes that start quickly: their server has torch and MONAI in memory, and no threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield _ready_context()


def _ready_context() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["LowDoseBMDTrainerLib.training", "monai.losses", "monai.networks.nets",
                                    "monai.transforms", "monai.inferers", "torch._dynamo"])
    return context


def _wait_for(path: Path, child: multiprocessing.Process) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until and child.is_alive(), f"{path.name}: the process came to an end before it"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_any_moment_it_comes_to_the_same_bits(an_unbroken_run, children, tmp_path):
    """One run is killed by SIGKILL at each of the moments, one after the other, and goes on each time."""
    run = tmp_path / "run"
    for n, moment in enumerate(MOMENTS):
        child = children.Process(target=_child, args=(run, moment, tmp_path / str(n)))
        child.start()
        _wait_for(tmp_path / str(n), child)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL and not (run / DONE).exists()
    assert train_run(run, a_recipe(), some_data(), conditions=ALONE) == FINISHED
    assert sum(line.count('"event": "start"') for line in (run / LOG).read_text().splitlines()) == len(MOMENTS) + 1
    assert curve(run) == curve(an_unbroken_run)
    assert same_bits(run, an_unbroken_run) and same_bits(run, an_unbroken_run, BEST)
    assert {path.name for path in run.iterdir()} == {RECIPE, LOG, f".{LOG}.lock", LAST, BEST, DONE}, "left-overs of kills"


def test_a_failed_write_of_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    """The disk is full at the second checkpoint: the run fails with that message, and goes on from the first."""
    run, saves = tmp_path / "run", []
    really = torch.save

    def save(record: object, path: Path) -> None:
        saves.append(path)
        if len(saves) == 2:
            Path(path).write_bytes(b"half a checkpoint")
            raise OSError(28, "No space left on device")
        really(record, path)

    monkeypatch.setattr(torch, "save", save)
    conditions = Conditions(workers=0, save_seconds=0.0)
    recipe = a_recipe(steps=4)
    with pytest.raises(OSError, match="No space left"):
        train_run(run, recipe, some_data(), conditions=conditions)
    assert "No space left" in read_log(run).failed
    assert torch.load(run / LAST, weights_only=True)["step"] == 1
    assert train_run(run, recipe, some_data(), conditions=conditions) == FINISHED
    assert read_log(run).failed == ""


def test_a_loss_that_is_no_number_ends_the_run_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="lower --learning-rate than 1e"):
        train_run(tmp_path, a_recipe(learning_rate=1e30), some_data(), conditions=ALONE)
    assert "lower --learning-rate" in read_log(tmp_path).failed


def test_it_goes_on_only_with_what_it_began_with(an_unbroken_run, tmp_path):
    with pytest.raises(ValueError, match="seed 1, not 2"):
        run = _stopped_run(tmp_path)
        train_run(run, a_recipe(seed=2), some_data(), conditions=ALONE)
    with pytest.raises(ValueError, match="data .* have changed .* 0003"):
        train_run(run, a_recipe(), some_data(training=4), conditions=ALONE)
    assert "have changed" in read_log(run).failed


def test_two_processes_cannot_train_in_one_folder(children, tmp_path):
    run = tmp_path / "run"
    child = children.Process(target=_child, args=(run, "between two steps", tmp_path / "marker"))
    child.start()
    try:
        _wait_for(tmp_path / "marker", child)
        with pytest.raises(ValueError, match=f"another run writes .*process {child.pid}"):
            train_run(run, a_recipe(), some_data(), conditions=ALONE)
    finally:
        child.kill()
        child.join()


# --- stopping -----------------------------------------------------------------------------------------------

def _stopped_run(tmp_path: Path, when: int = 7) -> Path:
    run = tmp_path / "run"

    def report(event: dict) -> None:
        if event.get("step") == when:
            ask_to_stop(run)

    assert train_run(run, a_recipe(), some_data(), conditions=Conditions(workers=0, report=report)) == CANCELLED
    return run


def test_the_stop_file_ends_a_run_which_keeps_its_best_and_can_go_on(an_unbroken_run, tmp_path):
    run = _stopped_run(tmp_path)
    assert read_log(run).reason == CANCELLED and read_log(run).step == 7
    assert load_trained(run / BEST).step == json.loads((run / DONE).read_text())["best_step"] == 5
    assert train_run(run, a_recipe(), some_data(), conditions=ALONE) == FINISHED
    assert not (run / STOP).exists()
    assert curve(run) == curve(an_unbroken_run) and same_bits(run, an_unbroken_run)


def test_a_run_that_is_stopped_before_its_first_validation_has_a_network_too(tmp_path):
    run = _stopped_run(tmp_path, when=2)
    trained = load_trained(run / BEST)
    assert (trained.step, trained.score) == (2, None)


def test_where_nothing_is_held_out_the_newest_network_is_kept(tmp_path):
    """Its score is that of its own training data: with steps as small as these it never becomes better."""
    recipe = a_recipe(learning_rate=1e-12, patience=1, validate_every=1, steps=4)
    alone = replace(some_data(), validation=())
    assert train_run(tmp_path, recipe, alone, conditions=ALONE) == FINISHED
    assert load_trained(tmp_path / BEST).step == read_log(tmp_path).best.step == 4


def test_no_better_score_ends_a_run(tmp_path):
    recipe = a_recipe(learning_rate=1e-12, patience=2, validate_every=1)
    assert train_run(tmp_path, recipe, some_data(), conditions=ALONE) == EARLY_STOP
    log = read_log(tmp_path)
    assert len(log.validations) == log.step == log.best.step + 2
    assert train_run(tmp_path, recipe, some_data(), conditions=ALONE) == EARLY_STOP, "it has ended, and is not trained again"


def test_the_systems_request_to_end_keeps_the_best(tmp_path):
    from LowDoseBMDTrainerLib.cli_train import _stopped_by_signals

    with _stopped_by_signals() as wanted:
        assert wanted()
        os.kill(os.getpid(), signal.SIGTERM)
        assert train_run(tmp_path, a_recipe(), some_data(), conditions=Conditions(0, wanted)) == CANCELLED
    assert (tmp_path / BEST).exists() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- what does not change the result ------------------------------------------------------------------------

def test_the_number_of_workers_changes_nothing(an_unbroken_run, tmp_path):
    train_run(tmp_path, a_recipe(), some_data(), conditions=Conditions(workers=2))
    assert curve(tmp_path) == curve(an_unbroken_run) and same_bits(tmp_path, an_unbroken_run)


def test_another_seed_is_another_run(an_unbroken_run, tmp_path):
    train_run(tmp_path, a_recipe(seed=2, steps=2), some_data(), conditions=ALONE)
    assert read_log(tmp_path).points[0].loss != read_log(an_unbroken_run).points[0].loss


def test_the_pool_is_a_function_of_seed_and_step_and_streams_share_no_sample():
    recipe = a_recipe(batch=4, fresh=1, pool=10, streams=2)
    for step in (0, 3, 50):
        own, other = (chosen_samples(recipe, step, stream) for stream in (0, 1))
        assert own == chosen_samples(recipe, step, 0) and own[0] == 2 * step, "its newest comes first"
        assert all(n % 2 == 0 and 2 * (step - 9) <= n <= 2 * step for n in own)
        assert not set(own) & set(other)
    assert len({tuple(chosen_samples(recipe, step, 0)) for step in range(20, 40)}) == 20


def test_the_learning_rate_depends_on_the_step_alone():
    recipe = Recipe("bones", steps=1000, learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.05) and max(rates) == pytest.approx(1.0, abs=0.01) and rates[-1] < 0.011
    assert rates[500] == pytest.approx(0.505, abs=0.01), "half a cosine between 1 and 0.01"
    assert rates == [learning_rate(replace(recipe, minutes=9.0), step) for step in range(1000)]


def test_a_recipe_survives_its_file():
    recipe = a_recipe(folds=3, fold=1)
    assert recipe_of(json.loads(json.dumps(record_of(recipe) | {"later": 1}))) == recipe


def test_samples_drawn_ahead_are_the_same_and_so_is_what_goes_wrong():
    def samples():
        for n in range(7):
            yield n, torch.full((1, 2), float(n)), torch.zeros(1), torch.ones(1, dtype=torch.bool)
        raise ValueError("person 7 cannot be drawn")

    drawn = datasets.drawn_ahead(samples(), None)
    for n in range(7):
        number, image, *_ = next(drawn)
        assert (number, float(image.sum())) == (n, 2.0 * n)
    with pytest.raises(ValueError, match="person 7"):
        next(drawn)
    assert [n for n, *_ in datasets.drawn_ahead(iter([(3, *[torch.zeros(1)] * 3)]), None)] == [3]


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"steps": 0}, "steps 0"), ({"fresh": 3}, "fresh 3"), ({"folds": 3, "fold": 3}, "fold 3 of 3"),
    ({"shape_kji": (20, 16, 16)}, "multiples of 16"),
    ({"shape_kji": (16, 16, 16), "channels": (4, 4, 4, 4, 4)}, r"of 32 at least")])
def test_a_recipe_that_cannot_be_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        a_recipe(**changes)


# --- what it will cost --------------------------------------------------------------------------------------

def test_what_is_expected_is_about_what_it_takes(tmp_path):
    recipe = a_recipe(steps=20, validate_every=20)
    expected = expectation(recipe, some_data(), workers=0)
    began = time.monotonic()
    train_run(tmp_path, recipe, some_data(), conditions=ALONE)
    assert expected.steps == 20 and expected.seconds < 6 * (time.monotonic() - began)
    assert read_log(tmp_path).points[-1].seconds < 6 * expected.seconds, "the machine may be busy; not by more than that"


def test_minutes_become_steps_with_room_for_the_validations():
    """Two minutes; a step takes 1 s. A validation of 10 s: every 10 steps; or every 50 at least, a fifth of the time."""
    asked = schedule(Recipe("bones", minutes=2.0, validate_every=10), 1.0, 10.0, 1.0)
    assert (asked.steps, asked.validate_every, asked.seconds) == (55, 10, 55 + 6 * 10)
    free = schedule(Recipe("bones", minutes=2.0), 1.0, 10.0, 1.0)
    assert (free.steps, free.validate_every, free.seconds) == (91, 50, 91 + 2 * 10)
    assert schedule(Recipe("bones", minutes=0.01), 1.0, 10.0, 1.0).steps == 1
    assert schedule(Recipe("bones", steps=4000), 1.0, 1.0, 1.0).validate_every == 200


def test_minutes_are_written_down_as_steps_and_hold_when_the_run_goes_on(tmp_path):
    recipe, events = a_recipe(minutes=0.1), []
    conditions = Conditions(workers=0, report=events.append, wanted=lambda: len(events) < 4)
    train_run(tmp_path, recipe, some_data(), conditions=conditions)
    steps = json.loads((tmp_path / RECIPE).read_text())["recipe"]["steps"]
    assert steps == read_log(tmp_path).steps > 1
    train_run(tmp_path, recipe, some_data(), conditions=Conditions(workers=0, report=events.append,
                                                                   wanted=lambda: len(events) < 8))
    assert read_log(tmp_path).steps == steps and events[-2]["step"] > 3


def test_memory_is_reckoned_from_the_network_and_grows_with_the_sample():
    """Another sample of 96 voxels a side costs eight times what another of 48 does."""
    def another(side: int) -> float:
        one, two = (needed_gb(Recipe("bones", batch=batch, shape_kji=(side,) * 3)) for batch in (1, 2))
        return two - one

    assert another(96) > 0.3
    assert another(96) == pytest.approx(8 * another(48), rel=0.01)


def test_too_little_memory_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("LowDoseBMDTrainerLib.training_expectation.free_gb", lambda ranks: 0.5)
    with pytest.raises(ValueError, match=r"needs about \d+\.\d GB .* 0\.5 GB are free on cpu.*--batch 1"):
        refuse_without_memory(Recipe("bones"), Ranks("cpu"))


# --- an existing network ------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", ["bones", "bodies", "keypoints"])
def test_the_embedded_networks_can_be_trained_on(task):
    recipe, weights = starting_point(Recipe(task), "embedded")
    assert recipe.start.startswith(f"{task} ") and recipe.res_units == 1
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in build(recipe).state_dict().items()}
    state = new_state(recipe, Ranks("cpu"), weights)
    for name, value in state.average.module.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, weights[name])


def test_a_network_of_other_levels_keeps_what_it_knows_of_those_that_both_find(tmp_path):
    recipe = Recipe("keypoints", channels=(4, 8), features=4)
    levels = ("L6", "L1", "T12")
    network = {name: torch.randn((3, *value.shape[1:]) if name.startswith("output.") else value.shape).half()
               for name, value in build(recipe).state_dict().items()}
    (tmp_path / GRAPH).write_bytes(b"not looked into")
    save_file(network, tmp_path / WEIGHTS)
    bundle = bundle_of(recipe, "1", folder=tmp_path)
    save_metadata(replace(bundle, outputs=levels, arguments={**bundle.arguments, "out_channels": 3}))
    begun, weights = starting_point(recipe, str(tmp_path))
    new_state(begun, Ranks("cpu"), weights)
    for name in ("output.weight", "output.bias"):
        fresh = build(recipe).state_dict()[name]
        for row, level in enumerate(KEYPOINT_LEVELS):
            kept = network[name][levels.index(level)].float() if level in levels else fresh[row]
            assert torch.equal(weights[name][row], kept), level
    assert torch.equal(weights["shallow.conv.weight"], network["shallow.conv.weight"].float())


def test_a_run_can_begin_with_another_and_keeps_its_weights_at_no_rate(an_unbroken_run, tmp_path):
    recipe, weights = starting_point(a_recipe(steps=1, learning_rate=1e-30, channels=(4, 8, 16)), str(an_unbroken_run))
    assert recipe.channels == (4, 8), "the network is the other run's"
    train_run(tmp_path, recipe, some_data(), weights=weights, conditions=ALONE)
    assert all(torch.equal(value, weights[name]) for name, value in load_trained(tmp_path / BEST).weights.items())


def test_a_network_of_another_task_is_refused(an_unbroken_run):
    with pytest.raises(ValueError, match="network for bones .* not for bodies"):
        starting_point(Recipe("bodies"), str(an_unbroken_run))
    with pytest.raises(ValueError, match="not a model bundle"):
        starting_point(Recipe("bones"), "/nowhere")


# --- several processes --------------------------------------------------------------------------------------

RANK = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from LowDoseBMDTrainerLib import datasets
from LowDoseBMDTrainerLib.training import Conditions, train_run
from LowDoseBMDTrainerLib.training_parallel import join
from LowDoseBMDTrainerLib.training_step import new_state, train_step
from tiny_training import a_recipe, some_data

out, recipe, data, drawn = Path(sys.argv[1]), a_recipe(), some_data(), []
draw = datasets.Samples.__getitem__
datasets.Samples.__getitem__ = lambda self, n: (drawn.append((self.first, n)), draw(self, n))[1]
with join("cpu") as ranks:
    both = replace(recipe, streams=2)
    state = new_state(both, ranks)
    batches = datasets.Batches(both, data.training, ranks.streams(2), 0, 0)
    train_step(state, both, batches.next(), ranks, ranks.wrap(state.network))
    gradients = [p.grad.clone() for p in state.network.parameters()]
    reason = train_run(out / "run", recipe, data, ranks, None, Conditions(workers=0, save_seconds=0.0))
    torch.save({"gradients": gradients, "world": ranks.world, "reason": reason,
                "drawn": [n for first, n in drawn if first == 0]}, out / f"rank{ranks.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_network(tmp_path):
    """torchrun and gloo: the gradient is that of one process with both streams, samples are drawn once, one of them writes,
    and one process alone can go on with the run to the same curve."""
    (tmp_path / "rank.py").write_text(RANK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0",
                "--standalone", str(tmp_path / "rank.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(torchrun, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{n}.pt", weights_only=True) for n in (0, 1)]
    assert all(rank["world"] == 2 and rank["reason"] == FINISHED for rank in ranks)
    assert ranks[0]["drawn"] and not set(ranks[0]["drawn"]) & set(ranks[1]["drawn"])
    assert all(map(torch.equal, ranks[0]["gradients"], ranks[1]["gradients"]))

    recipe, alone = a_recipe(streams=2), Ranks("cpu")
    state = new_state(recipe, alone)
    train_step(state, recipe, datasets.Batches(recipe, some_data().training, (0, 1), 0, 0).next(), alone)
    for mine, theirs in zip(state.network.parameters(), ranks[0]["gradients"], strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-4, atol=1e-6)

    log = read_log(tmp_path / "run")
    assert log.device.startswith("2 x cpu") and len(log.points) == 12 and log.reason == FINISHED
    one = tmp_path / "one"
    train_run(one, recipe, some_data(), conditions=ALONE)
    losses = [[point.loss for point in read_log(run).points] for run in (one, tmp_path / "run")]
    np.testing.assert_allclose(*losses, rtol=2e-2)
    weights = [load_trained(run / BEST).weights for run in (one, tmp_path / "run")]
    assert weights[0].keys() == weights[1].keys()


def test_streams_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="divides 3"):
        Ranks("cpu", 0, 2).streams(3)
