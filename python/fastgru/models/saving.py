"""Conversion of models to the descriptions and checkpoints that `fastgru.formats` writes, and back.

fastgru's own files, copies, pickles and the state of a training run share one representation. All functions take the
two parts of a model, a `Network` and a `Compilation`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import formats, initializers, losses, metrics, optimizers, regularizers, schedules
from fastgru._native._cpu_features import __version__
from fastgru._support import checks
from fastgru._support.files import trial_name, write_atomically
from fastgru._support.representation import package_class
from fastgru._training import loop
from fastgru._training.data import Form
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.checks import unsupported
from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.scaling import FORMAT_VERSION, dividing_bytes
from fastgru.layers import Dense, from_options
from fastgru.layers.base import LAYERS, strip_prefix
from fastgru.models.compilation import Compilation
from fastgru.models.network import Network

Array = NDArray[Any]


def make_parts(dtype: str | None, name: str) -> tuple[Network, Compilation]:
    """Return the two parts of a model without layers."""
    compilation = Compilation()
    return Network(dtype=dtype, name=name, on_new_memory=compilation.forget_moments), compilation


def write(
    path: str | os.PathLike[str], format: str | None, network: Network, compilation: Compilation, *, compiled: bool
) -> None:
    """Write a model to a file. `format` None: the name's ending selects it. `compiled`: also write the training."""
    require_own_layers(network)
    kind = formats.kind_of_name(path) if format is None else checks.choice("format", format, formats.KINDS)
    compiled = checks.flag("include_optimizer", compiled)
    if kind == "fastgru":
        native.save(path, *to_checkpoint(network, compilation, compiled=compiled))
        return
    description = describe(network, compilation)
    if kind not in ("onnx", "rtneural"):
        require_own_options(network)
    if compiled and kind not in ("onnx", "rtneural"):  # formats for inference only
        require_own_classes(compilation)
        _require_metrics_known_by_name(compilation)
    else:
        description.training = None
    formats.write(path, description, kind)


def require_saveable(
    network: Network,
    compilation: Compilation,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    compiled: bool = True,
) -> None:
    """Raise the error that `write` would raise. No file is created or changed.

    The model is written to a temporary folder next to `path`. This detects an unknown ending, a missing folder or
    package, missing permissions, and unsupported features. If the model has no weights yet, a model with one Dense
    layer is written instead, which does not detect unsupported layers.

    Parameters
    ----------
    network, compilation
        The parts of the model.
    path, format, compiled
        As in `write`.

    Raises
    ------
    ValueError, TypeError
        The ending is unknown, or the format does not support the model.
    ImportError
        The format needs a package that is not installed.
    OSError
        No file can be written at `path`.
    """
    require_own_layers(network)
    kind = formats.kind_of_name(path) if format is None else checks.choice("format", format, formats.KINDS)
    with trial_name(path) as trial:
        if network.built:
            write(trial, format, network, compilation, compiled=compiled)
        elif kind == "fastgru":
            write_atomically(trial, b"")
            if compiled:
                require_own_classes(compilation)
        else:
            formats.write(trial, _one_layer(), kind)


def _one_layer() -> ModelDescription:
    """A model that all formats support."""
    layer = Dense(1, name="dense")
    weights = {"kernel": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    return ModelDescription([LayerDescription("Dense", "dense", layer.options(), weights)], (1,), "model", "float32")


def _require_metrics_known_by_name(compilation: Compilation) -> None:
    for metric in compilation.metrics:
        assert compilation.loss is not None
        kind = metric.kind
        named = metrics.METRICS.get(metrics.SHORT_NAMES.get(metric.name, metric.name))
        plain = None if named is None else metrics.for_loss(metric.name, compilation.loss, kind)
        if plain is None or _described(metric) != _described(plain):
            raise ValueError(
                f"metrics: expected metrics with default options because other frameworks' files contain their names "
                f"only, got {metric!r} with the name {metric.name!r}; pass include_optimizer=False to save the model "
                f"without optimizer, loss and metrics"
            )


# --- Descriptions --------------------------------------------------------------------------------------------------


def describe(network: Network, compilation: Compilation) -> ModelDescription:
    """Return a description of the model that all file formats use. Its arrays are copies."""
    layers = [
        LayerDescription(
            type(layer).__name__,
            layer.name,
            layer.options(),
            {name: array.copy() for name, array in layer.parameters.items()},
        )
        for layer in network.layers
    ]
    training = None
    if compilation.optimizer is not None and compilation.loss is not None:
        step, states = compilation.optimizer.get_state()
        training = TrainingDescription(
            _described(compilation.optimizer),
            _described_loss(compilation.loss),
            [metric.name for metric in compilation.metrics],
            step,
            {
                state: {name: array.copy() for name, array in network.views(flat).items()}
                for state, flat in states.items()
            },
        )
    return ModelDescription(layers, network.input_shape[1:], network.name, str(network.dtype), training)


def describe_layers(network: Network) -> ModelDescription:
    """Return a description of the layers, without weights and training. The model need not be built."""
    require_own_layers(network)
    layers = [LayerDescription(type(layer).__name__, layer.name, layer.options()) for layer in network.layers]
    shape = network.input_shape[1:] if network.built else None
    return ModelDescription(layers, shape, network.name, str(network.dtype))


def describe_weights(network: Network, compilation: Compilation) -> ModelDescription:
    """Return a description for weights files, which treat a subclass of a fastgru layer as that layer."""
    description = describe(network, compilation)
    for layer, entry in zip(network.layers, description.layers, strict=True):
        entry.class_name = package_class(type(layer)).__name__
    return description


def take_description(description: ModelDescription, network: Network, compilation: Compilation) -> None:
    """Add the layers, weights and training of a description to a model without layers.

    Raises
    ------
    ValueError, TypeError
        The description is inconsistent, or uses a feature that is not supported.
    """
    for entry in description.layers:
        layer = from_options(entry.class_name, entry.config, name=entry.name)
        if any(layer.name == other.name for other in network.layers):
            raise ValueError(f"it contains two layers with the name {layer.name!r}")
        network.layers.append(layer)
    if description.input_shape is None:
        return
    shapes = network.shapes_for((None, *checks.shape("input_shape", description.input_shape)))
    # Shapes are compared before memory is allocated, so that the file's size bounds the allocation.
    for layer, entry in zip(network.layers, description.layers, strict=True):
        found, expected = {name: array.shape for name, array in entry.weights.items()}, layer.weight_shapes()
        if found != expected:
            raise ValueError(f"{layer.name}: expected weights of shapes {expected}, got {found}")
    network.allocate(shapes, initialize=False)
    for layer, entry in zip(network.layers, description.layers, strict=True):
        for name, array in entry.weights.items():
            layer.parameters[name][...] = array
    if description.training is not None:
        _train_as(description.training, network, compilation)


def _train_as(training: TrainingDescription, network: Network, compilation: Compilation) -> None:
    optimizer = optimizers.from_config(training.optimizer["class_name"], training.optimizer["config"])
    loss = losses.LOSSES[training.loss["name"]](**training.loss["config"])
    compilation.choose(network, optimizer, loss, training.metrics)
    states = {}
    for state, moments in training.moments.items():
        states[state] = np.zeros_like(network.parameters)
        for name, view in network.views(states[state]).items():
            view[...] = moments.get(name, 0)  # Keras' files contain no optimizer state of frozen weights
    optimizer.set_state(training.step, states)


# --- This package's own files, copies and pickles ------------------------------------------------------------------


def to_checkpoint(
    network: Network, compilation: Compilation, *, compiled: bool = True
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the input of `native.save`: a configuration that JSON supports, and arrays, which are not copied."""
    require_own_layers(network)
    require_own_options(network)
    if compiled:
        require_own_classes(compilation)
    tensors = {
        f"layers/{layer.name}/{name}": array for layer in network.layers for name, array in layer.parameters.items()
    }
    config: dict[str, Any] = {
        "fastgru_version": __version__,
        "format_version": FORMAT_VERSION,
        "name": network.name,
        "dtype": str(network.dtype),
        "trainable": network.trainable,
        "input_shape": network.input_shape,
        "layers": [
            {"class_name": type(layer).__name__, "name": layer.name, "config": layer.options()}
            for layer in network.layers
        ],
        "generator": network.generator.bit_generator.state,
    }
    if network.trained_with_lengths:
        config["trained_with_lengths"] = True
    tensors |= {f"states/{name}": array for name, array in network.get_states().items()}
    if compiled and compilation.optimizer is not None and compilation.loss is not None:
        step, moments = compilation.optimizer.get_state()
        config["compile"] = {
            "optimizer": {**_described(compilation.optimizer), "step": step},
            "loss": _described_loss(compilation.loss),
            "metrics": [{"name": m.name, **_described(m)} for m in compilation.metrics],
        }
        tensors |= {f"optimizer/{name}": array for name, array in moments.items()}
    return config, tensors


def require_own_layers(network: Network) -> None:
    """Raise if `load_model` could not create a layer from the name of its class."""
    for layer in network.layers:
        for each in (layer, *layer.layers_within()):
            if type(each) is not LAYERS.get(type(each).__name__):
                raise unsupported(
                    layer.name,
                    type(each).__name__,
                    "copies and files of models",
                    "which contain names of fastgru's layers and no code",
                    "use save_weights, or create the same model and call set_weights",
                )


def require_own_options(network: Network) -> None:
    """Raise if `load_model` could not create an initializer or regularizer of a layer from its name."""
    for layer in network.layers:
        for each in (layer, *layer.layers_within()):
            for options, known in (
                (each.initializers, initializers.CLASSES),
                (each.regularizers, regularizers.CLASSES),
            ):
                for option in options.values():
                    value = getattr(each, option)
                    if value is None or isinstance(value, str) or type(value) in known.values():
                        continue
                    raise unsupported(
                        layer.name,
                        f"{option}={value!r}",
                        "copies and files of models",
                        "which contain names of fastgru's classes and no code",
                        f"use save_weights, or set layer.{option} to one of fastgru's; the weights do not change",
                    )


def require_own_classes(compilation: Compilation) -> None:
    """Raise if the model is compiled with a function or a custom class, which a file cannot contain."""
    if compilation.optimizer is None or compilation.loss is None:
        return
    rate = compilation.optimizer.learning_rate
    for name, thing, known in (
        ("optimizer", compilation.optimizer, optimizers.OPTIMIZERS),
        *((("learning_rate", rate, schedules.SCHEDULES),) if isinstance(rate, schedules.Schedule) else ()),
        ("loss", compilation.loss, losses.LOSSES),
        *(("metrics", metric, metrics.CLASSES) for metric in compilation.metrics),
    ):
        if type(thing) not in known.values():
            function = isinstance(thing, (losses.LossFunctionWrapper, metrics.MeanMetricWrapper))
            found = f"the function {thing.name}" if function else type(thing).__name__
            raise ValueError(
                f"{name}: expected a class of fastgru because files contain names and no code, got {found}; pass "
                f"include_optimizer=False to save the model without optimizer, loss and metrics, or compile without it"
            )


def from_checkpoint(config: dict[str, Any], tensors: Mapping[str, Array]) -> tuple[Network, Compilation]:
    """Create the parts of a model from the result of `to_checkpoint`."""
    input_shape: tuple[int | None, ...] | None = None
    if config["input_shape"]:
        rows, *sizes = config["input_shape"]
        if rows is not None:
            raise ValueError(f"its input_shape has the batch size {rows!r} instead of None")
        input_shape = tuple(sizes)
    found = strip_prefix(tensors, "layers/")
    layers = [
        LayerDescription(entry["class_name"], entry["name"], entry["config"], strip_prefix(found, f"{entry['name']}/"))
        for entry in config["layers"]
    ]
    if "format_version" not in config:
        layers = dividing_bytes(layers)
    description = ModelDescription(layers, input_shape, config["name"], config["dtype"])
    if found.keys() != description.weights().keys():
        raise ValueError("its weights do not match its configuration")
    states = strip_prefix(tensors, "states/")
    if any(array.dtype != config["dtype"] for array in (*found.values(), *states.values())):
        raise ValueError(f"its weights and states are not {config['dtype']} as in its configuration")
    network, compilation = make_parts(description.dtype, description.name)
    take_description(description, network, compilation)
    network.trainable = checks.flag("trainable", config.get("trainable", True))  # files of 0.1.0 may lack it
    network.generator.bit_generator.state = config["generator"]
    network.trained_with_lengths = checks.flag("trained_with_lengths", config.get("trained_with_lengths", False))
    network.set_states(states)
    if config.get("compile") is not None:
        _compile_as(config["compile"], tensors, network, compilation)
    return network, compilation


def from_file(
    path: str | os.PathLike[str], config: dict[str, Any], tensors: Mapping[str, Array]
) -> tuple[Network, Compilation]:
    """Do the same as `from_checkpoint` for the contents of the file at `path`. All errors are ModelFileError."""
    with reading(path, "not a model that this version of fastgru supports"):
        return from_checkpoint(config, tensors)


def _compile_as(
    choices: dict[str, Any], tensors: Mapping[str, Array], network: Network, compilation: Compilation
) -> None:
    optimizer = optimizers.from_config(choices["optimizer"]["class_name"], choices["optimizer"]["config"])
    loss = choices["loss"]
    loss = losses.get(loss) if isinstance(loss, str) else losses.LOSSES[loss["name"]](**loss["config"])
    chosen = []
    for entry in choices["metrics"]:
        if isinstance(entry, str):
            chosen.append(metrics.get(entry))
        else:
            chosen.append(metrics.CLASSES[entry["class_name"]](**entry["config"]))
            chosen[-1].name = entry["name"]
    compilation.choose(network, optimizer, loss, chosen)
    moments = strip_prefix(tensors, "optimizer/")
    for array in moments.values():
        if array.shape != network.parameters.shape or array.dtype != network.dtype:
            raise ValueError("its optimizer state does not match its weights")
    optimizer.set_state(choices["optimizer"]["step"], moments)


# --- The state of a training run -----------------------------------------------------------------------------------


class SavedTraining(NamedTuple):
    """The contents of a file of `ModelCheckpoint`."""

    path: str | os.PathLike[str]
    network: Network
    compilation: Compilation
    state: dict[str, Any]  # of the training run


def write_training(network: Network, compilation: Compilation, run: loop.Run, path: str | os.PathLike[str]) -> None:
    """Write the model and the state of the current training run, for `read_training`."""
    bad = [name for name, weight in network.views(network.parameters).items() if not np.isfinite(weight).all()]
    if bad:
        raise FloatingPointError(
            f"{os.fspath(path)}: expected finite weights for a checkpoint, got NaN or infinity in {', '.join(bad)}; "
            f"the existing file is not changed"
        )
    config, tensors = to_checkpoint(network, compilation)
    config["training"], arrays = native.split_arrays("training", run.get_state())
    tensors |= {f"training/{name}": array for name, array in arrays.items()}
    native.save(path, config, tensors)


def read_training(
    path: str | os.PathLike[str],
    network: Network,
    compilation: Compilation,
    run: loop.Run,
    form: Form | None,
    dtype: np.dtype[Any] | None,
) -> SavedTraining:
    """Read a file of `write_training`. Raises if `run`, which trains this model, cannot resume from it.

    The model does not change. `form` contains the shapes that the data determine, and `dtype` is the dtype of the
    samples. Both are None if they are unknown.
    """
    config, tensors = native.load(path)
    if "training" not in config:
        raise ValueError(
            f"resume_from: expected a file of callbacks.ModelCheckpoint, got {os.fspath(path)}, a model without "
            f"the state of a training run"
        )
    saved, saved_compilation = from_file(path, config, tensors)
    ours, theirs = to_checkpoint(network, compilation)[0], to_checkpoint(saved, saved_compilation)[0]
    theirs["layers"] = _layers_to_resume(path, ours["layers"], theirs["layers"], dtype)
    for name in ("trainable", "layers", "compile"):
        one, other = _comparable(theirs.get(name)), _comparable(ours.get(name))
        if one != other:
            where, one, other = _first_difference(name, one, other)
            raise ValueError(f"resume_from: expected a model with the same {where}, {one!r}, got {other!r}")
    shape = form.input_shape if form is not None else network.input_shape
    if shape and shape != saved.input_shape:
        raise ValueError(
            f"resume_from: expected input of shape {checks.dims(saved.input_shape)} as in the run to resume, "
            f"got {checks.dims(shape)}"
        )
    if network.dtype != saved.dtype:
        raise ValueError(
            f"resume_from: expected a model of {saved.dtype} as in the run to resume, got {network.dtype}; make "
            f"it with dtype='{saved.dtype}'"
        )
    with reading(path, _NO_STATE):
        state = native.join_arrays(config["training"], strip_prefix(tensors, "training/"))
        run.require_sound(state, saved.get_weights())
    run.require_same(state)
    return SavedTraining(path, saved, saved_compilation, state)


def _layers_to_resume(
    path: str | os.PathLike[str], ours: list[Any], theirs: list[Any], dtype: np.dtype[Any] | None
) -> list[Any]:
    """Return the layers of a model that can resume the training on samples of `dtype`, which may be None.

    Early versions of fastgru divided uint8 input by 255, and their files are read with such a first layer. To resume
    them, a model for uint8 samples must begin with `Rescaling`, and a model for other samples must not.
    """
    if not theirs or not theirs[0]["config"].get("uint8_only") or ours[:1] == theirs[:1]:
        return theirs
    first, *others = theirs
    scales = bool(ours) and ours[0]["class_name"] == first["class_name"]
    if dtype == np.uint8 and not scales:
        raise ValueError(
            f"resume_from: expected Rescaling as the first layer because the version that wrote {os.fspath(path)} "
            f"divided uint8 input by 255, got another layer; add layers.Rescaling(1 / 255) as the first layer"
        )
    if dtype == np.uint8 or (dtype is None and scales):
        return [{**first, "name": ours[0]["name"], "config": {**first["config"], "uint8_only": False}}, *others]
    return others


def go_on_from(saved: SavedTraining, network: Network, compilation: Compilation, run: loop.Run) -> None:
    """Restore the state that `read_training` returned."""
    with reading(saved.path, _NO_STATE):
        run.set_state(saved.state)
    optimizer, other = compilation.optimizer, saved.compilation.optimizer
    assert optimizer is not None
    assert other is not None
    np.copyto(network.parameters, saved.network.parameters)
    optimizer.learning_rate = other.learning_rate  # ReduceLROnPlateau may have lowered it
    optimizer.set_state(*other.get_state())
    network.generator.bit_generator.state = saved.network.generator.bit_generator.state
    network.set_states(saved.network.get_states())
    network.trained_with_lengths = saved.network.trained_with_lengths


#: Part of the error message if the state of a training run in a file is invalid.
_NO_STATE = "its state of a training run is invalid"


def _described_loss(loss: losses.Loss) -> dict[str, Any]:
    return {"name": losses.registered_name(loss) or loss.name, "config": loss.get_config()}


def _described(thing: Any) -> dict[str, Any]:
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def _comparable(entry: Any) -> Any:
    """Return a part of a configuration without the values that training changes."""
    if isinstance(entry, dict):
        entry = {name: value for name, value in entry.items() if name != "step"}
        if "optimizer" in entry:
            optimizer = dict(entry["optimizer"])
            optimizer["config"] = dict(optimizer["config"])
            if not isinstance(optimizer["config"]["learning_rate"], dict):  # a callback may have lowered it
                optimizer["config"]["learning_rate"] = "a number"
            optimizer.pop("step")
            entry["optimizer"] = optimizer
    return entry


def _first_difference(where: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """Return the place of the first difference between two parts of a configuration, and both values."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            if one[name] != other[name]:
                return _first_difference(f"{where}/{name}", one[name], other[name])
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"number of {where}", len(one), len(other)
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _first_difference(f"{where}[{number}]", left, right)
    return where, one, other
