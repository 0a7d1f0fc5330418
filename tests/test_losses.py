"""Losses against their definitions, derivatives, and Keras; weights, masks and pieces against plain sums."""

from __future__ import annotations

import numpy as np
import pytest
from fastgru import losses

ALL = [
    losses.CategoricalCrossentropy(),
    losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    losses.SparseCategoricalCrossentropy(label_smoothing=0.3),
    losses.BinaryCrossentropy(),
    losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
    losses.MeanSquaredError(),
    losses.MeanAbsoluteError(),
    losses.Huber(),
    losses.Huber(delta=0.3),
]
ROWS, CLASSES = 7, 4


def name_of(loss):
    return f"{loss.name}{loss.get_config() or ''}"


def make(loss, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    scores = (3 * rng.standard_normal((ROWS, CLASSES))).astype(dtype)
    if loss.classifies:
        return scores, rng.integers(0, CLASSES, ROWS)
    if "binary" in loss.name:
        return scores, rng.integers(0, 2, (ROWS, CLASSES)).astype(dtype)
    return scores, rng.standard_normal((ROWS, CLASSES)).astype(dtype)


@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_the_gradient_is_the_derivative_of_the_mean(loss):
    scores, targets = make(loss)
    gradient = loss(scores, targets).d_scores
    step = 1e-6
    for index in np.ndindex(scores.shape):
        ends = []
        for sign in (1, -1):
            moved = scores.copy()
            moved[index] += sign * step
            ends.append(loss(moved, targets, gradient=False).values.mean())
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_values_are_of_float64_and_gradients_of_the_scores(loss, dtype):
    scores, targets = make(loss, dtype)
    result = loss(scores, targets)
    assert result.values.dtype == np.float64
    assert result.values.shape == (ROWS,)
    assert result.d_scores.dtype == dtype
    assert loss(scores, targets, gradient=False).d_scores is None


@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_keras_finds_the_same_losses(loss, keras):
    scores, targets = make(loss)
    config = loss.get_config()
    if loss.classifies:
        # Keras spreads no labels of its sparse loss.
        theirs = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config["label_smoothing"], reduction=None
        )
        expected = theirs(np.eye(CLASSES)[targets], scores)
    elif "binary" in loss.name:
        theirs = keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=config["label_smoothing"], reduction=None
        )
        expected = theirs(targets, scores)
    else:
        theirs = getattr(keras.losses, type(loss).__name__)(**config, reduction=None)
        expected = theirs(targets, scores)
    np.testing.assert_allclose(loss(scores, targets).values, np.asarray(expected), rtol=1e-6)  # Keras' is float32


def test_extreme_scores_of_a_yes_or_no_question_are_stable():
    scores = np.array([[1e4], [-1e4], [1e4], [-1e4]])
    result = losses.BinaryCrossentropy()(scores, np.array([[1.0], [0.0], [0.0], [1.0]]))
    np.testing.assert_array_equal(result.values, [0, 0, 1e4, 1e4])
    np.testing.assert_allclose(result.d_scores, np.array([[0], [0], [0.25], [-0.25]]), atol=1e-30)


@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_a_nan_stays_in_its_element(loss):
    scores, targets = make(loss)
    scores[3, 1] = np.nan
    result = loss(scores, targets)
    assert np.isnan(result.values[3])
    assert np.isfinite(np.delete(result.values, 3)).all()
    assert np.isfinite(np.delete(result.d_scores, 3, axis=0)).all()


def test_one_hot_targets_are_labels():
    loss = losses.CategoricalCrossentropy(label_smoothing=0.1)
    scores, targets = make(loss)
    integers, one_hot = loss(scores, targets), loss(scores, np.eye(CLASSES)[targets])
    np.testing.assert_array_equal(integers.values, one_hot.values)
    np.testing.assert_array_equal(integers.d_scores, one_hot.d_scores)
    np.testing.assert_array_equal(integers.correct, scores.argmax(axis=1) == targets)


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", losses.MeanSquaredError), ("mae", losses.MeanAbsoluteError), ("huber", losses.Huber)]
)
def test_short_names(name, expected):
    assert type(losses.get(name)) is expected
    assert type(losses.get(expected.name)) is expected
