"""Arrays in ONNX files: tensors of protobufs, and the weights of a GRU node."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgru.formats.description import Array

#: TensorProto.DataType -> dtype, and the field that contains the numbers if raw_data is empty.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("|b1", "int32_data"),
    11: ("<f8", "double_data"),
}
FLOAT, INT32, INT64, DOUBLE = 1, 6, 7, 11
#: Arrays of a GRU have four axes; exporters temporarily add a few.
MOST_AXES = 8


class Budget:
    """The number of bytes that reading a file may still allocate, at most a multiple of the size of the file.

    Parameters
    ----------
    most : int
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def spend(self, what: str, size: int) -> None:
        """Subtract `size` bytes; raises ValueError if not enough are left."""
        self._left -= size
        if self._left < 0:
            raise ValueError(f"{what}: the graph needs much more memory than the size of the file")


def to_array(tensor: Any) -> Array:
    """Convert a TensorProto to an array in native byte order; the shape is compared with the data before it is used.

    Raises
    ------
    ValueError
        The type is not supported, the numbers are in another file, or the shape does not match the data.
    """
    where = f"tensor {tensor.name!r}"
    if tensor.data_location or tensor.external_data:
        raise ValueError(
            f"{where}: its numbers are in another file, which fastgru does not read: export with external_data=False "
            f"in torch.onnx.export, or include them by onnx.save_model(onnx.load(path), path)"
        )
    if tensor.data_type not in _TYPES:
        raise ValueError(f"{where}: expected float, double, int32, int64 or bool, got data type {tensor.data_type}")
    code, field = _TYPES[tensor.data_type]
    shape = tuple(tensor.dims)
    if len(shape) > MOST_AXES or any(size < 0 for size in shape):
        raise ValueError(f"{where}: expected at most {MOST_AXES} axes of sizes from 0, got shape {shape}")
    count, dtype = math.prod(shape), np.dtype(code)
    raw: bytes = tensor.raw_data
    found = len(raw) / dtype.itemsize if raw else len(getattr(tensor, field))
    if found != count:
        raise ValueError(f"{where}: expected {count} numbers because its shape is {shape}, got {found:g}")
    flat = np.frombuffer(raw, dtype) if raw else np.array(getattr(tensor, field), dtype)
    return flat.astype(dtype.newbyteorder("=")).reshape(shape)


def to_node(weights: dict[str, Array]) -> dict[str, Array]:
    """Convert Keras' weights to W, R and B of a GRU node with one direction.

    The order of gates is z, r, h in both. ONNX always has two biases. The second one is zero for a GRU with
    ``reset_after=False``.
    """
    kernel, recurrent, bias = weights["kernel"], weights["recurrent_kernel"], weights.get("bias")
    arrays = {"W": kernel.T, "R": recurrent.T}
    if bias is not None:
        arrays["B"] = bias.reshape(-1) if bias.ndim == 2 else np.concatenate([bias, np.zeros_like(bias)])
    return {name: np.ascontiguousarray(array)[np.newaxis] for name, array in arrays.items()}


def from_node(w: Array, r: Array, b: Array | None, *, reset_after: bool) -> dict[str, Array]:
    """Convert the weights of one direction, W (3H, F), R (3H, H) and B (6H,), to Keras' weights.

    Raises
    ------
    ValueError
        The shapes are inconsistent.
    """
    if w.ndim != 2 or r.ndim != 2:
        raise ValueError(
            f"expected W (directions, 3H, F) and R (directions, 3H, H), got {w.ndim + 1} and {r.ndim + 1} axes"
        )
    units = r.shape[1]
    if units == 0 or r.shape[0] != 3 * units or w.shape[0] != 3 * units:
        raise ValueError(
            f"expected W (directions, 3H, F) and R (directions, 3H, H), got {w.shape} and {r.shape} for one"
        )
    weights = {"kernel": np.ascontiguousarray(w.T), "recurrent_kernel": np.ascontiguousarray(r.T)}
    if b is not None:
        if b.shape != (6 * units,):
            raise ValueError(
                f"expected B (directions, {6 * units}) because R is for {units} units, got {b.shape} for one"
            )
        both = b.reshape(2, 3 * units)
        weights["bias"] = both.copy() if reset_after else both[0] + both[1]
    return weights
