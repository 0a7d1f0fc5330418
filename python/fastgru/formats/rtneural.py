"""RTNeural's JSON files: GRU and Dense layers that run step by step, in real time.

The contents are ``{"in_shape": [null, null, F], "layers": [{"type", "activation", "shape", "weights"}, ...]}``, with
weights as nested lists in Keras' layout. Every layer computes one output for each step, and a GRU keeps its state until
``reset`` is called. A GRU has the activations tanh and sigmoid, ``reset_after=True`` and two biases.
"""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, TypeGuard

import numpy as np

from fastgru._support.files import read_all, write_atomically
from fastgru.formats.boundary import model_file
from fastgru.formats.checks import parse_json, require_list, require_object, require_options, unsupported
from fastgru.formats.description import Array, LayerDescription, ModelDescription, numbered_name
from fastgru.formats.scaling import fold_scaling

_Shapes = dict[str, tuple[int, ...]]

_NAME = "RTNeural"
#: Activation of a Dense -> its name in RTNeural.
_ACTIVATIONS = {"linear": "", "tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "softmax": "softmax"}
#: A layer without effect, which RTNeural does not have.
_NOTHING = ("Activation", "linear")
_DROPOUTS = ("Dropout", "SpatialDropout1D")
_DENSE_TYPES = ("dense", "time-distributed-dense")
#: The options of RTNeural's GRU, which files do not store.
_GRU = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "reset_after": True,
    "return_sequences": True,
    "return_state": False,
    "go_backwards": False,
}
#: Models for real-time audio are smaller.
_MOST_BYTES = 256 * 2**20


# --- Writing --------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model for RTNeural, without the optimizer, and without Dropout, which has no effect in inference.

    A Rescaling becomes part of the weights of the next layer.

    Parameters
    ----------
    path : path
    description : ModelDescription

    Raises
    ------
    ValueError
        RTNeural does not support a layer or an option, or a weight is not finite.
    """
    description.require_float32(_NAME, "which has no dtypes and is read as float32")
    shape = description.built_shape
    steps = [None] * len(shape)  # the batch and, if there is one, the time axis
    layers = []
    width = shape[-1]
    for layer in fold_scaling([each.unwrapped for each in description.layers], _NAME):
        if layer.class_name in _DROPOUTS or (layer.class_name, layer.config.get("activation")) == _NOTHING:
            continue
        for name, array in layer.weights.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{layer.name}: {name} contains numbers that are not finite, which JSON does not support"
                )
        kind, activation, width, weights = _converted(layer, width)
        layers.append(
            {
                "type": kind,
                "activation": activation,
                "shape": [*steps, width],
                "weights": [array.tolist() for array in weights],
            }
        )
    if not layers:
        raise ValueError(f"{description.name}: expected a GRU or a Dense, got neither")
    content = {"in_shape": [*steps, shape[-1]], "layers": layers}
    write_atomically(path, json.dumps(content, allow_nan=False).encode())


def _converted(layer: LayerDescription, width: int | None) -> tuple[str, str, int, list[Array]]:
    """RTNeural's type and activation, the units and the weights of a layer with an input of `width` features."""
    config, units = layer.config, layer.config.get("units", 0)
    if layer.class_name == "GRU":
        require_options(layer.name, f"{_NAME}'s GRU", config, _GRU)
        bias = layer.weights.get("bias", np.zeros((2, 3 * units)))
        return "gru", "tanh", units, [layer.weights["kernel"], layer.weights["recurrent_kernel"], bias]
    if layer.class_name == "Dense":
        return "dense", _ACTIVATIONS[config["activation"]], units, list(layer.weights.values())
    if layer.class_name == "Activation":
        if width is None:
            raise unsupported(layer.name, "an unknown number of features", _NAME, "which gives sizes of all layers")
        return "activation", _ACTIVATIONS[config["activation"]], width, []
    raise unsupported(layer.name, layer.class_name, _NAME, "which has GRU, Dense and Activation")


# --- Reading ---------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> ModelDescription:
    """Read a model of Dense layers and of GRUs that return the output of every step, in float32.

    Raises
    ------
    ModelFileError
        The file is not an RTNeural file, is damaged, or has a layer that fastgru does not support.
    OSError
        The file cannot be read.
    """
    with model_file(path) as file:
        content = _json(file)
        steps, width = _in_shape(content["in_shape"])
        features = width
        layers: list[LayerDescription] = []
        for number, entry in enumerate(content["layers"]):
            features = _append(layers, f"layer {number}", entry, features)
        if not layers:
            raise ValueError("expected layers, got none")
        return ModelDescription(layers, (*steps, width))


def _json(file: BinaryIO) -> dict[str, Any]:
    if os.fstat(file.fileno()).st_size > _MOST_BYTES:
        raise ValueError(f"expected at most {_MOST_BYTES:,} bytes, got a larger file")
    content = require_object("", parse_json(read_all(file)))
    require_list("layers", content.get("layers"))
    return content


def _in_shape(shape: Any) -> tuple[tuple[int | None, ...], int]:
    """The sizes of the axes between batch and features, and the number of features."""
    if not isinstance(shape, list) or len(shape) not in (2, 3):
        raise ValueError(f"in_shape: expected batch, time and features, or batch and features, got {shape!r}")
    _, *steps, features = shape
    if any(size is not None and not _is_size(size) for size in steps) or not _is_size(features):
        raise ValueError(f"in_shape: expected sizes of at least 1, got {shape!r}")
    return tuple(steps), features


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _append(layers: list[LayerDescription], where: str, entry: Any, features: int) -> int:
    """Append a layer with an input of `features` features; returns the number of features of its output."""
    entry = require_object(where, entry)
    kind, activation = entry["type"], entry.get("activation", "")
    where = f"{where} ({kind!r})"
    if kind == "activation":
        _activate(layers, _own(where, activation))
        return features
    if kind not in ("gru", *_DENSE_TYPES):
        raise ValueError(f"{where}: expected gru, dense, time-distributed-dense or activation")
    units = entry["shape"][-1] if isinstance(entry["shape"], list) and entry["shape"] else None
    weights = entry["weights"]
    if not _is_size(units) or not isinstance(weights, list):
        raise ValueError(f"{where}: expected a shape that ends in the number of units, and a list of weights")
    layers.append(
        _gru(where, activation, weights, features, units)
        if kind == "gru"
        else _dense(where, activation, weights, features, units)
    )
    layers[-1].name = numbered_name(layers[-1].class_name, layers[:-1])
    return units


def _gru(where: str, activation: Any, weights: list[Any], features: int, units: int) -> LayerDescription:
    if activation not in ("", "tanh"):
        raise ValueError(f"{where}: expected activation tanh, which is what RTNeural computes, got {activation!r}")
    if len(weights) != 3:
        raise ValueError(f"{where}: expected kernel, recurrent kernel and two biases, got {len(weights)} arrays")
    shapes: _Shapes = {"kernel": (features, 3 * units), "recurrent_kernel": (units, 3 * units), "bias": (2, 3 * units)}
    return LayerDescription("GRU", "gru", {"units": units, **_GRU}, _arrays(where, shapes, weights))


def _dense(where: str, activation: Any, weights: list[Any], features: int, units: int) -> LayerDescription:
    if len(weights) not in (1, 2):
        raise ValueError(f"{where}: expected a kernel and perhaps a bias, got {len(weights)} arrays")
    shapes: _Shapes = {"kernel": (features, units)}
    if len(weights) == 2:
        shapes["bias"] = (units,)
    config = {"units": units, "activation": _own(where, activation), "use_bias": len(weights) == 2}
    return LayerDescription("Dense", "dense", config, _arrays(where, shapes, weights))


def _activate(layers: list[LayerDescription], activation: str) -> None:
    """Set the activation of the Dense layer before it, or append a layer if that has one or is no Dense layer."""
    if layers and layers[-1].class_name == "Dense" and layers[-1].config["activation"] == "linear":
        layers[-1].config["activation"] = activation
        return
    layers.append(LayerDescription("Activation", numbered_name("Activation", layers), {"activation": activation}))


def _own(where: str, activation: Any) -> str:
    for own, theirs in _ACTIVATIONS.items():
        if activation == theirs:
            return own
    known = ", ".join(filter(None, _ACTIVATIONS.values()))
    raise ValueError(f"{where}: expected an activation of {known}, got {activation!r}")


def _arrays(where: str, shapes: _Shapes, weights: list[Any]) -> dict[str, Array]:
    arrays = {}
    for (name, shape), weight in zip(shapes.items(), weights, strict=True):
        rows = weight if len(shape) == 2 else [weight]
        expected = shape if len(shape) == 2 else (1, *shape)
        lists = isinstance(rows, list) and all(isinstance(row, list) for row in rows)
        if not lists or len(rows) != expected[0] or any(len(row) != expected[1] for row in rows):
            raise ValueError(f"{where}: expected {name} to be nested lists of shape {shape}")
        if not all(type(value) in (int, float) for row in rows for value in row):
            raise TypeError(f"{where}: expected {name} to consist of numbers")
        wide = np.array(rows, np.float64)
        if not (np.abs(wide) <= np.finfo(np.float32).max).all():
            raise ValueError(f"{where}: expected {name} to be in the range of float32")
        arrays[name] = wide.astype(np.float32).reshape(shape)
    return arrays
