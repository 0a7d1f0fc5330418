"""Conversion of layers to PyTorch modules: consecutive GRUs that form one `nn.GRU`, and unsupported features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastgru.formats.checks import require_options, unsupported
from fastgru.formats.description import LayerDescription


@dataclass
class Part:
    """Layers that form one PyTorch module."""

    class_name: str
    path: str
    layers: list[LayerDescription]
    shape: Any = None  # of a GRU: what all layers of the module must have in common


#: Layers without weights, for which PyTorch has modules or functions.
_WITHOUT_WEIGHTS = frozenset(
    {
        *("Activation", "Dropout", "Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "LastStep"),
        *("Permute", "RepeatVector", "Reshape", "SpatialDropout1D"),
    }
)
#: The options of every nn.GRU.
_FIXED = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "reset_after": True,
    "dropout": 0,
    "recurrent_dropout": 0,
    "stateful": False,
}
#: Option -> why PyTorch does not support it, and the remedy.
_HINTS = {
    "dropout": ("which drops other elements in each step", "for predictions set dropout=0"),
    "recurrent_dropout": ("which has none", "for predictions set recurrent_dropout=0"),
    "stateful": ("which receives its states in each call", "set stateful=False"),
    "mask_zero": ("which does not detect padding", "set mask_zero=False and pass lengths"),
}


def parts_of(layers: Sequence[LayerDescription]) -> list[Part]:
    """The modules for these layers; raises if PyTorch does not support a layer or an option."""
    parts: list[Part] = []
    joins = False  # whether the layer before is a GRU
    for layer in (each.unwrapped for each in layers):
        match layer.class_name:
            case "GRU" | "Bidirectional":
                shape = _gru_shape(layer)
                if joins and parts[-1].shape == shape:
                    parts[-1].layers.append(layer)
                else:
                    parts.append(Part("GRU", layer.name, [layer], shape))
            case "Dense":
                parts.append(Part("Dense", layer.name, [layer]))
            case "Embedding":
                require_options(layer.name, "PyTorch's nn.Embedding", layer.config, {"mask_zero": False}, _HINTS)
                parts.append(Part("Embedding", layer.name, [layer]))
            case "Masking":
                reason = "which uses packed sequences"
                raise unsupported(layer.name, "Masking", "PyTorch", reason, "leave it out and pass lengths")
            case name if name not in _WITHOUT_WEIGHTS:
                raise unsupported(layer.name, name, "PyTorch")
        joins = layer.is_recurrent
    return parts


def _gru_shape(layer: LayerDescription) -> tuple[Any, ...]:
    """Units, biases and directions, which all layers of an nn.GRU have in common."""
    by = "PyTorch's nn.GRU"
    require_options(layer.name, by, layer.config, {"merge_mode": "concat"})
    configs = [part.config for part in layer.parts.values()]
    for config, backwards in zip(configs, (False, True), strict=False):
        require_options(layer.name, by, config, {**_FIXED, "go_backwards": backwards}, _HINTS)
    shapes = [(config.get("units"), config.get("use_bias", True)) for config in configs]
    if len(set(map(str, shapes))) > 1:
        raise unsupported(layer.name, "a use_bias that differs between the directions", by)
    return (*shapes[0], len(configs))
