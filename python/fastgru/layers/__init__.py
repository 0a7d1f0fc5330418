"""The layers of a `fastgru.Sequential`, with Keras' names and arguments."""

from typing import Any

from fastgru._support import checks
from fastgru._support.elsewhere import missing
from fastgru.layers.activation import Activation, Head, ReLU, Softmax
from fastgru.layers.base import LAYERS, Layer
from fastgru.layers.bidirectional import Bidirectional
from fastgru.layers.dense import Dense
from fastgru.layers.embedding import Embedding
from fastgru.layers.gru import GRU
from fastgru.layers.input import Input, InputLayer
from fastgru.layers.rescaling import Rescaling
from fastgru.layers.reshaping import Permute, RepeatVector, Reshape
from fastgru.layers.shaping import (
    Dropout,
    Flatten,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    LastStep,
    Masking,
    SpatialDropout1D,
)
from fastgru.layers.time_distributed import TimeDistributed
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
    "Input",
    "InputLayer",
    "LastStep",
    "Layer",
    "Masking",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "Softmax",
    "SpatialDropout1D",
    "TimeDistributed",
    "Variable",
]

LAYERS.update(
    (cls.__name__, cls)
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
        Permute,
        RepeatVector,
        Reshape,
        SpatialDropout1D,
        TimeDistributed,
    )
)


def from_options(class_name: str, options: dict[str, Any], *, name: str | None = None) -> Layer:
    """Return a layer of the class named `class_name`, with options that `Layer.options` returned."""
    return LAYERS[checks.choice("class_name", class_name, LAYERS)].from_options(options, name=name)


_IN_KERAS = "build the model in Keras and use fastgru.keras.GRU as its GRU layer"
_NORMALIZATION = f"fastgru has no normalization layers; scale the data beforehand, or {_IN_KERAS}"
_GRAPH = f"fastgru has Sequential models only; {_IN_KERAS}"
_CELL = "use layers.GRU, which contains the loop over the steps"
_ACTIVATION = "use layers.Activation with 'tanh', 'relu', 'sigmoid', 'softmax' or 'linear'"
#: Name in Keras or PyTorch -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(("LSTM", "SimpleRNN", "ConvLSTM1D"), f"use layers.GRU, or {_IN_KERAS}"),
    **dict.fromkeys(("RNN", "GRUCell", "StackedRNNCells"), _CELL),
    **dict.fromkeys(("LSTMCell", "SimpleRNNCell"), f"use layers.GRU, or {_IN_KERAS}"),
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "MaxPooling1D", "AveragePooling1D", "ZeroPadding1D", "UpSampling1D", "Cropping1D"),
        f"fastgru has no convolutions; {_IN_KERAS}",
    ),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization", "GroupNormalization"), _NORMALIZATION),
    "Normalization": _NORMALIZATION,
    **dict.fromkeys(("Attention", "AdditiveAttention", "MultiHeadAttention"), f"fastgru has no attention; {_IN_KERAS}"),
    **dict.fromkeys(("Concatenate", "Add", "Average", "Multiply", "Subtract", "Maximum", "Dot"), _GRAPH),
    **dict.fromkeys(("concatenate", "add", "Lambda", "Wrapper"), _GRAPH),
    **dict.fromkeys(("LeakyReLU", "ELU", "PReLU"), _ACTIVATION),
    **dict.fromkeys(
        ("GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"), "use layers.Dropout"
    ),
    **dict.fromkeys(
        ("TextVectorization", "StringLookup"), "convert text to integers, and pass them to layers.Embedding"
    ),
    **dict.fromkeys(("CategoryEncoding", "IntegerLookup", "Hashing"), "use fastgru.utils.to_categorical"),
    "CuDNNGRU": "use layers.GRU",
    "Linear": "use layers.Dense",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
