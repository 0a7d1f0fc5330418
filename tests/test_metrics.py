"""Metrics against their definitions and Keras: exact over the whole set, however it is batched."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from fastgru import Sequential, layers, losses, metrics
from fastgru.losses import LossResult

CROSS_ENTROPY = losses.CategoricalCrossentropy()
NOTHING = LossResult(np.zeros(0), None, None)


def classified(count=200, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    outputs = rng.random((count, classes))
    return outputs / outputs.sum(axis=1, keepdims=True), rng.integers(0, classes, count)


def counted(metric, outputs, targets, cuts):
    for part in np.split(np.arange(len(outputs)), cuts):
        metric.update(outputs[part], targets[part], NOTHING)
    return metric.value()


@pytest.mark.parametrize("cuts", [[], [1], [37, 37, 150]])
def test_classes(cuts, keras):
    outputs, labels = classified()
    one_hot = np.eye(outputs.shape[1])[labels]
    for name, theirs in [
        ("accuracy", keras.metrics.CategoricalAccuracy()),
        ("f1_score", keras.metrics.F1Score(average="macro")),
    ]:
        theirs.update_state(one_hot, outputs)
        assert counted(metrics.get(name, CROSS_ENTROPY), outputs, labels, cuts) == pytest.approx(float(theirs.result()))
        assert counted(metrics.get(name, CROSS_ENTROPY), outputs, one_hot, cuts) == pytest.approx(
            float(theirs.result())
        )
    for k in (1, 2, 5, 6):
        top = keras.metrics.TopKCategoricalAccuracy(k=k)
        top.update_state(one_hot, outputs.astype(np.float32))
        assert counted(metrics.TopKAccuracy(k), outputs, labels, cuts) == pytest.approx(float(top.result()))


@pytest.mark.parametrize("cuts", [[], [3, 90]])
@pytest.mark.parametrize("columns", [1, 3])
def test_yes_or_no(cuts, columns, keras):
    rng = np.random.default_rng(1)
    outputs, targets = rng.random((120, columns)), rng.integers(0, 2, (120, columns)).astype(float)
    for threshold in (0.5, 0.2):
        theirs = keras.metrics.BinaryAccuracy(threshold=threshold)
        theirs.update_state(targets, outputs)
        ours = counted(metrics.BinaryAccuracy(threshold), outputs, targets, cuts)
        assert ours == pytest.approx(float(theirs.result()))
    theirs = keras.metrics.F1Score(average="macro", threshold=0.5)
    theirs.update_state(targets, outputs)
    ours = metrics.get("f1_score", losses.BinaryCrossentropy())
    assert counted(ours, outputs, targets, cuts) == pytest.approx(float(theirs.result()))


@pytest.mark.parametrize("metric", [metrics.BinaryAccuracy(), metrics.BinaryAccuracy(0.2), metrics.F1Score()])
def test_logits_say_what_their_probabilities_say(metric):
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(120, 3)), rng.integers(0, 2, (120, 3)).astype(float)
    metric = metrics.get(metric, losses.BinaryCrossentropy())
    expected = counted(metric, 1 / (1 + np.exp(-logits)), targets, [])
    metric.reset()
    assert counted(metrics.get(metric, losses.BinaryCrossentropy(from_logits=True)), logits, targets, []) == expected


def test_f1_without_any_label_is_0():
    outputs, targets = np.zeros((4, 2)), np.zeros((4, 2))
    assert counted(metrics.get("f1_score", losses.BinaryCrossentropy()), outputs, targets, []) == 0


def test_numbers(keras):
    rng = np.random.default_rng(2)
    outputs, targets = rng.random((50, 3)), rng.random((50, 3))
    for name, theirs in [("mae", keras.metrics.MeanAbsoluteError()), ("mse", keras.metrics.MeanSquaredError())]:
        theirs.update_state(targets, outputs)
        ours = metrics.get(name, losses.Huber())
        assert counted(ours, outputs, targets, [7]) == pytest.approx(float(theirs.result()), rel=1e-6)


@pytest.mark.peers("sklearn")
def test_f1_takes_the_classes_that_occur():
    """As scikit-learn does; Keras takes a class that does not occur for one with a score of 0."""
    import sklearn.metrics

    answers, labels = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 3])  # a class that only is a label, and one of nothing
    expected = sklearn.metrics.f1_score(labels, answers, average="macro", zero_division=0)
    assert counted(metrics.F1Score(), np.eye(5)[answers], labels, []) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [metrics.Accuracy(), metrics.F1Score(), metrics.TopKAccuracy(2)])
def test_a_state_goes_on(metric):
    outputs, labels = classified()
    whole = counted(metric, outputs, labels, [])
    metric.reset()
    counted(metric, outputs[:80], labels[:80], [])
    state = metric.get_state()
    other = type(metric)(**metric.get_config())
    other.set_state(state)
    assert counted(other, outputs[80:], labels[80:], []) == whole


def test_nothing_counted_is_no_number():
    for name in metrics.METRICS:
        loss = CROSS_ENTROPY if name in ("accuracy", "top_k_accuracy", "f1_score") else losses.BinaryCrossentropy()
        assert np.isnan(metrics.get(name, loss).value())


# --- Metrics of one's own -------------------------------------------------------------------------------------------


class Largest(metrics.Metric):
    """A user's metric: the largest output, and how many elements were seen."""

    name = "largest"
    on_scores = False

    def reset(self):
        self._largest, self._count = -np.inf, 0

    def update(self, outputs, targets, result):
        assert len(outputs) == len(targets) == len(result.values)
        self._largest = max(self._largest, float(outputs.max()))
        self._count += len(outputs)

    def value(self):
        return self._largest


class OfNumbers(Largest):
    """One that says what it goes with."""

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
    OwnLoss(): (None, "numbers"),
}


@pytest.mark.parametrize("loss", KINDS, ids=lambda loss: losses.get(loss).name)
@pytest.mark.parametrize("each_step", [False, True])
def test_a_metric_of_ones_own_goes_with_every_loss(loss, each_step):
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
def test_a_metric_says_what_it_goes_with(loss):
    activation, kind = KINDS[loss]
    assert losses.get(loss).kind == kind
    model = Sequential([layers.GRU(4, input_shape=(5, 2)), layers.Dense(3, activation)])
    for metric in (OfNumbers(), *(cls() for cls in metrics.CLASSES.values())):
        if kind in metric.accepts:
            model.compile("adam", loss, metrics=[metric])
            continue
        with pytest.raises(
            ValueError, match=f"metrics: {metric.name} does not go with the loss .* targets are {kind};"
        ):
            model.compile("adam", loss, metrics=[metric])


def test_what_the_metrics_of_the_package_go_with():
    accepted = {name: cls().accepts for name, cls in metrics.METRICS.items()}
    assert accepted == {
        "accuracy": ("classes",),
        "top_k_accuracy": ("classes",),
        "binary_accuracy": ("questions", "numbers"),
        "mean_absolute_error": ("questions", "numbers"),
        "mean_squared_error": ("questions", "numbers"),
        "f1_score": ("classes", "questions"),
    }


def test_accuracy_is_what_it_means_for_the_loss():
    assert isinstance(metrics.get("accuracy", losses.BinaryCrossentropy()), metrics.BinaryAccuracy)
    assert metrics.get("accuracy", losses.BinaryCrossentropy()).name == "accuracy"
    assert isinstance(metrics.get("accuracy", CROSS_ENTROPY), metrics.Accuracy)


class Plain(metrics.Metric):
    """A metric of one's own that does not call the base class' __init__."""

    name = "plain"

    def __init__(self):
        self.reset()

    def reset(self):
        self._count = 0

    def update(self, outputs, targets, result):
        self._count += len(outputs)

    def value(self):
        return float(self._count)


@pytest.mark.parametrize("make", [metrics.MeanSquaredError, Plain])
def test_a_metric_counts_for_one_model_at_a_time(make):
    one, other = (Sequential([layers.Dense(1, input_shape=(3,))]) for _ in range(2))
    metric = make()
    state = metric.get_state()
    one.compile("adam", "mse", metrics=[metric])
    one.compile("adam", "mae", metrics=[metric])  # the same again
    with pytest.raises(ValueError, match=r"metrics: expected one of the model's own, .* got \w+, which another model"):
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
        with pytest.raises(ValueError, match="metrics: expected one of the model's own"):
            other.compile("adam", "mse", metrics=third.metrics)
    one.compile("adam", "mse")
    other.compile("adam", "mse", metrics=[metric])  # which the first no longer uses
    del other
    one.compile("adam", "mse", metrics=[metric])


def test_metrics_come_as_any_iterable_but_a_dict():
    model = Sequential([layers.Dense(1, input_shape=(3,))])
    for given in (["mse", "mae"], ("mse", "mae"), {"mse", "mae"}, iter(["mse", "mae"]), np.array(["mse", "mae"])):
        model.compile("adam", "mse", metrics=given)
        assert {metric.name for metric in model.metrics} == {"mse", "mae"}
    for wrong in ({"mse": "mse"}, b"mse", 3):
        with pytest.raises(TypeError, match="metrics: expected a list, got"):
            model.compile("adam", "mse", metrics=wrong)
