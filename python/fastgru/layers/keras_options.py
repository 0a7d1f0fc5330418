"""Parameters that Keras' layers have and these do not: values that change nothing are accepted, others refused."""

from __future__ import annotations

from typing import Any

from fastgru._support import checks

_CONSTRAINT = "use a regularizer, or set the weights in a callback"
#: Parameter -> the values that change nothing, and what to do instead of passing others.
_NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "activity_regularizer": ((None,), "use kernel_regularizer"),
    "bias_constraint": ((None,), _CONSTRAINT),
    "data_format": ((None, "channels_last"), "transpose the data to (N, T, F)"),
    "embeddings_constraint": ((None,), _CONSTRAINT),
    "keepdims": ((False,), "add a Reshape or a RepeatVector(1)"),
    "kernel_constraint": ((None,), _CONSTRAINT),
    "lora_alpha": ((None,), "leave it out"),
    "lora_rank": ((None,), "leave it out"),
    "noise_shape": ((None,), "use SpatialDropout1D to drop whole features"),
    "quantization_config": ((None,), "leave it out"),
    "recurrent_constraint": ((None,), _CONSTRAINT),
    "unroll": ((False, True), ""),
    "use_cudnn": (("auto", False, True), ""),
    "weights": ((None,), "call set_weights once the model is built"),
}
#: All of them, which no configuration has.
NAMES = frozenset((*_NEUTRAL, "seed", "input_length"))


def require_neutral(**given: Any) -> None:
    """Raise unless all parameters have values that change nothing.

    ``seed`` is checked and ignored, because all random numbers of a model come from one generator, whose state
    checkpoints keep.
    """
    for name, value in given.items():
        if name in ("seed", "input_length"):
            if value is not None:
                checks.integer(name, value, least=0)
            continue
        values, remedy = _NEUTRAL[name]
        if not any(value is each or (isinstance(each, str) and value == each) for each in values):
            expected = " or ".join(map(repr, values))
            raise ValueError(
                f"{name}: expected {expected} because fastgru does not support others, got {value!r:.100}"
                f"{remedy and f'; {remedy}'}"
            )
