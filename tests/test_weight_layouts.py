"""Weights in PyTorch's layout, (3H, K) with gates r, z, n, give bit-identical results to Keras' layout."""

from __future__ import annotations

import sys

import fastgru
import numpy as np
import pytest
from fastgru import functional
from gru_cases import BIASES, SHAPES, case_id, make_case, option_grid
from hypothesis import given, settings
from hypothesis import strategies as st


def swap(gates):
    """Convert z, r, n along the last axis to r, z, n, and back."""
    first, second, n = np.split(gates, 3, axis=-1)
    return np.concatenate([second, first, n], axis=-1)


def transposed(kernel):
    return np.ascontiguousarray(swap(kernel).T)


def assert_same_bits(case, *, pair=False):
    x, kernel, recurrent, bias, initial = case.arguments
    options, tape = case.options, functional.GRUTape()
    expected = functional.gru_forward(*case.arguments, **options, tape=tape)
    expected_gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)

    their_bias = swap(bias) if bias is not None else None
    if pair and bias is not None and bias.ndim == 2:
        their_bias = tuple(their_bias.copy())
    weights = transposed(kernel), transposed(recurrent), their_bias
    results = functional.gru_forward(x, *weights, initial, **options, weight_layout="torch", tape=tape)
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)

    for ours, theirs in zip(expected, results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, ours, theirs in zip(gradients._fields, expected_gradients, gradients, strict=True):
        wanted = ours
        if name in ("kernel", "recurrent_kernel"):
            wanted = transposed(ours)
        elif name == "bias" and ours is not None:
            wanted = swap(ours)
        if wanted is None:
            assert theirs is None
        else:
            assert theirs.flags.c_contiguous
            np.testing.assert_array_equal(wanted, theirs, strict=True, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("grid", list(option_grid()), ids=case_id)
def test_every_option(grid, dtype):
    assert_same_bits(make_case(dtype=dtype, **grid))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, (0, 3, 2, 5), (3, 0, 2, 5)], ids=str)
def test_every_awkward_shape(shape, reset_after, threads):
    fastgru.set_num_threads(threads)
    assert_same_bits(make_case(shape, np.float32, seed=5, reset_after=reset_after))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 40), st.integers(1, 70)),
    seed=st.integers(0, 2**31),
    bias=st.sampled_from(BIASES),
    lengths=st.sampled_from([None, "random", "short", "one long", "zeros"]),
    mask=st.booleans(),
    pair=st.booleans(),
)
def test_lengths_masks_and_pairs_of_biases(shape, seed, bias, lengths, mask, pair):
    assert_same_bits(make_case(shape, np.float32, seed=seed, bias=bias, lengths=lengths, mask=mask), pair=pair)


def test_gradients_go_to_given_arrays():
    case = make_case((9, 5, 7, 20), np.float32)
    x, kernel, recurrent, bias, initial = case.arguments
    tape = functional.GRUTape()
    weights = transposed(kernel), transposed(recurrent), swap(bias)
    functional.gru_forward(x, *weights, initial, weight_layout="torch", tape=tape)
    fresh = functional.gru_backward(tape, case.d_outputs)
    out = tuple(np.full_like(w, np.nan) for w in weights)
    given_back = functional.gru_backward(tape, case.d_outputs, out=out)
    for mine, theirs, array in zip(out, fresh[2:], given_back[2:], strict=True):
        assert array is mine
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("layout", ["keras", "torch"])
def test_backward_reads_its_inputs_where_they_are_now(layout):
    case = make_case((9, 5, 7, 20), np.float32)
    x, kernel, recurrent, bias, initial = case.arguments
    if layout == "torch":
        kernel, recurrent, bias = transposed(kernel), transposed(recurrent), swap(bias)
    tape = functional.GRUTape()
    functional.gru_forward(x, kernel, recurrent, bias, initial, weight_layout=layout, tape=tape)
    expected = functional.gru_backward(tape, case.d_outputs, case.d_state)
    now = x.copy(), kernel.copy(), np.asfortranarray(recurrent)
    for array in (x, kernel, recurrent):
        array[:] = np.nan
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state, inputs=now)
    for ours, theirs in zip(expected, gradients, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    with pytest.raises(TypeError, match=r"inputs: expected a tuple \(x, kernel, recurrent_kernel\), got list"):
        functional.gru_backward(tape, case.d_outputs, inputs=list(now))
    with pytest.raises(ValueError, match=r"inputs\[1\]: expected shape .* because the tape recorded that shape"):
        functional.gru_backward(tape, case.d_outputs, inputs=(now[0], now[0][0], now[2]))
    with pytest.raises(TypeError, match=r"inputs\[0\]: expected float32 like the tape, got float64"):
        functional.gru_backward(tape, case.d_outputs, inputs=(now[0].astype(float), *now[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_layout": "pytorch"}, "weight_layout: expected one of 'keras', 'torch', got 'pytorch'"),
        ({"kernel": np.zeros((7, 60), "f")}, r"kernel: expected shape \(60, F\) because recurrent_kernel has 20 units"),
        ({"recurrent_kernel": np.zeros((20, 60), "f")}, r"recurrent_kernel: expected shape \(3H, H\) with H >= 1"),
        ({"x": np.zeros((2, 3, 60), "f")}, r"x: expected shape \(N, T, 7\) because kernel has 7 input features"),
        ({"bias": (np.zeros(60, "f"),)}, r"bias: expected a tuple \(input, recurrent\), got one of 1"),
        ({"bias": (np.zeros(60, "f"), np.zeros(59, "f"))}, r"bias\[1\]: expected shape \(60,\)"),
        ({"bias": (np.zeros(60, "f"), None)}, r"bias\[1\]: expected a NumPy array, got NoneType"),
        ({"bias": [np.zeros(60, "f")] * 2}, "bias: expected a NumPy array, got list"),
    ],
)
def test_wrong_shapes_and_layouts_raise(change, message):
    arguments = {
        "x": np.zeros((2, 3, 7), "f"),
        "kernel": np.zeros((60, 7), "f"),
        "recurrent_kernel": np.zeros((60, 20), "f"),
        "bias": np.zeros((2, 60), "f"),
        "weight_layout": "torch",
    }
    with pytest.raises((TypeError, ValueError), match=message):
        functional.gru_forward(**{**arguments, **change})


def test_a_cleared_tape_releases_its_arrays_and_keeps_its_memory():
    case = make_case((9, 5, 7, 20), np.float32)
    tape = functional.GRUTape()
    references = [sys.getrefcount(array) for array in case.arguments[:3]]
    functional.gru_forward(*case.arguments, tape=tape)
    held = tape.nbytes
    tape.clear()
    assert [sys.getrefcount(array) for array in case.arguments[:3]] == references
    assert (tape.recorded, tape.nbytes) == (False, held)
    with pytest.raises(ValueError, match="tape: expected a recorded tape, got an empty one"):
        functional.gru_backward(tape, case.d_outputs)
