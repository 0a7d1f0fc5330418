"""The bytes of an HDF5 file: bounded reads, checksums, the superblock and the global heap.

The format is public: "HDF5 File Format Specification Version 3.0". This reader is written in Python because the HDF5
library trusts the structures of a file: a global heap with an object of size 0 makes it loop forever in C, where Ctrl-C
has no effect.

The structures of an intact file do not overlap. `Storage.take` therefore counts the bytes that it returns, and raises
an error if they are more than the file has. Reading a damaged file, even one with cycles and overlaps, ends after a
time proportional to its size.

Python needs 100 times as long as C for a checksum or a message, so one byte of a structure takes 100 times as long as
one byte of an array. `Storage.spend` counts this work, and raises an error for files that need more than models do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: The address of an object that does not exist.
UNDEFINED = 2**64 - 1

# The work that a file may take, in bytes to be hashed; 4 MiB of them take about a second. What h5py and Keras write by
# default has no checksums, and 1,000 arrays have 10,000 messages. With checksums, structures are an eighth of a file
# only if its arrays are tiny, and 4 MiB describe 7,000 of these, each in groups of its own as in Keras' files.
_ALLOWED_WORK = 4 * 2**20
_BYTES_PER_WORK = 8
#: The work of reading a message of a header, or the head of an object in the global heap.
PER_ITEM = 4


class UnreadableError(ValueError):
    """The file is damaged or has unexpected contents; the message does not name the file."""


class Cursor:
    """A reader of consecutive little-endian fields that never reads beyond the end.

    Parameters
    ----------
    what : str
        The name of the structure, for messages.
    data : memoryview
    """

    __slots__ = ("_data", "_what", "position")

    def __init__(self, what: str, data: memoryview) -> None:
        self._what = what
        self._data = data
        self.position = 0

    @property
    def left(self) -> int:
        """The number of bytes that are left."""
        return len(self._data) - self.position

    def bytes(self, size: int) -> memoryview:
        """The next `size` bytes."""
        begin = self.position
        self.skip(size)
        return self._data[begin : begin + size]

    def fields(self, layout: struct.Struct) -> tuple[int, ...]:
        """The next fields as numbers."""
        begin = self.position
        self.skip(layout.size)
        return layout.unpack_from(self._data, begin)

    def skip(self, size: int) -> None:
        """Skip `size` bytes."""
        end = self.position + size
        if end > len(self._data):
            raise UnreadableError(f"damaged: {self._what} ends after {len(self._data):,} bytes, within a field")
        self.position = end

    def number(self, size: int) -> int:
        """The next `size` bytes as an unsigned integer."""
        return int.from_bytes(self.bytes(size), "little")

    def address(self) -> int:
        """An address, or a length."""
        return self.number(8)

    def expect(self, what: str, *allowed: int) -> int:
        """The next byte, which must have one of the values."""
        found = self.number(1)
        if found not in allowed:
            raise UnreadableError(f"damaged, or not supported: {self._what} has {what} {found}")
        return found


class Storage:
    """An HDF5 file in memory.

    Parameters
    ----------
    data : bytes

    Attributes
    ----------
    size : int
    root : int
        The address of the root group's object header.

    Raises
    ------
    UnreadableError
        The data are not an HDF5 file, or are damaged.
    """

    def __init__(self, data: bytes) -> None:
        self.size = self._left = self._texts_left = len(data)
        self._work_left = _ALLOWED_WORK + len(data) // _BYTES_PER_WORK
        self._data = memoryview(data)
        self._heaps: dict[int, dict[int, memoryview]] = {}
        self.root = self._read_superblock()

    def take(self, what: str, address: int, size: int) -> memoryview:
        """The `size` bytes at an address, which must not belong to another structure."""
        if address + size > self.size:
            raise UnreadableError(f"damaged: {what} would lie beyond the end of the file")
        self._left -= size
        if self._left < 0:
            raise UnreadableError(f"damaged: {what} and other structures overlap or contain each other")
        return self._data[address : address + size]

    def spend(self, what: str, work: int) -> None:
        """Count work in Python before it is done."""
        self._work_left -= work
        if self._work_left < 0:
            raise UnreadableError(
                f"refused at {what} because its structures take more work than those of a model in {self.size:,} bytes"
            )

    def checksum(self, what: str, data: memoryview) -> int:
        """The checksum of a structure."""
        self.spend(what, len(data))
        return lookup3(data)

    def contents(self, address: int, size: int) -> memoryview:
        """The numbers of an array, which the caller counts."""
        if address + size > self.size:
            raise UnreadableError("damaged: its numbers would lie beyond the end of the file")
        return self._data[address : address + size]

    def block(self, what: str, signature: bytes, address: int, size: int, *, checked: bool = True) -> Cursor:
        """A structure that begins with a signature and, if `checked`, ends with a checksum.

        Returns
        -------
        Cursor
            The bytes after the signature, without the checksum.
        """
        data = self.take(what, address, size)
        if bytes(data[: len(signature)]) != signature:
            raise UnreadableError(f"damaged: expected {what} at {address:,}, got something else")
        if checked:
            if size < len(signature) + 4 or self.checksum(what, data[:-4]) != int.from_bytes(data[-4:], "little"):
                raise UnreadableError(f"damaged: the checksum of {what} does not match its contents")
            data = data[:-4]
        return Cursor(what, data[len(signature) :])

    def _read_superblock(self) -> int:
        if bytes(self._data[:8]) != SIGNATURE:
            raise UnreadableError("expected an HDF5 file, got something else")
        version = Cursor("the superblock", self._data[8:]).expect("version", 0, 1, 2, 3)
        if version < 2:
            cursor = Cursor("the superblock", self.take("the superblock", 0, 96 if version == 0 else 100)[13:])
        else:
            cursor = self.block("the superblock", SIGNATURE, 0, 48)
            cursor.skip(1)
        for what in ("addresses", "lengths"):
            cursor.expect(f"a number of bytes for {what} of", 8)
        cursor.skip({0: 9, 1: 13}.get(version, 1))
        base, _, end = (cursor.address() for _ in range(3))
        if base != 0:
            raise UnreadableError(f"damaged, or not supported: its addresses begin at {base:,}")
        if end > self.size:
            raise UnreadableError(f"damaged: expected {end:,} bytes, got {self.size:,}, so that its end is missing")
        if version < 2:
            cursor.skip(16)  # the driver's address, and the offset of the root group's name
        return cursor.address()

    # --- The global heap, which holds texts of variable length -----------------------------------------------------

    def text(self, reference: bytes) -> bytes:
        """The text that a reference of 16 bytes denotes; the caller reads each text once."""
        size, address, index = struct.unpack("<IQI", reference)
        if size == 0:
            return b""
        if address not in self._heaps:
            self._heaps[address] = dict(self._heap_objects(address))
        found = self._heaps[address].get(index)
        if found is None or size > len(found):
            raise UnreadableError("damaged: a text is missing in the global heap")
        self._texts_left -= size
        if self._texts_left < 0:
            raise UnreadableError("damaged: texts in the global heap overlap")
        return bytes(found[:size])

    def _heap_objects(self, address: int) -> Iterator[tuple[int, memoryview]]:
        what = "a collection of the global heap"
        header = Cursor(what, self.take(what, address, 16))
        if bytes(header.bytes(5)) != b"GCOL\x01":
            raise UnreadableError(f"damaged: expected {what} at {address:,}, got something else")
        header.skip(3)
        cursor = Cursor(what, self.take(what, address + 16, max(header.address() - 16, 0)))
        while cursor.left >= 16:
            self.spend(what, PER_ITEM)
            index = cursor.number(2)
            cursor.skip(6)
            size = cursor.address()
            if index == 0:  # free space, which is the last
                return
            yield index, cursor.bytes(size)
            cursor.skip(min(-size % 8, cursor.left))


def lookup3(data: memoryview) -> int:
    """Bob Jenkins' hash "lookup3", the checksum of HDF5."""
    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    padded = bytes(data) + bytes(-len(data) % 12)
    words: tuple[int, ...] = struct.unpack(f"<{len(padded) // 4}I", padded)
    for begin in range(0, len(words) - 3, 3):
        a, b, c = (a + words[begin]) & mask, (b + words[begin + 1]) & mask, (c + words[begin + 2]) & mask
        a = (a - c & mask) ^ (c << 4 & mask | c >> 28)
        c = c + b & mask
        b = (b - a & mask) ^ (a << 6 & mask | a >> 26)
        a = a + c & mask
        c = (c - b & mask) ^ (b << 8 & mask | b >> 24)
        b = b + a & mask
        a = (a - c & mask) ^ (c << 16 & mask | c >> 16)
        c = c + b & mask
        b = (b - a & mask) ^ (a << 19 & mask | a >> 13)
        a = a + c & mask
        c = (c - b & mask) ^ (b << 4 & mask | b >> 28)
        b = b + a & mask
    a, b, c = (a + words[-3]) & mask, (b + words[-2]) & mask, (c + words[-1]) & mask
    c = (c ^ b) - (b << 14 & mask | b >> 18) & mask
    a = (a ^ c) - (c << 11 & mask | c >> 21) & mask
    b = (b ^ a) - (a << 25 & mask | a >> 7) & mask
    c = (c ^ b) - (b << 16 & mask | b >> 16) & mask
    a = (a ^ c) - (c << 4 & mask | c >> 28) & mask
    b = (b ^ a) - (a << 14 & mask | a >> 18) & mask
    return (c ^ b) - (b << 24 & mask | b >> 8) & mask
