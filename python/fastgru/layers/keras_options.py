"""Parameters of Keras' layers that fastgru does not support: values without effect are accepted, others raise."""

from __future__ import annotations

from typing import Any

from fastgru._support import checks

_CONSTRAINT = "use a regularizer, or set the weights in a callback"
#: Parameter -> (values without effect, remedy for all other values).
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
    "weights": ((None,), "call set_weights after the model is built"),
}
#: The names of all these parameters; saved configurations do not contain them.
NAMES = frozenset((*_NEUTRAL, "seed", "input_length"))


def require_neutral(**given: Any) -> None:
    """Raise ValueError if a parameter has a value that would change the result.

    ``seed`` is checked and ignored: all random numbers of a model come from one generator, and checkpoints contain its
    state.
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
                f"{name}: expected {expected} because fastgru does not support other values, got {value!r:.100}"
                f"{remedy and f'; {remedy}'}"
            )
