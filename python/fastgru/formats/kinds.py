"""Which kind a file is, and who reads and writes it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastgru._support.files import check_path, open_regular, read_all
from fastgru.formats.archives import Archive
from fastgru.formats.boundary import model_file
from fastgru.formats.checks import parse_json, unsupported
from fastgru.formats.description import LayerDescription, ModelDescription, ModelFileError

#: Kind -> how its files' names end. Longer endings come before those that they contain.
KINDS: dict[str, tuple[str, ...]] = {
    "torch": (".torch.safetensors", ".pt", ".pth"),
    "fastgru": (".safetensors",),
    "keras": (".keras",),
    "keras_h5": (".h5", ".hdf5"),
    "onnx": (".onnx",),
    "rtneural": (".rtneural.json",),
    "tfjs": (".json",),
}
#: Of Keras' weights without a model.
WEIGHTS_ALONE = ".weights.h5"

_HDF5 = b"\x89HDF\r\n\x1a\n"
#: A file of JSON is looked into no further: configurations are smaller.
_MOST_JSON = 256 * 2**20


def kind_of_name(path: str | os.PathLike[str]) -> str:
    """The kind that a file's name asks for; a name without an ending asks for this package's own."""
    check_path(path)
    name = os.fspath(path).lower()
    if name.endswith(WEIGHTS_ALONE):
        raise ValueError(f"path: {WEIGHTS_ALONE} holds weights without a model; use save_weights for {path}")
    for kind, endings in KINDS.items():
        if name.endswith(endings):
            return kind
    if not Path(path).suffix:
        return "fastgru"
    endings = tuple(ending for each in KINDS.values() for ending in each)
    raise ValueError(f"path: expected a name that ends in {', '.join(endings)}, or format=, got {os.fspath(path)}")


def weights_kind(path: str | os.PathLike[str], *, reading: bool = False) -> str:
    """The kind of a file of weights alone, ``fastgru`` or ``keras``, from its name; to read, of a model, too."""
    check_path(path)
    name = os.fspath(path).lower()
    if name.endswith(".safetensors"):
        return "fastgru"
    endings = (".h5", ".hdf5", ".keras") if reading else (".h5", ".hdf5")
    if not reading and not name.endswith(endings):
        raise ValueError(
            f"path: expected a name that ends in .safetensors, {WEIGHTS_ALONE} or .h5, got {os.fspath(path)}"
        )
    return "keras"


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """The kind of a file, from its contents; a folder with a ``model.json`` is TensorFlow.js'.

    Only of an ONNX model the name is believed, where the contents show nothing else.

    Raises
    ------
    ModelFileError
        It is none that is known here.
    OSError
        The file cannot be read.
    """
    check_path(path)
    if os.path.isdir(path):
        if (Path(path) / "model.json").is_file():
            return "tfjs"
        raise IsADirectoryError(
            f"{os.fspath(path)}: expected a file, or a folder with a model.json, got another folder"
        )
    with open_regular(path) as file:
        start, size, archived = file.read(512), os.fstat(file.fileno()).st_size, zipfile.is_zipfile(file)
    if os.fspath(path).lower().endswith(KINDS["fastgru"]):
        return _safetensors_kind(path)
    if start.startswith(_HDF5):
        return "keras_h5"
    if archived:
        with Archive(path) as archive:
            names = archive.names
        if "config.json" in names and "model.weights.h5" in names:
            return "keras"
        if any(name.endswith("data.pkl") for name in names):
            return "torch"
        raise ModelFileError(f"{os.fspath(path)}: a zip archive, but neither Keras' nor PyTorch's")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return _safetensors_kind(path)
    if start.startswith(b"\x80"):  # a pickle, from before PyTorch 1.6
        return "torch"
    if start.lstrip()[:1] == b"{":
        return _json_kind(path)
    # ir_version comes first in most ONNX models, but the fields of a protobuf may stand in any order.
    if start[:1] == b"\x08" or os.fspath(path).lower().endswith(KINDS["onnx"]):
        return "onnx"
    raise ModelFileError(f"{os.fspath(path)}: not a model file of a kind known here ({', '.join(KINDS)}), or damaged")


def _safetensors_kind(path: str | os.PathLike[str]) -> str:
    """Own or another's: the header says so."""
    try:
        with model_file(path) as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(size, os.fstat(file.fileno()).st_size))).get("__metadata__") or {}
            own = metadata.get("format") == "fastgru" or "sha256" in metadata
    except ModelFileError:
        return "fastgru"  # whose reader says what is wrong
    return "fastgru" if own else "torch"


def _json_kind(path: str | os.PathLike[str]) -> str:
    with model_file(path) as file:
        if os.fstat(file.fileno()).st_size > _MOST_JSON:
            raise ValueError("larger than any model in JSON that is read here")
        content = parse_json(read_all(file))
        for kind, key in (("tfjs", "modelTopology"), ("rtneural", "layers")):
            if key in content:
                return kind
        raise ValueError("JSON, but neither TensorFlow.js' (no modelTopology) nor RTNeural's (no layers)")


def read(path: str | os.PathLike[str], kind: str, *, compile: bool = True, **options: Any) -> ModelDescription:
    """The model in a file of that kind, any but ``fastgru``; without `compile`, not how it is trained.

    Raises
    ------
    TypeError
        An option is not one of the kind's ``read``.
    """
    function = _module(kind).read
    parameters = inspect.signature(function).parameters
    unknown = options.keys() - parameters.keys()
    if unknown:
        raise TypeError(f"{min(unknown)}: expected no such option because the file is of the kind {kind}, got one")
    if "compile" in parameters:
        options["compile"] = compile
    description: ModelDescription = function(path, **options)
    return description if compile else dataclasses.replace(description, training=None)


def write(path: str | os.PathLike[str], description: ModelDescription, kind: str) -> None:
    """Write the model to a file of that kind, any but ``fastgru``."""
    module = _module(kind)
    (module.write_h5 if kind == "keras_h5" else module.write)(path, description)


def read_weights(path: str | os.PathLike[str], layers: list[LayerDescription]) -> dict[str, NDArray[Any]]:
    """The weights for these layers, by ``layer/weight``, in one of Keras' files of weights or of a model."""
    return _module("keras").read_weights(path, layers)  # type: ignore[no-any-return]


def write_weights(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write a model's weights alone, to one of Keras' files."""
    for layer in description.layers:
        if list(layer.weights) != layer.weight_names:
            reason = f"which keeps {', '.join(layer.weight_names) or 'nothing'} of it, not {', '.join(layer.weights)}"
            raise unsupported(layer.name, layer.class_name, "a file of weights", reason)
    _module("keras").write_weights(path, description)


def _module(kind: str) -> Any:
    """Who reads and writes the kind; imported only now, so that `fastgru` is imported fast."""
    match kind:
        case "tfjs":
            from fastgru.formats import tfjs as module
        case "keras" | "keras_h5":
            from fastgru.formats import keras as module  # type: ignore[no-redef]
        case "torch":
            from fastgru.formats import torch as module  # type: ignore[no-redef]
        case "onnx":
            from fastgru.formats import onnx as module  # type: ignore[no-redef]
        case "rtneural":
            from fastgru.formats import rtneural as module  # type: ignore[no-redef]
        case _:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)} but fastgru, got {kind!r}")
    return module
