"""fastgru: GRU networks on CPUs, trained and run faster than the frameworks do it.

>>> from fastgru import Sequential, layers
>>> model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
"""

# First of all: it refuses what NumPy, which all others import, does not support, such as sub-interpreters.
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
)
from fastgru._support.seeding import set_seed
from fastgru._support.sequences import pad_sequences
from fastgru.callbacks import History
from fastgru.formats.description import AssumptionWarning, ModelFileError
from fastgru.functional import get_num_threads, set_num_threads
from fastgru.models import Sequential, load_model

__all__ = [
    "AssumptionWarning",
    "History",
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
    "pad_sequences",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_seed",
]

# Pickles and messages name the public place, so that these may move.
for _each in (pad_sequences, set_seed):
    _each.__module__ = __name__

_RARELY_WANTED = ("conversion", "reference")  # imported when asked for
_DROP_INS = ("keras", "sklearn", "torch")  # import their frameworks, so only the user does that


def __getattr__(name: str) -> ModuleType:
    if name in _RARELY_WANTED:
        return import_module(f"fastgru.{name}")
    remedy = f"; write import fastgru.{name}, which imports its framework" if name in _DROP_INS else ""
    raise AttributeError(f"module 'fastgru' has no attribute {name!r}{remedy}")


def __dir__() -> list[str]:
    return sorted((*__all__, *_RARELY_WANTED, *(name for name in _DROP_INS if name in globals())))
