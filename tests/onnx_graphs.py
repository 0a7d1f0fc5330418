"""ONNX graphs for the tests, built by hand in the forms of other exporters."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

F, H, C = 3, 5, 4
FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


class Graph:
    """Nodes and tensors in the order in which they are added."""

    def __init__(self, shape=("n", "t", F), kind=FLOAT, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.tensors = [], []
        self.inputs = [helper.make_tensor_value_info("x", kind, shape)]

    def node(self, operator, inputs, outputs=1, **attributes):
        number = len(self.nodes)
        names = [f"{operator}_{number}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"{operator}_{number}", **attributes))
        return names[0] if outputs == 1 else names

    def tensor(self, value, dtype=np.float32):
        name = f"tensor_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values):
        return self.tensor(values, np.int64)

    def weights(self, *shape):
        return self.tensor(self.rng.normal(size=shape) * 0.5)

    def gru(self, x, *, features=F, units=H, directions=1, lengths="", initial="", bias=True, **attributes):
        """Add a GRU node with its own weights; returns Y and Y_h."""
        w, r = self.weights(directions, 3 * units, features), self.weights(directions, 3 * units, units)
        b = self.weights(directions, 6 * units) if bias else ""
        attributes.setdefault("linear_before_reset", 1)
        direction = attributes.pop("direction", ("forward", "bidirectional")[directions - 1])
        attributes.setdefault("hidden_size", units)
        return self.node("GRU", [x, w, r, b, lengths, initial], 2, direction=direction, **attributes)

    def time_first(self, x="x"):
        return self.node("Transpose", [x], perm=[1, 0, 2])

    def steps(self, y):
        """Return (N, T, H) of a node's Y with one direction."""
        return self.time_first(self.node("Squeeze", [y, self.ints(1)]))

    def dense(self, x, features=H, units=C):
        product = self.node("MatMul", [x, self.weights(features, units)])
        return self.node("Add", [product, self.weights(units)])

    def model(self, *outputs, opset=14):
        infos = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, infos, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def keras_classifier():
    """tf2onnx' form of Keras' GRU and Dense: a state of zeros for the batch, and the last step sliced."""
    g = Graph()
    x = g.time_first()
    size = g.node("Slice", [g.node("Shape", [x]), g.ints(1), g.ints(2), g.ints(0)])
    shape = g.node("Concat", [g.ints(1), size, g.ints(H)], axis=0)
    zeros = g.node("Expand", [g.tensor(0.0), shape])
    y, _ = g.gru(x, initial=zeros)
    steps = g.steps(y)
    last = g.node("Slice", [steps, g.ints(-1), g.ints(2**31 - 1), g.ints(1)])
    return g.model(g.node("Softmax", [g.dense(g.node("Squeeze", [last, g.ints(1)]))], axis=-1))


def keras_masked_lengths():
    """The number of steps is given for each row, although all steps are valid."""
    g = Graph()
    x = g.time_first()
    shape = g.node("Shape", [x])
    size, steps = (g.node("Slice", [shape, g.ints(axis), g.ints(axis + 1)]) for axis in (1, 0))
    lengths = g.node("Cast", [g.node("Expand", [steps, size])], to=INT32)
    _, state = g.gru(x, lengths=lengths)
    return g.model(g.dense(g.node("Squeeze", [state, g.ints(0)])))


def keras_time_distributed():
    """Dense on each step of Keras' GRU: rows and steps are merged into one axis and split again."""
    g = Graph()
    y, _ = g.gru(g.time_first())
    steps = g.steps(y)
    shape = g.node("Shape", [steps])
    rows = g.node("Reshape", [steps, g.ints(-1, H)])
    scores = g.node("Sigmoid", [g.dense(rows)])
    sizes = g.node("Slice", [shape, g.ints(0), g.ints(2)])
    return g.model(g.node("Reshape", [scores, g.node("Concat", [sizes, g.ints(C)], axis=0)]))


def keras_go_backwards():
    """Outputs in the order of processing: the input is reversed, the outputs are not."""
    g = Graph()
    turned = g.node("Slice", ["x", g.ints(-1), g.ints(-(2**63)), g.ints(1), g.ints(-1)])
    y, _ = g.gru(g.time_first(turned))
    return g.model(g.steps(y))


def keras_bidirectional_split(merge="concat"):
    """Both directions of one node, split and merged."""
    g = Graph()
    y, _ = g.gru(g.time_first(), directions=2)
    halves = g.node("Split", [y, g.ints(1, 1)], 2, axis=1)
    one, other = (g.steps(half) for half in halves)
    if merge == "concat":
        return g.model(g.node("Concat", [one, other], axis=-1))
    merged = g.node({"sum": "Add", "mul": "Mul", "ave": "Add"}[merge], [one, other])
    return g.model(g.node("Div", [merged, g.tensor(2.0)]) if merge == "ave" else merged)


def keras_bidirectional_two_nodes():
    """Two nodes, one on the reversed input, whose outputs are reversed again."""
    g = Graph()
    y, _ = g.gru(g.time_first())
    reverse = [g.ints(-1), g.ints(-(2**63)), g.ints(1), g.ints(-1)]
    back, _ = g.gru(g.time_first(g.node("Slice", ["x", *reverse])))
    return g.model(g.node("Concat", [g.steps(y), g.node("Slice", [g.steps(back), *reverse])], axis=2))


def reverse_sequence():
    """A direction by ReverseSequence, with lengths from the caller."""
    g = Graph()
    g.inputs.append(helper.make_tensor_value_info("lengths", INT64, ["n"]))
    turned = g.node("ReverseSequence", ["x", "lengths"], batch_axis=0, time_axis=1)
    y, _ = g.gru(g.time_first(turned), lengths=g.node("Cast", ["lengths"], to=INT32))
    return g.model(g.dense(g.steps(y)))


def sequence_lens():
    """Lengths from the caller for two layers, of which the second is bidirectional."""
    g = Graph()
    g.inputs.append(helper.make_tensor_value_info("lengths", INT32, ["n"]))
    y, _ = g.gru(g.time_first(), lengths="lengths")
    y, state = g.gru(g.node("Squeeze", [y, g.ints(1)]), features=H, directions=2, lengths="lengths")
    both = g.node("Transpose", [state], perm=[1, 0, 2])
    return g.model(g.dense(g.node("Reshape", [both, g.ints(0, 2 * H)]), features=2 * H))


def reverse_before_forward():
    """A layer that reads backwards, and a layer that reads its outputs in input order, not in processing order."""
    g = Graph()
    g.inputs.append(helper.make_tensor_value_info("lengths", INT32, ["n"]))
    y, _ = g.gru(g.time_first(), direction="reverse", lengths="lengths")
    y, _ = g.gru(g.node("Squeeze", [y, g.ints(1)]), features=H, lengths="lengths")
    return g.model(g.steps(y))


def turned_between():
    """Outputs reversed right before the next layer."""
    g = Graph()
    y, _ = g.gru(g.time_first())
    turned = g.node("Slice", [g.node("Squeeze", [y, g.ints(1)]), g.ints(-1), g.ints(-(2**63)), g.ints(0), g.ints(-1)])
    y, _ = g.gru(turned, features=H)
    return g.model(g.steps(y))


def batch_first_layout():
    g = Graph()
    y, _ = g.gru("x", layout=1, linear_before_reset=0)
    return g.model(g.node("Squeeze", [y, g.ints(2)]))


def activations(gate, candidate, alpha, beta):
    g = Graph()
    given = {"activation_alpha": alpha, "activation_beta": beta} if alpha else {}
    _, state = g.gru(g.time_first(), activations=[gate, candidate], **given)
    return g.model(g.node("Squeeze", [state, g.ints(0)]))


def old_operators():
    """Axes as attributes, as in operator sets before 13."""
    g = Graph()
    y, _ = g.gru(g.node("Transpose", ["x"], perm=[1, 0, 2]), bias=False)
    steps = g.node("Transpose", [g.node("Squeeze", [y], axes=[1])], perm=[1, 0, 2])
    mean = g.node("ReduceMean", [g.node("Dropout", [steps])], axes=[1], keepdims=0)
    return g.model(g.node("Softmax", [g.node("Gemm", [mean, g.weights(H, C), g.weights(C)])]), opset=11)


def embedding():
    g = Graph(("n", "t"), INT64)
    vectors = g.node("Gather", [g.weights(7, F), "x"])
    _, state = g.gru(g.time_first(vectors))
    return g.model(g.node("Squeeze", [state]))


def pooled(operator):
    g = Graph()
    y, _ = g.gru(g.time_first())
    swapped = g.node("Transpose", [g.node("Squeeze", [y, g.ints(1)])], perm=[1, 2, 0])
    return g.model(g.dense(g.node("Flatten", [g.node(operator, [swapped])])))


def flattened():
    g = Graph(("n", 6, F))
    y, _ = g.gru(g.time_first())
    return g.model(g.dense(g.node("Flatten", [g.steps(y)]), features=6 * H))


def weights_in_nodes():
    """The form of exporters that do not fold constants: weights are split, joined and reversed in the graph."""
    g = Graph()
    w, r = g.weights(3 * H, F), g.weights(3 * H, H)
    swap = [g.node("Slice", [w, g.ints(H * i), g.ints(H * (i + 1)), g.ints(0)]) for i in (1, 0, 2)]
    w = g.node("Unsqueeze", [g.node("Concat", swap, axis=0), g.ints(0)])
    r = g.node("Unsqueeze", [g.node("Identity", [r]), g.ints(0)])
    state = g.node("GRU", [g.time_first(), w, r], 2, hidden_size=H)[1]
    kernel = g.node("Transpose", [g.weights(C, H)])
    return g.model(g.node("Relu", [g.node("MatMul", [g.node("Squeeze", [state, g.ints(0)]), kernel])]))


def torch_program():
    """The form of two bidirectional layers that PyTorch's program exporter (dynamo=True) writes."""
    g = Graph()
    size = g.node("Shape", ["x"], start=0, end=1)
    zeros = g.node("Expand", [g.tensor(0.0), g.node("Concat", [g.ints(4), size, g.ints(H)], axis=0)])
    x, features = g.time_first(), F
    for begin in (0, 2):
        initial = g.node("Slice", [zeros, g.ints(begin), g.ints(begin + 2), g.ints(0)])
        y, _ = g.gru(x, features=features, directions=2, initial=initial, layout=0)
        y = g.node("Transpose", [y], perm=[0, 2, 1, 3])
        shape = g.node("Shape", [y], start=0)
        sizes = [g.node("Slice", [shape, g.ints(axis), g.ints(axis + 1)]) for axis in range(4)]
        both = g.node("Reshape", [g.node("Mul", sizes[2:]), g.ints(-1)], allowzero=0)
        x = g.node("Reshape", [y, g.node("Concat", [*sizes[:2], both], axis=0)], allowzero=0)
        features = 2 * H
    return g.model(g.dense(g.time_first(x), features=features), opset=20)


#: ONNX Runtime runs each graph, and so does the model that is read from it.
FOREIGN = {
    "keras_classifier": keras_classifier,
    "keras_masked_lengths": keras_masked_lengths,
    "keras_time_distributed": keras_time_distributed,
    "keras_go_backwards": keras_go_backwards,
    **{f"keras_bidirectional_{m}": lambda m=m: keras_bidirectional_split(m) for m in ("concat", "sum", "mul", "ave")},
    "keras_bidirectional_two_nodes": keras_bidirectional_two_nodes,
    "reverse_sequence": reverse_sequence,
    "sequence_lens": sequence_lens,
    "reverse_before_forward": reverse_before_forward,
    "turned_between": turned_between,
    "hard_sigmoid": lambda: activations("HardSigmoid", "Tanh", [1 / 6], [0.5]),
    "hard_sigmoid_default": lambda: activations("HardSigmoid", "Relu", None, None),
    "affine": lambda: activations("Sigmoid", "Affine", [1.0], [0.0]),
    "old_operators": old_operators,
    "embedding": embedding,
    "average": lambda: pooled("GlobalAveragePool"),
    "max": lambda: pooled("GlobalMaxPool"),
    "flattened": flattened,
    "torch_program": torch_program,
    "weights_in_nodes": weights_in_nodes,
}
