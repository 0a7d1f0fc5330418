"""The common part of training and inference: shapes, and a table of speeds."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import shapes
from benchmarks.harness import Crew, measure
from benchmarks.options import Options
from benchmarks.report import Result, speed_result


def compare(question: str, title: str, quick_rows: Sequence[int], options: Options, crew: Crew) -> Result:
    """Compare all contenders of a question at the tutorial's shapes, a grid around them, and published shapes."""
    problems, left_out = shapes.chosen(question, options.batch_sizes, quick_rows if options.quick else None)
    names = options.names(question)
    rows = [row for problem in problems for row in measure(problem, names, crew, options.rounds)]
    result = speed_result(question, title, rows)
    result.notes += left_out
    return result
