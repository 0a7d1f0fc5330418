"""Random configurations of the kernels: options, shapes, lengths, masks, and memory layouts."""

from __future__ import annotations

from random import Random
from typing import Any

import gru_cases
import numpy as np
from gru_cases import Case

#: Memory layouts of sequences.
LAYOUTS = ("rows first", "steps first", "backwards", "spaced")


def gru_case(random: Random, shape: tuple[int, int, int, int], dtype: type) -> Case:
    """Return a case with random options."""
    lengths = random.choice((None, None, "random", "short", "one long", "zeros", "full"))
    options: dict[str, Any] = {
        "activation": random.choice(gru_cases.ACTIVATIONS),
        "recurrent_activation": random.choice(gru_cases.RECURRENT_ACTIVATIONS),
        "reset_after": random.random() < 0.6,
        "go_backwards": random.random() < 0.4,
    }
    if lengths is not None:
        options["padded_outputs"] = random.choice(("repeat", "zeros"))
        options["output_order"] = random.choice(("processing", "input"))
    d_outputs = random.random() < 0.8
    return gru_cases.make_case(
        shape,
        dtype,
        seed=random.randrange(2**31),
        bias=random.choice(gru_cases.BIASES),
        initial_state=random.random() < 0.6,
        d_outputs=d_outputs,
        d_state=not d_outputs or random.random() < 0.5,
        lengths=lengths,
        mask=random.random() < 0.3,
        **options,
    )


def laid_out(random: Random, array: np.ndarray) -> np.ndarray:
    """Return the same numbers (N, T, ...) with another memory layout."""
    match random.choice(LAYOUTS):
        case "steps first":
            return np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
        case "backwards":
            return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
        case "spaced":
            rows, steps, *rest = array.shape
            wide = np.zeros((rows, 2 * steps + 1, *rest), array.dtype)
            wide[:, 1::2] = array
            return wide[:, 1::2]
    return array


def described(case: Case) -> str:
    """Describe the case in a line, for a finding."""
    bias = None if case.parameters[2] is None else case.parameters[2].shape
    options = {name: value for name, value in case.options.items() if not isinstance(value, np.ndarray)}
    given = [name for name in ("initial_state", "d_outputs", "d_state") if getattr(case, name) is not None]
    lengths = case.options.get("lengths")
    return (
        f"{np.dtype(case.dtype)}, N T F H = {case.shape}, {options}, bias {bias}, {', '.join(given)}, "
        f"lengths {None if lengths is None else lengths.tolist()}, mask {'recurrent_mask' in case.options}"
    )
