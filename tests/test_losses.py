"""Losses compared with their definitions, derivatives and Keras; weights, masks and pieces with plain sums."""

from __future__ import annotations

import doctest

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, layers, losses, metrics, optimizers

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
    losses.CategoricalFocalCrossentropy(from_logits=True),
    losses.CategoricalFocalCrossentropy(0.5, gamma=1.5, from_logits=True, label_smoothing=0.1),
    losses.BinaryFocalCrossentropy(),
    losses.BinaryFocalCrossentropy(True, 0.7, 1.5, from_logits=True, label_smoothing=0.2),
    losses.MeanAbsolutePercentageError(),
    losses.MeanSquaredLogarithmicError(),
    losses.LogCosh(),
    losses.Poisson(),
    losses.KLDivergence(),
    losses.Hinge(),
    losses.SquaredHinge(),
    losses.Quantile(),
    losses.Quantile([0.1, 0.5, 0.8, 0.95]),
]
#: Losses of outputs above 0, and of distributions.
POSITIVE = (losses.Poisson, losses.MeanSquaredLogarithmicError, losses.KLDivergence)
ROWS, CLASSES = 7, 4


def name_of(loss):
    return f"{loss.name}{loss.get_config() or ''}"


def make(loss, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    scores = (3 * rng.standard_normal((ROWS, CLASSES))).astype(dtype)
    if loss.classifies:
        return scores, rng.integers(0, CLASSES, ROWS)
    if isinstance(loss, POSITIVE):
        scores = np.exp(scores / 3)
        targets = rng.random((ROWS, CLASSES))
        if isinstance(loss, losses.KLDivergence):
            scores, targets = (array / array.sum(axis=1, keepdims=True) for array in (scores, targets))
        return scores.astype(dtype), targets.astype(dtype)
    if "binary" in loss.name or "hinge" in loss.name:
        return scores, rng.integers(0, 2, (ROWS, CLASSES)).astype(dtype)
    return scores, rng.standard_normal((ROWS, CLASSES)).astype(dtype)


@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_the_gradient_is_the_derivative_of_the_mean(loss):
    scores, targets = make(loss)
    gradient = loss.compute(scores, targets).d_scores
    step = 1e-6
    for index in np.ndindex(scores.shape):
        ends = []
        for sign in (1, -1):
            moved = scores.copy()
            moved[index] += sign * step
            ends.append(loss.compute(moved, targets, gradient=False).values.mean())
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_values_are_of_float64_and_gradients_of_the_scores(loss, dtype):
    scores, targets = make(loss, dtype)
    result = loss.compute(scores, targets)
    assert result.values.dtype == np.float64
    assert result.values.shape == (ROWS,)
    assert result.d_scores.dtype == dtype
    assert loss.compute(scores, targets, gradient=False).d_scores is None


@pytest.mark.parametrize("loss", [loss for loss in ALL if loss.name != "quantile"], ids=name_of)
def test_losses_equal_those_of_keras(loss, keras):
    scores, targets = make(loss)
    config = loss.get_config()
    if "from_logits" in config:
        config["from_logits"] = True
    name = type(loss).__name__
    if loss.classifies:  # Keras spreads no labels of its sparse loss
        name, targets = name.removeprefix("Sparse"), np.eye(CLASSES)[targets]
    expected = getattr(keras.losses, name)(**config, reduction=None)(targets, scores)
    found = loss.compute(scores, targets).values
    np.testing.assert_allclose(found, np.asarray(expected), rtol=2e-6, atol=1e-7)  # Keras' is float32


@pytest.mark.parametrize("loss", [loss for loss in ALL if loss.name != "quantile"], ids=name_of)
@pytest.mark.parametrize("steps", [None, 3])
def test_a_loss_is_called_as_in_keras(loss, steps, keras):
    """The arguments are targets and outputs of a model, not scores; the result is the mean."""
    parts = [make(loss, seed=seed) for seed in range(steps or 1)]
    scores, targets = (np.stack(arrays, axis=1) if steps else arrays[0] for arrays in zip(*parts, strict=True))
    outputs = scores
    if loss.head == "sigmoid":
        outputs = 1 / (1 + np.exp(-scores))
    elif loss.head == "softmax":
        outputs = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    name, config = type(loss).__name__, loss.get_config()
    theirs = targets
    if loss.classifies:
        name, theirs = name.removeprefix("Sparse"), np.eye(CLASSES)[targets]
    weights = np.arange(1.0, ROWS + 1)
    judge = getattr(keras.losses, name)(**config)
    assert loss(targets, outputs) == pytest.approx(float(judge(theirs, outputs)), rel=2e-6)
    weighted = float(judge(theirs, outputs, sample_weight=weights[:, None] if steps else weights))
    assert loss(targets, outputs, sample_weight=weights) == pytest.approx(weighted, rel=2e-6)


@pytest.mark.peers("sklearn")
@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_the_quantile_loss_is_scikit_learns(q):
    import sklearn.metrics

    scores, targets = make(losses.Quantile())
    expected = sklearn.metrics.mean_pinball_loss(targets.ravel(), scores.ravel(), alpha=q)
    assert losses.Quantile(q)(targets, scores) == pytest.approx(expected, rel=1e-13)


def test_several_quantiles_take_one_number_as_the_target_of_all():
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(5, 3)), rng.normal(size=5)
    loss = losses.Quantile([0.1, 0.5, 0.9])
    expected = np.mean([losses.Quantile(q)(y, outputs[:, i]) for i, q in enumerate(loss.q)])
    for targets in (y, y[:, None], np.repeat(y[:, None], 3, axis=1)):
        assert loss(targets, outputs) == pytest.approx(expected, rel=1e-14)
    with pytest.raises(ValueError, match="loss: expected 3 outputs because the loss has 3 quantiles, got 2"):
        loss(y, outputs[:, :2])
    model = Sequential([layers.GRU(4, return_sequences=True, input_shape=(6, 2)), layers.Dense(3)])
    model.compile(optimizers.Adam(0.02), loss, metrics=["mae"])
    x = rng.normal(size=(64, 6, 2)).astype(np.float32)
    found = model.fit(x, x[..., 0], epochs=20, verbose=0).history["loss"]
    assert found[-1] < 0.5 * found[0]


def test_extreme_scores_of_binary_losses_are_stable():
    scores = np.array([[1e4], [-1e4], [1e4], [-1e4]])
    result = losses.BinaryCrossentropy().compute(scores, np.array([[1.0], [0.0], [0.0], [1.0]]))
    np.testing.assert_array_equal(result.values, [0, 0, 1e4, 1e4])
    np.testing.assert_allclose(result.d_scores, np.array([[0], [0], [0.25], [-0.25]]), atol=1e-30)


@pytest.mark.parametrize("loss", ALL, ids=name_of)
def test_a_nan_stays_in_its_element(loss):
    scores, targets = make(loss)
    scores[3, 1] = np.nan
    result = loss.compute(scores, targets)
    assert np.isnan(result.values[3])
    assert np.isfinite(np.delete(result.values, 3)).all()
    assert np.isfinite(np.delete(result.d_scores, 3, axis=0)).all()


def test_one_hot_targets_are_labels():
    loss = losses.CategoricalCrossentropy(label_smoothing=0.1)
    scores, targets = make(loss)
    integers, one_hot = loss.compute(scores, targets), loss.compute(scores, np.eye(CLASSES)[targets])
    np.testing.assert_array_equal(integers.values, one_hot.values)
    np.testing.assert_array_equal(integers.d_scores, one_hot.d_scores)
    np.testing.assert_array_equal(integers.correct, scores.argmax(axis=1) == targets)


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", losses.MeanSquaredError), ("mae", losses.MeanAbsoluteError), ("huber", losses.Huber)]
)
def test_short_names(name, expected):
    assert type(losses.get(name)) is expected
    assert type(losses.get(expected.name)) is expected


@pytest.mark.parametrize("name", [*losses.LOSSES, *losses.SHORT_NAMES])
def test_names_are_those_of_keras(name, keras):
    loss = losses.get(name)
    assert type(losses.get(type(loss).__name__)) is type(loss)
    assert type(losses.get({"class_name": type(loss).__name__, "config": loss.get_config()})) is type(loss)
    if name not in ("quantile", "pinball", "huber_loss", "logcosh"):
        theirs = keras.losses.get(name)
        assert theirs is getattr(keras.losses, losses.get(name).name.removesuffix("_loss"))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: losses.get("cosine_similarity"), ValueError, "write it as a function of y_true and y_pred"),
        (lambda: losses.get(3), TypeError, "loss: expected a name, a function, or one of fastgru.losses, got 3"),
        (
            lambda: losses.MeanSquaredError("sum"),
            ValueError,
            "reduction: expected 'sum_over_batch_size' .*learning rate",
        ),
        (lambda: losses.MeanSquaredError(dtype="float64"), ValueError, "dtype: expected None"),
        (lambda: losses.BinaryCrossentropy(axis=0), ValueError, "axis: expected -1"),
        (
            lambda: losses.SparseCategoricalCrossentropy(ignore_class=0),
            ValueError,
            "ignore_class: .* sample_weight of 0",
        ),
        (lambda: losses.Quantile(1.0), ValueError, "q: expected a finite number above 0 and below 1"),
        (lambda: losses.Quantile([]), ValueError, "q: expected at least one quantile"),
        (lambda: losses.Dice, AttributeError, "no attribute 'Dice'; write it as a function"),
        (lambda: losses.mean_squared_error, AttributeError, r"use losses.MeanSquaredError\(\) or the name"),
        (lambda: losses.CrossEntropyLoss, AttributeError, r"SparseCategoricalCrossentropy\(from_logits=True\)"),
    ],
)
def test_unsupported_options_of_losses_raise(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- Functions and classes of a user's own ------------------------------------------------------------------------


def cross_entropy(y_true, y_pred):
    return -(y_true * np.log(y_pred)).sum(axis=-1)


def binary(y_true, y_pred):
    return -(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred)).mean(axis=-1)


def squares(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2, axis=-1)


def squares_of_each(y_true, y_pred):
    """Returns several numbers per row, which are averaged as in Keras."""
    return (y_true - y_pred) ** 2


def squares_with_gradient(y_true, y_pred):
    return squares(y_true, y_pred), 2 * (y_pred - y_true) / y_pred.shape[-1]


def cross_entropy_with_gradient(y_true, y_pred):
    return cross_entropy(y_true, y_pred), -y_true / y_pred


def binary_with_gradient(y_true, y_pred):
    slopes = (y_pred - y_true) / (y_pred * (1 - y_pred)) / y_pred.shape[-1]
    return binary(y_true, y_pred), slopes


FUNCTIONS = [
    (squares, losses.MeanSquaredError(), "linear", 1e-8),
    (squares_of_each, losses.MeanSquaredError(), "linear", 1e-8),
    (squares_with_gradient, losses.MeanSquaredError(), "linear", 1e-14),
    (cross_entropy, losses.CategoricalCrossentropy(), "softmax", 1e-8),
    (cross_entropy_with_gradient, losses.CategoricalCrossentropy(), "softmax", 1e-12),
    (binary, losses.BinaryCrossentropy(), "sigmoid", 1e-8),
    (binary_with_gradient, losses.BinaryCrossentropy(), "sigmoid", 1e-12),
]


@pytest.mark.parametrize(
    ("function", "known", "activation", "tolerance"), FUNCTIONS, ids=lambda each: getattr(each, "__name__", str(each))
)
def test_a_function_has_the_losses_and_the_gradient_of_the_same_class(function, known, activation, tolerance):
    scores, targets = make(known)
    if known.classifies:
        targets = np.eye(CLASSES)[targets]
    found = losses.get(function).compute(3 * scores, targets, activation=activation)
    expected = known.compute(3 * scores, targets)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-9)
    scale = np.abs(expected.d_scores).max()
    np.testing.assert_allclose(found.d_scores, expected.d_scores, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("function", "known", "activation", "tolerance"), FUNCTIONS, ids=lambda each: getattr(each, "__name__", str(each))
)
@pytest.mark.parametrize("lengths", [None, np.array([5, 1, 3, 0, 5, 2])])
def test_a_function_trains_as_the_same_class_does(function, known, activation, tolerance, lengths):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 5, 2)), np.eye(3)[rng.integers(0, 3, (6, 5))]
    found = []
    for loss in (function, known):
        fastgru.set_seed(3)
        stack = [layers.GRU(4, return_sequences=True, input_shape=(None, 2)), layers.Dense(3, activation)]
        model = Sequential(stack, dtype="float64")
        model.compile(optimizers.SGD(0.5), loss, metrics=["accuracy"] if activation != "linear" else ["mse"])
        weights = np.arange(1.0, 7)
        history = model.fit(x, y, epochs=3, batch_size=4, lengths=lengths, sample_weight=weights, verbose=0).history
        found.append([*history.values(), model.evaluate(x, y, lengths=lengths, verbose=0), *model.get_weights()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda y, p: np.mean((y - p) ** 2),
            ValueError,
            r"because fastgru averages over the rows, got a single number; .* axis=-1",
        ),
        (lambda y, p: np.mean((y - p) ** 2, axis=0), ValueError, r"shape \(8,\), got shape \(2,\); .* axis=-1"),
        (lambda y, p: ((y - p) ** 2).mean(axis=-1) - (y - p).mean(), ValueError, "depends on that row only"),
        (lambda y, p: squares(y, p).astype(np.float32), TypeError, "expected float64 because .* got float32"),
        (lambda y, p: "loss", TypeError, "expected numbers, got <U4"),
        (lambda y, p: (squares(y, p), np.zeros(3)), ValueError, r"in the shape of y_pred, \(8, 2\), got"),
    ],
)
def test_invalid_results_of_a_function_raise_and_name_it(function, error, message):
    function.__name__ = "mine"
    model = Sequential([layers.GRU(4, input_shape=(5, 2)), layers.Dense(2)])
    model.compile("sgd", function)
    x = np.random.default_rng(0).normal(size=(8, 5, 2)).astype(np.float32)
    before = model.parameters.copy()
    with pytest.raises(error, match=f"^mine: .*{message}"):
        model.fit(x, x[:, 0], verbose=0)
    np.testing.assert_array_equal(model.parameters, before)


def test_a_class_derived_from_a_loss_of_the_package_may_define_call():
    class Cubes(losses.MeanSquaredError):
        def call(self, y_true, y_pred):
            return np.abs(y_true - y_pred) ** 3

    scores, targets = make(losses.MeanSquaredError())
    found = Cubes().compute(scores, targets)
    np.testing.assert_allclose(found.values, (np.abs(scores - targets) ** 3).mean(axis=1))
    assert Cubes()(targets, scores) == pytest.approx(found.values.mean())


def test_a_class_that_defines_the_call_operator_raises():
    """Training calls `compute`, which calls `call`, so `__call__` of the class would never run."""
    with pytest.raises(TypeError, match=r"Mine: expected a method call\(y_true, y_pred\) .* got __call__; rename it"):
        type("Mine", (losses.MeanSquaredError,), {"__call__": lambda self, y_true, y_pred: 0.0})


def test_targets_of_functions_may_have_any_shape_after_the_rows():
    seen = []

    def loss(y_true, y_pred):
        seen.append((y_true.shape, y_true.dtype, y_pred.shape, y_pred.dtype))
        return -np.log(y_pred[np.arange(len(y_pred)), y_true.astype(int)])

    model = Sequential([layers.GRU(4, input_shape=(5, 2)), layers.Dense(3, "softmax")])
    model.compile("sgd", loss, metrics=["accuracy"])
    x = np.random.default_rng(0).normal(size=(8, 5, 2)).astype(np.float32)
    model.fit(x, np.arange(8, dtype=np.uint8) % 3, verbose=0)
    assert seen[0] == ((8,), np.float64, (8, 3), np.float64)
    with pytest.raises(ValueError, match=r"y: expected a shape that begins with \(8,\)"):
        model.fit(x, np.zeros(7), verbose=0)


def test_the_example_of_a_custom_loss_has_the_right_gradient():
    """The example of the docstring runs, and its gradient equals the numerical gradient of its losses."""
    (example,) = (each for each in doctest.DocTestFinder().find(losses.Loss, "Loss", globs={}) if each.examples)
    assert doctest.DocTestRunner(verbose=False).run(example, clear_globs=False).failed == 0
    names = example.globs
    own = names["Underestimates"](factor=2.0)
    alone = losses.LossFunctionWrapper(lambda y_true, y_pred: own.call(y_true, y_pred)[0])
    scores, targets = make(losses.MeanSquaredError())
    found, expected = (loss.compute(scores, targets, activation="linear") for loss in (own, alone))
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_allclose(found.d_scores, expected.d_scores, rtol=0, atol=1e-9)
    x = np.random.default_rng(0).normal(size=(16, 5, 2)).astype(np.float32)
    history = names["model"].fit(x, x[:, 0, :1], epochs=30, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize("kind", ["function", "class"])
@pytest.mark.parametrize("name", ["m.safetensors", "m.keras", "m.h5", "m.json"])
def test_saving_custom_losses_and_metrics_raises(tmp_path, name, kind):
    class Mine(losses.MeanSquaredError):  # named as the class that it is derived from
        pass

    class Own(metrics.MeanSquaredError):
        pass

    model = Sequential([layers.GRU(4, reset_after=False, recurrent_activation="sigmoid", input_shape=(5, 2))])
    for loss, metric, message in (
        (squares if kind == "function" else Mine(), None, "loss: .* got (the function squares|Mine); pass include_opt"),
        (
            "mse",
            squares if kind == "function" else Own(),
            "metrics: .* got (the function squares|Own); pass include_opt",
        ),
    ):
        model.compile(optimizers.SGD(), loss, metrics=[metric] if metric else None)
        with pytest.raises(ValueError, match=message):
            model.save(tmp_path / name)
    model.save(tmp_path / name, include_optimizer=False)
    fastgru.load_model(tmp_path / name).compile("sgd", squares)
