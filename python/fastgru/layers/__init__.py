"""The layers of a `fastgru.Sequential`, in Keras' words."""

from typing import Any

from fastgru._support import checks
from fastgru.layers.activation import Activation, Head
from fastgru.layers.base import Layer
from fastgru.layers.bidirectional import Bidirectional
from fastgru.layers.dense import Dense
from fastgru.layers.embedding import Embedding
from fastgru.layers.gru import GRU
from fastgru.layers.shaping import (
    Dropout,
    Flatten,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    LastStep,
    Masking,
)
from fastgru.layers.variables import Variable

__all__ = [
    "GRU",
    "Activation",
    "Bidirectional",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "Head",
    "LastStep",
    "Layer",
    "Masking",
    "Variable",
]

#: Name in a saved configuration -> class.
LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        GRU,
        Bidirectional,
        Dense,
        Embedding,
        Activation,
        Masking,
        Dropout,
        Flatten,
        GlobalAveragePooling1D,
        GlobalMaxPooling1D,
        LastStep,
    )
}


def from_options(class_name: str, options: dict[str, Any], *, name: str) -> Layer:
    """Return the layer of that class with the options that its ``options`` returned."""
    return LAYERS[checks.choice("class_name", class_name, LAYERS)].from_options(options, name=name)
