"""A task for tests of the runner: ``python -m trying_task WHAT [FOLDER]`` ends in the way that WHAT names."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(what: str, folder: Path | None = None) -> int:
    if folder is not None:
        with (folder / "tries").open("a") as file:
            file.write(f"{what} {os.getpid()}\n")
    if what == "answer":
        say("a line before the result")
        say(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "text": "肺"}, ensure_ascii=False))
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hang":
        time.sleep(600)
    elif what.startswith("sleep"):
        time.sleep(float(what.removeprefix("sleep")))
        say(json.dumps({"slept": what}))
    elif what.startswith("meet"):  # waits for the other one
        (folder / what).touch()
        while len(list(folder.glob("meet*"))) < 2:
            time.sleep(0.02)
        say(json.dumps({"met": True}))
    elif what == "grow":
        kept = []
        while True:
            kept.append(b"\1" * 20_000_000)
            time.sleep(0.01)
    elif what == "no memory":
        raise MemoryError
    elif what == "library out of memory":
        sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
        sys.stderr.flush()
        os.abort()
    elif what == "silent":
        pass
    elif what == "passing":
        say(json.dumps({"transient": True}))
        return 1
    elif what == "loaded":
        say(json.dumps({"loaded": sorted({"monai.networks.nets", "torch", "LowDoseBMDLib.study"} & set(sys.modules))}))
    elif what == "error":
        raise RuntimeError("broken stage")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(Path, sys.argv[2:])))
