"""Conversion of a description to an ONNX graph.

All arrays between layers are batch-major, (N, T, F). The graph uses lengths as the ``sequence_lens`` of GRU nodes, and
for the masks of layers that need one. ``lengths`` is an input with a default, so callers without padding can leave it
out. The default is one large number for all rows, which the graph limits to the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgru.formats.checks import unsupported
from fastgru.formats.description import Array, LayerDescription, ModelDescription
from fastgru.formats.onnx.tensors import DOUBLE, FLOAT, INT32, INT64, from_node, to_node

#: The lowest version that has all operators in the form used here; later versions run it too.
OPSET = 14
INPUT, LENGTHS, OUTPUT = "x", "lengths", "output"
#: The default of `LENGTHS`: all steps are valid.
_ALL_STEPS = 2**31 - 1
#: The maximum size of a protobuf.
_MOST_BYTES = 2**31 - 2**24

#: Activation of a GRU -> ONNX' name, alpha and beta (None where the function has none).
CANDIDATES: dict[str, tuple[str, float | None, float | None]] = {
    "tanh": ("Tanh", None, None),
    "relu": ("Relu", None, None),
    "linear": ("Affine", 1.0, 0.0),
}
GATES: dict[str, tuple[str, float | None, float | None]] = {
    "sigmoid": ("Sigmoid", None, None),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "hard_sigmoid_tfjs": ("HardSigmoid", 0.2, 0.5),
}
#: Activation of a Dense, or an Activation layer's -> operator.
ACTIVATIONS = {"softmax": "Softmax", "sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}
_MERGES = {"sum": "Add", "mul": "Mul", "ave": "Add"}

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class _Flow:
    """The outputs of the layers so far.

    Attributes
    ----------
    values : tuple of str
        Names of the arrays; more than one only after the last layer.
    shape : tuple
        The shape of each array; a str is the name of an unknown size.
    lengths : str or None
        Name of the int64 array (N,) of lengths; None if all steps are valid, or the time axis is gone.
    states : tuple of str
        Names of the final states that the last layer returns.
    """

    values: tuple[str, ...]
    shape: Shape
    lengths: str | None
    states: tuple[str, ...] = ()

    @property
    def x(self) -> str:
        return self.values[0]


class _Graph:
    """Collects nodes, initializers, inputs and outputs."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.float_type = FLOAT if dtype == np.float32 else DOUBLE
        self.nodes: dict[str, Any] = {}  # by their first output
        self.initializers: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def node(self, operator: str, inputs: list[str], output: str, *more: str, **attributes: Any) -> str:
        """Append a node with the name of its first output, and return this name."""
        from onnx import helper

        self.nodes[output] = helper.make_node(operator, inputs, [output, *more], name=output, **attributes)
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        from onnx import numpy_helper

        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant("ints/" + "_".join(map(str, values)), values)

    def optional_input(self, name: str, value: Array, shape: Shape) -> str:
        """Add an optional input with a default value."""
        from onnx import helper, numpy_helper

        tensor = numpy_helper.from_array(value, name)
        self.initializers[name] = tensor
        self.inputs.append(helper.make_tensor_value_info(name, tensor.data_type, shape))
        return name

    # --- Sizes, lengths, masks: each is created once, when it is first needed ---------------------------------------

    def _once(self, name: str, operator: str, inputs: list[str], **attributes: Any) -> str:
        if name not in self.nodes:
            self.node(operator, inputs, name, **attributes)
        return name

    def size(self, axis: int) -> str:
        """Return the size of the input along an axis, as an array (1,)."""
        shape = self._once(f"{INPUT}/shape", "Shape", [INPUT])
        return self._once(f"{INPUT}/size_{axis}", "Slice", [shape, self.ints(axis), self.ints(axis + 1)])

    def lengths(self) -> str:
        """Return the lengths (N,) of the input, limited to T."""
        if LENGTHS not in self.initializers:
            self.optional_input(LENGTHS, np.array([_ALL_STEPS], np.int64), ("lengths",))
        rows = self._once(f"{LENGTHS}/of_rows", "Expand", [LENGTHS, self.size(0)])
        return self._once(f"{LENGTHS}/cut", "Min", [rows, self.size(1)])

    def valid(self, lengths: str) -> str:
        """Return the mask (N, T) of the valid steps."""
        steps = self._once(f"{INPUT}/steps", "Squeeze", [self.size(1), self.ints(0)])
        zero, one = self.constant("int/0", 0), self.constant("int/1", 1)
        numbers = self._once(f"{INPUT}/step_numbers", "Range", [zero, steps, one])
        column = self._once(f"{lengths}/column", "Unsqueeze", [lengths, self.ints(1)])
        return self._once(f"{lengths}/valid", "Less", [numbers, column])

    def any_valid(self, lengths: str) -> str:
        """Return the mask (N, 1) of the rows that have a valid step."""
        column = self._once(f"{lengths}/column", "Unsqueeze", [lengths, self.ints(1)])
        return self._once(f"{lengths}/any_valid", "Greater", [column, self.constant("int/0", 0)])

    def number(self, value: float) -> str:
        return self.constant(f"number/{value}", value, self.dtype)


def graph(description: ModelDescription) -> Any:
    """Return the graph (a GraphProto) that computes the predictions of the model.

    Raises
    ------
    ValueError
        ONNX, or ONNX Runtime, does not support a feature, which the message names.
    """
    from onnx import helper

    _require_supported(description)
    made = _Graph(np.dtype(description.dtype))
    shape: Shape = ("N", *(_axis(number, size) for number, size in enumerate(description.built_shape)))
    tokens = description.layers[0].class_name == "Embedding"
    made.inputs.append(helper.make_tensor_value_info(INPUT, INT64 if tokens else made.float_type, shape))
    flow = _Flow((INPUT,), shape, LENGTHS)
    states: list[tuple[str, int]] = []
    for layer in (each.unwrapped for each in description.layers):
        if layer.class_name not in _LAYERS:
            raise unsupported(layer.name, layer.class_name, "ONNX")
        flow = _LAYERS[layer.class_name](made, layer, flow)
        states += _states_of(layer)
    arrays = (*flow.values, *flow.states)
    names = (OUTPUT,) if len(arrays) == 1 else tuple(f"{OUTPUT}_{number}" for number in range(len(arrays)))
    for name, array in zip(names, arrays, strict=True):
        made.node("Identity", [array], name)
    state: Shape = ("N", description.layers[-1].forward.config.get("units", 0))
    returned = [flow.shape] * len(flow.values) + [state] * len(flow.states)
    for name, shape in [*zip(names, returned, strict=True), *((name, ("N", units)) for name, units in states)]:
        made.outputs.append(helper.make_tensor_value_info(name, made.float_type, shape))
    return helper.make_graph(
        list(made.nodes.values()),
        description.name or "sequential",
        made.inputs,
        made.outputs,
        list(made.initializers.values()),
    )


def _axis(number: int, size: int | None) -> int | str:
    """Return the size of an axis of the input after the batch; an unknown size gets a name."""
    if size is not None:
        return size
    return "T" if number == 0 else f"size_{number + 1}"


def _require_supported(description: ModelDescription) -> None:
    if any(layer.is_recurrent for layer in description.layers):
        description.require_float32("ONNX Runtime", "whose GRU supports float32 only")
    size = sum(array.nbytes for array in description.weights().values())
    if size > _MOST_BYTES:
        raise ValueError(
            f"{description.name}: expected at most 2 GiB of weights because of the ONNX format, got {size:,} bytes"
        )


# --- Layers -----------------------------------------------------------------------------------------------------


def _states_of(layer: LayerDescription) -> list[tuple[str, int]]:
    """Return names and sizes of the outputs that a stateful layer adds to the graph."""
    return [
        (f"{layer.name}/{prefix}next_state", part.config["units"])
        for prefix, part in layer.parts.items()
        if part.config.get("stateful")
    ]


def activations_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return a node's attributes for the two activations; alpha and beta are listed for functions that have them."""
    chosen = (GATES[config["recurrent_activation"]], CANDIDATES[config["activation"]])
    names, alphas, betas = zip(*chosen, strict=True)
    attributes: dict[str, Any] = {"activations": list(names)}
    if alpha := [value for value in alphas if value is not None]:
        attributes["activation_alpha"] = alpha
        attributes["activation_beta"] = [value for value in betas if value is not None]
    return attributes


def _run_gru(
    made: _Graph, prefix: str, gru: LayerDescription, x: str, lengths: str | None, direction: str
) -> tuple[str, str]:
    """Return outputs (N, T, H), with zeros after the end of a sequence, and final state (N, H) of one direction."""
    config, weights = gru.config, gru.weights
    arrays = {name: made.constant(f"{prefix}{name}", a, made.dtype) for name, a in to_node(weights).items()}
    time_major = made.node("Transpose", [x], f"{prefix}time_major", perm=[1, 0, 2])
    counts = "" if lengths is None else made.node("Cast", [lengths], f"{prefix}sequence_lens", to=INT32)
    inputs = [time_major, arrays["W"], arrays["R"], arrays.get("B", ""), counts]
    if config["stateful"]:
        inputs.append(_initial_state(made, prefix, len(weights["recurrent_kernel"])))
    y, y_h = f"{prefix}Y", f"{prefix}Y_h"
    made.node(
        "GRU",
        inputs,
        y,
        y_h,
        hidden_size=config["units"],
        direction=direction,
        linear_before_reset=int(config["reset_after"]),
        **activations_of(config),
    )
    steps = made.node("Squeeze", [y, made.ints(1)], f"{prefix}Y_steps")
    outputs = made.node("Transpose", [steps], f"{prefix}outputs", perm=[1, 0, 2])
    state = made.node("Squeeze", [y_h, made.ints(0)], f"{prefix}last_state")
    if config["stateful"] and lengths is not None:
        # The final state of an empty sequence is its initial state; ONNX Runtime returns zeros.
        before = f"{prefix}state_of_rows"
        state = made.node("Where", [made.any_valid(lengths), state, before], f"{prefix}next_state")
    elif config["stateful"]:
        state = made.node("Identity", [state], f"{prefix}next_state")
    return outputs, state


def _initial_state(made: _Graph, prefix: str, units: int) -> str:
    """Return the initial states: an optional input with the default zero."""
    given = made.optional_input(f"{prefix}state", np.zeros((1, units), made.dtype), ("states", units))
    shape = made.node("Concat", [made.size(0), made.ints(units)], f"{prefix}state_shape", axis=0)
    rows = made.node("Expand", [given, shape], f"{prefix}state_of_rows")
    return made.node("Unsqueeze", [rows, made.ints(0)], f"{prefix}initial_h")


def _lengths_of(made: _Graph, flow: _Flow) -> str | None:
    """Return the lengths for a layer that uses them; the input for lengths is created at its first use."""
    return made.lengths() if flow.lengths == LENGTHS else flow.lengths


def _gru(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    config, x, lengths = layer.config, flow.x, _lengths_of(made, flow)
    if config["go_backwards"]:  # outputs are in the order of processing, with padding at the end
        x = _reversed(made, layer.name, x, lengths)
    outputs, state = _run_gru(made, f"{layer.name}/", layer, x, lengths, "forward")
    if not config["return_sequences"]:
        after = _Flow((state,), ("N", config["units"]), None)
    else:
        if not config["zero_output_for_mask"] and lengths is not None:
            outputs = _repeat_last(made, layer, outputs, state, lengths)
        after = _Flow((outputs,), ("N", flow.shape[1], config["units"]), flow.lengths)
    return replace(after, states=(state,)) if config["return_state"] else after


def _reversed(made: _Graph, name: str, x: str, lengths: str | None) -> str:
    """Reverse the valid steps."""
    if lengths is not None:
        return made.node("ReverseSequence", [x, lengths], f"{name}/reversed", batch_axis=0, time_axis=1)
    last, before_first = made.ints(-1), made.ints(-(2**62))
    return made.node("Slice", [x, last, before_first, made.ints(1), last], f"{name}/reversed")


def _repeat_last(made: _Graph, layer: LayerDescription, outputs: str, state: str, lengths: str) -> str:
    """Repeat the last output after the end of a sequence, as Keras does; it is zero for an empty sequence."""
    last = state
    if layer.config["stateful"]:  # the final state of an empty sequence is the initial state, not an output
        last = made.node("Where", [made.any_valid(lengths), state, made.number(0.0)], f"{layer.name}/last")
    column = made.node("Unsqueeze", [last, made.ints(1)], f"{layer.name}/last_output")
    mask = made.node("Unsqueeze", [made.valid(lengths), made.ints(2)], f"{layer.name}/valid")
    return made.node("Where", [mask, outputs, column], f"{layer.name}/repeated")


def _bidirectional(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    lengths = _lengths_of(made, flow)
    halves, states = [], []
    for prefix, part in layer.parts.items():
        config = part.config
        reading = "reverse" if config["go_backwards"] else "forward"
        outputs, state = _run_gru(made, f"{layer.name}/{prefix}", part, flow.x, lengths, reading)
        halves.append(outputs if config["return_sequences"] else state)
        if config["return_state"]:
            states.append(state)
    units, sequences = config["units"], config["return_sequences"]
    shape: Shape = ("N", flow.shape[1]) if sequences else ("N",)
    merge = layer.config["merge_mode"]
    values = tuple(halves) if merge is None else (_merge(made, layer.name, merge, halves),)
    size = 2 * units if merge == "concat" else units
    return _Flow(values, (*shape, size), flow.lengths if sequences else None, tuple(states))


def _merge(made: _Graph, name: str, merge: str, halves: list[str]) -> str:
    if merge == "concat":
        return made.node("Concat", halves, f"{name}/merged", axis=-1)
    merged = made.node(_MERGES[merge], halves, f"{name}/merged")
    return made.node("Mul", [merged, made.number(0.5)], f"{name}/mean") if merge == "ave" else merged


def _dense(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    kernel = made.constant(f"{layer.name}/kernel", layer.weights["kernel"], made.dtype)
    x = made.node("MatMul", [flow.x, kernel], f"{layer.name}/product")
    if "bias" in layer.weights:
        bias = made.constant(f"{layer.name}/bias", layer.weights["bias"], made.dtype)
        x = made.node("Add", [x, bias], f"{layer.name}/sum")
    x = _activated(made, layer, x)
    return replace(flow, values=(x,), shape=(*flow.shape[:-1], layer.weights["kernel"].shape[1]))


def _activation(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    return replace(flow, values=(_activated(made, layer, flow.x),))


def _activated(made: _Graph, layer: LayerDescription, x: str) -> str:
    activation = layer.config["activation"]
    if activation == "linear":
        return x
    axis = {"axis": -1} if activation == "softmax" else {}
    return made.node(ACTIVATIONS[activation], [x], f"{layer.name}/{activation}", **axis)


def _rescaling(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    x = made.node("Mul", [flow.x, made.number(layer.config["scale"])], f"{layer.name}/scaled")
    if layer.config["offset"]:
        x = made.node("Add", [x, made.number(layer.config["offset"])], f"{layer.name}/shifted")
    return replace(flow, values=(x,))


def _embedding(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    lengths = made.lengths()  # an Embedding is the first layer of a model
    table = made.constant(f"{layer.name}/embeddings", layer.weights["embeddings"], made.dtype)
    zero = made.constant("int/0", 0)
    # Padding may contain any integer.
    tokens = made.node("Where", [made.valid(lengths), flow.x, zero], f"{layer.name}/tokens")
    vectors = made.node("Gather", [table, tokens], f"{layer.name}/vectors", axis=0)
    shape = (*flow.shape, layer.weights["embeddings"].shape[1])
    after = flow.lengths
    if layer.config["mask_zero"]:
        padding = made.node("Equal", [tokens, zero], f"{layer.name}/padding")
        after = _count(made, layer.name, made.node("Not", [padding], f"{layer.name}/counts"))
    return _Flow((vectors,), shape, after)


def _masking(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    lengths = _lengths_of(made, flow)
    if lengths is None:
        reason = "which stores lengths for the steps of the input only"
        raise unsupported(layer.name, "Masking after a layer that creates other steps", "an ONNX file", reason)
    valid = made.valid(lengths)
    equal = made.node("Equal", [flow.x, made.number(layer.config["mask_value"])], f"{layer.name}/equal")
    numbers = made.node("Cast", [equal], f"{layer.name}/equal_numbers", to=INT64)
    all_equal = made.node("ReduceMin", [numbers], f"{layer.name}/all_equal", axes=[2], keepdims=0)
    differs = made.node("Equal", [all_equal, made.constant("int/0", 0)], f"{layer.name}/differs")
    counts = made.node("And", [differs, valid], f"{layer.name}/counts")
    return replace(flow, lengths=_count(made, layer.name, counts))


def _count(made: _Graph, name: str, mask: str) -> str:
    """Return the lengths (N,) for a mask (N, T) of valid steps."""
    numbers = made.node("Cast", [mask], f"{name}/count_numbers", to=INT64)
    return made.node("ReduceSum", [numbers, made.ints(1)], f"{name}/lengths", keepdims=0)


def _average(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    name, lengths = layer.name, _lengths_of(made, flow)
    shape = (flow.shape[0], flow.shape[2])
    if lengths is None:
        return _Flow((made.node("ReduceMean", [flow.x], f"{name}/mean", axes=[1], keepdims=0),), shape, None)
    kept = _keep_valid(made, name, flow.x, lengths, 0.0)
    total = made.node("ReduceSum", [kept, made.ints(1)], f"{name}/total", keepdims=0)
    least = made.node("Max", [lengths, made.ints(1)], f"{name}/at_least_one")
    column = made.node("Unsqueeze", [least, made.ints(1)], f"{name}/column")
    count = made.node("Cast", [column], f"{name}/count", to=made.float_type)
    mean = made.node("Div", [total, count], f"{name}/mean")
    return _Flow((mean,), shape, None)


def _maximum(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    name, lengths = layer.name, _lengths_of(made, flow)
    shape = (flow.shape[0], flow.shape[2])
    if lengths is None:
        return _Flow((made.node("ReduceMax", [flow.x], f"{name}/largest", axes=[1], keepdims=0),), shape, None)
    kept = _keep_valid(made, name, flow.x, lengths, -np.inf)
    largest = made.node("ReduceMax", [kept], f"{name}/largest", axes=[1], keepdims=0)
    found = made.node("Where", [made.any_valid(lengths), largest, made.number(0.0)], f"{name}/found")
    return _Flow((found,), shape, None)


def _last_step(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    name, lengths = layer.name, _lengths_of(made, flow)
    shape = (flow.shape[0], flow.shape[2])
    if lengths is None:
        return _Flow((made.node("Gather", [flow.x, made.constant("int/-1", -1)], f"{name}/step", axis=1),), shape, None)
    least = made.node("Max", [lengths, made.ints(1)], f"{name}/at_least_one")
    column = made.node("Unsqueeze", [least, made.ints(1)], f"{name}/column")
    place = made.node("Sub", [column, made.ints(1)], f"{name}/place")
    step = made.node("GatherND", [flow.x, place], f"{name}/step", batch_dims=1)
    found = made.node("Where", [made.any_valid(lengths), step, made.number(0.0)], f"{name}/found")
    return _Flow((found,), shape, None)


def _keep_valid(made: _Graph, name: str, x: str, lengths: str, other: float) -> str:
    """Replace padding in `x` by `other`."""
    mask = made.node("Unsqueeze", [made.valid(lengths), made.ints(2)], f"{name}/valid")
    return made.node("Where", [mask, x, made.number(other)], f"{name}/kept")


def _dropout(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    """Add a Dropout node, which has no effect in inference, so that readers of the file find the layer."""
    rate = made.constant(f"{layer.name}/rate", layer.config["rate"], np.float64)
    return replace(flow, values=(made.node("Dropout", [flow.x, rate], f"{layer.name}/kept"),))


def _flatten(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    sizes = flow.shape[1:]
    known = [size for size in sizes if isinstance(size, int)]
    size = int(np.prod(known, dtype=object)) if len(known) == len(sizes) else f"{layer.name}/size"
    return _Flow((made.node("Flatten", [flow.x], f"{layer.name}/flat", axis=1),), (flow.shape[0], size), None)


def _reshape(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    target = list(layer.config["target_shape"])
    shape = made.ints(0, *target)  # 0 is the size of the batch
    known = [size for size in flow.shape[1:] if isinstance(size, int)]
    inferred: int | str = f"{layer.name}/size"
    if len(known) == len(flow.shape) - 1:
        inferred = math.prod(known) // math.prod(size for size in target if size != -1)
    sizes = (inferred if size == -1 else size for size in target)
    return _Flow((made.node("Reshape", [flow.x, shape], f"{layer.name}/reshaped"),), (flow.shape[0], *sizes), None)


def _repeat_vector(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    count = layer.config["n"]
    step = made.node("Unsqueeze", [flow.x, made.ints(1)], f"{layer.name}/step")
    steps = made.node("Expand", [step, made.ints(1, count, 1)], f"{layer.name}/steps")
    return _Flow((steps,), (flow.shape[0], count, flow.shape[1]), None)


def _permute(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    axes = [0, *layer.config["dims"]]
    x = made.node("Transpose", [flow.x], f"{layer.name}/permuted", perm=axes)
    return _Flow((x,), tuple(flow.shape[axis] for axis in axes), None)


def _time_distributed(made: _Graph, layer: LayerDescription, flow: _Flow) -> _Flow:
    """Apply the inner layer to all steps of all sequences as samples; outputs of padding are zeros."""
    name, inner = layer.name, _within(layer)
    rows, steps, *sizes = flow.shape
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes) or inner.class_name not in _LAYERS:
        what = inner.class_name if len(known) == len(sizes) else "an unknown number of steps within a step"
        raise unsupported(name, f"TimeDistributed around {what}", "an ONNX file")
    samples = made.node("Reshape", [flow.x, made.ints(-1, *known)], f"{name}/samples")
    within = _LAYERS[inner.class_name](made, inner, _Flow((samples,), ("samples", *known), None))
    _, *after = within.shape
    shape = made.node("Shape", [flow.x], f"{name}/shape")
    begin = made.node("Slice", [shape, made.ints(0), made.ints(2)], f"{name}/rows_and_steps")
    target = made.node("Concat", [begin, made.ints(*map(int, after))], f"{name}/target", axis=0)
    y = made.node("Reshape", [within.x, target], f"{name}/steps")
    lengths = _lengths_of(made, flow)
    if lengths is not None:
        axes = made.ints(*range(2, 2 + len(after)))
        mask = made.node("Unsqueeze", [made.valid(lengths), axes], f"{name}/valid")
        y = made.node("Where", [mask, y, made.number(0.0)], f"{name}/kept")
    return _Flow((y,), (rows, steps, *after), flow.lengths)


def _within(layer: LayerDescription) -> LayerDescription:
    """Return the inner layer of a TimeDistributed, with a unique name."""
    return replace(layer.within, name=f"{layer.name}/each").unwrapped


_LAYERS: dict[str, Callable[[_Graph, LayerDescription, _Flow], _Flow]] = {
    "GRU": _gru,
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Embedding": _embedding,
    "Masking": _masking,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "GlobalAveragePooling1D": _average,
    "GlobalMaxPooling1D": _maximum,
    "LastStep": _last_step,
    "Activation": _activation,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Reshape": _reshape,
    "Rescaling": _rescaling,
    "SpatialDropout1D": _dropout,
    "TimeDistributed": _time_distributed,
}


# --- Reading the weights of a graph that this module wrote --------------------------------------------------------


def weights_of(layer: LayerDescription, arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the weights of a layer, from the initializers of a graph that `graph` returned.

    Raises
    ------
    LookupError, ValueError
        Weights are missing or have wrong shapes.
    """
    layer = layer.unwrapped
    if layer.class_name == "TimeDistributed":
        return weights_of(_within(layer), arrays)
    prefix = f"{layer.name}/"
    if not layer.is_recurrent:
        return {name: arrays[prefix + name] for name in layer.weight_names}
    return {
        f"{direction}{name}": array
        for direction, part in layer.parts.items()
        for name, array in _gru_weights(prefix + direction, part.config, arrays).items()
    }


def _gru_weights(prefix: str, config: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Array]:
    w, r = arrays[f"{prefix}W"][0], arrays[f"{prefix}R"][0]
    b = arrays[f"{prefix}B"][0] if config["use_bias"] else None
    return from_node(w, r, b, reset_after=config["reset_after"])
