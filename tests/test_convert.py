"""``fastgru convert`` and its comparison of the outputs of both files."""

from __future__ import annotations

import numpy as np
import pytest
from fastgru import Sequential, conversion, formats, layers, load_model, metrics, optimizers
from fastgru.cli import main
from fastgru.conversion import runners

pytestmark = pytest.mark.isa_independent

NAMES = {
    "fastgru": "m.safetensors",
    "tfjs": "model.json",
    "keras": "m.keras",
    "keras_h5": "m.h5",
    "torch": "m.pt",
    "onnx": "m.onnx",
    "rtneural": "m.rtneural.json",
}


def stack(**gru):
    """Return a model that PyTorch, Keras and ONNX support."""
    return [
        layers.Bidirectional(
            layers.GRU(5, return_sequences=True, bias_initializer="random_normal", **gru), input_shape=(None, 3)
        ),
        layers.Bidirectional(layers.GRU(5, **gru)),
        layers.Dense(4, activation="softmax"),
    ]


def before():
    """Return a model that TensorFlow.js supports."""
    return [
        layers.GRU(6, recurrent_activation="hard_sigmoid_tfjs", reset_after=False, input_shape=(None, 3)),
        layers.Dense(2, activation="softmax"),
    ]


def each_step():
    """Return a model that RTNeural supports."""
    return [layers.GRU(6, return_sequences=True, input_shape=(None, 3)), layers.Dense(1)]


def states():
    """Return a model with four outputs, which Keras and ONNX support."""
    return [layers.Bidirectional(layers.GRU(3, return_sequences=True, return_state=True), None, input_shape=(None, 2))]


MODELS = {
    "fastgru": [stack, before, each_step, states],
    "tfjs": [before],
    "keras": [stack, each_step, states],
    "keras_h5": [stack, before, each_step, states],
    "torch": [stack, each_step],
    "onnx": [stack, before, each_step, states],
    "rtneural": [each_step],
}
PAIRS = [
    pytest.param(
        one,
        other,
        make,
        id=f"{one}-{other}-{make.__name__}",
        marks=[pytest.mark.peers("onnx")] if "onnx" in (one, other) else [],
    )
    for one in NAMES
    for other in NAMES
    for make in MODELS[one]
    if make in MODELS[other]
]


@pytest.mark.parametrize(("source", "target", "make"), PAIRS)
def test_every_format_converts_to_every_other(source, target, make, tmp_path, monkeypatch):
    if "keras" in source + target:
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    monkeypatch.setattr(runners, "_FRAMEWORKS", {})  # each framework judges its own files in its own tests
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    one, other = tmp_path / "in" / NAMES[source], tmp_path / "out" / NAMES[target]
    Sequential(make()).save(one)
    compared = conversion.convert(one, other)
    assert formats.kind_of_file(other) == target
    assert compared.largest > 0
    assert compared.difference <= 1e-6 * max(compared.largest, 1)


@pytest.mark.parametrize("name", ["m.pt", "m.torch.safetensors"])
def test_pytorch_runs_its_own_files(torch, name, tmp_path, capsys):
    del torch
    for number, chain in enumerate(
        (
            stack(),
            each_step(),
            [
                layers.Embedding(7, 3, input_shape=(None,)),
                layers.GRU(4, return_sequences=True),
                layers.GlobalMaxPooling1D(),
                layers.Dense(3, activation="tanh"),
            ],
        )
    ):
        source, target = tmp_path / f"{number}.safetensors", tmp_path / f"{number}{name}"
        Sequential(chain).save(source)
        assert main(["convert", str(source), str(target)]) == 0
        assert main(["convert", str(target), str(tmp_path / "back.safetensors")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{source} (fastgru, run by fastgru)"
        assert lines[1] == f"{target} (torch, run by PyTorch)"
        assert lines[3] == f"{target} (torch, run by PyTorch)"
        assert float(lines[2].split(": ")[1].split(",")[0]) < 1e-6


@pytest.mark.parametrize(
    "judge", [runners.EQUATIONS.name, pytest.param("Keras 2", marks=pytest.mark.peers("tensorflow", "tf_keras"))]
)
@pytest.mark.parametrize("target", ["tfjs/model.json", "m.safetensors"])
def test_keras_2_runs_its_own_files_if_installed(target, judge, tmp_path):
    # Keras 3 reads the file too, but its hard_sigmoid is another function.
    model = Sequential(
        [
            layers.GRU(32, recurrent_activation="hard_sigmoid_tfjs", reset_after=False, input_shape=(20, 9)),
            layers.Dense(3),
        ]
    )
    model.save(tmp_path / "m.h5")
    (tmp_path / target).parent.mkdir(exist_ok=True)
    compared = conversion.convert(tmp_path / "m.h5", tmp_path / target)
    assert compared.source == judge
    assert conversion.convert(tmp_path / target, tmp_path / "back.h5").target == judge


@pytest.mark.parametrize("judge", ["equations", pytest.param("PyTorch", marks=pytest.mark.peers("torch"))])
def test_a_file_that_computes_something_else_is_noticed(judge, monkeypatch, tmp_path, capsys):
    del judge  # what is installed decides
    model = Sequential(each_step())
    model.save(tmp_path / "m.safetensors")

    def broken(path, description, kind):
        description.layers[0].weights["kernel"] *= 1.01
        return write(path, description, kind)

    write = formats.write
    monkeypatch.setattr(formats, "write", broken)
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "m.pt")]) == 1
    assert "m.pt: not written because its outputs differ from those of" in capsys.readouterr().err
    assert not (tmp_path / "m.pt").exists()


def test_an_unsupported_training_configuration_is_not_converted(tmp_path, capsys):
    model = Sequential(before())
    model.compile("adam", "categorical_crossentropy")  # of Keras' form
    model.save(tmp_path / "m.safetensors")
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "model.json")]) == 0
    assert "Without optimizer, loss and metrics: " in capsys.readouterr().out
    assert load_model(tmp_path / "model.json").optimizer is None
    model.compile(optimizers.Adam(form="tfjs"), "categorical_crossentropy")
    model.save(tmp_path / "m.safetensors")
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "model.json")]) == 0
    assert "Without optimizer, loss and metrics: " not in capsys.readouterr().out
    assert load_model(tmp_path / "model.json").optimizer.form == "tfjs"


def test_conversion_errors_are_one_line(tmp_path, capsys):
    Sequential(before()).save(tmp_path / "m.safetensors")
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "m.pt")]) == 1
    assert "is not supported by PyTorch" in capsys.readouterr().err
    assert not (tmp_path / "m.pt").exists()
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "m.docx")]) == 2
    assert "OUT: expected a file name that ends with" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(tmp_path / "nowhere.pt"), str(tmp_path / "m.onnx")])
    assert caught.value.code == 2
    assert "nowhere.pt" in capsys.readouterr().err


def test_samples_have_the_kind_of_the_models_input():
    tokens = conversion.random_samples(Sequential([layers.Embedding(1, 2, input_shape=(4,)), layers.GRU(3)]))
    assert tokens.shape == (8, 4)
    assert (tokens == 0).all()
    doubles = conversion.random_samples(Sequential([layers.GRU(3, input_shape=(None, 2))], dtype="float64"))
    assert doubles.dtype == np.float64
    assert doubles.shape == (8, 20, 2)


@pytest.mark.parametrize("kind", ["fastgru", "tfjs", "keras", "keras_h5", "torch"])
def test_a_model_can_be_loaded_without_its_training(kind, tmp_path):
    if kind.startswith("keras"):
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    model = Sequential(before() if kind == "tfjs" else each_step())
    optimizer, loss = optimizers.SGD(), "categorical_crossentropy" if kind == "tfjs" else "mse"
    model.compile(optimizer, loss, metrics=["accuracy"] if kind == "tfjs" else ["mae"])
    model.save(tmp_path / NAMES[kind])
    assert load_model(tmp_path / NAMES[kind]).loss.name == model.loss.name
    loaded = load_model(tmp_path / NAMES[kind], compile=False)
    assert loaded.optimizer is None
    assert loaded.loss is None
    x = conversion.random_samples(model)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


def test_a_model_with_an_unsupported_training_configuration_can_be_loaded(tmp_path):
    model = Sequential(before())
    model.compile(optimizers.SGD(), "categorical_crossentropy")
    path = tmp_path / "model.json"
    model.save(path)
    path.write_text(path.read_text().replace('"SGD"', '"Adadelta"'))
    with pytest.raises(formats.description.ModelFileError, match="pass compile=False to load the model"):
        load_model(path)
    assert load_model(path, compile=False).count_params() == model.count_params()


def test_metrics_with_unsupported_options_raise(tmp_path):
    model = Sequential(each_step())
    model.compile("sgd", "mse", metrics=[metrics.BinaryAccuracy(threshold=0.3)])
    with pytest.raises(
        ValueError, match=r"other frameworks\' files contain their names only, got BinaryAccuracy\(threshold=0.3\)"
    ):
        model.save(tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()
    model.save(tmp_path / "m.pt", include_optimizer=False)
    model.compile("sgd", "mse", metrics=[metrics.BinaryAccuracy()])
    model.save(tmp_path / "m.pt")


# --- Files of others ------------------------------------------------------------------------------------------------


class Tagger:
    """Return a typical PyTorch module; imports PyTorch when it is called."""

    def __new__(cls, torch, batch_first, every_step):
        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.gru = torch.nn.GRU(3, 5, num_layers=2, batch_first=batch_first)
                self.head = torch.nn.Linear(5, 4)

            def forward(self, x):
                outputs, states = self.gru(x)
                return self.head(outputs if every_step else states[-1])

        torch.manual_seed(0)
        return Module().eval()


def state_dicts(torch):
    module = Tagger(torch, True, False)
    weights = module.state_dict()
    return {
        "plain": weights,
        "half": {name: tensor.half() for name, tensor in weights.items()},
        "parallel": {f"module.{name}": tensor for name, tensor in weights.items()},
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in weights.items()},
        "checkpoint": {"hparams": {"weight_decay": 0.1}, "epoch": 3, "model": weights},
        "bare": torch.nn.GRU(3, 5, num_layers=2).state_dict(),
    }


def said(name):
    """Return the options that such files need."""
    modules = ["gru"] if name == "bare" else ["gru", "head"]
    return {"pooling": "last_state", "activations": dict.fromkeys(modules, "linear")}


@pytest.mark.parametrize("name", ["plain", "half", "parallel", "compiled", "checkpoint", "bare"])
def test_pytorch_runs_the_files_that_its_users_have(torch, name, tmp_path):
    source = tmp_path / f"{name}.pt"
    torch.save(state_dicts(torch)[name], source)
    compared = conversion.convert(source, tmp_path / "m.safetensors", **said(name))
    assert compared.source == "PyTorch"
    assert compared.difference <= 1e-6


@pytest.mark.peers("onnx", "onnxruntime")
@pytest.mark.filterwarnings("ignore")  # of exporters old and new, about themselves
@pytest.mark.parametrize("every_step", [False, True], ids=["last", "every_step"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time_first", "batch_first"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_onnx_runtime_runs_the_files_that_pytorch_exports(torch, batch_first, every_step, dynamic, tmp_path):
    source = tmp_path / "exported.onnx"
    axes = {"input": {0: "one", 1: "other"}} if dynamic else None
    torch.onnx.export(
        Tagger(torch, batch_first, every_step),
        (torch.zeros((1, 6, 3) if batch_first else (6, 1, 3)),),
        source,
        input_names=["input"],
        dynamic_axes=axes,
        dynamo=False,
    )
    compared = conversion.convert(source, tmp_path / "m.safetensors")
    assert compared.source == "ONNX Runtime"
    assert compared.difference <= 1e-6


def test_the_equations_replace_a_framework_that_fails(torch, tmp_path, monkeypatch):
    def fail(path, description, x):
        raise RuntimeError("this file says more than that")

    monkeypatch.setitem(runners._FRAMEWORKS, "torch", runners.Runner("PyTorch", (), fail))
    torch.save(state_dicts(torch)["plain"], tmp_path / "m.pt")
    compared = conversion.convert(tmp_path / "m.pt", tmp_path / "m.safetensors", **said("plain"))
    assert compared.source == (
        "the equations in NumPy, because PyTorch failed: RuntimeError: this file says more than that"
    )
    assert compared.difference <= 1e-6
    with pytest.raises(RuntimeError, match="says more"):  # but what is written here, it must run
        conversion.convert(tmp_path / "m.safetensors", tmp_path / "again.pt")
    assert not (tmp_path / "again.pt").exists()


@pytest.mark.parametrize(
    "kind",
    [
        "keras",
        pytest.param("keras", marks=pytest.mark.peers("tensorflow", "keras"), id="keras-run-by-keras"),
        pytest.param("onnx", marks=pytest.mark.peers("onnx", "onnxruntime")),
    ],
)
def test_samples_of_a_model_that_detects_padding_contain_padding(kind, tmp_path, monkeypatch):
    if kind.startswith("keras"):
        pytest.importorskip("h5py", reason="needs h5py: pip install h5py")
    model = Sequential([layers.Masking(2.0, input_shape=(None, 3)), layers.GRU(4)])
    x = conversion.random_samples(model)
    assert (x[0, 1:] == 2.0).all()
    assert not (x[-1] == 2.0).any()
    model.save(tmp_path / "m.safetensors")
    compared = conversion.convert(tmp_path / "m.safetensors", tmp_path / NAMES[kind])
    assert compared.difference <= 1e-6
    monkeypatch.setattr(runners, "_FRAMEWORKS", {})
    ignorant = runners.Runner("one that knows no masks", (), lambda path, description, x: model.layers[1](x))
    monkeypatch.setattr(runners, "EQUATIONS", ignorant)
    (tmp_path / NAMES[kind]).unlink()
    with pytest.raises(ValueError, match="not written"):
        conversion.convert(tmp_path / "m.safetensors", tmp_path / NAMES[kind])


def test_options_of_the_command_line_describe_a_state_dict(torch, tmp_path, capsys):
    torch.save(Tagger(torch, True, True).state_dict(), tmp_path / "m.pt")
    command = ["convert", str(tmp_path / "m.pt"), str(tmp_path / "m.safetensors"), "--from", "torch"]
    assert main([*command, "--return-sequences", "--activations", "softmax", "--order", "gru,head"]) == 0
    model = load_model(tmp_path / "m.safetensors")
    assert model.output_shape == (None, None, 4)
    assert model.layers[-1].activation == "softmax"
    assert "run by PyTorch" in capsys.readouterr().out


def test_a_model_with_an_unsupported_training_configuration_can_be_converted(tmp_path, capsys):
    model = Sequential(before())
    model.compile(optimizers.SGD(), "categorical_crossentropy")
    path = tmp_path / "model.json"
    model.save(path)
    path.write_text(path.read_text().replace('"SGD"', '"Adadelta"'))
    assert main(["convert", str(path), str(tmp_path / "m.safetensors")]) == 0
    assert "Without optimizer, loss and metrics: " in capsys.readouterr().out
