"""Callbacks have the same effects as those of Keras, at the same events."""

from __future__ import annotations

import csv

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model, losses, metrics, optimizers, schedules
from fastgru._training import loop
from models import classifier, samples


class Script(callbacks.Callback):
    """Writes given values into the logs, so that other callbacks monitor known values."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.values[epoch]


def epochs_with(values, *others, model=None):
    model = model or classifier()
    history = model.fit(*samples(), epochs=len(values), verbose=0, callbacks=[Script(values), *others])
    return model, history


def test_events_are_called_in_order_with_their_logs():
    seen = []

    class Recorder(callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(("train begins", self.params["epochs"]))

        def on_train_end(self, logs=None):
            seen.append(("train ends",))

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(("epoch begins", epoch))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("epoch ends", epoch, sorted(logs)))

        def on_train_batch_begin(self, batch, logs=None):
            seen.append(("batch begins", batch))

        def on_train_batch_end(self, batch, logs=None):
            seen.append(("batch ends", batch, sorted(logs)))

    classifier().fit(*samples(), epochs=2, batch_size=24, validation_data=samples(1), verbose=0, callbacks=Recorder())
    epoch = [
        ("batch begins", 0), ("batch ends", 0, ["accuracy", "loss"]),
        ("batch begins", 1), ("batch ends", 1, ["accuracy", "loss"]),
    ]  # fmt: skip
    names = ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert seen == [
        ("train begins", 2),
        ("epoch begins", 0), *epoch, ("epoch ends", 0, names),
        ("epoch begins", 1), *epoch, ("epoch ends", 1, names),
        ("train ends",),
    ]  # fmt: skip


def test_callbacks_do_not_change_the_training():
    plain, watched = classifier(), classifier()
    first = plain.fit(*samples(), epochs=3, verbose=0)
    second = watched.fit(
        *samples(), epochs=3, verbose=0, callbacks=[callbacks.LambdaCallback(on_train_batch_end=print)]
    )
    np.testing.assert_array_equal(plain.parameters, watched.parameters)
    assert first.history == second.history


def test_entries_that_callbacks_add_to_the_logs_are_in_the_history():
    _, history = epochs_with([3.0, 2.0, 4.0])
    assert history.history["score"] == [3.0, 2.0, 4.0]


# --- EarlyStopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "stopped"),
    [
        ([5, 4, 3, 2, 1], {}, 5),
        ([5, 4, 4, 2, 1], {}, 3),
        ([5, 4, 4, 4, 1], {"patience": 2}, 4),
        ([5, 4, 4, 3, 3, 3], {"patience": 2}, 6),
        ([5, 4.5, 4.4, 4.3], {"min_delta": 1.0}, 2),
        ([1, 2, 3, 2, 9], {"mode": "max"}, 4),
        ([5, 6, 7, 4, 5], {"start_from_epoch": 3}, 5),
        ([5, 4, 3, 2, 1], {"baseline": 2.5, "patience": 2}, 5),
        ([5, 4, 4.1, 2, 1], {"baseline": 2.5, "patience": 2}, 3),
        ([2, 2.1, 2.2, 2.3], {"baseline": 2.5, "patience": 2}, 3),
    ],
)
def test_early_stopping_stops_at_the_same_epoch_as_keras(values, options, stopped, keras):
    stop = callbacks.EarlyStopping("score", **options)
    _, history = epochs_with(values, stop)
    assert len(history.epoch) == stopped

    theirs = keras.callbacks.EarlyStopping("score", **{"mode": "min", **options})
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    theirs.set_model(model)
    model.stop_training = False
    theirs.on_train_begin()
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"score": value})
        if model.stop_training:
            break
    assert epoch + 1 == stopped
    assert theirs.stopped_epoch == stop.stopped_epoch


def test_early_stopping_restores_the_best_weights():
    kept = []
    remember = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.parameters.copy()))
    model = classifier()
    stop = callbacks.EarlyStopping("score", patience=2, restore_best_weights=True)
    epochs_with([5, 3, 4, 6, 1], remember, stop, model=model)
    assert stop.best_epoch == 1
    np.testing.assert_array_equal(model.parameters, kept[1])


def test_the_best_weights_are_also_restored_after_the_last_epoch():
    kept = []
    model = classifier()
    remember = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.parameters.copy()))
    epochs_with(
        [5, 3, 4], remember, callbacks.EarlyStopping("score", patience=9, restore_best_weights=True), model=model
    )
    np.testing.assert_array_equal(model.parameters, kept[1])


# --- The others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}),
        ([5, 5, 5, 5, 5, 5], {"patience": 2}),
        ([5, 5, 5, 5, 5, 5, 5, 5], {"patience": 1, "cooldown": 2}),
        ([1, 1, 1, 1, 1, 1], {"patience": 1, "factor": 0.1, "min_lr": 2e-4}),
        ([1, 1.01, 1.02, 1.03], {"patience": 1, "mode": "max", "min_delta": 0.05}),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' variables
def test_the_learning_rate_is_reduced_at_the_same_epochs_as_in_keras(values, options, keras):
    _, history = epochs_with(values, callbacks.ReduceLROnPlateau("score", **options))

    theirs = keras.callbacks.ReduceLROnPlateau("score", **{"mode": "min", **options})
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    theirs.set_model(model)
    theirs.on_train_begin()
    rates = []
    for epoch, value in enumerate(values):
        logs = {"score": value}
        theirs.on_epoch_end(epoch, logs)
        rates.append(float(logs["learning_rate"]))
    np.testing.assert_allclose(history.history["learning_rate"], rates, rtol=1e-6)


def test_a_schedule_cannot_be_reduced():
    model = classifier(optimizer=optimizers.Adam(schedules.CosineDecay(0.01, 10)))
    with pytest.raises(TypeError, match="learning_rate: expected a number because ReduceLROnPlateau changes it"):
        model.fit(*samples(), verbose=0, callbacks=[callbacks.ReduceLROnPlateau("loss")])


def test_checkpoints_of_every_epoch_and_of_the_best(tmp_path):
    every = callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}-{score:.1f}.safetensors")
    best = callbacks.ModelCheckpoint(tmp_path / "best.safetensors", "score", save_best_only=True)
    model, _ = epochs_with([3.0, 2.0, 4.0], every, best)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "01-3.0.safetensors", "02-2.0.safetensors", "03-4.0.safetensors", "best.safetensors",
    ]  # fmt: skip
    x, _ = samples()
    at_best = load_model(tmp_path / "02-2.0.safetensors").predict(x)
    np.testing.assert_array_equal(load_model(tmp_path / "best.safetensors").predict(x), at_best)
    assert not np.array_equal(model.predict(x), at_best)


def test_a_checkpoint_whose_name_has_an_unknown_field(tmp_path):
    save = callbacks.ModelCheckpoint(tmp_path / "{val_loss}.safetensors")
    with pytest.raises(ValueError, match="filepath: expected fields of epoch, loss, accuracy, got"):
        classifier().fit(*samples(), verbose=0, callbacks=[save])


def test_the_log_file_has_one_line_per_epoch(tmp_path):
    path = tmp_path / "log.csv"
    model = classifier()
    history = model.fit(*samples(), epochs=3, verbose=0, callbacks=[callbacks.CSVLogger(path)])
    model.fit(*samples(), epochs=1, verbose=0, callbacks=[callbacks.CSVLogger(path, append=True)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "0"]
    assert [float(row["loss"]) for row in rows[:3]] == history.history["loss"]


def test_terminate_on_nan_stops_training_without_an_error():
    x, y = samples()
    x[40, 2, 1] = np.nan
    model, until_then = classifier(), classifier()
    history = model.fit(x, y, epochs=5, verbose=0, shuffle=False, callbacks=[callbacks.TerminateOnNaN()])
    expected = until_then.fit(x[:32], y[:32], verbose=0, shuffle=False)
    np.testing.assert_array_equal(model.parameters, until_then.parameters)
    assert history.history == expected.history  # of the batches before


def test_fit_reads_the_attributes_of_custom_callbacks():
    seen = []

    class Own(callbacks.Callback):
        stops_at_nan = True
        writes_training = True
        adds_logs = ("mood",)

        def on_epoch_end(self, epoch, logs=None):
            seen.append(sorted(logs))

    def add(epoch, logs):
        logs["mood"] = 1.0

    with pytest.raises(ValueError, match="monitor: expected one of 'loss', 'accuracy', 'mood', got 'other'"):
        classifier().fit(*samples(), verbose=0, callbacks=[Silent(), callbacks.EarlyStopping("other")])
    told = [Own(), callbacks.LambdaCallback(on_epoch_end=add), Script([0.5])]
    classifier().fit(*samples(), verbose=0, callbacks=told)
    assert seen == [["accuracy", "loss", "mood", "score"]]  # told last, because it writes
    x, y = samples()
    x[0, 2, 1] = np.nan
    history = classifier().fit(x, y, epochs=5, verbose=0, shuffle=False, callbacks=told[1:] + told[:1])
    assert len(history.epoch) == 1
    assert len(seen) == 1  # nothing is written of an epoch that ended early


class Silent(callbacks.Callback):
    """Adds entries to the logs, and declares them."""

    adds_logs = ("mood",)

    def may_add_logs(self):
        return False


def test_no_piece_of_a_failed_batch_is_counted(monkeypatch):
    monkeypatch.setattr(loop, "LEAST_ROWS", 5)
    monkeypatch.setattr(loop, "CACHED_TAPE", 4000)
    x, y = samples()
    x[47, 2, 1] = np.nan
    history = classifier().fit(x, y, batch_size=48, verbose=0, shuffle=False, callbacks=[callbacks.TerminateOnNaN()])
    assert np.isnan(history.history["loss"]).tolist() == [True]


def test_the_loss_of_no_samples_is_nan():
    x, y = samples()
    x[0, 2, 1] = np.nan
    history = classifier().fit(x, y, epochs=5, verbose=0, shuffle=False, callbacks=[callbacks.TerminateOnNaN()])
    assert np.isnan(history.history["loss"]).tolist() == [True]
    assert np.isnan(history.history["accuracy"]).tolist() == [True]


def test_nan_does_not_overwrite_a_checkpoint(tmp_path):
    x, y = samples()
    model = classifier()
    save = callbacks.ModelCheckpoint(tmp_path / "a.safetensors")
    model.fit(x, y, verbose=0, callbacks=[save])
    before = (tmp_path / "a.safetensors").read_bytes()
    x[3, 1, 1] = np.nan
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1"):
        model.fit(x, y, verbose=0, shuffle=False, callbacks=[save])
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_errors_of_a_callback_reach_the_caller():
    def fail(epoch, logs):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        classifier().fit(*samples(), verbose=0, callbacks=[callbacks.LambdaCallback(on_epoch_end=fail)])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: callbacks.EarlyStopping(patience=-1), ValueError, r"patience: expected .*got -1"),
        (lambda: callbacks.EarlyStopping(mode="up"), ValueError, r"mode: expected one of .*got 'up'"),
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), ValueError, r"factor: expected .*got 1"),
        (lambda: callbacks.LambdaCallback(on_fire=print), ValueError, r"occasion: expected one of .*got 'on_fire'"),
        (lambda: callbacks.LambdaCallback(on_epoch_end=3), TypeError, r"on_epoch_end: expected a function, got 3"),
        (lambda: callbacks.ModelCheckpoint("a", save_freq=0), ValueError, r"save_freq: expected .*got 0"),
        (lambda: classifier().fit(*samples(), callbacks=[print]), TypeError, r"callbacks: expected objects of"),
        (
            lambda: classifier().fit(*samples(), verbose=0, callbacks=[callbacks.EarlyStopping("val_loss")]),
            ValueError, r"monitor: expected a training metric because there is no validation_data, got 'val_loss'",
        ),
        (
            lambda: classifier().fit(*samples(), verbose=0, callbacks=[callbacks.EarlyStopping("f1")]),
            ValueError, r"monitor: expected one of 'loss', 'accuracy', got 'f1'",
        ),
    ],
)  # fmt: skip
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- Which way is better --------------------------------------------------------------------------------------------


class Own(metrics.Metric):
    """A custom metric whose larger values are better, which its name does not show."""

    name = "quality"

    def reset_state(self):
        pass

    def update_state(self, y_true, y_pred, sample_weight=None):
        pass

    def result(self):
        return 1.0


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("acc", "max"),
        ("macro_f1", "max"),
        ("top_k_accuracy", "max"),
        (metrics.TopKAccuracy(k=1), "max"),
        (Own(), "max"),
    ],
)
def test_a_metric_defines_whether_larger_values_are_better(metric, mode):
    name = metric if isinstance(metric, str) else metric.name
    model = classifier()
    model.compile("adam", "categorical_crossentropy", metrics=[metric])
    watching = [callbacks.EarlyStopping(f"val_{name}", patience=9), callbacks.ReduceLROnPlateau(name)]
    model.fit(*samples(), validation_data=samples(1), verbose=0, callbacks=watching)
    assert [callback.mode for callback in watching] == [mode, mode]
    assert np.isfinite([callback.best for callback in watching]).all()  # the first value was better than nothing
    explicit = callbacks.EarlyStopping(name, mode="min")
    model.fit(*samples(), verbose=0, callbacks=[explicit])
    assert explicit.mode == "min"


def test_an_error_is_better_when_it_is_smaller():
    model = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(1)])
    model.compile("adam", loss="mse", metrics=["mae"])
    x, y = samples()
    stop = callbacks.EarlyStopping("mae")
    model.fit(x, y.astype(np.float32), verbose=0, callbacks=[stop])
    assert stop.mode == "min"


# --- The history ----------------------------------------------------------------------------------------------------


def test_an_entry_that_a_callback_adds_later_has_one_value_per_epoch():
    class Late(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch:
                logs["q"] = epoch + 1

    idle = [callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None) for _ in range(2)]
    history = classifier().fit(*samples(), epochs=4, verbose=0, callbacks=[Late(), *idle])
    assert history.history["q"] == [2, 3, 4]
    assert len(history.history["loss"]) == 4


# --- What a bad loss leaves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"save_freq": 2}, {"monitor": "loss", "save_best_only": True}])
def test_an_epoch_that_ends_with_nan_replaces_no_file(tmp_path, options):
    x, y = samples()
    save = callbacks.ModelCheckpoint(tmp_path / "a.safetensors", **options)
    classifier().fit(x, y, verbose=0, shuffle=False, callbacks=[save])
    before, best = (tmp_path / "a.safetensors").read_bytes(), save.best
    x[40, 1, 1] = np.nan  # of the second batch: the first one alone may well be better than all
    model = classifier()
    model.fit(x[:32], y[:32], epochs=30, verbose=0)  # so that what is seen of the epoch is better than before

    class Own(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.save_training(tmp_path / "a.safetensors")

    told = [callbacks.TerminateOnNaN(), save, Own(), callbacks.CSVLogger(tmp_path / "log.csv")]
    history = model.fit(x, y, epochs=3, verbose=0, shuffle=False, validation_data=samples(1), callbacks=told)
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert save.best == best
    assert len(history.epoch) == 1
    assert np.isfinite(history.history["val_loss"]).all()  # as in Keras, the epoch ends with all that belongs to it
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_training_resumes_before_the_epoch_that_ended_with_nan(tmp_path):
    """Without the cause of the NaN, the epoch is repeated."""
    x, y = samples()
    path = tmp_path / "a.safetensors"

    def fit(x, epochs, resume=None):
        told = [callbacks.TerminateOnNaN(), callbacks.ModelCheckpoint(path)]
        return classifier().fit(x, y, epochs=epochs, verbose=0, callbacks=told, resume_from=resume)

    fit(x, 2)
    fit(np.where(x > 2, np.float32(np.nan), x), 4, path)
    assert fit(x, 4, path).epoch == [0, 1, 2, 3]


# --- Found before the first epoch -------------------------------------------------------------------------------------


class Remembers(callbacks.Callback):
    """Has a state of any type."""

    def __init__(self, state):
        self.state = state
        self.found = None

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.found = state


def refused(error, message, *told, **options):
    x, y = samples()
    model = classifier()
    before = model.parameters.copy()
    with pytest.raises(error, match=message):
        model.fit(x, y, verbose=0, callbacks=list(told), **options)
    np.testing.assert_array_equal(model.parameters, before)


def test_errors_of_callbacks_are_raised_before_the_first_epoch(tmp_path):
    save = callbacks.ModelCheckpoint(tmp_path / "a.safetensors")
    refused(ValueError, "monitor: expected one of 'loss', 'accuracy', got 'f1'", callbacks.EarlyStopping("f1"))
    refused(
        ValueError, "monitor: expected one of 'loss', 'accuracy', 'learning_rate', got 'lr'",
        callbacks.ReduceLROnPlateau("loss"), callbacks.EarlyStopping("lr"),
    )  # fmt: skip
    refused(
        ValueError, "monitor: expected one of 'loss', 'accuracy', 'val_loss', 'val_accuracy', got 'val_f1'",
        callbacks.ModelCheckpoint(tmp_path / "a", "val_f1", save_best_only=True), validation_data=samples(1),
    )  # fmt: skip
    nowhere = tmp_path / "nowhere"
    refused(FileNotFoundError, "filepath: expected a file in an existing", callbacks.ModelCheckpoint(nowhere / "a"))
    refused(FileNotFoundError, "filename: expected a file in an existing folder", callbacks.CSVLogger(nowhere / "a"))
    refused(
        ValueError, r"filepath: expected fields of epoch, loss, accuracy, batch, got .*val_loss",
        callbacks.ModelCheckpoint(tmp_path / "{val_loss}", save_freq=2), validation_data=samples(1),
    )  # fmt: skip
    for state in ({"a": object()}, {"a": {1: 2}}, {"a": [np.array(["b"])]}, {"a": 1j}):
        refused(TypeError, r"Remembers.get_state\(\)\['a'\].*: expected numbers, strings", save, Remembers(state))
    assert not list(tmp_path.iterdir())
    classifier().fit(*samples(), verbose=0, callbacks=[Remembers({"a": object()})])  # nothing is written


def test_a_monitor_may_be_added_by_another_callback():
    epochs_with([3.0, 2.0], callbacks.EarlyStopping("score"))
    _, history = epochs_with([3.0], callbacks.ReduceLROnPlateau("loss"), callbacks.EarlyStopping("learning_rate"))
    assert len(history.epoch) == 1


def test_states_of_callbacks_may_contain_numpy_scalars_and_nested_arrays(tmp_path):
    state = {"n": np.int64(3), "f": np.float32(1.5), "list": [np.arange(3), [np.ones((2, 2), np.float32)]],
             "tuple": (1, "a"), "a/b": np.zeros(2), "a": {"b": np.ones(2)}, "none": None}  # fmt: skip
    save = callbacks.ModelCheckpoint(tmp_path / "a.safetensors")

    class Score32(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["q"] = np.float32(epoch + 0.1)

    def fit(epochs, resume=None):
        told = [Score32(), Remembers(state), callbacks.EarlyStopping("q", patience=9), save]
        return classifier().fit(*samples(), epochs=epochs, verbose=0, callbacks=told, resume_from=resume), told[1].found

    whole, _ = fit(3)
    fit(1)
    resumed, found = fit(3, tmp_path / "a.safetensors")
    assert resumed.history == whole.history
    assert list(resumed.history) == list(whole.history)
    assert (found["n"], found["f"], found["tuple"], found["none"]) == (3, 1.5, [1, "a"], None)
    for one, other in [(found["list"][0], np.arange(3)), (found["list"][1][0], np.ones((2, 2), np.float32)),
                       (found["a/b"], np.zeros(2)), (found["a"]["b"], np.ones(2))]:  # fmt: skip
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


class OwnLoss(losses.MeanSquaredError):
    name = "mine"


class OwnSchedule(schedules.Schedule):
    def __call__(self, step):
        return 0.01


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        ("loss", {"loss": OwnLoss()}),
        ("metrics", {"metrics": [Own()]}),
        ("learning_rate", {"optimizer": optimizers.Adam(OwnSchedule())}),
    ],
)
def test_unsupported_custom_objects_raise_before_training(tmp_path, name, compiled):
    fastgru.set_seed(3)
    model = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(2, activation="softmax")])
    model.compile(**{"optimizer": "adam", "loss": "categorical_crossentropy"} | compiled)
    x, y = samples()
    if name == "loss":
        y = np.eye(2, dtype=np.float32)[y]
    before = model.parameters.copy()
    save = callbacks.ModelCheckpoint(tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=f"{name}: expected a class of fastgru because files contain names and no code"
    ):
        model.fit(x, y, verbose=0, callbacks=[save])
    np.testing.assert_array_equal(model.parameters, before)
    with pytest.raises(ValueError, match=f"{name}: expected a class of fastgru"):
        model.save(tmp_path / "a.safetensors")
    model.fit(x, y, verbose=0)
    model.compile("adam", "categorical_crossentropy")
    model.save(tmp_path / "a.safetensors")


# --- Callbacks that use the model -------------------------------------------------------------------------------------


def test_a_callback_may_evaluate_during_an_epoch():
    x, y = samples()
    plain = classifier().fit(x, y, epochs=2, batch_size=8, verbose=0)
    model = classifier()
    evaluate = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: model.evaluate(*samples(1, 7)))
    watched = model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[evaluate])
    assert watched.history == plain.history
