"""What the folder of a training run tells: running, ended, broken off, and what began it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from LowDoseBMDLib.manifest import Manifest
from LowDoseBMDTrainerLib.runs import COMMAND, Runs, RunState, command_of, free_name, task_of, write_command
from LowDoseBMDTrainerLib.training_log import BEST, LOG, RECIPE

START = {"event": "start", "task": "keypoints", "steps": 10, "start_step": 0, "device": "cpu", "cases": {}}


@pytest.fixture
def a_folder(tmp_path: Path) -> Path:
    """A run that has begun, in a folder of runs."""
    folder = tmp_path / "runs" / "one"
    write_command(folder, ["train", "site ü", "--seed", "7"])
    return folder


def state_of(folder: Path) -> RunState:
    run, = Runs(folder.parent).read()
    return run.state


def test_a_run_is_running_as_long_as_a_process_holds_its_log(a_folder: Path) -> None:
    manifest = Manifest(a_folder / LOG)
    manifest.append(START)
    assert state_of(a_folder) is RunState.RUNNING
    manifest.close()
    assert state_of(a_folder) is RunState.INTERRUPTED


@pytest.mark.parametrize(("last", "state"), [
    ({"event": "end", "reason": "finished", "step": 10}, RunState.FINISHED),
    ({"event": "end", "reason": "early stop", "step": 10}, RunState.EARLY_STOP),
    ({"event": "end", "reason": "cancelled", "step": 5}, RunState.CANCELLED),
    ({"event": "failed", "message": "the disk is full"}, RunState.FAILED),
    ({"event": "end", "reason": "of a later version", "step": 5}, RunState.INTERRUPTED)])
def test_how_it_ended_is_what_the_log_says(a_folder: Path, last: dict, state: RunState) -> None:
    (a_folder / LOG).write_text(json.dumps(START) + "\n" + json.dumps(last) + "\n", encoding="utf-8")
    run, = Runs(a_folder.parent).read()
    assert run.state is state and task_of(run) == "keypoints"
    assert run.can_go_on == (state not in (RunState.FINISHED, RunState.EARLY_STOP))


def test_only_what_changed_is_read_again(a_folder: Path) -> None:
    runs = Runs(a_folder.parent)
    first, = runs.read()
    assert runs.read()[0] is first and not first.has_best
    (a_folder / BEST).write_bytes(b"weights")
    assert runs.read()[0].has_best


def test_what_began_it_is_kept_and_a_damaged_note_of_it_is_no_command(a_folder: Path) -> None:
    assert command_of(a_folder) == ("train", "site ü", "--seed", "7")
    (a_folder / COMMAND).write_text("{", encoding="utf-8")
    run, = Runs(a_folder.parent).read()
    assert run.command == () and not run.can_go_on


def test_the_task_is_known_before_the_log_begins(a_folder: Path) -> None:
    assert task_of(Runs(a_folder.parent).read()[0]) == ""
    (a_folder / RECIPE).write_text(json.dumps({"recipe": {"task": "bodies"}}), encoding="utf-8")
    assert task_of(Runs(a_folder.parent).read()[0]) == "bodies"


def test_names_are_such_as_folders_may_have_and_taken_ones_get_a_number(a_folder: Path) -> None:
    home = a_folder.parent
    assert free_name(home, "two") == "two" and free_name(home, "one") == "one-2"
    assert free_name(home, " first / try ") == "first-try" and free_name(home, "///") == "run"
