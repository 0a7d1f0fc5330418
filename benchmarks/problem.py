"""What is computed: a shape, a question, the data that every contender gets, and its flops."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CLASSES = 10

#: The source of the shapes that the TensorFlow.js tutorial has, MNIST read row by row.
TUTORIAL = "tutorial"


@dataclass(frozen=True)
class Problem:
    """A question and a shape: N rows, T steps, F features, H units.

    ``source`` names where the shape comes from. ``threads`` is 0, the run's, but where their number is what is asked.
    """

    question: str
    rows: int
    steps: int
    features: int
    units: int
    source: str = ""
    threads: int = 0

    @property
    def shape(self) -> str:
        """How tables name it."""
        threads = f" threads={self.threads}" if self.threads else ""
        return f"N={self.rows} T={self.steps} F={self.features} H={self.units}{threads}"

    def flops(self, *, head: bool = True) -> float:
        """Flops of matrix products alone: nothing elementwise, no Adam, no gradient of the input.

        Forward 6H(F+H) and backward 6H(F+2H) a sample-step; the head's three products in training, where there is one.
        """
        units, features = self.units, self.features
        step = 6 * units * (features + units)
        if self.question == "training":
            step += 6 * units * (features + 2 * units)
        last = 3 * 2 * units * CLASSES if head and self.question == "training" else 0
        return float(self.rows * (self.steps * step + last))

    def to_message(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)


def write_data(problem: Problem, path: Path) -> None:
    """Weights in Keras' layout and a batch, as safetensors: a format that JavaScript too reads in a few lines.

    Biases are not zero and differ from each other, so that a wrong order of gates cannot go unseen. ``d_state`` is the
    gradient for the last state, for peers that are bare kernels without a loss.
    """
    rng = np.random.default_rng(0)
    rows, steps, features, units = problem.rows, problem.steps, problem.features, problem.units

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    save_file(
        {
            "kernel": normal(features, 3 * units, scale=features**-0.5),
            "recurrent_kernel": normal(units, 3 * units, scale=units**-0.5),
            "bias": normal(2, 3 * units, scale=0.3),
            "head_kernel": normal(units, CLASSES, scale=units**-0.5),
            "head_bias": normal(CLASSES, scale=0.3),
            "x": rng.random((rows, steps, features), np.float32),
            "labels": rng.integers(0, CLASSES, rows).astype(np.int32),
            "d_state": normal(rows, units, scale=1 / rows),
        },
        path,
    )
