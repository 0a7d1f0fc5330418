"""Reshape, RepeatVector, Permute, SpatialDropout1D and TimeDistributed, against Keras and the reference."""

from __future__ import annotations

import fastgru
import numpy as np
import pytest
from complex_step import gradient
from fastgru import Sequential, layers, load_model, reference
from fastgru.conversion import convert
from fastgru.formats.description import LayerDescription

#: Two computations in float64 of small sizes.
CLOSE = 1e-11

#: What Keras says of its own formats, and of NumPy 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

#: Name -> (shape of the input, a function of a module of layers).
CASES = {
    "Reshape": ((3, 4, 6), lambda kind: kind.Reshape((8, 3))),
    "Reshape -1": ((3, 4, 6), lambda kind: kind.Reshape((-1, 2, 4))),
    "Reshape last": ((3, 4, 6), lambda kind: kind.Reshape((2, -1))),
    "Reshape of vectors": ((3, 12), lambda kind: kind.Reshape([4, 3])),
    "RepeatVector": ((3, 5), lambda kind: kind.RepeatVector(4)),
    "RepeatVector once": ((1, 1), lambda kind: kind.RepeatVector(1)),
    "Permute": ((3, 4, 6), lambda kind: kind.Permute((2, 1))),
    "Permute three": ((2, 3, 4, 5), lambda kind: kind.Permute((3, 1, 2))),
    "TimeDistributed Dense": ((3, 4, 6), lambda kind: kind.TimeDistributed(kind.Dense(5, "tanh"))),
    "TimeDistributed softmax": ((3, 4, 6), lambda kind: kind.TimeDistributed(kind.Activation("softmax"))),
    "TimeDistributed Flatten": ((3, 4, 2, 3), lambda kind: kind.TimeDistributed(kind.Flatten())),
    "TimeDistributed Reshape": ((3, 4, 6), lambda kind: kind.TimeDistributed(kind.Reshape((3, 2)))),
    "TimeDistributed RepeatVector": ((3, 4, 6), lambda kind: kind.TimeDistributed(kind.RepeatVector(2))),
    "TimeDistributed GRU": ((3, 4, 5, 6), lambda kind: kind.TimeDistributed(kind.GRU(7))),
    "TimeDistributed GRU of each step": (
        (3, 1, 5, 6),
        lambda kind: kind.TimeDistributed(kind.GRU(3, return_sequences=True, reset_after=False)),
    ),
    "TimeDistributed Bidirectional": (
        (2, 3, 4, 5),
        lambda kind: kind.TimeDistributed(kind.Bidirectional(kind.GRU(3), "sum")),
    ),
    "TimeDistributed mean": ((3, 4, 5, 2), lambda kind: kind.TimeDistributed(kind.GlobalAveragePooling1D())),
    "TimeDistributed twice": ((2, 3, 4, 5), lambda kind: kind.TimeDistributed(kind.TimeDistributed(kind.Dense(3)))),
    "TimeDistributed twice of GRU": (
        (2, 3, 2, 4, 3),
        lambda kind: kind.TimeDistributed(kind.TimeDistributed(kind.GRU(2))),
    ),
}


def passes(model, x, lengths=None, seed=0):
    """Output, the gradient of x for a random one of the output, that, and those of the weights."""
    (layer,) = model.layers
    y = layer.forward(x, lengths=lengths, training=True)
    d_y = np.random.default_rng(seed).normal(size=y.shape)
    return y, layer.backward(d_y, input_gradient=True), d_y, list(layer.gradients.values())


def randomized(layer, x, seed=1):
    """A model of that layer in float64, with random weights."""
    model = Sequential([layer], dtype="float64")
    model.build((None, *x.shape[1:]))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_keras(name, keras):
    import tensorflow as tf

    shape, make = CASES[name]
    x = np.random.default_rng(0).normal(size=shape)
    ours = randomized(make(layers), x)
    y, d_x, d_y, d_weights = passes(ours, x)
    keras.config.set_dtype_policy("float64")
    try:
        theirs = make(keras.layers)
        tensor = tf.Variable(x)
        theirs.build(shape)
        theirs.set_weights(ours.get_weights())
        with tf.GradientTape() as tape:
            outputs = theirs(tensor)
            total = tf.reduce_sum(outputs * d_y)
        expected = tape.gradient(total, [tensor, *(each.value for each in theirs.trainable_variables)])
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(y, np.asarray(outputs), rtol=CLOSE, atol=CLOSE)
    for found, wanted in zip([d_x, *d_weights], expected, strict=True):
        np.testing.assert_allclose(found, np.asarray(wanted), rtol=CLOSE, atol=CLOSE)


@pytest.mark.filterwarnings("ignore:.* lengths and masks end here:UserWarning")
@pytest.mark.parametrize(
    ("name", "with_lengths"),
    [(name, given) for name, (shape, _) in CASES.items() for given in ([False, True] if len(shape) > 2 else [False])],
)
def test_outputs_and_gradients_are_those_of_the_equations(name, with_lengths):
    shape, make = CASES[name]
    x = np.random.default_rng(0).normal(size=shape)
    lengths = np.arange(len(x)) % (shape[1] + 1) if with_lengths else None
    model = randomized(make(layers), x)
    (layer,) = model.layers
    y, d_x, d_y, d_weights = passes(model, x, lengths)
    if lengths is not None and not layer.works_on_each_step and layer.output_lengths(x, lengths) is not None:
        d_y = d_y * (np.arange(shape[1]) < lengths[:, None]).reshape(*shape[:2], *[1] * (d_y.ndim - 2))
    (described,) = model.describe().layers
    names = list(described.weights)

    def loss(x, *weights):
        moved = LayerDescription(
            described.class_name, described.name, described.config, dict(zip(names, weights, strict=True))
        )
        return (reference.run([moved], x, lengths) * d_y).sum()

    arrays = [x, *described.weights.values()]
    np.testing.assert_allclose(y, reference.run([described], x, lengths), rtol=CLOSE, atol=CLOSE)
    for number, found in enumerate([d_x, *d_weights]):
        np.testing.assert_allclose(found, gradient(loss, arrays, number), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("TimeDistributed")])
def test_padding_of_any_value_changes_no_gradient_of_weights(name):
    shape, make = CASES[name]
    x = np.random.default_rng(0).normal(size=shape)
    lengths = np.arange(len(x)) % shape[1]
    found = []
    for value in (0.0, np.nan):
        padded = x.copy()
        padded[np.arange(shape[1]) >= lengths[:, None]] = value
        (layer,) = randomized(make(layers), x).layers
        y = layer.forward(padded, lengths=lengths, training=True)
        d_y = np.random.default_rng(1).normal(size=y.shape)
        d_y[np.arange(shape[1]) >= lengths[:, None]] = 0
        layer.backward(d_y, input_gradient=False)
        found.append([array.copy() for array in layer.gradients.values()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_time_distributed_head_is_that_of_a_dense_layer():
    """Bit for bit, also within the loss, which computes the steps that count alone."""
    rng = np.random.default_rng(0)
    x, y, lengths = rng.normal(size=(8, 6, 3)).astype(np.float32), rng.integers(0, 4, (8, 6)), np.arange(8) % 7
    found = []
    for wrap in (lambda layer: layer, layers.TimeDistributed):
        fastgru.set_seed(2)
        gru = layers.GRU(5, return_sequences=True, input_shape=(None, 3))
        model = Sequential([gru, wrap(layers.Dense(4, "softmax"))])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(x, y, lengths=lengths, epochs=2, verbose=0)
        found.append((history.history, model.predict(x, lengths=lengths)))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_spatial_dropout_drops_whole_features():
    fastgru.set_seed(0)
    layer = layers.SpatialDropout1D(0.4)
    x = np.ones((200, 5, 7), np.float32)
    y = layer(x, training=True)
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.6], rtol=1e-6)
    assert (y == y[:, :1]).all()
    assert abs((y == 0).mean() - 0.4) < 0.05
    np.testing.assert_array_equal(layer.backward(x, input_gradient=True), y)
    np.testing.assert_array_equal(layer(x), x)
    assert layers.SpatialDropout1D(0.0)(x, training=True) is x


@pytest.mark.slow
def test_an_encoder_and_decoder_learns_to_repeat_a_sequence():
    fastgru.set_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3, 1)).astype(np.float32)
    model = Sequential(
        [
            fastgru.Input((3, 1)),
            layers.GRU(24),
            layers.RepeatVector(3),
            layers.GRU(24, return_sequences=True),
            layers.TimeDistributed(layers.Dense(1)),
        ]
    )
    model.compile(fastgru.optimizers.Adam(0.01), "mse")
    history = model.fit(x, x, epochs=60, verbose=0).history["loss"]
    assert history[-1] < 0.05 * history[0]


def test_training_and_files_go_on_with_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4, 2, 3)).astype(np.float32), rng.normal(size=(12, 6, 2)).astype(np.float32)
    fastgru.set_seed(0)
    model = Sequential(
        [
            layers.TimeDistributed(layers.GRU(4, dropout=0.2, kernel_regularizer="l2"), name="each"),
            layers.SpatialDropout1D(0.3),
            layers.Permute((2, 1)),
            layers.Reshape((-1, 2)),
            layers.GRU(3),
            layers.RepeatVector(6),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0, batch_size=4)
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]
    assert again.output_shape == model.output_shape == (None, 6, 2)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    for each in (model, again):
        each.fit(x, y, verbose=0, batch_size=4)
    np.testing.assert_array_equal(again.parameters, model.parameters)


def test_sequences_of_any_length_stay_so_where_they_can():
    model = Sequential([layers.TimeDistributed(layers.Dense(4)), layers.Reshape((-1, 2)), layers.GRU(3)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 5, 3), np.float32), np.ones((2, 3), np.float32), verbose=0)
    assert model.input_shape == (None, None, 3)
    assert model.predict(np.ones((2, 8, 3), np.float32)).shape == (2, 3)
    model = Sequential([layers.Permute((2, 1)), layers.GRU(3)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 5, 3), np.float32), np.ones((2, 3), np.float32), verbose=0)
    assert model.input_shape == (None, 5, 3)


# --- Files of other frameworks ----------------------------------------------------------------------------------------

MODELS = {
    "decoder": lambda kind: [
        kind.GRU(5),
        kind.RepeatVector(3),
        kind.GRU(4, return_sequences=True),
        kind.SpatialDropout1D(0.25),
        kind.TimeDistributed(kind.Dense(2, "tanh")),
    ],
    "moved": lambda kind: [
        kind.Reshape((-1, 2)), kind.GRU(3, return_sequences=True), kind.Permute((2, 1)), kind.GRU(2), kind.Dense(3),
    ],
    "pooled": lambda kind: [
        kind.GRU(4, return_sequences=True), kind.Permute((2, 1)), kind.GlobalAveragePooling1D(),
        kind.RepeatVector(2), kind.GlobalMaxPooling1D(),
    ],
    "backwards": lambda kind: [
        kind.Reshape((6, 4)), kind.Bidirectional(kind.GRU(3, return_sequences=True)),
        kind.TimeDistributed(kind.Activation("softmax")), kind.Flatten(),
    ],
    "wrapped": lambda kind: [
        kind.Reshape((2, 4, 3)), kind.TimeDistributed(kind.Flatten()), kind.Reshape((2, 4, 3)),
        kind.TimeDistributed(kind.GRU(3)), kind.TimeDistributed(kind.Dense(2)), kind.GRU(2),
    ],
    "wrapped both ways": lambda kind: [
        kind.Reshape((2, 4, 3)), kind.TimeDistributed(kind.Bidirectional(kind.GRU(3, use_bias=False))),
        kind.TimeDistributed(kind.ReLU()), kind.GRU(2),
    ],
}  # fmt: skip
#: Inputs (N, 8, 3), which all of them take.
X = np.random.default_rng(3).normal(size=(5, 8, 3)).astype(np.float32)


def made(name):
    model = Sequential([fastgru.Input((8, 3)), *MODELS[name](layers)])
    model.parameters[...] = np.random.default_rng(2).normal(size=model.parameters.shape) / 2
    return model


#: Ending -> who runs such a file.
JUDGES = {".keras": "Keras", ".h5": "Keras 2", ".pt": "PyTorch", ".onnx": "ONNX Runtime"}


@pytest.mark.peers("keras", "tensorflow", "tf_keras", "torch", "onnx", "onnxruntime")
@pytest.mark.parametrize("ending", JUDGES)
@pytest.mark.parametrize("name", MODELS)
def test_frameworks_run_the_files(name, ending, tmp_path):
    model = made(name)
    model.save(tmp_path / "model.safetensors")
    target = tmp_path / f"model{ending}"
    if "wrapped" in name and ending == ".pt":
        with pytest.raises(ValueError, match=r"^time_distributed(_1)?: TimeDistributed is not supported by PyTorch"):
            model.save(target)
        assert not target.exists()
        return
    compared = convert(tmp_path / "model.safetensors", target)
    assert compared.agrees
    assert compared.target == JUDGES[ending]
    again = load_model(target)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("name", MODELS)
def test_keras_3_reads_both_of_its_formats(name, ending, keras, tmp_path):
    model = made(name)
    model.save(tmp_path / f"model{ending}")
    theirs = keras.saving.load_model(tmp_path / f"model{ending}", compile=False)
    np.testing.assert_allclose(np.asarray(theirs(X)), model.predict(X), rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("name", MODELS)
def test_keras_files_are_read(name, ending, keras, tmp_path):
    theirs = keras.Sequential([keras.Input((8, 3)), *MODELS[name](keras.layers)])
    theirs.save(tmp_path / f"model{ending}")
    ours = load_model(tmp_path / f"model{ending}")
    np.testing.assert_allclose(ours.predict(X), np.asarray(theirs(X)), rtol=1e-5, atol=1e-6)
    theirs.save_weights(tmp_path / "model.weights.h5")
    ours.parameters[...] = 0
    ours.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(ours.predict(X), np.asarray(theirs(X)), rtol=1e-5, atol=1e-6)
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(ours.predict(X), np.asarray(theirs(X)), rtol=1e-5, atol=1e-6)


@pytest.mark.peers("onnx", "onnxruntime")
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("TimeDistributed")])
def test_onnx_runtime_leaves_padding_out(name, tmp_path):
    import onnxruntime

    shape, make = CASES[name]
    model = Sequential([make(layers)])
    model.build((None, None, *shape[2:]))
    model.save(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    lengths = np.arange(len(x)) % (shape[1] + 1)
    taken = [given.name for given in session.get_overridable_initializers()]
    for given in (None, lengths):
        feed = {"x": x} if given is None or "lengths" not in taken else {"x": x, "lengths": given}
        (found,) = session.run(None, feed)
        np.testing.assert_allclose(found, model.predict(x, lengths=given), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(load_model(tmp_path / "m.onnx").predict(x), model.predict(x))


def test_a_mask_before_a_layer_of_whole_sequences_is_refused_by_keras_files(tmp_path):
    inner = layers.TimeDistributed(layers.Reshape((1, 3)), name="each")
    model = Sequential([layers.Masking(input_shape=(4, 3)), inner])
    with pytest.raises(
        ValueError, match="each: expected no mask before it because Keras' layer computes outputs for padding"
    ):
        model.save(tmp_path / "model.keras")


def test_rtneural_takes_a_dense_layer_out_of_its_wrapper(tmp_path):
    stack = [
        layers.SpatialDropout1D(0.5),
        layers.GRU(3, return_sequences=True),
        layers.TimeDistributed(layers.Dense(2)),
    ]
    model = Sequential([fastgru.Input((None, 3)), *stack])
    model.save(tmp_path / "m.rtneural.json")
    again = load_model(tmp_path / "m.rtneural.json")
    assert [type(layer).__name__ for layer in again.layers] == ["GRU", "Dense"]
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_few_samples(name, count):
    shape, make = CASES[name]
    model = randomized(make(layers), np.ones(shape))
    assert model.predict(np.ones((count, *shape[1:]))).shape == (count, *model.output_shape[1:])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layers.Reshape(3), TypeError, "target_shape: expected a tuple without the batch axis, got 3"),
        (lambda: layers.Reshape((-1, -1)), ValueError, "target_shape: expected at most one -1"),
        (lambda: layers.Reshape((0, 2)), ValueError, "target_shape: expected an integer of at least 1, got 0"),
        (
            lambda: layers.Reshape((2, 2), input_shape=(5,)).build((None, 5)),
            ValueError,
            r"expected input with as many elements as target_shape \(2, 2\), got \(N, 5\)",
        ),
        (lambda: layers.Reshape((-1, 2))(np.ones((1, 5))), ValueError, "expected input with as many elements"),
        (lambda: layers.RepeatVector(0), ValueError, "n: expected an integer of at least 1"),
        (lambda: layers.RepeatVector(2)(np.ones((1, 2, 3))), ValueError, "GRU before it needs return_sequences=False"),
        (lambda: layers.Permute((1, 3)), ValueError, r"dims: expected each axis from 1 to 2 once, got \(1, 3\)"),
        (lambda: layers.Permute(2), TypeError, "dims: expected a tuple of axes, got 2"),
        (lambda: layers.Permute((2, 1))(np.ones((1, 2))), ValueError, "expected input of 2 axes after the batch axis"),
        (lambda: layers.SpatialDropout1D(1.0), ValueError, "rate: expected a finite number"),
        (lambda: layers.SpatialDropout1D(0.5)(np.ones((1, 2))), ValueError, r"expected input of shape \(N, T, F\)"),
        (lambda: layers.TimeDistributed("gru"), TypeError, "layer: expected a layer of fastgru.layers, got 'gru'"),
        (lambda: layers.TimeDistributed(layers.Dense(2))(np.ones((1, 2))), ValueError, r"of shape \(N, T, \.\.\.\)"),
        (lambda: layers.TimeDistributed(layers.Masking()), ValueError, "got Masking; put it before"),
        (lambda: layers.TimeDistributed(layers.Embedding(3, 2)), ValueError, "got Embedding; put it before"),
        (lambda: layers.TimeDistributed(layers.GRU(2, return_state=True)), ValueError, "got GRU with several outputs"),
        (lambda: layers.TimeDistributed(layers.GRU(2, stateful=True)), ValueError, "expected stateful=False"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_layer_within_belongs_to_one_model():
    inner = layers.Dense(2)
    Sequential([layers.TimeDistributed(inner, input_shape=(3, 2))])
    with pytest.raises(ValueError, match="layers cannot be shared"):
        layers.TimeDistributed(inner)


@pytest.mark.parametrize(
    "layer", [layers.Reshape((-1, 3)), layers.Permute((1, 2)), layers.Permute((2, 1)), layers.Flatten()]
)
def test_layers_that_move_padding_warn(layer):
    x = np.ones((2, 5, 3), np.float32)
    with pytest.warns(UserWarning, match=f"lengths and masks end here because {type(layer).__name__}"):
        layer(x, lengths=[5, 3])
    layer(x, lengths=[5, 5])
    layer(x)
    model = Sequential([layers.Masking(input_shape=(5, 3)), type(layer).from_config(layer.get_config())])
    x[1, 3:] = 0
    with pytest.warns(UserWarning, match="padding counts as data") as found:
        model.predict(x)
    assert {warning.filename for warning in found} == {__file__}
