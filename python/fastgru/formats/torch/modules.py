"""Conversion between PyTorch's `nn.GRU`, `nn.Linear` and `nn.Embedding` and the weights of fastgru's layers.

| PyTorch | fastgru |
| --- | --- |
| ``weight_ih_l{k}`` (3H, F), gates r, z, n | kernel (F, 3H), gates z, r, n |
| ``weight_hh_l{k}`` (3H, H) | recurrent_kernel (H, 3H) |
| ``bias_ih_l{k}``, ``bias_hh_l{k}`` (3H,) | the two rows of bias (2, 3H) |
| ``..._reverse`` | ``backward/...`` of a Bidirectional |
| ``weight`` (out, in), ``bias`` of a Linear | kernel (in, out), bias |
| ``weight`` (V, D) of an Embedding | embeddings |
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgru.formats.description import Array

#: Prefixes that the wrappers DataParallel and torch.compile add.
_WRAPPERS = re.compile(r"(module\.|_orig_mod\.)*")
_GRU_PARAMETER = re.compile(r"(weight|bias)_(ih|hh)_l(0|[1-9]\d{0,3})(_reverse)?")
#: Rows of weight_hh per unit -> the module that has so many.
_OTHER_CELLS = {1: "nn.RNN", 4: "nn.LSTM"}
_MOST_MODULES = 200


# --- From tensors to modules --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """A PyTorch module, or one of the modules that the tensors may belong to.

    Attributes
    ----------
    class_name : {"GRU", "Dense", "Embedding"}
    path : str
    takes : int or None
        Features of the input; None for tokens.
    gives : int
        Features of the output.
    layers : list of dict of str to ndarray
        The weights of its layers by fastgru's names; those of a bidirectional GRU have the names of a Bidirectional.
    """

    class_name: str
    path: str
    takes: int | None
    gives: int
    layers: list[dict[str, Array]]


def modules_of(tensors: dict[str, Array]) -> list[list[Module]]:
    """All modules in the order of the tensors, each as a list of the modules that it may be."""
    grouped: dict[str, dict[str, Array]] = {}
    for name, array in tensors.items():
        if not name.isprintable():
            raise ValueError(f"{name[:100]!r}: expected a name of printable characters")
        path, _, parameter = name.rpartition(".")
        grouped.setdefault(path, {})[parameter] = array
    if len(grouped) > _MOST_MODULES:
        raise ValueError(f"expected at most {_MOST_MODULES} modules, got {len(grouped)}")
    return [_module(path, parameters) for path, parameters in grouped.items()]


def unwrapped(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors without the prefixes of wrappers around the whole model."""
    # A common prefix of characters is one of whole wrappers, because the first letters of the wrappers differ.
    wrappers = [name[: match.end()] for name in tensors if (match := _WRAPPERS.match(name))]
    prefix = os.path.commonprefix(wrappers)  # noqa: RUF071
    return {name.removeprefix(prefix): array for name, array in tensors.items()}


def _module(path: str, parameters: dict[str, Array]) -> list[Module]:
    if all(_GRU_PARAMETER.fullmatch(name) for name in parameters):
        return [_gru(path, parameters)]
    if "weight" in parameters and parameters.keys() <= {"weight", "bias"} and parameters["weight"].ndim == 2:
        return _linear_or_embedding(path, **parameters)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in parameters.items())
    raise ValueError(f"{path!r}: expected an nn.GRU, nn.Linear or nn.Embedding, got a module with {shapes:.300}")


def _linear_or_embedding(path: str, weight: Array, bias: Array | None = None) -> list[Module]:
    rows, columns = weight.shape
    linear = {"kernel": weight.T}
    if bias is not None:
        _expect_shape(path, "bias", bias, (rows,))
        linear["bias"] = bias
    readings = [Module("Dense", path, columns, rows, [linear])]
    if bias is None:
        readings.append(Module("Embedding", path, None, columns, [{"embeddings": weight}]))
    return readings


def _gru(path: str, parameters: dict[str, Array]) -> Module:
    """A GRU, whose sizes are those of its first layer; the other layers must agree."""
    kernel, recurrent = (parameters.get(f"weight_{which}_l0") for which in ("ih", "hh"))
    if kernel is None or recurrent is None or kernel.ndim != 2 or recurrent.ndim != 2:
        raise ValueError(f"{path!r}: expected weight_ih_l0 and weight_hh_l0, both of two axes, got something else")
    units, features = recurrent.shape[1], kernel.shape[1]
    if len(recurrent) != 3 * units:
        cell = _OTHER_CELLS.get(len(recurrent) // units)
        raise ValueError(
            f"{path!r}: expected an nn.GRU, whose weight_hh_l0 is (3H, H), got {recurrent.shape}"
            + (f", an {cell}" if cell else "")
        )
    suffixes = ("", "_reverse") if "weight_ih_l0_reverse" in parameters else ("",)
    has_bias = "bias_ih_l0" in parameters
    depth = -(-len(parameters) // (len(suffixes) * (4 if has_bias else 2)))
    expected = _gru_shapes(features, units, depth, suffixes, has_bias=has_bias)
    if parameters.keys() != expected.keys():
        odd = min(parameters.keys() ^ expected.keys())
        raise ValueError(f"{path!r}: {odd} is {'missing' if odd in expected else 'one too many for an nn.GRU'}")
    for name, shape in expected.items():
        _expect_shape(path, name, parameters[name], shape)
    layers = [_gru_weights(parameters, number, suffixes, has_bias=has_bias) for number in range(depth)]
    return Module("GRU", path, features, len(suffixes) * units, layers)


def _gru_shapes(
    features: int, units: int, depth: int, suffixes: Sequence[str], *, has_bias: bool
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(depth):
        for suffix in suffixes:
            end = f"l{number}{suffix}"
            shapes[f"weight_ih_{end}"] = (3 * units, features if number == 0 else len(suffixes) * units)
            shapes[f"weight_hh_{end}"] = (3 * units, units)
            if has_bias:
                shapes[f"bias_ih_{end}"] = shapes[f"bias_hh_{end}"] = (3 * units,)
    return shapes


def _gru_weights(
    parameters: dict[str, Array], number: int, suffixes: Sequence[str], *, has_bias: bool
) -> dict[str, Array]:
    """The weights of one layer by fastgru's names."""
    weights = {}
    for suffix, direction in zip(suffixes, _directions(len(suffixes)), strict=True):
        end = f"l{number}{suffix}"
        weights[f"{direction}kernel"] = _swap_gates(parameters[f"weight_ih_{end}"]).T
        weights[f"{direction}recurrent_kernel"] = _swap_gates(parameters[f"weight_hh_{end}"]).T
        if has_bias:
            biases = (parameters[f"bias_{which}_{end}"] for which in ("ih", "hh"))
            weights[f"{direction}bias"] = np.stack([_swap_gates(bias) for bias in biases])
    return weights


def _directions(count: int) -> tuple[str, ...]:
    """The prefixes of the names of weights: none in a GRU, two in a Bidirectional."""
    return ("",) if count == 1 else ("forward/", "backward/")


def _swap_gates(rows: Array) -> Array:
    """Exchange the first two gates, which converts r, z, n to z, r, n and back."""
    first, second, candidate = np.split(rows, 3)
    return np.concatenate((second, first, candidate))


def _expect_shape(path: str, name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{path!r}: expected {name} of shape {shape}, got {array.shape}")


# --- From layers to tensors ---------------------------------------------------------------------------------------


def tensors_of(class_name: str, path: str, layers: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The state_dict of a module with the weights of these layers, the inverse of `modules_of`."""
    named: dict[str, Array] = {}
    for number, weights in enumerate(layers):
        named |= _TENSORS[class_name](weights, number)
    return {f"{path}.{name}": array for name, array in named.items()}


def _gru_tensors(weights: dict[str, Array], number: int) -> dict[str, Array]:
    tensors = {}
    for direction, suffix in zip(_directions(1 if "kernel" in weights else 2), ("", "_reverse"), strict=False):
        end = f"l{number}{suffix}"
        tensors[f"weight_ih_{end}"] = _swap_gates(weights[f"{direction}kernel"].T)
        tensors[f"weight_hh_{end}"] = _swap_gates(weights[f"{direction}recurrent_kernel"].T)
        if f"{direction}bias" in weights:
            for which, bias in zip(("ih", "hh"), weights[f"{direction}bias"], strict=True):
                tensors[f"bias_{which}_{end}"] = _swap_gates(bias)
    return tensors


def _linear_tensors(weights: dict[str, Array], _: int) -> dict[str, Array]:
    return {"weight": weights["kernel"].T, **{name: array for name, array in weights.items() if name == "bias"}}


def _embedding_tensors(weights: dict[str, Array], _: int) -> dict[str, Array]:
    return {"weight": weights["embeddings"]}


_TENSORS: dict[str, Callable[[dict[str, Array], int], dict[str, Array]]] = {
    "GRU": _gru_tensors,
    "Dense": _linear_tensors,
    "Embedding": _embedding_tensors,
}
