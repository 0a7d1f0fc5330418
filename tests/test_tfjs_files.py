"""TensorFlow.js' files: shards, quantised and renamed weights, safe replacement, refusals, and hostile files."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import re
import shutil
import tracemalloc

import fastgru
import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, layers, load_model, losses, optimizers, schedules
from fastgru.formats.tfjs import weights as tfjs_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from json_damage import LEFT_OUT, SCALARS, places, replaced, values

pytestmark = pytest.mark.isa_independent

X = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
Y = np.eye(2, dtype=np.float32)[[0, 1, 1]]
#: Outputs of quantised weights, computed here and by TensorFlow.js; relative error in the L2 norm.
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
    model.compile(optimizers.Adam(form="tfjs"), "categorical_crossentropy", metrics=["accuracy"])
    if trained:
        model.train_on_batch(X, Y)
    return model


class Files:
    """The files of a model, which tests change."""

    def __init__(self, folder, name="model.json"):
        self.folder = folder
        self.json = folder / name
        self.content = json.loads(self.json.read_text())
        self.group = self.content["weightsManifest"][0]
        self.data = b"".join((folder / shard).read_bytes() for shard in self.group["paths"])

    @property
    def weights(self):
        return self.group["weights"]

    @property
    def layers(self):
        return self.content["modelTopology"]["config"]["layers"]

    def shard(self, *sizes):
        """Split the data into shards of these sizes and one with the rest."""
        self.group["paths"] = []
        ends = np.cumsum([0, *sizes, len(self.data) - sum(sizes)]).tolist()
        for number, (begin, end) in enumerate(itertools.pairwise(ends)):
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


# --- Files of others ------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_the_format_says(files):
    """The format itself: bytes in the manifest's order, little-endian, Keras' names, TensorFlow.js' weight names."""
    model = make_model()
    names = [entry["name"] for entry in files.weights]
    assert names[:4] == ["gru/kernel", "gru/recurrent_kernel", "gru/bias", "bidirectional/forward_gru/kernel"]
    assert names[11:14] == ["iter", "gru/kernel/m", "gru/recurrent_kernel/m"]
    assert names[23:25] == ["gru/kernel/v", "gru/recurrent_kernel/v"]
    assert [entry.get("group") for entry in files.weights] == 11 * [None] + 23 * ["optimizer"]
    kernel = np.frombuffer(files.data, "<f4", 5 * 18).reshape(5, 18)
    np.testing.assert_array_equal(kernel, model.layers[0].parameters["kernel"])
    gru = files.layers[0]
    assert gru["class_name"] == "GRU"
    assert gru["config"]["batch_input_shape"] == [None, None, 5]
    assert gru["config"]["reset_after"] is False
    assert files.content["trainingConfig"]["loss"] == "categorical_crossentropy"


def test_a_model_comes_back_bit_for_bit(files):
    model, loaded = make_model(), load_model(files.json)
    assert [layer.options() for layer in loaded.layers] == [layer.options() for layer in model.layers]
    assert loaded.input_shape == model.input_shape
    np.testing.assert_array_equal(loaded.parameters, model.parameters)
    for state, moments in model.optimizer.states.items():
        np.testing.assert_array_equal(loaded.optimizer.states[state], moments)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.train_on_batch(X, Y) == model.train_on_batch(X, Y)


def test_a_folder_is_read_and_written_like_its_model_json(files):
    model = load_model(files.folder)
    model.layers[0].parameters["bias"][...] = 1
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
    """The form of older converters: a group and a file per layer."""
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
    # Quantisation is coarse, but both programs read the same numbers.
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
    "input": """
        return tf.sequential({layers: [
          tf.layers.inputLayer({inputShape: [4, 5]}), tf.layers.dropout({rate: 0.5}), tf.layers.gru({units: 2})]});""",
    "time distributed": """
        const inner = tf.layers.dense({units: 3, activation: 'tanh'});
        return tf.sequential({layers: [
          tf.layers.timeDistributed({layer: inner, inputShape: [4, 5]}), tf.layers.gru({units: 2})]});""",
    "cell": """
        const cell = tf.layers.gruCell({units: 3, recurrentActivation: 'sigmoid'});
        return tf.sequential({layers: [tf.layers.rnn({cell, inputShape: [4, 5]})]});""",
    "activation": """
        return tf.sequential({layers: [
          tf.layers.gru({units: 3, inputShape: [4, 5]}), tf.layers.dense({units: 2}),
          tf.layers.activation({activation: 'softmax'})]});""",
    "activation layers": """
        return tf.sequential({layers: [
          tf.layers.dense({units: 3, inputShape: [4, 5]}), tf.layers.reLU(), tf.layers.gru({units: 3}),
          tf.layers.dense({units: 2}), tf.layers.softmax({axis: -1})]});""",
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


# --- Options that are null or left out ------------------------------------------------------------------------------

TOKENS = np.random.default_rng(0).integers(0, 7, (3, 4))
#: Models with required options only, in TensorFlow.js' form.
WITH_DEFAULTS = {
    "gru": [["gru", {"units": 3}], ["dense", {"units": 2}]],
    "bidirectional": [
        ["bidirectional", {"layer": ["gru", {"units": 3}]}],
        ["dropout", {"rate": 0.5}],
        ["dense", {"units": 2}],
        ["activation", {"activation": "tanh"}],
    ],
    "embedding": [
        ["embedding", {"inputDim": 7, "outputDim": 3}],
        ["gru", {"units": 2, "returnSequences": True}],
        ["globalAveragePooling1d", {}],
        ["dense", {"units": 2}],
        ["reLU", {}],
    ],
    "mask": [["embedding", {"inputDim": 7, "outputDim": 3, "maskZero": True}], ["gru", {"units": 2}]],
    "masking": [["masking", {}], ["gru", {"units": 2}], ["dense", {"units": 3}]],
    "pooling": [
        ["gru", {"units": 2, "returnSequences": True}],
        ["globalMaxPooling1d", {}],
        ["dense", {"units": 3}],
        ["softmax", {}],
    ],
    "softmax of steps": [["dense", {"units": 4}], ["softmax", {"axis": 2}], ["gru", {"units": 2}]],
    "flatten": [["dense", {"units": 2}], ["flatten", {}], ["dense", {"units": 3}]],
}
#: Features of TensorFlow.js that this package does not support; the message names them.
NOT_HERE = (
    "axis=1 is not supported by fastgru",
    "expected one of sigmoid, hard_sigmoid_tfjs as recurrent_activation",
    "dropout.*: expected rate, got none",
)


def saved_there(tfjs, folder, layers_there, **options):
    """Return a model that TensorFlow.js has saved, with inputs and outputs."""
    x = TOKENS if layers_there[0][0] == "embedding" else X
    first, *rest = layers_there
    stack = [[first[0], {"batchInputShape": [None, *x.shape[1:]], **first[1]}], *rest]
    there = tfjs.ask(model={"layers": stack}, randomize=0.5, outputs=x, save={"folder": str(folder)}, **options)
    return x, np.array(there["outputs"])


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_layers_with_default_arguments_are_read(tfjs, tmp_path, name):
    x, there = saved_there(tfjs, tmp_path, WITH_DEFAULTS[name])
    assert_same_outputs(load_model(tmp_path).predict(x), there)


def keys_of(value, where=()):
    """Return the paths of all keys of the objects in a JSON value."""
    if isinstance(value, dict):
        yield from ((*where, key) for key in value)
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, (dict, list)):
            yield from keys_of(inner, (*where, key))


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_what_is_null_or_left_out_means_what_it_means_there(tfjs, tmp_path, name):
    """For each key, the model is the same as in TensorFlow.js, unless TensorFlow.js raises."""
    compiled = {"compile": {"optimizer": "adam", "loss": "meanSquaredError"}}
    x, _ = saved_there(tfjs, tmp_path, WITH_DEFAULTS[name], **(compiled if name == "gru" else {}))
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    places = [place for place in keys_of(content) if place[0] != "weightsManifest"]
    read = 0
    for place, gone in itertools.product(places, (False, True)):
        changed = copy.deepcopy(content)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        if gone:
            del inner[place[-1]]
        else:
            inner[place[-1]] = None
        path.write_text(json.dumps(changed))
        there = tfjs.try_to(model={"load": str(path)}, outputs=x)
        try:
            here, refusal = load_model(path).predict(x), ""
        except ModelFileError as error:
            here, refusal = None, str(error)
        if "error" in there:
            continue
        assert not refusal or re.search("|".join(NOT_HERE), refusal), (place, gone, refusal)
        if not refusal:
            assert_same_outputs(here, np.array(there["outputs"]))
            read += 1
    assert read > 20


# --- Writing ------------------------------------------------------------------------------------------------------


def shards_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".bin")


def test_shards_are_of_one_size_and_named_by_their_contents(tfjs, tmp_path, monkeypatch):
    monkeypatch.setattr(tfjs_weights, "SHARD_BYTES", 1000)
    model = make_model()
    model.save(tmp_path / "m.json")
    files = Files(tmp_path, "m.json")
    assert len(files.group["paths"]) == -(-len(files.data) // 1000) > 5
    for number, name in enumerate(files.group["paths"], 1):
        data = (tmp_path / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()[:16]
        assert name == f"m-shard{number}of{len(files.group['paths'])}-{digest}.bin"
    np.testing.assert_array_equal(load_model(files.json).parameters, model.parameters)
    assert_same_outputs(outputs_there(tfjs, files.json), model.predict(X))


def test_the_same_model_gives_the_same_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_model().save(tmp_path / name / "model.json")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("name", ["a b", "x:y", "größe", "50%", "long" * 50])
def test_a_model_may_have_any_name(tmp_path, name):
    """Names of shards are valid on any server and can be read here."""
    path = tmp_path / f"{name}.json"
    for trained in (False, True):
        make_model(trained=trained).save(path)
        (shard,) = shards_in(tmp_path)
        assert re.fullmatch(r"[\w.-]+", shard, re.ASCII)
    np.testing.assert_array_equal(load_model(path).parameters, make_model().parameters)


def test_saving_again_removes_the_shards_before_and_nothing_else(tmp_path):
    path = tmp_path / "model.json"
    model = make_model()
    model.save(tmp_path / "other.json")
    model.save(path)
    files = Files(tmp_path)
    files.content["weightsManifest"].append({"paths": ["precious.bin", "../model.json"], "weights": []})
    files.save()
    (tmp_path / "precious.bin").write_bytes(b"of another")
    (other,) = (name for name in shards_in(tmp_path) if name.startswith("other-"))
    model.train_on_batch(X, Y)
    model.save(path)
    (now,) = Files(tmp_path).group["paths"]
    assert shards_in(tmp_path) == sorted([now, other, "precious.bin"])
    model.save(path)
    assert shards_in(tmp_path) == sorted([now, other, "precious.bin"])


@pytest.mark.parametrize("how", [os.rename, shutil.copy], ids=["renamed", "copied"])
@pytest.mark.parametrize("kept", ["best.json", "model.json.bak"])
def test_a_renamed_or_copied_model_keeps_its_shards(tmp_path, monkeypatch, kept, how):
    path, best = tmp_path / "model.json", make_model(trained=False)
    best.save(path)
    how(path, tmp_path / kept)
    make_model().save(path)
    with monkeypatch.context() as patched:  # a failed save must not remove shards with the same contents
        write = tfjs_weights.write_atomically
        patched.setattr(
            tfjs_weights, "write_atomically", lambda to, data: write(to, data) if to != path else write(tmp_path, data)
        )
        with pytest.raises(OSError, match="expected a regular file"):
            best.save(path)
    make_model().save(path)
    os.rename(tmp_path / kept, tmp_path / "best.json")
    np.testing.assert_array_equal(load_model(tmp_path / "best.json").parameters, best.parameters)
    np.testing.assert_array_equal(load_model(path).parameters, make_model().parameters)
    os.unlink(tmp_path / "best.json")
    make_model().save(path)
    assert shards_in(tmp_path) == sorted(Files(tmp_path).group["paths"])


@pytest.mark.parametrize("kind", ["damaged", "too large", "a folder", "a FIFO"])
def test_shards_stay_when_the_json_beside_them_cannot_be_searched(tmp_path, monkeypatch, kind):
    path, other = tmp_path / "model.json", tmp_path / "other.json"
    make_model(trained=False).save(path)
    (before,) = Files(tmp_path).group["paths"]
    match kind:
        case "damaged":
            other.write_bytes(b"\xff{" + before.encode())
        case "too large":
            other.write_bytes(bytes(1000_000))
            monkeypatch.setattr(tfjs_weights, "_MOST_JSON_BYTES", 999_999)
        case "a folder":
            other.mkdir()
        case "a FIFO":
            os.mkfifo(other)
    make_model().save(path)
    assert (before in shards_in(tmp_path)) == (kind in ("damaged", "too large"))


@pytest.mark.parametrize("killed", [False, True], ids=["disk full", "killed"])
@pytest.mark.parametrize("files_written", [0, 1, 2, 3])
def test_a_crash_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch, files_written, killed):
    """Killed: no cleanup runs."""
    monkeypatch.setattr(tfjs_weights, "SHARD_BYTES", 2500)
    path = tmp_path / "model.json"
    old, new = make_model(trained=False), make_model()
    old.save(path)
    before = shards_in(tmp_path)
    replace, done = os.replace, []

    def fail(source, target):
        if len(done) == files_written:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    if killed:
        monkeypatch.setattr(tfjs_weights, "_remove_unnamed", lambda *_: None)
    with pytest.raises(OSError, match="No space left"):
        new.save(path)
    np.testing.assert_array_equal(load_model(path).parameters, old.parameters)
    if not killed:
        assert shards_in(tmp_path) == before
    monkeypatch.undo()
    new.save(path)
    np.testing.assert_array_equal(load_model(path).parameters, new.parameters)


def test_shards_stay_when_the_model_that_names_them_is_there(tmp_path, monkeypatch):
    """The JSON was renamed, and a later operation failed."""
    path = tmp_path / "model.json"
    make_model(trained=False).save(path)
    write = tfjs_weights.write_atomically

    def interrupted(target, data):
        write(target, data)
        if target == path:
            raise KeyboardInterrupt

    monkeypatch.setattr(tfjs_weights, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_model().save(path)
    np.testing.assert_array_equal(load_model(path).parameters, make_model().parameters)


# --- What is not supported --------------------------------------------------------------------------------------------


def gru(**options):
    return layers.GRU(**{"units": 3, "input_shape": (4, 5), "reset_after": False, **options})


def tokens(**options):
    return layers.Embedding(7, 5, mask_zero=True, input_shape=(4,), **options)


def masking(**options):
    return layers.Masking(input_shape=(4, 5), **options)


UNSUPPORTED = {
    "reset after": ([gru(reset_after=True)], "gru: reset_after=True is not supported by TensorFlow.js"),
    "reset after in both": (
        [layers.Bidirectional(gru(reset_after=True))],
        "bidirectional: reset_after=True is not supported by TensorFlow.js",
    ),
    "hard sigmoid": (
        [gru(recurrent_activation="hard_sigmoid")],
        "gru: recurrent_activation='hard_sigmoid' is not supported by TensorFlow.js",
    ),
    "stateful": ([gru(stateful=True)], "gru: stateful=True is not supported by TensorFlow.js"),
    "zeros": ([gru(zero_output_for_mask=True)], "gru: zero_output_for_mask=True is not supported by TensorFlow.js"),
    "states": ([gru(return_state=True)], "gru: a layer with several outputs is not supported by TensorFlow.js"),
    "unmerged": (
        [layers.Bidirectional(gru(), None)],
        "bidirectional: a layer with several outputs",
    ),
    "directions": (
        [layers.Bidirectional(gru(), backward_layer=gru(activation="relu", go_backwards=True))],
        "bidirectional: a backward_layer with activation='relu' is not supported by TensorFlow.js",
    ),
    "backwards in both": (
        [layers.Bidirectional(gru(go_backwards=True, return_sequences=True))],
        "bidirectional: go_backwards=True is not supported by TensorFlow.js, which returns one direction in reversed",
    ),
    "name": ([gru(name="größte")], "name: 'größte' is not supported by TensorFlow.js"),
    "flat": (
        [layers.Flatten(input_shape=(4,))],
        "flatten: Flatten of two axes is not supported by TensorFlow.js: leave the",
    ),
    "mean": (
        [tokens(), layers.GlobalAveragePooling1D()],
        "GlobalAveragePooling1D after a mask is not supported by TensorFlow.js",
    ),
    "maximum": ([tokens(), layers.GlobalMaxPooling1D()], "global_max_pooling1d: expected no mask before it"),
    "flattened": ([tokens(), layers.Flatten()], "flatten: Flatten after a mask is not supported by TensorFlow.js"),
    "a mask behind a mask": (
        [masking(), gru(return_sequences=True), layers.Masking(name="again")],
        "again: expected no mask before it because Keras replaces a mask",
    ),
    "a mask behind that of tokens": ([tokens(), masking(), gru()], "masking: expected no mask before it"),
    "padding for Dense": (
        [masking(mask_value=-1.0), layers.Dropout(0.5), layers.Dense(3)],
        "masking: expected mask_value=0.0 before a Dense layer",
    ),
    "padding at the end": ([masking(mask_value=-1.0)], "masking: expected mask_value=0.0 before the end of the model"),
    "padding first": ([tokens(), gru(go_backwards=True, return_sequences=True)], "gru: expected go_backwards=False"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_cannot_be_said_is_refused_by_name(tmp_path, case):
    chain, message = UNSUPPORTED[case]
    model = Sequential(chain)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.save(tmp_path / "model.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "mask_value", "message"),
    [(1, 0.0, "again: expected no mask before it"), (0, -1.0, "again: expected mask_value=0.0 before a Dense layer")],
)
def test_masks_in_files_that_mean_something_else_are_refused(tmp_path, place, mask_value, message):
    first = [masking()] if place == 1 else []
    Sequential([*first, layers.Dense(5, input_shape=(4, 5)), gru()]).save(tmp_path / "model.json")
    files = Files(tmp_path)
    config = {"name": "again", "mask_value": mask_value, "batch_input_shape": [None, 4, 5]}
    files.layers.insert(place, {"class_name": "Masking", "config": config})
    with pytest.raises(ModelFileError, match=message):
        load_model(files.save())


def test_float64_is_refused(tmp_path):
    model = Sequential([gru()], dtype="float64")
    with pytest.raises(ValueError, match="sequential: dtype='float64' is not supported"):
        model.save(tmp_path / "model.json")


UNTRAINABLE = {
    "Adam's form": ({"optimizer": "adam"}, "optimizer: Adam with form='keras' is not supported"),
    "AdamW": ({"optimizer": optimizers.AdamW(form="tfjs")}, "optimizer: AdamW is not supported"),
    "momentum's form": (
        {"optimizer": optimizers.SGD(momentum=0.5)},
        "optimizer: SGD with form='keras' is not supported",
    ),
    "centered": ({"optimizer": optimizers.RMSprop(centered=True)}, "optimizer: RMSprop with centered=True is not"),
    "clipped": ({"optimizer": optimizers.SGD(clipvalue=1.0)}, "optimizer: SGD with .*clipvalue=1.0 is not supported"),
    "schedule": (
        {"optimizer": optimizers.SGD(schedules.CosineDecay(0.1, 5))},
        "learning_rate: CosineDecay is not supported",
    ),
    "huber": ({"loss": "huber"}, "loss: huber is not supported"),
    "logits": (
        {"loss": losses.CategoricalCrossentropy(from_logits=True)},
        "loss: from_logits=True of categorical_crossentropy is not supported",
    ),
    "metric": ({"loss": "categorical_crossentropy", "metrics": ["f1_score"]}, "metrics: f1_score is not supported"),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_a_training_that_cannot_be_said_is_refused_by_name_and_the_model_goes_alone(tmp_path, case):
    options, message = UNTRAINABLE[case]
    model = Sequential([gru(), layers.Dense(2, "softmax" if case == "metric" else None)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **options})
    with pytest.raises(ValueError, match=message + ".*include_optimizer=False"):
        model.save(tmp_path / "model.json")
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "model.json", include_optimizer=False)
    assert load_model(tmp_path / "model.json").optimizer is None


def test_a_loss_of_padded_steps_is_refused(tmp_path):
    model = Sequential([tokens(), gru(return_sequences=True)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="counts the steps of padding"):
        model.save(tmp_path / "model.json")


@pytest.mark.parametrize(
    ("metric", "written"),
    [("mean_squared_error", "mse"), ("mean_absolute_error", "mae")],
)
def test_metrics_have_the_names_that_tensorflow_js_knows(tfjs, tmp_path, metric, written):
    model = Sequential([gru()])
    model.compile("sgd", "mse", metrics=[metric])
    model.save(tmp_path / "model.json")
    assert Files(tmp_path).content["trainingConfig"]["metrics"] == [written]
    tfjs.ask(model={"load": str(tmp_path / "model.json")})  # compiles the model


# --- Hostile files --------------------------------------------------------------------------------------------------


def set_paths(*names):
    def change(files):
        files.group["paths"] = list(names)

    return change


def set_entry(**values):
    """Change the first weight's entry in the manifest."""

    def change(files):
        files.weights[0].update(values)

    return change


def set_content(**values):
    return lambda files: files.content.update(values)


def set_gru(**values):
    return lambda files: files.layers[0]["config"].update(values)


def set_optimizer(**values):
    return lambda files: files.content["trainingConfig"]["optimizer_config"]["config"].update(values)


def link_out(files):
    secret = files.folder.parent / f"{files.folder.name} secret"
    secret.write_bytes(files.data)
    (files.folder / "link").symlink_to(secret)
    files.group["paths"] = ["link"]


def name_a_fifo(files):
    os.mkfifo(files.folder / "pipe")
    files.group["paths"] = ["pipe"]


def shorten(files):
    files.data = files.data[:-1]
    files.shard()


def lengthen(files):
    files.data += b"\0"
    files.shard()


def duplicate(files):
    files.weights[1]["name"] = files.weights[0]["name"]


def duplicate_by_cell(files):
    files.weights[1] |= {"name": "gru/gru_cell/kernel"}


def duplicate_layer(files):
    files.layers[2]["config"]["name"] = "gru"


def forget_a_weight(files):
    files.group["weights"] = files.weights[1:]
    files.data = files.data[4 * 5 * 18 :]
    files.shard()


def forget_moments(files):
    del files.weights[-1]
    files.data = files.data[:-8]
    files.shard()


def count_in_float(files):
    files.weights[11]["dtype"] = "float32"


def count_backwards(files):
    begin = sum(4 * int(np.prod(entry["shape"])) for entry in files.weights[:11])
    files.data = files.data[:begin] + b"\xff" * 4 + files.data[begin + 4 :]
    files.shard()


def swap_moments(files):
    files.weights[12]["shape"] = [18, 5]


def transpose_alone(files):
    files.weights[0]["shape"] = [18, 5]
    del files.content["trainingConfig"]


PLAIN = "expected plain names of files beside the model, got"
HOSTILE = {
    "up": (set_paths("../x.bin"), PLAIN),
    "absolute": (set_paths("/etc/passwd"), PLAIN),
    "folder": (set_paths("a/b"), PLAIN),
    "backslash": (set_paths("..\\x.bin"), PLAIN),
    "drive": (set_paths("C:x.bin"), PLAIN),
    "dots": (set_paths(".."), PLAIN),
    "dot": (set_paths("."), PLAIN),
    "nothing": (set_paths(""), PLAIN),
    "NUL": (set_paths("x\0"), PLAIN),
    "surrogate": (set_paths("\ud800"), PLAIN),
    "number": (set_paths(7), PLAIN),
    "address": (set_paths("http://x"), PLAIN),
    "link": (link_out, "link: expected a file beside the model, got a link that leads out"),
    "pipe": (name_a_fifo, "pipe: expected a regular file or a link to one, got a FIFO"),
    "missing": (set_paths("nowhere.bin"), "nowhere.bin: expected this file of weights beside the model"),
    "twice": (lambda files: files.group["paths"].append(files.group["paths"][0]), "expected each file once"),
    "no paths": (set_paths(), "gru/kernel: expected 360 bytes, got 0"),
    "paths": (lambda files: files.group.update(paths="model.bin"), "paths: expected a list of file names"),
    "short": (shorten, "dense/bias/v: expected 8 bytes, got 7"),
    "long": (lengthen, "bytes for all tensors, got"),
    "huge": (set_entry(shape=[2**31 - 1, 2**31 - 1]), "gru/kernel: expected 18,446,744,056,529,682,436 bytes, got"),
    "larger": (set_entry(shape=[2**31, 1]), "gru/kernel: expected at most 2 sizes as its shape"),
    "negative": (set_entry(shape=[-5, -18]), "gru/kernel: expected at most 2 sizes"),
    "float": (set_entry(shape=[5.0, 18]), "gru/kernel: expected at most 2 sizes"),
    "axes": (set_entry(shape=[1] * 100), "gru/kernel: expected at most 2 sizes"),
    "transposed": (set_entry(shape=[18, 5]), "gru/kernel/m: expected float32 (18, 5), got 'float32 (5, 18)'"),
    "transposed alone": (transpose_alone, "gru: expected weights of shapes"),
    "empty": (set_entry(shape=[0, 2**31 - 1]), "expected"),
    "int32": (set_entry(dtype="int32"), "gru/kernel: expected float32, got 'int32'"),
    "string": (set_entry(dtype="string"), "gru/kernel: expected one of float32, int32 as dtype, got 'string'"),
    "no dtype": (set_entry(dtype=None), "gru/kernel: expected one of float32, int32 as dtype, got None"),
    "uint4": (set_entry(quantization={"dtype": "uint4"}), "gru/kernel: expected one of uint8, uint16, float16"),
    "infinite": (
        set_entry(quantization={"dtype": "uint8", "scale": float("inf"), "min": 0}),
        "gru/kernel: expected a finite number as its quantization's scale",
    ),
    "enormous": (
        set_entry(quantization={"dtype": "uint8", "scale": 10**400, "min": 0}),
        "gru/kernel: expected a finite number as its quantization's scale",
    ),
    "too large": (
        set_entry(quantization={"dtype": "uint8", "scale": 1e38, "min": 0}),
        "gru/kernel: expected quantised values that float32 can hold",
    ),
    "no minimum": (set_entry(quantization={"dtype": "uint8", "scale": 1}), "quantization's min, got None"),
    "foreign weight": (
        set_entry(name="lstm/kernel"),
        "expected weights of gru, bidirectional, dense, got 'lstm/kernel'",
    ),
    "deep name": (set_entry(name="gru/a/b/kernel"), "expected weights of"),
    "sideways": (set_entry(name="bidirectional/sideways_gru/kernel"), "expected weights of"),
    "same name": (duplicate, "expected different names, got 'gru/kernel' twice"),
    "same weight": (duplicate_by_cell, "expected kernel of gru once"),
    "same layer": (
        duplicate_layer,
        "weightsManifest: expected weights of gru, bidirectional, got 'gru/recurrent_kernel'",
    ),
    "forgotten": (forget_a_weight, "gru: expected its kernel among the weights"),
    "no manifest": (set_content(weightsManifest=None), "weightsManifest: expected a list of groups, got None"),
    "graph": (set_content(format="graph-model"), "format: expected 'layers-model'"),
    "topology": (set_content(modelTopology=[]), "expected an object"),
    "foreign layer": (lambda files: files.layers[0].update(class_name="LSTM"), "gru: expected a layer of GRU"),
    "no layers": (lambda files: files.layers.clear(), "the model has no layers"),
    "no shape": (lambda files: files.layers[0]["config"].pop("batch_input_shape"), "to have a batch_input_shape"),
    "negative shape": (set_gru(batch_input_shape=[None, -1, 5]), "input_shape: expected an integer of at least 1"),
    "huge units": (set_gru(units=10**12), "gru: expected weights of shapes"),
    "no units": (set_gru(units=0), "units: expected an integer of at least 1"),
    "dropout": (set_gru(dropout=float("nan")), "dropout"),
    "reset after": (set_gru(reset_after=True), "gru: expected reset_after=False in TensorFlow.js"),
    "activation": (set_gru(activation="selu"), "gru: expected one of tanh, relu, linear as activation, got 'selu'"),
    "constraint": (
        set_gru(kernel_constraint={"class_name": "MaxNorm"}),
        "gru: kernel_constraint={'class_name': 'MaxNorm'} is not supported",
    ),
    "frozen": (set_gru(trainable="no"), "gru: expected true or false as trainable, got 'no'"),
    "float64": (set_gru(dtype="float64"), "dtype"),
    "optimizer": (
        lambda files: files.content["trainingConfig"]["optimizer_config"].update(class_name="Adagrad"),
        "optimizer: expected one of Adam",
    ),
    "small letters": (
        lambda files: files.content["trainingConfig"]["optimizer_config"].update(class_name="adam"),
        "optimizer: expected one of Adam, SGD, Momentum, RMSProp",
    ),
    "rate": (set_optimizer(learning_rate=-1), "learning_rate"),
    "option": (set_optimizer(amsgrad=True), "optimizer: amsgrad=True of Adam is not supported by fastgru"),
    "training": (set_content(trainingConfig=[]), "trainingConfig: expected an object"),
    "loss": (lambda files: files.content["trainingConfig"].update(loss="hinge"), "loss: expected one of"),
    "two losses": (lambda files: files.content["trainingConfig"].update(loss=["mse", "mse"]), "loss: expected one"),
    "metric": (
        lambda files: files.content["trainingConfig"].update(metrics=["precision"]),
        "metrics: expected some of",
    ),
    "few moments": (forget_moments, "optimizer: expected 22 tensors besides the first, got 21"),
    "count": (count_in_float, "optimizer: expected the number of updates, an int32, first, got 'iter'"),
    "negative count": (count_backwards, "optimizer: expected the number of updates, an int32, first, got 'iter'"),
    "moment": (swap_moments, "gru/kernel/m: expected float32 (5, 18), got 'float32 (18, 5)'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_one_error_that_names_the_file(files, case):
    change, message = HOSTILE[case]
    change(files)
    files.save()
    with pytest.raises(ModelFileError) as caught:
        load_model(files.folder)
    assert str(caught.value).startswith(str(files.folder))
    assert message in str(caught.value)


def test_a_link_within_the_folder_is_followed(files):
    (files.folder / "link").symlink_to(files.group["paths"][0])
    files.group["paths"] = ["link"]
    np.testing.assert_array_equal(load_model(files.save()).parameters, make_model().parameters)


@pytest.mark.parametrize(
    "text",
    [
        b'{"modelTopology": ' + b"[" * 100_000,
        b'{"modelTopology": ' + b'{"model_config": ' * 900 + b"1" + b"}" * 901,
        b'{"modelTopology": {}, "x": ' + b"9" * 10_000 + b"}",
        b'{"modelTopology": {}}\xff',
        b'{"modelTopology"',
        b"[1]",
        b"",
    ],
    ids=["deep", "nested", "digits", "bytes", "cut", "list", "empty"],
)
def test_hostile_json_is_one_error(tmp_path, text):
    path = tmp_path / "model.json"
    path.write_bytes(text)
    for options in ({}, {"format": "tfjs"}):
        with pytest.raises(ModelFileError, match=re.escape(str(path))):
            load_model(path, **options)


def test_memory_is_bounded_by_the_file_s_size(files):
    """For any sizes in the file."""
    for layer in files.layers:
        layer["config"]["units"] = 10**7
    for entry in files.weights:
        entry["shape"] = [10**7] * len(entry["shape"])
    path = files.save()
    tracemalloc.start()
    with pytest.raises(ModelFileError):
        load_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def load_or_refuse(path):
    """Every file must give a model, or one error that names it."""
    try:
        assert isinstance(load_model(path, format="tfjs"), Sequential)
    except ModelFileError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    except OSError:
        pass


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untouched")
    make_model().save(folder / "model.json")
    files = Files(folder)
    files.places = [place for place in places(files.content) if place]
    return files


JSON = values(
    SCALARS | st.sampled_from(["GRU", "float32", "mse", "..", "gru/kernel", [None, 4, 5], 2**31 - 1]), max_leaves=5
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_json_in_place_of_any_other_is_a_model_or_one_error(untouched, data):
    place = data.draw(st.sampled_from(untouched.places))
    content = replaced(untouched.content, place, data.draw(JSON | st.just(LEFT_OUT)))
    file = untouched.folder / "changed.json"
    file.write_text(json.dumps(content))
    load_or_refuse(file)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_in_place_of_others_are_a_model_or_one_error(untouched, data):
    text = untouched.json.read_bytes()
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(begin + 20, len(text))) | st.just(len(text)))
    file = untouched.folder / "changed.json"
    file.write_bytes(text[:begin] + data.draw(st.binary(max_size=20)) + text[end:])
    load_or_refuse(file)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_weights_of_the_right_size_are_a_model(untouched, data):
    """Any bytes are valid floats; a wrong size is an error."""
    begin = data.draw(st.integers(0, len(untouched.data)))
    noise = data.draw(st.binary(max_size=64))
    size = data.draw(st.sampled_from([len(untouched.data), len(untouched.data) - 1, len(untouched.data) + 1]))
    content = copy.deepcopy(untouched.content)
    content["weightsManifest"][0]["paths"] = ["changed.bin"]
    changed = (untouched.data[:begin] + noise + untouched.data[begin + len(noise) :])[:size].ljust(size, b"\0")
    (untouched.folder / "changed.bin").write_bytes(changed)
    file = untouched.folder / "changed.json"
    file.write_text(json.dumps(content))
    load_or_refuse(file)
