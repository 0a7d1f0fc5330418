"""fastgru: GRU networks on CPUs, trained and run faster than the frameworks do it.

>>> from fastgru import Sequential, layers
>>> model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
"""

from fastgru import datasets, functional, initializers, layers, optimizers
from fastgru._native._cpu_features import __version__
from fastgru.formats.checkpoint import ModelFileError
from fastgru.functional import get_num_threads, set_num_threads
from fastgru.model import Sequential, load_model
from fastgru.seeding import set_seed
from fastgru.training import History

__all__ = [
    "History",
    "ModelFileError",
    "Sequential",
    "__version__",
    "datasets",
    "functional",
    "get_num_threads",
    "initializers",
    "layers",
    "load_model",
    "optimizers",
    "set_num_threads",
    "set_seed",
]
