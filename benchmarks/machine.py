"""Machine, versions and environment of a run, without host names or folders."""

from __future__ import annotations

import os
import platform

#: Variables that affect results; reported if they are set.
VARIABLES = ("OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "XLA_FLAGS", "MALLOC_ARENA_MAX")


def available_processors() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def restrict(threads: int) -> None:
    """Restrict this process and its workers to that many processors, from which some libraries derive their threads."""
    if hasattr(os, "sched_setaffinity") and threads < available_processors():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def describe(threads: int) -> dict[str, object]:
    """Return the description for the head of a report."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "processors": available_processors(),
        "threads": threads,
        "load before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
