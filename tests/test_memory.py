"""Loops reuse their memory, and documented memory sizes are correct.

What the kernels and their results ask of the system is counted by ``kernels.bytes_allocated``; what Python and NumPy
take, by tracemalloc.
"""

import subprocess
import sys
import tracemalloc

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, functional, layers
from fastgru._native import kernels

BATCH = 256
ROUNDS = 20


def make_model(reset_after=True):
    fastgru.set_seed(0)
    model = Sequential(
        [
            layers.GRU(64, input_shape=(28, 28), return_sequences=True, reset_after=reset_after),
            layers.GRU(32, reset_after=reset_after),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def traced_peak(call):
    """Return the peak of bytes that `call` allocates in addition, as reported by tracemalloc."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def data():
    rng = np.random.default_rng(0)
    return rng.random((4 * BATCH, 28, 28), np.float32), rng.integers(0, 10, 4 * BATCH)


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_training_loop_allocates_nothing(reset_after):
    model = make_model(reset_after)
    x, y = data()

    def steps(count):
        for _ in range(count):
            model.train_on_batch(x[:BATCH], y[:BATCH])

    steps(3)
    allocated = kernels.bytes_allocated()
    peak = traced_peak(lambda: steps(ROUNDS))
    assert kernels.bytes_allocated() == allocated
    # Labels, losses and Python objects; a layer's last state takes 65 KB, its outputs 1.8 MB.
    assert peak < 60_000


def test_flat_buffers_begin_on_a_cache_line():
    for units in (1, 7, 64):
        model = Sequential([layers.GRU(units, input_shape=(5, 3)), layers.Dense(2, activation="softmax")])
        model.compile("adam", "categorical_crossentropy")
        model.train_on_batch(np.zeros((2, 5, 3), np.float32), np.array([0, 1]))
        buffers = {"parameters": model.parameters, "gradient": model.gradient, **model.optimizer.states}
        assert {name: buffer.ctypes.data % 64 for name, buffer in buffers.items()} == dict.fromkeys(buffers, 0)
        gradients = [array.ctypes.data % 64 for layer in model.layers for array in layer.gradients.values()]
        assert gradients == [0] * 5


def test_fit_allocates_one_batch_and_the_order():
    model = make_model()
    x, y = data()
    model.fit(x, y, batch_size=BATCH, verbose=0)
    allocated = kernels.bytes_allocated()
    peak = traced_peak(lambda: model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0))
    assert kernels.bytes_allocated() == allocated
    assert peak < x[:BATCH].nbytes + 4 * y.nbytes + 64_000


def test_inference_allocates_its_result_only():
    model = make_model()
    x, _ = data()
    model.predict(x, batch_size=BATCH)
    allocated = kernels.bytes_allocated()
    peak = traced_peak(lambda: model.predict(x, batch_size=BATCH))
    assert kernels.bytes_allocated() == allocated
    assert peak < len(x) * 10 * 4 + 60_000


def test_a_reference_to_a_result_keeps_its_memory():
    x, kernel, recurrent = (np.ones(shape, np.float32) for shape in ((64, 3, 8), (8, 192), (64, 192)))
    _, first = functional.gru_forward(x, kernel / 100, recurrent / 100, return_sequences=False)
    expected = first.copy()
    view = first[10:20]
    del first
    for _ in range(20):
        functional.gru_forward(2 * x, kernel / 100, recurrent / 100, return_sequences=False)
    np.testing.assert_array_equal(view, expected[10:20])


SCRATCH = """
import sys, numpy as np
from fastgru import functional
from fastgru._native import kernels
steps = int(sys.argv[1])
weights = np.zeros((4, 96), np.float32), np.zeros((32, 96), np.float32)
functional.gru_forward(np.zeros((40, steps, 4), np.float32), *weights, return_sequences=False)
print(kernels.bytes_allocated())
"""


def test_inference_keeps_no_tape():
    def scratch(steps):
        return int(subprocess.check_output([sys.executable, "-c", SCRATCH, str(steps)], text=True))

    assert scratch(5_000) == scratch(5)


@pytest.mark.parametrize("steps", [28, 10_000])
def test_a_tape_has_the_documented_size(steps):
    """Five values per unit and step as documented for `functional.GRUTape`, and one more state, in whole registers."""
    rows, units = 3, 48
    tape = functional.GRUTape()
    weights = np.zeros((4, 3 * units), np.float32), np.zeros((units, 3 * units), np.float32)
    functional.gru_forward(np.zeros((rows, steps, 4), np.float32), *weights, return_sequences=False, tape=tape)
    stated = 4 * 5 * rows * (steps + 1) * units
    assert 0.95 * stated < tape.nbytes <= 1.01 * stated
