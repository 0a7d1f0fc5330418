"""RTNeural's JSON in both directions, compared with the Keras layers whose weights it contains; and hostile files."""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, layers, load_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_damage import places, replaced, values
from models import filled, pick, random_activation, random_dense

pytestmark = pytest.mark.isa_independent

F, T = 3, 6
NAME = "model.rtneural.json"


def gru(units=5, **options):
    return layers.GRU(units, return_sequences=True, **options)


# --- References ------------------------------------------------------------------------------------------------------


def run_by_keras(keras, path, x):
    """RTNeural's exporter writes the result of `get_weights` of Keras' layers; its own tests compare with Keras."""
    kind = keras.layers
    model = keras.Sequential([keras.Input(x.shape[1:])])
    for layer in json.loads(path.read_text())["layers"]:
        weights, activation, units = layer["weights"], layer["activation"] or None, layer["shape"][-1]
        match layer["type"]:
            case "gru":
                model.add(kind.GRU(units, return_sequences=True))
            case "activation":
                model.add(kind.Activation(activation))
            case _:
                model.add(kind.Dense(units, activation, use_bias=len(weights) == 2))
        model.layers[-1].set_weights([np.array(weight, np.float32) for weight in weights])
    return np.asarray(model(x))


@pytest.fixture
def judge(keras):
    """Return the outputs of Keras' layers for samples (N, T, F) with the weights of a file."""
    return functools.partial(run_by_keras, keras)


# --- Round trips -----------------------------------------------------------------------------------------------------


def random_model(seed):
    """A sequence of Dense layers, activations and GRUs, which is all that RTNeural supports."""
    rng = np.random.default_rng(seed)
    units = range(1, 7)
    stack = [layers.Dropout(0.5, input_shape=(None, F))]
    stack += [random_dense(rng, units) for _ in range(rng.integers(2))]
    stack += [gru(pick(rng, 1, 5, 8), use_bias=pick(rng, True, False)) for _ in range(rng.integers(1, 3))]
    stack += [random_activation(rng)] * int(pick(rng, 0, 0, 1))
    return filled([*stack, *(random_dense(rng, units) for _ in range(rng.integers(3)))], seed)


@pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")  # of a single unit, which models may have
@pytest.mark.parametrize("seed", range(25))
def test_keras_layers_with_the_files_weights_compute_what_the_model_does(seed, judge, tmp_path):
    model = random_model(seed)
    path = tmp_path / NAME
    model.save(path)
    x = np.random.default_rng(seed).normal(size=(2, T, F)).astype(np.float32)
    np.testing.assert_allclose(judge(path, x), model.predict(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(25))
def test_a_round_trip_is_exact(seed, tmp_path):
    model = random_model(seed)
    path = tmp_path / NAME
    model.save(path)
    x = np.random.default_rng(seed).normal(size=(2, T, F)).astype(np.float32)
    loaded = load_model(path)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    loaded.save(tmp_path / f"again.{NAME}")
    assert (tmp_path / f"again.{NAME}").read_text() == path.read_text()


@pytest.mark.parametrize("place", [0, 2])
def test_an_activation_without_a_dense_layer_before_it_is_a_layer(place, judge, tmp_path):
    what = content()
    del what["layers"][3], what["layers"][2]
    what["layers"][-1]["weights"] = [[[1.0], [2.0]], [0.5]]
    width = F if place == 0 else 2
    entry = {"type": "activation", "activation": "relu", "shape": [None, None, width], "weights": []}
    what["layers"].insert(place, entry)
    path = tmp_path / NAME
    path.write_text(json.dumps(what))
    model = load_model(path)
    assert [type(layer).__name__ for layer in model.layers].index("Activation") == place
    x = np.random.default_rng(0).normal(size=(2, T, F)).astype(np.float32)
    np.testing.assert_allclose(judge(path, x), model.predict(x), rtol=1e-5, atol=1e-6)


def test_the_file_is_what_its_reader_expects(tmp_path):
    path = tmp_path / NAME
    filled([gru(2, use_bias=False, input_shape=(None, 1)), layers.Dense(1, "tanh")]).save(path)
    content = json.loads(path.read_text())
    assert content["in_shape"] == [None, None, 1]
    shapes = [[np.shape(weight) for weight in layer.pop("weights")] for layer in content["layers"]]
    assert shapes == [[(1, 6), (2, 6), (2, 6)], [(2, 1), (1,)]]
    assert content["layers"] == [
        {"type": "gru", "activation": "tanh", "shape": [None, None, 2]},
        {"type": "dense", "activation": "tanh", "shape": [None, None, 1]},
    ]


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([layers.GRU(5)], "gru: return_sequences=False is not supported"),
        (
            [gru(reset_after=False)],
            "gru: reset_after=False is not supported by RTNeural's GRU, which",
        ),
        ([gru(activation="relu")], "gru: activation='relu'"),
        ([gru(recurrent_activation="hard_sigmoid")], "gru: recurrent_activation='hard_sigmoid'"),
        ([gru(go_backwards=True)], "gru: go_backwards=True"),
        ([gru(return_state=True)], "gru: return_state=True"),
        ([layers.Bidirectional(gru())], "bidirectional: Bidirectional is not supported"),
        ([gru(), layers.LastStep()], "last_step: LastStep is not supported"),
        ([gru(), layers.GlobalMaxPooling1D()], "global_max_pooling1d: GlobalMaxPooling1D is not supported"),
        ([layers.Masking()], "masking: Masking is not supported"),
        ([layers.Dropout(0.5)], "expected a GRU or a Dense, got neither"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_said_is_refused_before_anything_is_written(stack, message, tmp_path):
    model = Sequential(stack)
    model.build((None, None, F))
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


def test_float64_and_numbers_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype='float64' is not supported by RTNeural"):
        filled([gru(input_shape=(None, F))], dtype="float64").save(tmp_path / NAME)
    model = filled([gru(input_shape=(None, F))])
    model.layers[0].parameters["bias"][0, 0] = np.inf
    with pytest.raises(ValueError, match="gru: bias contains numbers that are not finite"):
        model.save(tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


# --- Reading ---------------------------------------------------------------------------------------------------------


def content():
    """RTNeural's export of a Keras model: separate activations, TimeDistributed, a Dense without bias."""
    rng = np.random.default_rng(0)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32).tolist()

    def layer(kind, activation, units, *weights):
        return {"type": kind, "activation": activation, "shape": [None, None, units], "weights": list(weights)}

    return {
        "in_shape": [None, None, F],
        "layers": [
            layer("time-distributed-dense", "tanh", 4, numbers(F, 4), numbers(4)),
            layer("gru", "tanh", 2, numbers(4, 6), numbers(2, 6), numbers(2, 6)),
            layer("dense", "", 3, numbers(2, 3)),
            layer("activation", "softmax", 3),
            layer("dense", "", 1, numbers(3, 1), numbers(1)),
        ],
    }


def load(what, folder):
    path = Path(folder) / NAME
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return load_model(path, format="rtneural")


def test_what_keras_users_export_is_read(judge, tmp_path):
    model = load(content(), tmp_path)
    assert [layer.name for layer in model.layers] == ["dense", "gru", "dense_1", "dense_2"]
    assert model.input_shape == (None, None, F)
    x = np.random.default_rng(1).normal(size=(1, T, F)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), judge(tmp_path / NAME, x), rtol=1e-5, atol=1e-6)


def test_dense_layers_alone_take_single_samples(tmp_path):
    what = content()
    what["in_shape"] = [None, F]
    del what["layers"][1:]
    assert load(what, tmp_path).input_shape == (None, F)


def entry(number, **changes):
    def change(what):
        what["layers"][number].update(changes)

    return change


def weight(number, place, value):
    def change(what):
        what["layers"][number]["weights"][place] = value

    return change


HOSTILE = {
    "lstm": (entry(1, type="lstm"), r"layer 1 \('lstm'\): expected gru, dense"),
    "conv1d": (entry(0, type="conv1d"), r"layer 0 \('conv1d'\): expected gru, dense"),
    "type": (entry(0, type=["dense"]), "expected gru, dense"),
    "elu": (entry(3, activation="elu"), r"layer 3 \('activation'\): expected an activation of tanh, .*got 'elu'"),
    "relu gru": (entry(1, activation="relu"), "expected activation tanh, which is what RTNeural computes"),
    "activation": (entry(0, activation={}), "expected an activation"),
    "units": (entry(1, shape=[None, None, 10**30]), "expected kernel to be nested lists of shape"),
    "units 0": (entry(1, shape=[0]), "ends in the number of units"),
    "units bool": (entry(1, shape=[True]), "ends in the number of units"),
    "units text": (entry(1, shape="22"), "ends in the number of units"),
    "one bias": (weight(1, 2, [0.0] * 6), r"expected bias to be nested lists of shape \(2, 6\)"),
    "ragged": (weight(1, 0, [[1.0] * 6] * 3 + [[1.0] * 5]), "expected kernel to be nested lists"),
    "deep": (weight(0, 1, [[1.0]] * 4), "expected bias to consist of numbers"),
    "text": (weight(0, 1, ["1"] * 4), "expected bias to consist of numbers"),
    "bool": (weight(0, 1, [True] * 4), "expected bias to consist of numbers"),
    "null": (weight(0, 1, None), "expected bias to be nested lists"),
    "NaN": (weight(0, 1, [float("nan")] * 4), "expected bias to be in the range of float32"),
    "infinite": (weight(0, 1, [float("inf")] * 4), "expected bias to be in the range of float32"),
    "too large": (weight(0, 1, [1e39] * 4), "expected bias to be in the range of float32"),
    "far too large": (weight(0, 1, [10**400] * 4), "too large"),
    "no weights": (entry(1, weights=[]), "expected kernel, recurrent kernel and two biases, got 0"),
    "weights": (entry(1, weights={"a": 1}), "a list of weights"),
    "a layer missing": (lambda what: what["layers"].pop(0), "expected kernel to be nested lists of shape"),
    "no layers": (lambda what: what.update(layers=[]), "expected layers, got none"),
    "layers": (lambda what: what.update(layers={}), "layers: expected a list"),
    "layer": (lambda what: what["layers"].insert(0, 7), "layer 0: expected an object, got 7"),
    "no type": (lambda what: what["layers"][0].pop("type"), "expected an entry 'type', which is missing"),
    "no in_shape": (lambda what: what.pop("in_shape"), "expected an entry 'in_shape', which is missing"),
    "in_shape": (lambda what: what.update(in_shape=[None, None, "3"]), "in_shape: expected sizes"),
    "flat in_shape": (lambda what: what.update(in_shape=3), "in_shape: expected batch"),
    "picture": (lambda what: what.update(in_shape=[None, None, 2, 3]), "in_shape: expected batch"),
    "gru of samples": (lambda what: what.update(in_shape=[None, F]), r"expected input of shape \(N, T, F\)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_model_here_is_refused_by_name(name, tmp_path):
    change, message = HOSTILE[name]
    what = content()
    change(what)
    with pytest.raises(ModelFileError, match=message) as caught:
        load(what, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / NAME))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"layers": ' + "[" * 100_000, "\x00\xff"])
def test_no_json_of_a_model(text, tmp_path):
    with pytest.raises(ModelFileError, match=r"rtneural\.json"):
        load(text, tmp_path)


PLACES = [path for path in places(content()) if path]


@given(st.sampled_from(PLACES), values())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_anywhere_is_an_error_or_a_model(path, value):
    what = replaced(content(), path, value)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ModelFileError):
        assert isinstance(load(what, folder), Sequential)


@given(st.integers(0, 2**16), st.binary(max_size=6), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_an_error_or_a_model(place, more, cut):
    data = json.dumps(content()).encode()
    place %= len(data)
    data = data[:place] + more + (b"" if cut else data[place + len(more) :])
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ModelFileError):
        path = Path(folder) / NAME
        path.write_bytes(data)
        assert isinstance(load_model(path, format="rtneural"), Sequential)
