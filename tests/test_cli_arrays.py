"""The command line with the user's own arrays, from training to predictions."""

from __future__ import annotations

import csv
import dataclasses
import json
import re

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model, optimizers, schedules
from fastgru._support.sequences import valid_steps
from fastgru.cli import data, main, train
from fastgru.datasets import mnist, synthetic
from fastgru.models import recipes

N, T, F = 160, 9, 3


def make(seed, count=N):
    """Return sequences of different lengths, with all kinds of targets computed from the sum of the first feature."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, T, F)).astype(np.float32)
    lengths = rng.integers(2, T + 1, count)
    counted = valid_steps(lengths, T)
    sums = np.cumsum(x[:, :, 0] * counted, axis=1)
    return {
        "x": x,
        "lengths": lengths,
        "label": (sums[:, -1] > 0).astype(np.int64),
        "tags": np.where(counted, (sums > 0) + (x[:, :, 1] > 0), -1),
        "sum": sums[:, -1],
        "two": np.stack([sums[:, -1], x[:, 0, 1]], axis=1),
        "curve": np.where(counted, sums, np.nan)[:, :, None],
        "path": np.where(counted, sums, np.nan),
    }


def write(path, y, *, test=True, lengths=True, save=np.savez):
    arrays = {}
    for part, suffix in [(make(0), ""), (make(1, 60), "_test")][: 1 + test]:
        arrays |= {f"x{suffix}": part["x"], f"y{suffix}": part[y]}
        if lengths:
            arrays[f"lengths{suffix}"] = part["lengths"]
    save(path, **arrays)
    return str(path)


def run(capsys, *arguments):
    """Return the printed lines, and the last one as JSON."""
    assert main([*arguments, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines, json.loads(lines[-1])


@pytest.mark.parametrize(
    ("y", "task", "metric", "better_than"),
    [
        ("label", "classify", "accuracy", 0.8),
        ("tags", "classify", "accuracy", 0.6),
        ("sum", "regress", "mean_absolute_error", 1.2),
        ("two", "regress", "mean_absolute_error", 1.2),
        ("curve", "regress", "mean_absolute_error", 0.8),
        ("path", "regress", "mean_absolute_error", 0.8),
    ],
)
def test_every_kind_of_target_is_learnt_evaluated_and_predicted(capsys, tmp_path, y, task, metric, better_than):
    file, model_file, out = write(tmp_path / "d.npz", y), str(tmp_path / "m"), str(tmp_path / "out.npz")
    settings = ["--epochs", "15", "--units", "16", "--learning-rate", "0.02", "--seed", "0", "--batch-size", "16"]
    lines, result = run(capsys, "train", file, *settings, "--save", model_file)
    assert lines[0].startswith(f"Data: {file} ({N} sequences of {T} steps of {F} numbers, float32; ")
    assert lines[-2].startswith(f"Result: {file} (")
    assert (result["task"], result["evaluated_on"], result["epochs"]) == (task, "test", 15)
    assert result[metric] > better_than if metric == "accuracy" else result[metric] < better_than

    _, again = run(capsys, "evaluate", model_file, file)
    assert {name: again[name] for name in ("loss", metric)} == {name: result[name] for name in ("loss", metric)}

    assert main(["predict", model_file, file, "--out", out]) == 0
    part = make(0)
    expected = load_model(model_file).predict(part["x"], lengths=part["lengths"])
    with np.load(out) as written:
        np.testing.assert_array_equal(written["outputs"], expected)
        assert ("labels" in written) == (task == "classify")
        if y == "tags":
            np.testing.assert_array_equal(written["labels"] == -1, part["tags"] == -1)
            np.testing.assert_array_equal(written["lengths"], part["lengths"])


def test_targets_with_as_many_numbers_as_steps(tmp_path):
    """Targets (N, T) are a number per step, or T numbers per sequence if the lengths exclude a step of all rows."""
    x, y = np.zeros((6, 4, 2), np.float32), np.zeros((6, 4))
    np.savez(tmp_path / "steps.npz", x=x, y=y)
    np.savez(tmp_path / "sequence.npz", x=np.pad(x, ((0, 0), (0, 1), (0, 0))), y=y, lengths=np.full(6, 4))
    found = [data.load(str(tmp_path / name), None, 0) for name in ("steps.npz", "sequence.npz")]
    assert [(one.outputs, one.each_step) for one in found] == [(1, True), (4, False)]


def test_options_have_the_meaning_of_the_layers_arguments(tmp_path):
    """A model trained by the command line is bit-identical to one trained by the same calls in Python."""
    file = write(tmp_path / "d.npz", "label")
    options = "--units 8,6 --bidirectional --dropout 0.2 --recurrent-dropout 0.1 --optimizer rmsprop --clip-norm 0.5 "
    options += "--learning-rate 0.01 --schedule onecycle --epochs 3 --batch-size 20 --validation 0.25 --patience 1"
    assert main(["train", file, *options.split(), "--seed", "5", "--save", str(tmp_path / "m")]) == 0

    part = make(0)
    fastgru.set_seed(5)
    dropout = {"dropout": 0.2, "recurrent_dropout": 0.1}
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(8, return_sequences=True, input_shape=(None, F), **dropout)),
            layers.Bidirectional(layers.GRU(6, **dropout)),
            layers.Dense(2, activation="softmax"),
        ]
    )
    cycle = schedules.OneCycle(0.01, 3 * 6)
    model.compile(
        optimizers.RMSprop(cycle, global_clipnorm=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        part["x"],
        part["label"],
        lengths=part["lengths"],
        epochs=3,
        batch_size=20,
        validation_split=data.hold_back(data.load(file, None, 5), 0.25, 5, None).rows,
        callbacks=[callbacks.EarlyStopping(patience=1, restore_best_weights=True)],
        verbose=0,
    )
    for one, other in zip(load_model(tmp_path / "m").get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_gives_the_same_bits_as_an_archive(capsys, tmp_path):
    file = write(tmp_path / "d.npz", "tags")
    folder = tmp_path / "arrays"
    folder.mkdir()
    with np.load(file) as arrays:
        for name in arrays:
            np.save(folder / f"{name}.npy", arrays[name])
    results = [run(capsys, "train", str(path), "--epochs", "1", "--seed", "1")[1] for path in (file, folder)]
    assert results[0]["loss"] == results[1]["loss"]


def test_the_result_names_its_samples_if_there_are_no_test_arrays(capsys, tmp_path):
    file = write(tmp_path / "d.npz", "sum", test=False)
    lines, result = run(capsys, "train", file, "--epochs", "1")
    assert result["evaluated_on"] == "training"
    assert ": training mean absolute error " in lines[-2]
    lines, result = run(capsys, "train", file, "--epochs", "1", "--validation", "0.5")
    assert result["evaluated_on"] == "validation"
    assert ": validation mean absolute error " in lines[-2]


def test_task_determines_the_meaning_of_integers(capsys, tmp_path):
    x = make(0)["x"]
    np.savez(tmp_path / "i.npz", x=x, y=make(0)["label"])
    np.savez(tmp_path / "f.npz", x=x, y=make(0)["label"].astype(np.float64))
    tasks = [
        run(capsys, "train", str(tmp_path / name), "--epochs", "1", *task)[1]["task"]
        for name, task in [
            ("i.npz", []),
            ("f.npz", []),
            ("i.npz", ["--task", "regress"]),
            ("f.npz", ["--task", "classify"]),
        ]
    ]
    assert tasks == ["classify", "regress", "regress", "classify"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float64_arrays_are_converted_for_a_model_for_sequences_of_any_length(capsys, tmp_path, dtype):
    x = make(0)["x"].astype(np.float64)
    np.savez(tmp_path / "d.npz", x=x, y=make(0)["label"])
    options = [] if dtype == "float32" else ["--dtype", dtype]
    assert main(["train", str(tmp_path / "d.npz"), "--epochs", "1", "--save", str(tmp_path / "m"), *options]) == 0
    assert load_model(tmp_path / "m").dtype == dtype
    np.savez(tmp_path / "longer.npz", x=np.concatenate([x, x], axis=1)[:2])
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "longer.npz")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


# --- Predictions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", ["label", "tags", "two"])
def test_csv_has_one_line_per_sample_or_step_and_exact_numbers(tmp_path, y):
    file, model_file, out = write(tmp_path / "d.npz", y), str(tmp_path / "m"), tmp_path / "out.csv"
    assert main(["train", file, "--epochs", "1", "--units", "4", "--save", model_file]) == 0
    assert main(["predict", model_file, file, "--out", str(out)]) == 0
    part = make(0)
    expected = load_model(model_file).predict(part["x"], lengths=part["lengths"])
    with out.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if y == "tags":
        places = [tuple(place) for place in np.argwhere(valid_steps(part["lengths"], T))]
        assert [(int(row["sample"]), int(row["step"])) for row in rows] == places
        expected = expected[valid_steps(part["lengths"], T)]
    else:
        assert [int(row["sample"]) for row in rows] == list(range(N))
        assert "step" not in rows[0]
    outputs = np.array([[row[f"output_{i}"] for i in range(expected.shape[-1])] for row in rows], np.float32)
    np.testing.assert_array_equal(outputs, expected)
    if y == "two":
        assert "label" not in rows[0]
    else:
        np.testing.assert_array_equal([int(row["label"]) for row in rows], expected.argmax(axis=-1))


def printed(capsys, tmp_path, model, x, *options):
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x)
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "x.npy"), *options]) == 0
    return capsys.readouterr().out.replace(str(tmp_path / "x.npy"), "x").splitlines()


def test_predictions_are_printed_with_their_kind(capsys, tmp_path):
    x = make(0)["x"][:2, :3]
    yes = Sequential([layers.GRU(4, input_shape=(None, F)), layers.Dense(1, activation="sigmoid")])
    probability = yes.predict(x)[0, 0]
    label, sure = (1, probability) if probability > 0.5 else (0, 1 - probability)
    assert printed(capsys, tmp_path, yes, x)[0] == f"x[0]: {label} ({sure:.1%})"

    number = Sequential([layers.GRU(4, input_shape=(None, F)), layers.Dense(2)])
    first = ", ".join(f"{value:.6g}" for value in number.predict(x)[0])
    assert printed(capsys, tmp_path, number, x)[0] == f"x[0]: {first}"
    assert set(json.loads(printed(capsys, tmp_path, number, x, "--json")[0])) == {"input", "outputs"}

    logits = Sequential([layers.GRU(4, input_shape=(None, F)), layers.Dense(3)])
    logits.compile("adam", loss=fastgru.losses.CategoricalCrossentropy(from_logits=True))
    assert printed(capsys, tmp_path, logits, x)[0].startswith(f"x[0]: {logits.predict(x)[0].argmax()} (logit ")

    logit = Sequential([layers.GRU(4, input_shape=(None, F)), layers.Dense(1, bias_initializer="ones")])
    logit.compile("adam", loss=fastgru.losses.BinaryCrossentropy(from_logits=True))
    assert printed(capsys, tmp_path, logit, x)[0].startswith(f"x[0]: {int(logit.predict(x)[0, 0] > 0)} (logit ")

    tags = Sequential([layers.GRU(4, input_shape=(None, F), return_sequences=True), layers.Dense(3, "softmax")])
    lines = printed(capsys, tmp_path, tags, x)
    assert [line.split(": ")[0] for line in lines] == [f"x[{i}] step {t}" for i in range(2) for t in range(3)]


def test_models_that_were_never_compiled_are_evaluated_by_their_last_layer(capsys, tmp_path):
    classes, numbers = write(tmp_path / "c.npz", "label"), write(tmp_path / "n.npz", "two")
    for head, file, metric in [
        (layers.Dense(2, "softmax"), classes, "accuracy"),
        (layers.Dense(2), classes, "accuracy"),
        (layers.Dense(1, "sigmoid"), classes, "accuracy"),
        (layers.Dense(2), numbers, "mean_absolute_error"),
    ]:
        Sequential([layers.GRU(4, input_shape=(T, F)), head]).save(tmp_path / "m")
        assert metric in run(capsys, "evaluate", str(tmp_path / "m"), file)[1]


# --- Going on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["arrays", "synthetic"])
def test_an_interrupted_training_resumes_bit_identically(capsys, monkeypatch, tmp_path, source):
    generate = synthetic.load_data
    monkeypatch.setattr(synthetic, "load_data", lambda seed=0: generate(train=200, test=50, seed=seed))
    file = write(tmp_path / "d.npz", "tags") if source == "arrays" else source
    begun = ["train", file, "--epochs", "5", "--units", "8", "--dropout", "0.2", "--schedule", "cosine"]
    begun += ["--validation", "0.2", "--patience", "3", "--batch-size", "16"]
    whole, resumed, kept = (str(tmp_path / name) for name in ("whole", "resumed", "{epoch}.safetensors"))
    assert main([*begun, "--seed", "2", "--save", whole]) == 0

    def interrupt(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(train.Seed, "on_epoch_begin", interrupt)
        assert (
            main([*begun, "--seed", "2", "--checkpoint", kept, "--resume-if-exists"]) == 130
        )  # there is none yet: from the start
    assert capsys.readouterr().err == f"fastgru: interrupted; --resume continues from {kept}\n"
    assert main([*begun, "--checkpoint", kept, "--resume", "--save", resumed]) == 0
    printed = capsys.readouterr().out
    assert "Epoch 3/5" in printed
    assert " after 5 epochs, 3 of them now, in " in printed
    assert "Epoch 2/5" not in printed
    assert "seed 2" in printed
    for one, other in zip(load_model(whole).get_weights(), load_model(resumed).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    assert main([*begun, "--checkpoint", kept, "--resume"]) == 0  # nothing is left to do
    assert "Epoch" not in capsys.readouterr().out
    assert main([*begun, "--checkpoint", kept, "--resume", "--seed", "3"]) == 2
    assert "--seed: expected 2 because the checkpoint was written with it, got 3" in capsys.readouterr().err
    gru = 1 if source == "synthetic" else 0  # digits are scaled by the first layer
    where = begun.index("--patience")
    for other, message in (
        (
            [*begun, "--units", "9"],
            f"--resume: expected a model with the same layers[{gru}]/config/units, 8, got 9; use",
        ),
        (begun[:where] + begun[where + 2 :], "--resume: expected ['EarlyStopping', 'Seed', 'ModelCheckpoint'] because"),
    ):
        assert main([*other, "--checkpoint", kept, "--resume"]) == 2
        assert message in capsys.readouterr().err
    assert main([*begun, "--checkpoint", whole, "--resume"]) == 2
    assert f"--resume: expected a checkpoint of fastgru train, got {whole}" in capsys.readouterr().err


def test_patience_stops_and_keeps_the_best_weights(capsys, tmp_path):
    file = write(tmp_path / "d.npz", "label", test=False)
    settings = ["--epochs", "200", "--units", "8", "--learning-rate", "0.05", "--seed", "0"]
    lines, result = run(capsys, "train", file, *settings, "--validation", "0.3", "--patience", "2")
    assert result["epochs"] < 200
    losses = [float(line.split("val_loss ")[1].split(",")[0]) for line in lines if line.startswith("Epoch ")]
    assert result["loss"] == pytest.approx(min(losses), abs=1e-4)


# --- Recipes and seeds ----------------------------------------------------------------------------------------


def test_recipes_are_settings_that_options_change(capsys, monkeypatch):
    generate = synthetic.load_data
    monkeypatch.setattr(synthetic, "load_data", lambda seed=0: generate(train=300, test=100, seed=seed))
    lines, result = run(capsys, "train", "synthetic", "--recipe", "fast", "--epochs", "2", "--seeds", "3,4")
    assert result["batch_size"] == recipes.RECIPES["fast"].batch_size
    assert [(each["seed"], each["epochs"]) for each in result["runs"]] == [(3, 2), (4, 2)]
    assert result["mean"]["accuracy"] == pytest.approx(np.mean([each["accuracy"] for each in result["runs"]]))
    assert [line.split(":")[0] for line in lines if line.startswith("Seed ")] == ["Seed 3", "Seed 4"]
    assert "mean of 2 seeds: test accuracy " in lines[-2]
    alone = run(capsys, "train", "synthetic", "--recipe", "fast", "--epochs", "2", "--seed", "4")[1]
    assert alone["accuracy"] == result["runs"][1]["accuracy"]
    assert alone["loss"] == result["runs"][1]["loss"]


@pytest.mark.parametrize("setting", [each.name for each in dataclasses.fields(recipes.Settings)])
def test_each_setting_is_an_option_that_is_checked(capsys, setting):
    option = f"--{setting.replace('_', '-')}"
    with pytest.raises(SystemExit) as caught:
        main(["train", f"{option}=?"])
    assert caught.value.code == 2
    assert f"fastgru train: {option}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recipe_prints_when_its_goal_was_reached(capsys, monkeypatch):
    digits = synthetic.load_data(train=600, test=200, seed=0)
    monkeypatch.setattr(mnist, "locate", lambda folder: (digits, "a test"))
    command = ["train", "mnist", "--recipe", "fast", "--epochs", "1", "--seeds", "0,1"]
    _, result = run(capsys, *command)
    first, second = (each["accuracy"] for each in result["runs"])
    assert first != second
    goals = []
    for goal in (0.0001, (first + second) / 2, 0.9999):
        monkeypatch.setitem(recipes.GOALS, "fast", goal)
        goals.append(next(line for line in run(capsys, *command)[0] if line.startswith("Goal: ")))
    better = int(second > first)
    assert re.fullmatch(r"Goal: 0.0% on the test images reached in [\d.]+ s \(seed 0\), [\d.]+ s \(seed 1\)", goals[0])
    assert re.fullmatch(rf".* reached in [\d.]+ s \(seed {better}\); not by 1 of 2 seeds", goals[1])
    assert goals[2] == "Goal: 100.0% on the test images was not reached"
    assert not [line for line in run(capsys, "train", "mnist", "--epochs", "1")[0] if line.startswith("Goal")]


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes_learn(capsys, monkeypatch, name):
    generate = synthetic.load_data
    monkeypatch.setattr(synthetic, "load_data", lambda seed=0: generate(train=15_000, test=1000, seed=seed))
    assert run(capsys, "train", "synthetic", "--recipe", name, "--seed", "0")[1]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("schedule", "optimizer", "rates"),
    [
        ("constant", "adam", (0.001, 0.001)),
        ("constant", "sgd", (0.01, 0.01)),
        ("cosine", "adam", (0.001, 0.0)),
        ("exponential", "adamw", (0.001, 0.00001)),
    ],
)
def test_schedules_span_the_whole_training(schedule, optimizer, rates):
    recipe = recipes.Recipe(schedule=schedule, optimizer=optimizer, epochs=4, batch_size=10)
    made = recipe.make_optimizer(25)  # three batches an epoch
    assert made.rate == pytest.approx(rates[0])
    made.step = 12
    assert made.rate == pytest.approx(rates[1])


def test_one_cycle_rises_to_the_learning_rate_and_falls_below_its_first():
    made = recipes.Recipe(schedule="onecycle", learning_rate=0.1, epochs=5, batch_size=10).make_optimizer(20)
    found = []
    for made.step in range(10):
        found.append(made.rate)
    assert max(found) == pytest.approx(0.1)
    assert found[-1] < found[0]


def test_a_recipe_sets_the_weight_decay():
    optimizer = recipes.Recipe(optimizer="adamw", weight_decay=0.25).make_optimizer(100)
    assert (type(optimizer).__name__, optimizer.weight_decay) == ("AdamW", 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": ()}, "units: expected at least one layer, got none"),
        ({"units": (8, 0)}, "units: expected an integer of at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: expected a finite number"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1"),
        ({"optimizer": "lion"}, "optimizer: expected one of 'adam'"),
        ({"schedule": "step"}, "schedule: expected one of 'constant'"),
        ({"clip_norm": 0.0}, "clip_norm: expected a finite number above 0"),
        ({"optimizer": "adamw", "weight_decay": -1}, "weight_decay: expected a finite number at least 0"),
        ({"weight_decay": 0.1}, "weight_decay: expected None because the optimizer is adam, got 0.1"),
    ],
)
def test_recipes_raise_for_unknown_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        recipes.Recipe(**settings)


# --- Pictures and errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", ["tags", "two"])
def test_plots_of_tags_and_of_numbers(tmp_path, y):
    pytest.importorskip("matplotlib")
    file, picture = write(tmp_path / "d.npz", y, test=False), tmp_path / "p.png"
    settings = ["--epochs", "2", "--units", "4", "--validation", "0.2"]
    assert main(["train", file, *settings, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


WRONG = [
    ({"y": np.zeros((6, 4, 2), int)}, [], "y: expected shape (6,) or (6, 4), a class for each sequence or for each"),
    ({"y": np.full(6, -1)}, [], "y: expected classes, integers from 0 to 65535, got -1 at index 0"),
    ({"y": np.array([0, 1, 0, 1, 0, 10**12])}, [], "got 1000000000000 at index 5"),
    ({"y": np.zeros(6, int)}, [], "y: expected at least two classes, got only class 0"),
    ({"y": np.full(6, 0.5)}, ["--task", "classify"], "y: expected classes, integers from 0 to 65535, got 0.5"),
    ({"y": np.array([1, 2, np.nan, 4, 5, 6])}, [], "y: expected finite numbers, got nan at index (2,)"),
    ({"y": np.arange(6), "x_test": np.zeros((2, 4, 3), np.float32)}, [], "expected an array with the name y_test, got"),
    (
        {"y": np.zeros((6, 2)), "x_test": np.zeros((2, 4, 3), np.float32), "y_test": np.zeros((2, 3))},
        [],
        "y_test: expected targets like those in y, (6, 2), got (2, 3)",
    ),
]


@pytest.mark.parametrize(("arrays", "options", "message"), WRONG, ids=[row[2][:40] for row in WRONG])
def test_arrays_that_define_no_task(capsys, tmp_path, arrays, options, message):
    file = tmp_path / "d.npz"
    np.savez(file, **{"x": np.zeros((6, 4, 3), np.float32), **arrays})
    assert main(["train", str(file), *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def code_of(arguments):
    """Return the exit code, which argparse raises and `main` returns."""
    try:
        return main(arguments)
    except SystemExit as exit_:
        return exit_.code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patience", "1"], "--patience: expected --validation FRACTION as well"),
        (["--validation-samples", "last"], "--validation-samples: expected --validation FRACTION as"),
        (["--resume"], "--resume: expected --checkpoint FILE as well"),
        (["--resume-if-exists"], "--resume-if-exists: expected --checkpoint FILE as well"),
        (["--seeds", "0,1", "--save", "m"], "--save: expected none because --seeds trains several"),
        (
            ["--save", "same.safetensors", "--checkpoint", "./same.safetensors"],
            "--checkpoint: expected another file than --save, which would replace it, got ./same.safetensors",
        ),
        (["--weight-decay", "0.1"], "--weight-decay: expected None because the optimizer is adam, got 0.1"),
        (["--units", "8,x"], "--units: expected an integer, got 'x'"),
        (["--units", "8,,8"], "--units: expected an integer, got ''"),
        (["--dropout", "1"], "--dropout: expected a finite number at least 0 and below 1, got 1.0"),
        (["--validation", "0"], "--validation: expected a finite number above 0 and below 1, got 0.0"),
        (["--optimizer", "lion"], "--optimizer: expected one of adam, adamw, sgd, rmsprop, got 'lion'"),
        (["--recipe", "slow"], "--recipe: expected one of fast, got 'slow'"),
        (["--seed", "1", "--seeds", "1,2"], "not allowed with argument"),
    ],
)
def test_invalid_options(capsys, options, message):
    assert code_of(["train", "synthetic", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    Sequential([layers.GRU(4, input_shape=(T, F)), layers.Dense(2, "softmax")]).save(path)
    return str(path)


def test_errors_of_predict_and_evaluate(capsys, tmp_path, small_model):
    good, other = write(tmp_path / "d.npz", "label"), tmp_path / "other.npz"
    np.savez(other, x=np.zeros((2, T, F + 1), np.float32), y=np.arange(2))
    broken = tmp_path / "nan.npz"
    np.savez(broken, x=np.full((1, T, F), np.nan, np.float32))
    for arguments, code, message in [
        (["predict", small_model, good, "--out", "x.txt"], 2, "--out: expected a file name that ends with .csv, .npz"),
        (["predict", small_model, good, good, "--out", "x.csv"], 2, "--out: expected one input because one file is"),
        (["predict", small_model, good, "--out", "/nowhere/x.csv"], 2, "--out: expected a file in an existing folder"),
        (["predict", small_model, good, "--invert"], 1, "--invert: expected images or .npy files"),
        (["predict", small_model, str(other)], 1, f"{other}: x: expected shape (N, {T}, {F}) because that is the"),
        (["predict", small_model, str(broken)], 1, f"{broken}: the model's outputs are not finite"),
        (["predict", small_model, str(broken), "--out", str(tmp_path / "o.csv")], 1, f"{broken}[0]: the model's"),
        (["predict", small_model, str(tmp_path)], 1, f"{tmp_path}: expected an array with the name x, got"),
        (
            ["predict", small_model, "/nowhere/d.npz"],
            2,
            "expected an existing file, got '/nowhere/d.npz'",
        ),
        (["evaluate", small_model, str(other)], 1, f"{other}: x: expected shape (N, {T}, {F})"),
        (["evaluate", small_model, "/nowhere/d.npz"], 2, "DATA: expected mnist, synthetic, an existing .npz file or"),
        (["evaluate", small_model, good, "--data", "."], 2, "--data: expected none because the arrays are in"),
        (["evaluate", small_model, "synthetic", "--task", "regress"], 2, "--task: expected none because digits are"),
        (["train", __file__], 1, "expected an .npz file, or a folder with x.npy"),
        (["train", "/nowhere/d"], 2, "DATA: expected mnist, synthetic, an existing .npz file or a folder of"),
    ]:
        assert code_of(arguments) == code, arguments
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "o.csv").exists()
