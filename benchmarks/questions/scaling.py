"""What does a sample-step of training cost in fastgru, by N, T, F, H and threads?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import Crew, Row, measure
from benchmarks.options import Options
from benchmarks.report import Result, skips
from benchmarks.shapes import tutorial

TITLE = "Scaling: fastgru's cost of a sample-step of training"
COLUMNS = ("axis", "shape", "ns a sample-step", "GFLOP/s", "share of sgemm", "spread")

BASE = tutorial("training", 128)
#: The names of the axes in `Problem`, and the measured sizes of each.
AXES = {
    "rows": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096),
    "steps": (1, 2, 4, 8, 16, 28, 64, 256, 1024),
    "features": (1, 4, 16, 28, 64, 128, 512, 1024),
    "units": (8, 16, 31, 32, 64, 96, 128, 192, 256, 512, 1024),
}
QUICK_POINTS = 3


def problems(options: Options) -> Iterator[tuple[str, object]]:
    """Yield the sizes of each axis, with the others at the tutorial's N=128; then threads from one to all."""
    axes = AXES | {"threads": tuple(range(1, options.threads + 1))}
    for axis, points in axes.items():
        stride = max(1, len(points) // QUICK_POINTS) if options.quick else 1
        for point in points[::stride]:
            yield axis, replace(BASE, source=f"along {axis}", **{axis: point})


def cost(row: Row) -> float:
    """Return nanoseconds per sample-step."""
    return 1e9 * row.median / (row.problem.rows * row.problem.steps)


def run(options: Options, crew: Crew) -> Result:
    """Measure fastgru; sgemm always uses all threads."""
    measured = []
    for axis, problem in problems(options):
        measured += [(axis, row) for row in measure(problem, ["fastgru"], crew, options.rounds)]
    kept = [(axis, row) for axis, row in measured if row.contender == "fastgru"]
    table = [
        (
            axis,
            row.problem.shape,
            f"{cost(row):,.0f}",
            f"{row.flops_per_second / 1e9:.1f}",
            f"{row.share_of_sgemm:.2f}",
            f"{row.spread:.0%}",
        )
        for axis, row in kept
        if not row.skipped
    ]
    rows = [row.to_json() | {"axis": axis, "nanoseconds": cost(row)} for axis, row in measured]
    return Result("scaling", TITLE, COLUMNS, table, rows, skips([row for _, row in kept]))
