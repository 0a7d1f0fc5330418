"""Random models and options: outputs, losses, metrics and the weights after training are those of Keras.

Keras runs in eager mode. What docs/keras-differences.md lists is left out: metrics of padding and of logits, classes
that do not occur in F1, wrappers that are frozen by an argument, adaptive optimizers and clipping with an Embedding.
"""

from __future__ import annotations

import random

import fastgru
import numpy as np
import pytest

pytestmark = [
    pytest.mark.peers("keras", "tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras' variables
    pytest.mark.filterwarnings("ignore:Layer '.*' .* was passed an input with a mask attached:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*not have any trainable weights:UserWarning"),
]
SEEDS = range(32)
ROWS, STEPS = 6, 4
#: Name of a loss, or of its class with arguments; activation and number of outputs; targets; metrics.
LOSSES = [
    ("categorical_crossentropy", "softmax", 3, "one-hot", ["accuracy", "top_k_categorical_accuracy"]),
    ("sparse_categorical_crossentropy", "softmax", 3, "classes", ["accuracy", "sparse_categorical_accuracy"]),
    (("SparseCategoricalCrossentropy", {"from_logits": True}), None, 3, "classes", ["accuracy"]),
    ("binary_crossentropy", "sigmoid", 1, "labels", ["accuracy", "binary_accuracy"]),
    (("BinaryCrossentropy", {"label_smoothing": 0.1}), "sigmoid", 2, "labels", ["binary_accuracy"]),
    (("BinaryCrossentropy", {"from_logits": True}), None, 2, "labels", []),
    (("CategoricalFocalCrossentropy", {}), "softmax", 3, "one-hot", ["categorical_accuracy"]),
    ("mse", None, 2, "numbers", ["mae", "mse"]),
    ("mae", "tanh", 1, "numbers", ["mape"]),
    (("Huber", {"delta": 0.5}), None, 1, "numbers", ["mae"]),
    ("log_cosh", None, 2, "numbers", []),
    ("poisson", "relu", 1, "counts", ["mse"]),
    ("kl_divergence", "softmax", 3, "one-hot", []),
    ("squared_hinge", None, 2, "signs", []),
]
OPTIMIZERS = {
    "Adam": {"amsgrad": True},
    "AdamW": {"amsgrad": True},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"centered": True, "momentum": 0.5},
}


def gru_options(choose, *, masked):
    some = {
        "reset_after": False,
        "activation": choose.choice(["relu", "linear"]),
        "recurrent_activation": "hard_sigmoid",
        "use_bias": False,
        "kernel_regularizer": choose.choice(["l1", "L2"]),
        "recurrent_regularizer": "l2",
        "bias_regularizer": "l1",
        "trainable": False,
    }
    if not masked:
        some["go_backwards"] = True
    return {"units": 3} | {name: value for name, value in some.items() if choose.random() < 0.2}


def random_layers(choose):
    """Classes and arguments of a stack of layers, and whether its first layers are an Embedding, and mask padding."""
    first = choose.choice(["none", "embedding", "masked embedding", "masking", "rescaling", "dense"])
    masked, tokens = first in ("masked embedding", "masking"), "embedding" in first
    stack = {
        "none": [],
        "embedding": [("Embedding", {"input_dim": 7, "output_dim": 3})],
        "masked embedding": [("Embedding", {"input_dim": 7, "output_dim": 3, "mask_zero": True})],
        "masking": [("Rescaling", {"scale": 0.5}), ("Masking", {})],
        "rescaling": [("Rescaling", {"scale": 0.5, "offset": 0.25})],
        "dense": [("Dense", {"units": 3, "activation": "tanh"})],
    }[first]
    for _ in range(choose.choice([0, 1])):
        stack.append(("GRU", gru_options(choose, masked=masked) | {"return_sequences": True}))
        stack += choose.choice([[], [("TimeDistributed", {"layer": ("Dense", {"units": 2, "activation": "tanh"})})]])
    options = gru_options(choose, masked=masked) | {"return_sequences": choose.random() < 0.5}
    if choose.random() < 0.5:
        options = {name: value for name, value in options.items() if name not in ("go_backwards", "trainable")}
        merge = choose.choice(["concat", "sum", "mul", "ave"])
        stack.append(("Bidirectional", {"layer": ("GRU", options), "merge_mode": merge}))
    else:
        stack.append(("GRU", options))
    if not options["return_sequences"]:
        stack += choose.choice([[], [("RepeatVector", {"n": 3}), ("GRU", {"units": 2, "return_sequences": True})]])
    else:
        whole = [("Flatten", {})], [("Permute", {"dims": (2, 1)})], [("Reshape", {"target_shape": (-1,)})]
        stack += choose.choice([[], [("GlobalAveragePooling1D", {})], *(() if masked else whole)])
    return stack, tokens, masked


def make(library, entry):
    name, arguments = entry
    if "layer" in arguments:
        arguments = {**arguments, "layer": make(library, arguments["layer"])}
    return getattr(library.layers, name)(**arguments)


def random_optimizer(choose, *, sparse):
    """Name, arguments, and names of weights that do not decay; `sparse` if TensorFlow's gradients are."""
    name = choose.choice(["SGD"] if sparse else list(OPTIMIZERS))
    arguments = {"learning_rate": 0.01} | {
        option: value for option, value in OPTIMIZERS[name].items() if option != "nesterov" and choose.random() < 0.4
    }
    if "momentum" in arguments and name == "SGD":
        arguments["nesterov"] = choose.random() < 0.5
    if not sparse and choose.random() < 0.4:
        arguments[choose.choice(["clipnorm", "clipvalue", "global_clipnorm"])] = choose.choice([0.01, 0.1])
    if choose.random() < 0.4:
        arguments["weight_decay"] = 0.1
    return name, arguments, choose.choice([[], ["bias"], ["recurrent"]])


def build(library, stack, shape, loss, metrics, optimizer):
    model = library.Sequential([library.Input(shape), *(make(library, entry) for entry in stack)])
    name, arguments, excluded = optimizer
    chosen = getattr(library.optimizers, name)(**arguments)
    if excluded:
        chosen.exclude_from_weight_decay(var_names=excluded)
    if isinstance(loss, tuple):
        loss = getattr(library.losses, loss[0])(**loss[1])
    model.compile(optimizer=chosen, loss=loss, metrics=metrics or None, run_eagerly=True)
    return model


def random_targets(rng, kind, rows, outputs):
    classes = rng.integers(0, outputs, rows)
    return {
        "one-hot": np.eye(outputs)[classes],
        "classes": classes,
        "labels": rng.integers(0, 2, (*rows, outputs)),
        "numbers": rng.normal(size=(*rows, outputs)),
        "counts": rng.integers(0, 4, (*rows, outputs)),
        "signs": rng.choice([-1.0, 1.0], (*rows, outputs)),
    }[kind]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models_train_as_in_keras(seed, keras):
    choose, rng = random.Random(seed), np.random.default_rng(seed)
    stack, tokens, masked = random_layers(choose)
    loss, activation, outputs, kind, metrics = choose.choice(LOSSES)
    stack.append(("Dense", {"units": outputs, "activation": activation, "trainable": choose.random() < 0.9}))
    shape = (STEPS,) if tokens else (STEPS, 3)
    given = stack, shape, loss, metrics, random_optimizer(choose, sparse=tokens)
    theirs, ours = build(keras, *given), build(fastgru, *given)
    weights = [rng.normal(0, 0.5, weight.shape).astype(np.float32) for weight in theirs.get_weights()]
    theirs.set_weights(weights)
    ours.set_weights(weights)
    x = rng.integers(1, 7, (ROWS, *shape)) if tokens else rng.normal(size=(ROWS, *shape)).astype(np.float32)
    if masked:
        for row, length in enumerate(rng.integers(1, STEPS + 1, ROWS)):
            x[row, length:] = 0
    assert ours.output_shape == theirs.output_shape
    rows = (ROWS, *ours.output_shape[1:-1])
    y = random_targets(rng, kind, rows, outputs)
    weight = rng.random(rows) if choose.random() < 0.3 else None
    close = {"rtol": 2e-4, "atol": 2e-4}
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), **close)
    found = ours.evaluate(x, y, verbose=0, sample_weight=weight, return_dict=True)
    wanted = theirs.evaluate(x, y, verbose=0, sample_weight=weight, return_dict=True)
    assert found == pytest.approx(wanted, rel=2e-4, abs=2e-4)
    for _ in range(2):
        theirs.reset_metrics()
        found = ours.train_on_batch(x, y, sample_weight=weight, return_dict=True)
        wanted = theirs.train_on_batch(x, y, sample_weight=weight, return_dict=True)
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    for ours_after, theirs_after in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours_after, theirs_after, rtol=2e-3, atol=2e-4)
