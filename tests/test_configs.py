"""Configurations of layers and models, here and in Keras."""

from __future__ import annotations

import json

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, initializers, layers, models, regularizers

X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
LAYERS = {
    "GRU": layers.GRU(
        4, "relu", "hard_sigmoid", kernel_initializer="he_normal", bias_initializer=initializers.Constant(0.5),
        recurrent_initializer="identity", kernel_regularizer="l1", recurrent_regularizer=regularizers.L1L2(0.1, 0.2),
        dropout=0.1, recurrent_dropout=0.2, return_sequences=True, go_backwards=True, reset_after=False, name="mine",
        zero_output_for_mask=True, use_bias=False, trainable=False,
    ),
    "GRU stateful": layers.GRU(2, stateful=True),
    "Bidirectional": layers.Bidirectional(  # Keras sets zero_output_for_mask within it
        layers.GRU(4, return_sequences=True, zero_output_for_mask=True), "sum", name="both"
    ),
    "Bidirectional of two": layers.Bidirectional(
        layers.GRU(3, trainable=False), None, backward_layer=layers.GRU(3, "linear", go_backwards=True)
    ),
    "Dense": layers.Dense(3, "softmax", use_bias=False, kernel_initializer=initializers.RandomNormal(0.0, 0.1)),
    "Embedding": layers.Embedding(
        7, 3, mask_zero=True, embeddings_regularizer="l2", embeddings_initializer="random_uniform"
    ),
    "Activation": layers.Activation("tanh"),
    "Masking": layers.Masking(-1.0),
    "Dropout": layers.Dropout(0.25),
    "Flatten": layers.Flatten(),
    "GlobalAveragePooling1D": layers.GlobalAveragePooling1D(),
    "GlobalMaxPooling1D": layers.GlobalMaxPooling1D(),
    "Permute": layers.Permute((2, 1)),
    "RepeatVector": layers.RepeatVector(3),
    "Rescaling": layers.Rescaling(1 / 255, 0.5),
    "Reshape": layers.Reshape((-1, 2)),
    "SpatialDropout1D": layers.SpatialDropout1D(0.25),
    "TimeDistributed": layers.TimeDistributed(layers.GRU(3, use_bias=False)),
    "TimeDistributed frozen": layers.TimeDistributed(layers.Dense(3), trainable=False),
}  # fmt: skip
#: What Keras lacks.
OWN = {"LastStep": layers.LastStep(name="end"), "gates": layers.GRU(3, recurrent_activation="hard_sigmoid_tfjs")}


@pytest.mark.parametrize("name", [*LAYERS, *OWN])
def test_a_layer_is_made_again_from_its_configuration(name):
    layer = (LAYERS | OWN)[name]
    config = layer.get_config()
    again = type(layer).from_config(json.loads(json.dumps(config)))
    assert again.options() == layer.options()
    assert again.trainable == layer.trainable
    assert again.get_config() == config
    assert again.name == (layer.name or layer.kind())


@pytest.mark.parametrize("name", LAYERS)
def test_kerass_layer_has_the_same_configuration(name, keras):
    layer = LAYERS[name]
    theirs = getattr(keras.layers, type(layer).__name__).from_config(layer.get_config())
    again = type(layer).from_config(theirs.get_config())
    assert again.options() == layer.options()
    assert (again.name, again.trainable) == (theirs.name, theirs.trainable)


def test_every_layer_has_a_configuration():
    named = {type(layer).__name__ for layer in (LAYERS | OWN).values()}
    concrete = {name for name in layers.__all__ if name in layers.LAYERS}
    assert concrete == named


def test_configurations_of_kerass_defaults_are_kerass(keras):
    for theirs in (keras.layers.GRU(3), keras.layers.Dense(3), keras.layers.Embedding(3, 2), keras.layers.Dropout(0.1)):
        ours = getattr(layers, type(theirs).__name__).from_config(theirs.get_config())
        config = ours.get_config()
        again = type(theirs).from_config(config).get_config()
        assert again == theirs.get_config()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"units": 3, "kernel_constraint": "MaxNorm"}, ValueError, "kernel_constraint='MaxNorm' is not supported"),
        ({"units": 3, "activation": "elu"}, ValueError, "expected one of .* as activation, got 'elu'"),
        ({"units": 3, "kernel_initializer": "he_strange"}, ValueError, "kernel_initializer='he_strange' is not supp"),
        ({"units": 3, "trainable": "no"}, ValueError, "expected true or false as trainable"),
        ({"units": 3, "dtype": "float16"}, ValueError, "expected float32 or float64 as dtype"),
        ({}, ValueError, "expected units, got none"),
        ([3], TypeError, "config: expected a dict, got list"),
        ({"units": {1, 2}}, ValueError, "config: expected values that JSON supports"),
    ],
)
def test_what_a_layer_does_not_support_is_refused(config, error, message):
    with pytest.raises(error, match=message):
        layers.GRU.from_config(config)


def test_a_layer_of_another_class_has_no_configuration():
    class Own(layers.Layer):
        def build(self, input_shape):
            return input_shape

        def forward(self, x, *, lengths=None, training=False):
            return x

        def backward(self, d_y, *, input_gradient):
            return d_y

    class Wide(layers.GRU):
        pass

    with pytest.raises(NotImplementedError, match=r"get_config is not defined because Own .* define get_config"):
        Own().get_config()
    assert type(Wide.from_config(Wide(3).get_config())) is Wide


# --- Models -----------------------------------------------------------------------------------------------------------


def model(*more, built=True):
    first = layers.GRU(4, return_sequences=True, name="first", **({"input_shape": (None, 3)} if built else {}))
    made = Sequential([first, layers.Bidirectional(layers.GRU(3)), *more, layers.Dense(2, "softmax")], name="mine")
    made.layers[1].trainable = False
    return made


def same(one, other):
    assert (one.name, one.built, one.input_shape, one.dtype) == (
        other.name,
        other.built,
        other.input_shape,
        other.dtype,
    )
    assert [(type(layer), layer.name, layer.options()) for layer in one.layers] == [
        (type(layer), layer.name, layer.options()) for layer in other.layers
    ]


@pytest.mark.parametrize("built", [True, False])
def test_a_model_is_made_again_from_its_configuration(built):
    made = model(built=built)
    same(made, Sequential.from_config(made.get_config()))
    same(made, models.model_from_json(made.to_json()))


def test_what_only_this_package_has_is_in_a_models_configuration():
    made = Sequential(
        [
            layers.Masking(2.0, input_shape=(None, 3)),
            layers.GRU(3, recurrent_activation="hard_sigmoid_tfjs", return_sequences=True),
            layers.LastStep(),
            layers.Dense(2),
            layers.Activation("relu"),
        ]
    )
    same(made, Sequential.from_config(made.get_config()))


def test_a_configuration_has_no_weights_and_the_weights_are_new():
    made = model()
    again = Sequential.from_config(made.get_config())
    assert not np.array_equal(again.parameters, made.parameters)
    assert again.optimizer is None


@pytest.mark.parametrize("way", ["json", "config"])
def test_keras_makes_the_same_model(way, keras):
    made = model(layers.Dropout(0.5))
    if way == "json":
        theirs = keras.models.model_from_json(made.to_json())
        again = models.model_from_json(theirs.to_json())
    else:
        theirs = keras.Sequential.from_config(made.get_config())
        again = Sequential.from_config(theirs.get_config())
    theirs.set_weights(made.get_weights())
    np.testing.assert_allclose(made(X), theirs(X), rtol=1e-5, atol=1e-6)
    assert [layer.trainable for layer in theirs.layers] == [layer.trainable for layer in made.layers]
    again.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(again(X), made(X))
    assert [layer.options() for layer in again.layers] == [layer.options() for layer in made.layers]


def test_json_of_keras_2_is_read_in_its_dialect():
    gru = {"class_name": "GRU", "config": {"name": "g", "units": 2, "recurrent_activation": "hard_sigmoid",
                                           "reset_after": True, "batch_input_shape": [None, 5, 3]}}  # fmt: skip
    text = {"class_name": "Sequential", "config": {"name": "old", "layers": [gru]}, "keras_version": "2.15.0"}
    assert models.model_from_json(json.dumps(text)).layers[0].recurrent_activation == "hard_sigmoid_tfjs"
    del text["keras_version"]
    assert models.model_from_json(json.dumps(text)).layers[0].recurrent_activation == "hard_sigmoid"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: models.model_from_json("{"), ValueError, "json_string: invalid JSON"),
        (lambda: models.model_from_json(3), TypeError, "json_string: expected str or bytes, got int"),
        (lambda: models.model_from_json("[]"), ValueError, "json_string: expected an object"),
        (lambda: Sequential.from_config({"layers": []}), ValueError, "the model has no layers"),
        (lambda: Sequential.from_config([]), TypeError, "config: expected a dict, got list"),
        (lambda: Sequential.from_config({}, {"Own": object}), ValueError, "custom_objects: expected None .* got Own"),
        (lambda: models.load_model("none.keras", {"Own": object}), ValueError, "custom_objects: expected None"),
        (lambda: models.clone_model(3), TypeError, "model: expected a Sequential, got int"),
        (lambda: models.clone_model(model(), [X]), ValueError, "input_tensors: expected None"),
    ],
)
def test_wrong_configurations_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_clone_has_the_same_layers_and_new_weights():
    fastgru.set_seed(0)
    made = model()
    made.trainable = False
    clone = models.clone_model(made)
    same(made, clone)
    assert not clone.trainable
    assert not np.array_equal(clone.parameters, made.parameters)
    clone.set_weights(made.get_weights())
    np.testing.assert_array_equal(clone(X), made(X))
    same(model(built=False), models.clone_model(model(built=False)))


def test_a_clone_may_have_other_layers():
    made = model()
    wider = models.clone_model(
        made, clone_function=lambda layer: layers.Dense(5) if layer.name == "dense" else type(layer).from_config(
            layer.get_config()
        )
    )  # fmt: skip
    assert wider.output_shape == (None, 5)


@pytest.mark.parametrize(
    "make", [lambda: layers.GRU(2, dtype="float64"), lambda: layers.Bidirectional(layers.GRU(2), dtype="float64")]
)
def test_a_layer_keeps_double_precision(make):
    again = type(make()).from_config(make().get_config())
    assert again(X).dtype == np.float64
    model = Sequential([type(make()).from_config(make().get_config())], dtype="float64")
    model.build((None, 5, 3))
    assert models.clone_model(model).dtype == np.float64
