"""How long does a forward pass take after a pause, as in serving, on one thread and on all?

A worker that waits for the next call falls asleep after a while and must be woken. The process computes during the
pauses, because the clock of an idle processor drops.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import fastgru
import numpy as np
from fastgru import functional

from benchmarks.harness import COOL_DOWN_SECONDS, Crew, log
from benchmarks.options import Options
from benchmarks.report import Result, duration

TITLE = "Pauses: a forward pass to the last state after a pause"
COLUMNS = ("shape", "pause", "one thread", "95%", "all threads", "95%", "one to all")

STEPS, FEATURES = 28, 28
#: (N, H)
SHAPES = ((1, 64), (8, 64), (32, 32), (32, 64), (128, 64), (32, 128))
QUICK_SHAPES = ((8, 64), (32, 64))
#: Pauses in seconds.
PAUSES = (0.0, 500e-6, 5e-3)
#: Calls per turn.
CALLS = 40


def forward_pass(rows: int, units: int) -> Callable[[], object]:
    """A call."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, STEPS, FEATURES)).astype(np.float32)
    kernel, recurrent_kernel = (
        (random.normal(size=(depth, 3 * units)) / np.sqrt(depth)).astype(np.float32) for depth in (FEATURES, units)
    )
    return lambda: functional.gru_forward(x, kernel, recurrent_kernel, return_sequences=False)


def turn(call: Callable[[], object], pause: float, threads: int) -> list[float]:
    """Return the seconds of each call, after a warm-up call."""
    fastgru.set_num_threads(threads)
    time.sleep(COOL_DOWN_SECONDS)
    call()
    seconds = []
    for _ in range(CALLS):
        end = time.perf_counter() + pause
        while time.perf_counter() < end:
            pass
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def run(options: Options, crew: Crew) -> Result:
    """Measure one thread and all threads in turn."""
    del crew
    before = fastgru.get_num_threads()
    table, rows = [], []
    for count, units in QUICK_SHAPES if options.quick else SHAPES:
        log(f"pauses, N={count}, H={units}")
        call = forward_pass(count, units)
        for pause in PAUSES:
            seconds: tuple[list[float], list[float]] = [], []
            for _ in range(options.rounds):
                for threads, found in zip((1, options.threads), seconds, strict=True):
                    found += turn(call, pause, threads)
            one, every = ((statistics.median(s), statistics.quantiles(s, n=20)[-1]) for s in seconds)
            shape = f"N={count} T={STEPS} F={FEATURES} H={units}"
            cells = [*map(duration, one), *map(duration, every), f"{one[0] / every[0]:.2f}"]
            table.append([shape, duration(pause) if pause else "none", *cells])
            rows.append({"shape": shape, "pause": pause, "seconds": seconds, "skipped": ""})
    fastgru.set_num_threads(before)
    notes = [f"Medians and 95th percentiles of {CALLS * options.rounds} calls; all threads are {options.threads}."]
    return Result("pauses", TITLE, COLUMNS, table, rows, notes)
