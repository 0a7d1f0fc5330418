"""Kernels during interpreter shutdown: the process ends with status 0 and prints nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

PREAMBLE = """
import atexit, os, sys, threading, time
import numpy as np
import fastgru
from fastgru import functional

rng = np.random.default_rng(0)
def array(*shape): return rng.normal(size=shape).astype(np.float32)
x, kernel, recurrent_kernel = array(32, 60, 8), array(8, 192), array(64, 192)
initial_state, lengths, labels = array(32, 64), np.arange(32), np.zeros(512, int)
wide = array(300_000)
tape = functional.GRUTape()
functional.gru_forward(x, kernel, recurrent_kernel, tape=tape)

class SlowToGo:  # while the interpreter is finalized, threads in a kernel come back and ask for the GIL
    def __init__(self): self.sleep = time.sleep
    def __del__(self): self.sleep(0.3)
slow_to_go = SlowToGo()

def for_ever(call):
    while True:
        call()

def in_a_daemon_thread(call):
    threading.Thread(target=for_ever, args=(call,), daemon=True).start()
    time.sleep(0.1)
"""

MODEL = """
model = fastgru.Sequential([fastgru.layers.GRU(32, input_shape=(28, 28)), fastgru.layers.Dense(10)])
model.compile("adam", loss=fastgru.losses.SparseCategoricalCrossentropy(from_logits=True))
images, classes = fastgru.datasets.synthetic.make_digits(256, 1)
"""

CALLS = {
    "gru_forward": "functional.gru_forward(x, kernel, recurrent_kernel)",
    "gru_backward": "functional.gru_backward(tape, None, initial_state)",
    # NumPy also releases the GIL when it copies an array that a kernel cannot read in place.
    "gru_forward of a copy": "functional.gru_forward(wide_x, kernel, recurrent_kernel, lengths=lengths * 0)",
    "dense_forward": "functional.dense_forward(recurrent_kernel, array_192)",
    "dense_backward": "functional.dense_backward(recurrent_kernel, array_192, dense_d_y)",
    "softmax": "functional.softmax(logits)",
    "softmax_cross_entropy": "functional.softmax_cross_entropy(logits, labels)",
    "embedding_backward": "functional.embedding_backward(labels, logits, table)",
    "activate": "functional.activate(wide, 'tanh')",
    "norm": "functional.norm(wide)",
    "adam_update": "functional.adam_update(wide, wide_g, wide_m, wide_v, step=1)",
    "sgd_update": "functional.sgd_update(wide, wide_g)",
    "rmsprop_update": "functional.rmsprop_update(wide, wide_g, wide_v)",
}
ARRAYS = """
wide_x = np.broadcast_to(array(1, 1, 16), (32, 40_000, 16))[:, :, ::2]
array_192, dense_d_y = array(192, 2000), array(64, 2000)
logits, table = array(512, 200), array(3, 200)
wide_g, wide_m, wide_v = array(300_000), array(300_000), array(300_000) ** 2
"""


def run(program, *, status=0):
    result = subprocess.run(
        [sys.executable, "-c", PREAMBLE + program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (status, "")
    return result.stdout


@pytest.mark.parametrize("call", CALLS)
def test_a_daemon_thread_in_a_kernel_does_not_disturb_the_exit(call):
    # The process aborted: the thread was ended when a destructor acquired the GIL.
    program = f"in_a_daemon_thread(lambda: {CALLS[call]})\nprint('leaving')"
    assert run(ARRAYS + program) == "leaving\n"


@pytest.mark.parametrize("call", ["model.fit(images, classes, verbose=0)", "model.predict(images)"])
def test_a_daemon_thread_in_a_model_does_not_disturb_the_exit(call):
    assert run(f"{MODEL}\nin_a_daemon_thread(lambda: {call})\nprint('leaving')") == "leaving\n"


def test_many_daemon_threads_and_a_kernel_of_the_main_thread_at_exit():
    program = """
class Last:
    def __init__(self): self.call = functional.gru_forward
    def __del__(self): print(self.call(x, kernel, recurrent_kernel)[0].shape)
import colorsys  # a module that no daemon thread keeps alive
colorsys.last = Last()
for _ in range(4):
    in_a_daemon_thread(lambda: functional.gru_forward(x, kernel, recurrent_kernel))
"""
    assert run(program) == "(32, 60, 64)\n"


def test_a_daemon_thread_does_not_disturb_an_exit_by_an_exception():
    result = subprocess.run(
        [sys.executable, "-c", f"{PREAMBLE}\nin_a_daemon_thread(lambda: {CALLS['gru_forward']})\nsys.exit(3)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")


@pytest.mark.parametrize("call", CALLS)
def test_kernels_run_in_finalizers_at_exit(call):
    # Imports fail then, and every interruptible kernel and every copy of an argument used to import something.
    program = f"""
class Last:
    def __del__(self):
        {CALLS[call]}
        print("done")
Last.itself = Last()
"""
    assert run(ARRAYS + program) == "done\n"


@pytest.mark.parametrize("call", ["model.fit(images, classes, verbose=0)", "model.predict(images)"])
def test_models_run_in_atexit_handlers(call):
    program = f"""
def last():
    {call}
    print("done")
atexit.register(last)
in_a_daemon_thread(lambda: functional.gru_forward(x, kernel, recurrent_kernel))
"""
    assert run(MODEL + program) == "done\n"


def test_a_model_predicts_in_a_finalizer_at_the_end():
    program = """
class Last:
    def __del__(self):
        print(model.predict(images).shape)
Last.itself = Last()
"""
    assert run(MODEL + program) == "(256, 10)\n"


def test_a_daemon_thread_in_a_forked_child_does_not_disturb_its_exit():
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
def work(): functional.gru_forward(x, kernel, recurrent_kernel)
in_a_daemon_thread(work)
pid = os.fork()
if pid == 0:
    in_a_daemon_thread(work)
    print("leaving")
else:
    print("status", os.waitpid(pid, 0)[1])
"""
    assert run(program) == "leaving\nstatus 0\n"


@pytest.mark.parametrize("forking", ["main thread", "other thread"])
def test_ctrl_c_ends_a_long_call_in_a_forked_child(forking):
    # The thread that forks becomes the main thread of the child.
    program = f"""
import signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
del slow_to_go
long = np.broadcast_to(array(1, 1, 8), (512, 200_000, 8))
def fork():
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        begin = time.monotonic()
        try:
            functional.gru_forward(long, kernel, recurrent_kernel, return_sequences=False)
        except KeyboardInterrupt:
            os._exit(0 if time.monotonic() - begin < 5 else 1)
        os._exit(2)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: return print("status", status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    print("not interrupted")
if {forking!r} == "main thread":
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    fork()
else:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
"""
    assert run(program) == "status 0\n"


def test_a_terminated_process_dies_of_the_signal_while_kernels_run():
    program = (
        f"{PREAMBLE}\nin_a_daemon_thread(lambda: {CALLS['gru_forward']})\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGTERM)
        begin = time.monotonic()
        assert process.wait(timeout=30) == -signal.SIGTERM
        assert time.monotonic() - begin < 10
        assert process.stderr.read() == b""
