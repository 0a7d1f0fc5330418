"""Kills during saves: after each kill the file contains the complete old or new model.

A forked process saves two models in turn to one file, and is killed at a random time. Any other files that it leaves
must be removed by the next save.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fastgru import Sequential, callbacks, load_model

from campaign import formats
from campaign.formats import Format
from campaign.run import Run

#: A kill happens within this multiple of the duration of a save.
_SPREAD = 1.5
#: Number of kills between two checks of the files that a save leaves.
_BETWEEN_LOOKS = 10
#: Of this many kills, some happen during a save.
_ENOUGH_TO_HIT = 40


def run(run: Run) -> None:
    if run.subject == "ModelCheckpoint":
        kill_trainings(run)
    else:
        models = [formats.make_model(run.subject, seed=seed) for seed in (1, 2)]
        kill_saves(run, formats.get(run.subject), models)


def kill_saves(run: Run, kind: Format, models: list[Sequential]) -> None:
    """Kill processes that save the two models in turn."""
    folder = run.scratch / "files"
    folder.mkdir()
    path = folder / kind.name
    whole = []
    for model in models:
        kind.write(model, path)
        whole.append(kind.read(path))
    duration = _duration(lambda: kind.write(models[0], path))

    def save_for_ever() -> None:
        for number in range(1, 1_000_000):
            kind.write(models[number % 2], path)

    most = 0
    for number in run.cases(least=_BETWEEN_LOOKS):
        status = _kill(save_for_ever, run.random(number).uniform(0, _SPREAD * duration))
        if status != KILLED:
            run.found("the process that saves ended by itself", f"status {status}", number)
        stale = _check(run, kind, folder, whole, number)
        most = max(most, len(stale))
        if number % _BETWEEN_LOOKS == _BETWEEN_LOOKS - 1 or run.only is not None:
            kind.write(models[0], path)
            _require_clean(run, folder, kind.files(folder), number)
    run.counts = _in_order(run, "kills", "within a save", "left the old model", "left the new one")
    run.report.worst = f"{most} stale files at once"
    _require_kills_within_saves(run)


def _require_kills_within_saves(run: Run) -> None:
    """Mark the task as incomplete if no kill happened during a save, because it has tested nothing."""
    if run.counts["kills"] >= _ENOUGH_TO_HIT and not run.counts["within a save"]:
        run.skip("no kill came within a save")


def _check(run: Run, kind: Format, folder: Path, whole: list[bytes], number: int) -> set[str]:
    """Check that the file is complete after a kill; returns the names of stale files."""
    run.counts["kills"] += 1
    path = folder / kind.name
    try:
        found = kind.read(path)
        if found in whole:
            run.counts[("left the old model", "left the new one")[whole.index(found)]] += 1
        else:
            run.found("the file is neither the old model nor the new one", path.name, number, [path])
        stale = _names(folder) - kind.files(folder)
    except Exception as error:
        run.found(f"the file cannot be read: {type(error).__name__}", str(error), number, [path])
        return set()
    run.counts["within a save"] += bool(stale)
    return stale


def _require_clean(run: Run, folder: Path, expected: set[str], number: int) -> None:
    """Report files that a save has left beside the model's file, and remove them."""
    stale = sorted(_names(folder) - expected)
    if stale:
        run.found("stale files remain after the next save", f"{len(stale)}, such as {stale[0]}", number)
        for name in stale:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else os.unlink(folder / name)


# --- Training ---------------------------------------------------------------------------------------------------------


def kill_trainings(run: Run) -> None:
    """Kill training with a ModelCheckpoint: the file must be one that undisturbed training writes."""
    folder = run.scratch / "files"
    folder.mkdir()
    path = folder / "run.safetensors"
    versions = set()

    def remember(*_: object) -> None:
        if path.exists():
            versions.add(_hash(path))

    duration = _duration(lambda: _train(path, remember), times=1)
    remember()
    most = 0
    for number in run.cases(least=_BETWEEN_LOOKS):
        path.unlink(missing_ok=True)
        status = _kill(lambda: _train(path, lambda *_: None), run.random(number).uniform(0, duration))
        if status not in (KILLED, 0):  # 0: training finished before the kill
            run.found("the training ended by itself", f"status {status}", number)
        stale = _names(folder) - {path.name}
        most = max(most, len(stale))
        run.counts["kills"] += 1
        run.counts["within a save"] += bool(stale)
        if path.exists():
            run.counts["left a file"] += 1
            if _hash(path) not in versions:
                run.found("the file is none of those that were written", path.name, number, [path])
            try:
                load_model(path)
            except Exception as error:
                run.found(f"the file cannot be read: {type(error).__name__}", str(error), number, [path])
        if number % _BETWEEN_LOOKS == _BETWEEN_LOOKS - 1 or run.only is not None:
            _train(path, lambda *_: None)
            _require_clean(run, folder, {path.name}, number)
    run.counts = _in_order(run, "kills", "within a save", "left a file")
    run.report.worst = f"{most} stale files at once"
    _require_kills_within_saves(run)


def _train(path: Path, look: Callable[..., None]) -> None:
    model = formats.make_model("native", seed=3, units=8, features=4)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6, 4)).astype(np.float32), rng.integers(0, 4, 40)
    told = [callbacks.LambdaCallback(on_train_batch_begin=look), callbacks.ModelCheckpoint(path, save_freq=1)]
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=told)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- Processes ------------------------------------------------------------------------------------------------------


#: How a process ends that is killed: minus the signal's number.
KILLED = -signal.SIGKILL


class Child:
    """A forked process; `status`, once it has ended, is its exit code or minus the number of the signal."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status = 0

    def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _kill(work: Callable[[], None], delay: float) -> int:
    """Run `work` in a forked process, kill it so many seconds after it has begun, and return its status."""
    with forked(work) as child:
        time.sleep(delay)
        child.kill()
    return child.status


@contextlib.contextmanager
def forked(work: Callable[[], None]) -> Iterator[Child]:
    """A forked process that does the work, which has begun; at the end it is waited for."""
    begun, begin = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forks of processes with threads: none computes now
        child = Child(os.fork())
    if child.pid == 0:
        status = 1
        try:
            os.write(begin, b"!")
            work()
            status = 0
        finally:
            os._exit(status)
    os.close(begin)
    os.read(begun, 1)
    os.close(begun)
    try:
        yield child
    finally:
        child.status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


def _duration(work: Callable[[], None], times: int = 5) -> float:
    """The median of the seconds that it takes."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        durations.append(time.perf_counter() - begin)
    return sorted(durations)[times // 2]


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def _in_order(run: Run, *names: str) -> Counter[str]:
    return Counter({name: run.counts[name] for name in names})
