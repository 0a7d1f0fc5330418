"""Raises for models in which Keras treats padding differently from this package."""

from __future__ import annotations

from fastgru.formats.description import LayerDescription

#: Layers that ignore padding.
_BLIND_TO_PADDING = ("GRU", "Bidirectional", "GlobalAveragePooling1D")
#: Layers that change each element separately, so that padding does not affect other elements.
_ELEMENTWISE = ("Dropout", "Rescaling", "SpatialDropout1D")


def require_same_masks(layers: list[LayerDescription]) -> None:
    """Raise if Keras treats padding differently in one of the layers."""
    masked = False
    for number, layer in enumerate(layers):
        if masked:
            _refuse_mask_before(layer)
        if layer.class_name == "Masking":
            _require_unseen_padding(layer, layers[number + 1 :])
        masked = masked_after(layer, masked=masked)


def _refuse_mask_before(layer: LayerDescription) -> None:
    """Raise if Keras' layer uses a mask differently."""
    if layer.class_name == "GRU" and layer.returns_steps and layer.config.get("go_backwards"):
        raise ValueError(
            f"{layer.name}: expected go_backwards=False after a mask because Keras moves padding to the beginning, got "
            f"True"
        )
    if layer.class_name == "GlobalMaxPooling1D":
        raise ValueError(f"{layer.name}: expected no mask before it because Keras' layer ignores masks, got one")
    if layer.unwrapped.class_name == "TimeDistributed":
        raise ValueError(
            f"{layer.name}: expected no mask before it because Keras' layer computes outputs for padding, which are "
            f"zeros in fastgru, got one"
        )
    if layer.makes_mask:
        raise ValueError(
            f"{layer.name}: expected no mask before it because Keras replaces a mask and fastgru combines both, got one"
        )


def _require_unseen_padding(masking: LayerDescription, after: list[LayerDescription]) -> None:
    """Raise if padding may differ from 0 before a layer that computes with it, because Keras sets it to 0."""
    value = masking.config.get("mask_value", 0.0)
    first = next((layer.class_name for layer in after if layer.class_name not in _ELEMENTWISE), None)
    if value == 0 or first in _BLIND_TO_PADDING:
        return
    where = "the end of the model" if first is None else f"a {first} layer"
    raise ValueError(
        f"{masking.name}: expected mask_value=0.0 before {where} because Keras sets padding to 0 and fastgru does "
        f"not, got {value!r}"
    )


def masked_after(layer: LayerDescription, *, masked: bool) -> bool:
    """Whether a layer's output has a mask, given whether its input has one."""
    passes = layer.class_name in ("Dense", "Activation", *_ELEMENTWISE, "TimeDistributed") or layer.returns_steps
    return layer.makes_mask or (masked and passes)


def is_masked(layers: list[LayerDescription]) -> bool:
    """Whether a model's output has a mask."""
    masked = False
    for layer in layers:
        masked = masked_after(layer, masked=masked)
    return masked
