from __future__ import annotations

import numpy as np
import pytest
from fastgru import functional, reference

#: Ten updates, each a handful of roundings, on moments of both signs.
RELATIVE = {np.float32: 5e-6, np.float64: 1e-14}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["keras", "tfjs", "pytorch"])
@pytest.mark.parametrize("count", [1, 7, 64, 1001, 70_000])
def test_matches_the_reference(count, form, dtype):
    rng = np.random.default_rng(count)
    p = rng.normal(size=count).astype(dtype)
    m, v = np.zeros_like(p), np.zeros_like(p)
    expected = p.astype(np.float64), np.zeros(count), np.zeros(count)
    # An epsilon large enough that a form which puts it elsewhere would be caught.
    settings = {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01, "form": form}
    for step in range(1, 11):
        gradient = rng.normal(size=count).astype(dtype)
        functional.adam_update(p, gradient, m, v, step=step, **settings)
        expected = reference.adam(expected[0], gradient, expected[1], expected[2], step=step, **settings)
    for actual, wanted in zip((p, m, v), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=RELATIVE[dtype], atol=RELATIVE[dtype])


def test_keras_epsilon_is_not_the_papers():
    results = {}
    for form in ("keras", "tfjs", "pytorch"):
        p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
        functional.adam_update(p, np.full(1, 1e-3), m, v, step=1, epsilon=1e-3, form=form)
        results[form] = p[0]
    assert results["tfjs"] == pytest.approx(results["pytorch"], rel=1e-15)
    assert abs(results["keras"] - results["tfjs"]) > 1e-4


def test_elements_do_not_depend_on_their_position():
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=37).astype(np.float32), rng.normal(size=37).astype(np.float32)
    whole, single = p.copy(), p[36:].copy()
    functional.adam_update(whole, g, np.zeros_like(p), np.zeros_like(p), step=3)
    functional.adam_update(single, g[36:].copy(), np.zeros(1, np.float32), np.zeros(1, np.float32), step=3)
    assert whole[36] == single[0]
