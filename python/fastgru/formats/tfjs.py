"""TensorFlow.js layers models: ``model.json``, and beside it files of weights.

The JSON holds the topology in Keras' words (`fastgru.formats.keras_layers`), a manifest of weights
(`fastgru.formats.tfjs_weights`) and, for models saved with their optimizer, how they are trained
(`fastgru.formats.tfjs_training`).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastgru._native._cpu_features import __version__
from fastgru.formats import keras_layers, tfjs_training, tfjs_weights
from fastgru.formats.description import LayerDescription, ModelDescription, ModelFileError
from fastgru.formats.tfjs_weights import StoredTensor, require

#: In a layer, weights stand and are trained in this order.
_ORDER = ("embeddings", "kernel", "recurrent_kernel", "bias")
_DIRECTIONS = ("forward", "backward")
#: What TensorFlow.js takes as a layer's name.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")


def read(path: str | os.PathLike[str]) -> ModelDescription:
    """The model in a ``model.json``, or in a folder that has one.

    Raises
    ------
    ModelFileError
        It is none, is damaged, or has something that this package does not.
    OSError
        A file cannot be read.
    """
    file = _model_file(path)
    try:
        return _read(file.parent, _load_json(file))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file}: {error}") from None


def _model_file(path: str | os.PathLike[str]) -> Path:
    return Path(path) / "model.json" if os.path.isdir(path) else Path(path)


def _load_json(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"no JSON, or damaged: {error}") from None
    require(isinstance(content, dict), "expected an object", content)
    return content  # type: ignore[no-any-return]


def _read(folder: Path, content: dict[str, Any]) -> ModelDescription:
    if content.get("format", "layers-model") != "layers-model":
        raise ValueError(f"expected a layers-model, got a {content['format']!r}, which has no layers")
    topology = content.get("modelTopology")
    if isinstance(topology, dict) and "model_config" in topology:  # as converters from Keras write it
        topology = topology["model_config"]
    description = keras_layers.read_model(topology)
    _require_same_padding(description)
    tensors = tfjs_weights.read(folder, content.get("weightsManifest"))
    _give_weights(description, [tensor for tensor in tensors if not tensor.optimizer])
    if content.get("trainingConfig") is not None:
        states = [tensor for tensor in tensors if tensor.optimizer]
        description.training = tfjs_training.read(content["trainingConfig"], states, description.weights())
    return description


def _give_weights(description: ModelDescription, tensors: list[StoredTensor]) -> None:
    """Hand the tensors to the layers that their names say, each layer's in Keras' order."""
    layers = {layer.name: layer for layer in description.layers}
    for tensor in tensors:
        name, weight = _own_name(tensor.name, layers)
        if name not in layers or weight.rpartition("/")[2] not in _ORDER:
            raise ValueError(f"{tensor.name}: expected the name of a layer's weight; layers are {', '.join(layers)}")
        if tensor.array.dtype != np.float32:
            raise ValueError(f"{tensor.name}: expected float32 because it is a layer's, got {tensor.array.dtype}")
        if weight in layers[name].weights:
            raise ValueError(f"{tensor.name}: expected each weight once, got another {name}/{weight}")
        layers[name].weights[weight] = tensor.array
    for layer in description.layers:
        layer.weights = dict(sorted(layer.weights.items(), key=lambda item: _place(item[0])))


def _own_name(name: str, layers: dict[str, LayerDescription]) -> tuple[str, str]:
    """Layer and weight in this package's words.

    As TensorFlow.js does it, one part before the last is left out where it must be: Keras puts the cell's name there.
    """
    layer, *between, weight = name.split("/")
    direction = []
    if between and layer in layers and layers[layer].class_name == "Bidirectional":
        direction = [between.pop(0).partition("_")[0]]
    if len(between) > 1 or any(part not in _DIRECTIONS for part in direction):
        return "", ""
    return layer, "/".join([*direction, weight])


def _place(weight: str) -> tuple[int, int]:
    direction, _, name = weight.rpartition("/")
    return _DIRECTIONS.index(direction) if direction else 0, _ORDER.index(name)


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model as TensorFlow.js' ``tf.loadLayersModel`` takes it: JSON at `path`, and weights beside it.

    The weights' files have names of their own for each version. They are written first, then the JSON is replaced,
    then those that `write` wrote for the version before go: whatever happens, `path` is the old model or the new one.

    Raises
    ------
    ValueError
        TensorFlow.js has not all that the model has.
    """
    file = _model_file(path)
    _require_sayable(description)
    weights = description.weights()
    names = {
        f"{layer.name}/{weight}": _their_name(layer, weight) for layer in description.layers for weight in layer.weights
    }
    tensors = [StoredTensor(names[name], array) for name, array in weights.items()]
    content: dict[str, Any] = {
        "format": "layers-model",
        "generatedBy": f"fastgru {__version__}",
        "convertedBy": None,
        "modelTopology": keras_layers.write_model(description, "tfjs"),
    }
    if description.training is not None:
        content["trainingConfig"], states = tfjs_training.write(description.training, names, weights)
        tensors += states
    content["weightsManifest"], shards = tfjs_weights.manifest_and_shards(file.stem, tensors)
    former = tfjs_weights.former_shards(file, _former_manifest(file))
    tfjs_weights.write(file, json.dumps(content, allow_nan=False), shards, former=former)


def _former_manifest(file: Path) -> Any:
    """That of the model that is at `file` now, if there is one."""
    try:
        return _load_json(file).get("weightsManifest")
    except (OSError, ValueError, RecursionError):
        return None


def _their_name(layer: LayerDescription, weight: str) -> str:
    direction, _, name = weight.rpartition("/")
    return f"{layer.name}/{direction}_{keras_layers.INNER_NAME}/{name}" if direction else f"{layer.name}/{name}"


# --- What TensorFlow.js cannot say ------------------------------------------------------------------------------


def _require_sayable(description: ModelDescription) -> None:
    if description.dtype != "float32":
        raise ValueError(f"dtype: {description.dtype} cannot be said in TensorFlow.js: its weights are float32")
    for layer in description.layers:
        if not _NAME.fullmatch(layer.name):
            raise ValueError(
                f"name: {layer.name!r} cannot be said in TensorFlow.js: expected letters, digits and -._ with a letter "
                f"or digit first"
            )
    _require_same_padding(description)


def _require_same_padding(description: ModelDescription) -> None:
    """Refuse what TensorFlow.js does otherwise with padding that a mask marks.

    There pooling and flattening take padding for data, and a sequence of outputs that was read backwards begins with
    padding, where the mask says that it ends with it. A loss counts the steps of padding too.
    """
    masked = False
    for layer in description.layers:
        config = _gru_config(layer)
        masked = masked or layer.class_name == "Masking" or bool(config.get("mask_zero"))
        if not masked:
            continue
        if layer.class_name in ("Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D"):
            raise ValueError(f"{layer.name}: {layer.class_name} takes padding for data in TensorFlow.js, and not here")
        if layer.class_name in ("GRU", "Bidirectional"):
            masked = config.get("return_sequences", False)
            if masked and layer.class_name == "GRU" and config.get("go_backwards"):
                raise ValueError(
                    f"{layer.name}: go_backwards=True with return_sequences=True puts padding first in TensorFlow.js, "
                    f"and last here"
                )
    if masked and description.training is not None:
        raise ValueError("loss: TensorFlow.js counts the steps of padding, which do not count here")


def _gru_config(layer: LayerDescription) -> dict[str, Any]:
    """The layer's configuration, of a Bidirectional that of its layer."""
    config: dict[str, Any] = layer.config["layer"]["config"] if layer.class_name == "Bidirectional" else layer.config
    return config
