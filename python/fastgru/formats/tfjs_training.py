"""How a TensorFlow.js model is trained: its ``trainingConfig``, and its optimizer's tensors.

TensorFlow.js restores both: a model that was saved with ``includeOptimizer`` trains on where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastgru.formats.description import Array, TrainingDescription
from fastgru.formats.tfjs_weights import StoredTensor, require

#: What TensorFlow.js takes where an epsilon is null.
_EPSILON = 1e-7


@dataclass(frozen=True)
class _Optimizer:
    """A class of optimizers of TensorFlow.js in this package's words.

    `options` goes from its arguments to those here, `fixed` has the arguments here that make both the same. `states`
    goes from the states here to the endings of its tensors' names, in the order in which it expects them.
    """

    class_name: str
    options: dict[str, str]
    fixed: dict[str, Any] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


_OPTIMIZERS = {
    "Adam": _Optimizer(
        "Adam",
        {"learningRate": "learning_rate", "beta1": "beta_1", "beta2": "beta_2", "epsilon": "epsilon"},
        {"form": "tfjs"},
        {"m": "m", "v": "v"},
    ),
    "RMSProp": _Optimizer(
        "RMSprop",
        {"learningRate": "learning_rate", "decay": "rho", "momentum": "momentum", "epsilon": "epsilon"},
        # With centered, TensorFlow.js subtracts epsilon where others add it.
        {"form": "keras", "centered": False},
        {"v": "rms", "m": "momentum"},
    ),
    "Momentum": _Optimizer(
        "SGD",
        {"learningRate": "learning_rate", "momentum": "momentum", "useNesterov": "nesterov"},
        {"form": "pytorch"},
        {"m": "momentum"},
    ),
    "SGD": _Optimizer("SGD", {"learningRate": "learning_rate"}, {"momentum": 0.0}),
}

#: Losses have the same names.
_LOSSES = (
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "binary_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
)
_METRICS = {
    "accuracy": "accuracy",
    "acc": "accuracy",
    "categorical_accuracy": "accuracy",
    "binary_accuracy": "binary_accuracy",
    "mse": "mse",
    "mae": "mae",
}


# --- Reading --------------------------------------------------------------------------------------------------


def read(config: Any, tensors: Sequence[StoredTensor], weights: dict[str, Array]) -> TrainingDescription:
    """How the model is trained and how far it has come.

    Parameters
    ----------
    config
        The ``trainingConfig``.
    tensors : sequence of StoredTensor
        The optimizer's.
    weights : dict of str to ndarray
        The layers' by ``layer/weight``, in the order in which TensorFlow.js trains them.

    Raises
    ------
    ValueError
        It is none, or has something that this package does not.
    """
    require(isinstance(config, dict), "trainingConfig: expected an object", config)
    for name in ("loss_weights", "weighted_metrics", "sample_weight_mode"):
        require(config.get(name) is None, f"trainingConfig: expected no {name}, which this package does not know", config.get(name))
    losses = _strings("loss", config.get("loss"))
    require(len(losses) == 1, "loss: expected one because the model has one output", losses)
    loss = _one_of("loss", losses[0], _LOSSES)
    metrics = [_METRICS[_one_of("metrics", name, _METRICS)] for name in _strings("metrics", config.get("metrics", []))]
    kind, optimizer = _read_optimizer(config.get("optimizer_config"))
    step, moments = _read_state(kind, optimizer["config"], tensors, weights)
    return TrainingDescription(optimizer, {"name": loss, "config": {}}, list(dict.fromkeys(metrics)), step, moments)


def _strings(name: str, value: Any) -> list[str]:
    """What may be a name, a list of names, or names by outputs."""
    names = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    for each in names:
        require(isinstance(each, str), f"{name}: expected a name", each)
    return names


def _one_of(name: str, value: Any, choices: Collection[str]) -> str:
    fits = isinstance(value, str) and value in choices
    require(fits, f"{name}: expected one of {', '.join(choices)} because this package has no others", value)
    return str(value)


def _read_optimizer(given: Any) -> tuple[_Optimizer, dict[str, Any]]:
    fits = isinstance(given, dict) and isinstance(given.get("config"), dict)
    require(fits, "optimizer_config: expected a class_name and a config", given)
    name = _one_of("optimizer", given.get("class_name"), _OPTIMIZERS)
    kind = _OPTIMIZERS[name]
    config = {
        re.sub("_+([a-z0-9])", lambda found: found[1].upper(), key): value for key, value in given["config"].items()
    }
    arguments = dict(kind.fixed)
    for option, value in config.items():
        if option in kind.options:
            arguments[kind.options[option]] = value
        elif option not in kind.fixed or value != kind.fixed[option]:
            raise ValueError(f"optimizer: {name} with {option}={value!r} is not known here")
    if arguments.get("epsilon", 0) is None:
        arguments["epsilon"] = _EPSILON
    missing = [option for option, argument in kind.options.items() if argument not in arguments]
    if missing:
        raise ValueError(f"optimizer: expected {name} to have {', '.join(missing)}, got none")
    return kind, {"class_name": kind.class_name, "config": arguments}


def _read_state(
    kind: _Optimizer, config: dict[str, Any], tensors: Sequence[StoredTensor], weights: dict[str, Array]
) -> tuple[int, dict[str, dict[str, Array]]]:
    """The number of updates, and the moments; TensorFlow.js goes by their order, not by their names."""
    if not tensors:
        return 0, {}
    counter, *rest = tensors
    if counter.array.size != 1 or counter.array.dtype != np.int32 or counter.array.min() < 0:
        raise ValueError(f"{counter.name}: expected the number of updates as the optimizer's first tensor")
    step = int(counter.array.reshape(()))
    if not rest:
        return step, {}
    if len(rest) != len(kind.states) * len(weights):
        raise ValueError(
            f"optimizer: expected {len(kind.states)} tensors for each of {len(weights)} weights, got {len(rest)}"
        )
    moments: dict[str, dict[str, Array]] = {}
    for number, state in enumerate(kind.states):
        part = rest[number * len(weights) : (number + 1) * len(weights)]
        moments[state] = {
            name: _moment(tensor, weight) for tensor, (name, weight) in zip(part, weights.items(), strict=True)
        }
    return step, {state: moments[state] for state in _kept(kind, config)}


def _moment(tensor: StoredTensor, weight: Array) -> Array:
    array = tensor.array
    if array.shape != weight.shape or array.dtype != weight.dtype:
        raise ValueError(f"{tensor.name}: expected {weight.dtype} {weight.shape}, got {array.dtype} {array.shape}")
    return array


def _kept(kind: _Optimizer, config: dict[str, Any]) -> list[str]:
    """The states that optimizers here have: without momentum, none for it."""
    return [state for state in kind.states if state != "m" or config.get("momentum", True)]


# --- Writing --------------------------------------------------------------------------------------------------


def write(
    training: TrainingDescription, names: dict[str, str], weights: dict[str, Array]
) -> tuple[dict[str, Any], list[StoredTensor]]:
    """The ``trainingConfig``, and the optimizer's tensors.

    Parameters
    ----------
    training : TrainingDescription
    names : dict of str to str
        TensorFlow.js' names of the weights by ``layer/weight``, in the order in which it trains them.
    weights : dict of str to ndarray
        The layers' by ``layer/weight``.

    Raises
    ------
    ValueError
        TensorFlow.js has no such optimizer, loss or metric.
    """
    loss = training.loss["name"]
    if loss not in _LOSSES:
        raise _unsayable(f"loss: {loss}", f"compile with {', '.join(_LOSSES)}")
    for option, value in training.loss["config"].items():
        if value:  # a loss is a name there
            raise _unsayable(f"loss: {loss} with {option}={value!r}", "compile without")
    for metric in training.metrics:
        if metric not in _METRICS:
            raise _unsayable(f"metrics: {metric}", f"compile with {', '.join(_METRICS)}")
    name, kind = _matching(training.optimizer)
    arguments = {option: training.optimizer["config"][argument] for option, argument in kind.options.items()}
    config = {
        "loss": loss,
        "metrics": list(training.metrics),
        "optimizer_config": {"class_name": name, "config": arguments},
    }
    return config, _state_tensors(training, kind, names, weights)


def _unsayable(what: str, advice: str) -> ValueError:
    return ValueError(f"{what} cannot be said in TensorFlow.js: {advice}, or save with include_optimizer=False")


def _matching(optimizer: dict[str, Any]) -> tuple[str, _Optimizer]:
    """TensorFlow.js' class that computes the same."""
    class_name, config = optimizer["class_name"], optimizer["config"]
    names = [name for name, kind in _OPTIMIZERS.items() if kind.class_name == class_name]
    if not names:
        raise _unsayable(
            f"optimizer: {class_name}",
            f"compile with {', '.join(sorted({kind.class_name for kind in _OPTIMIZERS.values()}))}",
        )
    name = "SGD" if class_name == "SGD" and not config["momentum"] else names[0]
    kind = _OPTIMIZERS[name]
    required = {"global_clipnorm": None, "clipvalue": None, **kind.fixed}
    for argument, value in required.items():
        if config[argument] != value:
            raise _unsayable(f"optimizer: {class_name} with {argument}={config[argument]!r}", f"use {value!r}")
    if isinstance(config["learning_rate"], dict):
        raise _unsayable("optimizer: a schedule as learning_rate", "compile with a number")
    return name, kind


def _state_tensors(
    training: TrainingDescription, kind: _Optimizer, names: dict[str, str], weights: dict[str, Array]
) -> list[StoredTensor]:
    tensors = [StoredTensor("iter", np.array(training.step, np.int32), optimizer=True)]
    if not training.moments:
        return tensors
    for state, ending in kind.states.items():
        # Where there is no momentum TensorFlow.js wants its tensors all the same, and does not look at them.
        moments = training.moments.get(state) or {name: np.zeros_like(array) for name, array in weights.items()}
        tensors += [StoredTensor(f"{names[name]}/{ending}", moments[name], optimizer=True) for name in names]
    return tensors
