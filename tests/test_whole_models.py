"""Whole models against the chain of the equations in the reference, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from fastgru import Sequential, layers, load_model, reference

#: Both sides round in float64 only; depths and steps are small.
TOLERANCE = 1e-12


def random_gru(rng, **more):
    return layers.GRU(
        int(rng.integers(1, 12)),
        activation=str(rng.choice(layers.gru.ACTIVATIONS, p=[0.6, 0.2, 0.2])),
        recurrent_activation=str(rng.choice(layers.gru.RECURRENT_ACTIVATIONS)),
        use_bias=bool(rng.random() < 0.8),
        bias_initializer="random_normal",
        reset_after=bool(rng.random() < 0.6),
        go_backwards=bool(rng.random() < 0.3),
        zero_output_for_mask=bool(rng.random() < 0.5),
        **more,
    )


def random_recurrent(rng, **more):
    gru = random_gru(rng, **more)
    if rng.random() < 0.5:
        return gru
    return layers.Bidirectional(gru, str(rng.choice(layers.bidirectional.MERGES)))


def random_model(seed):
    """A chain of all kinds of layers, and samples with lengths for it."""
    rng = np.random.default_rng(seed)
    rows, steps, features = (int(n) for n in rng.integers(1, 7, 3))
    chain = []
    lengths = rng.integers(0, steps + 1, rows) if rng.random() < 0.6 else None
    first = rng.random()
    if first < 0.25:
        x = rng.integers(1, 9, (rows, steps))
        chain.append(layers.Embedding(9, features, mask_zero=bool(rng.random() < 0.5), input_shape=(None,)))
        if chain[0].mask_zero:
            x[np.arange(steps) >= rng.integers(0, steps + 1, rows)[:, None]] = 0
    else:
        x = rng.normal(size=(rows, steps, features))
        if first < 0.5:
            chain.append(layers.Masking(-1.0, input_shape=(None, features)))
            x[np.arange(steps) >= rng.integers(0, steps + 1, rows)[:, None]] = -1.0
        else:
            chain.append(layers.Dropout(0.3, input_shape=(steps, features)))
    chain += [random_recurrent(rng, return_sequences=True) for _ in range(int(rng.integers(0, 3)))]
    if rng.random() < 0.3:
        chain.append(layers.Activation(str(rng.choice(layers.activation.ACTIVATIONS))))
    match int(rng.integers(0, 6)):
        case 0:
            chain.append(layers.GlobalAveragePooling1D())
        case 1:
            chain.append(layers.GlobalMaxPooling1D())
        case 2:
            chain.append(random_recurrent(rng))
        case 5:
            chain.append(layers.LastStep())
        case 3 if chain[0].input_shape == (steps, features):
            chain.append(layers.Flatten())
    chain.append(layers.Dense(int(rng.integers(1, 5)), str(rng.choice(layers.dense.ACTIVATIONS))))
    if rng.random() < 0.3:
        chain.append(layers.Activation(str(rng.choice(layers.activation.ACTIVATIONS))))
    return Sequential(chain, dtype="float64"), x, lengths


@pytest.mark.parametrize("seed", range(120))
def test_a_model_gives_what_the_equations_give(seed):
    model, x, lengths = random_model(seed)
    expected = reference.run(model.describe().layers, x, lengths)
    actual = model.predict(x, lengths=lengths)
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


SEVERAL = {
    "GRU": (2, lambda: layers.GRU(3, return_sequences=True, return_state=True)),
    "Bidirectional None": (2, lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True), None)),
    "Bidirectional": (3, lambda: layers.Bidirectional(layers.GRU(3, return_state=True))),
    "Bidirectional of sequences": (
        4,
        lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True, return_state=True), None),
    ),
}


@pytest.mark.parametrize(("count", "make"), SEVERAL.values(), ids=SEVERAL)
def test_several_outputs(count, make, tmp_path):
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(3, 4, 2)), np.array([4, 0, 2])
    model = Sequential([make()], dtype="float64")
    model.build((None, None, 2))
    model.save(tmp_path / "model.safetensors")
    for other in (model, load_model(tmp_path / "model.safetensors")):
        actual = other.predict(x, lengths=lengths)
        expected = reference.run(model.describe().layers, x, lengths)
        assert len(actual) == len(expected) == count
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
