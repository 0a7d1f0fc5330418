"""Operators that append no layers of their own: they move, slice and merge axes, and compute shapes."""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import Any

import numpy as np

from fastgru.formats.description import Array
from fastgru.formats.onnx.layers import (
    embedding,
    flattened,
    repeated,
    side_by_side,
    takes_lengths,
    with_lengths,
)
from fastgru.formats.onnx.tensors import DOUBLE, FLOAT, INT32, INT64, MOST_AXES, to_array
from fastgru.formats.onnx.values import (
    DTYPES,
    MOST_LAYERS,
    NT,
    ONE,
    TN,
    AxisOrderError,
    Chains,
    D,
    Data,
    F,
    Fill,
    Lengths,
    N,
    Node,
    Operators,
    StepNumbers,
    Stream,
    T,
    Valid,
    array_of_sizes,
    is_lengths,
    kind_of,
    number,
    place_of,
    require,
    require_all_steps,
    whole_numbers,
)

OPERATORS = Operators()
_CASTS: dict[int, type] = {FLOAT: np.float32, DOUBLE: np.float64, INT32: np.int32, INT64: np.int64}
#: The two axes that a Reshape may merge.
_JOINED = {(N, T): NT, (T, N): TN}
#: The attributes of a Constant without a tensor: attribute, field, dtype.
_CONSTANTS = (
    ("value_int", "i", np.int64),
    ("value_ints", "ints", np.int64),
    ("value_float", "f", np.float32),
    ("value_floats", "floats", np.float32),
)


@OPERATORS.reads("Constant")
def _constant(chains: Chains, node: Node, inputs: list[Any]) -> Array:
    del chains, inputs
    for name, field, dtype in _CONSTANTS:
        value = node.attribute(name, field)
        if value is not None:
            return np.array(value, dtype)
    tensor = node.attribute("value", "t")
    if tensor is None:
        raise ValueError("its kind of value is not supported by fastgru")
    return to_array(tensor)


@OPERATORS.reads("Identity")
def _identity(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    del chains, node
    (value,) = inputs
    return value


@OPERATORS.reads("Cast")
def _cast(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    """Read casts to integers and between integers; the dtype of floating-point data must not change."""
    (value,), to = inputs, node.attribute("to", "i")
    if isinstance(value, np.ndarray) and value.dtype != object:
        if to not in _CASTS:
            raise ValueError(f"expected float, double, int32 or int64, got data type {to}")
        return value.astype(_CASTS[to])
    tokens = isinstance(value, Data) and value.streams[0].features is None
    if isinstance(value, Data) and not tokens:
        if DTYPES.get(to) != chains.dtype:
            raise ValueError(f"expected {chains.dtype} because the model has one dtype, got data type {to}")
    elif to not in (INT32, INT64) and not isinstance(value, Fill):
        raise ValueError(f"expected int32 or int64 for integers, got data type {to}")
    return value


@OPERATORS.reads("Shape")
def _shape(chains: Chains, node: Node, inputs: list[Any]) -> Array:
    (value,) = inputs
    require(value, Data, np.ndarray)
    sizes = chains.shape_of(value) if isinstance(value, Data) else list(value.shape)
    part = sizes[node.attribute("start", "i", 0) : node.attribute("end", "i")]
    return array_of_sizes(part)


@OPERATORS.reads("ConstantOfShape")
def _constant_of_shape(chains: Chains, node: Node, inputs: list[Any]) -> Fill | Array:
    del chains
    (shape,) = inputs
    require(shape, np.ndarray)
    tensor = node.attribute("value", "t")
    value = 0.0 if tensor is None else number(to_array(tensor)).item()
    if isinstance(value, int) and shape.dtype != object and shape.size == 1 and 0 < shape[0] <= MOST_AXES:
        return np.full(shape, value, np.int64)  # exporters compute shapes from such arrays
    return Fill(value)


@OPERATORS.reads("Equal")
def _equal(chains: Chains, node: Node, inputs: list[Any]) -> Array:
    """Compare shapes; other operands are not supported."""
    del chains, node
    one, other = inputs
    require(one, np.ndarray)
    require(other, np.ndarray)
    if one.ndim > 1 or other.ndim > 1 or {one.dtype.kind, other.dtype.kind} - set("iO"):
        raise ValueError("comparisons are supported by fastgru only between shapes")
    return np.asarray(np.broadcast_arrays(one, other)[0] == other, bool)


@OPERATORS.reads("Expand")
def _expand(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value, shape = inputs
    require(value, np.ndarray, Fill, Lengths, Data)
    if isinstance(value, Data):
        times = whole_numbers(node, inputs, 1, "shape")
        return value if all(count == 1 for count in times) else repeated(chains, value, times)
    if isinstance(value, Lengths) and not is_lengths(value):
        raise ValueError("expected lengths without additional axes")
    require(shape, np.ndarray)
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        if flat.size == 0 or not (flat == flat[0]).all():
            raise ValueError("expected one value to be repeated, got several")
        return Fill(flat[:1].tolist()[0])
    return value


@OPERATORS.reads("Tile")
def _tile(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value, times = inputs[0], whole_numbers(node, inputs, 1, "repeats")
    require(value, np.ndarray, Data, Fill)
    if isinstance(value, Fill):
        return value
    if isinstance(value, Data):
        sizes = [1 if size == 1 else None for size in chains.shape_of(value)]  # Tile multiplies, Expand does not
        if any(count != 1 for count, size in zip(times, sizes, strict=True) if size is None):
            raise ValueError(f"expected a vector to be repeated along an axis of size 1, got repeats {times}")
        return repeated(chains, value, times)
    if len(times) != value.ndim or any(type(count) is not int or count < 1 for count in times):
        raise ValueError(f"expected a number of repetitions for each of {value.ndim} axes, got {times}")
    chains.budget.spend("its result", value.nbytes * math.prod(times))
    return np.tile(value, times)


@OPERATORS.reads("Min")
def _min(chains: Chains, node: Node, inputs: list[Any]) -> Lengths:
    """Read the minimum of the lengths and the number of steps, which is the lengths."""
    del node
    lengths, steps = inputs
    if not is_lengths(lengths):
        raise ValueError(f"the operator is not supported for {kind_of(lengths)}")
    if number(steps) not in (T, chains.sizes[T]):
        raise ValueError("expected the minimum of the lengths and the number of steps, got another number")
    return Lengths()


@OPERATORS.reads("Range")
def _range(chains: Chains, node: Node, inputs: list[Any]) -> StepNumbers:
    del node
    start, limit, step = (number(value) for value in inputs)
    if (start, step) != (0, 1) or limit not in (T, chains.sizes[T]):
        raise ValueError("expected a range over all steps, from 0 to T - 1")
    return StepNumbers()


@OPERATORS.reads("Less")
def _less(chains: Chains, node: Node, inputs: list[Any]) -> Valid:
    del chains, node
    steps, lengths = inputs
    if not isinstance(steps, StepNumbers) or not isinstance(lengths, Lengths) or lengths.axes != (N, ONE):
        raise ValueError("expected a comparison of the indices of steps with the lengths")
    return Valid()


@OPERATORS.reads("Transpose")
def _transpose(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    del chains
    (value,), order = inputs, node.attribute("perm", "ints")
    if isinstance(value, Fill):
        return value
    require(value, np.ndarray, Data)
    axes = len(value.axes) if isinstance(value, Data) else value.ndim
    order = list(range(axes))[::-1] if order is None else list(order)
    if sorted(order) != list(range(axes)):
        raise ValueError(f"expected perm to order {axes} axes, got {order}")
    if isinstance(value, np.ndarray):
        return value.transpose(order)
    return replace(value, axes=tuple(value.axes[axis] for axis in order))


@OPERATORS.reads("Squeeze")
def _squeeze(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value, axes = inputs[0], whole_numbers(node, inputs, 1, "axes")
    if isinstance(value, Fill):
        return value
    require(value, np.ndarray, Data)
    if isinstance(value, np.ndarray):
        return value.squeeze(None if axes is None else tuple(axes))
    removed = {place_of(axis, len(value.axes)) for axis in axes} if axes is not None else set(range(len(value.axes)))
    kept = []
    for place, (axis, size) in enumerate(zip(value.axes, chains.shape_of(value), strict=True)):
        single = axis == ONE or (axis == D and size == 1)
        if place in removed and not single and axes is not None:
            raise ValueError(f"expected an axis of size 1, got the axis {axis} of size {size}")
        if place not in removed or not single:
            kept.append(axis)
    return replace(value, axes=tuple(kept))


@OPERATORS.reads("Unsqueeze")
def _unsqueeze(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    del chains
    value, axes = inputs[0], whole_numbers(node, inputs, 1, "axes")
    if isinstance(value, Fill):
        return value
    require(value, np.ndarray, Data, Lengths, Valid)
    if isinstance(value, np.ndarray):
        return np.expand_dims(value, tuple(axes))
    count = len(value.axes) + len(axes)
    new = {place_of(axis, count) for axis in axes}
    if len(new) < len(axes) or count > MOST_AXES:
        raise ValueError(f"expected each axis once, and at most {MOST_AXES} in all, got {axes}")
    old = iter(value.axes)
    return replace(value, axes=tuple(ONE if axis in new else next(old) for axis in range(count)))


@OPERATORS.reads("Flatten")
def _flatten(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    (value,), axis = inputs, node.attribute("axis", "i", 1)
    require(value, Data)
    if place_of(axis, len(value.axes)) != 1 or value.axes[0] != N:
        raise ValueError(f"expected all axes but the batch to become one, got axis={axis} of ({', '.join(value.axes)})")
    return flattened(chains, value)


@OPERATORS.reads("Reshape")
def _reshape(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value, target = inputs[0], whole_numbers(node, inputs, 1, "shape")
    zero_is_size = node.attribute("allowzero", "i", 0)
    if isinstance(value, Fill):
        return value
    require(value, np.ndarray, Data)
    sizes = chains.shape_of(value) if isinstance(value, Data) else list(value.shape)
    if not zero_is_size:
        target = [sizes[place] if size == 0 else size for place, size in enumerate(target)]
    if isinstance(value, np.ndarray):
        return value.reshape([operator.index(size) for size in target])
    return _reshaped(chains, value, target)


def _reshaped(chains: Chains, data: Data, target: list[Any]) -> Data:
    """Return the data with the first supported change of axes that gives the target shape.

    Axes of size 1 are added or removed, or two axes are merged.
    """
    plain = data.plain_axes()
    if _fits(chains, data, data.axes, target):
        return data
    if _fits(chains, data, plain, target):
        return replace(data, axes=plain)
    if len(data.streams) == 2 and plain[-2:] == (D, F) and len(plain) == len(target) + 1:
        return _checked(chains, side_by_side(chains, _split(data)), target)
    for two, one in _JOINED.items():
        for before, after in ((two, (one,)), ((one,), two)):
            if plain == (*before, F) and _fits(chains, data, (*after, F), target):
                return replace(data, axes=(*after, F))
    if plain == (N, T, F) and len(target) == 2:
        return _checked(chains, flattened(chains, data), target)
    raise ValueError(f"shape {target} from axes ({', '.join(data.axes)}) is not supported by fastgru")


def _checked(chains: Chains, data: Data, target: list[Any]) -> Data:
    if not _fits(chains, data, data.axes, target):
        raise ValueError(f"shape {target} from axes ({', '.join(data.axes)}) is not supported by fastgru")
    return data


def _fits(chains: Chains, data: Data, axes: tuple[str, ...], target: list[Any]) -> bool:
    """Whether an array with these axes may have this shape, in which one size may be -1."""
    sizes = chains.shape_of(replace(data, axes=axes))
    if len(sizes) != len(target) or target.count(-1) > 1:
        return False
    return all(wanted in (size, -1) for size, wanted in zip(sizes, target, strict=True))


@OPERATORS.reads("Gather")
def _gather(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value, index = inputs
    axis = node.attribute("axis", "i", 0)
    if isinstance(index, Data):
        return embedding(chains, value, index, axis)
    require(index, np.ndarray)
    require(value, np.ndarray, Data)
    if isinstance(value, np.ndarray):
        # The size is checked first, because an index may be repeated.
        chains.budget.spend("its result", value.nbytes * index.size // max(value.shape[axis], 1))
        return np.asarray(np.take(value, index.astype(np.int64), axis=axis), value.dtype)
    if index.size != 1 or index.ndim > 1:
        raise ValueError(f"expected one index, got shape {index.shape}")
    return _take(chains, value, axis, int(index.reshape(-1)[0]), keep=index.ndim == 1)


def _take(chains: Chains, data: Data, axis: int, index: int, *, keep: bool) -> Data:
    """Select one index of an axis; with `keep`, the axis is kept with size 1."""
    name, axes = data.axis(axis), data.without(axis, keep=keep)
    if name == D:
        return Data(axes, (data.streams[index],))
    if name == ONE and index in (0, -1):
        return replace(data, axes=axes)
    if name == T and index in (0, -1):
        return replace(data.on_streams(lambda stream: _one_step(chains, stream, index)), axes=axes)
    raise ValueError(f"expected a direction, or the first or last step, got index {index} of the axis {name}")


def _one_step(chains: Chains, stream: Stream, index: int) -> Stream:
    """Select the step that is the final state of a GRU, or the last step of another layer."""
    part = stream.recurrent
    require_all_steps(stream, "cut")
    if part is None:
        if index != -1 or stream.flipped:
            raise ValueError("selecting the first step is supported by fastgru only for a GRU that reads backwards")
        return chains.add(stream, "LastStep", {}, lengths=False)
    if (index == -1) != (part.backward == stream.flipped):
        raise ValueError(
            f"step {index} is not the last one that the GRU computes, which is step {-1 - index} in its direction"
        )
    return replace(stream, recurrent=replace(part, steps=False), flipped=False)


@OPERATORS.reads("Slice")
def _slice(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value = inputs[0]
    starts, ends = whole_numbers(node, inputs, 1, "starts"), whole_numbers(node, inputs, 2, "ends")
    axes = whole_numbers(node, inputs, 3, "axes", list(range(len(starts))))
    steps = whole_numbers(node, inputs, 4, "steps", [1] * len(starts))
    if isinstance(value, Fill):
        return value
    require(value, np.ndarray, Data)
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        part = slice(*(operator.index(number) for number in (begin, end, step)))
        if isinstance(value, np.ndarray):
            # ONNX clamps a start before the first element, which a Python slice would count from the end.
            value = value[(slice(None),) * place_of(axis, value.ndim) + (_cut(part, value.shape[axis]),)]
        else:
            value = _slice_data(chains, value, axis, part)
    return value


def _cut(part: slice, size: int) -> slice:
    """Convert an ONNX slice to a Python slice; one that runs backwards beyond the first element has no end."""
    return slice(part.start, None, part.step) if part.step < 0 and part.stop < -size else part


def _slice_data(chains: Chains, data: Data, axis: int, part: slice) -> Data:
    name = data.axis(axis)
    if name == D:
        streams = data.streams[_cut(part, len(data.streams))]
        if not streams:
            raise ValueError("an empty slice is not supported by fastgru")
        return replace(data, streams=streams)
    if name == T and part.step == -1 and part.start in (-1, 2**63 - 1, 2**31 - 1) and part.stop < -(2**30):
        return data.on_streams(_flip)
    last, first = part.start == -1 and part.stop > 2**30, part.start == 0 and part.stop == 1
    if name == T and part.step == 1 and (last or first):
        return _take(chains, data, axis, -1 if last else 0, keep=True)
    if part.step == 1 and part.start == 0 and part.stop > 2**30:
        return data
    raise ValueError(f"[{part.start}:{part.stop}:{part.step}] of the axis {name} is not supported by fastgru")


def _flip(stream: Stream) -> Stream:
    require_all_steps(stream, "reversed")
    return replace(stream, flipped=not stream.flipped, lengths=False)


@OPERATORS.reads("ReverseSequence")
def _reverse_sequence(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    data: Data
    data, lengths = inputs
    require(data, Data)
    batch, time = node.attribute("batch_axis", "i", 1), node.attribute("time_axis", "i", 0)
    if (data.axis(batch), data.axis(time)) != (N, T):
        raise AxisOrderError(f"expected batch and time, got the axes {data.axis(batch)} and {data.axis(time)}")
    given = takes_lengths(lengths, chains.steps_of(data.streams[0]) or T)
    return data.on_streams(lambda stream: replace(with_lengths(stream, given), flipped=not stream.flipped))


@OPERATORS.reads("Split")
def _split_node(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    value, axis = inputs[0], node.attribute("axis", "i", 0)
    count = node.attribute("num_outputs", "i", len(node.outputs))
    parts = whole_numbers(node, inputs, 1, "split")
    if count != len(node.outputs):
        raise ValueError(f"expected {count} outputs because num_outputs={count}, got {len(node.outputs)}")
    if isinstance(value, np.ndarray):
        places = np.cumsum(parts)[:-1] if parts is not None else count
        return tuple(np.split(value, places, axis=axis))
    require(value, Data)
    if value.axis(axis) != D or count != len(value.streams) or (parts is not None and set(parts) != {1}):
        raise ValueError("splitting is supported by fastgru only into the directions of a GRU")
    return tuple(replace(value, streams=(stream,)) for stream in value.streams)


def _split(data: Data) -> list[Data]:
    """Return the arrays of all directions, without the axis D."""
    place = data.axes.index(D)
    return [Data(data.without(place), (stream,)) for stream in data.streams]


@OPERATORS.reads("Concat")
def _concat(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    axis = node.attribute("axis", "i", 0)
    if all(isinstance(value, np.ndarray) for value in inputs):
        chains.budget.spend("its result", sum(value.nbytes for value in inputs))
        return np.concatenate(inputs, axis)
    if all(isinstance(value, Fill) and value == inputs[0] for value in inputs):
        return inputs[0]
    for value in inputs:
        require(value, Data)
    if inputs[0].axis(axis) == D and all(value.axes == inputs[0].axes for value in inputs):
        streams = tuple(stream for value in inputs for stream in value.streams)
        if len(streams) > MOST_LAYERS:
            raise ValueError(f"more than {MOST_LAYERS:,} layers in one array")
        return replace(inputs[0], streams=streams)
    if inputs[0].axis(axis) != F:
        raise ValueError(f"expected directions concatenated along the axis {F}, got {inputs[0].axis(axis)}")
    return side_by_side(chains, inputs)
