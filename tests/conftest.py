from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import fastgru
import numpy as np
import peers
import pytest
from fastgru import _native

#: Number of cases of each test with the marker ``quick``: the first, the last, and one between them.
QUICK_CASES = 3


def pytest_report_header():
    return f"fastgru {fastgru.__version__}, {_native.ISA} ({_native.REASON}), {fastgru.get_num_threads()} threads"


# --- Markers ----------------------------------------------------------------------------------------------------------


def pytest_ignore_collect(collection_path, config):
    """Ignore test modules that import a framework, if no test with the marker ``peers`` is selected."""
    leave_out = collection_path.suffix == ".py" and not peers.may_be_selected(config.option.markexpr)
    return True if leave_out and peers.required_by(collection_path) else None


def pytest_itemcollected(item):
    needed = set(peers.required_by(item.path))
    needed.update(name for fixture in item.fixturenames for name in peers.FIXTURES.get(fixture, ()))
    if needed:
        item.add_marker(pytest.mark.peers(*sorted(needed)))


@pytest.hookimpl(tryfirst=True)  # before tests are selected by markers
def pytest_collection_modifyitems(items):
    tests = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("peers") is None and item.get_closest_marker("slow") is None:
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        for place in {number * (len(cases) - 1) // (QUICK_CASES - 1) for number in range(QUICK_CASES)}:
            cases[place].add_marker("quick")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    if item.get_closest_marker("peers") is not None:
        return (yield)
    with peers.hidden():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for marker in item.iter_markers("peers"):
        peers.skip_without(*marker.args)


# --- Fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mnist_folder():
    """The folder with the real MNIST, which is not part of the repository."""
    folder = os.environ.get("FASTGRU_DATA")
    if not folder:
        pytest.skip("needs the real MNIST: set FASTGRU_DATA to a folder with its four files")
    return Path(folder)


@pytest.fixture(scope="session")
def keras():
    """Keras 3 on TensorFlow; skips if it is not installed (CI installs it)."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


@pytest.fixture(scope="session")
def keras_2(keras):
    """Keras 2 on the same TensorFlow; skips if it is not installed (CI installs it)."""
    del keras
    import tf_keras

    return tf_keras


@pytest.fixture(scope="session")
def torch():
    """PyTorch; skips if it is not installed (CI installs it)."""
    import torch

    return torch


@pytest.fixture
def sigint_interrupts():
    """Enable SIGINT in this process and its children; a shell ignores it in background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _same_threads_afterwards():
    before = fastgru.get_num_threads()
    yield
    fastgru.set_num_threads(before)


class TensorFlowJS:
    """TensorFlow.js in its own process; tests/node/serve.mjs documents the requests."""

    def __init__(self, process, errors):
        self._process, self._errors = process, errors

    def ask(self, **request):
        reply = self.try_to(**request)
        assert "error" not in reply, reply["error"]
        return reply

    def try_to(self, **request):
        self._process.stdin.write(json.dumps(request, default=np.ndarray.tolist) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"Node died: {self._errors.read()}")
        return json.loads(line)


@pytest.fixture(scope="session")
def tfjs():
    """TensorFlow.js on Node; skips if it is not installed (CI installs it)."""
    command = ["node", Path(__file__).parent / "node" / "serve.mjs"]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        yield TensorFlowJS(process, errors)
        process.stdin.close()
