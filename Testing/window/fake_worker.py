"""Stands in for the worker in tests of the window: says and does what a file named ``script.json`` beside it says.

``python fake_worker.py SCRIPT JOB``: SCRIPT is a JSON list of steps: ["say", line], ["sleep", seconds], ["exit", status],
["kill", signal number], ["child", path]: start a child that sleeps and write its process id to path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def child(path: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
    Path(path).write_text(str(process.pid), encoding="utf-8")


STEPS = {
    "say": lambda line: os.write(1, f"{line}\n".encode()),
    "log": lambda line: Path(sys.argv[2]).with_name("worker.log").write_text(line, encoding="utf-8"),
    "sleep": time.sleep,
    "exit": sys.exit,
    "kill": lambda number: os.kill(os.getpid(), number),
    "child": child,
}

for name, argument in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    STEPS[name](argument)
