"""The reference's gradients compared with complex-step derivatives, which have no truncation or cancellation error."""

from __future__ import annotations

import complex_step
import numpy as np
import pytest
from fastgru import reference
from gru_cases import case_id, lengths_grid, make_case, option_grid

#: Complex steps are exact up to rounding; the rest are the rounding errors of two float64 computations.
TOLERANCE = 1e-12

SMALL = [s | {"shape": (2, 3, 2, 3)} for s in option_grid()]


@pytest.mark.parametrize("settings", SMALL, ids=case_id)
def test_gru_backward_is_the_derivative_of_forward(settings):
    check_gru_backward(make_case(**settings))


@pytest.mark.parametrize("settings", list(lengths_grid()), ids=lambda g: "-".join(str(v) for v in g.values()))
def test_gru_backward_with_lengths_and_masks_is_the_derivative_of_forward(settings):
    check_gru_backward(make_case(**settings | {"shape": (4, 3, 2, 3)}))


def check_gru_backward(case):
    loss, arguments = complex_step.gru_loss(case)
    gradients = reference.gru_backward(*arguments, **case.options, d_outputs=case.d_outputs, d_state=case.d_state)
    order = (gradients.x, gradients.kernel, gradients.recurrent_kernel, gradients.bias, gradients.initial_state)
    for index, gradient in enumerate(order):
        if arguments[index] is not None:
            expected = complex_step.gradient(loss, arguments, index)
            np.testing.assert_allclose(gradient, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_dense_backward_is_the_derivative_of_forward():
    rng = np.random.default_rng(1)
    x, kernel, bias, d_y = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2), rng.normal(size=(3, 2))
    gradients = reference.dense_backward(x, kernel, d_y)
    for index, gradient in enumerate(gradients):
        expected = complex_step.gradient(lambda *a: (reference.dense_forward(*a) * d_y).sum(), [x, kernel, bias], index)
        np.testing.assert_allclose(gradient, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_cross_entropy_gradient_is_the_derivative_of_the_mean_loss():
    rng = np.random.default_rng(2)
    logits, targets = rng.normal(size=(4, 5)) * 3, rng.random((4, 5))
    expected = complex_step.gradient(lambda a: reference.softmax_cross_entropy(a, targets)[0].mean(), [logits], 0)
    np.testing.assert_allclose(
        reference.softmax_cross_entropy(logits, targets)[1], expected, rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activation_derivatives_in_terms_of_the_output(name):
    function, derivative = reference.ACTIVATIONS[name]
    x = np.linspace(-7.3, 7.1, 101)
    expected = function(x + 1j * complex_step.STEP).imag / complex_step.STEP
    np.testing.assert_allclose(derivative(function(x)), expected, rtol=TOLERANCE, atol=TOLERANCE)
