"""Bounds for the difference between a kernel and the reference.

u is the unit roundoff, 2^-24 for float32 and 2^-53 for float64.

**Norm bound.** Roundings behave like independent errors of relative size at most u. A dot product over K terms of
random sign has partial sums that grow like sqrt(k), so its roundings add up to about u sqrt(K / 6) of its own size in
the root-mean-square sense (Higham 2002, section 2.8: the rule of thumb that takes the square root of the worst-case
constant). A state is the end of a chain of at most K = F + H products and T steps; a gradient for weights adds the sum
over N T samples and steps, and backward's own products over 3H gates. So, in the L2 norm over a tensor,

    ||computed - exact|| <= SAFETY * u * sqrt(depth) * ||exact||

with the depth of the longest such chain. SAFETY = 8 covers the three gates that affect each state, activations
within a few ULP, and the statistical spread of small tensors.

**Elementwise bound** (`forward_bound`). Rigorous: the error of each quantity is bounded by the errors of its inputs,
with gamma_k = k u / (1 - k u) for sums of k terms (Higham 2002, section 3.1), Lipschitz constants of activations, and
their documented errors in ULP. It grows with T, so it is used for short sequences.
"""

from __future__ import annotations

import numpy as np
from fastgru import reference

SAFETY = 8.0

#: Maximum errors documented in cpp/simd/activations.hpp, in ULP of the result (test_activations.py measures them).
ACTIVATION_ULP = {"sigmoid": 3, "tanh": 5, "hard_sigmoid": 2, "hard_sigmoid_tfjs": 2, "relu": 0, "linear": 0}
LIPSCHITZ = {"sigmoid": 0.25, "tanh": 1.0, "hard_sigmoid": 1 / 6, "hard_sigmoid_tfjs": 0.2, "relu": 1.0, "linear": 1.0}


def unit_roundoff(dtype):
    return float(np.finfo(dtype).eps) / 2


def norm_bound(dtype, shape, *, backward):
    rows, steps, features, units = shape
    depth = features + units + steps
    if backward:
        depth += 3 * units + rows * steps
    return SAFETY * unit_roundoff(dtype) * np.sqrt(depth)


def relative_error(actual, expected):
    """Return the error in the L2 norm over the tensor."""
    if expected.size == 0:
        return 0.0
    scale = np.linalg.norm(expected)
    error = np.linalg.norm(actual.astype(np.float64) - expected)
    return error / scale if scale > 0 else error


def gamma(k, u):
    return k * u / (1 - k * u)


def forward_bound(case):
    """Return elementwise bounds for every step's state of a forward pass in the case's dtype: (N, T, H)."""
    u = unit_roundoff(case.dtype)
    x, kernel, recurrent, bias, h0 = (None if a is None else a.astype(np.float64) for a in case.arguments)
    rows, steps, features, units = case.shape
    options = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True} | {
        k: v for k, v in case.options.items() if k != "go_backwards"
    }
    act, rec = options["activation"], options["recurrent_activation"]
    u_gates = np.abs(np.split(recurrent, 3, axis=1))
    b_in, b_rec = (np.abs(b) for b in reference._biases(bias, units))
    h, e_h = (np.zeros((rows, units)) if h0 is None else h0), np.zeros((rows, units))
    order = range(steps)[::-1] if case.options.get("go_backwards") else range(steps)
    bounds = []

    def activated(name, value, error):
        # The Lipschitz part, plus the function's own error relative to its largest possible result.
        return LIPSCHITZ[name] * error + 2 * ACTIVATION_ULP[name] * u * (np.abs(value) + error)

    for t in order:
        h_next, (z, r, n, q) = reference.gru_step(x[:, t], h, kernel, recurrent, bias, **options)
        g = gamma(features + units + 4, u)
        x_part = np.split(np.abs(x[:, t]) @ np.abs(kernel) + b_in, 3, axis=1)
        b_part = np.split(b_rec, 3)
        total = np.abs(h) + e_h

        e_gates = [
            g * (x_part[index] + total @ u_gates[index] + b_part[index]) + e_h @ u_gates[index] for index in (0, 1)
        ]
        e_z, e_r = activated(rec, z, e_gates[0]), activated(rec, r, e_gates[1])
        e_x = g * (x_part[2] + b_part[2])
        if options["reset_after"]:
            e_q = g * (total @ u_gates[2] + b_part[2]) + e_h @ u_gates[2]
            e_a = e_x + (np.abs(r) + e_r) * e_q + np.abs(q) * e_r + 2 * u * (np.abs(r) + e_r) * (np.abs(q) + e_q)
        else:
            e_rh = e_r * total + np.abs(r) * e_h + u * (np.abs(r) + e_r) * total
            e_a = e_x + e_rh @ u_gates[2] + g * ((np.abs(r * h) + e_rh) @ u_gates[2])
        e_n = activated(act, n, e_a + 2 * u * x_part[2])
        # z (h - n) + n
        e_h = (
            np.abs(h - n) * e_z
            + (np.abs(z) + e_z) * e_h
            + (np.abs(1 - z) + e_z) * e_n
            + 4 * u * ((np.abs(z) + e_z) * (total + np.abs(n) + e_n) + np.abs(n) + e_n)
        )
        h = h_next
        bounds.append(e_h)
    return np.stack(bounds, axis=1)
