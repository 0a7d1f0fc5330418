"""The IDX format of MNIST's files: a magic number, the sizes of the axes, and bytes.

Layout (LeCun's MNIST page): two zero bytes, a type byte (8 for unsigned bytes), the number of axes, each axis as a
big-endian 32-bit integer, then the elements in C order.
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTES = 8


class DataFileError(ValueError):
    """A file of a data set is damaged or has another format. The message contains the reason."""


def parse(name: str, data: bytes) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, as a view of `data`. `name` is used in messages."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTES:
        raise DataFileError(f"{name}: expected an IDX file of unsigned bytes, but it begins with {data[:4].hex()}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise DataFileError(f"{name}: truncated: expected a header of {header} bytes, got {len(data)}")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise DataFileError(
            f"{name}: expected {math.prod(shape)} bytes after the header because its shape is {shape}, "
            f"got {len(data) - header}"
        )
    try:
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    except ValueError as error:  # an axis of size 0, and other axes whose product is too large for an array
        raise DataFileError(f"{name}: not an array: {error}") from None


def gunzip(name: str, data: bytes, most: int) -> bytes:
    """Decompress a gzip file. Raises if it expands to more than `most` bytes, which bounds the memory."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        result = decompressor.decompress(data, most + 1)
    except zlib.error as error:
        raise DataFileError(f"{name}: damaged gzip file: {error}") from None
    if len(result) > most:
        raise DataFileError(f"{name}: expected at most {most} bytes after decompression, got more")
    if not decompressor.eof:
        raise DataFileError(f"{name}: truncated gzip file")
    return result
