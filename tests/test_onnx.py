"""ONNX files in both directions, compared with ONNX Runtime and ONNX' reference; and hostile files."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import peers
import pytest
from fastgru import ModelFileError, Sequential, formats, functional, layers, load_model
from fastgru.formats import onnx as onnx_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import filled, random_model, random_samples

onnx = peers.require("onnx")
onnxruntime = peers.require("onnxruntime")

import onnx_graphs  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

pytestmark = pytest.mark.isa_independent

#: Relative to the largest output: float32 rounding over a few steps and layers, in two programs.
TOLERANCE = 1e-5
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OPTIONS.log_severity_level = 3  # hides warnings about inputs with a default, such as lengths

F, T = 3, 6


def session(path_or_bytes):
    source = path_or_bytes if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    return onnxruntime.InferenceSession(source, OPTIONS)


def assert_close(got, want):
    got, want = (x if isinstance(x, (tuple, list)) else (x,) for x in (got, want))
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * max(np.abs(other).max(initial=0), 1e-3))


def assert_same_bits(got, want):
    got, want = (x if isinstance(x, tuple) else (x,) for x in (got, want))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def feed(runtime, x, lengths):
    names = [entry.name for entry in runtime.get_overridable_initializers()]
    return {"x": x} | ({"lengths": lengths} if lengths is not None and "lengths" in names else {})


# --- Writing: all models --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*lengths and masks end here:UserWarning")
@pytest.mark.parametrize("seed", range(60))
def test_onnx_runtime_computes_what_the_model_does(seed, tmp_path):
    model = random_model(seed, features=F, steps=T, several_outputs=True)
    path = tmp_path / "model.onnx"
    model.save(path)
    loaded = load_model(path)
    assert [layer.options() for layer in loaded.layers] == [layer.options() for layer in model.layers]
    runtime = session(path)
    rng = np.random.default_rng(seed)
    sizes = ((4, T), (1, T)) if model.input_shape[1] else ((4, T), (1, 1), (3, 9))
    for rows, steps in sizes:  # one session for all sizes
        x, lengths = random_samples(rng, model, rows, steps)
        for ends in (None, lengths):
            want = model.predict(x, lengths=ends)
            assert_close(runtime.run(None, feed(runtime, x, ends)), want)
            assert_same_bits(loaded.predict(x, lengths=ends), want)


def test_the_reference_of_onnx_computes_what_the_model_does(tmp_path):
    """It supports neither sequence_lens nor other activations, and computes reverse nodes per the specification."""
    stack = [
        layers.Masking(input_shape=(None, F)),
        layers.Bidirectional(layers.GRU(5, return_sequences=True, reset_after=False), "ave"),
        layers.GRU(4, return_sequences=True, go_backwards=True),
        layers.Dense(3, "softmax"),
    ]
    model = filled(stack)
    path = tmp_path / "model.onnx"
    model.save(path)
    x = np.random.default_rng(0).normal(size=(3, T, F)).astype(np.float32)
    assert_close(ReferenceEvaluator(str(path)).run(None, {"x": x}), model.predict(x))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_states_of_a_stateful_layer_go_in_and_out(bidirectional, zeros, tmp_path):
    gru = layers.GRU(5, return_sequences=True, stateful=True, zero_output_for_mask=zeros)
    model = filled([layers.Masking(9.0, input_shape=(None, F)), layers.Bidirectional(gru) if bidirectional else gru])
    path = tmp_path / "model.onnx"
    model.save(path)
    runtime = session(path)
    assert load_model(path).layers[-1].options() == model.layers[-1].options()
    names = ["bidirectional/forward", "bidirectional/backward"] if bidirectional else ["gru"]
    rng = np.random.default_rng(0)
    states = {}
    for lengths in (np.array([6, 2, 0, 4]), np.array([0, 6, 3, 4]), np.array([1, 0, 6, 6])):
        x = rng.normal(size=(4, T, F)).astype(np.float32)
        output, *after = runtime.run(
            ["output", *(f"{n}/next_state" for n in names)], {"x": x, "lengths": lengths} | states
        )
        assert_close(output, model.predict(x, lengths=lengths))
        states = {f"{name}/state": state for name, state in zip(names, after, strict=True)}


def test_a_caller_without_padding_need_not_know_of_lengths(tmp_path):
    path = tmp_path / "model.onnx"
    filled([layers.GRU(5, input_shape=(None, F)), layers.Dense(2)]).save(path)
    runtime = session(path)
    assert [(given.name, given.shape) for given in runtime.get_inputs()] == [("x", ["N", "T", F])]
    assert [given.name for given in runtime.get_overridable_initializers()] == ["lengths"]
    assert [(given.name, given.shape) for given in runtime.get_outputs()] == [("output", ["N", 2])]


def test_layers_may_be_called_like_anything_in_the_graph(tmp_path):
    names = iter(["x", "lengths", "output", "ints", "int", "number"])
    stack = [
        layers.Masking(input_shape=(None, F), name=next(names)),
        layers.Bidirectional(layers.GRU(5, return_sequences=True), name=next(names)),
        layers.GRU(4, return_sequences=True, name=next(names)),
        layers.Dropout(0.5, name=next(names)),
        layers.GlobalMaxPooling1D(name=next(names)),
        layers.Dense(2, name=next(names)),
    ]
    model = filled(stack, name="")
    path = tmp_path / "model.onnx"
    model.save(path)
    x = np.random.default_rng(0).normal(size=(3, T, F)).astype(np.float32)
    lengths = np.array([2, 0, 5])
    assert_close(session(path).run(None, {"x": x, "lengths": lengths}), model.predict(x, lengths=lengths))


def test_padding_may_hold_anything(tmp_path):
    """NaN after the end, and tokens out of range."""
    path = tmp_path / "model.onnx"
    model = filled(
        [
            layers.Bidirectional(layers.GRU(5, return_sequences=True), input_shape=(None, F)),
            layers.GRU(5, return_sequences=True, go_backwards=True),
            layers.GlobalAveragePooling1D(),
        ]
    )
    model.save(path)
    x = np.random.default_rng(0).normal(size=(3, T, F)).astype(np.float32)
    lengths = np.array([2, 0, 5])
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    assert_close(session(path).run(None, {"x": x, "lengths": lengths}), model.predict(x, lengths=lengths))
    model = filled([layers.Embedding(4, F, input_shape=(None,)), layers.GRU(5)])
    model.save(path)
    tokens = np.array([[1, 2, -7], [3, 99, 99]])
    lengths = np.array([2, 1])
    assert_close(session(path).run(None, {"x": tokens, "lengths": lengths}), model.predict(tokens, lengths=lengths))


def test_a_trained_model_leaves_its_training_behind(tmp_path):
    model = filled([layers.GRU(5, input_shape=(T, F)), layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, T, F)).astype(np.float32), rng.integers(0, 2, 16)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.onnx")
    loaded = load_model(tmp_path / "model.onnx")
    assert loaded.optimizer is None
    assert_same_bits(loaded.predict(x), model.predict(x))
    assert_close(session(tmp_path / "model.onnx").run(None, {"x": x}), model.predict(x))


def test_float64_is_said_where_onnx_runtime_can_compute_it(tmp_path):
    model = filled([layers.Dense(3, "tanh", input_shape=(None, F)), layers.GlobalMaxPooling1D()], dtype="float64")
    path = tmp_path / "model.onnx"
    model.save(path)
    x = np.random.default_rng(0).normal(size=(3, T, F))
    np.testing.assert_allclose(session(path).run(None, {"x": x})[0], model.predict(x), rtol=1e-12)
    assert load_model(path).dtype == "float64"


def test_what_cannot_be_said_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"sequential: dtype='float64' is not supported by ONNX Runtime, whose GRU"):
        filled([layers.GRU(5, input_shape=(None, F))], dtype="float64").save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_package_onnx_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    model = filled([layers.GRU(5, input_shape=(None, F))])
    model.save(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: model.save(tmp_path / "other.onnx"), lambda: load_model(path)):
        with pytest.raises(ImportError, match=r"pip install onnx"):
            call()
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_an_ordinary_one(tmp_path):
    path = tmp_path / "model.onnx"
    filled([layers.GRU(5, input_shape=(None, F))]).save(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 14)]
    assert (model.producer_name, model.ir_version) == ("fastgru", 7)
    assert {node.domain for node in model.graph.node} == {""}
    before = path.read_bytes()
    load_model(path).save(path)
    assert path.read_bytes() == before  # the model determines the bytes of its file


# --- Reading: own files with missing or wrong metadata --------------------------------------------------------------


def rewritten(path, change):
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def without_metadata(path):
    rewritten(path, lambda model: model.ClearField("metadata_props"))


OWN = {
    "features": lambda: [
        layers.Dense(4, "tanh", input_shape=(None, F)),
        layers.Bidirectional(layers.GRU(5, return_sequences=True, recurrent_activation="hard_sigmoid"), "ave"),
        layers.Dropout(0.25),
        layers.GRU(6, return_sequences=True, go_backwards=True, zero_output_for_mask=True, reset_after=False),
        layers.GRU(6, return_sequences=True),
        layers.Bidirectional(layers.GRU(3, use_bias=False, go_backwards=True)),
        layers.Dense(2, "softmax"),
    ],
    "tokens": lambda: [layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(5, return_sequences=True)],
}


@pytest.mark.parametrize("name", OWN)
def test_own_graphs_are_understood_without_metadata(name, tmp_path):
    """The form that tools leave that rewrite graphs."""
    path = tmp_path / "model.onnx"
    model = filled(OWN[name]())
    model.save(path)
    without_metadata(path)
    loaded = load_model(path)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (4, T)) if name == "tokens" else rng.normal(size=(4, T, F)).astype(np.float32)
    for lengths in (None, np.array([6, 0, 3, 1])):
        assert_same_bits(loaded.predict(x, lengths=lengths), model.predict(x, lengths=lengths))


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("merge", ["alone", "concat", "sum", "mul", "ave", None])
def test_last_states_are_understood_without_metadata(sequences, backwards, merge, tmp_path):
    path = tmp_path / "model.onnx"
    gru = layers.GRU(4, return_sequences=sequences, return_state=True, go_backwards=backwards)
    last = gru if merge == "alone" else layers.Bidirectional(gru, merge)
    model = filled([layers.GRU(5, return_sequences=True, zero_output_for_mask=True, input_shape=(None, F)), last])
    model.save(path)
    without_metadata(path)
    x = np.random.default_rng(0).normal(size=(4, T, F)).astype(np.float32)
    for lengths in (None, np.array([6, 0, 3, 1])):
        want = model.predict(x, lengths=lengths)
        assert_same_bits(load_model(path).predict(x, lengths=lengths), want)
        assert_close(run_by_signature(path, x, lengths), want)


@pytest.mark.parametrize("order", [[0, 2, 1], [1, 0, 2], [0, 1], [0, 1, 1], [0, 1, 2, 1], [1, 2, 0], [0, 0]])
def test_states_in_another_order_or_number_are_refused(order, tmp_path):
    path = tmp_path / "model.onnx"
    filled([layers.Bidirectional(layers.GRU(4, return_state=True, return_sequences=True), input_shape=(None, F))]).save(
        path
    )

    def reorder(proto):
        outputs = [onnx.ValueInfoProto.FromString(proto.graph.output[place].SerializeToString()) for place in order]
        del proto.graph.output[:]
        proto.graph.output.extend(outputs)

    without_metadata(path)
    rewritten(path, reorder)
    with pytest.raises(ModelFileError, match=r"model\.onnx: output 'output_\d', .*"):
        load_model(path)


def test_a_state_of_another_layer_than_the_last_is_refused(tmp_path):
    graph = onnx_graphs.Graph()
    y, state = graph.gru(graph.time_first())
    with pytest.raises(ModelFileError, match="several outputs are supported only if the last layer returns them"):
        load(graph.model(graph.dense(graph.steps(y)), graph.node("Squeeze", [state, graph.ints(0)])), tmp_path)
    with pytest.raises(ModelFileError, match="several outputs are supported only if the last layer returns them"):
        load(graph.model("x", graph.node("Squeeze", [state, graph.ints(0)])), tmp_path)


@pytest.mark.parametrize(
    ("layer", "operator"),
    [(layers.Masking(), "Equal"), (layers.GlobalAveragePooling1D(), "Where"), (layers.GlobalMaxPooling1D(), "Where")],
    ids=["masking", "average", "max"],
)
def test_other_uses_of_masks_without_metadata_are_refused_by_node(layer, operator, tmp_path):
    path = tmp_path / "model.onnx"
    stack = (
        [layer, layers.GRU(5)] if isinstance(layer, layers.Masking) else [layers.GRU(5, return_sequences=True), layer]
    )
    model = Sequential(stack)
    model.build((None, None, F))
    model.save(path)
    without_metadata(path)
    with pytest.raises(ModelFileError, match=rf"model\.onnx: node '.*' \({operator}\): "):
        load_model(path)


def test_repeated_outputs_in_both_directions_are_refused(tmp_path):
    """Outputs of a Bidirectional are zeros after the end."""
    graph = onnx_graphs.Graph()
    graph.inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT64, ["n"]))
    lengths = graph.node("Cast", ["lengths"], to=TensorProto.INT32)
    steps = graph.node("Squeeze", [graph.node("Slice", [graph.node("Shape", ["x"]), graph.ints(1), graph.ints(2)])])
    numbers = graph.node("Range", [graph.tensor(0, np.int64), steps, graph.tensor(1, np.int64)])
    valid = graph.node("Less", [numbers, graph.node("Unsqueeze", ["lengths", graph.ints(1)])])
    halves = []
    for direction in ("forward", "reverse"):
        y, y_h = graph.gru(graph.time_first(), direction=direction, lengths=lengths)
        last = graph.node("Transpose", [y_h], perm=[1, 0, 2])
        mask = graph.node("Unsqueeze", [valid, graph.ints(2)])
        halves.append(graph.node("Where", [mask, graph.steps(y), last]))
    with pytest.raises(ModelFileError, match="zeros after the end of a sequence"):
        load(graph.model(graph.node("Concat", halves, axis=2)), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["layers"][0]["config"].update(go_backwards=True),
        lambda said: said["layers"][0]["config"].update(reset_after=False),
        lambda said: said["layers"][0]["config"].update(activation="relu"),
        lambda said: said["layers"][0]["config"].update(units=10**9),
        lambda said: said["layers"][0]["config"].update(units=10**400),
        lambda said: said["layers"][0].update(class_name="os.system"),
        lambda said: said["layers"].reverse(),
        lambda said: said.update(layers=7),
        lambda said: said.update(dtype="float64"),
        lambda said: said.update(dtype=[]),
        lambda said: said.update(input_shape=None),
        lambda said: said.update(input_shape=[[]]),
    ],
    ids=range(12),
)
def test_metadata_that_contradicts_the_graph_is_not_believed(change, tmp_path):
    path = tmp_path / "model.onnx"
    model = filled([layers.GRU(5, input_shape=(None, F)), layers.Dense(2)])
    model.save(path)

    def lie(proto):
        said = json.loads(proto.metadata_props[0].value)
        change(said)
        proto.metadata_props[0].value = json.dumps(said)

    rewritten(path, lie)
    x = np.random.default_rng(0).normal(size=(4, T, F)).astype(np.float32)
    assert_same_bits(load_model(path).predict(x), model.predict(x))


def test_changed_weights_are_read_though_the_metadata_stays(tmp_path):
    path = tmp_path / "model.onnx"
    model = filled([layers.GRU(5, input_shape=(None, F)), layers.Dense(2)])
    model.save(path)
    new = np.ones((5, 2), np.float32)

    def change(proto):
        (kernel,) = (tensor for tensor in proto.graph.initializer if tensor.name == "dense/kernel")
        kernel.CopyFrom(numpy_helper.from_array(new, "dense/kernel"))

    rewritten(path, change)
    np.testing.assert_array_equal(load_model(path).layers[-1].parameters["kernel"], new)


# --- Reading: files of other exporters ------------------------------------------------------------------------------


def load(model, folder):
    path = Path(folder) / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return load_model(path)


@pytest.mark.parametrize("name", onnx_graphs.FOREIGN)
def test_a_foreign_graph_means_what_onnx_runtime_computes(name, tmp_path):
    graph = onnx_graphs.FOREIGN[name]()
    model = load(graph, tmp_path)
    runtime = session(graph.SerializeToString())
    rng = np.random.default_rng(0)
    for rows, steps in ((4, T), (1, T)) if name == "flattened" else ((4, T), (2, 1)):
        x = rng.integers(0, 7, (rows, steps)) if name == "embedding" else rng.normal(size=(rows, steps, F)).astype("f4")
        given = {"x": x}
        lengths = None
        for entry in runtime.get_inputs()[1:]:
            lengths = rng.integers(0, steps + 1, rows)
            given[entry.name] = lengths.astype(np.int32 if "int32" in entry.type else np.int64)
        assert_close(runtime.run(None, given), model.predict(x, lengths=lengths))


def test_the_reset_form_is_the_one_that_the_node_says(tmp_path):
    """Some exporters omitted linear_before_reset; it is read with ONNX' default."""
    graph = onnx_graphs.Graph()
    _, state = graph.gru(graph.time_first(), linear_before_reset=0)
    model = load(graph.model(graph.node("Squeeze", [state, graph.ints(0)])), tmp_path)
    assert model.layers[0].reset_after is False
    assert model.layers[0].parameters["bias"].shape == (15,)


class TestPyTorch:
    """Graphs that torch.onnx.export writes."""

    @staticmethod
    def module(torch, depth, bidirectional, end, batch_first=True):
        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.gru = torch.nn.GRU(F, 5, depth, batch_first=batch_first, bidirectional=bidirectional)
                self.head = torch.nn.Linear(10 if bidirectional else 5, 4)

            def forward(self, x):
                outputs, states = self.gru(x)
                match end:
                    case "last":
                        outputs = outputs[:, -1]
                    case "last, rectified":
                        outputs = torch.relu(outputs[:, -1])
                    case "state":
                        outputs = states[-1]
                    case "states":
                        outputs = torch.cat([states[-2], states[-1]], 1)
                    case "mean":
                        outputs = outputs.mean(1)
                return torch.softmax(self.head(outputs), -1)

        torch.manual_seed(0)
        return Module().eval()

    @staticmethod
    def export(torch, module, path, x, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of exporters old and new, about themselves
            torch.onnx.export(module, (x,), str(path), input_names=["x"], **options)

    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.parametrize(
        ("depth", "bidirectional", "end"),
        [
            *((1, False, "last"), (2, True, "all"), (3, False, "state"), (2, True, "states"), (1, False, "mean")),
            *((2, True, "last"), (1, True, "last, rectified"), (2, False, "last, rectified")),
        ],
    )
    def test_a_scripted_module_is_read(self, torch, tmp_path, dynamic, depth, bidirectional, end):
        module = self.module(torch, depth, bidirectional, end)
        x = torch.randn(4, T, F)
        axes = {"dynamic_axes": {"x": {0: "n", 1: "t"}}} if dynamic else {}
        self.export(torch, module, tmp_path / "model.onnx", x, dynamo=False, **axes)
        model = load_model(tmp_path / "model.onnx")
        assert model.input_shape[1] == (None if dynamic else T)
        assert_close(model.predict(x.numpy()), module(x).detach().numpy())

    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.parametrize("how", ["repeat", "expand", "state"])
    def test_an_encoder_and_decoder_is_read(self, torch, tmp_path, how, dynamic):
        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = torch.nn.GRU(F, 5, batch_first=True)
                self.decoder = torch.nn.GRU(5, 4, batch_first=True)
                self.head = torch.nn.Linear(4, 2)

            def forward(self, x):
                outputs, states = self.encoder(x)
                match how:
                    case "repeat":
                        vectors = outputs[:, -1].unsqueeze(1).repeat(1, 3, 1)
                    case "expand":
                        vectors = outputs[:, -1:].expand(x.shape[0], 3, 5)
                    case "state":
                        vectors = states.permute(1, 0, 2).repeat(1, 3, 1)
                return self.head(self.decoder(vectors)[0])

        torch.manual_seed(0)
        module = Module().eval()
        x = torch.randn(4, T, F)
        axes = {"dynamic_axes": {"x": {0: "n", 1: "t"}}} if dynamic else {}
        self.export(torch, module, tmp_path / "model.onnx", x, dynamo=False, **axes)
        model = load_model(tmp_path / "model.onnx")
        assert [type(layer).__name__ for layer in model.layers] == ["GRU", "RepeatVector", "GRU", "Dense"]
        for count, steps in ((4, T), (2, 1), (3, 2)) if dynamic else ((4, T),):
            x = torch.randn(count, steps, F)
            assert_close(model.predict(x.numpy()), module(x).detach().numpy())

    def test_time_first_becomes_batch_first(self, torch, tmp_path):
        module = self.module(torch, 2, True, "all", batch_first=False)
        x = torch.randn(T, 4, F)
        self.export(torch, module, tmp_path / "model.onnx", x, dynamo=False)
        model = load_model(tmp_path / "model.onnx")
        got = model.predict(np.ascontiguousarray(x.numpy().transpose(1, 0, 2)))
        assert_close(got.transpose(1, 0, 2), module(x).detach().numpy())

    def test_a_gru_alone_returns_its_state(self, torch, tmp_path):
        module = torch.nn.GRU(F, 5, batch_first=True).eval()
        x = torch.randn(4, T, F)
        self.export(torch, module, tmp_path / "model.onnx", x, dynamo=False)
        outputs, state = module(x)
        want = outputs.detach().numpy(), state[0].detach().numpy()
        assert_close(load_model(tmp_path / "model.onnx").predict(x.numpy()), want)

    @pytest.mark.peers("onnxscript")
    def test_weights_in_another_file_are_refused_with_what_helps(self, torch, tmp_path):
        """The exporter's default form; both remedies in the message work."""
        path = tmp_path / "model.onnx"
        module = torch.nn.GRU(F, 5, batch_first=True).eval()
        x = torch.randn(4, T, F)
        want = [y.detach().numpy() for y in module(x)]
        self.export(torch, module, path, x)
        assert (tmp_path / "model.onnx.data").exists()
        with pytest.raises(ModelFileError, match=r"tensor '.*': its numbers are in another file") as caught:
            load_model(path)
        assert "external_data=False" in str(caught.value)
        assert "onnx.save_model(onnx.load(path), path)" in str(caught.value)
        onnx.save_model(onnx.load(path), path)
        (tmp_path / "model.onnx.data").unlink()
        assert_close(load_model(path).predict(x.numpy()), [want[0], want[1][0]])
        self.export(torch, module, path, x, external_data=False)
        assert_close(load_model(path).predict(x.numpy()), [want[0], want[1][0]])

    def test_the_last_step_of_both_directions_is_no_last_state(self, torch, tmp_path):
        """The backward direction has processed one step there."""
        module = self.module(torch, 1, True, "last, rectified")
        self.export(torch, module, tmp_path / "model.onnx", torch.randn(4, T, F), dynamo=False)
        kinds = [type(layer).__name__ for layer in load_model(tmp_path / "model.onnx").layers]
        assert kinds == ["Bidirectional", "LastStep", "Activation", "Dense"]


# --- Reading: the node tests of ONNX --------------------------------------------------------------------------------


def node_cases():
    """The package onnx generates them; importing an operator's module registers its tests in a list."""
    importlib.import_module("onnx.backend.test.case.node.gru")
    cases = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    return {case.name: case for case in cases if case.name.startswith("test_gru_")}


CASES = node_cases()
#: Their outputs are both directions in one array, or those of a backward layer in input order, which no model has.
DIRECT_ONLY = {"test_gru_reverse", "test_gru_bidirectional"}


def test_the_cases_are_those_known():
    expected = {"defaults", "with_initial_bias", "seq_length", "batchwise", "reverse", "bidirectional"}
    assert {f"test_gru_{name}" for name in expected} <= CASES.keys()


def case_parts(case):
    (node,) = case.model.graph.node
    inputs, outputs = case.data_sets[0]
    named = dict(zip([name for name in node.input if name], inputs, strict=True))
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return node, named, outputs, attributes


@pytest.mark.parametrize("name", CASES)
def test_node_case_by_gru_forward(name):
    """Each direction of a node becomes one call: initial state, lengths, both orders of outputs, either layout."""
    node, named, outputs, attributes = case_parts(CASES[name])
    x = named["X"] if attributes.get("layout") else named["X"].transpose(1, 0, 2)
    direction = attributes.get("direction", b"forward").decode()
    runs = []
    for place, backwards in enumerate({"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[direction]):
        after = bool(attributes.get("linear_before_reset", 0))
        bias = None
        if "B" in named:
            bias = named["B"][place].reshape(2, -1)
            bias = bias if after else bias.sum(axis=0)
        initial = named.get("initial_h")
        runs.append(
            functional.gru_forward(
                np.ascontiguousarray(x),
                np.ascontiguousarray(named["W"][place].T),
                np.ascontiguousarray(named["R"][place].T),
                bias,
                None if initial is None else initial[place],
                reset_after=after,
                go_backwards=bool(backwards),
                lengths=named.get("sequence_lens"),
                padded_outputs="zeros",
                output_order="input" if backwards else "processing",
            )
        )
    y = np.stack([outputs for outputs, _ in runs], axis=2)  # (N, T, directions, H)
    y_h = np.stack([state for _, state in runs], axis=1)
    got = (
        {"Y": y, "Y_h": y_h} if attributes.get("layout") else {"Y": y.transpose(1, 2, 0, 3), "Y_h": y_h.swapaxes(0, 1)}
    )
    for place, want in zip([place for place, name in enumerate(node.output) if name], outputs, strict=True):
        assert_close(got[("Y", "Y_h")[place]], want)


@pytest.mark.parametrize("name", sorted(CASES.keys() - DIRECT_ONLY))
def test_node_case_by_reading_the_graph(name, tmp_path):
    _, named, outputs, attributes = case_parts(CASES[name])
    proto = with_weights_inside(CASES[name])
    x = named["X"] if attributes.get("layout") else named["X"].transpose(1, 0, 2)
    got = load(proto, tmp_path).predict(np.ascontiguousarray(x))
    got = got if isinstance(got, tuple) else (got,)
    assert len(got) == len(outputs)
    for one, want in zip(got, outputs, strict=True):
        steps_or_state = want.squeeze({3: 0 if not attributes.get("layout") else 1, 4: 2}[want.ndim])
        assert_close(one, steps_or_state)


@pytest.mark.parametrize("name", sorted(DIRECT_ONLY))
def test_node_case_that_is_no_model_is_refused(name, tmp_path):
    with pytest.raises(ModelFileError, match=r"output 'Y', 'Y_h'"):
        load(with_weights_inside(CASES[name]), tmp_path)


def with_weights_inside(case):
    """Return the case's graph with its weights as initializers instead of inputs."""
    _, named, _, _ = case_parts(case)
    proto = onnx.ModelProto.FromString(case.model.SerializeToString())
    for name, value in named.items():
        if name != "X":
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
    inputs = [given for given in proto.graph.input if given.name == "X"]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return proto


# --- Reading: unsupported graphs ------------------------------------------------------------------------------------


def gru_graph(**attributes):
    graph = onnx_graphs.Graph()
    y, _ = graph.gru(graph.time_first(), **attributes)
    return graph, y


def gru_model(**attributes):
    graph, y = gru_graph(**attributes)
    return graph.model(graph.steps(y))


def tensor_changed(**changes):
    """Return a graph with changed fields of W (the tensor "tensor_0")."""
    model = gru_model()
    tensor = model.graph.initializer[0]
    for name, value in changes.items():
        tensor.ClearField(name)
        if name == "dims":
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return model


def ending_in(operator, *more, **attributes):
    """Return a GRU's outputs (N, T, H), and a node on them."""
    graph, y = gru_graph()
    inputs = [graph.tensor(value, np.asarray(value).dtype) for value in more]
    return graph.model(graph.node(operator, [graph.steps(y), *inputs], **attributes))


def test_an_activation_of_a_gru_is_a_layer(tmp_path):
    model = load(ending_in("Relu"), tmp_path)
    assert [type(layer).__name__ for layer in model.layers] == ["GRU", "Activation"]
    x = np.random.default_rng(0).normal(size=(3, T, F)).astype(np.float32)
    assert_close(model.predict(x), session(tmp_path / "model.onnx").run(None, {"x": x})[0])


def bias_on_another_axis():
    """A bias with as many elements as there are steps, added along the time axis."""
    graph = onnx_graphs.Graph(("n", 4, F))
    y, _ = graph.gru(graph.time_first())
    product = graph.node("MatMul", [graph.steps(y), graph.weights(5, 4)])
    turned = graph.node("Transpose", [product], perm=[0, 2, 1])
    return graph.model(graph.node("Transpose", [graph.node("Add", [turned, graph.weights(4)])], perm=[0, 2, 1]))


def with_state_input():
    graph = onnx_graphs.Graph()
    graph.inputs.append(helper.make_tensor_value_info("h0", TensorProto.FLOAT, [1, "n", 5]))
    y, _ = graph.gru(graph.time_first(), initial="h0")
    return graph.model(graph.steps(y))


def with_state(value):
    graph = onnx_graphs.Graph()
    y, _ = graph.gru(graph.time_first(), initial=graph.tensor(np.full((1, 1, 5), value)))
    return graph.model(graph.steps(y))


def lengths_of_one_layer_only():
    graph = onnx_graphs.Graph()
    graph.inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["n"]))
    y, _ = graph.gru(graph.time_first(), lengths="lengths")
    y, _ = graph.gru(graph.node("Squeeze", [y, graph.ints(1)]), features=5)
    return graph.model(graph.steps(y))


def pooled_padding():
    graph = onnx_graphs.Graph()
    graph.inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["n"]))
    y, _ = graph.gru(graph.time_first(), lengths="lengths")
    return graph.model(graph.node("ReduceMean", [graph.steps(y)], axes=[1], keepdims=0))


def input_sizes(model):
    return model.graph.input[0].type.tensor_type.shape.dim


def changed(model, change):
    change(model)
    return model


def doubling(count):
    """Weights concatenated with themselves repeatedly."""
    graph = onnx_graphs.Graph()
    name = graph.weights(64, 64)
    for _ in range(count):
        name = graph.node("Concat", [name, name], axis=0)
    return graph.model(graph.node("MatMul", ["x", name]))


def repeated_rows():
    graph = onnx_graphs.Graph()
    rows = graph.node("Gather", [graph.weights(4, 2000), graph.tensor(np.zeros(20_000), np.int64)])
    return graph.model(graph.node("MatMul", ["x", rows]))


def squared_sizes(count):
    """A size multiplied by itself repeatedly: names and numbers double with each node."""
    graph = onnx_graphs.Graph()
    sizes = graph.node("Shape", ["x"])
    for _ in range(count):
        sizes = graph.node("Mul", [sizes, sizes])
    return graph.model(graph.node("Reshape", ["x", sizes]))


def shared_weights(count):
    """A large matrix in a small file, which as many layers use as there are nodes."""
    graph = onnx_graphs.Graph(("n", "t", 300))
    kernel, x = graph.weights(300, 300), "x"
    for _ in range(count):
        x = graph.node("MatMul", [x, kernel])
    return graph.model(x)


def nested(depth):
    """Nested graphs."""
    model = gru_model()
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(depth):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    model.graph.node.insert(0, helper.make_node("If", ["x"], ["unused"], then_branch=inner))
    return model


UNSUPPORTED = {
    "clip": (lambda: gru_model(clip=1.0), r"\(GRU\): its attribute clip is not supported by fastgru"),
    "unknown attribute": (lambda: gru_model(input_forget=1), "its attribute input_forget is not supported"),
    "activation": (lambda: gru_model(activations=["Sigmoid", "Softsign"]), "activation Softsign"),
    "alpha": (
        lambda: gru_model(activations=["HardSigmoid", "Tanh"], activation_alpha=[0.3], activation_beta=[0.5]),
        r"activation HardSigmoid with alpha 0\.3",
    ),
    "alpha NaN": (
        lambda: gru_model(activations=["HardSigmoid", "Tanh"], activation_alpha=[np.nan], activation_beta=[0.5]),
        "activation HardSigmoid with alpha nan",
    ),
    "more alphas": (lambda: gru_model(activation_alpha=[1.0]), "for each activation that has one, got more"),
    "affine without numbers": (lambda: gru_model(activations=["Sigmoid", "Affine"]), "activation Affine"),
    "three activations": (lambda: gru_model(activations=["Sigmoid"] * 3), "expected 2 activations, got 3"),
    "direction": (lambda: gru_model(direction="sideways"), "expected direction forward, reverse or bidirectional"),
    "directions": (lambda: gru_model(direction="bidirectional"), "expected weights for 2 directions"),
    "reverse": (lambda: gru_model(direction="reverse"), "outputs of a GRU that reads backwards"),
    "hidden_size": (lambda: gru_model(hidden_size=7), "expected hidden_size=5 because of the shape of R, got 7"),
    "features": (lambda: gru_model(features=4), "expected W for 3 features"),
    "state input": (with_state_input, r"input 'h0': expected one input besides the lengths"),
    "state": (lambda: with_state(0.5), r"\(GRU\): expected initial_h to be zeros"),
    "some lengths": (lengths_of_one_layer_only, "expected all layers or none to receive lengths"),
    "pooled padding": (pooled_padding, "the pooled sequences contain padding"),
    "unknown operator": (lambda: ending_in("Erf"), r"node 'Erf_4' \(Erf\): the operator is not supported by fastgru"),
    "domain": (lambda: ending_in("Relu", domain="com.microsoft"), "the operator is not supported by fastgru"),
    "softmax over time": (
        lambda: changed(
            onnx_graphs.FOREIGN["keras_classifier"](), lambda m: setattr(m.graph.node[-1].attribute[0], "i", 0)
        ),
        "expected the softmax over the last axis",
    ),
    "perm": (lambda: ending_in("Transpose", perm=[0, 0, 1]), "expected perm to order 3 axes"),
    "axis": (lambda: ending_in("Gather", np.array(0), axis=7), r"\(Gather\)"),
    "axis of a new one": (lambda: ending_in("Unsqueeze", np.array([9])), "expected an axis from -4 to 3, got 9"),
    "bool": (lambda: ending_in("Cast", to=9), r"\(Cast\): expected float32 because .*, got data type 9"),
    "first step": (lambda: ending_in("Gather", np.array(0), axis=1), "step 0 is not the last one"),
    "middle step": (lambda: ending_in("Gather", np.array(3), axis=1), "got index 3 of the axis T"),
    "slice step 0": (lambda: ending_in("Slice", np.array([0]), np.array([9]), np.array([1]), np.array([0])), "Slice"),
    "reshape": (lambda: ending_in("Reshape", np.array([7, 7, 7])), r"shape \[7, 7, 7\] from axes"),
    "many axes": (lambda: ending_in("Unsqueeze", np.arange(3, 3000)), "and at most 8 in all"),
    "training": (lambda: ending_in("Dropout", np.array(0.5, "f4"), np.array(True)), "expected inference"),
    "output layout": (lambda: ending_in("Transpose", perm=[2, 0, 1]), r"expected axes \(N, T, F\) or \(N, F\)"),
    "no output": (lambda: changed(gru_model(), lambda m: m.graph.ClearField("output")), "it has no outputs"),
    "undefined output": (
        lambda: changed(gru_model(), lambda m: setattr(m.graph.output[0], "name", "nothing")),
        "no input that its outputs depend on",
    ),
    "undefined weight": (
        lambda: changed(gru_model(), lambda m: m.graph.initializer.pop(0)),
        "its input 'tensor_0' is not defined before it",
    ),
    "output twice": (
        lambda: changed(gru_model(), lambda m: m.graph.node.append(m.graph.node[-1])),
        "is already defined",
    ),
    "two tensors of a name": (
        lambda: changed(gru_model(), lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "two tensors with the name 'tensor_0'",
    ),
    "no features": (
        lambda: changed(gru_model(), lambda m: input_sizes(m)[2].Clear()),
        "expected a known number of features",
    ),
    "no shape": (
        lambda: changed(gru_model(), lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        "expected an array with a known number of axes",
    ),
    "negative size": (
        lambda: changed(
            gru_model(), lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", -3)
        ),
        "expected sizes of at least 1",
    ),
    "strings": (
        lambda: changed(gru_model(), lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8)),
        "got data type 8",
    ),
    "opset 6": (
        lambda: changed(gru_model(), lambda m: setattr(m.opset_import[0], "version", 6)),
        r"version 7 or later, got \[6\]",
    ),
    "own operators": (
        lambda: changed(gru_model(), lambda m: m.functions.add(name="GRU", domain="")),
        "it redefines operators of ONNX",
    ),
    "no opset": (lambda: changed(gru_model(), lambda m: m.ClearField("opset_import")), r"or later, got \[\]"),
    "external data": (
        lambda: tensor_changed(data_location=TensorProto.EXTERNAL),
        r"tensor 'tensor_0': its numbers are in another file.*external_data=False",
    ),
    "negative dims": (lambda: tensor_changed(dims=[1, -15, 3]), r"got shape \(1, -15, 3\)"),
    "two negative dims": (lambda: tensor_changed(dims=[1, -15, -3]), r"got shape \(1, -15, -3\)"),
    "huge dims": (lambda: tensor_changed(dims=[2**62, 2**62, 2**62]), "because its shape is"),
    "wrapping dims": (lambda: tensor_changed(dims=[2**32, 2**32]), "because its shape is"),
    "no numbers": (lambda: tensor_changed(dims=[0, 2**62]), "expected 0 numbers"),
    "many dims": (lambda: tensor_changed(dims=[1] * 3000), "expected at most 8 axes"),
    "short": (lambda: tensor_changed(raw_data=b"1234"), "expected 45 numbers because its shape is .* got 1"),
    "odd": (lambda: tensor_changed(raw_data=b"12345"), r"got 1\.25"),
    "empty": (lambda: tensor_changed(raw_data=b""), "got 0"),
    "string tensor": (lambda: tensor_changed(data_type=8), "got data type 8"),
    "half": (lambda: tensor_changed(data_type=10), "expected float, double, int32, int64 or bool, got data type 10"),
    "whole numbers": (lambda: tensor_changed(data_type=6), "floating-point numbers in the file, got numbers of int32"),
    "doubled": (lambda: doubling(30), "needs much more memory"),
    "repeated": (repeated_rows, "needs much more memory"),
    "squared": (lambda: squared_sizes(60), r"\(Mul\): (a product of too many sizes|a size of .*) is not supported"),
    "split": (lambda: ending_in("Split", num_outputs=2**62), "expected 4611686018427387904 outputs"),
    "attribute type": (lambda: ending_in("Softmax", axis="last"), "its attribute axis has a wrong type"),
    "shared": (lambda: shared_weights(40), "needs much more memory"),
    "bias of steps": (bias_on_another_axis, "other than the product with a matrix"),
    "constant": (lambda: ending_in("Add", np.ones(5, "f4")), "other than the product with a matrix"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_graphs_raise_and_name_the_node(name, tmp_path):
    make, message = UNSUPPORTED[name]
    with pytest.raises(ModelFileError, match=message) as caught:
        load(make(), tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "model.onnx"))


def test_states_of_both_directions_in_one_array_are_refused(tmp_path):
    """The form that PyTorch's bidirectional GRU alone returns."""
    graph = onnx_graphs.Graph()
    y, state = graph.gru(graph.time_first(), directions=2)
    steps = graph.node("Transpose", [y], perm=[2, 0, 1, 3])
    outputs = graph.node("Reshape", [steps, graph.ints(0, 0, 2 * onnx_graphs.H)])
    with pytest.raises(ModelFileError, match=r"expected axes \(N, T, F\) or \(N, F\), got \(D, N, F\)"):
        load(graph.model(outputs, state), tmp_path)


def at_the_input(batch_first=False, **attributes):
    """A GRU as the first node, with either order of axes."""
    graph = onnx_graphs.Graph(("n", T, F) if batch_first else (T, "n", F))
    attributes |= {name: graph.tensor(*attributes[name]) for name in ("initial", "lengths") if name in attributes}
    y, _ = graph.gru("x", layout=int(batch_first), **attributes)
    return graph.model(graph.node("Squeeze", [y, graph.ints(2 if batch_first else 1)]))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"clip": 1.0}, "its attribute clip is not supported by fastgru"),
        ({"activations": ["Sigmoid", "Softsign"]}, "activation Softsign"),
        ({"lengths": ([1, 2, 3, 4], np.int32)}, "expected sequence_lens from the caller"),
        ({"initial": (np.full((1, 4, 5), 0.5), np.float32)}, "expected initial_h to be zeros"),
        ({"features": 4}, "expected W for 3 features"),
    ],
    ids=["clip", "activation", "lengths", "initial", "features"],
)
def test_what_is_wrong_with_the_first_node_is_said_and_not_its_axes(batch_first, attributes, message, tmp_path):
    with pytest.raises(ModelFileError, match=rf"node 'GRU_0' \(GRU\): {message}"):
        load(at_the_input(batch_first, **attributes), tmp_path)


def test_axes_that_fit_in_no_order_are_said(tmp_path):
    graph = onnx_graphs.Graph()
    _, state = graph.gru(graph.node("Transpose", ["x"], perm=[2, 0, 1]))
    with pytest.raises(ModelFileError, match=r"expected its input to be \(T, N, F\), got \(F, N, T\)"):
        load(graph.model(state), tmp_path)


def test_what_is_wrong_with_a_reversal_of_time_first_is_said(tmp_path):
    graph = onnx_graphs.Graph((T, "n", F))
    turned = graph.node("ReverseSequence", ["x", graph.ints(1, 2, 3, 4)], batch_axis=1, time_axis=0)
    y, _ = graph.gru(turned)
    with pytest.raises(ModelFileError, match=r"\(ReverseSequence\): expected sequence_lens from the caller"):
        load(graph.model(y), tmp_path)


def test_a_sparse_tensor_is_refused(tmp_path):
    model = gru_model()
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [10**15]))
    with pytest.raises(ModelFileError, match="it has sparse tensors"):
        load(model, tmp_path)


def test_what_no_output_needs_is_not_looked_at(tmp_path):
    assert len(load(nested(20), tmp_path).layers) == 1


def test_graphs_nested_too_deep_are_a_damaged_file(tmp_path):
    """protobuf limits the depth; a nested graph takes three levels of it."""
    field = b""
    for _ in range(200):
        field = b"\x3a" + varint(len(field)) + field  # ModelProto.graph, and so on within itself
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08" + field)
    with pytest.raises(ModelFileError):
        load_model(tmp_path / "model.onnx")


def varint(value):
    data = b""
    while value >= 128:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def test_a_long_graph_takes_no_longer_than_its_length(tmp_path):
    graph, y = gru_graph()
    name = graph.steps(y)
    for _ in range(5000):
        name = graph.node("Identity", [name])
    assert len(load(graph.model(name), tmp_path).layers) == 1


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x08\x08", b"\x08\x08" + b"\xff" * 50, b"\x08\x08hello" * 20])
def test_no_model_at_all(data, tmp_path):
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        load_model(tmp_path / "model.onnx", format="onnx")


def test_a_file_is_known_in_whatever_order_its_fields_stand(tmp_path):
    """Protobuf guarantees no first byte; the file name decides if the contents are inconclusive."""
    path = tmp_path / "model.ONNX"
    filled([layers.GRU(5, input_shape=(None, F))]).save(path)
    proto = onnx.load(path)
    graph = onnx.ModelProto(graph=proto.graph).SerializeToString()
    proto.ClearField("graph")
    path.write_bytes(graph + proto.SerializeToString())
    assert formats.kind_of_file(path) == "onnx"
    assert [layer.name for layer in load_model(path).layers] == ["gru"]
    path.rename(tmp_path / "model")
    with pytest.raises(ModelFileError, match="expected a model file of one of the formats"):
        load_model(tmp_path / "model")


def test_a_file_of_another_kind_that_is_called_onnx_is_what_its_contents_show(tmp_path):
    path = tmp_path / "model.onnx"
    filled([layers.GRU(5, input_shape=(None, F))]).save(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").rename(path)
    assert formats.kind_of_file(path) == "fastgru"


# --- Running a file in the conversion -------------------------------------------------------------------------------


def run_by_signature(path, x, lengths=None):
    said = onnx_format.signature(path)
    runtime = session(path)
    return said.returned(runtime.run(list(said.outputs), said.feeds(x, lengths)))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_samples_of_the_model_reach_a_runtime_as_its_graph_takes_them(batch_first, states, tmp_path):
    """Names, order of axes and fixed sizes are those of the graph; results are those of the model."""
    path = tmp_path / "model.onnx"
    graph = onnx_graphs.Graph(("n", "t", F) if batch_first else (T, 4, F))
    y, y_h = graph.gru(graph.time_first() if batch_first else "x")
    outputs = graph.steps(y) if batch_first else graph.node("Squeeze", [y, graph.ints(1)])
    proto = graph.model(*([outputs, y_h] if states else [outputs]))
    path.write_bytes(proto.SerializeToString())
    said = onnx_format.signature(path)
    assert (said.data.name, said.data.dtype, said.time_first, said.lengths) == ("x", "float32", not batch_first, None)
    assert said.rows == (None if batch_first else 4)
    x = np.random.default_rng(0).normal(size=(4, T, F)).astype(np.float32)
    assert_close(run_by_signature(path, x), load_model(path).predict(x))


def test_tokens_with_time_first_are_given_so(tmp_path):
    path = tmp_path / "model.onnx"
    graph = onnx_graphs.Graph(("t", "n"), TensorProto.INT32)
    _, state = graph.gru(graph.node("Gather", [graph.weights(7, F), "x"]))
    path.write_bytes(graph.model(state).SerializeToString())
    said = onnx_format.signature(path)
    assert (said.time_first, said.data.dtype) == (True, "int32")
    x = np.random.default_rng(0).integers(0, 7, (4, T))
    assert_close(run_by_signature(path, x), load_model(path).predict(x))


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_lengths_are_given_under_their_name(kind, tmp_path):
    path = tmp_path / "model.onnx"
    graph = onnx_graphs.Graph()
    graph.inputs.append(helper.make_tensor_value_info("ends", kind, ["n"]))
    lengths = "ends" if kind == TensorProto.INT32 else graph.node("Cast", ["ends"], to=TensorProto.INT32)
    _, state = graph.gru(graph.time_first(), lengths=lengths)
    path.write_bytes(graph.model(state).SerializeToString())
    assert onnx_format.signature(path).lengths.name == "ends"
    x = np.random.default_rng(0).normal(size=(4, T, F)).astype(np.float32)
    for ends in (None, np.array([6, 0, 3, 1])):
        assert_close(run_by_signature(path, x, ends), load_model(path).predict(x, lengths=ends))


OWN_OUTPUTS = {
    "stateful": lambda: [layers.GRU(5, stateful=True, input_shape=(T, F))],
    "states": lambda: [layers.GRU(5, return_sequences=True, return_state=True, input_shape=(None, F))],
    "both": lambda: [layers.Bidirectional(layers.GRU(5, return_state=True), None, input_shape=(None, F))],
    "masked": lambda: [layers.Masking(input_shape=(None, F)), layers.GRU(5, return_sequences=True)],
    "no steps": lambda: [layers.Dense(2, input_shape=(F,))],
    "tokens": lambda: [layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(5)],
}


@pytest.mark.parametrize("name", OWN_OUTPUTS)
def test_own_files_give_what_the_model_returns_and_no_next_states(name, tmp_path):
    path = tmp_path / "model.onnx"
    model = filled(OWN_OUTPUTS[name]())
    model.save(path)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (4, T)) if name == "tokens" else rng.normal(size=(4, T, F)).astype(np.float32)
    x = x[:, 0] if name == "no steps" else x
    assert_close(run_by_signature(path, x), model.predict(x))


# --- Fuzz -----------------------------------------------------------------------------------------------------------


def _seeds():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        stack = [layers.Masking(input_shape=(None, F)), layers.Bidirectional(layers.GRU(2)), layers.Dense(2, "softmax")]
        filled(stack).save(path)
        own = path.read_bytes()
        filled(OWN["features"]()).save(path)
        without_metadata(path)
        made = [onnx_graphs.FOREIGN[name]() for name in ("keras_classifier", "weights_in_nodes", "sequence_lens")]
        return [own, path.read_bytes(), *(model.SerializeToString() for model in made)]


SEEDS = _seeds()
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "repeat", "insert"]), st.integers(0, 2**16), st.binary(max_size=9)
    ),
    min_size=1,
    max_size=4,
)


def edited(data, edits):
    for kind, place, more in edits:
        place %= max(len(data), 1)
        match kind:
            case "flip":
                data = (
                    data[:place] + bytes([data[place] ^ (more[0] if more else 1)]) + data[place + 1 :] if data else data
                )
            case "cut":
                data = data[:place]
            case "drop":
                data = data[:place] + data[place + len(more) :]
            case "repeat":
                data = data[: place + 40] + data[place:]
            case "insert":
                data = data[:place] + more + data[place:]
    return data


@given(st.sampled_from(SEEDS), EDITS)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_an_error_or_a_model(data, edits):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(edited(data, edits))
        with contextlib.suppress(ModelFileError):
            assert isinstance(load_model(path, format="onnx"), Sequential)


@given(st.sampled_from(SEEDS[2:]), st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_graph_with_other_contents_is_an_error_or_a_model(data, draw):
    """Messages with exchanged nodes, attributes and tensors get further than damaged bytes."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        mutate(model.graph, draw.draw)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ModelFileError):
        assert isinstance(load(model, folder), Sequential)


def mutate(graph, draw):
    node = draw(st.sampled_from(list(graph.node)))
    names = [name for each in graph.node for name in (*each.input, *each.output)] + ["x", "", "nothing"]
    match draw(st.sampled_from(["operator", "input", "attribute", "tensor", "swap", "size"])):
        case "operator":
            node.op_type = draw(st.sampled_from([each.op_type for each in graph.node] + ["Reshape", "Split", "Expand"]))
        case "input" if node.input:
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
        case "attribute" if node.attribute:
            attribute = draw(st.sampled_from(list(node.attribute)))
            attribute.i = draw(st.integers(-(2**63), 2**63 - 1))
            attribute.ints.extend(draw(st.lists(st.integers(-5, 5), max_size=3)))
        case "tensor":
            values = draw(st.lists(st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 5, 2**31 - 1, 2**63 - 1]), max_size=4))
            tensor = draw(st.sampled_from(list(graph.initializer)))
            tensor.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), tensor.name))
        case "swap":
            node.output[0] = draw(st.sampled_from(names)) or "nothing"
        case "size":
            size = draw(st.sampled_from(list(graph.input[0].type.tensor_type.shape.dim)))
            size.dim_value = draw(st.sampled_from([0, 1, 3, -1, 2**62]))
