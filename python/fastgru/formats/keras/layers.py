"""Keras' words for layers, in the dialects of Keras 3, Keras 2 and TensorFlow.js, and their descriptions here.

This module turns configurations into descriptions and back; where the weights lie in a file is the business of the
format. With it come the dialects, and what `fastgru.formats.keras.training` says of losses and optimizers, so that a
format needs no other module.

What a configuration says and this package cannot do is a ValueError that names the layer, the option and the value.
Initializers are the exception: they only matter to weights that do not exist yet, so one without a counterpart is left
out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.keras.dialects import (
    KERAS_2,
    KERAS_3,
    TFJS,
    Config,
    Dialect,
    class_and_config,
    class_and_options,
    require_list,
    require_object,
    snake_case,
    written_object,
)
from fastgru.formats.keras.training import training_from_config, training_to_config

__all__ = [
    "KERAS_2",
    "KERAS_3",
    "TFJS",
    "Dialect",
    "FileLayer",
    "Topology",
    "layer_from_config",
    "layer_to_config",
    "topology_from_config",
    "topology_to_config",
    "training_from_config",
    "training_to_config",
    "weight_names",
]

# --- Layers ---------------------------------------------------------------------------------------------------

#: Class -> the options that both sides have.
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
    "Masking": ("mask_value",),
    "Dropout": ("rate",),
    "Flatten": (),
    "GlobalAveragePooling1D": (),
    "GlobalMaxPooling1D": (),
}  # fmt: skip
#: Class -> the options without a default.
_REQUIRED = {
    "GRU": ("units",),
    "Dense": ("units",),
    "Embedding": ("input_dim", "output_dim"),
    "Activation": ("activation",),
    "Dropout": ("rate",),
}
#: Class -> its weights in Keras' order.
_WEIGHTS = {
    "GRU": ("kernel", "recurrent_kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "Embedding": ("embeddings",),
}
#: Options that say how something is computed or what it is called, not what it computes.
_IGNORED = (
    "name", "dtype", "implementation", "unroll", "seed", "use_cudnn", "input_dtype", "batch_input_shape",
    "batch_shape", "input_shape", "input_length", "batch_size",
)  # fmt: skip
#: Options that this package does not have -> the values with which they do nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "trainable": (True,),
    "time_major": (False,),
    "data_format": ("channels_last", None),
    "keepdims": (False,),
    "sparse": (False,),
    "ragged": (False,),
    "optional": (False,),
}
_GRU_ACTIVATIONS = ("tanh", "relu", "linear")
_DENSE_ACTIVATIONS = ("linear", "softmax", "sigmoid", "tanh", "relu")
#: Layers that are an activation -> its name, and the options with which they are no more than that.
_ACTIVATION_LAYERS: dict[str, tuple[str, Config]] = {
    "ReLU": ("relu", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}),
    "Softmax": ("softmax", {"axis": -1}),
}
_DTYPES = ("float32", "float64")


@dataclass
class FileLayer:
    """A layer as it stands in a file.

    Attributes
    ----------
    class_name, name : str
    layer : LayerDescription or None
        What it is here; None of an input, and of an activation that the Dense layer before it takes on.
    """

    class_name: str
    name: str
    layer: LayerDescription | None


@dataclass
class Topology:
    """A model of a file without its weights.

    Attributes
    ----------
    layers : list of LayerDescription
        Their weights are empty.
    input_shape : tuple of int or None, or None
        Without the batch axis; None where the file does not say it.
    name, dtype : str
    file_layers : list of FileLayer
        All layers of the file, in order.
    """

    layers: list[LayerDescription]
    input_shape: tuple[int | None, ...] | None
    name: str
    dtype: str
    file_layers: list[FileLayer] = field(default_factory=list)

    def description(self, training: TrainingDescription | None = None) -> ModelDescription:
        """The model, once the layers have their weights."""
        return ModelDescription(self.layers, self.input_shape, self.name, self.dtype, training)


def weight_names(layer: LayerDescription) -> list[str]:
    """Our names of a layer's weights, in Keras' order: of a Bidirectional ``forward/kernel`` and so on."""
    if layer.class_name == "Bidirectional":
        return [
            f"{direction}/{name}"
            for direction, key in (("forward", "layer"), ("backward", "backward_layer"))
            for name in _own_weight_names("GRU", layer.config[key]["config"])
        ]
    return _own_weight_names(layer.class_name, layer.config)


def _own_weight_names(class_name: str, config: Mapping[str, Any]) -> list[str]:
    names = _WEIGHTS.get(class_name, ())
    return [name for name in names if name != "bias" or config.get("use_bias", True)]


def topology_from_config(dialect: Dialect, config: Any) -> Topology:
    """The model of a Sequential configuration, or of a Functional one that is a chain.

    Parameters
    ----------
    dialect : Dialect
    config : dict
        With ``class_name`` and ``config``.

    Raises
    ------
    ValueError
        It is not a model that this package has; the message names the layer.
    """
    class_name, inner = class_and_config("the model", config)
    if isinstance(inner, list):  # Keras before 2.3 wrote the layers alone
        inner = {"layers": inner}
    inner = require_object("the model", inner)
    entries = [require_object("a layer", entry) for entry in require_list("layers", inner.get("layers"))]
    if not entries:
        raise ValueError("the model has no layers")
    functional = class_name in ("Functional", "Model")
    if not functional and class_name != "Sequential":
        raise ValueError(f"expected a Sequential or Functional model, got {class_name!r}")
    entries = _chain(inner, entries) if functional else _with_names(entries)
    name = "sequential" if inner.get("name") is None else inner["name"]
    if not isinstance(name, str):
        raise ValueError(f"name: expected a string, got {name!r}")  # noqa: TRY004
    input_shape = _input_shape(dialect, inner, entries)
    file_layers: list[FileLayer] = []
    dtypes: dict[str, str] = {}
    for entry in entries:
        _append(dialect, entry, file_layers, dtypes, input_shape)
    layers = [each.layer for each in file_layers if each.layer is not None]
    if not layers:
        raise ValueError("the model has no layers")
    if functional:
        _require_outputs(layers[-1], inner["output_layers"])
    _require_same_masks(layers)
    if len(set(dtypes.values())) > 1:
        text = ", ".join(f"{layer} {dtype}" for layer, dtype in dtypes.items())
        raise ValueError(f"dtype: expected the same for all layers, got {text}")
    return Topology(layers, input_shape, name, next(iter(dtypes.values())), file_layers)


def _with_names(entries: list[Config]) -> list[Config]:
    """The layers of a Sequential model, where frameworks make up a name for one that has none."""
    configs = [class_and_options("a layer", entry) for entry in entries]
    names = [
        entry.get("name") if config.get("name") is None else config["name"]
        for entry, (_, config) in zip(entries, configs, strict=True)
    ]
    taken = {name for name in names if isinstance(name, str)}
    named = []
    for entry, (class_name, config), name in zip(entries, configs, names, strict=True):
        if name is None:
            numbered = (class_name.lower() + (f"_{number}" if number else "") for number in itertools.count())
            name = next(each for each in numbered if each not in taken)
            taken.add(name)
        named.append({**entry, "config": {**config, "name": name}})
    return named


#: What neither reads nor counts padding, whatever stands there.
_BLIND_TO_PADDING = ("GRU", "Bidirectional", "GlobalAveragePooling1D")


def _require_same_masks(layers: list[LayerDescription]) -> None:
    """Refuse chains in which Keras does something else with padding than this package."""
    masked = False
    for number, layer in enumerate(layers):
        if masked:
            _refuse_mask_before(layer)
        if layer.class_name == "Masking":
            _require_unseen_padding(layer, layers[number + 1 :])
        masked = _masked_after(layer, masked=masked)


def _refuse_mask_before(layer: LayerDescription) -> None:
    """Refuse a layer that makes something else of a mask."""
    if layer.class_name == "GRU" and _returns_steps(layer) and layer.config.get("go_backwards"):
        raise ValueError(
            f"{layer.name}: expected go_backwards=False after a mask, where Keras puts its padding first, got True"
        )
    if layer.class_name == "GlobalMaxPooling1D":
        raise ValueError(f"{layer.name}: expected no mask before it, because Keras' knows none, got one")
    if _makes_mask(layer):
        raise ValueError(
            f"{layer.name}: expected no mask before it, because Keras' replaces it, where here both count, got one"
        )


def _require_unseen_padding(masking: LayerDescription, after: list[LayerDescription]) -> None:
    """Refuse padding of other values than 0, which Keras sets to 0, before a layer that computes with it."""
    value = masking.config.get("mask_value", 0.0)
    first = next((layer.class_name for layer in after if layer.class_name != "Dropout"), None)
    if value == 0 or first in _BLIND_TO_PADDING:
        return
    where = "the end of the model" if first is None else f"a {first} layer"
    raise ValueError(
        f"{masking.name}: expected mask_value=0.0 before {where}, because Keras sets padding to 0, where here it stays "
        f"as it is, got {value!r}"
    )


def _masked_after(layer: LayerDescription, *, masked: bool) -> bool:
    """Whether a mask comes with what a layer returns, given whether one comes with its input."""
    passes = layer.class_name in ("Dense", "Activation", "Dropout") or _returns_steps(layer)
    return _makes_mask(layer) or (masked and passes)


def _is_masked(layers: list[LayerDescription]) -> bool:
    """Whether a mask comes with what the last of a model's layers returns."""
    masked = False
    for layer in layers:
        masked = _masked_after(layer, masked=masked)
    return masked


def _makes_mask(layer: LayerDescription) -> bool:
    return layer.class_name == "Masking" or bool(layer.config.get("mask_zero"))


def _returns_steps(layer: LayerDescription) -> bool:
    config = layer.config["layer"]["config"] if layer.class_name == "Bidirectional" else layer.config
    return bool(config.get("return_sequences"))


def axes_after(class_name: str, config: Config, axes: int) -> int:
    """How many axes a layer's output has, that of the batch included, given those of its input."""
    if class_name == "Embedding":
        return axes + 1
    if class_name == "Bidirectional":
        config = config["layer"]["config"]
    if class_name in ("GRU", "Bidirectional"):
        return 3 if config.get("return_sequences") else 2
    joined = ("Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "LastStep")
    return 2 if class_name in joined else axes


def _append(
    dialect: Dialect,
    entry: Config,
    layers: list[FileLayer],
    dtypes: dict[str, str],
    input_shape: tuple[int | None, ...] | None,
) -> None:
    """Read a layer of a file, and note its dtype."""
    class_name, config = class_and_options("a layer", entry)
    name = config.get("name", entry.get("name"))
    if not isinstance(name, str):
        raise ValueError(f"a {class_name}: expected a name, got {name!r}")  # noqa: TRY004
    if class_name == "InputLayer":
        _refuse_others(name, config, ())
        layers.append(FileLayer(class_name, name, None))
        return
    dtypes[name] = _dtype(name, config.get("dtype", "float32"))
    if class_name in _ACTIVATION_LAYERS:
        before = [each.layer for each in layers if each.layer is not None]
        config = {"activation": _own_activation(dialect, class_name, name, config, before, input_shape)}
    layer = layer_from_config(dialect, _own_class(class_name), {**config, "name": name})
    last = layers[-1].layer if layers else None
    taken_on = last is not None and _takes_on(last, layer)
    layers.append(FileLayer(class_name, name, None if taken_on else layer))


def _own_class(class_name: str) -> str:
    return "Activation" if class_name in _ACTIVATION_LAYERS else class_name


def _takes_on(dense: LayerDescription, layer: LayerDescription) -> bool:
    """Give an activation that is a layer of its own to the Dense layer before it, if that has none."""
    if layer.class_name != "Activation" or dense.class_name != "Dense":
        return False
    if dense.config.get("activation", "linear") != "linear":
        return False
    dense.config["activation"] = layer.config["activation"]
    return True


def _own_activation(
    dialect: Dialect,
    class_name: str,
    where: str,
    config: Config,
    before: list[LayerDescription],
    input_shape: tuple[int | None, ...] | None,
) -> str:
    """The activation that a layer stands for, after the layers `before` it."""
    activation, plain = _ACTIVATION_LAYERS[class_name]
    given = _given(dialect, class_name, config)
    if input_shape is not None:
        axes = 1 + len(input_shape)
        for layer in before:
            axes = axes_after(layer.class_name, layer.config, axes)
        if given.get("axis") == axes - 1:  # the last one, counted from the first
            given["axis"] = -1
    more = {option: value for option, value in given.items() if option not in plain or value != plain[option]}
    _refuse_others(where, more, ())
    if class_name == "Softmax" and _is_masked(before):
        raise ValueError(f"{where}: expected no mask before it, because Keras' leaves out what is masked, got one")
    return activation


def layer_from_config(dialect: Dialect, class_name: str, config: Config) -> LayerDescription:
    """A layer from its class and configuration, which has its name; without weights.

    Raises
    ------
    ValueError
        It is none that this package has, or has options that this package does not.
    """
    name = config["name"]
    if class_name == "Bidirectional":
        return LayerDescription("Bidirectional", name, _bidirectional(dialect, name, config))
    if class_name == "TimeDistributed":  # which is what a Dense layer does by itself
        inner_class, inner = class_and_options(name, require_object(name, config.get("layer")))
        if inner_class != "Dense":
            raise ValueError(f"{name}: expected a Dense layer within TimeDistributed, got {inner_class}")
        _refuse_others(name, config, ("layer",))
        return LayerDescription("Dense", name, _options(dialect, "Dense", name, inner))
    if class_name == "RNN":
        return LayerDescription("GRU", name, _rnn(dialect, name, config))
    if class_name not in _OPTIONS:
        known = ", ".join((*_OPTIONS, "Bidirectional", *_ACTIVATION_LAYERS, "TimeDistributed", "RNN"))
        raise ValueError(f"{name}: expected a layer of {known}, got {class_name}")
    return LayerDescription(class_name, name, _options(dialect, class_name, name, config))


def _options(dialect: Dialect, class_name: str, where: str, config: Config) -> Config:
    """Our options of a layer from those of the file."""
    wanted = _OPTIONS[class_name]
    for option in _REQUIRED.get(class_name, ()):
        if option not in _given(dialect, class_name, config):
            raise ValueError(f"{where}: expected {option}, got none")
    _refuse_others(where, config, wanted, weighted=class_name in _WEIGHTS)
    given = _given(dialect, class_name, config)
    found: Config = {}
    for option in wanted:
        if option not in given:
            continue
        value = given[option]
        if option.endswith("_initializer"):
            value = _initializer(where, value)
            if value is None:
                continue
        elif option.endswith("_regularizer"):
            value = _regularizer(where, option, value)
        elif option == "activation":
            known = _GRU_ACTIVATIONS if class_name == "GRU" else _DENSE_ACTIVATIONS
            value = _activation(dialect, where, option, value, known)
        elif option == "recurrent_activation":
            value = _activation(dialect, where, option, value, ("sigmoid", dialect.hard_sigmoid))
        elif not isinstance(value, (bool, int, float)):
            raise ValueError(f"{where}: expected a number or a flag as {option}, got {value!r}")
        found[option] = value
    if found.get("reset_after") and not dialect.after:
        raise ValueError(f"{where}: expected reset_after=False in {dialect.name}, got True")
    return found


def _given(dialect: Dialect, class_name: str, config: Config) -> Config:
    """The options that a configuration gives; what is null or left out is the dialect's default, if it has its own."""
    said = {option: dialect.nulls.get(option) if value is None else value for option, value in config.items()}
    return {
        **dialect.omitted.get(class_name, {}),
        **{option: value for option, value in said.items() if value is not None},
    }


def _rnn(dialect: Dialect, where: str, config: Config) -> Config:
    """A GRU that is written as a GRUCell within an RNN."""
    cell_class, cell = class_and_options(where, require_object(where, config.get("cell")))
    if cell_class != "GRUCell":
        raise ValueError(f"{where}: expected a GRUCell as its cell, got {cell_class}")
    around = {option: value for option, value in config.items() if option != "cell"}
    for option in _OPTIONS["GRU"]:  # TensorFlow.js writes those of the cell twice
        if option in around and option in cell and around[option] != cell[option]:
            raise ValueError(f"{where}: expected the same {option} in the RNN and in its cell, got {cell[option]!r}")
    _refuse_others(where, cell, _OPTIONS["GRU"])
    return _options(dialect, "GRU", where, {**cell, **around})


def _bidirectional(dialect: Dialect, where: str, config: Config) -> Config:
    _refuse_others(where, config, ("layer", "backward_layer", "merge_mode"))
    merge = config.get("merge_mode", "concat")
    if merge not in ("concat", "sum", "mul", "ave", None):
        raise ValueError(f"{where}: expected 'concat', 'sum', 'mul', 'ave' or None as merge_mode, got {merge!r}")
    forward = _direction(dialect, where, config.get("layer"))
    if config.get("backward_layer") is None:
        backward = {**forward, "go_backwards": not forward.get("go_backwards", False)}
    else:
        backward = _direction(dialect, where, config["backward_layer"])
    return {
        "layer": {"class_name": "GRU", "config": forward},
        "backward_layer": {"class_name": "GRU", "config": backward},
        "merge_mode": merge,
    }


def _direction(dialect: Dialect, where: str, entry: Any) -> Config:
    class_name, config = class_and_options(where, require_object(where, entry))
    layer = layer_from_config(dialect, class_name, {**config, "name": where})
    if layer.class_name != "GRU":
        raise ValueError(f"{where}: expected a GRU within Bidirectional, got {class_name}")
    return layer.config


def _refuse_others(where: str, config: Config, wanted: Sequence[str], *, weighted: bool = True) -> None:
    """Refuse options that this package does not have, unless their value says that they are off."""
    for option, value in config.items():
        if option in wanted or option in _IGNORED or value is None:
            continue
        if option == "trainable" and not weighted:
            continue
        if option not in _NEUTRAL or not any(value is neutral or value == neutral for neutral in _NEUTRAL[option]):
            raise ValueError(f"{where}: {option}={value!r} is not known here")


# --- A layer's options ----------------------------------------------------------------------------------------

#: Our name -> class, and what it is as a VarianceScaling: scale, mode and distribution.
_SCALED = {
    "glorot_uniform": ("GlorotUniform", 1.0, "fan_avg", "uniform"),
    "glorot_normal": ("GlorotNormal", 1.0, "fan_avg", "normal"),
    "he_uniform": ("HeUniform", 2.0, "fan_in", "uniform"),
    "he_normal": ("HeNormal", 2.0, "fan_in", "normal"),
    "lecun_uniform": ("LecunUniform", 1.0, "fan_in", "uniform"),
    "lecun_normal": ("LecunNormal", 1.0, "fan_in", "normal"),
}
#: Our name -> class, and the options with which it is what is meant here.
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
#: Class -> the options of those that have some here too.
_WITH_OPTIONS = {
    "Constant": ("value",),
    "RandomUniform": ("minval", "maxval"),
    "RandomNormal": ("mean", "stddev"),
    "TruncatedNormal": ("mean", "stddev"),
}
_REGULARIZERS = {
    "l1": ("l1",), "l2": ("l2",), "l1_l2": ("l1", "l2"), "L1": ("l1",), "L2": ("l2",), "L1L2": ("l1", "l2"),
}  # fmt: skip


def _activation(dialect: Dialect, where: str, option: str, value: Any, known: Sequence[str]) -> str:
    if isinstance(value, Mapping):  # a function, or an object around its name
        value = value.get("config") if isinstance(value.get("config"), str) else value.get("class_name")
    name = "linear" if value is None else snake_case(value)
    name = dialect.hard_sigmoid if name == "hard_sigmoid" else name
    if name not in known:
        raise ValueError(f"{where}: expected one of {', '.join(known)} as {option}, got {value!r}")
    return str(name)


def _initializer(where: str, value: Any) -> Any:
    """Ours, or None where this package has none like it: the weights are there, it is not needed."""
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
    return None


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


def _dtype(where: str, value: Any) -> str:
    """A dtype, which Keras 3 and the later versions of Keras 2 may write as a policy."""
    if isinstance(value, Mapping):
        class_name, config = class_and_options(where, value)
        value = config.get("name") if class_name in ("DTypePolicy", "Policy", "FloatDTypePolicy") else class_name
    if value is None:
        return "float32"
    if value not in _DTYPES:
        raise ValueError(f"{where}: expected float32 or float64 as dtype, got {value!r}")
    return str(value)


# --- The shape of the input, and the order of a Functional model's layers ---------------------------------------


def _input_shape(dialect: Dialect, model: Config, entries: list[Config]) -> tuple[int | None, ...] | None:
    """The input's shape without the batch axis, from wherever the first layers or the model have it."""
    class_name, first = class_and_options("a layer", entries[0])
    candidates = [first.get("batch_shape"), first.get("batch_input_shape"), model.get("build_input_shape")]
    if class_name == "Embedding" and dialect is not KERAS_3:  # which takes tokens of any length without a shape
        candidates.append([None, first.get("input_length")])
    for shape in candidates:
        if shape is not None:
            shape = require_list("the input's shape", shape)
            if not shape or not all(size is None or _is_integer(size) for size in shape):
                raise ValueError(f"expected sizes as the input's shape, got {shape!r}")
            return tuple(shape[1:])
    return None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


#: Operations with which Keras 3 finds a mask; they stand beside the chain of layers.
_MASKS = ("NotEqual", "Any")


def _chain(model: Config, entries: list[Config]) -> list[Config]:
    """The layers of a Functional model from its one input to its one output, each after the one before it."""
    by_name: dict[str, Config] = {}
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or name in by_name:
            raise ValueError(f"expected layers with different names, got {name!r}")
        by_name[name] = entry
    begin, name = (_only_layer(key, model.get(key)) for key in ("input_layers", "output_layers"))
    chain: list[Config] = []
    rest = dict(by_name)
    while name in rest:
        chain.append(rest.pop(name))
        if name == begin:
            break
        name = _source(name, chain[-1].get("inbound_nodes"), by_name)
    if not chain or name != begin:
        raise ValueError(f"{name}: expected each layer once in a chain that begins with {begin}")
    for name, entry in rest.items():
        if entry.get("class_name") not in _MASKS:
            raise ValueError(f"{name}: expected a chain of layers that begins with {begin}, got a layer beside it")
        if entry["class_name"] == "NotEqual":
            _require_mask_of_a_layer(name, entry, chain, by_name)
    return chain[::-1]


def _require_mask_of_a_layer(where: str, entry: Config, chain: list[Config], by_name: dict[str, Config]) -> None:
    """Refuse a mask that no Masking or Embedding layer of the chain makes."""
    (node,) = require_list(where, entry.get("inbound_nodes"))
    tensor, *values = require_list(where, require_object(where, node).get("args"))
    source = _history(where, tensor)
    for layer in chain[:-1]:
        class_name, config = class_and_options(where, layer)
        masked = {"Masking": config.get("mask_value"), "Embedding": 0 if config.get("mask_zero") else None}
        value = masked.get(class_name)
        if value is not None and values == [value] and _source(where, layer["inbound_nodes"], by_name) == source:
            return
    raise ValueError(f"{where}: expected a mask that a Masking or Embedding layer makes, got another")


def _only_layer(where: str, tensors: Any) -> str:
    """The layer that a model's inputs or outputs belong to: ``["name", 0, 0]``, or a list of such."""
    names = {_history(where, tensor) for tensor in _tensors(where, tensors)}
    if len(names) != 1:
        raise ValueError(f"{where}: expected those of one layer, got {tensors!r:.200}")
    return names.pop()


def _tensors(where: str, tensors: Any) -> list[Any]:
    tensors = require_list(where, tensors)
    return [tensors] if tensors and isinstance(tensors[0], str) else tensors


def _require_outputs(last: LayerDescription, tensors: Any) -> None:
    """Refuse a model that returns other outputs than all of its last layer's, in their order."""
    found = [tensor[2] for tensor in _tensors("output_layers", tensors)]
    if found != list(range(last.outputs)):
        raise ValueError(f"{last.name}: expected all of its outputs to be those of the model, got {tensors!r:.200}")


def _source(where: str, nodes: Any, by_name: dict[str, Config]) -> str:
    """The layer whose output another one is called with."""
    if not isinstance(nodes, list) or len(nodes) != 1:
        raise ValueError(f"{where}: expected a layer that is called once, got {nodes!r:.200}")
    node = nodes[0]
    if isinstance(node, Mapping):  # Keras 3
        arguments, options = require_list(where, node.get("args")), node.get("kwargs")
    else:
        arguments, options = require_list(where, node), None
        if len(arguments) == 1 and isinstance(arguments[0], list) and len(arguments[0]) == 4:
            *tensor, options = arguments[0]
            arguments = [tensor]
    if len(arguments) != 1:
        raise ValueError(f"{where}: expected a layer that is called on the output of one other, got {arguments!r:.200}")
    for option, value in require_object(where, options or {}).items():
        if option == "mask" and isinstance(value, Mapping):
            if by_name.get(_history(where, value), {}).get("class_name") in _MASKS:
                continue
        elif value in (None, False):
            continue
        raise ValueError(f"{where}: expected a call without {option}, got {value!r:.200}")
    return _history(where, arguments[0])


def _history(where: str, tensor: Any) -> str:
    """The layer that a tensor comes from."""
    if isinstance(tensor, Mapping):  # Keras 3
        tensor = class_and_options(where, tensor)[1].get("keras_history")
    if not isinstance(tensor, list) or len(tensor) != 3 or not isinstance(tensor[0], str) or tensor[1] != 0:
        raise ValueError(f"{where}: expected the output of another layer, got {tensor!r:.200}")
    return tensor[0]


# --- Writing layers -------------------------------------------------------------------------------------------


def topology_to_config(dialect: Dialect, description: ModelDescription) -> Config:
    """The Sequential configuration of a model.

    Raises
    ------
    ValueError
        The dialect has no word for something; the message names the layer.
    """
    assert description.input_shape is not None
    _require_same_masks(description.layers)
    layers = [layer_to_config(dialect, layer, description.dtype) for layer in description.layers]
    first = description.layers[0]
    tokens = first.class_name == "Embedding"
    shape = [None, *description.input_shape]
    dtype = "int32" if tokens and dialect.input_layer else description.dtype
    if dialect.input_layer:
        config = {dialect.shape_key: shape, "dtype": dtype, "sparse": False, "ragged": False}
        layers.insert(
            0, written_object(dialect, "layers", "InputLayer", {**config, "name": f"{first.name}_input"}, outer=True)
        )
    else:
        layers[0]["config"][dialect.shape_key] = shape
    return written_object(dialect, "", "Sequential", {"name": description.name, "layers": layers}, outer=True)


def layer_to_config(dialect: Dialect, layer: LayerDescription, dtype: str) -> Config:
    """A layer as the dialect writes it, with ``class_name`` and ``config``.

    Raises
    ------
    ValueError
        The dialect has no word for something; the message names the layer.
    """
    common = {"name": layer.name, "trainable": True, "dtype": _dtype_object(dialect, dtype)}
    if layer.class_name not in (*_OPTIONS, "Bidirectional"):
        raise ValueError(f"{layer.name}: {dialect.name} has no layer {layer.class_name}")
    if layer.class_name != "Bidirectional":
        options = _written_options(dialect, layer.class_name, layer.name, layer.config)
        return written_object(dialect, "layers", layer.class_name, {**common, **options}, outer=True)
    written = {}
    for key, prefix in (("layer", "forward"), ("backward_layer", "backward")):
        inner = dict(layer.config[key]["config"])
        if dialect.zeros_for_mask is False:  # a Bidirectional layer decides by itself
            inner["zero_output_for_mask"] = False
        written[prefix] = _written_options(dialect, "GRU", layer.name, inner)
    directions = {
        key: written_object(dialect, "layers", "GRU", {**common, "name": f"{prefix}_{layer.name}", **written[prefix]})
        for key, prefix in (("layer", "forward"), ("backward_layer", "backward"))
    }
    if not dialect.backward_layer:
        _require_mirrored(dialect, layer.name, **written)
        del directions["backward_layer"]
        directions["layer"]["config"]["name"] = "gru"  # before which forward_ and backward_ are put there
    merge = layer.config.get("merge_mode", "concat")
    config = {**common, "merge_mode": merge, **directions}
    return written_object(dialect, "layers", "Bidirectional", config, outer=True)


def _require_mirrored(dialect: Dialect, where: str, forward: Config, backward: Config) -> None:
    for option, value in forward.items():
        expected = not value if option == "go_backwards" else value
        if backward[option] != expected:
            raise ValueError(
                f"{where}: a backward_layer with options of its own cannot be said in {dialect.name}: {option}"
                f"={backward[option]!r}, where the forward one has {value!r}"
            )


def _written_options(dialect: Dialect, class_name: str, where: str, config: Mapping[str, Any]) -> Config:
    written: Config = {}
    for option in _OPTIONS[class_name]:
        if option not in config:
            continue
        value = config[option]
        if option.endswith("_initializer"):
            value = _written_initializer(dialect, value)
        elif option.endswith("_regularizer") and value is not None:
            value = written_object(dialect, "regularizers", value["class_name"], value["config"])
        elif option == "recurrent_activation":
            value = _written_gate(dialect, where, value)
        written[option] = value
    if class_name == "GRU":
        _refuse_unsayable(dialect, where, config)
        if not dialect.zeros_for_mask and not written.get("zero_output_for_mask"):
            written.pop("zero_output_for_mask", None)
    return written


def _refuse_unsayable(dialect: Dialect, where: str, config: Mapping[str, Any]) -> None:
    if config.get("reset_after", True) and not dialect.after:
        raise ValueError(
            f"{where}: reset_after=True cannot be said in {dialect.name}, which knows the other form only: train with "
            f"reset_after=False"
        )
    if config.get("stateful"):
        raise ValueError(
            f"{where}: stateful=True cannot be said in {dialect.name}, where it needs a fixed number of rows"
        )
    if config.get("zero_output_for_mask") and dialect.zeros_for_mask is False:
        raise ValueError(f"{where}: zero_output_for_mask=True cannot be said in {dialect.name}")


def _written_gate(dialect: Dialect, where: str, activation: str) -> str:
    if activation == dialect.hard_sigmoid:
        return "hard_sigmoid"
    if activation.startswith("hard_sigmoid"):
        raise ValueError(
            f"{where}: recurrent_activation={activation!r} cannot be said in {dialect.name}, whose hard_sigmoid is "
            f"another function, here called {dialect.hard_sigmoid!r}"
        )
    return activation


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
