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


@pytest.fixture(autouse=True)
def _same_threads_afterwards():
    before = fastgru.get_num_threads()
    yield
    fastgru.set_num_threads(before)
