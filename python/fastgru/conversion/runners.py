"""Runners of model files for comparisons: the framework of the format, or the equations in NumPy."""

from __future__ import annotations

import importlib.util
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import reference
from fastgru.formats import keras as keras_files
from fastgru.formats.description import ModelDescription
from fastgru.formats.torch import state_dicts
from fastgru.formats.torch.modules import unwrapped

Array = NDArray[Any]


@dataclass(frozen=True)
class Runner:
    """A program that runs model files.

    Attributes
    ----------
    name : str
    needs : tuple of str
        The packages that must be installed.
    run : callable
        Takes a path, the description that was read from the file, and samples (N, ...); returns the outputs.
        Frameworks read the file, and use the description only for properties that such files do not store.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[str | os.PathLike[str], ModelDescription, Array], Any]


def runner_for(kind: str, path: str | os.PathLike[str]) -> Runner:
    """Return the runner for a file of a format, a key of `fastgru.formats.KINDS`.

    If the framework is not installed, it is `EQUATIONS`.
    """
    if kind == "keras_h5" and keras_files.is_keras_2(path):
        kind = "keras_2_h5"  # Keras 3 reads such files too, but its hard_sigmoid is another function
    runner = _FRAMEWORKS.get(kind, EQUATIONS)
    return runner if all(importlib.util.find_spec(name) for name in runner.needs) else EQUATIONS


def _by_equations(path: str | os.PathLike[str], description: ModelDescription, x: Array) -> Any:
    del path
    return reference.run(description.layers, x)


def _by_keras(path: str | os.PathLike[str], description: ModelDescription, x: Array) -> Any:
    del description
    import keras

    return keras.saving.load_model(os.fspath(path), compile=False).predict(x, verbose=0)


def _by_keras_2(path: str | os.PathLike[str], description: ModelDescription, x: Array) -> Any:
    del description
    import tf_keras

    return tf_keras.models.load_model(os.fspath(path), compile=False).predict(x, verbose=0)


def _by_onnxruntime(path: str | os.PathLike[str], description: ModelDescription, x: Array) -> Any:
    del description
    import onnxruntime

    from fastgru.formats import onnx

    signature = onnx.signature(path)
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    rows = signature.rows or len(x)
    parts = [
        signature.returned(session.run(list(signature.outputs), signature.feeds(x[begin : begin + rows])))
        for begin in range(0, len(x), rows)
    ]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


# --- PyTorch: a state_dict has no modules, so they are created from the description -------------------------------


def _by_torch(path: str | os.PathLike[str], description: ModelDescription, x: Array) -> Any:
    import torch

    y = last = torch.from_numpy(x)
    modules = _torch_parameters(path, last.dtype if last.is_floating_point() else getattr(torch, description.dtype))
    with torch.no_grad():
        for layer in (each.unwrapped for each in description.layers):
            own = modules.pop(layer.name, None) or modules.pop("", {})
            match layer.class_name:
                case "GRU" | "Bidirectional":
                    if own:  # otherwise it is one of the num_layers of the previous module
                        y, last = _run_torch_gru(own, y)
                    config = layer.forward.config
                    y = y if config["return_sequences"] else last
                    if config["return_state"]:
                        return y.numpy(), *(half.numpy() for half in torch.split(last, config["units"], dim=-1))
                case "Dense":
                    y = _torch_activation(layer.config["activation"], torch.nn.functional.linear(y, **own))
                case "Embedding":
                    y = torch.nn.functional.embedding(y, **own)
                case "Activation":
                    y = _torch_activation(layer.config["activation"], y)
                case "LastStep":
                    y = y[:, -1]
                case "GlobalAveragePooling1D":
                    y = y.mean(1)
                case "GlobalMaxPooling1D":
                    y = y.amax(1)
                case "Flatten":
                    y = y.flatten(1)
                case "Permute":
                    y = y.permute(0, *layer.config["dims"])
                case "RepeatVector":
                    y = y[:, None].expand(-1, layer.config["n"], -1)
                case "Reshape":
                    y = y.reshape(len(y), *layer.config["target_shape"])
    return y.numpy()


def _torch_parameters(path: str | os.PathLike[str], dtype: Any) -> dict[str, dict[str, Any]]:
    """The tensors that fastgru reads, as PyTorch reads them, by path of the module and name of the parameter."""
    import torch
    from safetensors.torch import load_file

    chosen = state_dicts.read(path)
    if os.fspath(path).endswith(".safetensors"):
        tensors: Any = load_file(path)
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    tensors = next(each for each in _dicts_in(tensors) if chosen.tensors.keys() <= each.keys())
    tensors = {name: tensors[name].to(dtype) for name in chosen.tensors}
    modules: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, tensor in (tensors if chosen.description is not None else unwrapped(tensors)).items():
        module, _, parameter = name.rpartition(".")
        modules[module][parameter] = tensor
    return dict(modules)


def _dicts_in(found: Any) -> Iterator[dict[str, Any]]:
    """A dictionary and all dictionaries in it, one of which is the state_dict of a checkpoint."""
    if isinstance(found, dict):
        yield found
        for inner in found.values():
            yield from _dicts_in(inner)


def _run_torch_gru(parameters: dict[str, Any], x: Any) -> tuple[Any, Any]:
    """The outputs (N, T, ...), and the final states of the last layer, concatenated over the directions."""
    import torch

    features, units = parameters["weight_ih_l0"].shape[1], parameters["weight_hh_l0"].shape[1]
    directions = 1 + ("weight_ih_l0_reverse" in parameters)
    gru = torch.nn.GRU(
        features,
        units,
        num_layers=sum(name.startswith("weight_ih_l") for name in parameters) // directions,
        bias="bias_ih_l0" in parameters,
        bidirectional=directions == 2,
        batch_first=True,
        dtype=x.dtype,
    )
    gru.load_state_dict(parameters)
    outputs, states = gru(x)
    return outputs, torch.cat(tuple(states[-directions:]), dim=-1)


def _torch_activation(name: str, y: Any) -> Any:
    match name:
        case "linear":
            return y
        case "softmax":
            return y.softmax(-1)
        case _:
            return getattr(y, name)()


#: The equations support every layer and option that fastgru reads.
EQUATIONS = Runner("the equations in NumPy", (), _by_equations)
_FRAMEWORKS = {
    "keras": Runner("Keras", ("keras",), _by_keras),
    "keras_h5": Runner("Keras", ("keras",), _by_keras),
    "keras_2_h5": Runner("Keras 2", ("tensorflow", "tf_keras"), _by_keras_2),
    "torch": Runner("PyTorch", ("torch",), _by_torch),
    "onnx": Runner("ONNX Runtime", ("onnxruntime",), _by_onnxruntime),
}
