"""Timing: the contenders' processes take turns in one run, after their answers have been compared.

A machine's speed drifts by a third within minutes; ratios within one interleaved run do not. So contenders take turns,
one measurement each, round after round. Reported are the median over the rounds, its spread, and the fraction of the
NumPy sgemm throughput measured in the same rounds.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks import answers
from benchmarks.contenders import BY_NAME, REFERENCES, SGEMMS, Contender
from benchmarks.problem import Problem, write_data
from benchmarks.worker import MissingError, Worker, WorkerError

#: A measurement, and the warm-up before it, repeat the call until they take this long. After a pause a processor needs
#: about 20 ms to reach its full speed, and calls of less than a millisecond would look half as fast.
LEAST_SECONDS = 0.03
#: Pause before each measurement. Idle threads of OpenBLAS and OpenMP spin for about 10 ms after their last call,
#: those of fastgru and others less, and would occupy the next contender's processors.
COOL_DOWN_SECONDS = 0.1
#: Timeouts of a contender: to import (TensorFlow: 10 s), to build a model (torch.compile: 40 s), to measure.
HELLO_SECONDS, SETUP_SECONDS, TIME_SECONDS = 120, 240, 120


def log(message: str) -> None:
    """Print progress to standard error; the results go to standard output."""
    print(message, file=sys.stderr, flush=True)


def median(seconds: Sequence[float]) -> float:
    """Return the median over all rounds."""
    return statistics.median(seconds)


def spread(seconds: Sequence[float]) -> float:
    """Return the interquartile range divided by the median; 0 for a single measurement."""
    if len(seconds) < 2:
        return 0.0
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / median(seconds)


def repeats_for(once: float) -> int:
    """Return how often a measurement repeats a call of `once` seconds."""
    return max(1, math.ceil(LEAST_SECONDS / max(once, 1e-9)))


@dataclass
class Row:
    """The result of one contender and one problem: figures, or the reason why there are none."""

    contender: str
    title: str
    problem: Problem
    seconds: list[float] = field(default_factory=list)
    skipped: str = ""
    error: float = 0.0  # relative error of its answers
    median: float = 0.0
    spread: float = 0.0
    samples_per_second: float = 0.0
    flops_per_second: float = 0.0
    share_of_sgemm: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


class Crew:
    """The contenders' processes, started together (importing TensorFlow takes 10 s) and kept between problems."""

    def __init__(self, threads: int, other_python: str = "") -> None:
        self.threads = threads
        self.other_python = other_python
        self.folder = Path()
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Crew:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._stack.close()

    def gather(self, names: Iterable[str]) -> dict[str, Worker]:
        """Return the processes of these contenders; skips missing ones and restarts dead ones."""
        names = [name for name in names if name not in self.missing]
        started = []
        for name in names:
            if name in self._workers and self._workers[name].alive:
                continue
            try:
                self._workers[name] = BY_NAME[name].start(self.threads, self.other_python)
            except OSError as error:
                self.missing[name] = str(error)
            else:
                started.append(name)
        for name in started:
            try:
                self._workers[name].hello(HELLO_SECONDS)
            except WorkerError as error:
                kind = "" if isinstance(error, MissingError) else "did not start: "
                self.missing[name] = f"{kind}{error}"
                self._workers.pop(name).stop()
                log(f"  {name} is skipped: {self.missing[name]}")
            else:
                self.versions = self._workers[name].versions | self.versions  # keeps the first version of fastgru
        return {name: self._workers[name] for name in names if name in self._workers}


@dataclass
class Turn:
    """A contender that is measured in the rounds."""

    row: Row
    worker: Worker
    repeats: int = 1

    def time(self) -> dict[str, float]:
        """Measure once, after the pause in which the threads of other contenders fall asleep."""
        time.sleep(COOL_DOWN_SECONDS)
        return self.worker.ask(TIME_SECONDS, do="time", repeats=self.repeats)


def interleave(turns: list[Turn], rounds: int) -> None:
    """Calibrate all, then measure all in turn, `rounds` times. A contender that fails is removed; its row says why."""

    def attempt(turn: Turn, action) -> None:
        if turn.row.skipped:
            return
        try:
            action(turn)
        except WorkerError as error:
            turn.row.skipped = str(error)
            log(f"  {turn.row.contender} is removed: {error}")

    def calibrate(turn: Turn) -> None:
        turn.repeats = repeats_for(turn.time()["repeat"])
        if turn.repeats > 1:  # the first call was short, and the processor not yet at full speed
            turn.repeats = repeats_for(turn.time()["repeat"])

    def measure(turn: Turn) -> None:
        turn.row.seconds.append(turn.time()["seconds"])

    for turn in turns:
        attempt(turn, calibrate)
    for _ in range(rounds):
        for turn in turns:
            attempt(turn, measure)


def set_up(
    problem: Problem, contenders: Sequence[Contender], workers: dict[str, Worker], folder: Path
) -> dict[str, dict[str, np.ndarray] | WorkerError]:
    """Let all contenders build their models at the same time; return their answers or errors."""
    data = folder / "data.safetensors"
    write_data(problem, data)
    results: dict[str, dict[str, np.ndarray] | WorkerError] = {}
    for contender in contenders:
        request = problem.to_message() | {"reset_after": contender.reset_after, "way": contender.way}
        target = folder / f"{contender.name}.safetensors"
        try:
            workers[contender.name].send(do="setup", data=str(data), results=str(target), **request)
        except WorkerError as error:
            results[contender.name] = error
    for contender in contenders:
        if contender.name in results:
            continue
        try:
            path = Path(workers[contender.name].receive(SETUP_SECONDS)["results"])
        except WorkerError as error:
            results[contender.name] = error
        else:
            results[contender.name] = load_file(path)
            path.unlink()
    return results


def verify(contender: Contender, problem: Problem, results: dict[str, Any]) -> float:
    """Return the error of a contender's answers relative to fastgru's; raises if it cannot be timed."""
    for name in (contender.name, REFERENCES[contender.reset_after]):
        if isinstance(results[name], WorkerError):
            raise results[name]
    if contender.name in SGEMMS:
        return 0.0
    names = answers.expected(problem.question, whole=contender.whole, adam=contender.adam)
    return answers.check(results[REFERENCES[contender.reset_after]], results[contender.name], names)


def measure(problem: Problem, names: Sequence[str], crew: Crew, rounds: int) -> list[Row]:
    """Set up, compare and time; returns one row per contender, in the table's order.

    sgemm always takes part. The references are always set up, but timed only if they are named.
    """
    log(f"{problem.question}, {problem.shape} ({problem.source})")
    listed = [*SGEMMS, *names]
    wanted = {name: BY_NAME[name] for name in [*listed, *REFERENCES.values()]}
    asked = {name: contender for name, contender in wanted.items() if not contender.refusal(problem)}
    workers = crew.gather(asked)
    present = [contender for name, contender in asked.items() if name in workers]
    begin = time.perf_counter()
    results = set_up(problem, present, workers, crew.folder)
    log(f"  {len(present)} contenders are ready after {time.perf_counter() - begin:.1f} s")
    rows, turns = [], []
    for name in listed:
        contender = wanted[name]
        row = Row(name, contender.title, problem, skipped=contender.refusal(problem) or crew.missing.get(name, ""))
        rows.append(row)
        if row.skipped:
            continue
        try:
            row.error = verify(contender, problem, results)
        except (WorkerError, answers.AnswersDifferError) as error:
            row.skipped = str(error)
            log(f"  {name} is not timed: {error}")
        else:
            turns.append(Turn(row, workers[name]))
    interleave(turns, rounds)
    for row in rows:
        evaluate(row)
    best = max((row.flops_per_second for row in rows if row.contender in SGEMMS), default=0.0)
    for row in rows:
        row.share_of_sgemm = row.flops_per_second / best if best else 0.0
    return rows


def evaluate(row: Row) -> None:
    """Compute the figures of a row that was timed completely."""
    if row.skipped:
        return
    row.median, row.spread = median(row.seconds), spread(row.seconds)
    if row.contender in SGEMMS:
        row.flops_per_second = 2.0 * SGEMMS[row.contender] ** 3 / row.median
        return
    row.samples_per_second = row.problem.rows / row.median
    row.flops_per_second = row.problem.flops(head=BY_NAME[row.contender].whole) / row.median
