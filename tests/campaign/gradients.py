"""Gradients: float64 kernels against complex-step derivatives of the reference's forward pass.

A complex step has no truncation or cancellation error, only rounding errors. Small configurations are compared element
by element. For large ones, derivatives along random directions of signs are compared: they differ by about the norm of
the error, at the cost of one forward pass per direction.
"""

from __future__ import annotations

from random import Random

import complex_step
import gru_cases
import numpy as np
from error_bounds import norm_bound
from fastgru import functional, reference

from campaign import cases
from campaign.run import Run

#: Arrays with more elements are compared along directions.
_MOST_ELEMENTS = 40
_DIRECTIONS = 3


def run(run: Run) -> None:
    worst = 0.0
    for number in run.cases(least=4):
        random = run.random(number)
        kind = random.choices(("gru", "dense", "cross-entropy"), (10, 1, 1))[0]
        check = {"gru": _gru, "dense": _dense}.get(kind, _cross_entropy)
        worst = max(worst, check(run, number, random))
        run.counts[kind] += 1
    run.report.worst = f"relative error {worst:.1e}"


def compare(
    run: Run,
    number: int,
    random: Random,
    what: str,
    loss: complex_step.Function,
    arguments: list[np.ndarray | None],
    gradients: list[tuple[str, int, np.ndarray | None]],
    bound: float,
    *,
    least: float = 0.0,
) -> float:
    """Return the largest relative error of the gradients, each (name, index of the argument, array).

    An error above `bound` is a finding. Errors are relative to the norm of the gradient. If its terms may cancel, as in
    a gradient of few numbers, they are relative to the root mean square of all gradients, or to `least`.
    """
    wanted = [entry for entry in gradients if entry[2] is not None and entry[2].size > 0]
    numbers = np.concatenate([array.ravel() for _, _, array in wanted])
    least = max(least, float(np.sqrt(np.mean(np.square(numbers)))))
    worst = 0.0
    for name, index, gradient in wanted:
        if arguments[index].size <= _MOST_ELEMENTS:
            error = np.linalg.norm(gradient - complex_step.gradient(loss, arguments, index))
        else:
            error = _along_directions(random, loss, arguments, index, gradient)
        scale = max(np.linalg.norm(gradient), least * np.sqrt(gradient.size))
        error = float(error / scale) if scale > 0 else float(error)
        worst = max(worst, error)
        if not error <= bound:
            run.found(f"the gradient for {name} is wrong", f"{what}\nrelative error {error:.2e} of {bound:.2e}", number)
    return worst


def _along_directions(
    random: Random, loss: complex_step.Function, arguments: list[np.ndarray | None], index: int, gradient: np.ndarray
) -> float:
    """Estimate the L2 norm of the error."""
    rng = np.random.default_rng(random.randrange(2**31))
    errors = []
    for _ in range(_DIRECTIONS):
        direction = rng.choice((-1.0, 1.0), gradient.shape)
        errors.append(abs(np.vdot(gradient, direction) - complex_step.derivative(loss, arguments, index, direction)))
    return float(np.sqrt(np.mean(np.square(errors))))


# --- Kernels ----------------------------------------------------------------------------------------------------------


def _gru(run: Run, number: int, random: Random) -> float:
    case = cases.gru_case(random, _shape(random), np.float64)
    options = case.options
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, **options, tape=tape)
    found = functional.gru_backward(tape, case.d_outputs, case.d_state)

    loss, arguments = complex_step.gru_loss(case)
    gradients = [
        ("x", 0, found.x),
        ("kernel", 1, found.kernel),
        ("recurrent_kernel", 2, found.recurrent_kernel),
        ("bias", 3, found.bias),
        ("initial_state", 4, found.initial_state),
    ]
    bound = norm_bound(np.float64, case.shape, backward=True)
    return compare(run, number, random, cases.described(case), loss, arguments, gradients, bound)


def _shape(random: Random) -> tuple[int, int, int, int]:
    if random.random() < 0.5:
        return (random.randint(1, 3), random.randint(1, 4), random.randint(1, 3), random.randint(1, 3))
    if random.random() < 0.1:
        return random.choice([shape for shape in gru_cases.SHAPES if np.prod(shape) < 1e6])
    return (random.randint(1, 20), random.randint(1, 12), random.randint(1, 20), random.randint(1, 40))


def _dense(run: Run, number: int, random: Random) -> float:
    rng = np.random.default_rng(random.randrange(2**31))
    rows, features, columns = (random.choice((1, 2, 5, 9, 30)) for _ in range(3))
    x, kernel, bias = rng.normal(size=(rows, features)), rng.normal(size=(features, columns)), rng.normal(size=columns)
    d_y = rng.normal(size=(rows, columns))
    found = functional.dense_backward(x, kernel, d_y)

    def loss(*arguments: np.ndarray) -> float:
        return (reference.dense_forward(*arguments) * d_y).sum()

    gradients = [("x of dense", 0, found.x), ("kernel of dense", 1, found.kernel), ("bias of dense", 2, found.bias)]
    bound = norm_bound(np.float64, (rows, 1, features, columns), backward=True)
    return compare(run, number, random, f"{rows=} {features=} {columns=}", loss, [x, kernel, bias], gradients, bound)


def _cross_entropy(run: Run, number: int, random: Random) -> float:
    rng = np.random.default_rng(random.randrange(2**31))
    rows, classes = random.choice((1, 3, 7)), random.choice((2, 3, 10))
    logits = 2 * rng.normal(size=(rows, classes))
    targets = np.eye(classes)[rng.integers(0, classes, rows)] if random.random() < 0.5 else rng.random((rows, classes))
    found = functional.softmax_cross_entropy(logits, targets)

    def loss(logits: np.ndarray) -> float:
        return reference.softmax_cross_entropy(logits, targets)[0].mean()

    bound = norm_bound(np.float64, (rows, 1, classes, classes), backward=True)
    gradients = [("logits", 0, found.d_logits)]
    least = float(np.abs(targets).max()) / rows  # size of the terms: probabilities are subtracted from them
    return compare(run, number, random, f"{rows=} {classes=}", loss, [logits], gradients, bound, least=least)
