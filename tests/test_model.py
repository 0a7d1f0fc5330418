from __future__ import annotations

import copy
import functools
import pickle
import tracemalloc

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, functional, layers, reference
from fastgru._training import loop
from fastgru.datasets import synthetic
from models import classifier


@pytest.fixture
def digits():
    return synthetic.make_digits(300, 5)


@pytest.fixture(scope="module")
def many_digits():
    return synthetic.make_digits(2000, 6)


def zeros(*shape):
    return np.zeros(shape, np.float32)


small_model = functools.partial(
    classifier, 12, classes=10, input_shape=(28, 28), scale=1 / 255, optimizer="adam", seed=None
)


@pytest.mark.parametrize("options", [{}, {"reset_after": False, "recurrent_activation": "hard_sigmoid_tfjs"}])
def test_training_follows_the_reference_step_by_step(options, digits):
    """Five training steps in float64: gather, forward, loss, backward, Adam."""
    x, y = digits
    fastgru.set_seed(1)
    model = small_model(dtype="float64", **options)
    weights = model.get_weights()
    moments = [[np.zeros_like(w)] * 3 for w in weights]
    # Rescaling multiplies bytes by 1/255 in the model's dtype.
    images = x * np.float64(1 / 255)
    for step in range(5):
        rows = slice(32 * step, 32 * step + 32)
        kernel, recurrent, bias, head, head_bias = weights
        _, state = reference.gru_forward(images[rows], kernel, recurrent, bias, **options)
        logits = reference.dense_forward(state, head, head_bias)
        losses, d_logits = reference.softmax_cross_entropy(logits, np.eye(10)[y[rows]])
        d_state, d_head, d_head_bias = reference.dense_backward(state, head, d_logits)
        g = reference.gru_backward(images[rows], kernel, recurrent, bias, d_state=d_state, **options)
        gradients = [g.kernel, g.recurrent_kernel, g.bias, d_head, d_head_bias]
        for i, gradient in enumerate(gradients):
            weights[i], *moments[i] = reference.adam(weights[i], gradient, *moments[i], step=step + 1)

        loss, accuracy = model.train_on_batch(x[rows], y[rows])
        assert loss == pytest.approx(losses.mean(), rel=1e-12)
        assert accuracy == (logits.argmax(axis=1) == y[rows]).mean()
    for actual, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_fit_learns_and_reports(many_digits, capsys):
    x, y = many_digits
    fastgru.set_seed(0)
    model = small_model()
    model.compile(fastgru.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=15, batch_size=16, validation_split=0.2)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history.epoch == list(range(15))
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert history.history["accuracy"][-1] > 0.6
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    assert lines[0].startswith("Epoch 1/15: loss ")
    assert "samples/s" in lines[0]
    # The validation of the last epoch equals evaluate on the held-back samples.
    loss, accuracy = model.evaluate(x[1600:], y[1600:])
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-6)
    assert history.history["val_accuracy"][-1] == accuracy


def test_integer_and_one_hot_labels_and_both_names_are_the_same(digits):
    x, y = digits
    results = []
    one_hot = np.eye(10, dtype=np.float32)[y]
    for labels in (y, y.astype(np.int64), y[:, None], one_hot, one_hot.astype(np.uint8), one_hot.astype(np.float64)):
        for loss in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
            fastgru.set_seed(0)
            model = small_model()
            model.compile("adam", loss, metrics=["accuracy"])
            model.fit(x, labels, epochs=1, verbose=0)
            results.append(model.parameters)
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-7)


def test_only_rescaling_scales_uint8_input(digits):
    x, y = digits
    models = []
    for scale, given in ((1 / 255, x), (None, x * np.float32(1 / 255))):
        fastgru.set_seed(2)
        model = small_model(scale=scale)
        models.append(model)
        model.fit(given, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(models[0].parameters, models[1].parameters)
    np.testing.assert_array_equal(models[0].predict(x), models[1].predict(x * np.float32(1 / 255)))
    np.testing.assert_array_equal(models[1].predict(x), models[1].predict(x.astype(np.float32)))


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "rescaled"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["i1", "u1", "?", ">i2", "u4", "i8", "f2", ">f4", "f8", "g", "list"])
def test_samples_of_any_real_dtype_are_those_of_the_models_dtype(given, dtype, scaled):
    x = np.random.default_rng(0).integers(0, 2 if given == "?" else 100, (9, 4, 3))
    x, y = x if given == "list" else x.astype(given), [0, 1, 1] * 3
    own = x.astype(dtype)
    found = []
    for samples in (x.tolist() if given == "list" else x, own):
        fastgru.set_seed(1)
        first = [layers.Rescaling(1 / 64, -0.5, input_shape=(4, 3))] if scaled else []
        model = Sequential([*first, layers.GRU(3), layers.Dense(2, "softmax")], dtype=dtype)
        model.compile("sgd", "categorical_crossentropy")
        model.fit(samples, y, batch_size=4, epochs=2, verbose=0, validation_data=(samples, y))
        model.train_on_batch(samples, y)
        model.fit(iter([(samples, y)] * 2), steps_per_epoch=2, verbose=0)
        assert model.dtype == dtype
        assert model.predict(samples).dtype == dtype
        found.append((*model.get_weights(), model.predict(samples), np.array(model.evaluate(samples, y))))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_layer_on_its_own_converts_its_input():
    x = np.arange(24).reshape(2, 4, 3)
    gru = layers.GRU(3)
    expected = gru(x.astype(np.float32))
    for given in (x, x.tolist(), x.astype(np.uint8), x.astype(float)):
        found = gru(given)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    outputs = layers.GRU(3, dtype="float64")(x)
    assert outputs.dtype == np.float64
    scaled = layers.Rescaling(0.5, 1)(x.astype(np.uint8))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, 0.5 * x + 1)


class CountingMap(np.memmap):
    """A memory map that records the dtypes to which it was converted as a whole."""

    def astype(self, *arguments, **more):
        raise AssertionError("the whole array is converted")


@pytest.mark.parametrize("dtype", ["u1", "f8", ">f4"])
def test_memory_maps_are_converted_batch_by_batch(tmp_path, dtype):
    x = np.random.default_rng(0).integers(0, 9, (200, 50, 40)).astype(dtype)
    x.tofile(tmp_path / "x")
    mapped = CountingMap(tmp_path / "x", dtype, "r", shape=x.shape)
    model = Sequential([layers.GlobalAveragePooling1D(), layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    model.fit(mapped[:8], np.zeros(8, int), verbose=0)
    tracemalloc.start()
    try:
        model.fit(mapped, np.arange(200) % 2, batch_size=4, verbose=0)
        model.evaluate(mapped, np.arange(200) % 2, batch_size=4)
        model.predict(mapped, batch_size=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * 50 * 40 * 4 / 5  # less than a fifth of it in float32


def test_numbers_beyond_the_range_of_float32_warn():
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    x[2, 1, 0] = 1e300
    y = np.arange(6) % 2
    for first in ([], [layers.Rescaling(0.5)]):
        model = Sequential([*first, layers.GRU(3), layers.Dense(2, "softmax")])
        model.compile("sgd", "categorical_crossentropy")
        message = (
            r"x has 1e\+300 at index \(2, 1, 0\).*, which overflows in the conversion to float32; .* dtype='float64'"
        )
        with (
            pytest.warns(RuntimeWarning, match=r"x: expected numbers in the range of float32, got 1e\+300"),
            pytest.raises(FloatingPointError, match=message),
        ):
            model.fit(x, y, verbose=0, shuffle=False)
        with pytest.warns(RuntimeWarning, match="scale x, or make the model with dtype='float64'"):
            model.predict(x)
        with pytest.warns(RuntimeWarning, match="scale x, or make the model with dtype='float64'"):
            model.evaluate(x, y)
        with pytest.warns(RuntimeWarning, match=r"got 1e\+300 at index \(2, 1, 0\)"):
            model.layers[-2](x)
        model.predict(x, lengths=[4, 4, 1, 4, 4, 4])  # in padding it does not matter
        model.fit(x, y, lengths=[4, 4, 1, 4, 4, 4], verbose=0)
    model = Sequential([layers.GRU(3), layers.Dense(2, "softmax")], dtype="float64")
    model.compile("sgd", "categorical_crossentropy")
    model.evaluate(x, y)


def test_samples_in_the_other_byte_order_give_the_same_bits(digits):
    x = digits[0] * np.float32(1 / 255)
    model = small_model()
    np.testing.assert_array_equal(model.predict(x.astype(x.dtype.newbyteorder())), model.predict(x))


def test_float64_data_trains_a_float32_model_by_default():
    x, y = np.random.default_rng(0).random((50, 4, 3)), np.arange(50) % 2
    for options, dtype in (({}, np.float32), ({"dtype": "float64"}, np.float64)):
        model = Sequential([layers.GRU(5, input_shape=(4, 3)), layers.Dense(2, "softmax")], **options)
        model.compile("adam", "categorical_crossentropy")
        model.fit(x, y, verbose=0)
        assert model.dtype == model.predict(x).dtype == dtype
        assert all(weight.dtype == dtype for weight in model.get_weights())


def test_predict_and_evaluate_do_not_depend_on_the_batch_size(digits):
    x, y = digits
    model = small_model()
    whole = model.predict(x, batch_size=1000)
    for size in (1, 7, 128):
        np.testing.assert_array_equal(model.predict(x, batch_size=size), whole)
        assert model.evaluate(x, y, batch_size=size) == pytest.approx(model.evaluate(x, y), rel=1e-12)
    assert model.predict(x[:0]).shape == (0, 10)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_others(digits):
    x, y = digits

    def train(seed, shuffle=True):
        fastgru.set_seed(seed)
        model = small_model()
        model.fit(x, y, epochs=2, verbose=0, shuffle=shuffle)
        return model.parameters

    np.testing.assert_array_equal(train(4), train(4))
    assert not np.array_equal(train(4), train(5))
    assert not np.array_equal(train(4), train(4, shuffle=False))


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_trains_independently_and_bit_identically(make, digits):
    model = small_model()
    model.fit(*digits, epochs=1, verbose=0)
    before = model.parameters.copy()
    twin = make(model)
    twin.fit(*digits, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.parameters, before)
    model.fit(*digits, epochs=1, verbose=0)
    np.testing.assert_array_equal(twin.parameters, model.parameters)
    np.testing.assert_array_equal(twin.get_weights()[0], twin.layers[1].parameters["kernel"])
    assert not make(Sequential([layers.GRU(3)])).built


def test_numpys_global_generator_is_unchanged():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    fastgru.set_seed(1)
    small_model()
    assert np.random.random() == expected  # noqa: NPY002


def test_every_sample_is_used_once_per_epoch():
    """With one sample per class and one batch of all samples, any order gives the same loss."""
    x, y = np.random.default_rng(0).random((45, 3, 2)).astype(np.float32), np.arange(45) % 3
    model = Sequential([layers.GRU(4, input_shape=(3, 2)), layers.Dense(3, "softmax")])
    model.compile(fastgru.optimizers.Adam(1e-30), "categorical_crossentropy", metrics=["accuracy"])
    expected = model.evaluate(x, y)
    history = model.fit(x, y, epochs=3, batch_size=7, verbose=0)
    for loss, accuracy in zip(history.history["loss"], history.history["accuracy"], strict=True):
        assert [loss, accuracy] == pytest.approx(expected, rel=1e-6)


def test_memory_mapped_samples_are_not_loaded_whole(tmp_path, digits):
    x, y = digits
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    fastgru.set_seed(0)
    a = small_model()
    a.fit(mapped, y, epochs=1, verbose=0)
    fastgru.set_seed(0)
    b = small_model()
    b.fit(x, y, epochs=1, verbose=0)
    np.testing.assert_array_equal(a.parameters, b.parameters)


def test_a_model_without_input_shape_is_built_by_its_data(digits):
    x, y = digits
    model = Sequential()
    model.add(layers.GRU(4, return_sequences=True, go_backwards=True))
    model.add(layers.GRU(3, activation="relu", use_bias=False))
    model.add(layers.Dense(10, activation="softmax"))
    assert not model.built
    model.compile("adam", "categorical_crossentropy")
    model.fit(x, y, epochs=1, verbose=0)
    assert model.input_shape == (None, None, 28)
    assert model.output_shape == (None, 10)
    assert [w.shape for w in model.get_weights()] == [(28, 12), (4, 12), (2, 12), (4, 9), (3, 9), (3, 10), (10,)]


def test_a_shape_with_none_allows_sequences_of_any_length():
    model = Sequential([layers.GRU(4, input_shape=(None, 3), return_sequences=True)])
    x = np.random.default_rng(0).random((2, 9, 3)).astype(np.float32)
    assert model.predict(x).shape == (2, 9, 4)
    np.testing.assert_array_equal(model.predict(x[:, :5]), model.predict(x)[:, :5])


def test_weights_are_in_keras_order_and_go_back():
    model = small_model()
    shapes = [(28, 36), (12, 36), (2, 36), (12, 10), (10,)]
    assert [w.shape for w in model.get_weights()] == shapes
    assert small_model(reset_after=False).get_weights()[2].shape == (36,)
    weights = [np.random.default_rng(i).random(shape).astype(np.float32) for i, shape in enumerate(shapes)]
    model.set_weights(weights)
    for given, held in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(given, held)
    held[...] = 0  # a copy
    assert model.get_weights()[-1].any()
    assert model.count_params() == sum(w.size for w in weights)


def test_weights_that_do_not_fit_change_nothing():
    model = small_model()
    before = model.parameters.copy()
    weights = [w + 1 for w in model.get_weights()]
    with pytest.raises(ValueError, match=r"weights: expected 5 arrays, got 4"):
        model.set_weights(weights[:4])
    weights[3] = weights[3].T
    with pytest.raises(ValueError, match=r"weights: expected shape \(12, 10\) for dense/kernel, got \(10, 12\)"):
        model.set_weights(weights)
    np.testing.assert_array_equal(model.parameters, before)


def test_adding_a_layer_keeps_the_weights_of_the_others():
    model = Sequential([layers.GRU(5, input_shape=(4, 3))])
    kernel = model.get_weights()[0]
    model.add(layers.Dense(2, activation="softmax"))
    np.testing.assert_array_equal(model.get_weights()[0], kernel)
    assert [layer.name for layer in model.layers] == ["gru", "dense"]


def test_adding_a_layer_resets_the_optimizer():
    x, y = np.ones((2, 4, 3), np.float32), np.ones((2, 2), np.float32)
    model = Sequential([layers.GRU(5, input_shape=(4, 3)), layers.Dense(2)])
    model.compile("adam", loss="mse")
    model.train_on_batch(x, y)
    assert model.optimizer.get_state()[0] == 1
    model.add(layers.Dense(2))
    assert model.optimizer.get_state() == (0, {})
    model.train_on_batch(x, y)
    assert model.optimizer.states["m"].shape == model.parameters.shape


def test_a_layer_too_large_for_memory_is_not_added():
    x = np.ones((2, 4, 3), np.float32)
    model = Sequential([layers.GRU(5, input_shape=(4, 3))])
    before = model.predict(x)
    with pytest.raises(MemoryError):
        model.add(layers.Dense(10**18))
    assert [layer.name for layer in model.layers] == ["gru"]
    assert model.output_shape == (None, 5)
    np.testing.assert_array_equal(model.predict(x), before)


def test_summary_counts(capsys):
    Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")]).summary()
    printed = capsys.readouterr().out
    assert "18,048" in printed
    assert "Total params: 18,698 (73.04 KB)" in printed


@pytest.mark.parametrize("where", ["x", "weights"])
def test_training_stops_at_nan_with_epoch_and_batch_and_keeps_the_weights(where, digits):
    x, y = digits
    x = x.astype(np.float32) / 255
    fastgru.set_seed(0)
    model = small_model()
    if where == "x":
        x[100, 3, 3] = np.nan
        with pytest.raises(FloatingPointError, match=r"epoch 1, batch 4: the loss of sample 4 of the batch is nan"):
            model.fit(x, y, epochs=3, shuffle=False, verbose=0)
        assert np.isfinite(model.parameters).all()
        assert model.optimizer.step == 3
    else:
        model.parameters[:] = np.nan
        with pytest.raises(FloatingPointError, match=r"epoch 1, batch 1"):
            model.fit(x, y, verbose=0)


def test_initializers_have_keras_distributions():
    shape = (200, 300)
    uniform = fastgru.initializers.GlorotUniform(seed=0)(shape)
    limit = np.sqrt(6 / 500)
    assert np.abs(uniform).max() <= limit
    assert uniform.std() == pytest.approx(limit / np.sqrt(3), rel=0.01)
    normal = fastgru.initializers.glorot_normal(seed=0)(shape)
    assert normal.std() == pytest.approx(np.sqrt(2 / 500), rel=0.01)
    assert np.abs(normal).max() <= 2 * np.sqrt(2 / 500) / 0.8796
    for rows, columns in ((20, 60), (60, 20), (9, 9)):
        q = fastgru.initializers.Orthogonal()((rows, columns))
        product = q @ q.T if rows <= columns else q.T @ q
        np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=1e-12)
    assert not fastgru.initializers.zeros()((3,)).any()


def test_a_large_batch_is_trained_on_in_pieces_with_the_same_gradient():
    rng = np.random.default_rng(0)
    x, y = rng.random((800, 28, 6)), rng.integers(0, 3, 800)
    model = Sequential([layers.GRU(32, input_shape=(28, 6)), layers.Dense(3, activation="softmax")], dtype="float64")
    model.compile("adam", "categorical_crossentropy")
    weights = model.get_weights()
    assert len(loop.pieces(model._network, x)) == 6
    model.train_on_batch(x, y)
    in_pieces = model.gradient.copy()
    model.set_weights(weights)
    scores = model._network.scores(x, None, training=True)
    model._network.backward(functional.softmax_cross_entropy(scores.values, y).d_logits)
    np.testing.assert_allclose(in_pieces, model.gradient, rtol=0, atol=1e-12 * np.abs(model.gradient).max())


def test_a_bad_sample_in_a_later_piece_is_named_and_changes_nothing():
    model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "categorical_crossentropy")
    x, y = np.zeros((1024, 28, 28), np.float32), np.zeros(1024, np.int64)
    assert [rows.start for rows in loop.pieces(model._network, x)] == list(range(0, 1024, 128))
    x[900, 3, 3] = np.nan
    before = model.parameters.copy()
    with pytest.raises(FloatingPointError, match="sample 900 of the batch"):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.parameters, before)


@pytest.mark.parametrize(
    ("chain", "x", "expected", "outputs"),
    [
        (lambda: [layers.GRU(3), layers.Flatten(), layers.Dense(1)], zeros(4, 5, 2), (None, None, 2), 1),
        (lambda: [layers.Masking(), layers.Bidirectional(layers.GRU(3))], zeros(4, 5, 2), (None, None, 2), 6),
        (lambda: [layers.Dropout(0.1), layers.Dense(2), layers.GRU(3)], zeros(4, 5, 2), (None, None, 2), 3),
        (lambda: [layers.Embedding(3, 2), layers.GRU(1)], np.zeros((4, 5), int), (None, None), 1),
        (lambda: [layers.Embedding(3, 2), layers.Flatten(), layers.Dense(1)], np.zeros((4, 5), int), (None, 5), 1),
        (lambda: [layers.GRU(2, return_sequences=True), layers.Flatten()], zeros(4, 5, 2), (None, 5, 2), 10),
        (lambda: [layers.Dense(1)], zeros(4, 5), (None, 5), 1),
    ],
)
def test_data_builds_a_model_for_sequences_of_any_length(chain, x, expected, outputs):
    model = Sequential(chain())
    model.compile("adam", "mse")
    model.fit(x, zeros(4, outputs), verbose=0)
    assert model.input_shape == expected
    if None in expected[1:]:
        longer = np.repeat(x, 2, axis=1)
        model.fit(longer, zeros(4, outputs), verbose=0)
        assert model.predict(longer).shape == (4, outputs)


def test_batches_of_a_stream_may_have_any_length():
    def make():
        fastgru.set_seed(0)
        model = Sequential([layers.GRU(3), layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    rng = np.random.default_rng(0)
    batches = [(rng.random((4, steps, 2), np.float32), rng.random(4)) for steps in (5, 3, 8)]
    model, by_hand = make(), make()
    history = model.fit(batches, verbose=0).history
    expected = [by_hand.train_on_batch(x, y) for x, y in batches]
    assert history["loss"] == pytest.approx([np.mean(expected)])
    assert model.input_shape == (None, None, 2)
    np.testing.assert_array_equal(model.parameters, by_hand.parameters)
