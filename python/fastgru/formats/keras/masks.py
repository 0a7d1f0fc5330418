"""Padding in a chain of layers: where Keras does something else with it than this package, the chain is refused."""

from __future__ import annotations

from fastgru.formats.description import LayerDescription

#: What neither reads nor counts padding, whatever stands there.
_BLIND_TO_PADDING = ("GRU", "Bidirectional", "GlobalAveragePooling1D")
#: What changes each number by itself, so that padding stays apart.
_ELEMENTWISE = ("Dropout", "Rescaling", "SpatialDropout1D")


def require_same_masks(layers: list[LayerDescription]) -> None:
    """Refuse chains in which Keras does something else with padding than this package."""
    masked = False
    for number, layer in enumerate(layers):
        if masked:
            _refuse_mask_before(layer)
        if layer.class_name == "Masking":
            _require_unseen_padding(layer, layers[number + 1 :])
        masked = masked_after(layer, masked=masked)


def _refuse_mask_before(layer: LayerDescription) -> None:
    """Refuse a layer that makes something else of a mask."""
    if layer.class_name == "GRU" and layer.returns_steps and layer.config.get("go_backwards"):
        raise ValueError(
            f"{layer.name}: expected go_backwards=False after a mask, where Keras puts its padding first, got True"
        )
    if layer.class_name == "GlobalMaxPooling1D":
        raise ValueError(f"{layer.name}: expected no mask before it, because Keras' knows none, got one")
    if layer.unwrapped.class_name == "TimeDistributed":
        raise ValueError(
            f"{layer.name}: expected no mask before it, because Keras' computes padding, and here it is zeros, got one"
        )
    if layer.makes_mask:
        raise ValueError(
            f"{layer.name}: expected no mask before it, because Keras' replaces it, where here both count, got one"
        )


def _require_unseen_padding(masking: LayerDescription, after: list[LayerDescription]) -> None:
    """Refuse padding of other values than 0, which Keras sets to 0, before a layer that computes with it."""
    value = masking.config.get("mask_value", 0.0)
    first = next((layer.class_name for layer in after if layer.class_name not in _ELEMENTWISE), None)
    if value == 0 or first in _BLIND_TO_PADDING:
        return
    where = "the end of the model" if first is None else f"a {first} layer"
    raise ValueError(
        f"{masking.name}: expected mask_value=0.0 before {where}, because Keras sets padding to 0, where here it stays "
        f"as it is, got {value!r}"
    )


def masked_after(layer: LayerDescription, *, masked: bool) -> bool:
    """Whether a mask comes with what a layer returns, given whether one comes with its input."""
    passes = layer.class_name in ("Dense", "Activation", *_ELEMENTWISE, "TimeDistributed") or layer.returns_steps
    return layer.makes_mask or (masked and passes)


def is_masked(layers: list[LayerDescription]) -> bool:
    """Whether a mask comes with what the last of a model's layers returns."""
    masked = False
    for layer in layers:
        masked = masked_after(layer, masked=masked)
    return masked
