"""Losses, metrics and optimizers in Keras' three dialects, and their descriptions here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastgru.formats.checks import refuse_other_options, require_object, unsupported
from fastgru.formats.description import TrainingDescription
from fastgru.formats.keras.dialects import (
    TFJS,
    Config,
    Dialect,
    OptimizerSpec,
    class_and_config,
    class_and_options,
    snake_case,
    written_object,
)

#: Name in fastgru -> class in Keras, and options in fastgru.
_LOSSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "categorical_crossentropy": ("CategoricalCrossentropy", ("from_logits", "label_smoothing")),
    "sparse_categorical_crossentropy": ("SparseCategoricalCrossentropy", ("from_logits",)),
    "binary_crossentropy": ("BinaryCrossentropy", ("from_logits", "label_smoothing")),
    "mean_squared_error": ("MeanSquaredError", ()),
    "mean_absolute_error": ("MeanAbsoluteError", ()),
    "huber": ("Huber", ("delta",)),
    "categorical_focal_crossentropy": (
        "CategoricalFocalCrossentropy",
        ("alpha", "gamma", "from_logits", "label_smoothing"),
    ),
    "binary_focal_crossentropy": (
        "BinaryFocalCrossentropy",
        ("apply_class_balancing", "alpha", "gamma", "from_logits", "label_smoothing"),
    ),
    "mean_absolute_percentage_error": ("MeanAbsolutePercentageError", ()),
    "mean_squared_logarithmic_error": ("MeanSquaredLogarithmicError", ()),
    "log_cosh": ("LogCosh", ()),
    "poisson": ("Poisson", ()),
    "kl_divergence": ("KLDivergence", ()),
    "hinge": ("Hinge", ()),
    "squared_hinge": ("SquaredHinge", ()),
}
#: Losses of TensorFlow.js, which identifies losses by name only. Its hinges do not accept targets of 0 and 1.
_TFJS_LOSSES = frozenset(
    (
        *("categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy", "mean_squared_error"),
        *("mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "poisson"),
    )
)
_LOSS_CLASSES = {class_name: name for name, (class_name, _) in _LOSSES.items()}
_SHORT = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "huber_loss": "huber"} | {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
}
_LOSS_DEFAULTS = {
    "from_logits": False,
    "label_smoothing": 0.0,
    "delta": 1.0,
    "alpha": 0.25,
    "gamma": 2.0,
    "apply_class_balancing": False,
}
_LOSS_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **{option: (value,) for option, value in _LOSS_DEFAULTS.items()},
    "reduction": ("sum_over_batch_size", "auto"),
    "axis": (-1,),
}
#: Name of a metric in Keras -> name in fastgru.
_METRICS = {
    "accuracy": "accuracy",
    "acc": "acc",
    "categorical_accuracy": "categorical_accuracy",
    "sparse_categorical_accuracy": "sparse_categorical_accuracy",
    "binary_accuracy": "binary_accuracy",
    "mean_squared_error": "mean_squared_error",
    "mean_absolute_error": "mean_absolute_error",
    "mse": "mse",
    "mae": "mae",
    "top_k_categorical_accuracy": "top_k_categorical_accuracy",
    "sparse_top_k_categorical_accuracy": "sparse_top_k_categorical_accuracy",
    **{
        name: name
        for name in (
            *("auc", "precision", "recall", "true_positives", "true_negatives", "false_positives", "false_negatives"),
            *("kl_divergence", "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "poisson"),
            *("root_mean_squared_error", "r2_score", "mape", "msle"),
        )
    },
    "log_cosh_error": "log_cosh_error",
    "logcosh": "log_cosh_error",
}
_METRIC_CLASSES = {
    "CategoricalAccuracy": "categorical_accuracy",
    "SparseCategoricalAccuracy": "sparse_categorical_accuracy",
    "BinaryAccuracy": "binary_accuracy",
    "MeanSquaredError": "mean_squared_error",
    "MeanAbsoluteError": "mean_absolute_error",
    "TopKCategoricalAccuracy": "top_k_categorical_accuracy",
    "SparseTopKCategoricalAccuracy": "sparse_top_k_categorical_accuracy",
    "AUC": "auc",
    "Precision": "precision",
    "Recall": "recall",
    "TruePositives": "true_positives",
    "TrueNegatives": "true_negatives",
    "FalsePositives": "false_positives",
    "FalseNegatives": "false_negatives",
    "KLDivergence": "kl_divergence",
    "LogCoshError": "log_cosh_error",
    "MeanAbsolutePercentageError": "mean_absolute_percentage_error",
    "MeanSquaredLogarithmicError": "mean_squared_logarithmic_error",
    "Poisson": "poisson",
    "RootMeanSquaredError": "root_mean_squared_error",
    "R2Score": "r2_score",
}
#: Metrics with a different name in TensorFlow.js.
_TFJS_METRICS = {
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "sparse_categorical_accuracy": "accuracy",
}
#: Metrics that TensorFlow.js does not have under these names, or computes differently.
_NOT_IN_TFJS = frozenset(
    (
        *("auc", "precision", "recall", "true_positives", "true_negatives", "false_positives", "false_negatives"),
        *("kl_divergence", "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "poisson", "r2_score"),
        *("log_cosh_error", "root_mean_squared_error", "mape", "msle"),
    )
)
_METRIC_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "k": (5,),
    "threshold": (0.5,),
    "from_sorted_ids": (False,),
    "num_thresholds": (200,),
    "curve": ("ROC", "roc"),
    "summation_method": ("interpolation",),
    "multi_label": (False,),
    "from_logits": (False,),
    "class_aggregation": ("uniform_average",),
    "num_regressors": (0,),
}
#: Options of losses and metrics for their name or implementation, which do not change the result.
_IGNORED = ("name", "fn", "dtype")
_OPTIMIZER_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "weight_decay": (0,),
    "decay": (0,),
    "use_ema": (False,),
    "amsgrad": (False,),
    "momentum": (0,),
    "nesterov": (False,),
    "centered": (False,),
}
_OPTIMIZER_IGNORED = ("name", "ema_momentum", "ema_overwrite_frequency", "jit_compile", "is_legacy_optimizer")
_OPTIMIZER_SHORT = {"lr": "learning_rate"}
#: Schedules that Keras and fastgru have -> their common options.
_SCHEDULES = {
    "CosineDecay": ("initial_learning_rate", "decay_steps", "alpha", "warmup_target", "warmup_steps"),
    "CosineDecayRestarts": ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha"),
    "ExponentialDecay": ("initial_learning_rate", "decay_steps", "decay_rate", "staircase"),
    "InverseTimeDecay": ("initial_learning_rate", "decay_steps", "decay_rate", "staircase"),
    "PiecewiseConstantDecay": ("boundaries", "values"),
    "PolynomialDecay": ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle"),
}


#: An unsupported training configuration does not prevent loading or saving the model itself.
LOAD_WITHOUT = "pass compile=False to load the model without its optimizer, loss and metrics"
SAVE_WITHOUT = "pass include_optimizer=False to save the model without its optimizer, loss and metrics"


def training_from_config(dialect: Dialect, config: Any) -> TrainingDescription | None:
    """Convert a training configuration; returns None for the empty configuration of a model that is not compiled.

    Parameters
    ----------
    dialect : Dialect
    config : dict
        With ``loss``, ``metrics`` and the optimizer.
    """
    if not config:
        return None
    config = require_object("training configuration", config)
    for key in ("loss_weights", "weighted_metrics", "sample_weight_mode"):
        if config.get(key) not in (None, [], {}, [[]], [None]):
            raise ValueError(f"{key}: expected None because fastgru does not support it, got {config[key]!r}")
    optimizer = config.get("optimizer", config.get("optimizer_config"))  # Keras 3 writes Keras 2's key to .h5 files
    if config.get("loss") is None or optimizer is None:
        return None
    metrics = [_metric(dialect, entry) for entry in _flat(config.get("metrics"))]
    return TrainingDescription(_optimizer(dialect, optimizer), _loss(dialect, config["loss"]), metrics)


def training_to_config(dialect: Dialect, training: TrainingDescription) -> Config:
    """Convert a training configuration to the dialect.

    Raises
    ------
    ValueError
        The dialect does not support it; the message names the unsupported part.
    """
    return {
        dialect.optimizer_key: _written_optimizer(dialect, training.optimizer),
        "loss": _written_loss(dialect, training.loss),
        "metrics": [_written_metric(dialect, metric, training.loss["name"]) for metric in training.metrics],
    }


def _flat(entries: Any) -> list[Any]:
    """Return the items of nested lists, or of an object with the names of outputs."""
    if entries is None:
        return []
    if isinstance(entries, Mapping) and "class_name" not in entries:
        entries = list(entries.values())
    if not isinstance(entries, list):
        return [entries]
    return [inner for entry in entries for inner in _flat(entry)]


def _loss(dialect: Dialect, entry: Any) -> Config:
    entries = _flat(entry)
    if len(entries) != 1:
        raise ValueError(f"loss: expected one, got {entry!r}")
    name, config = _named("loss", entries[0])
    name = (
        _LOSS_CLASSES.get(name) or _SHORT.get(snake_case(name.lower() if name.isupper() else name)) or snake_case(name)
    )
    known = [each for each in _LOSSES if dialect.loss_options or each in _TFJS_LOSSES]
    if name not in known:
        raise ValueError(f"loss: expected one of {', '.join(known)}, got {name!r}")
    _, options = _LOSSES[name]
    refuse_other_options("loss", config, (*options, *_IGNORED), _LOSS_NEUTRAL, of=name)
    return {"name": name, "config": {option: config[option] for option in config if option in options}}


def _metric(dialect: Dialect, entry: Any) -> str:
    name, config = _named("metrics", entry)
    if name == "MeanMetricWrapper":  # Keras 2, around a function
        name = config.pop("fn", "")
    name = _METRIC_CLASSES.get(name) or _lower(name)
    known = [each for each in _METRICS if not (dialect is TFJS and each in _NOT_IN_TFJS)]
    if name not in known:
        raise ValueError(f"metrics: expected some of {', '.join(known)}, got {name!r}")
    refuse_other_options("metrics", config, _IGNORED, _METRIC_NEUTRAL, of=name)
    return _METRICS[name]


def _lower(name: str) -> str:
    """Convert ``MSE`` and ``meanSquaredError`` to lower case."""
    return name.lower() if name.isupper() else str(snake_case(name))


def _named(where: str, entry: Any) -> tuple[str, Config]:
    """Return the name or class of a loss or metric, and its configuration."""
    if isinstance(entry, str):
        return entry, {}
    class_name, config = class_and_config(where, entry)
    if class_name == "function" and isinstance(config, str):
        return config, {}
    return class_name, dict(require_object(where, config))


def _optimizer(dialect: Dialect, entry: Any) -> Config:
    class_name, config = _named("optimizer", entry)
    class_name = class_name.removeprefix("Custom>")  # TensorFlow 2.11 registered its new optimizers with this prefix
    config = {_OPTIMIZER_SHORT.get(name, name): value for name, value in config.items()}
    spec = _optimizer_spec(dialect, class_name, config)
    known = (*spec.options.values(), *_OPTIMIZER_IGNORED)
    refuse_other_options("optimizer", config, known, _OPTIMIZER_NEUTRAL, of=class_name)
    found = {ours: config[option] for ours, option in spec.options.items() if config.get(option) is not None}
    if "learning_rate" in found:
        found["learning_rate"] = _learning_rate(dialect, found["learning_rate"])
    fixed = {option: value for option, value in spec.fixed.items() if option != "exclude_from_weight_decay"}
    return {"class_name": spec.ours, "config": found | fixed}


def _optimizer_spec(dialect: Dialect, class_name: str, config: Config) -> OptimizerSpec:
    """Return the first entry of the dialect's table that matches an optimizer's configuration."""
    legacy = config.get("is_legacy_optimizer", True)
    for spec in dialect.optimizers:
        plain = not any(config.get(option) for option in ("momentum", "weight_decay") if option in spec.fixed)
        if spec.theirs.lower() == class_name.lower() and spec.legacy in (None, legacy) and plain:
            return spec
    known = ", ".join(dict.fromkeys(spec.theirs for spec in dialect.optimizers))
    raise ValueError(f"optimizer: expected one of {known}, got {class_name!r}")


def _learning_rate(dialect: Dialect, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    class_name, config = class_and_options("learning_rate", value)
    if class_name not in _SCHEDULES or not dialect.schedules:
        raise ValueError(f"learning_rate: expected a number, {' or '.join(_SCHEDULES)}, got {class_name}")
    options = {name: config[name] for name in _SCHEDULES[class_name] if name in config}
    return {"class_name": class_name, "config": options}


def _written_loss(dialect: Dialect, loss: Config) -> Any:
    name = loss["name"]
    if name not in _LOSSES or not (dialect.loss_options or name in _TFJS_LOSSES):
        raise unsupported("loss", name, dialect.name)
    class_name, options = _LOSSES[name]
    config = loss["config"]
    for option, value in config.items():
        if not (dialect.loss_options and option in options) and value != _LOSS_DEFAULTS[option]:
            raise unsupported("loss", f"{option}={value!r} of {name}", dialect.name)
    if not dialect.loss_options:
        return name
    supported = {option: config[option] for option in options if option in config}
    return written_object(dialect, "losses", class_name, supported, outer=True)


def _written_metric(dialect: Dialect, metric: str, loss: str) -> str:
    if metric == "top_k_accuracy" and dialect is not TFJS:
        return "sparse_top_k_categorical_accuracy" if loss.startswith("sparse") else "top_k_categorical_accuracy"
    metric = (
        "log_cosh_error" if metric == "logcosh" else metric
    )  # Keras knows this metric by the name of its class only
    if metric not in _METRICS or (dialect is TFJS and metric in _NOT_IN_TFJS):
        raise unsupported("metrics", metric, dialect.name, remedy="compile without it")
    return _TFJS_METRICS.get(metric, metric) if dialect is TFJS else metric


def _written_optimizer(dialect: Dialect, optimizer: Config) -> Config:
    class_name, config = optimizer["class_name"], optimizer["config"]
    what = class_name
    for spec in dialect.optimizers:
        if spec.ours != class_name:
            continue
        other = {key: config[key] for key, value in spec.fixed.items() if config.get(key, value) != value}
        if not other:
            written = {theirs: config[ours] for ours, theirs in spec.options.items() if ours in config}
            written["learning_rate"] = _written_rate(dialect, written["learning_rate"])
            if spec.legacy is False:
                written["is_legacy_optimizer"] = False
            return written_object(dialect, "optimizers", spec.theirs, written, outer=True)
        what = f"{class_name} with " + ", ".join(f"{key}={value!r}" for key, value in other.items())
    raise unsupported("optimizer", what, dialect.name)


def _written_rate(dialect: Dialect, rate: Any) -> Any:
    if not isinstance(rate, Mapping):
        return rate
    class_name, config = rate["class_name"], rate["config"]
    if class_name == "Constant":
        return config["learning_rate"]
    if class_name not in _SCHEDULES or not dialect.schedules:
        raise unsupported("learning_rate", class_name, dialect.name, remedy="compile with a number")
    return written_object(dialect, "optimizers.schedules", class_name, config)
