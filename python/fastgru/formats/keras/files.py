"""Keras' files: ``.keras``, ``.h5`` and ``.weights.h5``.

A ``.keras`` file is a zip archive. ``config.json`` contains the model and ``model.weights.h5`` its arrays, in groups
named after the class and number of the layers: ``layers/gru_1/cell/vars/0``. Keras 2 wrote one HDF5 file, with the
model in attributes and the arrays under the names of layers and weights. Keras 3 can still write such files in its own
dialect. The version in the file decides what ``hard_sigmoid`` means.
"""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO

from fastgru._support.files import read_all, write_atomically
from fastgru.formats import archives, hdf5
from fastgru.formats.archives import Archive
from fastgru.formats.boundary import model_file
from fastgru.formats.checks import parse_json, with_remedy
from fastgru.formats.description import Array, LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.keras.dialects import KERAS_2, KERAS_3, VERSIONS, Dialect
from fastgru.formats.keras.optimizers import load_named_states, load_stored_states, named_states, stored_states
from fastgru.formats.keras.topology import Topology, topology_from_config, topology_to_config
from fastgru.formats.keras.training import LOAD_WITHOUT, SAVE_WITHOUT, training_from_config, training_to_config
from fastgru.formats.keras.weights import (
    classes_in,
    load_in_order,
    load_named,
    load_stored,
    named_weights,
    refuse_more,
    stored_weights,
)

PathLike = str | os.PathLike[str]

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_DIALECTS = {"2": KERAS_2, "3": KERAS_3}


def read(path: PathLike, *, compile: bool = True) -> ModelDescription:
    """Read the model in a ``.keras`` or ``.h5`` file.

    Parameters
    ----------
    path : path
    compile : bool
        Whether to read the training configuration too.

    Raises
    ------
    ModelFileError
        The file is not a model, is damaged, or uses unsupported features.
    OSError
        The file cannot be read.
    """
    with model_file(path) as file:
        return _read_archive(path, compile) if _is_archive(file) else _read_h5(read_all(file), compile)


def write(path: PathLike, description: ModelDescription) -> None:
    """Write a ``.keras`` file.

    Raises
    ------
    ValueError
        Keras 3 does not support the model; nothing is written.
    ImportError
        h5py is not installed.
    """
    config = topology_to_config(KERAS_3, description)
    arrays = stored_weights(description.layers, [layer.class_name for layer in description.layers])
    if description.training is not None:
        with with_remedy(SAVE_WITHOUT):
            config["compile_config"] = training_to_config(KERAS_3, description.training)
        arrays |= stored_states(description, description.training)
    files = {
        _METADATA: json.dumps({"keras_version": VERSIONS[KERAS_3.name]}).encode(),
        _CONFIG: json.dumps(config).encode(),
        _WEIGHTS: hdf5.to_bytes(arrays),
    }
    write_atomically(path, archives.to_bytes(files))


def write_h5(path: PathLike, description: ModelDescription) -> None:
    """Write an ``.h5`` file as Keras 2 does.

    Keras 3 reads the model, but a model from an ``.h5`` file must be compiled before training continues. With AdamW, or
    RMSprop of Keras' form without momentum, Keras 3 can load the file only with ``compile=False``: it does not know
    ``is_legacy_optimizer``. Keras 2 needs that option, or it would use the optimizer from before TensorFlow 2.11. That
    version had no AdamW, and its RMSprop computes different updates.

    Raises
    ------
    ValueError
        Keras 2 does not support the model; nothing is written.
    ImportError
        h5py is not installed.
    """
    config = topology_to_config(KERAS_2, description)
    arrays, attributes = named_weights(description.layers, "model_weights/")
    attributes[""] = {
        "keras_version": VERSIONS[KERAS_2.name],
        "backend": "tensorflow",
        "model_config": json.dumps(config),
    }
    training = description.training
    if training is not None:
        with with_remedy(SAVE_WITHOUT):
            trained = {**training_to_config(KERAS_2, training), "loss_weights": None, "weighted_metrics": None}
        attributes[""]["training_config"] = json.dumps(trained)
        legacy = trained["optimizer_config"]["config"].get("is_legacy_optimizer", True)
        states = named_states(description, training, legacy=legacy)
        arrays |= {f"optimizer_weights/{name}": array for name, array in states.items()}
        attributes["optimizer_weights"] = {"weight_names": list(states)}
    write_atomically(path, hdf5.to_bytes(arrays, attributes))


def read_weights(path: PathLike, layers: list[LayerDescription]) -> dict[str, Array]:
    """Read the weights in a weights file or a model file, for layers like those of the file.

    Parameters
    ----------
    path : path
        Keras 3's ``.weights.h5`` and ``.keras``, Keras 2's ``.h5``.
    layers : list of LayerDescription
        As in Keras, weights are matched by the classes and order of the layers, not by their names.

    Returns
    -------
    dict of str to ndarray
        By ``layer/weight``.
    """
    with model_file(path) as source:
        if _is_archive(source):
            with Archive(path) as archive:
                data = archive.read(_WEIGHTS)
        else:
            data = read_all(source)
        file = hdf5.Reader(data)
        root = "model_weights" if file.has("model_weights") else ""
        if file.texts(root, "layer_names", len(layers) + 1) is None:
            classes = classes_in(file, layers)
            load_stored(file, layers, classes)
            refuse_more(file, layers, classes)
        else:
            load_in_order(file, root, layers)
    return {f"{layer.name}/{name}": array for layer in layers for name, array in layer.weights.items()}


def write_weights(path: PathLike, description: ModelDescription) -> None:
    """Write the weights only: as Keras 3 if the name ends in ``.weights.h5``, otherwise as Keras 2."""
    if os.fspath(path).lower().endswith(".weights.h5"):
        layers = description.layers
        write_atomically(path, hdf5.to_bytes(stored_weights(layers, [layer.class_name for layer in layers])))
    else:
        write_atomically(path, hdf5.to_bytes(*named_weights(description.layers, "")))


# --- Models ---------------------------------------------------------------------------------------------------


def _is_archive(file: BinaryIO) -> bool:
    return file.read(2) == b"PK"


def _read_archive(path: PathLike, compile: bool) -> ModelDescription:
    with Archive(path) as archive:
        version = "3"
        if _METADATA in archive.names:
            metadata = parse_json(archive.read(_METADATA), _METADATA)
            version = metadata.get("keras_version", version) if isinstance(metadata, dict) else version
        config = parse_json(archive.read(_CONFIG), _CONFIG)
        data = archive.read(_WEIGHTS)
    dialect = _dialect(version)
    topology = topology_from_config(dialect, config)
    with with_remedy(LOAD_WITHOUT):
        training = training_from_config(dialect, config.get("compile_config")) if compile else None
    file = hdf5.Reader(data)
    weighty = [each for each in topology.file_layers if each.layer is not None]
    load_stored(file, [each.layer for each in weighty if each.layer], [each.class_name for each in weighty])
    description = _checked(topology, training)
    if training is not None:
        with with_remedy(LOAD_WITHOUT):
            load_stored_states(file, description, training)
    return description


def _read_h5(data: bytes, compile: bool) -> ModelDescription:
    file = hdf5.Reader(data)
    text = file.text("", "model_config")
    if text is None:
        raise ValueError("the file contains weights only: create the model, and load the file with its load_weights")
    dialect = _dialect(file.text("", "keras_version") or file.text("model_weights", "keras_version"))
    config = parse_json(text, "model_config")
    topology = topology_from_config(dialect, config)
    trained = parse_json(file.text("", "training_config") or "null", "training_config")
    with with_remedy(LOAD_WITHOUT):
        training = training_from_config(dialect, trained) if compile else None
    paths = load_named(file, topology.layers)
    description = _checked(topology, training)
    if training is not None:
        with with_remedy(LOAD_WITHOUT):
            load_named_states(file, description, training, paths, trained["optimizer_config"])
    return description


def is_keras_2(path: str | os.PathLike[str]) -> bool:
    """Whether an .h5 file of a model is in the dialect of Keras 2, according to the version in the file."""
    with model_file(path) as source:
        file = hdf5.Reader(read_all(source))
        return _dialect(file.text("", "keras_version") or file.text("model_weights", "keras_version")) is KERAS_2


def _dialect(version: Any) -> Dialect:
    first = version.split(".")[0] if isinstance(version, str) else None
    if first not in _DIALECTS:
        raise ValueError(f"keras_version: expected 2 or 3, got {version!r}")
    return _DIALECTS[first]


def _checked(topology: Topology, training: TrainingDescription | None) -> ModelDescription:
    """Return the description, after checking the dtype of the arrays and that the input has a shape."""
    if topology.input_shape is None:
        raise ValueError("the model has not been built: the file does not contain the shape of its input")
    for layer in topology.layers:
        for name, array in layer.weights.items():
            if array.dtype.newbyteorder("=") != topology.dtype:
                raise ValueError(f"{layer.name}: expected {topology.dtype} as {name}, got {array.dtype}")
    return topology.description(training)
