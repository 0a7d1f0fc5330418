"""Location of optimizer states in Keras' HDF5 files: by number in Keras 3, by name in Keras 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastgru.formats.description import Array, ModelDescription, TrainingDescription
from fastgru.formats.hdf5 import Reader
from fastgru.formats.keras.dialects import KERAS_3
from fastgru.formats.keras.training import training_to_config
from fastgru.formats.keras.weights import keras_2_path

#: Class -> the states of an optimizer in the order of its variables; the states of a tuple alternate.
_STATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "Adam": (("m", "v"), ("v_max",)),
    "AdamW": (("m", "v"), ("v_max",)),
    "SGD": (("m",),),
    "RMSprop": (("v",), ("m",), ("a",)),
}
#: State -> its names in Keras: since TensorFlow 2.11, before, and since Keras 3.
_STATE_NAMES = {
    "m": ("m", "momentum"),
    "v": ("v", "velocity", "rms"),
    "a": ("average_gradient", "mg"),
    "v_max": ("vhat", "velocity_hat"),
}
#: Class -> names of its states in Keras 2: before TensorFlow 2.11, and since.
_LEGACY_NAMES = {
    "Adam": {"m": "m", "v": "v", "v_max": "vhat"},
    "SGD": {"m": "momentum"},
    "RMSprop": {"v": "rms", "m": "momentum", "a": "mg"},
}
_NEW_NAMES = {
    "Adam": {"m": "m", "v": "v", "v_max": "vhat"},
    "AdamW": {"m": "m", "v": "v", "v_max": "vhat"},
    "SGD": {"m": "m"},
    "RMSprop": {"v": "velocity", "m": "momentum", "a": "average_gradient"},
}


def _kept_states(optimizer: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the states of an optimizer in the order of its variables; the states of a tuple alternate."""
    class_name, config = optimizer["class_name"], optimizer["config"]
    without = set() if config.get("amsgrad") else {"v_max"}
    if class_name in ("SGD", "RMSprop"):
        without |= set() if config.get("momentum") else {"m"}
        without |= set() if config.get("centered") else {"a"}
    groups = [tuple(state for state in group if state not in without) for group in _STATES[class_name]]
    return [group for group in groups if group]


def _variables(description: ModelDescription, training: TrainingDescription) -> Iterator[tuple[str, str]]:
    """Yield state and weight of each optimizer variable, in order; Keras has none for frozen weights."""
    for group in _kept_states(training.optimizer):
        for weight in description.trainable_weights():
            for state in group:
                yield state, weight


def _moment(description: ModelDescription, training: TrainingDescription, state: str, weight: str) -> Array:
    """Return a state of a weight; zeros before the first update."""
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


def stored_states(description: ModelDescription, training: TrainingDescription) -> dict[str, Array]:
    """Return the variables of an optimizer as Keras 3 stores them."""
    variables: list[Any] = [np.int64(training.step)]
    config = training_to_config(KERAS_3, training)["optimizer"]["config"]
    if not isinstance(config["learning_rate"], dict):
        variables.append(np.float32(config["learning_rate"]))
    variables += [_moment(description, training, *place) for place in _variables(description, training)]
    return {f"optimizer/vars/{number}": np.asarray(variable) for number, variable in enumerate(variables)}


def load_stored_states(file: Reader, description: ModelDescription, training: TrainingDescription) -> None:
    """Load Keras 3's variables: the number of updates, the learning rate if it is a number, and the states."""
    count = len(file.members("optimizer/vars"))
    if count == 0:
        return
    training.step = _iteration(file.array("optimizer/vars/0"))
    places = list(_variables(description, training))
    first = count - len(places)
    if first not in ((1,) if _has_schedule(training) else (1, 2)):
        if count <= 2:  # the optimizer has made no update
            return
        raise ValueError(f"optimizer: expected {len(places)} states of weights, got {count} variables")
    for number, (state, weight) in enumerate(places, first):
        moment = _require_like(description, state, weight, file.array(f"optimizer/vars/{number}"))
        training.moments.setdefault(state, {})[weight] = moment


def named_states(description: ModelDescription, training: TrainingDescription, *, legacy: bool) -> dict[str, Array]:
    """Return the variables of an optimizer under Keras 2's names, in the order of the older or the newer versions."""
    name = training.optimizer["class_name"]
    state_names = (_LEGACY_NAMES if legacy else _NEW_NAMES)[name]
    paths = {
        f"{layer.name}/{weight}": keras_2_path(layer, weight)
        for layer in description.layers
        for weight in layer.weight_names
    }
    places = list(_variables(description, training))
    if legacy:  # all variables of one state, then all of the next
        states = [state for group in _kept_states(training.optimizer) for state in group]
        places.sort(key=lambda place: states.index(place[0]))
    named = {f"{name}/iter:0" if legacy else "iteration:0": np.asarray(np.int64(training.step))}
    for state, weight in places:
        state_name, path = state_names[state], paths[weight]
        path = f"{path.removesuffix(':0')}/{state_name}:0" if legacy else f"{state_name}/{path}"
        named[f"{name}/{path}"] = _moment(description, training, state, weight)
    return named


def load_named_states(
    file: Reader,
    description: ModelDescription,
    training: TrainingDescription,
    paths: dict[str, str],
    optimizer: Any,
) -> None:
    """Load the states, at any of the locations that the versions of Keras use, given the weights' paths."""
    root = "optimizer_weights"
    name = optimizer["config"].get("name", training.optimizer["class_name"])
    iterations = [f"{root}/{place}" for place in ("iteration:0", f"{name}/iter:0", f"{name}/iteration")]
    found = [place for place in iterations if file.has(place)]
    if not found:
        if file.members(root):
            raise ValueError("optimizer: expected optimizer states under the names of Keras 2 or 3, got other names")
        return
    training.step = _iteration(file.array(found[0]))
    places = {
        place: _state_path(file, root, name, place[0], paths[place[1]]) for place in _variables(description, training)
    }
    if training.step == 0 and not any(places.values()):  # the optimizer has made no update
        return
    for (state, weight), path in places.items():
        if path is None:
            raise ValueError(f"optimizer: expected the state {state} of {paths[weight]}, which is missing")
        moment = _require_like(description, state, weight, file.array(path))
        training.moments.setdefault(state, {})[weight] = moment


def _state_path(file: Reader, root: str, optimizer: str, state: str, weight: str) -> str | None:
    """Return the path of a state of the weight with this path, or None."""
    stem = weight.removesuffix(":0")
    for state_name in _STATE_NAMES[state]:
        for path in (f"{state_name}/{weight}", f"{stem}/{state_name}:0", f"{stem.replace('/', '_')}_{state_name}"):
            if file.has(f"{root}/{optimizer}/{path}"):
                return f"{root}/{optimizer}/{path}"
    return None
