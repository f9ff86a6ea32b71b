"""Many tasks, each in a process of its own with limits; here, some at a time, or on the workers of a Dask cluster.

A task is ``python -m MODULE ARGUMENTS``; the last line that it prints must be a JSON object, its result. Where it can be,
its process is forked from one that has imported what studies need (preload.py), else started. No task outlives whoever
started it (tether.py): not after Ctrl-C, nor when this process or a Dask worker is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from .failures import says_memory
from .inference import THREADS_VARIABLE, threads
from .tether import OUT_OF_MEMORY, STOPPED, run_forked
from .watched import ITK_THREADS

if TYPE_CHECKING:
    from distributed import Client, Future

Child: TypeAlias = "subprocess.Popen[bytes] | _Forked"

log = logging.getLogger(__name__)

_UNSEEN = 255
"""What multiprocessing says of such a process."""

COMMAND = "lowdosebmd"
"""Name of the program's own script, which does nothing where it is not the main program."""

LOOK_SECONDS = 0.1
"""Between two looks at a running task: at its memory and whether it is still wanted."""
ASK_SECONDS = 2.0
"""A task that is asked to end gets this long to remove what it wrote aside; then it is killed."""

DONE, FAILED, TIMEOUT, MEMORY, KILLED = "done", "failed", "timeout", "out_of_memory", "killed"

FROM_OUTSIDE = {getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU")
                if hasattr(signal, name)}
"""Signals that somebody, or the system when its memory is full, sends to a task; all others are faults of the task."""

MESSAGE_CHARACTERS = 2000
"""Kept of what a failed task wrote to standard error: its end."""

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
"""What must be on the path of a process that imports this package."""

_LAST_ERROR = re.compile(r"^([\w.]+(?:Error|Exception|Exit|Interrupt))\b[^\n]*\Z", re.MULTILINE)
"""Kind of the exception that a Python process ended with; its text, which may name a patient, is left out."""

_PASSING_ERROR = re.compile(r"\((ImportError|ModuleNotFoundError|OSError|PermissionError|FileNotFoundError)\)")
"""A package or a file was not there or could not be read: once that is put right, another try ends better."""

_STARTING = threading.Lock()

STARTED_TOPIC = "lowdosebmd-started"
NO_DASK = ("--scheduler needs Dask, which is not installed: python -m pip install distributed psutil (or "
           "lowdosebmd[cluster]). Without it the studies are measured on this machine, --workers at a time.")


@dataclass(frozen=True)
class Limits:
    """Of one task: wall-clock seconds, and memory in GB (10^9 bytes) that it really uses, not that it reserves."""

    seconds: float = 600
    memory_gb: float = 6

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.memory_gb > 0):
            raise ValueError(f"limits of {self.seconds:g} s and {self.memory_gb:g} GB: both must be more than 0")


@dataclass(frozen=True)
class Task:
    """key: a name that no other task has. arguments: of the module."""

    key: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    status: done, failed, timeout, out_of_memory, killed. result: the JSON object that the task printed last, None when there
    is none. message: empty, or a line that says what happened, then the end of what the task wrote to standard error.
    peak_memory_mb (10^6 bytes): None where the system does not tell. transient: another try may end better.
    """

    key: str
    status: str
    result: dict[str, Any] | None
    message: str
    seconds: float
    peak_memory_mb: float | None
    transient: bool


News: TypeAlias = "tuple[str, Callable[[], Outcome] | None]"
"""A task's key, and None when it starts, or what gives its outcome when it has ended."""


def run_tasks(module: str, tasks: Sequence[Task], report: Callable[[Outcome], None], workers: int = 1,
              scheduler: str | None = None, limits: Limits = Limits(), started: Callable[[str], None] | None = None,
              preload: str = "preload") -> None:
    """Run ``python -m module`` for every task and report each as it ends; returns when all have.

    workers: how many at a time on this machine. scheduler: address of a Dask scheduler whose workers run the tasks instead;
    a task whose worker dies is given to another. report and started (called with a task's key) are called in the calling
    thread; what they raise, Ctrl-C included, ends all tasks and is passed on. preload: this package's module that imports
    what tasks need; of this process's first run, as there is one process to fork from.
    Raises ValueError when Dask or a Python to start is missing, OSError when the scheduler cannot be reached.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers: at least 1 is needed")
    started = started or (lambda _key: None)
    if scheduler is None:
        if _may_fork(python_command()):
            multiprocessing.set_forkserver_preload([f"{__package__}.{preload}"])
        _run_here(module, tasks, report, started, workers, limits)
    elif tasks:
        _run_on_dask(module, tasks, report, started, scheduler, limits)


def _run_here(module: str, tasks: Sequence[Task], report: Callable[[Outcome], None], started: Callable[[str], None],
              workers: int, limits: Limits) -> None:
    """So many tasks at a time; each is watched by a thread."""
    python, over = python_command(), threading.Event()
    news: queue.SimpleQueue[News] = queue.SimpleQueue()

    def run(task: Task) -> Outcome:
        news.put((task.key, None))
        return run_task(module, task, limits, workers, lambda: not over.is_set(), python)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                ended = pool.submit(run, task)
                ended.add_done_callback(lambda done, key=task.key: news.put((key, done.result)))
            _report_all(news, tasks, report, started)
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)


def _report_all(news: queue.SimpleQueue[News], tasks: Sequence[Task], report: Callable[[Outcome], None],
                started: Callable[[str], None]) -> None:
    """Pass on what is put into news until every task has ended; what is told of other tasks is left out."""
    waiting = {task.key for task in tasks}
    while waiting:
        with contextlib.suppress(queue.Empty):  # the short wait lets Ctrl-C through on Windows
            key, outcome = news.get(timeout=LOOK_SECONDS)
            if key in waiting and outcome is None:
                started(key)
            elif key in waiting:
                waiting.remove(key)
                report(outcome())


def python_command() -> str:
    """The Python that starts tasks: this one, or inside Slicer PythonSlicer. Raises ValueError when there is none."""
    if Path(sys.executable or "").name.lower().startswith(("python", "pypy")):
        return sys.executable
    found = shutil.which("PythonSlicer")
    if found is None:
        raise ValueError("no Python was found that could measure each study in a process of its own: PythonSlicer is not on "
                         "the path")
    return found


# --- one task ----------------------------------------------------------------------------------------------

def run_task(module: str, task: Task, limits: Limits, share: int = 1, wanted: Callable[[], bool] = lambda: True,
             python: str | None = None) -> Outcome:
    """Run one task to its end, wherever this is called.

    share: how many tasks run beside each other on this machine: each gets its part of the cores. wanted: asked while it
    runs; False ends it.
    """
    begun = time.monotonic()
    python, command = python or python_command(), [module, *task.arguments]
    with (tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors,
          _tied_process(python, command, share, out, errors) as child):
        ended_by, peak_mb = _watch(child, limits, wanted, begun)
        code = child.wait()
        result, complaint = _last_object(out), _tail(errors)
    status, message = _verdict(code, ended_by, result, complaint, limits)
    passing = bool(result.get("transient")) if result else bool(_PASSING_ERROR.search(message))
    transient = status in (TIMEOUT, MEMORY, KILLED) or (status == FAILED and passing)
    message = "" if status == DONE else f"{message}\n{complaint}".strip()
    return Outcome(task.key, status, result, message, round(time.monotonic() - begun, 3), peak_mb, transient)


@contextlib.contextmanager
def _tied_process(python: str, command: Sequence[str], share: int, out: IO[bytes], errors: IO[bytes]) -> Iterator[Child]:
    """A process in a group of its own that has ended when the block has, whatever ended the block. command: a module and its
    arguments."""
    read_end, write_end = os.pipe()
    try:
        start = _forked if _may_fork(python) else _started
        child = start(python, command, _environment(share), (read_end, out.fileno(), errors.fileno()))
    finally:
        os.close(read_end)
    try:
        yield child
    finally:
        _end(child, force=False)
        os.close(write_end)


def _started(python: str, command: Sequence[str], environment: dict[str, str], streams: tuple[int, int, int]) -> Child:
    options: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    stdin, stdout, stderr = streams
    return subprocess.Popen([python, "-m", f"{__package__}.tether", *command], env=environment, stdin=stdin, stdout=stdout,
                            stderr=stderr, **options)


def _may_fork(python: str) -> bool:
    """Whether tasks can be forked from a process that has imported what they need (multiprocessing's fork server).

    On Linux only: elsewhere libraries may not survive a fork. Not in a daemon of multiprocessing, as Dask's workers are,
    which may not have children. And not where the main program is a script, which multiprocessing would run anew in each.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    harmless = spec.name.endswith("__main__") if spec else file is None or Path(file).name == COMMAND
    return (sys.platform == "linux" and harmless and python == sys.executable
            and not multiprocessing.current_process().daemon)


def _forked(_python: str, command: Sequence[str], environment: dict[str, str], streams: tuple[int, int, int]) -> Child:
    from multiprocessing.connection import Connection

    context = multiprocessing.get_context("forkserver")
    passed = tuple(Connection(os.dup(stream)) for stream in streams)
    try:
        process = context.Process(target=run_forked, args=(passed, environment, list(command)))
        with _found_by_the_fork_server(environment["PYTHONPATH"]):
            process.start()
    finally:
        for stream in passed:
            stream.close()
    return _Forked(process)


@contextlib.contextmanager
def _found_by_the_fork_server(paths: str) -> Iterator[None]:
    """The fork server, which the first task starts, finds modules by its environment alone (Python's gh-117378)."""
    with _STARTING:
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = paths
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


@dataclass
class _Forked:
    """A forked process, asked as a started one is."""

    process: multiprocessing.process.BaseProcess

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        """A process whose end nobody saw, because what it was forked from has been killed, counts as killed too."""
        return -signal.SIGKILL if self.process.exitcode == _UNSEEN else self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self.process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a task", timeout)
        return code


def _environment(share: int) -> dict[str, str]:
    """This process's, so that the package is found, text is UTF-8, and tasks beside each other share the cores."""
    paths = [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")]
    each = str(max(1, threads() // share))
    return os.environ | ITK_THREADS | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1", THREADS_VARIABLE: each,
        "OPENBLAS_NUM_THREADS": each, "MKL_NUM_THREADS": each, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": each}


def _watch(child: Child, limits: Limits, wanted: Callable[[], bool],
           begun: float) -> tuple[str | None, float | None]:
    """Wait for the end, or bring it about; returns the status that a limit gave it, and the most memory seen in MB."""
    peak_mb: float | None = None
    while True:
        now_mb, most_mb = memory_mb(child.pid)
        peak_mb = max((mb for mb in (peak_mb, most_mb) if mb is not None), default=None)
        if now_mb is not None and now_mb > 1000 * limits.memory_gb:
            _end(child, force=True)
            return MEMORY, peak_mb
        if time.monotonic() - begun > limits.seconds or not wanted():
            status = TIMEOUT if time.monotonic() - begun > limits.seconds else KILLED
            _end(child, force=False)
            return status, peak_mb
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_SECONDS)
            return None, peak_mb


def memory_mb(pid: int) -> tuple[float | None, float | None]:
    """(now, most so far) of a process and those it started; None where neither Linux's /proc nor psutil can tell."""
    try:
        each = [_proc_memory_mb(one) for one in _proc_tree(pid)]
        return tuple(round(sum(parts), 1) for parts in zip(*each, strict=True))
    except (OSError, ValueError, KeyError):
        pass
    with contextlib.suppress(ImportError):
        import psutil

        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            memory = sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6
            return memory, round(memory, 1)
    return None, None


def _proc_tree(pid: int) -> Iterator[int]:
    """A launcher, such as PythonSlicer, starts the Python that does the work."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _proc_tree(int(child))


def _proc_memory_mb(pid: int) -> tuple[float, float]:
    """Raises KeyError for a process that has just ended."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return tuple(int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))


def _end(child: Child, force: bool) -> None:
    """End a task and what it started; when not forced it may first remove what it wrote aside."""
    if child.poll() is not None:
        return
    if not force and os.name != "nt":
        _signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(ASK_SECONDS)
    if child.poll() is None:
        child.kill() if os.name == "nt" else _signal_group(child, signal.SIGKILL)
    child.wait()


def _signal_group(child: Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:  # just forked, and not in its own group yet
            os.kill(child.pid, number)


def _verdict(code: int, ended_by: str | None, result: dict[str, Any] | None, complaint: str,
             limits: Limits) -> tuple[str, str]:
    """Status and what happened in words."""
    cut_off = ended_by is None and code and result is None  # by a library that aborts, perhaps
    if ended_by == MEMORY or code == OUT_OF_MEMORY or (cut_off and says_memory(complaint)):
        return MEMORY, f"It needed more memory than the limit of {limits.memory_gb:g} GB, or than there is."
    if ended_by == TIMEOUT:
        return TIMEOUT, f"It was not done after {limits.seconds:g} s."
    if ended_by == KILLED or code == STOPPED or -code in FROM_OUTSIDE:
        return KILLED, "It was ended from outside: by a person, a job system, or the system because memory was full."
    if code == 0 and result is not None:
        return DONE, ""
    if code == 0:
        return FAILED, "It ended without a result."
    if code < 0:
        return FAILED, f"It crashed ({_signal_name(code)})."
    error = _LAST_ERROR.search(complaint)
    return FAILED, f"It ended with status {code}{f' ({error[1]})' if error else ''}."


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last_object(out: IO[bytes]) -> dict[str, Any] | None:
    """The JSON object of the last line that is not empty."""
    out.seek(0)
    lines = out.read().decode("utf-8", errors="replace").strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode("utf-8", errors="replace").strip()[-MESSAGE_CHARACTERS:]


# --- a Dask cluster ----------------------------------------------------------------------------------------

def _run_on_dask(module: str, tasks: Sequence[Task], report: Callable[[Outcome], None], started: Callable[[str], None],
                 scheduler: str, limits: Limits) -> None:
    with _client(scheduler) as client:
        news: queue.SimpleQueue[News] = queue.SimpleQueue()
        client.subscribe_topic(STARTED_TOPIC, lambda event: news.put((event[1], None)))
        futures = [client.submit(run_on_worker, module, task, limits, key=f"{task.key}-{_serial()}", pure=False)
                   for task in tasks]
        try:
            for future, task in zip(futures, tasks, strict=True):
                future.add_done_callback(lambda done, key=task.key: news.put((key, lambda: _outcome_of(done, key))))
            _report_all(news, tasks, report, started)
        finally:
            client.cancel(futures)  # those that ended are not touched; the others' processes end when their thread sees it
            client.unsubscribe_topic(STARTED_TOPIC)


def _serial() -> str:
    """Another key for each run: a cluster remembers keys, and a killed run's must not be taken for this one's."""
    import uuid

    return uuid.uuid4().hex[:12]


def _outcome_of(future: Future, key: str) -> Outcome:
    """What Dask itself says of a task: its workers died too often, or it was cancelled from elsewhere."""
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        return future.result()
    error = future.exception() if future.status == "error" else None
    if error is None or isinstance(error, KilledWorker):
        return Outcome(key, KILLED, None, "The workers that had it died, or it was cancelled.", 0.0, None, True)
    return Outcome(key, FAILED, None, f"The worker could not run it: {type(error).__name__}: {error}", 0.0, None, True)


def run_on_worker(module: str, task: Task, limits: Limits) -> Outcome:
    """run_task inside a Dask worker: tells that it starts, and ends the process when the task is cancelled."""
    from distributed import get_worker

    worker = get_worker()
    dask_key = worker.get_current_task()
    worker.log_event(STARTED_TOPIC, task.key)

    def wanted() -> bool:
        state = worker.state.tasks.get(dask_key)
        return state is not None and state.state in ("executing", "long-running")

    return run_task(module, task, limits, worker.state.nthreads, wanted)


def _client(scheduler: str) -> Client:
    """A client of the given cluster."""
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(NO_DASK) from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells every start and end of its parts
    return Client(scheduler, set_as_default=False)
