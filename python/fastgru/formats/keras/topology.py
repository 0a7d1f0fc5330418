"""Conversion of models to and from configurations in Keras' dialects (Keras 3, Keras 2, TensorFlow.js).

A file contains a Sequential model, or a Functional model that is a chain of layers. The module of the file format reads
the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastgru.formats.checks import require_list, require_object, require_text
from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.keras.dialects import KERAS_3, Config, Dialect, class_and_config, class_and_options, written_object
from fastgru.formats.keras.layers import (
    ACTIVATION_LAYERS,
    activation_from_config,
    dtype_from_config,
    layer_from_config,
    layer_to_config,
    refuse_options,
)
from fastgru.formats.keras.masks import require_same_masks


@dataclass
class FileLayer:
    """A layer of a file.

    Attributes
    ----------
    class_name, name : str
    layer : LayerDescription or None
        Its description. None for an input, and for an activation that is merged into the Dense layer before it.
    """

    class_name: str
    name: str
    layer: LayerDescription | None


@dataclass
class Topology:
    """A model of a file, without its weights.

    Attributes
    ----------
    layers : list of LayerDescription
        Layers without weights.
    input_shape : tuple of int or None, or None
        Without the batch axis; None if the file does not contain it.
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
        """Return the model, once the layers have their weights."""
        return ModelDescription(self.layers, self.input_shape, self.name, self.dtype, training)


def topology_from_config(dialect: Dialect, config: Any) -> Topology:
    """Convert the configuration of a Sequential model, or of a Functional model that is a chain of layers.

    Parameters
    ----------
    dialect : Dialect
    config : dict
        With ``class_name`` and ``config``.

    Raises
    ------
    ValueError
        The model is not supported; the message names the layer.
    """
    class_name, inner = class_and_config("the model", config)
    if isinstance(inner, list):  # Keras before 2.3 wrote the list of layers only
        inner = {"layers": inner}
    inner = require_object("the model", inner)
    entries = [require_object("a layer", entry) for entry in require_list("layers", inner.get("layers"))]
    if not entries:
        raise ValueError("the model has no layers")
    functional = class_name in ("Functional", "Model")
    if not functional and class_name != "Sequential":
        raise ValueError(f"expected a Sequential or Functional model, got {class_name!r}")
    entries = _chain(inner, entries) if functional else _with_names(entries)
    name = require_text("name", "sequential" if inner.get("name") is None else inner["name"])
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
    if not dialect.own:
        require_same_masks(layers)
    if len(set(dtypes.values())) > 1:
        text = ", ".join(f"{layer} {dtype}" for layer, dtype in dtypes.items())
        raise ValueError(f"dtype: expected the same for all layers, got {text}")
    return Topology(layers, input_shape, name, next(iter(dtypes.values())), file_layers)


def _with_names(entries: list[Config]) -> list[Config]:
    """Return the layers of a Sequential model, with default names for those without one."""
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


def _append(
    dialect: Dialect,
    entry: Config,
    layers: list[FileLayer],
    dtypes: dict[str, str],
    input_shape: tuple[int | None, ...] | None,
) -> None:
    """Convert a layer of a file, and append its dtype."""
    class_name, config = class_and_options("a layer", entry)
    name = require_text(f"a {class_name}: name", config.get("name", entry.get("name")))
    if class_name == "InputLayer":
        refuse_options(name, config, ())
        layers.append(FileLayer(class_name, name, None))
        return
    dtypes[name] = dtype_from_config(name, config.get("dtype", "float32"))
    if class_name in ACTIVATION_LAYERS:
        before = [each.layer for each in layers if each.layer is not None]
        activation = activation_from_config(dialect, class_name, name, config, before, input_shape)
        layer = LayerDescription("Activation", name, {"activation": activation})
    else:
        layer = layer_from_config(dialect, class_name, {**config, "name": name})
    last = layers[-1].layer if layers else None
    merged = not dialect.own and last is not None and _merge_activation(last, layer)
    layers.append(FileLayer(class_name, name, None if merged else layer))


def _merge_activation(dense: LayerDescription, layer: LayerDescription) -> bool:
    """Merge an activation layer into the Dense layer before it, if that has no activation."""
    if layer.class_name != "Activation" or dense.class_name != "Dense":
        return False
    if dense.config.get("activation", "linear") != "linear":
        return False
    dense.config["activation"] = layer.config["activation"]
    return True


# --- The shape of the input, and the order of a Functional model's layers ---------------------------------------


def _input_shape(dialect: Dialect, model: Config, entries: list[Config]) -> tuple[int | None, ...] | None:
    """Return the input shape without the batch axis, from the first layers or the model."""
    class_name, first = class_and_options("a layer", entries[0])
    candidates = [first.get("batch_shape"), first.get("batch_input_shape"), model.get("build_input_shape")]
    if class_name == "Embedding" and dialect is not KERAS_3:  # written without a shape; accepts sequences of any length
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


#: Operations that compute a mask in Keras 3; they are not part of the chain of layers.
_MASKS = ("NotEqual", "Any")


def _chain(model: Config, entries: list[Config]) -> list[Config]:
    """Return the layers of a Functional model in order, from its only input to its only output."""
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
    """Raise for a mask that no Masking or Embedding layer of the chain computes."""
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
    """Return the only layer of a model's inputs or outputs: ``["name", 0, 0]``, or a list of such entries."""
    names = {_history(where, tensor) for tensor in _tensors(where, tensors)}
    if len(names) != 1:
        raise ValueError(f"{where}: expected those of one layer, got {tensors!r:.200}")
    return names.pop()


def _tensors(where: str, tensors: Any) -> list[Any]:
    tensors = require_list(where, tensors)
    return [tensors] if tensors and isinstance(tensors[0], str) else tensors


def _require_outputs(last: LayerDescription, tensors: Any) -> None:
    """Raise if the model does not return all outputs of its last layer, in order."""
    found = [tensor[2] for tensor in _tensors("output_layers", tensors)]
    if found != list(range(last.outputs)):
        raise ValueError(f"{last.name}: expected all of its outputs to be those of the model, got {tensors!r:.200}")


def _source(where: str, nodes: Any, by_name: dict[str, Config]) -> str:
    """Return the layer whose output another layer is called with."""
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
    """Return the layer that computes a tensor."""
    if isinstance(tensor, Mapping):  # Keras 3
        tensor = class_and_options(where, tensor)[1].get("keras_history")
    if not isinstance(tensor, list) or len(tensor) != 3 or not isinstance(tensor[0], str) or tensor[1] != 0:
        raise ValueError(f"{where}: expected the output of another layer, got {tensor!r:.200}")
    return tensor[0]


# --- Writing ----------------------------------------------------------------------------------------------------


def topology_to_config(dialect: Dialect, description: ModelDescription) -> Config:
    """Return the Sequential configuration of a model.

    A model without weights can be written in this package's own dialect only.

    Raises
    ------
    ValueError
        The dialect does not support the model; the message names the layer.
    """
    if not dialect.own:
        require_same_masks(description.layers)
    layers = [layer_to_config(dialect, layer, description.dtype) for layer in description.layers]
    if dialect.own and description.input_shape is None:
        return written_object(dialect, "", "Sequential", {"name": description.name, "layers": layers}, outer=True)
    shape = [None, *description.built_shape]
    first = description.layers[0]
    tokens = first.class_name == "Embedding"
    dtype = "int32" if tokens and dialect.input_layer else description.dtype
    if dialect.input_layer:
        config = {dialect.shape_key: shape, "dtype": dtype, "sparse": False, "ragged": False}
        layers.insert(
            0, written_object(dialect, "layers", "InputLayer", {**config, "name": f"{first.name}_input"}, outer=True)
        )
    else:
        layers[0]["config"][dialect.shape_key] = shape
    return written_object(dialect, "", "Sequential", {"name": description.name, "layers": layers}, outer=True)
