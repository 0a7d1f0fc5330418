"""Arrays that a kernel writes must not overlap other arguments; interleaved arrays work."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fastgru import functional
from numpy.lib.stride_tricks import as_strided, sliding_window_view

RNG = np.random.default_rng(5)
N, T, F, H = 3, 4, 5, 6
MASK = (N, H)
SHAPES = {
    "x": (N, T, F),
    "kernel": (F, 3 * H),
    "recurrent_kernel": (H, 3 * H),
    "bias": (2, 3 * H),
    "initial_state": (N, H),
    "recurrent_mask": MASK,
}


def array(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def over(given, shape, dtype=np.float32):
    """Return an array of that shape that overlaps `given`, and a copy of `given` in that memory."""
    size = max(given.nbytes, np.dtype(dtype).itemsize * int(np.prod(shape)))
    memory = np.zeros(size, np.uint8)
    moved = memory[: given.nbytes].view(given.dtype).reshape(given.shape)
    moved[...] = given
    return moved, memory[: np.dtype(dtype).itemsize * int(np.prod(shape))].view(dtype).reshape(shape)


def overlapping(written, read):
    return f"^{written}: expected an array that shares no memory, got one that overlaps {read}"


def forward_arguments():
    return {name: array(*shape) for name, shape in SHAPES.items()}


# --- Outputs over inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_gru_forward_refuses_to_write_over(name):
    # recurrent_mask and bias were overwritten while later steps still needed them.
    arguments = forward_arguments()
    arguments[name], out = over(arguments[name], (N, T, H))
    before = arguments[name].copy()
    with pytest.raises(ValueError, match=overlapping("out", name)):
        functional.gru_forward(**arguments, out=out)
    np.testing.assert_array_equal(arguments[name], before)


@pytest.mark.parametrize("index", [0, 1])
def test_gru_forward_refuses_to_write_over_a_bias_of_two(index):
    arguments = forward_arguments()
    pair = [array(3 * H), array(3 * H)]
    pair[index], out = over(pair[index], (N, T, H))
    with pytest.raises(ValueError, match=overlapping("out", rf"bias\[{index}\]")):
        functional.gru_forward(**arguments | {"bias": tuple(pair)}, out=out)


def test_the_error_names_the_remedy():
    lengths, out = over(np.array([4, 2, 0]), (N, T, H))
    with pytest.raises(ValueError, match=r"overlaps lengths; pass a copy of one of them$"):
        functional.gru_forward(**forward_arguments(), lengths=lengths, out=out)


def test_gru_forward_refuses_to_write_over_lengths():
    lengths, out = over(np.array([4, 2, 0]), (N, T, H))
    with pytest.raises(ValueError, match=overlapping("out", "lengths")):
        functional.gru_forward(**forward_arguments(), lengths=lengths, out=out)


BACKWARD = {"d_kernel": (F, 3 * H), "d_recurrent_kernel": (H, 3 * H), "d_bias": (2, 3 * H)}


def backward_with(output, name):
    """Call gru_backward with its `output` in the memory of the input `name`."""
    arguments = forward_arguments()
    gradients = {"d_outputs": array(N, T, H), "d_state": array(N, H)}
    source = arguments if name in arguments else gradients
    source[name], buffer = over(source[name], BACKWARD[output])
    tape = functional.GRUTape()
    functional.gru_forward(**arguments, tape=tape)
    out = [buffer if output == each else np.zeros(shape, np.float32) for each, shape in BACKWARD.items()]
    return lambda: functional.gru_backward(tape, *gradients.values(), out=tuple(out))


@pytest.mark.parametrize("name", ["x", "kernel", "recurrent_kernel", "recurrent_mask", "d_outputs", "d_state"])
@pytest.mark.parametrize("output", BACKWARD)
def test_gru_backward_refuses_to_write_over(output, name):
    # The tape's recurrent_mask was not checked.
    with pytest.raises(ValueError, match=overlapping(output, name)):
        backward_with(output, name)()


def test_gru_backward_may_write_over_what_it_does_not_read():
    arguments = forward_arguments()
    arguments["bias"], d_bias = over(arguments["bias"], (2, 3 * H))
    tape = functional.GRUTape()
    functional.gru_forward(**arguments, tape=tape)
    expected = functional.gru_backward(tape, None, array(N, H) * 0 + 1)
    out = (np.zeros((F, 3 * H), np.float32), np.zeros((H, 3 * H), np.float32), d_bias)
    given = functional.gru_backward(tape, None, array(N, H) * 0 + 1, out=out)
    for a, b in zip(expected, given, strict=True):
        np.testing.assert_array_equal(a, b)


def dense_with(output, name):
    arrays = {"x": array(7, F), "kernel": array(F, H), "d_y": array(3, H), "rows": np.array([0, 3, 5])}
    shapes = {"d_kernel": (F, H), "d_bias": (H,)}
    arrays[name], buffer = over(arrays[name], shapes[output])
    out = tuple(buffer if output == each else None for each in shapes)
    rows = arrays.pop("rows")
    return lambda: functional.dense_backward(*arrays.values(), rows=rows, out=out)


@pytest.mark.parametrize("name", ["x", "kernel", "d_y", "rows"])
@pytest.mark.parametrize("output", ["d_kernel", "d_bias"])
def test_dense_backward_refuses_to_write_over(output, name):
    with pytest.raises(ValueError, match=overlapping(output, name)):
        dense_with(output, name)()


def test_dense_backward_refuses_outputs_over_each_other():
    d_bias, d_kernel = over(array(H), (F, H))
    with pytest.raises(ValueError, match=overlapping("d_kernel", "d_bias")):
        functional.dense_backward(array(7, F), array(F, H), array(7, H), out=(d_kernel, d_bias))


@pytest.mark.parametrize("name", ["tokens", "d_y"])
def test_embedding_backward_refuses_to_write_over(name):
    arrays = {"tokens": np.array([0, 2, 1]), "d_y": array(3, H)}
    arrays[name], d_table = over(arrays[name], (4, H))
    with pytest.raises(ValueError, match=overlapping("d_table", name)):
        functional.embedding_backward(*arrays.values(), d_table)


OPTIMIZERS = {
    "adam": (functional.adam_update, ("parameters", "gradient", "m", "v"), {"step": 1}),
    "sgd": (functional.sgd_update, ("parameters", "gradient", "m"), {"momentum": 0.9}),
    "rmsprop": (
        functional.rmsprop_update,
        ("parameters", "gradient", "v", "m", "a"),
        {"momentum": 0.9, "centered": True},
    ),
}
PAIRS = [(name, *pair) for name, (_, names, _) in OPTIMIZERS.items() for pair in itertools.combinations(names, 2)]


@pytest.mark.parametrize(("optimizer", "one", "other"), PAIRS)
@pytest.mark.parametrize("shift", [0, 1, -1])
def test_optimizers_refuse_arrays_over_each_other(optimizer, one, other, shift):
    update, names, options = OPTIMIZERS[optimizer]
    memory = array(20)
    arrays = {name: np.abs(array(9)) for name in names} | {one: memory[5:14], other: memory[5 + shift : 14 + shift]}
    with pytest.raises(ValueError, match="expected an array that shares no memory, got one that overlaps") as error:
        update(*arrays.values(), **options)
    assert {one, other} <= set(str(error.value).replace(":", "").replace(";", "").split())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_accept_adjacent_arrays(optimizer):
    update, names, options = OPTIMIZERS[optimizer]
    memory = np.abs(array(len(names) * 9))
    if "a" in names:  # mean of the gradients; the variance, v - a * a, must not be negative
        memory[names.index("v") * 9 :][:9] += 9
    apart = [part.copy() for part in np.split(memory, len(names))]
    update(*np.split(memory, len(names)), **options)
    update(*apart, **options)
    np.testing.assert_array_equal(memory, np.concatenate(apart))


# --- Outputs that overlap themselves ------------------------------------------------------------------------

ITSELF = {
    "all rows in one place": (0, T * H, 1),
    "all steps in one place": (T * H, 0, 1),
    "everything in one place": (0, 0, 1),
    "steps shorter than a row": (T * H, H - 1, 1),
    "rows shorter than their steps": (T * H - 1, H, 1),
    "windows": (H, H, 1),
    "windows with gaps that meet": (3 * (H + 2), H + 2, 1),
}


@pytest.mark.parametrize("strides", ITSELF.values(), ids=ITSELF)
@pytest.mark.parametrize("sign", [1, -1])
def test_gru_forward_refuses_an_output_that_overlaps_itself(strides, sign):
    memory = np.zeros(2000, np.float32)[1000:]
    out = as_strided(memory, (N, T, H), [4 * stride * (sign if i < 2 else 1) for i, stride in enumerate(strides)])
    message = r"^out: expected an array with separate memory for each element, got one that overlaps itself, with"
    with pytest.raises(ValueError, match=message):
        functional.gru_forward(**forward_arguments(), out=out)
    assert not memory.any()


# --- Interleaved arrays -------------------------------------------------------------------------------------


def check(arguments, out, base):
    """The call returns the same as with separate memory, and leaves everything else in `base` unchanged."""
    expected = functional.gru_forward(**{name: np.array(value) for name, value in arguments.items()})[0]
    untouched = base.copy()
    given = functional.gru_forward(**arguments, out=out)[0]
    assert given is out
    np.testing.assert_array_equal(out, expected)
    changed = np.zeros(base.shape, bool)
    as_strided(
        changed.reshape(-1)[(out.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // 4 :],
        out.shape,
        [stride // 4 for stride in out.strides],
    )[...] = True
    np.testing.assert_array_equal(base[~changed], untouched[~changed])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "cut",
    [
        lambda big: (big[:, :, F:], big[:, :, :F]),
        lambda big: (big[:, ::-1, F:], big[:, :, :F]),
        lambda big: (big[:, :, F:], big[::-1, :, :F]),
        lambda big: (big[:, 1:, F:], big[:, :-1, :F]),
        lambda big: (big[1:, :, F:], big[:-1, :, :F]),
        lambda big: (big[::2, :, :H], big[1::2, :, :F]),
        lambda big: (big[:, ::2, :H], big[:, 1::2, :F]),
        lambda big: (big.transpose(1, 0, 2)[:, :, F:], big.transpose(1, 0, 2)[:, :, :F]),
        lambda big: (big[:, :, F:], big.transpose(1, 0, 2)[:, :, :F]),
        lambda big: (big[1:4, :3, F:], np.broadcast_to(big[:1, :3, :F], (3, 3, F))),
        lambda big: (big[:4, 1:4, F:], sliding_window_view(big[:, 0], 3, axis=0).transpose(0, 2, 1)[:4, :, :F]),
    ],
    ids=["features", "steps reversed", "rows reversed", "a step before", "a row before", "rows in turn",
         "steps in turn", "both transposed", "x transposed", "broadcast", "windows"],
)  # fmt: skip
def test_interleaved_arrays_work(cut, backwards):
    # They raised, because their ranges of memory overlap.
    memory = array(6, 6, F + H)
    out, x = cut(memory)
    assert x.shape[:2] == out.shape[:2]
    check(
        {"x": x, "kernel": array(F, 3 * H), "recurrent_kernel": array(H, 3 * H), "go_backwards": backwards}, out, memory
    )


def test_small_arrays_may_be_between_rows_of_the_output():
    memory = array(200)
    out = as_strided(memory, (2, 3, 4), (4 * 90, 4 * 30, 4))
    arguments = {
        "x": as_strided(memory[4:], (2, 3, 5), (4 * 90, 4 * 30, 4)),
        "kernel": array(5, 12),
        "recurrent_kernel": array(4, 12),
        "bias": memory[9:21],
        "initial_state": memory[40:48].reshape(2, 4),
    }
    check(arguments, out, memory)
    arguments["initial_state"] = memory[24:32].reshape(2, 4)
    with pytest.raises(ValueError, match=overlapping("out", "initial_state")):
        functional.gru_forward(**arguments, out=out)


def test_copies_do_not_overlap():
    # A kernel cannot read every other unit in place: the binding copies it before anything is written.
    memory = array(N, 2 * H * T)
    arguments = forward_arguments() | {"initial_state": memory[:, : 2 * H : 2]}
    expected = functional.gru_forward(**arguments | {"initial_state": arguments["initial_state"].copy()})[0]
    out = as_strided(memory, (N, T, H), (memory.strides[0], 4 * H, 4))
    np.testing.assert_array_equal(functional.gru_forward(**arguments, out=out)[0], expected)


def overlaps_itself(view):
    offsets = sum(
        np.arange(size).reshape([-1 if i == axis else 1 for i in range(view.ndim)]) * stride
        for axis, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True))
    )
    flat = np.sort(offsets.ravel())
    return bool((np.diff(flat) < view.itemsize).any())


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_is_exact(seed):
    """Compared with NumPy's exact, exponential algorithm on views of one block of memory with random strides."""
    rng = np.random.default_rng(seed)
    memory = np.zeros(4000, np.float32)
    kinds = {"itself": 0, "overlap": 0, "apart": 0, "interleaved": 0}

    def view(shape, width):
        largest = int(rng.choice([width + 1, 3 * width, 60]))
        strides = [int(rng.integers(-largest, largest + 1)) for _ in range(2)]
        if rng.random() < 0.5:  # regular
            strides[0] = strides[1] * int(rng.integers(1, 5))
        reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
        low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
        start = int(rng.integers(-low, min(-low + 100, 4000 - high - width)))
        return as_strided(memory[start:], (*shape, width), (4 * strides[0], 4 * strides[1], 4))

    for _ in range(1500):
        shape = tuple(rng.integers(1, 6, 2))
        units, features = (int(n) for n in rng.integers(1, 9, 2))
        out, x = view(shape, units), view(shape, features)
        weights = np.zeros((features, 3 * units), np.float32), np.zeros((units, 3 * units), np.float32)
        if out.size > 1 and overlaps_itself(out):
            kinds["itself"] += 1
            with pytest.raises(ValueError, match="overlaps itself"):
                functional.gru_forward(x, *weights, out=out)
        elif np.shares_memory(out, x):
            kinds["overlap"] += 1
            with pytest.raises(ValueError, match="overlaps x"):
                functional.gru_forward(x, *weights, out=out)
        else:
            kinds["interleaved" if np.may_share_memory(out, x) else "apart"] += 1
            functional.gru_forward(x, *weights, out=out)
    assert min(kinds.values()) > 50, kinds


def test_long_interleaved_arrays_are_compared_quickly():
    # Strides without a common factor: comparing run by run would take minutes.
    memory = np.zeros(3_000_000, np.float32)
    steps = 300_000
    out = as_strided(memory[2:], (1, steps, 1), (4, 4 * 6, 4))
    x = as_strided(memory, (1, steps, 1), (4, 4 * 9, 4))
    assert functional.gru_forward(x, array(1, 3), array(1, 3), out=out)[0] is out
    with pytest.raises(ValueError, match="overlaps x"):
        functional.gru_forward(as_strided(memory[1:], (1, steps, 1), (4, 4 * 7, 4)), array(1, 3), array(1, 3), out=out)
