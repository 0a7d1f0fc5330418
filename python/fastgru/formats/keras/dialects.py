"""The configurations of Keras 3, Keras 2 and TensorFlow.js: three dialects of nested JSON objects.

Every object has ``class_name`` and ``config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastgru.formats.checks import require, require_object

Config = dict[str, Any]


@dataclass(frozen=True)
class OptimizerSpec:
    """The counterpart of an optimizer in a dialect.

    Attributes
    ----------
    ours, theirs : str
        Names of the class in fastgru and in the dialect.
    options : mapping
        Option in fastgru -> option in the dialect.
    fixed : mapping
        Options that the dialect does not have, with the values that it implies.
    legacy : bool or None
        Keras 2 only: whether it is the optimizer from before TensorFlow 2.11; None if both compute the same updates.
        A configuration without this information describes the older one.
    """

    ours: str
    theirs: str
    options: Mapping[str, str]
    fixed: Mapping[str, Any]
    legacy: bool | None = None


@dataclass(frozen=True)
class Dialect:
    """The properties in which the dialects differ.

    Attributes
    ----------
    name : str
        Name for messages.
    modules : bool
        Whether an object within a layer's configuration has a module and a registered name.
    all_modules : bool
        Whether layers, losses, optimizers and the model have them too, and a dtype is an object.
    input_layer : bool
        Whether a Sequential model starts with an InputLayer; otherwise its first layer has the input shape.
    shape_key : str
        Key of the input shape.
    hard_sigmoid : str
        fastgru's name of the activation that the dialect calls ``hard_sigmoid``.
    after : bool
        Whether reset_after=True is supported.
    zeros_for_mask : bool or None
        Whether zero outputs in padding are supported. None: supported, but the option is written only if it is True.
    backward_layer : bool
        Whether the backward direction of a bidirectional layer may have its own options.
    wrappers_freeze : bool
        Whether trainable=False of Bidirectional or TimeDistributed freezes the layers within. TensorFlow.js reads only
        the option of these.
    variance_scaling : bool
        Whether the initializers named after Glorot, He and LeCun are written as ``VarianceScaling``.
    loss_options : bool
        Whether losses have options; otherwise they are names.
    schedules : bool
        Whether a learning rate may be a schedule.
    omitted : mapping
        Class -> options whose defaults differ from this package's -> their defaults in the dialect.
    nulls : mapping
        Option -> meaning of null, if that is not the default.
    optimizers : tuple of OptimizerSpec
    optimizer_key : str
        Key of the optimizer in the training configuration.
    own : bool
        Whether it is this package's own dialect, which supports features that Keras lacks and omits nothing.
    """

    name: str
    modules: bool
    all_modules: bool
    input_layer: bool
    shape_key: str
    hard_sigmoid: str
    after: bool
    zeros_for_mask: bool | None
    backward_layer: bool
    wrappers_freeze: bool
    variance_scaling: bool
    loss_options: bool
    schedules: bool
    omitted: Mapping[str, Mapping[str, Any]]
    nulls: Mapping[str, Any]
    optimizers: tuple[OptimizerSpec, ...]
    optimizer_key: str
    own: bool = False


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in ("learning_rate", *names)}


_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
_NOT_IN_FILES: Config = {"exclude_from_weight_decay": []}  # Keras does not save the option
_KERAS_FORM: Config = {"form": "keras", **_NOT_IN_FILES}
_ADAM_OPTIONS = ("beta_1", "beta_2", "epsilon", "amsgrad", "weight_decay", *_CLIPS)
_ADAM = OptimizerSpec("Adam", "Adam", _same(*_ADAM_OPTIONS), _KERAS_FORM)
_ADAMW = OptimizerSpec("AdamW", "AdamW", _same(*_ADAM_OPTIONS), _KERAS_FORM)
_SGD = OptimizerSpec("SGD", "SGD", _same("momentum", "nesterov", "weight_decay", *_CLIPS), _KERAS_FORM)
_RMSPROP = OptimizerSpec(
    "RMSprop", "RMSprop", _same("rho", "momentum", "epsilon", "centered", "weight_decay", *_CLIPS), _KERAS_FORM
)
_KERAS_OPTIMIZERS = (_ADAM, _ADAMW, _SGD, _RMSPROP)


def _before_2_11(spec: OptimizerSpec, legacy: bool | None = None, **fixed: Any) -> OptimizerSpec:
    """Return an optimizer as before TensorFlow 2.11, without weight decay."""
    options = {ours: theirs for ours, theirs in spec.options.items() if ours != "weight_decay"}
    return replace(spec, options=options, fixed={**spec.fixed, "weight_decay": None, **fixed}, legacy=legacy)


_KERAS_2_OPTIMIZERS = (
    _before_2_11(_ADAM),
    replace(_ADAM, legacy=False),
    replace(_ADAMW, legacy=False),
    _before_2_11(_SGD),
    replace(_SGD, legacy=False),
    _before_2_11(_RMSPROP, legacy=True, momentum=0.0, form="pytorch"),
    replace(_RMSPROP, fixed={**_KERAS_FORM, "momentum": 0.0}, legacy=False),
    _before_2_11(_RMSPROP),
    replace(_RMSPROP, legacy=False),
)
_NOT_IN_TFJS: Config = {**dict.fromkeys(("weight_decay", *_CLIPS)), **_NOT_IN_FILES}
_TFJS_OPTIMIZERS = (
    OptimizerSpec(
        "Adam",
        "Adam",
        {"learning_rate": "learning_rate", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "epsilon"},
        {"form": "tfjs", "amsgrad": False, **_NOT_IN_TFJS},
    ),
    OptimizerSpec("SGD", "SGD", _same(), {"momentum": 0.0, "nesterov": False, "form": "keras", **_NOT_IN_TFJS}),
    OptimizerSpec(
        "SGD",
        "Momentum",
        {"learning_rate": "learning_rate", "momentum": "momentum", "nesterov": "use_nesterov"},
        {"form": "pytorch", **_NOT_IN_TFJS},
    ),
    OptimizerSpec(
        "RMSprop",
        "RMSProp",
        {"learning_rate": "learning_rate", "rho": "decay", "momentum": "momentum", "epsilon": "epsilon"},
        {"form": "keras", "centered": False, **_NOT_IN_TFJS},  # TensorFlow.js subtracts epsilon in a centered RMSprop
    ),
)

_NO_ACTIVATION = {"activation": "linear", "recurrent_activation": "linear"}
#: Python's None is a value, for example False for a flag. TensorFlow.js' null is a missing argument.
_PYTHON_NULLS = {**_NO_ACTIVATION, "use_bias": False, "reset_after": False, "axis": "all axes"}

KERAS_3 = Dialect(
    name="Keras 3",
    modules=True,
    all_modules=True,
    input_layer=True,
    shape_key="batch_shape",
    hard_sigmoid="hard_sigmoid",
    after=True,
    zeros_for_mask=True,
    backward_layer=True,
    wrappers_freeze=True,
    variance_scaling=False,
    loss_options=True,
    schedules=True,
    omitted={},
    nulls=_PYTHON_NULLS,
    optimizers=_KERAS_OPTIMIZERS,
    optimizer_key="optimizer",
)
KERAS_2 = replace(
    KERAS_3,
    name="Keras 2",
    all_modules=False,
    shape_key="batch_input_shape",
    hard_sigmoid="hard_sigmoid_tfjs",
    zeros_for_mask=None,
    omitted={"GRU": {"reset_after": False}},  # Keras 2.1.3 added the option; earlier versions had reset_after=False
    optimizers=_KERAS_2_OPTIMIZERS,
    optimizer_key="optimizer_config",
)
TFJS = replace(
    KERAS_2,
    name="TensorFlow.js",
    modules=False,
    input_layer=False,
    after=False,
    zeros_for_mask=False,
    backward_layer=False,
    wrappers_freeze=False,
    variance_scaling=True,
    loss_options=False,
    schedules=False,
    omitted={
        "GRU": {"recurrent_activation": "hard_sigmoid", "kernel_initializer": "glorot_normal", "reset_after": False},
        "Dense": {"kernel_initializer": "glorot_normal"},
        "Activation": {"activation": "linear"},
        "Softmax": {"axis": 1},
    },
    nulls=_NO_ACTIVATION,
    optimizers=_TFJS_OPTIMIZERS,
)
#: The dialect of `get_config`: that of Keras 3, with all features of this package.
FASTGRU = replace(KERAS_3, name="fastgru", own=True)
#: The versions of Keras in which files are written.
VERSIONS = {KERAS_3.name: "3.0.0", KERAS_2.name: "2.15.0"}

# --- Objects --------------------------------------------------------------------------------------------------


def class_and_config(where: str, entry: Any) -> tuple[str, Any]:
    """Return ``class_name`` and ``config`` of an object."""
    entry = require_object(where, entry)
    class_name = entry.get("class_name")
    require(isinstance(class_name, str), f"{where}: expected an object with a class_name", entry)
    config = entry.get("config")
    return class_name, {} if config is None else config


def class_and_options(where: str, entry: Any) -> tuple[str, Config]:
    """Return ``class_name`` and ``config`` of an object whose configuration is also an object."""
    class_name, config = class_and_config(where, entry)
    return class_name, require_object(f"{where} ({class_name})", config)


def snake_case(value: Any) -> Any:
    """Convert ``hardSigmoid`` to ``hard_sigmoid``."""
    if not isinstance(value, str):
        return value
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in value).lstrip("_")


def written_object(
    dialect: Dialect, module: str, class_name: str, config: Mapping[str, Any], *, outer: bool = False
) -> Config:
    """Return an object in the dialect, with its class and configuration; `outer` if it is not inside another."""
    written: Config = {"class_name": class_name, "config": dict(config)}
    if dialect.all_modules or (dialect.modules and not outer):
        return {"module": f"keras.{module}".rstrip("."), **written, "registered_name": None}
    return written
