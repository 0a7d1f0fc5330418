"""Recurrent dropout: masks apply to the state in the products of the gates only.

test_against_keras.py and keras_layer_on_backend.py compare with Keras' own layer and its own masks.
"""

from __future__ import annotations

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, functional, layers, optimizers
from gru_cases import SHAPES, make_case
from test_gru_kernels import assert_close, check_against_reference

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
forms = pytest.mark.parametrize("reset_after", [True, False])
masks = pytest.mark.parametrize("mask", [True, "one"], ids=["each gate", "one"])

#: Weights larger than 512 KB, for which Schedule splits each step: by units with few rows, by rows with many rows or
#: with lengths.
LARGE = ((5, 6, 9, 300), (3, 3, 5, 225), (300, 3, 9, 213), (600, 2, 3, 240))


def run(case):
    """Return outputs, state and gradients as a flat list."""
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*case.arguments, **case.options, tape=tape)
    return outputs, state, *functional.gru_backward(tape, case.d_outputs, case.d_state)


def assert_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@dtypes
@forms
@masks
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_awkward_shape_matches_the_reference(shape, mask, reset_after, dtype):
    check_against_reference(make_case(shape, dtype, seed=8, reset_after=reset_after, mask=mask))


@dtypes
@forms
@pytest.mark.parametrize("lengths", [None, "random"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_weights_match_the_reference(shape, lengths, reset_after, dtype):
    fastgru.set_num_threads(2)
    options = {"lengths": lengths, "initial_state": lengths is None, "go_backwards": shape[0] % 2 == 0}
    check_against_reference(make_case(shape, dtype, reset_after=reset_after, mask=True, **options))


@dtypes
@forms
@pytest.mark.parametrize("lengths", [None, "random"])
@pytest.mark.parametrize("shape", [(41, 8, 6, 21), (150, 5, 3, 70), *LARGE], ids=str)
def test_any_number_of_threads_gives_the_same_bits(shape, lengths, reset_after, dtype):
    case = make_case(shape, dtype, reset_after=reset_after, lengths=lengths, mask=True)
    fastgru.set_num_threads(1)
    expected = run(case)
    for threads in (2, 3, 8):
        fastgru.set_num_threads(threads)
        assert_same_bits(run(case), expected)


@dtypes
@forms
@pytest.mark.parametrize("shape", [(37, 5, 9, 21), (70, 3, 5, 225)], ids=str)
def test_a_row_has_the_same_bits_in_any_batch(shape, reset_after, dtype):
    case = make_case(shape, dtype, seed=6, reset_after=reset_after, mask=True)
    outputs, state, d_x, d_h0, *_ = run(case)
    x, *parameters, h0 = case.arguments
    tape = functional.GRUTape()
    for rows in (slice(0, 1), slice(3, 4), slice(8, 16), slice(30, 37)):
        options = case.options | {"recurrent_mask": case.options["recurrent_mask"][:, rows]}
        part, part_state = functional.gru_forward(x[rows], *parameters, h0[rows], **options, tape=tape)
        gradients = functional.gru_backward(tape, case.d_outputs[rows], case.d_state[rows])
        expected = outputs[rows], state[rows], d_x[rows], d_h0[rows]
        assert_same_bits((part, part_state, gradients.x, gradients.initial_state), expected)


@dtypes
@forms
def test_one_mask_is_the_same_mask_for_every_gate(reset_after, dtype):
    case = make_case((19, 5, 9, 21), dtype, reset_after=reset_after, mask="one")
    expected = run(case)
    case.options["recurrent_mask"] = np.stack([case.options["recurrent_mask"]] * 3)
    assert_same_bits(run(case), expected)


@dtypes
@forms
@pytest.mark.parametrize("gate", range(3), ids="zrn")
def test_masks_have_keras_order_in_either_weight_layout(gate, reset_after, dtype):
    """A mask of zeros is equivalent to recurrent weights of zeros for that gate."""
    case = make_case((9, 4, 3, 18), dtype, reset_after=reset_after)
    x, kernel, recurrent, bias, h0 = case.arguments
    mask = np.ones((3, 9, 18), dtype)
    mask[gate] = 0
    without = recurrent.reshape(18, 3, 18) * (np.arange(3) != gate)[:, None]
    expected = functional.gru_forward(x, kernel, without.reshape(18, 54).astype(dtype), bias, h0, **case.options)
    masked = functional.gru_forward(*case.arguments, **case.options, recurrent_mask=mask)
    assert_same_bits(masked, expected)

    def as_torch(a):
        z, r, n = np.split(a, 3, axis=-1)
        return np.ascontiguousarray(np.concatenate([r, z, n], axis=-1).T)

    weights = as_torch(kernel), as_torch(recurrent), tuple(np.ascontiguousarray(as_torch(b)) for b in bias)
    turned = functional.gru_forward(x, *weights, h0, **case.options, recurrent_mask=mask, weight_layout="torch")
    assert_same_bits(turned, expected)


@dtypes
@forms
def test_gradients_in_either_layout_of_the_weights_have_the_same_bits(reset_after, dtype):
    case = make_case((33, 4, 3, 18), dtype, reset_after=reset_after, mask=True)
    expected = run(case)
    x, kernel, recurrent, bias, h0 = case.arguments

    def swapped(a):
        one, other, n = np.split(a, 3, axis=-1)
        return np.ascontiguousarray(np.concatenate([other, one, n], axis=-1))

    weights = (np.ascontiguousarray(swapped(a).T) for a in (kernel, recurrent))
    tape = functional.GRUTape()
    functional.gru_forward(x, *weights, swapped(bias), h0, **case.options, weight_layout="torch", tape=tape)
    found = functional.gru_backward(tape, case.d_outputs, case.d_state)
    assert_same_bits((found.x, found.initial_state), expected[2:4])
    assert_same_bits((swapped(found.kernel.T), swapped(found.recurrent_kernel.T), swapped(found.bias)), expected[4:])


@dtypes
@forms
@pytest.mark.parametrize("shape", [(37, 5, 9, 21), (5, 3, 9, 300)], ids=str)
def test_masks_of_ones_change_no_bit_forward(shape, reset_after, dtype):
    """With masks, backward adds the products of the gates one by one, so its last bits differ."""
    case = make_case(shape, dtype, reset_after=reset_after)
    plain = run(case)
    case.options["recurrent_mask"] = np.ones((3, shape[0], shape[3]), dtype)
    masked = run(case)
    assert_same_bits(masked[:2], plain[:2])
    for name, a, b in zip(functional.GRUGradients._fields, masked[2:], plain[2:], strict=True):
        assert_close(case, f"gradient of {name}", a, b.astype(np.float64), backward=True)


@dtypes
@forms
@pytest.mark.parametrize("shape", [(19, 7, 6, 33), (70, 4, 5, 230)], ids=str)
def test_results_are_bit_identical_without_a_tape(shape, reset_after, dtype):
    case = make_case(shape, dtype, reset_after=reset_after, mask=True)
    taped = functional.gru_forward(*case.arguments, **case.options, tape=functional.GRUTape())
    assert_same_bits(functional.gru_forward(*case.arguments, **case.options), taped)


@forms
def test_a_tape_larger_than_the_caches_has_the_same_gradients(reset_after):
    """A tape above 16 MB is written with non-temporal stores, a smaller one is not."""
    rows, steps, units = 128, 160, 64
    case = make_case((rows, steps, 3, units), np.float32, reset_after=reset_after, mask=True)
    expected = run(case)[2]
    x, *parameters, h0 = case.arguments
    tape = functional.GRUTape()
    options = case.options | {"recurrent_mask": case.options["recurrent_mask"][:, :16]}
    functional.gru_forward(x[:16], *parameters, h0[:16], **options, tape=tape)
    found = functional.gru_backward(tape, case.d_outputs[:16], case.d_state[:16])
    np.testing.assert_array_equal(found.x, expected[:16])


@forms
@masks
def test_the_kept_part_of_the_state_is_not_masked(mask, reset_after):
    """With update gates at 1 the state is constant for any mask; it used to grow by the mask's factor."""
    case = make_case((4, 9, 3, 7), reset_after=reset_after, mask=mask)
    case.parameters[2][..., :7] = 1e3
    outputs, state = functional.gru_forward(*case.arguments, **case.options)
    # z (h - n) + n has two roundings per step.
    np.testing.assert_allclose(outputs, np.repeat(case.initial_state[:, None], 9, axis=1), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(state, outputs[:, -1])


def test_masks_of_the_wrong_shape():
    case = make_case((3, 4, 2, 5))
    for shape, expected in (
        ((3, 4), r"\(3, 5\)"),
        ((5,), r"\(3, 5\)"),
        ((2, 3, 5), r"\(3, 3, 5\)"),
        ((3, 4, 5), r"\(3, 3, 5\)"),
    ):
        got = str(shape).replace("(", r"\(").replace(")", r"\)")
        message = rf"recurrent_mask: expected shape {expected} because .*one mask or \(z, r, n\), got {got}"
        with pytest.raises(ValueError, match=message):
            functional.gru_forward(*case.arguments, recurrent_mask=np.ones(shape))
    with pytest.raises(TypeError, match=r"recurrent_mask: expected float64"):
        functional.gru_forward(*case.arguments, recurrent_mask=np.ones((3, 5), np.float32))


# --- The layer ---------------------------------------------------------------------------------------------------


def test_the_layer_draws_a_mask_for_each_gate():
    fastgru.set_seed(0)
    layer = layers.GRU(100, recurrent_dropout=0.25)
    layer(np.zeros((50, 2, 3), np.float32), training=True)
    _, mask = layer._draw_masks(50, np.dtype(np.float32))
    assert mask.shape == (3, 50, 100)
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((mask == 0).mean() - 0.25) < 0.02
    for one, other in ((0, 1), (0, 2), (1, 2)):  # independent masks
        assert abs(((mask[one] == 0) & (mask[other] == 0)).mean() - 0.25**2) < 0.02


@forms
def test_states_stay_within_the_candidates_range(reset_after):
    x = np.random.default_rng(0).normal(size=(8, 300, 8)).astype(np.float32)
    layer = layers.GRU(64, recurrent_dropout=0.3, return_sequences=True, reset_after=reset_after)
    assert np.abs(layer(x, training=True)).max() < 1


@pytest.mark.parametrize("wrap", [lambda gru: gru, layers.Bidirectional], ids=["one way", "Bidirectional"])
def test_long_sequences_train(wrap):
    """The third batch of the first epoch used to produce NaN."""
    fastgru.set_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 1000, 4)).astype(np.float32)
    y = (x[:, -10:, 0].mean(axis=1) > 0).astype(np.int64)
    model = Sequential([wrap(layers.GRU(32, recurrent_dropout=0.3)), layers.Dense(2, activation="softmax")])
    model.compile(optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    losses = model.fit(x, y, batch_size=16, epochs=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
