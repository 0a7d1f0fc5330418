"""Models and samples for the tests: small models, and random models of all types of layers."""

from __future__ import annotations

import fastgru
import numpy as np
from fastgru import Sequential, layers, optimizers
from fastgru.formats import description

ACTIVATIONS = ("linear", "softmax", "sigmoid", "tanh", "relu")

# --- Small models -----------------------------------------------------------------------------------------------------


def samples(seed=0, count=48, steps=5, features=3, classes=2):
    """Return sequences (N, T, F) and labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, steps, features)).astype(np.float32), rng.integers(0, classes, count)


def classifier(units=4, *, classes=2, activation="softmax", metrics=("accuracy",), **options):
    """Return a compiled model of a GRU and a softmax layer with cross-entropy; for `options` see `_compiled`."""
    return _compiled(units, layers.Dense(classes, activation), "categorical_crossentropy", list(metrics), **options)


def regressor(units=4, *, outputs=1, metrics=None, **options):
    """Return a compiled model of a GRU and a linear layer with squared error; for `options` see `_compiled`."""
    return _compiled(units, layers.Dense(outputs), "mse", metrics, **options)


def _compiled(
    units, head, loss, metrics, *, input_shape=(None, 3), bidirectional=False, between=(), seed=3, optimizer=None,
    dtype=None, scale=None, **options,
):  # fmt: skip
    """Return a compiled model from `input_shape` to `head`, with the layers of `between` before the head.

    With `scale`, Rescaling is the first layer.

    `options` are those of the GRU, such as ``return_sequences=True``. `seed` determines the weights and later random
    numbers; None leaves the generator unchanged. The default optimizer is Adam(0.01).
    """
    if seed is not None:
        fastgru.set_seed(seed)
    first = [] if scale is None else [layers.Rescaling(scale, input_shape=input_shape)]
    gru = layers.GRU(units, input_shape=None if first else input_shape, **options)
    model = Sequential([*first, layers.Bidirectional(gru) if bidirectional else gru, *between, head], dtype=dtype)
    model.compile(optimizers.Adam(0.01) if optimizer is None else optimizer, loss, metrics=metrics)
    return model


#: One name for each file format that can be written.
FILE_NAMES = (
    "m.safetensors", "m.json", "m.keras", "m.h5", "m.pt", "m.torch.safetensors", "m.onnx", "m.rtneural.json",
    "m.weights.h5",
)  # fmt: skip


def for_file(name, units=3):
    """Return an uncompiled model with an output per step that the format of this file name supports."""
    tfjs = {"reset_after": False, "recurrent_activation": "hard_sigmoid_tfjs"} if name == "m.json" else {}
    gru = layers.GRU(units, return_sequences=True, input_shape=(None, 2), **tfjs)
    return Sequential([gru, layers.Dense(2, name="head")])


# --- Random models ----------------------------------------------------------------------------------------------------


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def filled(stack, seed=0, **options):
    """Return a model whose weights differ from the initial ones, because initial biases are zero."""
    model = Sequential(stack, **options)
    model.parameters[...] = np.random.default_rng(seed).normal(size=model.parameters.shape) * 0.4
    return model


def random_gru(rng, **fixed):
    chosen = {
        "units": pick(rng, 1, 3, 5, 8, 13),
        "activation": pick(rng, *description.GRU_ACTIVATIONS),
        "recurrent_activation": pick(rng, *layers.gru.RECURRENT_ACTIVATIONS),
        "use_bias": pick(rng, True, False),
        "reset_after": pick(rng, True, False),
        "go_backwards": pick(rng, True, False),
        "zero_output_for_mask": pick(rng, True, False),
        "dropout": pick(rng, 0.0, 0.3),
    }
    return layers.GRU(**chosen | fixed)


def random_recurrent(rng, *, last=False, several_outputs=False, **fixed):
    """Return a GRU or a Bidirectional; the `last` one may have any output, with `several_outputs` also states."""
    if last:
        fixed["return_sequences"] = pick(rng, True, False)
    if pick(rng, True, False):
        return random_gru(rng, return_state=several_outputs and pick(rng, True, False), **fixed)
    merge = pick(rng, "concat", "sum", "mul", "ave", *([None] if several_outputs else []))
    return layers.Bidirectional(random_gru(rng, **fixed), merge)


def random_activation(rng):
    return layers.Activation(pick(rng, *ACTIVATIONS))


def random_dense(rng, units=(1, 4), **fixed):
    return layers.Dense(pick(rng, *units), pick(rng, *ACTIVATIONS), use_bias=pick(rng, True, False), **fixed)


def random_middle(rng, steps):
    """Layers after which sequences have other steps, or a layer for each step, or none; `steps` is None for any."""
    match pick(rng, "", "", "", "dropout", "dense", "each", "reshape", "repeat", "permute" if steps else ""):
        case "dropout":
            return [layers.SpatialDropout1D(0.3)]
        case "dense":
            return [layers.TimeDistributed(random_dense(rng))]
        case "each":
            each = random_gru(rng, return_sequences=False)
            return [layers.Dense(4), layers.Reshape((-1, 2, 2)), layers.TimeDistributed(each)]
        case "reshape":
            return [layers.Dense(4), layers.Reshape((-1, 2))]
        case "repeat":
            return [random_gru(rng), layers.RepeatVector(int(pick(rng, 1, 3)))]
        case "permute":
            return [layers.Permute((2, 1))]
    return []


def random_model(seed, *, features=3, steps=6, several_outputs=False, moving=True, **options):
    """A model of all kinds of layers, for sequences of `steps` or of any length.

    `moving` is whether layers may be among them after which sequences have other steps.
    With `several_outputs`, a recurrent layer at the end may return states or both directions, and no layer follows it.
    """
    rng = np.random.default_rng(seed)
    steps = pick(rng, None, steps)
    if pick(rng, True, False, False):
        stack = [layers.Embedding(9, features, mask_zero=pick(rng, True, False), input_shape=(steps,))]
    else:
        stack = [pick(rng, layers.Masking, layers.Dropout)(pick(rng, 0.0, 0.25), input_shape=(steps, features))]
        if pick(rng, True, False, False):  # in front, or behind a mask
            stack.insert(pick(rng, 0, 1), layers.Rescaling(pick(rng, 0.5, -2.0), pick(rng, 0.0, 0.25)))
            stack[0].input_shape, stack[1].input_shape = (steps, features), None
    stack += [random_recurrent(rng, return_sequences=True) for _ in range(rng.integers(3))]
    stack += [layers.Dropout(0.5)] * int(pick(rng, 0, 1))
    stack += [random_activation(rng)] * int(pick(rng, 0, 0, 1))
    stack += random_middle(rng, steps) if moving else []
    end = pick(rng, "recurrent", "average", "max", "step", "dense", *(["flatten"] if steps else []))
    match end:
        case "recurrent":
            stack.append(random_recurrent(rng, last=True, several_outputs=several_outputs))
        case "average":
            stack.append(layers.GlobalAveragePooling1D())
        case "max":
            stack.append(layers.GlobalMaxPooling1D())
        case "step":
            stack.append(layers.LastStep())
        case "flatten":
            stack.append(layers.Flatten())
    if end != "recurrent" or not stack[-1].several_outputs:
        stack += [random_activation(rng)] * int(pick(rng, 0, 0, 1))
        if not (several_outputs and end == "recurrent"):
            stack.append(random_dense(rng))
        stack += [random_activation(rng)] * int(pick(rng, 0, 0, 1))
    return filled(stack, seed, **options)


def random_samples(rng, model, rows, steps):
    """Return samples and lengths for a model; some samples end early, with steps that a mask detects."""
    first = model.layers[0]
    if isinstance(first, layers.Embedding):
        x = rng.integers(1, first.input_dim, (rows, steps))
    else:
        x = rng.normal(size=(rows, steps, model.input_shape[-1])).astype(model.dtype)
    masks = [layer for layer in model.layers if isinstance(layer, layers.Masking)]
    padding = masks[0].mask_value if masks else 0
    if masks and isinstance(first, layers.Rescaling):  # all of its numbers are powers of two: nothing is rounded
        padding = (padding - first.offset) / first.scale
    for row, end in enumerate(rng.integers(0, steps + 1, rows)):
        if row == 0 or pick(rng, True, False):
            x[row, end * (row > 0) :] = padding
    return x, rng.integers(0, steps + 1, rows)
