"""A training that was killed goes on bit for bit: the same files at the end as without the kill."""

from __future__ import annotations

import signal
import subprocess
import sys

import fastgru
import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, callbacks, layers, load_model, optimizers, schedules

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


@pytest.mark.parametrize("die_at", ["4:9", "5:0", "5:6", "9:8"])
@pytest.mark.parametrize("resume", ["epoch.safetensors", "checkpoint.safetensors"])
def test_ten_epochs_are_ten_epochs_wherever_they_are_killed(uninterrupted, tmp_path, die_at, resume):
    folder = tmp_path / "killed"
    assert train(folder, 10, die_at) == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    assert train(folder, 10, resume=resume) == 0
    assert_same(folder, uninterrupted)


def test_five_epochs_and_five_more(uninterrupted, tmp_path):
    folder = tmp_path / "halves"
    assert train(folder, 5) == 0
    assert train(folder, 10, resume="epoch.safetensors") == 0
    assert_same(folder, uninterrupted)


def test_killed_twice(uninterrupted, tmp_path):
    folder = tmp_path / "twice"
    train(folder, 10, "3:2")
    assert train(folder, 10, "7:5", resume="checkpoint.safetensors") == -signal.SIGKILL
    assert train(folder, 10, resume="checkpoint.safetensors") == 0
    assert_same(folder, uninterrupted)


# --- In one process ------------------------------------------------------------------------------------------------


def data(seed=0, count=64):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6, 3)).astype(np.float32), rng.integers(0, 2, count)


def make_model(optimizer=None, units=4, **options):
    fastgru.set_seed(3)
    model = Sequential([layers.GRU(units, input_shape=(6, 3), **options), layers.Dense(2, activation="softmax")])
    model.compile(optimizer or optimizers.Adam(0.01), metrics=["accuracy", "f1_score", "top_k_accuracy"])
    return model


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
def test_every_optimizer_goes_on(tmp_path, optimizer):
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
def test_callbacks_go_on(tmp_path, callback):
    whole, history = trained_for(8, tmp_path / "a.safetensors", callbacks=[callback()])
    trained_for(2, tmp_path / "b.safetensors", callbacks=[callback()])
    path = tmp_path / "b.safetensors"
    resumed, more = trained_for(8, path, path, callbacks=[callback()])
    np.testing.assert_array_equal(whole.parameters, resumed.parameters)
    assert history.history == more.history


def test_stateful_layers_go_on_with_their_states(tmp_path):
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
    """`fit` refuses, and the model is as it was."""
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


def test_another_training_is_refused_by_name(tmp_path):
    trained_for(2, tmp_path / "a.safetensors")
    assert_refused(tmp_path, "resume_from: expected batch_size=32 .* got 16", batch_size=16)
    assert_refused(tmp_path, "resume_from: expected samples=64 .* got 65", data=data(count=65))
    assert_refused(tmp_path, r"callbacks: expected \['ModelCheckpoint'\]", callbacks=[])
    assert_refused(tmp_path, r"same layers\[0\]/config/units, 4, got 5", model=make_model(units=5))
    assert_refused(
        tmp_path, "same compile/optimizer/class_name, 'Adam', got 'SGD'", model=make_model(optimizers.SGD(0.1))
    )


def test_files_that_hold_no_training_are_refused(tmp_path):
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


def test_save_training_needs_a_training(tmp_path):
    with pytest.raises(RuntimeError, match="save_training is for callbacks of fit"):
        make_model().save_training(tmp_path / "a.safetensors")
