"""``fastgru info MODEL`` describes the saved model."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model, optimizers, schedules
from fastgru.cli import main
from fastgru.formats import native
from safetensors.numpy import save_file

pytestmark = pytest.mark.isa_independent

NAMES = {
    "m.safetensors": "fastgru",
    "model.json": "tfjs",
    "m.keras": "keras",
    "m.h5": "keras_h5",
    "m.pt": "torch",
    "m.torch.safetensors": "torch",
    "m.onnx": "onnx",
    "m.rtneural.json": "rtneural",
}
#: Formats that store the optimizer, the loss and the metrics.
COMPILED = ("fastgru", "tfjs", "keras", "keras_h5", "torch")


def make(name):
    """Return a model that the format supports."""
    gru = {"reset_after": False, "recurrent_activation": "hard_sigmoid_tfjs"} if name == "model.json" else {}
    return Sequential(
        [layers.GRU(4, return_sequences="rtneural" in name, input_shape=(None, 3), **gru), layers.Dense(2)],
        name="chain",
    )


def info(capsys, *arguments):
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def text(capsys, *arguments):
    assert main(["info", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.peers("onnx")] if n == "m.onnx" else []) for n in NAMES]
)
def test_a_file_of_any_format_is_described(capsys, tmp_path, name):
    if name.endswith((".keras", ".h5")):
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    model, path = make(name), tmp_path / name
    model.compile(optimizers.SGD(0.25), "mean_squared_error", metrics=["mean_absolute_error"])
    model.save(path)
    facts = info(capsys, path)
    assert (facts["file"], facts["format"], facts["file_bytes"]) == (str(path), NAMES[name], path.stat().st_size)
    assert facts["dtype"] == "float32"
    assert facts["parameters"] == model.count_params()
    assert facts["input_shape"] == [None, None, 3]
    assert facts["output_shape"] == list(model.output_shape)
    assert [each["class"] for each in facts["layers"]] == ["GRU", "Dense"]
    assert [each["parameters"] for each in facts["layers"]] == [layer.count_params() for layer in model.layers]
    for each, layer in zip(facts["layers"], model.layers, strict=True):
        assert each["weights"] == {name: list(array.shape) for name, array in layer.parameters.items()}
        assert each["config"]["units"] == layer.units
    assert facts["training"] is None
    if NAMES[name] in COMPILED:
        assert (facts["compiled"]["optimizer"], facts["compiled"]["learning_rate"]) == ("SGD", 0.25)
        assert facts["compiled"]["loss"] == "mean_squared_error"
        assert facts["compiled"]["metrics"] == [metric.name for metric in load_model(path).metrics] != []
    else:
        assert facts["compiled"] is None
    shown = text(capsys, path)
    assert shown.startswith(f"File: {path} ({NAMES[name]}, {path.stat().st_size:,} bytes)\n")
    assert f"Total: {model.count_params()} parameters, {model.count_params() * 4} bytes" in shown
    assert ("optimizer SGD (learning rate 0.25), loss mean_squared_error" in shown) == (NAMES[name] in COMPILED)


def test_the_table_has_the_rows_of_summary(capsys, tmp_path):
    model = Sequential(
        [
            layers.Embedding(20, 5, mask_zero=True, input_shape=(None,)),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.GRU(3),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.save(tmp_path / "m")
    model.summary()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "(" in line and "Layer" not in line]
    rows = [row for row in rows if row[1].startswith("(")]  # without the totals
    assert len(rows) == 5
    shown = [line.split() for line in text(capsys, tmp_path / "m").splitlines()]
    for row in rows:
        assert any(line[: len(row)] == row for line in shown)
    assert "forward/recurrent_kernel (4, 12)" in text(capsys, tmp_path / "m")


def test_a_checkpoint_shows_the_progress_of_training(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5, 3)).astype(np.float32), np.arange(40) % 2
    model = Sequential([layers.GRU(4, input_shape=(None, 3)), layers.Dense(2, activation="softmax")])
    schedule = schedules.CosineDecay(0.1, 100)
    model.compile(optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x,
        y,
        epochs=3,
        batch_size=8,
        verbose=0,
        validation_split=0.2,
        callbacks=[callbacks.EarlyStopping(patience=5), callbacks.ModelCheckpoint(str(tmp_path / "c.safetensors"))],
    )
    facts = info(capsys, tmp_path / "c.safetensors")
    assert facts["training"]["epochs_done"] == 3
    assert facts["training"]["batches_done_in_epoch"] == 0
    assert facts["training"]["last_epoch"] == {name: values[-1] for name, values in history.history.items()}
    assert facts["training"]["best"] == {"EarlyStopping": min(history.history["val_loss"])}
    assert facts["compiled"]["updates"] == 12
    assert facts["compiled"]["learning_rate"] == pytest.approx(model.optimizer.rate)
    assert facts["compiled"]["learning_rate"] < 0.1
    shown = text(capsys, tmp_path / "c.safetensors")
    assert "of CosineDecay), loss sparse_categorical_crossentropy, metrics accuracy; 12 updates done" in shown
    assert "Checkpoint: 3 epochs done; last epoch: loss " in shown


def test_a_damaged_training_state_is_a_one_line_error(capsys, tmp_path):
    path = tmp_path / "m.safetensors"
    make("m").save(path)
    config, tensors = native.load(path)
    for state in ({"epoch": 1}, [], {"epoch": 1, "batch": 0, "history": 3, "callbacks": []}):
        native.save(path, config | {"training": state}, tensors)
        assert main(["info", str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fastgru: {path}: the state of the training is damaged")


def test_assumptions_are_shown_with_the_options_that_confirm_them(capsys, tmp_path):
    path = tmp_path / "m.safetensors"
    shapes = {
        "gru.weight_ih_l0": (12, 3),
        "gru.weight_hh_l0": (12, 4),
        "gru.bias_ih_l0": (12,),
        "gru.bias_hh_l0": (12,),
        "head.weight": (2, 4),
        "head.bias": (2,),
    }
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    facts = info(capsys, path)
    assert (facts["format"], facts["parameters"]) == ("torch", 118)
    assert facts["assumptions"][0].startswith("Assumptions, because a state_dict contains the weights of modules")
    assert all(line in text(capsys, path) for line in facts["assumptions"])
    options = shlex.split(facts["assumptions"][-1].rpartition(" pass ")[2])
    assert options[0].startswith("--")
    assert info(capsys, path, *options)["assumptions"] == []


def test_an_unknown_loss_does_not_hide_the_model(capsys, tmp_path):
    path = tmp_path / "model.json"
    model = make("model.json")
    model.compile("sgd", "mean_squared_error")
    model.save(path)
    path.write_text(path.read_text().replace('"SGD"', '"Adadelta"'))
    facts = info(capsys, path)
    assert facts["compiled"] is None
    assert "got 'Adadelta'" in facts["not_compiled_because"]
    assert "compile=False" not in facts["not_compiled_because"]  # nothing that can be typed here
    assert facts["parameters"] == model.count_params()
    assert "got 'Adadelta'" in text(capsys, path)
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 3), np.float32))
    assert main(["predict", str(path), str(tmp_path / "x.npy")]) == 0  # needs no optimizer
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err.startswith(f"fastgru: {path}: read without optimizer, loss and metrics: ")
    assert load_model(path, compile=False).optimizer is None


def test_files_without_a_model_are_a_one_line_error(capsys, tmp_path):
    (tmp_path / "m.keras").write_bytes(b"no model")
    assert main(["info", str(tmp_path / "m.keras")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "m.keras" in line
