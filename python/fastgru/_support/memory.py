"""Arrays that begin on a cache line.

NumPy's arrays begin 16 bytes after one. Every second vector of a flat buffer then crosses a line, and threads that
write neighbouring parts share one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of a cache line, and of the widest vector.
LINE = 64


def zeros(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array (size,) of zeros whose first element begins a cache line."""
    memory = np.zeros(size * dtype.itemsize + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
