"""The indexes of the members of a group: symbol tables in older files, heaps with B-trees in newer ones.

They are read completely instead of searched, because most of the members are needed.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from fastgru.formats.hdf5.storage import UNDEFINED, Cursor, Storage, UnreadableError

#: The cache type of a symbolic link in a symbol table.
_SYMBOLIC = 2
#: Each row of blocks doubles the size of a fractal heap, and offsets have 64 bits.
_MOST_ROWS = 66


# --- Older files: a B-tree of symbol table nodes, and a local heap with the names ---------------------------------


def symbols(storage: Storage, tree: int, heap: int) -> Iterator[tuple[bytes, int | None]]:
    """Name and address of each member of a group; the address of a symbolic link is None."""
    header = storage.block("a local heap", b"HEAP", heap, 32, checked=False)
    header.expect("version", 0)
    header.skip(3)
    size, _, address = (header.address() for _ in range(3))
    names = bytes(storage.take("the names of a group", address, size))
    left = size
    for node in _table_nodes(storage, tree):
        head = storage.block("a symbol table", b"SNOD", node, 8, checked=False)
        head.expect("version", 1)
        head.skip(1)
        count = head.number(2)
        entries = Cursor("a symbol table", storage.take("a symbol table", node + 8, 40 * count))
        for _ in range(count):
            begin, target, cached = entries.address(), entries.address(), entries.number(4)
            entries.skip(20)
            end = names.find(b"\0", begin) if begin < size else -1
            if end < 0:
                raise UnreadableError("damaged: the name of a member of a group does not end")
            left -= end + 1 - begin
            if left < 0:
                raise UnreadableError("damaged: names of members of a group overlap")
            yield names[begin:end], None if cached == _SYMBOLIC else target


def _table_nodes(storage: Storage, root: int) -> Iterator[int]:
    """The addresses of a group's symbol table nodes, in order."""
    waiting = [(root, -1)]  # address and level; that of the root is in the file
    while waiting:
        address, level = waiting.pop()
        if level == 0:
            yield address
            continue
        head = storage.block("a B-tree", b"TREE", address, 24, checked=False)
        head.expect("type", 0)
        height = head.number(1)
        if level >= 0 and height != level - 1:
            raise UnreadableError(f"damaged: expected level {level - 1} of a B-tree, got {height}")
        count = head.number(2)
        children = Cursor("a B-tree", storage.take("a B-tree", address + 24, 16 * count + 8))
        found = []
        for _ in range(count):
            children.skip(8)  # the key: an offset of a name
            found.append((children.address(), height))
        waiting += reversed(found)


# --- Newer files: a fractal heap of messages, and a B-tree of their places ----------------------------------------


def heap_messages(storage: Storage, heap: int, tree: int, *, id_at: int, id_size: int) -> Iterator[memoryview]:
    """The messages in a fractal heap, whose identifiers are in the records of a B-tree.

    Parameters
    ----------
    storage : Storage
    heap, tree : int
        Their addresses.
    id_at, id_size : int
        The position and the size of an identifier in a record.
    """
    if UNDEFINED in (heap, tree):
        return
    found = FractalHeap(storage, heap)
    for record in _records(storage, tree):
        yield found.message(record[id_at : id_at + id_size])


class FractalHeap:
    """Blocks of doubling size; the offset of an object is its position in the concatenated blocks.

    Parameters
    ----------
    storage : Storage
    address : int
    """

    def __init__(self, storage: Storage, address: int) -> None:
        self._storage = storage
        header = storage.block("a fractal heap", b"FRHP", address, 146)
        header.expect("version", 0)
        header.skip(2)
        if header.number(2):
            raise UnreadableError("not supported: a fractal heap with filters")
        self._checked = bool(header.number(1) & 2)
        largest = header.number(4)
        header.skip(12 * 8)
        self._width, self._start, self._most = header.number(2), header.address(), header.address()
        bits = header.number(2)
        header.skip(2)
        root, rows = header.address(), header.number(2)
        if not self._width or not self._start or self._most < self._start or bits > 64:
            raise UnreadableError("damaged: a fractal heap without blocks")
        self._offset_size = -(-bits // 8)
        self._length_size = _encoded_size(min(self._most, largest))
        blocks = sorted(self._direct_blocks(root, rows), key=lambda block: block[0])
        self._offsets = [offset for offset, _ in blocks]
        self._blocks = [data for _, data in blocks]
        self._left = sum(map(len, self._blocks))

    def message(self, identifier: memoryview) -> memoryview:
        """An object of the heap; each must be read only once."""
        cursor = Cursor("an identifier", identifier)
        if cursor.number(1) != 0:
            raise UnreadableError("not supported: a fractal heap with objects outside of its blocks")
        begin, size = cursor.number(self._offset_size), cursor.number(self._length_size)
        place = bisect.bisect_right(self._offsets, begin) - 1
        within = begin - self._offsets[place] if place >= 0 else 0
        if place < 0 or within + size > len(self._blocks[place]):
            raise UnreadableError("damaged: an object of a fractal heap lies outside of it")
        self._left -= size
        if self._left < 0:
            raise UnreadableError("damaged: objects of a fractal heap overlap")
        return self._blocks[place][within : within + size]

    def _direct_blocks(self, root: int, rows: int) -> Iterator[tuple[int, memoryview]]:
        if root == UNDEFINED:
            return
        waiting = [(root, rows, 0, self._start)]  # address, rows (0: a direct block), offset, size
        while waiting:
            address, rows, offset, size = waiting.pop()
            if rows == 0:
                yield offset, self._direct_block(address, size)
            else:
                waiting += self._children(address, rows, offset)

    def _direct_block(self, address: int, size: int) -> memoryview:
        data = self._storage.take("a block of a fractal heap", address, size)
        if bytes(data[:5]) != b"FHDB\0":
            raise UnreadableError("damaged: expected a block of a fractal heap, got something else")
        end = 13 + self._offset_size
        if self._checked:
            plain = bytearray(data)
            plain[end : end + 4] = bytes(4)
            if self._storage.checksum("a block of a fractal heap", memoryview(plain)) != int.from_bytes(
                data[end : end + 4], "little"
            ):
                raise UnreadableError("damaged: the checksum of a block of a fractal heap does not match its contents")
        return data

    def _children(self, address: int, rows: int, offset: int) -> Iterator[tuple[int, int, int, int]]:
        if rows > _MOST_ROWS:
            raise UnreadableError(f"damaged: a fractal heap with {rows} rows of blocks")
        head = 13 + self._offset_size
        count = rows * self._width
        block = self._storage.block("a fractal heap", b"FHIB", address, head + 8 * count + 4)
        block.skip(head - 4)
        for row in range(rows):
            size = self._start << max(row - 1, 0)
            for _ in range(self._width):
                child = block.address()
                if child != UNDEFINED:
                    # A larger block is indirect, with as many rows as make up its size: row 1 is as large as row 0.
                    inner = 0 if size <= self._most else (size // (self._start * self._width)).bit_length()
                    yield child, inner, offset, size
                offset += size


def _records(storage: Storage, address: int) -> Iterator[memoryview]:
    """The records of a B-tree of version 2."""
    header = storage.block("a B-tree", b"BTHD", address, 38)
    header.expect("version", 0)
    header.skip(1)
    node_size, size, depth = header.number(4), header.number(2), header.number(2)
    header.skip(2)
    root, count = header.address(), header.number(2)
    if not size or node_size < size + 10:
        raise UnreadableError("damaged: a B-tree without records")
    # The maximum number of records determines the sizes of the fields that count the records of a child and below it.
    fits = (node_size - 10) // size
    count_size, below_sizes, below = _encoded_size(fits), [0], fits
    for _ in range(depth):
        pointer = 8 + count_size + below_sizes[-1]
        here = (node_size - 10 - pointer) // (size + pointer)
        if here < 1 or below > 2**64:
            raise UnreadableError("damaged: a B-tree without records")
        below += here * (below + 1)
        below_sizes.append(_encoded_size(below))
    waiting = [] if root == UNDEFINED else [(root, count, depth)]
    while waiting:
        node, count, depth = waiting.pop()
        pointer = 8 + count_size + below_sizes[depth - 1] if depth else 0
        length = 10 + count * size + (count + 1) * pointer
        cursor = storage.block("a B-tree", b"BTIN" if depth else b"BTLF", node, length)
        cursor.skip(2)
        for _ in range(count):
            yield cursor.bytes(size)
        for _ in range(count + 1 if depth else 0):
            child, records = cursor.address(), cursor.number(count_size)
            cursor.skip(below_sizes[depth - 1])
            waiting.append((child, records, depth - 1))


def _encoded_size(limit: int) -> int:
    """The number of bytes that a number up to `limit` needs."""
    return (max(limit, 1).bit_length() - 1) // 8 + 1
