"""A problem to compute: question, shape, data and flops."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CLASSES = 10

#: The source of the TensorFlow.js tutorial's shapes: MNIST read row by row.
TUTORIAL = "tutorial"


@dataclass(frozen=True)
class Problem:
    """A question and a shape: N rows, T steps, F features, H units.

    ``source`` names the origin of the shape. ``threads`` is 0 for the run's threads, unless the question varies them.
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
        """Its name in tables."""
        threads = f" threads={self.threads}" if self.threads else ""
        return f"N={self.rows} T={self.steps} F={self.features} H={self.units}{threads}"

    def flops(self, *, head: bool = True) -> float:
        """Return the flops of matrix products only: nothing elementwise, no Adam, no gradient of the input.

        Forward takes 6H(F+H) and backward 6H(F+2H) per sample and step; in training the head adds three products.
        """
        units, features = self.units, self.features
        step = 6 * units * (features + units)
        if self.question == "training":
            step += 6 * units * (features + 2 * units)
        last = 3 * 2 * units * CLASSES if head and self.question == "training" else 0
        return float(self.rows * (self.steps * step + last))

    def to_message(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def write_data(problem: Problem, path: Path) -> None:
    """Write weights in Keras' layout and a batch as safetensors, a format that JavaScript reads in a few lines.

    Biases are nonzero and differ from each other, so that a wrong order of gates is detected. ``d_state`` is the
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
