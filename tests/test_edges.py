"""No samples, no steps, foreign byte orders, strides and read-only memory work in all layers."""

from __future__ import annotations

import numpy as np
import pytest
from fastgru import Sequential, layers

MERGES = (*layers.bidirectional.MERGES, None)

LAYERS = {
    "GRU": lambda: layers.GRU(3),
    "GRU of sequences": lambda: layers.GRU(3, return_sequences=True),
    **{f"Bidirectional {m}": lambda m=m: layers.Bidirectional(layers.GRU(3), m) for m in MERGES},
    **{
        f"Bidirectional {m} of sequences": lambda m=m: layers.Bidirectional(layers.GRU(3, return_sequences=True), m)
        for m in MERGES
    },
    "Dense": lambda: layers.Dense(3, "tanh"),
    "Activation": lambda: layers.Activation("softmax"),
    "Masking": lambda: layers.Masking(),
    "Dropout": lambda: layers.Dropout(0.5),
    "Flatten": lambda: layers.Flatten(),
    "average": lambda: layers.GlobalAveragePooling1D(),
    "maximum": lambda: layers.GlobalMaxPooling1D(),
    "last step": lambda: layers.LastStep(),
}
all_layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def outputs(layer, x, **options):
    y = layer(x, **options)
    return y if isinstance(y, tuple) else (y,)


@all_layers
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(0, 5, 2), (4, 0, 2), (0, 0, 2)], ids=str)
def test_no_samples_and_no_steps(make, shape, training, lengths):
    layer = make()
    some = outputs(layer, np.ones((4, 5, 2), np.float32))
    given = np.full(shape[0], shape[1]) if lengths else None
    for one, none in zip(
        some, outputs(layer, np.ones(shape, np.float32), lengths=given, training=training), strict=True
    ):
        assert none.dtype == np.float32
        if one.ndim == 3:
            assert none.shape == (*shape[:2], one.shape[2])
        elif not isinstance(layer, layers.Flatten):
            assert none.shape == (shape[0], one.shape[1])
        assert not none.any()  # initial states; pooling no steps gives 0


def unaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    memory.view()[...] = np.frombuffer(x.tobytes(), np.uint8)
    return memory.view(x.dtype).reshape(x.shape)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS = {
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: np.flip(np.ascontiguousarray(np.flip(x))),
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "unaligned": unaligned,
    "read-only": read_only,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@all_layers
@forms
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_memory_layout_of_a_layers_input_does_not_change_results(make, form, dtype):
    layer = make()
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(dtype)
    expected = outputs(layer, x)
    for plain, other in zip(expected, outputs(layer, form(x)), strict=True):
        np.testing.assert_array_equal(other, plain)


@all_layers
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nonfinite_value_affects_its_own_sample_only(make, value):
    layer = make()
    x = np.random.default_rng(0).normal(size=(9, 5, 2)).astype(np.float32)
    expected = outputs(layer, x)
    x[4, 2:, 1] = value
    for clean, other in zip(expected, outputs(layer, x), strict=True):
        np.testing.assert_array_equal(np.delete(other, 4, axis=0), np.delete(clean, 4, axis=0))
        assert np.isnan(value) <= np.isnan(other[4]).any()  # a NaN is not lost


@forms
def test_the_memory_layout_of_fits_arrays_does_not_change_results(form):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(20, 5, 2)).astype(np.float32), rng.random((20, 5))
    y, lengths = rng.integers(0, 3, (20, 5)), rng.integers(0, 6, 20)

    def trained(as_given):
        model = Sequential([layers.Bidirectional(layers.GRU(3, return_sequences=True)), layers.Dense(3, "softmax")])
        model._network.draw_from(np.random.default_rng(1))
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        data = {"x": x, "y": y, "lengths": lengths, "sample_weight": weights}
        history = model.fit(**{name: as_given(array) for name, array in data.items()}, batch_size=7, verbose=0)
        return model.parameters, history.history

    expected, history = trained(lambda array: array)
    found, other_history = trained(form)
    np.testing.assert_array_equal(found, expected)
    assert other_history == history


def test_tokens_in_any_memory_layout():
    layer = layers.Embedding(7, 3)
    tokens = np.random.default_rng(0).integers(0, 7, (4, 5)).astype(np.int16)
    expected = layer(tokens)
    for form in FORMS.values():
        np.testing.assert_array_equal(layer(form(tokens)), expected)
    assert layer(tokens[:0]).shape == (0, 5, 3)
    assert layer(tokens[:, :0], training=True).shape == (4, 0, 3)


@pytest.mark.parametrize("make", [lambda: layers.GRU(3), lambda: layers.Bidirectional(layers.GRU(3))])
def test_a_model_without_samples_or_steps(make):
    model = Sequential([make(), layers.Dense(2, "softmax")])
    model.build((None, None, 2))
    model.compile("adam", "categorical_crossentropy")
    model.fit(np.zeros((4, 0, 2), np.float32), np.array([0, 1, 0, 1]), verbose=0)
    assert model.predict(np.zeros((0, 5, 2), np.float32)).shape == (0, 2)
    assert model.predict(np.zeros((4, 0, 2), np.float32)).shape == (4, 2)


def test_outputs_at_each_step_without_samples_or_steps():
    model = Sequential(
        [layers.Bidirectional(layers.GRU(3, return_sequences=True), input_shape=(None, 2)), layers.Dense(2)]
    )
    model.compile("adam", "mse")
    assert model.predict(np.zeros((0, 5, 2), np.float32)).shape == (0, 5, 2)
    assert model.predict(np.zeros((4, 0, 2), np.float32)).shape == (4, 0, 2)
    before = model.parameters.copy()
    model.fit(np.zeros((4, 0, 2), np.float32), np.zeros((4, 0, 2), np.float32), verbose=0)  # no valid steps
    np.testing.assert_array_equal(model.parameters, before)
