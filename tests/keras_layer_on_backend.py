"""Compares `fastgru.keras.GRU` with ``keras.layers.GRU`` on the backend of KERAS_BACKEND; see test_keras_layer.py."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import fastgru
import numpy as np
import peers
import pytest
from fastgru._native import kernels

keras = peers.require("keras")

import fastgru.keras  # noqa: E402
from fastgru.keras import layer as layer_module  # noqa: E402

BACKEND = keras.backend.backend()
if BACKEND == "torch":
    import torch
    from fastgru.torch import autograd
else:
    import tensorflow as tf
    from fastgru.keras import on_tensorflow

#: Sums of some tens of float32 products in a different order, over five steps.
CLOSE = 1e-5
N, T, F, H = 6, 5, 4, 7
PREFIXES = np.arange(T) < np.array([5, 3, 0, 1, 4, 5])[:, None]
HOLES = PREFIXES.copy()
HOLES[0, 2] = False

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer '.*' .* was passed an input with a mask attached:UserWarning"),
    # Raised by Keras on both backends.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture
def served(monkeypatch):
    """Counts the passes that ran on the kernels."""
    calls = []
    forward = layer_module.GRUPass.forward

    def counted(*arguments):
        calls.append(arguments)
        return forward(*arguments)

    monkeypatch.setattr(layer_module.GRUPass, "forward", counted)
    return calls


def make_pair(**options):
    """Return Keras' layer and ours with the same weights and nonzero biases."""
    random = np.random.default_rng(0)
    dtype = options.get("dtype", "float32")
    pair = []
    for layer_class in (keras.layers.GRU, fastgru.keras.GRU):
        layer = layer_class(H, **options)
        layer.build((N, T, F))
        if pair:
            layer.set_weights(pair[0].get_weights())
        else:
            layer.set_weights([w + random.normal(size=w.shape) / 4 for w in layer.get_weights()])
        pair.append(layer)
    x = random.normal(size=(N, T, F)).astype("float64" if dtype == "float64" else "float32")
    return *pair, x


def results_and_gradients(layer, x, *, initial=None, mask=None, training=False):
    """Return all results of a call, and the gradients of a loss on all of them."""
    given = [keras.ops.convert_to_tensor(a) for a in (x, initial) if a is not None]
    mask = keras.ops.convert_to_tensor(mask) if mask is not None else None

    def call(tensors):
        keras.utils.set_random_seed(0)
        y = layer(tensors[0], mask=mask, training=training, initial_state=tensors[1] if initial is not None else None)
        results = list(y) if isinstance(y, list | tuple) else [y]
        return results, sum(keras.ops.sum(keras.ops.square(keras.ops.cast(r, "float64"))) for r in results)

    if BACKEND == "torch":
        tensors = [tensor.detach().requires_grad_() for tensor in given]
        results, loss = call(tensors)
        variables = [variable.value for variable in layer.trainable_variables]
        gradients = torch.autograd.grad(loss, [*tensors, *variables], allow_unused=True)
    else:
        with tf.GradientTape() as tape:
            tape.watch(given)
            results, loss = call(given)
        gradients = tape.gradient(loss, [*given, *(variable.value for variable in layer.trainable_variables)])
    arrays = [keras.ops.convert_to_numpy(result) for result in results]
    return arrays + [keras.ops.convert_to_numpy(gradient) for gradient in gradients if gradient is not None]


def assert_same(actual, expected, tolerance=CLOSE):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        a, b = (array.astype(np.float64) for array in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))


SERVED = [
    {},
    {"reset_after": False},
    {"use_bias": False},
    {"use_bias": False, "reset_after": False, "go_backwards": True},
    {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    {"activation": None},
    {"return_sequences": True},
    {"return_state": True},
    {"return_sequences": True, "return_state": True},
    {"go_backwards": True},
    {"go_backwards": True, "return_sequences": True, "return_state": True},
    {"zero_output_for_mask": True, "return_sequences": True},
    {"zero_output_for_mask": True},
    {"zero_output_for_mask": True, "go_backwards": True},
    {"zero_output_for_mask": True, "go_backwards": True, "return_sequences": True},
    {"dropout": 0.4, "seed": 3},
    {"dropout": 0.4, "seed": 3, "implementation": 1, "use_cudnn": False},
    {"recurrent_dropout": 0.3, "seed": 3, "return_sequences": True, "return_state": True},
    {"recurrent_dropout": 0.3, "seed": 3, "reset_after": False},
    {"recurrent_dropout": 0.3, "seed": 3, "go_backwards": True, "use_bias": False},
    {"recurrent_dropout": 0.3, "seed": 3, "dtype": "float64"},
    {"recurrent_dropout": 0.3, "dropout": 0.4, "seed": 3},
    {"recurrent_dropout": 0.3, "dropout": 0.4, "seed": 3, "reset_after": False, "return_sequences": True},
    {"recurrent_dropout": 1.0, "dropout": 1.0, "seed": 3},
    {"unroll": True},
    {"implementation": 1},
    {"dtype": "float64"},
]
NOT_SERVED = [
    {"activation": "selu"},
    {"recurrent_activation": "tanh"},
    {"dtype": "mixed_bfloat16"},
]


def assert_results_and_gradients_are_keras(options, mask):
    theirs, ours, x = make_pair(**options)
    initial = np.random.default_rng(1).normal(size=(N, H)).astype(x.dtype) if "return_state" in options else None
    call = {"initial": initial, "mask": mask, "training": True}
    assert_same(results_and_gradients(ours, x, **call), results_and_gradients(theirs, x, **call))


@pytest.mark.parametrize("mask", [None, PREFIXES], ids=["no mask", "prefixes"])
@pytest.mark.parametrize("options", SERVED, ids=str)
def test_results_and_gradients_are_keras(options, mask, served):
    assert_results_and_gradients_are_keras(options, mask)
    assert served


def test_a_mask_of_all_steps_is_none(served):
    assert_results_and_gradients_are_keras({"return_sequences": True}, np.ones((N, T), bool))
    assert served


@pytest.mark.parametrize("options", [{}, SERVED[10]], ids=str)
def test_masks_with_holes_are_left_to_keras(options, served):
    assert_results_and_gradients_are_keras(options, HOLES)
    assert not served


@pytest.mark.parametrize("options", NOT_SERVED, ids=str)
def test_keras_does_what_the_kernels_do_not(options, served):
    theirs, ours, x = make_pair(**options)
    expected = results_and_gradients(theirs, x, training=True)
    assert_same(results_and_gradients(ours, x, training=True), expected, 0)
    assert not served


def test_recurrent_dropout_is_served_where_it_does_nothing(served):
    theirs, ours, x = make_pair(recurrent_dropout=0.3)
    assert_same(results_and_gradients(ours, x), results_and_gradients(theirs, x))
    assert served


def test_a_layer_draws_new_masks_in_each_call(served):
    theirs, ours, x = make_pair(recurrent_dropout=0.3, dropout=0.2, seed=3)
    found = [[keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(3)] for layer in (ours, theirs)]
    assert_same(*found)
    assert not np.array_equal(found[0][0], found[0][1])
    assert len(served) == 3


def test_masks_with_holes_have_keras_masks_of_dropout(served):
    assert_results_and_gradients_are_keras({"recurrent_dropout": 0.3, "dropout": 0.2, "seed": 3}, HOLES)
    assert not served


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (1, 3), (9, 1)])
def test_awkward_shapes(steps, rows, served):
    theirs, ours, _ = make_pair(return_sequences=True)
    x = np.ones((rows, steps, F), np.float32)
    assert_same(results_and_gradients(ours, x), results_and_gradients(theirs, x))
    assert served


def test_wrong_arguments_get_keras_errors():
    theirs, ours, x = make_pair()
    for layer in (theirs, ours):
        with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
            layer(x[0])
    with pytest.raises(ValueError, match="units"):
        fastgru.keras.GRU(0)


# --- Gradients ----------------------------------------------------------------------------------------------------


def test_gradients_can_be_asked_for_more_than_once_and_late(served):
    # More passes than tapes are kept, gradients in a different order, and each gradient twice.
    _, ours, x = make_pair(return_sequences=True)
    expected = results_and_gradients(ours, x, training=True)
    many = 7
    inputs = [keras.ops.convert_to_tensor(x) for _ in range(many)]
    weights = [variable.value for variable in ours.trainable_variables]
    if BACKEND == "torch":
        losses = [ours(x, training=True).double().square().sum() for x in inputs]
        found = [torch.autograd.grad(loss, weights, retain_graph=again) for again in (True, False) for loss in losses]
    else:
        with tf.GradientTape(persistent=True) as tape:
            losses = [tf.reduce_sum(tf.square(tf.cast(ours(x, training=True), tf.float64))) for x in inputs]
        found = [tape.gradient(loss, weights) for _ in range(2) for loss in losses]
    for gradients in found:
        assert_same([keras.ops.convert_to_numpy(g) for g in gradients], expected[2:], 0)
    assert served


def test_second_derivatives_raise():
    _, ours, x = make_pair()
    message = re.escape("fastgru.keras.GRU: expected first derivatives because its kernels have no others")
    x = keras.ops.convert_to_tensor(x)
    if BACKEND == "torch":
        x.requires_grad_()
        (d_x,) = torch.autograd.grad(ours(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=message):
            d_x.square().sum().backward()
    else:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(ours(x))
            d_x = inner.gradient(y, x)
        with pytest.raises(RuntimeError, match=message):
            outer.gradient(d_x, x)


def test_passes_without_a_gradient_hold_a_bounded_number_of_tapes():
    _, ours, x = make_pair()
    x = keras.ops.convert_to_tensor(np.repeat(x, 50, axis=0))
    for _ in range(20):
        ours(x, training=True)
    if BACKEND == "torch":
        assert not autograd._recordings
    else:
        assert 0 < len(on_tensorflow._waiting[layer_module._tape_pools[ours]]) <= on_tensorflow.MOST_WAITING


# --- In Keras' models ---------------------------------------------------------------------------------------------


def plain(gru):
    return [gru(H)]


def regularized(gru):
    options = {"kernel_regularizer": "l2", "recurrent_constraint": "max_norm", "activity_regularizer": "l1"}
    return [gru(H, dropout=0.3, seed=1, **options)]


def with_embedding(gru):
    return [
        keras.layers.Embedding(9, F, mask_zero=True),
        keras.layers.Bidirectional(gru(H, return_sequences=True)),
        keras.layers.Flatten(),
    ]


def make_model(layers_of, gru, shape):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers_of(gru), keras.layers.Dense(3)])


def compiled(model):
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def with_both_dropouts(gru):
    return [
        gru(H, return_sequences=True, recurrent_dropout=0.3, seed=1),
        gru(H, dropout=0.2, recurrent_dropout=0.2, seed=2),
    ]


@pytest.mark.parametrize("layers_of", [plain, regularized, with_embedding, with_both_dropouts])
def test_fit_has_keras_losses(layers_of, served):
    random = np.random.default_rng(0)
    x = random.normal(size=(10, T, F)).astype(np.float32)
    if layers_of is with_embedding:
        lengths = random.integers(0, T + 1, 10)
        x = np.where(np.arange(T) < lengths[:, None], random.integers(1, 9, (10, T)), 0)
    y = random.integers(0, 3, 10)
    losses = []
    for gru in (keras.layers.GRU, fastgru.keras.GRU):
        assert not served
        model = compiled(make_model(layers_of, gru, x.shape[1:]))
        losses.append(model.fit(x, y, batch_size=4, epochs=4, verbose=0, shuffle=False).history["loss"])
    assert served
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def in_both_directions(gru):
    return [keras.layers.Bidirectional(gru(H))]


def test_models_are_saved_and_loaded_with_and_without_fastgru(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(4, T, F)).astype(np.float32)
    ours, theirs = (make_model(in_both_directions, gru, (T, F)) for gru in (fastgru.keras.GRU, keras.layers.GRU))
    predicted = keras.ops.convert_to_numpy(ours(x))
    ours.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0].forward_layer) is fastgru.keras.GRU
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(x)), predicted)
    ours.save_weights(tmp_path / "model.weights.h5")
    theirs.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(theirs(x)), predicted, atol=CLOSE)

    monkeypatch.delitem(keras.saving.get_custom_objects(), "fastgru>GRU")  # as in a process without fastgru
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"fastgru>GRU": keras.layers.GRU})
    assert type(loaded.layers[0].forward_layer) is keras.layers.GRU
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded(x)), predicted, atol=CLOSE)


def test_a_stateful_layer_goes_on_where_it_stopped(served):
    # On PyTorch, Keras 3.15's own layer cannot be trained with it, so there is no reference.
    random = np.random.default_rng(0)
    x = random.normal(size=(N, 6, F)).astype(np.float32)
    stateful, plain_layer = fastgru.keras.GRU(H, stateful=True), keras.layers.GRU(H)
    plain_layer.build((N, 6, F))
    stateful.build((N, 3, F))
    stateful.set_weights(plain_layer.get_weights())
    stateful(x[:, :3])
    assert_same([keras.ops.convert_to_numpy(stateful(x[:, 3:]))], [keras.ops.convert_to_numpy(plain_layer(x))])
    stateful.reset_state()
    assert not np.any(keras.ops.convert_to_numpy(stateful.states[0]))

    # Each epoch of training starts with the final state of the previous one. A rate of 0 keeps the weights equal.
    stateful = fastgru.keras.GRU(H, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(N, 6, F)), stateful])
    stateful.set_weights(plain_layer.get_weights())
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(x, np.zeros((N, H)), batch_size=N, epochs=3, verbose=0, shuffle=False)
    expected = keras.ops.convert_to_numpy(plain_layer(np.concatenate([x, x, x], axis=1)))
    assert_same([keras.ops.convert_to_numpy(stateful.states[0])], [expected])
    assert served


def test_a_layer_is_made_anew_from_its_configuration():
    theirs, ours, _ = make_pair(dropout=0.1, go_backwards=True, name="gru")
    assert ours.get_config() == theirs.get_config()
    again = fastgru.keras.GRU.from_config(ours.get_config())
    assert again.get_config() == ours.get_config()
    assert keras.saving.get_registered_name(fastgru.keras.GRU) == "fastgru>GRU"
    assert keras.saving.serialize_keras_object(ours)["registered_name"] == "fastgru>GRU"
    copied = copy.deepcopy(ours)
    assert type(copied) is fastgru.keras.GRU


def test_threads_do_not_change_a_bit():
    _, ours, x = make_pair(return_sequences=True)
    found = []
    for threads in (1, 3):
        fastgru.set_num_threads(threads)
        found.append(results_and_gradients(ours, x))
    assert_same(*found, 0)


def test_a_training_loop_allocates_nothing_after_its_first_steps():
    _, ours, x = make_pair(return_sequences=True)
    for step in range(6):
        results_and_gradients(ours, x, training=True)
        if step == 2:
            before = kernels.bytes_allocated()
    assert kernels.bytes_allocated() == before


if BACKEND == "tensorflow":

    def test_compiling_with_xla_is_refused_by_keras_itself():
        model = keras.Sequential([keras.Input((T, F)), fastgru.keras.GRU(H)])
        with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
            model.compile("adam", "mse", jit_compile=True)
        model.fit(np.zeros((2, T, F)), np.zeros((2, H)), verbose=0)

    def test_an_export_that_would_need_this_process_is_refused(tmp_path):
        model = keras.Sequential([keras.Input((T, F)), fastgru.keras.GRU(H)])
        with pytest.raises(ValueError, match=re.escape("fastgru.keras.GRU: expected not to be saved in a SavedModel")):
            model.export(tmp_path / "exported", verbose=False)


def test_the_examples_in_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "keras.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert programs
    for program in programs:
        exec(compile(program, "docs/keras.md", "exec"), {})
