"""Held-back samples for validation: their choice, the classes of both parts, and the same choice after resuming."""

from __future__ import annotations

import re
import tracemalloc
import warnings

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model
from fastgru.cli import data as cli_data
from fastgru.cli import main, train
from fastgru.datasets.arrays import Sequences
from fastgru.formats import native

pytestmark = pytest.mark.isa_independent

CLASSES = 5


def sorted_by_class(each=40, steps=6, seed=0):
    """Return samples whose class is the feature with the largest mean."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(CLASSES), each)
    x = rng.normal(size=(len(y), steps, CLASSES)).astype(np.float32)
    x[np.arange(len(y)), :, y] += 2
    return x, y


def make_model(units=CLASSES, activation="softmax", loss="sparse_categorical_crossentropy", **options):
    fastgru.set_seed(0)
    model = Sequential([layers.GRU(8, input_shape=(None, CLASSES), **options), layers.Dense(units, activation)])
    model.compile("adam", loss)
    return model


# --- fit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "one-hot", "steps", "steps and lengths", "yes or no"])
def test_a_class_missing_in_one_part_warns(kind):
    x, y = sorted_by_class()
    options, lengths = {}, None
    message = "got no sample of class 0, 1, 2, 3 among the 40 held back and no sample of class 4 among the 160 others"
    if kind == "one-hot":
        y = np.eye(CLASSES, dtype=np.float32)[y]
    elif kind.startswith("steps"):
        y = np.repeat(y[:, None], 6, axis=1)
        options["return_sequences"] = True
        if kind == "steps and lengths":
            lengths = np.full(len(x), 3)
            y[:, 3:] = -1
    model = make_model(**options)
    if kind == "yes or no":
        y = (y > 2).astype(np.float32)
        model = make_model(1, "sigmoid", "binary_crossentropy")
        message = "got no sample of class 0 among the 40 held back"
    message = f"validation_split: expected every class in both parts, {message}; the last samples are held back, as in"
    with pytest.warns(UserWarning, match=message) as found:
        model.fit(x, y, lengths=lengths, validation_split=0.2, verbose=0)
    assert [warning.filename for warning in found] == [__file__]


def test_no_warning_if_both_parts_have_all_classes():
    x, y = sorted_by_class()
    order = np.random.default_rng(0).permutation(len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_model().fit(x[order], y[order], validation_split=0.2, verbose=0)
        make_model().fit(x, y, verbose=0)
        make_model(1, None, "mse").fit(x, y.astype(float), validation_split=0.2, verbose=0)
        make_model().fit(x, y, validation_split=np.arange(0, len(x), 5), verbose=0)


@pytest.mark.parametrize("stateful", [False, True])
def test_indices_equal_separate_arrays(stateful):
    x, y = sorted_by_class()
    rng = np.random.default_rng(1)
    weights, lengths = rng.random(len(x)), rng.integers(1, 7, len(x))
    held = np.sort(rng.choice(len(x), 40, replace=False))
    kept = np.setdiff1d(np.arange(len(x)), held)
    one, other = make_model(stateful=stateful), make_model(stateful=stateful)
    options = {"epochs": 3, "batch_size": 40, "verbose": 0}
    found = one.fit(x, y, lengths=lengths, sample_weight=weights, validation_split=held, **options)
    part = {"x": x[held], "y": y[held], "lengths": lengths[held], "sample_weight": weights[held]}
    expected = other.fit(
        x[kept], y[kept], lengths=lengths[kept], sample_weight=weights[kept], validation_data=part, **options
    )
    assert found.history == expected.history
    np.testing.assert_array_equal(one.parameters, other.parameters)
    assert found.params["samples"] == 160


def test_samples_held_back_of_memory_mapped_arrays_are_not_loaded_whole(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.random((3000, 40, 64), np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, 2, 3000))
    size = (tmp_path / "x.npy").stat().st_size
    tracemalloc.start()
    try:
        assert main(["train", str(tmp_path), "--epochs", "1", "--validation", "0.5", "--units", "2"]) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 4


def test_a_resumed_training_must_hold_back_the_same_samples(tmp_path):
    x, y = sorted_by_class()
    path = tmp_path / "c.safetensors"
    held = np.arange(0, 200, 5)

    def fit(split, epochs, resume=None):
        model = make_model()
        told = [callbacks.ModelCheckpoint(path)]
        model.fit(x, y, validation_split=split, epochs=epochs, verbose=0, callbacks=told, resume_from=resume)
        return model.parameters

    whole = fit(held, 4)
    fit(held, 2)
    with pytest.raises(
        ValueError,
        match=r"expected validation_split=40 indices with checksum \w+ as in .*, got 40 indices with checksum",
    ):
        fit(held + 1, 4, path)
    np.testing.assert_array_equal(fit(held, 4, path), whole)

    fit(held, 2)  # a file without that entry, as earlier versions wrote it
    config, tensors = native.load(path)
    del config["training"]["asked"]["validation_split"]
    native.save(path, config, tensors)
    np.testing.assert_array_equal(fit(held, 4, path), whole)


# --- The command line -----------------------------------------------------------------------------------------------


def as_data(x, y, *, task="classify", lengths=None):
    outputs = int(y.max()) + 1 if task == "classify" else 1
    return cli_data.Data("d", "", task, outputs, y.ndim == 2, Sequences(x, y, lengths), None, "sequences")


def write(path, x, y, **more):
    np.savez(path, x=x, y=y, **more)
    return str(path)


SETTINGS = ["--epochs", "6", "--units", "8", "--learning-rate", "0.03", "--batch-size", "16", "--seed", "0"]


def result_of(lines):
    return float(re.search(r"accuracy ([\d.]+)%", lines[-1])[1])


def test_data_sorted_by_class_are_validated_on_all_classes(capsys, tmp_path):
    x, y = sorted_by_class()
    x_test, y_test = sorted_by_class(seed=1)
    file = write(tmp_path / "d.npz", x, y, x_test=x_test, y_test=y_test)
    assert main(["train", file, *SETTINGS, "--validation", "0.2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[1] == (
        "Validation: 40 of 200 sequences held back, drawn at random, stratified by class: 8 to 8 of each class"
    )
    assert result_of(lines) > 95
    last = next(line for line in reversed(lines) if line.startswith("Epoch "))
    assert float(re.search(r"val_accuracy ([\d.]+)", last)[1]) > 0.9
    assert printed.err == ""

    assert main(["train", file, *SETTINGS, "--validation", "0.2", "--validation-samples", "last"]) == 0
    printed = capsys.readouterr()
    assert "Validation: 40 of 200 sequences held back, the last ones: 0 to 40 of each class" in printed.out
    assert (
        "classes 4 are only among the samples held back by --validation; use --validation-samples random" in printed.err
    )
    assert "classes 0, 1, 2, 3 are not among the samples held back" in printed.err


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("sizes", [[50] * 4, [100, 10, 3, 2, 1], [1] * 6, [2] * 20, [0, 30, 0, 5], [1, 1]])
def test_each_class_is_held_back_in_proportion(sizes, fraction):
    y = np.repeat(np.arange(len(sizes)), sizes)
    held = cli_data.hold_back(as_data(np.zeros((len(y), 2, 1), np.float32), y), fraction, 0, None)
    assert (np.diff(held.rows) > 0).all()
    counts = np.bincount(y[held.rows], minlength=len(sizes))
    assert 1 <= counts.sum() < len(y)
    if held.stratified:
        several = np.array(sizes) > 1
        assert (counts < sizes)[several].all()
        assert not counts[~several].any()
        budget = len(y) - min(max(int(len(y) * (1 - fraction) + 1e-9), 1), len(y) - 1)
        if budget >= several.sum():
            assert (counts >= 1)[several].all()
        # One for the rounding, and one because a class must have samples in both parts.
        assert (np.abs(counts - np.array(sizes) * budget / len(y)) <= 2).all()


def test_the_same_seed_holds_back_the_same_samples():
    x, y = sorted_by_class()
    rows = [cli_data.hold_back(as_data(x, y), 0.2, seed, None).rows for seed in (3, 3, 4)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert len(set(np.diff(rows[0]))) > 2  # not the first ones of each class


def test_validation_does_not_change_the_initial_weights(tmp_path):
    x, y = sorted_by_class()
    file = write(tmp_path / "d.npz", x, y)
    for options, name in (([], "a"), (["--validation", "0.2"], "b")):
        settings = ["--epochs", "1", "--learning-rate", "1e-30", "--seed", "1", "--save", str(tmp_path / name)]
        assert main(["train", file, *settings, *options]) == 0
    for one, other in zip(*(load_model(tmp_path / name).get_weights() for name in "ab"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-25)


def series(windows, steps, shift=1, features=2, dtype=np.float32):
    values = np.random.default_rng(0).integers(0, 200, (windows * shift + steps, features)).astype(dtype)
    return np.stack([values[shift * i : shift * i + steps] for i in range(windows)])


def test_windows_of_a_series_are_recognized():
    for shift in (1, 2, 5):
        assert cli_data.are_overlapping_windows(series(30, 10, shift))
    assert cli_data.are_overlapping_windows(series(30, 10, dtype=np.uint8))
    rng = np.random.default_rng(0)
    assert not cli_data.are_overlapping_windows(series(30, 10, 10))  # they do not overlap
    assert not cli_data.are_overlapping_windows(series(30, 10)[rng.permutation(30)])
    assert not cli_data.are_overlapping_windows(series(3, 10))  # too few to say
    assert not cli_data.are_overlapping_windows(rng.normal(size=(30, 10, 2)))
    assert not cli_data.are_overlapping_windows(np.zeros((30, 10, 2), np.uint8))
    assert not cli_data.are_overlapping_windows(np.full((30, 1, 2), 3.0))
    pictures, _ = fastgru.datasets.synthetic.make_digits(50, 0)
    assert not cli_data.are_overlapping_windows(pictures)  # whose edges are all alike


def test_windows_of_several_series_are_recognized():
    rng = np.random.default_rng(0)
    for count, windows in [(1, 190), (2, 20), (5, 190), (12, 30)]:
        many = np.cumsum(rng.normal(size=(count, windows + 9, 1)), axis=1)
        x = np.concatenate([np.stack([one[i : i + 10] for i in range(windows)]) for one in many])
        assert cli_data.are_overlapping_windows(x)
        number = np.broadcast_to(np.arange(len(x))[:, None, None] % 7, (len(x), 10, 1))
        assert cli_data.are_overlapping_windows(np.concatenate([x, number], axis=2))
        assert not cli_data.are_overlapping_windows(x[rng.permutation(len(x))])
        assert not cli_data.are_overlapping_windows(number)
    assert not cli_data.are_overlapping_windows(rng.integers(0, 2, (200, 12, 1)))  # single pairs agree by chance
    tail = np.concatenate([rng.normal(size=(150, 10, 2)), series(50, 10)])  # a quarter are windows
    assert not cli_data.are_overlapping_windows(tail)


def test_the_report_of_a_class_without_held_back_samples():
    y = np.repeat(np.arange(30), 4)
    found = as_data(np.zeros((len(y), 2, 1), np.float32), y)
    held = cli_data.hold_back(found, 0.1, 0, None)
    assert held.describe(found) == (
        "12 of 120 sequences held back, drawn at random, stratified by class as far as possible: 0 to 1 of each class"
    )


@pytest.mark.slow
def test_a_forecast_is_validated_on_the_last_samples(capsys, tmp_path):
    x = series(60, 8)
    for y, how in [(x[:, -1, 0] * 1.5, "the last ones"), (np.repeat(x[:, :1, 0], 8, axis=1), "the last ones")]:
        file = write(tmp_path / "d.npz", x, y.astype(np.float64))
        assert main(["train", file, "--epochs", "1", "--validation", "0.25"]) == 0
        assert f"Validation: 15 of 60 sequences held back, {how}\n" in capsys.readouterr().out
    assert main(["train", file, "--epochs", "1", "--validation", "0.25", "--validation-samples", "random"]) == 0
    assert "held back, drawn at random\n" in capsys.readouterr().out
    file = write(tmp_path / "d.npz", np.random.default_rng(0).permutation(x), y)
    assert main(["train", file, "--epochs", "1", "--validation", "0.25"]) == 0
    assert "held back, drawn at random\n" in capsys.readouterr().out


def test_samples_with_a_class_per_step_are_drawn_at_random(capsys, tmp_path):
    x, y = sorted_by_class()
    file = write(tmp_path / "d.npz", x, np.repeat(y[:, None], 6, axis=1))
    assert main(["train", file, "--epochs", "1", "--validation", "0.25"]) == 0
    assert "Validation: 50 of 200 sequences held back, drawn at random\n" in capsys.readouterr().out


def test_the_result_belongs_to_the_held_back_samples(capsys, tmp_path):
    x, y = sorted_by_class()
    file = write(tmp_path / "d.npz", x, y)
    saved = tmp_path / "m"
    settings = [*SETTINGS, "--validation", "0.3", "--patience", "2", "--save", str(saved)]
    assert main(["train", file, *settings]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    held = cli_data.hold_back(as_data(x, y), 0.3, 0, None)
    loss, accuracy = load_model(saved).evaluate(x[held.rows], y[held.rows])
    assert f"validation accuracy {accuracy:.2%}, loss {loss:.4f} " in line


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_resumed_training_holds_back_the_same_samples(capsys, monkeypatch, tmp_path, kind):
    x, y = sorted_by_class()
    file = str(tmp_path / "d")
    if kind == "folder":
        (tmp_path / "d").mkdir()
        np.save(tmp_path / "d" / "x.npy", x)
        np.save(tmp_path / "d" / "y.npy", y)
    else:
        file = write(tmp_path / "d.npz", x, y)
    begun = ["train", file, "--epochs", "4", "--units", "4", "--validation", "0.2"]
    kept, whole, resumed = (str(tmp_path / name) for name in ("kept", "whole", "resumed"))

    def interrupt(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

    for samples in ([], ["--validation-samples", "last"]):
        assert main([*begun, *samples, "--seed", "5", "--save", whole]) == 0
        expected = capsys.readouterr().out.splitlines()
        with monkeypatch.context() as patch:
            patch.setattr(train.Seed, "on_epoch_begin", interrupt)
            assert main([*begun, *samples, "--seed", "5", "--checkpoint", kept]) == 130
        other = ["--validation-samples", "random" if samples else "last"]
        assert main([*begun, *other, "--checkpoint", kept, "--resume"]) == 2
        assert "--validation-samples: expected " in capsys.readouterr().err
        assert main([*begun, "--checkpoint", kept, "--resume", "--save", resumed]) == 0
        found = capsys.readouterr().out.splitlines()
        assert found[1] == expected[1]
        assert found[1].startswith("Validation: 40 of 200")
        for one, two in zip(load_model(whole).get_weights(), load_model(resumed).get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)
        assert main([*begun[:-1], "0.3", "--checkpoint", kept, "--resume"]) == 2
        assert "--resume: expected" in capsys.readouterr().err


def test_a_run_of_an_older_version_resumes_with_the_last_samples(capsys, tmp_path):
    x, y = sorted_by_class()
    file, kept = write(tmp_path / "d.npz", x, y), str(tmp_path / "kept")
    begun = ["train", file, "--units", "4", "--validation", "0.2", "--checkpoint", kept]
    assert main([*begun, "--epochs", "1", "--seed", "5", "--validation-samples", "last"]) == 0
    config, tensors = native.load(kept)
    del config["training"]["asked"]["validation_split"]
    for entry in config["training"]["callbacks"]:
        entry["state"].pop("samples", None)
    native.save(kept, config, tensors)
    capsys.readouterr()
    assert main([*begun, "--epochs", "2", "--resume"]) == 0
    assert "held back, the last ones" in capsys.readouterr().out


def test_a_seed_holds_back_the_same_samples_alone_and_among_others(capsys, tmp_path):
    x, y = sorted_by_class()
    file = write(tmp_path / "d.npz", x, y)
    common = ["train", file, "--recipe", "fast", "--epochs", "1", "--validation", "0.2"]
    assert main([*common, "--seeds", "3,4"]) == 0
    both = capsys.readouterr().out.splitlines()
    assert main([*common, "--seed", "4"]) == 0
    alone = capsys.readouterr().out.splitlines()
    epochs = [line.split(" (")[0] for line in both if line.startswith("Epoch ")]
    assert epochs[1] == next(line.split(" (")[0] for line in alone if line.startswith("Epoch "))


def test_a_class_with_one_sample_is_trained_on(capsys, tmp_path):
    x, y = sorted_by_class()
    file = write(tmp_path / "d.npz", np.concatenate([x, x[:1]]), np.append(y, CLASSES))
    assert main(["train", file, "--epochs", "1", "--validation", "0.2"]) == 0
    assert "stratified by class as far as possible: 0 to 8 of each class" in capsys.readouterr().out


# --- scikit-learn ---------------------------------------------------------------------------------------------------


@pytest.mark.peers("sklearn")
def test_estimators_hold_back_each_class_and_copy_nothing():
    import fastgru.sklearn as estimators

    x, y = sorted_by_class()
    settings = {"epochs": 5, "learning_rate": 0.03, "batch_size": 16, "random_state": 0, "validation_split": 0.2}
    classifier = estimators.GRUClassifier(16, **settings).fit(x, y)
    assert classifier.history_["val_accuracy"][-1] > 0.8
    regressor = estimators.GRURegressor(16, **settings).fit(x, y.astype(float))
    assert len(regressor.history_["val_loss"]) == 5
