"""Wrong arguments of the command line raise before the command starts, with one line that names the remedy."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import numpy as np
import pytest
from fastgru import Sequential, cli, formats, layers, load_model, losses, optimizers
from fastgru.cli import data, main, suggestions, targets
from fastgru.datasets import synthetic
from fastgru.models import saving
from models import classifier

pytestmark = pytest.mark.isa_independent


@pytest.fixture(autouse=True)
def in_a_folder(monkeypatch, tmp_path):
    """A folder with one file of each kind that commands read."""
    monkeypatch.chdir(tmp_path)
    make = synthetic.load_data
    monkeypatch.setattr(synthetic, "load_data", lambda seed=0: make(train=60, test=20, seed=seed))
    classifier(4, classes=10, input_shape=(28, 28)).save("model.safetensors")
    np.savez("data.npz", x=np.zeros((4, 28, 28), np.float32), y=np.arange(4))


@pytest.fixture
def without(monkeypatch):
    """Make a package unavailable."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


def failure(capsys, *arguments):
    """Return the line on standard error of a command that must end with exit code 2."""
    try:
        code = main(list(arguments))
    except SystemExit as exit_:
        code = exit_.code
    printed = capsys.readouterr()
    assert code == 2
    assert "Epoch" not in printed.out
    (line,) = printed.err.splitlines()
    return line


# --- Files to write -------------------------------------------------------------------------------------------

TARGETS = [
    (["--save", "m.onnx"], "onnx", "--save: ONNX files need the package onnx: pip install onnx"),
    (["--save", "m.keras"], "h5py", "--save: Keras files need the package h5py: pip install h5py"),
    (["--plot", "p.png"], "matplotlib", "--plot: plots need Matplotlib: pip install matplotlib"),
    (["--save", "m.docx"], None, "--save: expected a file name that ends with .torch.safetensors, .pt, "),
    (["--save", "m.safetensor"], None, "got 'm.safetensor'; did you mean .safetensors?"),
    (
        ["--save", "m.weights.h5"],
        None,
        "--save: expected the name of a model file because .weights.h5 files contain only weights",
    ),
    (["--save", "nowhere/m.keras"], None, "--save: expected a file in an existing folder, got nowhere/m.keras; make"),
    (["--save", "."], None, "--save: expected a file to write, got the folder ."),
    (["--save", "fifo"], None, "--save: fifo: expected a regular file or a link to one, got a FIFO"),
    (["--save", "/proc/m.safetensors"], None, "--save: /proc: "),  # where even root cannot create a file
    (["--checkpoint", "c.pt"], None, "--checkpoint: expected a file name that ends with .safetensors because"),
    (["--checkpoint", "c.torch.safetensors"], None, "because other files cannot store the state of a training run"),
    (["--checkpoint", "c.keras"], None, "got 'c.keras'; use --save for files of other frameworks"),
    (["--checkpoint", "c.backup"], None, "--checkpoint: expected a file name that ends with .safetensors because"),
    (["--checkpoint", "nowhere/c.safetensors"], None, "--checkpoint: expected a file in an existing folder"),
    (["--checkpoint", "/proc/c.safetensors"], None, "--checkpoint: /proc: "),
    (["--plot", "p.gif"], None, "--plot: expected a file name that ends with .png, .pdf, .svg, .jpg, got 'p.gif'"),
    (["--plot", "nowhere/p.png"], None, "--plot: expected a file in an existing folder"),
    (["--resume", "--checkpoint", "modl.safetensors"], None, "--resume: expected an existing checkpoint, got 'modl."),
    (["--resume", "--checkpoint", "modl.safetensors"], None, "did you mean model.safetensors?"),
    (["--resume", "--checkpoint", "model.safetensors"], None, "--resume: expected a checkpoint of fastgru train, got"),
    (["--resume-if-exists", "--checkpoint", "model.safetensors"], None, "expected a checkpoint of fastgru train, got"),
]


@pytest.mark.parametrize(("options", "missing", "message"), TARGETS, ids=[" ".join(row[0]) for row in TARGETS])
def test_targets_are_checked_before_data_is_read(capsys, monkeypatch, without, options, missing, message):
    os.mkfifo("fifo")
    if missing is not None:
        without(missing)
    monkeypatch.setattr(data, "load", lambda *arguments: pytest.fail("the data have been read"))
    before = set(os.listdir())
    line = failure(capsys, "train", "synthetic", *options)
    assert message in line
    assert line.startswith("fastgru train: ")
    assert line.endswith(" (see fastgru train --help)")
    assert set(os.listdir()) == before


def test_a_missing_onnx_package_is_reported_before_training(tmp_path):
    (tmp_path / "onnx.py").write_text("raise ImportError('not installed')")
    command = [sys.executable, "-m", "fastgru", "train", "synthetic", "--save", "m.onnx"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "fastgru train: --save: ONNX files need the package onnx: pip install onnx (see fastgru train --help)\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--save", "m.keras", "--schedule", "onecycle"],
            "--save: m.keras: learning_rate: OneCycle is not supported by Keras 3: compile with a number; save a "
            ".safetensors file and convert it with fastgru convert, which leaves the optimizer out",
        ),
        (["--save", "model.json"], "--save: model.json: "),  # reset_after=True
        (["--save", "m.rtneural.json"], "--save: m.rtneural.json: "),  # it has outputs at every step only
        (["--save", "m.pt", "--recurrent-dropout", "0.5"], "--save: m.pt: gru: recurrent_dropout=0.5 is not supported"),
        (["--save", "m.pt"], None),
    ],
)
def test_unsupported_models_are_reported_before_the_first_epoch(capsys, monkeypatch, options, message):
    if "m.keras" in options:
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    fitted = []
    monkeypatch.setattr(Sequential, "fit", lambda *arguments, **more: fitted.append(True) or 1 / 0)
    before = set(os.listdir())
    command = ["train", "synthetic", "--units", "4", *options]
    if message is None:  # this format holds the model
        assert main(command) == 1
        assert fitted
    else:
        assert message in failure(capsys, *command)
        assert not fitted
    assert set(os.listdir()) == before


def test_the_remedy_for_an_unsupported_format_works(capsys):
    pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    command = ["train", "synthetic", "--units", "4", "--epochs", "1", "--schedule", "onecycle"]
    assert main([*command, "--save", "m.safetensors"]) == 0
    assert main(["convert", "m.safetensors", "m.keras"]) == 0
    assert load_model("m.keras").optimizer is None
    assert "Without optimizer, loss and metrics: " in capsys.readouterr().out


@pytest.mark.parametrize(("out", "missing"), [("m.onnx", "onnx"), ("m.docx", None), ("nowhere/m.pt", None)])
def test_convert_checks_its_target_before_it_reads(capsys, without, out, missing):
    with open("broken.keras", "wb") as file:
        file.write(b"no model")
    if missing is not None:
        without(missing)
    assert failure(capsys, "convert", "broken.keras", out).startswith("fastgru convert: OUT: ")


def test_predict_checks_its_target_before_it_reads(capsys):
    with open("broken.keras", "wb") as file:
        file.write(b"no model")
    for out in ("o.xls", "nowhere/o.csv", "."):
        assert failure(capsys, "predict", "broken.keras", "data.npz", "--out", out).startswith("fastgru predict: --out")


NAMES = [
    pytest.param(name, marks=[pytest.mark.peers("onnx")] if name.endswith(".onnx") else [])
    for name in (ending.join(("m", "")) for each in formats.KINDS.values() for ending in each)
]


@pytest.mark.parametrize("name", NAMES)
def test_the_trial_agrees_with_saving(name):
    """`require_saveable` raises the same error as `save`, for every format, and leaves no file."""
    if name.endswith((".keras", ".h5", ".hdf5")):
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    plain = layers.GRU(3, return_sequences=True, input_shape=(None, 2))
    flat = layers.GRU(3, activation="relu", input_shape=(None, 2))
    before_reset = layers.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid_tfjs", input_shape=(None, 2))
    outcomes = set()
    for first in (plain, flat, before_reset):
        model = Sequential([first, layers.Dense(2)])
        model.compile(optimizers.Adam(), losses.Huber(2.0))
        for compiled in (True, False):
            before = set(os.listdir())
            trial = raised(lambda: saving.require_saveable(model._network, model._compilation, name, compiled=compiled))  # noqa: B023
            assert set(os.listdir()) == before
            assert trial == raised(lambda: model.save(name, include_optimizer=compiled))  # noqa: B023
            outcomes.add(trial is None)
            for file in set(os.listdir()) - before:
                os.remove(file)
    assert True in outcomes


def raised(call):
    """Return the error of a call as text, or None."""
    try:
        call()
    except (ValueError, TypeError, OSError, ImportError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_a_target(name):
    if name.endswith((".keras", ".h5", ".hdf5")):
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    before = set(os.listdir())
    targets.require_model_target("--save", name)
    assert set(os.listdir()) == before


# --- Typing errors --------------------------------------------------------------------------------------------

TYPED = [
    ("train --untis 64", "fastgru train: unknown option --untis; did you mean --units?"),
    ("train --untis=64 mnist", "unknown option --untis; did you mean --units?"),
    ("train --epoch 3", "unknown option --epoch; did you mean --epochs?"),
    ("train --learn 0.1", "unknown option --learn; did you mean --learning-rate?"),
    ("train --lr 0.1", "unknown option --lr; did you mean --learning-rate?"),
    ("train --batch_size 3", "unknown option --batch_size; did you mean --batch-size?"),
    ("train -units 3", "unknown option -units; did you mean --units?"),
    ("train --zzz", "fastgru train: unknown option --zzz (see fastgru train --help)"),
    ("predict model.safetensors data.npz --units 3", "unknown option --units; it is an option of fastgru train"),
    ("train --pooling max", "it is an option of fastgru evaluate, fastgru predict, fastgru convert"),
    ("--epochs 3 train", "fastgru: unknown option --epochs; it is an option of fastgru train"),
    ("trainn", "fastgru: COMMAND: expected one of train, evaluate, predict, convert, info, got 'trainn'; did you mean"),
    ("trainn", "did you mean train?"),
    ("train --optimizer adm", "--optimizer: expected one of adam, adamw, sgd, rmsprop, got 'adm'; did you mean adam?"),
    ("train --task classifi", "--task: expected one of classify, regress, got 'classifi'; did you mean classify?"),
    ("evaluate model.safetensors --activations relo", "got 'relo'; did you mean relu?"),
    ("train mnst", "DATA: expected mnist, synthetic, an existing .npz file or a folder of .npy files, got 'mnst'; did"),
    ("train mnst", "did you mean mnist?"),
    ("train dta.npz", "got 'dta.npz'; did you mean data.npz?"),
    ("evaluate modl.safetensors", "MODEL: expected an existing model file, got 'modl.safetensors'; did you mean"),
    ("evaluate modl.safetensors", "did you mean model.safetensors?"),
    ("info ./model.keras", "MODEL: expected an existing model file, got './model.keras'; did you mean ./model.safe"),
    (
        "convert model.pt m.keras",
        "IN: expected an existing model file, got 'model.pt'; did you mean model.safe",
    ),
    ("predict model.safetensors dat.npz", "IMAGE|ARRAYS: expected an existing file, got 'dat.npz'; did you mean data"),
    ("evaluate /nowhere/m.keras", "got '/nowhere/m.keras', in the folder /nowhere that does not exist"),
    ("train --data /nowhere", "--data: expected an existing folder, got '/nowhere'"),
    ("train mnist extra", "fastgru train: unexpected argument 'extra'"),
    ("train --units", "--units: expected one argument"),
    ("train --learning-rate -1e-3", "--learning-rate: expected a finite number above 0, got -0.001"),
]


@pytest.mark.parametrize(("words", "message"), TYPED, ids=[row[0] for row in TYPED])
def test_misspelt_arguments_suggest_the_nearest_name(capsys, words, message):
    line = failure(capsys, *words.split())
    assert message in line
    assert "--help)" in line


@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        ("--epoc", ["--epochs", "--seed"], "--epochs"),
        ("--val", ["--validation", "--validation-samples"], None),  # the beginning of two
        ("Adam", ["adam", "adamw"], "adam"),
        ("xyz", ["adam", "adamw"], None),
        ("", ["adam"], None),
        ("cn", ["clip-norm", "units"], "clip-norm"),
    ],
)
def test_nearest(word, names, expected):
    assert suggestions.nearest(word, names) == expected


def test_files_with_one_ending_are_not_all_alike():
    names = ["model.safetensors", "run.safetensors"]
    assert suggestions.nearest_file("c.safetensors", names) is None
    assert suggestions.nearest_file("rum.safetensors", names) == "run.safetensors"


def test_options_may_precede_positional_arguments(capsys):
    """Without the workaround, argparse assigns no value to DATA."""
    assert main(["evaluate", "model.safetensors", "--json", "synthetic"]) == 0
    assert '"dataset": "synthetic"' in capsys.readouterr().out
    assert main(["evaluate", "--", "model.safetensors", "synthetic"]) == 0
    assert main(["predict", "model.safetensors", "--out", "o.csv", "data.npz"]) == 0
    assert main(["predict", "model.safetensors", "--out=--odd.csv", "data.npz"]) == 0


# --- Help -----------------------------------------------------------------------------------------------------


def parsers():
    program = cli._parser()
    return {"fastgru": program} | {each.prog: each for each in program.commands.values()}


@pytest.mark.parametrize("name", parsers())
def test_help_explains_every_argument(capsys, name):
    parser = parsers()[name]
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, action.dest
    with pytest.raises(SystemExit) as caught:
        main([*name.split()[1:], "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for option in parser._option_string_actions:
        assert option in shown


def test_help_has_groups_and_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    order = [shown.index(f" {group}: ") for group in ("data", "network", "training", "output")]
    assert order == sorted(order)
    for text in (
        "(default: 64)",
        "(default: 10)",
        "(default: adam)",
        "per update of the weights (default: 32)",
    ):
        assert text in shown


def test_a_warning_is_one_line_without_a_place_in_the_source(tmp_path):
    np.savez(tmp_path / "big.npz", x=np.full((9, 3, 2), 1e300), y=np.zeros(9))
    command = [sys.executable, "-m", "fastgru", "train", "big.npz", "--units", "3", "--epochs", "1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 1
    warning, error = found.stderr.splitlines()
    assert warning.startswith("fastgru: warning: x: expected numbers in the range of float32")
    assert error.startswith("fastgru: training stopped")
