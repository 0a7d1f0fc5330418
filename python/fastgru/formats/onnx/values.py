"""Symbolic values of the arrays of a graph, and the sequences of layers that are built while it is read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgru.formats.description import Array, LayerDescription, bidirectional_config, numbered_name
from fastgru.formats.onnx.tensors import DOUBLE, FLOAT, Budget

MOST_LAYERS = 1000
#: Maximum length of the name of a product of sizes.
_LONGEST_SIZE = 64
#: TensorProto.DataType -> dtype of a model.
DTYPES = {FLOAT: "float32", DOUBLE: "float64"}

# Names of axes: batch, time, features, directions of a GRU, an axis of size 1, and batch and time merged to one axis.
N, T, F, D, ONE, NT, TN = "N", "T", "F", "D", "1", "NT", "TN"


class AxisOrderError(ValueError):
    """A node expects another order of axes; the input of the graph may be time-major instead of batch-major."""


@dataclass(frozen=True)
class Fill:
    """An array of one repeated value: a number, or the name of a size."""

    value: Any


@dataclass(frozen=True)
class Lengths:
    """The number of valid steps of each row, which the caller passes; may have trailing axes of size 1."""

    axes: tuple[str, ...] = (N,)


@dataclass(frozen=True)
class StepNumbers:
    """The indices of the steps, from 0 to T - 1."""


@dataclass(frozen=True)
class Valid:
    """The mask of the valid steps, computed from `Lengths`."""

    axes: tuple[str, ...] = (N, T)


@dataclass(frozen=True, eq=False)
class Recurrent:
    """One direction of a GRU node. The layer that it becomes depends on which outputs are used.

    Attributes
    ----------
    config, weights : dict
    backward : bool
        Whether it reads the sequences backwards.
    steps : bool
        True: the array contains the outputs of all steps. False: it contains the final state.
    repeats : bool
        True: steps after the end of a sequence repeat the last output. False: they are zeros.
    """

    config: dict[str, Any]
    weights: dict[str, Array]
    backward: bool
    steps: bool
    repeats: bool = False


@dataclass(frozen=True, eq=False)
class Stream:
    """The output of a sequence of layers.

    Attributes
    ----------
    layers : tuple of LayerDescription
    features : int or None
        Size of the last axis; None for tokens.
    recurrent : Recurrent or None
        A GRU after these layers that is not a layer yet.
    flipped : bool
        Whether the time axis is reversed, compared with the input of the last layer.
    lengths : bool or None
        Whether the layers receive lengths; None if none of them uses lengths.
    repeats : int or None
        Size of the axis T if a vector has been repeated along it; None if it is that of the graph's input.
    """

    layers: tuple[LayerDescription, ...]
    features: int | None
    recurrent: Recurrent | None = None
    flipped: bool = False
    lengths: bool | None = None
    repeats: int | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """The output of a sequence of layers, or of several that differ in the last GRU, stacked along the axis D."""

    axes: tuple[str, ...]
    streams: tuple[Stream, ...]

    def axis(self, number: int) -> str:
        """Return the name of an axis; negative numbers count from the end."""
        return self.axes[operator.index(number)]

    def without(self, number: int, *, keep: bool = False) -> tuple[str, ...]:
        """Return the axes without one of them; with `keep`, that one becomes an axis of size 1."""
        place = place_of(number, len(self.axes))
        return self.axes[:place] + ((ONE,) if keep else ()) + self.axes[place + 1 :]

    def plain_axes(self) -> tuple[str, ...]:
        """Return the axes without those of size 1."""
        return tuple(axis for axis in self.axes if axis != ONE and not (axis == D and len(self.streams) == 1))

    def on_streams(self, change: Callable[[Stream], Stream]) -> Data:
        """Return the array with each stream replaced by `change(stream)`."""
        return replace(self, streams=tuple(change(stream) for stream in self.streams))


class Chains:
    """Properties of a graph besides its arrays, and the operations that append layers.

    Attributes
    ----------
    sizes : dict of str to int or None
        Sizes of the axes N and T; None for any size.
    dtype : str or None
        The dtype of the model; None until a weight or an input determines it.
    budget : Budget
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.sizes: dict[str, int | None] = {N: None, T: None}
        self.dtype: str | None = None
        self._settled: dict[Recurrent, Stream] = {}

    def shape_of(self, data: Data) -> list[Any]:
        """Return the sizes of the axes: a number, or a name if the graph does not define the size."""
        rows, steps = self.sizes[N] or N, self.steps_of(data.streams[0]) or T
        named = {N: rows, T: steps, ONE: 1, D: len(data.streams), F: data.streams[0].features}
        named[NT] = named[TN] = times(rows, steps)
        return [named[axis] for axis in data.axes]

    def steps_of(self, stream: Stream) -> int | None:
        """Return the size of the stream's axis T, or None if it is unknown."""
        return self.sizes[T] if stream.repeats is None else stream.repeats

    def agree_on_dtype(self, dtype: str, name: str) -> None:
        """Set the dtype of the model; raises if it has another one."""
        if self.dtype not in (None, dtype):
            raise ValueError(f"{name!r}: expected {self.dtype} as in the arrays before, got {dtype}")
        self.dtype = dtype

    def weight(self, what: str, value: Any, axes: int) -> Array:
        """Return `value`, which must be a weight in the model's dtype with this number of axes."""
        if not isinstance(value, np.ndarray) or value.dtype not in ("float32", "float64"):
            raise ValueError(f"expected {what} to be floating-point numbers in the file, got {kind_of(value)}")
        if value.ndim != axes:
            raise ValueError(f"expected {what} to have {axes} axes, got shape {value.shape}")
        self.agree_on_dtype(str(value.dtype), what)
        self.budget.spend(what, value.nbytes)  # a weight that several layers share is copied for each of them
        return value

    def settled(self, data: Any) -> Stream:
        """Return the only stream of an array, after its GRU at the end has become a layer."""
        if not isinstance(data, Data):
            raise TypeError(f"expected the output of a layer, got {kind_of(data)}")
        if len(data.streams) != 1:
            raise ValueError("expected one output, got several directions or layers in one array")
        return self._settle(data.streams[0])

    def _settle(self, stream: Stream) -> Stream:
        part = stream.recurrent
        if part is None:
            if stream.flipped:
                raise ValueError("a reversed sequence is supported by fastgru only as the input of a GRU")
            return stream
        if part.steps and part.backward != stream.flipped:
            raise ValueError(
                "outputs of a GRU that reads backwards are supported by fastgru only in the order of processing, "
                "except within a Bidirectional"
            )
        # Two nodes that read the same outputs must get the same layer object.
        if part not in self._settled:
            config = _settled_config(part, stream)
            self._settled[part] = self.add(stream, "GRU", config, part.weights, recurrent=None, flipped=False)
        return self._settled[part]

    def add(
        self,
        stream: Stream,
        class_name: str,
        config: dict[str, Any],
        weights: dict[str, Array] | None = None,
        **to: Any,
    ) -> Stream:
        """Append a layer to a stream; `to` has the other attributes of the stream to change."""
        layer = LayerDescription(class_name, numbered_name(class_name, stream.layers), config, weights or {})
        return replace(stream, layers=(*stream.layers, layer), **to)

    def merge(self, one: Data, other: Data, mode: str | None) -> Data:
        """Merge two directions of a GRU to a Bidirectional layer."""
        if any(len(data.streams) != 1 for data in (one, other)) or one.axes != other.axes:
            raise ValueError("two arrays can be merged only if they are the two directions of a GRU")
        first, second = one.streams[0], other.streams[0]
        parts = _directions(first, second)
        configs = [_settled_config(part, stream) for stream, part in zip((first, second), parts, strict=True)]
        weights = {
            f"{direction}/{name}": array
            for direction, part in zip(("forward", "backward"), parts, strict=True)
            for name, array in part.weights.items()
        }
        assert first.features is not None
        features = first.features * (2 if mode == "concat" else 1)
        config = bidirectional_config(configs, mode)
        merged = self.add(first, "Bidirectional", config, weights, recurrent=None, features=features)
        return Data(one.axes, (merged,))


def _directions(first: Stream, second: Stream) -> tuple[Recurrent, Recurrent]:
    """Return the GRUs of two streams that must be the outputs of one Bidirectional."""
    one, other = first.recurrent, second.recurrent
    if one is None or other is None:
        raise ValueError("two arrays can be merged only if they are the two directions of a GRU")
    if len(first.layers) != len(second.layers) or any(map(operator.is_not, first.layers, second.layers)):
        raise ValueError("two GRUs can be merged only if they have the same input")
    if one.repeats or other.repeats:
        raise ValueError("two GRUs can be merged only if their outputs are zeros after the end of a sequence")
    if one.backward == other.backward or one.steps != other.steps or first.flipped or second.flipped:
        raise ValueError(
            "two GRUs can be merged only if one reads forwards and one backwards, and their outputs are in the order "
            "of their input"
        )
    if first.features != second.features or first.lengths != second.lengths:
        raise ValueError("two GRUs can be merged only if they have the same number of units and the same lengths")
    return one, other


def _settled_config(part: Recurrent, stream: Stream) -> dict[str, Any]:
    return {
        **part.config,
        "return_sequences": part.steps,
        "go_backwards": part.backward,
        "zero_output_for_mask": bool(stream.lengths and part.steps and not part.repeats),
    }


def place_of(axis: int, count: int) -> int:
    """Convert an axis number that may be negative to the index of one of `count` axes."""
    if not -count <= axis < count:
        raise ValueError(f"expected an axis from {-count} to {count - 1}, got {axis}")
    return axis % count


def array_of_sizes(sizes: Sequence[Any]) -> Array:
    """Return a shape as an array of int64, or of objects if a size is unknown."""
    return np.array(sizes, np.int64 if all(isinstance(size, int) for size in sizes) else object)


def is_lengths(value: Any) -> bool:
    """Whether the value is the lengths in the form that a GRU node accepts."""
    return isinstance(value, Lengths) and value.axes == (N,)


_KINDS: dict[type, str] = {
    Fill: "one repeated value",
    Lengths: "the lengths",
    StepNumbers: "the indices of steps",
    Valid: "the mask of valid steps",
    Data: "the output of a layer",
}


def kind_of(value: Any) -> str:
    """Return the description of a value for a message."""
    if isinstance(value, np.ndarray):
        return f"numbers of {value.dtype}" if value.dtype != object else "a shape"
    return _KINDS.get(type(value), "nothing")


def times(one: Any, other: Any) -> Any:
    """Return the product of two sizes: a number, or a name if one of the two is a name."""
    if isinstance(one, str) or isinstance(other, str):
        name = "*".join(sorted(str(size) for size in (one, other) if size != 1))
        if len(name) > _LONGEST_SIZE:
            raise ValueError("a product of too many sizes is not supported by fastgru")
        return name
    product = int(one) * int(other)
    if abs(product) >= 2**63:
        raise ValueError(f"a size of {product} is not supported by fastgru")
    return product


def require(value: Any, *kinds: type) -> None:
    """Raise if a value is of none of these kinds."""
    if not isinstance(value, kinds):
        raise TypeError(f"the operator is not supported for {kind_of(value)}")


def require_all_steps(stream: Stream, what: str) -> None:
    """Raise if the steps may include padding; `what` is the past participle of the operation."""
    if stream.lengths:
        raise ValueError(f"the {what} sequences contain padding, which fastgru's layer ignores")


def number(value: Any) -> Any:
    """Return the only number of an array whose values are in the file."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise TypeError(f"expected a number in the file, got {kind_of(value)}")
    return value.reshape(-1)[0]


#: Field of an AttributeProto -> AttributeProto.AttributeType.
_ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "t": 4, "floats": 6, "ints": 7, "strings": 8}


class Node:
    """A NodeProto. All of its attributes must be read, because an unknown one may change the result."""

    def __init__(self, proto: Any, opset: int) -> None:
        self.name = proto.name or (proto.output[0] if proto.output else "")
        self.operator: str = proto.op_type
        self.domain: str = proto.domain
        self.opset = opset
        self.inputs: list[str] = list(proto.input)
        self.outputs: list[str] = list(proto.output)
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.operator})"

    def attribute(self, name: str, field: str, default: Any = None) -> Any:
        """Return the value of an attribute, which must be of the type of this field of an AttributeProto."""
        proto = self._attributes.pop(name, None)
        if proto is None:
            return default
        if proto.type != _ATTRIBUTE_TYPES[field]:
            raise TypeError(f"its attribute {name} has a wrong type")
        value = getattr(proto, field)
        if field == "s":
            return value.decode()
        if field == "strings":
            return [text.decode() for text in value]
        return list(value) if field in ("ints", "floats") else value

    def require_no_more_attributes(self) -> None:
        """Raise if an attribute has not been read."""
        for name in self._attributes:
            raise ValueError(f"its attribute {name} is not supported by fastgru")


def padded(inputs: list[Any], count: int) -> list[Any]:
    """Return the inputs, with None for optional inputs that are missing at the end."""
    return inputs + [None] * (count - len(inputs))


def whole_numbers(node: Node, inputs: Sequence[Any], place: int, name: str, default: Any = None) -> Any:
    """Return a list of integers: an attribute in older versions of an operator, an input in newer ones."""
    given = node.attribute(name, "ints", default)
    if len(inputs) <= place or inputs[place] is None:
        return given
    value = inputs[place]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iO" or value.ndim > 1:
        raise TypeError(f"expected {name} to be integers in the file, got {kind_of(value)}")
    return value.reshape(-1).tolist()


#: Converts the values of a node's inputs (None for a missing one) to those of its outputs.
Operator = Callable[[Chains, Node, list[Any]], Any]


class Operators(dict[str, Operator]):
    """Name of an operator -> the function that reads it."""

    def reads(self, *names: str) -> Callable[[Operator], Operator]:
        """Decorate the function that reads these operators."""

        def enter(function: Operator) -> Operator:
            self.update(dict.fromkeys(names, function))
            return function

        return enter
