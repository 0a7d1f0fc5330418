"""What stands behind the sequences' ends decides nothing, whatever layers look on: neither weights nor metrics."""

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
    "GRU with dropout": lambda: [layers.GRU(4, dropout=0.3, return_sequences=True), layers.Dense(3), layers.GRU(2)],
}


def samples(padding=0.0, steps=5):
    x = np.random.default_rng(0).normal(size=(4, steps, 2)).astype(np.float32)
    x[:, :5][PADDING] = padding
    x[:, 5:] = padding
    return x


def trained(chain, x, y, loss, seed=0, **options):
    """The weights after a few updates."""
    model = Sequential(chain, dtype="float32")
    model._generator = np.random.default_rng(seed)
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


@pytest.mark.parametrize("activation", layers.dense.ACTIVATIONS)
def test_no_weight_hears_of_padding_with_outputs_at_each_step(activation):
    y = np.zeros((4, 5, 3), np.float32)
    chain = [[layers.Dense(4, activation), layers.Dense(3, activation)] for _ in range(2)]
    weights = [trained(one, samples(filling), y, "mse") for one, filling in zip(chain, (0.0, np.nan), strict=True)]
    np.testing.assert_array_equal(*weights)


def test_flattened_padding_counts():
    """Flatten takes padding for values; so a Dense before it has a gradient there."""
    model = Sequential([layers.Dense(3, input_shape=(5, 2)), layers.Flatten(), layers.Dense(1)], dtype="float64")
    model.compile("sgd", "mse")
    x, y = samples(2.0).astype(np.float64), np.ones((4, 1))
    model.optimizer.learning_rate = 1e-300  # only the gradient is wanted
    model.train_on_batch(x, y)
    expected = model.gradient.copy()
    model.train_on_batch(x, y, lengths=LENGTHS)
    np.testing.assert_array_equal(model.gradient, expected)
