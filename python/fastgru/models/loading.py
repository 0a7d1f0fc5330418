"""Models from files, from configurations and from other models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from fastgru import formats
from fastgru._support import checks
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import Assumption, AssumptionWarning, list_assumptions
from fastgru.layers import Layer
from fastgru.models import saving
from fastgru.models.sequential import Sequential, refuse_custom_objects


def read_model(
    path: str | os.PathLike[str], *, compile: bool = True, format: str | None = None, **options: Any
) -> tuple[Sequential, tuple[Assumption, ...]]:
    """Do the same as `load_model`, but return the assumptions instead of warning about them."""
    kind = formats.kind_of_file(path) if format is None else checks.choice("format", format, formats.KINDS)
    if kind == "fastgru":
        if options:
            raise TypeError(
                f"{min(options)}: expected no options because the file is in fastgru's own format, got some"
            )
        config, tensors = native.load(path)
        model = Sequential.__new__(Sequential)
        model._take(*saving.from_file(path, config if compile else {**config, "compile": None}, tensors))
        return model, ()
    description = formats.read(path, kind, compile=compile, **options)
    with reading(path, "not a model that fastgru supports"):
        return Sequential.from_description(description), description.assumptions


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: None = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    format: str | None = None,
    **options: Any,
) -> Sequential:
    """Read a model that `Sequential.save` or another framework wrote.

    Parameters
    ----------
    filepath : path
        The format is detected from the contents of the file; see `fastgru.formats`.
    custom_objects
        Not supported: must be None or empty. Only fastgru's classes are supported in files.
    compile : bool
        Whether to compile the model like the saved one. Pass False to load a file whose optimizer, loss or metrics
        are not supported.
    safe_mode : bool
        Ignored. Code in a file is never executed.
    format : str, optional
        The file format, one of those that `fastgru.formats` lists, for files whose contents do not show it.
    **options
        Information that a PyTorch state_dict does not contain: ``pooling``, ``return_sequences``, ``activations`` and
        ``order``. The page "File formats" describes them.

    Warns
    -----
    AssumptionWarning
        The file and `options` do not determine the outputs of the model, as for most state_dicts without options. The
        warning lists the assumptions, and the options that confirm or replace them.

    Returns
    -------
    Sequential
        Compiled like the saved model, if the file contains an optimizer. The training of a model that `Sequential.save`
        wrote continues with bit-identical results.

    Raises
    ------
    ModelFileError
        The file is not a model, is damaged or inconsistent, or uses a feature that is not supported. The message names
        the feature.
    ImportError
        The file format needs an extra that is not installed.
    OSError
        The file cannot be read.
    """
    del safe_mode
    refuse_custom_objects(custom_objects)
    model, assumptions = read_model(filepath, compile=compile, format=format, **options)
    warn_of(filepath, assumptions)
    return model


def warn_of(path: str | os.PathLike[str], assumptions: Sequence[Assumption]) -> None:
    """Warn about the assumptions made for a file, if there are any, at the caller of `load_model`."""
    if assumptions:
        message = "\n".join([f"{os.fspath(path)}:", *list_assumptions(assumptions)])
        warnings.warn(AssumptionWarning(message, assumptions), stacklevel=3)


def model_from_json(json_string: str, custom_objects: None = None) -> Sequential:
    """Create a model with new weights from JSON. It is not compiled.

    Parameters
    ----------
    json_string : str
        The result of ``to_json``, here, in Keras 2 or 3, or in TensorFlow.js.
    custom_objects
        Not supported: must be None or empty.

    Raises
    ------
    ValueError
        The text does not describe a Sequential model, or uses a feature that is not supported.
    """
    from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

    refuse_custom_objects(custom_objects)
    return Sequential._from_topology(configs.model_from_json(json_string))


def clone_model(
    model: Sequential,
    input_tensors: None = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: None = None,
    recursive: bool = False,
) -> Sequential:
    """Create a model with the same layers and new weights. It is not compiled. Use `copy.deepcopy` to copy weights.

    Parameters
    ----------
    model : Sequential
        The model to clone. It does not change.
    input_tensors, call_function
        Not supported: must be None.
    clone_function : callable, optional
        Called with each layer; returns the layer of the new model. By default, a layer with the same options is
        created.
    recursive : bool
        Ignored. Models cannot contain models.
    """
    del recursive
    if not isinstance(model, Sequential):
        raise TypeError(f"model: expected a Sequential, got {type(model).__name__}")
    for name, value in (("input_tensors", input_tensors), ("call_function", call_function)):
        if value is not None:
            raise ValueError(f"{name}: expected None because models contain no Keras tensors, got some")
    copied = [_clone_layer(layer) if clone_function is None else clone_function(layer) for layer in model.layers]
    clone = Sequential(copied, model.trainable, model.name, dtype=model.dtype.name)
    if model.built and not clone.built:
        clone.build(model.input_shape)
    return clone


def _clone_layer(layer: Layer) -> Layer:
    return type(layer).from_options(layer.options(), name=layer.name)
