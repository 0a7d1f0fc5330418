"""Parameters of layers that Keras has and fastgru ignores or refuses."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from fastgru import Sequential, layers

pytestmark = pytest.mark.isa_independent


@pytest.mark.parametrize(
    "make",
    [
        lambda kind: kind.GRU(3, unroll=True, use_cudnn=False, seed=4, kernel_constraint=None),
        lambda kind: kind.GRU(3, "relu", "sigmoid", False, "he_uniform", "glorot_uniform", "zeros", "l2"),
        lambda kind: kind.Dense(3, "relu", False, "zeros"),
        lambda kind: kind.Dropout(0.5, None, 3),
        lambda kind: kind.GlobalAveragePooling1D("channels_last", False),
        lambda kind: kind.Bidirectional(kind.GRU(3), "sum", None, kind.GRU(3, go_backwards=True)),
    ],
)
def test_options_that_change_nothing_are_accepted(make, keras):
    x = np.ones((2, 4, 3), np.float32)
    make(keras.layers)(x)
    layer = make(layers)
    layer(x)
    again = eval(repr(layer), vars(layers) | vars(importlib.import_module("fastgru.regularizers")))
    assert again.options() == layer.options()
    assert not {"seed", "unroll", "use_cudnn", "kernel_constraint", "data_format", "weights"} & layer.options().keys()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layers.GRU(2, kernel_constraint="max_norm"), ValueError, "got 'max_norm'; use a regularizer, or"),
        (lambda: layers.GRU(2, activity_regularizer="l2"), ValueError, "activity_regularizer: .* use kernel_regular"),
        (lambda: layers.GRU(2, unroll=1), ValueError, "unroll: expected False or True .* got 1"),
        (lambda: layers.Dropout(0.5, (None, 1, 2)), ValueError, "noise_shape: .* use SpatialDropout1D"),
        (lambda: layers.Dropout(0.5, seed="a"), TypeError, "seed: expected an integer, got 'a'"),
        (lambda: layers.Flatten("channels_first"), ValueError, "data_format: .* transpose the data"),
        (lambda: layers.GlobalMaxPooling1D(keepdims=True), ValueError, "keepdims: .* add a Reshape"),
        (lambda: layers.Bidirectional(layers.GRU(2), "sum", [1]), ValueError, "weights: .* call set_weights once"),
        (
            lambda: layers.Embedding(3, 2, weights=np.ones((2, 3))),
            ValueError,
            r"weights: expected numbers of shape \(3, 2",
        ),
        (lambda: layers.Softmax(1), ValueError, "axis: expected -1 because softmax is over the last axis"),
        (lambda: layers.ReLU(6.0), ValueError, "max_value: expected None because .* got 6.0"),
        (lambda: layers.ReLU(negative_slope=0.1), ValueError, "negative_slope: expected 0"),
    ],
)
def test_options_that_are_not_supported_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("given", [lambda table: table, lambda table: [table], lambda table: table.tolist()])
def test_an_embedding_begins_with_given_vectors(given):
    table = np.arange(6.0).reshape(3, 2)
    model = Sequential([layers.Embedding(3, 2, weights=given(table), input_length=4, input_shape=(None,))])
    np.testing.assert_array_equal(model.get_weights()[0], table.astype(np.float32))
    np.testing.assert_array_equal(model.predict(np.array([[2, 0]]))[0], table[[2, 0]])


def test_softmax_and_relu_are_activations():
    assert layers.Softmax(name="s").options() == layers.Activation("softmax").options()
    assert layers.ReLU().options() == layers.Activation("relu").options()
