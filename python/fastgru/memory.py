"""Arrays that begin on a cache line.

NumPy's own begin 16 bytes after one, so that every vector of a flat buffer crosses a line, and so do the borders between
the parts that threads write.
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
