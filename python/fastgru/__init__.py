"""fastgru: training and inference of GRU networks on CPUs.

>>> from fastgru import Sequential, layers
>>> model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
"""

# Imported first: it raises in environments that NumPy does not support, such as sub-interpreters.
from fastgru._native._cpu_features import __version__

# isort: split
from importlib import import_module
from types import ModuleType

from fastgru import (
    callbacks,
    datasets,
    formats,
    functional,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from fastgru._support.elsewhere import missing
from fastgru._support.seeding import set_seed
from fastgru.callbacks import History
from fastgru.formats.description import AssumptionWarning, ModelFileError
from fastgru.functional import get_num_threads, set_num_threads
from fastgru.layers import Input
from fastgru.models import Sequential, load_model

__all__ = [
    "AssumptionWarning",
    "History",
    "Input",
    "ModelFileError",
    "Sequential",
    "__version__",
    "callbacks",
    "datasets",
    "formats",
    "functional",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_seed",
    "utils",
]

# Pickles and messages contain the public module name, so that the function can move.
set_seed.__module__ = __name__

_RARELY_WANTED = ("conversion", "reference")  # imported on first access
_DROP_INS = ("keras", "sklearn", "torch")  # they import their frameworks, so users import them explicitly
_GRAPH = "use Sequential, or build the model in Keras and use fastgru.keras.GRU as its GRU layer"
#: Name in Keras or PyTorch, or in earlier versions -> what to use instead.
_ELSEWHERE = {
    **{name: f"write import fastgru.{name}, which imports its framework" for name in _DROP_INS},
    "pad_sequences": "use utils.pad_sequences, which pads as in Keras, or utils.pad_with_lengths for (x, lengths)",
    "Model": _GRAPH,
    "KerasTensor": _GRAPH,
    "Layer": "use layers.Layer",
    "GRU": "use layers.GRU, or fastgru.torch.GRU as a module of PyTorch",
    "nn": "use fastgru.torch.GRU as a module of PyTorch, or fastgru.layers",
    "activations": "pass the activation's name, such as activation='tanh'",
    "applications": "fastgru has no pretrained models; load a file with load_model",
    "backend": "use numpy; fastgru.set_num_threads sets the number of threads",
    "constraints": "fastgru has no constraints; use regularizers",
    "config": "pass dtype= to Sequential; fastgru.set_num_threads sets the number of threads",
    "dtype_policies": "pass dtype= to Sequential",
    "export": "use Sequential.save with a name such as 'model.onnx'",
    "mixed_precision": "pass dtype='float32' or dtype='float64' to Sequential",
    "ops": "use numpy, or fastgru.functional for the kernels",
    "preprocessing": "use fastgru.utils, which has pad_sequences and timeseries_dataset_from_array",
    "random": "use fastgru.set_seed, and numpy.random",
    "saving": "use fastgru.load_model and Sequential.save",
    "tensor": "use numpy arrays",
    "Tensor": "use numpy arrays",
    "wrappers": "use fastgru.sklearn",
}


def __getattr__(name: str) -> ModuleType:
    if name in _RARELY_WANTED:
        return import_module(f"fastgru.{name}")
    raise missing(__name__, name, _ELSEWHERE)


def __dir__() -> list[str]:
    return sorted((*__all__, *_RARELY_WANTED, *(name for name in _DROP_INS if name in globals())))
