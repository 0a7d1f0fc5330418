"""Random GRU configurations for the tests: every option, awkward sizes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from fastgru._native import kernels

ACTIVATIONS = kernels.ACTIVATIONS
RECURRENT_ACTIVATIONS = kernels.RECURRENT_ACTIVATIONS
BIASES = ("none", "one", "two")

# (N, T, F, H): single rows, steps, features and units; units next to multiples of every register width (4, 8, 16
# floats; 2, 4, 8 doubles); rows next to multiples of the tiles (4, 8); more rows than one group and more steps than one
# chunk of the backward pass. The last five have large weights, which Schedule (cpp/kernels/gru_schedule.hpp) splits by
# units or by rows, or into two groups of rows per part.
SHAPES = (
    (1, 1, 1, 1),
    (1, 7, 3, 5),
    (3, 4, 28, 16),
    (9, 3, 5, 17),
    (8, 5, 28, 64),
    (33, 6, 10, 31),
    (13, 2, 1, 48),
    (2, 40, 7, 8),
    (70, 11, 4, 12),
    (300, 3, 3, 7),
    (5, 130, 2, 3),
    (17, 9, 130, 40),
    (3, 3, 5, 225),
    (70, 3, 30, 230),
    (300, 3, 9, 213),
    (67, 2, 9000, 5),
    (1300, 2, 2, 3),
)


@dataclass
class Case:
    shape: tuple[int, int, int, int]
    dtype: type
    options: dict
    x: np.ndarray = field(init=False)
    parameters: tuple = field(init=False)
    initial_state: np.ndarray | None = None
    d_outputs: np.ndarray | None = None
    d_state: np.ndarray | None = None

    @property
    def arguments(self):
        return (self.x, *self.parameters, self.initial_state)


def make_case(
    shape=(8, 5, 28, 64),
    dtype=np.float64,
    *,
    seed=0,
    bias="two",
    initial_state=True,
    d_outputs=True,
    d_state=True,
    lengths=None,
    mask=False,
    **options,
):
    """A case whose weights keep relu and linear candidates bounded: |h| shrinks from step to step.

    `lengths` are an array or a kind of `some_lengths`. With `mask`, recurrent masks keep half the units at twice their
    value, as dropout does: one mask per gate, or with ``mask="one"`` one mask for all gates.
    """
    rows, steps, features, units = shape
    rng = np.random.default_rng(seed)

    def uniform(*size, scale=1.0):
        return (scale * rng.uniform(-1, 1, size)).astype(dtype)

    case = Case(shape, dtype, options)
    case.x = uniform(rows, steps, features)
    shapes = {"none": None, "one": (3 * units,), "two": (2, 3 * units)}
    case.parameters = (
        uniform(features, 3 * units, scale=2 / np.sqrt(features)),
        uniform(units, 3 * units, scale=1 / np.sqrt(units)),
        None if bias == "none" else uniform(*shapes[bias], scale=0.5),
    )
    case.initial_state = uniform(rows, units) if initial_state else None
    case.d_outputs = uniform(rows, steps, units) if d_outputs else None
    case.d_state = uniform(rows, units) if d_state else None
    if lengths is not None:
        options["lengths"] = some_lengths(lengths, rows, steps, rng) if isinstance(lengths, str) else lengths
    if mask:
        size = (rows, units) if mask == "one" else (3, rows, units)
        options["recurrent_mask"] = (2.0 * rng.integers(0, 2, size)).astype(dtype)
    return case


def some_lengths(kind, rows, steps, rng):
    if kind == "full":
        return np.full(rows, steps)
    if kind == "zeros":
        return np.zeros(rows, np.int64)
    if kind == "one long":
        return np.where(np.arange(rows) == rows // 2, steps, steps // 3)
    return rng.integers(0, (steps if kind == "random" else max(steps // 2, 1)) + 1, rows)


def option_grid():
    """Every combination of the options that change the arithmetic, each with a different awkward shape."""
    grid = itertools.product(ACTIVATIONS, RECURRENT_ACTIVATIONS, (True, False), BIASES, (False, True))
    for number, (activation, recurrent, reset_after, bias, go_backwards) in enumerate(grid):
        yield {
            "shape": SHAPES[number % len(SHAPES)],
            "seed": number,
            "activation": activation,
            "recurrent_activation": recurrent,
            "reset_after": reset_after,
            "bias": bias,
            "go_backwards": go_backwards,
            "initial_state": number % 3 != 0,
            "d_outputs": number % 4 != 1,
            "d_state": number % 4 != 2,
        }


def lengths_grid():
    """Every combination of the padding options with both forms and biases, each with a different awkward shape.

    A case with a single number is excluded, because its relative error is unbounded if it cancels.
    """
    grid = itertools.product(
        ("random", "short", "one long", "zeros"),
        (False, True),
        ("processing", "input"),
        ("repeat", "zeros"),
        (False, True),
        (True, False),
    )
    for number, (lengths, go_backwards, order, padded, mask, reset_after) in enumerate(grid):
        yield {
            "shape": SHAPES[1 + number % 11],
            "seed": number,
            "lengths": lengths,
            "go_backwards": go_backwards,
            "output_order": order,
            "padded_outputs": padded,
            "mask": mask,
            "reset_after": reset_after,
            "bias": BIASES[number % 3],
            "initial_state": number % 5 != 0,
            "d_outputs": number % 4 != 1,
            "d_state": number % 4 != 2,
        }


def case_id(settings):
    n, t, f, h = settings["shape"]
    form = "after" if settings["reset_after"] else "before"
    direction = "backwards" if settings["go_backwards"] else "forwards"
    return (
        f"{settings['activation']}-{settings['recurrent_activation']}-{form}-bias={settings['bias']}-{direction}"
        f"-N{n}T{t}F{f}H{h}"
    )
