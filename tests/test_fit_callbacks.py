"""Callbacks in fit, evaluate and predict: which are called when, epochs by number, and what they write."""

from __future__ import annotations

import os
import sys

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model
from models import classifier, samples

pytestmark = pytest.mark.isa_independent


class Recorder(callbacks.Callback):
    """Every call with its number and the names of its logs."""

    def __init__(self):
        self.calls = []


def _record(name):
    def method(self, *number, logs=None):
        *number, logs = number if logs is None else (*number, logs)
        self.calls.append((name, *number, sorted(logs or {})))

    return method


OCCASIONS = [name for name in dir(callbacks.Callback) if name.startswith("on_")]
for _name in OCCASIONS:
    if _name not in ("on_batch_begin", "on_batch_end"):
        setattr(Recorder, _name, _record(_name))


# --- Epochs by number ---------------------------------------------------------------------------------------------


def test_initial_epoch_counts_on_and_trains_the_rest():
    x, y = samples()
    seen = []
    watch = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(epoch))
    history = classifier().fit(x, y, epochs=5, initial_epoch=3, verbose=0, callbacks=[watch])
    assert seen == history.epoch == [3, 4]
    assert len(history.history["loss"]) == 2
    assert classifier().fit(x, y, epochs=2, initial_epoch=2, verbose=0).epoch == []


def test_two_calls_with_initial_epoch_are_one_call():
    x, y = samples()
    whole, parts = classifier(), classifier()
    whole.fit(x, y, epochs=4, verbose=0)
    parts.fit(x, y, epochs=2, verbose=0)
    parts.fit(x, y, epochs=4, initial_epoch=2, verbose=0)
    np.testing.assert_array_equal(whole.parameters, parts.parameters)


def test_a_training_with_initial_epoch_is_resumed(tmp_path):
    path = tmp_path / "a.safetensors"
    x, y = samples()

    def fit(epochs, **options):
        model = classifier()
        save = callbacks.ModelCheckpoint(path)
        return model, model.fit(x, y, epochs=epochs, verbose=0, callbacks=[save], **options)

    whole, history = fit(8, initial_epoch=3)
    fit(5, initial_epoch=3)
    kept = path.read_bytes()
    for number in (0, 3, 5):  # left out, as in the first call, as the file says
        path.write_bytes(kept)
        resumed, more = fit(8, initial_epoch=number, resume_from=path)
        np.testing.assert_array_equal(whole.parameters, resumed.parameters)
        assert more.epoch == history.epoch == [3, 4, 5, 6, 7]
    with pytest.raises(
        ValueError, match=r"initial_epoch: expected 0 because resume_from continues with epoch 8, got 4"
    ):
        fit(9, initial_epoch=4, resume_from=path)


@pytest.mark.parametrize(("freq", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), ([1, 4], [1, 4]), (7, [])])
def test_validation_freq_chooses_epochs(freq, expected):
    x, y = samples()
    seen = []
    watch = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(epoch + 1) if "val_loss" in logs else None
    )
    history = classifier().fit(
        x, y, epochs=5, verbose=0, validation_data=(x[:9], y[:9]), validation_freq=freq, callbacks=[watch]
    )
    assert seen == expected
    assert len(history.history.get("val_loss", [])) == len(expected)


def test_monitors_of_the_validation_pass_over_epochs_without_it(tmp_path):
    x, y = samples()
    options = {"epochs": 6, "verbose": 0, "validation_data": (x[:9], y[:9]), "validation_freq": 2}
    told = [
        callbacks.EarlyStopping("val_loss", patience=9),
        callbacks.ReduceLROnPlateau("val_loss"),
        callbacks.ModelCheckpoint(tmp_path / "{epoch}-{val_loss:.3f}.safetensors", save_best_only=True),
        callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = classifier().fit(x, y, callbacks=told, **options)
    assert len(history.history["val_loss"]) == 3
    assert all(name.startswith(("2-", "4-", "6-", "log")) for name in os.listdir(tmp_path))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert "val_loss" in lines[0]
    assert len({line.count(",") for line in lines}) == 1
    with pytest.raises(ValueError, match=r"filepath: expected fields of epoch, loss, accuracy"):
        classifier().fit(x, y, callbacks=[callbacks.ModelCheckpoint(tmp_path / "{val_loss}.safetensors")], **options)
    with pytest.raises(ValueError, match="monitor: expected one of"):
        classifier().fit(x, y, callbacks=[callbacks.EarlyStopping("val_other")], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"initial_epoch": -1}, ValueError, "initial_epoch: expected an integer of at least 0, got -1"),
        ({"initial_epoch": 1.5}, TypeError, r"initial_epoch: expected an integer, got 1\.5"),
        ({"validation_freq": 0}, ValueError, "validation_freq: expected an integer of at least 1, got 0"),
        ({"validation_freq": [0]}, ValueError, "validation_freq: expected an integer of at least 1, got 0"),
        ({"validation_freq": "all"}, TypeError, "validation_freq: expected an integer, got 'all'"),
    ],
)
def test_bad_numbers_of_epochs_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        classifier().fit(*samples(), verbose=0, **options)


# --- Occasions ----------------------------------------------------------------------------------------------------


def test_evaluate_and_predict_limit_the_number_of_batches():
    x, y = samples(count=40)
    model = classifier()
    assert model.evaluate(x, y, 8, steps=2) == model.evaluate(x[:16], y[:16], 8)
    assert model.evaluate(x, y, steps=1) == model.evaluate(x[:32], y[:32])  # Keras' batch size
    np.testing.assert_array_equal(model.predict(x, 8, steps=3), model.predict(x)[:24])
    np.testing.assert_array_equal(model.predict(x, 8, steps=99), model.predict(x))
    with pytest.raises(ValueError, match="steps: expected an integer of at least 1, got 0"):
        model.predict(x, steps=0)


def test_outputs_of_a_batch_are_in_the_logs():
    x, _ = samples(count=20)
    model, parts = classifier(), []
    watch = callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: parts.append(logs["outputs"].copy()))
    np.testing.assert_array_equal(model.predict(x, 8, callbacks=[watch]), np.concatenate(parts))
    assert [len(part) for part in parts] == [8, 8, 4]


def test_functions_of_batches_are_called_by_either_name():
    seen = []

    class Old(callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append((batch, sorted(logs)))

    classifier().fit(*samples(), batch_size=24, verbose=0, callbacks=[Old()])
    assert seen == [(0, ["accuracy", "loss"]), (1, ["accuracy", "loss"])]
    seen.clear()
    callback = callbacks.Callback()
    callback.on_train_batch_end = lambda batch, logs: seen.append(batch)  # of this object alone
    classifier().fit(*samples(), batch_size=24, verbose=0, callbacks=[callback])
    assert seen == [0, 1]


def test_evaluate_prints_when_asked(capsys):
    model = classifier()
    model.evaluate(*samples())
    model.evaluate(*samples(), verbose=0)
    assert capsys.readouterr().out == ""
    model.evaluate(*samples(), verbose=1)
    out = capsys.readouterr().out
    assert out.startswith("Evaluation: loss ")
    assert "accuracy" in out
    with pytest.raises(ValueError, match="verbose: expected 0, 1, 2 or 'auto', got 3"):
        model.evaluate(*samples(), verbose=3)


# --- History ------------------------------------------------------------------------------------------------------


def test_a_history_of_the_user_is_filled_and_returned():
    model, mine = classifier(), callbacks.History()
    found = model.fit(*samples(), epochs=2, verbose=0, callbacks=[mine, callbacks.LearningRateScheduler(lambda e: 0.1)])
    assert found is mine is model.history
    assert mine.epoch == [0, 1]
    assert mine.history["learning_rate"] == [0.1, 0.1]  # although the scheduler is later in the list
    assert mine.params["epochs"] == 2
    assert mine.params["steps"] == 2
    model.fit(*samples(), verbose=0, callbacks=[mine])
    assert mine.epoch == [0]
    assert len(mine.history["loss"]) == 1


# --- ModelCheckpoint ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.pt", "a.torch.safetensors"])
def test_the_ending_decides_the_format(tmp_path, name):
    x, y = samples()
    model = classifier()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[callbacks.ModelCheckpoint(tmp_path / name)])
    assert os.listdir(tmp_path) == [name]
    kind = fastgru.formats.kind_of_name(tmp_path / name)
    assert fastgru.formats.kind_of_file(tmp_path / name) == kind != "fastgru"
    again = load_model(tmp_path / name, compile=False)
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def refused(tmp_path, name, error, message, model=None, **options):
    model = model or classifier()
    before, files = model.parameters.copy(), sorted(os.listdir(tmp_path))
    epochs = []
    watch = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    with pytest.raises(error, match=message):
        model.fit(*samples(), verbose=0, callbacks=[watch, callbacks.ModelCheckpoint(tmp_path / name, **options)])
    assert epochs == []
    np.testing.assert_array_equal(model.parameters, before)
    assert sorted(os.listdir(tmp_path)) == files


def test_what_cannot_be_written_is_refused_before_the_first_epoch(tmp_path, monkeypatch):
    refused(tmp_path, "a.ckpt", ValueError, "filepath: expected a name that ends in .*, got .*a.ckpt")
    refused(tmp_path, "a.weights.h5", ValueError, "filepath: .* pass save_weights_only=True")
    refused(
        tmp_path,
        "a.onnx",
        ValueError,
        r"filepath: expected a name .* got \S+/a\.onnx; change it",
        save_weights_only=True,
    )
    refused(tmp_path, "none/a.keras", FileNotFoundError, "filepath: expected a file in an existing folder")
    refused(tmp_path, "model.json", ValueError, r"reset_after=True is not supported by TensorFlow\.js")
    refused(tmp_path, "{epoch}/model.json", ValueError, r"reset_after=True is not supported by TensorFlow\.js")
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(tmp_path, "a.keras", ImportError, "h5py")
    refused(tmp_path, "a.weights.h5", ImportError, "h5py", save_weights_only=True)


def test_a_model_without_weights_is_checked_with_the_first_batch(tmp_path):
    x, y = samples()
    model = Sequential([layers.GRU(4), layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    trained = []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: trained.append(batch))
    with pytest.raises(ValueError, match=r"reset_after=True is not supported by TensorFlow\.js"):
        model.fit([(x, y)], verbose=0, callbacks=[watch, callbacks.ModelCheckpoint(tmp_path / "model.json")])
    assert trained == []


def test_folders_with_fields_are_created(tmp_path):
    model = classifier()
    model.fit(*samples(), epochs=2, verbose=0, callbacks=[callbacks.ModelCheckpoint(tmp_path / "{epoch}" / "m.pt")])
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    assert os.listdir(tmp_path / "2") == ["m.pt"]


def test_weights_alone_are_written(tmp_path):
    model = classifier()
    path = tmp_path / "{epoch:02d}-{loss:.2f}.weights.h5"
    history = model.fit(
        *samples(), epochs=2, verbose=0, callbacks=[callbacks.ModelCheckpoint(path, save_weights_only=True)]
    )
    names = [f"{epoch + 1:02d}-{loss:.2f}.weights.h5" for epoch, loss in enumerate(history.history["loss"])]
    assert sorted(os.listdir(tmp_path)) == names
    other = classifier(seed=9)
    other.load_weights(tmp_path / names[1])
    np.testing.assert_array_equal(other.parameters, model.parameters)


def test_a_threshold_is_the_first_value_to_improve_on(tmp_path):
    def files(threshold):
        path = tmp_path / f"{threshold}.safetensors"
        save = callbacks.ModelCheckpoint(path, "loss", save_best_only=True, initial_value_threshold=threshold)
        classifier().fit(*samples(), verbose=0, callbacks=[save])
        return path.exists()

    assert not files(1e-3)
    assert files(1e3)


def test_the_best_batch_may_be_asked_for(tmp_path):
    path = tmp_path / "{epoch}-{batch}.safetensors"
    save = callbacks.ModelCheckpoint(path, "loss", save_best_only=True, save_freq=1, verbose=0)
    losses = []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    classifier().fit(*samples(), batch_size=8, epochs=2, verbose=0, callbacks=[watch, save])
    best = [i for i, loss in enumerate(losses) if loss < min(losses[:i], default=np.inf)]
    assert sorted(os.listdir(tmp_path)) == sorted(f"{i // 6 + 1}-{i % 6 + 1}.safetensors" for i in best)


def test_a_checkpoint_without_its_optimizer_is_a_model(tmp_path):
    path = tmp_path / "a.safetensors"

    class Own(fastgru.losses.SparseCategoricalCrossentropy):
        pass

    model = classifier()
    model.compile("adam", Own())
    refused(tmp_path, "a.safetensors", ValueError, "loss: expected a class of fastgru", model)
    model.fit(*samples(), verbose=0, callbacks=[callbacks.ModelCheckpoint(path, include_optimizer=False)])
    np.testing.assert_array_equal(load_model(path).parameters, model.parameters)


# --- BackupAndRestore ---------------------------------------------------------------------------------------------


class Dies(callbacks.Callback):
    def __init__(self, epoch, batch=None):
        self.at = epoch, batch

    def on_train_batch_end(self, batch, logs=None):
        if self.at == (len(self.model._run.history.epoch), batch):
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        if self.at == (epoch, None):
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", [(0, None), (2, None), (2, 1)])
@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_a_backup_resumes_a_training_with_the_same_bits(tmp_path, where, save_freq):
    folder = tmp_path / "new" / "backup"
    x, y = samples()

    def train(*others, initial_epoch=0):
        model = classifier()
        backup = callbacks.BackupAndRestore(folder, save_freq)
        told = [backup, callbacks.ReduceLROnPlateau("loss", patience=1), *others]
        history = model.fit(x, y, 16, 4, verbose=0, callbacks=told, initial_epoch=initial_epoch)
        return model, history

    whole, history = train(Dies(99))
    assert not folder.exists()  # deleted with its folder
    with pytest.raises(KeyboardInterrupt):
        train(Dies(*where))
    again, more = train(Dies(99))
    np.testing.assert_array_equal(whole.parameters, again.parameters)
    assert more.history == history.history
    assert not folder.exists()


def test_a_backup_that_is_kept_has_nothing_left_to_do(tmp_path):
    (tmp_path / "other").write_text("stays")

    def train(model, **options):
        backup = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        return model.fit(*samples(), epochs=2, verbose=0, callbacks=[backup], **options)

    model = classifier()
    train(model)
    assert sorted(os.listdir(tmp_path)) == ["backup.safetensors", "other"]
    again = classifier()
    assert train(again).epoch == [0, 1]
    np.testing.assert_array_equal(again.parameters, model.parameters)
    with pytest.raises(ValueError, match=r"resume_from: .*; delete .*backup.safetensors to train from the"):
        train(classifier(7))
    with pytest.raises(ValueError, match="resume_from: expected None because BackupAndRestore has found"):
        train(classifier(), resume_from=tmp_path / "backup.safetensors")
    classifier().fit(*samples(), epochs=2, verbose=0, callbacks=[callbacks.BackupAndRestore(tmp_path)])
    assert os.listdir(tmp_path) == ["other"]


def test_bad_folders_of_backups_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="backup_dir: expected a folder"):
        classifier().fit(*samples(), verbose=0, callbacks=[callbacks.BackupAndRestore(tmp_path / "file")])
    with pytest.raises(ValueError, match="backup_dir: expected the name of a file"):
        callbacks.BackupAndRestore("")


# --- The rest -----------------------------------------------------------------------------------------------------


def test_nan_raises_where_the_callback_says_so():
    x, y = samples()
    x[0, 0, 0] = np.nan
    assert classifier().fit(x, y, verbose=0, callbacks=[callbacks.TerminateOnNaN()]).epoch == [0]
    with pytest.raises(FloatingPointError, match="training stopped in epoch 1"):
        classifier().fit(x, y, verbose=0, callbacks=[callbacks.TerminateOnNaN(raise_error=True)])


def test_tensorboard_needs_its_package_before_training(tmp_path):
    with pytest.raises(ImportError, match=r"pip install tensorboardX"):
        classifier().fit(*samples(), verbose=0, callbacks=[callbacks.TensorBoard(tmp_path)])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile_batch": 2}, "profile_batch: expected 0 because fastgru does not support it, got 2; profile the"),
        ({"write_images": True}, "write_images: expected False"),
        ({"embeddings_freq": 1}, "embeddings_freq: expected 0"),
        ({"update_freq": 0}, "update_freq: expected an integer of at least 1"),
    ],
)
def test_unsupported_options_of_tensorboard_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        callbacks.TensorBoard(**options)
