"""Conversion of an ONNX graph to a description, by symbolic execution: each array is represented by a symbolic value.

The nodes are visited in the order of the graph. Each operator is a function (in `fastgru.formats.onnx.layers` and
`fastgru.formats.onnx.moves`) from the values of its inputs to the values of its outputs. A value is one of:

- ndarray: a known array, such as a weight; a shape is an array of ints and of names for unknown sizes.
- `Fill`: an array of any shape with the same number everywhere.
- `Lengths`: the number of valid steps of each row.
- `Data`: the output of the layers so far, with a name for each axis. Operators such as Transpose and Squeeze change the
  axes. Operators such as GRU and MatMul append layers.

The result does not depend on the exporter, nor on the number of nodes that it uses for an operation. Unsupported
operators, and graphs that are not a sequence of fastgru's layers, raise an error that names the node.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastgru.formats.description import Array, LayerDescription, ModelDescription, bidirectional_config
from fastgru.formats.onnx import layers, moves
from fastgru.formats.onnx.signatures import Given, Signature
from fastgru.formats.onnx.tensors import INT32, INT64, MOST_AXES, Budget
from fastgru.formats.onnx.values import (
    DTYPES,
    MOST_LAYERS,
    AxisOrderError,
    Chains,
    Data,
    F,
    Lengths,
    N,
    Node,
    Recurrent,
    Stream,
    T,
    kind_of,
)

#: Older versions of GRU and of the operators on shapes differ.
_LEAST_OPSET = 7
_OPERATORS = layers.OPERATORS | moves.OPERATORS
#: (whether an input is of floating-point numbers, number of axes) -> names of the axes.
_INPUT_AXES = {(True, 2): (N, F), (True, 3): (N, T, F), (False, 2): (N, T)}


def read_graph(model: Any, arrays: dict[str, Array], budget: Budget) -> tuple[ModelDescription, Signature]:
    """Return the model that a ModelProto computes, and the signature of the graph.

    The input of the model is (N, T, F), also if the input of the graph is (T, N, F), PyTorch's default for a GRU.

    Parameters
    ----------
    model : ModelProto
    arrays : dict of str to ndarray
        Its initializers.
    budget : Budget

    Raises
    ------
    ValueError
        The graph is not a sequence of fastgru's layers; the message names the node.
    """
    failures: list[tuple[tuple[int, bool], ValueError]] = []
    for time_first in (False, True):
        walk = _Walk(model, arrays, budget, time_first=time_first)
        try:
            return walk.description(), walk.signature()
        except ValueError as error:
            failures.append(((walk.done, not isinstance(error.__cause__, AxisOrderError)), error))
    # Raise the error of the attempt that read more nodes. If both failed at the same node, raise the error of the
    # attempt with the order of axes that the node expects.
    raise max(failures, key=lambda failure: failure[0])[1]


class _Walk:
    """One pass through the nodes of a graph.

    Attributes
    ----------
    values : dict of str to object
        Name of an array -> its value.
    input_shape : tuple
        The input shape of the model without the batch axis.
    data, lengths : Given or None
        The inputs, after they have been identified.
    done : int
        The number of nodes that have been read.
    """

    def __init__(self, model: Any, arrays: dict[str, Array], budget: Budget, *, time_first: bool) -> None:
        self.model, self.graph = model, model.graph
        self.time_first = time_first
        self.chains = Chains(budget)
        self.values: dict[str, Any] = dict(arrays)
        self.input_shape: tuple[int | None, ...] = ()
        self.data: Given | None = None
        self.lengths: Given | None = None
        self.done = 0

    def description(self) -> ModelDescription:
        if not self.graph.output:
            raise ValueError("it has no outputs")
        nodes, needed = self._needed_nodes(self._opset())
        self._name_inputs(needed)
        for node in nodes:
            self._run(node)
            self.done += 1
        return ModelDescription(
            list(self._layers()), self.input_shape, self.graph.name or "sequential", self.chains.dtype or "float32"
        )

    def signature(self) -> Signature:
        """Return the signature of the graph; call `description` first."""
        assert self.data is not None
        outputs = {output.name: self._output(output.name).axes for output in self.graph.output}
        time_first = self.values[self.data.name].axes[0] == T
        return Signature(self.data, self.lengths, time_first, outputs)

    def _opset(self) -> int:
        versions: list[int] = [entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")]
        if len(versions) != 1 or versions[0] < _LEAST_OPSET:
            raise ValueError(f"expected one set of ONNX operators, version {_LEAST_OPSET} or later, got {versions}")
        if any(function.domain in ("", "ai.onnx") for function in self.model.functions):
            raise ValueError("it redefines operators of ONNX, which fastgru does not support")
        return versions[0]

    def _needed_nodes(self, opset: int) -> tuple[list[Node], set[str]]:
        """Return the nodes on which the outputs depend, in order, and the names of all arrays that they use."""
        needed = {output.name for output in self.graph.output}
        nodes = []
        for proto in reversed(self.graph.node):
            if any(name in needed for name in proto.output if name):
                nodes.append(Node(proto, opset))
                needed.update(name for name in proto.input if name)
        return nodes[::-1], needed

    # --- Inputs ----------------------------------------------------------------------------------------------------

    def _name_inputs(self, needed: set[str]) -> None:
        """Identify the inputs of the graph: the data, and optionally the lengths."""
        for proto in self.graph.input:
            if proto.name not in needed:
                continue
            given = Given.of(proto)
            if given.kind in (INT32, INT64) and given.shape == (None,):
                self.values[given.name] = Lengths()
                self.lengths = given
            elif given.name in self.values:
                continue  # an input with a default: a constant
            elif self.data is None:
                self.data = given
                self.values[given.name] = self._data(given)
            else:
                raise ValueError(
                    f"input {given.name!r}: expected one input besides the lengths because fastgru's models have one "
                    f"input and initial states of zeros, got a second input beside {self.data.name!r}"
                )
        if self.data is None:
            raise ValueError("it has no input that its outputs depend on")

    def _data(self, given: Given) -> Data:
        name, kind, shape = given.name, given.kind, given.shape
        axes = _INPUT_AXES.get((kind in DTYPES, len(shape)))
        if axes is None or (kind not in DTYPES and kind not in (INT32, INT64)):
            raise ValueError(
                f"input {name!r}: expected (N, T, F) or (N, F) of float or double, or tokens (N, T), got data type "
                f"{kind} and {len(shape)} axes"
            )
        if self.time_first and T in axes:
            axes = (T, N, *axes[2:])
        sizes = dict(zip(axes, shape, strict=True))
        self.chains.sizes |= {axis: sizes.get(axis) for axis in (N, T)}
        if F in axes and sizes[F] is None:
            raise ValueError(f"input {name!r}: expected a known number of features, got shape {shape}")
        self.input_shape = tuple(sizes[axis] for axis in (T, F) if axis in axes)
        if kind in DTYPES:
            self.chains.agree_on_dtype(DTYPES[kind], name)
        return Data(axes, (Stream((), sizes.get(F)),))

    # --- Nodes -----------------------------------------------------------------------------------------------------

    def _run(self, node: Node) -> None:
        try:
            run = _OPERATORS.get(node.operator) if node.domain in ("", "ai.onnx") else None
            if run is None:
                raise ValueError(
                    f"the operator is not supported by fastgru, which supports {', '.join(sorted(_OPERATORS))}"
                )
            outputs = run(self.chains, node, [self._value(name) for name in node.inputs])
            node.require_no_more_attributes()
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            if len(node.outputs) > len(outputs):
                raise ValueError(f"expected at most {len(outputs)} outputs, got {len(node.outputs)}")
            for name, value in zip(node.outputs, outputs, strict=False):
                if name:
                    self._define(name, value)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"{node}: {error}") from error

    def _value(self, name: str) -> Any:
        if name and name not in self.values:
            raise ValueError(f"its input {name!r} is not defined before it")
        return self.values[name] if name else None

    def _define(self, name: str, value: Any) -> None:
        if name in self.values:
            raise ValueError(f"its output {name!r} is already defined")
        axes = len(value.axes) if isinstance(value, Data) else np.ndim(value) if isinstance(value, np.ndarray) else 0
        if axes > MOST_AXES:
            raise ValueError(f"expected at most {MOST_AXES} axes, got {axes}")
        if isinstance(value, np.ndarray):
            self.chains.budget.spend(f"output {name!r}", value.nbytes)
        if isinstance(value, Data) and any(len(stream.layers) > MOST_LAYERS for stream in value.streams):
            raise ValueError(f"more than {MOST_LAYERS:,} layers")
        self.values[name] = value

    # --- Outputs ---------------------------------------------------------------------------------------------------

    def _layers(self) -> tuple[LayerDescription, ...]:
        """Return the layers that compute the outputs of the graph."""
        names = [output.name for output in self.graph.output]
        try:
            found = self._last([self._output(name) for name in names])
        except (ValueError, TypeError) as error:
            raise ValueError(f"output {', '.join(map(repr, names))}: {error}") from None
        if not found:
            raise ValueError(f"output {names[0]!r}: expected the output of a layer, got an input of the graph")
        return found

    def _output(self, name: str) -> Data:
        value = self.values.get(name)
        if not isinstance(value, Data):
            raise TypeError(f"expected the output of a layer, got {kind_of(value)}")
        steps = (T, N, F) if self.time_first else (N, T, F)
        axes = value.plain_axes()
        if axes not in ((N, F), steps):
            raise ValueError(f"expected axes ({', '.join(steps)}) or (N, F), got ({', '.join(axes)})")
        return value

    def _last(self, outputs: list[Data]) -> tuple[LayerDescription, ...]:
        """Return the layers whose last one returns these outputs: outputs or two directions, then final states."""
        parts = [data.streams[0].recurrent for data in outputs]
        if len(outputs) == 4 or (len(outputs) == 2 and _are_directions(*parts)):
            count, stream = 2, self.chains.merge(outputs[0], outputs[1], None).streams[0]
        else:
            count, stream = 1, self.chains.settled(outputs[0])
        if len(outputs) == count:
            return stream.layers
        last = stream.layers[-1] if stream.layers else None
        if last is None or not _are_states(parts[count:], last):
            raise ValueError(
                "several outputs are supported only if the last layer returns them: outputs and final state of a GRU, "
                "or output or directions of a Bidirectional and its final states, the forward direction first"
            )
        return (*stream.layers[:-1], _returning_states(last))


def _are_directions(one: Recurrent | None, other: Recurrent | None) -> bool:
    """Whether two outputs belong to two different GRUs."""
    return one is not None and other is not None and one.weights is not other.weights


def _are_states(parts: list[Recurrent | None], layer: LayerDescription) -> bool:
    """Whether these are the final states of a layer, in the order in which it returns them."""
    names = [f"{prefix}kernel" for prefix in layer.parts]
    if len(parts) != len(names):
        return False
    # Each node has its own arrays, even if two nodes read the same tensors.
    return all(
        part is not None and not part.steps and part.weights["kernel"] is layer.weights.get(name)
        for part, name in zip(parts, names, strict=True)
    )


def _returning_states(layer: LayerDescription) -> LayerDescription:
    configs = [{**part.config, "return_state": True} for part in layer.parts.values()]
    if layer.class_name != "Bidirectional":
        return replace(layer, config=configs[0])
    return replace(layer, config=bidirectional_config(configs, layer.config["merge_mode"]))
