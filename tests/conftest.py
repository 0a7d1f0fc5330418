from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import fastgru
import numpy as np
import pytest
from fastgru import _native


def pytest_report_header():
    return f"fastgru {fastgru.__version__}, {_native.ISA} ({_native.REASON}), {fastgru.get_num_threads()} threads"


@pytest.fixture
def mnist_folder():
    """The folder with the real MNIST, which is not part of the project."""
    folder = os.environ.get("FASTGRU_DATA")
    if not folder:
        pytest.skip("needs the real MNIST: set FASTGRU_DATA to a folder with its four files")
    return Path(folder)


@pytest.fixture(scope="session")
def keras():
    """Keras 3 on TensorFlow, where it is installed; CI installs it."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install keras tensorflow-cpu")
    return pytest.importorskip("keras", reason="needs Keras: pip install keras tensorflow-cpu")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, where it is installed; CI installs it."""
    return pytest.importorskip("torch", reason="needs PyTorch: pip install torch")


@pytest.fixture(autouse=True)
def _same_threads_afterwards():
    before = fastgru.get_num_threads()
    yield
    fastgru.set_num_threads(before)


class TensorFlowJS:
    """TensorFlow.js in a process of its own; tests/node/serve.mjs says what it can be asked."""

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
    """TensorFlow.js on Node, where it is installed; CI installs it."""
    folder = Path(__file__).parent / "node"
    modules = Path(os.environ.get("FASTGRU_NODE_MODULES") or folder / "node_modules")
    if shutil.which("node") is None or not (modules / "@tensorflow" / "tfjs").is_dir():
        pytest.skip("needs Node and TensorFlow.js: npm ci --prefix tests/node")
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            ["node", folder / "serve.mjs"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        yield TensorFlowJS(process, errors)
        process.stdin.close()
