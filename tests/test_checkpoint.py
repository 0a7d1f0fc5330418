"""Model files: bit-identical after loading, written atomically, with a checksum, and read completely or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time

import fastgru
import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, layers, load_model, optimizers
from fastgru.datasets import synthetic
from fastgru.formats import native


def make_model(**options):
    model = Sequential(
        [
            layers.GRU(7, input_shape=(28, 28), return_sequences=True, reset_after=False),
            layers.GRU(5, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False),
            layers.Dense(10, activation="softmax", name="head"),
        ],
        **options,
    )
    model.compile(optimizers.Adam(0.01, form="pytorch"), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def digits():
    return synthetic.make_digits(200, 1)


@pytest.fixture
def saved(tmp_path, digits):
    fastgru.set_seed(0)
    model = make_model()
    model.fit(*digits, epochs=1, verbose=0)
    path = tmp_path / "model.safetensors"
    model.save(path)
    return model, path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_model_continues_training_bit_identically(tmp_path, digits, dtype):
    """Two epochs, save, load and two more epochs give the same bits as four epochs."""
    fastgru.set_seed(0)
    whole = make_model(dtype=dtype)
    whole.fit(*digits, epochs=4, verbose=0)
    fastgru.set_seed(0)
    first = make_model(dtype=dtype)
    first.fit(*digits, epochs=2, verbose=0)
    first.save(tmp_path / "m.safetensors")
    second = load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(second.predict(digits[0]), first.predict(digits[0]))
    second.fit(*digits, epochs=2, verbose=0)
    np.testing.assert_array_equal(second.parameters, whole.parameters)
    assert second.evaluate(*digits) == whole.evaluate(*digits)
    assert second.parameters.dtype == dtype


def test_a_model_saved_without_its_optimizer_is_not_compiled(saved, digits):
    model, path = saved
    model.save(path, include_optimizer=False)
    loaded = load_model(path)
    assert loaded.optimizer is None
    np.testing.assert_array_equal(loaded.predict(digits[0]), model.predict(digits[0]))


def test_the_whole_configuration_is_restored(saved):
    model, path = saved
    loaded = load_model(path)
    assert [type(a) for a in loaded.layers] == [type(a) for a in model.layers]
    for a, b in zip(loaded.layers, model.layers, strict=True):
        assert a.name == b.name
        assert a.get_config() == b.get_config()
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.step == model.optimizer.step
    assert (loaded.loss.name, loaded.loss.get_config()) == (model.loss.name, model.loss.get_config())
    assert [metric.name for metric in loaded.metrics] == [metric.name for metric in model.metrics]
    assert loaded.input_shape == model.input_shape


def test_an_uncompiled_model_can_be_saved(tmp_path):
    model = Sequential([layers.GRU(3, input_shape=(None, 2))])
    model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.optimizer is None
    assert loaded.input_shape == (None, None, 2)
    np.testing.assert_array_equal(loaded.parameters, model.parameters)


def test_safetensors_reads_the_weights(saved):
    from safetensors.numpy import load_file

    model, path = saved
    tensors = load_file(path)
    np.testing.assert_array_equal(tensors["layers/head/kernel"], model.get_weights()[-2])


def test_every_flipped_byte_raises(saved):
    model, path = saved
    data = path.read_bytes()
    header = struct.unpack("<Q", data[:8])[0] + 8
    rng = np.random.default_rng(0)
    places = [*range(16), *rng.integers(16, header, 150), *rng.integers(header, len(data), 150)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(ModelFileError):
            loaded = load_model(path)
            # The byte is white space or an escape in the header, which does not change the contents.
            assert header > place >= 8
            np.testing.assert_array_equal(loaded.parameters, model.parameters)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, 0.99])
def test_a_truncated_file_raises(saved, keep):
    _, path = saved
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelFileError, match=r"model\.safetensors: not a model file, or a damaged one"):
        load_model(path)


def test_errors_of_other_files_name_the_file(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(ModelFileError, match="expected a model that fastgru saved, got a safetensors file"):
        load_model(tmp_path / "foreign", format="fastgru")
    (tmp_path / "text").write_text("hello, this is no model at all" * 10)
    with pytest.raises(ModelFileError, match="expected a model file of one of the formats"):
        load_model(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        load_model(tmp_path)


def forge(path, change, tensors=None):
    """Write a file with a valid checksum, as an attacker could."""
    config, found = native.load(path)
    change(config)
    native.save(path, config, found if tensors is None else tensors)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["layers"][0]["config"].update(units=10**9),
        lambda c: c["layers"][0]["config"].update(units=-1),
        lambda c: c["layers"][0].update(class_name="os.system"),
        lambda c: c["layers"][0]["config"].update(surprise=1),
        lambda c: c.update(layers=[]),
        lambda c: c.update(layers=None),
        lambda c: c.update(input_shape=[None, 28]),
        lambda c: c.update(input_shape=[None, 28, 10**15]),
        lambda c: c.update(dtype="object"),
        lambda c: c.update(dtype="float64"),
        lambda c: c.pop("generator"),
        lambda c: c.update(generator={"bit_generator": "MT19937"}),
        lambda c: c["compile"].update(loss="exec"),
        lambda c: c["compile"]["optimizer"]["config"].update(learning_rate=-1),
        lambda c: c["compile"]["optimizer"].update(step=-3),
        lambda c: c["layers"][1].update(name="head"),
        lambda c: c.update(input_shape=[None, "a", 28]),
        lambda c: c.update(input_shape=[None, -28, 28]),
        lambda c: c.update(input_shape=[3, 28, 28]),
    ],
    ids=range(19),
)
def test_an_inconsistent_configuration_raises(saved, change):
    _, path = saved
    forge(path, change)
    with pytest.raises(ModelFileError, match="not a model that this version of fastgru supports"):
        load_model(path)


def test_moments_of_wrong_shapes_raise(saved):
    _, path = saved
    config, tensors = native.load(path)
    native.save(path, config, tensors | {"optimizer/m": np.zeros(3, np.float32)})
    with pytest.raises(ModelFileError, match="moments"):
        load_model(path)


def test_a_newer_format_version_raises(saved):
    _, path = saved
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"format_version":"2"', b'"format_version":"9"'))
    with pytest.raises(ModelFileError, match="expected format version 1 or 2, got 9"):
        load_model(path)


def test_a_failed_save_leaves_the_old_file_and_no_other(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_permissions_of_a_saved_file_are_ordinary(saved):
    _, path = saved
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_stays_a_link(saved):
    model, path = saved
    link = path.with_name("link")
    link.symlink_to(path)
    path.write_bytes(b"old")
    model.save(link)
    assert link.is_symlink()
    np.testing.assert_array_equal(load_model(path).parameters, model.parameters)


SAVER = """
import sys, itertools
import numpy as np
from fastgru.formats import native
for number in itertools.count():
    native.save(sys.argv[1], {"number": number}, {"a": np.full(20000, number)})
    if number == 0:
        print("ready", flush=True)
"""


@pytest.mark.slow
def test_kill_9_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    for _ in range(25):
        with subprocess.Popen([sys.executable, "-c", SAVER, path], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.02)))
            process.send_signal(signal.SIGKILL)
        config, tensors = native.load(path)
        assert (tensors["a"] == config["number"]).all()


def test_the_configuration_is_plain_json(saved):
    _, path = saved
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    config = json.loads(header["__metadata__"]["config"])
    assert config["layers"][2] == {
        "class_name": "Dense",
        "name": "head",
        "config": {
            "units": 10,
            "activation": "softmax",
            "use_bias": True,
            "kernel_initializer": "glorot_uniform",
            "bias_initializer": "zeros",
            "kernel_regularizer": None,
            "bias_regularizer": None,
        },
    }
