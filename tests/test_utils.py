"""`fastgru.utils`: what Keras' functions of the same names return, and what is refused."""

from __future__ import annotations

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, layers, utils

pytestmark = pytest.mark.isa_independent

SEQUENCES = [[1, 2, 3], [4], [], [5, 6, 7, 8]]
STEPS = [np.arange(6.0).reshape(3, 2), np.zeros((0, 2)), np.ones((5, 2)) / 3]


@pytest.mark.peers("keras")
@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@pytest.mark.parametrize("maxlen", [None, 1, 3, 6])
def test_pad_sequences_returns_what_keras_does(padding, truncating, maxlen):
    import keras

    for sequences, more in ((SEQUENCES, {}), (SEQUENCES, {"value": -1}), (STEPS, {"dtype": "float32", "value": 0.5})):
        options = {"padding": padding, "truncating": truncating, "maxlen": maxlen, **more}
        actual = utils.pad_sequences(sequences, **options)
        expected = keras.utils.pad_sequences(sequences, **options)
        np.testing.assert_array_equal(actual, expected, strict=True)
    np.testing.assert_array_equal(utils.pad_sequences(SEQUENCES), keras.utils.pad_sequences(SEQUENCES), strict=True)


def test_pad_with_lengths():
    x, lengths = utils.pad_with_lengths([np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32)], value=-1, steps=4)
    assert x.shape == (2, 4, 3)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(lengths, [2, 0])
    assert (x[0, 2:] == -1).all()
    assert (x[1] == -1).all()


@pytest.mark.parametrize(
    ("sequences", "options", "message"),
    [
        ([], {}, "sequences: expected at least one, got none"),
        ([np.ones((2, 3)), np.ones((2, 4))], {}, r"sequences: expected shape \(T, 3\) .* got \(2, 4\) at index 1"),
        ([np.ones((5, 3))], {"steps": 4}, "sequences: expected at most 4 steps .* got 5 at index 0"),
    ],
)
def test_sequences_that_cannot_be_padded(sequences, options, message):
    with pytest.raises(ValueError, match=message):
        utils.pad_with_lengths(sequences, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: utils.pad_sequences([[1]], padding="left"), ValueError, "padding: expected one of 'pre', 'post'"),
        (lambda: utils.pad_sequences([[1]], truncating=0), ValueError, "truncating: expected one of 'pre', 'post'"),
        (lambda: utils.pad_sequences([]), ValueError, "sequences: expected at least one because maxlen is None"),
        (lambda: utils.pad_sequences(5), TypeError, "sequences: expected a list of sequences, got int"),
        (lambda: utils.pad_sequences([[1], 2]), TypeError, "sequences: expected a sequence at index 1, got 2"),
        (lambda: utils.pad_sequences([np.ones((2, 3)), np.ones((2, 4))]), ValueError, r"shape \(3,\) .* at index 1"),
        (lambda: utils.pad_sequences([[1]], 10**14), MemoryError, "memory|allocate"),
        (lambda: utils.pad_sequences([[1]], 10**20), MemoryError, "maxlen: expected an array that fits into memory"),
        (lambda: utils.to_categorical([0, 3], 3), ValueError, r"x: expected labels from 0 to 2, got 3 at index \(1,\)"),
        (lambda: utils.to_categorical([[0, -1]]), ValueError, r"from 0 to 0, got -1 at index \(0, 1\)"),
        (lambda: utils.to_categorical([0.5]), TypeError, "x: expected whole numbers .* got float64; round them"),
        (lambda: utils.to_categorical(["a"]), TypeError, "x: expected whole numbers"),
        (lambda: utils.to_categorical([]), ValueError, "num_classes: expected a number because x has no labels"),
        (lambda: utils.split_dataset(np.ones(3)), ValueError, "left_size: expected a size .* got None"),
        (lambda: utils.split_dataset(np.ones(3), 2, 2), ValueError, "at most 3 samples in both parts, .* got 2 and 2"),
        (lambda: utils.split_dataset(np.ones(3), 0.1), ValueError, "left_size: expected at least one of 3 .* got 0"),
        (lambda: utils.split_dataset((np.ones(3), np.ones(2)), 1), ValueError, r"got shapes \(3,\), \(2,\)"),
        (lambda: utils.set_random_seed(-1), ValueError, "seed: expected an integer of at least 0"),
        (
            lambda: utils.timeseries_dataset_from_array(np.ones(5), None, 6),
            ValueError,
            "sequence_length: expected windows of at most 5 steps, .* got windows of 6 steps",
        ),
        (lambda: utils.timeseries_dataset_from_array(np.ones(5), np.ones(1), 2, start_index=2), ValueError, "targets:"),
        (lambda: utils.timeseries_dataset_from_array(np.ones(5), None, 2, 0), ValueError, "sequence_stride: expected"),
        (lambda: utils.timeseries_dataset_from_array(np.ones(0), None, 2), ValueError, "data: expected a series"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.peers("keras")
@pytest.mark.parametrize("labels", [[0, 2, 1], [[1], [0]], np.array([[0, 1], [2, 2]], np.uint8), [1.0, 0.0], 2])
@pytest.mark.parametrize("classes", [None, 4])
def test_to_categorical_returns_what_keras_does(labels, classes):
    import keras

    expected = keras.utils.to_categorical(labels, classes)
    np.testing.assert_array_equal(utils.to_categorical(labels, classes), expected, strict=True)


@pytest.mark.peers("keras")
@pytest.mark.parametrize("order", [1, 2, 3, np.inf])
def test_normalize_returns_what_keras_does(order):
    import keras

    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    x[1, 2] = 0
    for axis in (-1, 1, 2):
        expected = keras.utils.normalize(x, axis=axis, order=order)
        np.testing.assert_allclose(utils.normalize(x, axis, order), expected, rtol=1e-15)


def test_normalize_takes_the_first_axis_and_all_numbers():
    np.testing.assert_allclose(np.linalg.norm(utils.normalize(np.ones((3, 2)), axis=0), axis=0), 1)
    np.testing.assert_allclose(np.linalg.norm(utils.normalize([[1, 2], [3, 4]], axis=None)), 1)
    np.testing.assert_array_equal(utils.normalize(np.zeros((2, 2)), axis=None), np.zeros((2, 2)))


@pytest.mark.peers("tensorflow", "keras")
@pytest.mark.parametrize(
    "sizes", [{"left_size": 0.75}, {"right_size": 3}, {"left_size": 4, "right_size": 2}, {"left_size": 0.3}]
)
def test_split_dataset_has_keras_sizes(sizes):
    import keras

    x, y = np.arange(20).reshape(10, 2), np.arange(10)
    for left, right in (utils.split_dataset((x, y), **sizes), utils.split_dataset((x, y), **sizes, shuffle=True)):
        theirs = keras.utils.split_dataset((x, y), **sizes)
        for own, part in zip((left, right), theirs, strict=True):
            assert len(own[0]) == len(own[1]) == len(part)
            np.testing.assert_array_equal(own[0][:, 0], 2 * own[1])
        assert not set(left[1]) & set(right[1])
    left, _ = utils.split_dataset(x, **sizes)
    assert np.shares_memory(left, x)


def test_orders_follow_the_seed():
    x = np.arange(50)
    one, other = (utils.split_dataset(x, 0.5, shuffle=True, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    found = []
    for _ in range(2):
        utils.set_random_seed(5)
        windows = utils.timeseries_dataset_from_array(x, None, 3, shuffle=True)
        found.append([batch.tolist() for batch in (*windows, *windows)])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]  # each iteration has an order of its own
    assert utils.set_random_seed is fastgru.set_seed


# --- Time series ------------------------------------------------------------------------------------------------------

SERIES = np.random.default_rng(1).normal(size=(23, 2)).astype(np.float32)


@pytest.mark.peers("tensorflow", "keras")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sequence_stride": 3},
        {"sampling_rate": 2},
        {"sequence_stride": 2, "sampling_rate": 3, "batch_size": 4},
        {"batch_size": None},
        {"start_index": 3, "end_index": 15},
        {"end_index": 18, "batch_size": 3},
    ],
)
@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("length", [1, 4])
def test_windows_are_those_of_keras(options, targets, length):
    import keras

    y = np.arange(len(SERIES)) if targets else None
    theirs = keras.utils.timeseries_dataset_from_array(SERIES, y, length, **options)
    ours = utils.timeseries_dataset_from_array(SERIES, y, length, **options)
    batches = list(ours)
    expected = list(theirs)
    assert len(batches) == len(expected) == len(ours)
    for own, batch in zip(batches, expected, strict=True):
        for array, tensor in zip(own, batch, strict=True) if targets else [(own, batch)]:
            np.testing.assert_array_equal(array, tensor.numpy())


def test_windows_are_views():
    windows = utils.timeseries_dataset_from_array(SERIES, None, 4, sampling_rate=2)
    assert np.shares_memory(windows.x, SERIES)
    assert np.shares_memory(next(iter(windows)), SERIES)
    assert repr(windows) == "<TimeSeriesDataset of 17 windows of 4 steps, 1 batches of 128>"


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_model_trains_on_windows(shuffle):
    length = 5
    train = utils.timeseries_dataset_from_array(
        SERIES[:-length], SERIES[length:, :1], length, batch_size=4, shuffle=shuffle, seed=0
    )
    x, y = next(iter(utils.timeseries_dataset_from_array(SERIES[:-length], SERIES[length:, :1], length)))
    np.testing.assert_array_equal(x[0], SERIES[:length])
    np.testing.assert_array_equal(y[0], SERIES[length, :1])
    model = Sequential([layers.GRU(4), layers.Dense(1)])
    model.compile("adam", "mse")
    history = model.fit(train, epochs=3, verbose=0)
    assert len(history.history["loss"]) == 3
    assert model.predict(train.x).shape == (len(train.x), 1)
