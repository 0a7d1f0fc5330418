"""Fuzzing: for any contents of a file, its reader returns, or raises the one error that it documents.

Findings are any other exception, more than 2 s of processor time, more than 1 GB of memory, and a crash. A forked
process reads many inputs; the parent process survives its crashes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import re
import resource
import shutil
import signal
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from campaign import readers
from campaign.readers import Files, Reader
from campaign.run import Run

_CPU_SECONDS = 2.0
_WALL_SECONDS = 30.0
_MOST_MEMORY = 1 << 30
#: Address space of a reader, much of which may never be used; a larger request is a MemoryError.
_ADDRESS_SPACE = 8 << 30
#: Inputs after which a worker is replaced, so that leaks of the libraries do not accumulate.
_INPUTS_A_WORKER = 20_000

#: Fields of the shared memory through which the worker reports to its parent.
_INPUT, _LOADED, _REFUSED, _RAISED, _SLOWEST = range(5)


def run(run: Run) -> None:
    check(run, readers.get(run.subject))


def replay(run: Run, number: int, files: Path) -> None:
    """Read the files of a finding again."""
    reader = readers.get(run.subject)
    folder = run.memory
    for file in files.iterdir():
        if file.name != "finding.json":
            shutil.copy(file, folder / file.name)
    names = [name for name in reader.bases[0] if (folder / name).exists()] + sorted(os.listdir(folder))
    _watch(run, _Worker(run, reader, {number: names[:1]}), number)


def check(run: Run, reader: Reader, *, wall_seconds: float = _WALL_SECONDS, most_memory: int = _MOST_MEMORY) -> None:
    """Read damaged files until the number or the time limit is reached."""
    for base in reader.bases:  # a reader that raises for every file would have no findings
        reader.read(_written(reader, run.memory, base))
    worker = _Worker(run, reader, None, wall_seconds, most_memory)
    number = 0
    while run.wants_more(number):
        number = _watch(run, worker, number)
    run.report.cases = number
    loaded, refused = int(worker.shared[_LOADED]), int(worker.shared[_REFUSED])
    run.report.done = f"{number:,} inputs, {loaded:,} loaded, {refused:,} refused"
    run.report.worst = f"{worker.shared[_SLOWEST] * 1000:.0f} ms"


def _written(reader: Reader, folder: Path, files: Files) -> Path:
    for name, content in files.items():
        with open(folder / name, "wb") as file:
            file.write(content)
    return folder if reader.folder else folder / next(iter(files))


# --- Parent process -------------------------------------------------------------------------------------------------


class _Worker:
    """The shared state of a worker and its parent."""

    def __init__(
        self,
        run: Run,
        reader: Reader,
        stored: dict[int, list[str]] | None,
        wall_seconds: float = _WALL_SECONDS,
        most_memory: int = _MOST_MEMORY,
    ) -> None:
        self.run, self.reader, self.stored = run, reader, stored
        self.wall_seconds, self.most_memory = wall_seconds, most_memory
        self.folder = run.memory
        self.log, self.trace = run.scratch / "found.jsonl", run.scratch / "trace.txt"
        self.shared = np.frombuffer(mmap.mmap(-1, 4096), np.float64)
        self.reported = 0


def _watch(run: Run, worker: _Worker, first: int) -> int:
    """Let a forked process read inputs from number `first` on; returns the number of the next input."""
    worker.shared[_INPUT] = first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forks of processes with threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            _read_inputs(worker, first)
            status = 0
        except BaseException:
            with contextlib.suppress(OSError):
                worker.trace.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    status, gave_up = _wait(worker, child)
    _take_findings(run, worker)
    number = int(worker.shared[_INPUT])
    if status == 0:
        return number
    trace = worker.trace.read_text(errors="replace") if worker.trace.exists() else ""
    how = f"no end within {worker.wall_seconds:g} s" if gave_up else _how(status)
    run.found(f"{how} {_place(trace)}", trace[-2000:], number, sorted(worker.folder.iterdir()))
    return number + 1


def _wait(worker: _Worker, child: int) -> tuple[int, bool]:
    """Return the worker's exit status, and whether it was killed because it made no progress."""
    last, since, gave_up = -1.0, time.monotonic(), False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, gave_up
        if worker.shared[_INPUT] != last:
            last, since = worker.shared[_INPUT], time.monotonic()
        elif time.monotonic() - since > worker.wall_seconds:
            gave_up = True
            os.kill(child, signal.SIGABRT)  # prints a traceback
            time.sleep(0.5)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _how(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the harness failed (status {os.waitstatus_to_exitcode(status)})"
    number = os.WTERMSIG(status)
    if number == signal.SIGPROF:
        return f"more than {_CPU_SECONDS:g} s of processor time"
    return f"{signal.Signals(number).name}"


def _take_findings(run: Run, worker: _Worker) -> None:
    lines = worker.log.read_text().splitlines() if worker.log.exists() else []
    for line in lines[worker.reported :]:
        found = json.loads(line)
        files = sorted(Path(found["kept"]).iterdir()) if found["kept"] else []
        run.found(found["kind"], found["detail"], found["number"], files)
    worker.reported = len(lines)


def _place(trace: str) -> str:
    """Return the innermost line of the package in a traceback, or else the innermost line."""
    places = re.findall(r'File "([^"]+)", line (\d+),? in (\w+)', trace)
    if not places:
        return "at an unknown place"
    if "most recent call first" in trace:  # faulthandler's order
        places.reverse()
    own = [place for place in places if "/fastgru/" in place[0]] or places
    file, line, function = own[-1]
    return f"at {file.rpartition('/fastgru/')[2]}:{line} in {function}"


# --- Reading process ------------------------------------------------------------------------------------------------


def _read_inputs(worker: _Worker, first: int) -> None:
    run, shared = worker.run, worker.shared
    trace = worker.trace.open("w")
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(signal.SIGPROF, trace, all_threads=False, chain=True)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + _ADDRESS_SPACE, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    kinds: dict[str, int] = {}
    peak = _peak_memory()
    for number in [*worker.stored] if worker.stored else range(first, first + _INPUTS_A_WORKER):
        shared[_INPUT] = number
        if worker.stored is None and not run.wants_more(number):
            return
        path = _prepare(worker, number)
        begin = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
        outcome, found = _read(worker.reader, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - begin
        if (more := _peak_memory()) > peak + worker.most_memory:
            found = found or ("more memory than a reader may take", f"{(more - peak) >> 20} MB")
        peak = max(peak, more)
        if found is not None and "memory" in found[0].lower() and number != first:
            return  # earlier inputs may be the cause: a new worker starts with this input
        shared[_SLOWEST] = max(shared[_SLOWEST], seconds)
        shared[outcome] += 1
        if found is not None:
            _report(worker, number, found, kinds)
    shared[_INPUT] = number + 1


def _prepare(worker: _Worker, number: int) -> Path:
    if worker.stored is not None:
        return worker.folder if worker.reader.folder else worker.folder / worker.stored[number][0]
    files = worker.reader.damaged(worker.run.random(number))
    for name in os.listdir(worker.folder):
        if name not in files:
            os.unlink(worker.folder / name)
    return _written(worker.reader, worker.folder, files)


def _read(reader: Reader, path: Path) -> tuple[int, tuple[str, str] | None]:
    """Return the result, and the kind and details of a finding, or None."""
    try:
        reader.read(path)
    except reader.refusals as error:
        return _REFUSED, _hidden_memory_error(error)
    except Exception as error:
        text = repr(error) if isinstance(error, RecursionError) else "".join(traceback.format_exception(error))
        return _RAISED, (f"{type(error).__name__} {_place(text)}", text[-2000:])
    return _LOADED, None


def _hidden_memory_error(error: BaseException) -> tuple[str, str] | None:
    """Return a finding if the reader raised only because memory was limited here."""
    cause: BaseException | None = error
    while (cause := cause.__context__) is not None:
        if isinstance(cause, MemoryError):
            text = "".join(traceback.format_exception(cause))
            return f"asked for more than 8 GB of memory {_place(text)}", f"{cause!r}\n{error!r}"
    return None


def _report(worker: _Worker, number: int, found: tuple[str, str], kinds: dict[str, int]) -> None:
    """Record a finding; the files of the first finding of a kind are kept."""
    kind, detail = found
    kinds[kind] = kinds.get(kind, 0) + 1
    kept = None
    if kinds[kind] <= 3:
        kept = worker.run.scratch / f"kept-{number}"
        shutil.copytree(worker.folder, kept, dirs_exist_ok=True)
    content = {"number": number, "kind": kind, "detail": detail, "kept": str(kept) if kept else None}
    with worker.log.open("a") as log:
        log.write(json.dumps(content) + "\n")


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
