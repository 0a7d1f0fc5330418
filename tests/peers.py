"""The frameworks that tests compare with. The package needs none of them.

A test that needs a framework has the marker ``peers``. `conftest.py` sets it from the test's fixtures (`FIXTURES`) and
its module (`require`). Other tests set it explicitly: ``@pytest.mark.peers("onnx")``, or `parameters` for some of their
cases. If a framework is missing, its tests are skipped. Tests without the marker cannot import any of them, so that a
missing marker is an error on every machine.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

#: How to install each framework. All except TensorFlow.js are Python packages.
INSTALL = {
    "torch": "pip install torch",
    "tensorflow": "pip install keras tensorflow-cpu",
    "keras": "pip install keras tensorflow-cpu",
    "tf_keras": "pip install tf-keras --no-deps",
    "onnx": "pip install onnx",
    "onnxruntime": "pip install onnxruntime",
    "onnxscript": "pip install onnxscript",
    "pandas": "pip install pandas",
    "tensorboardX": "pip install tensorboardX",
    "tensorboard": "pip install tensorboard",
    "sklearn": "pip install 'scikit-learn>=1.6'",
    "tfjs": "npm ci --prefix tests/node",
}
#: Fixtures of conftest.py, and the frameworks that they need.
FIXTURES = {"keras": ("tensorflow", "keras"), "keras_2": ("tf_keras",), "torch": ("torch",), "tfjs": ("tfjs",)}
NODE_MODULES = Path(os.environ.get("FASTGRU_NODE_MODULES") or Path(__file__).parent / "node" / "node_modules")


@functools.cache
def installed(name: str) -> bool:
    if name == "tfjs":
        return shutil.which("node") is not None and (NODE_MODULES / "@tensorflow" / "tfjs").is_dir()
    return importlib.util.find_spec(name) is not None


def skip_without(*names: str) -> None:
    for name in names:
        if not installed(name):
            pytest.skip(f"needs {name}: {INSTALL[name]}")


def require(name: str, minimum: str | None = None) -> ModuleType:
    """Import a framework at the top of a test module that cannot be imported without it."""
    return pytest.importorskip(name, minimum, reason=f"needs {name}: {INSTALL[name]}")


@functools.cache
def required_by(path: Path) -> tuple[str, ...]:
    """Return the frameworks that a test module requires: those of its calls of `require`."""
    return tuple(re.findall(r'^(?:\w+ = )?peers\.require\("(\w+)"', path.read_text(), re.MULTILINE))


def parameters(names):
    """Return file names as test parameters; those that the package onnx reads and writes have the marker."""
    return [pytest.param(name, marks=pytest.mark.peers("onnx")) if name.endswith("onnx") else name for name in names]


def may_be_selected(expression: str, others: tuple[str, ...] = ("slow", "isa_independent")) -> bool:
    """Whether an expression of ``pytest -m`` selects a test with the marker ``peers`` and some others."""
    if not expression:
        return True
    for values in itertools.product((False, True), repeat=len(others)):
        marks = {"peers": True, "quick": False, **dict(zip(others, values, strict=True))}
        try:
            if eval(expression, {"__builtins__": {}}, marks):
                return True
        except (NameError, SyntaxError, TypeError):  # the expression contains other markers
            return True
    return False


@contextlib.contextmanager
def hidden():
    """Make all frameworks impossible to import or find."""
    names = [name for name in INSTALL if name != "tfjs"]
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))  # None makes an import fail
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(loaded)
