"""Reading and writing a state_dict, and beside it this package's own description of the model."""

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
    """The model in a file.

    What a file of others leaves open and no option says is assumed where one choice is usual, and is then listed in the
    description's `assumptions`; elsewhere it is an error.

    Parameters
    ----------
    path : path
    return_sequences : bool, optional
        True: what follows the last GRU receives every step's state. False: one vector a sequence, see `pooling`.
    pooling : {"last_state", "last_step", "mean", "max"}, optional
        What follows the last GRU receives: its last state, of both directions side by side
        (``torch.cat((h_n[-2], h_n[-1]), -1)``); its output at the last step (``output[:, -1]``), which differs from
        that where a GRU is bidirectional; or the mean or the maximum of its outputs over the steps that count.
        ``"last_state"`` is assumed.
    activations : mapping of str to str or None, or sequence of str or None, optional
        Module's name -> the activation after it, as `fastgru.layers.Activation` has them: of a Linear, of a GRU (the
        last one's after `pooling`) or of an Embedding. A sequence is for the Linears alone, from the first to the last.
        None is ``"linear"``, which is assumed after GRUs and after a Linear at the end; a Linear before other layers
        mostly has one, so that it must be named.
    order : sequence of str, optional
        The modules' names from the first to the last, ``["gru", "head"]``, where sizes leave a doubt. The file's order
        is assumed; safetensors keeps none, so that a doubt is an error there. It also confirms that each of several
        `nn.GRU` receives every step of the one before, which is assumed otherwise.

    Raises
    ------
    ModelFileError
        The file holds something else, is damaged, or leaves a doubt; the message says which option ends it.
    TypeError, ValueError
        An option is of another type or value, or does not fit the modules in the file.
    """
    said = ReadOptions.checked(return_sequences=return_sequences, pooling=pooling, activations=activations, order=order)
    found = state_dicts.read(path)
    # What an option causes is raised outside of the blocks in which all is the file's.
    if found.description is not None:
        said.require_nothing()
    with reading(path):
        if not found.tensors:
            raise ValueError("expected a state_dict, got one without tensors")
        dtype = str(np.result_type(*found.tensors.values()))
        if found.description is not None:
            return _described(found.description, modules_of(found.tensors), dtype)
        modules = modules_of(unwrapped(found.tensors))
        if not any(module.class_name == "GRU" for readings in modules for module in readings):
            raise ValueError("expected an nn.GRU among its modules, got none")
    said.require_order_of([readings[0].path for readings in modules])
    with reading(path):
        chain = Chain.of(modules, ordered=found.ordered) if said.order is None else Chain.said(modules, said.order)
    if chain is None:
        raise ValueError(
            f"order: expected modules of which each takes what the one before gives, got {listed(said.order or [])}"
        )
    after = said.activations_of(chain.names, chain.linears)
    with reading(path):
        return chain.describe(dtype, said.return_sequences, said.pooling, after)


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model to a file: ``*.pt`` and ``*.pth`` as ``torch.save`` does, anything else as safetensors.

    Tensors are named after layers: a GRU ``gru`` has ``gru.weight_ih_l0``, a Dense ``head`` has ``head.weight``.
    Neighbouring GRUs of one size are one module, with the first one's name. A Rescaling becomes part of the next
    layer's weights, so that the modules take the same input as the model.

    Raises
    ------
    ValueError
        PyTorch does not support some layer or option, or no layer has weights.
    """
    description = replace(description, layers=fold_scaling(description.layers, "PyTorch"))
    tensors: dict[str, Array] = {}
    for part in parts_of(description.layers):
        tensors |= tensors_of(part.class_name, part.path, [layer.weights for layer in part.layers])
    if not tensors:
        raise ValueError(f"{description.name}: expected a layer with weights because a state_dict holds nothing else")
    state_dicts.write(path, tensors, _description_as_json(description))


# --- What stands beside the state_dict ------------------------------------------------------------------------------


def _description_as_json(description: ModelDescription) -> str:
    """All but the weights and the optimizer's moments."""
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
    """The model that a description by `_description_as_json` is of."""
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
        raise ValueError("its tensors are not those of the layers that its description says it has")
    for part in parts:
        module = by_path.get((part.path, part.class_name))
        if module is None or len(module.layers) != len(part.layers):
            raise ValueError(f"{part.path}: its tensors are not those of {len(part.layers)} {part.class_name}")
        for layer, weights in zip(part.layers, module.layers, strict=True):
            layer.weights.update(weights)
