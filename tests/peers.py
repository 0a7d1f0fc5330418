"""The frameworks that tests compare with. The package needs none of them.

A test that needs one has the marker ``peers``. `conftest.py` sets it where a fixture (`FIXTURES`) or the module
(`require`) shows it; other tests have it by hand: ``@pytest.mark.peers("onnx")``, or `parameters` for some of their
cases. Where a framework is missing, its tests are skipped. From a test without the marker all of them are hidden, as if
none was installed, so that a missing marker is an error on every machine.
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

#: What installs each framework. All but TensorFlow.js are Python packages.
INSTALL = {
    "torch": "pip install torch",
    "tensorflow": "pip install keras tensorflow-cpu",
    "keras": "pip install keras tensorflow-cpu",
    "tf_keras": "pip install tf-keras --no-deps",
    "onnx": "pip install onnx",
    "onnxruntime": "pip install onnxruntime",
    "onnxscript": "pip install onnxscript",
    "tensorboardX": "pip install tensorboardX",
    "tensorboard": "pip install tensorboard",
    "sklearn": "pip install 'scikit-learn>=1.6'",
    "tfjs": "npm ci --prefix tests/node",
}
#: Fixtures of conftest.py, and what they need.
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
    """The framework, for the top level of a test module that cannot be imported without it."""
    return pytest.importorskip(name, minimum, reason=f"needs {name}: {INSTALL[name]}")


@functools.cache
def required_by(path: Path) -> tuple[str, ...]:
    """The frameworks without which a test module cannot be imported: those of its calls of `require`."""
    return tuple(re.findall(r'^(?:\w+ = )?peers\.require\("(\w+)"', path.read_text(), re.MULTILINE))


def parameters(names):
    """The names of files as parameters of a test; those that the package onnx writes and reads are marked."""
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
        except (NameError, SyntaxError, TypeError):  # of other marks than ours
            return True
    return False


@contextlib.contextmanager
def hidden():
    """No framework can be imported or found."""
    names = [name for name in INSTALL if name != "tfjs"]
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))  # None: cannot be imported
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(loaded)
