"""`Input` as the first element of a model."""

from __future__ import annotations

import fastgru
import numpy as np
import pytest
from fastgru import Input, Sequential, layers

pytestmark = pytest.mark.isa_independent


@pytest.mark.parametrize(
    "declared",
    [
        Input((5, 3)),
        Input(shape=(5, 3), batch_size=4, dtype="float32"),
        layers.Input(batch_shape=(4, 5, 3)),
        layers.InputLayer([5, 3], name="samples"),
    ],
)
def test_an_input_gives_the_first_layer_its_shape(declared):
    fastgru.set_seed(1)
    model = Sequential([declared, layers.GRU(4), layers.Dense(2)])
    fastgru.set_seed(1)
    plain = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(2)])
    assert [layer.name for layer in model.layers] == ["gru", "dense"]
    assert model.input_shape == (None, 5, 3)
    np.testing.assert_array_equal(model.parameters, plain.parameters)
    assert repr(model) == repr(plain)


def test_an_input_may_be_added():
    model = Sequential()
    model.add(Input((None, 3)))
    assert model.layers == []
    assert not model.built
    model.add(layers.GRU(2))
    assert model.output_shape == (None, 2)


def test_tokens_and_stateful_models_have_inputs():
    model = Sequential([Input((None,), dtype="int32"), layers.Embedding(7, 3), layers.GRU(2)])
    assert model.predict(np.array([[1, 2, 6]])).shape == (1, 2)
    model = Sequential([Input(batch_shape=(2, 4, 1)), layers.GRU(2, stateful=True)])
    x = np.ones((2, 4, 1), np.float32)
    assert (model.predict(x) != model.predict(x)).any()


@pytest.mark.peers("keras")
@pytest.mark.parametrize("options", [{"shape": (4, 3)}, {"batch_shape": (2, None, 3)}, {"shape": (None, 3)}])
def test_shapes_are_those_of_keras(options):
    import keras

    theirs = keras.Sequential([keras.Input(**options), keras.layers.GRU(2, return_sequences=True)])
    ours = Sequential([Input(**options), layers.GRU(2, return_sequences=True)])
    assert ours.input_shape[1:] == theirs.input_shape[1:]
    assert ours.output_shape[1:] == theirs.output_shape[1:]
    assert len(ours.layers) == len(theirs.layers)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Input(), ValueError, "shape: expected one of shape and batch_shape, got neither"),
        (lambda: Input((3,), batch_shape=(1, 3)), ValueError, "shape: expected one of shape and batch_shape, got both"),
        (lambda: Input(batch_shape=(1, 3), batch_size=1), ValueError, "batch_size: expected None because batch_shape"),
        (lambda: Input(batch_shape=()), ValueError, "batch_shape: expected the batch axis first"),
        (lambda: Input((3, 0)), ValueError, "shape: expected an integer of at least 1, got 0"),
        (lambda: Input((3,), batch_size=0), ValueError, "batch_size: expected an integer of at least 1"),
        (lambda: Input((3,), dtype="string"), ValueError, "dtype: expected a numeric dtype .* got 'string'"),
        (lambda: Input((3,), sparse=True), ValueError, "sparse: expected none because inputs are NumPy arrays"),
        (lambda: Input((3,), tensor=np.ones(3)), ValueError, "tensor: expected none"),
        (lambda: Sequential(Input((3,))), TypeError, "layers: expected a list of layers, got a single InputLayer"),
        (lambda: Sequential([Input((3,)), Input((3,))]), ValueError, "an Input only as the first .* another Input"),
        (lambda: Sequential([layers.Dense(2), Input((3,))]), ValueError, "only as the first element, got one after de"),
        (
            lambda: Sequential([Input((3,)), layers.Dense(2, input_shape=(4,))]),
            ValueError,
            r"dense: expected input_shape \(3,\) because the Input gives that, got \(4,\)",
        ),
        (lambda: layers.GRU(2)(Input((3, 2))), TypeError, r"x: expected a NumPy array .* write Sequential\(\[Input"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_layer_that_does_not_fit_changes_nothing():
    model = Sequential([Input((3,))])
    layer = layers.GRU(2)
    with pytest.raises(ValueError, match=r"gru: expected input of shape \(N, T, F\)"):
        model.add(layer)
    assert layer.input_shape is None
    model.add(layers.Dense(2))
    assert model.input_shape == (None, 3)
