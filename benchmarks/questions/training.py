"""How fast is a step of training: forward, loss, backward, Adam?

oneDNN's primitives are bare: forward and backward of the GRU, without head, loss and Adam.
"""

from __future__ import annotations

from benchmarks import shapes
from benchmarks.harness import Crew, measure
from benchmarks.options import Options
from benchmarks.report import Result, speed_result

TITLE = "Training: forward, loss, backward and Adam of GRU(H) and Dense(10), a step"


def run(options: Options, crew: Crew) -> Result:
    """The tutorial's shapes, a grid around them, and published ones."""
    problems, notes = shapes.chosen(
        "training", options.batch_sizes, shapes.QUICK_TRAINING_ROWS if options.quick else None
    )
    names = options.names("training")
    rows = [row for problem in problems for row in measure(problem, names, crew, options.rounds)]
    result = speed_result("training", TITLE, rows)
    result.notes += notes
    return result
