"""PyTorch's state_dicts, read without PyTorch and without executing anything, with the same result as in PyTorch."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile

import fastgru
import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, initializers, layers, load_model
from fastgru.formats.torch import pickles, state_dicts
from fastgru.formats.torch.pickles import Call, Global, Persistent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_damage import places, replaced, values
from safetensors.numpy import save as safetensors_bytes

ENDINGS = ["pt", "pth", "torch.safetensors"]
OURS = {"float32": 1e-5, "float64": 1e-12}  # relative; the order of sums differs
#: For files of others; test_torch_heads.py tests the assumptions.
pytestmark = [pytest.mark.isa_independent, pytest.mark.filterwarnings("ignore::fastgru.AssumptionWarning")]


# --- Files built by hand --------------------------------------------------------------------------------------------


def state_dict(seed=0, features=3, units=2, classes=4, depth=1, suffixes=("",), bias=True, dtype="float32"):
    """Return a GRU and a head with PyTorch's names."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for number, suffix in itertools.product(range(depth), suffixes):
        size = features if number == 0 else len(suffixes) * units
        tensors[f"gru.weight_ih_l{number}{suffix}"] = rng.normal(size=(3 * units, size))
        tensors[f"gru.weight_hh_l{number}{suffix}"] = rng.normal(size=(3 * units, units))
        if bias:
            tensors[f"gru.bias_ih_l{number}{suffix}"] = rng.normal(size=3 * units)
            tensors[f"gru.bias_hh_l{number}{suffix}"] = rng.normal(size=3 * units)
    tensors["fc.weight"] = rng.normal(size=(classes, len(suffixes) * units))
    tensors["fc.bias"] = rng.normal(size=classes)
    return {name: array.astype(dtype) for name, array in tensors.items()}


def tensor(key, shape, *, offset=0, strides=None, size=None, kind="FloatStorage", more=()):
    """A tensor in a pickle."""
    count = int(np.prod(shape, dtype=object)) if size is None else size
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :], dtype=object)) for axis in range(len(shape)))
    identity = ("storage", Global("torch", kind), key, "cpu", count)
    hooks = Call(Global("collections", "OrderedDict"), ())
    arguments = (Persistent(identity), offset, shape, strides, False, hooks, *more)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def archive(path, data, storages=None, *, entries=None, folder="archive/"):
    """Return a zip file like that of torch.save; `data` is the object to pickle, or a pickle."""
    files = {"data.pkl": data if isinstance(data, bytes) else pickles.dump(data), "version": b"3\n"}
    files |= {f"data/{key}": bytes(content) for key, content in (storages or {}).items()} | (entries or {})
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(folder + name, content)
    return path


def legacy(path, data, storages, *, magic=0x1950A86A20F9469CFC6C, little_endian=True, keys=None, sizes=None):
    """Return a file like that of torch.save before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": little_endian}
    listed = b"\x80\x02](" + b"".join(pickles.dump(key)[2:-1] for key in (storages if keys is None else keys)) + b"e."
    pieces = [*map(pickles.dump, (magic, 1001, system, data)), listed]
    for key, content in storages.items():
        pieces += [struct.pack("<q", (sizes or {}).get(key, len(content) // 4)), content]
    path.write_bytes(b"".join(pieces))
    return path


def parts(tensors):
    """Return the pickle's data and the storages of arrays."""
    kinds = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage"}
    data = {
        name: tensor(str(key), array.shape, kind=kinds[array.dtype.str[1:]])
        for key, (name, array) in enumerate(tensors.items())
    }
    return data, {str(key): array.tobytes() for key, array in enumerate(tensors.values())}


def save(path, tensors):
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors_bytes(tensors))
        return path
    return archive(path, *parts(tensors))


@pytest.fixture(params=["model.pt", "model.safetensors"])
def path(request, tmp_path):
    return tmp_path / request.param


# --- Round trips ----------------------------------------------------------------------------------------------------


def random_model(seed):
    """Return any model that PyTorch's modules support, built, with nonzero biases."""
    rng = np.random.default_rng(seed)
    units = [int(rng.choice([1, 3, 8, 9])) for _ in range(2)]
    bidirectional, bias = bool(rng.integers(2)), bool(rng.integers(2))
    depth, each_step = int(rng.integers(1, 5)), bool(rng.integers(2))
    chain = [layers.Embedding(int(rng.integers(1, 7)), 4)] if rng.integers(3) == 0 else []
    for number in range(depth):
        if rng.integers(4) == 0:
            chain.append(layers.Dropout(0.25))
        gru = layers.GRU(
            units[int(rng.integers(4) == 0)],
            use_bias=bias,
            return_sequences=each_step or number + 1 < depth,
            zero_output_for_mask=bool(rng.integers(2)),
            bias_initializer=initializers.RandomNormal(),
        )
        chain.append(layers.Bidirectional(gru) if bidirectional else gru)
    if each_step and rng.integers(3) == 0:
        chain.append(layers.GlobalMaxPooling1D())
    for _ in range(rng.integers(3)):
        activation = str(rng.choice(["linear", "softmax", "sigmoid", "tanh", "relu"]))
        chain.append(
            layers.Dense(5, activation, use_bias=bool(rng.integers(2)), bias_initializer=initializers.RandomNormal())
        )
    model = Sequential(chain, dtype=str(rng.choice(["float32", "float64"])), name="any")
    tokens = isinstance(chain[0], layers.Embedding)
    model.build((None, None) if tokens else (None, None, int(rng.integers(1, 6))))
    return model


def random_input(model, seed):
    rng = np.random.default_rng(seed)
    rows, steps = int(rng.choice([1, 5])), int(rng.choice([1, 6]))
    if model._network.takes_tokens:
        return rng.integers(0, model.layers[0].input_dim, (rows, steps))
    return rng.uniform(-1, 1, (rows, steps, model.input_shape[-1])).astype(model.dtype)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seed", range(12))
def test_a_round_trip_is_exact(tmp_path, ending, seed):
    model = random_model(seed)
    model.save(tmp_path / f"m.{ending}")
    loaded = load_model(tmp_path / f"m.{ending}")
    assert [(type(layer), layer.name, layer.options()) for layer in loaded.layers] == [
        (type(layer), layer.name, layer.options()) for layer in model.layers
    ]
    assert (loaded.dtype, loaded.name, loaded.input_shape) == (model.dtype, model.name, model.input_shape)
    np.testing.assert_array_equal(loaded.parameters, model.parameters)
    x = random_input(model, seed)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    loaded.save(tmp_path / f"again.{ending}")
    assert (tmp_path / f"again.{ending}").read_bytes() == (tmp_path / f"m.{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_compiled_model_stays_compiled_with_fresh_moments(tmp_path, ending):
    model = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(2, activation="softmax")])
    model.compile(
        fastgru.optimizers.AdamW(0.02, weight_decay=0.1), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    x = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    model.fit(x, np.arange(6) % 2, epochs=2, verbose=0)
    model.save(tmp_path / f"m.{ending}")
    loaded = load_model(tmp_path / f"m.{ending}")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert (loaded.loss.name, [metric.name for metric in loaded.metrics]) == (model.loss.name, ["accuracy"])
    assert loaded.optimizer.get_state() == (0, {})
    loaded.fit(x, np.arange(6) % 2, verbose=0)


def test_neighbouring_layers_of_one_size_are_one_module(tmp_path):
    from safetensors.numpy import load_file

    model = Sequential(
        [
            layers.GRU(4, return_sequences=True, input_shape=(None, 3), name="encoder"),
            layers.GRU(4, return_sequences=True),
            layers.Dropout(0.5),
            layers.GRU(4, return_sequences=True, name="after_dropout"),
            layers.GRU(4, return_sequences=True, use_bias=False, name="other"),
            layers.GRU(5, name="larger"),
            layers.Dense(2, name="head"),
        ]
    )
    model.save(tmp_path / "m.torch.safetensors")
    tensors = load_file(tmp_path / "m.torch.safetensors")
    modules = {name.replace("_ih_", " ").replace("_hh_", " ") for name in tensors}
    assert modules == {
        *("encoder.weight l0", "encoder.bias l0", "encoder.weight l1", "encoder.bias l1"),
        *("after_dropout.weight l0", "after_dropout.bias l0", "other.weight l0"),
        *("larger.weight l0", "larger.bias l0", "head.weight", "head.bias"),
    }
    assert tensors["encoder.weight_ih_l1"].shape == (12, 4)
    gates = model.layers[0].parameters["kernel"].T.reshape(3, 4, 3)
    np.testing.assert_array_equal(tensors["encoder.weight_ih_l0"].reshape(3, 4, 3), gates[[1, 0, 2]])


GRU = layers.GRU
REFUSED = [
    (lambda: [GRU(2, reset_after=False)], "gru: reset_after=False is not supported by PyTorch's nn.GRU"),
    (
        lambda: [GRU(2, "relu")],
        "gru: activation='relu' is not supported by PyTorch's nn.GRU, which has activation='tanh'",
    ),
    (
        lambda: [GRU(2, recurrent_activation="hard_sigmoid")],
        "gru: recurrent_activation='hard_sigmoid' is not supported",
    ),
    (lambda: [GRU(2, go_backwards=True)], "gru: go_backwards=True is not supported"),
    (lambda: [GRU(2, dropout=0.1)], r"gru: dropout=0\.1 is not supported.*for predictions set dropout=0"),
    (lambda: [GRU(2, recurrent_dropout=0.1)], r"gru: recurrent_dropout=0\.1 is not supported"),
    (lambda: [GRU(2, stateful=True)], "gru: stateful=True is not supported"),
    (lambda: [layers.Bidirectional(GRU(2), "sum")], "bidirectional: merge_mode='sum' is not supported"),
    (lambda: [layers.Bidirectional(GRU(2), None)], "bidirectional: merge_mode=None is not supported"),
    (lambda: [layers.Bidirectional(GRU(2, go_backwards=True))], "bidirectional: go_backwards=True is not supported"),
    (
        lambda: [layers.Bidirectional(GRU(2), backward_layer=GRU(2, "relu", go_backwards=True))],
        "bidirectional: activation='relu' is not supported",
    ),
    (
        lambda: [layers.Bidirectional(GRU(2), backward_layer=GRU(2, use_bias=False, go_backwards=True))],
        "bidirectional: a use_bias that differs between the directions is not supported",
    ),
    (lambda: [layers.Masking(), GRU(2)], "masking: Masking is not supported"),
    (lambda: [layers.Embedding(3, 4, mask_zero=True), GRU(2)], "embedding: mask_zero=True is not supported"),
    (lambda: [layers.GlobalMaxPooling1D()], "expected a layer with weights"),
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("chain", "message"), REFUSED, ids=[message.split(" is not supported")[0] for _, message in REFUSED]
)
def test_what_pytorch_cannot_say_is_refused_and_nothing_written(tmp_path, ending, chain, message):
    model = Sequential(chain())
    model.build((None, 5) if model._network.takes_tokens else (None, 5, 3))
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / f"m.{ending}")
    assert not list(tmp_path.iterdir())


# --- Files of others ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("suffixes", [("",), ("", "_reverse")])
@pytest.mark.parametrize("depth", [1, 3])
def test_names_and_shapes_make_the_model(path, depth, suffixes, bias, return_sequences, torch):
    tensors = state_dict(depth=depth, suffixes=suffixes, bias=bias, dtype="float64")
    model = load_model(save(path, tensors), return_sequences=return_sequences)
    x = np.random.default_rng(1).normal(size=(4, 5, 3))

    bidirectional = len(suffixes) == 2
    peer = torch.nn.ModuleDict(
        {
            "gru": torch.nn.GRU(3, 2, depth, bias, batch_first=True, bidirectional=bidirectional),
            "fc": torch.nn.Linear(2 * len(suffixes), 4),
        }
    ).double()
    peer.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, strict=True)
    with torch.no_grad():
        outputs, h = peer["gru"](torch.from_numpy(x))
        seen = outputs if return_sequences else torch.cat(tuple(h[-len(suffixes) :]), dim=-1)
        expected = peer["fc"](seen).numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12, atol=1e-12)
    assert model.dtype == np.float64
    assert [layer.name for layer in model.layers] == [*["gru", "gru.l1", "gru.l2"][:depth], "fc"]
    assert [layer.options().get("zero_output_for_mask", True) for layer in model.layers] == [True] * (depth + 1)


def test_what_was_read_is_written_under_the_same_names(path):
    tensors = state_dict(depth=2, suffixes=("", "_reverse"))
    model = load_model(save(path, tensors))
    model.save(path, format="torch")
    again = state_dicts.read(path).tensors
    assert again.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(again[name], array)


def test_softmax_is_said_by_who_loads(path):
    model = load_model(save(path, state_dict()), activations=["softmax"])
    np.testing.assert_allclose(model.predict(np.ones((2, 3, 3), np.float32)).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_wrappers_around_the_model_are_dropped(path, prefix):
    model = load_model(save(path, {prefix + name: array for name, array in state_dict().items()}))
    assert [layer.name for layer in model.layers] == ["gru", "fc"]


def test_a_module_called_module_is_no_wrapper(path):
    tensors = {name.replace("fc", "module.fc"): array for name, array in state_dict().items()}
    assert [layer.name for layer in load_model(save(path, tensors)).layers] == ["gru", "module.fc"]


def test_a_bare_gru(path):
    tensors = {n.removeprefix("gru."): array for n, array in state_dict(depth=2).items() if n.startswith("gru.")}
    assert [layer.name for layer in load_model(save(path, tensors)).layers] == ["gru", "gru.l1"]


def test_several_grus_embeddings_and_linears(path):
    tensors = {
        "tokens.weight": np.ones((9, 3)),
        **{f"a.{n}": array for n, array in state_dict(units=4).items() if n.startswith("gru")},
        **{f"b.{n}": array for n, array in state_dict(features=4, units=2).items()},
        "out.weight": np.ones((1, 4)),
    }
    model = load_model(save(path, tensors), activations=["relu", "linear"])
    assert [layer.name for layer in model.layers] == ["tokens", "a.gru", "b.gru", "b.fc", "out"]
    assert [layer.return_sequences for layer in model.layers[1:3]] == [True, False]
    assert model.layers[3].activation == "relu"
    assert model.predict(np.zeros((2, 7), int)).shape == (2, 1)
    with pytest.raises(
        ModelFileError, match=r"the activations between the modules .*{'b.fc': 'linear', 'out': 'linear'}"
    ):
        load_model(path)


def test_the_order_is_the_files_or_the_only_one_that_fits(path):
    tensors = dict(sorted(state_dict().items()))  # fc before gru
    assert [layer.name for layer in load_model(save(path, tensors)).layers] == ["gru", "fc"]


def test_a_doubtful_order_is_asked_for(tmp_path):
    tensors = state_dict(features=4, units=4, classes=4)
    with pytest.raises(ModelFileError, match=r"gru \(GRU\) -> fc \(Dense\).*pass order="):
        load_model(save(tmp_path / "m.safetensors", tensors))
    model = load_model(tmp_path / "m.safetensors", order=["gru", "fc"])
    assert [layer.name for layer in model.layers] == ["gru", "fc"]
    model = load_model(tmp_path / "m.safetensors", order=["fc", "gru"], activations=["tanh"])
    assert [layer.name for layer in model.layers] == ["fc", "gru"]
    assert [layer.name for layer in load_model(save(tmp_path / "m.pt", tensors)).layers] == ["gru", "fc"]


def test_many_modules_of_one_size_do_not_take_forever(path):
    tensors = {f"l{number:03}.weight": np.zeros((4, 4), np.float32) for number in range(60)}
    tensors |= {n: array for n, array in state_dict(features=5, units=4).items() if n.startswith("gru")}
    with pytest.raises(ModelFileError, match="order="):
        load_model(save(path, tensors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gru.weight_hh_l0": (8, 2), "gru.weight_ih_l0": (8, 3)},
            r"'gru': expected an nn.GRU, .*, an nn.LSTM",
        ),
        ({"gru.weight_hh_l0": (2, 2), "gru.weight_ih_l0": (2, 3)}, "an nn.RNN"),
        ({"gru.weight_hr_l0": (2, 2)}, "'gru': expected an nn.GRU, nn.Linear or nn.Embedding, got a module with"),
        ({"gru.weight_ih_l0": None}, "'gru': expected weight_ih_l0 and weight_hh_l0"),
        ({"gru.bias_hh_l0": None}, "'gru': bias_hh_l0 is missing"),
        ({"gru.bias_ih_l0": (5,)}, r"'gru': expected bias_ih_l0 of shape \(6,\), got \(5,\)"),
        ({"gru.weight_ih_l2": (6, 2)}, "'gru': "),
        ({"gru.weight_ih_l0_reverse": (6, 3)}, "'gru': bias_hh_l0_reverse is missing"),
        ({"gru.weight_ih_l00": (6, 3)}, "'gru': expected an nn.GRU"),
        ({"fc.weight": (4, 7)}, r"each accept the output of the one before, got .*fc \(Dense, 7 -> 4\)"),
        ({"fc.weight": (4, 2, 1)}, "'fc': expected an nn.GRU, nn.Linear or nn.Embedding"),
        ({"fc.bias": (3,)}, r"'fc': expected bias of shape \(4,\), got \(3,\)"),
        ({"norm.weight": (2,), "norm.bias": (2,)}, r"'norm': expected .* (weight|bias) \(2,\), "),
        ({"a\nb.weight": (2,)}, r"'a\\nb.weight': expected a name of printable characters"),
        ({"norm.running_mean": (2,)}, "'norm': expected an nn.GRU"),
        ({name: None for name in state_dict() if name.startswith("gru")}, "expected an nn.GRU among its modules"),
        ({"gru.weight_ih_l0": (0, 3), "gru.weight_hh_l0": (0, 0)}, "expected some numbers"),
    ],
)
def test_other_modules_are_refused_by_name(path, change, message):
    tensors = state_dict()
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(save(path, tensors))
    assert str(caught.value).startswith(str(path))


def test_options_are_checked(path):
    save(path, state_dict())
    with pytest.raises(TypeError, match="head: expected no such option because the format is torch"):
        load_model(path, head="softmax")
    load_model(path).save(path, format="torch")
    with pytest.raises(ValueError, match=r"^activations: expected none because the file describes its model, got some"):
        load_model(path, activations=["softmax"])
    load_model(path).save(path, format="fastgru")
    if path.suffix == ".safetensors":
        with pytest.raises(TypeError, match="activations: expected no options"):
            load_model(path, activations=["softmax"])


# --- Numbers --------------------------------------------------------------------------------------------------------


def test_float16_is_widened_exactly(path):
    tensors = state_dict(dtype="float16")
    model = load_model(save(path, tensors))
    assert model.dtype == np.float32
    np.testing.assert_array_equal(model.layers[-1].parameters["kernel"], tensors["fc.weight"].T)


@pytest.mark.parametrize("order", ["little", "big"])
def test_bfloat16_is_widened_exactly_in_either_byte_order(tmp_path, order):
    tensors = state_dict()
    code = {"little": "<", "big": ">"}[order]
    data, storages = parts(tensors)
    storages = {key: np.frombuffer(content, "<f4").astype(f"{code}f4").tobytes() for key, content in storages.items()}
    upper = (tensors["fc.weight"].view(np.uint32) >> 16).astype(f"{code}u2")
    key = str(list(tensors).index("fc.weight"))
    data["fc.weight"], storages[key] = tensor(key, (4, 2), kind="BFloat16Storage"), upper.tobytes()
    path = archive(tmp_path / "m.pt", data, storages, entries={"byteorder": order.encode()})
    model = load_model(path)
    head = model.layers[-1].parameters
    np.testing.assert_array_equal(head["kernel"].T.copy().view(np.uint32), upper.astype(np.uint32) << 16)
    np.testing.assert_array_equal(head["bias"], tensors["fc.bias"])


def test_bfloat16_in_safetensors(tmp_path):
    tensors = state_dict()
    content = safetensors_bytes({name: (a.view(np.uint32) >> 16).astype(np.uint16) for name, a in tensors.items()})
    path = tmp_path / "m.safetensors"
    path.write_bytes(content.replace(b'"U16"', b'"BF16"').replace(b"  ", b"", 0))
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"U16"', b'"BF16"')
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + size :])
    kernel = load_model(path).layers[-1].parameters["kernel"].T.copy()
    np.testing.assert_array_equal(kernel.view(np.uint32), tensors["fc.weight"].view(np.uint32) & 0xFFFF0000)


def test_views_of_one_storage_in_any_strides(tmp_path):
    """Weights of a GRU on a GPU are parts of one storage; transposed weights have other strides."""
    tensors = state_dict()
    data, offset = {}, 0
    total = sum(array.size for array in tensors.values())
    for name, array in tensors.items():
        strides = (1, len(array)) if array.ndim == 2 else (1,)
        data[name] = tensor("0", array.shape, offset=offset, strides=strides, size=total)
        offset += array.size
    flat = np.concatenate([array.T.ravel() for array in tensors.values()])
    model = load_model(archive(tmp_path / "m.pt", data, {"0": flat.tobytes()}))
    expected = load_model(save(tmp_path / "n.pt", tensors))
    np.testing.assert_array_equal(model.parameters, expected.parameters)


# --- Before PyTorch 1.6 ---------------------------------------------------------------------------------------------


def test_the_format_before_pytorch_1_6_is_read(tmp_path):
    tensors = state_dict(depth=2)
    model = load_model(legacy(tmp_path / "m.pt", *parts(tensors)))
    np.testing.assert_array_equal(model.parameters, load_model(save(tmp_path / "n.pt", tensors)).parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magic": 1}, "expected a file of torch.save, got another pickle"),
        ({"magic": "x"}, "expected a file of torch.save, got another pickle"),
        ({"little_endian": False}, "from a big-endian system"),
        ({"keys": ["0"]}, "storage '1': expected 48 bytes, got 0"),
        ({"keys": ["nothing"]}, "the keys of its storages"),
        ({"keys": [0]}, "the keys of its storages"),
        ({"sizes": {"0": 2**63 - 1}}, "expected a storage of 18 numbers, got 9223372036854775807"),
        ({"sizes": {"1": -1}}, "expected a storage of 12 numbers, got 18446744073709551615"),
    ],
)
def test_damaged_files_from_before_pytorch_1_6_are_refused(tmp_path, options, message):
    data, storages = parts(state_dict())
    with pytest.raises(ModelFileError, match=message):
        load_model(legacy(tmp_path / "m.pt", data, storages, **options))


def test_a_huge_storage_before_pytorch_1_6_is_refused(tmp_path):
    data = {"x.weight": tensor("0", (1,), size=2**62)}
    with pytest.raises(ModelFileError, match="storage '0': expected 18446744073709551616 bytes, got 4"):
        load_model(legacy(tmp_path / "m.pt", data, {"0": ONE}, sizes={"0": 2**62}))


# --- Checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "anything"])
def test_a_checkpoint_with_one_state_dict(tmp_path, key):
    data, storages = parts(state_dict())
    data = {"epoch": 3, key: data, "optimizer": {"state": {0: {"step": data["fc.bias"]}}, "param_groups": ()}}
    assert len(load_model(archive(tmp_path / "m.pt", data, storages)).layers) == 2


def test_checkpoints_with_several_or_none_are_refused(tmp_path):
    data, storages = parts(state_dict())
    for content, message in [
        ({"model": data, "ema": data}, "got one with 2: 'model', 'ema'"),
        ({"epoch": 3}, "got one with none: save model.state_dict"),
        ({"epoch": 3, **data}, "got one with none"),
        ({}, "got one with none"),
        (data["fc.bias"], "expected a state_dict, got a tensor"),
        (3, "expected a state_dict, got a int"),
    ]:
        with pytest.raises(ModelFileError, match=message):
            load_model(archive(tmp_path / "m.pt", content, storages))


# --- Hostile files --------------------------------------------------------------------------------------------------


class Runs:
    """Unpickling it runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def programs(marker):
    """Pickles that would create `marker`, each by another instruction."""
    command = f"touch {marker}"
    text = command.encode()
    short = b"\x8c" + bytes([len(text)]) + text
    yield from ((f"REDUCE {protocol}", pickle.dumps(Runs(command), protocol)) for protocol in range(6))
    yield "GLOBAL", b"\x80\x02cos\nsystem\nX" + struct.pack("<I", len(text)) + text + b"\x85R."
    yield "STACK_GLOBAL", b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R."
    yield "INST", b"(S'" + text + b"'\nios\nsystem\n."
    yield "OBJ", b"(cos\nsystem\nS'" + text + b"'\no."
    yield "NEWOBJ", b"\x80\x02csubprocess\nPopen\n" + b"X" + struct.pack("<I", len(text)) + text + b"\x85\x81."
    yield "NEWOBJ_EX", b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93" + short + b"\x85}\x92."
    yield "EXT1", b"\x80\x02\x82\x01."
    yield "EXT4", b"\x80\x02\x84\x01\x00\x00\x00."
    yield "BUILD", b"\x80\x02cfastgru_evil\nThing\n)\x81}b."
    yield "an import", b"\x80\x02cfastgru_evil\nthing\n."
    yield "PERSID", b"Pstorage\n."
    yield "call of a known name that is no function", b"\x80\x02ctorch\nFloatStorage\n)R."
    yield "call of a string", b"\x80\x02X\x02\x00\x00\x00os)R."
    yield "getattr", b"\x80\x04c__builtin__\ngetattr\ncos\npath\n\x8c\x06remove\x86R."
    yield "BUILD of a tensor", pickles.dump(tensor("0", (1,)))[:-1] + b"}b."
    yield "an OrderedDict's items", b"\x80\x02ccollections\nOrderedDict\n](]K\x01ae\x85R."
    yield "a buffer", b"\x80\x05\x97."
    yield "bytes", b"\x80\x03C\x01x."


PROGRAMS = [name for name, _ in programs("nothing")]


@pytest.mark.parametrize("where", ["alone", "in a state_dict"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_pickle_is_executed(tmp_path, monkeypatch, name, where):
    marker = tmp_path / "marker"
    (tmp_path / "fastgru_evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Thing: pass\nthing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    program = dict(programs(marker))[name]
    data, storages = parts(state_dict())
    if where == "in a state_dict":
        inner = program[2:] if program[:1] == b"\x80" else program
        inner = inner[9:] if inner[:1] == b"\x95" else inner
        program = pickles.dump(data)[:-2] + b"X\x01\x00\x00\x00x" + inner[:-1] + b"u."
    with pytest.raises(ModelFileError) as caught:
        load_model(archive(tmp_path / "m.pt", program, storages))
    assert str(caught.value).startswith(f"{tmp_path / 'm.pt'}: ")
    if b"system" in program and name != "INST":
        assert "system, which is not plain data: save model.state_dict() alone" in str(caught.value)
    assert not marker.exists()
    assert "fastgru_evil" not in sys.modules


def test_the_programs_would_run_if_unpickled(tmp_path):
    """The test above can fail: pickle.loads does create the marker."""
    ran = set()
    for name, program in programs(tmp_path / "marker"):
        if b"touch" in program and b"Popen" not in program:
            pickle.loads(program)
            if (tmp_path / "marker").exists():
                (tmp_path / "marker").unlink()
                ran.add(name)
    assert {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE 0", "REDUCE 4"} <= ran


ONE = np.ones(1, np.float32).tobytes()
HOSTILE = {
    "a huge shape without memory": (tensor("0", (10**9, 10**9), strides=(0, 0), size=1), "at most twice the size"),
    "a huge product": (tensor("0", (2**62,) * 8, strides=(0,) * 8, size=1), "at most twice the size"),
    "many axes": (tensor("0", (1,) * 9, size=1), "9 axes"),
    "a view behind the end": (tensor("0", (1,), offset=1, size=1), "damaged: it reaches beyond its storage"),
    "strides that leave it": (
        tensor("0", (2, 2), strides=(2**62, 1), size=1),
        "damaged: it reaches beyond its storage",
    ),
    "a negative offset": (tensor("0", (1,), offset=-1, size=1), "integers of at least 0"),
    "negative strides": (tensor("0", (1,), strides=(-1,), size=1), "integers of at least 0"),
    "shape and strides that differ": (tensor("0", (1, 1), strides=(1,), size=1), "integers of at least 0"),
    "a shape of huge integers": (tensor("0", (2**63,), strides=(0,), size=1), "integers of at least 0"),
    "a shape of strings": (tensor("0", ("1",), strides=(1,), size=1), "integers of at least 0"),
    "a shape of booleans": (tensor("0", (True,), strides=(1,), size=1), "integers of at least 0"),
    "no numbers": (tensor("0", (0, 2**62), strides=(2**62, 2**62), size=1), "expected some numbers"),
    "a storage larger than its file": (tensor("0", (2,), size=2), "storage '0': expected 8 bytes, got 4"),
    "a storage smaller than its file": (tensor("0", (1,), size=0), "damaged: it reaches beyond"),
    "a storage of a negative size": (tensor("0", (1,), size=-1), "a storage's kind, key and size"),
    "a storage that is not there": (
        tensor("7", (1,), size=1),
        "expected a file archive/data/7 in the archive, which is missing",
    ),
    "a path": (tensor("../../../etc/passwd", (1,), size=1), "is missing"),
    "integers": (tensor("0", (1,), size=1, kind="IntStorage"), "expected floating-point numbers, got a torch.IntSt"),
    "another storage": (
        tensor("0", (1,), size=1, kind="QInt8Storage"),
        "holds a torch.QInt8Storage, which is not plain",
    ),
    "a conjugate bit": (
        tensor("0", (1,), size=1, more=({"conj": True},)),
        "expected tensors that are views of storages",
    ),
    "a stride that does not matter": (tensor("0", (1,), strides=(2**62,), size=1), "nn.Embedding, got a module with"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tensors_are_refused(tmp_path, name):
    content, message = HOSTILE[name]
    with pytest.raises(ModelFileError, match=message):
        load_model(archive(tmp_path / "m.pt", {"x.weight": content}, {"0": ONE}))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02}" + b"(" * 100_000 + b"t" * 100_000 + b".", "damaged|expected a state_dict"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "expected a state_dict, got a list"),
        (b"\x80\x02)" + b"\x85" * 200_000 + b".", "expected a state_dict, got a tuple"),
        (b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.", "expected strings and integers as keys"),
        (b"\x80\x02]q\x00(h\x00h\x00h\x00e.", "expected a state_dict, got a list"),
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "got one with none"),
        (b"\x80\x02" + b"]q\x00" + b"](h\x00h\x00h\x00eq\x00" * 1000 + b".", "expected one value at its end"),
        (b"\x80\x02\x8a\xff" + b"\xff" * 254 + b"\x7f.", "expected a state_dict, got a int"),
        (b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".", "LONG4"),
        (b"I" + b"9" * 10_000 + b"\n.", "the instruction INT is not supported"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x02K\x01r\xff\xff\xff\xff.", "expected a state_dict, got a int"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02\x87.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02}b.", "damaged"),
        (b"\x80\x02K\x01K\x02s.", "damaged"),
        (b"\x80\x02}(K\x01u.", "damaged"),
        (b"\x80\x02.", "damaged: expected one value at its end, got 0"),
        (b"\x80\x02}", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02}(X\x01\x00\x00\x00\xffK\x01u.", "damaged"),
        (b"\x80\x02" + b"N" * 2**20 + b".", "expected a pickle of at most 1,048,576 bytes"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "expected tensors that are views"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.", "a parameter without a tensor"),
        (b"\x80\x02ctorch\nSize\n)R.", "torch.Size of a tuple"),
        (b"\x80\x02K\x01Q.", "a storage's kind"),
        (b"\x80\x04\x8c\x02osK\x01\x93.", "the name of a class or function as strings"),
    ],
    ids=range(29),
)
def test_hostile_pickles_are_refused(tmp_path, program, message):
    with pytest.raises(ModelFileError, match=message):
        load_model(archive(tmp_path / "m.pt", program))


def test_tied_weights_are_read_but_not_a_thousand_views_of_one_storage(tmp_path):
    tensors = {"e.weight": np.ones((9, 3), np.float32), **state_dict(features=3, units=3)}
    tensors = {name: array for name, array in tensors.items() if not name.startswith("fc")}
    data, storages = parts(tensors)
    data["out.weight"] = data["e.weight"]
    assert len(load_model(archive(tmp_path / "m.pt", data, storages)).layers) == 3
    for number in range(10):
        data[f"l{number}.weight"] = data["e.weight"]
    with pytest.raises(ModelFileError, match="expected tensors of at most twice the size of their storages"):
        load_model(archive(tmp_path / "m.pt", data, storages))


def test_other_archives_and_pickles_are_refused(tmp_path):
    data, storages = parts(state_dict())
    path = tmp_path / "m.pt"
    with pytest.raises(ModelFileError, match="expected a state_dict, got a TorchScript program"):
        load_model(archive(path, data, storages, entries={"constants.pkl": b""}))
    with pytest.raises(ModelFileError, match=r"one data\.pkl, got 2"):
        load_model(archive(path, data, storages, entries={"more/data.pkl": b""}))
    with pytest.raises(ModelFileError, match="byteorder: expected little or big"):
        load_model(archive(path, data, storages, entries={"byteorder": b"middle"}))
    assert load_model(archive(path, data, storages, folder="")).built
    path.write_bytes(pickle.dumps({"gru.weight_ih_l0": 1}))
    with pytest.raises(ModelFileError, match=r"expected a file of torch.save, got another pickle"):
        load_model(path)
    path.write_bytes(safetensors_bytes({"gru.weight_ih_l0": np.zeros((6, 3), np.int64)}))
    with pytest.raises(ModelFileError, match=r"'gru\.weight_ih_l0': expected one of F64, F32, F16, BF16, got I64"):
        load_model(path)
    path.write_bytes(safetensors_bytes({}))
    with pytest.raises(ModelFileError, match="without tensors"):
        load_model(path)


def test_a_compressed_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickles.dump({"x.weight": tensor("0", (2**24,))}))
        file.writestr("archive/data/0", bytes(2**26))
    with pytest.raises(ModelFileError, match="expected contents of at most 16 times its size"):
        load_model(tmp_path / "m.pt")


# --- Fuzzing --------------------------------------------------------------------------------------------------------

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
edits = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "copy"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=4,
)


def edited(data, edits):
    data = bytearray(data)
    for how, where, content in edits:
        place = int(where * max(len(data) - 1, 0))
        match how:
            case "flip":
                data[place : place + len(content)] = content
            case "cut":
                del data[place : place + len(content)]
            case "insert":
                data[place:place] = content
            case "copy":
                data[place:place] = data[: len(content) * 8]
    return bytes(data)


def load_or_refuse(path):
    with contextlib.suppress(ModelFileError, OSError, ImportError):  # it may look like a format with an extra package
        load_model(path)
    with contextlib.suppress(ModelFileError, OSError):
        load_model(path, format="torch")


def small_model():
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(2, return_sequences=True), input_shape=(None, 3)),
            layers.GRU(2),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("kind", ["pt", "torch.safetensors", "legacy"])
def test_edited_files_are_models_or_refused(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    if kind == "legacy":
        legacy(path, *parts(state_dict()))
    else:
        small_model().save(path)
    content = path.read_bytes()

    @quick
    @given(edits)
    def check(changes):
        path.write_bytes(edited(content, changes))
        load_or_refuse(path)

    check()


def test_edited_pickles_are_models_or_refused(tmp_path):
    data, storages = parts(state_dict(suffixes=("", "_reverse")))
    program = pickles.dump({"state_dict": data, "epoch": 3})

    @settings(quick, max_examples=200)
    @given(edits)
    def check(changes):
        load_or_refuse(archive(tmp_path / "m.pt", edited(program, changes), storages))

    check()


@quick
@given(st.binary(max_size=60))
def test_any_bytes_as_a_pickle_give_plain_data_or_an_error(program):
    with contextlib.suppress(pickles.PickleError):
        pickles.load(
            io.BytesIO(program), calls={"collections.OrderedDict": lambda _: {}}, names=(), persistent=lambda _: 0
        )


@pytest.mark.parametrize("ending", ["pt", "torch.safetensors"])
def test_descriptions_of_anything_are_models_or_refused(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(state_dicts, "write_atomically", lambda path, data: path.write_bytes(data))  # faster
    path = tmp_path / f"m.{ending}"
    small_model().save(path)
    found = state_dicts.read(path)
    content = json.loads(found.description)

    @quick
    @given(st.sampled_from(list(places(content))), values())
    def check(where, new):
        state_dicts.write(path, found.tensors, json.dumps(replaced(content, where, new)))
        load_or_refuse(path)

    check()
    for text in ("[" * 100_000, "{", "", "3", '{"layers": []}', "[" * 900 + "]" * 900):
        state_dicts.write(path, found.tensors, text)
        with pytest.raises(ModelFileError):
            load_model(path)
    deep = json.dumps(replaced(content, ("layers", 1, "config", "activation"), "DEEP"))
    state_dicts.write(path, found.tensors, deep.replace('"DEEP"', "[" * 950 + "]" * 950))
    with pytest.raises(ModelFileError):
        load_model(path)


# --- With PyTorch itself --------------------------------------------------------------------------------------------


def test_pytorch_is_not_needed(tmp_path):
    save(tmp_path / "m.pt", state_dict())
    program = """
        import pickle, sys
        sys.modules["torch"] = None
        pickle.Unpickler = pickle.load = pickle.loads = pickle._Unpickler = None
        import fastgru
        model = fastgru.load_model("m.pt")
        model.save("n.pt")
        model.save("n.torch.safetensors")
        fastgru.load_model("n.pt"), fastgru.load_model("n.torch.safetensors")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=tmp_path)


def test_the_documented_module_loads_what_was_written(tmp_path, torch, monkeypatch):
    """Return the code examples of the documentation."""
    monkeypatch.chdir(tmp_path)
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(64, return_sequences=True), input_shape=(None, 28), name="gru"),
            layers.Bidirectional(layers.GRU(64)),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.save("digits.pt")

    class Digits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(28, 64, num_layers=2, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(2 * 64, 10)

        def forward(self, x):
            _, h = self.gru(x)
            return self.head(torch.cat((h[-2], h[-1]), -1)).softmax(-1)

    digits = Digits()
    digits.load_state_dict(torch.load("digits.pt", weights_only=True))
    x = np.random.default_rng(0).random((5, 28, 28), np.float32)
    np.testing.assert_allclose(model.predict(x), digits(torch.from_numpy(x)).detach(), rtol=1e-5, atol=1e-7)

    torch.save(digits.state_dict(), "digits.pth")
    loaded = fastgru.load_model("digits.pth", activations=["softmax"])
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


def peer_of(torch, model):
    """Return the model as PyTorch modules, as described in the documentation."""
    from torch import nn

    class Peer(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = []
            run = []
            for layer in model.layers:
                if isinstance(layer, (layers.GRU, layers.Bidirectional)):
                    run.append(layer)
                    continue
                self.add_gru(run)
                run = []
                self.add_other(layer)
            self.add_gru(run)

        def add_gru(self, run):
            """As many of the GRUs in a run as are alike at a time."""
            for _, group in itertools.groupby(run, lambda layer: layer.get_weights()[1].shape):
                first, *more = group
                bidirectional = isinstance(first, layers.Bidirectional)
                one = first.forward_layer if bidirectional else first
                gru = nn.GRU(
                    one.features, one.units, 1 + len(more), one.use_bias, batch_first=True, bidirectional=bidirectional
                )
                self.add_module(first.name, gru)
                last = more[-1] if more else first
                sequences = last.forward_layer.return_sequences if bidirectional else last.return_sequences
                self.steps.append(lambda x, gru=gru, sequences=sequences: self.run(gru, x, sequences))

        def run(self, gru, x, sequences):
            outputs, h = gru(x)
            if sequences:
                return outputs
            return torch.cat((h[-2], h[-1]), -1) if gru.bidirectional else h[-1]

        def add_other(self, layer):
            match type(layer).__name__:
                case "Dense":
                    self.add_module(layer.name, nn.Linear(layer.features, layer.units, layer.use_bias))
                    self.steps.append(getattr(self, layer.name))
                    activation = {"softmax": lambda x: torch.softmax(x, -1), "linear": lambda x: x}.get(
                        layer.activation, getattr(torch, layer.activation, None)
                    )
                    self.steps.append(activation)
                case "Embedding":
                    self.add_module(layer.name, nn.Embedding(layer.input_dim, layer.output_dim))
                    self.steps.append(getattr(self, layer.name))
                case "GlobalMaxPooling1D":
                    self.steps.append(lambda x: x.amax(1))

        def forward(self, x):
            for step in self.steps:
                x = step(x)
            return x

    return Peer().to(getattr(torch, str(model.dtype)))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seed", range(100, 125))
def test_pytorch_loads_what_was_written_and_predicts_the_same(tmp_path, torch, ending, seed):
    model = random_model(seed)
    path = tmp_path / f"m.{ending}"
    model.save(path)
    if ending == "torch.safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
    else:
        tensors = torch.load(path, weights_only=True)
        assert torch.load(path, weights_only=True, mmap=True).keys() == tensors.keys()
    peer = peer_of(torch, model)
    peer.load_state_dict(tensors, strict=True)
    x = random_input(model, seed)
    with torch.no_grad():
        expected = peer(torch.from_numpy(x)).numpy()
    tolerance = OURS[str(model.dtype)]
    np.testing.assert_allclose(model.predict(x), expected, rtol=tolerance, atol=tolerance)


def network(torch, depth, *, bidirectional, bias, embedding, head, each_step):
    """A user's module."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            size, directions = 7, 1 + bidirectional
            if head:
                self.head = nn.Linear(directions * size, 3, bias=bias)  # before the GRU: the order is not the file's
            if embedding:
                self.embedding = nn.Embedding(11, 5)
            self.rnn = nn.GRU(
                5, size, depth, bias, batch_first=True, dropout=0.3 * (depth > 1), bidirectional=bidirectional
            )

        def forward(self, x, lengths=None):
            if embedding:
                x = self.embedding(x)
            if lengths is not None:
                x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, h = self.rnn(x)
            if lengths is not None:
                y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
            if not each_step:
                y = torch.cat((h[-2], h[-1]), -1) if bidirectional else h[-1]
            return self.head(y) if head else y

    return Network().eval()


def torch_save(torch, network, path, rng):
    """Save its state_dict in one of the usual ways."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        return save_file(network.state_dict(), path)
    optimizer = torch.optim.Adam(network.parameters())
    wrapped = torch.nn.DataParallel(network)
    content = [
        network.state_dict(),
        dict(network.named_parameters()),
        wrapped.state_dict(),
        {
            "epoch": 3,
            "loss": 0.5,
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "args": ["a", None],
        },
    ][rng.integers(4)]
    protocol, legacy = int(rng.choice([2, 4, 5])), rng.integers(3) == 0
    return torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("seed", range(200, 225))
def test_what_pytorch_saved_predicts_the_same(tmp_path, torch, ending, seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    bidirectional, bias, embedding, head, each_step = (bool(rng.integers(2)) for _ in range(5))
    dtype = str(rng.choice(["float32", "float64"]))
    peer = network(
        torch,
        int(rng.integers(1, 4)),
        bidirectional=bidirectional,
        bias=bias,
        embedding=embedding,
        head=head,
        each_step=each_step,
    ).to(getattr(torch, dtype))
    path = tmp_path / f"m.{ending}"
    torch_save(torch, peer, path, rng)
    model = load_model(path, return_sequences=each_step)
    assert str(model.dtype) == dtype
    rows, steps = int(rng.choice([1, 6])), int(rng.choice([1, 5]))
    x = rng.integers(0, 11, (rows, steps)) if embedding else rng.normal(size=(rows, steps, 5)).astype(dtype)
    lengths = rng.integers(1, steps + 1, rows)
    lengths[-1] = steps
    tolerance = OURS[dtype]
    with torch.no_grad():
        expected = peer(torch.from_numpy(x)).numpy()
        packed = peer(torch.from_numpy(x), torch.from_numpy(lengths)).numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(model.predict(x, lengths=lengths), packed, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_half_precision_is_widened_as_pytorch_does(tmp_path, torch, ending, dtype):
    peer = network(torch, 2, bidirectional=True, bias=True, embedding=False, head=True, each_step=False)
    peer.to(getattr(torch, dtype))
    torch_save(torch, peer, tmp_path / f"m.{ending}", np.random.default_rng(0))
    model, x = load_model(tmp_path / f"m.{ending}"), np.ones((2, 4, 5), np.float32)
    with torch.no_grad():
        expected = peer.float()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)


def test_what_is_no_state_dict_is_refused_by_name(tmp_path, torch):
    peer = torch.nn.GRU(3, 2)
    path = tmp_path / "m.pt"
    for content, message in [
        (peer, r"holds a torch\.nn\.modules\.rnn\.GRU, which is not plain data: save model\.state_dict"),
        ({"model": peer.state_dict(), "loss": np.float64(1)}, r"holds a numpy\..*scalar, which"),
        (torch.nn.LSTM(3, 2).state_dict(), r"got \(8, 2\), an nn\.LSTM"),
        (
            torch.nn.GRUCell(3, 2).state_dict(),
            "expected an nn.GRU, nn.Linear or nn.Embedding, got a module with weight_ih",
        ),
        ({"gru": torch.ones(2).to_sparse()}, "holds a torch._utils._rebuild_sparse_tensor"),
        ({"gru.weight": torch.ones(2, dtype=torch.complex64)}, r"holds a torch\.ComplexFloatStorage"),
        (
            {"x.weight": torch.ones(1, 1).expand(1000, 1000)},
            "expected tensors of at most twice the size of their storages",
        ),
    ]:
        torch.save(content, path)
        with pytest.raises(ModelFileError, match=message):
            load_model(path)


def test_both_libraries_go_on_training_with_the_same_losses(tmp_path, torch):
    """A round trip: three steps in each of PyTorch and this package, from a file that the other wrote."""
    peer = network(torch, 2, bidirectional=False, bias=True, embedding=False, head=True, each_step=False)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4, 5)).astype(np.float32), rng.integers(0, 3, 8)

    def torch_steps():
        optimizer = torch.optim.SGD(peer.parameters(), 0.1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(peer(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def our_steps(model):
        loss = fastgru.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(fastgru.optimizers.SGD(0.1), loss)
        return model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0).history["loss"]

    torch.save(peer.state_dict(), tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt")
    np.testing.assert_allclose(our_steps(model), torch_steps(), rtol=1e-5)
    model.save(tmp_path / "n.pt")
    peer.load_state_dict(torch.load(tmp_path / "n.pt", weights_only=True))
    np.testing.assert_allclose(torch_steps(), our_steps(load_model(tmp_path / "n.pt")), rtol=1e-5)
