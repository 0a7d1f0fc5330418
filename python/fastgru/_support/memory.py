"""Arrays that start at a cache line.

NumPy's arrays start 16 bytes after one. Every second SIMD load of a flat buffer would then cross a cache line, and
threads that write neighbouring parts would share one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of a cache line, and of the widest SIMD register.
LINE = 64


def zeros(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array (size,) of zeros whose first element is at the start of a cache line."""
    memory = np.zeros(size * dtype.itemsize + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
