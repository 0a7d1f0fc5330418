"""`Rescaling` layers in files: of formats that have no such layer, and of versions of this package that had none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgru.formats.checks import unsupported
from fastgru.formats.description import LayerDescription, kind_name

#: The version of this package's own metadata in files. Files of version 1, or without one, were written when uint8
#: input was divided by 255.
FORMAT_VERSION = 2


# --- Versions without the layer -------------------------------------------------------------------------------------


def dividing_bytes(layers: Sequence[LayerDescription]) -> list[LayerDescription]:
    """The layers of a file of version 1, with one in front that divides uint8 input by 255, as that version did."""
    if not layers or layers[0].class_name == "Embedding":
        return list(layers)
    name, number = kind_name("Rescaling"), 0
    while any(name == layer.name for layer in layers):
        number += 1
        name = f"{kind_name('Rescaling')}_{number}"
    config = {"scale": 1 / 255, "offset": 0.0, "uint8_only": True}
    return [LayerDescription("Rescaling", name, config), *layers]


def without_uint8_only(layers: Sequence[LayerDescription]) -> list[LayerDescription]:
    """The layers without those of `dividing_bytes`, which do nothing in a framework whose input is float32."""
    return [layer for layer in layers if not layer.config.get("uint8_only")]


# --- Formats without the layer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scaling:
    """``scale * x + offset``, and the layer that it comes from."""

    name: str
    scale: float
    offset: float


def fold_scaling(layers: Sequence[LayerDescription], by: str) -> list[LayerDescription]:
    """Layers that compute the same without `Rescaling`, which becomes part of the next kernel and bias.

    Parameters
    ----------
    layers : sequence of LayerDescription
        Are not changed.
    by : str
        The framework that has no such layer, for the message.

    Raises
    ------
    ValueError
        No GRU, Bidirectional or Dense follows, or a layer before it for which the order matters.
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
                raise _not_foldable(scaling, by, f"and {layer.name} comes before a layer that could take it on")
        folded.append(layer)
    if scaling is not None and (scaling.scale, scaling.offset) != (1, 0):
        raise _not_foldable(scaling, by, "and no GRU or Dense follows that could take it on")
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
    """Whether scaling the layer's output is the same as scaling its input, in training and for empty sequences too."""
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
    """The layer on ``scale * x + offset`` as a layer on x: ``scale * kernel``, ``bias + offset * sum(kernel)``."""
    weights = dict(layer.weights)
    for prefix, part in layer.parts.items():
        kernel = part.weights["kernel"]
        wide = kernel.astype(np.float64)
        with np.errstate(over="ignore"):  # what overflows is refused below
            weights[f"{prefix}kernel"] = (scaling.scale * wide).astype(kernel.dtype)
            if scaling.offset:
                bias = part.weights.get("bias", np.zeros(_bias_shape(part, kernel.shape[1]), kernel.dtype))
                shifted = bias.astype(np.float64)
                shifted.reshape(-1, kernel.shape[1])[0] += scaling.offset * wide.sum(axis=0)
                weights[f"{prefix}bias"] = shifted.astype(kernel.dtype)
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise _not_foldable(scaling, by, f"and the weights of {layer.name} would not be finite with it")
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
