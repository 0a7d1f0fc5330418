"""Operators that append layers to a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastgru.formats.description import Array
from fastgru.formats.onnx.export import ACTIVATIONS, CANDIDATES, GATES
from fastgru.formats.onnx.tensors import from_node
from fastgru.formats.onnx.values import (
    ONE,
    AxisOrderError,
    Chains,
    D,
    Data,
    F,
    Fill,
    N,
    Node,
    Operators,
    Recurrent,
    Stream,
    T,
    Valid,
    array_of_sizes,
    is_lengths,
    kind_of,
    number,
    padded,
    require,
    require_all_steps,
    times,
    whole_numbers,
)

OPERATORS = Operators()

_ACTIVATIONS = {name: activation for activation, name in ACTIVATIONS.items()}


@OPERATORS.reads("GRU")
def _gru(chains: Chains, node: Node, inputs: list[Any]) -> tuple[Data, Data]:
    x, w, r, b, lengths, initial = padded(inputs, 6)
    require(x, Data)
    _require_zeros(initial)
    batch_first = node.attribute("layout", "i", 0)
    expected = (N, T, F) if batch_first else (T, N, F)
    if x.axes != expected:
        raise AxisOrderError(f"expected its input to be ({', '.join(expected)}), got ({', '.join(x.axes)})")
    # A GRU on reversed outputs of the layer before becomes a GRU that reads in the opposite direction.
    part = x.streams[0].recurrent
    given = part is not None and part.backward
    flipped = x.streams[0].flipped != given
    before = chains.settled(x.on_streams(lambda stream: replace(stream, flipped=given)))
    before = with_lengths(before, takes_lengths(lengths, chains.steps_of(before) or T))
    streams = tuple(
        replace(
            before,
            recurrent=replace(part, backward=part.backward != flipped),
            features=part.config["units"],
            flipped=flipped,
        )
        for part in _directions(chains, node, w, r, b)
    )
    if any(stream.recurrent.weights["kernel"].shape[0] != before.features for stream in streams if stream.recurrent):
        raise ValueError(f"expected W for {before.features} features, got shape {w.shape}")
    y = Data((N, T, D, F) if batch_first else (T, D, N, F), streams)
    return y, replace(y.on_streams(_last_state), axes=(N, D, F) if batch_first else (D, N, F))


def _directions(chains: Chains, node: Node, w: Any, r: Any, b: Any) -> list[Recurrent]:
    """Return the directions of a GRU node."""
    w, r = chains.weight("W", w, 3), chains.weight("R", r, 3)
    b = None if b is None else chains.weight("B", b, 2)
    configs = _gru_configs(node)
    if any(len(array) != len(configs) for array in (w, r, b) if array is not None):
        raise ValueError(f"expected weights for {len(configs)} directions, got W of shape {w.shape}")
    units = r.shape[2]
    size = node.attribute("hidden_size", "i", units)
    if size != units:
        raise ValueError(f"expected hidden_size={units} because of the shape of R, got {size}")
    parts = []
    for place, (config, backward) in enumerate(configs):
        bias = None if b is None else b[place]
        weights = from_node(w[place], r[place], bias, reset_after=config["reset_after"])
        parts.append(Recurrent({"units": units, "use_bias": b is not None, **config}, weights, backward, steps=True))
    return parts


def _last_state(stream: Stream) -> Stream:
    assert stream.recurrent is not None
    return replace(stream, recurrent=replace(stream.recurrent, steps=False), flipped=False)


def _gru_configs(node: Node) -> list[tuple[dict[str, Any], bool]]:
    """Return for each direction the options of its equations, and whether it reads backwards."""
    direction = node.attribute("direction", "s", "forward")
    readings = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if readings is None:
        raise ValueError(f"expected direction forward, reverse or bidirectional, got {direction!r}")
    names = node.attribute("activations", "strings", ["Sigmoid", "Tanh"] * len(readings))
    if len(names) != 2 * len(readings):
        raise ValueError(f"expected {2 * len(readings)} activations, got {len(names)}")
    alphas, betas = (iter(node.attribute(f"activation_{which}", "floats", ())) for which in ("alpha", "beta"))
    chosen = [_activation(name, (GATES, CANDIDATES)[place % 2], alphas, betas) for place, name in enumerate(names)]
    if next(alphas, None) is not None or next(betas, None) is not None:
        raise ValueError("expected an activation_alpha and activation_beta for each activation that has one, got more")
    reset_after = bool(node.attribute("linear_before_reset", "i", 0))
    return [
        ({"recurrent_activation": gates, "activation": candidate, "reset_after": reset_after}, backward)
        for gates, candidate, backward in zip(chosen[::2], chosen[1::2], readings, strict=True)
    ]


#: Default alpha and beta of a HardSigmoid. (The defaults of an Affine differ between programs.)
_HARD_SIGMOID_DEFAULTS = (0.2, 0.5)


def _activation(
    name: str, table: dict[str, tuple[str, float | None, float | None]], alphas: Iterator[float], betas: Iterator[float]
) -> str:
    """Return fastgru's name of an ONNX activation; consumes `alphas` and `betas` if the function has parameters."""
    alpha = beta = None
    if any(theirs.lower() == name.lower() and own_alpha is not None for theirs, own_alpha, _ in table.values()):
        defaults = _HARD_SIGMOID_DEFAULTS if name.lower() == "hardsigmoid" else (None, None)
        alpha, beta = next(alphas, defaults[0]), next(betas, defaults[1])
    for own, (theirs, own_alpha, own_beta) in table.items():
        if theirs.lower() == name.lower() and _same(alpha, own_alpha) and _same(beta, own_beta):
            return own
    raise ValueError(
        f"activation {name} with alpha {alpha} and beta {beta} is not supported by fastgru, which supports "
        f"{', '.join(table)}"
    )


def _same(one: float | None, other: float | None) -> bool:
    """Whether two parameters are equal as float32, the precision of the file."""
    return one is other or (one is not None and other is not None and np.float32(one) == np.float32(other))


def _require_zeros(initial: Any) -> None:
    zeros = initial.value == 0 if isinstance(initial, Fill) else isinstance(initial, np.ndarray) and not initial.any()
    if initial is not None and not zeros:
        raise ValueError(
            f"expected initial_h to be zeros because fastgru's models have no other initial states, got "
            f"{kind_of(initial)}"
        )


def takes_lengths(value: Any, all_steps: int | str) -> bool:
    """Whether `value` is the lengths that the caller passes; False if it is `all_steps`, so that all are valid."""
    if is_lengths(value):
        return True
    steps = value.value if isinstance(value, Fill) else value
    if isinstance(steps, np.ndarray) and steps.size and (steps == steps.flat[0]).all():
        steps = steps.flat[0]
    if value is not None and (isinstance(steps, np.ndarray) or steps != all_steps):
        raise ValueError(f"expected sequence_lens from the caller, or the number of steps, got {kind_of(value)}")
    return False


def with_lengths(stream: Stream, given: bool) -> Stream:
    """Return the stream after a layer that receives lengths or not; raises if the layers before it differ."""
    if stream.lengths is not None and stream.lengths != given:
        raise ValueError("expected all layers or none to receive lengths because fastgru's models pass them to all")
    return replace(stream, lengths=given)


@OPERATORS.reads("Where")
def _where(chains: Chains, node: Node, inputs: list[Any]) -> Data | Array:
    """Read the replacement of padding by the last output of a GRU or by the token 0, or a choice between sizes."""
    del chains, node
    valid, data, other = inputs
    if all(isinstance(value, np.ndarray) and value.ndim <= 1 for value in inputs) and valid.dtype == bool:
        chosen = zip(*(array.tolist() for array in np.broadcast_arrays(*map(np.atleast_1d, inputs))), strict=True)
        return array_of_sizes([one if kept else another for kept, one, another in chosen])
    require(valid, Valid)
    require(data, Data)
    stream = data.streams[0]
    if stream.features is None and data.axes == valid.axes and not isinstance(other, Data) and number(other) == 0:
        return Data(data.axes, (with_lengths(stream, True),))
    if (data.axes, valid.axes) != ((N, T, F), (N, T, ONE)) or not _is_last_output(other, stream):
        raise ValueError(
            "replacing padding is supported by fastgru only by the last output of a GRU, or by the token 0"
        )
    assert stream.recurrent is not None
    return Data(data.axes, (replace(stream, recurrent=replace(stream.recurrent, repeats=True)),))


def _is_last_output(other: Any, stream: Stream) -> bool:
    """Whether `other` is the final state (N, 1, H) of the GRU with lengths that computes `stream`."""
    if not isinstance(other, Data) or len(other.streams) != 1 or other.axes not in ((N, ONE, F), (N, D, F)):
        return False
    part, last = stream.recurrent, other.streams[0].recurrent
    if part is None or last is None or not stream.lengths:
        return False
    return part.weights is last.weights and part.steps and not last.steps


@OPERATORS.reads("MatMul")
def _matmul(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    del node
    data, kernel = inputs
    return _dense(chains, data, chains.weight("the matrix", kernel, 2), None)


@OPERATORS.reads("Gemm")
def _gemm(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    data, kernel, bias = padded(inputs, 3)
    scales = node.attribute("alpha", "f", 1.0), node.attribute("beta", "f", 1.0)
    if node.attribute("transA", "i", 0) or scales != (1.0, 1.0):
        raise ValueError(f"expected transA=0, alpha=1 and beta=1, got alpha and beta {scales}")
    kernel = chains.weight("B", kernel, 2)
    if node.attribute("transB", "i", 0):
        kernel = np.ascontiguousarray(kernel.T)
    if bias is not None:
        bias = chains.weight("C", bias, 1 if np.ndim(bias) != 2 or len(bias) != 1 else 2).reshape(-1)
    return _dense(chains, data, kernel, bias)


def _dense(chains: Chains, data: Data, kernel: Array, bias: Array | None) -> Data:
    stream = chains.settled(data)
    features, units = kernel.shape
    if data.axes[-1] != F or stream.features != features:
        raise ValueError(
            f"expected a matrix for {stream.features} features on the last axis, got {features} and axes "
            f"({', '.join(data.axes)})"
        )
    config = {"units": units, "use_bias": bias is not None}
    weights = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    _require_bias(bias, units)
    return replace(data, streams=(chains.add(stream, "Dense", config, weights, features=units),))


def _require_bias(bias: Array | None, units: int) -> None:
    if bias is not None and bias.shape != (units,):
        raise ValueError(f"expected a bias of {units} numbers, got shape {bias.shape}")


@OPERATORS.reads("Add", "Sub", "Mul", "Div", "Mean")
def _arithmetic(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    """Read a bias, an operation with one number, or the merging of the two directions of a GRU."""
    one, other = inputs
    if node.operator in ("Add", "Mul", "Mean") and isinstance(one, Data) and isinstance(other, Data):
        return chains.merge(one, other, {"Add": "sum", "Mul": "mul", "Mean": "ave"}[node.operator])
    if isinstance(other, Data) and node.operator in ("Add", "Mul"):
        one, other = other, one
    if isinstance(one, Data):
        if node.operator == "Add" and np.ndim(other) > 0:
            return _add_bias(chains, one, other)
        return _rescale(chains, one, node.operator, other)
    if isinstance(other, Data) and node.operator == "Sub":
        return _rescale(chains, _rescale(chains, other, "Mul", np.full_like(one, -1)), "Add", one)
    require(one, np.ndarray)
    require(other, np.ndarray)
    if node.operator != "Mul" or {one.dtype.kind, other.dtype.kind} - set("iO"):
        raise ValueError(f"the operator is not supported for {kind_of(one)}")
    return array_of_sizes([times(a, b) for a, b in np.broadcast(one.reshape(-1), other.reshape(-1))])


def _last(stream: Stream, class_name: str) -> dict[str, Any]:
    """Return the configuration of the last layer if it has this class, otherwise an empty one."""
    last = stream.layers[-1] if stream.layers else None
    return last.config if last is not None and last.class_name == class_name else {}


def _with_last(data: Data, stream: Stream, config: dict[str, Any], weights: dict[str, Array]) -> Data:
    """Return the array with additional options and weights of the last layer."""
    *before, last = stream.layers
    changed = replace(last, config={**last.config, **config}, weights={**last.weights, **weights})
    return replace(data, streams=(replace(stream, layers=(*before, changed)),))


def _add_bias(chains: Chains, data: Data, bias: Any) -> Data:
    stream = chains.settled(data)
    dense = _last(stream, "Dense")
    if not dense or dense["use_bias"] or "activation" in dense or data.axes[-1] != F:
        if np.size(bias) == 1:
            return _rescale(chains, data, "Add", bias)
        raise ValueError("adding several numbers to data other than the product with a matrix is not supported")
    bias = chains.weight("the bias", bias, 1)
    _require_bias(bias, dense["units"])
    return _with_last(data, stream, {"use_bias": True}, {"bias": bias})


def _rescale(chains: Chains, data: Data, operator: str, value: Any) -> Data:
    """Append a Rescaling for an operation with one number; half the sum of two directions becomes their mean."""
    stream = chains.settled(data)
    if stream.features is None:
        raise ValueError("arithmetic on tokens is not supported by fastgru")
    operand = float(number(value))
    chains.weight("the number", value, np.ndim(value))
    if operator in ("Add", "Sub"):
        offset = operand if operator == "Add" else -operand
        if _last(stream, "Rescaling").get("offset") == 0:
            return _with_last(data, stream, {"offset": offset}, {})
        return replace(data, streams=(chains.add(stream, "Rescaling", {"scale": 1.0, "offset": offset}),))
    if operator not in ("Mul", "Div"):
        raise ValueError("the operator is not supported for one number")
    factor = operand if operator == "Mul" else 1 / operand
    if factor == 0.5 and _last(stream, "Bidirectional").get("merge_mode") == "sum":
        return _with_last(data, stream, {"merge_mode": "ave"}, {})
    return replace(data, streams=(chains.add(stream, "Rescaling", {"scale": factor, "offset": 0.0}),))


@OPERATORS.reads("Softmax", "Sigmoid", "Tanh", "Relu")
def _activate(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    data: Data = inputs[0]
    stream = chains.settled(data)
    if node.operator == "Softmax":
        axis = node.attribute("axis", "i", -1 if node.opset >= 13 else 1)
        if data.axis(axis) != F or data.axes[-1] != F:
            raise ValueError(f"expected the softmax over the last axis, got axis={axis} of ({', '.join(data.axes)})")
    config = {"activation": _ACTIVATIONS[node.operator]}
    dense = _last(stream, "Dense")
    if dense and "activation" not in dense:
        return _with_last(data, stream, config, {})
    return replace(data, streams=(chains.add(stream, "Activation", config),))


def side_by_side(chains: Chains, halves: list[Data]) -> Data:
    """Merge two directions that are concatenated along their last axis."""
    if len(halves) != 2:
        raise ValueError(f"expected two directions to concatenate, got {len(halves)} arrays")
    return chains.merge(halves[0], halves[1], "concat")


@OPERATORS.reads("ReduceMean", "ReduceMax")
def _reduce(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    data, axes = inputs[0], whole_numbers(node, inputs, 1, "axes")
    keep = node.attribute("keepdims", "i", 1)
    node.attribute("noop_with_empty_axes", "i")
    require(data, Data)
    if axes is None or len(axes) != 1 or data.axis(axes[0]) != T:
        raise ValueError(f"expected a reduction over time only, got axes {axes} of ({', '.join(data.axes)})")
    class_name = "GlobalAveragePooling1D" if node.operator == "ReduceMean" else "GlobalMaxPooling1D"
    return _pooled(chains, data, class_name, data.without(axes[0], keep=bool(keep)))


@OPERATORS.reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(chains: Chains, node: Node, inputs: list[Any]) -> Data:
    (data,) = inputs
    require(data, Data)
    if data.axes != (N, F, T):
        raise ValueError(f"expected (N, F, T), got ({', '.join(data.axes)})")
    class_name = "GlobalAveragePooling1D" if node.operator == "GlobalAveragePool" else "GlobalMaxPooling1D"
    return _pooled(chains, data, class_name, (N, F, ONE))


def _pooled(chains: Chains, data: Data, class_name: str, axes: tuple[str, ...]) -> Data:
    stream = chains.settled(data)
    require_all_steps(stream, "pooled")
    return Data(axes, (chains.add(stream, class_name, {}, lengths=False),))


@OPERATORS.reads("Dropout")
def _dropout(chains: Chains, node: Node, inputs: list[Any]) -> Any:
    rate = node.attribute("ratio", "f", 0.5)
    node.attribute("seed", "i")
    data, *more = inputs
    if more and more[0] is not None:
        rate = float(number(more[0]))
    if len(more) > 1 and more[1] is not None and bool(number(more[1])):
        raise ValueError("expected inference, got training_mode=True")
    if not 0 <= rate < 1:
        raise ValueError(f"expected a rate from 0 to below 1, got {rate}")
    return replace(data, streams=(chains.add(chains.settled(data), "Dropout", {"rate": rate}),))


def flattened(chains: Chains, data: Data) -> Data:
    """Flatten (N, T, F) to (N, T F); (N, F) is returned unchanged."""
    axes = data.plain_axes()
    if axes == (N, F):
        return replace(data, axes=axes)
    steps = chains.steps_of(data.streams[0])
    if axes != (N, T, F) or steps is None:
        raise ValueError(f"expected (N, T, F) with a known number of steps, got ({', '.join(axes)})")
    stream = chains.settled(data)
    require_all_steps(stream, "flattened")
    assert stream.features is not None
    return Data((N, F), (chains.add(stream, "Flatten", {}, features=steps * stream.features, lengths=False),))


def repeated(chains: Chains, data: Data, times: list[Any]) -> Data:
    """Read the repetition of a vector along an axis of size 1 as RepeatVector.

    `times` has the number of repetitions for this axis, and for others 1 or their size.
    """
    single = [place for place, axis in enumerate(data.axes) if axis in (ONE, D)]
    if len(data.streams) != 1 or sorted(data.plain_axes()) != [F, N] or len(single) != 1 or len(times) != 3:
        raise ValueError(f"expected a vector to be repeated along one axis, got axes ({', '.join(data.axes)})")
    (place,) = single
    count, others = times[place], [size for at, size in enumerate(times) if at != place]
    sizes = [size for at, size in enumerate(chains.shape_of(data)) if at != place]
    if not isinstance(count, int) or count < 1 or any(o not in (1, s) for o, s in zip(others, sizes, strict=True)):
        raise ValueError(f"expected a known number of repetitions along one axis, got {times}")
    stream = chains.add(chains.settled(data), "RepeatVector", {"n": count}, lengths=False, repeats=count)
    return Data(tuple(T if axis in (ONE, D) else axis for axis in data.axes), (stream,))


def embedding(chains: Chains, table: Any, tokens: Data, axis: int) -> Data:
    """Read the selection of rows of a table by tokens."""
    if axis != 0 or tokens.streams[0].features is not None:
        raise ValueError("expected integer tokens that select rows of a table")
    rows, size = (table := chains.weight("the table", table, 2)).shape
    config = {"input_dim": rows, "output_dim": size}
    stream = chains.add(chains.settled(tokens), "Embedding", config, {"embeddings": table}, features=size)
    return Data((*tokens.axes, F), (stream,))
