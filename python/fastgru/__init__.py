"""fastgru: GRU networks on CPUs, trained and run faster than the frameworks do it.

>>> from fastgru import Sequential, layers
>>> model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
"""

# First of all: it refuses what NumPy, which all others import, does not support, such as sub-interpreters.
from fastgru._native._cpu_features import __version__

# isort: split
from fastgru import (
    callbacks,
    datasets,
    functional,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
)
from fastgru.formats.description import AssumptionWarning, ModelFileError
from fastgru.functional import get_num_threads, set_num_threads
from fastgru.model import Sequential, load_model
from fastgru.seeding import set_seed
from fastgru.sequences import pad_sequences
from fastgru.training import History

__all__ = [
    "AssumptionWarning",
    "History",
    "ModelFileError",
    "Sequential",
    "__version__",
    "callbacks",
    "datasets",
    "functional",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "optimizers",
    "pad_sequences",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_seed",
]
