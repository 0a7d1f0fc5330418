"""The layers of a `fastgru.Sequential`, in Keras' words."""

from typing import Any

from fastgru._support import checks
from fastgru.layers.activation import Activation, Head
from fastgru.layers.base import Layer
from fastgru.layers.bidirectional import Bidirectional
from fastgru.layers.dense import Dense
from fastgru.layers.embedding import Embedding
from fastgru.layers.gru import GRU
from fastgru.layers.rescaling import Rescaling
from fastgru.layers.shaping import (
    Dropout,
    Flatten,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    LastStep,
    Masking,
)

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
    "Rescaling",
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
        Rescaling,
        Masking,
        Dropout,
        Flatten,
        GlobalAveragePooling1D,
        GlobalMaxPooling1D,
        LastStep,
    )
}


def from_config(class_name: str, config: dict[str, Any], *, name: str) -> Layer:
    """The layer of that class, made from what its ``get_config`` returned."""
    cls = LAYERS[checks.choice("class_name", class_name, LAYERS)]
    if cls is Bidirectional:
        return Bidirectional.from_config(config, name=name)
    return cls(**config, name=name)
