"""The weights of a TensorFlow.js model: a manifest in its JSON, and binary files ("shards") beside it.

A manifest is a list of groups. A group lists its shards, whose bytes are concatenated, and its tensors, which follow
each other in these bytes without gaps. Files are not trusted: shards must be in the folder of the JSON, and memory for
a tensor is allocated only if its bytes exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgru._support.files import open_regular, read_all, write_atomically
from fastgru.formats.checks import require, require_list, require_object, require_text
from fastgru.formats.description import Array

#: The size of the shards of TensorFlow.js' converters; browsers fetch several shards in parallel.
SHARD_BYTES = 4 * 2**20

#: Larger JSON files are not searched for names of shards; those of models have kilobytes.
_MOST_JSON_BYTES = 64 * 2**20

#: The types of weights and counters; the bytes are little-endian.
_DTYPES = {"float32": "<f4", "int32": "<i4"}
#: The types that float32 weights can be quantized to.
_QUANTIZED = {"uint8": "|u1", "uint16": "<u2", "float16": "<f2"}
#: No weight of a supported layer has more axes.
_MOST_AXES = 2


@dataclass
class StoredTensor:
    """A tensor of a manifest; `optimizer` is True if it belongs to the optimizer and not to a layer."""

    name: str
    array: Array
    optimizer: bool = False


# --- Reading --------------------------------------------------------------------------------------------------


def read(folder: Path, manifest: Any) -> list[StoredTensor]:
    """All tensors in the order of a manifest, dequantized; its shards are files in `folder`.

    Raises
    ------
    ValueError
        The manifest or a shard is damaged or malicious.
    """
    require(isinstance(manifest, list), "weightsManifest: expected a list of groups", manifest)
    tensors: list[StoredTensor] = []
    shards: set[str] = set()
    for number, group in enumerate(manifest):
        where = f"weightsManifest[{number}]"
        group = require_object(where, group)
        data = b"".join(_read_shards(folder, f"{where}.paths", group.get("paths"), shards))
        tensors += _read_group(f"{where}.weights", group.get("weights"), data)
    for name, count in Counter(tensor.name for tensor in tensors).items():
        if count > 1:
            raise ValueError(f"weightsManifest: expected different names, got {name!r} twice")
    return tensors


def _read_shards(folder: Path, where: str, names: Any, seen: set[str]) -> Iterator[bytes]:
    require(isinstance(names, list), f"{where}: expected a list of file names", names)
    for name in names:
        require(_is_plain(name), f"{where}: expected plain names of files beside the model", name)
        require(name not in seen, f"{where}: expected each file once", name)
        seen.add(name)
        yield _read_shard(folder, name)


def _is_plain(name: Any) -> bool:
    """Whether the name denotes a file in the same folder on every operating system."""
    return isinstance(name, str) and name.isprintable() and name not in ("", ".", "..") and not set(name) & set("/\\:")


def _read_shard(folder: Path, name: str) -> bytes:
    shard = os.path.realpath(folder / name)
    if os.path.dirname(shard) != os.path.realpath(folder):
        raise ValueError(f"{name}: expected a file beside the model, got a link that leads out of its folder")
    try:
        with open_regular(shard) as file:
            return read_all(file)
    except FileNotFoundError:
        raise ValueError(f"{name}: expected this file of weights beside the model, which is missing") from None


def _read_group(where: str, entries: Any, data: bytes) -> Iterator[StoredTensor]:
    offset = 0
    for number, entry in enumerate(require_list(where, entries)):
        entry = require_object(f"{where}[{number}]", entry)
        name = require_text(f"{where}[{number}].name", entry.get("name"))
        shape = _shape(name, entry.get("shape"))
        dtype = _stored_dtype(name, entry)
        count = math.prod(shape)  # Python's integers do not overflow
        if offset + dtype.itemsize * count > len(data):
            raise ValueError(
                f"{name}: expected {dtype.itemsize * count:,} bytes, got {len(data) - offset:,}, the rest of its group"
            )
        stored = np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += stored.nbytes
        yield StoredTensor(name, _unpacked(name, stored, entry), entry.get("group") == "optimizer")
    if offset < len(data):
        raise ValueError(f"{where}: expected {offset:,} bytes for all tensors, got {len(data):,}")


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    fits = isinstance(shape, list) and len(shape) <= _MOST_AXES
    fits = fits and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    require(fits, f"{name}: expected at most {_MOST_AXES} sizes as its shape", shape)
    return tuple(shape)


def _stored_dtype(name: str, entry: dict[str, Any]) -> np.dtype[Any]:
    """The dtype of a tensor in its shard."""
    dtype, quantization = entry.get("dtype"), entry.get("quantization")
    table = _DTYPES
    if quantization is not None:
        require(isinstance(quantization, dict), f"{name}: expected an object as its quantization", quantization)
        require(dtype == "float32", f"{name}: expected float32 because it is quantised", dtype)
        dtype, table = quantization.get("dtype"), _QUANTIZED
    require(isinstance(dtype, str) and dtype in table, f"{name}: expected one of {', '.join(table)} as dtype", dtype)
    return np.dtype(table[str(dtype)])


def _unpacked(name: str, stored: Array, entry: dict[str, Any]) -> Array:
    """The values of a tensor, float32 or int32, as TensorFlow.js computes them from the stored numbers."""
    if stored.dtype.kind != "u":
        return stored.astype(entry["dtype"])
    scale, least = (_finite(name, key, entry["quantization"].get(key)) for key in ("scale", "min"))
    with np.errstate(over="ignore", invalid="ignore"):
        values: Array = (stored * scale + least).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected quantised values that float32 can hold, got larger ones")
    return values


def _finite(name: str, key: str, value: Any) -> float:
    fits = type(value) in (int, float) and abs(value) <= sys.float_info.max
    require(fits, f"{name}: expected a finite number as its quantization's {key}", value)
    return float(value)


# --- Writing --------------------------------------------------------------------------------------------------


def manifest_and_shards(path: Path, tensors: Iterable[StoredTensor]) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """The manifest of the tensors of a model to be written to `path`, and its shards by name.

    The name of a shard contains a hash of its contents, so a manifest never names a file whose contents have changed.
    """
    tensors = list(tensors)
    data = b"".join(_bytes(tensor.array) for tensor in tensors)
    parts = [data[begin : begin + SHARD_BYTES] for begin in range(0, len(data), SHARD_BYTES)] or [b""]
    shards = {
        f"{_prefix(path)}-shard{number}of{len(parts)}-{hashlib.sha256(part).hexdigest()[:16]}.bin": part
        for number, part in enumerate(parts, 1)
    }
    entries = [
        {
            "name": tensor.name,
            "shape": list(tensor.array.shape),
            "dtype": str(tensor.array.dtype),
            **({"group": "optimizer"} if tensor.optimizer else {}),
        }
        for tensor in tensors
    ]
    return [{"paths": list(shards), "weights": entries}], shards


def _prefix(path: Path) -> str:
    """The beginning of the names of the shards, which is unique in the folder and valid in a URL."""
    plain = re.sub("[^A-Za-z0-9._-]", "_", path.stem)[:64]
    return plain if plain == path.stem else f"{plain}-{hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:8]}"


def _bytes(array: Array) -> bytes:
    return array.astype(_DTYPES[str(array.dtype)]).tobytes()


def write(path: Path, text: str, shards: dict[str, bytes], *, former: Iterable[str]) -> None:
    """Replace the model at `path`, so that a crash leaves the old model or the new one.

    The shards are written first, under names that the old model does not use for other contents. Then the JSON is
    replaced, and shards that only the old model used are removed, except those that another JSON in the folder names,
    such as a copy of the old one.

    Parameters
    ----------
    path : Path
    text : str
        The JSON.
    shards : dict of str to bytes
    former : iterable of str
        The result of `former_shards`.
    """
    former = set(former)
    data = text.encode()
    try:
        for name, shard in shards.items():
            write_atomically(path.parent / name, shard)
        write_atomically(path, data)
    except BaseException:
        if not _holds(path, data):
            _remove_unnamed(path.parent, shards.keys() - former)
        raise
    _remove_unnamed(path.parent, former - shards.keys())


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def former_shards(path: Path, manifest: Any) -> list[str]:
    """The shards of the model that is at `path` now, if `write` wrote them for it."""
    own = _own_shard(path)
    groups = manifest if isinstance(manifest, list) else []
    named = [group.get("paths") for group in groups if isinstance(group, dict)]
    names = [name for names in named if isinstance(names, list) for name in names if isinstance(name, str)]
    return [name for name in names if own.fullmatch(name) and (path.parent / name).is_file()]


def _own_shard(path: Path) -> re.Pattern[str]:
    """The names of the shards that `write` writes for the model at `path`."""
    return re.compile(re.escape(_prefix(path)) + r"-shard\d+of\d+-([0-9a-f]{16})\.bin")


def remove_stale(path: Path, current: Iterable[str]) -> None:
    """Remove the shards that a killed `write` of the model at `path` left, which no JSON in the folder names.

    Only files are removed that have the names of `write` for this path and the hash of their contents. Shards of a
    model whose JSON was renamed or copied have such names too, and stay because that JSON names them.
    """
    own = _own_shard(path)
    names = set(filter(own.fullmatch, os.listdir(path.parent))) - set(current)
    _remove_unnamed(path.parent, {name for name in names if _fits_its_name(path.parent / name)})


def _fits_its_name(shard: Path) -> bool:
    """Whether the hash in the name is the hash of the contents."""
    try:
        with open_regular(shard) as file:
            return hashlib.sha256(read_all(file)).hexdigest()[:16] == shard.stem[-16:]
    except OSError:
        return False


def _remove_unnamed(folder: Path, shards: Iterable[str]) -> None:
    """Remove the shards that no JSON in the folder names.

    The names are searched in the bytes, so that a damaged JSON, or one with another structure, keeps its shards.
    """
    unnamed = set(shards)
    for name in os.listdir(folder) if unnamed else ():
        if ".json" in name.lower():  # also model.json.bak, which the user may rename back
            data = _searchable(folder / name)
            unnamed = set() if data is None else {shard for shard in unnamed if os.fsencode(shard) not in data}
    for name in unnamed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / name)


def _searchable(path: Path) -> bytes | None:
    """The contents of a regular file, empty for other files; None if it cannot be read or is too large."""
    if not path.is_file():
        return b""
    try:
        with open_regular(path) as file:
            return read_all(file) if os.fstat(file.fileno()).st_size <= _MOST_JSON_BYTES else None
    except OSError:
        return None
