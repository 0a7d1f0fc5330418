"""Bits: results are bit-identical on 1 to 8 threads, and a row has the same result alone and in any batch.

Random configurations of the GRU and dense kernels, softmax with cross-entropy, the optimizers, and training runs. Each
instruction set is a separate task, because the last bits may differ between them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import fastgru
import gru_cases
import numpy as np
from fastgru import Sequential, functional, layers
from gru_cases import Case

from campaign import cases
from campaign.run import Run

THREADS = range(1, 9)
#: Larger cases take too long.
_MOST_NUMBERS = 2_000_000
_MOST_ROWS_ALONE = 4

Results = dict[str, np.ndarray]


def run(run: Run) -> None:
    for number in run.cases(least=4):
        random = run.random(number)
        kind = random.choices(("gru", "dense", "cross-entropy", "optimizer", "training"), (12, 2, 2, 1, 1))[0]
        {"gru": _gru, "dense": _dense, "cross-entropy": _cross_entropy, "optimizer": _optimizer}.get(kind, _training)(
            run, number, random
        )
        run.counts[kind] += 1
    run.report.worst = "" if run.report.findings else "0 bits differ"


def on_threads(run: Run, number: int, what: str, compute: Callable[[], Results]) -> Results:
    """Check that the results of `compute` are the same on every number of threads."""
    expected: Results = {}
    for threads in THREADS:
        fastgru.set_num_threads(threads)
        results = compute()
        expected = expected or results
        for name, array in results.items():
            require_same(run, number, f"{name} differs between 1 and {threads} threads", what, expected[name], array)
    return expected


def require_same(run: Run, number: int, kind: str, what: str, one: np.ndarray, other: np.ndarray) -> None:
    if one.tobytes() != other.tobytes():
        with np.errstate(invalid="ignore"):
            run.found(kind, f"{what}\nlargest difference {np.abs(one - other).max()}", number)


# --- GRU --------------------------------------------------------------------------------------------------------------


def _gru(run: Run, number: int, random: Random) -> None:
    case = cases.gru_case(random, _gru_shape(random), random.choice((np.float32, np.float64)))
    case.x = cases.laid_out(random, case.x)
    if case.d_outputs is not None:
        case.d_outputs = cases.laid_out(random, case.d_outputs)
    torch = random.random() < 0.3
    results = on_threads(run, number, cases.described(case), lambda: _gru_results(case, torch=torch))
    rows = case.shape[0]
    for row in random.sample(range(rows), min(rows, _MOST_ROWS_ALONE)):
        alone = _gru_results(_row(case, row), torch=torch)
        for name in ("outputs", "state", "d_x", "d_initial_state"):
            kind = f"{name} of a row differs between the row alone and in a batch"
            require_same(run, number, kind, f"row {row} of {cases.described(case)}", alone[name][0], results[name][row])


def _gru_shape(random: Random) -> tuple[int, int, int, int]:
    """Return sizes next to those of registers, tiles and schedules, and sometimes a size of the tests."""
    while True:
        if random.random() < 0.2:
            shape = random.choice(gru_cases.SHAPES)
        else:
            rows = random.choice((1, 2, 3, 7, 8, 9, 16, 31, 33, 64, 65, 130, 300))
            units = random.choice((1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 100, 128, 225))
            shape = (rows, random.choice((1, 2, 3, 9, 28, 70)), random.choice((1, 2, 5, 28, 60, 131)), units)
        if shape[0] * shape[1] * (shape[2] + 5 * shape[3]) <= _MOST_NUMBERS:
            return shape


def _gru_results(case: Case, *, torch: bool) -> Results:
    arguments, options = list(case.arguments), dict(case.options)
    if torch:
        options["weight_layout"] = "torch"
        kernel, recurrent_kernel, bias = arguments[1:4]
        arguments[1:3] = [np.ascontiguousarray(_torch_order(array).T) for array in (kernel, recurrent_kernel)]
        arguments[3] = None if bias is None else _torch_order(bias)
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*arguments, **options, tape=tape)
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    arrays = {"outputs": outputs, "state": state}
    arrays |= {f"d_{name}": array for name, array in gradients._asdict().items() if array is not None}
    untaped, _ = functional.gru_forward(*arguments, **options)
    return {name: np.array(array) for name, array in (arrays | {"outputs without a tape": untaped}).items()}


def _torch_order(array: np.ndarray) -> np.ndarray:
    """Return weights or biases with the gates in PyTorch's order."""
    z, r, n = np.split(array, 3, axis=-1)
    return np.concatenate((r, z, n), axis=-1)


def _row(case: Case, row: int) -> Case:
    """Return the case of a single row."""
    options = dict(case.options)
    if "lengths" in options:
        options["lengths"] = options["lengths"][row : row + 1]
    if "recurrent_mask" in options:  # (N, H), or one per gate
        options["recurrent_mask"] = options["recurrent_mask"][..., row : row + 1, :]
    alone = Case((1, *case.shape[1:]), case.dtype, options)
    alone.x, alone.parameters = case.x[row : row + 1], case.parameters
    for name in ("initial_state", "d_outputs", "d_state"):
        array = getattr(case, name)
        setattr(alone, name, None if array is None else array[row : row + 1])
    return alone


# --- The other kernels ------------------------------------------------------------------------------------------------


def _numbers(random: Random, *shape: int, dtype: Any = None) -> np.ndarray:
    rng = np.random.default_rng(random.randrange(2**31))
    return rng.normal(size=shape).astype(dtype or np.float32)


def _dense(run: Run, number: int, random: Random) -> None:
    dtype = random.choice((np.float32, np.float64))
    count, features, columns = (random.choice((1, 2, 3, 8, 17, 64, 130, 257, 600)) for _ in range(3))
    x, kernel, bias, d_y = (
        _numbers(random, *shape, dtype=dtype)
        for shape in ((count, features), (features, columns), (columns,), (count, columns))
    )

    def compute() -> Results:
        return {"y": functional.dense_forward(x, kernel, bias)} | _named(functional.dense_backward(x, kernel, d_y))

    what = f"dense, {np.dtype(dtype)}, {count} rows, {features} features, {columns} columns"
    results = on_threads(run, number, what, compute)
    row = random.randrange(count)
    alone = functional.dense_forward(x[row : row + 1], kernel, bias)
    require_same(run, number, "a row of dense differs alone and in a batch", what, alone[0], results["y"][row])


def _cross_entropy(run: Run, number: int, random: Random) -> None:
    dtype = random.choice((np.float32, np.float64))
    count, classes = random.choice((1, 3, 64, 999, 4096)), random.choice((1, 2, 3, 10, 17, 100, 1000))
    logits = 5 * _numbers(random, count, classes, dtype=dtype)
    labels = np.array([random.randrange(classes) for _ in range(count)])

    def compute() -> Results:
        return {"softmax": functional.softmax(logits)} | _named(functional.softmax_cross_entropy(logits, labels))

    what = f"softmax and cross-entropy, {np.dtype(dtype)}, {count} rows, {classes} classes"
    results = on_threads(run, number, what, compute)
    row = random.randrange(count)
    alone = functional.softmax(logits[row : row + 1])
    require_same(run, number, "a row of softmax differs alone and in a batch", what, alone[0], results["softmax"][row])


def _optimizer(run: Run, number: int, random: Random) -> None:
    count, dtype = random.choice((1, 7, 1000, 50_001, 300_000)), random.choice((np.float32, np.float64))
    start, gradient = _numbers(random, count, dtype=dtype), _numbers(random, count, dtype=dtype)

    def compute() -> Results:
        parameters, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for step in (1, 2):
            functional.adam_update(parameters, gradient, m, v, step=step)
        return {"parameters": parameters, "m": m, "v": v, "norm": np.array(functional.norm(gradient))}

    on_threads(run, number, f"Adam, {np.dtype(dtype)}, {count} parameters", compute)


def _named(results: Any) -> Results:
    return {name: np.array(array) for name, array in results._asdict().items() if array is not None}


# --- Training -------------------------------------------------------------------------------------------------------


def _training(run: Run, number: int, random: Random) -> None:
    units, rows, batch = random.choice((3, 16, 33)), random.choice((20, 65, 150)), random.choice((7, 16, 64))
    bidirectional, reset_after = random.random() < 0.5, random.random() < 0.5
    x, y = _numbers(random, rows, 11, 5), np.array([random.randrange(3) for _ in range(rows)])
    lengths = np.array([random.randrange(12) for _ in range(rows)]) if random.random() < 0.5 else None

    def compute() -> Results:
        fastgru.set_seed(number)
        gru = layers.GRU(units, return_sequences=True, reset_after=reset_after, dropout=0.2)
        model = Sequential(
            [
                layers.Bidirectional(gru, input_shape=(11, 5)) if bidirectional else gru,
                layers.GRU(9, reset_after=reset_after),
                layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(x, y, lengths=lengths, epochs=2, batch_size=batch, verbose=0)
        predicted = model.predict(x, lengths=lengths)
        return {"parameters": model.parameters, "predictions": predicted, "loss": np.array(history.history["loss"])}

    what = f"a training, {units} units, {rows} rows in batches of {batch}, {bidirectional=}, {reset_after=}"
    on_threads(run, number, what, compute)
