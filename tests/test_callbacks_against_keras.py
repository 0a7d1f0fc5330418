"""Callbacks beside Keras': the same parameters, the same calls, the same events for TensorBoard, the same files."""

from __future__ import annotations

import glob
import os

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers
from models import samples
from test_fit_callbacks import OCCASIONS, Recorder, _record

pytestmark = pytest.mark.isa_independent


def test_callbacks_have_kerass_methods(keras):
    theirs = {name for name in dir(keras.callbacks.Callback) if name.startswith(("on_", "set_"))}
    assert theirs == {*OCCASIONS, "set_model", "set_params"}


def both(keras, **options):
    """One model of each, with the same layers."""
    own = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(2, activation="softmax")])
    own.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    theirs = keras.Sequential(
        [keras.layers.Input((5, 3)), keras.layers.GRU(4), keras.layers.Dense(2, activation="softmax")]
    )
    theirs.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return own, theirs


def recorder(base):
    return type("TheirRecorder", (base,), {name: _record(name) for name in OCCASIONS} | {"calls": []})()


def test_all_methods_are_called_as_in_keras(keras):
    x, y = samples(count=20)
    own, theirs = both(keras)
    calls = []
    for model, callback in ((own, recorder(callbacks.Callback)), (theirs, recorder(keras.callbacks.Callback))):
        data = {"validation_data": (x[:9], y[:9]), "validation_batch_size": 5, "validation_freq": 2}
        model.fit(x, y, 8, 5, 0, [callback], initial_epoch=2, **data)
        model.evaluate(x, y, 8, 0, callbacks=[callback])
        model.predict(x, 8, 0, callbacks=[callback])
        model.predict(x, 8, 0, 2, [callback])
        calls.append(callback.calls)
    assert len(calls[0]) > 40
    assert calls[0] == calls[1]


def test_a_batch_callback_stops_where_keras_stops(keras):
    x, y = samples(count=40)

    def run(model, base):
        class Stop(base):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 1:
                    self.model.stop_training = True

        watch = recorder(base)
        history = model.fit(x, y, 8, 3, 0, [Stop(), watch], validation_data=(x, y))
        return watch.calls, history.epoch

    own, theirs = both(keras)
    assert run(own, callbacks.Callback) == run(theirs, keras.callbacks.Callback)


@pytest.mark.parametrize("freq", [1, 2, [2, 3], [1]])
def test_validation_freq_is_kerass(keras, freq):
    x, y = samples(count=20)
    own, theirs = both(keras)
    options = {"epochs": 4, "verbose": 0, "validation_data": (x, y), "validation_freq": freq}
    one, other = (model.fit(x, y, **options).history for model in (own, theirs))
    assert len(one["val_loss"]) == len(other["val_loss"])


def test_keras_reads_what_checkpoints_write(keras, tmp_path):
    x, y = samples(count=20)
    own, theirs = both(keras)
    told = [
        callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}-{loss:.2f}.keras"),
        callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", "loss", save_best_only=True, save_weights_only=True),
    ]
    history = own.fit(x, y, epochs=2, verbose=0, callbacks=told)
    name = f"02-{history.history['loss'][1]:.2f}.keras"
    read = keras.models.load_model(tmp_path / name)
    np.testing.assert_allclose(read.predict(x, verbose=0), own.predict(x), atol=1e-6)
    theirs = keras.Sequential([keras.layers.Input((5, 3)), *theirs.layers])  # not compiled: the file has no optimizer
    theirs.load_weights(tmp_path / "best.weights.h5")
    assert min(history.history["loss"]) == history.history["loss"][1]
    np.testing.assert_allclose(theirs.predict(x, verbose=0), own.predict(x), atol=1e-6)


def events(folder):
    """Tag -> pairs of step and value, by TensorFlow's reader; what is no scalar is left out."""
    import tensorflow as tf

    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "events*"))):
        for record in tf.compat.v1.train.summary_iterator(path):
            for value in record.summary.value:
                number = value.simple_value
                if value.HasField("tensor"):
                    array = tf.make_ndarray(value.tensor)
                    number = float(array) if array.dtype.kind == "f" and array.ndim == 0 else None
                found.setdefault(value.tag, []).append((record.step, number))
    return {tag: sorted(numbers) for tag, numbers in found.items() if None not in dict(numbers).values()}


@pytest.mark.peers("tensorboardX", "tensorboard")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of tensorboard
@pytest.mark.parametrize("update_freq", ["epoch", "batch", 3])
def test_tensorboard_gets_the_events_of_keras(keras, tmp_path, update_freq):
    # With other numbers of batches, Keras leaves out epochs whose last batch is no multiple of update_freq.
    x, y = samples(count=42)
    own, theirs = both(keras)
    theirs.set_weights(own.get_weights())
    for name, model, module in (("own", own, callbacks), ("theirs", theirs, keras.callbacks)):
        board = module.TensorBoard(tmp_path / name, update_freq=update_freq)
        options = {"shuffle": False, "validation_data": (x[:21], y[:21]), "callbacks": [board]}
        model.fit(x, y, 7, 3, 0, **options)
        model.fit(x, y, 7, 4, 0, initial_epoch=3, **options)
    for part in ("train", "validation"):
        found, expected = events(tmp_path / "own" / part), events(tmp_path / "theirs" / part)
        assert found.keys() == expected.keys()
        for tag, pairs in expected.items():
            assert [step for step, _ in found[tag]] == [step for step, _ in pairs]
            np.testing.assert_allclose(found[tag], pairs, rtol=1e-3, err_msg=tag)
    assert "epoch_learning_rate" in events(tmp_path / "own" / "train")


@pytest.mark.peers("tensorboardX", "tensorflow")
def test_tensorboard_gets_rates_and_histograms(tmp_path):
    model = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    board = callbacks.TensorBoard(tmp_path, histogram_freq=1, write_steps_per_second=True, update_freq="batch")
    model.fit(*samples(), 24, epochs=2, verbose=0, callbacks=[board])
    found = events(tmp_path / "train")
    assert {"epoch_steps_per_second", "batch_steps_per_second", "gru/kernel/histogram"} <= found.keys()
    assert [step for step, _ in found["dense/bias/histogram"]] == [0, 1]
    model.evaluate(*samples(), callbacks=[board])
    assert [step for step, _ in events(tmp_path / "validation")["evaluation_loss_vs_iterations"]] == [4]


def test_a_program_of_keras_with_a_recorder_of_its_own_runs():
    fastgru.set_seed(0)
    model = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    watch = Recorder()
    model.fit(*samples(), None, 1, 0, [watch], 0.25)
    assert [call[0] for call in watch.calls][:2] == ["on_train_begin", "on_epoch_begin"]
    assert watch.params["samples"] == 36
