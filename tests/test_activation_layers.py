"""`layers.Activation` and `layers.LastStep`, compared with Keras' layer, PyTorch's gradients and equivalent layers."""

from __future__ import annotations

import fastgru
import numpy as np
import peers
import pytest
from fastgru import Sequential, layers, load_model

ACTIVATIONS = layers.activation.ACTIVATIONS
#: Two computations in float64.
CLOSE = 1e-12


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("name", [*ACTIVATIONS, None])
def test_activation_matches_keras(name, shape, keras):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    theirs = keras.layers.Activation(name)(x)
    np.testing.assert_allclose(layers.Activation(name)(x), np.asarray(theirs), rtol=1e-6, atol=1e-7)


def test_lengths_pass_through_an_activation():
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    lengths = np.array([5, 0, 2, 4])
    chain = [layers.Activation("tanh", input_shape=(None, 3)), layers.GRU(2)]
    model = Sequential(chain, dtype="float64")
    expected = model.predict(np.where(np.arange(5)[:, None] < lengths[:, None, None], x, 7.0), lengths=lengths)
    np.testing.assert_array_equal(model.predict(x, lengths=lengths), expected)


def test_last_step_returns_the_last_valid_step():
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    lengths = np.array([5, 0, 2, 4])
    expected = np.stack([x[0, 4], np.zeros(3), x[2, 1], x[3, 3]])
    x[np.arange(5) >= lengths[:, None]] = np.nan
    np.testing.assert_array_equal(layers.LastStep(dtype="float64")(x, lengths=lengths), expected)
    np.testing.assert_array_equal(layers.LastStep(dtype="float64")(x[:1]), expected[:1])
    np.testing.assert_array_equal(layers.LastStep(dtype="float64")(x[:2, :0]), np.zeros((2, 3)))


def test_the_last_step_of_a_gru_is_its_last_state():
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    lengths = np.array([5, 0, 2, 4])
    model = Sequential([layers.GRU(6, return_sequences=True, input_shape=(None, 3)), layers.LastStep()])
    state = Sequential([layers.GRU(6, input_shape=(None, 3))])
    state.set_weights(model.get_weights())
    for given in (None, lengths):
        np.testing.assert_array_equal(model.predict(x, lengths=given), state.predict(x, lengths=given))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_match_pytorch(name, torch):
    """Return the activated output of a bidirectional GRU's last valid step, computed row by row."""
    model = Sequential(
        [
            layers.Dense(3, bias_initializer="random_normal", input_shape=(None, 2)),
            layers.Activation(name),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.LastStep(),
            layers.Activation(name),
            layers.Dense(2),
        ],
        dtype="float64",
    )
    model.compile("sgd", "mean_squared_error")
    rng = np.random.default_rng(0)
    x, y, lengths = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 2)), np.array([5, 1, 2, 4])
    scores = model._network.scores(x, lengths, training=True)
    model._network.backward(np.ones_like(scores.values))
    expected = torch_gradients(torch, model, name, x, lengths)
    for found, wanted in zip((a for layer in model.layers for a in layer.gradients.values()), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=CLOSE, atol=CLOSE)
    assert y.shape == scores.values.shape


def torch_gradients(torch, model, name, x, lengths):
    """Return the gradients of the sum of all outputs for all weights, by PyTorch from the same equations."""
    weights = [
        torch.from_numpy(array.copy()).requires_grad_() for layer in model.layers for array in layer.parameters.values()
    ]
    first, first_bias, *gru, last, last_bias = weights
    act = {"linear": lambda a: a, "softmax": lambda a: a.softmax(-1)}.get(name) or getattr(torch, name)

    def step(x, h, kernel, recurrent, bias):
        xz, xr, xn = (x @ kernel + bias[0]).chunk(3)
        hz, hr, hn = (h @ recurrent + bias[1]).chunk(3)
        z = torch.sigmoid(xz + hz)
        return z * h + (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn)

    total = 0
    for row, length in zip(torch.from_numpy(x), lengths, strict=True):
        inputs = act(row[:length] @ first + first_bias)
        forward = torch.zeros(4, dtype=torch.float64)
        for each in inputs:
            forward = step(each, forward, *gru[:3])
        backward = step(inputs[-1], torch.zeros(4, dtype=torch.float64), *gru[3:])
        total = total + (act(torch.cat((forward, backward))) @ last + last_bias).sum()
    total.backward()
    return [weight.grad.numpy() for weight in weights]


@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("softmax", "sparse_categorical_crossentropy"), ("sigmoid", "binary_crossentropy"),
        ("linear", "mean_squared_error"), ("tanh", "mean_squared_error"),
    ],
)  # fmt: skip
def test_an_activation_trains_as_that_of_a_dense_layer(name, loss, each_step):
    """Bit-identical, because both compute the cross-entropy from the logits."""

    def make(*head):
        fastgru.set_seed(0)
        model = Sequential([layers.GRU(5, return_sequences=each_step, input_shape=(None, 3)), *head])
        model.compile("adam", loss)
        return model

    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(8, 6, 3)).astype(np.float32), rng.integers(0, 7, 8)
    shape = (8, 6) if each_step else (8,)
    y = rng.integers(0, 2, shape) if name == "softmax" else rng.random((*shape, 2)).astype(np.float32)
    models = make(layers.Dense(2, name)), make(layers.Dense(2), layers.Activation(name))
    curves = [model.fit(x, y, lengths=lengths, epochs=3, verbose=0).history["loss"] for model in models]
    assert curves[0] == curves[1]
    np.testing.assert_array_equal(models[0].parameters, models[1].parameters)


def test_a_loss_names_the_activation_that_it_requires():
    model = Sequential([layers.GRU(3, input_shape=(None, 2)), layers.Activation("relu")])
    with pytest.raises(ValueError, match="needs a last layer with activation='softmax', got 'relu'"):
        model.compile("adam", "categorical_crossentropy")


@pytest.mark.parametrize("name", peers.parameters(["m.safetensors", "m.pt", "m.torch.safetensors", "m.onnx"]))
def test_files_keep_both(name, tmp_path):
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(4, return_sequences=True), input_shape=(None, 3)),
            layers.LastStep(name="last"),
            layers.Activation("relu", name="rectified"),
            layers.Dense(2),
        ]
    )
    model.save(tmp_path / name)
    again = load_model(tmp_path / name)
    assert [(type(layer), layer.name, layer.options()) for layer in again.layers] == [
        (type(layer), layer.name, layer.options()) for layer in model.layers
    ]
    x = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.keras", "last: LastStep is not supported by Keras 3"),
        ("m.h5", "last: LastStep is not supported by Keras 2"),
        ("model.json", "last: LastStep is not supported by TensorFlow.js"),
        ("m.rtneural.json", "last: LastStep is not supported"),
    ],
)
def test_formats_without_last_step_raise(name, message, tmp_path):
    if name.endswith((".keras", ".h5")):
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    gru = layers.GRU(4, return_sequences=True, reset_after=name != "model.json", input_shape=(None, 3))
    model = Sequential([gru, layers.LastStep(name="last"), layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match=r"activation: expected one of .linear., .softmax., .*, got 'swish'"):
        layers.Activation("swish")
    model = Sequential([layers.GRU(3), layers.LastStep()])
    with pytest.raises(ValueError, match=r"last_step: expected input of shape \(N, T, F\)"):
        model.build((None, 5, 2))


def test_an_activation_without_a_gradient_is_not_treated_as_linear():
    rows = np.ones((2, 3), np.float32)
    for name in ACTIVATIONS:
        assert layers.activation.gradient(name, rows, rows).shape == rows.shape
    with pytest.raises(ValueError, match=r"activation: expected one of linear, .* got 'gelu'"):
        layers.activation.gradient("gelu", rows, rows)
