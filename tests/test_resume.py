"""A killed training run resumes bit-identically: its final files are the same as without the kill."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys

import fastgru
import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, callbacks, layers, load_model, optimizers, schedules
from fastgru.formats import native
from models import classifier, samples

TRAIN = """
import os, signal, sys
import numpy as np
import fastgru
from fastgru import Sequential, callbacks, layers, optimizers, schedules

folder, epochs, die_at, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:] or [None]
rng = np.random.default_rng(1)
x = rng.normal(size=(100, 12, 5)).astype(np.float32)
lengths = rng.integers(0, 13, 100)
y = rng.integers(0, 3, 100)
fastgru.set_seed(7 if resume[0] is None else 8)  # what a resumed training draws comes from the file
model = Sequential([
    layers.Bidirectional(layers.GRU(9, return_sequences=True, dropout=0.2, recurrent_dropout=0.1), input_shape=(12, 5)),
    layers.Dropout(0.3),
    layers.Bidirectional(layers.GRU(6), merge_mode="sum"),
    layers.Dense(3, activation="softmax", kernel_regularizer="l2"),
])
rate = schedules.OneCycle(0.01, 10 * 10)
model.compile(optimizers.AdamW(rate, global_clipnorm=1.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
epoch = 0

def begin(number, logs):
    global epoch
    epoch = number

def die(batch, logs):
    if die_at == f"{epoch}:{batch}":
        os.kill(os.getpid(), signal.SIGKILL)

model.fit(
    x, y, lengths=lengths, validation_split=0.1, epochs=epochs, batch_size=9, verbose=0, resume_from=resume[0],
    callbacks=[
        callbacks.LambdaCallback(on_epoch_begin=begin, on_train_batch_end=die),
        callbacks.EarlyStopping(patience=50, restore_best_weights=True),
        callbacks.CSVLogger(folder + "/log.csv", append=resume[0] is not None),
        callbacks.ModelCheckpoint(folder + "/checkpoint.safetensors", save_freq=4),
        callbacks.ModelCheckpoint(folder + "/epoch.safetensors"),
    ],
)
model.save(folder + "/model.safetensors")
"""

FILES = ("model.safetensors", "epoch.safetensors", "log.csv")


def train(folder, epochs, die_at="never", resume=None):
    folder.mkdir(exist_ok=True)
    arguments = [str(folder), str(epochs), die_at, *([str(folder / resume)] if resume else [])]
    return subprocess.run([sys.executable, "-c", TRAIN, *arguments], check=False).returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume") / "whole"
    assert train(folder, 10) == 0
    return folder


def assert_same(folder, other):
    for name in FILES:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("die_at", ["4:9", "5:0", "5:6", "9:8"])
@pytest.mark.parametrize("resume", ["epoch.safetensors", "checkpoint.safetensors"])
def test_ten_epochs_are_bit_identical_wherever_they_are_killed(uninterrupted, tmp_path, die_at, resume):
    folder = tmp_path / "killed"
    assert train(folder, 10, die_at) == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    assert train(folder, 10, resume=resume) == 0
    assert_same(folder, uninterrupted)


@pytest.mark.slow
def test_five_epochs_and_five_more(uninterrupted, tmp_path):
    folder = tmp_path / "halves"
    assert train(folder, 5) == 0
    assert train(folder, 10, resume="epoch.safetensors") == 0
    assert_same(folder, uninterrupted)


@pytest.mark.slow
def test_killed_twice(uninterrupted, tmp_path):
    folder = tmp_path / "twice"
    train(folder, 10, "3:2")
    assert train(folder, 10, "7:5", resume="checkpoint.safetensors") == -signal.SIGKILL
    assert train(folder, 10, resume="checkpoint.safetensors") == 0
    assert_same(folder, uninterrupted)


# --- In one process ------------------------------------------------------------------------------------------------


data = functools.partial(samples, count=64, steps=6)
make_model = functools.partial(classifier, metrics=["accuracy", "f1_score", "top_k_accuracy"])


def trained_for(epochs, path, resume=None, **more):
    model = make_model(**more.pop("model", {}))
    saver = callbacks.ModelCheckpoint(path)
    extra = more.pop("callbacks", [])
    history = model.fit(*data(), epochs=epochs, verbose=0, resume_from=resume, callbacks=[saver, *extra], **more)
    return model, history


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.Adam(schedules.CosineDecay(0.01, 12)),
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.RMSprop(schedules.ExponentialDecay(0.01, 3, 0.5), momentum=0.5, centered=True),
    ],
)
def test_every_optimizer_resumes(tmp_path, optimizer):
    whole, history = trained_for(6, tmp_path / "a.safetensors", model={"optimizer": optimizer()})
    trained_for(2, tmp_path / "b.safetensors", model={"optimizer": optimizer()})
    resumed, more = trained_for(
        6, tmp_path / "b.safetensors", tmp_path / "b.safetensors", model={"optimizer": optimizer()}
    )
    np.testing.assert_array_equal(whole.parameters, resumed.parameters)
    assert history.history == more.history
    assert history.epoch == more.epoch == list(range(6))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    "callback",
    [
        lambda: callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10),
        lambda: callbacks.EarlyStopping("loss", patience=3, min_delta=10, restore_best_weights=True),
    ],
)
def test_callbacks_resume(tmp_path, callback):
    whole, history = trained_for(8, tmp_path / "a.safetensors", callbacks=[callback()])
    trained_for(2, tmp_path / "b.safetensors", callbacks=[callback()])
    path = tmp_path / "b.safetensors"
    resumed, more = trained_for(8, path, path, callbacks=[callback()])
    np.testing.assert_array_equal(whole.parameters, resumed.parameters)
    assert history.history == more.history


def test_stateful_layers_resume_with_their_states(tmp_path):
    options = {"model": {"stateful": True}, "shuffle": False}
    whole, _ = trained_for(4, tmp_path / "a.safetensors", **options)
    trained_for(2, tmp_path / "b.safetensors", **options)
    resumed, _ = trained_for(4, tmp_path / "b.safetensors", tmp_path / "b.safetensors", **options)
    np.testing.assert_array_equal(whole.parameters, resumed.parameters)


def test_a_stopped_training_stays_stopped(tmp_path):
    path = tmp_path / "a.safetensors"
    stop = callbacks.EarlyStopping("loss", patience=1, min_delta=10)
    _, history = trained_for(9, path, callbacks=[stop])
    assert len(history.epoch) == 2
    _, more = trained_for(9, path, path, callbacks=[callbacks.EarlyStopping("loss", patience=1, min_delta=10)])
    assert more.epoch == history.epoch


def test_a_checkpoint_is_a_model(tmp_path):
    model, _ = trained_for(2, tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors")
    x, _ = data()
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


# --- What cannot be resumed -------------------------------------------------------------------------------------


def assert_refused(tmp_path, message, *, error=ValueError, model=None, path=None, **fit):
    """Check that `fit` raises and the model is unchanged."""
    model = model or make_model()
    before = model.parameters.copy()
    step = model.optimizer.step
    x, y = fit.pop("data", data())
    with pytest.raises(error, match=message):
        model.fit(
            x, y, epochs=5, verbose=0, resume_from=path or tmp_path / "a.safetensors",
            callbacks=fit.pop("callbacks", [callbacks.ModelCheckpoint(tmp_path / "b.safetensors")]), **fit,
        )  # fmt: skip
    np.testing.assert_array_equal(model.parameters, before)
    assert model.optimizer.step == step
    assert not (tmp_path / "b.safetensors").exists()


def test_another_training_run_raises_and_is_named(tmp_path):
    trained_for(2, tmp_path / "a.safetensors")
    assert_refused(tmp_path, "resume_from: expected batch_size=32 .* got 16", batch_size=16)
    assert_refused(tmp_path, "resume_from: expected samples=64 .* got 65", data=data(count=65))
    assert_refused(tmp_path, "resume_from: expected shuffle=True .* got False", shuffle=False)
    assert_refused(tmp_path, "resume_from: expected class_weight=None .* got .*2.0", class_weight={1: 2.0})
    assert_refused(tmp_path, r"callbacks: expected \['ModelCheckpoint'\]", callbacks=[])
    assert_refused(tmp_path, r"same layers\[0\]/config/units, 4, got 5", model=make_model(units=5))
    assert_refused(
        tmp_path,
        "same compile/optimizer/class_name, 'Adam', got 'SGD'",
        model=make_model(optimizer=optimizers.SGD(0.1)),
    )


def test_another_schedule_raises_and_another_number_is_replaced(tmp_path):
    """A number in the file is used, because ReduceLROnPlateau may have changed it; a schedule must be the same."""
    path = tmp_path / "a.safetensors"
    decaying = schedules.CosineDecay(0.01, 12)
    trained_for(1, path, model={"optimizer": optimizers.Adam(decaying)})
    for other in (schedules.CosineDecay(0.01, 13), schedules.Constant(0.01), 0.01):
        assert_refused(
            tmp_path, "same compile/optimizer/config/learning_rate", model=make_model(optimizer=optimizers.Adam(other))
        )
    trained_for(1, path)
    assert_refused(
        tmp_path,
        "same compile/optimizer/config/learning_rate, 'a number'",
        model=make_model(optimizer=optimizers.Adam(decaying)),
    )
    resumed, _ = trained_for(2, path, path, model={"optimizer": optimizers.Adam(0.5)})
    assert resumed.optimizer.learning_rate == 0.01


def test_another_number_of_steps_of_a_stream_raises(tmp_path):
    def train(steps, resume=None):
        told = [callbacks.ModelCheckpoint(tmp_path / "a.safetensors")]
        make_model().fit(batches(), steps_per_epoch=steps, epochs=2, verbose=0, callbacks=told, resume_from=resume)

    train(3)
    with pytest.raises(ValueError, match=r"resume_from: expected steps_per_epoch=3 .* got 4"):
        train(4, tmp_path / "a.safetensors")


def test_the_first_difference_of_two_models_is_short(tmp_path):
    trained_for(1, tmp_path / "a.safetensors")
    deeper = Sequential([layers.GRU(4, return_sequences=True, input_shape=(6, 3)), layers.GRU(4), layers.Dense(2)])
    deeper.compile("adam", loss="mse")
    assert_refused(
        tmp_path, "with the same number of layers, 2, got 3$", model=deeper, data=(data()[0], np.zeros((64, 2)))
    )


def test_a_history_keeps_its_order(tmp_path):
    path = tmp_path / "a.safetensors"
    _, whole = trained_for(2, path, validation_data=data(1))
    _, resumed = trained_for(3, path, path, validation_data=data(1))
    assert list(resumed.history) == list(whole.history) == [
        "loss", "accuracy", "f1_score", "top_k_accuracy",
        "val_loss", "val_accuracy", "val_f1_score", "val_top_k_accuracy",
    ]  # fmt: skip


def test_a_training_stopped_within_an_epoch_still_ends_it(tmp_path):
    path = tmp_path / "a.safetensors"

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.step == 6:  # the second of the second epoch's four
                self.model.stop_training = True

    def train(resume=None):
        told = [Stop(), callbacks.ModelCheckpoint(path, save_freq=6)]
        model = make_model()
        history = model.fit(*data(), epochs=5, batch_size=16, verbose=0, callbacks=told, resume_from=resume)
        return model, history

    whole, history = train()
    resumed, more = train(path)
    np.testing.assert_array_equal(whole.parameters, resumed.parameters)
    assert history.history == more.history


def test_files_without_a_training_run_raise(tmp_path):
    make_model().save(tmp_path / "model.safetensors")
    assert_refused(
        tmp_path, "resume_from: expected a file of callbacks.ModelCheckpoint", path=tmp_path / "model.safetensors"
    )
    trained_for(1, tmp_path / "a.safetensors")
    broken = bytearray((tmp_path / "a.safetensors").read_bytes())
    broken[-5] ^= 1
    (tmp_path / "a.safetensors").write_bytes(broken)
    assert_refused(tmp_path, "damaged", error=ModelFileError)
    assert_refused(tmp_path, "nothing", error=FileNotFoundError, path=tmp_path / "nothing")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "x"}, {"epoch": -1}, {"batch": None}, {"batch": 1.5}, {"stopped": 0}, {"tally": None}, {"tally": {}},
        {"history": 3}, {"epochs_done": None}, {"callbacks": None}, {"callbacks": [{}]}, {"asked": []},
        {"generator_before_epoch": {"bit_generator": "MT19937"}},
        {"generator_before_epoch": {"bit_generator": "PCG64"}},
        {"callbacks": {"array in tensors": "7"}}, {"callbacks": {"array in tensors": []}},
    ],
)  # fmt: skip
def test_damaged_states_raise(tmp_path, change):
    path = tmp_path / "a.safetensors"
    trained_for(1, path)
    config, tensors = native.load(path)
    config["training"] |= change
    native.save(path, config, tensors)
    assert_refused(tmp_path, "a.safetensors: its state of a training run is invalid", error=ModelFileError)


def test_save_training_needs_a_training(tmp_path):
    with pytest.raises(RuntimeError, match="save_training: expected a running fit"):
        make_model().save_training(tmp_path / "a.safetensors")


# --- Callbacks that write files ---------------------------------------------------------------------------------------


def checkpoints_of_last_and_best(folder, **last):
    return [
        callbacks.ModelCheckpoint(folder / "last.safetensors", **last),
        callbacks.ModelCheckpoint(folder / "best.safetensors", "score", save_best_only=True),
    ]


class Score(callbacks.Callback):
    """Sets the monitored values of the epochs; the second one is the best."""

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = abs(epoch - 1) + 1.0


def test_a_checkpoint_contains_the_state_of_later_callbacks(tmp_path):
    """The first callback writes its file before the second one runs, and must store the second one's new state."""

    def train(folder, epochs, resume=None):
        folder.mkdir(exist_ok=True)
        told = [*checkpoints_of_last_and_best(folder), Score()]
        make_model().fit(*data(), epochs=epochs, verbose=0, callbacks=told, resume_from=resume)

    train(tmp_path / "whole", 4)
    train(tmp_path / "parts", 2)
    train(tmp_path / "parts", 4, tmp_path / "parts" / "last.safetensors")
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    assert fastgru.load_model(tmp_path / "parts" / "best.safetensors").optimizer.step == 4  # two epochs


def test_checkpoints_within_epochs_know_how_many_batches_each_has_seen(tmp_path):
    def train(folder, epochs, resume=None):
        folder.mkdir(exist_ok=True)
        told = [callbacks.ModelCheckpoint(folder / f"every-{n}.safetensors", save_freq=n) for n in (2, 3)]
        make_model().fit(*data(), epochs=epochs, batch_size=16, verbose=0, callbacks=told, resume_from=resume)

    train(tmp_path / "whole", 6)
    train(tmp_path / "parts", 3)
    train(tmp_path / "parts", 6, tmp_path / "parts" / "every-2.safetensors")
    for n in (2, 3):
        name = f"every-{n}.safetensors"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_a_training_resumed_within_an_epoch_continues_its_epoch_number(tmp_path):
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.stop and self.model.optimizer.step == 10:  # of 4 an epoch
                raise KeyboardInterrupt

    def train(stop, resume=None):
        callback = Stop()
        callback.stop = stop
        saver = callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_freq=1)
        make_model().fit(
            *data(), epochs=3, batch_size=16, verbose=0, callbacks=[callback, saver], resume_from=resume
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        train(True)
    first = (tmp_path / "1.safetensors").read_bytes()
    train(False, tmp_path / "3.safetensors")
    assert (tmp_path / "1.safetensors").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors", "3.safetensors"]


def test_a_log_of_another_training_run_is_replaced(tmp_path):
    """`append=False` replaces the log; a resumed run keeps the lines of its own run only."""
    log, path = tmp_path / "log.csv", tmp_path / "a.safetensors"
    log.write_text("an,old,log\n" * 50)

    def train(epochs, resume=None):
        told = [callbacks.CSVLogger(log), callbacks.ModelCheckpoint(path, save_freq=2)]  # before the epoch's line
        return make_model().fit(*data(), epochs=epochs, verbose=0, callbacks=told, resume_from=resume)

    train(1)
    assert len(log.read_text().splitlines()) == 2
    history = train(3, path)
    lines = log.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2"]
    assert [float(line.split(",")[1]) for line in lines[1:]] == history.history["loss"]


def test_a_log_with_missing_lines_raises(tmp_path):
    log, path = tmp_path / "log.csv", tmp_path / "a.safetensors"
    trained_for(2, path, callbacks=[callbacks.CSVLogger(log)])
    log.write_text("epoch")
    with pytest.raises(ValueError, match=r"filename: expected .*log.csv with at least \d+ bytes .* got 5"):
        trained_for(4, path, path, callbacks=[callbacks.CSVLogger(log)])


# --- Streams ----------------------------------------------------------------------------------------------------------


def batches(dtype=np.float32):
    rng = np.random.default_rng(5)
    while True:
        yield rng.normal(size=(8, 6, 3)).astype(dtype), rng.integers(0, 2, 8)


def unbuilt():
    fastgru.set_seed(3)
    model = Sequential([layers.GRU(4), layers.Dense(2, activation="softmax")])
    model.compile(optimizers.Adam(0.01), "categorical_crossentropy")
    return model


@pytest.mark.parametrize("save_freq", ["epoch", 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [make_model, unbuilt])
def test_a_stream_resumes_at_its_position(tmp_path, save_freq, dtype, make):
    """The first batch builds the model; a resumed run has no batch when it reads the file."""

    def train(name, epochs, resume=None):
        model = make()
        history = model.fit(
            batches(dtype), steps_per_epoch=5, epochs=epochs, verbose=0, resume_from=resume,
            callbacks=[callbacks.ModelCheckpoint(tmp_path / name, save_freq=save_freq)],
        )  # fmt: skip
        return model, history

    whole, history = train("a.safetensors", 4)
    train("b.safetensors", 2)
    resumed, more = train("b.safetensors", 4, tmp_path / "b.safetensors")
    np.testing.assert_array_equal(whole.parameters, resumed.parameters)
    assert history.history == more.history
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_failed_resume_does_not_build_the_model(tmp_path):
    make_model().fit(*data(), verbose=0, callbacks=[callbacks.ModelCheckpoint(tmp_path / "a.safetensors")])
    model = unbuilt()
    with pytest.raises(ValueError, match="resume_from: expected a model with the same"):
        model.fit(batches(), steps_per_epoch=5, verbose=0, resume_from=tmp_path / "a.safetensors",
                  callbacks=[callbacks.ModelCheckpoint(tmp_path / "b.safetensors")])  # fmt: skip
    assert not model.built
