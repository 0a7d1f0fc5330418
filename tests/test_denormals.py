"""Kernels flush denormal numbers to zero; outside of kernels they are unchanged, on every thread."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from fastgru import functional
from gru_cases import make_case

TINY = {np.float32: 1e-40, np.float64: 1e-310}


def tiny(dtype, *shape):
    return np.full(shape, TINY[dtype], dtype)


def honoured():
    """Whether arithmetic on this thread supports denormals."""
    with np.errstate(all="ignore"):
        return bool(
            np.float64(2.0**-1030) * np.float64(2.0**-20) > 0
            and (np.full(64, 1e-40, np.float32) * np.float32(2.0) > 0).all()
        )


def adam(dtype):
    p, m, v = tiny(dtype, 40), tiny(dtype, 40), np.ones(40, dtype)
    functional.adam_update(p, tiny(dtype, 40), m, v, step=1)
    return m


def sgd(dtype):
    p = tiny(dtype, 40)
    functional.sgd_update(p, tiny(dtype, 40), learning_rate=0.5)
    return p


def rmsprop(dtype):
    p, v = tiny(dtype, 40), tiny(dtype, 40)
    functional.rmsprop_update(p, tiny(dtype, 40), v)
    return v


def embedding(dtype):
    d_table = np.zeros((3, 20), dtype)
    functional.embedding_backward(np.array([0, 1, 2, 0]), tiny(dtype, 4, 20), d_table)
    return d_table


def gru(dtype, part):
    arguments = [tiny(dtype, 3, 4, 5), np.ones((5, 18), dtype), np.zeros((6, 18), dtype)]
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*arguments, tape=tape)
    if part == "forward":
        return np.append(outputs, state)
    gradients = functional.gru_backward(tape, None, tiny(dtype, 3, 6))
    return np.concatenate([array.ravel() for array in gradients if array is not None])


def dense(dtype, part):
    x, kernel = tiny(dtype, 7, 5), np.ones((5, 3), dtype)
    if part == "forward":
        return functional.dense_forward(x, kernel)
    return functional.dense_backward(x, kernel, np.full((7, 3), 0.5, dtype)).kernel


KERNELS = {
    "tanh": lambda dtype: functional.activate(tiny(dtype, 40), "tanh"),
    "relu": lambda dtype: functional.activate(tiny(dtype, 40), "relu"),
    "embedding_backward": embedding,
    "norm": lambda dtype: np.array(functional.norm(tiny(dtype, 40))),
    "norm of squares": lambda _: np.array(functional.norm(np.full(40, 1e-155))),
    "gru_forward": lambda dtype: gru(dtype, "forward"),
    "gru_backward": lambda dtype: gru(dtype, "backward"),
    "dense_forward": lambda dtype: dense(dtype, "forward"),
    "dense_backward": lambda dtype: dense(dtype, "backward"),
    "adam_update": adam,
    "sgd_update": sgd,
    "rmsprop_update": rmsprop,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_flush_denormals_and_leave_the_mode_as_it_was(name, dtype):
    # Activations, embeddings and norms did not flush.
    assert honoured()
    assert not KERNELS[name](dtype).any()
    assert honoured()


def test_the_pools_workers_flush_denormals():
    functional.set_num_threads(3)
    for _ in range(20):  # in quick succession, so that the workers are awake
        assert not functional.dense_forward(tiny(np.float32, 4000, 64), np.ones((64, 64), np.float32)).any()
    assert honoured()


def test_a_kernel_that_fails_leaves_the_mode_as_it_was():
    x = np.broadcast_to(np.zeros((1, 1, 1), np.float32), (1, 1 << 44, 1))
    weights = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)
    with pytest.raises(MemoryError):
        functional.gru_forward(x, *weights, tape=functional.GRUTape())
    assert honoured()


def test_another_thread_keeps_its_mode():
    answers = []
    case = make_case((8, 5, 4, 9), np.float32)

    def work():
        functional.gru_forward(*case.arguments)
        functional.norm(tiny(np.float64, 9))
        answers.append(honoured())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [True]


@pytest.mark.slow
def test_signal_handlers_run_with_denormals():
    functional.set_num_threads(1)
    answers = []
    before = signal.signal(signal.SIGALRM, lambda *_: answers.append(honoured()))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    x = np.broadcast_to(np.zeros((1, 1, 8), np.float32), (64, 20_000, 8))
    try:
        functional.gru_forward(x, np.zeros((8, 384), np.float32), np.zeros((128, 384), np.float32),
                               return_sequences=False)  # fmt: skip
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert answers
    assert all(answers)
    assert honoured()
