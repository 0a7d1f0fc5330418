"""Frozen layers: training changes the trainable weights only."""

from __future__ import annotations

import copy
import pickle

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model, optimizers

X = np.random.default_rng(0).normal(size=(12, 5, 3)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 7, (12, 5))
Y = np.random.default_rng(2).normal(size=(12, 2)).astype(np.float32)


def stack(tokens=False, **options):
    """Layers of every kind with weights, with regularizers."""
    first = [layers.Embedding(7, 3, input_shape=(5,), name="first")] if tokens else []
    return [
        *first,
        layers.GRU(4, return_sequences=True, kernel_regularizer="l2", input_shape=(5, 3), name="gru", **options),
        layers.Bidirectional(layers.GRU(3, recurrent_regularizer="l1"), name="both"),
        layers.Dense(4, "tanh", kernel_regularizer="l2", name="hidden"),
        layers.Dense(2, name="out"),
    ]


def make(frozen=("gru",), *, tokens=False, optimizer=None, compiled=True, **options):
    fastgru.set_seed(1)
    model = Sequential(stack(tokens, **options))
    for name in frozen:
        part, _, direction = name.partition("/")
        layer = model.get_layer(part)
        (getattr(layer, direction) if direction else layer).trainable = False
    if compiled:
        model.compile(optimizer or optimizers.AdamW(0.05, global_clipnorm=0.5), "mse", metrics=["mae"])
    return model


def named(model):
    return {variable.path: variable.numpy() for variable in model.weights}


def frozen_paths(model):
    return {variable.path for variable in model.non_trainable_weights}


FROZEN = {
    "first": ("gru",),
    "middle": ("both",),
    "last": ("out",),
    "all but the last": ("gru", "both", "hidden"),
    "one direction": ("both/forward_layer",),
    "two apart": ("gru", "hidden"),
}
OPTIMIZERS = {
    "adamw": lambda of: of.AdamW(0.05, weight_decay=0.1, global_clipnorm=0.5),
    "sgd": lambda of: of.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda of: of.RMSprop(0.01, centered=True, clipvalue=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", FROZEN)
def test_two_steps_are_those_of_keras(case, optimizer, keras):
    ours = make(FROZEN[case], compiled=False)
    theirs = keras.models.model_from_json(ours.to_json())
    theirs.set_weights(ours.get_weights())
    before = named(ours)
    ours.compile(OPTIMIZERS[optimizer](optimizers), "mse")
    theirs.compile(OPTIMIZERS[optimizer](keras.optimizers), "mse", run_eagerly=True)
    for _ in range(2):
        assert ours.train_on_batch(X, Y) == pytest.approx(theirs.train_on_batch(X, Y), rel=1e-5)
    assert ours.evaluate(X, Y) == pytest.approx(theirs.evaluate(X, Y, verbose=0), rel=1e-5)
    assert frozen_paths(ours)
    for path, weight, other in zip(before, ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-4, atol=2e-6, err_msg=path)
        assert np.array_equal(weight, before[path]) == (path in frozen_paths(ours)), path


def test_a_frozen_embedding_is_that_of_keras(keras):
    ours = make(("first",), tokens=True, compiled=False)
    theirs = keras.models.model_from_json(ours.to_json())
    theirs.set_weights(ours.get_weights())
    ours.compile("rmsprop", "mse")
    theirs.compile("rmsprop", "mse", run_eagerly=True)
    for _ in range(2):
        assert ours.train_on_batch(TOKENS, Y) == pytest.approx(theirs.train_on_batch(TOKENS, Y), rel=1e-5)
    np.testing.assert_array_equal(ours.get_weights()[0], theirs.get_weights()[0])


@pytest.mark.parametrize("case", FROZEN)
def test_frozen_weights_keep_their_bits_and_states(case):
    model = make(())
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    before, (_, states) = named(model), model.optimizer.get_state()
    states = {name: model._network.views(state.copy()) for name, state in states.items()}
    for name in FROZEN[case]:
        part, _, direction = name.partition("/")
        layer = model.get_layer(part)
        (getattr(layer, direction) if direction else layer).trainable = False
    model.compile(model.optimizer, "mse")
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    after, (step, moved) = named(model), model.optimizer.get_state()
    assert step == 12
    for path, weight in after.items():
        kept = path in frozen_paths(model)
        assert np.array_equal(weight, before[path]) == kept, path
        for name, state in moved.items():
            assert np.array_equal(model._network.views(state)[path], states[name][path]) == kept, path
        if kept:
            assert not model._network.views(model.gradient)[path].any()


def test_freezing_and_unfreezing_all_changes_no_bit_of_training():
    plain, toggled = make(()), make(("gru", "both"))
    toggled.trainable = True
    toggled.compile(optimizers.AdamW(0.05, global_clipnorm=0.5), "mse", metrics=["mae"])
    for model in (plain, toggled):
        model.fit(X, Y, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(plain.parameters, toggled.parameters)


def test_layers_below_the_first_trainable_one_get_no_backward_pass(monkeypatch):
    model = make(("gru", "both"))
    called = []
    for layer in model.layers:
        original = layer.backward
        monkeypatch.setattr(
            layer, "backward", lambda *a, _f=original, _n=layer.name, **o: [called.append(_n), _f(*a, **o)][1]
        )
    model.train_on_batch(X, Y)
    assert "hidden" in called
    assert {"gru", "both"}.isdisjoint(called)


def test_the_first_training_after_compile_decides():
    model = make(())
    model.layers[0].trainable = False  # after compile, before the first training: as in Keras, it counts
    before = model.layers[0].get_weights()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before[0], model.layers[0].get_weights()[0])
    model.layers[0].trainable = True
    with pytest.warns(
        UserWarning, match=r"trainable: changed after the first training call .* call compile\(\) after changing it"
    ):
        model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before[0], model.layers[0].get_weights()[0])
    model.compile("sgd", "mse")
    model.train_on_batch(X, Y)
    assert not np.array_equal(before[0], model.layers[0].get_weights()[0])


def test_keras_decides_at_the_same_time(keras):
    model = keras.models.model_from_json(make((), compiled=False).to_json())
    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    model.layers[0].trainable = True
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_a_model_without_trainable_weights_warns_and_stays():
    model = make(())
    model.trainable = False
    model.compile("adam", "mse")
    before = model.parameters.copy()
    with pytest.warns(UserWarning, match="does not have any trainable weights") as warned:
        history = model.fit(X, Y, verbose=0)
    assert warned[0].filename == __file__
    np.testing.assert_array_equal(model.parameters, before)
    assert model.optimizer.step == 0
    expected = np.mean((model.predict(X) - Y) ** 2, dtype=np.float64)  # regularizers of frozen weights do not count
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-6)


def test_a_model_made_frozen_has_no_trainable_weights():
    model = Sequential([layers.Dense(2, input_shape=(3,))], trainable=False)
    assert (model.trainable_weights, len(model.non_trainable_weights)) == ([], 2)
    assert model.layers[0].trainable
    assert not copy.deepcopy(model).trainable
    model.trainable = True
    assert len(model.trainable_weights) == 2


def test_assigning_trainable_sets_the_layers_within():
    both = layers.Bidirectional(layers.GRU(2))
    both.trainable = False
    assert not both.forward_layer.trainable
    assert not both.backward_layer.trainable
    assert not layers.Bidirectional(layers.GRU(2, trainable=False)).backward_layer.trainable


@pytest.mark.parametrize("make_optimizer", [*OPTIMIZERS.values(), lambda of: of.Adam(0.1, clipvalue=0.2)])
def test_an_update_of_ranges_is_that_of_each_part(make_optimizer):
    rng = np.random.default_rng(0)
    parameters, gradient = (rng.normal(size=96).astype(np.float32) for _ in range(2))
    ranges = [slice(0, 16), slice(48, 80)]
    outside = np.r_[16:48, 80:96]
    gradient[outside] = 0
    whole = make_optimizer(optimizers)
    whole.global_clipnorm = None
    parts = [copy.deepcopy(whole) for _ in ranges]
    expected = parameters.copy()
    for _ in range(2):
        whole.update(parameters, gradient, ranges=ranges)
        for part, place in zip(parts, ranges, strict=True):
            part.update(expected[place], gradient[place])
    np.testing.assert_array_equal(parameters, expected)
    for name, state in whole.states.items():
        assert not state[outside].any()
        for part, place in zip(parts, ranges, strict=True):
            np.testing.assert_array_equal(state[place], part.states[name])


def test_an_update_that_fails_in_a_later_range_changes_nothing():
    parameters, gradient = np.ones(64, np.float32), np.zeros(64, np.float32)
    gradient[:16], gradient[40] = 1, 3e38
    optimizer = optimizers.SGD(10.0, momentum=0.9)
    optimizer.update(parameters, gradient / np.float32(3e38))
    before, (_, states) = parameters.copy(), optimizer.get_state()
    kept = states["m"].copy()
    with pytest.raises(FloatingPointError, match="overflow"):
        optimizer.update(parameters, gradient, ranges=[slice(0, 16), slice(32, 48)])
    np.testing.assert_array_equal(parameters, before)
    np.testing.assert_array_equal(optimizer.states["m"], kept)
    assert optimizer.step == 1


# --- Files and copies -------------------------------------------------------------------------------------------------


def trained(frozen=("gru", "both/forward_layer"), **options):
    model = make(frozen, optimizer=optimizers.Adam(0.01, form=options.pop("form", "keras")), **options)
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    return model


def twins(model, other):
    """Whether two models are frozen alike, and train on alike."""
    assert [each.trainable for each in other.weights] == [each.trainable for each in model.weights]
    for each in (model, other):
        each.fit(X, Y, epochs=1, batch_size=4, verbose=0, shuffle=False)
    return np.array_equal(model.parameters, other.parameters)


@pytest.mark.parametrize("copied", ["file", "deepcopy", "pickle"])
def test_copies_and_own_files_are_frozen_alike(copied, tmp_path):
    model = trained()
    if copied == "file":
        model.save(tmp_path / "m.safetensors")
        other = load_model(tmp_path / "m.safetensors")
    else:
        other = copy.deepcopy(model) if copied == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert twins(model, other)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_keras_files_are_frozen_alike(name, tmp_path):
    pytest.importorskip("h5py")
    model = trained()
    model.save(tmp_path / name)
    assert twins(model, load_model(tmp_path / name))


def test_files_of_tensorflow_js_are_frozen_alike(tmp_path):
    model = trained(("gru",), form="tfjs", reset_after=False)
    both = layers.Bidirectional(layers.GRU(3, reset_after=False), name="both")
    model = Sequential([layers.GRU(4, reset_after=False, return_sequences=True, input_shape=(5, 3)), both])
    model.layers[0].trainable = False
    model.compile(optimizers.Adam(0.01, form="tfjs"), "mse")
    y = np.ones((12, 6), np.float32)
    model.fit(X, y, batch_size=4, verbose=0)
    model.save(tmp_path / "model.json")
    other = load_model(tmp_path / "model.json")
    assert [each.trainable for each in other.weights] == [each.trainable for each in model.weights]
    for each in (model, other):
        each.fit(X, y, batch_size=4, verbose=0, shuffle=False)
    np.testing.assert_array_equal(model.parameters, other.parameters)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' variables
def test_keras_trains_on_from_a_file_with_frozen_layers(keras, tmp_path):
    model = trained(("gru", "both"))
    model.save(tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    assert [layer.trainable for layer in theirs.layers] == [False, False, True, True]
    for _ in range(2):
        model.train_on_batch(X, Y)
        theirs.train_on_batch(X, Y)
    for one, other in zip(model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)
    theirs.save(tmp_path / "theirs.keras")
    again = load_model(tmp_path / "theirs.keras")
    assert twins(again, load_model(tmp_path / "theirs.keras"))
    assert again.optimizer.step == model.optimizer.step + 3


def test_training_is_resumed_with_frozen_layers(tmp_path):
    whole, first, second, other = make(), make(), make(), make(())
    whole.fit(X, Y, epochs=4, batch_size=4, verbose=0)
    path = tmp_path / "c.safetensors"
    first.fit(X, Y, epochs=2, batch_size=4, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)])
    given = {"epochs": 4, "batch_size": 4, "verbose": 0, "resume_from": path}
    second.fit(X, Y, callbacks=[callbacks.ModelCheckpoint(path)], **given)
    np.testing.assert_array_equal(second.parameters, whole.parameters)
    with pytest.raises(ValueError, match="resume_from: expected a model with the same"):
        other.fit(X, Y, callbacks=[callbacks.ModelCheckpoint(path)], **given)
