"""PyTorch's state_dicts: `nn.GRU`, `nn.Linear` and `nn.Embedding` in a chain.

A state_dict has names and arrays, not what is done with them. Files that `write` made say that beside the state_dict;
of others it is inferred from names and shapes, and what cannot be is asked for:

- A GRU's inputs are batch-major here whatever ``batch_first`` says, which is a matter of layout only.
- The last GRU gives its last state, of both directions side by side (``torch.cat((h[-2], h[-1]), -1)``), or with
  ``return_sequences=True`` each step's; all others give each step's.
- Outputs behind a sequence's end are zeros, as in packed sequences.
- A Linear at the end has no activation, unless `activations` says so. One before other layers mostly has some, so that
  `activations` must say which.
- Dropout is none: what acts in training only is not in a state_dict.

The order is the file's where that fits the shapes. safetensors keeps none; then it is the only one that fits.

A stack of k layers in one `nn.GRU` is k layers here, and the other way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import checks
from fastgru.formats import state_dicts
from fastgru.formats.boundary import reading
from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.torch_modules import Module, modules_of, tensors_of, unwrapped

Array = NDArray[Any]

_MOST_TRIES = 10_000


def read(
    path: str | os.PathLike[str],
    *,
    return_sequences: bool = False,
    activations: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
) -> ModelDescription:
    """The model in a file.

    Parameters
    ----------
    path : path
    return_sequences : bool
        Whether what follows the last GRU gets every step's state instead of the last.
    activations : sequence of str, optional
        Those of the Linears, from the first to the last: names as `fastgru.layers.Dense` has them.
    order : sequence of str, optional
        The modules' names from the first to the last, ``["gru", "head"]``, where shapes leave a doubt.

    Raises
    ------
    ModelFileError
        The file holds something else, is damaged, or leaves a doubt; the message says which option ends it.
    """
    return_sequences = checks.flag("return_sequences", return_sequences)
    asked = return_sequences or activations is not None or order is not None
    found = state_dicts.read(path)
    with reading(path):
        if not found.tensors:
            raise ValueError("expected a state_dict, got one without tensors")
        dtype = str(np.result_type(*found.tensors.values()))
        if found.description is None:
            modules = modules_of(unwrapped(found.tensors))
            chain = _chain(modules, order, ordered=found.ordered)
            return _inferred(chain, return_sequences, _activations(chain, activations), dtype)
        if asked:
            raise ValueError("return_sequences, activations, order: expected none, because the file says them itself")
        return _described(found.description, modules_of(found.tensors), dtype)


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


# --- From modules to a chain, where nothing but names and shapes is known -------------------------------------------


def _chain(modules: list[list[Module]], order: Sequence[str] | None, *, ordered: bool) -> list[Module]:
    """The modules in the only order and meaning that fit."""
    if not any(reading.class_name == "GRU" for readings in modules for reading in readings):
        raise ValueError("expected an nn.GRU among its modules, got none")
    if order is not None:
        modules = _reordered(modules, order)
    attempts = [False] if order is not None else [False, True] if ordered else [True]
    for any_order in attempts:
        chains = _fitting(tuple(map(tuple, modules)), None, iter(range(_MOST_TRIES)), any_order=any_order)
        found = next(chains, None)
        if found is None:
            continue
        other = next(chains, None)
        if other is not None:
            raise ValueError(
                f"its modules fit together as {_shown(found)} and as {_shown(other)}: say their order with order=[...]"
            )
        return found
    sizes = "; ".join(" or ".join(map(_sizes, readings)) for readings in modules)
    raise ValueError(f"expected modules of which each takes what the one before gives, got {sizes:.1000}")


def _reordered(modules: list[list[Module]], order: Sequence[str]) -> list[list[Module]]:
    by_path = {readings[0].path: readings for readings in modules}
    if isinstance(order, str) or sorted(map(str, order)) != sorted(by_path):
        raise ValueError(f"order: expected all of {list(by_path)!s:.500}, got {order!r}")
    return [by_path[path] for path in order]


def _fitting(
    rest: tuple[tuple[Module, ...], ...], before: Module | None, tries: Iterator[int], *, any_order: bool
) -> Iterator[list[Module]]:
    """Every way to go on with the rest of the modules; those in order first."""
    if not rest:
        yield []
        return
    for index in range(len(rest) if any_order else 1):
        for module in rest[index]:
            if before is not None and module.takes != before.gives:
                continue
            if next(tries, None) is None:
                raise ValueError("too many modules of the same sizes to try their orders: say it with order=[...]")
            others = rest[:index] + rest[index + 1 :]
            for chain in _fitting(others, module, tries, any_order=any_order):
                yield [module, *chain]


def _shown(chain: list[Module]) -> str:
    return " -> ".join(f"{module.path} ({module.class_name})" for module in chain)


def _sizes(module: Module) -> str:
    takes = "tokens" if module.takes is None else module.takes
    return f"{module.path} ({module.class_name}, {takes} -> {module.gives})"


def _activations(chain: list[Module], given: Sequence[str] | None) -> list[str]:
    """One for each Linear of the chain."""
    linears = [module.path for module in chain if module.class_name == "Dense"]
    if given is not None:
        if isinstance(given, str) or len(given) != len(linears):
            raise ValueError(f"activations: expected {len(linears)}, one for each of {linears}, got {given!r}")
        return list(given)
    if any(module.class_name == "Dense" for module in chain[:-1]):
        raise ValueError(
            f"a state_dict does not say which activations stand between the modules {_shown(chain)}: say it with "
            f'activations=["linear", ...], one for each of {linears}'
        )
    return ["linear"] * len(linears)


def _inferred(chain: list[Module], return_sequences: bool, activations: list[str], dtype: str) -> ModelDescription:
    layers: list[LayerDescription] = []
    last_gru = [module for module in chain if module.class_name == "GRU"][-1]
    remaining = iter(activations)
    for module in chain:
        name = module.path or {"GRU": "gru", "Dense": "dense", "Embedding": "embedding"}[module.class_name]
        match module.class_name:
            case "GRU":
                layers += _gru_layers(module, name, last=module is last_gru and not return_sequences)
            case "Dense":
                (weights,) = module.layers
                config = {"units": module.gives, "activation": next(remaining), "use_bias": "bias" in weights}
                layers.append(LayerDescription("Dense", name, config, weights))
            case "Embedding":
                (weights,) = module.layers
                config = {"input_dim": len(weights["embeddings"]), "output_dim": module.gives}
                layers.append(LayerDescription("Embedding", name, config, weights))
    first = chain[0].takes
    return ModelDescription(layers, (None,) if first is None else (None, first), dtype=dtype)


def _gru_layers(module: Module, name: str, *, last: bool) -> list[LayerDescription]:
    """A GRU's layers; `last`: the last one gives the last state only."""
    described = []
    for number, weights in enumerate(module.layers):
        sequences = not last or number + 1 < len(module.layers)
        bidirectional = "forward/kernel" in weights
        config: dict[str, Any] = {
            "units": module.gives // (1 + bidirectional),
            "use_bias": any(name.endswith("bias") for name in weights),
            "return_sequences": sequences,
            "zero_output_for_mask": True,
        }
        if bidirectional:
            backward = {**config, "go_backwards": True}
            config = {
                "layer": {"class_name": "GRU", "config": config},
                "backward_layer": {"class_name": "GRU", "config": backward},
                "merge_mode": "concat",
            }
        layer_name = name if number == 0 else f"{name}.l{number}"
        described.append(LayerDescription("Bidirectional" if bidirectional else "GRU", layer_name, config, weights))
    return described


# --- From layers to modules ---------------------------------------------------------------------------------------


@dataclass
class _Part:
    """Layers that are one module of PyTorch's."""

    class_name: str
    path: str
    layers: list[LayerDescription]
    shape: Any = None  # of a GRU: what must be the same in all layers


#: Layers without weights, which PyTorch has as modules or functions.
_WITHOUT_WEIGHTS = frozenset({"Dropout", "Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D"})
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
