"""From an ONNX graph to a description, by saying of each array what it is.

A graph is walked in its own order. Each operator is a function from what its inputs are to what its outputs are:

- an ndarray: known already, a weight or a number; a shape is an array of ints and of names for sizes not known yet;
- a `_Fill`: one value everywhere, whatever the shape;
- a `_Lengths`: how many steps of each row count;
- a `_Data`: what comes out of the chain of layers so far, with a name for each of its axes. Transpose, Squeeze and the
  like move the names; GRU, MatMul and the like add layers.

So it does not matter which exporter wrote the graph, or in how many steps it says what it means. What has no such
function, or is none of this package's layers, is refused with the node's name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru.formats.description import LayerDescription, ModelDescription
from fastgru.formats.onnx_export import CANDIDATES, DENSE_ACTIVATIONS, GATES
from fastgru.formats.onnx_tensors import DOUBLE, FLOAT, INT32, INT64, MOST_AXES, Budget, from_node, to_array

Array = NDArray[Any]

#: Before it GRU and the operators on shapes were others.
_LEAST_OPSET = 7
_MOST_LAYERS = 1000
_DTYPES = {FLOAT: "float32", DOUBLE: "float64"}
_ACTIVATIONS = {name: activation for activation, name in DENSE_ACTIVATIONS.items()}

# The names of axes: the batch, time, features, the directions of a GRU, one of size 1, and batch and time in one.
N, T, F, D, ONE, NT, TN = "N", "T", "F", "D", "1", "NT", "TN"


@dataclass(frozen=True)
class _Fill:
    """One value everywhere: a number, or the name of a size."""

    value: Any


@dataclass(frozen=True)
class _Lengths:
    """How many steps of each row count, as the caller says."""


@dataclass(frozen=True, eq=False)
class _Recurrent:
    """One direction of a GRU node; which layer it becomes depends on what is taken of its outputs.

    Attributes
    ----------
    config, weights : dict
    backward : bool
        Whether it reads the chain's sequences from their ends.
    steps : bool
        Whether this is all its outputs, or the last state.
    """

    config: dict[str, Any]
    weights: dict[str, Array]
    backward: bool
    steps: bool


@dataclass(frozen=True, eq=False)
class _Stream:
    """What comes out of a chain of layers.

    Attributes
    ----------
    layers : tuple of LayerDescription
    features : int or None
        The size of its last axis; None for tokens.
    recurrent : _Recurrent or None
        A GRU at its end that is no layer yet.
    flipped : bool
        Whether time runs against the time of what went into the last layer.
    lengths : bool or None
        Whether the layers so far are given lengths; None as long as none of them would look.
    """

    layers: tuple[LayerDescription, ...]
    features: int | None
    recurrent: _Recurrent | None = None
    flipped: bool = False
    lengths: bool | None = None


@dataclass(frozen=True, eq=False)
class _Data:
    """An array that comes out of a chain, or along the axis D out of several that differ in the last GRU."""

    axes: tuple[str, ...]
    streams: tuple[_Stream, ...]

    def axis(self, number: int) -> str:
        return self.axes[operator.index(number)]

    def without(self, number: int) -> tuple[str, ...]:
        number %= len(self.axes)
        return self.axes[:number] + self.axes[number + 1 :]

    def plain_axes(self) -> tuple[str, ...]:
        """The axes but for those of size 1."""
        return tuple(axis for axis in self.axes if axis != ONE and not (axis == D and len(self.streams) == 1))

    def on_streams(self, change: Callable[[_Stream], _Stream]) -> _Data:
        return replace(self, streams=tuple(change(stream) for stream in self.streams))


class _Node:
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

    def attribute(self, name: str, default: Any = None) -> Any:
        from onnx import helper

        proto = self._attributes.pop(name, None)
        if proto is None:
            return default
        value = helper.get_attribute_value(proto)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def require_no_more_attributes(self) -> None:
        for name in self._attributes:
            raise ValueError(f"its attribute {name} is not known here")


def description(model: Any, arrays: dict[str, Array], budget: Budget) -> ModelDescription:
    """The model that a ModelProto computes.

    Its input is (N, T, F) here, even if the graph takes (T, N, F), as PyTorch's GRU does by default.

    Parameters
    ----------
    model : ModelProto
    arrays : dict of str to ndarray
        Its initializers.
    budget : Budget

    Raises
    ------
    ValueError
        It computes something else than a chain of this package's layers; the message names the node.
    """
    failures: list[tuple[int, ValueError]] = []
    for time_first in (False, True):
        reader = _Reader(model, arrays, budget, time_first=time_first)
        try:
            return reader.read()
        except ValueError as error:
            failures.append((reader.done, error))
    raise max(failures, key=lambda failure: failure[0])[1]


class _Reader:
    """Walks a graph once.

    Attributes
    ----------
    values : dict of str to object
        What each array is.
    sizes : dict of str to int or None
        Of the axes N and T, where the graph fixes them.
    done : int
        How many nodes have been understood.
    """

    def __init__(self, model: Any, arrays: dict[str, Array], budget: Budget, *, time_first: bool) -> None:
        self.model, self.graph, self.budget = model, model.graph, budget
        self.time_first = time_first
        self.values: dict[str, Any] = dict(arrays)
        self.sizes: dict[str, int | None] = {N: None, T: None}
        self.dtype: str | None = None
        self.input_shape: tuple[int | None, ...] = ()
        self.done = 0
        self._settled: dict[int, _Stream] = {}

    def read(self) -> ModelDescription:
        opset = self._opset()
        if not self.graph.output:
            raise ValueError("it has no outputs")
        nodes, needed = self._needed_nodes(opset)
        self._name_inputs(needed)
        for node in nodes:
            self._run(node)
            self.done += 1
        layers = self._chain()
        name = self.graph.name if self.graph.name and "/" not in self.graph.name else "sequential"
        return ModelDescription(list(layers), self.input_shape, name, self.dtype or "float32")

    def _opset(self) -> int:
        versions: list[int] = [entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")]
        if len(versions) != 1 or versions[0] < _LEAST_OPSET:
            raise ValueError(f"expected one set of ONNX operators, version {_LEAST_OPSET} or later, got {versions}")
        return versions[0]

    def _needed_nodes(self, opset: int) -> tuple[list[_Node], set[str]]:
        """The nodes that the outputs depend on, in order, and the names of all arrays that they use."""
        needed = {output.name for output in self.graph.output}
        nodes = []
        for proto in reversed(self.graph.node):
            if any(name in needed for name in proto.output if name):
                nodes.append(_Node(proto, opset))
                needed.update(name for name in proto.input if name)
        return nodes[::-1], needed

    # --- Inputs ----------------------------------------------------------------------------------------------------

    def _name_inputs(self, needed: set[str]) -> None:
        """Say what the graph's inputs are: one is the data, another may be the lengths."""
        data: str | None = None
        for given in self.graph.input:
            if given.name not in needed:
                continue
            kind, shape = _type_of(given)
            if kind in (INT32, INT64) and len(shape) == 1 and shape[0] is None:
                self.values[given.name] = _Lengths()
            elif given.name in self.values:
                continue  # an input with a default: a constant
            elif data is None:
                data = given.name
                self.values[given.name] = self._data(given.name, kind, shape)
            else:
                raise ValueError(
                    f"input {given.name!r}: a model here has one input besides the lengths, and begins with states of "
                    f"zeros, but this graph takes {data!r} too"
                )
        if data is None:
            raise ValueError("it has no input that its outputs depend on")

    def _data(self, name: str, kind: int, shape: tuple[int | None, ...]) -> _Data:
        axes = {(True, 2): (N, F), (True, 3): (N, T, F), (False, 2): (N, T)}.get((kind in _DTYPES, len(shape)))
        if axes is None or (kind not in _DTYPES and kind not in (INT32, INT64)):
            raise ValueError(
                f"input {name!r}: expected (N, T, F) or (N, F) of float or double, or tokens (N, T), got data type "
                f"{kind} and {len(shape)} axes"
            )
        if self.time_first and T in axes:
            axes = (T, N, *axes[2:])
        named = dict(zip(axes, shape, strict=True))
        self.sizes |= {axis: named.get(axis) for axis in (N, T)}
        features = named.get(F)
        if F in axes and features is None:
            raise ValueError(f"input {name!r}: expected a known number of features, got shape {shape}")
        self.input_shape = tuple(named[axis] for axis in (T, F) if axis in axes)
        if kind in _DTYPES:
            self._agree_on_dtype(_DTYPES[kind], name)
        return _Data(axes, (_Stream((), features),))

    def _agree_on_dtype(self, dtype: str, name: str) -> None:
        if self.dtype not in (None, dtype):
            raise ValueError(f"{name!r}: expected {self.dtype} as what comes before, got {dtype}")
        self.dtype = dtype

    # --- Nodes -----------------------------------------------------------------------------------------------------

    def _run(self, node: _Node) -> None:
        try:
            run = _OPERATORS.get(node.operator) if node.domain in ("", "ai.onnx") else None
            if run is None:
                raise ValueError(f"no operator that is read here; those are {', '.join(sorted(_OPERATORS))}")
            inputs = [self._value(name) for name in node.inputs]
            outputs = run(self, node, inputs)
            node.require_no_more_attributes()
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            if len(node.outputs) > len(outputs):
                raise ValueError(f"expected at most {len(outputs)} outputs, got {len(node.outputs)}")
            for name, value in zip(node.outputs, outputs, strict=False):
                self._define(name, value)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"{node}: {error}") from None

    def _value(self, name: str) -> Any:
        if name and name not in self.values:
            raise ValueError(f"its input {name!r} is not defined before it")
        return self.values[name] if name else None

    def _define(self, name: str, value: Any) -> None:
        if not name:
            return
        if name in self.values:
            raise ValueError(f"its output {name!r} is defined before")
        if isinstance(value, np.ndarray):
            if value.ndim > MOST_AXES:
                raise ValueError(f"expected at most {MOST_AXES} axes, got {value.ndim}")
            self.budget.spend(f"output {name!r}", value.nbytes)
        elif isinstance(value, _Data):
            if len(value.axes) > MOST_AXES:
                raise ValueError(f"expected at most {MOST_AXES} axes, got {len(value.axes)}")
            if any(len(stream.layers) > _MOST_LAYERS for stream in value.streams):
                raise ValueError(f"more than {_MOST_LAYERS:,} layers")
        self.values[name] = value

    def shape_of(self, data: _Data) -> list[Any]:
        """The sizes of the axes: a number, or a name where the graph leaves it open."""
        rows, steps = (self.sizes[axis] or axis for axis in (N, T))
        both = _times(rows, steps)
        named = {N: rows, T: steps, NT: both, TN: both, ONE: 1, D: len(data.streams), F: data.streams[0].features}
        return [named[axis] for axis in data.axes]

    # --- Layers ----------------------------------------------------------------------------------------------------

    def weight(self, what: str, value: Any, axes: int) -> Array:
        """A weight: known, in the model's dtype, and with that many axes."""
        if not isinstance(value, np.ndarray) or value.dtype not in ("float32", "float64"):
            raise ValueError(f"expected {what} to be floating-point numbers in the file, got {_kind(value)}")
        if value.ndim != axes:
            raise ValueError(f"expected {what} to have {axes} axes, got shape {value.shape}")
        self._agree_on_dtype(str(value.dtype), what)
        self.budget.spend(what, value.nbytes)  # one that several layers use becomes several
        return value

    def settled(self, data: Any) -> _Stream:
        """The one stream in an array, whose GRU at the end is a layer now."""
        if not isinstance(data, _Data):
            raise ValueError(f"expected what comes out of a layer, got {_kind(data)}")
        if len(data.streams) != 1:
            raise ValueError("expected one output, got several directions or layers in one array")
        return self._settle(data.streams[0])

    def _settle(self, stream: _Stream) -> _Stream:
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
        if id(part) not in self._settled:
            config = _settled_config(part, stream)
            self._settled[id(part)] = self.add(replace(stream, recurrent=None), "GRU", config, part.weights)
        return replace(self._settled[id(part)], flipped=False)

    def add(
        self,
        stream: _Stream,
        class_name: str,
        config: dict[str, Any],
        weights: dict[str, Array] | None = None,
        **to: Any,
    ) -> _Stream:
        """A stream with another layer at its end; `to` says what else changes."""
        kind = {"GlobalAveragePooling1D": "global_average_pooling1d", "GlobalMaxPooling1D": "global_max_pooling1d"}
        name = kind.get(class_name, class_name.lower())
        count = sum(layer.class_name == class_name for layer in stream.layers)
        layer = LayerDescription(class_name, f"{name}_{count}" if count else name, config, weights or {})
        return replace(stream, layers=(*stream.layers, layer), **to)

    def merge(self, one: Any, other: Any, mode: str | None) -> _Data:
        """Two directions of a GRU become one layer."""
        parts = [data.streams[0].recurrent for data in (one, other) if len(data.streams) == 1]
        streams = [data.streams[0] for data in (one, other)]
        if len(parts) != 2 or parts[0] is None or parts[1] is None or one.axes != other.axes:
            raise ValueError("two arrays can be merged only if they are the two directions of a GRU")
        first, second = parts
        if len(streams[0].layers) != len(streams[1].layers) or any(
            a is not b for a, b in zip(streams[0].layers, streams[1].layers, strict=True)
        ):
            raise ValueError("two GRUs can be merged only if they read the same")
        if first.backward == second.backward or first.steps != second.steps or any(s.flipped for s in streams):
            raise ValueError(
                "two GRUs can be merged only if one reads forwards and one backwards, and their outputs stand in the "
                "order of their input"
            )
        if streams[0].features != streams[1].features or streams[0].lengths != streams[1].lengths:
            raise ValueError("two GRUs can be merged only if they have the same number of units and the same lengths")
        configs = [{**_settled_config(part, stream)} for part, stream in zip((first, second), streams, strict=True)]
        config = {
            "layer": {"class_name": "GRU", "config": configs[0]},
            "backward_layer": {"class_name": "GRU", "config": configs[1]},
            "merge_mode": mode,
        }
        weights = {
            f"{direction}/{name}": array
            for direction, part in (("forward", first), ("backward", second))
            for name, array in part.weights.items()
        }
        units = streams[0].features
        assert units is not None
        features = 2 * units if mode == "concat" else units
        merged = self.add(streams[0], "Bidirectional", config, weights, recurrent=None, features=features)
        return _Data(one.axes, (merged,))

    # --- Outputs ---------------------------------------------------------------------------------------------------

    def _chain(self) -> tuple[LayerDescription, ...]:
        """The layers that make the graph's outputs."""
        outputs = []
        for output in self.graph.output:
            value = self.values.get(output.name)
            if not isinstance(value, _Data):
                raise ValueError(f"output {output.name!r}: expected what comes out of a layer, got {_kind(value)}")
            self._require_order(output.name, value)
            outputs.append(value)
        names = [output.name for output in self.graph.output]
        try:
            layers = self._last(outputs)
        except ValueError as error:
            raise ValueError(f"output {', '.join(map(repr, names))}: {error}") from None
        if not layers:
            raise ValueError(f"output {names[0]!r}: there is no layer before it")
        return layers

    def _require_order(self, name: str, data: _Data) -> None:
        axes = data.plain_axes()
        time_major = (T, N, F) if self.time_first else (N, T, F)
        if axes not in ((N, F), time_major):
            raise ValueError(
                f"output {name!r}: expected axes ({', '.join(time_major)}) or (N, F), got ({', '.join(axes)})"
            )

    def _last(self, outputs: list[_Data]) -> tuple[LayerDescription, ...]:
        if len(outputs) == 1:
            return self.settled(outputs[0]).layers
        one, other = outputs[0], outputs[1]
        parts = [data.streams[0].recurrent for data in outputs if len(data.streams) == 1]
        if len(outputs) == 2 and len(parts) == 2 and parts[0] is not None and parts[1] is not None:
            if parts[0].weights is parts[1].weights and not parts[1].steps:
                *before, last = self.settled(one).layers
                return (*before, replace(last, config={**last.config, "return_state": True}))
            return self.merge(one, other, None).streams[0].layers
        raise ValueError(
            "several outputs are read only from a last GRU, its outputs and its last state, or its two directions"
        )


def _settled_config(part: _Recurrent, stream: _Stream) -> dict[str, Any]:
    return {
        **part.config,
        "return_sequences": part.steps,
        "go_backwards": part.backward,
        "zero_output_for_mask": bool(stream.lengths and part.steps),
    }


def _type_of(given: Any) -> tuple[int, tuple[int | None, ...]]:
    """Element type and shape of a graph's input; None for sizes that it leaves open."""
    if not given.type.HasField("tensor_type") or not given.type.tensor_type.HasField("shape"):
        raise ValueError(f"input {given.name!r}: expected an array with a known number of axes")
    tensor = given.type.tensor_type
    if len(tensor.shape.dim) > MOST_AXES:
        raise ValueError(f"input {given.name!r}: expected at most {MOST_AXES} axes, got {len(tensor.shape.dim)}")
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    if any(size is not None and size < 1 for size in shape):
        raise ValueError(f"input {given.name!r}: expected sizes of at least 1, got {shape}")
    return tensor.elem_type, shape


def _kind(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, np.ndarray):
        return f"numbers of {value.dtype}" if value.dtype != object else "a shape"
    names = {_Fill: "one value everywhere", _Lengths: "the lengths", _Data: "what comes out of a layer"}
    return names.get(type(value), "nothing")


def _times(one: Any, other: Any) -> Any:
    """The product of two sizes, of which one or both may be names."""
    if isinstance(one, str) or isinstance(other, str):
        if one == 1 or other == 1:
            return other if one == 1 else one
        if {one, other} != {N, T}:
            raise ValueError(f"a size {one} times {other} is not understood")
        return f"{N}*{T}"
    return one * other


# --- Operators on anything --------------------------------------------------------------------------------------

_Operator = Callable[[_Reader, _Node, list[Any]], Any]
_OPERATORS: dict[str, _Operator] = {}


def _reads(*names: str) -> Callable[[_Operator], _Operator]:
    def register(function: _Operator) -> _Operator:
        _OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def _numbers(node: _Node, inputs: Sequence[Any], place: int, name: str, default: Any = None) -> Any:
    """A list of whole numbers, an attribute in old sets of operators and an input in new ones."""
    given = node.attribute(name, default)
    if len(inputs) <= place or inputs[place] is None:
        return given
    value = inputs[place]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iO" or value.ndim > 1:
        raise ValueError(f"expected {name} to be whole numbers in the file, got {_kind(value)}")
    return value.reshape(-1).tolist()


def _require(value: Any, *kinds: type) -> None:
    if not isinstance(value, kinds):
        raise ValueError(f"not understood for {_kind(value)}")


@_reads("Constant")
def _constant(reader: _Reader, node: _Node, inputs: list[Any]) -> Array:
    del reader, inputs
    for name in ("value_int", "value_ints", "value_float", "value_floats"):
        value = node.attribute(name)
        if value is not None:
            return np.array(value, np.int64 if "int" in name else np.float32)
    tensor = node.attribute("value")
    if tensor is None:
        raise ValueError("it has no value that is read here")
    return to_array(tensor)


@_reads("Identity")
def _identity(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    del reader, node
    (value,) = inputs
    return value


@_reads("Cast")
def _cast(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    """To whole numbers and between them; a floating-point array stays what it is."""
    (value,), to = inputs, node.attribute("to")
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.astype({FLOAT: np.float32, DOUBLE: np.float64, INT32: np.int32, INT64: np.int64}[to])
    tokens = isinstance(value, _Data) and value.streams[0].features is None
    if isinstance(value, _Data) and not tokens:
        if _DTYPES.get(to) != reader.dtype:
            raise ValueError(f"expected no other type than {reader.dtype}, got data type {to}")
    elif to not in (INT32, INT64) and not isinstance(value, _Fill):
        raise ValueError(f"expected whole numbers to stay whole, got data type {to}")
    return value


@_reads("Dropout")
def _dropout(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    rate = node.attribute("ratio", 0.5)
    node.attribute("seed")
    data, *more = inputs
    if more and more[0] is not None:
        rate = float(reader_number(more[0]))
    if len(more) > 1 and more[1] is not None and bool(reader_number(more[1])):
        raise ValueError("expected inference, got training_mode")
    if not 0 <= rate < 1:
        raise ValueError(f"expected a rate from 0 to below 1, got {rate}")
    return replace(data, streams=(reader.add(reader.settled(data), "Dropout", {"rate": rate}),))


def reader_number(value: Any) -> Any:
    """A single known number."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise ValueError(f"expected a number in the file, got {_kind(value)}")
    return value.reshape(-1)[0]


@_reads("Shape")
def _shape(reader: _Reader, node: _Node, inputs: list[Any]) -> Array:
    (value,) = inputs
    _require(value, _Data, np.ndarray)
    sizes = reader.shape_of(value) if isinstance(value, _Data) else list(value.shape)
    part = sizes[node.attribute("start", 0) : node.attribute("end")]
    return _array_of_sizes(part)


def _array_of_sizes(sizes: Sequence[Any]) -> Array:
    """A shape: int64 if all is known, else objects."""
    return np.array(sizes, np.int64 if all(isinstance(size, int) for size in sizes) else object)


@_reads("ConstantOfShape")
def _constant_of_shape(reader: _Reader, node: _Node, inputs: list[Any]) -> _Fill:
    del reader
    _require(inputs[0], np.ndarray)
    tensor = node.attribute("value")
    return _Fill(0.0 if tensor is None else reader_number(to_array(tensor)).item())


@_reads("Expand")
def _expand(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    del reader, node
    value, shape = inputs
    _require(value, np.ndarray, _Fill, _Lengths)
    _require(shape, np.ndarray)
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        if flat.size == 0 or not (flat == flat[0]).all():
            raise ValueError("expected one value to be repeated, got several")
        return _Fill(flat[0] if isinstance(flat[0], str) else flat[0].item() if hasattr(flat[0], "item") else flat[0])
    return value


@_reads("Min")
def _min(reader: _Reader, node: _Node, inputs: list[Any]) -> _Lengths:
    """Lengths are never more than the steps: to say so changes nothing."""
    del node
    lengths, steps = inputs
    _require(lengths, _Lengths)
    if reader_number(steps) not in (T, reader.sizes[T]):
        raise ValueError("expected lengths to be cut to the number of steps alone")
    return _Lengths()


# --- Operators that move axes -----------------------------------------------------------------------------------


@_reads("Transpose")
def _transpose(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    del reader
    (value,), order = inputs, node.attribute("perm")
    if isinstance(value, _Fill):
        return value
    _require(value, np.ndarray, _Data)
    axes = len(value.axes) if isinstance(value, _Data) else value.ndim
    order = list(range(axes))[::-1] if order is None else list(order)
    if sorted(order) != list(range(axes)):
        raise ValueError(f"expected perm to order {axes} axes, got {order}")
    if isinstance(value, np.ndarray):
        return value.transpose(order)
    return replace(value, axes=tuple(value.axes[axis] for axis in order))


@_reads("Squeeze")
def _squeeze(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    value, axes = inputs[0], _numbers(node, inputs, 1, "axes")
    if isinstance(value, _Fill):
        return value
    _require(value, np.ndarray, _Data)
    if isinstance(value, np.ndarray):
        return value.squeeze(None if axes is None else tuple(axes))
    removed = {axis % len(value.axes) for axis in axes} if axes is not None else set(range(len(value.axes)))
    kept = []
    for number, (axis, size) in enumerate(zip(value.axes, reader.shape_of(value), strict=True)):
        single = axis == ONE or (axis == D and size == 1)
        if number in removed and not single and axes is not None:
            raise ValueError(f"expected an axis of size 1 to be removed, got the axis {axis} of size {size}")
        if number not in removed or not single:
            kept.append(axis)
    return replace(value, axes=tuple(kept))


@_reads("Unsqueeze")
def _unsqueeze(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    del reader
    value, axes = inputs[0], _numbers(node, inputs, 1, "axes")
    if isinstance(value, _Fill):
        return value
    _require(value, np.ndarray, _Data)
    if isinstance(value, np.ndarray):
        return np.expand_dims(value, tuple(axes))
    count = len(value.axes) + len(axes)
    new = {axis % count for axis in axes}
    if len(new) < len(axes) or count > MOST_AXES:
        raise ValueError(f"expected different axes, and at most {MOST_AXES} in all, got {axes}")
    old = iter(value.axes)
    return replace(value, axes=tuple(ONE if axis in new else next(old) for axis in range(count)))


@_reads("Flatten")
def _flatten(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    (value,), axis = inputs, node.attribute("axis", 1)
    _require(value, _Data)
    if axis % len(value.axes) != 1 or value.axes[0] != N:
        raise ValueError(f"expected all axes but the batch to become one, got axis={axis} of ({', '.join(value.axes)})")
    return _flattened(reader, value)


def _flattened(reader: _Reader, data: _Data) -> _Data:
    """(N, T, F) as (N, T F); (N, F) stays."""
    axes = data.plain_axes()
    if axes == (N, F):
        return replace(data, axes=axes)
    steps = reader.sizes[T]
    if axes != (N, T, F) or steps is None:
        raise ValueError(f"expected (N, T, F) with a known number of steps, got ({', '.join(axes)})")
    stream = reader.settled(data)
    _require_all_steps(stream, "flattened")
    assert stream.features is not None
    return _Data((N, F), (reader.add(stream, "Flatten", {}, features=steps * stream.features, lengths=False),))


def _require_all_steps(stream: _Stream, what: str) -> None:
    if stream.lengths:
        raise ValueError(f"sequences of different lengths are {what} with their padding, which is not done here")


@_reads("Reshape")
def _reshape(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    value, target = inputs[0], _numbers(node, inputs, 1, "shape")
    zero_is_size = node.attribute("allowzero", 0)
    if isinstance(value, _Fill):
        return value
    _require(value, np.ndarray, _Data)
    sizes = reader.shape_of(value) if isinstance(value, _Data) else list(value.shape)
    if not zero_is_size:
        target = [sizes[place] if size == 0 else size for place, size in enumerate(target)]
    if isinstance(value, np.ndarray):
        return value.reshape([operator.index(size) for size in target])
    return _reshaped(reader, value, target)


def _reshaped(reader: _Reader, data: _Data, target: list[Any]) -> _Data:
    """What a Reshape may mean here, the first that gives that shape: other axes of size 1, or two axes as one."""
    plain = data.plain_axes()
    if _fits(reader, data, data.axes, target):
        return data
    if _fits(reader, data, plain, target):
        return replace(data, axes=plain)
    single = {("N", "T"): NT, ("T", "N"): TN}
    if len(data.streams) == 2 and plain[-2:] == (D, F) and len(plain) == len(target) + 1:
        return _checked(reader, _concatenated(reader, _split(data)), target)
    if plain[:2] in single and len(plain) == 3 and _fits(reader, data, (single[plain[:2]], F), target):
        return replace(data, axes=(single[plain[:2]], F))
    if plain[:1] in ((NT,), (TN,)) and _fits(reader, data, (*plain[0], *plain[1:]), target):
        return replace(data, axes=(*plain[0], *plain[1:]))
    if plain == (N, T, F) and len(target) == 2:
        return _checked(reader, _flattened(reader, data), target)
    raise ValueError(f"shape {target} from axes ({', '.join(data.axes)}) is not understood")


def _checked(reader: _Reader, data: _Data, target: list[Any]) -> _Data:
    if not _fits(reader, data, data.axes, target):
        raise ValueError(f"shape {target} from axes ({', '.join(data.axes)}) is not understood")
    return data


def _fits(reader: _Reader, data: _Data, axes: tuple[str, ...], target: list[Any]) -> bool:
    """Whether an array with those axes has that shape, one size of which may be -1."""
    sizes = reader.shape_of(replace(data, axes=axes))
    if len(sizes) != len(target) or target.count(-1) > 1:
        return False
    return all(wanted in (size, -1) for size, wanted in zip(sizes, target, strict=True))


# --- Operators that take parts ----------------------------------------------------------------------------------


@_reads("Gather")
def _gather(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    value, index = inputs
    axis = node.attribute("axis", 0)
    if isinstance(index, _Data):
        return _embedding(reader, value, index, axis)
    _require(index, np.ndarray)
    _require(value, np.ndarray, _Data)
    if isinstance(value, np.ndarray):
        # The result is bounded before it is made: an index may be repeated.
        reader.budget.spend("its result", value.nbytes * index.size // max(value.shape[axis], 1))
        return np.asarray(np.take(value, index.astype(np.int64), axis=axis), value.dtype)
    if index.size != 1 or index.ndim > 1:
        raise ValueError(f"expected one index, got shape {index.shape}")
    return _take(value, axis, int(index.reshape(-1)[0]), keep=index.ndim == 1)


def _take(data: _Data, axis: int, index: int, *, keep: bool) -> _Data:
    """One place along an axis, which stays as one of size 1 or goes."""
    name = data.axis(axis)
    place = axis % len(data.axes)
    axes = data.axes[:place] + ((ONE,) if keep else ()) + data.axes[place + 1 :]
    if name == D:
        return _Data(axes, (data.streams[index],))
    if name == ONE and index in (0, -1):
        return replace(data, axes=axes)
    if name == T and index in (0, -1):
        return replace(data.on_streams(lambda stream: _one_step(stream, index)), axes=axes)
    raise ValueError(f"expected a direction, or the first or last step, got index {index} of the axis {name}")


def _one_step(stream: _Stream, index: int) -> _Stream:
    """The first or last step, where that is a GRU's last state."""
    part = stream.recurrent
    if part is None or not part.steps:
        raise ValueError("a step can be taken of a GRU's outputs only, each direction by itself")
    _require_all_steps(stream, "cut")
    if (index == -1) != (part.backward == stream.flipped):
        raise ValueError(
            f"step {index} is not the last one that the GRU computes: of the direction that reads backwards that is "
            f"step 0, and a Bidirectional's last step has seen one step backwards"
        )
    return replace(stream, recurrent=replace(part, steps=False), flipped=False)


def _embedding(reader: _Reader, table: Any, tokens: _Data, axis: int) -> _Data:
    if axis != 0 or tokens.streams[0].features is not None:
        raise ValueError("expected tokens to choose rows of a table")
    rows, size = (table := reader.weight("the table", table, 2)).shape
    config = {"input_dim": rows, "output_dim": size}
    stream = reader.add(reader.settled(tokens), "Embedding", config, {"embeddings": table}, features=size)
    return _Data((*tokens.axes, F), (stream,))


@_reads("Slice")
def _slice(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    del reader
    value = inputs[0]
    starts, ends = _numbers(node, inputs, 1, "starts"), _numbers(node, inputs, 2, "ends")
    axes = _numbers(node, inputs, 3, "axes", list(range(len(starts))))
    steps = _numbers(node, inputs, 4, "steps", [1] * len(starts))
    if isinstance(value, _Fill):
        return value
    _require(value, np.ndarray, _Data)
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        part = slice(*(operator.index(number) for number in (begin, end, step)))
        if isinstance(value, np.ndarray):
            # A start before the first element is out of Python's slices, but not out of ONNX'.
            value = value[(slice(None),) * (axis % value.ndim) + (_cut(part, value.shape[axis]),)]
        else:
            value = _slice_data(value, axis, part)
    return value


def _cut(part: slice, size: int) -> slice:
    """ONNX' slice in Python's words: what runs backwards to before the first element has no end."""
    return slice(part.start, None, part.step) if part.step < 0 and part.stop < -size else part


def _slice_data(data: _Data, axis: int, part: slice) -> _Data:
    name = data.axis(axis)
    if name == D:
        return replace(data, streams=data.streams[_cut(part, len(data.streams))] or _refuse("an empty part"))
    if name == T and part.step == -1 and part.start in (-1, 2**63 - 1, 2**31 - 1) and part.stop < -(2**30):
        return data.on_streams(_flip)
    last, first = part.start == -1 and part.stop > 2**30, part.start == 0 and part.stop == 1
    if name == T and part.step == 1 and (last or first):
        return _take(data, axis, -1 if last else 0, keep=True)
    if part.step == 1 and part.start == 0 and part.stop > 2**30:
        return data
    raise ValueError(f"[{part.start}:{part.stop}:{part.step}] of the axis {name} is not understood")


def _refuse(what: str) -> Any:
    raise ValueError(f"{what} is not understood")


def _flip(stream: _Stream) -> _Stream:
    _require_all_steps(stream, "reversed")
    return replace(stream, flipped=not stream.flipped, lengths=False)


@_reads("ReverseSequence")
def _reverse_sequence(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    data, lengths = inputs
    _require(data, _Data)
    batch, time = node.attribute("batch_axis", 1), node.attribute("time_axis", 0)
    if (data.axis(batch), data.axis(time)) != (N, T):
        raise ValueError(f"expected batch and time, got the axes {data.axis(batch)} and {data.axis(time)}")
    given = _takes_lengths(reader, lengths)
    return data.on_streams(lambda stream: replace(_with_lengths(stream, given), flipped=not stream.flipped))


@_reads("Split")
def _split_node(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    value, axis = inputs[0], node.attribute("axis", 0)
    count = node.attribute("num_outputs", len(node.outputs))
    parts = _numbers(node, inputs, 1, "split")
    if isinstance(value, np.ndarray):
        places = np.cumsum(parts)[:-1] if parts is not None else count
        return tuple(np.split(value, places, axis=axis))
    _require(value, _Data)
    if value.axis(axis) != D or count != len(value.streams) or (parts is not None and set(parts) != {1}):
        raise ValueError("expected a GRU's outputs to be split into its directions")
    return tuple(replace(value, streams=(stream,)) for stream in value.streams)


def _split(data: _Data) -> list[_Data]:
    """Each direction without the axis D."""
    place = data.axes.index(D)
    return [_Data(data.without(place), (stream,)) for stream in data.streams]


# --- Operators that add layers ----------------------------------------------------------------------------------


@_reads("GRU")
def _gru(reader: _Reader, node: _Node, inputs: list[Any]) -> tuple[_Data, _Data]:
    x, w, r, b, lengths, initial = (*inputs, *[None] * (6 - len(inputs)))
    _require(x, _Data)
    _require_zeros(initial)
    batch_first = node.attribute("layout", 0)
    expected = (N, T, F) if batch_first else (T, N, F)
    if x.plain_axes() != expected:
        raise ValueError(f"expected its input to be ({', '.join(expected)}), got ({', '.join(x.plain_axes())})")
    flipped = x.streams[0].flipped
    # That time runs backwards is told to the GRU: it reads the other way round.
    before = reader.settled(x if x.streams[0].recurrent else x.on_streams(lambda s: replace(s, flipped=False)))
    flipped = flipped and not x.streams[0].recurrent
    before = _with_lengths(before, _takes_lengths(reader, lengths))
    w, r = reader.weight("W", w, 3), reader.weight("R", r, 3)
    b = None if b is None else reader.weight("B", b, 2)
    streams = []
    for number, config in enumerate(_gru_configs(node, b is not None)):
        if any(len(array) != config["directions"] for array in (w, r, b) if array is not None):
            raise ValueError(f"expected weights for {config['directions']} directions, got W of shape {w.shape}")
        del config["directions"]
        reads_backwards = config.pop("reverse")
        weights = from_node(w[number], r[number], None if b is None else b[number], reset_after=config["reset_after"])
        config["units"] = units = r.shape[2]
        if weights["kernel"].shape[0] != before.features:
            raise ValueError(f"expected W for {before.features} features, got shape {w.shape}")
        part = _Recurrent(config, weights, reads_backwards != flipped, steps=True)
        streams.append(replace(before, recurrent=part, features=units, flipped=flipped))
    size = node.attribute("hidden_size", units)
    if size != units:
        raise ValueError(f"expected hidden_size {units} because R says so, got {size}")
    y = _Data((N, T, D, F) if batch_first else (T, D, N, F), tuple(streams))
    return y, replace(y.on_streams(_last_state), axes=(N, D, F) if batch_first else (D, N, F))


def _last_state(stream: _Stream) -> _Stream:
    assert stream.recurrent is not None
    return replace(stream, recurrent=replace(stream.recurrent, steps=False), flipped=False)


def _gru_configs(node: _Node, use_bias: bool) -> list[dict[str, Any]]:
    """The configuration of each direction's GRU, and which way it reads."""
    direction = node.attribute("direction", "forward")
    readings = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if readings is None:
        raise ValueError(f"expected direction forward, reverse or bidirectional, got {direction!r}")
    names = [
        name.decode(errors="replace") if isinstance(name, bytes) else name
        for name in node.attribute("activations", ["Sigmoid", "Tanh"] * len(readings))
    ]
    if len(names) != 2 * len(readings):
        raise ValueError(f"expected {2 * len(readings)} activations, got {len(names)}")
    alphas, betas = (iter(node.attribute(f"activation_{which}", ())) for which in ("alpha", "beta"))
    chosen = [_activation(name, (GATES, CANDIDATES)[place % 2], alphas, betas) for place, name in enumerate(names)]
    if next(alphas, None) is not None or next(betas, None) is not None:
        raise ValueError("expected an activation_alpha and activation_beta for each activation that has one, got more")
    shared = {
        "reset_after": bool(node.attribute("linear_before_reset", 0)),
        "use_bias": use_bias,
        "directions": len(readings),
    }
    return [
        {"recurrent_activation": chosen[2 * place], "activation": chosen[2 * place + 1], "reverse": reverse, **shared}
        for place, reverse in enumerate(readings)
    ]


#: What alpha and beta are where a node does not say: of HardSigmoid. (Affine's are not agreed upon.)
_DEFAULTS = {"hardsigmoid": (0.2, 0.5)}


def _activation(
    name: str, table: dict[str, tuple[str, float | None, float | None]], alphas: Iterable[float], betas: Iterable[float]
) -> str:
    """This package's name for an activation of ONNX."""
    has_parameters = {entry[0].lower() for entry in table.values() if entry[1] is not None}
    alpha = beta = None
    if name.lower() in has_parameters:
        default = _DEFAULTS.get(name.lower(), (None, None))
        alpha, beta = next(iter(alphas), default[0]), next(iter(betas), default[1])
    for own, (theirs, own_alpha, own_beta) in table.items():
        if theirs.lower() == name.lower() and _same(alpha, own_alpha) and _same(beta, own_beta):
            return own
    parameters = "" if alpha is None else f" with alpha {alpha:g} and beta {beta:g}"
    raise ValueError(f"activation {name}{parameters} has no counterpart; those are {', '.join(table)}")


def _same(one: float | None, other: float | None) -> bool:
    """Whether two parameters are the same number of float32, which is what a file can hold."""
    return one is other or (one is not None and other is not None and np.float32(one) == np.float32(other))


def _require_zeros(initial: Any) -> None:
    zeros = initial.value == 0 if isinstance(initial, _Fill) else isinstance(initial, np.ndarray) and not initial.any()
    if initial is not None and not zeros:
        raise ValueError(f"expected initial_h to be zeros, because a model here begins with them, got {_kind(initial)}")


def _takes_lengths(reader: _Reader, value: Any) -> bool:
    """Whether the caller says how many steps count; False if all do."""
    if isinstance(value, _Lengths):
        return True
    steps = value.value if isinstance(value, _Fill) else value
    if isinstance(steps, np.ndarray) and steps.size and (steps == steps.flat[0]).all():
        steps = steps.flat[0]
    if value is not None and (isinstance(steps, np.ndarray) or steps not in (T, reader.sizes[T] or T)):
        raise ValueError(f"expected sequence_lens from the caller, or the number of steps, got {_kind(value)}")
    return False


def _with_lengths(stream: _Stream, given: bool) -> _Stream:
    if stream.lengths is not None and stream.lengths != given:
        raise ValueError("some layers are given lengths and others are not: here all of a chain are")
    return replace(stream, lengths=given)


@_reads("MatMul")
def _matmul(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    del node
    data, kernel = inputs
    return _dense(reader, data, reader.weight("the matrix", kernel, 2), None)


@_reads("Gemm")
def _gemm(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    data, kernel, bias = (*inputs, *[None] * (3 - len(inputs)))
    scales = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if node.attribute("transA", 0) or scales != (1.0, 1.0):
        raise ValueError(f"expected transA=0, alpha=1 and beta=1, got alpha and beta {scales}")
    kernel = reader.weight("B", kernel, 2)
    if node.attribute("transB", 0):
        kernel = np.ascontiguousarray(kernel.T)
    if bias is not None:
        bias = reader.weight("C", bias, 1 if np.ndim(bias) != 2 or len(bias) != 1 else 2).reshape(-1)
    return _dense(reader, data, kernel, bias)


def _dense(reader: _Reader, data: Any, kernel: Array, bias: Array | None) -> _Data:
    stream = reader.settled(data)
    features, units = kernel.shape
    if data.axes[-1] != F or stream.features != features:
        raise ValueError(
            f"expected a matrix for {stream.features} features on the last axis, got {features} and axes "
            f"({', '.join(data.axes)})"
        )
    config = {"units": units, "use_bias": bias is not None}
    weights = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    _require_bias(bias, units)
    return replace(data, streams=(reader.add(stream, "Dense", config, weights, features=units),))


def _require_bias(bias: Array | None, units: int) -> None:
    if bias is not None and bias.shape != (units,):
        raise ValueError(f"expected a bias of {units} numbers, got shape {bias.shape}")


@_reads("Add", "Mul", "Div", "Mean")
def _arithmetic(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    """A bias, or two directions of a GRU made one."""
    one, other = inputs
    if node.operator in ("Add", "Mul", "Mean") and isinstance(one, _Data) and isinstance(other, _Data):
        return reader.merge(one, other, {"Add": "sum", "Mul": "mul", "Mean": "ave"}[node.operator])
    if isinstance(other, _Data) and node.operator in ("Add", "Mul"):
        one, other = other, one
    if isinstance(one, _Data):
        if node.operator == "Add":
            return _add_bias(reader, one, other)
        return _halve(reader, one, reader_number(other) if node.operator == "Mul" else 1 / reader_number(other))
    _require(one, np.ndarray)
    _require(other, np.ndarray)
    if node.operator != "Mul" or {one.dtype.kind, other.dtype.kind} - set("iO"):
        raise ValueError(f"not understood for {_kind(one)}")
    return _array_of_sizes([_times(a, b) for a, b in np.broadcast(one.reshape(-1), other.reshape(-1))])


def _add_bias(reader: _Reader, data: _Data, bias: Any) -> _Data:
    stream = reader.settled(data)
    last = stream.layers[-1] if stream.layers else None
    if last is None or last.class_name != "Dense" or last.config["use_bias"] or "activation" in last.config:
        raise ValueError("numbers are added to something else than a product with a matrix")
    bias = reader.weight("the bias", bias, 1)
    _require_bias(bias, last.config["units"])
    changed = replace(last, config={**last.config, "use_bias": True}, weights={**last.weights, "bias": bias})
    return replace(data, streams=(replace(stream, layers=(*stream.layers[:-1], changed)),))


def _halve(reader: _Reader, data: _Data, factor: Any) -> _Data:
    """Half a sum of two directions is their mean."""
    stream = reader.settled(data)
    last = stream.layers[-1] if stream.layers else None
    if factor != 0.5 or last is None or last.config.get("merge_mode") != "sum":
        raise ValueError("a factor is understood for a sum of two directions only, and is then a half")
    changed = replace(last, config={**last.config, "merge_mode": "ave"})
    return replace(data, streams=(replace(stream, layers=(*stream.layers[:-1], changed)),))


@_reads("Softmax", "Sigmoid", "Tanh", "Relu")
def _activate(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    (data,) = inputs
    stream = reader.settled(data)
    if node.operator == "Softmax":
        axis = node.attribute("axis", -1 if node.opset >= 13 else 1)
        if axis % len(data.axes) != len(data.axes) - 1 or data.axes[-1] != F:
            raise ValueError(f"expected the softmax over the last axis, got axis={axis} of ({', '.join(data.axes)})")
    last = stream.layers[-1] if stream.layers else None
    if last is None or last.class_name != "Dense" or "activation" in last.config:
        raise ValueError("an activation is understood right after a product with a matrix only")
    changed = replace(last, config={**last.config, "activation": _ACTIVATIONS[node.operator]})
    return replace(data, streams=(replace(stream, layers=(*stream.layers[:-1], changed)),))


@_reads("Concat")
def _concat(reader: _Reader, node: _Node, inputs: list[Any]) -> Any:
    axis = node.attribute("axis")
    if all(isinstance(value, np.ndarray) for value in inputs):
        reader.budget.spend("its result", sum(value.nbytes for value in inputs))
        return np.concatenate(inputs, axis)
    if all(isinstance(value, _Fill) and value == inputs[0] for value in inputs):
        return inputs[0]
    for value in inputs:
        _require(value, _Data)
    if inputs[0].axis(axis) == D and all(value.axes == inputs[0].axes for value in inputs):
        streams = tuple(stream for value in inputs for stream in value.streams)
        if len(streams) > _MOST_LAYERS:
            raise ValueError(f"more than {_MOST_LAYERS:,} layers in one array")
        return replace(inputs[0], streams=streams)
    if inputs[0].axis(axis) != F:
        raise ValueError(f"expected directions side by side, got the axis {inputs[0].axis(axis)}")
    return _concatenated(reader, inputs)


def _concatenated(reader: _Reader, halves: list[_Data]) -> _Data:
    if len(halves) != 2:
        raise ValueError(f"expected two directions side by side, got {len(halves)}")
    return reader.merge(halves[0], halves[1], "concat")


@_reads("ReduceMean", "ReduceMax")
def _reduce(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    data, axes = inputs[0], _numbers(node, inputs, 1, "axes")
    keep = node.attribute("keepdims", 1)
    node.attribute("noop_with_empty_axes")
    _require(data, _Data)
    if axes is None or len(axes) != 1 or data.axis(axes[0]) != T:
        raise ValueError(f"expected one over time, got axes {axes} of ({', '.join(data.axes)})")
    class_name = "GlobalAveragePooling1D" if node.operator == "ReduceMean" else "GlobalMaxPooling1D"
    place = axes[0] % len(data.axes)
    return _pooled(reader, data, class_name, data.axes[:place] + ((ONE,) if keep else ()) + data.axes[place + 1 :])


@_reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(reader: _Reader, node: _Node, inputs: list[Any]) -> _Data:
    (data,) = inputs
    _require(data, _Data)
    if data.axes != (N, F, T):
        raise ValueError(f"expected (N, F, T), got ({', '.join(data.axes)})")
    class_name = "GlobalAveragePooling1D" if node.operator == "GlobalAveragePool" else "GlobalMaxPooling1D"
    return _pooled(reader, data, class_name, (N, F, ONE))


def _pooled(reader: _Reader, data: _Data, class_name: str, axes: tuple[str, ...]) -> _Data:
    stream = reader.settled(data)
    _require_all_steps(stream, "pooled")
    return _Data(axes, (reader.add(stream, class_name, {}, lengths=False),))
