"""`Rescaling` layers in files of formats without this layer, and in files of format version 1 of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgru.formats.checks import unsupported
from fastgru.formats.description import LayerDescription, kind_name

#: The version of the metadata in files. Models of version 1, or without a version, divided uint8 input by 255.
FORMAT_VERSION = 2


# --- Format version 1 -----------------------------------------------------------------------------------------------


def dividing_bytes(layers: Sequence[LayerDescription]) -> list[LayerDescription]:
    """Return the layers of a file of version 1 after a Rescaling that divides uint8 input by 255, as version 1 did."""
    if not layers or layers[0].class_name == "Embedding":
        return list(layers)
    name, number = kind_name("Rescaling"), 0
    while any(name == layer.name for layer in layers):
        number += 1
        name = f"{kind_name('Rescaling')}_{number}"
    config = {"scale": 1 / 255, "offset": 0.0, "uint8_only": True}
    return [LayerDescription("Rescaling", name, config), *layers]


def without_uint8_only(layers: Sequence[LayerDescription]) -> list[LayerDescription]:
    """Return the layers without that of `dividing_bytes`, which has no effect in frameworks with float32 input."""
    return [layer for layer in layers if not layer.config.get("uint8_only")]


# --- Formats without the layer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scaling:
    """``scale * x + offset``, and the name of the layer for messages."""

    name: str
    scale: float
    offset: float


def fold_scaling(layers: Sequence[LayerDescription], by: str) -> list[LayerDescription]:
    """Merge each `Rescaling` into the kernel and bias of the next GRU, Bidirectional or Dense.

    Parameters
    ----------
    layers : sequence of LayerDescription
        They are not changed.
    by : str
        The framework without this layer, for the message.

    Returns
    -------
    list of LayerDescription
        Layers without `Rescaling` that compute the same outputs.

    Raises
    ------
    ValueError
        No such layer follows, or a layer between the two does not commute with scaling.
    """
    folded: list[LayerDescription] = []
    scaling: _Scaling | None = None
    for layer in layers:
        if layer.class_name == "Rescaling":
            scaling = _after(scaling, layer)
            continue
        if scaling is not None and (scaling.scale, scaling.offset) != (1, 0):
            if layer.is_recurrent or layer.class_name == "Dense":
                layer, scaling = _with_scaled_input(layer, scaling, by), None
            elif not _commutes(layer, scaling):
                raise _not_foldable(scaling, by, f"and it cannot be merged into a layer after {layer.name}")
        folded.append(layer)
    if scaling is not None and (scaling.scale, scaling.offset) != (1, 0):
        raise _not_foldable(scaling, by, "and it cannot be merged into a GRU or Dense because none follows")
    return folded


def _after(before: _Scaling | None, layer: LayerDescription) -> _Scaling:
    scale, offset = float(layer.config["scale"]), float(layer.config.get("offset", 0.0))
    if before is None:
        return _Scaling(layer.name, scale, offset)
    return _Scaling(before.name, scale * before.scale, scale * before.offset + offset)


def _not_foldable(scaling: _Scaling, by: str, reason: str) -> ValueError:
    return unsupported(
        scaling.name, "Rescaling", by, f"which has no such layer, {reason}", "scale the input before the model"
    )


def _commutes(layer: LayerDescription, scaling: _Scaling) -> bool:
    """Whether scaling the output of a layer equals scaling its input, also in training and for empty sequences."""
    match layer.class_name:
        case "Flatten" | "Permute" | "RepeatVector" | "Reshape":
            return True
        case "Activation":
            return layer.config.get("activation") == "linear"
        case "Dropout" | "SpatialDropout1D" | "GlobalAveragePooling1D" | "LastStep":
            return scaling.offset == 0
        case "GlobalMaxPooling1D":
            return scaling.offset == 0 and scaling.scale > 0
        case _:
            return False


def _with_scaled_input(layer: LayerDescription, scaling: _Scaling, by: str) -> LayerDescription:
    """Return the layer with ``scale * kernel`` and ``bias + offset * sum(kernel)``, which merges the scaling."""
    weights = dict(layer.weights)
    for prefix, part in layer.parts.items():
        kernel = part.weights["kernel"]
        wide = kernel.astype(np.float64)
        with np.errstate(over="ignore"):  # an overflow raises below
            weights[f"{prefix}kernel"] = (scaling.scale * wide).astype(kernel.dtype)
            if scaling.offset:
                bias = part.weights.get("bias", np.zeros(_bias_shape(part, kernel.shape[1]), kernel.dtype))
                shifted = bias.astype(np.float64)
                shifted.reshape(-1, kernel.shape[1])[0] += scaling.offset * wide.sum(axis=0)
                weights[f"{prefix}bias"] = shifted.astype(kernel.dtype)
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise _not_foldable(scaling, by, f"and merging it into {layer.name} gives weights that are not finite")
    names = [f"{prefix}{name}" for prefix in layer.parts for name in ("kernel", "recurrent_kernel", "bias")]
    ordered = {name: weights[name] for name in names if name in weights}
    return replace(layer, config=_with_bias(layer) if scaling.offset else layer.config, weights=ordered)


def _bias_shape(part: LayerDescription, columns: int) -> tuple[int, ...]:
    return (2, columns) if part.class_name == "GRU" and part.config.get("reset_after", True) else (columns,)


def _with_bias(layer: LayerDescription) -> dict[str, Any]:
    if layer.class_name != "Bidirectional":
        return {**layer.config, "use_bias": True}
    directions = {
        key: {**layer.config[key], "config": {**layer.config[key]["config"], "use_bias": True}}
        for key in ("layer", "backward_layer")
    }
    return {**layer.config, **directions}
