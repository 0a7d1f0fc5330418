"""Complex-step derivatives, which have no truncation or cancellation error, only rounding errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from fastgru import reference
from gru_cases import Case

STEP = 1e-30

Arrays = Sequence[np.ndarray | None]
Function = Callable[..., float]


def derivative(function: Function, arrays: Arrays, index: int, direction: np.ndarray) -> float:
    """Return the derivative of a scalar function with respect to arrays[index], in the direction."""
    moved = list(arrays)
    moved[index] = arrays[index] + 1j * STEP * direction
    return function(*moved).imag / STEP


def gradient(function: Function, arrays: Arrays, index: int) -> np.ndarray:
    """Return the gradient of a scalar function for arrays[index], element by element."""
    found = np.zeros(arrays[index].shape)
    for place in np.ndindex(found.shape):
        direction = np.zeros_like(found)
        direction[place] = 1
        found[place] = derivative(function, arrays, index, direction)
    return found


def gru_loss(case: Case) -> tuple[Function, list[np.ndarray | None]]:
    """Return a loss whose gradients for the outputs are the case's, computed by the reference, and its arguments."""

    def loss(*arguments: np.ndarray | None) -> float:
        outputs, state = reference.gru_forward(*arguments, **case.options)
        total = 0.0
        if case.d_outputs is not None:
            total = total + (outputs * case.d_outputs).sum()
        if case.d_state is not None:
            total = total + (state * case.d_state).sum()
        return total

    arguments = list(case.arguments)
    if arguments[4] is None:
        arguments[4] = np.zeros((case.shape[0], case.shape[3]))
    return loss, arguments
