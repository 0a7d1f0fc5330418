"""TensorFlow.js' files: shards, quantised and renamed weights, safe replacement, refusals, and hostile files."""

from __future__ import annotations

import copy
import json
import os
import tracemalloc

import fastgru
import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, layers, load_model, optimizers, schedules
from fastgru.formats import tfjs_weights
from hypothesis import given, settings
from hypothesis import strategies as st

X = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
Y = np.eye(2, dtype=np.float32)[[0, 1, 1]]
#: Outputs of quantised weights, computed here and by TensorFlow.js; relative in the L2 norm.
SAME_OUTPUTS = 1e-5


def make_model(*, trained=True):
    fastgru.set_seed(1)
    model = Sequential(
        [
            layers.GRU(6, input_shape=(None, 5), return_sequences=True, reset_after=False),
            layers.Bidirectional(layers.GRU(4, reset_after=False, recurrent_activation="hard_sigmoid_tfjs")),
            layers.Dense(2, "softmax"),
        ]
    )
    model.compile(optimizers.Adam(form="tfjs"), metrics=["accuracy"])
    if trained:
        model.train_on_batch(X, Y)
    return model


class Files:
    """The files of a model, to be changed."""

    def __init__(self, folder):
        self.folder = folder
        self.json = folder / "model.json"
        self.content = json.loads(self.json.read_text())
        (self.group,) = self.content["weightsManifest"]
        self.data = b"".join((folder / shard).read_bytes() for shard in self.group["paths"])

    @property
    def weights(self):
        return self.group["weights"]

    @property
    def layers(self):
        return self.content["modelTopology"]["config"]["layers"]

    def shard(self, *sizes):
        """Cut the data into shards of these sizes, and one of what is left."""
        self.group["paths"] = []
        ends = np.cumsum([0, *sizes, len(self.data) - sum(sizes)]).tolist()
        for number, (begin, end) in enumerate(zip(ends, ends[1:], strict=False)):
            self.group["paths"].append(f"part {number}")
            (self.folder / f"part {number}").write_bytes(self.data[begin:end])

    def save(self):
        self.json.write_text(json.dumps(self.content))
        return self.json


@pytest.fixture
def files(tmp_path):
    make_model().save(tmp_path / "model.json")
    return Files(tmp_path)


def outputs_there(tfjs, path):
    return np.array(tfjs.ask(model={"load": str(path)}, outputs=X)["outputs"])


def assert_same_outputs(actual, expected):
    assert np.linalg.norm(actual - expected) <= SAME_OUTPUTS * np.linalg.norm(expected)


# --- What others write --------------------------------------------------------------------------------------------


def test_what_is_written_is_what_the_format_says(files):
    """From the outside: bytes in the manifest's order, little-endian, Keras' words, TensorFlow.js' names."""
    model = make_model()
    names = [entry["name"] for entry in files.weights]
    assert names[:4] == ["gru/kernel", "gru/recurrent_kernel", "gru/bias", "bidirectional/forward_gru/kernel"]
    assert names[11:14] == ["iter", "gru/kernel/m", "gru/recurrent_kernel/m"]
    assert names[23:25] == ["gru/kernel/v", "gru/recurrent_kernel/v"]
    assert [entry.get("group") for entry in files.weights] == 11 * [None] + 23 * ["optimizer"]
    kernel = np.frombuffer(files.data, "<f4", 5 * 18).reshape(5, 18)
    np.testing.assert_array_equal(kernel, model.layers[0].weights["kernel"])
    gru = files.layers[0]
    assert gru["class_name"] == "GRU"
    assert gru["config"]["batch_input_shape"] == [None, None, 5]
    assert gru["config"]["reset_after"] is False
    assert files.content["trainingConfig"]["loss"] == "categorical_crossentropy"


def test_a_model_comes_back_bit_for_bit(files):
    model, loaded = make_model(), load_model(files.json)
    assert [layer.get_config() for layer in loaded.layers] == [layer.get_config() for layer in model.layers]
    assert loaded.input_shape == model.input_shape
    np.testing.assert_array_equal(loaded.parameters, model.parameters)
    for state, moments in model.optimizer.states.items():
        np.testing.assert_array_equal(loaded.optimizer.states[state], moments)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.train_on_batch(X, Y) == model.train_on_batch(X, Y)


def test_a_folder_is_read_and_written_like_its_model_json(files):
    model = load_model(files.folder)
    model.layers[0].weights["bias"][...] = 1
    model.save(files.folder, format="tfjs")
    np.testing.assert_array_equal(load_model(files.json).parameters, model.parameters)


@pytest.mark.parametrize("sizes", [(), (0,), (1, 2, 3), (4 * 5 * 18 + 2, 100)], ids=str)
def test_tensors_may_cross_shards(tfjs, files, sizes):
    files.shard(*sizes)
    path = files.save()
    model = make_model()
    np.testing.assert_array_equal(load_model(path).parameters, model.parameters)
    assert_same_outputs(outputs_there(tfjs, path), model.predict(X))


def test_groups_have_their_own_shards(files):
    """As older converters write them: a group and a file for each layer."""
    groups, offset = [], 0
    for number, entry in enumerate(files.weights):
        size = 4 * int(np.prod(entry["shape"]))
        (files.folder / f"group{number}.bin").write_bytes(files.data[offset : offset + size])
        groups.append({"paths": [f"group{number}.bin"], "weights": [entry]})
        offset += size
    files.content["weightsManifest"] = groups
    assert load_model(files.save()).train_on_batch(X, Y) == make_model().train_on_batch(X, Y)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
def test_quantised_weights_are_those_of_tensorflow_js(tfjs, files, dtype):
    parts, offset = [], 0
    for entry in files.weights:
        size = 4 * int(np.prod(entry["shape"]))
        stored = files.data[offset : offset + size]
        offset += size
        if "group" not in entry:
            values = np.frombuffer(stored, "<f4")
            least, most = float(values.min()), float(values.max())
            entry["quantization"] = {"dtype": dtype}
            if dtype != "float16":
                scale = (most - least) / np.iinfo(dtype).max or 1.0
                entry["quantization"] |= {"min": least, "scale": scale}
                values = np.round((values - least) / scale)
            stored = values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
        parts.append(stored)
    files.data = b"".join(parts)
    files.shard()
    path = files.save()
    outputs = load_model(path).predict(X)
    # Quantising is coarse; both read the same numbers out of it all the same.
    assert 1e-6 < np.abs(outputs - make_model().predict(X)).max() < 0.01
    assert_same_outputs(outputs_there(tfjs, path), outputs)


def test_a_converter_s_file_has_cells_in_its_names_and_a_wrapper(tfjs, files):
    for entry in files.weights[:9]:
        *before, weight = entry["name"].split("/")
        entry["name"] = "/".join([*before, "gru_cell_1", weight])
    del files.weights[11:], files.content["trainingConfig"]
    files.data = files.data[: sum(4 * int(np.prod(entry["shape"])) for entry in files.weights)]
    files.shard()
    topology = files.content["modelTopology"]
    files.content["modelTopology"] = {"keras_version": "2.9.0", "backend": "tensorflow", "model_config": topology}
    path = files.save()
    np.testing.assert_array_equal(load_model(path).parameters, make_model().parameters)
    assert_same_outputs(outputs_there(tfjs, path), make_model().predict(X))


CHAINS = {
    "functional": """
        const input = tf.input({shape: [4, 5]});
        const gru = tf.layers.gru({units: 3}).apply(input);
        return tf.model({inputs: input, outputs: tf.layers.dense({units: 2}).apply(gru)});""",
    "time distributed": """
        const inner = tf.layers.dense({units: 3, activation: 'tanh'});
        return tf.sequential({layers: [
          tf.layers.timeDistributed({layer: inner, inputShape: [4, 5]}), tf.layers.gru({units: 2})]});""",
    "cell": """
        return tf.sequential({layers: [
          tf.layers.rnn({cell: tf.layers.gruCell({units: 3, recurrentActivation: 'sigmoid'}), inputShape: [4, 5]})]});""",
    "activation": """
        return tf.sequential({layers: [
          tf.layers.gru({units: 3, inputShape: [4, 5]}), tf.layers.dense({units: 2}),
          tf.layers.activation({activation: 'softmax'})]});""",
    "stateful": """
        return tf.sequential({layers: [tf.layers.gru({units: 3, batchInputShape: [3, 4, 5], stateful: true})]});""",
}


@pytest.mark.parametrize("chain", CHAINS)
def test_other_ways_to_write_a_chain(tfjs, tmp_path, chain):
    saved = {"folder": str(tmp_path)}
    there = tfjs.ask(model={"code": CHAINS[chain]}, randomize=0.5, outputs=X, save=saved)["outputs"]
    model = load_model(tmp_path)
    assert_same_outputs(model.predict(X), np.array(there))
    assert model.layers[0].name in (tmp_path / "model.json").read_text()
