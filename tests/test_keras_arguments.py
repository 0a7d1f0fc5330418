"""Arguments as Keras' programs pass them: by position, by alternative names, and those that have no effect here."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from fastgru import callbacks, layers, optimizers, schedules
from models import classifier, samples

X, Y = samples(count=24)


def test_positional_and_keyword_arguments_are_equal(capsys):
    named, placed = classifier(), classifier()
    expected = named.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    assert placed.fit(X, Y, 8, 2, 0).history == expected.history
    assert placed.evaluate(X, Y, 8, 0) == named.evaluate(X, Y, batch_size=8)
    np.testing.assert_array_equal(placed.predict(X, 8, 0), named.predict(X))
    np.testing.assert_array_equal(placed.predict(X, None), named.predict(X))
    assert capsys.readouterr().out == ""
    assert classifier().fit(X, Y, None, verbose="auto").params["batch_size"] == 32
    assert "loss" in capsys.readouterr().out


def test_callbacks_with_verbose_print_their_actions(capsys, tmp_path):
    path = tmp_path / "a.safetensors"
    never = {"monitor": "loss", "min_delta": 10, "verbose": 1}
    model = classifier()
    chosen = [
        callbacks.EarlyStopping(**never, patience=2),
        callbacks.ReduceLROnPlateau(**never, patience=1, factor=0.5),
        callbacks.ModelCheckpoint(path, verbose=1),
    ]
    model.fit(X, Y, epochs=5, verbose=0, callbacks=chosen)
    said = capsys.readouterr().out.splitlines()
    assert f"Epoch 1: saving the training to {path}" in said
    assert "Epoch 2: reducing the learning rate to 0.005" in said
    assert "Epoch 3: early stopping, the best epoch was 1" in said
    classifier().fit(X, Y, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch: 0.25, verbose=1)])
    assert capsys.readouterr().out == "Epoch 1: setting the learning rate to 0.25\n"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within Keras
@pytest.mark.parametrize("schedule", [lambda epoch, rate: rate * 0.5, lambda epoch: 0.1 / (epoch + 1)])
def test_learning_rate_scheduler_sets_what_keras_sets(schedule, keras):
    history = classifier().fit(X, Y, epochs=3, verbose=0, callbacks=[callbacks.LearningRateScheduler(schedule)])
    theirs = keras.Sequential([keras.layers.Dense(1)])
    theirs.compile(keras.optimizers.Adam(0.01), "mse")
    theirs_history = theirs.fit(
        np.zeros((4, 2)), np.zeros(4), epochs=3, verbose=0, callbacks=[keras.callbacks.LearningRateScheduler(schedule)]
    )
    np.testing.assert_allclose(history.history["learning_rate"], theirs_history.history["learning_rate"], rtol=1e-6)


@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_learning_rate_scheduler_resumes_after_a_kill(save_freq, tmp_path):
    def trained(path, epochs, resume_from=None):
        model = classifier()
        chosen = [
            callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7),
            callbacks.ModelCheckpoint(path, save_freq=save_freq),
        ]
        history = model.fit(X, Y, 8, epochs, 0, callbacks=chosen, resume_from=resume_from)
        return model.parameters, history.history

    path = tmp_path / "b.safetensors"
    expected, history = trained(tmp_path / "a.safetensors", 6)
    trained(path, 3)
    found, more = trained(path, 6, path)
    np.testing.assert_array_equal(found, expected)
    assert more == history


def test_what_is_none_means_what_it_means_in_keras(keras):
    assert layers.GRU(3, activation=None).activation == keras.layers.GRU(3, activation=None).activation.__name__
    classifier().fit(X, Y, verbose=0, callbacks=[callbacks.LambdaCallback(on_epoch_end=None, on_train_begin=None)])


def test_a_layer_takes_lengths_as_a_mask():
    mask = np.arange(5) < np.random.default_rng(0).integers(1, 6, 24)[:, None]
    layer = layers.GRU(3)
    np.testing.assert_array_equal(layer(X, mask=mask), layer(X, lengths=mask.sum(axis=1)))
    with pytest.raises(ValueError, match="mask: expected None because lengths are given, got both"):
        layer(X, mask=mask, lengths=mask)


@pytest.mark.parametrize("make", [lambda: layers.GRU(3), lambda: layers.Bidirectional(layers.GRU(3))])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_used_layer_can_be_copied(copied, make):
    layer = make()
    expected = layer(X, training=True)
    other = copied(layer)
    np.testing.assert_array_equal(other(X, training=True), expected)
    for one in (layer, other):
        one.backward(np.ones_like(expected), input_gradient=False)
    for name, gradient in layer.gradients.items():
        np.testing.assert_array_equal(other.gradients[name], gradient)
    other.parameters["kernel" if "kernel" in other.parameters else "forward/kernel"][...] = 0
    np.testing.assert_array_equal(layer(X), expected)
    assert not np.array_equal(other(X), expected)


REFUSED = [
    (lambda: callbacks.EarlyStopping(verbose=3), ValueError, r"verbose: expected 0 or 1, got 3"),
    (lambda: callbacks.ModelCheckpoint(3), TypeError, r"filepath: expected a str or an os.PathLike, got int"),
    (lambda: callbacks.CSVLogger(3), TypeError, r"filename: expected a str or an os.PathLike, got int"),
    (lambda: callbacks.CSVLogger(""), ValueError, r"filename: expected the name of a file, got an empty one"),
    (lambda: callbacks.CSVLogger("a", separator=",,"), ValueError, r"separator: expected a single character, got ',,'"),
    (lambda: callbacks.LearningRateScheduler(0.1), TypeError, r"schedule: expected a function .*, got 0.1"),
    (lambda: classifier().fit(X, Y, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch: "a")]),
     TypeError, r"schedule\(0\): expected a number, got 'a'"),
    (lambda: classifier(optimizer=optimizers.Adam(schedules.CosineDecay(0.1, 9))).fit(
        X, Y, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch: 0.1)]),
     TypeError, r"learning_rate: expected a number because LearningRateScheduler changes it, got the schedule Cosine"),
    (lambda: classifier().fit(X, Y, callbacks=5), TypeError, r"callbacks: expected objects of .*, got 5"),
    (lambda: classifier().fit(X, Y, callbacks=callbacks.TerminateOnNaN), TypeError, r"callbacks: expected objects of"),
    (lambda: classifier().fit(X, Y, resume_from=5), TypeError, r"resume_from: expected a path, got 5"),
    (lambda: classifier().fit(X, Y, verbose="loud"), ValueError, r"verbose: expected 0, 1, 2 or 'auto', got 'loud'"),
    (lambda: classifier().evaluate(X, Y, 0), ValueError, r"batch_size: expected an integer of at least 1, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_unsupported_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
