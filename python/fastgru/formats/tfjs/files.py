"""Reading and writing of a TensorFlow.js model: its JSON and its files of weights."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastgru._native._cpu_features import __version__
from fastgru._support.files import alone_in, check_path, read_all, replaceable
from fastgru.formats.boundary import model_file
from fastgru.formats.checks import parse_json, require, require_object, unsupported, with_remedy
from fastgru.formats.description import LayerDescription, ModelDescription, ModelFileError
from fastgru.formats.keras.dialects import TFJS
from fastgru.formats.keras.masks import masked_after
from fastgru.formats.keras.topology import topology_from_config, topology_to_config
from fastgru.formats.keras.training import LOAD_WITHOUT, SAVE_WITHOUT
from fastgru.formats.scaling import FORMAT_VERSION, dividing_bytes
from fastgru.formats.tfjs import training as tfjs_training
from fastgru.formats.tfjs import weights as tfjs_weights
from fastgru.formats.tfjs.weights import StoredTensor

#: The names of layers that TensorFlow.js accepts.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
#: How `generatedBy` begins in files written here.
_PRODUCER = "fastgru"


def read(path: str | os.PathLike[str], *, compile: bool = True) -> ModelDescription:
    """Read the model in a ``model.json``, or in a folder that contains one.

    Parameters
    ----------
    path : path
    compile : bool
        Whether to read optimizer, loss and metrics.

    Raises
    ------
    ModelFileError
        The file is not such a model, is damaged, or has a feature that fastgru does not support.
    OSError
        A file cannot be read.
    """
    file = _model_file(path)
    with model_file(file) as opened:
        return _read(file.parent, _load_json(opened), compile)


def _model_file(path: str | os.PathLike[str]) -> Path:
    check_path(path)
    return Path(path) / "model.json" if os.path.isdir(path) else Path(path)


def _load_json(file: BinaryIO) -> dict[str, Any]:
    return require_object("", parse_json(read_all(file)))


def _read(folder: Path, content: dict[str, Any], compile: bool) -> ModelDescription:
    kind = "layers-model" if content.get("format") is None else content["format"]
    require(kind == "layers-model", "format: expected 'layers-model' because other models have no layers", kind)
    config = content.get("modelTopology")
    if isinstance(config, dict) and "model_config" in config:  # the form that converters from Keras write
        config = config["model_config"]
    topology = topology_from_config(TFJS, config)
    require(topology.input_shape is not None, "expected the first layer to have a batch_input_shape", None)
    require(
        topology.dtype == "float32",
        "dtype: expected float32 because TensorFlow.js has no other weights",
        topology.dtype,
    )
    tensors = tfjs_weights.read(folder, content.get("weightsManifest"))
    _give_weights(topology.layers, [tensor for tensor in tensors if not tensor.optimizer])
    description = topology.description()
    if compile and content.get("trainingConfig") is not None:
        states = [tensor for tensor in tensors if tensor.optimizer]
        with with_remedy(LOAD_WITHOUT):
            trainable = description.trainable_weights()
            description.training = tfjs_training.read(content["trainingConfig"], states, trainable)
    _require_same_meaning(description)
    if _divided_bytes(content):
        description.layers = dividing_bytes(description.layers)
    return description


def _divided_bytes(content: dict[str, Any]) -> bool:
    """Whether format version 1 of this package wrote the file, in which models divided uint8 input by 255."""
    by = content.get("generatedBy")
    metadata = content.get("userDefinedMetadata")
    marked = isinstance(metadata, dict) and _PRODUCER in metadata
    return isinstance(by, str) and by.startswith(f"{_PRODUCER} ") and not marked


def _give_weights(layers: list[LayerDescription], tensors: list[StoredTensor]) -> None:
    """Assign the tensors to the layers, in Keras' order within each layer."""
    by_name = {layer.name: layer for layer in layers}
    found = {}
    for tensor in tensors:
        name, weight = _own_name(tensor.name, by_name)
        fits = name in by_name and weight in by_name[name].weight_names
        require(fits, f"weightsManifest: expected weights of {', '.join(by_name)}", tensor.name)
        require(tensor.array.dtype == np.float32, f"{tensor.name}: expected float32", str(tensor.array.dtype))
        require((name, weight) not in found, f"weightsManifest: expected {weight} of {name} once", tensor.name)
        found[name, weight] = tensor.array
    for layer in layers:
        for weight in layer.weight_names:
            require((layer.name, weight) in found, f"{layer.name}: expected its {weight} among the weights", "none")
            layer.weights[weight] = found[layer.name, weight]


def _own_name(name: str, layers: dict[str, LayerDescription]) -> tuple[str, str]:
    """The layer and the weight that a name denotes; ``bidirectional/forward_gru/kernel`` is a weight of one direction.

    As in TensorFlow.js, the part before the last may be redundant: Keras writes the name of the cell there.
    """
    layer, *between, weight = name.split("/")
    if between and layer in layers and len(layers[layer].parts) > 1:
        weight = f"{between.pop(0).partition('_')[0]}/{weight}"
    return layer if len(between) <= 1 else "", weight


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model for ``tf.loadLayersModel`` of TensorFlow.js: JSON at `path`, and weights beside it.

    Each version of a model has different names for its files of weights. They are written first, then the JSON is
    replaced, then the files that `write` wrote for the previous version are removed. A crash therefore leaves the old
    model or the new one at `path`.

    Raises
    ------
    ValueError
        TensorFlow.js does not support a feature of the model.
    """
    file = _model_file(path)
    description = replace(description, layers=[layer.unwrapped for layer in description.layers])
    _require_supported(description)
    names = {
        f"{layer.name}/{weight}": _their_name(layer, weight) for layer in description.layers for weight in layer.weights
    }
    tensors = [StoredTensor(names[name], array) for name, array in description.weights().items()]
    content: dict[str, Any] = {
        "format": "layers-model",
        "generatedBy": f"{_PRODUCER} {__version__}",
        "convertedBy": None,
        "userDefinedMetadata": {_PRODUCER: FORMAT_VERSION},
        "modelTopology": topology_to_config(TFJS, description),
    }
    if description.training is not None:
        with with_remedy(SAVE_WITHOUT):
            trained = tfjs_training.write(description.training, names, description.trainable_weights())
            content["trainingConfig"], states = trained
        tensors += states
    content["weightsManifest"], shards = tfjs_weights.manifest_and_shards(file, tensors)
    text = json.dumps(content, allow_nan=False)
    replaceable(file)
    with alone_in(file.parent) as alone:
        former = tfjs_weights.former_shards(file, _former_manifest(file))
        tfjs_weights.write(file, text, shards, former=former)
        if alone:  # no other process is writing shards that no manifest names yet
            tfjs_weights.remove_stale(file, shards)


def _former_manifest(file: Path) -> Any:
    """The manifest of the model that is at `file` now; None if there is none."""
    try:
        with model_file(file) as opened:
            return _load_json(opened).get("weightsManifest")
    except (OSError, ModelFileError):
        return None


def _their_name(layer: LayerDescription, weight: str) -> str:
    direction, _, name = weight.rpartition("/")
    return f"{layer.name}/{direction}_gru/{name}" if direction else f"{layer.name}/{name}"


# --- Features that TensorFlow.js does not support or computes differently -------------------------------------------


def _require_supported(description: ModelDescription) -> None:
    description.require_float32(TFJS.name, "whose weights are float32")
    for layer in description.layers:
        if not _NAME.fullmatch(layer.name):
            reason = "which allows letters, digits and -._ in names, with a letter or digit first"
            raise unsupported("name", repr(layer.name), TFJS.name, reason, "rename the layer")
        if layer.outputs > 1:
            raise unsupported(layer.name, "a layer with several outputs", f"{TFJS.name}' Sequential")
    _require_same_meaning(description)


def _require_same_meaning(description: ModelDescription) -> None:
    """Raise for what TensorFlow.js computes differently, which mostly depends on masks of padding."""
    axes = 1 + len(description.built_shape)
    masked = False
    for layer in description.layers:
        what = _other_meaning(layer, axes, masked=masked)
        if what is not None:
            raise ValueError(f"{layer.name}: {what}")
        axes = layer.output_axes(axes)
        masked = masked_after(layer, masked=masked)
    if masked and description.training is not None:
        raise ValueError(
            "loss: a mask of the outputs is not supported by TensorFlow.js, which counts the steps of padding"
        )


def _other_meaning(layer: LayerDescription, axes: int, *, masked: bool) -> str | None:
    """How TensorFlow.js computes this layer differently; None if it does not."""
    if layer.class_name == "TimeDistributed":
        return _other_meaning(layer.within, axes - 1, masked=False)
    if layer.class_name == "Bidirectional" and layer.returns_steps and layer.forward.config.get("go_backwards"):
        return "go_backwards=True is not supported by TensorFlow.js, which returns one direction in reversed order"
    if layer.class_name == "Flatten" and axes < 3:
        return "Flatten of two axes is not supported by TensorFlow.js: leave the layer out"
    if masked and layer.class_name in ("Permute", "Reshape"):
        return f"{layer.class_name} after a mask is not supported by TensorFlow.js"
    if masked and layer.class_name == "Rescaling":
        return "a mask before Rescaling is not supported by TensorFlow.js: put Rescaling before the layer that masks"
    if masked and layer.class_name in ("Flatten", "GlobalAveragePooling1D"):
        return f"{layer.class_name} after a mask is not supported by TensorFlow.js, which treats padding as data"
    return None
