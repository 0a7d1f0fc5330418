"""`fastgru.keras.GRU` compared with ``keras.layers.GRU``, in one process per backend because Keras selects it once.

The tests themselves are in `keras_layer_on_backend.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.isa_independent

TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.peers("keras")
@pytest.mark.parametrize("backend", [pytest.param(b, marks=pytest.mark.peers(b)) for b in ("tensorflow", "torch")])
def test_the_layer_matches_keras_on_every_backend(backend):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "keras_layer_on_backend.py")]
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=environment, cwd=TESTS.parent, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.findall(r"(\d+) passed", result.stdout)[0]) > 60
    assert "skipped" not in result.stdout
