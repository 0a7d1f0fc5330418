"""The estimators in scikit-learn's tools and in its own checks."""

from __future__ import annotations

import dataclasses
import pickle
import re
import subprocess
import sys

import fastgru
import numpy as np
import peers
import pytest

sklearn = peers.require("sklearn", "1.6")

from fastgru.models.recipes import Settings  # noqa: E402
from fastgru.sklearn import GRUClassifier, GRURegressor  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils import check_array, estimator_checks, get_tags  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

N, T, F = 120, 6, 2
ESTIMATORS = (GRUClassifier, GRURegressor)
QUICK = {"units": 8, "epochs": 10, "learning_rate": 0.02, "random_state": 0}


def sequences(seed=0, count=N):
    """Return X, labels, the sums that determine the labels, and lengths."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, T, F))
    lengths = rng.integers(2, T + 1, count)
    sums = (x[:, :, 0] * (np.arange(T) < lengths[:, None])).sum(axis=1)
    return x, np.where(sums > 0, "up", "down"), sums, lengths


X, LABELS, SUMS, LENGTHS = sequences()
RAGGED = [x[:length] for x, length in zip(X, LENGTHS, strict=True)]


def targets(cls):
    return LABELS if cls is GRUClassifier else SUMS


# --- scikit-learn's own checks --------------------------------------------------------------------------------


class Rows:
    """Makes an estimator accept tables (N, F), each row as a sequence of one step.

    scikit-learn's checks use tables only, and check_estimator skips estimators that do not accept them. This wrapper
    makes it check everything except the shape of X.
    """

    def _pad(self, X, lengths):
        return X, lengths

    def _require_sequences(self, X, *, fitting):
        table = check_array(X, dtype=None, estimator=self)
        return super()._require_sequences(table[:, None, :], fitting=fitting)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


class RowClassifier(Rows, GRUClassifier):
    pass


class RowRegressor(Rows, GRURegressor):
    pass


#: Samples of weight 0 still occupy places in the batches, and count in the mean, as in Keras. Training without them has
#: different batches.
DIFFERENT_BY_DESIGN = {"check_sample_weight_equivalence_on_dense_data": "weights are factors within a batch"}


@parametrize_with_checks(
    [cls(units=16, epochs=50, learning_rate=0.02, random_state=0) for cls in (RowClassifier, RowRegressor)],
    expected_failed_checks=lambda estimator: DIFFERENT_BY_DESIGN,
)
def test_scikit_learn_agrees(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_agrees_about_the_estimators_themselves(cls, check):
    """The checks that need no X, on the unwrapped estimators."""
    check(cls.__name__, cls())


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_tags_ask_for_three_axes(cls):
    tags = get_tags(cls())
    assert (tags.input_tags.two_d_array, tags.input_tags.three_d_array) == (False, True)
    assert tags.estimator_type == ("classifier" if cls is GRUClassifier else "regressor")
    assert tags.target_tags.multi_output == (cls is GRURegressor)


# --- With scikit-learn's tools --------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_pipeline_cross_validation_and_grid_search(cls):
    centred = FunctionTransformer(lambda x: x - x.mean(axis=(1, 2), keepdims=True))
    y = targets(cls)
    assert len(cross_val_score(make_pipeline(centred, cls(**QUICK)), X, y, cv=3)) == 3
    search = GridSearchCV(cls(**QUICK), {"units": [(8, 8), 4], "learning_rate": [1e-6, 0.02]}, cv=2)
    search.fit(RAGGED, y)
    assert search.best_params_["learning_rate"] == 0.02
    assert search.predict(RAGGED).shape == (N,)
    assert search.score(RAGGED, y) > 0.5


def test_lengths_are_routed_to_fit_and_to_score():
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = GRUClassifier(**QUICK).set_fit_request(lengths=True).set_score_request(lengths=True)
        scores = cross_val_score(estimator, X, LABELS, cv=3, params={"lengths": LENGTHS})
    assert scores.mean() > 0.8


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_pickles_and_clones(cls):
    estimator = cls(**QUICK, bidirectional=True, dropout=0.1).fit(X, targets(cls), lengths=LENGTHS)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict(X, LENGTHS), estimator.predict(X, LENGTHS))
    np.testing.assert_array_equal(again.model_.predict(X), estimator.model_.predict(X))
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    np.testing.assert_array_equal(copy.fit(X, targets(cls), lengths=LENGTHS).model_.predict(X), again.model_.predict(X))


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_estimators_are_hashable_and_equal_only_themselves(cls):
    estimator = cls()
    assert estimator == estimator
    assert estimator != cls()
    assert len({estimator, cls()}) == 2


# --- Inputs and outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, LABELS == "up", (LABELS == "up") * 7 - 3, np.array(LABELS, object)])
def test_labels_of_any_kind(labels):
    estimator = GRUClassifier(**{**QUICK, "epochs": 30}).fit(X, labels, lengths=LENGTHS)
    np.testing.assert_array_equal(estimator.classes_, np.unique(labels))
    probabilities = estimator.predict_proba(X, LENGTHS)
    assert probabilities.shape == (N, 2)
    predicted = estimator.predict(X, LENGTHS)
    assert predicted.dtype == np.asarray(labels).dtype
    np.testing.assert_array_equal(predicted, estimator.classes_[probabilities.argmax(axis=1)])
    assert estimator.score(X, labels, lengths=LENGTHS) == (predicted == labels).mean() > 0.9


def test_numbers_come_back_in_the_shape_of_y():
    settings = {**QUICK, "epochs": 60}
    one = GRURegressor(**settings).fit(X, SUMS, lengths=LENGTHS)
    assert one.predict(X, LENGTHS).shape == (N,)
    assert one.score(X, SUMS, lengths=LENGTHS) > 0.9
    two = np.stack([SUMS, -SUMS], axis=1)
    assert GRURegressor(**settings).fit(X, two, lengths=LENGTHS).score(X, two, lengths=LENGTHS) > 0.9
    assert GRURegressor(**QUICK).fit(X, SUMS[:, None]).predict(X).shape == (N, 1)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_a_list_of_sequences_is_what_padding_and_lengths_are(cls):
    padded = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], X, 99.0)
    expected = cls(**QUICK).fit(padded, targets(cls), lengths=LENGTHS)
    ragged = np.empty(N, object)
    ragged[:] = RAGGED
    for given in (RAGGED, tuple(RAGGED), ragged):
        estimator = cls(**QUICK).fit(given, targets(cls))
        np.testing.assert_array_equal(estimator.predict(given), expected.predict(X, LENGTHS))
    np.testing.assert_array_equal(
        cls(**QUICK).fit(list(X), targets(cls)).predict(X), cls(**QUICK).fit(X, targets(cls)).predict(list(X))
    )
    mask = np.arange(T) < LENGTHS[:, None]
    np.testing.assert_array_equal(expected.predict(X, mask), expected.predict(X, LENGTHS))


def test_a_new_sequence_may_be_longer_than_those_seen():
    estimator = GRUClassifier(**QUICK).fit(X[:, :3], LABELS)
    assert estimator.predict(X).shape == (N,)
    assert estimator.n_features_in_ == F


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_any_dtype_are_converted_and_not_scaled(dtype):
    whole = np.round(20 * X)
    expected = None
    for given in [whole, whole.astype(np.float32), whole.astype(np.int64), whole.astype(">i2")]:
        estimator = GRUClassifier(**QUICK, dtype=dtype).fit(given, LABELS)
        assert estimator.model_.dtype == dtype
        found = estimator.predict_proba(given)
        assert found.dtype == dtype
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)
    images = (X > 0).astype(np.uint8) * 255
    for given in (images, images.astype(np.float32)):
        found = GRUClassifier(**QUICK, dtype=dtype).fit(given, LABELS).predict_proba(given)
        expected = found if given is images else expected
        np.testing.assert_array_equal(found, expected)


# --- Training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_random_state_decides_and_nothing_else(cls):
    def fitted(random_state):
        return cls(**{**QUICK, "random_state": random_state}).fit(X, targets(cls)).model_.predict(X)

    fastgru.set_seed(1)
    expected = fitted(0)
    fastgru.set_seed(2)
    np.testing.assert_array_equal(fitted(0), expected)
    np.testing.assert_array_equal(fitted(np.random.RandomState(0)), expected)
    assert (fitted(1) != expected).any()
    assert (fitted(None) != fitted(None)).any()


def test_fitting_leaves_the_seed_of_others_alone():
    models = []
    for fit in (False, True):
        fastgru.set_seed(3)
        first = fastgru.Sequential([fastgru.layers.GRU(2, input_shape=(T, F))])
        if fit:
            GRUClassifier(**QUICK).fit(X, LABELS)
            models.append(first)
        models.append(first)
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


def test_class_weights_are_those_of_samples():
    rare = np.where(SUMS > 1.5, "up", "down")
    factors = dict(zip(*np.unique(rare, return_counts=True), strict=True))
    factors = {label: N / (2 * count) for label, count in factors.items()}
    weights = np.array([factors[label] for label in rare])
    estimators = [
        GRUClassifier(**QUICK, class_weight="balanced").fit(X, rare),
        GRUClassifier(**QUICK, class_weight=factors).fit(X, rare),
        GRUClassifier(**QUICK).fit(X, rare, sample_weight=weights),
    ]
    probabilities = [estimator.predict_proba(X) for estimator in estimators]
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    np.testing.assert_array_equal(probabilities[0], probabilities[2])
    assert (GRUClassifier(**QUICK).fit(X, rare).predict_proba(X) != probabilities[0]).any()


def test_validation_is_drawn_from_all_classes_and_stops_the_training():
    order = np.argsort(LABELS)  # the last samples are of a single class
    settings = {**QUICK, "epochs": 200, "learning_rate": 0.05}
    estimator = GRUClassifier(**settings, validation_split=0.3, patience=2)
    estimator.fit(X[order], LABELS[order], lengths=LENGTHS[order], sample_weight=np.ones(N))
    history = estimator.history_
    assert len(history["loss"]) < 200
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert max(history["val_accuracy"]) > 0.8
    assert set(GRURegressor(**QUICK, validation_split=0.3).fit(X, SUMS).history_) == {
        *("loss", "mean_absolute_error", "val_loss", "val_mean_absolute_error")
    }


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_parameters_are_the_settings_of_a_recipe(cls):
    defaults = {each.name: each.default for each in dataclasses.fields(Settings)} | {"epochs": 20}
    parameters = cls().get_params()
    assert {name: parameters[name] for name in defaults} == defaults
    section = cls.__doc__.split("----------\n")[1].split("Attributes\n")[0]
    documented = re.findall(r"^    (\w[\w, ]*)", section, re.MULTILINE)
    assert {name for line in documented for name in line.strip().split(", ")} == set(parameters)


def test_settings_are_those_of_the_recipe():
    estimator = GRUClassifier(
        (6, 4), bidirectional=True, epochs=2, optimizer="sgd", learning_rate=0.1, schedule="onecycle", clip_norm=1.0
    ).fit(X, LABELS)
    model = estimator.model_
    assert [layer.forward_layer.units for layer in model.layers[:2]] == [6, 4]
    assert isinstance(model.optimizer, fastgru.optimizers.SGD)
    assert model.optimizer.global_clipnorm == 1.0
    assert model.optimizer.learning_rate.get_config()["config"]["total_steps"] == 2 * 4
    assert estimator.get_params()["units"] == (6, 4)


# --- Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({}, {"X": X[:, 0]}, r"X: expected shape \(N, T, F\), .* got \(120, 2\)"),
        ({}, {"X": X[:, :0]}, r"X: expected shape \(N, T, F\), .* got \(120, 0, 2\)"),
        ({}, {"X": [X[0], X[1, 0]], "y": LABELS[:2]}, r"X: sequences: expected shape \(T, 2\)"),
        ({}, {"X": RAGGED, "lengths": LENGTHS}, "lengths: expected None because X is a list of sequences"),
        ({}, {"lengths": LENGTHS + 9}, "lengths: expected lengths from 0 to 6"),
        ({}, {"X": np.full_like(X, np.nan)}, "NaN"),
        ({}, {"y": LABELS[:5]}, "inconsistent numbers of samples"),
        ({}, {"y": np.full(N, "up")}, "y: expected at least two classes, got one class"),
        ({}, {"y": SUMS}, "Unknown label type"),
        ({}, {"sample_weight": np.zeros(N)}, "sample_weight: expected at least one that is not zero"),
        ({}, {"sample_weight": np.ones(3)}, r"sample_weight: expected shape \(120,\)"),
        ({"validation_split": 0.25}, {"sample_weight": np.ones(N - 1)}, r"sample_weight: expected .*, got \(119,\)"),
        ({"validation_split": 0.25}, {"sample_weight": np.ones(N + 9)}, r"sample_weight: expected .*, got \(129,\)"),
        ({"class_weight": {"down": 1.0, "up": -2.0}}, {}, r"class_weight\['up'\]: expected .*, got -2.0"),
        ({"units": 0}, {}, "units: expected an integer of at least 1, got 0"),
        ({"optimizer": "lion"}, {}, "optimizer: expected one of 'adam'"),
        ({"validation_split": 1.0}, {}, "validation_split: expected a finite number at least 0 and below 1"),
        ({"patience": 3}, {}, "patience: expected None because validation_split is 0"),
        ({"class_weight": "fair"}, {}, "class_weight"),
    ],
)
def test_what_cannot_be_fitted_is_named(settings, arguments, message):
    with pytest.raises(ValueError, match=message):
        GRUClassifier(**{**QUICK, **settings}).fit(**{"X": X, "y": LABELS, **arguments})


def test_other_features_than_those_seen_are_refused():
    estimator = GRUClassifier(**QUICK).fit(X, LABELS)
    with pytest.raises(ValueError, match="X has 1 features, but GRUClassifier is expecting 2 features as input"):
        estimator.predict(X[:, :, :1])
    with pytest.raises(ValueError, match="Found array with dim 3"):
        GRURegressor(**QUICK).fit(X, SUMS[:, None, None])


def test_import_fastgru_leaves_scikit_learn_out():
    code = "import fastgru, fastgru.cli, sys; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
