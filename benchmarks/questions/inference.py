"""How fast is the forward pass, from a batch to the last state?"""

from __future__ import annotations

from benchmarks.harness import Crew
from benchmarks.options import Options
from benchmarks.questions.speed import compare
from benchmarks.report import Result
from benchmarks.shapes import QUICK_INFERENCE_ROWS

TITLE = "Inference: forward of GRU(H), the last state"


def run(options: Options, crew: Crew) -> Result:
    """See `compare`."""
    return compare("inference", TITLE, QUICK_INFERENCE_ROWS, options, crew)
