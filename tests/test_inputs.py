"""Data in other forms than arrays: lists of sequences, objects with the array protocols, indexed batches, triples."""

from __future__ import annotations

import functools
import warnings

import models
import numpy as np
import pytest
from fastgru import Sequential, layers, load_model
from models import samples

pytestmark = pytest.mark.isa_independent

classifier = functools.partial(models.classifier, 4, classes=3)
tagger = functools.partial(classifier, return_sequences=True)


def sequences(count=20, seed=0, longest=7):
    """Lists of sequences, labels and tags, and the same in padded arrays with lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    lengths[3] = longest
    x = [rng.normal(size=(steps, 3)).astype(np.float32) for steps in lengths]
    y = rng.integers(0, 3, count)
    tags = [rng.integers(0, 3, steps) for steps in lengths]
    return x, y, tags, lengths


def padded(arrays, value=0):
    longest = max(map(len, arrays))
    return np.stack(
        [np.pad(a, [(0, longest - len(a))] + [(0, 0)] * (a.ndim - 1), constant_values=value) for a in arrays]
    )


# --- Lists of sequences -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [list, tuple, lambda x: np.array([*x, None], object)[:-1]])
def test_a_list_of_sequences_is_the_padded_array_with_lengths(form):
    x, y, _, lengths = sequences(60)
    one, two = classifier(), classifier()
    first = one.fit(padded(x), y, 6, 3, 0, lengths=lengths, validation_split=0.25)
    second = two.fit(form(x), y, 6, 3, 0, validation_split=0.25)
    np.testing.assert_allclose(two.parameters, one.parameters, atol=1e-6)
    assert second.history["val_loss"] == pytest.approx(first.history["val_loss"], rel=1e-5)
    two.set_weights(one.get_weights())
    assert two.evaluate(form(x), y) == pytest.approx(one.evaluate(padded(x), y, lengths=lengths), rel=1e-6)
    np.testing.assert_array_equal(two.predict(form(x), 6), one.predict(padded(x), lengths=lengths))


def test_targets_and_weights_of_each_step_are_lists_too():
    x, _, tags, lengths = sequences()
    rng = np.random.default_rng(1)
    weights = [rng.random(len(a)) for a in x]
    class_weight = {0: 0.5, 2: 2.0}
    one, two = tagger(), tagger()
    options = {"class_weight": class_weight, "batch_size": 6, "epochs": 3, "verbose": 0}
    one.fit(padded(x), padded(tags, -1), lengths=lengths, sample_weight=padded(weights), **options)
    two.fit(x, tags, sample_weight=weights, **options)
    np.testing.assert_allclose(two.parameters, one.parameters, atol=1e-6)
    two.set_weights(one.get_weights())
    whole = one.predict(padded(x), lengths=lengths)
    found = two.predict(x, 6)
    assert isinstance(found, list)
    assert [len(a) for a in found] == lengths.tolist()
    for array, row, steps in zip(found, whole, lengths, strict=True):
        np.testing.assert_array_equal(array, row[:steps])
    one_hot = [np.eye(3, dtype=np.float32)[a] for a in tags]
    expected = one.evaluate(padded(x), padded(tags), lengths=lengths)
    for form in (tags, [a[:, None] for a in tags], [a.tolist() for a in tags], one_hot):
        assert two.evaluate(x, form) == pytest.approx(expected, rel=1e-6)
    per_sample = rng.random(len(x))
    assert two.evaluate(x, tags, sample_weight=per_sample) == pytest.approx(
        one.evaluate(padded(x), padded(tags), lengths=lengths, sample_weight=per_sample), rel=1e-6
    )


def test_tokens_are_lists_of_integers():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, 20)
    x = [rng.integers(0, 9, steps) for steps in lengths]
    y = rng.integers(0, 2, 20)

    def make():
        model = Sequential([layers.Embedding(9, 3), layers.GRU(4), layers.Dense(2, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.build((None, None))
        return model

    one, two, three = make(), make(), make()
    two.set_weights(one.get_weights())
    three.set_weights(one.get_weights())
    one.fit(padded(x), y, 20, 2, 0, lengths=lengths, shuffle=False)
    two.fit([a.tolist() for a in x], y, 20, 2, 0, shuffle=False)
    three.fit([(x, y)], epochs=2, verbose=0)
    np.testing.assert_allclose(two.parameters, one.parameters, atol=1e-6)
    np.testing.assert_array_equal(two.parameters, three.parameters)
    np.testing.assert_array_equal(two.predict(x), two.predict(iter([x[:9], x[9:]])))


def test_lists_train_a_model_that_has_no_weights_yet():
    x, y, _, _ = sequences()
    model = Sequential([layers.GRU(4), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    assert model.input_shape == (None, None, 3)


def test_a_model_of_fixed_length_pads_to_it():
    x, y, _, lengths = sequences()
    model = Sequential([layers.GRU(4, input_shape=(9, 3)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    full = np.pad(padded(x), [(0, 0), (0, 2), (0, 0)])
    np.testing.assert_array_equal(model.predict(x), model.predict(full, lengths=lengths))
    with pytest.raises(ValueError, match=r"x: expected sequences of at most 9 steps .* got 10 at index 1"):
        model.predict([x[0], np.zeros((10, 3), np.float32)])


def test_only_a_batch_is_padded(monkeypatch):
    from fastgru._support.sequence_list import SequenceList

    sizes, real = [], SequenceList.pad
    monkeypatch.setattr(
        SequenceList, "pad", lambda self, *rest: sizes.append(real(self, *rest).shape) or real(self, *rest)
    )
    x, y, _, lengths = sequences()
    classifier().fit(x, y, 6, verbose=0, shuffle=False)
    assert [size[:2] for size in sizes] == [
        (len(part), max(part)) for part in (lengths[i : i + 6] for i in (0, 6, 12, 18))
    ]


def test_lists_of_lists_of_one_length_are_arrays():
    x, _ = samples(count=8, classes=2)
    model = models.classifier()
    np.testing.assert_array_equal(model.predict(x.astype(np.float64).astype(np.float32)), model.predict(x))
    np.testing.assert_array_equal(model.predict(list(x)), model.predict(x))
    np.testing.assert_array_equal(model.predict([x]), model.predict(x))  # one input, as Keras takes it
    assert isinstance(tagger().predict(list(x)), list)


def test_several_outputs_of_lists():
    x, _, _, lengths = sequences()
    model = Sequential([layers.GRU(4, return_sequences=True, return_state=True, input_shape=(None, 3))])
    steps, state = model.predict(x, 6)
    whole, expected = model.predict(padded(x), lengths=lengths)
    np.testing.assert_array_equal(state, expected)
    assert [len(a) for a in steps] == lengths.tolist()
    np.testing.assert_array_equal(steps[3], whole[3])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x, y, {"lengths": [1] * 20}), ValueError, "lengths: expected None because x is a list"),
        (lambda x, y: ([*x[:19], np.zeros((2, 4))], y, {}), ValueError, r"x: expected .*\(T, 3\).* got \(2, 4\) at"),
        (lambda x, y: ([*x[:19], np.zeros(2)], y, {}), ValueError, r"x: expected .*\(T, 3\).* got \(2,\) at index 19"),
        (lambda x, y: ([a[:, 0] for a in x], y, {}), ValueError, r"x: .*one feature per step.*a.reshape\(-1, 1\)"),
        (lambda x, y: ([*x[:19], "text"], y, {}), TypeError, r"x\[19\]: expected numbers, got str"),
        (lambda x, y: ([[[1.0, 2.0, 3.0]], [[1.0, 2.0], [3.0]]], y, {}), ValueError, r"x\[1\]: expected an array"),
        (lambda x, y: ([x[0][None], x[1][None]], y, {}), ValueError, r"x: expected a list of sequences .* iter"),
        (lambda x, y: (x, y[:19], {}), ValueError, "y: expected .*20.*got .*19"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_are_refused(change, error, message):
    x, y, _, _ = sequences()
    x, y, options = change(x, y)
    with pytest.raises(error, match=message):
        classifier().fit(x, y, verbose=0, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda tags: padded(tags), ValueError, r"y: expected \d steps at index \d+ because"),
        (lambda tags: tags[:19], ValueError, "y: expected 20 arrays because x is a list of 20 sequences, got 19"),
        (lambda tags: [*tags[:19], tags[19] + 9], ValueError, r"y\[19\]: expected classes from 0 to 2"),
        (lambda tags: np.zeros(20, int), ValueError, "y: expected a list of arrays, one for each step"),
    ],
)  # fmt: skip
def test_tags_that_do_not_fit_are_refused(change, error, message):
    x, _, tags, _ = sequences()
    with pytest.raises(error, match=message):
        tagger().evaluate(x, change(tags))


# --- Array protocols ----------------------------------------------------------------------------------------------


class Foreign:
    """An array of another library."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __len__(self):
        return len(self.array)

    def __iter__(self):
        return map(Foreign, self.array)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Exported:
    """An array that has DLPack alone."""

    def __init__(self, array, device=None):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [Foreign, Exported])
def test_arrays_of_other_libraries_are_arrays(wrap):
    x, y = samples()
    weights, lengths = np.linspace(0, 1, len(x)), np.full(len(x), 4)
    one, two = models.classifier(), models.classifier()
    options = {"epochs": 2, "verbose": 0}
    one.fit(x, y, sample_weight=weights, lengths=lengths, validation_data=(x, y), **options)
    two.fit(
        wrap(x),
        wrap(y),
        sample_weight=wrap(weights),
        lengths=wrap(lengths),
        validation_data=(wrap(x), wrap(y)),
        **options,
    )
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert one.evaluate(x, y) == two.evaluate(wrap(x), wrap(y)) == two.evaluate([(wrap(x), wrap(y))])
    np.testing.assert_array_equal(one.predict(x), two.predict(wrap(x)))
    one.fit([(x, y)], verbose=0)
    two.fit(iter([[wrap(x), wrap(y)]]), verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    np.testing.assert_array_equal(one.predict(x), two.predict([wrap(a) for a in x]))


def test_arrays_on_other_devices_are_refused():
    x, y = samples()
    with pytest.raises(
        TypeError, match=r"x: expected data that NumPy can read, got .*device \(2, 0\); copy it to the CPU"
    ):
        models.classifier().fit(Exported(x, (2, 0)), y, verbose=0)


# --- Batches by number --------------------------------------------------------------------------------------------


class Batches:
    """As Keras' Sequence: batches by number; indexing never ends."""

    def __init__(self, x, y, size):
        self.x, self.y, self.size = x, y, size
        self.given, self.ended = [], 0

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, number):
        self.given.append(number)
        rows = slice(number * self.size, (number + 1) * self.size)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.ended += 1


def test_batches_by_number_are_the_arrays_they_come_from():
    x, y = samples(count=40)
    one, two = models.classifier(), models.classifier()
    one.fit(x, y, 10, 3, 0, shuffle=False)
    source = Batches(x, y, 10)
    two.fit(source, epochs=3, verbose=0, shuffle=False, validation_data=Batches(x, y, 7))
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert source.given == [0, 1, 2, 3] * 3
    assert source.ended == 3
    assert two.evaluate(Batches(x, y, 7)) == pytest.approx(one.evaluate(x, y), rel=1e-12)
    np.testing.assert_array_equal(two.predict(Batches(x, y, 7)), one.predict(x))


def test_batches_by_number_are_shuffled_and_limited():
    x, y = samples(count=40)
    source = Batches(x, y, 4)
    models.classifier().fit(source, epochs=2, verbose=0)
    first, second = source.given[:10], source.given[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    source = Batches(x, y, 4)
    models.classifier().fit(source, epochs=2, verbose=0, steps_per_epoch=3)
    assert len(source.given) == 6
    with pytest.raises(ValueError, match="x: expected 11 batches because steps_per_epoch=11, got 10"):
        models.classifier().fit(source, verbose=0, steps_per_epoch=11)


def test_a_training_on_batches_by_number_is_resumed(tmp_path):
    from fastgru import callbacks

    x, y = samples(count=40)
    path = tmp_path / "a.safetensors"

    def fit(epochs, resume=None):
        model = models.classifier()
        model.fit(Batches(x, y, 10), epochs=epochs, verbose=0, callbacks=[callbacks.ModelCheckpoint(path, save_freq=3)],
                  resume_from=resume)  # fmt: skip
        return model

    whole = fit(4)
    fit(2)
    np.testing.assert_array_equal(fit(4, path).parameters, whole.parameters)


def test_predict_takes_the_x_of_batches():
    x, y = samples(count=40)
    model = models.classifier()
    expected = model.predict(x)
    parts = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    for batches in (
        (a for a, _ in parts), iter(parts), iter([[a, b] for a, b in parts]), iter([[a] for a, _ in parts]),
        iter([{"x": a} for a, _ in parts]), iter([list(a) for a, _ in parts]),
    ):  # fmt: skip
        np.testing.assert_array_equal(model.predict(batches), expected)
    np.testing.assert_array_equal(model.predict(iter(parts), steps=2), expected[:16])
    lengths = np.full(40, 3)
    batches = iter([{"x": a, "lengths": lengths[: len(a)]} for a, _ in parts])
    np.testing.assert_array_equal(model.predict(batches), model.predict(x, lengths=lengths))
    tags = tagger()
    found = tags.predict(iter([x[:8], x[8:, :3]]))  # other numbers of steps
    assert [a.shape for a in found] == [(5, 3)] * 8 + [(3, 3)] * 32
    with pytest.raises(ValueError, match="x: expected at least one batch, got none"):
        model.predict(iter([]))
    with pytest.raises(ValueError, match="lengths: expected None because x is an iterable"):
        model.predict(iter(parts), lengths=lengths)
    with pytest.raises(ValueError, match="x, batch 1: expected the key x, got y"):
        model.predict(iter([{"y": x}]))


# --- Triples ------------------------------------------------------------------------------------------------------


def test_a_third_element_that_looks_like_lengths_is_lengths_with_a_warning():
    x, y = samples()
    lengths = np.random.default_rng(0).integers(1, 6, len(x))
    loss = "val_loss"
    expected = models.classifier()
    named = {"x": x, "y": y, "lengths": lengths}
    one = expected.fit(x, y, verbose=0, validation_data=named)
    with pytest.warns(
        UserWarning, match=r"validation_data: the third .* used as lengths; Keras .* 'sample_weight'"
    ) as seen:
        two = models.classifier().fit(x, y, verbose=0, validation_data=(x, y, lengths))
    assert seen[0].filename == __file__
    assert one.history[loss] == two.history[loss]
    with pytest.warns(UserWarning, match="x, batch 1: the third element"):
        found = expected.evaluate(iter([(x, y, lengths)]))
    assert found == expected.evaluate(x, y, lengths=lengths)


@pytest.mark.parametrize("weights", [[0, 1], [1.0, 3.0], [1, 6]])
def test_other_third_elements_are_weights_as_in_keras(weights):
    x, y = samples()
    weights = np.resize(weights, len(x))
    model = models.classifier()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.evaluate(iter([(x, y, weights)]))
    assert found == model.evaluate(x, y, sample_weight=weights)


def test_masks_and_dicts_in_the_wrong_place_name_the_remedy():
    x, y = samples(count=4)
    model = models.classifier()
    with pytest.raises(TypeError, match=r"x, batch 1: expected sample weights as third element, got a mask; pass"):
        model.evaluate(iter([(x, y, np.ones((4, 5), bool))]))
    with pytest.raises(TypeError, match=r"x: expected an array, .* got dict; pass its entries as x, y, lengths"):
        model.fit({"x": x, "y": y}, verbose=0)
    with pytest.raises(TypeError, match=r"x: expected samples .* got a dict; pass its entries as x and lengths"):
        model.predict({"x": x})
    with pytest.raises(TypeError, match=r"x: expected an array, .* got NoneType"):
        model.fit(verbose=0)
    with pytest.raises(ValueError, match=r"y: expected an array because x is an array, .* a list of sequences too"):
        tagger().fit(x, [[0, 1], [0], [1], [1]], verbose=0)


def test_triples_of_one_iterable_are_of_one_kind():
    x, y = samples(count=6)
    ones, lengths = np.ones(6, int), np.full(6, 3)
    model = models.classifier()
    with pytest.raises(
        ValueError, match="x, batch 2: expected sample weights as third element because earlier batches"
    ):
        model.evaluate(iter([(x, y, ones), (x, y, lengths)]))
    with pytest.warns(UserWarning, match="third element") as seen:
        found = model.evaluate(iter([(x, y, lengths), (x, y, ones)]))
    assert len(seen) == 1
    assert found == pytest.approx(model.evaluate(np.concatenate([x, x]), np.concatenate([y, y]),
                                                 lengths=np.concatenate([lengths, ones])), rel=1e-6)  # fmt: skip


# --- Lengths that are missing -------------------------------------------------------------------------------------


def trained_with_lengths(**options):
    x, y, _, lengths = sequences()
    model = classifier(**options)
    model.fit(padded(x), y, verbose=0, lengths=lengths)
    return model, padded(x), y, lengths


def warns_of_padding():
    return pytest.warns(UserWarning, match="trained with lengths and some sequences end in zeros.* pass lengths=")


def quiet(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


@pytest.mark.parametrize("call", ["predict", "evaluate"])
def test_padded_data_without_lengths_warns_once(call):
    model, x, y, _ = trained_with_lengths()
    arguments = (x,) if call == "predict" else (x, y)
    with warns_of_padding() as seen:
        getattr(model, call)(*arguments)
    assert seen[0].filename == __file__
    quiet(lambda: getattr(model, call)(*arguments))


def test_no_warning_where_nothing_is_missing(tmp_path):
    model, x, y, lengths = trained_with_lengths()
    quiet(lambda: model.predict(x[3:4]))  # of full length
    quiet(lambda: model.predict([a[:n] for a, n in zip(x, lengths, strict=True)]))
    quiet(lambda: model.predict(x, lengths=lengths))
    quiet(lambda: model.predict(x))  # the user knows
    untrained = classifier()
    quiet(lambda: untrained.predict(x))
    masked = Sequential([layers.Masking(input_shape=(None, 3)), layers.GRU(3), layers.Dense(3, activation="softmax")])
    masked.compile("adam", "sparse_categorical_crossentropy")
    masked.fit(x, y, verbose=0, lengths=lengths)
    quiet(lambda: masked.predict(x))


def test_no_warning_where_all_lengths_were_the_same():
    x, y, _, _ = sequences()
    x, y = np.ones((6, 5, 3), np.float32), y[:6]
    zeros = x * (np.arange(5) < 4)[:, None]  # end in zeros, as images of digits do

    def trained(given, **options):
        model = classifier()
        quiet(lambda: model.fit(given, y, verbose=0, validation_data=(zeros, y), **options))
        return model

    for model in (trained([*x]), trained([*x], batch_size=1), trained(x, lengths=[5] * 6)):
        quiet(lambda model=model: model.predict(zeros))
    buckets = classifier()
    buckets.fit([{"x": x[:3, :steps], "y": y[:3], "lengths": [steps] * 3} for steps in (5, 4)], verbose=0)
    with warns_of_padding():
        buckets.predict(zeros)


def test_the_file_remembers_that_lengths_were_used(tmp_path):
    model, x, y, _ = trained_with_lengths()
    model.save(tmp_path / "a.safetensors")
    with warns_of_padding():
        load_model(tmp_path / "a.safetensors").predict(x)
    plain = classifier()
    plain.fit(x, y, verbose=0)
    plain.save(tmp_path / "b.safetensors")
    quiet(lambda: load_model(tmp_path / "b.safetensors").predict(x))


def test_validation_without_lengths_warns():
    x, y, _, lengths = sequences()
    with pytest.warns(UserWarning, match=r"validation_data\[0\]: the model was trained with lengths"):
        classifier().fit(padded(x), y, verbose=0, lengths=lengths, validation_data=(padded(x), y))
    quiet(lambda: classifier().fit(x, y, verbose=0, validation_data={"x": padded(x), "y": y, "lengths": lengths}))


# --- Errors and warnings that name the argument -------------------------------------------------------------------


def regressor():
    model = Sequential([layers.GRU(2, input_shape=(None, 3)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("argument", ["y", "lengths", "sample_weight"])
def test_batches_need_no_arrays_beside_them(argument):
    x, y = np.ones((4, 5, 3)), np.ones((4, 1))
    with pytest.raises(ValueError, match=f"^{argument}: expected None because x is an iterable of batches"):
        regressor().fit(iter([(x, y)]), **{argument: np.ones(4, int)})


def test_a_batch_beyond_float32_is_named_once_in_the_remedy():
    x, y = np.full((4, 5, 3), 1e300), np.ones((4, 1))
    with pytest.warns(RuntimeWarning, match=r"^x, batch 1, x: expected numbers in the range of float32.*; scale x, or"):
        regressor().evaluate(iter([(x, y)]))
    with pytest.raises(TypeError, match=r"^x, batch 1, x: expected .* complex128; pass x.real and x.imag"):
        regressor().evaluate(iter([(x.astype(complex), y)]))


def test_targets_beyond_float32_are_named():
    x, y = np.ones((4, 5, 3)), np.full((4, 1), 1e300)
    with pytest.warns(RuntimeWarning, match="^y: expected numbers in the range of float32.*; scale y, or") as warned:
        regressor().evaluate(x, y)
    assert warned[0].filename == __file__


def test_sample_weight_may_be_a_mask():
    model = regressor()
    x, y, mask = np.ones((4, 5, 3)), np.arange(4.0), np.array([True, False, True, True])
    assert model.evaluate(x, y, sample_weight=mask) == model.evaluate(x, y, sample_weight=mask.astype(float))
