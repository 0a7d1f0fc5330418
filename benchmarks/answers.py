"""Whether a peer computes what fastgru computes: asked before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: Largest difference as a share of the largest element. Float32 computations in different orders differ by some 1e-6.
TOLERANCE = 1e-4

GRU_GRADIENTS = ("d_kernel", "d_recurrent_kernel", "d_bias")


class AnswersDifferError(Exception):
    """A peer's results are not fastgru's."""


def expected(question: str, *, whole: bool, adam: str) -> tuple[str, ...]:
    """What a contender has to answer with, by how much of the work it does and by whose form of Adam it follows.

    The losses are those of three steps, so that Adam is compared as well; its epsilon stands elsewhere in PyTorch and
    TensorFlow.js than in Keras, which after a step shows in the fifth digit.
    """
    if question == "inference":
        return ("state",)
    if not whole:
        return ("state", *(f"kernels_{name}" for name in GRU_GRADIENTS))
    return (f"losses_{adam}", *GRU_GRADIENTS, "d_head_kernel", "d_head_bias")


def check(reference: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray], names: tuple[str, ...]) -> float:
    """The largest relative error over `names`.

    Raises
    ------
    AnswersDifferError
        One is missing, has another shape, is not finite, or is further off than `TOLERANCE`; the message says which.
    """
    worst = 0.0
    for name in names:
        expected, actual = reference[name], answer.get(name)
        if actual is None or actual.shape != expected.shape:
            got = "nothing" if actual is None else actual.shape
            raise AnswersDifferError(f"answers differ: {name}: expected shape {expected.shape}, got {got}")
        scale = np.abs(expected).max() or 1.0  # after a single step from zeros, the recurrent gradients are zeros
        error = float(np.abs(np.subtract(actual, expected, dtype=np.float64)).max() / scale)
        if not error <= TOLERANCE:
            raise AnswersDifferError(f"answers differ: {name} is off by {error:.1e} of its largest element")
        worst = max(worst, error)
    return worst
