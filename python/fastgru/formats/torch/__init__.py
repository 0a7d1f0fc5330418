"""PyTorch's state_dicts: `nn.GRU`, `nn.Linear` and `nn.Embedding` in a chain.

A state_dict has names and arrays, not what is done with them. Files that `write` made describe that beside the
state_dict; of others it is inferred by `fastgru.formats.torch.chains`, which lists what it assumes.

A stack of k layers in one `nn.GRU` is k layers here, and the other way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru.formats.boundary import reading
from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.torch import state_dicts
from fastgru.formats.torch.chains import Chain
from fastgru.formats.torch.modules import Module, modules_of, tensors_of, unwrapped
from fastgru.formats.torch.options import Said, listed

Array = NDArray[Any]


def read(
    path: str | os.PathLike[str],
    *,
    return_sequences: bool | None = None,
    pooling: str | None = None,
    activations: Sequence[str | None] | Mapping[str, str | None] | None = None,
    order: Sequence[str] | None = None,
) -> ModelDescription:
    """The model in a file.

    What a file of others leaves open and no option says is assumed where one choice is usual, and is then listed in the
    description's `assumptions`; elsewhere it is an error.

    Parameters
    ----------
    path : path
    return_sequences : bool, optional
        True: what follows the last GRU receives every step's state. False: one vector a sequence, see `pooling`.
    pooling : {"last_state", "last_step", "mean", "max"}, optional
        What follows the last GRU receives: its last state, of both directions side by side
        (``torch.cat((h_n[-2], h_n[-1]), -1)``); its output at the last step (``output[:, -1]``), which differs from
        that where a GRU is bidirectional; or the mean or the maximum of its outputs over the steps that count.
        ``"last_state"`` is assumed.
    activations : mapping of str to str or None, or sequence of str or None, optional
        Module's name -> the activation after it, as `fastgru.layers.Activation` has them: of a Linear, of a GRU (the
        last one's after `pooling`) or of an Embedding. A sequence is for the Linears alone, from the first to the last.
        None is ``"linear"``, which is assumed after GRUs and after a Linear at the end; a Linear before other layers
        mostly has one, so that it must be named.
    order : sequence of str, optional
        The modules' names from the first to the last, ``["gru", "head"]``, where sizes leave a doubt. The file's order
        is assumed; safetensors keeps none, so that a doubt is an error there. It also confirms that each of several
        `nn.GRU` receives every step of the one before, which is assumed otherwise.

    Raises
    ------
    ModelFileError
        The file holds something else, is damaged, or leaves a doubt; the message says which option ends it.
    TypeError, ValueError
        An option is of another type or value, or does not fit the modules in the file.
    """
    said = Said.checked(return_sequences=return_sequences, pooling=pooling, activations=activations, order=order)
    found = state_dicts.read(path)
    # What an option causes is raised outside of the blocks in which all is the file's.
    if found.description is not None:
        said.require_nothing()
    with reading(path):
        if not found.tensors:
            raise ValueError("expected a state_dict, got one without tensors")
        dtype = str(np.result_type(*found.tensors.values()))
        if found.description is not None:
            return _described(found.description, modules_of(found.tensors), dtype)
        modules = modules_of(unwrapped(found.tensors))
        if not any(module.class_name == "GRU" for readings in modules for module in readings):
            raise ValueError("expected an nn.GRU among its modules, got none")
    said.require_order_of([readings[0].path for readings in modules])
    with reading(path):
        chain = Chain.of(modules, ordered=found.ordered) if said.order is None else Chain.said(modules, said.order)
    if chain is None:
        raise ValueError(
            f"order: expected modules of which each takes what the one before gives, got {listed(said.order or [])}"
        )
    after = said.activations_of(chain.names, chain.linears)
    with reading(path):
        return chain.describe(dtype, said.return_sequences, said.pooling, after)


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model to a file: ``*.pt`` and ``*.pth`` as ``torch.save`` does, anything else as safetensors.

    Tensors are named after layers: a GRU ``gru`` has ``gru.weight_ih_l0``, a Dense ``head`` has ``head.weight``.
    Neighbouring GRUs of one size are one module, with the first one's name.

    Raises
    ------
    ValueError
        Some layer computes what PyTorch's modules do not, or no layer has weights.
    """
    tensors: dict[str, Array] = {}
    for part in _parts(description.layers):
        tensors |= tensors_of(part.class_name, part.path, [layer.weights for layer in part.layers])
    if not tensors:
        raise ValueError("a model without weights cannot be said as a state_dict")
    state_dicts.write(path, tensors, _description_as_json(description))


# --- From layers to modules ---------------------------------------------------------------------------------------


@dataclass
class _Part:
    """Layers that are one module of PyTorch's."""

    class_name: str
    path: str
    layers: list[LayerDescription]
    shape: Any = None  # of a GRU: what must be the same in all layers


#: Layers without weights, which PyTorch has as modules or functions.
_WITHOUT_WEIGHTS = frozenset(
    {"Activation", "Dropout", "Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "LastStep"}
)
#: What an nn.GRU always is.
_FIXED = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "reset_after": True,
    "dropout": 0,
    "recurrent_dropout": 0,
    "stateful": False,
}
_HINTS = {
    "dropout": ", whose dropout drops other elements in each step; for predictions set dropout=0",
    "recurrent_dropout": "; for predictions set recurrent_dropout=0",
    "stateful": ", which is given its states in each call; set stateful=False",
    "mask_zero": ", which does not find lengths; set mask_zero=False and give lengths",
}


def _parts(layers: Sequence[LayerDescription]) -> list[_Part]:
    """The modules that these layers are; raises where PyTorch has none."""
    parts: list[_Part] = []
    joins = False  # whether a GRU now would stand right behind another
    for layer in layers:
        match layer.class_name:
            case "GRU" | "Bidirectional":
                shape = _gru_shape(layer)
                if joins and parts[-1].shape == shape:
                    parts[-1].layers.append(layer)
                else:
                    parts.append(_Part("GRU", layer.name, [layer], shape))
            case "Dense":
                parts.append(_Part("Dense", layer.name, [layer]))
            case "Embedding":
                _require(layer.name, "nn.Embedding", layer.config, {"mask_zero": False})
                parts.append(_Part("Embedding", layer.name, [layer]))
            case "Masking":
                raise ValueError(
                    f"{layer.name}: Masking cannot be said in PyTorch, where packed sequences say what is padding: "
                    f"leave it out and give lengths"
                )
            case name if name not in _WITHOUT_WEIGHTS:
                raise ValueError(f"{layer.name}: {name} cannot be said in PyTorch's modules")
        joins = layer.class_name in ("GRU", "Bidirectional")
    return parts


def _gru_shape(layer: LayerDescription) -> tuple[Any, ...]:
    """Units, whether there are biases, and directions: what all layers of an nn.GRU have alike."""
    if layer.class_name == "GRU":
        directions = [layer.config]
    else:
        _require(layer.name, "nn.GRU", layer.config, {"merge_mode": "concat"})
        directions = [_inner_config(layer, which) for which in ("layer", "backward_layer")]
    for config, backwards in zip(directions, (False, True), strict=False):
        _require(layer.name, "nn.GRU", config, {**_FIXED, "go_backwards": backwards})
    shapes = [(config.get("units"), config.get("use_bias", True)) for config in directions]
    if len(set(map(str, shapes))) > 1:
        raise ValueError(f"{layer.name}: two directions of different use_bias cannot be said in PyTorch's nn.GRU")
    return (*shapes[0], len(directions))


def _inner_config(layer: LayerDescription, which: str) -> dict[str, Any]:
    inner = layer.config.get(which)
    config = inner.get("config") if isinstance(inner, dict) else None
    if not isinstance(config, dict):
        raise ValueError(f"{layer.name}: expected a Bidirectional with a configuration of its {which}, got none")  # noqa: TRY004
    return config


def _require(name: str, module: str, config: dict[str, Any], fixed: dict[str, Any]) -> None:
    for option, value in fixed.items():
        if config.get(option, value) != value:
            hint = _HINTS.get(option, f", which has {option}={value!r}")
            raise ValueError(f"{name}: {option}={config[option]!r} cannot be said in PyTorch's {module}{hint}")


# --- What stands beside the state_dict ------------------------------------------------------------------------------


def _description_as_json(description: ModelDescription) -> str:
    """All but the weights and the optimizer's moments."""
    training = description.training
    return json.dumps(
        {
            "name": description.name,
            "input_shape": description.input_shape,
            "layers": [
                {"class_name": layer.class_name, "name": layer.name, "config": layer.config}
                for layer in description.layers
            ],
            "training": training
            and {"optimizer": training.optimizer, "loss": training.loss, "metrics": training.metrics},
        },
        sort_keys=True,
    )


def _described(text: str, modules: list[list[Module]], dtype: str) -> ModelDescription:
    """The model that a description by `_description_as_json` is of."""
    content = _typed("description", json.loads(text), dict)
    layers = [_layer(entry) for entry in _typed("layers", content.get("layers"), list)]
    _give_weights(_parts(layers), modules)
    input_shape = tuple(_typed("input_shape", content.get("input_shape"), list))
    name = _typed("name", content.get("name"), str)
    training = content.get("training")
    return ModelDescription(layers, input_shape, name, dtype, None if training is None else _training(training))


def _layer(entry: Any) -> LayerDescription:
    entry = _typed("layer", entry, dict)
    kinds = {"class_name": str, "name": str, "config": dict}
    return LayerDescription(**{key: _typed(key, entry.get(key), kind) for key, kind in kinds.items()})


def _training(entry: Any) -> TrainingDescription:
    entry = _typed("training", entry, dict)
    kinds = {"optimizer": dict, "loss": dict, "metrics": list}
    return TrainingDescription(**{key: _typed(key, entry.get(key), kind) for key, kind in kinds.items()})


def _give_weights(parts: list[_Part], modules: list[list[Module]]) -> None:
    by_path = {(reading.path, reading.class_name): reading for readings in modules for reading in readings}
    if sorted(part.path for part in parts) != sorted(readings[0].path for readings in modules):
        raise ValueError("its tensors are not those of the layers that its description says it has")
    for part in parts:
        module = by_path.get((part.path, part.class_name))
        if module is None or len(module.layers) != len(part.layers):
            raise ValueError(f"{part.path}: its tensors are not those of {len(part.layers)} {part.class_name}")
        for layer, weights in zip(part.layers, module.layers, strict=True):
            layer.weights.update(weights)


def _typed(what: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its description: {what}: expected a {kind.__name__}, got a {type(value).__name__}")  # noqa: TRY004
    return value
