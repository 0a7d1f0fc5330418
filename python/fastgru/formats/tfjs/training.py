"""Optimizer, loss and metrics of a TensorFlow.js model: its ``trainingConfig`` and the tensors of the optimizer.

TensorFlow.js restores both, so a model that was saved with ``includeOptimizer`` continues its training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgru.formats.checks import require, require_object
from fastgru.formats.description import Array, TrainingDescription
from fastgru.formats.keras.dialects import TFJS
from fastgru.formats.keras.training import training_from_config, training_to_config
from fastgru.formats.tfjs.weights import StoredTensor

#: Optimizer of TensorFlow.js -> fastgru's name of each state, and the ending of its tensors' names, in their order.
_STATES: dict[str, dict[str, str]] = {
    "Adam": {"m": "m", "v": "v"},
    "SGD": {},
    "Momentum": {"m": "momentum"},
    "RMSProp": {"v": "rms", "m": "momentum"},
}


def read(config: Any, tensors: Sequence[StoredTensor], weights: Mapping[str, Array]) -> TrainingDescription | None:
    """Read the optimizer and its state, the loss and the metrics.

    Parameters
    ----------
    config
        The ``trainingConfig``.
    tensors : sequence of StoredTensor
        The tensors of the optimizer.
    weights : mapping of str to ndarray
        The weights of the layers by ``layer/weight``, in the order in which TensorFlow.js trains them.

    Raises
    ------
    ValueError
        The configuration is damaged, or has a feature that fastgru does not support.
    """
    config = require_object("trainingConfig", config)
    optimizer = config.get("optimizer_config")
    fits = isinstance(optimizer, dict) and isinstance(optimizer.get("config"), dict)
    require(fits, "optimizer_config: expected a class_name and a config", optimizer)
    class_name = optimizer.get("class_name")
    fits = isinstance(class_name, str) and class_name in _STATES
    require(fits, f"optimizer: expected one of {', '.join(_STATES)}", class_name)
    options = {_snake(option): value for option, value in optimizer["config"].items()}
    optimizer = {"class_name": class_name, "config": options}
    training = training_from_config(TFJS, {**config, "optimizer_config": optimizer})
    if training is not None and tensors:
        counter, *moments = tensors
        training.step = _count(counter)
        training.moments = _moments(_STATES[class_name], moments, weights)
        if not training.optimizer["config"].get("momentum", True):  # fastgru keeps it only if it is used
            training.moments.pop("m", None)
    return training


def _snake(option: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", option)


def _count(tensor: StoredTensor) -> int:
    """The number of updates, which is the first tensor of an optimizer."""
    fits = tensor.array.shape == () and tensor.array.dtype == np.int32 and tensor.array >= 0
    require(bool(fits), "optimizer: expected the number of updates, an int32, first", tensor.name)
    return int(tensor.array)


def _moments(
    states: Mapping[str, str], tensors: Sequence[StoredTensor], weights: Mapping[str, Array]
) -> dict[str, dict[str, Array]]:
    """The optimizer states, by the order of the tensors as in TensorFlow.js; empty before the first update."""
    if not tensors:
        return {}
    expected = len(states) * len(weights)
    require(len(tensors) == expected, f"optimizer: expected {expected} tensors besides the first", len(tensors))
    rest = iter(tensors)
    return {state: {name: _moment(next(rest), weight) for name, weight in weights.items()} for state in states}


def _moment(tensor: StoredTensor, weight: Array) -> Array:
    array = tensor.array
    fits = array.shape == weight.shape and array.dtype == weight.dtype
    require(fits, f"{tensor.name}: expected {weight.dtype} {weight.shape}", f"{array.dtype} {array.shape}")
    return array


def write(
    training: TrainingDescription, names: Mapping[str, str], weights: Mapping[str, Array]
) -> tuple[dict[str, Any], list[StoredTensor]]:
    """The ``trainingConfig`` and the tensors of the optimizer.

    Parameters
    ----------
    training : TrainingDescription
    names : mapping of str to str
        TensorFlow.js' names of the weights by ``layer/weight``.
    weights : mapping of str to ndarray
        The weights of the layers by ``layer/weight``, in the order in which TensorFlow.js trains them.

    Raises
    ------
    ValueError
        TensorFlow.js does not support the optimizer, the loss or a metric.
    """
    config = training_to_config(TFJS, training)
    tensors = [StoredTensor("iter", np.array(training.step, np.int32), optimizer=True)]
    for state, ending in _STATES[config["optimizer_config"]["class_name"]].items() if training.moments else ():
        # TensorFlow.js requires the tensors of the momentum also without momentum, and does not use their values then.
        moments = training.moments.get(state) or {name: np.zeros_like(array) for name, array in weights.items()}
        tensors += [StoredTensor(f"{names[name]}/{ending}", moments[name], optimizer=True) for name in weights]
    return config, tensors
