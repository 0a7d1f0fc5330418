"""The kernels compared with PyTorch's GRU, cross-entropy and Adam, if PyTorch is installed (CI installs it)."""

from __future__ import annotations

import numpy as np
import peers
import pytest
from error_bounds import norm_bound, relative_error
from fastgru import functional
from gru_cases import make_case

torch = peers.require("torch")

#: Two float32 computations, each within its bound of the exact result.
BOTH = 2


def swap_gates(array):
    """Convert Keras' z, r, h columns to PyTorch's r, z, n rows."""
    z, r, n = np.split(array, 3, axis=-1)
    return np.concatenate([r, z, n], axis=-1).T


def swap_back(tensor):
    r, z, n = np.split(tensor.detach().numpy(), 3, axis=0)
    return np.concatenate([z, r, n], axis=0).T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", ["two", "none"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (32, 28, 28, 64), (5, 9, 3, 17), (70, 4, 130, 31), (2, 200, 6, 8)], ids=str
)
def test_gru_and_its_gradients_match(shape, bias, dtype):
    case = make_case(shape, dtype, seed=11, bias=bias)
    x, kernel, recurrent, biases, h0 = case.arguments
    gru = torch.nn.GRU(shape[2], shape[3], batch_first=True, bias=biases is not None)
    gru = gru.to(torch.float32 if dtype == np.float32 else torch.float64)
    with torch.no_grad():
        gru.weight_ih_l0.copy_(torch.from_numpy(swap_gates(kernel)))
        gru.weight_hh_l0.copy_(torch.from_numpy(swap_gates(recurrent)))
        if biases is not None:
            gru.bias_ih_l0.copy_(torch.from_numpy(swap_gates(biases[:1])[:, 0]))
            gru.bias_hh_l0.copy_(torch.from_numpy(swap_gates(biases[1:])[:, 0]))
    x_torch = torch.from_numpy(x).requires_grad_()
    h0_torch = torch.from_numpy(h0[None]).requires_grad_()
    y, last = gru(x_torch, h0_torch)
    (y * torch.from_numpy(case.d_outputs)).sum().add((last[0] * torch.from_numpy(case.d_state)).sum()).backward()

    tape = functional.GRUTape()
    outputs, state = functional.gru_forward(*case.arguments, tape=tape)
    gradients = functional.gru_backward(tape, case.d_outputs, case.d_state)
    pairs = {
        "outputs": (outputs, y.detach().numpy()),
        "state": (state, last[0].detach().numpy()),
        "x": (gradients.x, x_torch.grad.numpy()),
        "initial_state": (gradients.initial_state, h0_torch.grad[0].numpy()),
        "kernel": (gradients.kernel, swap_back(gru.weight_ih_l0.grad)),
        "recurrent_kernel": (gradients.recurrent_kernel, swap_back(gru.weight_hh_l0.grad)),
    }
    if biases is not None:
        expected = [swap_back(gru.bias_ih_l0.grad[:, None])[0], swap_back(gru.bias_hh_l0.grad[:, None])[0]]
        pairs["bias"] = (gradients.bias, np.stack(expected))
    for name, (actual, expected) in pairs.items():
        error = relative_error(actual, expected.astype(np.float64))
        assert error <= BOTH * norm_bound(dtype, shape, backward=True), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_matches(dtype):
    rng = np.random.default_rng(0)
    logits, labels = (5 * rng.normal(size=(40, 7))).astype(dtype), rng.integers(0, 7, 40)
    targets = rng.dirichlet(np.ones(7), 40).astype(dtype)
    for given, wanted in ((labels, torch.from_numpy(labels)), (targets, torch.from_numpy(targets))):
        tensor = torch.from_numpy(logits.copy()).requires_grad_()
        loss = torch.nn.functional.cross_entropy(tensor, wanted)
        loss.backward()
        result = functional.softmax_cross_entropy(logits, given)
        tolerance = 50 * float(np.finfo(dtype).eps)
        assert result.losses.mean() == pytest.approx(loss.item(), rel=tolerance)
        np.testing.assert_allclose(result.d_logits, tensor.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_matches_over_fifty_steps(dtype):
    rng = np.random.default_rng(0)
    start = rng.normal(size=1000).astype(dtype)
    tensor = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.Adam([tensor], lr=0.01, betas=(0.8, 0.99), eps=1e-3)
    p, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, 51):
        gradient = rng.normal(size=1000).astype(dtype)
        tensor.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        functional.adam_update(
            p, gradient, m, v, step=step, learning_rate=0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-3, form="pytorch"
        )
    # Fifty updates of at most 0.01, each with a few roundings in both libraries.
    np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=0, atol=50 * 4 * np.finfo(dtype).eps)
