"""Stateful layers in training: complete batches only, and their states in files."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, layers, load_model
from fastgru._training import loop
from fastgru.formats import native
from models import classifier, samples

data = functools.partial(samples, count=60, steps=6)
make_model = functools.partial(classifier, stateful=True)


def states_of(model):
    return {name: state.copy() for name, state in model.get_states().items()}


def assert_same_states(model, expected):
    assert model.get_states().keys() == expected.keys()
    for name, state in model.get_states().items():
        np.testing.assert_array_equal(state, expected[name])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stateful_batch_is_not_split(monkeypatch, bidirectional):
    """Each row continues from its own state, so a batch is computed as a whole, however large its tape is."""
    x, y = data()
    whole, large = make_model(bidirectional=bidirectional), make_model(bidirectional=bidirectional)
    whole.train_on_batch(x, y)
    monkeypatch.setattr(loop, "LEAST_ROWS", 5)
    monkeypatch.setattr(loop, "CACHED_TAPE", 16000)
    large.train_on_batch(x, y)
    assert_same_states(large, states_of(whole))
    np.testing.assert_array_equal(large.parameters, whole.parameters)


def test_a_nonfinite_loss_restores_the_states_before_its_batch():
    x, y = data()
    model = make_model()
    model.train_on_batch(x, y)
    weights, states = model.parameters.copy(), states_of(model)
    x[7, 2, 1] = np.nan
    with pytest.raises(FloatingPointError):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.parameters, weights)
    assert_same_states(model, states)


def test_a_nonfinite_loss_in_the_first_batch_leaves_no_states():
    x, y = data()
    model = make_model()
    with pytest.raises(FloatingPointError):
        model.train_on_batch(np.where(x > 2, np.nan, x), y)
    assert not model.get_states()


# --- Files and copies ------------------------------------------------------------------------------------------


class Named(Sequential):
    """A user-defined class with its own constructor."""

    def __init__(self, units):
        self.first = layers.GRU(units, input_shape=(None, 3))
        self.words = ["a", "b"]
        super().__init__([self.first, layers.Dense(2, activation="softmax")])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_of_the_same_class(again):
    x, y = data()
    model = Named(4)
    model.compile("adam", "categorical_crossentropy")
    model.train_on_batch(x, y)
    other = again(model)
    assert type(other) is Named
    assert other.first is other.layers[0]
    assert other.words == model.words
    assert other.words is not model.words
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


def saved_and_loaded(model, folder):
    model.save(folder / "m.safetensors")
    return load_model(folder / "m.safetensors")


@pytest.mark.parametrize(
    "again",
    [saved_and_loaded, lambda model, _: copy.deepcopy(model), lambda model, _: pickle.loads(pickle.dumps(model))],
    ids=["file", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_are_saved_with_the_model(again, tmp_path, bidirectional):
    x, y = data()
    model = make_model(bidirectional=bidirectional)
    model.train_on_batch(x, y)
    other = again(model, tmp_path)
    assert_same_states(other, states_of(model))
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    for each in (model, other):
        each.reset_states()
    np.testing.assert_array_equal(other.predict(x[:5]), model.predict(x[:5]))


@pytest.mark.parametrize(
    "states",
    [
        {"gru/state": np.zeros((3, 5), np.float32)},
        {"gru/state": np.zeros(4, np.float32)},
        {"gru/state": np.zeros((3, 4), np.float64)},
        {"gru/other": np.zeros((3, 4), np.float32)},
        {"dense/state": np.zeros((3, 4), np.float32)},
        {"nowhere/state": np.zeros((3, 4), np.float32)},
    ],
)
def test_states_of_the_wrong_shape_raise(tmp_path, states):
    path = tmp_path / "m.safetensors"
    make_model().save(path)
    config, tensors = native.load(path)
    native.save(path, config, tensors | {f"states/{name}": state for name, state in states.items()})
    with pytest.raises(ModelFileError, match="not a model that this version of fastgru supports"):
        load_model(path)
