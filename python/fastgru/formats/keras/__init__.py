"""Keras' files: ``.keras``, ``.h5`` and ``.weights.h5``.

A ``.keras`` file is a zip archive with the model in ``config.json`` and its arrays in ``model.weights.h5``, where a
layer is found by its class and number: ``layers/gru_1/cell/vars/0``. Keras 2 wrote one HDF5 file instead, with the
model in attributes and the arrays by the names of layers and weights. Keras 3 can still write such files, in its own
dialect: the version that stands in a file says whose ``hard_sigmoid`` is meant.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastgru._support.files import read_all, write_atomically
from fastgru.formats import hdf5
from fastgru.formats.archives import Archive
from fastgru.formats.boundary import model_file
from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.keras.layers import (
    KERAS_2,
    KERAS_3,
    Dialect,
    Topology,
    topology_from_config,
    topology_to_config,
    training_from_config,
    training_to_config,
    weight_names,
)
from fastgru.formats.keras.training import separable

Array = NDArray[Any]
PathLike = str | os.PathLike[str]

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
#: The versions whose words are written.
_VERSIONS = {KERAS_3.name: "3.0.0", KERAS_2.name: "2.15.0"}
_DIALECTS = {"2": KERAS_2, "3": KERAS_3}

#: Class -> where Keras 3 keeps a layer's arrays below the layer.
_STORED: dict[str, tuple[str, ...]] = {
    "GRU": ("cell/",),
    "RNN": ("cell/",),
    "Dense": ("",),
    "TimeDistributed": ("layer/",),
    "Embedding": ("",),
    "Bidirectional": ("forward_layer/cell/", "backward_layer/cell/"),
}
#: Class -> the wrapper that such a layer may have been read from, and the wrapper's name in a file of weights.
_WRAPPERS = {"Dense": ("TimeDistributed", "time_distributed"), "GRU": ("RNN", "rnn")}
#: Class -> the states of an optimizer in the order of its variables; those that stand together alternate.
_STATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "Adam": (("m", "v"),),
    "AdamW": (("m", "v"),),
    "SGD": (("m",),),
    "RMSprop": (("v",), ("m",), ("a",)),
}
#: State -> what Keras calls it: since TensorFlow 2.11, before, and since Keras 3.
_STATE_WORDS = {
    "m": ("m", "momentum"),
    "v": ("v", "velocity", "rms"),
    "a": ("average_gradient", "mg"),
}
#: Class -> what Keras 2 calls its states: before TensorFlow 2.11, and since.
_LEGACY_WORDS = {
    "Adam": {"m": "m", "v": "v"},
    "SGD": {"m": "momentum"},
    "RMSprop": {"v": "rms", "m": "momentum", "a": "mg"},
}
_NEW_WORDS = {
    "AdamW": {"m": "m", "v": "v"},
    "RMSprop": {"v": "velocity", "m": "momentum", "a": "average_gradient"},
}


def read(path: PathLike, *, compile: bool = True) -> ModelDescription:
    """The model in a ``.keras`` or ``.h5`` file.

    Parameters
    ----------
    path : path
    compile : bool
        Whether to read how it is trained as well.

    Raises
    ------
    ModelFileError
        It is none, is damaged, or holds something that this package does not have.
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
        Keras 3 has no word for something; nothing is written then.
    ImportError
        h5py is not installed.
    """
    config = topology_to_config(KERAS_3, description)
    arrays = _stored(description.layers, [layer.class_name for layer in description.layers])
    if description.training is not None:
        config["compile_config"] = training_to_config(KERAS_3, description.training)
        arrays |= _optimizer_variables(description, description.training)
    metadata = {"keras_version": _VERSIONS[KERAS_3.name]}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (
            (_METADATA, json.dumps(metadata).encode()),
            (_CONFIG, json.dumps(config).encode()),
            (_WEIGHTS, hdf5.to_bytes(arrays)),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)  # with a date that is always the same
    write_atomically(path, buffer.getvalue())


def write_h5(path: PathLike, description: ModelDescription) -> None:
    """Write an ``.h5`` file in the words of Keras 2.

    Keras 3 reads the model as well, but trains none from any ``.h5`` before it is compiled again. What is said of an
    AdamW, and of an RMSprop of Keras' form without momentum, it refuses, so that it needs ``compile=False``: without
    ``is_legacy_optimizer``, which it does not know, Keras 2 would take either for an optimizer from before TensorFlow
    2.11, of which there was no AdamW, and whose RMSprop computes something else.

    Raises
    ------
    ValueError
        Keras 2 has no word for something; nothing is written then.
    ImportError
        h5py is not installed.
    """
    config = topology_to_config(KERAS_2, description)
    arrays, attributes = _named(description.layers, "model_weights/")
    attributes[""] = {
        "keras_version": _VERSIONS[KERAS_2.name],
        "backend": "tensorflow",
        "model_config": json.dumps(config),
    }
    training = description.training
    if training is not None:
        trained = {**training_to_config(KERAS_2, training), "loss_weights": None, "weighted_metrics": None}
        attributes[""]["training_config"] = json.dumps(trained)
        legacy = trained["optimizer_config"]["config"].get("is_legacy_optimizer", True)
        states = _named_states(description, training, legacy=legacy)
        arrays |= {f"optimizer_weights/{name}": array for name, array in states.items()}
        attributes["optimizer_weights"] = {"weight_names": list(states)}
    write_atomically(path, hdf5.to_bytes(arrays, attributes))


def read_weights(path: PathLike, layers: list[LayerDescription]) -> dict[str, Array]:
    """The weights in a file of weights, or of a model, for layers like those that it was made from.

    Parameters
    ----------
    path : path
        Keras 3's ``.weights.h5`` and ``.keras``, Keras 2's ``.h5``.
    layers : list of LayerDescription
        Keras finds them by their classes and order, not by their names, and so it is done here.

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
            classes = _classes_in(file, layers)
            _load_stored(file, layers, classes)
            _refuse_more(file, layers, classes)
        else:
            _load_in_order(file, root, layers)
    return {f"{layer.name}/{name}": array for layer in layers for name, array in layer.weights.items()}


def write_weights(path: PathLike, description: ModelDescription) -> None:
    """Write the weights alone, as Keras 3 does if the name ends in ``.weights.h5``, else as Keras 2."""
    if os.fspath(path).lower().endswith(".weights.h5"):
        layers = description.layers
        write_atomically(path, hdf5.to_bytes(_stored(layers, [layer.class_name for layer in layers])))
    else:
        write_atomically(path, hdf5.to_bytes(*_named(description.layers, "")))


# --- Models ---------------------------------------------------------------------------------------------------


def _is_archive(file: BinaryIO) -> bool:
    return file.read(2) == b"PK"


def _read_archive(path: PathLike, compile: bool) -> ModelDescription:
    with Archive(path) as archive:
        version = "3"
        if _METADATA in archive.names:
            metadata = _json(_METADATA, archive.read(_METADATA))
            version = metadata.get("keras_version", version) if isinstance(metadata, dict) else version
        config = _json(_CONFIG, archive.read(_CONFIG))
        data = archive.read(_WEIGHTS)
    dialect = _dialect(version)
    topology = topology_from_config(dialect, config)
    with separable():
        training = training_from_config(dialect, config.get("compile_config")) if compile else None
    file = hdf5.Reader(data)
    weighty = [each for each in topology.file_layers if each.layer is not None]
    _load_stored(file, [each.layer for each in weighty if each.layer], [each.class_name for each in weighty])
    description = _checked(topology, training)
    if training is not None:
        with separable():
            _load_optimizer_variables(file, description, training)
    return description


def _read_h5(data: bytes, compile: bool) -> ModelDescription:
    file = hdf5.Reader(data)
    text = file.text("", "model_config")
    if text is None:
        raise ValueError("weights without a model: make the model, and give the file to its load_weights")
    dialect = _dialect(file.text("", "keras_version") or file.text("model_weights", "keras_version"))
    config = _json("model_config", text)
    topology = topology_from_config(dialect, config)
    trained = _json("training_config", file.text("", "training_config") or "null")
    with separable():
        training = training_from_config(dialect, trained) if compile else None
    paths = _load_named(file, topology.layers)
    description = _checked(topology, training)
    if training is not None:
        with separable():
            _load_named_states(file, description, training, paths, trained["optimizer_config"])
    return description


def is_keras_2(path: str | os.PathLike[str]) -> bool:
    """Whether Keras 2 wrote an .h5 file of a model, or the file says so: names in it then mean what they mean there."""
    with model_file(path) as source:
        file = hdf5.Reader(read_all(source))
        return _dialect(file.text("", "keras_version") or file.text("model_weights", "keras_version")) is KERAS_2


def _json(name: str, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None


def _dialect(version: Any) -> Dialect:
    first = version.split(".")[0] if isinstance(version, str) else None
    if first not in _DIALECTS:
        raise ValueError(f"keras_version: expected 2 or 3, got {version!r}")
    return _DIALECTS[first]


def _checked(topology: Topology, training: TrainingDescription | None) -> ModelDescription:
    """The description, whose arrays have the dtype of the model and whose input has a shape."""
    if topology.input_shape is None:
        raise ValueError("the model has not been built: the file does not say the shape of its input")
    for layer in topology.layers:
        for name, array in layer.weights.items():
            if array.dtype.newbyteorder("=") != topology.dtype:
                raise ValueError(f"{layer.name}: expected {topology.dtype} as {name}, got {array.dtype}")
    return topology.description(training)


# --- Weights as Keras 3 stores them -----------------------------------------------------------------------------


def _places(layers: Iterable[LayerDescription], classes: Iterable[str]) -> Iterator[tuple[LayerDescription, list[str]]]:
    """Each layer with weights, and the groups of its arrays; layers of a class are numbered."""
    used: dict[str, int] = {}
    for layer, class_name in zip(layers, classes, strict=True):
        if class_name in _STORED:
            number = used.get(class_name, 0)
            used[class_name] = number + 1
            name = "time_distributed" if class_name == "TimeDistributed" else class_name.lower()
            name = f"{name}_{number}" if number else name
            yield layer, [f"layers/{name}/{inner}vars" for inner in _STORED[class_name]]


def _stored(layers: list[LayerDescription], classes: list[str]) -> dict[str, Array]:
    """The arrays of all layers by their places."""
    arrays: dict[str, Array] = {}
    for layer, groups in _places(layers, classes):
        for group, names in zip(groups, _weights_of(layer), strict=True):
            arrays |= {f"{group}/{number}": layer.weights[name] for number, name in enumerate(names)}
    return arrays


def _load_stored(file: hdf5.Reader, layers: list[LayerDescription], classes: list[str]) -> None:
    for layer, groups in _places(layers, classes):
        for group, names in zip(groups, _weights_of(layer), strict=True):
            if file.members(group) != sorted(str(number) for number in range(len(names))):
                raise ValueError(f"{layer.name}: expected {', '.join(names)} in {group}, got other arrays")
            for number, name in enumerate(names):
                layer.weights[name] = file.array(f"{group}/{number}")


def _classes_in(file: hdf5.Reader, layers: list[LayerDescription]) -> list[str]:
    """The classes under which a file of weights keeps the layers.

    A layer that was read from a wrapper is of the class within. If the file has layers of that class and wrappers,
    their order is not in it, so that the class is kept and the rest of the file refused.
    """
    called = {
        inner: wrapper
        for inner, (wrapper, stored) in _WRAPPERS.items()
        if file.has(f"layers/{stored}") and not file.has(f"layers/{inner.lower()}")
    }
    return [called.get(layer.class_name, layer.class_name) for layer in layers]


def _refuse_more(file: hdf5.Reader, layers: list[LayerDescription], classes: list[str]) -> None:
    """Refuse a file that has weights of more layers."""
    expected = {group for _, groups in _places(layers, classes) for group in groups}
    for name in file.members("layers"):
        for inner in {part for parts in _STORED.values() for part in parts}:
            group = f"layers/{name}/{inner}vars"
            if group not in expected and file.members(group):
                raise ValueError(f"expected the weights of the model's layers, got more of them in {group}")


def _weights_of(layer: LayerDescription) -> list[list[str]]:
    """The names of a layer's weights for each of its groups: a Bidirectional has one a direction."""
    names = weight_names(layer)
    if layer.class_name != "Bidirectional":
        return [names]
    return [[name for name in names if name.startswith(f"{direction}/")] for direction in ("forward", "backward")]


# --- Weights as Keras 2 names them ------------------------------------------------------------------------------


def _keras_2_path(layer: LayerDescription, weight: str) -> str:
    """The name that Keras 2 gives a weight."""
    direction, _, name = weight.rpartition("/")
    parts = [layer.name]
    if direction:
        parts.append(f"{direction}_{layer.name}")
    if layer.class_name in ("GRU", "Bidirectional"):
        parts.append("gru_cell")
    return "/".join([*parts, f"{name}:0"])


def _named(layers: list[LayerDescription], root: str) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """The arrays of all layers by their paths below `root`, and the attributes that list them."""
    arrays: dict[str, Array] = {}
    attributes: dict[str, dict[str, Any]] = {
        root: {
            "layer_names": [layer.name for layer in layers],
            "backend": "tensorflow",
            "keras_version": _VERSIONS[KERAS_2.name],
        }
    }
    for layer in layers:
        paths = {name: _keras_2_path(layer, name) for name in weight_names(layer)}
        arrays |= {f"{root}{layer.name}/{path}": layer.weights[name] for name, path in paths.items()}
        attributes[f"{root}{layer.name}"] = {"weight_names": list(paths.values())}
    return arrays, attributes


def _load_named(file: hdf5.Reader, layers: list[LayerDescription]) -> dict[str, str]:
    """Load each layer's weights from the group with its name; returns their paths by ``layer/weight``."""
    paths: dict[str, str] = {}
    for layer in layers:
        found = _load_group(file, f"model_weights/{layer.name}", layer)
        paths |= {f"{layer.name}/{name}": path for name, path in found.items()}
    return paths


def _load_in_order(file: hdf5.Reader, root: str, layers: list[LayerDescription]) -> None:
    """Load the weights of the layers that have some from the groups that have some, one after the other."""
    names = file.texts(root, "layer_names", len(layers) + 1) or []
    groups = [f"{root}/{name}" for name in names]
    groups = [group for group in groups if file.texts(group, "weight_names", _MOST_WEIGHTS)]
    weighty = [layer for layer in layers if weight_names(layer)]
    if len(groups) != len(weighty):
        raise ValueError(f"expected the weights of {len(weighty)} layers, got those of {len(groups)}")
    for group, layer in zip(groups, weighty, strict=True):
        _load_group(file, group, layer)


#: Of one layer, a bidirectional GRU.
_MOST_WEIGHTS = 6


def _load_group(file: hdf5.Reader, group: str, layer: LayerDescription) -> dict[str, str]:
    names = weight_names(layer)
    paths = file.texts(group, "weight_names", _MOST_WEIGHTS) or []
    if len(paths) != len(names):
        raise ValueError(f"{layer.name}: expected {len(names)} arrays in {group}, got {len(paths)}")
    for name, path in zip(names, paths, strict=True):
        if path.split("/")[-1].removesuffix(":0") != name.split("/")[-1]:
            raise ValueError(f"{layer.name}: expected {name} in {group}, got {path!r}")
        layer.weights[name] = file.array(f"{group}/{path}")
    return dict(zip(names, paths, strict=True))


# --- What an optimizer remembers --------------------------------------------------------------------------------


def _kept_states(optimizer: dict[str, Any]) -> list[tuple[str, ...]]:
    """The states that an optimizer keeps, in the order of its variables; those that stand together alternate."""
    class_name, config = optimizer["class_name"], optimizer["config"]
    without = set()
    if class_name in ("SGD", "RMSprop"):
        without = {"m"} if not config.get("momentum") else set()
        without |= set() if config.get("centered") else {"a"}
    groups = [tuple(state for state in group if state not in without) for group in _STATES[class_name]]
    return [group for group in groups if group]


def _variables(description: ModelDescription, training: TrainingDescription) -> Iterator[tuple[str, str]]:
    """State and weight of each of an optimizer's variables, in their order."""
    for group in _kept_states(training.optimizer):
        for weight in description.weights():
            for state in group:
                yield state, weight


def _moment(description: ModelDescription, training: TrainingDescription, state: str, weight: str) -> Array:
    """A state of a weight; zeros before the first update."""
    if state in training.moments:
        return training.moments[state][weight]
    return np.zeros_like(description.weights()[weight])


def _iteration(value: Array) -> int:
    if value.shape != () or value.dtype.kind not in "iu" or value < 0:
        raise ValueError(f"optimizer: expected a number of updates, got {value.dtype} of shape {value.shape}")
    return int(value)


def _require_like(description: ModelDescription, state: str, weight: str, moment: Array) -> Array:
    like = description.weights()[weight]
    if moment.shape != like.shape or moment.dtype.newbyteorder("=") != like.dtype.newbyteorder("="):
        raise ValueError(
            f"optimizer: expected {like.dtype} of shape {like.shape} as {state} of {weight}, got {moment.dtype} of "
            f"shape {moment.shape}"
        )
    return moment


def _has_schedule(training: TrainingDescription) -> bool:
    return isinstance(training.optimizer["config"].get("learning_rate"), dict)


def _optimizer_variables(description: ModelDescription, training: TrainingDescription) -> dict[str, Array]:
    """The variables of an optimizer as Keras 3 stores them."""
    variables: list[Any] = [np.int64(training.step)]
    config = training_to_config(KERAS_3, training)["optimizer"]["config"]
    if not isinstance(config["learning_rate"], dict):
        variables.append(np.float32(config["learning_rate"]))
    variables += [_moment(description, training, *place) for place in _variables(description, training)]
    return {f"optimizer/vars/{number}": np.asarray(variable) for number, variable in enumerate(variables)}


def _load_optimizer_variables(file: hdf5.Reader, description: ModelDescription, training: TrainingDescription) -> None:
    """Load what Keras 3 stored: the number of updates, the learning rate if it is a number, and the states."""
    count = len(file.members("optimizer/vars"))
    if count == 0:
        return
    training.step = _iteration(file.array("optimizer/vars/0"))
    places = list(_variables(description, training))
    first = count - len(places)
    if first not in ((1,) if _has_schedule(training) else (1, 2)):
        if count <= 2:  # never used
            return
        raise ValueError(f"optimizer: expected {len(places)} states of weights, got {count} variables")
    for number, (state, weight) in enumerate(places, first):
        moment = _require_like(description, state, weight, file.array(f"optimizer/vars/{number}"))
        training.moments.setdefault(state, {})[weight] = moment


def _named_states(description: ModelDescription, training: TrainingDescription, *, legacy: bool) -> dict[str, Array]:
    """The variables of an optimizer as Keras 2 names them, in the order of the older or the newer ones."""
    name = training.optimizer["class_name"]
    words = (_LEGACY_WORDS if legacy else _NEW_WORDS)[name]
    paths = {
        f"{layer.name}/{weight}": _keras_2_path(layer, weight)
        for layer in description.layers
        for weight in weight_names(layer)
    }
    places = list(_variables(description, training))
    if legacy:  # all of one state, then all of the next
        states = [state for group in _kept_states(training.optimizer) for state in group]
        places.sort(key=lambda place: states.index(place[0]))
    named = {f"{name}/iter:0" if legacy else "iteration:0": np.asarray(np.int64(training.step))}
    for state, weight in places:
        word, path = words[state], paths[weight]
        path = f"{path.removesuffix(':0')}/{word}:0" if legacy else f"{word}/{path}"
        named[f"{name}/{path}"] = _moment(description, training, state, weight)
    return named


def _load_named_states(
    file: hdf5.Reader,
    description: ModelDescription,
    training: TrainingDescription,
    paths: dict[str, str],
    optimizer: Any,
) -> None:
    """Load the states from wherever the versions of Keras put them, given the weights' paths."""
    root = "optimizer_weights"
    name = optimizer["config"].get("name", training.optimizer["class_name"])
    iterations = [f"{root}/{place}" for place in ("iteration:0", f"{name}/iter:0", f"{name}/iteration")]
    found = [place for place in iterations if file.has(place)]
    if not found:
        if file.members(root):
            raise ValueError("optimizer: expected its states by the names that Keras 2 and 3 give them, got others")
        return
    training.step = _iteration(file.array(found[0]))
    places = {
        place: _state_path(file, root, name, place[0], paths[place[1]]) for place in _variables(description, training)
    }
    if training.step == 0 and not any(places.values()):  # never used
        return
    for (state, weight), path in places.items():
        if path is None:
            raise ValueError(f"optimizer: expected the state {state} of {paths[weight]}, which is missing")
        moment = _require_like(description, state, weight, file.array(path))
        training.moments.setdefault(state, {})[weight] = moment


def _state_path(file: hdf5.Reader, root: str, optimizer: str, state: str, weight: str) -> str | None:
    """Where a state of the weight with this path lies, if it does."""
    stem = weight.removesuffix(":0")
    for word in _STATE_WORDS[state]:
        for path in (f"{word}/{weight}", f"{stem}/{word}:0", f"{stem.replace('/', '_')}_{word}"):
            if file.has(f"{root}/{optimizer}/{path}"):
                return f"{root}/{optimizer}/{path}"
    return None
