"""Files that an earlier version wrote, which divided uint8 input by 255: they load, predict and train on the same.

``tests/version_1/write.py`` wrote them.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fastgru import Sequential, callbacks, layers, load_model, optimizers

FOLDER = Path(__file__).parent / "version_1"
EXPECTED = np.load(FOLDER / "expected.npz")
#: Other instruction sets round otherwise, here over three epochs at most; outputs are probabilities.
TOLERANCE = 1e-5


def bytes_layer(name="rescaling"):
    return layers.Rescaling(1 / 255, uint8_only=True, name=name)


@pytest.mark.parametrize(
    "name", ["gru.safetensors", "double.safetensors", "masking.safetensors", "gru.pt", "tfjs.json"]
)
def test_a_model_predicts_the_same_for_bytes_and_for_floats(name):
    kind = name.partition(".")[0]
    model = load_model(FOLDER / name)
    assert model.layers[0].options() == bytes_layer().options()
    for given, x in (("bytes", EXPECTED["x"]), ("floats", EXPECTED["floats"])):
        np.testing.assert_allclose(model.predict(x), EXPECTED[f"{kind}_{given}"], rtol=0, atol=TOLERANCE)


@pytest.mark.peers("onnx")
def test_an_onnx_model_predicts_the_same_for_bytes_and_for_floats():
    test_a_model_predicts_the_same_for_bytes_and_for_floats("gru.onnx")


def test_a_model_of_tokens_stays_as_it_was():
    model = load_model(FOLDER / "embedding.safetensors")
    assert [type(layer).__name__ for layer in model.layers] == ["Embedding", "GRU", "Dense"]
    found = model.predict(EXPECTED["tokens"])
    np.testing.assert_allclose(found, EXPECTED["embedding_tokens"], rtol=0, atol=TOLERANCE)


def test_a_model_saved_again_is_the_same_model(tmp_path):
    model = load_model(FOLDER / "gru.safetensors")
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    assert [layer.name for layer in again.layers] == ["rescaling", "gru", "dense"]
    for x in (EXPECTED["x"], EXPECTED["floats"]):
        assert (again.predict(x) == model.predict(x)).all()


def test_another_format_holds_the_model_for_floats(tmp_path):
    model = load_model(FOLDER / "gru.safetensors")
    model.save(tmp_path / "m.pt", include_optimizer=False)
    again = load_model(tmp_path / "m.pt")
    assert [layer.name for layer in again.layers] == ["gru", "dense"]
    assert (again.predict(EXPECTED["floats"]) == model.predict(EXPECTED["floats"])).all()


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def make(*first):
    stack = [layers.GRU(3, input_shape=(4, 2)), layers.Dense(2, activation="softmax")]
    if first:
        stack[0] = layers.GRU(3)
    model = Sequential([*first, *stack])
    model.compile(optimizers.Adam(0.01, form="tfjs"), "categorical_crossentropy", metrics=["accuracy"])
    return model


def resume(model, given, x, path):
    checkpoint = callbacks.ModelCheckpoint(str(path.parent / "training_{epoch}.safetensors"))
    shutil.copy(FOLDER / f"training_{given}_1.safetensors", path)
    model.fit(x, EXPECTED["y"], batch_size=2, epochs=3, verbose=0, callbacks=[checkpoint], resume_from=path)
    return model.predict(x)


def test_a_training_on_bytes_goes_on_with_rescaling(tmp_path):
    model = make(layers.Rescaling(1 / 255, input_shape=(4, 2)))
    found = resume(model, "bytes", EXPECTED["x"], tmp_path / "c.safetensors")
    np.testing.assert_allclose(found, EXPECTED["training_bytes"], rtol=0, atol=TOLERANCE)


def test_a_training_on_floats_goes_on_without(tmp_path):
    found = resume(make(), "floats", EXPECTED["floats"], tmp_path / "c.safetensors")
    np.testing.assert_allclose(found, EXPECTED["training_floats"], rtol=0, atol=TOLERANCE)


def test_a_training_on_bytes_does_not_go_on_unscaled(tmp_path):
    model = make()
    weights = model.get_weights()
    with pytest.raises(ValueError, match=r"resume_from: expected Rescaling as the first layer .* put layers.Rescaling"):
        resume(model, "bytes", EXPECTED["x"], tmp_path / "c.safetensors")
    assert all((one == other).all() for one, other in zip(weights, model.get_weights(), strict=True))


def test_a_training_on_floats_does_not_go_on_with_rescaling(tmp_path):
    model = make(layers.Rescaling(1 / 255, input_shape=(4, 2)))
    with pytest.raises(ValueError, match="resume_from: expected a model with the same number of layers, 2, got 3"):
        resume(model, "floats", EXPECTED["floats"], tmp_path / "c.safetensors")
