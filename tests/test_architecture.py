"""Import rules: a file imports only from rows below its own, in the tables of docs/design.md."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import fastgru
import numpy as np
import pytest
from fastgru.models import sequential

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "fastgru"
CPP = ROOT / "cpp"


def rows(folder):
    """Return the table of docs/design.md that starts with that folder: rows of names, from the bottom up."""
    text = (ROOT / "docs" / "design.md").read_text()
    lines = text[text.index(f"| `{folder}`") :].split("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in reversed(lines)]


def levels(folder):
    return {name: level for level, names in enumerate(rows(folder)) for name in names}


def unit(name, level):
    """Return the row of a file: that of its own name, or of the innermost package with a row."""
    while name and name not in level:
        name = name.rpartition(".")[0]
    return name


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "fastgru"


def imported_modules(path, known):
    """Return the modules of the package that a file imports, including imports inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fastgru":
                    yield alias.name.partition(".")[2] or "fastgru"
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(
                f"{path.name}, line {node.lineno}: write fastgru.{node.module or '...'}, no relative import"
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fastgru":
            module = node.module.partition(".")[2]
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                yield name if name in known else module or "fastgru"


PYTHON_FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
CPP_FILES = {str(path.relative_to(CPP)): path for path in sorted(CPP.rglob("*.?pp"))}
PYTHON_LEVELS, CPP_LEVELS = levels("python/fastgru/"), levels("cpp/")


@pytest.mark.parametrize("name", PYTHON_FILES)
def test_python_imports_point_down(name):
    own = unit(name, PYTHON_LEVELS)
    assert own, f"{name} has no row in docs/design.md"
    for imported in imported_modules(PYTHON_FILES[name], PYTHON_FILES):
        other = unit(imported, PYTHON_LEVELS)
        assert other == own or PYTHON_LEVELS[other] < PYTHON_LEVELS[own], f"{name} imports {imported}, not below it"


@pytest.mark.parametrize("name", CPP_FILES)
def test_cpp_includes_point_down(name):
    own = name.split("/")[0]
    for included in re.findall(r'#include "([^"]+)"', CPP_FILES[name].read_text()):
        other = included.split("/")[0]
        assert other == own or CPP_LEVELS[other] < CPP_LEVELS[own], f"{name} includes {included}, not below it"


def test_imports_and_includes_have_no_cycles():
    for graph in (
        {name: set(imported_modules(path, PYTHON_FILES)) - {name} for name, path in PYTHON_FILES.items()},
        {name: re.findall(r'#include "([^"]+)"', path.read_text()) for name, path in CPP_FILES.items()},
    ):
        graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("line", ["from . import x", "from .x import y", "def f():\n    from ..x import y"])
def test_relative_imports_raise(tmp_path, line):
    (tmp_path / "module.py").write_text(line)
    with pytest.raises(ValueError, match=r"module.py, line \d: write fastgru.(x|\.\.\.), no relative import"):
        list(imported_modules(tmp_path / "module.py", {}))


def test_the_training_loops_do_not_import_models():
    for name, path in PYTHON_FILES.items():
        if name.startswith("_training"):
            assert not [node for node in ast.walk(ast.parse(path.read_text())) if getattr(node, "attr", "") == "model"]


def test_every_row_has_files_and_every_file_a_row():
    assert {unit(name, PYTHON_LEVELS) for name in PYTHON_FILES} == set(PYTHON_LEVELS)
    assert {name.split("/")[0] for name in CPP_FILES} == set(CPP_LEVELS)


def test_dir_is_the_public_api():
    shown = dir(fastgru)
    modules = {name.split(".")[0] for name in PYTHON_FILES} - {"fastgru", "cli", *DROP_INS}
    assert {name for name in modules if not name.startswith("_")} <= set(shown)
    assert all(not name.startswith("_") or name == "__version__" for name in shown)
    assert set(fastgru.__all__) <= set(shown)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastgru.nothing


def test_dir_lists_the_available_attributes():
    program = """
import fastgru, inspect, pickle
for name in dir(fastgru):
    thing = getattr(fastgru, name)
    for each in [thing, *(getattr(thing, other) for other in getattr(thing, "__all__", ()))]:
        if inspect.isclass(each) or inspect.isfunction(each):
            assert not any(part.startswith("_") for part in each.__module__.split(".")), (each, each.__module__)
            assert pickle.loads(pickle.dumps(each)) is each
assert "torch" not in dir(fastgru)
import sys, types
sys.modules["torch"] = None  # makes importing it fail
import fastgru.datasets
fastgru.torch = types.ModuleType("fastgru.torch")  # as its import would do
assert "torch" in dir(fastgru)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


#: Modules with families of classes, some of which are variants of others.
FAMILIES = (*("layers", "losses", "metrics", "callbacks", "optimizers", "schedules", "initializers", "regularizers"),)
#: They import frameworks, and derive from their classes.
DROP_INS = ("keras", "sklearn", "torch")


def public_classes(name):
    """Return the classes of the package that a module defines or exports."""
    module = importlib.import_module("fastgru" if name == "fastgru" else f"fastgru.{name}")
    return [
        value
        for shown, value in vars(module).items()
        if inspect.isclass(value) and not shown.startswith("_") and value.__module__.startswith("fastgru")
    ]


def test_public_classes_have_at_most_one_level_of_inheritance():
    for name in PYTHON_FILES:
        if name.startswith("_") or name.split(".")[0] in (*FAMILIES, *DROP_INS):
            continue
        for each in public_classes(name):
            above = [base for base in each.__mro__[1:] if base.__module__.startswith("fastgru")]
            family = each.__module__.removeprefix("fastgru.").split(".")[0] in FAMILIES
            assert family or len(above) <= 1, f"{each} inherits from {above}: hold parts instead, or use functions"


@pytest.mark.parametrize("name", ["fastgru", *FAMILIES])
def test_public_classes_have_a_repr(name):
    bases = [object, Exception, ValueError, UserWarning]
    for each in public_classes(name):
        assert issubclass(each, BaseException) or each.__repr__ not in [base.__repr__ for base in bases], each


def test_a_repr_is_the_call_that_makes_such_an_object():
    layers, schedule = fastgru.layers, fastgru.schedules.CosineDecay(0.1, 10)
    model = fastgru.Sequential(
        [
            layers.Bidirectional(layers.GRU(4, dropout=0.5), input_shape=(None, 3)),
            layers.Dense(2, kernel_regularizer="l2"),
        ]
    )
    for thing, expected in (
        (
            model,
            "Sequential(layers=[Bidirectional(GRU(4, dropout=0.5), input_shape=(None, 3), name='bidirectional'), "
            "Dense(2, kernel_regularizer=L2(), name='dense')])",
        ),
        (layers.GRU(3, return_sequences=True, reset_after=False), "GRU(3, return_sequences=True, reset_after=False)"),
        (
            layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3, go_backwards=True, use_bias=False)),
            "Bidirectional(GRU(3), backward_layer=GRU(3, use_bias=False, go_backwards=True))",
        ),
        (fastgru.losses.Huber(), "Huber()"),
        (fastgru.losses.Huber(2), "Huber(delta=2.0)"),
        (fastgru.metrics.TopKAccuracy(3), "TopKAccuracy(k=3)"),
        (fastgru.optimizers.SGD(schedule, momentum=0.9), "SGD(learning_rate=CosineDecay(0.1, 10), momentum=0.9)"),
        (fastgru.initializers.TruncatedNormal(stddev=1), "TruncatedNormal(stddev=1.0)"),
        (fastgru.callbacks.EarlyStopping(patience=2, verbose=1), "EarlyStopping(patience=2, verbose=True)"),
        (fastgru.callbacks.EarlyStopping(mode="max", verbose=0), "EarlyStopping(mode='max')"),
        (fastgru.callbacks.LambdaCallback(on_train_end=print), f"LambdaCallback(on_train_end={print!r})"),
    ):
        assert repr(thing) == expected


#: Modules whose names are used to evaluate a repr; if two have the same name, the later module is used.
REPR_MODULES = FAMILIES
NAMES = {name: value for module in REPR_MODULES for name, value in vars(getattr(fastgru, module)).items()}
#: Arguments of classes with required arguments, and nested arguments.
EXAMPLES = {
    "layers.Activation": ["tanh"],
    "layers.Bidirectional": [fastgru.layers.GRU(2, return_sequences=True, kernel_initializer="zeros"), "sum"],
    "layers.Dense": [2, "relu"],
    "layers.Dropout": [0.25],
    "layers.Embedding": [6, 2],
    "layers.GRU": [3, "relu"],
    "layers.InputLayer": [(5, 3)],
    "layers.Permute": [(2, 1)],
    "layers.RepeatVector": [2],
    "layers.Reshape": [(-1, 2)],
    "layers.SpatialDropout1D": [0.25],
    "layers.TimeDistributed": [fastgru.layers.GRU(2, use_bias=False)],
    "layers.Rescaling": [0.5, -1],
    "callbacks.BackupAndRestore": ["folder"],
    "callbacks.CSVLogger": ["log.csv"],
    "callbacks.ModelCheckpoint": ["m.safetensors"],
    "optimizers.Adam": [fastgru.schedules.CosineDecay(0.1, 10, 0.5)],
    "schedules.Constant": [0.5],
    "schedules.CosineDecay": [0.1, 10, 0.5],
    "schedules.ExponentialDecay": [0.1, 10, 0.5],
    "schedules.CosineDecayRestarts": [0.1, 10],
    "schedules.InverseTimeDecay": [0.1, 10, 0.5],
    "schedules.LearningRateSchedule": [0.1, 10, 0.5],
    "schedules.OneCycle": [0.1, 10],
    "schedules.PiecewiseConstantDecay": [[5], [0.1, 0.2]],
    "schedules.PolynomialDecay": [0.1, 10],
    "losses.Quantile": [[0.1, 0.9]],
    "regularizers.L1L2": [0.5, 0.25],
    "initializers.Constant": [0.5],
}
#: Functions of the user, which have no text form; and base classes.
NOT_EVALUABLE = (
    *("History", "LambdaCallback", "LearningRateScheduler", "LossResult", "LossFunctionWrapper", "MeanMetricWrapper"),
    *("FunctionInitializer", "Initializer", "Variable"),
)


def state(thing):
    """Return what defines an object: its configuration, or else its attributes."""
    return thing.get_config() if hasattr(thing, "get_config") else vars(thing)


@pytest.mark.parametrize("module", REPR_MODULES)
def test_evaluating_a_repr_makes_an_equal_object(module):
    names = NAMES | vars(importlib.import_module(f"fastgru.{module}"))
    classes = [cls for cls in public_classes(module) if cls.__module__.startswith(f"fastgru.{module}")]
    for cls in classes:
        if inspect.isabstract(cls) or cls.__name__ in NOT_EVALUABLE:
            continue
        thing = cls(*EXAMPLES.get(f"{module}.{cls.__name__}", []))
        again = eval(repr(thing), dict(names))
        assert type(again) is cls
        assert state(again) == state(thing), repr(thing)


def test_evaluating_the_repr_of_a_model_makes_such_a_model():
    stack = [fastgru.layers.Bidirectional(fastgru.layers.GRU(4), input_shape=(None, 3)), fastgru.layers.Dense(2)]
    for model in (
        fastgru.Sequential(stack, dtype="float64", name="mine"),
        fastgru.Sequential(),
        fastgru.Sequential([fastgru.layers.Dropout(0.5)]),
    ):
        again = eval(repr(model), {**NAMES, "Sequential": fastgru.Sequential})
        assert repr(again) == repr(model)
        assert (again.name, again.dtype, again.input_shape) == (model.name, model.dtype, model.input_shape)


class _Schedule(fastgru.schedules.Schedule):
    def __init__(self, peak):
        self._peak = peak

    def __call__(self, step):
        return self._peak / (step + 1)


class _Loss(fastgru.losses.MeanSquaredError):
    def __init__(self, weights=np.ones(3), keep=None, itself=None):  # noqa: B008
        self.weights, self.keep, self.itself = weights, keep, itself


class _Callback(fastgru.callbacks.EarlyStopping):
    def __init__(self, level, **options):
        super().__init__(**options)
        self.level = level


class _Layer(fastgru.layers.Dropout):
    def __init__(self):
        pass


class _Broken(fastgru.losses.MeanSquaredError):
    @property
    def value(self):
        raise RuntimeError("not yet")

    def __init__(self, value=1):
        pass


class _Model(fastgru.Sequential):
    def __init__(self, units):
        super().__init__([fastgru.layers.GRU(units)])


def test_a_repr_omits_unknown_arguments():
    holder = _Loss()
    holder.itself = holder
    network = _Model.__new__(_Model)  # without a call of the constructor
    for thing, expected in (
        (_Schedule(0.1), "<_Schedule ...>"),
        (_Loss(), "_Loss()"),
        (_Loss(np.zeros(3)), "_Loss(weights=array([0., 0., 0.]))"),
        (_Loss(keep=False), "_Loss(keep=False)"),
        (holder, "_Loss(itself=<_Loss ...>)"),
        (_Callback(3, patience=2), "<_Callback ...>"),
        (_Layer(), "<_Layer ...>"),
        (_Broken(), "<_Broken ...>"),
        (_Model(3), "<_Model ...>"),
        (network, "<_Model ...>"),
        (fastgru.Sequential.__new__(fastgru.Sequential), "<Sequential ...>"),
    ):
        assert repr(thing) == expected


def test_a_model_has_keras_attributes_and_no_public_internals():
    shown = {name for name in dir(fastgru.Sequential()) if not name.startswith("_")}
    assert shown == {
        # in Keras, too
        *("add", "build", "built", "compile", "count_params", "dtype", "evaluate", "fit", "from_config", "get_config"),
        "history",
        *("get_layer", "get_weights", "input_shape", "layers", "load_weights", "loss", "metrics", "name"),
        *("non_trainable_variables", "non_trainable_weights", "optimizer", "output_shape", "pop", "predict"),
        *(
            "predict_on_batch",
            "reset_metrics",
            "reset_states",
            "save",
            "save_weights",
            "set_weights",
            "stateful",
            "stop_training",
        ),
        *("summary", "test_on_batch", "to_json", "train_on_batch", "trainable", "trainable_variables"),
        *("trainable_weights", "variables", "weights"),
        # only in fastgru
        *(
            "describe",
            "from_description",
            "get_states",
            "gradient",
            "parameters",
            "require_saveable",
            "save_training",
            "set_states",
        ),
    }


def test_copies_keep_user_attributes_of_a_model():
    assert vars(fastgru.Sequential()).keys() == sequential._ATTRIBUTES


def test_the_reference_imports_nothing_of_the_package():
    assert list(imported_modules(PACKAGE / "reference.py", {})) == []


def test_importing_fastgru_imports_no_framework():
    frameworks = {"torch", "tensorflow", "keras", "jax", "onnx", "onnxruntime", "h5py", "sklearn", "matplotlib"}
    program = f"import sys, fastgru, fastgru.cli; print(sorted({frameworks} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"


def test_only_the_simd_layer_uses_eigen():
    users = {str(p.relative_to(CPP)) for p in CPP.rglob("*.?pp") if "Eigen::" in p.read_text()}
    assert users == {"simd/packet.hpp"}
