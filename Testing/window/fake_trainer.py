"""Stands in for ``python -m LowDoseBMDTrainerLib`` in tests of the window: keeps its arguments, and does what it is told.

``python fake_trainer.py SCRIPT -m LowDoseBMDTrainerLib COMMAND ...``: SCRIPT is a JSON object of lists of steps by command:
["say", line], ["log", event] (a line of the log of the run after ``--out``), ["sleep", seconds], ["wait stop"] (until the
file ``stop`` is in the run), ["copy", folder, to] (what the folder holds; without ``to`` to the folder after ``-o`` or
``--out``), ["exit", status]. The arguments go to ``arguments.json`` beside SCRIPT.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

script, arguments = Path(sys.argv[1]), sys.argv[4:]
script.with_name("arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
out = next((Path(value) for name, value in zip(arguments, arguments[1:], strict=False) if name in ("-o", "--out")), None)
manifest = None


def log(event: dict) -> None:
    global manifest
    from LowDoseBMDLib.manifest import Manifest
    from LowDoseBMDTrainerLib.training_log import LOG

    manifest = manifest or Manifest(out / LOG)
    manifest.append(event)


def wait_for_stop(_nothing: object = None) -> None:
    end = time.monotonic() + 120.0  # nobody is left behind by a test that failed
    while not (out / "stop").exists() and time.monotonic() < end:
        time.sleep(0.02)


STEPS = {"say": lambda line: os.write(1, f"{line}\n".encode()), "log": log, "sleep": time.sleep, "wait stop": wait_for_stop,
         "copy": lambda folder, to=None: shutil.copytree(folder, to or out, dirs_exist_ok=True), "exit": sys.exit}

for name, *argument in json.loads(script.read_text(encoding="utf-8")).get(arguments[0], []):
    STEPS[name](*argument)
