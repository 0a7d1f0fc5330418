"""Losses with Keras' names, arguments and defaults.

A loss is computed from rows: one row per sample, or for outputs at each step one row per valid step. It returns the
loss of each row and the gradient of the mean loss. The training loop applies sample weights, lengths and masks. See
`Loss` for custom losses, as functions or as classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from fastgru._support.elsewhere import missing
from fastgru.losses.base import KINDS, Loss, LossFunctionWrapper, LossResult
from fastgru.losses.classes import (
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    SparseCategoricalCrossentropy,
)
from fastgru.losses.numbers import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
    SquaredHinge,
)

__all__ = [
    "KINDS",
    "LOSSES",
    "SHORT_NAMES",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunctionWrapper",
    "LossResult",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "Quantile",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "get",
]

#: Name in a saved configuration -> class.
LOSSES: dict[str, type[Loss]] = {
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "poisson": Poisson,
    "kl_divergence": KLDivergence,
    "hinge": Hinge,
    "squared_hinge": SquaredHinge,
    "quantile": Quantile,
}
SHORT_NAMES = {
    "bce": "binary_crossentropy",
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "kld": "kl_divergence",
    "huber_loss": "huber",
    "logcosh": "log_cosh",
    "pinball": "quantile",
}
_CLASSES = {cls.__name__: cls for cls in LOSSES.values()}


def registered_name(loss: Loss) -> str | None:
    """Return the name of a loss in files, or None for a function or a custom class."""
    return next((name for name, cls in LOSSES.items() if type(loss) is cls), None)


def get(identifier: Any) -> Loss:
    """Return the loss for an identifier.

    Parameters
    ----------
    identifier : str, dict, callable or Loss
        A name ("mse", "MeanSquaredError") of a loss with default options; a dict with ``class_name`` and ``config``; a
        function of y_true and y_pred, see `Loss`; or a Loss, which is returned without copying.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        No loss has that name.
    TypeError
        The identifier has another type.
    """
    if isinstance(identifier, Loss):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Loss):
        return identifier()
    if hasattr(identifier, "update_state"):
        raise TypeError(
            f"loss: expected a name, a function or a loss, got the metric {identifier!r}; pass it in metrics="
        )
    if callable(identifier):
        return LossFunctionWrapper(identifier)
    if isinstance(identifier, Mapping) and isinstance(identifier.get("config"), Mapping):
        return _class_of(identifier.get("class_name")).from_config(identifier["config"])
    return _class_of(identifier)()


def _class_of(name: Any) -> type[Loss]:
    if isinstance(name, str):
        if name in _CLASSES:
            return _CLASSES[name]
        lower = name.lower() if name.isupper() else name
        if (found := SHORT_NAMES.get(lower, lower)) in LOSSES:
            return LOSSES[found]
        hint = f"; {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        raise ValueError(f"loss: expected one of {', '.join(map(repr, (*LOSSES, *SHORT_NAMES)))}, got {name!r}{hint}")
    raise TypeError(f"loss: expected a name, a function, or one of fastgru.losses, got {name!r}")


_AS_FUNCTION = "write it as a function of y_true and y_pred, and pass the function as the loss; see losses.Loss"
#: Names in Keras and PyTorch that this module does not have -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(
        (
            *("CategoricalGeneralizedCrossEntropy", "categorical_generalized_cross_entropy", "CategoricalHinge"),
            *("categorical_hinge", "CosineSimilarity", "cosine_similarity", "Dice", "dice", "Tversky", "tversky"),
        ),
        _AS_FUNCTION,
    ),
    **dict.fromkeys(("Circle", "circle"), "use another package: fastgru has no losses that compare samples"),
    **dict.fromkeys(("CTC", "ctc", "CTCLoss"), "use PyTorch's CTCLoss with fastgru.torch.GRU"),
    **{name: f"use losses.{cls.__name__}() or the name {name!r}" for name, cls in LOSSES.items() if name != "quantile"},
    "CrossEntropyLoss": "use losses.SparseCategoricalCrossentropy(from_logits=True)",
    "NLLLoss": "use losses.SparseCategoricalCrossentropy with a softmax as the last activation",
    "BCELoss": "use losses.BinaryCrossentropy",
    "BCEWithLogitsLoss": "use losses.BinaryCrossentropy(from_logits=True)",
    "MSELoss": "use losses.MeanSquaredError",
    "L1Loss": "use losses.MeanAbsoluteError",
    "HuberLoss": "use losses.Huber",
    "SmoothL1Loss": "use losses.Huber",
    "KLDivLoss": "use losses.KLDivergence",
    "PoissonNLLLoss": "use losses.Poisson",
    "Pinball": "use losses.Quantile",
    "serialize": "use loss.get_config()",
    "deserialize": "use losses.get({'class_name': ..., 'config': ...})",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
