"""Files of PyTorch state_dicts, which hold names and arrays: safetensors files and archives of ``torch.save``.

An archive is a zip file with one folder that contains

- ``data.pkl``: a pickle of the dict, read and written by `fastgru.formats.torch.pickles`, which executes nothing,
- ``data/<key>``: the numbers of one storage; tensors are views of storages,
- ``byteorder``, ``version``,
- if fastgru wrote it, ``fastgru.json``, which PyTorch ignores. In safetensors files it is ``fastgru`` in the metadata.

PyTorch before 1.6 wrote five pickles (a magic number, a version, the system, the dict, the keys of the storages) and
then the storages in the order of the keys, each after its size. Such files are read, but not written.

float16 and bfloat16 are widened to float32, which is exact.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgru._support.files import open_regular, read_all, write_atomically
from fastgru.formats.archives import Archive, to_bytes
from fastgru.formats.boundary import model_file, reading
from fastgru.formats.description import Array, ModelFileError
from fastgru.formats.torch import pickles
from fastgru.formats.torch.pickles import Call, ForeignError, Global, Persistent, PickleError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_AXES = 8
_LARGEST = 2**63
_ENTRY = "fastgru"

#: Type of a storage in a pickle -> the type of its numbers. Checkpoints hold integers beside weights.
_STORAGES = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bf2",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "b1",
}
_SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf2"}
_STORAGE_OF = {np.dtype(np.float32): "FloatStorage", np.dtype(np.float64): "DoubleStorage"}
_BYTE_ORDERS = {b"little": "<", b"big": ">"}


@dataclass
class StateDict:
    """The contents of a file.

    Attributes
    ----------
    tensors : dict of str to ndarray
        float32 or float64, read-only. Tensors may share memory, but their total size is at most twice that of the
        storages in the file.
    ordered : bool
        Whether the order of the tensors is that of the modules in the model.
    description : str or None
        The description that was passed to `write`; None if another program wrote the file.
    """

    tensors: dict[str, Array]
    ordered: bool
    description: str | None


def read(path: str | os.PathLike[str]) -> StateDict:
    """Read the state_dict in a file, whose type is detected from its contents.

    Raises
    ------
    ModelFileError
        The file has other contents, or is damaged.
    """
    with open_regular(path) as file:
        start, size = file.read(9), os.fstat(file.fileno()).st_size
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        return _read_archive(path)
    if start.startswith(b"\x80"):
        return _read_legacy(path)
    raise ModelFileError(
        f"{os.fspath(path)}: expected a safetensors file or an archive of torch.save, got another or a damaged file"
    )


def write(path: str | os.PathLike[str], tensors: dict[str, Array], description: str) -> None:
    """Write a state_dict: ``*.pt`` and ``*.pth`` as ``torch.save`` does, anything else as safetensors.

    Parameters
    ----------
    path : path
    tensors : dict of str to ndarray
        float32 or float64.
    description : str
        Stored beside the tensors, where PyTorch ignores it.
    """
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    if os.fspath(path).lower().endswith((".pt", ".pth")):
        write_atomically(path, _archive_bytes(tensors, description))
    else:
        from safetensors.numpy import save as safetensors_bytes

        write_atomically(path, safetensors_bytes(tensors, metadata={_ENTRY: description}))


def _decoded(data: bytes, code: str, byte_order: str = "<") -> Array:
    if code == "bf2":  # the upper half of a float32
        return (np.frombuffer(data, f"{byte_order}u2").astype(np.uint32) << 16).view(np.float32)
    numbers = np.frombuffer(data, byte_order + code)
    return numbers.astype(np.float64 if code == "f8" else np.float32, copy=False)


# --- safetensors --------------------------------------------------------------------------------------------------


def _read_safetensors(path: str | os.PathLike[str]) -> StateDict:
    from safetensors import deserialize

    with model_file(path) as file:
        data = read_all(file)
        entries = deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = {}
        for name, entry in entries:
            if entry["dtype"] not in _SAFETENSORS:
                raise ValueError(f"{name!r}: expected one of {', '.join(_SAFETENSORS)}, got {entry['dtype']}")
            if 0 in entry["shape"]:
                raise ValueError(f"{name!r}: expected some numbers, got shape {entry['shape']}")
            tensors[name] = _decoded(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
        return StateDict(tensors, ordered=False, description=(header.get("__metadata__") or {}).get(_ENTRY))


# --- Archives of torch.save ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The index after the last number that the tensor uses."""
        return self.offset + 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


def _read_archive(path: str | os.PathLike[str]) -> StateDict:
    with Archive(path) as archive, reading(path):
        folder = _folder(archive)
        found = _load(io.BytesIO(archive.read(f"{folder}data.pkl")), _storage)
        order = _byte_order(archive, folder)
        tensors = _arrays(_chosen_tensors(found), lambda key: archive.read(f"{folder}data/{key}"), order)
        description = None
        if f"{folder}{_ENTRY}.json" in archive.names:
            description = archive.read(f"{folder}{_ENTRY}.json").decode(errors="replace")
    return StateDict(tensors, ordered=True, description=description)


def _read_legacy(path: str | os.PathLike[str]) -> StateDict:
    with open_regular(path) as file:
        stream = io.BytesIO(read_all(file))
    storages: dict[str, _Storage] = {}

    def remember(identity: Any) -> _Storage:
        storage = _storage(identity)
        return storages.setdefault(storage.key, storage)

    with reading(path):
        if _load(stream, remember) != _LEGACY_MAGIC:
            raise ForeignError("expected a file of torch.save, got another pickle")
        _, system, found, keys = (_load(stream, remember) for _ in range(4))
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise PickleError(
                "expected numbers in little-endian order, got a file of PyTorch before 1.6 from a big-endian system"
            )
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
            raise PickleError("damaged: expected the keys of its storages")
        contents = {key: _legacy_content(stream, storages[key]) for key in keys}
        tensors = _arrays(_chosen_tensors(found), lambda key: contents.get(key, b""), "<")
    return StateDict(tensors, ordered=True, description=None)


def _legacy_content(stream: io.BytesIO, storage: _Storage) -> bytes:
    size = int.from_bytes(stream.read(8), "little")
    if size != storage.size:
        raise PickleError(f"damaged: expected a storage of {storage.size} numbers, got {size}")
    return stream.read(min(size * _width(storage), stream.getbuffer().nbytes))


def _load(stream: io.BytesIO, persistent: Callable[[Any], _Storage]) -> Any:
    return pickles.load(stream, calls=_CALLS, names=_STORAGES, persistent=persistent)


def _folder(archive: Archive) -> str:
    """The folder of all files in the archive."""
    found = [name.removesuffix("data.pkl") for name in archive.names if f"/{name}".endswith("/data.pkl")]
    if len(found) != 1:
        raise PickleError(f"expected an archive with one data.pkl, got {len(found)}")
    if f"{found[0]}constants.pkl" in archive.names:
        raise ForeignError("expected a state_dict, got a TorchScript program")
    return found[0]


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", Global() as kind, str(key), str(), int(size), *view):
            if str(kind) in _STORAGES and 0 <= size < _LARGEST and view in ([], [None]):
                return _Storage(str(kind), key, size)
    raise PickleError("damaged: expected a storage's kind, key and size")


def _tensor(arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_Storage() as storage, offset, tuple(shape), tuple(strides), bool(), dict(), *more) if not any(more):
            numbers = (offset, *shape, *strides)
            if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < _LARGEST for n in numbers):
                raise PickleError("damaged: a tensor whose offset, shape and strides are not integers of at least 0")
            if len(shape) > _MOST_AXES:
                raise PickleError(f"damaged: a tensor of {len(shape)} axes")
            return _Tensor(storage, offset, shape, strides)
    raise ForeignError("expected tensors that are views of storages, got another one")


def _parameter(arguments: tuple[Any, ...]) -> _Tensor:
    if arguments and isinstance(arguments[0], _Tensor):
        return arguments[0]
    raise PickleError("damaged: a parameter without a tensor")


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise PickleError("damaged: expected an OrderedDict that begins empty")
    return {}


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    match arguments:
        case (tuple(sizes),):
            return sizes
    raise PickleError("damaged: expected a torch.Size of a tuple")


_ORDERED_DICT = Global("collections", "OrderedDict")
_REBUILD_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
#: The functions that the pickle of a state_dict calls -> their replacements.
_CALLS = {
    str(_ORDERED_DICT): _ordered_dict,
    str(_REBUILD_TENSOR): _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
}


def _chosen_tensors(found: Any) -> dict[str, _Tensor]:
    """The state_dict that was saved, or the only one in the dictionary of a checkpoint."""
    if _is_state_dict(found):
        return found  # type: ignore[no-any-return]
    if not isinstance(found, dict):
        raise ForeignError(f"expected a state_dict, got a {type(found).__name__.lstrip('_').lower()}")
    inside = [key for key, value in found.items() if _is_state_dict(value)]
    if len(inside) != 1:
        which = f"{len(inside)}: {', '.join(map(repr, inside))}" if inside else "none"
        raise ForeignError(f"expected a state_dict, or a checkpoint with one in it, got one with {which:.300}")
    return found[inside[0]]  # type: ignore[no-any-return]


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in value.items())
    )


def _arrays(tensors: dict[str, _Tensor], content: Callable[[str], bytes], byte_order: str) -> dict[str, Array]:
    """The tensors as views of the storages; `content` returns the bytes of a storage."""
    storages: dict[_Storage, Array] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if _STORAGES[storage.kind] not in _SAFETENSORS.values():
            raise PickleError(f"{name!r}: expected floating-point numbers, got a {storage.kind}")
        if 0 in tensor.shape:
            raise PickleError(f"{name!r}: expected some numbers, got shape {tensor.shape}")
        if tensor.end > storage.size:
            raise PickleError(f"{name!r}: damaged: it reaches beyond its storage of {storage.size} numbers")
        if storage not in storages:
            storages[storage] = _numbers(storage, content(storage.key), byte_order)
    size, most = sum(tensor.size for tensor in tensors.values()), 2 * sum(len(array) for array in storages.values())
    if size > most:
        raise PickleError(f"expected tensors of at most twice the size of their storages, got {size:,} numbers")
    return {name: _view(storages[tensor.storage], tensor) for name, tensor in tensors.items()}


def _numbers(storage: _Storage, content: bytes, byte_order: str) -> Array:
    expected = storage.size * _width(storage)
    if len(content) != expected:
        raise PickleError(f"storage {storage.key[:50]!r}: expected {expected} bytes, got {len(content)}")
    return _decoded(content, _STORAGES[storage.kind], byte_order)


def _width(storage: _Storage) -> int:
    """Bytes of a number."""
    return int(_STORAGES[storage.kind][-1])


def _byte_order(archive: Archive, folder: str) -> str:
    name = f"{folder}byteorder"
    found = archive.read(name) if name in archive.names else b"little"  # PyTorch before 2.1 did not store it
    if found not in _BYTE_ORDERS:
        raise PickleError(f"byteorder: expected little or big, got {found[:20]!r}")
    return _BYTE_ORDERS[found]


def _view(numbers: Array, tensor: _Tensor) -> Array:
    moves = (0 if n == 1 else stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    strides = tuple(move * numbers.itemsize for move in moves)
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)


def _archive_bytes(tensors: dict[str, Array], description: str) -> bytes:
    state_dict = {name: _pickled(array, str(key)) for key, (name, array) in enumerate(tensors.items())}
    files = {"data.pkl": pickles.dump(state_dict), "byteorder": b"little"}
    for key, array in enumerate(tensors.values()):
        files[f"data/{key}"] = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    files |= {"version": b"3\n", f"{_ENTRY}.json": description.encode()}
    return to_bytes({f"archive/{name}": content for name, content in files.items()})


def _pickled(array: Array, key: str) -> Call:
    """The pickled form of a tensor in a file of ``torch.save``."""
    identity = ("storage", Global("torch", _STORAGE_OF[array.dtype]), key, "cpu", array.size)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    hooks = Call(_ORDERED_DICT, ())
    return Call(_REBUILD_TENSOR, (Persistent(identity), 0, array.shape, strides, False, hooks))
