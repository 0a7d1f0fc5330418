from __future__ import annotations

import numpy as np
import pytest
from error_bounds import SAFETY, relative_error, unit_roundoff
from fastgru import functional, reference

# (N, F, C): sizes around those of tiles, registers and the 256-row chunks of the sum over the batch.
SHAPES = [(1, 1, 1), (3, 5, 2), (32, 64, 10), (9, 17, 33), (300, 7, 50), (1025, 70, 129), (0, 4, 3)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dense_matches_the_reference(shape, dtype):
    rows, features, columns = shape
    rng = np.random.default_rng(rows)
    x, kernel = rng.normal(size=(rows, features)).astype(dtype), rng.normal(size=(features, columns)).astype(dtype)
    bias, d_y = rng.normal(size=columns).astype(dtype), rng.normal(size=(rows, columns)).astype(dtype)
    bound = SAFETY * unit_roundoff(dtype) * np.sqrt(features + columns + rows)
    for b in (bias, None):
        y = functional.dense_forward(x, kernel, b)
        assert y.dtype == dtype
        assert relative_error(y, reference.dense_forward(x, kernel, b)) <= bound
    gradients = functional.dense_backward(x, kernel, d_y)
    for actual, expected in zip(gradients, reference.dense_backward(x, kernel, d_y), strict=True):
        assert actual.shape == expected.shape
        assert relative_error(actual, expected) <= bound


def test_a_row_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(45, 19)).astype(np.float32), rng.normal(size=(19, 37)).astype(np.float32)
    y = functional.dense_forward(x, kernel)
    for rows in (slice(0, 1), slice(7, 20), slice(44, 45)):
        np.testing.assert_array_equal(functional.dense_forward(x[rows], kernel), y[rows])


def test_gradients_are_written_to_out():
    rng = np.random.default_rng(0)
    x, kernel, d_y = rng.normal(size=(6, 4)), rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    out = (np.full((4, 3), 7.0), np.full(3, 7.0))
    gradients = functional.dense_backward(x, kernel, d_y, input_gradient=False, out=out)
    assert gradients.x is None
    assert gradients.kernel is out[0]
    assert gradients.bias is out[1]
    np.testing.assert_allclose(out[0], x.T @ d_y)
    np.testing.assert_allclose(out[1], d_y.sum(axis=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "rows",
    [[], [0], [299], [0, 1, 2, 290, 299], [*range(3, 40), *range(41, 43), *range(100, 290)], list(range(300))],
    ids=len,
)
def test_selected_rows_have_the_results_of_single_rows(rows, dtype):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(300, 7)).astype(dtype), rng.normal(size=(7, 50)).astype(dtype)
    bias, d_y = rng.normal(size=50).astype(dtype), rng.normal(size=(len(rows), 50)).astype(dtype)
    which = np.array(rows, np.int32)
    left_out = np.setdiff1d(np.arange(300), which)
    hidden = x.copy()
    hidden[left_out] = np.nan  # must not be read
    y = functional.dense_forward(hidden, kernel, bias, rows=which)
    np.testing.assert_array_equal(y, functional.dense_forward(x[which], kernel, bias))
    gradients = functional.dense_backward(hidden, kernel, d_y, rows=which)
    alone = functional.dense_backward(x[which], kernel, d_y)
    assert gradients.x.shape == x.shape
    np.testing.assert_array_equal(gradients.x[which], alone.x)
    np.testing.assert_array_equal(gradients.x[left_out], 0)
    np.testing.assert_array_equal(gradients.kernel, alone.kernel)
    np.testing.assert_array_equal(gradients.bias, alone.bias)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 2, 2], ValueError, "rows: expected ascending numbers, got 2 after 2 at index 2"),
        ([1, 0], ValueError, "rows: expected ascending numbers, got 0 after 1 at index 1"),
        ([0, 6], ValueError, "rows: expected rows from 0 to 5 because x has 6 rows, got 6 at index 1"),
        ([-1], ValueError, "rows: expected rows from 0 to 5 because x has 6 rows, got -1 at index 0"),
        ([[0]], ValueError, r"rows: expected shape \(M,\), got \(1, 1\)"),
        ([0.0], TypeError, "rows: expected integers, got float64"),
    ],
    ids=str,
)
def test_invalid_rows_raise(rows, error, message):
    x, kernel = np.zeros((6, 4)), np.zeros((4, 3))
    with pytest.raises(error, match=message):
        functional.dense_forward(x, kernel, rows=np.array(rows))
    with pytest.raises(error, match=message):
        functional.dense_backward(x, kernel, np.zeros((len(rows), 3)), rows=np.array(rows))
