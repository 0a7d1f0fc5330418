"""fastgru's own model files: safetensors files with the configuration and a checksum in the metadata of the header.

Any safetensors reader can read the tensors. ``__metadata__`` holds

- ``format``: ``"fastgru"``, ``format_version``: ``"2"``; in version 1, models divided uint8 input by 255,
- ``config``: JSON, see `fastgru.Sequential.save`,
- ``sha256``: the checksum of the configuration and of the name, dtype, shape and bytes of every tensor, which detects
  a flipped bit anywhere.

A file contains no code. It is read completely, or an error is raised.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np

from fastgru._support.files import read_all, write_atomically
from fastgru.formats.boundary import model_file, reading
from fastgru.formats.checks import parse_json, require_object
from fastgru.formats.description import Array, ModelFileError
from fastgru.formats.scaling import FORMAT_VERSION

_READ_VERSIONS = ("1", str(FORMAT_VERSION))
#: The format in the metadata of a file that contains weights only.
WEIGHTS_FORMAT = "fastgru weights"

#: The key of an object that replaces an array in the configuration.
_ARRAY = "array in tensors"


def _checksum(config: str, tensors: dict[str, Array]) -> str:
    digest = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def split_arrays(name: str, value: Any) -> tuple[Any, dict[str, Array]]:
    """Split `value` into what JSON can hold, and its arrays by the numbers that replace them.

    NumPy scalars become Python numbers, and tuples become lists.

    Raises
    ------
    TypeError
        `value` contains something else than numbers, strings, lists, dicts and arrays; the message begins with `name`.
    """
    arrays: dict[str, Array] = {}

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            number = str(len(arrays))
            arrays[number] = value.astype(value.dtype.newbyteorder("="), copy=False)
            return {_ARRAY: number}
        if isinstance(value, dict) and all(isinstance(key, str) and key != _ARRAY for key in value):
            return {key: plain(f"{name}[{key!r}]", each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(f"{name}[{number}]", each) for number, each in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(
            f"{name}: expected numbers, strings, lists, arrays of numbers, or dicts of them with strings as keys, "
            f"because it is written to a file, got {type(value).__name__} {value!r:.100}"
        )

    return plain(name, value), arrays


def join_arrays(value: Any, arrays: dict[str, Array]) -> Any:
    """The inverse of `split_arrays`."""
    if isinstance(value, list):
        return [join_arrays(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_ARRAY}:
        return arrays[value[_ARRAY]]
    return {key: join_arrays(each, arrays) for key, each in value.items()}


def save(path: str | os.PathLike[str], config: dict[str, Any], tensors: dict[str, Array]) -> None:
    """Write a model file, atomically.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    config : dict
        Must be expressible in JSON.
    tensors : dict of str to ndarray
    """
    from safetensors.numpy import save as to_bytes

    text = json.dumps(config, sort_keys=True)
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    metadata = {
        "format": "fastgru",
        "format_version": str(FORMAT_VERSION),
        "config": text,
        "sha256": _checksum(text, tensors),
    }
    write_atomically(path, _with_sorted_metadata(to_bytes(tensors, metadata=metadata)))


def save_weights(path: str | os.PathLike[str], weights: dict[str, Array]) -> None:
    """Write a file of weights by name, atomically; any safetensors reader reads it."""
    from safetensors.numpy import save as to_bytes

    weights = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    metadata = {"format": WEIGHTS_FORMAT, "sha256": _checksum("", weights)}
    write_atomically(path, _with_sorted_metadata(to_bytes(weights, metadata=metadata)))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the weights by ``layer/weight`` in a file of `save_weights`, of a model, or of another program.

    Raises
    ------
    ModelFileError
        The file is damaged or not a safetensors file.
    OSError
        The file cannot be read.
    """
    with model_file(path, "not a safetensors file, or a damaged one") as file:
        tensors, metadata = _parse(read_all(file))
        if "sha256" in metadata:
            _require_checksum(path, metadata, tensors)
        if metadata.get("format") != "fastgru":
            return tensors
        _require_known_format(path, metadata)
        return {name.removeprefix("layers/"): a for name, a in tensors.items() if name.startswith("layers/")}


def _with_sorted_metadata(data: bytes) -> bytes:
    """Sort the metadata of a file, so that equal contents give equal bytes; safetensors does not sort it."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the configuration and the tensors of a model file.

    Raises
    ------
    ModelFileError
        The file is not a fastgru model, has a newer format version, or is damaged.
    OSError
        The file cannot be read.
    """
    with model_file(path, "not a model file, or a damaged one") as file:
        tensors, metadata = _parse(read_all(file))
        _require_known_format(path, metadata)
        _require_checksum(path, metadata, tensors)
    with reading(path):
        return require_object("config", parse_json(metadata["config"], "config")), tensors


def _parse(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file."""
    from safetensors.numpy import load as from_bytes

    tensors = from_bytes(data)  # first, because it checks the header
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header.get("__metadata__") or {}


def _require_checksum(path: str | os.PathLike[str], metadata: dict[str, str], tensors: dict[str, Array]) -> None:
    if _checksum(metadata.get("config", ""), tensors) != metadata["sha256"]:
        raise ModelFileError(f"{os.fspath(path)}: damaged: its checksum does not match its contents")


def _require_known_format(path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    if metadata.get("format") == WEIGHTS_FORMAT:
        raise ModelFileError(
            f"{os.fspath(path)}: weights without a model: make the model, and pass the file to its load_weights"
        )
    if metadata.get("format") != "fastgru" or not {"config", "sha256"} <= metadata.keys():
        raise ModelFileError(
            f"{os.fspath(path)}: expected a model that fastgru saved, got a safetensors file without its configuration"
        )
    if metadata.get("format_version") not in _READ_VERSIONS:
        raise ModelFileError(
            f"{os.fspath(path)}: expected format version {' or '.join(_READ_VERSIONS)}, got "
            f"{metadata.get('format_version')}; install a newer fastgru"
        )
