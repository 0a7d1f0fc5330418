"""What Keras users type on models and layers: arguments, return types, weights, summaries and files of weights."""

from __future__ import annotations

import copy

import fastgru
import numpy as np
import pytest
import safetensors.numpy
from fastgru import ModelFileError, Sequential, layers, load_model
from models import classifier, regressor, samples

X, Y = samples(count=24)

# --- Compile, and what is returned ------------------------------------------------------------------------------------


def test_compile_has_kerass_defaults():
    model = regressor()
    model.compile(loss="mse")
    assert type(model.optimizer) is fastgru.optimizers.RMSprop
    model.compile("adam")
    assert model.loss is None
    x, y = samples(count=4)
    for use in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.evaluate(x, y),
        lambda: model.train_on_batch(x, y),
        lambda: model.test_on_batch(x, y),
    ):
        with pytest.raises(ValueError, match=r"loss: expected one .* got None; call compile\(optimizer, loss\)"):
            use()
    model.predict(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse", "loss_weights": [1.0]}, r"loss_weights: expected None because a model has one loss"),
        ({"loss": "mse", "weighted_metrics": ["mae"]}, "weighted_metrics: expected None .*; pass metrics= instead"),
        ({"metrics": ["mae"]}, "metrics: expected none because no loss is given"),
    ],
)
def test_compile_refuses_what_it_does_not_support(options, message):
    model = regressor()
    before = model.loss, model.optimizer
    with pytest.raises(ValueError, match=message):
        model.compile(**options)
    assert (model.loss, model.optimizer) == before
    with pytest.raises(ValueError, match=r"loss_weights: .* if these are metrics, write metrics=\['mae'\]"):
        model.compile("adam", "mse", ["mae"])


def test_compile_ignores_how_keras_computes():
    model = regressor()
    model.compile("sgd", "mse", run_eagerly=True, jit_compile=True, steps_per_execution=4, auto_scale_loss=False)
    model.compile("sgd", "mse", None, None, None)


def test_the_loss_is_a_number_without_metrics_and_a_list_with_them(keras):
    x, y = X, np.float32(Y)[:, None]
    ours = Sequential([layers.GRU(4, input_shape=X.shape[1:]), layers.Dense(1)])
    theirs = keras.models.model_from_json(ours.to_json())
    theirs.set_weights(ours.get_weights())
    for metrics in (None, ["mae"], ["mae", "mse"]):
        ours.compile("sgd", "mse", metrics=metrics)
        theirs.compile("sgd", "mse", metrics=metrics, run_eagerly=True)
        for call in (
            lambda model: model.evaluate(x, y, verbose=0),
            lambda model: model.test_on_batch(x, y),
            lambda model: model.train_on_batch(x, y),
            lambda model: model.evaluate(x, y, verbose=0, return_dict=True),
            lambda model: model.test_on_batch(x, y, return_dict=True),
            lambda model: model.train_on_batch(x, y, None, None, True),
        ):
            found, expected = call(ours), call(theirs)
            assert type(found) is type(expected)
            assert found == pytest.approx(expected, rel=1e-5)
            if isinstance(found, dict):
                assert list(found) == ["loss", *(metrics or [])]


def test_train_on_batch_takes_weights_of_classes():
    one, other = classifier(), classifier()
    weights = {0: 0.5, 1: 2.0}
    factors = np.array([weights[label] for label in Y])
    assert one.train_on_batch(X, Y, class_weight=weights) == other.train_on_batch(X, Y, sample_weight=factors)
    np.testing.assert_array_equal(one.parameters, other.parameters)


def test_batches_give_what_whole_sets_give():
    model = classifier()
    before = model.parameters.copy()
    assert model.test_on_batch(X, Y) == model.evaluate(X, Y)
    np.testing.assert_array_equal(model.predict_on_batch(X), model.predict(X))
    np.testing.assert_array_equal(model.parameters, before)
    lengths = np.arange(24) % X.shape[1] + 1
    np.testing.assert_array_equal(model.predict_on_batch(X, lengths=lengths), model.predict(X, lengths=lengths))
    assert model.test_on_batch(X, Y, lengths=lengths) == model.evaluate(X, Y, lengths=lengths)


# --- Calls ------------------------------------------------------------------------------------------------------------


def test_a_call_gives_the_outputs():
    model = classifier()
    lengths = np.arange(24) % X.shape[1] + 1
    np.testing.assert_array_equal(model(X), model.predict(X))
    np.testing.assert_array_equal(model(X, lengths=lengths), model.predict(X, lengths=lengths))
    np.testing.assert_array_equal(model(X, mask=lengths), model(X, lengths=lengths))
    assert model(X[:0]).shape == (0, 2)
    with pytest.raises(ValueError, match="mask: expected None because lengths are given"):
        model(X, mask=lengths, lengths=lengths)


def test_a_call_makes_the_weights():
    model = Sequential([layers.GRU(4), layers.Dense(2)])
    assert model(X).shape == (24, 2)
    assert model.input_shape == (None, None, X.shape[2])


def test_a_call_in_training_drops():
    model = Sequential([layers.Dropout(0.5, input_shape=X.shape[1:])])
    dropped = model(X, training=True)
    assert 0.2 < np.mean(dropped == 0) < 0.8
    np.testing.assert_array_equal(model(X), X)


def test_a_call_in_training_is_refused_inside_a_training():
    model = classifier()

    class Nested(fastgru.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            np.testing.assert_array_equal(self.model(X), self.model.predict(X))
            self.model(X, training=True)

    with pytest.raises(RuntimeError, match="a call: expected a model that is not in use"):
        model.fit(X, Y, verbose=0, callbacks=[Nested()])


# --- Weights ----------------------------------------------------------------------------------------------------------


def test_weights_are_variables():
    model = classifier(units=4)
    assert [w.path for w in model.weights] == [
        "gru/kernel", "gru/recurrent_kernel", "gru/bias", "dense/kernel", "dense/bias"
    ]  # fmt: skip
    assert [w.name for w in model.layers[0].weights] == ["kernel", "recurrent_kernel", "bias"]
    assert [w.shape for w in model.layers[1].weights] == [(4, 2), (2,)]
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)
        np.testing.assert_array_equal(np.asarray(variable), array)
        assert (variable.ndim, variable.size, len(variable)) == (array.ndim, array.size, len(array))
        assert variable.dtype == "float32"
        np.testing.assert_array_equal(variable[0], array[0])
    assert np.asarray(model.weights[0], np.float64).dtype == np.float64
    assert repr(model.weights[0]) == "<Variable path=gru/kernel, shape=(3, 12), dtype=float32, trainable=True>"


def test_names_of_weights_are_kerass(keras):
    ours = Sequential([layers.GRU(2, input_shape=(None, 3)), layers.Bidirectional(layers.GRU(2)), layers.Dense(1)][:1])
    theirs = keras.models.model_from_json(ours.to_json())
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    assert [w.dtype for w in ours.weights] == [w.dtype for w in theirs.weights]


def test_a_variable_is_written_and_its_copies_are_not():
    model = classifier()
    kernel = model.weights[0]
    taken = kernel.numpy()
    taken[...] = 7
    assert not (model.get_weights()[0] == 7).any()
    assert kernel.assign(taken) is kernel
    assert (model.get_weights()[0] == 7).all()
    before = kernel.numpy()
    kernel.assign(np.zeros(kernel.shape, int).tolist())
    assert (before == 7).all()
    assert not kernel.numpy().any()
    with pytest.raises(ValueError, match=r"value: expected shape .* for gru/kernel, got \(1,\)"):
        kernel.assign([3.0])
    with pytest.raises(TypeError, match="value: expected float32 for gru/kernel, got complex128"):
        kernel.assign(np.zeros(kernel.shape, complex))


def test_a_variable_stays_that_of_its_layer_in_new_memory():
    model = Sequential([layers.GRU(2, input_shape=(None, 3))])
    kernel = model.weights[0]
    model.add(layers.Dense(2))
    kernel.assign(np.full(kernel.shape, 3.0))
    assert (model.get_weights()[0] == 3).all()


def test_weights_cannot_be_assigned_as_a_whole():
    with pytest.raises(AttributeError, match=r"weights: .* call set_weights\(weights\)"):
        classifier().weights = []


def test_layers_tell_whether_they_are_built():
    layer = layers.GRU(2)
    assert not layer.built
    Sequential([layer]).build((None, 5, 3))
    assert layer.built


# --- Layers -----------------------------------------------------------------------------------------------------------


def test_pop_removes_the_last_layer():
    model = Sequential([layers.GRU(3, input_shape=(None, 3)), layers.Dropout(0.5), layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(X, np.zeros((24, 2), np.float32), verbose=0)
    kept, head = model.get_weights()[:3], model.get_weights()[3:]
    last = model.pop()
    assert (last.name, model.output_shape) == ("dense", (None, 3))
    for one, other in zip([*model.get_weights(), *last.get_weights()], [*kept, *head], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(last(model(X)), model(X) @ head[0] + head[1], rtol=1e-6, atol=1e-7)
    model.add(layers.Dense(4))
    model.compile("adam", "mse")
    model.fit(X, np.zeros((24, 4), np.float32), verbose=0)
    for _ in range(3):
        model.pop()
    assert not model.built
    assert model.layers == []
    with pytest.raises(ValueError, match="no layers to remove"):
        model.pop()
    model.add(layers.Dense(2, input_shape=(3,)))
    assert model.count_params() == 8


def test_a_summary_has_kerass_numbers(keras, capsys):
    model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dropout(0.1), layers.Dense(10)])
    model.layers[0].trainable = False
    theirs = keras.models.model_from_json(model.to_json())
    texts = []
    for each in (model, theirs):
        lines = []
        each.summary(print_fn=lambda text, line_break=None, lines=lines: lines.append(text))
        texts.append("\n".join(lines))
    for expected in ("18,048", "650", "(None, 64)", "gru (GRU)"):
        assert all(expected in text for text in texts)
    for name in ("Total params", "Trainable params", "Non-trainable params"):
        ours, other = (next(line for line in text.splitlines() if name in line).strip() for text in texts)
        assert ours == other
    assert capsys.readouterr().out == ""
    model.summary(show_trainable=True, line_length=90, layer_range=("dropout", "dense"))
    printed = capsys.readouterr().out
    assert "gru" not in printed
    assert max(map(len, printed.splitlines())) >= 85
    assert model.count_params() == theirs.count_params() == 18_698


# --- Files ------------------------------------------------------------------------------------------------------------


def test_weights_go_through_safetensors(tmp_path):
    model, other = classifier(seed=1), classifier(seed=2)
    path = tmp_path / "w.safetensors"
    model.save_weights(path)
    tensors = safetensors.numpy.load_file(path)
    assert sorted(tensors) == sorted(w.path for w in model.weights)
    other.load_weights(path)
    np.testing.assert_array_equal(other.parameters, model.parameters)
    with pytest.raises(ModelFileError, match="weights without a model: make the model, and pass the file to its load"):
        load_model(path)


def test_weights_come_from_models_and_from_other_programs(tmp_path):
    model, other = classifier(seed=1), classifier(seed=2)
    model.save(tmp_path / "m.safetensors")
    other.load_weights(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(other.parameters, model.parameters)
    given = {w.path: np.full(w.shape, 0.5, np.float32) for w in model.weights}
    safetensors.numpy.save_file(given, tmp_path / "g.safetensors")
    other.load_weights(tmp_path / "g.safetensors")
    assert all((array == 0.5).all() for array in other.get_weights())


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    model = classifier(units=4)
    path = tmp_path / "w.safetensors"
    classifier(units=5).save_weights(path)
    before = model.parameters.copy()
    with pytest.raises(ModelFileError, match=r"gru/kernel of shape \(3, 15\) instead of \(3, 12\), gru/recurrent"):
        model.load_weights(path)
    safetensors.numpy.save_file({"gru/kernel": np.zeros((3, 12), np.float32), "more": np.zeros(1)}, path)
    with pytest.raises(ModelFileError, match=r"no gru/recurrent_kernel, no gru/bias, .* an unexpected more"):
        model.load_weights(path)
    np.testing.assert_array_equal(model.parameters, before)


def test_a_damaged_file_of_weights_is_refused(tmp_path):
    model = classifier()
    path = tmp_path / "w.safetensors"
    model.save_weights(path)
    before, data = model.parameters.copy(), bytearray(path.read_bytes())
    for damaged in (data[:-1], data[:40], bytes(data[:-3]) + bytes([data[-3] ^ 1]) + bytes(data[-2:]), b"no model"):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"w\.safetensors: .*damaged"):
            model.load_weights(path)
    np.testing.assert_array_equal(model.parameters, before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, p: m.save(p, overwrite=False), FileExistsError, "expected no file because of overwrite=False"),
        (lambda m, p: m.save_weights(p, overwrite=False), FileExistsError, "pass overwrite=True"),
        (lambda m, p: m.save(p, zipped=True), ValueError, "zipped: expected None"),
        (lambda m, p: m.save_weights(p, max_shard_size=1), ValueError, "max_shard_size: expected None"),
        (lambda m, p: m.load_weights(p, skip_mismatch=True), ValueError, "skip_mismatch: expected False"),
        (lambda m, p: m.save_weights(f"{p}.onnx"), ValueError, r"ends in \.safetensors, \.weights\.h5 or \.h5, got"),
        (lambda m, p: m.save(f"{p}.xyz"), ValueError, r"\.safetensors, \.keras, \.h5, .*\.onnx"),
    ],
)
def test_wrong_arguments_for_files_change_nothing(call, error, message, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message):
        call(classifier(), path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_copy_is_of_its_own():
    model = classifier()
    twin = copy.deepcopy(model)
    twin.weights[0].assign(np.zeros(twin.weights[0].shape))
    assert model.weights[0].numpy().any()
