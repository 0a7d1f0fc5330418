"""Hashes of results of random configurations, to show that a change keeps results bit-identical.

Uses the public API only, so that it runs with any build::

    PYTHON_OF_ONE_BUILD tests/hashes.py --count 200 --out before
    PYTHON_OF_THE_OTHER tests/hashes.py --count 200 --out after
    diff before after

Each line has the number of the configuration, a hash, and its description. Half of them call the GRU kernels (outputs,
states, all gradients). The other half train models for three batches of different lengths (predictions, losses,
gradients, trained weights). The environment variable ``FASTGRU_ISA`` selects the instruction set.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fastgru
import numpy as np
from fastgru import Sequential, functional, layers

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")


def hash_of(arrays: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            array = np.asarray(array)
            found.update(str((array.dtype, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:24]


def sizes(choice: random.Random) -> tuple[int, int, int, int]:
    """Return N, T, F and H, including sizes next to those of registers, tiles and schedules."""
    rows = choice.choice((1, 2, 3, 7, 8, 16, 31, 32, 33, 64, 100, 128, 200, 256, 513, 1024))
    units = choice.choice((1, 3, 4, 8, 15, 16, 17, 24, 32, 48, 63, 64, 65, 96, 128, 160, 256))
    features = choice.choice((1, 2, 5, 8, 13, 28, 40, 64, 130))
    steps = choice.choice((1, 2, 5, 9, 28, 60))
    while rows * steps * units * units > 40_000_000:
        rows, steps = max(rows // 2, 1), max(steps // 2, 1)
    return rows, steps, features, units


def kernels(choice: random.Random) -> tuple[str, list[Any]]:
    """Return outputs and gradients of one call of the GRU kernels."""
    rows, steps, features, units = sizes(choice)
    dtype = choice.choice((np.float32, np.float32, np.float64))
    numbers = np.random.default_rng(choice.randrange(2**32))

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (numbers.standard_normal(shape) * scale).astype(dtype)

    torch = choice.random() < 0.3
    turned = (lambda array: np.ascontiguousarray(array.T)) if torch else (lambda array: array)
    options: dict[str, Any] = {
        "activation": choice.choice(("tanh", "tanh", "relu", "linear")),
        "recurrent_activation": choice.choice(("sigmoid", "sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs")),
        "reset_after": choice.random() < 0.6,
        "go_backwards": choice.random() < 0.3,
        "padded_outputs": choice.choice(("repeat", "zeros")),
        "output_order": choice.choice(("processing", "input")),
        "weight_layout": "torch" if torch else "keras",
        "return_sequences": choice.random() < 0.7,
    }
    biases = choice.choice((0, 1, 2)) if options["reset_after"] else choice.choice((0, 1))
    bias = None if biases == 0 else normal(3 * units) if biases == 1 else normal(2, 3 * units)
    lengths = numbers.integers(0, steps + 1, rows) if choice.random() < 0.4 else None
    state = normal(rows, units) if choice.random() < 0.4 else None
    masks = choice.choice((None, None, None, (rows, units), (3, rows, units)))
    if masks is not None:
        options["recurrent_mask"] = ((normal(*masks) > 0) * 1.25).astype(dtype)
    tape = functional.GRUTape() if choice.random() < 0.8 else None
    x = normal(rows, steps, features)
    if choice.random() < 0.3:
        x = normal(steps, rows, 2 * features)[:, :, :features].swapaxes(0, 1)
    outputs, last = functional.gru_forward(
        x,
        turned(normal(features, 3 * units, scale=0.3)),
        turned(normal(units, 3 * units, scale=units**-0.5)),
        bias,
        state,
        lengths=lengths,
        tape=tape,
        **options,
    )
    what = f"gru N={rows} T={steps} F={features} H={units} {np.dtype(dtype)} biases={biases} masks={masks is not None}"
    what = f"{what} lengths={lengths is not None} tape={tape is not None}"
    if tape is None:
        return what, [outputs, last]
    d_outputs = normal(rows, steps, units) if options["return_sequences"] else None
    d_state = normal(rows, units) if d_outputs is None or choice.random() < 0.5 else None
    inputs = choice.random() < 0.6
    gradients = functional.gru_backward(tape, d_outputs, d_state, input_gradient=inputs)
    return what, [outputs, last, *gradients]


def model(choice: random.Random) -> tuple[str, list[Any]]:
    """Return predictions, losses, gradients and weights of a model that is trained on three batches."""
    rows, steps, features, units = sizes(choice)
    dtype = choice.choice(("float32", "float32", "float64"))
    depth, several = choice.choice((1, 1, 2)), choice.random() < 0.4
    masked, tokens = choice.random() < 0.3, choice.random() < 0.2
    classes, head = choice.choice((2, 3, 10, 40)), choice.choice(("softmax", "sigmoid", "linear"))
    seed = choice.randrange(2**31)
    fastgru.set_seed(seed)
    row: list[Any] = [layers.Embedding(50, features)] if tokens else []
    for level in range(depth):
        gru = layers.GRU(
            units,
            return_sequences=several or level < depth - 1,
            reset_after=choice.random() < 0.6,
            dropout=choice.choice((0.0, 0.0, 0.3)),
            recurrent_dropout=choice.choice((0.0, 0.0, 0.0, 0.2)),
        )
        row.append(layers.Bidirectional(gru) if choice.random() < 0.3 else gru)
    row.append(layers.Dense(classes, activation=head))
    made = Sequential(row, dtype=dtype)
    optimizer = choice.choice(OPTIMIZERS)
    loss = {"softmax": "sparse_categorical_crossentropy", "sigmoid": "binary_crossentropy"}.get(head, "huber")
    made.compile(optimizer, loss)
    numbers = np.random.default_rng(seed)
    results: list[Any] = []
    for count in (rows, max(rows // 2, 1), rows):
        x = numbers.standard_normal((count, steps, features)).astype(dtype)
        if tokens:
            x = numbers.integers(0, 50, (count, steps))
        shape = (count, steps) if several else (count,)
        y = numbers.integers(0, classes, shape)
        if head == "sigmoid":
            y = numbers.integers(0, 2, (*shape, classes))
        if head == "linear":
            y = numbers.standard_normal((*shape, classes)).astype(dtype)
        lengths = numbers.integers(1, steps + 1, count) if masked else None
        results.append(made.predict(x, lengths=lengths) if made.built else None)
        results.append(np.array(made.train_on_batch(x, y, lengths=lengths)))
        results.append(made.gradient[made.gradient != 0])  # without the padding between weights
    weights = made.get_weights()
    what = f"model N={rows} T={steps} F={features} H={units} {dtype} layers={depth} steps={several} lengths={masked}"
    return f"{what} tokens={tokens} {head} {optimizer}", [*results, *weights]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out.open("w") if arguments.out else sys.stdout
    for number in range(arguments.count):
        choice = random.Random(f"fastgru {number}")
        what, arrays = (kernels if number % 2 == 0 else model)(choice)
        print(number, hash_of(arrays), what, file=out)


if __name__ == "__main__":
    main()
