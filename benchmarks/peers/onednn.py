"""oneDNN's GRU primitives, called through onednn_gru.cpp, which is compiled into a temporary directory."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.peers.serve import Request, Task

SOURCE = Path(__file__).with_name("onednn_gru.cpp")
FLOATS = ctypes.POINTER(ctypes.c_float)


class Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "steps", "features", "units")]


class Inputs(ctypes.Structure):
    _fields_ = [(name, FLOATS) for name in ("x", "kernel", "recurrent", "bias", "d_state")]


class Results(ctypes.Structure):
    _fields_ = [(name, FLOATS) for name in ("state", "d_kernel", "d_recurrent", "d_bias")]


def compile_library(folder: Path) -> ctypes.CDLL:
    """Build the program with the headers and the library that pip has installed in this environment."""
    include, lib = Path(sys.prefix) / "include", Path(sys.prefix) / "lib"
    compiler = shutil.which("c++") or shutil.which("g++")
    if not (include / "dnnl.hpp").exists() or not any(lib.glob("libdnnl.so*")):
        raise ImportError("no dnnl.hpp and libdnnl here: pip install onednn-cpu-gomp onednn-devel-cpu-gomp")
    if compiler is None:
        raise ImportError("no C++ compiler")
    target = folder / "onednn_gru.so"
    command = [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{include}", str(SOURCE), "-o", str(target)]
    built = subprocess.run([*command, f"-L{lib}", "-ldnnl", f"-Wl,-rpath,{lib}"], capture_output=True, text=True)
    if built.returncode:
        raise ImportError(f"onednn_gru.cpp does not compile: {built.stderr[-300:]}")
    return ctypes.CDLL(str(target))


def version() -> str:
    """Return the version in the header."""
    text = (Path(sys.prefix) / "include" / "oneapi" / "dnnl" / "dnnl_version.h").read_text()
    return ".".join(re.findall(r"define DNNL_VERSION_(?:MAJOR|MINOR|PATCH) +(\d+)", text))


def pointer(array: np.ndarray | None):
    return None if array is None else array.ctypes.data_as(FLOATS)


class Library:
    """The C interface; its errors become exceptions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.gru_error.restype = ctypes.c_char_p

    def call(self, name: str, *arguments) -> None:
        if getattr(self._library, name)(*arguments):
            raise RuntimeError(f"oneDNN: {self._library.gru_error().decode()}")


def load(threads):
    """Nothing to set: oneDNN's OpenMP reads the threads from the environment."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library(compile_library(Path(folder)))
    return {"onednn": version()}, lambda request: build(library, request)


def bias_of(request: Request) -> np.ndarray:
    """Convert Keras' bias to oneDNN's shape: u, r, o, and for lbr_gru a fourth one inside the reset's brackets."""
    inputs, recurrent = request.data["bias"]
    if not request.reset_after:
        return inputs
    units = inputs.size // 3
    gates = 2 * units  # the two biases of these gates are added, those of the candidate are not
    return np.concatenate([inputs[:gates] + recurrent[:gates], inputs[gates:], recurrent[gates:]])


def keras_bias(d_bias: np.ndarray, reset_after: bool) -> np.ndarray:
    """Convert the gradient to Keras' shape."""
    if not reset_after:
        return d_bias
    gates, candidate, inside = np.split(d_bias, [d_bias.size // 2, d_bias.size * 3 // 4])
    return np.stack([np.concatenate([gates, candidate]), np.concatenate([gates, inside])])


def build(library: Library, request: Request) -> Task:
    """Return the task; its input is time-major, as the primitives require."""
    data = request.data
    rows, steps, features = data["x"].shape
    units = data["recurrent_kernel"].shape[0]
    arrays = [data["x"].transpose(1, 0, 2), data["kernel"], data["recurrent_kernel"], bias_of(request)]
    arrays = [np.ascontiguousarray(array) for array in arrays] + [data["d_state"] if request.training else None]
    handle = ctypes.c_void_p()
    shape, inputs = Shape(rows, steps, features, units), Inputs(*map(pointer, arrays))
    library.call(
        "gru_create", ctypes.byref(handle), int(request.reset_after), ctypes.byref(shape), ctypes.byref(inputs)
    )

    shapes = [(rows, units), data["kernel"].shape, data["recurrent_kernel"].shape, arrays[3].shape]
    names = ["state", "kernels_d_kernel", "kernels_d_recurrent_kernel", "kernels_d_bias"]
    answers = {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
    results = Results(*map(pointer, answers.values()))
    library.call("gru_results", handle, ctypes.byref(results))
    answers["kernels_d_bias"] = keras_bias(answers["kernels_d_bias"], request.reset_after)
    return Task(answers, Runner(library, handle))


class Runner:
    """Calls the primitives, and frees them when it is deleted."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    def __call__(self, repeats: int) -> None:
        self._library.call("gru_run", self._handle, repeats)

    def __del__(self) -> None:
        self._library.call("gru_destroy", self._handle)
