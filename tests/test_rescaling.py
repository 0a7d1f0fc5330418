"""`layers.Rescaling`: what it computes, and that files of models take the numbers that the model takes."""

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, layers, load_model, optimizers, reference
from fastgru.conversion import runners
from fastgru.datasets import synthetic

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

#: The largest difference of probabilities between this package and a framework that runs the file.
SAME_OUTPUTS = 1e-5
#: Of weights that a float32 rounding has changed, and of what is computed from them.
ROUNDED = 2e-6


# --- The layer --------------------------------------------------------------------------------------------------------


def test_it_computes_what_keras_computes(keras):
    x = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    for scale, offset in ((1 / 255, 0), (1 / 127.5, -1), (-2, 0.25)):
        for dtype in ("float32", "float64"):
            ours = layers.Rescaling(scale, offset, dtype=dtype)
            theirs = keras.layers.Rescaling(scale, offset, dtype=dtype)
            for given in (x, x.astype(np.float64), x.astype(np.int64), x.astype(np.float16)):
                found = ours(given)
                assert found.dtype == dtype
                # Keras rounds the scale to float32 in float64 as well.
                rounding = 0 if dtype == "float32" else 1e-7
                np.testing.assert_allclose(found, np.asarray(theirs(given)), rtol=rounding, atol=rounding)
                if dtype == "float64":
                    np.testing.assert_array_equal(found, x.astype(float) * scale + offset)


def test_it_has_the_gradient_of_its_scale():
    layer = layers.Rescaling(-0.5, 3)
    layer(np.ones((2, 3)), training=True)
    d_y = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(layer.backward(d_y, input_gradient=True), -0.5 * d_y)
    assert layer.backward(d_y, input_gradient=False) is None


def test_uint8_only_leaves_other_input_as_it_is():
    layer = layers.Rescaling(0.5, 1, uint8_only=True)
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(layer(x, training=True), 0.5 * x + 1)
    np.testing.assert_array_equal(layer.backward(np.ones((2, 3)), input_gradient=True), np.full((2, 3), 0.5))
    for dtype in (np.float32, np.float64, np.int16, np.float16):
        np.testing.assert_array_equal(layer(x.astype(dtype), training=True), x)
        np.testing.assert_array_equal(layer.backward(np.ones((2, 3)), input_gradient=True), np.ones((2, 3)))


def test_padding_is_found_behind_it():
    x = np.full((2, 4, 3), 6, np.uint8)
    x[0, 2:] = 4
    model = Sequential([layers.Rescaling(0.5, 1), layers.Masking(3.0), layers.GRU(2, return_sequences=True)])
    plain = Sequential([layers.GRU(2, return_sequences=True, input_shape=(None, 3))])
    model.build((None, None, 3))
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict(x), plain.predict(0.5 * x + 1, lengths=[2, 4]))
    model.add(layers.Dense(2, "softmax"))
    model.compile("sgd", "categorical_crossentropy")
    model.fit(x, [[0, 1, -1, -1], [0, 1, 0, 1]], verbose=0)  # labels in padding are not looked at
    x[0, 0] = 4
    with pytest.raises(ValueError, match="expected masked steps at the end of a sequence only"):
        model.predict(x)


# --- Files: bytes 0..255 in, the same probabilities out ---------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """A small network trained on digits, with the equations that all frameworks have, and images of uint8."""
    (x, y), (x_test, _) = synthetic.load_data(seed=1)
    fastgru.set_seed(0)
    gru = layers.GRU(12, reset_after=False)
    first = layers.Rescaling(1 / 255, input_shape=(28, 28))
    model = Sequential([first, gru, layers.Dense(10, activation="softmax")])
    model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:2000], y[:2000], epochs=1, verbose=0)
    return model, x_test[:50]


def require_same(found, model, x):
    expected = model.predict(x)
    assert expected.std() > 0.01  # there is something to compare
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=SAME_OUTPUTS)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_keras_takes_bytes(tmp_path, name, digits, keras):
    model, x = digits
    model.save(tmp_path / name)
    theirs = keras.saving.load_model(tmp_path / name, compile=False)
    require_same(theirs.predict(x, verbose=0), model, x)
    require_same(load_model(tmp_path / name).predict(x), model, x)


def test_keras_2_takes_bytes(tmp_path, digits, keras_2):
    model, x = digits
    model.save(tmp_path / "m.h5")
    require_same(keras_2.models.load_model(tmp_path / "m.h5", compile=False).predict(x, verbose=0), model, x)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_model_of_keras_is_read(tmp_path, name, keras):
    theirs = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.Rescaling(1 / 127.5, -1), keras.layers.GRU(4), keras.layers.Dense(2)]
    )
    theirs.save(tmp_path / name)
    x = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    ours = load_model(tmp_path / name)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x, verbose=0), rtol=0, atol=SAME_OUTPUTS)


@pytest.mark.peers("onnx", "onnxruntime")
def test_onnx_runtime_takes_bytes(tmp_path, digits):
    import onnxruntime

    model, x = digits
    model.save(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    require_same(session.run(["output"], {"x": x.astype(np.float32)})[0], model, x)


def test_tensorflow_js_takes_bytes(tmp_path, digits, tfjs):
    model, x = digits
    model.save(tmp_path / "model.json", include_optimizer=False)
    flat = {"values": x.ravel().tolist(), "shape": list(x.shape)}
    found = tfjs.ask(model={"load": str(tmp_path / "model.json")}, outputs=x.tolist(), bytes=flat)
    require_same(found["outputs"], model, x)
    require_same(found["ofBytes"], model, x)
    require_same(load_model(tmp_path / "model.json").predict(x), model, x)


@pytest.mark.peers("torch")
def test_pytorch_takes_bytes(tmp_path, digits):
    _, x = digits
    model = Sequential(
        [layers.Rescaling(1 / 127.5, -1, input_shape=(28, 28)), layers.GRU(5), layers.Dense(3, "softmax")]
    )
    model.save(tmp_path / "m.pt")
    runner = runners.runner_for("torch", tmp_path / "m.pt")
    assert runner.name == "PyTorch"
    found = runner.run(tmp_path / "m.pt", load_model(tmp_path / "m.pt").describe(), x.astype(np.float32))
    np.testing.assert_allclose(found, model.predict(x), rtol=0, atol=SAME_OUTPUTS)


# --- Folding, where a format has no such layer ------------------------------------------------------------------------

FOLDED = {
    "GRU": [layers.GRU(4)],
    "GRU without bias": [layers.GRU(4, use_bias=False)],
    "both directions": [layers.Bidirectional(layers.GRU(4, use_bias=False))],
    "Dense": [layers.Dense(4, "tanh"), layers.GRU(3)],
    "Dense without bias": [layers.Dense(4, "tanh", use_bias=False), layers.LastStep()],
    "behind Flatten": [layers.Flatten(), layers.Dense(3)],
    "behind a linear activation": [layers.Activation("linear"), layers.GRU(3)],
    "twice": [layers.Rescaling(-3, 0.5), layers.GRU(3)],
    "between": [layers.GRU(3, return_sequences=True), layers.Rescaling(2, 1), layers.GRU(3)],
    "with nothing to do": [layers.GRU(3), layers.Rescaling(1)],
}


@pytest.mark.parametrize("name", FOLDED)
def test_pytorchs_files_have_it_in_the_next_layers_weights(tmp_path, name):
    import copy

    x = np.random.default_rng(0).normal(size=(5, 6, 3))
    model = Sequential([layers.Rescaling(0.5, -1, input_shape=(6, 3)), *copy.deepcopy(FOLDED[name])])
    model.save(tmp_path / "m.torch.safetensors")
    found = load_model(tmp_path / "m.torch.safetensors")
    assert not any(isinstance(layer, layers.Rescaling) for layer in found.layers)
    np.testing.assert_allclose(found.predict(x), model.predict(x), rtol=0, atol=ROUNDED)


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_takes_it_on_in_either_form(reset_after):
    from fastgru.formats.scaling import fold_scaling

    x = np.random.default_rng(0).normal(size=(5, 6, 3))
    gru = layers.GRU(4, reset_after=reset_after, recurrent_activation="hard_sigmoid")
    model = Sequential([layers.Rescaling(0.5, -1, input_shape=(6, 3)), gru], dtype="float64")
    folded = fold_scaling(model.describe().layers, "a format")
    np.testing.assert_allclose(reference.run(folded, x), model.predict(x), rtol=0, atol=1e-13)


def test_rtneurals_files_have_it_in_the_next_layers_weights(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 6, 3))
    model = Sequential([layers.Rescaling(0.5, -1, input_shape=(None, 3)), layers.GRU(4, return_sequences=True)])
    model.save(tmp_path / "m.rtneural.json")
    np.testing.assert_allclose(load_model(tmp_path / "m.rtneural.json").predict(x), model.predict(x), atol=ROUNDED)


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Rescaling(2), layers.Activation("tanh"), layers.GRU(3)],
        [layers.Rescaling(-1), layers.GlobalMaxPooling1D(), layers.Dense(3)],
        [layers.Rescaling(1, 1), layers.GlobalAveragePooling1D(), layers.Dense(3)],
        [layers.Rescaling(1, 1), layers.Dropout(0.5), layers.GRU(3)],
        [layers.Rescaling(1, 1), layers.LastStep(), layers.Dense(3)],
        [layers.GRU(3), layers.Rescaling(2)],
        [layers.Rescaling(1e38), layers.Dense(3, kernel_initializer="ones"), layers.Rescaling(1e38), layers.Dense(3)],
    ],
)
def test_what_cannot_be_folded_is_refused_by_name(tmp_path, stack):
    model = Sequential(stack)
    model.build((None, 4, 3))
    if len(stack) == 4:
        model.parameters[...] = 10
    with pytest.raises(ValueError, match=r"^rescaling(_1)?: Rescaling is not supported by PyTorch, .*scale the input"):
        model.save(tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


# --- ONNX graphs of others --------------------------------------------------------------------------------------------


@pytest.mark.peers("onnx", "onnxruntime")
@pytest.mark.parametrize("first", [("Sub", "Div"), ("Div",), ("Mul", "Add"), ("Add",), ("Sub from",)], ids="-".join)
def test_numbers_in_onnx_graphs_are_rescaling(tmp_path, first):
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    kernel = numpy_helper.from_array(rng.normal(size=(3, 2)).astype(np.float32), "kernel")
    numbers, nodes, name = [kernel], [], "x"
    for place, operator in enumerate(first):
        value = np.array([30.5] if place else 60.25, np.float32)  # with and without an axis
        numbers.append(numpy_helper.from_array(value, f"number{place}"))
        inputs = [name, f"number{place}"]
        nodes.append(
            helper.make_node(operator.split()[0], inputs[::-1] if "from" in operator else inputs, [f"y{place}"])
        )
        name = f"y{place}"
    nodes.append(helper.make_node("MatMul", [name, "kernel"], ["y"]))
    ends = [helper.make_tensor_value_info(each, 1, ["N", size]) for each, size in (("x", 3), ("y", 2))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], numbers)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7), path)
    x = rng.integers(0, 256, (5, 3)).astype(np.float32)
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    model = load_model(path)
    assert isinstance(model.layers[0], layers.Rescaling)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
