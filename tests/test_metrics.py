"""Metrics compared with their definitions and Keras: exact over a whole data set, for any batch size."""

from __future__ import annotations

import copy
import doctest
import functools
import pickle
import re

import numpy as np
import pytest
from fastgru import Sequential, initializers, layers, losses, metrics
from fastgru.losses import LossResult

CROSS_ENTROPY = losses.CategoricalCrossentropy()
NOTHING = LossResult(np.zeros(0), None, None)


def classified(count=200, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    outputs = rng.random((count, classes))
    return outputs / outputs.sum(axis=1, keepdims=True), rng.integers(0, classes, count)


def made(metric, loss):
    return metrics.for_loss(metric, loss, loss.kind)


def counted(metric, outputs, targets, cuts):
    for part in np.split(np.arange(len(outputs)), cuts):
        metric.update(outputs[part], targets[part], NOTHING)
    return metric.result()


@pytest.mark.parametrize("cuts", [[], [1], [37, 37, 150]])
def test_classes(cuts, keras):
    outputs, labels = classified()
    one_hot = np.eye(outputs.shape[1])[labels]
    for name, theirs in [
        ("accuracy", keras.metrics.CategoricalAccuracy()),
        ("f1_score", keras.metrics.F1Score(average="macro")),
    ]:
        theirs.update_state(one_hot, outputs)
        assert counted(made(name, CROSS_ENTROPY), outputs, labels, cuts) == pytest.approx(float(theirs.result()))
        assert counted(made(name, CROSS_ENTROPY), outputs, one_hot, cuts) == pytest.approx(float(theirs.result()))
    for k in (1, 2, 5, 6):
        top = keras.metrics.TopKCategoricalAccuracy(k=k)
        top.update_state(one_hot, outputs.astype(np.float32))
        assert counted(metrics.TopKAccuracy(k), outputs, labels, cuts) == pytest.approx(float(top.result()))


@pytest.mark.parametrize("cuts", [[], [3, 90]])
@pytest.mark.parametrize("columns", [1, 3])
def test_binary_metrics(cuts, columns, keras):
    rng = np.random.default_rng(1)
    outputs, targets = rng.random((120, columns)), rng.integers(0, 2, (120, columns)).astype(float)
    for threshold in (0.5, 0.2):
        theirs = keras.metrics.BinaryAccuracy(threshold=threshold)
        theirs.update_state(targets, outputs)
        ours = counted(metrics.BinaryAccuracy(threshold=threshold), outputs, targets, cuts)
        assert ours == pytest.approx(float(theirs.result()))
    theirs = keras.metrics.F1Score(average="macro", threshold=0.5)
    theirs.update_state(targets, outputs)
    ours = made("f1_score", losses.BinaryCrossentropy())
    assert counted(ours, outputs, targets, cuts) == pytest.approx(float(theirs.result()))


@pytest.mark.parametrize("metric", [metrics.BinaryAccuracy(), metrics.BinaryAccuracy(threshold=0.2), metrics.F1Score()])
def test_logits_and_probabilities_give_the_same_value(metric):
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(120, 3)), rng.integers(0, 2, (120, 3)).astype(float)
    metric = made(metric, losses.BinaryCrossentropy())
    expected = counted(metric, 1 / (1 + np.exp(-logits)), targets, [])
    metric.reset_state()
    assert counted(made(metric, losses.BinaryCrossentropy(from_logits=True)), logits, targets, []) == expected


def test_f1_without_any_label_is_0():
    outputs, targets = np.zeros((4, 2)), np.zeros((4, 2))
    assert counted(made("f1_score", losses.BinaryCrossentropy()), outputs, targets, []) == 0


def test_numbers(keras):
    rng = np.random.default_rng(2)
    outputs, targets = rng.random((50, 3)), rng.random((50, 3))
    for name, theirs in [("mae", keras.metrics.MeanAbsoluteError()), ("mse", keras.metrics.MeanSquaredError())]:
        theirs.update_state(targets, outputs)
        ours = made(name, losses.Huber())
        assert counted(ours, outputs, targets, [7]) == pytest.approx(float(theirs.result()), rel=1e-6)


@pytest.mark.peers("sklearn")
def test_f1_averages_over_the_classes_that_occur():
    """As in scikit-learn; in Keras, a class that does not occur has a score of 0."""
    import sklearn.metrics

    answers, labels = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 3])  # a class that only is a label, and one of nothing
    expected = sklearn.metrics.f1_score(labels, answers, average="macro", zero_division=0)
    assert counted(metrics.F1Score(), np.eye(5)[answers], labels, []) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [metrics.Accuracy(), metrics.F1Score(), metrics.TopKAccuracy(2)])
def test_a_state_is_restored(metric):
    outputs, labels = classified()
    whole = counted(metric, outputs, labels, [])
    metric.reset_state()
    counted(metric, outputs[:80], labels[:80], [])
    state = metric.get_state()
    other = type(metric)(**metric.get_config())
    other.set_state(state)
    assert counted(other, outputs[80:], labels[80:], []) == whole


def test_a_metric_of_no_elements_is_nan():
    for name, cls in metrics.METRICS.items():
        loss = {
            "classes": CROSS_ENTROPY,
            "questions": losses.BinaryCrossentropy(),
            "numbers": losses.MeanSquaredError(),
        }
        assert np.isnan(made(name, loss[cls.accepts[0]]).result())


# --- Against Keras ----------------------------------------------------------------------------------------------------

PROBABILITIES = {
    "Precision": [{}, {"thresholds": 0.3}, {"top_k": 2}, {"class_id": 1}, {"thresholds": 0.2, "top_k": 1}],
    "Recall": [{}, {"thresholds": [0.3]}, {"top_k": 2}, {"class_id": 0, "thresholds": 0.7}],
    "AUC": [
        {"curve": curve, "summation_method": method, **more}
        for curve in ("ROC", "PR")
        for method in ("interpolation", "minoring", "majoring")
        for more in ({}, {"num_thresholds": 7}, {"thresholds": [0.1, 0.25, 0.7]})
    ],
    "TruePositives": [{}, {"thresholds": 0.3}],
    "TrueNegatives": [{}, {"thresholds": 0.3}],
    "FalsePositives": [{}],
    "FalseNegatives": [{}],
}
CASES = [(name, config) for name, configs in PROBABILITIES.items() for config in configs]


@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("lengths", [None, np.array([4, 0, 2, 1, 4])])
def test_metrics_of_probabilities(name, config, columns, lengths, keras):
    """Metrics of a model with logits or probabilities equal those of Keras on the valid steps."""
    if columns == 1 and (config.get("class_id") == 1 or "top_k" in config):
        pytest.skip("for models with several outputs only")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4, 2)).astype(np.float32), rng.integers(0, 2, (5, 4, columns))
    counts = np.ones((5, 4), bool) if lengths is None else np.arange(4) < lengths[:, None]
    theirs = getattr(keras.metrics, name)(**config)
    for logits in (False, True):
        head = layers.Dense(
            columns, "linear" if logits else "sigmoid", kernel_initializer=initializers.RandomNormal(0, 2)
        )
        model = Sequential([layers.GRU(8, return_sequences=True, input_shape=(4, 2)), head])
        model.compile("sgd", losses.BinaryCrossentropy(from_logits=logits), metrics=[getattr(metrics, name)(**config)])
        found = model.evaluate(x, y, lengths=lengths, batch_size=2, return_dict=True, verbose=0)
        p = model.predict(x, lengths=lengths)[counts]
        theirs.reset_state()
        theirs.update_state(y[counts], 1 / (1 + np.exp(-p)) if logits else p)
        assert found[model.metrics[0].name] == pytest.approx(float(theirs.result()), rel=2e-6, abs=1e-7)
    ours = getattr(metrics, name)(**config)
    for part in (slice(0, 7), slice(7, None)):
        ours.update_state(y[counts][part], (1 / (1 + np.exp(-p)))[part])
    assert ours.result() == pytest.approx(float(theirs.result()), rel=2e-6, abs=1e-7)
    state = ours.get_state()
    again = metrics.get({"class_name": name, "config": ours.get_config()})
    again.require_sound(state)
    again.set_state(state)
    assert again.result() == ours.result()


@pytest.mark.parametrize("name", ["Precision", "Recall", "AUC"])
def test_integer_classes_count_as_one_hot_labels(name, keras):
    outputs, labels = classified()
    theirs = getattr(keras.metrics, name)()
    theirs.update_state(np.eye(outputs.shape[1])[labels], outputs)
    for loss, given in ((CROSS_ENTROPY, outputs), (losses.CategoricalCrossentropy(from_logits=True), np.log(outputs))):
        for targets in (labels, np.eye(outputs.shape[1])[labels]):
            found = counted(made(name, loss), given, targets, [3, 90])
            assert found == pytest.approx(float(theirs.result()), rel=2e-6)


@pytest.mark.parametrize(
    "name",
    [
        *("MeanAbsoluteError", "MeanSquaredError", "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError"),
        *("LogCoshError", "Poisson", "KLDivergence", "RootMeanSquaredError", "R2Score"),
    ],
)
def test_metrics_of_numbers(name, keras):
    rng = np.random.default_rng(2)
    outputs, targets = (array / array.sum(axis=1, keepdims=True) for array in rng.random((2, 50, 3)))
    theirs = getattr(keras.metrics, name)()
    theirs.update_state(targets.astype(np.float32), outputs.astype(np.float32))
    ours = getattr(metrics, name)()
    assert ours.name == theirs.name
    assert counted(ours, outputs, targets, [7, 7]) == pytest.approx(float(theirs.result()), rel=3e-6)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_averages_of_f1(average, threshold, keras):
    rng = np.random.default_rng(1)
    outputs, targets = rng.random((120, 3)), rng.integers(0, 2, (120, 3)).astype(float)
    theirs = keras.metrics.F1Score(average=average, threshold=threshold or 0.5)
    theirs.update_state(targets, outputs)
    ours = made(metrics.F1Score(average, threshold), losses.BinaryCrossentropy())
    assert counted(ours, outputs, targets, [3]) == pytest.approx(float(theirs.result()), rel=1e-6)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_names_are_those_of_keras(name, keras):
    cls = metrics.METRICS[name]
    assert type(metrics.get(name)) is type(metrics.get(cls.__name__)) is cls
    assert metrics.get(name).name == name
    if cls is metrics.TopKAccuracy:
        return
    theirs = getattr(keras.metrics, cls.__name__)
    assert re.sub(r"_\d+$", "", theirs().name) == cls().name == name  # Keras numbers its objects


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: metrics.get("iou"), ValueError, "metrics: expected some of 'accuracy'"),
        (lambda: metrics.get("MeanIoU"), ValueError, "got 'MeanIoU'; write it as a function"),
        (lambda: metrics.get(3), TypeError, "metrics: expected names, functions, or some of fastgru.metrics, got 3"),
        (lambda: metrics.BinaryAccuracy(0.3), TypeError, "name: expected a string, got 0.3"),
        (lambda: metrics.AUC(multi_label=True), ValueError, "multi_label: expected False because"),
        (lambda: metrics.F1Score(None), ValueError, "average: expected 'macro', .* got None"),
        (
            lambda: metrics.Precision([0.1, 0.2]),
            ValueError,
            "thresholds: expected one number .* pass one metric per threshold",
        ),
        (lambda: metrics.Recall(1.5), ValueError, "thresholds: expected a number from 0 to 1, got 1.5"),
        (lambda: metrics.Accuracy(dtype="float32"), ValueError, "dtype: expected None"),
        (lambda: metrics.PrecisionAtRecall, AttributeError, "no attribute 'PrecisionAtRecall'; write it as a function"),
        (lambda: metrics.AUC().update_state([0, 1], [2.0, 0.5]), ValueError, "auc: expected probabilities .* got 2.0"),
        (lambda: metrics.AUC().update_state([0], [0.5], sample_weight=[1]), ValueError, "metrics are not weighted"),
        (lambda: metrics.AUC().update_state([0, 1, 1], [0.5, 0.5]), ValueError, "y_true: expected a shape that begins"),
    ],
)
def test_unsupported_options_of_metrics_raise(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- Functions --------------------------------------------------------------------------------------------------------


def within_a_tenth(y_true, y_pred):
    return np.abs(y_true - y_pred) < 0.1


@pytest.mark.parametrize("lengths", [None, np.array([4, 0, 2, 1, 4])])
def test_a_function_is_averaged_over_valid_elements(lengths):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4, 2)).astype(np.float32), rng.normal(size=(5, 4, 3))
    model = Sequential([layers.GRU(4, return_sequences=True, input_shape=(4, 2)), layers.Dense(3)])
    near = functools.partial(within_a_tenth)
    model.compile("sgd", "mse", metrics=[within_a_tenth, metrics.MeanMetricWrapper(near, name="near")])
    found = model.evaluate(x, y, lengths=lengths, batch_size=2, return_dict=True, verbose=0)
    counts = np.ones((5, 4), bool) if lengths is None else np.arange(4) < lengths[:, None]
    expected = within_a_tenth(y, model.predict(x, lengths=lengths))[counts].mean()
    assert found["within_a_tenth"] == found["near"] == pytest.approx(expected)
    held = {"x": x, "y": y} | ({} if lengths is None else {"lengths": lengths})
    history = model.fit(x, y, lengths=lengths, validation_data=held, verbose=0).history
    assert {"within_a_tenth", "val_near"} <= history.keys()


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "binary_crossentropy", "mse"])
def test_functions_support_every_loss(loss):
    activation = {"mse": "linear", "binary_crossentropy": "sigmoid"}.get(loss, "softmax")
    model = Sequential([layers.GRU(4, input_shape=(4, 2)), layers.Dense(2, activation)])

    def sure(y_true, y_pred):
        assert y_true.dtype == y_pred.dtype == np.float64
        return y_pred.max(axis=-1)

    model.compile("sgd", loss, metrics=[sure])
    x = np.random.default_rng(0).normal(size=(6, 4, 2)).astype(np.float32)
    y = np.arange(6) % 2 if activation == "softmax" else np.eye(2)[np.arange(6) % 2]
    assert model.evaluate(x, y, return_dict=True, verbose=0)["sure"] == pytest.approx(
        model.predict(x).max(axis=1).mean()
    )


def test_a_function_that_returns_one_number_raises():
    model = Sequential([layers.GRU(4, input_shape=(4, 2)), layers.Dense(2)])
    model.compile("sgd", "mse", metrics=[lambda y_true, y_pred: np.abs(y_true - y_pred).mean()])
    x = np.zeros((6, 4, 2), np.float32)
    with pytest.raises(
        ValueError, match=r"<lambda>: expected a value of each row, shape \(6,\), .* got a single number"
    ):
        model.evaluate(x, x[:, 0], verbose=0)


def test_the_example_of_a_custom_metric_works():
    (example,) = (each for each in doctest.DocTestFinder().find(metrics.Metric, "Metric", globs={}) if each.examples)
    assert doctest.DocTestRunner(verbose=False).run(example, clear_globs=False).failed == 0
    model = example.globs["model"]
    x = np.random.default_rng(0).normal(size=(16, 5, 2)).astype(np.float32)
    y = x[:, 0, :1]
    assert model.fit(x, y, validation_data=(x, y), verbose=0).history["val_largest_error"] == [
        pytest.approx(np.abs(model.predict(x) - y).max(), rel=1e-6)
    ]
    softmax = Sequential([layers.Dense(2, "softmax", input_shape=(2,))])
    with pytest.raises(ValueError, match="metrics: largest_error does not support the loss sparse_categorical_cross"):
        softmax.compile("sgd", "sparse_categorical_crossentropy", metrics=[example.globs["LargestError"]()])


def test_a_class_derived_from_a_metric_of_the_package_may_define_update_state():
    class Counting(metrics.Accuracy):
        def update_state(self, y_true, y_pred, sample_weight=None):
            np.testing.assert_allclose(y_pred.sum(axis=1), 1, rtol=1e-5)  # probabilities
            super().update_state(y_true, y_pred)
            self._count += 1

    model = Sequential([layers.GRU(3, input_shape=(4, 2)), layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[Counting()])
    model.evaluate(np.zeros((6, 4, 2), np.float32), np.zeros(6, int), batch_size=2, verbose=0)
    assert model.metrics[0]._count == 6 + 3


def test_a_metric_without_update_state_raises():
    class Empty(metrics.Metric):
        def reset_state(self):
            pass

        def result(self):
            return 0.0

    model = Sequential([layers.Dense(2, input_shape=(2,))])
    model.compile("sgd", "mse", metrics=[Empty()])
    with pytest.raises(NotImplementedError, match="Empty: expected a method update_state"):
        model.evaluate(np.zeros((2, 2), np.float32), np.zeros((2, 2)), verbose=0)


# --- Metrics of one's own -------------------------------------------------------------------------------------------


class Largest(metrics.Metric):
    """A custom metric: the largest output, and the number of elements."""

    name = "largest"

    def reset_state(self):
        self._largest, self._count = -np.inf, 0

    def update_state(self, y_true, y_pred, sample_weight=None):
        assert len(y_pred) == len(y_true)
        self._largest = max(self._largest, float(y_pred.max()))
        self._count += len(y_pred)

    def result(self):
        return self._largest


class OfNumbers(Largest):
    """A custom metric that declares which losses it supports."""

    name = "of_numbers"
    accepts = ("numbers",)


class OwnLoss(losses.MeanSquaredError):
    name = "own"


KINDS = {
    "categorical_crossentropy": ("softmax", "classes"),
    "sparse_categorical_crossentropy": ("softmax", "classes"),
    "binary_crossentropy": ("sigmoid", "questions"),
    "mean_squared_error": (None, "numbers"),
    "mean_absolute_error": (None, "numbers"),
    "huber": (None, "numbers"),
    "quantile": (None, "numbers"),
    "log_cosh": (None, "numbers"),
    "binary_focal_crossentropy": ("sigmoid", "questions"),
    OwnLoss(): (None, "numbers"),
}


@pytest.mark.parametrize("loss", KINDS, ids=lambda loss: losses.get(loss).name)
@pytest.mark.parametrize("each_step", [False, True])
def test_a_custom_metric_supports_every_loss(loss, each_step):
    activation, _ = KINDS[loss]
    model = Sequential([layers.GRU(4, return_sequences=each_step, input_shape=(5, 2)), layers.Dense(3, activation)])
    own = Largest()
    model.compile("adam", loss, metrics=[own])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 5, 2)).astype(np.float32)
    y = rng.integers(0, 2, (20, 5, 3) if each_step else (20, 3)).astype(np.float32)
    found = model.evaluate(x, y, batch_size=7, return_dict=True)
    assert found["largest"] == float(model.predict(x).max())
    assert own._count == (100 if each_step else 20)
    history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    assert history["val_largest"] == [float(model.predict(x).max())]
    assert model.train_on_batch(x, y)[1] == history["val_largest"][0]


@pytest.mark.parametrize("loss", KINDS, ids=lambda loss: losses.get(loss).name)
def test_a_metric_defines_which_losses_it_supports(loss):
    activation, kind = KINDS[loss]
    assert losses.get(loss).kind == kind
    model = Sequential([layers.GRU(4, input_shape=(5, 2)), layers.Dense(3, activation)])
    for metric in (OfNumbers(), *(cls() for cls in metrics.CLASSES.values())):
        if kind in metric.accepts:
            model.compile("adam", loss, metrics=[metric])
            continue
        with pytest.raises(
            ValueError, match=f"metrics: {metric.name} does not support the loss .* targets are {kind};"
        ):
            model.compile("adam", loss, metrics=[metric])


def test_the_losses_that_each_metric_supports():
    accepted = {}
    for name, cls in metrics.METRICS.items():
        accepted.setdefault(cls().accepts, set()).add(name)
    numbers = {"mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "logcosh", "poisson"}
    numbers |= {"mean_absolute_percentage_error", "mean_squared_logarithmic_error", "kl_divergence", "binary_accuracy"}
    counts = {"true_positives", "true_negatives", "false_positives", "false_negatives"}
    assert accepted.pop(("classes",)) == {name for name in metrics.METRICS if name.endswith("accuracy")} - {
        "binary_accuracy"
    }
    assert accepted.pop(("classes", "questions")) == {"f1_score"}
    assert accepted.pop(("numbers",)) == {"r2_score"}
    assert accepted.pop(("questions", "numbers")) == numbers
    assert accepted.pop(losses.KINDS) == {"auc", "precision", "recall", *counts}
    assert not accepted


def test_accuracy_depends_on_the_loss():
    assert isinstance(made("accuracy", losses.BinaryCrossentropy()), metrics.BinaryAccuracy)
    assert made("accuracy", losses.BinaryCrossentropy()).name == "accuracy"
    assert isinstance(made("accuracy", CROSS_ENTROPY), metrics.Accuracy)


class Plain(metrics.Metric):
    """A custom metric that does not call the constructor of the base class."""

    name = "plain"

    def __init__(self):
        self.reset_state()

    def reset_state(self):
        self._count = 0

    def update_state(self, y_true, y_pred, sample_weight=None):
        self._count += len(y_pred)

    def result(self):
        return float(self._count)


@pytest.mark.parametrize("make", [metrics.MeanSquaredError, Plain])
def test_a_metric_counts_for_one_model_at_a_time(make):
    one, other = (Sequential([layers.Dense(1, input_shape=(3,))]) for _ in range(2))
    metric = make()
    state = metric.get_state()
    one.compile("adam", "mse", metrics=[metric])
    one.compile("adam", "mae", metrics=[metric])  # the same again
    with pytest.raises(
        ValueError, match=r"metrics: expected a metric of no other model because .* got \w+, which another model"
    ):
        other.compile("adam", "mse", metrics=[metric])
    assert other.optimizer is None
    assert metric.get_state() == state
    for again in (copy.deepcopy(metric), copy.copy(metric), pickle.loads(pickle.dumps(metric))):
        other.compile("adam", "mse", metrics=[again])
        assert other.metrics == [again]
    x, y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
    one.fit(x, y, verbose=0)
    assert pickle.loads(pickle.dumps(one.metrics[0])).get_state() == one.metrics[0].get_state()
    if make is not Plain:  # a model is copied by what a file holds, which is no code
        third = copy.deepcopy(one)
        third.compile("adam", "mse", metrics=third.metrics)
        with pytest.raises(ValueError, match="metrics: expected a metric of no other model"):
            other.compile("adam", "mse", metrics=third.metrics)
    one.compile("adam", "mse")
    other.compile("adam", "mse", metrics=[metric])  # which the first no longer uses
    del other
    one.compile("adam", "mse", metrics=[metric])


def test_metrics_may_be_any_iterable_except_a_dict():
    model = Sequential([layers.Dense(1, input_shape=(3,))])
    for given in (["mse", "mae"], ("mse", "mae"), {"mse", "mae"}, iter(["mse", "mae"]), np.array(["mse", "mae"])):
        model.compile("adam", "mse", metrics=given)
        assert {metric.name for metric in model.metrics} == {"mse", "mae"}
    for wrong in ({"mse": "mse"}, b"mse", 3):
        with pytest.raises(TypeError, match="metrics: expected a list, got"):
            model.compile("adam", "mse", metrics=wrong)


@pytest.mark.peers("keras")
def test_metrics_are_called_as_in_keras(keras):
    labels, outputs = np.array([0, 1, 1, 1]), np.array([0.2, 0.8, 0.4, 0.9])
    for name in ("Precision", "Recall", "AUC", "BinaryAccuracy", "MeanSquaredError"):
        ours, theirs = getattr(metrics, name)(), getattr(keras.metrics, name)()
        for part in (slice(0, 2), slice(2, 4)):  # the second call returns the result of both
            assert ours(labels[part], outputs[part]) == pytest.approx(
                float(theirs(labels[part], outputs[part])), rel=1e-6
            )


@pytest.mark.peers("keras")
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_accuracy_compares_labels(shape, keras):
    labels, answers = np.reshape([0, 1, 2, 1], shape), np.reshape([1, 1, 2, 0], shape)
    assert metrics.Accuracy()(labels, answers) == pytest.approx(float(keras.metrics.Accuracy()(labels, answers))) == 0.5


def test_metrics_have_attributes_instead_of_variables():
    class Counted(metrics.Metric):
        def __init__(self, name="counted"):
            super().__init__(name=name)
            self.total = self.add_weight(name="total", initializer="zeros")

        def reset_state(self):
            pass

        def result(self):
            return 0.0

    with pytest.raises(NotImplementedError, match="Counted needs no variables; set an attribute"):
        Counted()


def test_metrics_of_a_model_can_be_reset():
    model = Sequential([layers.GRU(2, input_shape=(5, 3)), layers.Dense(1)])
    model.compile("adam", loss="mse", metrics=["mae"])
    model.evaluate(np.zeros((4, 5, 3)), np.ones(4), verbose=0)
    assert not np.isnan(model.metrics[0].result())
    model.reset_metrics()
    assert np.isnan(model.metrics[0].result())


def test_a_metric_is_no_loss():
    model = Sequential([layers.GRU(2, input_shape=(5, 3)), layers.Dense(1)])
    with pytest.raises(TypeError, match=r"loss: .* got the metric MeanSquaredError\(\); pass it in metrics="):
        model.compile("adam", loss=metrics.MeanSquaredError())
