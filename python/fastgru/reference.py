"""The kernels' functions in plain NumPy, readable as the equations: the judge of everything else.

Imports nothing of the package. Computes in float64, or in complex128 where an argument is complex, so that a
complex-step derivative can judge the gradients here in turn: every function is analytic along the branch it
takes, and comparisons look at real parts only.

Axes: N batch rows, T time steps, F input features, H units, C classes. Parameters and gates lie as in Keras:
``kernel (F, 3H)``, ``recurrent_kernel (H, 3H)``, ``bias`` None, ``(3H,)`` or ``(2, 3H)`` (input, recurrent); gates in
the order z, r, n (update, reset, candidate; Keras calls the candidate h).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _clip01(x: Array) -> Array:
    return np.where(x.real <= 0, 0.0, np.where(x.real >= 1, 1.0, x))


def _sigmoid(x: Array) -> Array:
    e = np.exp(np.where(x.real < 0, x, -x))  # of -|x|, so that nothing overflows
    return np.where(x.real < 0, e, 1.0) / (1.0 + e)


#: name -> (function, its derivative in terms of its output)
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.tanh, lambda y: 1.0 - y * y),
    "relu": (lambda x: np.where(x.real > 0, x, 0.0), lambda y: np.where(y.real > 0, 1.0, 0.0)),
    "linear": (lambda x: x, np.ones_like),
    "sigmoid": (_sigmoid, lambda y: y * (1.0 - y)),
    "hard_sigmoid": (
        lambda x: _clip01(x / 6.0 + 0.5),
        lambda y: np.where((y.real > 0) & (y.real < 1), 1.0 / 6.0, 0.0),
    ),
    "hard_sigmoid_tfjs": (
        lambda x: _clip01(0.2 * x + 0.5),
        lambda y: np.where((y.real > 0) & (y.real < 1), 0.2, 0.0),
    ),
}


class GRUGradients(NamedTuple):
    """Gradients in the shapes of what they belong to; ``bias`` is None where there was none."""

    x: Array
    initial_state: Array
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None


def _wide(*arrays: Array | None) -> list[Any]:
    """The arrays as float64 or complex128, None as it is."""
    return [None if a is None else np.asarray(a, np.result_type(a, np.float64)) for a in arrays]


def _biases(bias: Array | None, units: int) -> tuple[Array, Array]:
    if bias is None:
        return np.zeros(3 * units), np.zeros(3 * units)
    if bias.ndim == 1:
        return bias, np.zeros(3 * units)
    return bias[0], bias[1]


def gru_step(
    x: Array,
    h: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None,
    activation: str,
    recurrent_activation: str,
    reset_after: bool,
    masks: Array | tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """One step: the new state, and (z, r, n, q) where q is what the reset gate multiplies (reset_after).

    `masks` are those of recurrent dropout, for z, r and n: each multiplies the state in its gate's product only.
    """
    units = recurrent_kernel.shape[0]
    act, rec = ACTIVATIONS[activation][0], ACTIVATIONS[recurrent_activation][0]
    b_in, b_rec = _biases(bias, units)
    x_z, x_r, x_n = np.split(x @ kernel + b_in, 3, axis=-1)
    u_z, u_r, u_n = np.split(recurrent_kernel, 3, axis=-1)
    b_rec_z, b_rec_r, b_rec_n = np.split(b_rec, 3)

    h_z, h_r, h_n = (h * mask for mask in masks)
    z = rec(x_z + h_z @ u_z + b_rec_z)
    r = rec(x_r + h_r @ u_r + b_rec_r)
    if reset_after:
        q = h_n @ u_n + b_rec_n
        n = act(x_n + r * q)
    else:
        q = (r * h_n) @ u_n + b_rec_n
        n = act(x_n + q)
    return z * h + (1 - z) * n, (z, r, n, q)


def _masks(recurrent_mask: Array | None, count: int, units: int) -> Array:
    """Masks (3, N, H) for z, r and n, of which one (N, H) may stand for all."""
    return np.broadcast_to(np.ones(()) if recurrent_mask is None else recurrent_mask, (3, count, units))


def _reading(s: int, lengths: Array, go_backwards: bool, output_order: str) -> tuple[Array, Array, Array]:
    """Of the s-th step of processing: the rows at work, which step of x each reads, and where its output stands."""
    rows = np.flatnonzero(lengths > s)
    read = lengths[rows] - 1 - s if go_backwards else np.full(len(rows), s)
    return rows, read, read if output_order == "input" else np.full(len(rows), s)


def _padding(lengths: Array, steps: int, padded_outputs: str, go_backwards: bool, output_order: str) -> Array:
    """Mask (N, T) of the outputs that repeat a sequence's last one."""
    repeat = padded_outputs == "repeat" and not (go_backwards and output_order == "input")
    return (np.arange(steps) >= lengths[:, None]) & (lengths[:, None] > 0) & repeat


def gru_forward(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    initial_state: Array | None = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reset_after: bool = True,
    go_backwards: bool = False,
    lengths: Array | None = None,
    padded_outputs: str = "repeat",
    output_order: str = "processing",
    recurrent_mask: Array | None = None,
) -> tuple[Array, Array]:
    """Outputs (N, T, H), and the state (N, H) after each sequence's last step; see `fastgru.functional.gru_forward`."""
    x, kernel, recurrent_kernel, bias, h = _wide(x, kernel, recurrent_kernel, bias, initial_state)
    count, steps, units = x.shape[0], x.shape[1], recurrent_kernel.shape[0]
    lengths = np.full(count, steps) if lengths is None else np.asarray(lengths, np.int64)
    masks = _masks(recurrent_mask, count, units)
    options = (activation, recurrent_activation, reset_after)
    kind = np.result_type(*(a for a in (x, kernel, recurrent_kernel, bias, h) if a is not None))
    h = np.zeros((count, units), kind) if h is None else h.astype(kind)
    outputs = np.zeros((count, steps, units), kind)
    for s in range(steps):
        rows, read, place = _reading(s, lengths, go_backwards, output_order)
        h[rows], _ = gru_step(x[rows, read], h[rows], kernel, recurrent_kernel, bias, *options, masks[:, rows])
        outputs[rows, place] = h[rows]
    repeated = _padding(lengths, steps, padded_outputs, go_backwards, output_order)
    return np.where(repeated[:, :, None], h[:, None, :], outputs), h


def gru_backward(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    initial_state: Array | None = None,
    *,
    d_outputs: Array | None = None,
    d_state: Array | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reset_after: bool = True,
    go_backwards: bool = False,
    lengths: Array | None = None,
    padded_outputs: str = "repeat",
    output_order: str = "processing",
    recurrent_mask: Array | None = None,
) -> GRUGradients:
    """Gradients of a loss from those for the outputs (N, T, H) and / or for the last state (N, H)."""
    x, kernel, recurrent_kernel, bias, h = _wide(x, kernel, recurrent_kernel, bias, initial_state)
    count, steps, units = x.shape[0], x.shape[1], recurrent_kernel.shape[0]
    lengths = np.full(count, steps) if lengths is None else np.asarray(lengths, np.int64)
    masks = _masks(recurrent_mask, count, units)
    options = (activation, recurrent_activation, reset_after)
    d_act, d_rec = ACTIVATIONS[activation][1], ACTIVATIONS[recurrent_activation][1]
    u_z, u_r, u_n = np.split(recurrent_kernel, 3, axis=-1)

    h = np.zeros((count, units)) if h is None else h.copy()
    tape = []
    for s in range(steps):
        rows, read, place = _reading(s, lengths, go_backwards, output_order)
        before = h[rows]
        h[rows], gates = gru_step(x[rows, read], before, kernel, recurrent_kernel, bias, *options, masks[:, rows])
        tape.append((rows, read, place, before, gates))

    d_x, d_kernel, d_recurrent = np.zeros_like(x), np.zeros_like(kernel), np.zeros_like(recurrent_kernel)
    d_b_in, d_b_rec = np.zeros(3 * units), np.zeros(3 * units)
    d_states = np.zeros((count, units)) if d_state is None else np.array(d_state, np.float64)
    if d_outputs is not None:
        repeated = _padding(lengths, steps, padded_outputs, go_backwards, output_order)
        d_states += np.where(repeated[:, :, None], d_outputs, 0.0).sum(axis=1)
    for rows, read, place, h, (z, r, n, q) in reversed(tape):
        d_h = d_states[rows]
        if d_outputs is not None:
            d_h = d_h + d_outputs[rows, place]
        d_z = d_h * (h - n) * d_rec(z)
        d_n = d_h * (1 - z) * d_act(n)
        m_z, m_r, m_n = masks[:, rows]
        h_z, h_r, h_n = h * m_z, h * m_r, h * m_n
        if reset_after:
            d_q = d_n * r
            d_r = d_n * q * d_rec(r)
            d_h_n = d_q @ u_n.T
            d_u_n = h_n.T @ d_q
        else:
            d_q = d_n
            d_reset_h = d_n @ u_n.T
            d_r = d_reset_h * h_n * d_rec(r)
            d_h_n = d_reset_h * r
            d_u_n = (r * h_n).T @ d_n
        d_states[rows] = d_h * z + d_z @ u_z.T * m_z + d_r @ u_r.T * m_r + d_h_n * m_n
        d_input = np.concatenate([d_z, d_r, d_n], axis=-1)
        d_x[rows, read] = d_input @ kernel.T
        d_kernel += x[rows, read].T @ d_input
        d_recurrent += np.concatenate([h_z.T @ d_z, h_r.T @ d_r, d_u_n], axis=-1)
        d_b_in += d_input.sum(axis=0)
        d_b_rec += np.concatenate([d_z, d_r, d_q], axis=-1).sum(axis=0)

    d_bias = None if bias is None else d_b_in if bias.ndim == 1 else np.stack([d_b_in, d_b_rec])
    return GRUGradients(d_x, d_states, d_kernel, d_recurrent, d_bias)


def dense_forward(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """``x @ kernel + bias`` for rows (N, F)."""
    x, kernel, bias = _wide(x, kernel, bias)
    y: Array = x @ kernel
    return y if bias is None else y + bias


def dense_backward(x: Array, kernel: Array, d_y: Array) -> tuple[Array, Array, Array]:
    """Gradients for x, kernel and bias."""
    x, kernel, d_y = _wide(x, kernel, d_y)
    return d_y @ kernel.T, x.T @ d_y, d_y.sum(axis=0)


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    (logits,) = _wide(logits)
    e = np.exp(logits - logits.real.max(axis=-1, keepdims=True))
    p: Array = e / e.sum(axis=-1, keepdims=True)
    return p


# --- Models -----------------------------------------------------------------------------------------------------


class LayerLike(Protocol):
    """What `run` knows of a layer: the words of `fastgru.formats.description.LayerDescription`."""

    class_name: str
    config: dict[str, Any]
    weights: dict[str, Array]


def run(layers: Sequence[LayerLike], x: Array, lengths: Array | None = None) -> Array | tuple[Array, ...]:
    """What a chain of layers gives for samples (N, ...), whose sequences have those lengths; all T if not given."""
    y: Any = np.asarray(x)
    for layer in layers:
        y, lengths = LAYERS[layer.class_name](y, lengths, layer.weights, **layer.config)
    return y  # type: ignore[no-any-return]


def _valid(lengths: Array | None, x: Array) -> Array:
    """Mask (N, T) of the steps that count."""
    count, steps = x.shape[:2]
    return np.arange(steps) < (np.full(count, steps) if lengths is None else lengths)[:, None]


def _gru(
    x: Array,
    lengths: Array | None,
    weights: dict[str, Array],
    *,
    return_sequences: bool = False,
    return_state: bool = False,
    zero_output_for_mask: bool = False,
    output_order: str = "processing",
    **config: Any,
) -> tuple[Any, Array | None]:
    options = {name: config[name] for name in _GRU_OPTIONS if name in config}
    outputs, state = gru_forward(
        x,
        weights["kernel"],
        weights["recurrent_kernel"],
        weights.get("bias"),
        lengths=lengths,
        padded_outputs="zeros" if zero_output_for_mask else "repeat",
        output_order=output_order,
        **options,
    )
    y = outputs if return_sequences else state
    return ((y, state) if return_state else y), (lengths if return_sequences else None)


_GRU_OPTIONS = ("activation", "recurrent_activation", "reset_after", "go_backwards")
_MERGES: dict[str | None, Callable[[Array, Array], Any]] = {
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda a, b: (a + b) / 2,
    None: lambda a, b: (a, b),
}


def _bidirectional(
    x: Array,
    lengths: Array | None,
    weights: dict[str, Array],
    *,
    layer: Any,
    backward_layer: Any,
    merge_mode: str | None,
) -> tuple[Any, Array | None]:
    halves, states = [], []
    after = None
    for direction, half in (("forward/", layer), ("backward/", backward_layer)):
        own = {name.removeprefix(direction): array for name, array in weights.items() if name.startswith(direction)}
        config = {**half["config"], "zero_output_for_mask": True, "output_order": "input", "return_state": True}
        (y, state), after = _gru(x, lengths, own, **config)
        halves.append(y)
        states.append(state)
    y = _MERGES[merge_mode](*halves)
    if layer["config"].get("return_state"):
        y = (*(y if merge_mode is None else (y,)), *states)
    return y, after


def _dense(
    x: Array, lengths: Array | None, weights: dict[str, Array], *, activation: str = "linear", **config: Any
) -> tuple[Array, Array | None]:
    del config
    return _activation(dense_forward(x, weights["kernel"], weights.get("bias")), lengths, {}, activation=activation)


def _activation(
    x: Array, lengths: Array | None, weights: dict[str, Array], *, activation: str = "linear"
) -> tuple[Array, Array | None]:
    del weights
    return (softmax(x) if activation == "softmax" else ACTIVATIONS[activation][0](x)), lengths


def _embedding(
    x: Array, lengths: Array | None, weights: dict[str, Array], *, mask_zero: bool = False, **config: Any
) -> tuple[Array, Array | None]:
    del config
    valid = _valid(lengths, x)
    after = (valid & (x != 0)).sum(axis=1) if mask_zero else lengths
    return weights["embeddings"].astype(np.float64)[np.where(valid, x, 0)], after


def _masking(
    x: Array, lengths: Array | None, weights: dict[str, Array], *, mask_value: float = 0.0
) -> tuple[Array, Array | None]:
    del weights
    return x, (_valid(lengths, x) & (x != mask_value).any(axis=2)).sum(axis=1)


def _average(x: Array, lengths: Array | None, weights: dict[str, Array]) -> tuple[Array, None]:
    del weights
    valid = _valid(lengths, x)[:, :, None]
    return np.where(valid, x, 0.0).sum(axis=1) / np.maximum(valid.sum(axis=1), 1), None


def _maximum(x: Array, lengths: Array | None, weights: dict[str, Array]) -> tuple[Array, None]:
    del weights
    valid = _valid(lengths, x)[:, :, None]
    largest = np.where(valid, x, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(valid.any(axis=1), largest, 0.0), None


def _last_step(x: Array, lengths: Array | None, weights: dict[str, Array]) -> tuple[Array, None]:
    del weights
    valid = _valid(lengths, x)
    last = valid & ~np.pad(valid[:, 1:], ((0, 0), (0, 1)))
    return np.where(last[:, :, None], x, 0.0).sum(axis=1), None


#: Name -> (x, lengths, weights, **config) -> (y, lengths of y's sequences), as they are in use, not in training.
LAYERS: dict[str, Callable[..., tuple[Any, Array | None]]] = {
    "GRU": _gru,
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Activation": _activation,
    "Embedding": _embedding,
    "Masking": _masking,
    "Dropout": lambda x, lengths, weights, **config: (x, lengths),
    "Flatten": lambda x, lengths, weights: (x.reshape(len(x), int(np.prod(x.shape[1:]))), None),
    "GlobalAveragePooling1D": _average,
    "GlobalMaxPooling1D": _maximum,
    "LastStep": _last_step,
}


# --- Losses and optimizers ----------------------------------------------------------------------------------------


def softmax_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Losses (N,), and the gradient (N, C) of their mean, for targets (N, C)."""
    logits, targets = _wide(logits, targets)
    m = logits.real.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - m).sum(axis=-1, keepdims=True)) + m
    losses = (targets * (log_sum - logits)).sum(axis=-1)
    total = targets.sum(axis=-1, keepdims=True)
    return losses, (softmax(logits) * total - targets) / max(len(logits), 1)


def adam(
    parameters: Array,
    gradient: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
    form: str = "keras",
) -> tuple[Array, Array, Array]:
    """New parameters and moments; ``form`` as in the kernels: ``"keras"``, ``"tfjs"`` or ``"pytorch"``."""
    parameters, g, m, v = _wide(parameters, gradient, m, v)
    parameters = parameters - learning_rate * weight_decay * parameters
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g * g
    correction_1, correction_2 = 1 - beta_1**step, 1 - beta_2**step
    if form == "keras":
        alpha = learning_rate * np.sqrt(correction_2) / correction_1
        return parameters - alpha * m / (np.sqrt(v) + epsilon), m, v
    m_hat, v_hat = m / correction_1, v / correction_2
    return parameters - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon), m, v


def sgd(
    parameters: Array,
    gradient: Array,
    m: Array,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
    form: str = "keras",
) -> tuple[Array, Array]:
    """New parameters and momentum, which points downhill with ``"keras"`` and uphill with ``"pytorch"``."""
    parameters, g, m = _wide(parameters, gradient, m)
    if form == "keras":
        m = momentum * m - learning_rate * g
        return parameters + (momentum * m - learning_rate * g if nesterov else m), m
    m = momentum * m + g
    return parameters - learning_rate * (g + momentum * m if nesterov else m), m


def rmsprop(
    parameters: Array,
    gradient: Array,
    v: Array,
    m: Array,
    a: Array,
    *,
    learning_rate: float = 1e-3,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
    form: str = "keras",
) -> tuple[Array, Array, Array, Array]:
    """New parameters, mean square, momentum, and mean (which stays as it is unless ``centered``)."""
    parameters, g, v, m, a = _wide(parameters, gradient, v, m, a)
    v = rho * v + (1 - rho) * g * g
    variance = v
    if centered:
        a = rho * a + (1 - rho) * g
        variance = v - a * a
    if form == "keras":
        m = momentum * m + learning_rate * g / np.sqrt(variance + epsilon)
        return parameters - m, v, m, a
    m = momentum * m + g / (np.sqrt(variance) + epsilon)
    return parameters - learning_rate * m, v, m, a
