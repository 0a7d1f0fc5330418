"""Errors of saving that come before the training instead of after it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers
from fastgru.models import saving

from tests import models

pytestmark = pytest.mark.isa_independent


def check(model, path, **options):
    saving.require_saveable(model._network, model._compilation, path, **options)


def unbuilt():
    model = Sequential([layers.GRU(3), layers.Dense(2, activation="softmax")])
    model.compile("adam", "categorical_crossentropy")
    return model


@pytest.mark.parametrize("name", ["a.safetensors", "a", "a.pt", "a.torch.safetensors"])
@pytest.mark.parametrize("make", [models.classifier, unbuilt])
def test_what_can_be_saved_leaves_no_file(tmp_path, make, name):
    check(make(), tmp_path / name)
    make().require_saveable(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_the_file_there_stays_as_it_is(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    check(models.classifier(), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("make", [models.classifier, unbuilt])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a.xyz", ValueError, "expected a name that ends in"),
        ("a.weights.h5", ValueError, "use save_weights"),
        ("none/a.safetensors", FileNotFoundError, "expected an existing folder for a.safetensors"),
        ("none/a.pt", FileNotFoundError, "expected an existing folder"),
        ("", IsADirectoryError, "expected a regular file"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused(tmp_path, make, name, error, message):
    with pytest.raises(error, match=message):
        check(make(), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_what_the_format_does_not_support_is_refused_as_by_save(tmp_path):
    model = models.classifier()  # with reset_after=True
    for call in (model.save, model.require_saveable):
        with pytest.raises(ValueError, match=r"gru: reset_after=True is not supported by TensorFlow\.js"):
            call(tmp_path / "model.json")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("make", [models.classifier, unbuilt])
def test_a_missing_package_is_found(tmp_path, make, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # makes "import onnx" raise ImportError
    with pytest.raises(ImportError, match="onnx"):
        check(make(), tmp_path / "a.onnx")
    assert os.listdir(tmp_path) == []


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "a temporary name")

    monkeypatch.setattr("os.mkdir", refuse)
    with pytest.raises(PermissionError, match=r"a\.safetensors"):
        check(models.classifier(), tmp_path / "a.safetensors")


def test_include_optimizer_decides_what_is_checked(tmp_path):
    class Own(layers.Dense):
        pass

    from fastgru import losses

    class OwnLoss(losses.MeanSquaredError):
        pass

    model = models.regressor()
    model.compile("adam", OwnLoss())
    with pytest.raises(ValueError, match="OwnLoss"):
        model.require_saveable(tmp_path / "a.safetensors")
    model.require_saveable(tmp_path / "a.safetensors", include_optimizer=False)
    own = Sequential([Own(2, input_shape=(3,))])
    with pytest.raises(ValueError, match="Own"):
        own.require_saveable(tmp_path / "a.safetensors", include_optimizer=False)


def test_weights_only_checks_save_weights(tmp_path):
    pytest.importorskip("h5py")
    model = models.classifier()
    model.require_saveable(tmp_path / "a.weights.h5", weights_only=True)
    assert os.listdir(tmp_path) == []
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match=f"^filepath: expected a name that ends in .*, got {path}; change it"):
        model.require_saveable(path, weights_only=True)
    checkpoint = callbacks.ModelCheckpoint(path, save_weights_only=True)
    with pytest.raises(ValueError, match=f"^filepath: expected a name that ends in .*, got {path}; change it"):
        model.fit(*models.samples(), callbacks=[checkpoint], verbose=0)
    assert model.optimizer.step == 0
    assert np.isfinite(model.parameters).all()


@pytest.mark.parametrize("name", ["a.pt", "a.onnx", "model.json", "a.rtneural.json"])
def test_load_weights_refuses_files_of_other_frameworks_with_a_remedy(tmp_path, name):
    with pytest.raises(ValueError, match=r"^filepath: expected a file of fastgru .*; call set_weights\(fastgru"):
        models.classifier().load_weights(tmp_path / name)
