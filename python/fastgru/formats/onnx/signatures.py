"""The inputs and outputs of a graph, for programs that run the file to compare its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgru.formats.description import Array
from fastgru.formats.onnx.tensors import DOUBLE, FLOAT, INT32, INT64, MOST_AXES
from fastgru.formats.onnx.values import F, N, T

_DTYPES = {FLOAT: "float32", DOUBLE: "float64", INT32: "int32", INT64: "int64"}


@dataclass(frozen=True)
class Given:
    """An input of a graph.

    Attributes
    ----------
    name : str
    kind : int
        The TensorProto.DataType of its elements.
    shape : tuple of int or None
        In the graph's order of axes; None for axes of any size.
    """

    name: str
    kind: int
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, proto: Any) -> Given:
        """Return the input that a ValueInfoProto describes."""
        if not proto.type.HasField("tensor_type") or not proto.type.tensor_type.HasField("shape"):
            raise ValueError(f"input {proto.name!r}: expected an array with a known number of axes")
        tensor = proto.type.tensor_type
        if len(tensor.shape.dim) > MOST_AXES:
            raise ValueError(f"input {proto.name!r}: expected at most {MOST_AXES} axes, got {len(tensor.shape.dim)}")
        shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
        if any(size is not None and size < 1 for size in shape):
            raise ValueError(f"input {proto.name!r}: expected sizes of at least 1, got {shape}")
        return cls(proto.name, tensor.elem_type, shape)

    @property
    def dtype(self) -> str:
        """The NumPy dtype of its elements."""
        return _DTYPES[self.kind]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph, to run it on samples of the model that was read from it.

    Attributes
    ----------
    data : Given
    lengths : Given or None
        The input for the lengths, which may have a default.
    time_first : bool
        Whether the input of the graph is (T, N, ...), where that of the model is (N, T, ...).
    outputs : dict of str to tuple of str
        The outputs that the model returns, in its order, and the names of their axes.
    """

    data: Given
    lengths: Given | None
    time_first: bool
    outputs: dict[str, tuple[str, ...]]

    @property
    def rows(self) -> int | None:
        """The batch size that the graph requires; None if it accepts any."""
        return self.data.shape[1 if self.time_first else 0]

    def feeds(self, x: Array, lengths: Array | None = None) -> dict[str, Array]:
        """Return the inputs of the graph for samples (N, ...) of the model; without `lengths` all steps are valid."""
        given = {self.data.name: x.swapaxes(0, 1) if self.time_first else x}
        if self.lengths is not None:
            given[self.lengths.name] = np.full(len(x), x.shape[1]) if lengths is None else lengths
        inputs = {each.name: each for each in (self.data, self.lengths) if each is not None}
        return {name: np.ascontiguousarray(array, inputs[name].dtype) for name, array in given.items()}

    def returned(self, arrays: Sequence[Array]) -> list[Array]:
        """Convert outputs of the graph, in the order of `outputs`, to outputs of the model."""
        return [_as_model(array, axes) for array, axes in zip(arrays, self.outputs.values(), strict=True)]


def _as_model(array: Array, axes: tuple[str, ...]) -> Array:
    """Convert an output to (N, T, F) or (N, F); other axes have size 1."""
    kept = [axis for axis in axes if axis in (N, T, F)]
    array = array.squeeze(tuple(place for place, axis in enumerate(axes) if axis not in kept))
    return array.swapaxes(0, 1) if kept == [T, N, F] else array
