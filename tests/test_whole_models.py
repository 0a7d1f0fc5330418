"""Whole models compared with the reference, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from fastgru import Sequential, layers, load_model, reference
from models import pick, random_model, random_samples

#: Float64 rounding errors on both sides, for few layers and steps.
TOLERANCE = 1e-12


@pytest.mark.filterwarnings("ignore:.*lengths and masks end here:UserWarning")
@pytest.mark.parametrize("seed", range(120))
def test_a_model_matches_the_reference(seed):
    rng = np.random.default_rng(seed)
    rows, steps, features = rng.integers(1, 7, 3).tolist()
    model = random_model(seed, features=features, steps=steps, dtype="float64")
    x, lengths = random_samples(rng, model, rows, steps)
    if pick(rng, True, False):
        lengths = None
    expected = reference.run(model.describe().layers, x, lengths)
    actual = model.predict(x, lengths=lengths)
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


SEVERAL = {
    "GRU": (2, lambda: layers.GRU(3, return_sequences=True, return_state=True)),
    "Bidirectional None": (2, lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True), None)),
    "Bidirectional": (3, lambda: layers.Bidirectional(layers.GRU(3, return_state=True))),
    "Bidirectional of sequences": (
        4,
        lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True, return_state=True), None),
    ),
}


@pytest.mark.parametrize(("count", "make"), SEVERAL.values(), ids=SEVERAL)
def test_several_outputs(count, make, tmp_path):
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(3, 4, 2)), np.array([4, 0, 2])
    model = Sequential([make()], dtype="float64")
    model.build((None, None, 2))
    model.save(tmp_path / "model.safetensors")
    for other in (model, load_model(tmp_path / "model.safetensors")):
        actual = other.predict(x, lengths=lengths)
        expected = reference.run(model.describe().layers, x, lengths)
        assert len(actual) == len(expected) == count
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
