"""How fast is a step of training: forward, loss, backward, Adam?

oneDNN's primitives are bare: forward and backward of the GRU, without head, loss and Adam.
"""

from __future__ import annotations

from benchmarks.harness import Crew
from benchmarks.options import Options
from benchmarks.questions.speed import compare
from benchmarks.report import Result
from benchmarks.shapes import QUICK_TRAINING_ROWS

TITLE = "Training: forward, loss, backward and Adam of GRU(H) and Dense(10), a step"


def run(options: Options, crew: Crew) -> Result:
    """See `compare`."""
    return compare("training", TITLE, QUICK_TRAINING_ROWS, options, crew)
