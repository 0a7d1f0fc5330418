"""How fast is the forward pass alone, from a batch to the last state?"""

from __future__ import annotations

from benchmarks import shapes
from benchmarks.harness import Crew, measure
from benchmarks.options import Options
from benchmarks.report import Result, speed_result

TITLE = "Inference: forward of GRU(H), the last state"


def run(options: Options, crew: Crew) -> Result:
    """The same shapes as in training."""
    problems, notes = shapes.chosen(
        "inference", options.batch_sizes, shapes.QUICK_INFERENCE_ROWS if options.quick else None
    )
    names = options.names("inference")
    rows = [row for problem in problems for row in measure(problem, names, crew, options.rounds)]
    result = speed_result("inference", TITLE, rows)
    result.notes += notes
    return result
