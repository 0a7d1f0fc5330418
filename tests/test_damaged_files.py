"""Any damaged file raises one ModelFileError that names it, and changes no model."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import struct
import warnings
import zipfile
import zlib

import json_damage
import numpy as np
import peers
import pytest
from fastgru import ModelFileError, Sequential, callbacks, layers, load_model, optimizers
from fastgru.formats import native
from fastgru.formats.boundary import model_file, reading
from models import FILE_NAMES, for_file

pytestmark = pytest.mark.isa_independent


def make_model(name=""):
    model = for_file(name)
    if name.endswith((".safetensors", ".keras", "m.h5", "m.json")):
        model.compile(optimizers.Adam(form="tfjs") if name == "m.json" else "adam", "mse")
    return model


def saved(folder, name):
    model = make_model(name)
    (model.save_weights if name.endswith(".weights.h5") else model.save)(folder / name)
    return folder / name


def load(path, into):
    if path.name.endswith(".weights.h5"):
        into.load_weights(path)
    else:
        load_model(path)


# --- The boundary -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("x"), AttributeError("x"), EOFError("x"), IndexError("x"), KeyError("x"), LookupError("x"),
        NotImplementedError("x"), OverflowError("x"), RecursionError("x"), RuntimeError("x"), SystemError("x"),
        TypeError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), ValueError("x"), ZeroDivisionError("x"),
        struct.error("x"), zlib.error("x"), zipfile.BadZipFile("x"), OSError(22, "x"), OSError(36, "x"),
        UserWarning("x"), FileNotFoundError(2, "x"), StopIteration("x"), Exception("x"),
        BufferError("x"), AssertionError(),
    ],
    ids=repr,
)  # fmt: skip
def test_every_exception_that_a_file_causes_is_one_error_that_names_it(error):
    with pytest.raises(ModelFileError, match=r"^folder/m.pt: ") as caught, reading("folder/m.pt"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ModelFileError("of a file"), ImportError("pip install"), MemoryError(), KeyboardInterrupt(), SystemExit(1),
        PermissionError(13, "x"), OSError(5, "Input/output error"), OSError(24, "Too many open files"),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_that_no_file_causes_are_not_converted(error):
    with pytest.raises(type(error)) as caught, reading("m.pt"):
        raise error
    assert caught.value is error


def test_a_file_that_cannot_be_opened_raises_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError), model_file(tmp_path / "nothing"):
        pass
    for name in FILE_NAMES:
        if name.endswith("weights.h5"):
            continue
        with pytest.raises(FileNotFoundError, match=name):
            load_model(tmp_path / name)


def test_wrong_arguments_are_not_reported_as_damage(tmp_path):
    path = saved(tmp_path, "m.pt")
    with pytest.raises(TypeError, match="return_sequences: expected True or False"):
        load_model(path, return_sequences=3)
    with pytest.raises(TypeError, match="nonsense: expected no such option"):
        load_model(path, nonsense=3)
    with pytest.raises(TypeError, match="path: expected a str"):
        load_model(3)


def test_a_wrong_type_in_a_file_gives_the_message_of_its_check():
    with pytest.raises(ModelFileError, match=r"^m\.keras: units: expected an integer, got 4\.5$"), reading("m.keras"):
        layers.GRU(4.5)
    with pytest.raises(ModelFileError, match=r"^m\.keras: damaged, .*: TypeError: "), reading("m.keras"):
        len(4.5)


def test_long_reasons_are_truncated():
    with pytest.raises(ModelFileError) as caught, reading("m.pt"):
        raise ValueError("x" * 10**6)
    assert len(str(caught.value)) < 3000


# --- Findings of the campaign ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.pt", "m.keras"])
def test_a_wrong_offset_in_an_archive(name, tmp_path):
    """Offsets in the archive then become negative, and seeking there is an OSError."""
    path = saved(tmp_path, name)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\5\6") + 16
    (offset,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, offset + 8)
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=name):
        load_model(path)


@pytest.mark.parametrize("shard", ["x" * 300, "x" * 100_000, "m.json/x", "nothing", "a\ud800b"])
def test_a_shard_with_an_impossible_file_name(shard, tmp_path):
    path = saved(tmp_path, "m.json")
    content = json.loads(path.read_text())
    content["weightsManifest"][0]["paths"] = [shard]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=r"m\.json: ") as caught:
        load_model(path)
    assert len(str(caught.value)) < 3000


@pytest.mark.peers("onnx")
def test_repeated_layers_in_the_metadata_of_onnx(tmp_path):
    """Some of these descriptions cannot be converted to a graph; the reader must not use them."""
    import onnx

    path = tmp_path / "m.onnx"
    chain = [layers.GRU(3, return_sequences=True, input_shape=(4, 2)), layers.Flatten(), layers.Dense(2)]
    Sequential(chain).save(path)
    model = onnx.load(path)
    said = json.loads(model.metadata_props[0].value)
    depths = []
    for length in range(1, 5):
        for repeated in itertools.product(said["layers"], repeat=length):
            model.metadata_props[0].value = json.dumps({**said, "layers": repeated})
            onnx.save(model, path)
            with contextlib.suppress(ModelFileError):
                depths.append(len(load_model(path).layers))
    assert set(depths) == {3}


# --- Any damage ---------------------------------------------------------------------------------------------------


def mutated(draw, data):
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 3))):
        place, size = draw.randrange(len(content)), draw.choice((1, 2, 4, 8, 64))
        match draw.randrange(5):
            case 0:
                content[place] ^= 1 << draw.randrange(8)
            case 1:
                content[place : place + size] = draw.choice((b"\0", b"\xff")) * len(content[place : place + size])
            case 2:
                other = draw.randrange(len(content))
                content[place : place + size] = content[other : other + size]
            case 3:
                del content[max(place, 30) :]
            case 4:
                content[place:place] = draw.randbytes(size)
    return bytes(content)


@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_damaged_bytes_load_or_raise_one_error(name, tmp_path):
    path, model, draw = saved(tmp_path, name), make_model(), random.Random(0)
    data, refused = path.read_bytes(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numbers that overflow are the file's as well
        for _ in range(200):
            path.write_bytes(mutated(draw, data))
            before, message = model.parameters.tobytes(), None
            try:
                load(path, model)
            except ModelFileError as error:
                message = str(error)
            assert message is None or (message.startswith(str(path)) and model.parameters.tobytes() == before)
            refused += message is not None
    assert refused > 20


STRANGE = (
    None, True, -1, 0, 1, 2, 10**30, 0.5, -math.inf, math.nan, "", "x", "GRU", [], [[]], [None], {}, {"x": 1},
    [1, 2, 3], {"array in tensors": "0"}, {"class_name": "GRU", "config": {}}, "relu", 2**63, -(2**63),
    "\ud800", "a/b", [1.5, "x"],
)  # fmt: skip


@pytest.mark.slow
def test_any_configuration_with_a_valid_checksum_loads_or_raises_one_error(tmp_path):
    path = tmp_path / "m.safetensors"
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(3, return_sequences=True, stateful=True), input_shape=(None, 2)),
            layers.Dropout(0.5),
            layers.GRU(2, stateful=True),
            layers.Dense(2, "softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", "f1_score"])
    model.predict(np.zeros((3, 4, 2), np.float32))
    model.save(path)
    config, tensors = native.load(path)
    places, draw = list(json_damage.places(config))[1:], random.Random(0)
    refused = 0
    for _ in range(400):
        changed = json_damage.replaced(config, draw.choice(places), draw.choice((*STRANGE, json_damage.LEFT_OUT)))
        try:
            native.save(path, changed, tensors)
        except ValueError:  # that JSON has no such text
            continue
        try:
            load_model(path)
        except ModelFileError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017
    assert refused > 100


# --- Training states ------------------------------------------------------------------------------------------------


def compiled():
    model = Sequential([layers.GRU(3, input_shape=(4, 2)), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", "f1_score"])
    return model


def fit(model, folder, epochs, resume=None):
    rng = np.random.default_rng(0)
    model.fit(
        rng.normal(size=(20, 4, 2)).astype(np.float32), rng.integers(0, 3, 20), batch_size=8, epochs=epochs, verbose=0,
        validation_split=0.2, resume_from=resume,
        callbacks=[
            callbacks.EarlyStopping(patience=3, restore_best_weights=True),
            callbacks.ReduceLROnPlateau(patience=1),
            callbacks.CSVLogger(folder / "log.csv"),
            callbacks.ModelCheckpoint(folder / "run.safetensors", save_freq=1),
        ],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_training_state_with_a_valid_checksum_resumes_or_raises(seed, tmp_path):
    """An error changes neither weights nor optimizer, and none occurs in the middle of training."""
    fit(compiled(), tmp_path, 2)
    good, log = (tmp_path / "run.safetensors").read_bytes(), (tmp_path / "log.csv").read_bytes()
    config, tensors = native.load(tmp_path / "run.safetensors")
    places, draw = list(json_damage.places(config["training"]))[1:], random.Random(seed)
    refused = 0
    for _ in range(120):
        changed = json_damage.replaced(
            config["training"], draw.choice(places), draw.choice((*STRANGE, json_damage.LEFT_OUT))
        )
        (tmp_path / "log.csv").write_bytes(log)
        try:
            native.save(tmp_path / "bad.safetensors", {**config, "training": changed}, tensors)
        except ValueError:  # that JSON has no such text
            continue
        model = compiled()
        before = model.parameters.tobytes()
        found = None
        try:
            fit(model, tmp_path, 3, tmp_path / "bad.safetensors")
        except ValueError as error:
            found = error
        if found is not None:
            refused += 1
            another = ("resume_from: ", "callbacks: ", "filename: ")
            assert isinstance(found, ModelFileError) or str(found).startswith(another), repr(found)
            assert model.parameters.tobytes() == before
            assert model.optimizer.step == 0
            assert not model.optimizer.states
    assert refused > 40
    (tmp_path / "bad.safetensors").write_bytes(good)
    (tmp_path / "log.csv").write_bytes(log)
    fit(compiled(), tmp_path, 3, tmp_path / "bad.safetensors")
