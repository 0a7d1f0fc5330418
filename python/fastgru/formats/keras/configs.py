"""Configurations in Keras 3's form, as ``get_config`` and ``to_json`` return them.

They use the same tables as Keras' files. They also support features that only this package has, such as `LastStep`
layers, so that every layer and model can be created again from its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastgru.formats.checks import parse_json, require_object
from fastgru.formats.description import LayerDescription, ModelDescription, kind_name
from fastgru.formats.keras import layers, topology
from fastgru.formats.keras.dialects import FASTGRU, KERAS_2, TFJS, Config, Dialect
from fastgru.formats.keras.topology import Topology


def layer_to_config(layer: LayerDescription, dtype: str) -> Config:
    """Return the configuration of a layer, for ``keras.layers.GRU.from_config`` for example."""
    config: Config = layers.layer_to_config(FASTGRU, layer, dtype)["config"]
    return config


def layer_from_config(class_name: str, config: Any) -> tuple[LayerDescription, str]:
    """Return the layer of a configuration, without weights, and its dtype.

    Raises
    ------
    ValueError
        This package does not support a feature of the configuration; the message names it.
    """
    config = _plain(config)
    dtype = layers.dtype_from_config(class_name, config.get("dtype"))
    if config.get("name") is None:
        config = {**config, "name": kind_name(class_name)}
    return layers.layer_from_config(FASTGRU, class_name, config), dtype


def model_to_config(description: ModelDescription) -> Config:
    """Return the configuration of a model, for ``keras.Sequential.from_config``."""
    config: Config = topology.topology_to_config(FASTGRU, description)["config"]
    return config


def model_from_config(config: Any) -> Topology:
    """Return the layers of a configuration of a Sequential model, without weights."""
    config = _plain(config)
    return topology.topology_from_config(FASTGRU, {"class_name": "Sequential", "config": config})


def model_to_json(description: ModelDescription) -> str:
    """Return the model as JSON text, for ``keras.models.model_from_json``."""
    return json.dumps(topology.topology_to_config(FASTGRU, description))


def model_from_json(text: Any) -> Topology:
    """Return the layers of a model from JSON text of this package, Keras 2, Keras 3 or TensorFlow.js."""
    if not isinstance(text, (str, bytes)):
        raise TypeError(f"json_string: expected str or bytes, got {type(text).__name__}")
    config = require_object("json_string", parse_json(text, "json_string"))
    return topology.topology_from_config(_dialect(config.get("keras_version")), config)


def _plain(config: Any) -> Config:
    """Convert a configuration to JSON values; tuples, which Keras' configurations contain, become lists."""
    if not isinstance(config, Mapping):
        raise TypeError(f"config: expected a dict, got {type(config).__name__}")
    try:
        return require_object("config", json.loads(json.dumps(dict(config))))
    except TypeError as error:
        raise ValueError(f"config: expected values that JSON supports: {error}") from None


def _dialect(version: Any) -> Dialect:
    """Return the dialect of JSON text. Keras 2 and TensorFlow.js write their version, Keras 3 does not."""
    if not isinstance(version, str):
        return FASTGRU
    if version.startswith("tfjs"):
        return TFJS
    return KERAS_2 if version.startswith("2.") else FASTGRU
