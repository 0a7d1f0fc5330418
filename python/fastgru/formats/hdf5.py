"""HDF5 from strangers and for them: arrays and texts by path, and no more of them than the file is large.

Nothing is walked through: every object is reached by a path that the caller knows, link by link, so that cycles and
depth do not matter. Needs h5py, which is imported when a file is opened.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: What h5py raises for files that are damaged in one way or another.
_DAMAGE = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
    SystemError,
)  # fmt: skip


class UnreadableError(ValueError):
    """A file is damaged, or holds something else than was expected; the message does not name the file."""


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'Keras\' files need h5py: pip install "fastgru[keras]" ({error})') from None
    return h5py


class Reader:
    """An HDF5 file in memory.

    Parameters
    ----------
    data : bytes
        All of it. No more than so many bytes are read as arrays, so that many names for one array do no harm.

    Raises
    ------
    UnreadableError
        It is no HDF5 file, or a damaged one.
    """

    def __init__(self, data: bytes) -> None:
        self._h5py = _h5py()
        self._size = self._left = len(data)
        try:
            self._file = self._h5py.File(io.BytesIO(data), "r")
        except _DAMAGE as error:
            raise UnreadableError(f"no HDF5 file, or a damaged one: {error}") from None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def has(self, path: str) -> bool:
        """Whether anything has that path."""
        return self._find(path) is not None

    def members(self, path: str) -> list[str]:
        """The names in a group, sorted; none if there is no such group."""
        group = self._find(path)
        if group is None:
            return []
        if not isinstance(group, self._h5py.Group):
            raise UnreadableError(f"{path}: expected a group")
        try:
            return sorted(group)
        except _DAMAGE as error:
            raise UnreadableError(f"{path}: damaged: {error}") from None

    def array(self, path: str) -> Array:
        """An array of numbers."""
        dataset = self._find(path)
        if dataset is None:
            raise UnreadableError(f"{path}: expected an array, which is missing")
        if not isinstance(dataset, self._h5py.Dataset):
            raise UnreadableError(f"{path}: expected an array")
        try:
            self._require_plain(path, dataset)
            return np.asarray(dataset[()])
        except UnreadableError:
            raise
        except _DAMAGE as error:
            raise UnreadableError(f"{path}: damaged: {error}") from None

    def _require_plain(self, path: str, dataset: Any) -> None:
        """Refuse an array that lies elsewhere, unpacks, is larger than the file, or is none of numbers."""
        h5d, how = self._h5py.h5d, dataset.id.get_create_plist()
        plain = how.get_layout() in (h5d.CONTIGUOUS, h5d.COMPACT) and not how.get_nfilters()
        if not plain or how.get_external_count():
            raise UnreadableError(f"{path}: expected an array that is stored plainly, as Keras does, got another")
        if dataset.shape is None or dataset.dtype.kind not in "fiu":
            raise UnreadableError(f"{path}: expected numbers, got {dataset.dtype} of shape {dataset.shape}")
        size = math.prod(dataset.shape) * dataset.dtype.itemsize
        if size > self._left:
            raise UnreadableError(
                f"{path}: refused because the file's arrays would take more than its own {self._size:,} bytes"
            )
        self._left -= size

    def text(self, path: str, name: str) -> str | None:
        """The text in an attribute; None if there is none."""
        values = self._attribute(path, name, 1)
        return None if values is None else _decoded(path, name, values[0])

    def texts(self, path: str, name: str, most: int) -> list[str] | None:
        """The texts in an attribute, which may be `most`; None if there are none.

        All may be the same bytes of the file, so that their number is what bounds their size.
        """
        values = self._attribute(path, name, most)
        return None if values is None else [_decoded(path, name, value) for value in values]

    def _attribute(self, path: str, name: str, most: int) -> list[Any] | None:
        here = self._find(path)
        if here is None:
            return None
        try:
            if name not in here.attrs:
                return None
            handle = here.attrs.get_id(name)
            count = math.prod(handle.shape)
            if count == 0:
                return []
            if count > most or count * handle.dtype.itemsize > self._size:
                raise UnreadableError(f"{path}: expected at most {most} texts as {name}, got {count}")
            if handle.dtype.kind not in "SO" or not self._h5py.check_string_dtype(handle.dtype):
                raise UnreadableError(f"{path}: expected text as {name}, got {handle.dtype}")
            return list(np.ravel(np.asarray(here.attrs[name], dtype=object)))
        except UnreadableError:
            raise
        except _DAMAGE as error:
            raise UnreadableError(f"{path}: its attribute {name} is damaged: {error}") from None

    def _find(self, path: str) -> Any:
        """The object at a path, or None; only what lies in this file itself is found."""
        here: Any = self._file
        try:
            for part in filter(None, path.split("/")):
                if not isinstance(here, self._h5py.Group):
                    return None
                link = here.get(part, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    raise UnreadableError(f"{path}: expected an object of the file, got a link to elsewhere")
                here = here[part]
        except UnreadableError:
            raise
        except _DAMAGE as error:
            raise UnreadableError(f"{path}: damaged: {error}") from None
        return here


def _decoded(path: str, name: str, value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UnreadableError(f"{path}: expected UTF-8 as {name}") from None
    if not isinstance(value, str):
        raise UnreadableError(f"{path}: expected text as {name}, got {type(value).__name__}")
    return value


def to_bytes(
    arrays: Mapping[str, Array], attributes: Mapping[str, Mapping[str, str | Sequence[str]]] | None = None
) -> bytes:
    """An HDF5 file with arrays and attributes at the paths given; its bytes follow from these alone."""
    h5py = _h5py()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file.create_dataset(path, data=array)
        for path, values in (attributes or {}).items():
            group = file.require_group(path or "/")
            for name, value in values.items():
                group.attrs[name] = value.encode() if isinstance(value, str) else _encoded(value)
    return buffer.getvalue()


def _encoded(texts: Sequence[str]) -> Array:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1)}")
