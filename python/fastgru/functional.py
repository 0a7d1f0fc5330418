"""The kernels as functions: GRU, dense layer, softmax with cross-entropy, and optimizers.

All functions take NumPy arrays of float32 or float64; all arguments of a call must have the dtype of the first. An
input is copied only if it is unaligned, in foreign byte order, or not contiguous. ``x`` and ``d_outputs`` of the GRU
need a contiguous last axis only; the other axes may have any stride, also a negative one. Results are new arrays,
unless a function takes output arrays.

Kernels release the GIL and run on up to `get_num_threads` threads. Results are bit-identical for any number of
threads. Kernels flush denormal numbers to zero. Ctrl-C interrupts a GRU kernel between two time steps, within a
fraction of a second.

Axes: N batch rows, T time steps, F input features, H units, C classes. Gates are in Keras' order z, r, h (update,
reset, candidate) in ``kernel (F, 3H)``, ``recurrent_kernel (H, 3H)`` and ``bias``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._native import kernels
from fastgru._support import checks, sequences

__all__ = [
    "CrossEntropy",
    "DenseGradients",
    "GRUGradients",
    "GRUTape",
    "activate",
    "adam_update",
    "dense_backward",
    "dense_forward",
    "embedding_backward",
    "get_num_threads",
    "gru_backward",
    "gru_forward",
    "norm",
    "rmsprop_update",
    "set_num_threads",
    "sgd_update",
    "softmax",
    "softmax_cross_entropy",
]

Array = NDArray[Any]

#: The largest number of threads that `set_num_threads` accepts.
MOST_THREADS = 1024

#: Records the gates and states of every step in `gru_forward`, for `gru_backward`: about 5 N T H numbers (4 N T H with
#: ``reset_after=False``; H rounded up to whole SIMD registers). ``nbytes`` is the size of its memory, which later
#: calls reuse. A tape references x and the weights without copying them: do not change them between forward and
#: backward. ``clear()`` releases these references, but keeps the memory.
GRUTape = kernels.GRUTape
GRUTape.__module__ = __name__  # its public module, for any compiled module


class GRUGradients(NamedTuple):
    """Gradients from `gru_backward`, each in the shape of its array."""

    x: Array | None
    initial_state: Array
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None


class DenseGradients(NamedTuple):
    """Gradients from `dense_backward`, each in the shape of its array."""

    x: Array | None
    kernel: Array
    bias: Array


class CrossEntropy(NamedTuple):
    """Result of `softmax_cross_entropy`."""

    losses: NDArray[np.float64]
    correct: NDArray[np.bool_]
    d_logits: Array | None


def gru_forward(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | tuple[Array, Array] | None = None,
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
    weight_layout: str = "keras",
    return_sequences: bool = True,
    out: Array | None = None,
    tape: kernels.GRUTape | None = None,
) -> tuple[Array | None, Array]:
    """Run a GRU over a batch of sequences.

    With ``[x_z x_r x_h] = x kernel + bias`` and U the recurrent kernel, each step computes::

        z = recurrent_activation(x_z + h U_z)
        r = recurrent_activation(x_r + h U_r)
        n = activation(x_h + r * (h U_h + b_rh))     reset_after=True   (cuDNN, PyTorch, Keras' default)
        n = activation(x_h + (r * h) U_h)            reset_after=False  (Cho et al. 2014, TensorFlow.js)
        h = z * h + (1 - z) * n

    With `recurrent_mask`, ``h U_z``, ``h U_r`` and ``h U_h`` (or ``(r * h) U_h``) use h times the mask. Everything
    else uses h itself.

    Parameters
    ----------
    x : ndarray (N, T, F)
        The sequences.
    kernel : ndarray (F, 3H), or (3H, F) with ``weight_layout="torch"``
    recurrent_kernel : ndarray (H, 3H), or (3H, H)
    bias : ndarray (3H,) or (2, 3H), or tuple of two ndarrays (3H,), optional
        One bias, or separate biases for the input and the recurrent product.
    initial_state : ndarray (N, H), optional
        Default: zeros.
    activation : {"tanh", "relu", "linear"}
    recurrent_activation : {"sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs"}
        ``hard_sigmoid`` is clip(x / 6 + 0.5, 0, 1) as in Keras 3 and PyTorch. ``hard_sigmoid_tfjs`` is
        clip(0.2 x + 0.5, 0, 1) as in TensorFlow.js and Keras 2.
    reset_after : bool
        Apply the reset gate after the recurrent product (True) or to the state before it (False).
    go_backwards : bool
        Read each sequence from its last step to its first.
    lengths : ndarray (N,) of integers, or (N, T) of bool, optional
        The number of valid steps of each sequence, from 0 to T, in any order; or a mask of valid steps. Later steps of
        x are padding: they are not read, computed or stored in the tape.
    padded_outputs : {"repeat", "zeros"}
        The outputs after the end of a sequence: its last output (as in Keras; zeros if its length is 0), or zeros (as
        in PyTorch's packed sequences and ONNX). Gradients for repeated outputs are added to that of the last output.
    output_order : {"processing", "input"}
        The order of the outputs with `go_backwards`. ``"processing"``: the output that is computed first comes first.
        ``"input"``: each output has the index of its step in x, as a bidirectional layer needs it; outputs of padding
        are then zeros.
    recurrent_mask : ndarray (3, N, H) or (N, H), optional
        Recurrent dropout as in Keras 3: factors of the state in the recurrent products, the same in all steps. Pass one
        mask per gate, in the order z, r, h for either `weight_layout`, or one mask for all gates. ``z * h``, the
        outputs and the last state are not masked.
    weight_layout : {"keras", "torch"}
        Layout of the weights, biases and gradients. ``"keras"``: one column per unit of a gate, gates in the order
        z, r, h. ``"torch"``: one row per unit of a gate, gates in the order r, z, n.
    return_sequences : bool
        Whether to return the outputs of all steps.
    out : ndarray (N, T, H), optional
        Array for the outputs; its last axis must be contiguous. It must not overlap itself or another argument, but
        may be interleaved with one: ``out=big[:, :, :H]`` and ``x=big[:, :, H:]`` works.
    tape : GRUTape, optional
        Records the call for `gru_backward`. Without a tape, only the memory of the outputs grows with T.

    Returns
    -------
    outputs : ndarray (N, T, H) or None
    state : ndarray (N, H)
        The state after each sequence's last step; the initial state if a sequence has no steps.

    Raises
    ------
    ValueError
        A shape or a name is wrong, or `out` overlaps itself or another argument.
    TypeError
        A dtype is wrong, or an argument is not a NumPy array.
    MemoryError
        There is not enough memory.
    """
    if isinstance(lengths, np.ndarray) and lengths.dtype == bool and x.ndim == 3:
        lengths = sequences.check_lengths("lengths", lengths, len(x), x.shape[1])
    return kernels.gru_forward(
        x,
        kernel,
        recurrent_kernel,
        bias,
        initial_state,
        activation,
        recurrent_activation,
        reset_after,
        go_backwards,
        lengths,
        padded_outputs,
        output_order,
        recurrent_mask,
        weight_layout,
        return_sequences,
        out,
        tape,
    )


def gru_backward(
    tape: kernels.GRUTape,
    d_outputs: Array | None = None,
    d_state: Array | None = None,
    *,
    input_gradient: bool | Array = True,
    inputs: tuple[Array, Array, Array] | None = None,
    out: tuple[Array, Array, Array | None] | None = None,
) -> GRUGradients:
    """Compute gradients through a recorded `gru_forward`, by backpropagation through time.

    Parameters
    ----------
    tape : GRUTape
        Recorded by `gru_forward`. It is not changed, so it can be used for several gradients.
    d_outputs : ndarray (N, T, H), optional
        Gradient of the loss with respect to the outputs, in the same order as the outputs.
    d_state : ndarray (N, H), optional
        Gradient of the loss with respect to the last state. Pass `d_outputs`, `d_state` or both; their contributions
        are summed.
    input_gradient : bool or ndarray (N, T, F)
        Whether to compute the gradient for x; the first layer of a model does not need it. An array is used as the
        output array for this gradient. Its last axis must be contiguous.
    inputs : tuple of ndarray, optional
        x, kernel and recurrent_kernel of `gru_forward`. Pass them if they have moved in memory since.
    out : tuple of ndarray, optional
        C-contiguous output arrays for the gradients of kernel, recurrent_kernel and bias (None without a bias). They
        are overwritten.

    Returns
    -------
    GRUGradients
        For x (None without `input_gradient`), initial_state, kernel, recurrent_kernel and bias (None without one).

    Raises
    ------
    ValueError, TypeError
        A shape or dtype differs from the recorded one, the tape is empty, or an output array overlaps another array.
    RuntimeError
        Another thread is using the tape.
    """
    d_kernel, d_recurrent_kernel, d_bias = out if out is not None else (None, None, None)
    return GRUGradients(
        *kernels.gru_backward(
            tape,
            d_outputs,
            d_state,
            input_gradient,
            inputs,
            d_kernel,
            d_recurrent_kernel,
            d_bias,
        )
    )


def dense_forward(x: Array, kernel: Array, bias: Array | None = None, *, rows: Array | None = None) -> Array:
    """Compute a fully connected layer, ``x @ kernel + bias``.

    The result of a row is bit-identical in any batch and with any number of threads. In NumPy's product it is not.

    Parameters
    ----------
    x : ndarray (N, F)
    kernel : ndarray (F, C)
    bias : ndarray (C,), optional
    rows : ndarray (M,) of integers, optional
        Rows of x to compute, in ascending order; other rows are not read.

    Returns
    -------
    ndarray (N, C), or (M, C) with `rows`

    Raises
    ------
    ValueError, TypeError
        A shape or dtype is wrong.
    """
    return kernels.dense_forward(x, kernel, bias, rows)


def dense_backward(
    x: Array,
    kernel: Array,
    d_y: Array,
    *,
    rows: Array | None = None,
    input_gradient: bool = True,
    out: tuple[Array, Array | None] | None = None,
) -> DenseGradients:
    """Compute gradients through `dense_forward`.

    Parameters
    ----------
    x : ndarray (N, F)
    kernel : ndarray (F, C)
    d_y : ndarray (N, C), or (M, C) with `rows`
        Gradient of the loss with respect to the result of the layer.
    rows : ndarray (M,) of integers, optional
        As in `dense_forward`. The gradient for the other rows of x is 0.
    input_gradient : bool
        Whether to compute the gradient for x.
    out : tuple of ndarray, optional
        C-contiguous output arrays for the gradients of kernel and bias (None for a new one). They are overwritten.

    Returns
    -------
    DenseGradients
        For x (None without `input_gradient`), kernel and bias.

    Raises
    ------
    ValueError, TypeError
        A shape or dtype is wrong, or an output array overlaps another array.
    """
    d_kernel, d_bias = out if out is not None else (None, None)
    return DenseGradients(*kernels.dense_backward(x, kernel, d_y, rows, input_gradient, d_kernel, d_bias))


def activate(x: Array, name: str) -> Array:
    """Apply an activation, with the same arithmetic as the kernels.

    Parameters
    ----------
    x : ndarray
        Any shape.
    name : {"sigmoid", "tanh", "hard_sigmoid", "hard_sigmoid_tfjs", "relu", "linear", "exp"}

    Returns
    -------
    ndarray
        Same shape as `x`.

    Raises
    ------
    ValueError, TypeError
        The name is unknown, or the dtype is neither float32 nor float64.
    """
    return kernels.activate(x.reshape(-1), name).reshape(x.shape)


def softmax(logits: Array) -> Array:
    """Compute class probabilities, ``exp(logits) / sum(exp(logits))`` over the last axis, without overflow.

    Parameters
    ----------
    logits : ndarray (N, C)

    Returns
    -------
    ndarray (N, C)
        Logits more than 87 (float32) or 708 (float64) below the largest are treated as 87 or 708 below it. Their
        probability is therefore not 0.

    Raises
    ------
    ValueError, TypeError
        The shape or dtype is wrong.
    """
    return kernels.softmax(logits)


def softmax_cross_entropy(logits: Array, labels: Array, *, gradient: bool = True) -> CrossEntropy:
    """Compute the cross-entropy of softmax and its gradient from logits, in one numerically stable pass.

    Parameters
    ----------
    logits : ndarray (N, C)
    labels : ndarray (N,) of integers, or (N, C) of float
        Classes from 0 to C - 1, or a target for each class in the dtype of `logits` (one-hot, or any weights).
    gradient : bool
        Whether to compute the gradient.

    Returns
    -------
    losses : ndarray (N,) of float64
        Each row's loss.
    correct : ndarray (N,) of bool
        Whether the largest logit has the index of the label (or of the largest target).
    d_logits : ndarray (N, C) or None
        Gradient of the mean loss of the rows.

    Raises
    ------
    ValueError
        A shape is wrong, or a label is not a class; the message gives its index.
    TypeError
        A dtype is wrong, for instance float labels (N,).
    """
    return CrossEntropy(*kernels.softmax_cross_entropy(logits, labels, gradient))


def adam_update(
    parameters: Array,
    gradient: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
    *,
    step: int,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
    weight_decay: float = 0.0,
    form: str = "keras",
    scale: float = 1.0,
    clip: float | None = None,
) -> None:
    """Apply one update of Adam (Kingma and Ba 2015, arXiv:1412.6980) in place, in one pass over the memory.

    Parameters
    ----------
    parameters, m, v : ndarray (P,)
        Parameters and their two moments (initially zeros); overwritten.
    gradient : ndarray (P,)
    v_max : ndarray (P,), optional
        The largest second moment so far (zeros at first); overwritten. Needed if `amsgrad`.
    step : int
        1 for the first update.
    learning_rate, beta_1, beta_2, epsilon : float
    amsgrad : bool
        Whether to divide by the root of `v_max` (Reddi et al. 2018, arXiv:1904.09237); not with ``form="tfjs"``.
    weight_decay : float
        Decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101): the update first subtracts
        ``learning_rate * weight_decay * parameters``.
    form : {"keras", "tfjs", "pytorch"}
        The framework whose formula is used. Keras adds epsilon to sqrt(v) itself (the paper's "epsilon hat"). The
        other two add it to the bias-corrected root, and differ from each other in rounding only.
    scale : float
        Factor of the gradient.
    clip : float, optional
        Maximum absolute value of gradient elements, applied after `scale`.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or name is wrong, `step` is below 1, or a number is not finite. Read-only arrays and arrays that
        overlap raise the same errors.
    FloatingPointError
        The gradient is not finite, or parameters or moments would not be finite after the update. All arrays are then
        unchanged. An overflow is detected if the moments are zeros or results of earlier updates. With other moments,
        such as an `m` of 1e30 and a `v` of 0, an update may overflow undetected.
    """
    kernels.adam(
        parameters,
        gradient,
        m,
        v,
        v_max,
        step,
        checks.number("learning_rate", learning_rate),
        checks.number("beta_1", beta_1, least=0, below=1),
        checks.number("beta_2", beta_2, least=0, below=1),
        checks.number("epsilon", epsilon, least=0),
        amsgrad,
        form,
        checks.number("weight_decay", weight_decay, least=0),
        scale,
        clip,
    )


def sgd_update(
    parameters: Array,
    gradient: Array,
    m: Array | None = None,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
    form: str = "keras",
    weight_decay: float = 0.0,
    scale: float = 1.0,
    clip: float | None = None,
) -> None:
    """Apply one update of stochastic gradient descent in place, in one pass over the memory.

    Parameters
    ----------
    parameters : ndarray (P,)
        Overwritten.
    gradient : ndarray (P,)
    m : ndarray (P,), optional
        The momentum, initially zeros; overwritten. Required if `momentum` is not 0.
    learning_rate, momentum : float
    nesterov : bool
    form : {"keras", "pytorch"}
        ``"keras"``: the learning rate is part of the momentum, ``m = momentum m - rate g``. ``"pytorch"``: it is not,
        ``m = momentum m + g``. The results differ if the learning rate changes.
    weight_decay, scale, clip
        As in `adam_update`.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As in `adam_update`.
    """
    kernels.sgd(
        parameters,
        gradient,
        m,
        checks.number("learning_rate", learning_rate),
        checks.number("momentum", momentum, least=0),
        nesterov,
        form,
        checks.number("weight_decay", weight_decay, least=0),
        scale,
        clip,
    )


def rmsprop_update(
    parameters: Array,
    gradient: Array,
    v: Array,
    m: Array | None = None,
    a: Array | None = None,
    *,
    learning_rate: float = 1e-3,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
    form: str = "keras",
    weight_decay: float = 0.0,
    scale: float = 1.0,
    clip: float | None = None,
) -> None:
    """Apply one update of RMSprop (Hinton 2012) in place, in one pass over the memory.

    Parameters
    ----------
    parameters, v : ndarray (P,)
        Parameters and the mean of squared gradients (initially zeros); overwritten.
    gradient : ndarray (P,)
    m : ndarray (P,), optional
        The momentum; required if `momentum` is not 0.
    a : ndarray (P,), optional
        The mean of gradients; required if `centered`.
    learning_rate, rho, momentum, epsilon : float
    centered : bool
        Divide by the variance instead of the mean square.
    form : {"keras", "pytorch"}
        ``"keras"``: epsilon is added under the root, and the rate is part of the momentum. ``"pytorch"``: neither.
    weight_decay, scale, clip
        As in `adam_update`.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As in `adam_update`.
    """
    kernels.rmsprop(
        parameters,
        gradient,
        v,
        m,
        a,
        checks.number("learning_rate", learning_rate),
        checks.number("rho", rho, least=0, below=1),
        checks.number("momentum", momentum, least=0),
        checks.number("epsilon", epsilon, least=0),
        centered,
        form,
        checks.number("weight_decay", weight_decay, least=0),
        scale,
        clip,
    )


def norm(x: Array) -> float:
    """Return the Euclidean norm of x (P,), summed in double in an order that depends on P alone."""
    squares = kernels.sum_of_squares(x)
    if math.isinf(squares) and math.isfinite(largest := float(np.abs(x).max())):  # float64 above 1e154
        return largest * math.sqrt(kernels.sum_of_squares(x / largest))
    return math.sqrt(squares)


def embedding_backward(tokens: Array, d_y: Array, d_table: Array) -> None:
    """Add each row of a gradient to the row of its token, ``d_table[tokens[i]] += d_y[i]``, in the order of i.

    Parameters
    ----------
    tokens : ndarray (M,) of integers
    d_y : ndarray (M, D)
    d_table : ndarray (V, D)
        Changed in place.

    Raises
    ------
    ValueError, TypeError
        A shape or dtype is wrong, a token is not a row of `d_table` (the message gives its index), or `d_table`
        overlaps another argument.
    """
    kernels.embedding_backward(tokens, d_y, d_table)


def set_num_threads(count: int) -> None:
    """Set the maximum number of threads of a kernel for the whole process, from 1 to 1024.

    The default is ``OMP_NUM_THREADS`` if it is set. Otherwise it is the number of processors that the process may run
    on, limited by the CPU quota of its container (Linux control groups), rounded up. Results do not depend on the
    number of threads.
    """
    kernels.set_num_threads(checks.integer("count", count, least=1, most=MOST_THREADS))


def get_num_threads() -> int:
    """Return the maximum number of threads of a kernel."""
    return kernels.get_num_threads()
