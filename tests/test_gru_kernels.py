"""The GRU kernels compared with the reference: every option, awkward shapes, both dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from error_bounds import forward_bound, norm_bound, relative_error
from fastgru import functional, reference
from gru_cases import ACTIVATIONS, BIASES, RECURRENT_ACTIVATIONS, SHAPES, case_id, make_case, option_grid
from hypothesis import given, settings
from hypothesis import strategies as st

GRID = list(option_grid())

#: For float64, besides the derived bound.
FLOAT64_TOLERANCE = 1e-12

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def assert_close(case, name, actual, expected, *, backward):
    bound = norm_bound(case.dtype, case.shape, backward=backward)
    if case.dtype == np.float64:
        bound = min(bound, FLOAT64_TOLERANCE)
    error = relative_error(actual, expected)
    assert error <= bound, f"{name}: relative error {error:.2e} > {bound:.2e}"


def check_against_reference(case):
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*case.arguments, **case.options, tape=tape)
    expected_outputs, expected_state = reference.gru_forward(*case.arguments, **case.options)
    assert outputs.dtype == state.dtype == case.dtype
    assert_close(case, "outputs", outputs, expected_outputs, backward=False)
    assert_close(case, "state", state, expected_state, backward=False)

    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    expected = reference.gru_backward(*case.arguments, **case.options, d_outputs=case.d_outputs, d_state=case.d_state)
    for name, actual, wanted in zip(gradients._fields, gradients, expected, strict=True):
        if wanted is None:
            assert actual is None
        else:
            assert actual.shape == wanted.shape
            assert actual.dtype == case.dtype
            assert_close(case, f"gradient of {name}", actual, wanted, backward=True)


@dtypes
@pytest.mark.parametrize("grid", GRID, ids=case_id)
def test_every_option_matches_the_reference(grid, dtype):
    check_against_reference(make_case(dtype=dtype, **grid))


@dtypes
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_awkward_shape_matches_the_reference(shape, reset_after, dtype):
    check_against_reference(make_case(shape, dtype, seed=5, reset_after=reset_after))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 40), st.integers(1, 70)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
    bias=st.sampled_from(BIASES),
    initial_state=st.booleans(),
    gradients=st.sampled_from([(True, True), (True, False), (False, True)]),
    activation=st.sampled_from(ACTIVATIONS),
    recurrent_activation=st.sampled_from(RECURRENT_ACTIVATIONS),
    reset_after=st.booleans(),
    go_backwards=st.booleans(),
)
def test_random_configurations_match_the_reference(shape, dtype, seed, gradients, **options):
    check_against_reference(make_case(shape, dtype, seed=seed, d_outputs=gradients[0], d_state=gradients[1], **options))


@dtypes
@pytest.mark.parametrize("grid", [g for g in GRID if g["shape"][1] <= 12], ids=case_id)
def test_forward_stays_within_the_rigorous_elementwise_bound(grid, dtype):
    case = make_case(dtype=dtype, **grid)
    outputs, _ = functional.gru_forward(*case.arguments, **case.options)
    expected, _ = reference.gru_forward(*case.arguments, **case.options)
    excess = np.abs(outputs.astype(np.float64) - expected) - forward_bound(case)
    assert excess.max() <= 0


@dtypes
@pytest.mark.parametrize("reset_after", [True, False])
def test_a_row_has_the_same_bits_in_any_batch(reset_after, dtype):
    case = make_case((37, 5, 9, 21), dtype, seed=6, reset_after=reset_after)
    x, *parameters, h0 = case.arguments
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*case.arguments, **case.options, tape=tape)
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    for rows in (slice(0, 1), slice(3, 4), slice(8, 16), slice(30, 37), slice(5, 31)):
        part, part_state = functional.gru_forward(x[rows], *parameters, h0[rows], **case.options, tape=tape)
        np.testing.assert_array_equal(part, outputs[rows])
        np.testing.assert_array_equal(part_state, state[rows])
        part_gradients = functional.gru_backward(tape, case.d_outputs[rows], case.d_state[rows])
        np.testing.assert_array_equal(part_gradients.x, gradients.x[rows])
        np.testing.assert_array_equal(part_gradients.initial_state, gradients.initial_state[rows])


@dtypes
@pytest.mark.parametrize("reset_after", [True, False])
def test_inference_without_a_tape_has_the_bits_of_training(reset_after, dtype):
    case = make_case((19, 7, 6, 33), dtype, reset_after=reset_after)
    taped = functional.gru_forward(*case.arguments, **case.options, tape=functional.GRUTape())
    plain = functional.gru_forward(*case.arguments, **case.options)
    last = functional.gru_forward(*case.arguments, **case.options, return_sequences=False)
    np.testing.assert_array_equal(taped[0], plain[0])
    np.testing.assert_array_equal(taped[1], plain[1])
    np.testing.assert_array_equal(plain[0][:, -1], plain[1])
    assert last[0] is None
    np.testing.assert_array_equal(last[1], plain[1])


def test_go_backwards_equals_forward_on_the_reversed_sequence():
    case = make_case((6, 8, 3, 10), np.float32)
    backwards = functional.gru_forward(*case.arguments, go_backwards=True)
    x, *rest = case.arguments
    reversed_ = functional.gru_forward(x[:, ::-1], *rest)
    for a, b in zip(backwards, reversed_, strict=True):
        np.testing.assert_array_equal(a, b)


@dtypes
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (3, 0, 4, 5), (0, 0, 4, 5)], ids=str)
def test_no_rows_or_no_steps(shape, reset_after, dtype):
    case = make_case(shape, dtype, reset_after=reset_after)
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*case.arguments, **case.options, tape=tape)
    assert outputs.shape == (shape[0], shape[1], 5)
    np.testing.assert_array_equal(state, case.initial_state)
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    np.testing.assert_array_equal(gradients.initial_state, case.d_state)
    assert gradients.x.shape == case.x.shape
    for gradient in (gradients.kernel, gradients.recurrent_kernel, gradients.bias):
        assert not gradient.any()
    without_state = functional.gru_backward(tape, case.d_outputs, None)
    assert not without_state.initial_state.any()


def test_a_nan_stays_in_its_own_row():
    case = make_case((20, 6, 5, 18), np.float32)
    clean, _ = functional.gru_forward(*case.arguments)
    case.x[7, 2, 3] = np.nan
    outputs, _ = functional.gru_forward(*case.arguments)
    assert np.isnan(outputs[7, 2:]).all()
    others = np.arange(20) != 7
    np.testing.assert_array_equal(outputs[others], clean[others])


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("units", [3, 16, 17])
def test_an_infinity_does_not_spread_through_padded_units(units, reset_after):
    """Padding turned infinity * 0 into NaN gradients, depending on the width of a register."""
    case = make_case((4, 3, 5, units), np.float64, reset_after=reset_after)
    case.x[1, 1, 2] = np.inf
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, **case.options, tape=tape)
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    with np.errstate(invalid="ignore"):
        expected = reference.gru_backward(
            *case.arguments, **case.options, d_outputs=case.d_outputs, d_state=case.d_state
        )
    for name in ("x", "initial_state", "recurrent_kernel"):
        actual, wanted = getattr(gradients, name), getattr(expected, name)
        np.testing.assert_allclose(actual, wanted, rtol=1e-11, atol=1e-13, err_msg=name)


def test_several_gradients_from_one_tape_and_one_tape_for_several_passes():
    case = make_case((9, 4, 3, 7), np.float64)
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, tape=tape)
    first = functional.gru_backward(tape, case.d_outputs)
    second = functional.gru_backward(tape, None, case.d_state)
    both = functional.gru_backward(tape, case.d_outputs, case.d_state)
    for a, b, c in zip(first, second, both, strict=True):
        np.testing.assert_allclose(a + b, c, rtol=1e-12, atol=1e-13)
    held = tape.nbytes
    small = make_case((2, 3, 3, 7), np.float32, seed=9)
    functional.gru_forward(*small.arguments, tape=tape)
    assert tape.nbytes == held
    expected = reference.gru_backward(*small.arguments, d_state=small.d_state)
    assert relative_error(functional.gru_backward(tape, None, small.d_state).kernel, expected.kernel) < 1e-6


def test_reshaping_x_in_place_does_not_reach_the_tape():
    case = make_case((6, 4, 3, 7), np.float32)
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, tape=tape)
    expected = functional.gru_backward(tape, case.d_outputs)
    x = case.x
    x.resize((2, 4, 9), refcheck=False)
    x.resize((6, 4, 3), refcheck=False)
    np.testing.assert_array_equal(functional.gru_backward(tape, case.d_outputs).kernel, expected.kernel)


def test_gradients_are_written_to_out_and_overwrite():
    case = make_case((9, 4, 3, 7), np.float32)
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, tape=tape)
    expected = functional.gru_backward(tape, case.d_outputs)
    out = tuple(np.full_like(a, 7) for a in case.parameters)
    gradients = functional.gru_backward(tape, case.d_outputs, input_gradient=False, out=out)
    assert gradients.x is None
    for given_array, name in zip(out, ("kernel", "recurrent_kernel", "bias"), strict=True):
        assert getattr(gradients, name) is given_array
        np.testing.assert_array_equal(given_array, getattr(expected, name))


@pytest.mark.parametrize("lengths", [None, np.array([3, 0, 4, 1, 2, 4, 4, 2, 3])])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_the_input_gradient_is_written_to_out_with_any_strides(go_backwards, lengths):
    case = make_case((9, 4, 3, 7), np.float32)
    tape = functional.GRUTape()
    functional.gru_forward(*case.arguments, go_backwards=go_backwards, lengths=lengths, tape=tape)
    expected = functional.gru_backward(tape, case.d_outputs).x
    for memory in (np.full((4, 9, 3), 7, np.float32).swapaxes(0, 1), np.full((9, 8, 5), 7, np.float32)[:, ::2, 1:4]):
        assert functional.gru_backward(tape, case.d_outputs, input_gradient=memory).x is memory
        np.testing.assert_array_equal(memory, expected)


def strided_copies(array):
    """Yield the same values in memory that is not C-contiguous, aligned or in native byte order."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    yield "every other element", wide[..., ::2]
    yield "Fortran order", np.asfortranarray(array)
    yield "byte-swapped", array.astype(array.dtype.newbyteorder())
    yield "negative strides", array[::-1].copy()[::-1]
    raw = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned
    read_only = array.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only


@dtypes
def test_inputs_of_any_layout_give_the_same_bits(dtype):
    case = make_case((5, 4, 6, 9), dtype)
    tape = functional.GRUTape()
    expected = functional.gru_forward(*case.arguments, tape=tape)
    expected_gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    names = ("x", "kernel", "recurrent_kernel", "bias", "initial_state")
    for place, name in enumerate(names):
        for layout, array in strided_copies(case.arguments[place]):
            arguments = list(case.arguments)
            arguments[place] = array
            outputs, state = functional.gru_forward(*arguments, tape=tape)
            gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
            np.testing.assert_array_equal(outputs, expected[0], err_msg=f"{name}, {layout}")
            np.testing.assert_array_equal(state, expected[1], err_msg=f"{name}, {layout}")
            for a, b in zip(gradients, expected_gradients, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{name}, {layout}")
    functional.gru_forward(*case.arguments, tape=tape)
    for layout, d_outputs in strided_copies(case.d_outputs):
        gradients = functional.gru_backward(tape, d_outputs, case.d_state)
        np.testing.assert_array_equal(gradients.kernel, expected_gradients.kernel, err_msg=layout)
