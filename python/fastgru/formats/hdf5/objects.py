"""The objects of an HDF5 file: their headers, and the messages in these that describe groups and arrays."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru.formats.hdf5.indexes import heap_messages, symbols
from fastgru.formats.hdf5.storage import PER_ITEM, UNDEFINED, Cursor, Storage, UnreadableError

Array = NDArray[Any]

# Types of messages.
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL, _LAYOUT = 0x1, 0x2, 0x3, 0x6, 0x7, 0x8
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS, _ATTRIBUTE_INFO = 0xB, 0xC, 0x10, 0x11, 0x15
#: Messages of other types are skipped. Type 0 is free space, of which a header may have any number.
_KEPT = frozenset(
    {_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS, _ATTRIBUTE, _SYMBOLS, _ATTRIBUTE_INFO}
)
#: Type, size and flags of a message in an older header, and in a newer one.
_OLD_MESSAGE, _NEW_MESSAGE = struct.Struct("<HHB3x"), struct.Struct("<BHB")
#: The flag of a message whose contents are stored elsewhere.
_SHARED = 2
#: The layouts of the elements of an array.
_COMPACT, _CONTIGUOUS = 0, 1
_MOST_AXES = 32
#: Size -> the fields of the IEEE 754 type: position of the sign, precision, position and size of the exponent, position
#: and size of the mantissa, bias.
_FLOATS = {
    2: (15, 16, 10, 5, 0, 10, 15),
    4: (31, 32, 23, 8, 0, 23, 127),
    8: (63, 64, 52, 11, 0, 52, 1023),
}


@dataclass(frozen=True)
class Datatype:
    """The type of the elements of an array or an attribute.

    Attributes
    ----------
    size : int
        The bytes of an element.
    numbers : numpy.dtype or None
        The type of numbers; None if the elements are not numbers.
    text : {"fixed", "variable"} or None
        The type of texts: in `size` bytes each, or in the global heap; None if the elements are not texts.
    ends : int
        The end of a text of fixed size: 0 the first NUL, 1 padding with NULs, 2 padding with spaces.
    """

    size: int
    numbers: np.dtype[Any] | None = None
    text: str | None = None
    ends: int = 0

    def __str__(self) -> str:
        if self.numbers is not None:
            return str(self.numbers)
        return "text" if self.text else "another type"


@dataclass(frozen=True)
class Attribute:
    """The value of an attribute.

    Attributes
    ----------
    datatype : Datatype
    shape : tuple of int, or None
        None: there is no value.
    data : memoryview
    """

    datatype: Datatype
    shape: tuple[int, ...] | None
    data: memoryview


class Object:
    """A group or an array.

    Parameters
    ----------
    storage : Storage
    address : int
        The address of its header.
    """

    def __init__(self, storage: Storage, address: int) -> None:
        self._storage = storage
        self._messages = list(_messages(storage, address))

    def _only(self, kind: int) -> memoryview | None:
        """The contents of the only message of that type; None if there is none."""
        found = [(flags, body) for type_, flags, body in self._messages if type_ == kind]
        if not found:
            return None
        flags, body = found[0]
        if len(found) > 1 or flags & _SHARED:
            raise UnreadableError("not supported: an object whose description is shared or repeated")
        return body

    @cached_property
    def is_group(self) -> bool:
        """Whether it has members."""
        return any(kind in (_SYMBOLS, _LINK_INFO, _LINK) for kind, _, _ in self._messages)

    @cached_property
    def is_array(self) -> bool:
        """Whether it has elements."""
        return any(kind == _LAYOUT for kind, _, _ in self._messages)

    # --- A group -------------------------------------------------------------------------------------------------

    @cached_property
    def members(self) -> dict[str, int | None]:
        """Name -> address; the address is None for a link to another file or a symbolic link."""
        found: dict[str, int | None] = {}
        for name, target in self._links():
            text = bytes(name).decode(errors="surrogateescape")
            if text in found:
                raise UnreadableError(f"damaged: a group with two members called {text!r:.100}")
            found[text] = target
        return found

    def _links(self) -> Iterator[tuple[bytes | memoryview, int | None]]:
        table = self._only(_SYMBOLS)
        if table is not None:
            cursor = Cursor("a group", table)
            yield from symbols(self._storage, cursor.address(), cursor.address())
        for kind, _, body in self._messages:
            if kind == _LINK:
                yield _link(body)
        info = self._only(_LINK_INFO)
        if info is not None:
            cursor = Cursor("a group", info)
            cursor.expect("version", 0)
            cursor.skip(8 if cursor.number(1) & 1 else 0)
            places = heap_messages(self._storage, cursor.address(), cursor.address(), id_at=4, id_size=7)
            yield from map(_link, places)

    # --- Attributes ----------------------------------------------------------------------------------------------

    @cached_property
    def attributes(self) -> dict[str, memoryview]:
        """Name -> message."""
        found: dict[str, memoryview] = {}
        for flags, body in self._attribute_messages():
            if flags & _SHARED:
                raise UnreadableError("not supported: a shared attribute")
            name = _attribute_name(body)
            if name in found:
                raise UnreadableError(f"damaged: two attributes called {name!r:.100}")
            found[name] = body
        return found

    def _attribute_messages(self) -> Iterator[tuple[int, memoryview]]:
        for kind, flags, body in self._messages:
            if kind == _ATTRIBUTE:
                yield flags, body
        info = self._only(_ATTRIBUTE_INFO)
        if info is not None:
            cursor = Cursor("an attribute", info)
            cursor.expect("version", 0)
            cursor.skip(2 if cursor.number(1) & 1 else 0)
            for body in heap_messages(self._storage, cursor.address(), cursor.address(), id_at=0, id_size=8):
                yield 0, body

    def attribute(self, name: str) -> Attribute | None:
        """The attribute of this name; None if there is none."""
        return _attribute(self.attributes[name]) if name in self.attributes else None

    # --- An array ------------------------------------------------------------------------------------------------

    @property
    def datatype(self) -> Datatype:
        """The type of the elements of an array."""
        body = self._only(_DATATYPE)
        if body is None:
            raise UnreadableError("damaged: an array without a type")
        return _datatype(Cursor("a type", body))

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of an array; None: it has no elements."""
        body = self._only(_DATASPACE)
        if body is None:
            raise UnreadableError("damaged: an array without a shape")
        return _shape(Cursor("a shape", body))

    def elements(self, size: int) -> memoryview | None:
        """The `size` bytes of an array; None if they are stored in pieces, compressed, or in other files."""
        layout = self._only(_LAYOUT)
        filters = self._only(_FILTERS)
        filtered = filters is not None and bytes(filters[1:2]) != b"\0"
        if layout is None or filtered or self._only(_EXTERNAL) is not None:
            return None
        cursor = Cursor("an array", layout)
        version = cursor.number(1)
        if version in (1, 2):
            return self._old_elements(cursor, size)
        if version not in (3, 4):
            return None
        kind = cursor.number(1)
        if kind == _COMPACT:
            return _exactly(cursor.bytes(cursor.number(2)), size)
        if kind != _CONTIGUOUS:
            return None
        address = cursor.address()
        return self._contiguous(address, cursor.address(), size)

    def _old_elements(self, cursor: Cursor, size: int) -> memoryview | None:
        axes, kind = cursor.number(1), cursor.number(1)
        cursor.skip(5)
        if kind == _CONTIGUOUS:
            return self._contiguous(cursor.address(), size, size)
        if kind != _COMPACT:
            return None
        cursor.skip(4 * axes)
        return _exactly(cursor.bytes(cursor.number(4)), size)

    def _contiguous(self, address: int, stored: int, size: int) -> memoryview:
        if size == 0:
            return memoryview(b"")
        if address == UNDEFINED:
            raise UnreadableError("expected numbers, got an array that was never written")
        if stored < size:
            raise UnreadableError(f"damaged: expected {size:,} bytes for its shape, got {stored:,}")
        return self._storage.contents(address, size)


def _exactly(data: memoryview, size: int) -> memoryview:
    if len(data) < size:
        raise UnreadableError(f"damaged: expected {size:,} bytes for its shape, got {len(data):,}")
    return data[:size]


# --- Headers --------------------------------------------------------------------------------------------------------


def _messages(storage: Storage, address: int) -> Iterator[tuple[int, int, memoryview]]:
    """Type, flags and contents of the messages in the header of an object that the reader uses."""
    what = "an object's header"
    most: float = math.inf
    before = 0  # bytes between the head of a message and its contents
    if bytes(storage.contents(address, 4)) == b"OHDR":
        head, signature = _NEW_MESSAGE, b"OCHK"
        before = 2 if storage.contents(address, 6)[5] & 4 else 0  # for the order of attributes
        blocks = [_new_block(storage, address)]
    else:
        head, signature = _OLD_MESSAGE, b""
        most, block = _old_block(storage, address)
        blocks = [block]
    count = 0
    while blocks:
        cursor = blocks.pop()
        while cursor.left >= head.size + before:
            count += 1
            if count > most:
                raise UnreadableError(f"damaged: expected {most} messages in {what}, got more")
            storage.spend(what, PER_ITEM)
            kind, size, flags = cursor.fields(head)
            if kind not in _KEPT and kind != _CONTINUATION:
                cursor.skip(before + size)
                continue
            cursor.skip(before)
            body = cursor.bytes(size)
            if kind != _CONTINUATION:
                yield kind, flags, body
                continue
            place = Cursor(what, body)
            begin, length = place.address(), place.address()
            if signature:
                blocks.append(storage.block(what, signature, begin, length))
            else:
                blocks.append(Cursor(what, storage.take(what, begin, length)))


def _old_block(storage: Storage, address: int) -> tuple[int, Cursor]:
    """The number of messages in all blocks, and the first block."""
    what = "an object's header"
    head = Cursor(what, storage.take(what, address, 16))
    head.expect("version", 1)
    head.skip(1)
    count = head.number(2)
    head.skip(4)
    return count, Cursor(what, storage.take(what, address + 16, head.number(4)))


def _new_block(storage: Storage, address: int) -> Cursor:
    what = "an object's header"
    head = Cursor(what, storage.contents(address, 6))
    head.skip(4)
    head.expect("version", 2)
    flags = head.number(1)
    before = 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(storage.contents(address + before, width), "little")
    block = storage.block(what, b"OHDR", address, before + width + size + 4)
    block.skip(before + width - 4)
    return block


# --- Messages -------------------------------------------------------------------------------------------------------


def _link(body: memoryview) -> tuple[memoryview, int | None]:
    cursor = Cursor("a link", body)
    cursor.expect("version", 1)
    flags = cursor.number(1)
    kind = cursor.number(1) if flags & 8 else 0
    cursor.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.bytes(cursor.number(1 << (flags & 3)))
    return name, cursor.address() if kind == 0 else None


def _attribute_parts(body: memoryview) -> tuple[Cursor, int, list[int]]:
    """The data after the sizes of name, type and shape; the multiple to which each is padded; and the sizes."""
    cursor = Cursor("an attribute", body)
    version = cursor.expect("version", 1, 2, 3)
    if cursor.number(1) and version > 1:
        raise UnreadableError("not supported: an attribute with a shared type")
    sizes = [cursor.number(2) for _ in range(3)]
    cursor.skip(1 if version == 3 else 0)
    return cursor, 8 if version == 1 else 1, sizes


def _attribute_name(body: memoryview) -> str:
    cursor, _, sizes = _attribute_parts(body)
    return bytes(cursor.bytes(sizes[0])).split(b"\0")[0].decode(errors="surrogateescape")


def _attribute(body: memoryview) -> Attribute:
    cursor, step, sizes = _attribute_parts(body)
    parts = []
    for size in sizes:
        parts.append(cursor.bytes(size))
        cursor.skip(-size % step)
    datatype = _datatype(Cursor("the type of an attribute", parts[1]))
    shape = _shape(Cursor("the shape of an attribute", parts[2]))
    count = 0 if shape is None else math.prod(shape)
    return Attribute(datatype, shape, cursor.bytes(datatype.size * count))


def _shape(cursor: Cursor) -> tuple[int, ...] | None:
    version = cursor.expect("version", 1, 2)
    axes, _ = cursor.number(1), cursor.number(1)
    kind = cursor.number(1)
    cursor.skip(4 if version == 1 else 0)
    if axes > _MOST_AXES:
        raise UnreadableError(f"damaged: a shape of {axes} axes")
    if version == 2 and kind == 2:
        return None
    return tuple(cursor.address() for _ in range(axes))


def _datatype(cursor: Cursor) -> Datatype:
    first, bits, size = cursor.number(1), cursor.number(3), cursor.number(4)
    match first & 15:
        case 0 if size in (1, 2, 4, 8):
            offset, precision = cursor.number(2), cursor.number(2)
            if (offset, precision) == (0, 8 * size):
                return Datatype(size, np.dtype(f"{'>' if bits & 1 else '<'}{'i' if bits & 8 else 'u'}{size}"))
        case 1 if size in _FLOATS and not bits & 64:
            offset, precision = cursor.number(2), cursor.number(2)
            fields = ((bits >> 8) & 255, precision, *(cursor.number(1) for _ in range(4)), cursor.number(4))
            if offset == 0 and (bits >> 4) & 3 == 2 and fields == _FLOATS[size]:
                return Datatype(size, np.dtype(f"{'>' if bits & 1 else '<'}f{size}"))
        case 3:
            return Datatype(size, text="fixed", ends=bits & 15)
        case 9 if size == 16 and bits & 15 == 1:
            return Datatype(size, text="variable")
    return Datatype(size)
