"""The number of threads affects the run time only; forks, signals and concurrent calls are safe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import fastgru
import numpy as np
import pytest
from concurrency import in_threads
from fastgru import functional
from fastgru._native import kernels
from fastgru.functional import MOST_THREADS
from gru_cases import make_case

COUNTS = (1, 2, 3, 4, 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        *[(1, 9, 3, 40), (7, 5, 28, 64), (32, 28, 28, 64), (300, 4, 5, 17), (130, 11, 6, 100)],
        # Large weights, split by units or by rows; two groups of rows per part; a tape written past the caches.
        *[(3, 3, 5, 225), (70, 3, 30, 230), (300, 3, 9, 213), (67, 2, 9000, 5), (1300, 2, 2, 3), (130, 300, 2, 100)],
    ],
    ids=str,
)
def test_gru_has_the_same_bits_on_any_number_of_threads(shape, reset_after, dtype):
    case = make_case(shape, dtype, reset_after=reset_after)
    results = []
    for count in COUNTS:
        fastgru.set_num_threads(count)
        tape = functional.GRUTape()
        outputs = functional.gru_forward(*case.arguments, **case.options, tape=tape)
        untaped = functional.gru_forward(*case.arguments, **case.options)
        results.append((*outputs, *untaped, *functional.gru_backward(tape, case.d_outputs, case.d_state)))
        for a, b in zip(outputs, untaped, strict=True):
            np.testing.assert_array_equal(a, b)
    for count, result in zip(COUNTS[1:], results[1:], strict=True):
        for a, b in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{count} threads")


@pytest.mark.parametrize("shape", [(4, 3, 5, 9), (33, 28, 28, 64), (200, 9, 20, 33)], ids=str)
def test_sleeping_workers_do_not_change_results(shape):
    # The calling thread computes a short call alone; in a longer call the workers start late, or too late.
    case = make_case(shape, np.float32)
    tape = functional.GRUTape()
    expected = None
    for pause in (0.0, 0.0, 0.0005, 0.002, 0.0003, 0.0):
        fastgru.set_num_threads(3)
        time.sleep(pause)
        outputs = functional.gru_forward(*case.arguments, tape=tape)
        time.sleep(pause)
        results = (*outputs, *functional.gru_backward(tape, case.d_outputs, case.d_state))
        for a, b in zip(expected or results, results, strict=True):
            np.testing.assert_array_equal(a, b)
        expected = results


def test_other_kernels_have_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(900, 70)).astype(np.float32), rng.normal(size=(70, 90)).astype(np.float32)
    labels = rng.integers(0, 90, 900)
    some = np.flatnonzero(rng.random(900) < 0.8)
    p, g = rng.normal(size=50_001).astype(np.float32), rng.normal(size=50_001).astype(np.float32)
    results = []
    for count in COUNTS:
        fastgru.set_num_threads(count)
        y = functional.dense_forward(x, kernel)
        updated, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
        functional.adam_update(updated, g, m, v, step=1)
        entropy = functional.softmax_cross_entropy(y, labels)
        of_some = functional.dense_backward(x, kernel, y[some], rows=some)
        results.append(
            (y, *functional.dense_backward(x, kernel, y), *of_some, *entropy, updated, m, v, functional.softmax(y))
        )
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_training_has_the_same_bits_on_any_number_of_threads_and_on_every_run(threads):
    def weights(count):
        fastgru.set_num_threads(count)
        fastgru.set_seed(3)
        x, y = fastgru.datasets.synthetic.make_digits(500, 1)
        model = fastgru.Sequential(
            [
                fastgru.layers.GRU(24, input_shape=(28, 28), return_sequences=True),
                fastgru.layers.GRU(19),
                fastgru.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, epochs=2, batch_size=37, verbose=0)
        return model.parameters

    np.testing.assert_array_equal(weights(threads), weights(2))


@pytest.mark.slow
def test_the_default_is_omp_num_threads_else_the_processors_or_their_quota():
    program = "import fastgru; print(fastgru.get_num_threads())"
    for value, expected in (("3", "3"), ("2,1", "2"), ("", None), ("nonsense", None)):
        environment = os.environ | {"OMP_NUM_THREADS": value}
        printed = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
        quota = kernels.cpu_quota() or MOST_THREADS
        assert printed == (expected or str(min(len(os.sched_getaffinity(0)), quota)))


@pytest.mark.parametrize("count", [0, -1, 1025, 10**30])
def test_invalid_numbers_of_threads_raise(count):
    with pytest.raises(ValueError, match=r"count: expected an integer of at (least 1|most 1024), got"):
        fastgru.set_num_threads(count)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_after_its_parent_has():
    fastgru.set_num_threads(4)
    case = make_case((64, 6, 8, 32), np.float32)
    expected, _ = functional.gru_forward(*case.arguments)
    child = os.fork()
    if child == 0:
        outputs, _ = functional.gru_forward(*case.arguments)
        os._exit(0 if np.array_equal(outputs, expected) else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_concurrent_calls_from_python_threads_agree():
    fastgru.set_num_threads(2)
    case = make_case((40, 12, 8, 32), np.float32)
    expected, _ = functional.gru_forward(*case.arguments)
    wrong = []

    def work():
        for _ in range(50):
            outputs, _ = functional.gru_forward(*case.arguments)
            if not np.array_equal(outputs, expected):
                wrong.append(1)

    in_threads(4, work)
    assert not wrong


def test_a_tape_in_use_raises():
    fastgru.set_num_threads(1)
    case = make_case((64, 2000, 4, 64), np.float32)
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, tape=tape, return_sequences=False)
    refused = []

    def work():
        for _ in range(5):
            try:
                functional.gru_backward(tape, None, case.d_state, input_gradient=False)
            except RuntimeError as error:
                refused.append(str(error))

    in_threads(2, work)
    assert refused
    assert set(refused) == {
        "tape: expected a tape that is not in use, got one in use by another thread; use one tape per thread"
    }


def test_nbytes_of_a_tape_in_use_can_be_read():
    # Without the GIL one thread read these while another wrote them.
    tape = functional.GRUTape()
    cases = [make_case((16, steps, 4, 16), np.float32) for steps in (50, 400)]
    for case in cases:
        functional.gru_forward(*case.arguments, tape=tape)
    largest, seen, done = tape.nbytes, set(), threading.Event()

    def work():
        for _ in range(100):
            for case in cases:
                functional.gru_forward(*case.arguments, tape=tape)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        seen.add((tape.nbytes, tape.recorded))
    worker.join()
    assert seen
    assert seen <= {(largest, False), (largest, True)}
    assert (tape.nbytes, tape.recorded) == (largest, True)


def test_a_signal_handler_may_call_a_kernel_while_one_runs():
    fastgru.set_num_threads(2)
    case = make_case((64, 800, 8, 128), np.float32)
    expected, _ = functional.gru_forward(*case.arguments)
    small = make_case((16, 3, 4, 8), np.float32)
    wanted, _ = functional.gru_forward(*small.arguments)
    answers = []
    before = signal.signal(signal.SIGALRM, lambda *_: answers.append(functional.gru_forward(*small.arguments)[0]))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        outputs, _ = functional.gru_forward(*case.arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(outputs, expected)
    assert answers
    for answer in answers:
        np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_call_checks_for_signals_ten_times_a_second(direction):
    # Each poll acquires the GIL, which other threads of the program use.
    fastgru.set_num_threads(2)
    case = make_case((64, 1000, 8, 100), np.float32)
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, tape=tape)
    handled = []
    before = signal.signal(signal.SIGALRM, lambda *_: handled.append(time.monotonic()))
    asked, spent, calls = 0, 0.0, 0
    try:
        while spent < 1.5:
            signal.setitimer(signal.ITIMER_REAL, 0.004, 0.004)
            begin = time.monotonic()
            if direction == "forward":
                functional.gru_forward(np.broadcast_to(case.arguments[0][:, :1], (64, 8000, 8)), *case.arguments[1:])
            else:
                functional.gru_backward(tape, case.d_outputs, case.d_state)
            end = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0)
            asked += sum(begin < moment < end for moment in handled)
            spent, calls = spent + end - begin, calls + 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert asked <= spent / 0.1 + 2 * calls  # Python itself checks before and after each call


DAEMON = """
import threading, time
import numpy as np
from fastgru import functional
from fastgru._native import kernels
from fastgru.functional import MOST_THREADS
x = np.zeros((64, 3000, 8), np.float32)
weights = np.zeros((8, 1536), np.float32), np.zeros((512, 1536), np.float32)
threading.Thread(target=lambda: functional.gru_forward(x, *weights, return_sequences=False), daemon=True).start()
time.sleep(0.2)
print("leaving")
"""


def test_a_daemon_thread_in_a_kernel_does_not_disturb_the_exit():
    result = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "leaving\n", "")


INTERRUPTED = """
import signal, sys, threading, os, time
import numpy as np
from fastgru import functional
from fastgru._native import kernels
from fastgru.functional import MOST_THREADS
def zeros(*shape): return np.zeros(shape, np.float32)
tape = functional.GRUTape() if sys.argv[1] == "backward" else None
arguments = [zeros(64, 300, 8), zeros(8, 1536), zeros(512, 1536)]
if tape is not None:
    functional.gru_forward(*arguments, tape=tape, return_sequences=False)
threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begin = time.monotonic()
try:
    while time.monotonic() < begin + 100:
        if tape is None:
            functional.gru_forward(np.broadcast_to(zeros(1, 1, 8), (512, 20000, 8)), *arguments[1:],
                                   return_sequences=False)
        else:
            functional.gru_backward(tape, None, zeros(64, 512))
except KeyboardInterrupt:
    print("interrupted after", time.monotonic() - begin)
else:
    print("never interrupted")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("sigint_interrupts")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_ctrl_c_ends_a_long_call(direction):
    # The forward call would take minutes: the test passes only if the kernel itself stops.
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, direction], capture_output=True, text=True, timeout=90, check=False
    )
    assert result.stdout.startswith("interrupted after"), result.stderr
