"""Values after the end of a sequence affect neither weights nor metrics, with any layers."""

from __future__ import annotations

import numpy as np
import pytest
from fastgru import Sequential, layers

LENGTHS = np.array([5, 2, 0, 3])
PADDING = np.arange(5) >= LENGTHS[:, None]

CHAINS = {
    "Dense, GRU": lambda: [layers.Dense(4, "relu"), layers.GRU(3)],
    "Dense twice, GRU": lambda: [layers.Dense(4, "tanh"), layers.Dense(3, "sigmoid"), layers.GRU(3)],
    "Dense softmax, Bidirectional": lambda: [layers.Dense(4, "softmax"), layers.Bidirectional(layers.GRU(3), "mul")],
    "Dropout, Dense, average": lambda: [layers.Dropout(0.3), layers.Dense(4), layers.GlobalAveragePooling1D()],
    "Dense, maximum": lambda: [layers.Dense(4, "tanh"), layers.GlobalMaxPooling1D()],
    "Dense, Activation, GRU": lambda: [layers.Dense(4), layers.Activation("softmax"), layers.GRU(3)],
    "Dense, Activation twice": lambda: [
        layers.Dense(4),
        layers.Activation("tanh"),
        layers.Activation("relu"),
        layers.GRU(2),
    ],
    "Dense, last step": lambda: [layers.Dense(4), layers.Activation("tanh"), layers.LastStep()],
    "GRU with dropout": lambda: [layers.GRU(4, dropout=0.3, return_sequences=True), layers.Dense(3), layers.GRU(2)],
}


def samples(padding=0.0, steps=5):
    x = np.full((4, steps, 2), padding, np.float32)
    x[:, :5] = np.where(PADDING[..., None], padding, np.random.default_rng(0).normal(size=(4, 5, 2)))
    return x


def trained(chain, x, y, loss, seed=0, **options):
    """Return the weights after a few updates."""
    model = Sequential(chain, dtype="float32")
    model._network.draw_from(np.random.default_rng(seed))
    model.build((None, None, 2))
    model.compile("adam", loss)
    for _ in range(3):
        model.train_on_batch(x, y, lengths=LENGTHS, **options)
    return model.parameters


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("padding", [np.nan, 1e30])
def test_no_weight_hears_of_padding(chain, padding):
    y = np.zeros((4, 2), np.float32)
    weights = [
        trained([*chain(), layers.Dense(2, "relu"), layers.Dense(2)], samples(filling), y, "mse")
        for filling in (0.0, padding)
    ]
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("activation", layers.activation.ACTIVATIONS)
def test_no_weight_hears_of_padding_with_outputs_at_each_step(activation, alone):
    def head():
        return [layers.Dense(3), layers.Activation(activation)] if alone else [layers.Dense(3, activation)]

    y = np.zeros((4, 5, 3), np.float32)
    chain = [[layers.Dense(4, activation), *head()] for _ in range(2)]
    weights = [trained(one, samples(filling), y, "mse") for one, filling in zip(chain, (0.0, np.nan), strict=True)]
    np.testing.assert_array_equal(*weights)


@pytest.mark.filterwarnings("ignore:flatten. lengths and masks end here:UserWarning")
def test_flattened_padding_counts():
    """Flatten reads padding as data, so a Dense before it has a gradient there."""
    model = Sequential([layers.Dense(3, input_shape=(5, 2)), layers.Flatten(), layers.Dense(1)], dtype="float64")
    model.compile("sgd", "mse")
    x, y = samples(2.0).astype(np.float64), np.ones((4, 1))
    model.optimizer.learning_rate = 1e-300  # computes the gradient without changing the weights
    model.train_on_batch(x, y)
    expected = model.gradient.copy()
    model.train_on_batch(x, y, lengths=LENGTHS)
    np.testing.assert_array_equal(model.gradient, expected)


def test_the_width_of_padding_changes_no_training():
    y = np.zeros((4, 2), np.float32)
    chains = [[layers.Dropout(0.4), layers.Dense(3), layers.Dropout(0.2), layers.GRU(2), layers.Dense(2)] for _ in "ab"]
    weights = [trained(chain, samples(steps=steps), y, "mse") for chain, steps in zip(chains, (5, 9), strict=True)]
    np.testing.assert_array_equal(*weights)


FINDERS = {
    "Masking": (lambda: layers.Masking(-1.0), np.where(PADDING[..., None], -1.0, samples()).astype(np.float32)),
    "mask_zero": (
        lambda: layers.Embedding(5, 3, mask_zero=True),
        np.where(PADDING, 0, 1 + np.random.default_rng(0).integers(0, 4, (4, 5))),
    ),
    "bytes": (lambda: layers.Masking(255.0), np.where(PADDING[..., None], 255, np.full((4, 5, 2), 9)).astype(np.uint8)),
}


@pytest.mark.parametrize(("first", "x"), FINDERS.values(), ids=FINDERS)
def test_labels_and_weights_in_padding_that_a_layer_finds_may_be_anything(first, x):
    labels = np.where(PADDING, -1, np.random.default_rng(1).integers(0, 3, (4, 5)))
    sample_weight = np.where(PADDING, np.nan, np.random.default_rng(2).random((4, 5)))
    class_weight = {0: 0.5, 2: 2.0}

    def fitted(y, weights, **lengths):
        model = Sequential([first(), layers.GRU(3, return_sequences=True), layers.Dense(3, "softmax")])
        model._network.draw_from(np.random.default_rng(0))
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        given = {"sample_weight": weights, "class_weight": class_weight, "verbose": 0, **lengths}
        return model.fit(x, y, **given).history, model.parameters

    clean = fitted(np.where(PADDING, 0, labels), np.nan_to_num(sample_weight))
    for lengths in ({}, {"lengths": LENGTHS}):
        history, parameters = fitted(labels, sample_weight, **lengths)
        assert history == clean[0]
        np.testing.assert_array_equal(parameters, clean[1])


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy"])
def test_outputs_of_many_axes(loss):
    """(N, T, U, C): valid steps, class weights and one weight per sample are combined."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 5, 6, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (4, 5, 6))
    y = labels if loss == "categorical_crossentropy" else labels[..., None]
    head = layers.Dense(2, "softmax") if loss == "categorical_crossentropy" else layers.Dense(1, "sigmoid")

    weights = rng.random(4)
    padded = np.where(PADDING.reshape(4, 5, *(1,) * (y.ndim - 2)), -7, y)
    model = Sequential([head], dtype="float32")
    model.build((None, None, 6, 2))
    model.compile("adam", loss)
    expected = model.evaluate(x, y, lengths=LENGTHS, sample_weight=weights)
    assert model.evaluate(x, padded, lengths=LENGTHS, sample_weight=weights) == expected
    counted = np.broadcast_to(weights[:, None, None], labels.shape)
    assert model.evaluate(x, padded, lengths=LENGTHS, sample_weight=counted) == expected
    given = {"lengths": LENGTHS, "sample_weight": weights, "class_weight": {1: 3.0}, "verbose": 0, "epochs": 1}
    before = model.evaluate(x, y, lengths=LENGTHS, sample_weight=counted * np.where(labels == 1, 3.0, 1.0))
    assert model.fit(x, padded, batch_size=4, **given).history["loss"] == [pytest.approx(before)]
