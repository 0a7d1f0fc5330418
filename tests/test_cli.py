"""The command line: processes, their output and their exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import termios

import fastgru
import numpy as np
import pytest
from fastgru import load_model
from fastgru.cli import images, main
from fastgru.datasets import synthetic
from models import classifier


@pytest.fixture(autouse=True)
def small_synthetic(monkeypatch):
    """Reduce the data set to fewer than 60,000 images for calls in this process."""
    make = synthetic.load_data
    monkeypatch.setattr(synthetic, "load_data", lambda seed=0: make(train=600, test=200, seed=seed))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    classifier(8, classes=10, input_shape=(28, 28)).save(path)
    return path


def test_train_prints_the_data_set_first_and_last(capsys, tmp_path):
    path = tmp_path / "m.safetensors"
    assert main(["train", "synthetic", "--epochs", "2", "--units", "8", "--seed", "1", "--save", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Data: synthetic (as requested, generated digits)"
    assert lines[-1].startswith("Result: synthetic (as requested, generated digits): test accuracy ")
    assert sum(line.startswith("Epoch ") for line in lines) == 2
    assert load_model(path).get_layer("gru").units == 8


def test_train_ends_with_one_line_of_json(capsys):
    arguments = ["train", "synthetic", "--epochs", "1", "--units", "8", "--seed", "7", "--threads", "1", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {
        *("dataset", "epochs", "batch_size", "accuracy", "loss", "seconds", "samples_per_second"),
        *("isa", "threads", "seed", "version"),
    }
    assert (result["dataset"], result["epochs"], result["batch_size"], result["seed"]) == ("synthetic", 1, 32, 7)
    assert (result["threads"], result["version"]) == (1, fastgru.__version__)
    again = main(arguments)
    assert again == 0
    repeated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (repeated["accuracy"], repeated["loss"]) == (result["accuracy"], result["loss"])


def test_train_without_a_data_set_falls_back_and_prints_the_reason(capsys, monkeypatch):
    def unavailable(path):
        assert path is None
        raise fastgru.datasets.mnist.DataUnavailableError("MNIST is nowhere")

    monkeypatch.setattr(fastgru.datasets.mnist, "locate", unavailable)
    assert main(["train", "--epochs", "1", "--units", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (lines[0], lines[-1]):
        assert "synthetic (generated digits, because MNIST is nowhere)" in line
    assert main(["train", "mnist"]) == 1
    assert capsys.readouterr().err.startswith("fastgru: MNIST is nowhere; put the four files into a folder")


def test_a_missing_folder_raises_instead_of_falling_back(capsys, tmp_path):
    assert main(["train", "--data", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastgru: {tmp_path}: expected train-images-idx3-ubyte")
    assert len(error.splitlines()) == 1


def test_plot_writes_an_image(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "p.png"
    assert main(["train", "synthetic", "--epochs", "1", "--units", "4", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"Plot: {path}" in capsys.readouterr().out


def test_evaluate(capsys, model_file):
    assert main(["evaluate", str(model_file), "synthetic", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    (_, _), (x, y) = synthetic.load_data()
    loss, accuracy = load_model(model_file).evaluate(x, y)
    assert (result["loss"], result["accuracy"]) == (loss, accuracy)


def test_predict_reads_images_and_arrays(capsys, model_file, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    x, _ = synthetic.make_digits(3, 0)
    image_module.fromarray(x[0]).save(tmp_path / "a.png")
    image_module.fromarray(255 - x[0]).save(tmp_path / "inverted.png")
    np.save(tmp_path / "b.npy", x)
    expected = load_model(model_file).predict(x)
    assert main(["predict", str(model_file), str(tmp_path / "a.png"), str(tmp_path / "b.npy")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'a.png'}: {expected[0].argmax()} ({expected[0].max():.1%})"
    assert [line.rpartition(": ")[2].split()[0] for line in lines[1:]] == [str(e.argmax()) for e in expected]
    assert main(["predict", str(model_file), "--json", "--invert", str(tmp_path / "inverted.png")]) == 0
    result = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(result["outputs"], expected[0], rtol=1e-6)


def test_uint8_is_scaled_by_the_model_or_an_option(capsys, tmp_path):
    (x, y), (x_test, y_test) = synthetic.load_data()
    np.savez(tmp_path / "d.npz", x=x[:60], y=y[:60], x_test=x_test[:20], y_test=y_test[:20])
    np.savez(tmp_path / "scaled.npz", x=x[:60] / 255, y=y[:60], x_test=x_test[:20] / 255, y_test=y_test[:20])
    train = ["--epochs", "1", "--units", "4", "--seed", "1", "--save"]
    layers_of = {}
    for name, file, options, line in (
        ("plain", "d.npz", [], "Input: uint8, not scaled; use --divide-by 255 for the bytes of images\n"),
        ("divided", "d.npz", ["--divide-by", "255"], "Input: uint8, divided by 255 in the model's first layer\n"),
        ("floats", "scaled.npz", [], ""),
        ("double", "scaled.npz", ["--dtype", "float64"], ""),
    ):
        assert main(["train", str(tmp_path / file), *options, *train, str(tmp_path / f"{name}.safetensors")]) == 0
        printed = capsys.readouterr().out
        assert line in printed
        assert ("Input:" in printed) == bool(line)
        layers_of[name] = [type(layer).__name__ for layer in load_model(tmp_path / f"{name}.safetensors").layers]
    assert layers_of["divided"] == ["Rescaling", "GRU", "Dense"]
    assert layers_of["plain"] == layers_of["floats"] == layers_of["double"] == ["GRU", "Dense"]
    assert load_model(tmp_path / "double.safetensors").dtype == "float64"

    # A model without a Rescaling layer, and one with it.
    found = {}
    for name, file, options, note in (
        ("floats", "d.npz", [], "uint8 numbers are not scaled because"),
        ("floats", "d.npz", ["--divide-by", "255"], ""),
        ("floats", "scaled.npz", [], ""),
        ("divided", "d.npz", [], ""),
    ):
        model = str(tmp_path / f"{name}.safetensors")
        assert main(["evaluate", model, str(tmp_path / file), "--json", *options]) == 0
        captured = capsys.readouterr()
        assert note in captured.err
        assert bool(captured.err) == bool(note)
        found[name, file, *options] = json.loads(captured.out.splitlines()[-1])["loss"]
    scaled = found["floats", "d.npz", "--divide-by", "255"]
    assert scaled == pytest.approx(found["floats", "scaled.npz"], rel=1e-5)
    assert abs(scaled - found["floats", "d.npz"]) > 1e-3
    model = str(tmp_path / "divided.safetensors")
    assert main(["predict", model, str(tmp_path / "d.npz"), "--divide-by", "255"]) == 2
    assert "--divide-by: expected none because" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", x[:2])
    assert main(["predict", str(tmp_path / "floats.safetensors"), str(tmp_path / "x.npy")]) == 0
    assert "x.npy: uint8 numbers are not scaled" in capsys.readouterr().err


def test_info_prints_the_instruction_set_and_the_reason(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert f"fastgru {fastgru.__version__}" in printed
    assert "instruction set: " in printed
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["isa"] == fastgru._native.ISA


def png(array):
    data = io.BytesIO()
    pytest.importorskip("PIL.Image").fromarray(array).save(data, "png")
    return data.getvalue()


@pytest.mark.parametrize("kind", ["grey", "RGB", "alpha", "16 bits", "palette"])
def test_images_of_every_mode_give_the_same_digit(kind, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    (x,), _ = synthetic.make_digits(1, 0)
    white = np.full_like(x, 255)
    picture = {
        "grey": lambda: image_module.fromarray(x),
        "RGB": lambda: image_module.fromarray(np.stack([x, x, x], axis=-1)),
        "alpha": lambda: image_module.fromarray(np.stack([white, white, white, x], axis=-1)),
        "16 bits": lambda: image_module.fromarray(x.astype(np.uint16) * 257),
        "palette": lambda: image_module.fromarray(x).convert("P"),
    }[kind]()
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(images.read_samples(tmp_path / "p.png", 28, 28)[0], x)


BAD = [
    (["train", "--units", "0"], 2, "--units: expected an integer of at least 1, got 0"),
    (["train", "--epochs", "many"], 2, "--epochs: expected an integer, got 'many'"),
    (["train", "--learning-rate", "-1"], 2, "--learning-rate: expected a finite number above 0"),
    (["train", "cifar"], 2, "DATA: expected mnist, synthetic, an existing .npz file or a folder of .npy files, got"),
    (["train", "--threads", "9999"], 2, "--threads: expected an integer of at most 1024, got 9999"),
    (["train", "--plot", "mnist"], 2, "--plot: expected a file name that ends with .png"),
    (["train", "synthetic", "--data", "."], 2, "--data: expected none because synthetic digits"),
    (["train", "synthetic", "--save", "/nowhere/m"], 2, "--save: expected a file in an existing folder"),
    (["train", "synthetic", "--save", "."], 2, "--save: expected a file to write, got the folder"),
    (["train", "synthetic", "--learning-rate", "3e38", "--units", "4"], 1, "training stopped in epoch 1, batch "),
    (["evaluate", "/nowhere/m.safetensors"], 2, "MODEL: expected an existing model file, got '/nowhere/m.safetensors'"),
    (["predict", __file__, __file__], 1, "expected a model file of one of the formats"),
    (["predict"], 2, "the following arguments are required: MODEL, IMAGE"),
    ([], 2, "the following arguments are required: COMMAND"),
    (["paint"], 2, "COMMAND: expected one of train, evaluate, predict, convert, info, got 'paint'"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[" ".join(row[0][:3]) or "none" for row in BAD])
def test_errors_are_one_line_and_an_exit_code(capsys, arguments, code, message):
    try:
        returned = main(arguments)
    except SystemExit as exit_:
        returned = exit_.code
    assert returned == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error


def claim_rows(path, rows):
    """Write a .npy file of a few bytes whose header declares many samples."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, 28, 28)})
        file.write(bytes(64))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "wrong.npy",
            lambda p: np.save(p, np.zeros((5, 5), np.float32)),
            "expected one or more samples of shape (28, 28)",
        ),
        ("four.npy", lambda p: np.save(p, np.zeros((2, 2, 28, 28), np.float32)), "got (2, 2, 28, 28)"),
        ("scalar.npy", lambda p: np.save(p, np.float32(1)), "expected one or more samples of shape (28, 28)"),
        ("nan.npy", lambda p: np.save(p, np.full((28, 28), np.nan, np.float32)), "outputs are not finite"),
        ("header.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': (      \n"), "not a .npy file"),
        ("pickle.npy", lambda p: p.write_bytes(b"PK\x03\x04"), "not a .npy file of numbers"),
        ("folder.png", lambda p: p.mkdir(), "expected a regular file or a link to one, got a folder"),
        ("cut.png", lambda p: p.write_bytes(png(np.zeros((28, 28), np.uint8))[:-30]), "damaged image"),
        (
            "bomb.png",
            lambda p: p.write_bytes(png(np.zeros((9000, 9999), bool))),
            "pixels, got 9999 x 9000",
        ),
        ("huge.png", lambda p: p.write_bytes(png(np.zeros((20000, 20000), bool))), "damaged image"),
        ("objects.npy", lambda p: np.save(p, np.array([{}]), allow_pickle=True), "not a .npy file of numbers"),
        ("complex.npy", lambda p: np.save(p, np.zeros((28, 28), complex)), "got complex128"),
        ("claims.npy", lambda p: claim_rows(p, 10**13), "damaged: expected 31,360,000,000,000,000 bytes"),
        ("cut.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "not a .npy file of numbers"),
        ("text.png", lambda p: p.write_text("hello"), "neither an image nor a .npy file"),
    ],
)
def test_predict_raises_for_invalid_files(capsys, model_file, tmp_path, name, make, message):
    pytest.importorskip("PIL")
    path = tmp_path / name
    make(path)
    assert main(["predict", str(model_file), str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert name in error
    assert len(error.splitlines()) == 1


def test_nan_does_not_overwrite_a_saved_model(capsys, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")
    assert main(["train", "synthetic", "--learning-rate", "3e38", "--units", "4", "--save", str(path)]) == 1
    assert path.read_bytes() == b"precious"
    assert f"{path} was not written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("sigint_interrupts")
def test_ctrl_c_saves_a_usable_model_and_leaves_no_traceback(tmp_path):
    path = tmp_path / "m.safetensors"
    command = [sys.executable, "-m", "fastgru", "train", "synthetic", "--epochs", "1000", "--save", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("Epoch 1/"):
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == f"fastgru: interrupted; the weights so far are saved to {path}\n"
    (_, _), (x, y) = synthetic.load_data()
    assert load_model(path).evaluate(x, y)[1] > 0.5


def test_a_closed_pipe_prints_no_traceback():
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(
        [sys.executable, "-m", "fastgru", "info"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.slow
def test_training_on_a_terminal_shows_a_bar():
    """On a pseudo-terminal, the bar is drawn and the line of every epoch remains."""
    terminal, inner = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    command = [sys.executable, "-m", "fastgru", "train", "synthetic", "--epochs", "1"]
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert process.wait() == 0
    text = shown.decode()
    assert "Epoch 1/1:   0%" in text
    assert "loss" in text
    assert "accuracy" in text
    assert "samples/s" in text
    assert "Result: synthetic" in text


@pytest.mark.slow
def test_the_real_mnist_is_learnt(mnist_folder, capsys):
    assert main(["train", "mnist", "--data", str(mnist_folder), "--epochs", "2", "--seed", "0", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Data: mnist (60,000 images")
    assert json.loads(lines[-1])["accuracy"] > 0.955
