"""Headers of .npy files, which are compared with the size of the file before memory is allocated."""

from __future__ import annotations

import math
from typing import IO, Any, NamedTuple

import numpy as np

from fastgru.datasets.idx import DataFileError


class Header(NamedTuple):
    """The shape and the dtype of the array in a .npy file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_header(file: IO[bytes], size: int) -> Header:
    """Return the header of a .npy file of `size` bytes. Raises if its array does not fill the rest of the file."""
    match np.lib.format.read_magic(file):
        case (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        case (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        case version:
            raise DataFileError(f"expected version 1.0 or 2.0 of NumPy's format, got {version}")
    if dtype.hasobject:
        raise DataFileError("expected numbers, got Python objects, which are not read because they can run code")
    if dtype.kind not in "biuf":
        raise DataFileError(f"expected numbers, got {dtype}")
    needed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or needed != there:
        raise DataFileError(f"damaged: expected {needed:,} bytes for {dtype} of shape {shape}, got {there:,}")
    return Header(shape, dtype)
