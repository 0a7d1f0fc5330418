"""Honest timing: contenders interleaved in one run, medians with their spread, NumPy's sgemm measured beside them.

A machine's speed drifts by a third within minutes; ratios within one interleaved run do not. So contenders take turns,
a measurement each, round after round, and what is quoted is the median over rounds, as a share of the sgemm of that
run.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import fastgru
import numpy as np
from fastgru import _native

#: A measurement repeats the call until it lasts at least this long, so that the clock's grain does not matter.
LEAST_SECONDS = 0.02
#: Before each measurement: OpenBLAS' and OpenMP's idle threads spin for some 10 ms after their last call, and would
#: take the next contender's processors.
COOL_DOWN_SECONDS = 0.1


@dataclass
class Contender:
    """Something to time: a name, and a call that does the work once."""

    name: str
    call: Callable[[], object]
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)

    def calibrate(self) -> None:
        """Warm up, and choose how often to repeat the call in a measurement."""
        self.call()
        begin = time.perf_counter()
        self.call()
        once = time.perf_counter() - begin
        self.repeats = max(1, int(LEAST_SECONDS / max(once, 1e-9)) + 1)

    def measure(self) -> None:
        """Take one measurement, warm: seconds a call."""
        time.sleep(COOL_DOWN_SECONDS)
        self.call()
        begin = time.perf_counter()
        for _ in range(self.repeats):
            self.call()
        self.seconds.append((time.perf_counter() - begin) / self.repeats)

    @property
    def median(self) -> float:
        """Median seconds a call."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


SGEMM_SIZE = 1024


def sgemm() -> Contender:
    """NumPy's float32 matrix product, what the machine can do."""
    rng = np.random.default_rng(0)
    a = rng.random((SGEMM_SIZE, SGEMM_SIZE), np.float32)
    b, c = a.copy(), np.empty_like(a)
    return Contender("numpy sgemm", lambda: np.matmul(a, b, out=c))


def sgemm_rate(contender: Contender) -> float:
    """Its flops a second."""
    return 2.0 * SGEMM_SIZE**3 / contender.median


def interleave(contenders: list[Contender], rounds: int) -> None:
    """Measure all in turn, `rounds` times."""
    for contender in contenders:
        contender.calibrate()
    for _ in range(rounds):
        for contender in contenders:
            contender.measure()


def machine() -> dict[str, object]:
    """What a number depends on."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "processors": os.cpu_count(),
        "threads": fastgru.get_num_threads(),
        "isa": _native.ISA,
        "compiler": _native.kernels.__compiler__,
        "fastgru": fastgru.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
