"""ONNX Runtime: one GRU node, inference only."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers.serve import Request, Task


def load(threads):
    return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}, build


def graph(request: Request) -> bytes:
    """Return the graph. ONNX' weights are Keras' transposed; linear_before_reset is reset_after."""
    data = request.data
    rows, steps, features = data["x"].shape
    units = data["recurrent_kernel"].shape[0]
    weights = {"W": data["kernel"].T, "R": data["recurrent_kernel"].T, "B": data["bias"].reshape(-1)}
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(value)[np.newaxis], name) for name, value in weights.items()
    ]
    node = helper.make_node("GRU", ["X", *weights], ["", "Y_h"], hidden_size=units, linear_before_reset=1)
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [steps, rows, features])]
    outputs = [helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, [1, rows, units])]
    model = helper.make_model(
        helper.make_graph([node], "gru", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", 14)],
        ir_version=10,
    )
    return model.SerializeToString()


def build(request: Request) -> Task:
    """Return the task. The input is already time-major, as the operator requires, so that no transpose is timed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph(request), options, providers=["CPUExecutionProvider"])
    feed = {"X": np.ascontiguousarray(request.data["x"].transpose(1, 0, 2))}

    def run(repeats: int) -> None:
        for _ in range(repeats):
            session.run(None, feed)

    return Task({"state": session.run(None, feed)[0][0]}, run)
