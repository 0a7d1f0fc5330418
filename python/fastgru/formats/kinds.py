"""The list of file formats, their detection, and the modules that read and write them."""

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
from fastgru.formats.scaling import without_uint8_only

#: Format -> the endings of its file names. Longer endings come before endings that they contain.
KINDS: dict[str, tuple[str, ...]] = {
    "torch": (".torch.safetensors", ".pt", ".pth"),
    "fastgru": (".safetensors",),
    "keras": (".keras",),
    "keras_h5": (".h5", ".hdf5"),
    "onnx": (".onnx",),
    "rtneural": (".rtneural.json",),
    "tfjs": (".json",),
}
#: The ending of Keras files that hold weights without a model.
WEIGHTS_ALONE = ".weights.h5"

_HDF5 = b"\x89HDF\r\n\x1a\n"
#: Larger JSON files are not read: configurations are smaller.
_MOST_JSON = 256 * 2**20


def kind_of_name(path: str | os.PathLike[str]) -> str:
    """Return the format for the ending of a file name; ``fastgru`` if the name has no ending."""
    check_path(path)
    name = os.fspath(path).lower()
    if name.endswith(WEIGHTS_ALONE):
        raise ValueError(
            f"filepath: expected the name of a model file because {WEIGHTS_ALONE} files contain only weights, got "
            f"{path}; use save_weights"
        )
    for kind, endings in KINDS.items():
        if name.endswith(endings):
            return kind
    if not Path(path).suffix:
        return "fastgru"
    endings = tuple(ending for each in KINDS.values() for ending in each)
    raise ValueError(
        f"filepath: expected a name that ends in {', '.join(endings)}, got {os.fspath(path)}; change it, or pass "
        f"format="
    )


def weights_kind(path: str | os.PathLike[str], *, reading: bool = False) -> str:
    """Return the format of a weights file, ``fastgru`` or ``keras``, from its name; for `reading`, also of a model."""
    check_path(path)
    name = os.fspath(path).lower()
    if name.endswith(".safetensors"):
        return "fastgru"
    endings = (".h5", ".hdf5", ".keras") if reading else (".h5", ".hdf5")
    if not reading and not name.endswith(endings):
        raise ValueError(
            f"filepath: expected a name that ends in .safetensors, {WEIGHTS_ALONE} or .h5, got {os.fspath(path)}; "
            f"change it, or save the whole model"
        )
    if name.endswith(tuple(ending for kind in ("torch", "onnx", "tfjs") for ending in KINDS[kind])):
        raise ValueError(
            f"filepath: expected a file of fastgru or Keras because only these are read for weights alone, got "
            f"{os.fspath(path)}; call set_weights(fastgru.load_model({os.path.basename(path)!r}).get_weights())"
        )
    return "keras"


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """Detect the format of a file from its contents; a folder with a ``model.json`` is a TensorFlow.js model.

    The name is used for ONNX files only, whose contents do not always identify them.

    Raises
    ------
    ModelFileError
        The format is not supported.
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
        raise ModelFileError(
            f"{os.fspath(path)}: expected a model file, got a zip archive that is neither Keras' nor PyTorch's"
        )
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return _safetensors_kind(path)
    if start.startswith(b"\x80"):  # a pickle, from before PyTorch 1.6
        return "torch"
    if start.lstrip()[:1] == b"{":
        return _json_kind(path)
    # ir_version comes first in most ONNX models, but the fields of a protobuf may be in any order.
    if start[:1] == b"\x08" or os.fspath(path).lower().endswith(KINDS["onnx"]):
        return "onnx"
    raise ModelFileError(
        f"{os.fspath(path)}: expected a model file of one of the formats {', '.join(KINDS)}, got another file, or a "
        f"damaged one"
    )


def _safetensors_kind(path: str | os.PathLike[str]) -> str:
    """``fastgru`` or ``torch``, which the metadata in the header decides."""
    try:
        with model_file(path) as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(size, os.fstat(file.fileno()).st_size))).get("__metadata__") or {}
            own = metadata.get("format") == "fastgru" or "sha256" in metadata
    except ModelFileError:
        return "fastgru"  # its reader explains what is damaged
    return "fastgru" if own else "torch"


def _json_kind(path: str | os.PathLike[str]) -> str:
    with model_file(path) as file:
        if os.fstat(file.fileno()).st_size > _MOST_JSON:
            raise ValueError(
                f"expected at most {_MOST_JSON:,} bytes because configurations are smaller, got a larger JSON file"
            )
        content = parse_json(read_all(file))
        for kind, key in (("tfjs", "modelTopology"), ("rtneural", "layers")):
            if key in content:
                return kind
        raise ValueError(
            "expected JSON of TensorFlow.js, with modelTopology, or of RTNeural, with layers, got other JSON"
        )


def read(path: str | os.PathLike[str], kind: str, *, compile: bool = True, **options: Any) -> ModelDescription:
    """Read a file of any format but ``fastgru``; with ``compile=False``, without optimizer, loss and metrics.

    Raises
    ------
    TypeError
        The reader of the format does not have an option.
    """
    function = _module(kind).read
    parameters = inspect.signature(function).parameters
    unknown = options.keys() - parameters.keys()
    if unknown:
        raise TypeError(f"{min(unknown)}: expected no such option because the format is {kind}, got one; leave it out")
    if "compile" in parameters:
        options["compile"] = compile
    description: ModelDescription = function(path, **options)
    return description if compile else dataclasses.replace(description, training=None)


def write(path: str | os.PathLike[str], description: ModelDescription, kind: str) -> None:
    """Write the model to a file of any format but ``fastgru``; a `Rescaling` with ``uint8_only`` is left out."""
    module = _module(kind)
    description = dataclasses.replace(description, layers=without_uint8_only(description.layers))
    (module.write_h5 if kind == "keras_h5" else module.write)(path, description)


def read_weights(path: str | os.PathLike[str], layers: list[LayerDescription]) -> dict[str, NDArray[Any]]:
    """Read the weights of these layers, by ``layer/weight``, from a Keras weights file or model file."""
    return _module("keras").read_weights(path, layers)  # type: ignore[no-any-return]


def write_weights(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the weights of a model to a Keras weights file."""
    for layer in description.layers:
        if list(layer.weights) != layer.weight_names:
            reason = f"which stores {', '.join(layer.weight_names) or 'no weights'}, not {', '.join(layer.weights)}"
            raise unsupported(layer.name, layer.class_name, "a file of weights", reason)
    _module("keras").write_weights(path, description)


def _module(kind: str) -> Any:
    """The module that reads and writes a format; imported when it is needed, to keep ``import fastgru`` fast."""
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
