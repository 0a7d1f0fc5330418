"""TensorFlow.js models: files are exchanged in both directions, and training continues equally on both sides."""

from __future__ import annotations

import json
import os
import re

import fastgru
import models
import numpy as np
import pytest
from fastgru import Input, Sequential, layers, load_model, optimizers
from fastgru.datasets import mnist
from models import pick, random_activation

pytestmark = pytest.mark.isa_independent

#: Two float32 computations of the same outputs, relative error in the L2 norm.
SAME_OUTPUTS = 1e-5
#: Two float32 training runs of 20 steps, relative error. The tutorial's losses differ by 3e-5 with Keras' form of Adam,
#: by 3e-4 with another hard_sigmoid, by 3e-3 without the optimizer state.
SAME_LOSSES = 1e-5

KINDS = {
    "GRU": "gru",
    "Bidirectional": "bidirectional",
    "Dense": "dense",
    "Activation": "activation",
    "Embedding": "embedding",
    "Masking": "masking",
    "Dropout": "dropout",
    "Flatten": "flatten",
    "GlobalAveragePooling1D": "globalAveragePooling1d",
    "GlobalMaxPooling1D": "globalMaxPooling1d",
    "Permute": "permute",
    "RepeatVector": "repeatVector",
    "Reshape": "reshape",
    "SpatialDropout1D": "spatialDropout1d",
    "TimeDistributed": "timeDistributed",
}
#: Names in TensorFlow.js that are not the camel case of Keras' names.
WORDS = {
    "hard_sigmoid_tfjs": "hardSigmoid",
    "lecun_normal": "leCunNormal",
    "lecun_uniform": "leCunUniform",
}


def assert_same_outputs(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.linalg.norm(actual - expected)
    assert difference <= SAME_OUTPUTS * np.linalg.norm(expected), f"{difference} of {np.linalg.norm(expected)}"


def assert_same_losses(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=SAME_LOSSES)


# --- Random models ------------------------------------------------------------------------------------------------


def camel(text):
    return WORDS.get(text) or re.sub("_(.)", lambda found: found[1].upper(), text)


def their_options(config):
    """Convert a layer's options to TensorFlow.js' names."""
    options = {}
    for option, value in config.items():
        if option in ("zero_output_for_mask", "backward_layer"):
            continue
        if option == "layer":
            value = [KINDS[value["class_name"]], their_options(value["config"])]
        elif isinstance(value, dict):
            value = {"className": value["class_name"], "config": value["config"]}
        elif isinstance(value, str):
            value = camel(value)
        options[camel(option)] = value
    return options


def their_layers(model):
    """Return the layers of `model` for serve.mjs, without its weights."""
    described = [[KINDS[type(layer).__name__], their_options(layer.options())] for layer in model.layers]
    described[0][1]["batchInputShape"] = [None, *model.input_shape[1:]]
    return described


def regularizer(rng):
    return pick(rng, None, "l2", fastgru.regularizers.L1L2(float(rng.random()), 0.0))


def initializer(rng):
    options = fastgru.initializers
    names = ("glorot_uniform", "glorot_normal", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "zeros")
    uniform, normal = options.RandomUniform(-0.5, 0.25), options.RandomNormal(0.25, 0.5)
    return pick(rng, *names, "ones", uniform, normal, options.TruncatedNormal(0.125, 0.5), options.Constant(0.25))


def random_gru(rng, **fixed):
    """Return the options of a GRU that TensorFlow.js supports."""
    return models.random_gru(
        rng,
        recurrent_activation=pick(rng, "sigmoid", "hard_sigmoid_tfjs"),
        reset_after=False,
        zero_output_for_mask=False,
        kernel_initializer=initializer(rng),
        recurrent_initializer=pick(rng, "orthogonal", initializer(rng)),
        bias_initializer=initializer(rng),
        kernel_regularizer=regularizer(rng),
        recurrent_regularizer=regularizer(rng),
        bias_regularizer=regularizer(rng),
        recurrent_dropout=pick(rng, 0.0, 0.5),
        **fixed,
    )


def random_recurrent(rng, *, sequences, masked):
    if pick(rng, True, False):
        backwards = not (masked and sequences) and pick(rng, True, False)
        return random_gru(rng, return_sequences=sequences, go_backwards=backwards)
    backwards = not sequences and pick(rng, True, False)
    inner = random_gru(rng, return_sequences=sequences, go_backwards=backwards)
    return layers.Bidirectional(inner, pick(rng, "concat", "sum", "mul", "ave"))


def random_beginning(rng, steps):
    """Return the first layers, the shape of a sample, and whether they compute a mask."""
    features = pick(rng, 1, 3, 5)
    if pick(rng, True, False, False):
        zero = pick(rng, True, False)
        embedding = layers.Embedding(
            7,
            features,
            mask_zero=zero,
            embeddings_initializer=initializer(rng),
            embeddings_regularizer=regularizer(rng),
        )
        return [embedding], (steps,), zero
    if pick(rng, True, False, False):
        return [layers.Masking(pick(rng, 0.0, 0.5))], (steps, features), True
    return [], (steps, features), False


def random_model(rng):
    """Return a model with random options and weights, and whether it computes a mask."""
    steps = pick(rng, None, 1, 6)
    chain, shape, masked = random_beginning(rng, steps)
    for _ in range(rng.integers(2)):
        chain += [random_recurrent(rng, sequences=True, masked=masked), layers.Dropout(0.5)]
    sequences = pick(rng, True, False, False)
    chain.append(random_recurrent(rng, sequences=sequences, masked=masked))
    if sequences and not masked:
        flat = [layers.Flatten()] if steps else []
        chain += pick(rng, [], [layers.GlobalAveragePooling1D()], [layers.GlobalMaxPooling1D()], flat)
    head = layers.Dense(
        pick(rng, 1, 4),
        pick(rng, "linear", "softmax", "sigmoid", "tanh", "relu"),
        use_bias=pick(rng, True, False),
        kernel_initializer=initializer(rng),
        kernel_regularizer=regularizer(rng),
        bias_regularizer=regularizer(rng),
    )
    between = pick(rng, [], [random_activation(rng)])
    model = Sequential([*chain, *between, *pick(rng, [head], [head], [])], name="any")
    model.build((None, *shape))
    for layer in model.layers:
        layer.set_weights([rng.normal(0, 0.5, weight.shape).astype(np.float32) for weight in layer.parameters.values()])
    return model, masked


def random_inputs(rng, model, *, masked):
    """Return samples, and their numbers of valid steps."""
    rows, steps = pick(rng, 1, 4), model.input_shape[1] or int(rng.integers(1, 8))
    first = model.layers[0]
    if isinstance(first, layers.Embedding):
        x = rng.integers(1, 7, (rows, steps))
    else:
        x = rng.normal(size=(rows, steps, model.input_shape[2])).astype(np.float32)
    lengths = rng.integers(1, steps + 1, rows) if masked else np.full(rows, steps)
    padding = np.arange(steps) >= lengths[:, None]
    x[padding] = first.mask_value if isinstance(first, layers.Masking) else 0
    return x, lengths


def without_padding(outputs, lengths):
    """Return outputs, for sequences those of valid steps only: padding differs between the libraries."""
    outputs = np.asarray(outputs)
    return outputs[np.arange(outputs.shape[1]) < lengths[:, None]] if outputs.ndim == 3 else outputs


def configs(model):
    """Return all options of all layers."""
    return [layer.options() for layer in model.layers]


@pytest.mark.parametrize("seed", range(25))
def test_random_models_run_alike_both_ways(tfjs, tmp_path, seed):
    rng = np.random.default_rng(seed)
    model, masked = random_model(rng)
    x, lengths = random_inputs(rng, model, masked=masked)
    print(configs(model), x.shape, lengths)
    model.save(tmp_path / "ours.json")
    there = tfjs.ask(model={"load": str(tmp_path / "ours.json")}, outputs=x)
    assert_same_outputs(without_padding(there["outputs"], lengths), without_padding(model.predict(x), lengths))

    theirs = str(tmp_path / "theirs")
    there = tfjs.ask(model={"layers": their_layers(model)}, randomize=0.5, outputs=x, save={"folder": theirs})
    loaded = load_model(theirs)
    assert configs(loaded) == configs(model)
    assert_same_outputs(without_padding(loaded.predict(x), lengths), without_padding(there["outputs"], lengths))


#: Layers that move or repeat elements; those of `wrapped` are around layers that work on each step anyway.
MOVING = {
    "decoder": lambda gru: [
        gru(4),
        layers.RepeatVector(3),
        gru(5, return_sequences=True),
        layers.SpatialDropout1D(0.5),
    ],
    "reshaped": lambda gru: [layers.Reshape((-1, 2)), gru(4), layers.Reshape((2, 2))],
    "permuted": lambda gru: [gru(4, return_sequences=True), layers.Permute((2, 1)), gru(3)],
    "wrapped": lambda gru: [gru(4, return_sequences=True), layers.TimeDistributed(layers.Dense(2, "tanh"))],
    "wrapped GRU": lambda gru: [layers.Reshape((3, 4, 2)), layers.TimeDistributed(gru(3)), gru(2)],
    "wrapped Flatten": lambda gru: [layers.Reshape((3, 4, 2)), layers.TimeDistributed(layers.Flatten()), gru(2)],
    "wrapped both ways": lambda gru: [
        layers.Reshape((3, 4, 2)),
        layers.TimeDistributed(layers.Bidirectional(gru(3), "sum")),
        gru(2),
    ],
}


@pytest.mark.parametrize("name", MOVING)
def test_layers_that_move_elements_run_alike_both_ways(tfjs, tmp_path, name):
    def gru(units, **options):
        return layers.GRU(units, reset_after=False, **options)

    model = Sequential([Input((6, 4)), *MOVING[name](gru)], name="any")
    rng = np.random.default_rng(0)
    model.parameters[...] = rng.normal(size=model.parameters.shape)
    x = rng.normal(size=(3, 6, 4)).astype(np.float32)
    model.save(tmp_path / "ours.json")
    there = tfjs.ask(model={"load": str(tmp_path / "ours.json")}, outputs=x)
    assert_same_outputs(np.asarray(there["outputs"]), model.predict(x))
    theirs = str(tmp_path / "theirs")
    there = tfjs.ask(model={"layers": their_layers(model)}, randomize=0.5, outputs=x, save={"folder": theirs})
    loaded = load_model(theirs)
    assert json.dumps(configs(loaded)) == json.dumps(configs(model))
    assert_same_outputs(loaded.predict(x), np.asarray(there["outputs"]))


FROZEN = {
    "gru": lambda gru: [gru(4, trainable=False), layers.Dense(2)],
    "bidirectional": lambda gru: [layers.Bidirectional(gru(4), trainable=False), layers.Dense(2)],
    "time_distributed": lambda gru: [
        layers.Reshape((3, 2, 4)),
        layers.TimeDistributed(layers.Bidirectional(gru(4)), trainable=False),
        layers.Flatten(),
        layers.Dense(2),
    ],
}


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_layers_stay_frozen_both_ways(tfjs, tmp_path, name):
    def gru(units, **options):
        return layers.GRU(units, reset_after=False, **options)

    model = Sequential([Input((6, 4)), *FROZEN[name](gru)])
    model.compile(optimizers.SGD(0.1), "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 4)).astype(np.float32)
    y = rng.normal(size=(4, 2)).astype(np.float32)
    model.save(tmp_path / "ours.json")
    theirs = str(tmp_path / "theirs")
    tfjs.ask(
        model={"load": str(tmp_path / "ours.json")},
        compile={"optimizer": ["sgd", 0.1], "loss": "meanSquaredError"},
        train={"x": x.tolist(), "y": y.tolist(), "batchSize": 4, "steps": 3},
        save={"folder": theirs, "includeOptimizer": False},
    )
    for _ in range(3):
        model.train_on_batch(x, y)
    loaded = load_model(theirs, compile=False)
    assert [each.trainable for each in loaded.weights] == [each.trainable for each in model.weights]
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# --- The tutorial -------------------------------------------------------------------------------------------------

BATCH = 8
#: Batches that the tutorial's model is trained on before it is saved, and steps of the continued training.
BEFORE, AFTER, FROM_FILE = 3, 20, 10
#: Images of the continued training: five batches, repeatedly.
IMAGES = 40


@pytest.fixture(scope="module")
def digits():
    folder = os.environ.get("FASTGRU_DATA")
    if not folder:
        pytest.skip("needs the real MNIST: set FASTGRU_DATA to a folder with its four files")
    (images, labels), _ = mnist.load_data(folder)
    return images[:IMAGES].astype(np.float32) / 255, np.eye(10, dtype=np.float32)[labels[:IMAGES]]


@pytest.fixture(scope="module")
def tutorial(tfjs, digits, tmp_path_factory):
    """Run the tutorial's program in Node: train, save, continue; then load its two files in TensorFlow.js."""
    folder = tmp_path_factory.mktemp("tutorial")
    x, y = digits
    first = {"x": x, "y": y, "batchSize": BATCH, "steps": BEFORE}
    on = {**first, "steps": AFTER}
    compiled = {"optimizer": "adam", "loss": "categoricalCrossentropy", "metrics": ["accuracy"]}
    whole, alone = str(folder / "whole"), str(folder / "alone")
    tfjs.ask(model={"tutorial": True}, train=first, save={"folder": whole, "includeOptimizer": True})
    tfjs.ask(model={"last": True}, save={"folder": alone})
    found = {"whole": whole, "alone": alone}
    found["outputs"] = tfjs.ask(model={"last": True}, outputs=x)["outputs"]
    found["going on"] = tfjs.ask(model={"last": True}, train=on)["losses"]
    on["steps"] = FROM_FILE
    found["restored"] = tfjs.ask(model={"load": f"{whole}/model.json"}, train=on)["losses"]
    found["afresh"] = tfjs.ask(model={"load": f"{alone}/model.json"}, compile=compiled, train=on)["losses"]
    return found


def train(model, digits, steps):
    x, y = digits
    losses = []
    for step in range(steps):
        rows = slice(BATCH * step % len(x), BATCH * step % len(x) + BATCH)
        losses.append(model.train_on_batch(x[rows], y[rows])[0])
    return losses


def test_the_tutorial_s_model_predicts_the_same_here(tutorial, digits):
    for name in ("whole", "alone"):
        model = load_model(tutorial[name])
        assert (model.optimizer is None) == (name == "alone")
        assert_same_outputs(model.predict(digits[0]), tutorial["outputs"])


def test_the_tutorial_s_model_trains_on_here_as_there(tutorial, digits):
    """With the optimizer state, training continues like the program, and like TensorFlow.js from the file."""
    model = load_model(tutorial["whole"])
    assert model.optimizer.step == BEFORE
    assert model.optimizer.form == "tfjs"
    assert model.layers[0].recurrent_activation == "hard_sigmoid_tfjs"
    assert [metric.name for metric in model.metrics] == ["accuracy"]
    losses = train(model, digits, AFTER)
    assert_same_losses(losses, tutorial["going on"])
    assert_same_losses(losses[:FROM_FILE], tutorial["restored"])


def test_the_tutorial_s_model_begins_a_new_training_here_as_there(tutorial, digits):
    """The model is saved without its optimizer, and compiled again."""
    model = load_model(tutorial["alone"])
    model.compile(optimizers.Adam(form="tfjs"), "categorical_crossentropy", metrics=["accuracy"])
    assert_same_losses(train(model, digits, FROM_FILE), tutorial["afresh"])


def test_the_tutorial_s_model_goes_back(tfjs, tutorial, digits, tmp_path):
    """A model is trained and saved here; Node loads it, predicts the same and continues training equally."""
    x, y = digits
    model = load_model(tutorial["whole"])
    train(model, digits, AFTER)
    model.save(tmp_path / "model.json")
    back = tfjs.ask(
        model={"load": str(tmp_path / "model.json")},
        outputs=x,
        train={"x": x, "y": y, "batchSize": BATCH, "steps": 5},
        save={"folder": str(tmp_path / "back"), "includeOptimizer": True},
    )
    assert_same_outputs(back["outputs"], model.predict(x))
    assert_same_losses(back["losses"], train(model, digits, 5))
    again = load_model(tmp_path / "back")
    assert again.optimizer.step == BEFORE + AFTER + 5
    assert_same_outputs(again.predict(x), back["trained"])


# --- Training -----------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": (["adam", 0.01, 0.8, 0.99, 1e-5], optimizers.Adam(0.01, 0.8, 0.99, 1e-5, form="tfjs")),
    "sgd": (["sgd", 0.1], optimizers.SGD(0.1)),
    "momentum": (["momentum", 0.02, 0.5, False], optimizers.SGD(0.02, 0.5, form="pytorch")),
    "nesterov": (["momentum", 0.02, 0.5, True], optimizers.SGD(0.02, 0.5, nesterov=True, form="pytorch")),
    "rmsprop": (["rmsprop", 0.01, 0.8, 0, 1e-6], optimizers.RMSprop(0.01, 0.8, epsilon=1e-6)),
    "rmsprop with momentum": (["rmsprop", 0.01, 0.8, 0.5, 1e-6], optimizers.RMSprop(0.01, 0.8, 0.5, 1e-6)),
}
HEADS = {
    "categorical_crossentropy": ("softmax", ["accuracy"]),
    "sparse_categorical_crossentropy": ("softmax", ["accuracy"]),
    "binary_crossentropy": ("sigmoid", ["accuracy", "binary_accuracy"]),
    "mean_squared_error": ("linear", ["mae", "mse"]),
    "mean_absolute_error": ("tanh", ["mae"]),
}


def training_case(loss):
    """Return a model for a loss, three batches of four samples, and targets in the form of both sides.

    TensorFlow.js 4.22 applies the regularizers of Dense layers, but never those of GRUs.
    """
    rng = np.random.default_rng(5)
    activation, metrics = HEADS[loss]
    model = Sequential(
        [
            layers.GRU(6, input_shape=(3, 4), reset_after=False, return_sequences=True),
            layers.Bidirectional(layers.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid_tfjs"), "ave"),
            layers.Dense(3, activation, bias_regularizer=fastgru.regularizers.L1L2(0.01, 0.02)),
        ]
    )
    x = rng.normal(size=(12, 3, 4)).astype(np.float32)
    y = rng.integers(3, size=(12, 1)) if loss.startswith("sparse") else np.eye(3)[rng.integers(3, size=12)]
    return model, metrics, (x, y.astype(np.float32)), (x, y if loss.startswith("sparse") else y.astype(np.float32))


def train_here(model, data, steps):
    x, y = data
    return [np.ravel(model.train_on_batch(x[rows], y[rows]))[0] for rows in map(batch_rows, range(steps))]


def batch_rows(step):
    return slice(4 * (step % 3), 4 * (step % 3) + 4)


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [*((name, "categorical_crossentropy") for name in OPTIMIZERS), *(("adam", name) for name in HEADS)],
)
def test_training_goes_on_from_either_side(tfjs, tmp_path, optimizer, loss):
    model, metrics, theirs, ours = training_case(loss)
    arguments, same = OPTIMIZERS[optimizer]
    compiled = {"optimizer": arguments, "loss": camel(loss), "metrics": [camel(name) for name in metrics]}
    batches = {"x": theirs[0], "y": theirs[1], "batchSize": 4, "steps": 4}
    first, second = str(tmp_path / "first"), tmp_path / "second.json"

    saved = {"folder": first, "includeOptimizer": True}
    tfjs.ask(model={"layers": their_layers(model)}, compile=compiled, train=batches, save=saved)
    loaded = load_model(first)
    assert configs(loaded) == configs(model)
    assert loaded.optimizer.step == 4
    assert loaded.optimizer.get_config() == {**same.get_config(), "form": loaded.optimizer.form}
    assert loaded.optimizer.form == same.form or optimizer == "sgd"  # plain descent has one form
    assert (loaded.loss.name, [metric.name for metric in loaded.metrics]) == (loss, metrics)
    there = tfjs.ask(model={"last": True}, train=batches)["losses"]
    assert_same_losses(train_here(loaded, ours, 4), there)

    loaded.save(second)
    there = tfjs.ask(model={"load": str(second)}, train={**batches, "steps": 6})["losses"]
    assert_same_losses(train_here(loaded, ours, 6), there)


def test_frozen_layers_stay_frozen_on_both_sides(tfjs, tmp_path):
    model, _, theirs, ours = training_case("mean_squared_error")
    model.layers[0].trainable = False
    model.compile(optimizers.Adam(0.01, form="tfjs"), "mean_squared_error")
    train_here(model, ours, 2)
    model.save(tmp_path / "ours.json")
    batches = {"x": theirs[0], "y": theirs[1], "batchSize": 4, "steps": 4}
    saved = {"folder": str(tmp_path / "theirs"), "includeOptimizer": True}
    there = tfjs.ask(model={"load": str(tmp_path / "ours.json")}, train=batches, save=saved)
    before = model.layers[0].get_weights()
    assert_same_losses(train_here(model, ours, 4), there["losses"])
    loaded = load_model(tmp_path / "theirs")
    assert [layer.trainable for layer in loaded.layers] == [False, True, True]
    assert loaded.optimizer.step == 6
    for one, other in zip(loaded.layers[0].get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
