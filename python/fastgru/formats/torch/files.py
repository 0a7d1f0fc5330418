"""Reading and writing of a state_dict, with fastgru's description of the model beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastgru.formats.boundary import reading
from fastgru.formats.checks import parse_json, require_list, require_object, require_text
from fastgru.formats.description import Array, LayerDescription, ModelDescription, TrainingDescription
from fastgru.formats.scaling import FORMAT_VERSION, dividing_bytes, fold_scaling
from fastgru.formats.torch import state_dicts
from fastgru.formats.torch.chains import Chain
from fastgru.formats.torch.modules import Module, modules_of, tensors_of, unwrapped
from fastgru.formats.torch.options import ReadOptions, listed
from fastgru.formats.torch.parts import Part, parts_of


def read(
    path: str | os.PathLike[str],
    *,
    return_sequences: bool | None = None,
    pooling: str | None = None,
    activations: Sequence[str | None] | Mapping[str, str | None] | None = None,
    order: Sequence[str] | None = None,
) -> ModelDescription:
    """Read the model in a state_dict file.

    A file that fastgru did not write contains no description of the model. Properties that neither the file nor an
    option defines are assumed if one choice is usual, and listed in the `assumptions` of the description. Otherwise an
    error is raised.

    Parameters
    ----------
    path : path
    return_sequences : bool, optional
        True: the module after the last GRU receives the output of every step. False: it receives one vector for
        each sequence, see `pooling`.
    pooling : {"last_state", "last_step", "mean", "max"}, optional
        What the module after the last GRU receives. ``"last_state"``: the final state, concatenated over the
        directions (``torch.cat((h_n[-2], h_n[-1]), -1)``). ``"last_step"``: the output at the last step
        (``output[:, -1]``), which differs from the final state if the GRU is bidirectional. ``"mean"`` and ``"max"``:
        over the outputs of all valid steps. If not given, ``"last_state"`` is assumed.
    activations : mapping of str to str or None, or sequence of str or None, optional
        Name of a module -> the activation after it, one that `fastgru.layers.Activation` supports. The module is a
        Linear, a GRU (the activation of the last one follows `pooling`) or an Embedding. A sequence has one activation
        for each Linear, from the first to the last. None is ``"linear"``, which is assumed after a GRU and after a
        Linear at the end. The activation of a Linear before other modules must be given.
    order : sequence of str, optional
        The names of all modules in the order of their calls, such as ``["gru", "head"]``. It is needed if the sizes
        allow several orders. Files of `torch.save` keep an order, which is assumed; safetensors files do not, so
        several possible orders are an error. `order` also confirms that each of several `nn.GRU` receives the outputs
        of all steps of the one before, which is assumed otherwise.

    Raises
    ------
    ModelFileError
        The file has other contents, is damaged, or is ambiguous; the message names the option to pass then.
    TypeError, ValueError
        An option has a wrong type or value, or does not fit the modules in the file.
    """
    options = ReadOptions.checked(
        return_sequences=return_sequences, pooling=pooling, activations=activations, order=order
    )
    found = state_dicts.read(path)
    # Errors of options are raised outside of `reading`, which attributes errors to the file.
    if found.description is not None:
        options.require_nothing()
    with reading(path):
        if not found.tensors:
            raise ValueError("expected a state_dict, got one without tensors")
        dtype = str(np.result_type(*found.tensors.values()))
        if found.description is not None:
            return _described(found.description, modules_of(found.tensors), dtype)
        modules = modules_of(unwrapped(found.tensors))
        if not any(module.class_name == "GRU" for readings in modules for module in readings):
            raise ValueError("expected an nn.GRU among its modules, got none")
    options.require_order_of([readings[0].path for readings in modules])
    with reading(path):
        chain = (
            Chain.of(modules, ordered=found.ordered)
            if options.order is None
            else Chain.in_order(modules, options.order)
        )
    if chain is None:
        raise ValueError(
            f"order: expected an order in which each module accepts the output of the one before, got "
            f"{listed(options.order or [])}"
        )
    after = options.activations_of(chain.names, chain.linears)
    with reading(path):
        return chain.describe(dtype, options.return_sequences, options.pooling, after)


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model to a file: ``*.pt`` and ``*.pth`` as ``torch.save`` does, anything else as safetensors.

    The names of tensors follow from the names of layers: a GRU ``gru`` has ``gru.weight_ih_l0``, a Dense ``head`` has
    ``head.weight``. Consecutive GRUs of the same size become one module with the name of the first. A Rescaling becomes
    part of the weights of the next layer, so that the modules take the same input as the model.

    Raises
    ------
    ValueError
        PyTorch does not support a layer or an option, or no layer has weights.
    """
    description = replace(description, layers=fold_scaling(description.layers, "PyTorch"))
    tensors: dict[str, Array] = {}
    for part in parts_of(description.layers):
        tensors |= tensors_of(part.class_name, part.path, [layer.weights for layer in part.layers])
    if not tensors:
        raise ValueError(f"{description.name}: expected a layer with weights because a state_dict holds nothing else")
    state_dicts.write(path, tensors, _description_as_json(description))


# --- The description beside the state_dict --------------------------------------------------------------------------


def _description_as_json(description: ModelDescription) -> str:
    """The description of the model without the weights and the optimizer state."""
    training = description.training
    return json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "name": description.name,
            "input_shape": description.input_shape,
            "layers": [layer.to_json() for layer in description.layers],
            "training": training
            and {"optimizer": training.optimizer, "loss": training.loss, "metrics": training.metrics},
        },
        sort_keys=True,
    )


def _described(text: str, modules: list[list[Module]], dtype: str) -> ModelDescription:
    """The model that a text of `_description_as_json` describes."""
    content = require_object("its description", parse_json(text, "its description"))
    layers = [LayerDescription.from_json(entry) for entry in require_list("layers", content.get("layers"))]
    _give_weights(parts_of(layers), modules)
    if "format_version" not in content:
        layers = dividing_bytes(layers)
    input_shape = tuple(require_list("input_shape", content.get("input_shape")))
    name = require_text("name", content.get("name"))
    training = content.get("training")
    return ModelDescription(layers, input_shape, name, dtype, None if training is None else _training(training))


def _training(entry: Any) -> TrainingDescription:
    entry = require_object("training", entry)
    optimizer, loss = (require_object(key, entry.get(key)) for key in ("optimizer", "loss"))
    return TrainingDescription(optimizer, loss, require_list("metrics", entry.get("metrics")))


def _give_weights(parts: list[Part], modules: list[list[Module]]) -> None:
    by_path = {(reading.path, reading.class_name): reading for readings in modules for reading in readings}
    if sorted(part.path for part in parts) != sorted(readings[0].path for readings in modules):
        raise ValueError("expected the tensors of the layers in its description, got others")
    for part in parts:
        module = by_path.get((part.path, part.class_name))
        if module is None or len(module.layers) != len(part.layers):
            raise ValueError(
                f"{part.path}: expected the tensors of {len(part.layers)} layers of type {part.class_name}, got others"
            )
        for layer, weights in zip(part.layers, module.layers, strict=True):
            layer.weights.update(weights)
