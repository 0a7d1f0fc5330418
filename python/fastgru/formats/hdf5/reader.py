"""Reading of arrays and texts by path from an HDF5 file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru.formats.hdf5.objects import Attribute, Object
from fastgru.formats.hdf5.storage import Storage, UnreadableError

Array = NDArray[Any]


class Reader:
    """An HDF5 file in memory.

    Parameters
    ----------
    data : bytes
        The whole file. The arrays that are read have at most this size in total, even if one has many names.

    Raises
    ------
    UnreadableError
        The data are not an HDF5 file, or are damaged.
    """

    def __init__(self, data: bytes) -> None:
        self._storage = Storage(data)
        self._left = len(data)
        self._objects: dict[int, Object] = {}
        self._texts: dict[bytes, str] = {}

    def has(self, path: str) -> bool:
        """Whether an object has this path."""
        return self._find(path) is not None

    def members(self, path: str) -> list[str]:
        """The sorted names of the members of a group; empty if there is no such group."""
        group = self._find(path)
        if group is None:
            return []
        if not group.is_group:
            raise UnreadableError(f"{path}: expected a group")
        return sorted(group.members)

    def array(self, path: str) -> Array:
        """An array of numbers."""
        found = self._find(path)
        if found is None:
            raise UnreadableError(f"{path}: expected an array, which is missing")
        if not found.is_array:
            raise UnreadableError(f"{path}: expected an array")
        datatype, shape = found.datatype, found.shape
        if shape is None or datatype.numbers is None:
            raise UnreadableError(f"{path}: expected numbers, got {datatype} of shape {shape}")
        size = math.prod(shape) * datatype.size
        if size > self._left:
            raise UnreadableError(
                f"{path}: expected arrays of at most {self._storage.size:,} bytes, the size of the file, got more"
            )
        elements = found.elements(size)
        if elements is None:
            raise UnreadableError(
                f"{path}: expected an array stored in one piece without compression, as Keras writes it"
            )
        self._left -= size
        return np.frombuffer(elements, datatype.numbers).reshape(shape).copy()

    def text(self, path: str, name: str) -> str | None:
        """The text in an attribute; None if there is no such attribute."""
        values = self.texts(path, name, 1)
        return values[0] if values else None

    def texts(self, path: str, name: str, most: int) -> list[str] | None:
        """The texts in an attribute, at most `most`; None if there is no such attribute."""
        here = self._find(path)
        found = None if here is None else here.attribute(name)
        if found is None:
            return None
        count = 0 if found.shape is None else math.prod(found.shape)
        if count == 0:
            return []
        if count > most:
            raise UnreadableError(f"{path}: expected at most {most} texts as {name}, got {count}")
        if found.datatype.text is None:
            raise UnreadableError(f"{path}: expected text as {name}, got {found.datatype}")
        return [self._decoded(path, name, found, number) for number in range(count)]

    def _decoded(self, path: str, name: str, found: Attribute, number: int) -> str:
        """A text; equal references to the global heap share one object, to bound the memory."""
        size = found.datatype.size
        data = bytes(found.data[number * size : (number + 1) * size])
        variable = found.datatype.text == "variable"
        if variable and data in self._texts:
            return self._texts[data]
        try:
            text = self._storage.text(data).decode() if variable else _without_end(data, found.datatype.ends).decode()
        except UnicodeDecodeError:
            raise UnreadableError(f"{path}: expected UTF-8 as {name}") from None
        if variable:
            self._texts[data] = text
        return text

    def _find(self, path: str) -> Object | None:
        """The object at a path, or None; links to other files raise an error."""
        here = self._object(self._storage.root)
        for part in filter(None, path.split("/")):
            if not here.is_group or part not in here.members:
                return None
            address = here.members[part]
            if address is None:
                raise UnreadableError(f"{path}: expected an object of the file, got a link to elsewhere")
            here = self._object(address)
        return here

    def _object(self, address: int) -> Object:
        if address not in self._objects:
            self._objects[address] = Object(self._storage, address)
        return self._objects[address]


def _without_end(data: bytes, ends: int) -> bytes:
    """A text of fixed size without its padding."""
    if ends == 0:
        return data.split(b"\0")[0]
    return data.rstrip(b"\0" if ends == 1 else b" ")
