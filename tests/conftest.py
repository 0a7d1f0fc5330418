from __future__ import annotations

import os
from pathlib import Path

import fastgru
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
