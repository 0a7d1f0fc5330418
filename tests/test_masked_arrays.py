"""NumPy's masked arrays raise in all functions, because their mask would be ignored."""

from __future__ import annotations

import functools
import inspect

import fastgru
import numpy as np
import pytest
from fastgru import functional, layers, optimizers
from fastgru._native import kernels
from models import classifier

pytestmark = pytest.mark.isa_independent


def array(*shape, dtype=np.float32):
    return np.random.default_rng(0).random(shape).astype(dtype)


N, T, F, H = 4, 5, 3, 2
TAPE = functional.GRUTape()
X, KERNEL, RECURRENT = array(N, T, F), array(F, 3 * H), array(H, 3 * H)
functional.gru_forward(X, KERNEL, RECURRENT, array(2, 3 * H), tape=TAPE)

#: Each function with valid arguments; each of its arrays in turn gets a mask.
CALLS = {
    "gru_forward": (
        functional.gru_forward,
        {
            "x": X, "kernel": KERNEL, "recurrent_kernel": RECURRENT, "bias": array(2, 3 * H),
            "initial_state": array(N, H), "lengths": np.array([5, 4, 3, 2]), "recurrent_mask": array(N, H),
            "out": array(N, T, H),
        },
    ),
    "gru_forward of a mask": (
        functional.gru_forward,
        {"x": X, "kernel": KERNEL, "recurrent_kernel": RECURRENT, "lengths": np.ones((N, T), bool)},
    ),
    "gru_backward": (functional.gru_backward, {"tape": TAPE, "d_outputs": array(N, T, H), "d_state": array(N, H)}),
    "dense_forward": (
        functional.dense_forward,
        {"x": array(4, 3), "kernel": array(3, 2), "bias": array(2), "rows": np.array([0, 2])},
    ),
    "dense_backward": (
        functional.dense_backward,
        {"x": array(4, 3), "kernel": array(3, 2), "d_y": array(2, 2), "rows": np.array([0, 2])},
    ),
    "activate": (lambda x: functional.activate(x, "tanh"), {"x": array(4, 3)}),
    "softmax": (functional.softmax, {"logits": array(4, 3)}),
    "softmax_cross_entropy": (functional.softmax_cross_entropy, {"logits": array(4, 3), "labels": np.arange(4) % 3}),
    "softmax_cross_entropy of targets": (
        functional.softmax_cross_entropy, {"logits": array(4, 3), "labels": array(4, 3)},
    ),
    "adam_update": (
        lambda **arrays: functional.adam_update(**arrays, step=1),
        {name: array(5) for name in ("parameters", "gradient", "m", "v")},
    ),
    "sgd_update": (
        lambda **arrays: functional.sgd_update(**arrays, momentum=0.5),
        {name: array(5) for name in ("parameters", "gradient", "m")},
    ),
    "rmsprop_update": (
        lambda **arrays: functional.rmsprop_update(**arrays, momentum=0.5, centered=True),
        {name: array(5) for name in ("parameters", "gradient", "v", "m", "a")},
    ),
    "norm": (functional.norm, {"x": array(5)}),
    "embedding_backward": (
        functional.embedding_backward,
        {"tokens": np.arange(4), "d_y": array(4, 2), "d_table": array(5, 2)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "argument"),
    [(call, name) for call, (_, arrays) in CALLS.items() for name, a in arrays.items() if isinstance(a, np.ndarray)],
)
def test_functions(call, argument):
    function, arrays = CALLS[call]
    function(**arrays)
    for mask in (True, False):
        masked = np.ma.masked_array(arrays[argument], np.full(arrays[argument].shape, mask))
        with pytest.raises(TypeError, match=rf"^{argument}: expected an array without a mask .* {argument}.filled\("):
            function(**{**arrays, argument: masked})


def test_every_function_is_tested():
    names = {
        name
        for name in functional.__all__
        if inspect.isfunction(f := getattr(functional, name)) and "Array" in str(inspect.signature(f).parameters)
    }
    assert names == {name.split(" ")[0] for name in CALLS}
    assert {"gru_forward", "gru_backward"} <= set(dir(kernels))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_output_arrays_of_gradients(which):
    out = [array(F, 3 * H), array(H, 3 * H), array(2, 3 * H)]
    out[which] = np.ma.masked_array(out[which])
    name = ("d_kernel", "d_recurrent_kernel", "d_bias")[which]
    with pytest.raises(TypeError, match=f"^{name}: expected an array without a mask"):
        functional.gru_backward(TAPE, None, array(N, H), out=tuple(out))


def test_other_subclasses_are_arrays():
    class Own(np.ndarray):
        pass

    x = array(4, 3)
    np.testing.assert_array_equal(functional.softmax(x.view(Own)), functional.softmax(x))


model = functools.partial(classifier, H, input_shape=(T, F), stateful=True)


def masked(*shape, dtype=np.float32):
    return np.ma.masked_array(array(*shape, dtype=dtype), np.full(shape, True))


MODELS = {
    "set_weights": lambda: model().set_weights([np.ma.masked_array(w) for w in model().get_weights()]),
    "set_weights of a layer": lambda: model().layers[1].set_weights([masked(H, 2), array(2)]),
    "a layer": lambda: layers.GRU(3)(masked(N, T, F)),
    "a layer's lengths": lambda: layers.GRU(3)(X, lengths=np.ma.masked_array([5, 4, 3, 2], [True] * 4)),
    "a layer's mask": lambda: layers.GRU(3)(X, mask=np.ma.masked_array(np.ones((N, T), bool), True)),
    "initial_state": lambda: layers.GRU(H)(X, initial_state=masked(N, H)),
    "predict": lambda: model().predict(masked(N, T, F)),
    "evaluate": lambda: model().evaluate(X, np.ma.masked_array([0, 1, 0, 1], [True] * 4)),
    "train_on_batch": lambda: model().train_on_batch(masked(N, T, F), [0, 1, 0, 1]),
    "a stream": lambda: model().fit([(masked(N, T, F), [0, 1, 0, 1])], verbose=0),
    "validation_data": lambda: model().fit(X, [0, 1, 0, 1], validation_data=(masked(N, T, F), [0, 1, 0, 1])),
    "set_states": lambda: model().set_states({"gru/state": masked(N, H)}),
    "pad_with_lengths": lambda: fastgru.utils.pad_with_lengths([array(3, 2), masked(4, 2)]),
    "an optimizer": lambda: optimizers.SGD().update(array(3), masked(3)),
    "an optimizer's states": lambda: optimizers.Adam().set_state(1, {"m": masked(3), "v": array(3)}),
    "tokens": lambda: layers.Embedding(3, 2)(np.ma.masked_array([[0, 1]], [[True, False]])),
}


@pytest.mark.parametrize("call", MODELS.values(), ids=MODELS)
def test_models(call):
    with pytest.raises(TypeError, match="expected an array without a mask"):
        call()


@pytest.mark.peers("sklearn")
@pytest.mark.parametrize("argument", ["X", "y", "sample_weight", "lengths"])
def test_estimators(argument):
    import fastgru.sklearn as estimators

    arrays = {
        "X": array(8, T, F), "y": np.arange(8) % 2, "sample_weight": np.ones(8), "lengths": np.full(8, 3),
    }  # fmt: skip
    arrays[argument] = np.ma.masked_array(arrays[argument], np.full(arrays[argument].shape, True))
    with pytest.raises(TypeError, match=f"^{argument}: expected an array without a mask"):
        estimators.GRUClassifier(3, epochs=1).fit(**arrays)
    if argument == "X":
        fitted = estimators.GRUClassifier(3, epochs=1).fit(array(8, T, F), arrays["y"])
        with pytest.raises(TypeError, match=r"^X: expected an array without a mask"):
            fitted.predict(arrays["X"])
