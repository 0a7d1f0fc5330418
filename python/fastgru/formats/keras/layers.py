"""Conversion of layers to and from configurations in Keras' dialects (Keras 3, Keras 2, TensorFlow.js).

Unsupported layers and options raise a ValueError that names the layer, the option and the value. Unsupported
initializers are ignored, because the weights exist already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastgru.formats.checks import refuse_other_options, require_object, unsupported
from fastgru.formats.description import ACTIVATIONS, GRU_ACTIVATIONS, LayerDescription, bidirectional_config
from fastgru.formats.keras.dialects import Config, Dialect, class_and_options, snake_case, written_object
from fastgru.formats.keras.masks import is_masked

#: Class -> the options that Keras and fastgru support.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "GRU": (
        "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer", "recurrent_initializer",
        "bias_initializer", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "dropout",
        "recurrent_dropout", "return_sequences", "return_state", "go_backwards", "stateful", "reset_after",
        "zero_output_for_mask",
    ),
    "Dense": (
        "units", "activation", "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer",
        "bias_regularizer",
    ),
    "Embedding": ("input_dim", "output_dim", "embeddings_initializer", "embeddings_regularizer", "mask_zero"),
    "Activation": ("activation",),
    "Rescaling": ("scale", "offset"),
    "Masking": ("mask_value",),
    "Dropout": ("rate",),
    "Flatten": (),
    "GlobalAveragePooling1D": (),
    "GlobalMaxPooling1D": (),
    "Permute": ("dims",),
    "RepeatVector": ("n",),
    "Reshape": ("target_shape",),
    "SpatialDropout1D": ("rate",),
}  # fmt: skip
#: The same for the layers that Keras lacks.
_OWN_OPTIONS: dict[str, tuple[str, ...]] = {"LastStep": ()}
#: Class -> the required options.
_REQUIRED = {
    "GRU": ("units",),
    "Dense": ("units",),
    "Embedding": ("input_dim", "output_dim"),
    "Activation": ("activation",),
    "Rescaling": ("scale",),
    "Dropout": ("rate",),
    "Permute": ("dims",),
    "RepeatVector": ("n",),
    "Reshape": ("target_shape",),
    "SpatialDropout1D": ("rate",),
}
#: Options that are lists of integers.
_LISTS = ("dims", "target_shape")
#: Options of the implementation or the name, which do not change the result.
_IGNORED = (
    "name", "trainable", "dtype", "implementation", "unroll", "seed", "use_cudnn", "input_dtype", "batch_input_shape",
    "batch_shape", "input_shape", "input_length", "batch_size",
)  # fmt: skip
#: Unsupported options -> the values with which they have no effect.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "time_major": (False,),
    "data_format": ("channels_last", None),
    "keepdims": (False,),
    "sparse": (False,),
    "ragged": (False,),
    "optional": (False,),
}
#: Layers that are equal to an activation -> its name, and the options for which they are.
ACTIVATION_LAYERS: dict[str, tuple[str, Config]] = {
    "ReLU": ("relu", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}),
    "Softmax": ("softmax", {"axis": -1}),
}
_DTYPES = ("float32", "float64")


def activation_from_config(
    dialect: Dialect,
    class_name: str,
    where: str,
    config: Config,
    before: list[LayerDescription],
    input_shape: tuple[int | None, ...] | None,
) -> str:
    """Return the activation that a layer is equal to, after the layers `before` it."""
    activation, plain = ACTIVATION_LAYERS[class_name]
    given = _given(dialect, class_name, config)
    if input_shape is not None:
        axes = 1 + len(input_shape)
        for layer in before:
            axes = layer.output_axes(axes)
        if given.get("axis") == axes - 1:  # the last axis, counted from the first
            given["axis"] = -1
    refuse_options(where, {option: value for option, value in given.items() if value != plain.get(option)}, ())
    if class_name == "Softmax" and is_masked(before):
        raise ValueError(f"{where}: expected no mask before it because Keras' layer skips masked elements, got one")
    return activation


def layer_from_config(dialect: Dialect, class_name: str, config: Config) -> LayerDescription:
    """Return the layer of a class and a configuration with a name, without weights.

    Raises
    ------
    ValueError
        The layer or one of its options is not supported.
    """
    layer = _layer(dialect, class_name, config)
    if _frozen(layer.name, config):
        layer.config["trainable"] = False
    return layer


def _frozen(where: str, config: Config) -> bool:
    trainable = config.get("trainable")
    if trainable is not None and not isinstance(trainable, bool):
        raise ValueError(f"{where}: expected true or false as trainable, got {trainable!r}")
    return trainable is False


def _layer(dialect: Dialect, class_name: str, config: Config) -> LayerDescription:
    name = config["name"]
    if class_name == "Bidirectional":
        return LayerDescription("Bidirectional", name, _bidirectional(dialect, name, config))
    if class_name == "TimeDistributed":
        refuse_options(name, config, ("layer",))
        return LayerDescription("TimeDistributed", name, {"layer": _layer_within(dialect, name, config.get("layer"))})
    if class_name == "RNN":
        return LayerDescription("GRU", name, _rnn(dialect, name, config))
    if class_name not in _known_options(dialect):
        known = ", ".join((*_known_options(dialect), "Bidirectional", *ACTIVATION_LAYERS, "TimeDistributed", "RNN"))
        raise ValueError(f"{name}: expected a layer of {known}, got {class_name}")
    return LayerDescription(class_name, name, _options(dialect, class_name, name, config))


def _layer_within(dialect: Dialect, where: str, entry: Any) -> Config:
    """The layer within a TimeDistributed, with ``class_name`` and ``config``."""
    class_name, config = class_and_options(where, require_object(where, entry))
    if class_name in ACTIVATION_LAYERS:
        activation = activation_from_config(dialect, class_name, where, config, [], None)
        return {"class_name": "Activation", "config": {"activation": activation}}
    inner = layer_from_config(dialect, class_name, {**config, "name": where})
    if inner.class_name == "Embedding" or inner.makes_mask or inner.outputs > 1:
        raise ValueError(f"{where}: expected a layer within it that takes numbers and has one output, got {class_name}")
    return {"class_name": inner.class_name, "config": inner.config}


def _options(dialect: Dialect, class_name: str, where: str, config: Config) -> Config:
    """Convert the options of a layer in a file to this package's."""
    wanted = _known_options(dialect)[class_name]
    for option in _REQUIRED.get(class_name, ()):
        if option not in _given(dialect, class_name, config):
            raise ValueError(f"{where}: expected {option}, got none")
    refuse_options(where, config, wanted)
    given = _given(dialect, class_name, config)
    found: Config = {}
    for option in wanted:
        if option not in given:
            continue
        value = given[option]
        if option.endswith("_initializer"):
            found_value = _initializer(where, value)
            if found_value is None and not dialect.own:  # the weights are in the file
                continue
            if found_value is None:
                raise unsupported(where, f"{option}={value!r:.200}", "fastgru")
            value = found_value
        elif option.endswith("_regularizer"):
            value = _regularizer(where, option, value)
        elif option == "activation":
            known = GRU_ACTIVATIONS if class_name == "GRU" else ACTIVATIONS
            value = _activation(dialect, where, option, value, known)
        elif option == "recurrent_activation":
            own = ("hard_sigmoid_tfjs",) if dialect.own else ()
            value = _activation(dialect, where, option, value, ("sigmoid", dialect.hard_sigmoid, *own))
        elif option in _LISTS:
            if isinstance(value, list):  # in which TensorFlow.js writes null for -1
                value = [-1 if size is None else size for size in value]
            if not isinstance(value, (list, tuple)) or not all(type(size) is int for size in value):
                raise ValueError(f"{where}: expected a list of integers as {option}, got {value!r}")
        elif not isinstance(value, (bool, int, float)):
            raise ValueError(f"{where}: expected a number or a flag as {option}, got {value!r}")
        found[option] = value
    if found.get("reset_after") and not dialect.after:
        raise ValueError(f"{where}: expected reset_after=False in {dialect.name}, got True")
    return found


def _given(dialect: Dialect, class_name: str, config: Config) -> Config:
    """Return the options of a configuration; null or missing options get the dialect's default, if it differs."""
    given = {option: dialect.nulls.get(option) if value is None else value for option, value in config.items()}
    return {
        **dialect.omitted.get(class_name, {}),
        **{option: value for option, value in given.items() if value is not None},
    }


def _rnn(dialect: Dialect, where: str, config: Config) -> Config:
    """Convert a GRU that is written as a GRUCell within an RNN."""
    cell_class, cell = class_and_options(where, require_object(where, config.get("cell")))
    if cell_class != "GRUCell":
        raise ValueError(f"{where}: expected a GRUCell as its cell, got {cell_class}")
    around = {option: value for option, value in config.items() if option != "cell"}
    for option in _OPTIONS["GRU"]:  # TensorFlow.js writes the options of the cell twice
        if option in around and option in cell and around[option] != cell[option]:
            raise ValueError(f"{where}: expected the same {option} in the RNN and in its cell, got {cell[option]!r}")
    refuse_options(where, cell, _OPTIONS["GRU"])
    found = _options(dialect, "GRU", where, {**cell, **around})
    return {**found, "trainable": False} if _frozen(where, cell) else found


def _bidirectional(dialect: Dialect, where: str, config: Config) -> Config:
    refuse_options(where, config, ("layer", "backward_layer", "merge_mode"))
    merge = config.get("merge_mode", "concat")
    if merge not in ("concat", "sum", "mul", "ave", None):
        raise ValueError(f"{where}: expected 'concat', 'sum', 'mul', 'ave' or None as merge_mode, got {merge!r}")
    forward = _direction(dialect, where, config.get("layer"))
    if config.get("backward_layer") is None:
        backward = {**forward, "go_backwards": not forward.get("go_backwards", False)}
    else:
        backward = _direction(dialect, where, config["backward_layer"])
    return bidirectional_config((forward, backward), merge)


def _direction(dialect: Dialect, where: str, entry: Any) -> Config:
    class_name, config = class_and_options(where, require_object(where, entry))
    layer = layer_from_config(dialect, class_name, {**config, "name": where})
    if layer.class_name != "GRU":
        raise ValueError(f"{where}: expected a GRU within Bidirectional, got {class_name}")
    return layer.config


def _known_options(dialect: Dialect) -> dict[str, tuple[str, ...]]:
    return {**_OPTIONS, **_OWN_OPTIONS} if dialect.own else _OPTIONS


def refuse_options(where: str, config: Config, wanted: Sequence[str]) -> None:
    """Raise for unsupported options, unless their value has no effect."""
    refuse_other_options(where, config, (*wanted, *_IGNORED), _NEUTRAL)


# --- A layer's options ----------------------------------------------------------------------------------------

#: Name in fastgru -> class, and its scale, mode and distribution as a VarianceScaling.
_SCALED = {
    "glorot_uniform": ("GlorotUniform", 1.0, "fan_avg", "uniform"),
    "glorot_normal": ("GlorotNormal", 1.0, "fan_avg", "normal"),
    "he_uniform": ("HeUniform", 2.0, "fan_in", "uniform"),
    "he_normal": ("HeNormal", 2.0, "fan_in", "normal"),
    "lecun_uniform": ("LecunUniform", 1.0, "fan_in", "uniform"),
    "lecun_normal": ("LecunNormal", 1.0, "fan_in", "normal"),
}
#: Name in fastgru -> class, and the options for which the two are equal.
_PLAIN: dict[str, tuple[str, Config]] = {
    "zeros": ("Zeros", {}),
    "ones": ("Ones", {}),
    "orthogonal": ("Orthogonal", {"gain": 1.0}),
    "identity": ("Identity", {"gain": 1.0}),
    "random_uniform": ("RandomUniform", {"minval": -0.05, "maxval": 0.05}),
    "random_normal": ("RandomNormal", {"mean": 0.0, "stddev": 0.05}),
    "truncated_normal": ("TruncatedNormal", {"mean": 0.0, "stddev": 0.05}),
}
_INITIALIZER_SHORT = {"uniform": "random_uniform", "normal": "random_normal"}
#: Class -> the options that fastgru supports.
_WITH_OPTIONS = {
    "Constant": ("value",),
    "RandomUniform": ("minval", "maxval"),
    "RandomNormal": ("mean", "stddev"),
    "TruncatedNormal": ("mean", "stddev"),
    "Orthogonal": ("gain",),
    "Identity": ("gain",),
}
_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("normal", "truncated_normal", "untruncated_normal", "uniform")
_REGULARIZERS = {
    "l1": ("l1",), "l2": ("l2",), "l1_l2": ("l1", "l2"), "L1": ("l1",), "L2": ("l2",), "L1L2": ("l1", "l2"),
}  # fmt: skip


def _activation(dialect: Dialect, where: str, option: str, value: Any, known: Sequence[str]) -> str:
    if isinstance(value, Mapping):  # a function, or an object that contains its name
        value = value.get("config") if isinstance(value.get("config"), str) else value.get("class_name")
    name = "linear" if value is None else snake_case(value)
    name = dialect.hard_sigmoid if name == "hard_sigmoid" else name
    if name not in known:
        raise ValueError(f"{where}: expected one of {', '.join(known)} as {option}, got {value!r}")
    return str(name)


def _initializer(where: str, value: Any) -> Any:
    """Return fastgru's initializer, or None if it is unsupported; it is not needed, because the weights exist."""
    if value is None or isinstance(value, str):
        name = _INITIALIZER_SHORT.get(snake_case(value), snake_case(value))
        return name if name in _SCALED or name in _PLAIN else None
    class_name, config = class_and_options(where, require_object(where, value))
    for name, (theirs, plain) in _PLAIN.items():
        if class_name == theirs and all(config.get(key, default) == default for key, default in plain.items()):
            return name
    if class_name in _WITH_OPTIONS:
        options = {name: config[name] for name in _WITH_OPTIONS[class_name] if name in config}
        usable = all(isinstance(number, (int, float)) for number in options.values())
        return {"class_name": class_name, "config": options} if usable else None
    for name, (theirs, scale, mode, distribution) in _SCALED.items():
        scaling = (config.get("scale"), snake_case(config.get("mode")), snake_case(config.get("distribution")))
        alike = (distribution, f"truncated_{distribution}")
        if class_name.lower() == theirs.lower() or (
            class_name == "VarianceScaling" and scaling[:2] == (scale, mode) and scaling[2] in alike
        ):
            return name
    if class_name != "VarianceScaling":
        return None
    factor, fan, kind = config.get("scale"), snake_case(config.get("mode")), snake_case(config.get("distribution"))
    usable = isinstance(factor, (int, float)) and factor > 0 and fan in _MODES and kind in _DISTRIBUTIONS
    options = {"scale": factor, "mode": fan, "distribution": kind}
    return {"class_name": class_name, "config": options} if usable else None


def _regularizer(where: str, option: str, value: Any) -> Config | None:
    if value is None:
        return None
    if isinstance(value, str):
        class_name, config = value, Config()
    else:
        class_name, config = class_and_options(where, require_object(where, value))
    if class_name not in _REGULARIZERS:
        raise ValueError(f"{where}: expected L1, L2 or L1L2 as {option}, got {class_name!r}")
    names = _REGULARIZERS[class_name]
    absent = 0.0 if class_name == "L1L2" else 0.01
    factors = {name: config.get(name, absent) for name in names}
    factors = {name: 0.0 if factor is None else factor for name, factor in factors.items()}
    if set(config) - set(names) or not all(isinstance(factor, (int, float)) for factor in factors.values()):
        raise ValueError(f"{where}: expected numbers {' and '.join(names)} as {option}, got {config!r}")
    return {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.0, **factors}}


def dtype_from_config(where: str, value: Any) -> str:
    """Return a dtype, which Keras 3 and later versions of Keras 2 may write as a policy."""
    if isinstance(value, Mapping):
        class_name, config = class_and_options(where, value)
        value = config.get("name") if class_name in ("DTypePolicy", "Policy", "FloatDTypePolicy") else class_name
    if value is None:
        return "float32"
    if value not in _DTYPES:
        raise ValueError(f"{where}: expected float32 or float64 as dtype, got {value!r}")
    return str(value)


# --- Writing layers -------------------------------------------------------------------------------------------


def layer_to_config(dialect: Dialect, layer: LayerDescription, dtype: str, *, outer: bool = True) -> Config:
    """Convert a layer to the dialect, with ``class_name`` and ``config``; `outer` if it is not inside another layer.

    Raises
    ------
    ValueError
        The dialect does not support the layer; the message names it.
    """
    common = {"name": layer.name, "trainable": _trainable(layer), "dtype": _dtype_object(dialect, dtype)}
    if layer.class_name == "TimeDistributed":
        within = layer.within
        if not dialect.wrappers_freeze and not _trainable(layer):
            within = replace(within, config={**within.config, "trainable": False})
        config = {**common, "layer": layer_to_config(dialect, within, dtype, outer=False)}
        return written_object(dialect, "layers", "TimeDistributed", config, outer=outer)
    if layer.class_name not in (*_known_options(dialect), "Bidirectional"):
        raise unsupported(layer.name, layer.class_name, dialect.name)
    if layer.class_name == "SpatialDropout1D" and dialect.modules:
        del common["trainable"]  # the constructor of Keras 3 does not accept it; it reads the files of Keras 2 as well
    if layer.class_name != "Bidirectional":
        options = _written_options(dialect, layer.class_name, layer.name, layer.config)
        return written_object(dialect, "layers", layer.class_name, {**common, **options}, outer=outer)
    written, directions = {}, {}
    for (prefix, part), key in zip(layer.parts.items(), ("layer", "backward_layer"), strict=True):
        config = dict(part.config)
        if dialect.zeros_for_mask is False:  # not an option of a bidirectional layer's directions
            config["zero_output_for_mask"] = False
        written[key] = _written_options(dialect, "GRU", layer.name, config)
        name = f"{prefix.rstrip('/')}_{layer.name}"
        trainable = _trainable(part) and (dialect.wrappers_freeze or _trainable(layer))
        own = {**common, "name": name, "trainable": trainable}
        directions[key] = written_object(dialect, "layers", "GRU", {**own, **written[key]})
    if not dialect.backward_layer:
        _require_mirrored(dialect, layer.name, *written.values())
        del directions["backward_layer"]
        directions["layer"]["config"]["name"] = "gru"  # the dialect adds the prefixes forward_ and backward_
    merge = layer.config.get("merge_mode", "concat")
    config = {**common, "merge_mode": merge, **directions}
    return written_object(dialect, "layers", "Bidirectional", config, outer=outer)


def _trainable(layer: LayerDescription) -> bool:
    return bool(layer.config.get("trainable", True))


def _require_mirrored(dialect: Dialect, where: str, forward: Config, backward: Config) -> None:
    for option, value in forward.items():
        expected = not value if option == "go_backwards" else value
        if backward[option] != expected:
            what = f"a backward_layer with {option}={backward[option]!r}"
            raise unsupported(where, what, dialect.name, f"where it mirrors the forward one, with {option}={value!r}")


def _written_options(dialect: Dialect, class_name: str, where: str, config: Mapping[str, Any]) -> Config:
    written: Config = {}
    for option in _known_options(dialect)[class_name]:
        if option not in config:
            continue
        value = config[option]
        if option.endswith("_initializer"):
            value = _written_initializer(dialect, value)
        elif option.endswith("_regularizer") and value is not None:
            value = written_object(dialect, "regularizers", value["class_name"], value["config"])
        elif option == "recurrent_activation":
            value = _written_gate(dialect, where, value)
        elif option in _LISTS:
            value = list(value)
        written[option] = value
    if class_name == "GRU":
        _require_supported(dialect, where, config)
        if not dialect.zeros_for_mask and not written.get("zero_output_for_mask"):
            written.pop("zero_output_for_mask", None)
    return written


def _require_supported(dialect: Dialect, where: str, config: Mapping[str, Any]) -> None:
    """Raise for options of a GRU that the dialect does not support."""
    by = dialect.name
    if dialect.own:
        return
    if config.get("reset_after", True) and not dialect.after:
        reason = "which applies the reset gate before the recurrent product"
        raise unsupported(where, "reset_after=True", by, reason, "train with reset_after=False")
    if config.get("stateful"):
        raise unsupported(where, "stateful=True", by, "where it needs a fixed batch size", "set stateful=False")
    if config.get("zero_output_for_mask") and dialect.zeros_for_mask is False:
        reason = "which repeats the last output"
        raise unsupported(where, "zero_output_for_mask=True", by, reason, "set zero_output_for_mask=False")


def _written_gate(dialect: Dialect, where: str, activation: str) -> str:
    if dialect.own:
        return activation
    if activation in ("sigmoid", dialect.hard_sigmoid):
        return "sigmoid" if activation == "sigmoid" else "hard_sigmoid"
    reason = ""
    if activation.startswith("hard_sigmoid"):
        reason = f"whose hard_sigmoid is another function, fastgru's {dialect.hard_sigmoid!r}"
    raise unsupported(where, f"recurrent_activation={activation!r}", dialect.name, reason)


def _written_initializer(dialect: Dialect, value: Any) -> Config:
    if isinstance(value, Mapping):
        return written_object(dialect, "initializers", value["class_name"], value["config"])
    name = _INITIALIZER_SHORT.get(value, value)
    if name in _SCALED:
        class_name, scale, mode, distribution = _SCALED[name]
        config: Config = {"seed": None}
        if dialect.variance_scaling:
            class_name = "VarianceScaling"
            config = {"scale": scale, "mode": mode, "distribution": distribution, "seed": None}
    else:
        class_name, options = _PLAIN[name]
        config = {key: value for key, value in options.items() if class_name != "Identity"}
    return written_object(dialect, "initializers", class_name, config)


def _dtype_object(dialect: Dialect, dtype: str) -> Any:
    return written_object(dialect, "", "DTypePolicy", {"name": dtype}) if dialect.all_modules else dtype
