"""Checks that a peer computes the same as fastgru, before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: Maximum difference relative to the largest element. Float32 results in different orders differ by about 1e-6.
TOLERANCE = 1e-4

GRU_GRADIENTS = ("d_kernel", "d_recurrent_kernel", "d_bias")


class AnswersDifferError(Exception):
    """A peer's results differ from fastgru's."""


def expected(question: str, *, whole: bool, adam: str) -> tuple[str, ...]:
    """Return the names of a contender's answers, which depend on its part of the work and its form of Adam.

    The losses are those of three steps, so that Adam is compared too. PyTorch and TensorFlow.js add epsilon elsewhere
    than Keras, which changes the fifth digit of the loss after one step.
    """
    if question == "inference":
        return ("state",)
    if not whole:
        return ("state", *(f"kernels_{name}" for name in GRU_GRADIENTS))
    return (f"losses_{adam}", *GRU_GRADIENTS, "d_head_kernel", "d_head_bias")


def check(reference: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray], names: tuple[str, ...]) -> float:
    """Return the largest relative error over `names`.

    Raises
    ------
    AnswersDifferError
        An answer is missing, has another shape, is not finite, or differs by more than `TOLERANCE`.
    """
    worst = 0.0
    for name in names:
        expected, actual = reference[name], answer.get(name)
        if actual is None or actual.shape != expected.shape:
            got = "nothing" if actual is None else actual.shape
            raise AnswersDifferError(f"answers differ: {name}: expected shape {expected.shape}, got {got}")
        scale = np.abs(expected).max() or 1.0  # recurrent gradients are zero after a single step from zeros
        error = float(np.abs(np.subtract(actual, expected, dtype=np.float64)).max() / scale)
        if not error <= TOLERANCE:
            raise AnswersDifferError(f"answers differ: {name} is off by {error:.1e} of its largest element")
        worst = max(worst, error)
    return worst
