"""The floors of the house: a file imports only from floors below its own. docs/design.md draws them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "fastgru"
CPP = ROOT / "cpp"

# From the ground up; the files of one floor do not use each other.
GROUND = [
    ["checks", "files", "_native", "memory", "reference", "progress", "usage", "datasets.idx"],
    ["sequences", "datasets.npy"],
]
# Files of models know descriptions of models and nothing of the house that makes models from them.
FORMATS_FLOORS = [
    [
        "formats.description",
        "formats.hdf5.storage",
        "formats.keras_dialects",
        "formats.onnx.tensors",
        "formats.pickles",
    ],
    ["formats.boundary", "formats.hdf5.indexes"],
    [
        "formats.archives",
        "formats.checkpoint",
        "formats.hdf5.objects",
        "formats.keras_training",
        "formats.onnx.export",
        "formats.onnx.values",
        "formats.rtneural",
        "formats.tfjs_weights",
        "formats.torch_modules",
        "formats.torch_options",
    ],
    [
        "formats.hdf5",
        "formats.keras_layers",
        "formats.onnx.layers",
        "formats.onnx.signatures",
        "formats.state_dicts",
        "formats.torch_chains",
    ],
    ["formats.keras", "formats.onnx.moves", "formats.tfjs_training", "formats.torch"],
    ["formats.onnx.reader", "formats.tfjs"],
    ["formats.onnx"],
    ["formats.kinds"],
    ["formats"],
]
HOUSE_FLOORS = [
    ["seeding", "functional", "initializers", "regularizers", "schedules", "samples"],
    [
        "losses",
        "optimizers",
        "batches",
        "datasets.mnist",
        "datasets.synthetic",
        "datasets.arrays",
        "layers.base",
        "tapes",
    ],
    [
        "metrics",
        "weighting",
        "diagnosis",
        "callbacks",
        "layers.activation",
        "layers.gru",
        "layers.embedding",
        "layers.shaping",
        "datasets",
        "autograd",
        "keras.passes",
    ],
    ["layers.bidirectional", "layers.dense", "training", "torch", "keras.on_torch", "keras.on_tensorflow"],
    ["layers", "keras.layer"],
    ["chain", "recipes", "judges", "keras"],
    ["compiled"],
    ["saved"],
    ["model", "plotting", "images"],
    ["conversion"],
    ["__init__", "sklearn"],
    ["cli.data"],
    ["cli.options"],
    ["cli.evaluate", "cli.predict", "cli.convert", "cli.info"],
    ["cli.train"],
    ["cli"],
    ["__main__"],
]
PYTHON_FLOORS = [*GROUND, *FORMATS_FLOORS, *HOUSE_FLOORS]
CPP_FLOORS = [
    [
        "simd/packet.hpp",
        "runtime/cpu_quota.hpp",
        "runtime/denormals.hpp",
        "runtime/workspace.hpp",
        "runtime/parallel.hpp",
        "bindings/cpu_features.cpp",
        "bindings/gil.hpp",
        "bindings/overlap.hpp",
    ],
    [
        "simd/activations.hpp",
        "kernels/gemm.hpp",
        "kernels/gru.hpp",
        "kernels/optimizers.hpp",
        "kernels/softmax_cross_entropy.hpp",
        "runtime/cpu_quota.cpp",
        "runtime/parallel.cpp",
        "bindings/overlap.cpp",
        "bindings/result_array.hpp",
    ],
    [
        "kernels/gru_cell.hpp",
        "kernels/gru_rows.hpp",
        "kernels/gru_weights.hpp",
        "kernels/dense.hpp",
        "bindings/checked_array.hpp",
    ],
    ["kernels/gru_forward.hpp", "kernels/gru_backward.hpp", "bindings/call.hpp"],
    [
        "kernels/gru_forward.cpp",
        "kernels/gru_backward.cpp",
        "kernels/dense.cpp",
        "kernels/optimizers.cpp",
        "kernels/softmax_cross_entropy.cpp",
        "bindings/gru.cpp",
        "bindings/heads.cpp",
        "bindings/optimizers.cpp",
        "bindings/module.cpp",
    ],
]


def levels(floors):
    return {name: level for level, names in enumerate(floors) for name in names}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported_modules(path, known):
    """Names of the package's own modules that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fastgru":
                    yield alias.name.partition(".")[2] or "__init__"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fastgru":
            module = node.module.partition(".")[2]
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                yield name if name in known else module or "__init__"


def sources():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_python_imports_point_down(path):
    level = levels(PYTHON_FLOORS)
    name = module_name(path)
    assert name in level, f"{name} has no floor: give it one in PYTHON_FLOORS"
    for imported in imported_modules(path, level):
        base = imported if imported in level else imported.split(".")[0]
        assert level[base] < level[name] or base == name, f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("path", sorted(CPP.rglob("*.?pp")), ids=lambda p: str(p.relative_to(CPP)))
def test_cpp_includes_point_down(path):
    level = levels(CPP_FLOORS)
    name = str(path.relative_to(CPP))
    assert name in level, f"{name} has no floor: give it one in CPP_FLOORS"
    for included in re.findall(r'#include "([^"]+)"', path.read_text()):
        assert level[included] < level[name], f"{name} includes {included}, which is not below it"


def test_every_floor_is_lived_on():
    assert {module_name(path) for path in sources()} == set(levels(PYTHON_FLOORS))
    assert {str(p.relative_to(CPP)) for p in CPP.rglob("*.?pp")} == set(levels(CPP_FLOORS))


def test_the_reference_imports_nothing_of_the_package():
    assert list(imported_modules(PACKAGE / "reference.py", {})) == []


def test_importing_fastgru_imports_no_framework():
    frameworks = {"torch", "tensorflow", "keras", "jax", "onnx", "onnxruntime", "h5py", "sklearn", "matplotlib"}
    program = f"import sys, fastgru, fastgru.cli; print(sorted({frameworks} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"


def test_only_the_simd_layer_names_eigen():
    users = {str(p.relative_to(CPP)) for p in CPP.rglob("*.?pp") if "Eigen::" in p.read_text()}
    assert users == {"simd/packet.hpp"}
