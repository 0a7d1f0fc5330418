"""Sequences of different lengths: compared with the reference, and bit-identical for any padding and other rows.

The reference is judged by complex steps in test_reference.py; the frameworks' masks and packed sequences judge what
lengths mean in test_against_keras.py and test_layers_against_torch.py.
"""

from __future__ import annotations

import fastgru
import numpy as np
import pytest
from error_bounds import relative_error
from fastgru import functional, reference
from gru_cases import ACTIVATIONS, BIASES, RECURRENT_ACTIVATIONS, SHAPES, lengths_grid, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gru_kernels import assert_close, check_against_reference

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
forms = pytest.mark.parametrize("reset_after", [True, False])

#: The options for the order of outputs and the contents of padding.
PLACEMENTS = [
    {"go_backwards": go_backwards, "output_order": order, "padded_outputs": padded}
    for go_backwards in (False, True)
    for order in ("processing", "input")
    for padded in ("repeat", "zeros")
]
placements = pytest.mark.parametrize("placement", PLACEMENTS, ids=lambda p: "-".join(map(str, p.values())))


def run(case, d_outputs=True):
    """Return outputs, state and gradients."""
    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*case.arguments, **case.options, tape=tape)
    gradients = functional.gru_backward(tape, case.d_outputs if d_outputs else None, case.d_state)
    return outputs, state, gradients


def one_row(case, row, steps=None):
    """Return the sequence of a row alone, without its padding or padded to `steps`."""
    options = {k: v for k, v in case.options.items() if k not in ("lengths", "recurrent_mask")}
    length = int(case.options["lengths"][row])
    steps = length if steps is None else steps
    if "recurrent_mask" in case.options:
        options["recurrent_mask"] = case.options["recurrent_mask"][..., row : row + 1, :]
    alone = make_case((1, steps, *case.shape[2:]), case.dtype, lengths=np.array([length]), **options)
    alone.x = case.x[row : row + 1, :steps]
    alone.parameters = case.parameters
    alone.initial_state = None if case.initial_state is None else case.initial_state[row : row + 1]
    alone.d_outputs = case.d_outputs[row : row + 1, :steps]
    alone.d_state = case.d_state[row : row + 1]
    return alone


# --- Against the reference -------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("grid", list(lengths_grid()), ids=lambda g: "-".join(str(g[k]) for k in sorted(g)))
def test_every_option_matches_the_reference(grid, dtype):
    check_against_reference(make_case(dtype=dtype, **grid))


@dtypes
@forms
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_awkward_shape_matches_the_reference(shape, reset_after, dtype):
    check_against_reference(make_case(shape, dtype, seed=3, reset_after=reset_after, lengths="random", mask=True))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 20), st.integers(1, 70)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.sampled_from(["random", "short", "one long", "zeros", "full"]),
    mask=st.sampled_from([False, True, "one"]),
    placement=st.sampled_from(PLACEMENTS),
    bias=st.sampled_from(BIASES),
    initial_state=st.booleans(),
    gradients=st.sampled_from([(True, True), (True, False), (False, True)]),
    activation=st.sampled_from(ACTIVATIONS),
    recurrent_activation=st.sampled_from(RECURRENT_ACTIVATIONS),
    reset_after=st.booleans(),
)
def test_random_configurations_match_the_reference(shape, dtype, seed, gradients, placement, **options):
    case = make_case(shape, dtype, seed=seed, d_outputs=gradients[0], d_state=gradients[1], **placement, **options)
    check_against_reference(case)


# --- Bit for bit -----------------------------------------------------------------------------------------------


@dtypes
@forms
@placements
@pytest.mark.parametrize("shape", [(19, 7, 6, 21), (3, 5, 5, 225), (70, 4, 3, 5)], ids=str)
def test_a_sequence_gives_the_same_bits_alone_padded_and_in_any_batch(shape, placement, reset_after, dtype):
    case = make_case(shape, dtype, seed=2, reset_after=reset_after, lengths="random", mask=True, **placement)
    outputs, state, gradients = run(case)
    for row in range(0, shape[0], 1 + shape[0] // 20):
        length = case.options["lengths"][row]
        for steps in {length, (length + shape[1]) // 2}:  # without its padding, and with some of it
            alone = one_row(case, row, steps)
            # Gradients of repeated outputs flow into the state, so only equal padding can be compared.
            whole = steps == shape[1] or placement["padded_outputs"] == "zeros"
            alone_outputs, alone_state, alone_gradients = run(alone)
            np.testing.assert_array_equal(alone_outputs[0], outputs[row, :steps])
            np.testing.assert_array_equal(alone_state[0], state[row])
            if whole:
                np.testing.assert_array_equal(alone_gradients.x[0], gradients.x[row, :steps])
                np.testing.assert_array_equal(alone_gradients.initial_state[0], gradients.initial_state[row])
    # Also with repeated outputs, if the loss' gradient is zero in padding.
    if case.options["padded_outputs"] == "repeat":
        case.d_outputs[np.arange(shape[1]) >= case.options["lengths"][:, None]] = 0
        _, _, gradients = run(case)
        for row in range(shape[0]):
            _, _, alone = run(one_row(case, row))
            np.testing.assert_array_equal(alone.x[0], gradients.x[row, : case.options["lengths"][row]])
            np.testing.assert_array_equal(alone.initial_state[0], gradients.initial_state[row])


@dtypes
@forms
def test_any_order_of_the_rows_gives_the_same_bits(reset_after, dtype):
    case = make_case((33, 6, 10, 31), dtype, reset_after=reset_after, lengths="random", mask=True)
    outputs, state, gradients = run(case)
    order = np.random.default_rng(0).permutation(33)
    x, *parameters, h0 = case.arguments
    options = case.options | {
        "lengths": case.options["lengths"][order],
        "recurrent_mask": case.options["recurrent_mask"][:, order],
    }
    tape = functional.GRUTape()
    moved, moved_state = functional.gru_forward(x[order], *parameters, h0[order], **options, tape=tape)
    moved_gradients = functional.gru_backward(tape, case.d_outputs[order], case.d_state[order])
    np.testing.assert_array_equal(moved, outputs[order])
    np.testing.assert_array_equal(moved_state, state[order])
    np.testing.assert_array_equal(moved_gradients.x, gradients.x[order])
    np.testing.assert_array_equal(moved_gradients.initial_state, gradients.initial_state[order])


@dtypes
@forms
@placements
def test_padding_is_never_read(placement, reset_after, dtype):
    case = make_case((33, 6, 10, 31), dtype, reset_after=reset_after, lengths="random", **placement)
    expected = run(case)
    case.x[np.arange(6) >= case.options["lengths"][:, None]] = np.nan
    found = run(case)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    for a, b in zip(found[2], expected[2], strict=True):
        np.testing.assert_array_equal(a, b)


@dtypes
@forms
@pytest.mark.parametrize("shape", [(41, 8, 6, 21), (5, 6, 9, 300), (300, 3, 9, 213)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(shape, reset_after, dtype):
    case = make_case(shape, dtype, reset_after=reset_after, lengths="random", mask=True)
    fastgru.set_num_threads(1)
    outputs, state, gradients = run(case)
    for threads in (2, 3, 8):
        fastgru.set_num_threads(threads)
        found = run(case)
        np.testing.assert_array_equal(found[0], outputs)
        np.testing.assert_array_equal(found[1], state)
        for a, b in zip(found[2], gradients, strict=True):
            np.testing.assert_array_equal(a, b)


@dtypes
@placements
def test_full_lengths_equal_no_lengths(placement, dtype):
    full = make_case((17, 5, 4, 9), dtype, lengths="full", **placement)
    none = make_case((17, 5, 4, 9), dtype, **placement)
    for a, b in zip(run(full)[:2], run(none)[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(run(full)[2], run(none)[2], strict=True):
        np.testing.assert_array_equal(a, b)


@dtypes
@forms
def test_parameter_gradients_are_the_sum_over_the_sequences(reset_after, dtype):
    case = make_case((23, 9, 5, 18), dtype, reset_after=reset_after, lengths="random", padded_outputs="zeros")
    _, _, gradients = run(case)
    alone = [run(one_row(case, row))[2] for row in range(23)]
    for name in ("kernel", "recurrent_kernel", "bias"):
        total = np.sum([getattr(g, name).astype(np.float64) for g in alone], axis=0)
        assert_close(case, name, getattr(gradients, name), total, backward=True)


# --- Conventions -------------------------------------------------------------------------------------------------


def test_both_conventions_of_padded_outputs():
    case = make_case((4, 6, 3, 5), lengths=np.array([6, 2, 0, 4]))
    plain, _ = functional.gru_forward(*case.arguments)
    _x, *_rest = case.arguments
    lengths = case.options["lengths"]
    repeated, state = functional.gru_forward(*case.arguments, lengths=lengths)
    zeros, state_too = functional.gru_forward(*case.arguments, lengths=lengths, padded_outputs="zeros")
    np.testing.assert_array_equal(state, state_too)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(repeated[row, :length], plain[row, :length])
        np.testing.assert_array_equal(zeros[row, :length], plain[row, :length])
        assert not zeros[row, length:].any()
        if length:
            assert (repeated[row, length:] == plain[row, length - 1]).all()
            np.testing.assert_array_equal(state[row], plain[row, length - 1])
        else:  # the state is the initial state, and there is no output to repeat
            assert not repeated[row].any()
            np.testing.assert_array_equal(state[row], case.initial_state[row])


def test_backwards_reads_each_sequence_from_its_own_end():
    case = make_case((3, 6, 3, 5), lengths=np.array([2, 6, 3]), go_backwards=True)
    outputs, state = functional.gru_forward(*case.arguments, **case.options)
    x, *parameters, h0 = case.arguments
    placed, _ = functional.gru_forward(*case.arguments, **case.options, output_order="input", padded_outputs="zeros")
    for row, length in enumerate(case.options["lengths"]):
        turned = np.ascontiguousarray(x[row : row + 1, :length][:, ::-1])
        expected, expected_state = functional.gru_forward(turned, *parameters, h0[row : row + 1])
        np.testing.assert_array_equal(outputs[row, :length], expected[0])
        np.testing.assert_array_equal(state[row], expected_state[0])
        np.testing.assert_array_equal(placed[row, :length], expected[0, ::-1])


def test_a_bool_mask_is_converted_to_lengths():
    case = make_case((4, 6, 3, 5), lengths=np.array([6, 2, 0, 4]))
    mask = np.arange(6) < case.options["lengths"][:, None]
    expected = functional.gru_forward(*case.arguments, **case.options)
    found = functional.gru_forward(*case.arguments, lengths=mask)
    np.testing.assert_array_equal(found[0], expected[0])
    mask[3, 1] = False
    with pytest.raises(ValueError, match=r"lengths: expected masked steps at the end .* step 1 of sample 3"):
        functional.gru_forward(*case.arguments, lengths=mask)


# --- Memory ------------------------------------------------------------------------------------------------------


def test_the_tape_does_not_store_padding():
    rows, steps, units = 64, 1000, 48
    weights = np.zeros((4, 3 * units), np.float32), np.zeros((units, 3 * units), np.float32)
    x = np.zeros((rows, steps, 4), np.float32)
    lengths = np.arange(rows) * 5
    tape = functional.GRUTape()
    functional.gru_forward(x, *weights, lengths=lengths, return_sequences=False, tape=tape)
    stated = 4 * 5 * units * int(lengths.sum() + rows)
    assert 0.95 * stated < tape.nbytes <= 1.02 * stated


def test_memory_is_reused_for_any_lengths():
    from fastgru._native import kernels

    case = make_case((64, 30, 8, 48), np.float32)
    tape = functional.GRUTape()
    rng = np.random.default_rng(0)

    def step(lengths):
        _outputs, _ = functional.gru_forward(*case.arguments, lengths=lengths, tape=tape)
        functional.gru_backward(tape, case.d_outputs)

    step(np.full(64, 30))
    step(np.r_[np.full(63, 30), 29])
    before = kernels.bytes_allocated()
    for _ in range(10):
        step(rng.integers(0, 31, 64))
    assert kernels.bytes_allocated() == before


# --- Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (np.array([1, 2]), ValueError, r"lengths: expected shape \(3,\).*, got \(2,\)"),
        (np.array([1, 2, 7]), ValueError, r"lengths: expected .*0 to 4.*got 7 at index 2"),
        (np.array([1, -1, 2]), ValueError, r"lengths: expected .*0 to 4.*got -1 at index 1"),
        (np.array([1.0, 2, 3]), TypeError, r"lengths: expected integers, got float64"),
        (np.ones((3, 5), bool), ValueError, r"lengths: expected a mask of shape \(3, 4\), got \(3, 5\)"),
        ([1, 2, 3], TypeError, r"lengths: expected a NumPy array"),
    ],
)
def test_invalid_lengths_raise(lengths, error, message):
    case = make_case((3, 4, 2, 5))
    with pytest.raises(error, match=message):
        functional.gru_forward(*case.arguments, lengths=lengths)


def test_unknown_names_raise():
    case = make_case((3, 4, 2, 5))
    with pytest.raises(ValueError, match=r"padded_outputs: expected .*'repeat'.*'zeros'.*got 'last'"):
        functional.gru_forward(*case.arguments, padded_outputs="last")
    with pytest.raises(ValueError, match=r"output_order: expected .*got 'time'"):
        functional.gru_forward(*case.arguments, output_order="time")


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.int32, ">i4"])
def test_lengths_of_any_integers(kind):
    case = make_case((3, 4, 2, 5))
    expected = functional.gru_forward(*case.arguments, lengths=np.array([4, 0, 2]))
    found = functional.gru_forward(*case.arguments, lengths=np.array([4, 0, 2], kind))
    np.testing.assert_array_equal(found[0], expected[0])


def test_the_reference_computes_in_float64_for_any_dtype():
    case = make_case((3, 4, 2, 5), np.float32, lengths="random")
    outputs, _ = functional.gru_forward(*case.arguments, **case.options)
    assert relative_error(outputs, reference.gru_forward(*case.arguments, **case.options)[0]) < 1e-6
