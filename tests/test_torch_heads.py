"""What a state_dict does not contain: the order in which modules are called, and the operations between them.

Each model is a module of PyTorch's own, saved as people save them, and is judged by what that module computes.
"""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import peers
import pytest
from fastgru import AssumptionWarning, ModelFileError, Sequential, conversion, layers, load_model
from fastgru.cli import main
from fastgru.formats.torch import chains as torch_chains

torch = peers.require("torch")

pytestmark = pytest.mark.isa_independent
nn = torch.nn

F, H, C, T = 5, 6, 3, 7
#: Two float32 computations of the same outputs.
CLOSE = 1e-5
#: Under a wrong assumption the outputs of these models differ by more than this.
FAR = 1e-3

POOLINGS = {
    "last_state": lambda y, h, directions: torch.cat(tuple(h[-directions:]), -1),
    "last_step": lambda y, h, directions: y[:, -1],
    "mean": lambda y, h, directions: y.mean(1),
    "max": lambda y, h, directions: y.amax(1),
    "every step": lambda y, h, directions: y,
}
ACTIVATIONS = {
    "linear": lambda y: y,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda y: y.softmax(-1),
}


class Network(nn.Module):
    """A GRU, a selection of its outputs, an activation, and a head."""

    def __init__(self, pooling, after="linear", head="linear", *, depth=1, bidirectional=False, hidden=None):
        super().__init__()
        self.directions = 1 + bidirectional
        self.gru = nn.GRU(F, H, depth, batch_first=True, bidirectional=bidirectional)
        width = self.directions * H
        if hidden is not None:
            self.hidden, width = nn.Linear(width, 4), 4
        self.fc = nn.Linear(width, C)
        self.pooling, self.after, self.head, self.between = pooling, after, head, hidden
        with torch.no_grad():  # so that different assumptions give clearly different outputs
            for weight in self.parameters():
                weight.mul_(3)

    def forward(self, x):
        y = POOLINGS[self.pooling](*self.gru(x), self.directions)
        y = ACTIVATIONS[self.after](y)
        if self.between is not None:
            y = ACTIVATIONS[self.between](self.hidden(y))
        return ACTIVATIONS[self.head](self.fc(y))

    def options(self):
        """Return the options that describe it completely."""
        said = {"gru": self.after, "fc": self.head} | ({} if self.between is None else {"hidden": self.between})
        each_step = self.pooling == "every step"
        return {"activations": said, **({"return_sequences": True} if each_step else {"pooling": self.pooling})}


def saved(module, path):
    module.eval()
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path)
    return path


def samples(seed=0):
    return np.random.default_rng(seed).normal(size=(8, T, F)).astype(np.float32)


def outputs_of(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def silently(path, **options):
    """Load the model; it must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_model(path, **options)


def warned(path, **options):
    """Load the model; returns it and its only warning."""
    with pytest.warns(AssumptionWarning) as caught:
        model = load_model(path, **options)
    (warning,) = caught
    assert warning.filename == __file__
    return model, warning.message


@pytest.fixture(params=["m.pt", "m.safetensors"])
def path(request, tmp_path):
    return tmp_path / request.param


# --- Options given by the user ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("after", ["linear", "relu", "tanh"])
def test_the_model_is_the_module_when_all_is_said(path, pooling, after, bidirectional):
    torch.manual_seed(0)
    module = Network(pooling, after, "softmax", depth=2, bidirectional=bidirectional)
    model = silently(saved(module, path), **module.options())
    np.testing.assert_allclose(model.predict(samples()), outputs_of(module, samples()), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("hidden", ACTIVATIONS)
@pytest.mark.parametrize("after", ACTIVATIONS)
def test_activations_are_said_by_name(path, after, hidden):
    torch.manual_seed(0)
    module = Network("last_step", after, "linear", bidirectional=True, hidden=hidden)
    model = silently(saved(module, path), **module.options())
    np.testing.assert_allclose(model.predict(samples()), outputs_of(module, samples()), rtol=CLOSE, atol=CLOSE)


def test_the_last_step_of_packed_sequences_is_the_last_that_counts(path):
    torch.manual_seed(0)
    module = Network("last_step", "relu", bidirectional=True)
    model = silently(saved(module, path), **module.options())
    x, lengths = samples(), np.array([7, 1, 3, 7, 2, 5, 4, 6])
    expected = [outputs_of(module, row[None, :length])[0] for row, length in zip(x, lengths, strict=True)]
    np.testing.assert_allclose(model.predict(x, lengths=lengths), expected, rtol=CLOSE, atol=CLOSE)


def test_an_activation_between_two_grus(path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.GRU(F, H, batch_first=True)
            self.second = nn.GRU(H, 4, batch_first=True)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)[0]))[1][-1]

    torch.manual_seed(0)
    module = Two()
    said = {"first": "relu", "second": "linear"}
    order = ["first", "second"]
    model = silently(saved(module, path), activations=said, pooling="last_state", order=order)
    np.testing.assert_allclose(model.predict(samples()), outputs_of(module, samples()), rtol=CLOSE, atol=CLOSE)
    _, warning = warned(path, activations={"second": "linear"}, pooling="last_state", order=order)
    assert "no activation after first; otherwise pass activations={'second': 'linear', 'first': 'relu'}" in str(warning)


@pytest.mark.parametrize("ending", peers.parameters(["safetensors", "pt", "onnx"]))
def test_own_files_keep_what_was_said(tmp_path, ending):
    torch.manual_seed(0)
    module = Network("last_step", "relu", "softmax", bidirectional=True)
    silently(saved(module, tmp_path / "m.pth"), **module.options()).save(tmp_path / f"own.{ending}")
    model = silently(tmp_path / f"own.{ending}")
    np.testing.assert_allclose(model.predict(samples()), outputs_of(module, samples()), rtol=CLOSE, atol=CLOSE)


# --- Assumptions and their warnings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_is_assumed_is_right_for_the_usual_module(path, bidirectional):
    torch.manual_seed(0)
    module = Network("last_state", bidirectional=bidirectional)
    model, warning = warned(saved(module, path))
    np.testing.assert_allclose(model.predict(samples()), outputs_of(module, samples()), rtol=CLOSE, atol=CLOSE)
    assert "pass pooling='last_state', activations={'gru': 'linear', 'fc': 'linear'}" in str(warning)
    options = {name: value for assumption in warning.assumptions for name, value in assumption.options.items()}
    np.testing.assert_array_equal(silently(path, **options).predict(samples()), model.predict(samples()))


OTHERS = [
    ({"pooling": "last_step", "bidirectional": True}, "pooling='last_step' (output[:, -1])"),
    ({"pooling": "last_step", "bidirectional": True, "after": "relu"}, "pooling='last_step' (output[:, -1])"),
    ({"pooling": "last_step", "after": "relu"}, "no activation after gru and fc; otherwise pass activations={'gru': "),
    ({"pooling": "mean"}, "pooling='mean' (output.mean(1))"),
    ({"pooling": "max", "bidirectional": True}, "pooling='max' (output.amax(1))"),
    ({"pooling": "every step"}, "return_sequences=True (every step's output)"),
    ({"pooling": "last_state", "head": "softmax"}, "no activation after gru and fc"),
]


@pytest.mark.parametrize(("network", "remedy"), OTHERS, ids=[remedy[:30] for _, remedy in OTHERS])
def test_a_module_that_does_something_else_is_named_with_what_to_pass(path, network, remedy):
    """Each of these used to be read silently as another model."""
    torch.manual_seed(0)
    module = Network(**network)
    expected = outputs_of(module, samples())
    model, warning = warned(saved(module, path))
    wrong = model.predict(samples())
    assert wrong.shape != expected.shape or np.abs(wrong - expected).max() > FAR
    assert str(warning).startswith(f"{path}:\nAssumptions, because a state_dict contains the weights of modules")
    assert remedy in str(warning)
    right = silently(path, **module.options()).predict(samples())
    np.testing.assert_allclose(right, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"pooling": "last_state"}, ["no activation after gru and fc"]),
        ({"pooling": "last_state", "activations": ["softmax"]}, ["no activation after gru"]),
        ({"activations": {"gru": "relu", "fc": "softmax"}}, ["fc receives the last states of both directions of gru"]),
        (
            {"activations": {"gru": None, "fc": None}, "return_sequences": False},
            ["fc receives the last states of both"],
        ),
        ({"return_sequences": True}, ["no activation after gru and fc"]),
    ],
)
def test_only_what_no_option_says_is_assumed(path, options, left):
    saved(Network("last_state", bidirectional=True), path)
    _, warning = warned(path, **options)
    assert [each.what[: len(text)] for each, text in zip(warning.assumptions, left, strict=True)] == left


def test_one_vector_of_a_forward_gru_leaves_no_doubt(path):
    saved(Network("last_state"), path)
    silently(path, return_sequences=False, activations={"gru": "linear", "fc": "linear"})


def test_a_gru_alone_is_warned_about_too(path):
    module = nn.GRU(F, H, batch_first=True)
    _, warning = warned(saved(module, path))
    assert "the model returns the last state of gru, h_n[-1] or output[:, -1]" in str(warning)
    model = silently(path, return_sequences=True, activations={"gru": "linear"})
    expected = outputs_of(nn.Sequential(module, Taken(0)), samples())
    np.testing.assert_allclose(model.predict(samples()), expected, rtol=CLOSE, atol=CLOSE)


class Taken(nn.Module):
    """Returns one of several outputs."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        return x[self.place]


# --- The order of modules --------------------------------------------------------------------------------------------


class Swapped(nn.Module):
    """Two GRUs of the same size, called in another order than they are declared."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(F, H)
        self.one = nn.GRU(H, H, batch_first=True)
        self.two = nn.GRU(H, H, batch_first=True)
        self.fc = nn.Linear(H, C)
        with torch.no_grad():
            for weight in self.parameters():
                weight.mul_(3)

    def forward(self, x):
        y, _ = self.two(self.embed(x))
        return self.fc(self.one(y)[0][:, -1])


SAID = {
    "pooling": "last_state",
    "activations": dict.fromkeys(("embed", "one", "two", "fc"), "linear"),
}


def test_an_order_that_is_not_the_only_one_is_assumed_and_said(tmp_path):
    torch.manual_seed(0)
    path = saved(Swapped(), tmp_path / "m.pt")
    expected = outputs_of(torch_load(path), samples())
    model, warning = warned(path, **SAID)
    assert np.abs(model.predict(samples()) - expected).max() > FAR
    assert "the modules are called in the order of the file, embed (Dense) -> one (GRU) -> two (GRU)" in str(warning)
    assert "otherwise pass order=['embed', 'two', 'one', 'fc']" in str(warning)
    assert warning.assumptions[0].options == {"order": ["embed", "one", "two", "fc"]}
    model = silently(path, **SAID, order=["embed", "two", "one", "fc"])
    np.testing.assert_allclose(model.predict(samples()), expected, rtol=CLOSE, atol=CLOSE)
    silently(path, **SAID, order=["embed", "one", "two", "fc"])


def torch_load(path):
    module = Swapped()
    module.load_state_dict(torch.load(path, weights_only=True))
    return module.eval()


def test_without_an_order_in_the_file_a_doubt_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match=r"pass order=\[.*\], or the options that describe forward\(\)"):
        load_model(saved(Swapped(), tmp_path / "m.safetensors"), **SAID)


def test_an_order_that_only_fits_one_way_is_no_assumption(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(H, C)
            self.two = nn.GRU(4, H, batch_first=True)
            self.one = nn.GRU(F, 4, batch_first=True)

    said = {"pooling": "last_state", "activations": dict.fromkeys(("one", "two", "fc"), "linear")}
    model, warning = warned(saved(Net(), tmp_path / "m.pt"), **said)
    assert [each.what for each in warning.assumptions] == ["two receives every step of one and begins with zeros"]
    assert [layer.name for layer in model.layers] == ["one", "two", "fc"]


def test_many_modules_of_one_size_are_an_assumption_at_once(tmp_path):
    stack = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)), nn.GRU(4, 4))
    said = {"pooling": "last_state", "activations": {str(number): "linear" for number in range(61)}}
    _, warning = warned(saved(stack, tmp_path / "m.pt"), **said)
    assert [list(each.options) for each in warning.assumptions] == [["order"]]


# --- Several GRUs -----------------------------------------------------------------------------------------------------


class Chained(nn.Module):
    """An encoder and a decoder, which receives every step of the encoder, or its last state at each step."""

    def __init__(self, *, repeats=False):
        super().__init__()
        self.enc = nn.GRU(F, H, batch_first=True)
        self.dec = nn.GRU(H, H, batch_first=True)
        self.fc = nn.Linear(H, C)
        self.repeats = repeats
        with torch.no_grad():
            for weight in self.parameters():
                weight.mul_(3)

    def forward(self, x):
        y, h = self.enc(x)
        return self.fc(self.dec(h[-1][:, None].expand_as(y) if self.repeats else y)[1][-1])


CHAINED = {"pooling": "last_state", "activations": dict.fromkeys(("enc", "dec", "fc"), "linear")}
CHAIN_ASSUMED = "dec receives every step of enc and begins with zeros"


def test_that_a_gru_receives_every_step_of_another_is_assumed_until_the_order_is_said(path):
    torch.manual_seed(0)
    module = Chained()
    model, warning = warned(saved(module, path), **CHAINED)
    np.testing.assert_allclose(model.predict(samples()), outputs_of(module, samples()), rtol=CLOSE, atol=CLOSE)
    assert [each.what for each in warning.assumptions] == [CHAIN_ASSUMED]
    assert f"- {CHAIN_ASSUMED}; otherwise the model is not supported: no option describes its forward()" in str(warning)
    assert "pass order=['enc', 'dec', 'fc']" in str(warning)
    silently(path, **CHAINED, order=["enc", "dec", "fc"])


def test_another_use_of_two_grus_is_not_confirmed_by_a_conversion(tmp_path, capsys):
    torch.manual_seed(0)
    module = Chained(repeats=True)
    source, target = saved(module, tmp_path / "m.pth"), tmp_path / "own.safetensors"
    said = ["--pooling", "last_state", "--activations", "enc=linear,dec=linear,fc=linear"]
    assert main(["convert", str(source), str(target), *said]) == 0
    assert np.abs(load_model(target).predict(samples()) - outputs_of(module, samples())).max() > FAR
    out = capsys.readouterr().out
    assert CHAIN_ASSUMED in out
    assert "pass --order enc,dec,fc\nCompared under these assumptions, which the comparison does not confirm" in out
    assert main(["convert", str(source), str(target), *said, "--order", "enc,dec,fc"]) == 0
    assert "ssum" not in capsys.readouterr().out


def test_each_pair_of_grus_is_assumed_and_all_that_is_listed_confirms_it(path):
    sizes = {"a": (F, 4), "b": (4, 3), "c": (3, H)}
    module = nn.ModuleDict({name: nn.GRU(*size, num_layers=2, batch_first=True) for name, size in sizes.items()})
    _, warning = warned(saved(module, path))
    assert [each.what[:29] for each in warning.assumptions[:2]] == [
        f"{b} receives every step of {a} and"[:29] for a, b in ("ab", "bc")
    ]
    assert "no activation after a, b and c;" in str(warning)
    options = {name: value for assumption in warning.assumptions for name, value in assumption.options.items()}
    silently(path, **options)


# --- Embeddings and Linears -------------------------------------------------------------------------------------------


def tied():
    """An embedding and a head of the same shape, which a state_dict does not distinguish."""
    return nn.ModuleDict(
        {"emb": nn.Embedding(11, H), "gru": nn.GRU(H, H, batch_first=True), "fc": nn.Linear(H, 11, bias=False)}
    )


def test_an_embedding_at_the_beginning_is_no_linear_at_the_end(tmp_path):
    said = {"pooling": "last_state", "activations": {"gru": "linear", "fc": "linear"}}
    model = silently(saved(tied(), tmp_path / "m.pt"), **said)
    assert [type(layer).__name__ for layer in model.layers] == ["Embedding", "GRU", "Dense"]
    with pytest.raises(ModelFileError, match=r"pass order=\['emb', 'gru', 'fc'\], or"):
        load_model(saved(tied(), tmp_path / "m.safetensors"), **said)


def test_another_order_of_too_many_modules_fits_too(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_chains, "_MOST_TRIES", 14)  # as many as the file's order takes
    stack = [nn.GRU(4, 4) for _ in range(12)]
    module = nn.ModuleDict({"emb": nn.Embedding(9, 4), **{f"g{number}": gru for number, gru in enumerate(stack)}})
    _, warning = warned(saved(module, tmp_path / "m.pt"))
    order = warning.assumptions[0].alternatives[0][0]["order"]
    assert order == ["emb", "g1", "g0", *(f"g{number}" for number in range(2, 12))]
    load_model(tmp_path / "m.pt", order=order, pooling="last_state", activations=dict.fromkeys(order, "linear"))


# --- Options ---------------------------------------------------------------------------------------------------------


def test_wrong_options_are_named(path):
    saved(Network("last_state"), path)
    for options, error, message in [
        ({"pooling": "first"}, ValueError, "pooling: expected one of 'last_state', 'last_step', 'mean', 'max'"),
        ({"pooling": "mean", "return_sequences": True}, ValueError, "pooling: expected None because return_sequences"),
        ({"activations": {"lstm": "relu"}}, ValueError, "activations: expected names of the modules 'gru', 'fc', got"),
        ({"activations": {"gru": "gelu"}}, ValueError, "activations: expected one of 'linear', 'softmax', 'sig"),
        ({"activations": {"gru": 3}}, ValueError, "activations: expected one of 'linear', .* got 3"),
        ({"activations": {3: "relu"}}, TypeError, "activations: expected names of modules, got 3"),
        ({"activations": ["leaky_relu"]}, ValueError, "activations: expected one of 'linear', 'softmax', 'sigmoid'"),
        (
            {"activations": ["relu", "relu"]},
            ValueError,
            "activations: expected 1, one for each of the Linear modules 'fc', ",
        ),
        (
            {"activations": []},
            ValueError,
            "activations: expected 1, one for each of the Linear modules 'fc', got 0, none",
        ),
        ({"activations": 5}, TypeError, "activations: expected a mapping of .* or a sequence of activations, got 5"),
        ({"activations": "softmax"}, TypeError, "activations: expected a mapping of .* got 'softmax'"),
        ({"order": 5}, TypeError, "order: expected a sequence of modules' names, got 5"),
        ({"order": "gru,fc"}, TypeError, "order: expected a sequence of modules' names, got 'gru,fc'"),
        ({"order": ["gru", 1]}, TypeError, "order: expected names of modules, got 1"),
        ({"order": ["gru"]}, ValueError, "order: expected each of the modules '(gru', 'fc|fc', 'gru)' once, got 'gru'"),
        ({"order": ["gru", "gru"]}, ValueError, "order: expected each of the modules '.*' once, got 'gru', 'gru'"),
        ({"order": ["fc", "gru"]}, ValueError, "order: expected an order in which each module accepts the output of"),
        ({"return_sequences": 0}, TypeError, "return_sequences: expected True or False, got 0"),
    ]:
        with pytest.raises(error, match=f"^{message}") as caught:
            load_model(path, **options)
        assert type(caught.value) is error  # not the error for files


@pytest.mark.parametrize("options", [{"activations": 5}, {"order": 5}, {"activations": {"gru": "leaky_relu"}}])
def test_types_and_values_are_checked_before_a_file_is_opened(tmp_path, options):
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(options))}: expected"):
        load_model(tmp_path / "missing.pt", format="torch", **options)


def test_own_files_need_no_options(tmp_path):
    model = Sequential([layers.GRU(3, input_shape=(None, 2)), layers.Dense(2)])
    model.save(tmp_path / "m.pt")
    silently(tmp_path / "m.pt")
    for options in ({"pooling": "last_state"}, {"return_sequences": False}, {"order": ["gru"]}, {"activations": []}):
        with pytest.raises(
            ValueError, match=f"^{min(options)}: expected none because the file describes its model"
        ) as caught:
            load_model(tmp_path / "m.pt", **options)
        assert type(caught.value) is ValueError


# --- Conversion and the command line ---------------------------------------------------------------------------------


def test_a_conversion_says_under_which_assumptions_it_compared(tmp_path, capsys):
    """Both files are run under the same assumptions, so their agreement does not confirm these."""
    torch.manual_seed(0)
    module = Network("last_step", "relu", bidirectional=True)
    source, target = saved(module, tmp_path / "m.pth"), tmp_path / "own.safetensors"
    with pytest.warns(AssumptionWarning, match="otherwise pass pooling='last_step'"):
        compared = conversion.convert(source, target)
    assert [list(each.options) for each in compared.assumptions] == [["pooling"], ["activations"]]
    assert main(["convert", str(source), str(target)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2].startswith("Assumptions, because a state_dict contains")
    assert "otherwise pass --pooling last_step (output[:, -1])" in out[3]
    assert "no activation after gru and fc; otherwise pass --activations gru=relu" in out[4]
    assert out[5] == "If forward() does exactly this, pass --pooling last_state --activations gru=linear,fc=linear"
    assert out[6] == "Compared under these assumptions, which the comparison does not confirm:"
    assert np.abs(load_model(target).predict(samples()) - outputs_of(module, samples())).max() > FAR

    options = ["--pooling", "last_step", "--activations", "gru=relu,fc=linear"]
    assert main(["convert", str(source), str(target), *options]) == 0
    captured = capsys.readouterr()
    assert "ssum" not in captured.out + captured.err
    expected = outputs_of(module, samples())
    np.testing.assert_allclose(load_model(target).predict(samples()), expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("pooling", ["last_step", "mean", "max", "every step"])
def test_pytorch_judges_each_head(tmp_path, capsys, pooling):
    source = saved(Network(pooling, "relu", "softmax", depth=2, bidirectional=True), tmp_path / "m.pth")
    said = ["--return-sequences"] if pooling == "every step" else ["--pooling", pooling]
    options = [*said, "--activations", "gru=relu,fc=softmax"]
    assert main(["convert", str(source), str(tmp_path / "own.pt"), *options]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{source} (torch, run by PyTorch)"
    assert out[1] == f"{tmp_path / 'own.pt'} (torch, run by PyTorch)"
    assert len(out) == 3


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_commands_say_what_they_assume_and_take_the_options(tmp_path, capsys, command):
    torch.manual_seed(0)
    module = Network("last_step", "relu", "softmax", bidirectional=True)
    model, data = saved(module, tmp_path / "m.pth"), tmp_path / "d.npz"
    np.savez(data, x=samples(), y=np.arange(8) % C)
    assert main([command, str(model), str(data)]) == 0
    error = capsys.readouterr().err
    assert error.startswith(f"fastgru: {model}:\nAssumptions, because a state_dict contains")
    assert "If forward() does exactly this, pass --pooling last_state --activations gru=linear,fc=linear" in error
    assert main([command, str(model), str(data), "--pooling", "last_step", "--activations", "gru=relu,fc=softmax"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    expected = outputs_of(module, samples())
    if command == "predict":
        labels = [int(line.split(": ")[1].split()[0]) for line in captured.out.splitlines()]
        assert labels == expected.argmax(axis=1).tolist()
    else:
        assert f"accuracy {(expected.argmax(axis=1) == np.arange(8) % C).mean():.2%}" in captured.out


def test_the_order_is_reachable_from_the_command_line(tmp_path, capsys):
    torch.manual_seed(0)
    source, target = saved(Swapped(), tmp_path / "m.pth"), tmp_path / "own.safetensors"
    said = ["--pooling", "last_state", "--activations", "embed=linear,one=linear,two=linear,fc=linear"]
    assert main(["convert", str(source), str(target), *said]) == 0
    assert "otherwise pass --order embed,two,one,fc" in capsys.readouterr().out
    assert main(["convert", str(source), str(target), *said, "--order", "embed,two,one,fc"]) == 0
    assert "Assumptions" not in capsys.readouterr().out
    expected = outputs_of(torch_load(source), samples())
    np.testing.assert_allclose(load_model(target).predict(samples()), expected, rtol=CLOSE, atol=CLOSE)


def test_activations_of_the_command_line_are_all_with_names_or_none(tmp_path, capsys):
    source = saved(Network("last_state"), tmp_path / "m.pth")
    with pytest.raises(SystemExit):
        main(["predict", str(source), str(source), "--activations", "gru=relu,softmax"])
    assert "expected MODULE=NAME everywhere or nowhere, got 'gru=relu,softmax'" in capsys.readouterr().err


def test_the_command_line_names_its_own_options(tmp_path, capsys):
    module = nn.ModuleDict({"gru": nn.GRU(F, H), "f1": nn.Linear(H, 4), "f2": nn.Linear(4, C)})
    source = saved(module, tmp_path / "m.pth")
    assert main(["convert", str(source), str(tmp_path / "own.pt")]) == 1
    assert "pass --activations f1=linear,f2=linear, or the options that describe forward()" in capsys.readouterr().err
    source = saved(tied(), tmp_path / "m.safetensors")
    assert main(["convert", str(source), str(tmp_path / "own.pt")]) == 1
    assert "pass --order emb,gru,fc, or the options that describe forward()" in capsys.readouterr().err
    for options, message in [
        (["--pooling", "mean", "--return-sequences"], "--return-sequences: not allowed with argument --pooling"),
        (
            ["--activations", "gru=gelu"],
            "--activations: expected one of linear, softmax, sigmoid, tanh, relu, got 'gelu'",
        ),
        (["--activations", "gelu"], "--activations: expected one of linear, softmax, sigmoid, tanh, relu, got 'gelu'"),
        (["--activations", "gru="], "--activations: expected one of linear, softmax, sigmoid, tanh, relu, got ''"),
    ]:
        with pytest.raises(SystemExit):
            main(["convert", str(source), str(tmp_path / "own.pt"), *options])
        assert message in capsys.readouterr().err


def test_none_is_linear_in_what_is_suggested(path):
    saved(Network("last_state"), path)
    _, warning = warned(path, activations={"fc": None}, pooling="last_state")
    assert "pass activations={'fc': 'linear', 'gru': 'linear'}" in str(warning)
    _, warning = warned(path, activations=[None], pooling="last_state")
    assert "None" not in str(warning)


def test_an_error_about_what_is_unsaid_can_be_pickled(path):
    module = nn.ModuleDict({"gru": nn.GRU(F, H), "f1": nn.Linear(H, 4), "f2": nn.Linear(4, C)})
    with pytest.raises(ModelFileError) as caught:
        load_model(saved(module, path))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert str(caught.value).startswith(f"{path}: a state_dict does not contain")
