"""The data of `fit`, `evaluate` and `predict`: arrays, memory maps, iterables of batches, lengths, weights."""

from __future__ import annotations

import functools

import fastgru
import models
import numpy as np
import pytest
from fastgru import Sequential, layers, losses
from fastgru._training import loop
from models import samples


def data(count=40, steps=6, seed=0):
    x, y = samples(seed, count, steps, classes=3)
    return x, y, np.random.default_rng(seed).integers(0, steps + 1, count)


classifier = functools.partial(models.classifier, 5, classes=3, seed=5, optimizer="adam")
tagger = functools.partial(classifier, return_sequences=True, metrics=["accuracy", "f1_score"])


# --- Lengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [classifier, tagger])
def test_padding_changes_no_bit_of_fit_evaluate_and_predict(make):
    x, y, lengths = data()
    if make is tagger:
        y = np.random.default_rng(1).integers(0, 3, x.shape[:2])
    behind = np.arange(x.shape[1]) >= lengths[:, None]
    other_x, other_y = x.copy(), y.copy()
    other_x[behind] = np.nan
    if make is tagger:
        other_y[behind] = -1
    one, two = make(), make()
    first = one.fit(x, y, lengths=lengths, epochs=2, batch_size=7, verbose=0)
    second = two.fit(other_x, other_y, lengths=lengths, epochs=2, batch_size=7, verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert first.history == second.history
    assert one.evaluate(x, y, lengths=lengths) == two.evaluate(other_x, other_y, lengths=lengths)
    if make is classifier:
        np.testing.assert_array_equal(one.predict(x, lengths=lengths), two.predict(other_x, lengths=lengths))


def test_predictions_do_not_depend_on_padding_or_batch():
    x, y, lengths = data()
    model = classifier()
    model.fit(x, y, lengths=lengths, verbose=0)
    together = model.predict(x, lengths=lengths)
    np.testing.assert_array_equal(model.predict(x, lengths=lengths, batch_size=7), together)
    for row in range(len(x)):
        alone = model.predict(np.ascontiguousarray(x[row : row + 1, : lengths[row]]))
        np.testing.assert_array_equal(alone[0], together[row])


def test_the_loss_is_the_mean_over_valid_steps():
    x, _, lengths = data()
    y = np.random.default_rng(1).integers(0, 3, x.shape[:2])
    model = tagger()
    p = model.predict(x, lengths=lengths)
    counts = np.arange(x.shape[1]) < lengths[:, None]
    expected = -np.log(np.take_along_axis(p, y[:, :, None], 2)[:, :, 0][counts].astype(np.float64)).mean()
    loss, accuracy, _ = model.evaluate(x, y, lengths=lengths)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert accuracy == (p.argmax(axis=2) == y)[counts].mean()


def test_a_prefix_mask_equals_lengths():
    x, y, lengths = data()
    mask = np.arange(x.shape[1]) < lengths[:, None]
    one, two = classifier(), classifier()
    one.fit(x, y, lengths=lengths, verbose=0)
    two.fit(x, y, lengths=mask, verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert one.evaluate(x, y, lengths=lengths) == one.evaluate(x, y, lengths=mask)
    np.testing.assert_array_equal(one.predict(x, lengths=lengths), one.predict(x, lengths=mask))
    mask[3] = [True, False, True, False, False, False]
    for call in (
        lambda: one.fit(x, y, lengths=mask, verbose=0),
        lambda: one.evaluate(x, y, lengths=mask),
        lambda: one.predict(x, lengths=mask),
    ):
        with pytest.raises(ValueError, match=r"lengths: expected masked steps at the end .* step 1 of sample 3"):
            call()


def test_masking_computes_the_lengths():
    x, y, lengths = data()
    x[np.arange(x.shape[1]) >= lengths[:, None]] = 0
    plain = classifier()
    fastgru.set_seed(5)
    masked = Sequential([layers.Masking(input_shape=(None, 3)), layers.GRU(5), layers.Dense(3, activation="softmax")])
    masked.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    plain.fit(x, y, lengths=lengths, epochs=2, verbose=0)
    masked.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(plain.parameters, masked.parameters)


def test_gradients_of_a_padded_batch_are_the_sum_over_its_sequences():
    x, y, lengths = data(count=9)
    model = classifier()
    model.compile("adam", loss=losses.SparseCategoricalCrossentropy())

    def gradient(rows, steps):
        part = np.ascontiguousarray(x[rows, :steps])
        scores = model._network.scores(part, lengths[rows], training=True)
        result = model.loss.compute(scores.values, y[rows])
        model._network.backward(result.d_scores)
        return model.gradient.astype(np.float64) * len(scores.values)

    whole = gradient(slice(None), x.shape[1])
    alone = sum(gradient(slice(row, row + 1), lengths[row]) for row in range(9))
    np.testing.assert_allclose(whole, alone, rtol=0, atol=4e-7 * np.abs(whole).max())


# --- Streams ------------------------------------------------------------------------------------------------------


class Batches:
    """Yields the batches of an epoch per iteration, and counts the batches that were read."""

    def __init__(self, x, y, size, *, form=lambda x, y: (x, y)):
        self.x, self.y, self.size, self.form = x, y, size, form
        self.epochs = 0

    def __iter__(self):
        self.epochs += 1
        for begin in range(0, len(self.x), self.size):
            rows = slice(begin, begin + self.size)
            yield self.form(self.x[rows], self.y[rows])


@pytest.mark.parametrize("form", [lambda x, y: (x, y), lambda x, y: [x, y], lambda x, y: {"x": x, "y": y}])
def test_a_stream_of_batches_equals_its_array(form):
    x, y, _ = data()
    arrays, stream = classifier(), classifier()
    first = arrays.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0)
    source = Batches(x, y, 16, form=form)
    second = stream.fit(source, epochs=3, validation_data=Batches(x, y, 7), verbose=0)
    np.testing.assert_array_equal(arrays.parameters, stream.parameters)
    assert first.history["loss"] == second.history["loss"]
    assert source.epochs == 3
    assert arrays.evaluate(x, y) == pytest.approx(stream.evaluate(Batches(x, y, 11)), rel=1e-12)


def test_a_generator_continues_from_epoch_to_epoch():
    x, y, _ = data()
    one, two = classifier(), classifier()
    one.fit(x, y, epochs=2, batch_size=10, shuffle=False, verbose=0)

    def endless():
        while True:
            yield from Batches(x, y, 10)

    two.fit(endless(), epochs=4, steps_per_epoch=2, verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)


def test_endless_validation_data_needs_steps():
    x, y, _ = data()

    def endless():
        while True:
            yield from Batches(x, y, 10)

    steps = classifier().fit(x, y, validation_data=endless(), validation_steps=4, verbose=0)
    whole = classifier().fit(x, y, validation_data=(x, y), verbose=0)
    assert steps.history["val_loss"] == pytest.approx(whole.history["val_loss"], rel=1e-12)


def test_validation_does_not_change_the_states_of_training():
    x, y, _ = data()
    one, two = classifier(stateful=True), classifier(stateful=True)
    plain = one.fit(x, y, epochs=3, batch_size=10, shuffle=False, verbose=0)
    watched = two.fit(x, y, epochs=3, batch_size=10, shuffle=False, validation_data=(x[:7], y[:7]), verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert watched.history["loss"] == plain.history["loss"]


def test_an_exhausted_stream_raises():
    x, y, _ = data()
    with pytest.raises(
        ValueError, match="x: expected at least one batch per epoch, got none; an iterator is exhausted"
    ):
        classifier().fit(iter(Batches(x, y, 10)), epochs=2, verbose=0)
    with pytest.raises(ValueError, match="x: expected 5 batches because steps_per_epoch=5, got 4"):
        classifier().fit(iter(Batches(x, y, 10)), steps_per_epoch=5, verbose=0)


def test_a_bad_batch_of_a_stream_is_named():
    x, y, _ = data()
    batches = [(x[:8], y[:8]), (x[:8], y[:7])]
    with pytest.raises(ValueError, match=r"y: expected .*8.*got .*7"):
        classifier().fit(batches, verbose=0)
    with pytest.raises(TypeError, match=r"x, batch 2: expected \(x, y\)"):
        classifier().fit([batches[0], x], verbose=0)
    with pytest.raises(ValueError, match="x, batch 1: expected the keys x, y"):
        classifier().fit([{"x": x, "z": y}], verbose=0)


def test_streams_may_carry_lengths_and_weights():
    x, y, lengths = data()
    weights = np.random.default_rng(2).random(40)
    one, two = classifier(), classifier()
    one.fit(x, y, lengths=lengths, sample_weight=weights, shuffle=False, batch_size=40, verbose=0)
    two.fit([{"x": x, "y": y, "lengths": lengths, "sample_weight": weights}], verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)


def test_a_bad_batch_of_a_stream_is_named_by_its_number_and_its_stream():
    x, y, _ = data()
    good, bad = (x[:8], y[:8]), (x[:8], np.full(8, 3))
    message = r"batch 2, y: expected classes from 0 to 2 .* got 3 at index 0"
    with pytest.raises(ValueError, match=f"^x, {message}"):
        classifier().fit([good, bad], verbose=0)
    with pytest.raises(ValueError, match=f"^validation_data, {message}"):
        classifier().fit(x, y, validation_data=[good, bad], verbose=0)
    with pytest.raises(TypeError, match=r"^validation_data, batch 1: expected \(x, y\)"):
        classifier().fit(x, y, validation_data=iter([x]), verbose=0)


def test_an_exhausted_validation_stream_raises():
    x, y, _ = data()
    with pytest.raises(
        ValueError, match=r"^validation_data: expected at least one batch .*, or pass validation_steps$"
    ):
        classifier().fit(x, y, validation_data=iter(Batches(x, y, 10)), epochs=2, verbose=0)
    with pytest.raises(ValueError, match=r"^validation_data: expected 5 batches because validation_steps=5, got 4"):
        classifier().fit(x, y, validation_data=iter(Batches(x, y, 10)), validation_steps=5, verbose=0)


@pytest.mark.parametrize("outside", [list, tuple])
@pytest.mark.parametrize("inside", [tuple, list, lambda pair: dict(zip("xy", pair, strict=True))])
def test_validation_data_may_be_a_list_of_batches(outside, inside):
    x, y, _ = data()
    parts = outside([inside((x[:20], y[:20])), inside((x[20:], y[20:]))])
    one = classifier().fit(x, y, validation_data=parts, verbose=0)
    two = classifier().fit(x, y, validation_data=(x, y), verbose=0)
    assert one.history["val_loss"] == pytest.approx(two.history["val_loss"], rel=1e-12)


def test_arrays_without_targets_raise():
    x, _, _ = data()
    with pytest.raises(TypeError, match="y: expected targets because x is an array, got None"):
        classifier().fit(x, verbose=0)
    with pytest.raises(TypeError, match="y: expected targets because x is an array, got None"):
        classifier().evaluate(x)


# --- What a refused call leaves ------------------------------------------------------------------------------------


def test_a_failed_call_does_not_build_the_model():
    x, y, _ = data()
    wide = x.astype(np.float64)
    unbuilt = Sequential([layers.GRU(5), layers.Dense(3, activation="softmax")])
    unbuilt.compile("adam", "categorical_crossentropy")
    for model in (classifier(), unbuilt):
        built = model.built
        for bad in (
            {"y": y[:-1]},
            {"y": np.full(40, 7)},
            {"y": y, "sample_weight": np.ones(3)},
            {"y": y, "validation_data": (wide, y[:3])},
            {"y": y, "validation_steps": 3},
            {"y": y, "callbacks": [fastgru.callbacks.EarlyStopping("nothing")]},
        ):
            with pytest.raises(ValueError, match="expected"):
                model.fit(wide, verbose=0, **bad)
            assert model.dtype == np.float32
            assert model.built == built
        model.fit(x, y, verbose=0)
        assert model.dtype == np.float32


def untouched(model, error, message, *arguments, **options):
    before = model.parameters.copy()
    with pytest.raises(error, match=message):
        model.fit(*arguments, verbose=0, **options)
    np.testing.assert_array_equal(model.parameters, before)


def test_tokens_and_masks_are_checked_before_any_batch():
    """The message has the index of the sample, independent of the order of batches."""
    rng = np.random.default_rng(0)
    tokens, y = rng.integers(1, 9, (3000, 6)), rng.integers(0, 3, 3000)
    tokens[:, 4:] = 0

    def make(first):
        model = Sequential([first, layers.GRU(4), layers.Dense(3, activation="softmax")])
        model.compile("adam", "categorical_crossentropy")
        return model

    embedding = make(layers.Embedding(9, 3, mask_zero=True, input_shape=(6,)))
    bad = tokens.copy()
    bad[2500, 3] = 9
    untouched(embedding, ValueError, r"x: expected tokens from 0 to 8 .* got 9 at index \(2500, 3\)", bad, y)
    lengths = np.full(3000, 3)
    embedding.fit(bad, y, lengths=lengths, verbose=0)  # it is padding then
    hole = tokens.copy()
    hole[2500, 2] = 0
    message = "masked by {}: expected masked steps at the end .* at step 2 of sample 2500, before step 3"
    untouched(embedding, ValueError, f"x, {message.format('embedding')}", hole, y)
    untouched(
        embedding, ValueError, r"validation_data\[0\]: expected tokens .* got 9 at index \(2500, 3\)", tokens, y,
        validation_data=(bad, y),
    )  # fmt: skip
    masking = make(layers.Masking(input_shape=(6, 1)))
    untouched(masking, ValueError, f"x, {message.format('masking')}", hole[..., None].astype(np.float32), y)


def test_stateful_layers_need_whole_batches():
    x, y, _ = data()
    model = classifier(stateful=True)
    untouched(model, ValueError, "batch_size: expected a divisor of 40, .* because gru is stateful .* got 32", x, y)
    untouched(
        model, ValueError, r"^validation_batch_size: expected a divisor of 7, .* got 5", x, y, batch_size=10,
        validation_data=(x[:7], y[:7]), validation_batch_size=5,
    )  # fmt: skip
    model.fit(x, y, batch_size=64, verbose=0)


# --- Weights ------------------------------------------------------------------------------------------------------


def test_a_weight_of_two_equals_a_repeated_sample():
    x, y, lengths = data(count=12)
    weights = np.where(np.arange(12) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(12), weights.astype(int))
    one, two = classifier(), classifier()
    one.compile("sgd", "categorical_crossentropy", metrics=[])
    two.compile("sgd", "categorical_crossentropy", metrics=[])
    one.train_on_batch(x, y, lengths=lengths, sample_weight=weights * 12 / weights.sum())
    two.train_on_batch(x[twice], y[twice], lengths=lengths[twice])
    np.testing.assert_allclose(one.parameters, two.parameters, rtol=0, atol=1e-7)


def test_a_weight_of_zero_equals_a_missing_sample():
    x, y, _ = data(count=12)
    x[5] = 1e3
    weights = np.ones(12)
    weights[5] = 0
    one, two = classifier(), classifier()
    rest = np.arange(12) != 5
    one.train_on_batch(x, y, sample_weight=weights * 12 / 11)
    two.train_on_batch(x[rest], y[rest])
    np.testing.assert_allclose(one.parameters, two.parameters, rtol=0, atol=1e-6)


def test_class_weights_are_sample_weights():
    x, y, _ = data()
    one, two = classifier(), classifier()
    one.fit(x, y, class_weight={0: 2.0, 2: 0.5}, verbose=0)
    two.fit(x, y, sample_weight=np.array([2.0, 1.0, 0.5])[y], verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    both, product = classifier(), classifier()
    weights = np.random.default_rng(1).random(40)
    both.fit(x, y, class_weight={1: 3.0}, sample_weight=weights, verbose=0)
    product.fit(x, y, sample_weight=weights * np.where(y == 1, 3.0, 1.0), verbose=0)
    np.testing.assert_array_equal(both.parameters, product.parameters)


def test_weights_of_steps():
    x, _, lengths = data()
    y = np.random.default_rng(1).integers(0, 3, x.shape[:2])
    of_samples = np.random.default_rng(2).random(40)
    one, two = tagger(), tagger()
    one.fit(x, y, lengths=lengths, sample_weight=of_samples, verbose=0)
    two.fit(x, y, lengths=lengths, sample_weight=np.repeat(of_samples[:, None], 6, axis=1), verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)


# --- Large batches in pieces ---------------------------------------------------------------------------------------


def test_pieces_of_a_batch_with_lengths_and_weights_have_its_gradient(monkeypatch):
    x, y, lengths = data(count=60)
    y = np.random.default_rng(1).integers(0, 3, x.shape[:2])
    weights = np.random.default_rng(2).random(60)
    whole, pieces = tagger(), tagger()
    whole.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    pieces.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    first = whole.train_on_batch(x, y, lengths=lengths, sample_weight=weights)
    monkeypatch.setattr(loop, "LEAST_ROWS", 5)
    monkeypatch.setattr(loop, "CACHED_TAPE", 4000)
    second = pieces.train_on_batch(x, y, lengths=lengths, sample_weight=weights)
    assert first == pytest.approx(second, rel=1e-6)
    np.testing.assert_allclose(whole.parameters, pieces.parameters, rtol=0, atol=1e-7)
