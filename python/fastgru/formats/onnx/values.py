"""The meaning of the arrays of a graph while it is read, and the sequences of layers that are built from them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgru.formats.description import Array, LayerDescription, bidirectional_config, numbered_name
from fastgru.formats.onnx.tensors import DOUBLE, FLOAT, Budget

MOST_LAYERS = 1000
#: Of the name of a product of sizes: twice that of two.
_LONGEST_SIZE = 64
#: TensorProto.DataType -> dtype of a model.
DTYPES = {FLOAT: "float32", DOUBLE: "float64"}

# The names of axes: the batch, time, features, the directions of a GRU, one of size 1, and batch and time in one.
N, T, F, D, ONE, NT, TN = "N", "T", "F", "D", "1", "NT", "TN"


class AxisOrderError(ValueError):
    """Axes stand in another order than a node takes; the graph's input may have to be read the other way."""


@dataclass(frozen=True)
class Fill:
    """One value everywhere: a number, or the name of a size."""

    value: Any


@dataclass(frozen=True)
class Lengths:
    """The number of steps of each row that count, which the caller passes; may have trailing axes of size 1."""

    axes: tuple[str, ...] = (N,)


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of the steps, from 0 to T - 1."""


@dataclass(frozen=True)
class Valid:
    """The mask of the steps that count by `Lengths`."""

    axes: tuple[str, ...] = (N, T)


@dataclass(frozen=True, eq=False)
class Recurrent:
    """One direction of a GRU node; the layer that it becomes depends on the outputs that are used.

    Attributes
    ----------
    config, weights : dict
    backward : bool
        Whether it reads the sequences from their ends.
    steps : bool
        Whether the array holds all outputs, and not the final state.
    repeats : bool
        Whether steps after the end of a sequence repeat the last output, and are not zeros.
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
        The size of its last axis; None for tokens.
    recurrent : Recurrent or None
        A GRU at its end that has not become a layer yet.
    flipped : bool
        Whether time runs in the opposite direction of the input of the last layer.
    lengths : bool or None
        Whether the layers so far receive lengths; None if none of them uses lengths.
    repeats : int or None
        The size of the axis T if a vector has been repeated along it; None if it is that of the graph's input.
    """

    layers: tuple[LayerDescription, ...]
    features: int | None
    recurrent: Recurrent | None = None
    flipped: bool = False
    lengths: bool | None = None
    repeats: int | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """An array that comes out of a chain, or along the axis D out of several that differ in the last GRU."""

    axes: tuple[str, ...]
    streams: tuple[Stream, ...]

    def axis(self, number: int) -> str:
        """The name of an axis; counted from the end if negative."""
        return self.axes[operator.index(number)]

    def without(self, number: int, *, keep: bool = False) -> tuple[str, ...]:
        """The other axes, or with `keep` all of them, that one of size 1."""
        place = place_of(number, len(self.axes))
        return self.axes[:place] + ((ONE,) if keep else ()) + self.axes[place + 1 :]

    def plain_axes(self) -> tuple[str, ...]:
        """The axes but for those of size 1."""
        return tuple(axis for axis in self.axes if axis != ONE and not (axis == D and len(self.streams) == 1))

    def on_streams(self, change: Callable[[Stream], Stream]) -> Data:
        """The same array with changed streams."""
        return replace(self, streams=tuple(change(stream) for stream in self.streams))


class Chains:
    """What is known about a graph besides its arrays, and the operations that append layers.

    Attributes
    ----------
    sizes : dict of str to int or None
        The sizes of the axes N and T; None if they may be any number.
    dtype : str or None
        The dtype of the model, once a weight or an input has determined it.
    budget : Budget
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.sizes: dict[str, int | None] = {N: None, T: None}
        self.dtype: str | None = None
        self._settled: dict[Recurrent, Stream] = {}

    def shape_of(self, data: Data) -> list[Any]:
        """The sizes of the axes: a number, or a name where the graph leaves it open."""
        rows, steps = self.sizes[N] or N, self.steps_of(data.streams[0]) or T
        named = {N: rows, T: steps, ONE: 1, D: len(data.streams), F: data.streams[0].features}
        named[NT] = named[TN] = times(rows, steps)
        return [named[axis] for axis in data.axes]

    def steps_of(self, stream: Stream) -> int | None:
        """The size of the stream's axis T, if it is known."""
        return self.sizes[T] if stream.repeats is None else stream.repeats

    def agree_on_dtype(self, dtype: str, name: str) -> None:
        """Take `dtype` as the model's, or refuse another than it has."""
        if self.dtype not in (None, dtype):
            raise ValueError(f"{name!r}: expected {self.dtype} as what comes before, got {dtype}")
        self.dtype = dtype

    def weight(self, what: str, value: Any, axes: int) -> Array:
        """A weight: known, in the model's dtype, and with that many axes."""
        if not isinstance(value, np.ndarray) or value.dtype not in ("float32", "float64"):
            raise ValueError(f"expected {what} to be floating-point numbers in the file, got {kind_of(value)}")
        if value.ndim != axes:
            raise ValueError(f"expected {what} to have {axes} axes, got shape {value.shape}")
        self.agree_on_dtype(str(value.dtype), what)
        self.budget.spend(what, value.nbytes)  # one that several layers use becomes several
        return value

    def settled(self, data: Any) -> Stream:
        """The one stream in an array, whose GRU at the end is a layer now."""
        if not isinstance(data, Data):
            raise TypeError(f"expected what comes out of a layer, got {kind_of(data)}")
        if len(data.streams) != 1:
            raise ValueError("expected one output, got several directions or layers in one array")
        return self._settle(data.streams[0])

    def _settle(self, stream: Stream) -> Stream:
        part = stream.recurrent
        if part is None:
            if stream.flipped:
                raise ValueError("time runs backwards here, which only a GRU can be told")
            return stream
        if part.steps and part.backward != stream.flipped:
            raise ValueError(
                "outputs of a GRU that reads backwards, in the order of its input, or the reverse: that is said here "
                "only within a Bidirectional"
            )
        # Two nodes that read the same outputs must find the same layer before them.
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
        """A stream with another layer at its end; `to` says what else changes."""
        layer = LayerDescription(class_name, numbered_name(class_name, stream.layers), config, weights or {})
        return replace(stream, layers=(*stream.layers, layer), **to)

    def merge(self, one: Data, other: Data, mode: str | None) -> Data:
        """Two directions of a GRU become one layer."""
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
    """The two GRUs of a Bidirectional, whose outputs the two streams must be."""
    one, other = first.recurrent, second.recurrent
    if one is None or other is None:
        raise ValueError("two arrays can be merged only if they are the two directions of a GRU")
    if len(first.layers) != len(second.layers) or any(map(operator.is_not, first.layers, second.layers)):
        raise ValueError("two GRUs can be merged only if they read the same")
    if one.repeats or other.repeats:
        raise ValueError("two GRUs can be merged only if their outputs are zeros behind a sequence's end")
    if one.backward == other.backward or one.steps != other.steps or first.flipped or second.flipped:
        raise ValueError(
            "two GRUs can be merged only if one reads forwards and one backwards, and their outputs stand in the order "
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
    """The place of one of `count` axes, which may be counted from the end."""
    if not -count <= axis < count:
        raise ValueError(f"expected an axis from {-count} to {count - 1}, got {axis}")
    return axis % count


def array_of_sizes(sizes: Sequence[Any]) -> Array:
    """A shape: int64 if all is known, else objects."""
    return np.array(sizes, np.int64 if all(isinstance(size, int) for size in sizes) else object)


def is_lengths(value: Any) -> bool:
    """Whether it is the lengths, as a GRU node takes them."""
    return isinstance(value, Lengths) and value.axes == (N,)


_KINDS: dict[type, str] = {
    Fill: "one value everywhere",
    Lengths: "the lengths",
    StepNumbers: "the numbers of steps",
    Valid: "the mask of steps that count",
    Data: "what comes out of a layer",
}


def kind_of(value: Any) -> str:
    """The description of a value for a message."""
    if isinstance(value, np.ndarray):
        return f"numbers of {value.dtype}" if value.dtype != object else "a shape"
    return _KINDS.get(type(value), "nothing")


def times(one: Any, other: Any) -> Any:
    """The product of two sizes: a number, or a name where one of the two is a name."""
    if isinstance(one, str) or isinstance(other, str):
        name = "*".join(sorted(str(size) for size in (one, other) if size != 1))
        if len(name) > _LONGEST_SIZE:
            raise ValueError("a product of so many sizes is not understood")
        return name
    product = int(one) * int(other)
    if abs(product) >= 2**63:
        raise ValueError(f"a size of {product} is not understood")
    return product


def require(value: Any, *kinds: type) -> None:
    """That a value is of one of these kinds."""
    if not isinstance(value, kinds):
        raise TypeError(f"not understood for {kind_of(value)}")


def require_all_steps(stream: Stream, what: str) -> None:
    """That no padding is among the steps."""
    if stream.lengths:
        raise ValueError(f"sequences of different lengths are {what} with their padding, which is not done here")


def number(value: Any) -> Any:
    """The single number in an array whose values are in the file."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise TypeError(f"expected a number in the file, got {kind_of(value)}")
    return value.reshape(-1)[0]


#: Field of an AttributeProto -> AttributeProto.AttributeType.
_ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "t": 4, "floats": 6, "ints": 7, "strings": 8}


class Node:
    """A NodeProto, whose attributes must all be asked for: an unknown one may change everything."""

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
        """Its value, which must be of the kind that stands in that field of an AttributeProto; text as str."""
        proto = self._attributes.pop(name, None)
        if proto is None:
            return default
        if proto.type != _ATTRIBUTE_TYPES[field]:
            raise TypeError(f"its attribute {name} is of another type than it should be")
        value = getattr(proto, field)
        if field == "s":
            return value.decode()
        if field == "strings":
            return [text.decode() for text in value]
        return list(value) if field in ("ints", "floats") else value

    def require_no_more_attributes(self) -> None:
        """That all its attributes have been asked for."""
        for name in self._attributes:
            raise ValueError(f"its attribute {name} is not supported by fastgru")


def padded(inputs: list[Any], count: int) -> list[Any]:
    """The inputs, and None for those left out at the end."""
    return inputs + [None] * (count - len(inputs))


def whole_numbers(node: Node, inputs: Sequence[Any], place: int, name: str, default: Any = None) -> Any:
    """A list of whole numbers, an attribute in old sets of operators and an input in new ones."""
    given = node.attribute(name, "ints", default)
    if len(inputs) <= place or inputs[place] is None:
        return given
    value = inputs[place]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iO" or value.ndim > 1:
        raise TypeError(f"expected {name} to be whole numbers in the file, got {kind_of(value)}")
    return value.reshape(-1).tolist()


#: From what an operator's inputs are (None for one left out) to what its outputs are.
Operator = Callable[[Chains, Node, list[Any]], Any]


class Operators(dict[str, Operator]):
    """Functions by the names of the operators that they understand."""

    def reads(self, *names: str) -> Callable[[Operator], Operator]:
        """Decorator: enter a function for these operators."""

        def enter(function: Operator) -> Operator:
            self.update(dict.fromkeys(names, function))
            return function

        return enter
