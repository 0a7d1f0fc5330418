"""The kernels as functions: GRU, dense layer, softmax with cross-entropy, and Adam, forward and backward.

They work on NumPy arrays of float32 or float64, all arguments of a call in the dtype of the first. Data stays as
given: an input is copied only where a kernel cannot read it as it lies, that is, where its memory is unaligned, its
byte order foreign, or its elements not contiguous (in ``x`` and ``d_outputs`` of the GRU: along the last axis; the
others may have any stride, negative ones too). Results are new arrays, unless a function takes arrays to write to.

The GIL is released while a kernel runs, on up to `get_num_threads` threads; their number never changes a bit of a
result. Denormal numbers are flushed to zero inside every kernel. Ctrl-C interrupts a GRU kernel between two time steps,
within a fraction of a second.

Axes: N batch rows, T time steps, F input features, H units, C classes. Gates lie in Keras' order z, r, h (update,
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

#: The most threads that can be asked for.
MOST_THREADS = 1024

#: What `gru_forward` records for `gru_backward`: gates and states of every step, 5 N T H numbers (4 N T H with
#: ``reset_after=False``; H rounded up to whole SIMD registers). ``nbytes`` tells the memory held. A tape can be used
#: again and then keeps its memory. It holds references to x and the weights, not copies: they must not change
#: between forward and backward; ``clear()`` lets go of them, but not of the memory.
GRUTape = kernels.GRUTape
GRUTape.__module__ = __name__  # the public place, whichever compiled module is in use


class GRUGradients(NamedTuple):
    """Gradients from `gru_backward`, each in the shape of what it belongs to."""

    x: Array | None
    initial_state: Array
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None


class DenseGradients(NamedTuple):
    """Gradients from `dense_backward`, each in the shape of what it belongs to."""

    x: Array | None
    kernel: Array
    bias: Array


class CrossEntropy(NamedTuple):
    """What `softmax_cross_entropy` returns."""

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

    A `recurrent_mask` replaces h by its product with the mask in ``h U_z``, ``h U_r`` and ``h U_h`` (or
    ``(r * h) U_h``), and nowhere else.

    Parameters
    ----------
    x : ndarray (N, T, F)
        The sequences.
    kernel : ndarray (F, 3H), or (3H, F) with ``weight_layout="torch"``
    recurrent_kernel : ndarray (H, 3H), or (3H, H)
    bias : ndarray (3H,) or (2, 3H), or tuple of two ndarrays (3H,), optional
        One bias, or one for the input and one for the recurrent product.
    initial_state : ndarray (N, H), optional
        Zeros if not given.
    activation : {"tanh", "relu", "linear"}
    recurrent_activation : {"sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs"}
        ``hard_sigmoid`` is Keras 3's and PyTorch's clip(x / 6 + 0.5, 0, 1), ``hard_sigmoid_tfjs`` TensorFlow.js' and
        Keras 2's clip(0.2 x + 0.5, 0, 1).
    reset_after : bool
        Apply the reset gate after the recurrent product, or to the state before it.
    go_backwards : bool
        Read each sequence from its last step to its first.
    lengths : ndarray (N,) of integers, or (N, T) of bool, optional
        How many steps of each sequence count, from 0 to T, in any order; or a mask that says so. What stands in x
        behind them is padding: it is not read, nothing is computed for it, and the tape has no room for it.
    padded_outputs : {"repeat", "zeros"}
        What outputs hold behind a sequence's end: its last output again (as in Keras; zeros if its length is 0), or
        zeros (as in PyTorch's packed sequences and ONNX). Gradients follow: those of repeated outputs are the last
        one's.
    output_order : {"processing", "input"}
        With `go_backwards`, whether outputs stand in the order of processing, the first one first, or where the step of
        x stands that they read, as a bidirectional layer needs it. In the latter case padding comes before the
        sequence, and its outputs are zeros.
    recurrent_mask : ndarray (3, N, H) or (N, H), optional
        Keras 3's recurrent dropout: factors of the state in the recurrent products, the same in all steps. One mask for
        each gate in the order z, r, h, whatever the `weight_layout`, or one mask for all three. ``z * h``, the outputs
        and the last state are not masked.
    weight_layout : {"keras", "torch"}
        How weights lie: as in Keras, a column for each gate's unit, gates in the order z, r, h; or as in PyTorch, a row
        for each, gates in the order r, z, n. Biases and gradients follow.
    return_sequences : bool
        Whether to return every step's state.
    out : ndarray (N, T, H), optional
        Where to write the outputs; its last axis contiguous, the others at any stride. It may share no byte with
        another argument, nor two of its elements with each other. It may be interleaved with other arguments:
        ``out=big[:, :, :H]`` and ``x=big[:, :, H:]`` works.
    tape : GRUTape, optional
        Filled for `gru_backward`. Without one, memory does not grow with T beyond the outputs.

    Returns
    -------
    outputs : ndarray (N, T, H) or None
    state : ndarray (N, H)
        The state after each sequence's last step; the initial state where it has none.

    Raises
    ------
    ValueError
        A shape or a name does not fit, or `out` overlaps itself or another argument; the message says which, what was
        expected and what came.
    TypeError
        A dtype does not fit, or an argument is no NumPy array.
    MemoryError
        The sizes ask for more memory than there is.
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
    """Gradients of a loss through a recorded `gru_forward`, by backpropagation through time.

    Parameters
    ----------
    tape : GRUTape
        From `gru_forward`; it is not changed, so several gradients can be taken from it.
    d_outputs : ndarray (N, T, H), optional
        The loss' gradient for the outputs, in their order.
    d_state : ndarray (N, H), optional
        The loss' gradient for the last state. At least one of the two must be given; both add up.
    input_gradient : bool or ndarray (N, T, F)
        Whether to compute the gradient for x, which a first layer does not need; or an array to write it to, its last
        axis contiguous, the others at any stride.
    inputs : tuple of ndarray, optional
        x, kernel and recurrent_kernel as given to `gru_forward`, where their memory has moved since.
    out : tuple of ndarray, optional
        Arrays to write the gradients for kernel, recurrent_kernel and bias to (None for no bias): C-contiguous, and
        overwritten, not added to.

    Returns
    -------
    GRUGradients
        For x (None without `input_gradient`), initial_state, kernel, recurrent_kernel and bias (None without one).

    Raises
    ------
    ValueError, TypeError
        A shape or dtype differs from what the tape recorded, the tape is empty, or an array of `out` overlaps
        another array.
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
    """A fully connected layer, ``x @ kernel + bias``.

    Unlike NumPy's product, a row's result has the same bits in any batch and with any number of threads.

    Parameters
    ----------
    x : ndarray (N, F)
    kernel : ndarray (F, C)
    bias : ndarray (C,), optional
    rows : ndarray (M,) of integers, optional
        Which rows of x to compute, in ascending order; the others are not read.

    Returns
    -------
    ndarray (N, C), or (M, C) for the `rows` alone

    Raises
    ------
    ValueError, TypeError
        A shape or dtype does not fit.
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
    """Gradients through `dense_forward`.

    Parameters
    ----------
    x : ndarray (N, F)
    kernel : ndarray (F, C)
    d_y : ndarray (N, C), or (M, C) with `rows`
        The loss' gradient for the layer's result.
    rows : ndarray (M,) of integers, optional
        As given to `dense_forward`. The gradient for the other rows of x is 0.
    input_gradient : bool
        Whether to compute the gradient for x.
    out : tuple of ndarray, optional
        Arrays to write the gradients for kernel and bias to (None for a new one): C-contiguous, and overwritten.

    Returns
    -------
    DenseGradients
        For x (None without `input_gradient`), kernel and bias.

    Raises
    ------
    ValueError, TypeError
        A shape or dtype does not fit, or an array of `out` overlaps another array.
    """
    d_kernel, d_bias = out if out is not None else (None, None)
    return DenseGradients(*kernels.dense_backward(x, kernel, d_y, rows, input_gradient, d_kernel, d_bias))


def activate(x: Array, name: str) -> Array:
    """An activation as the kernels compute it.

    Parameters
    ----------
    x : ndarray
        Any shape.
    name : {"sigmoid", "tanh", "hard_sigmoid", "hard_sigmoid_tfjs", "relu", "linear", "exp"}

    Returns
    -------
    ndarray
        In the shape of `x`.

    Raises
    ------
    ValueError, TypeError
        No activation has that name, or the dtype is neither float32 nor float64.
    """
    return kernels.activate(x.reshape(-1), name).reshape(x.shape)


def softmax(logits: Array) -> Array:
    """Probabilities of classes, ``exp(logits) / sum(exp(logits))`` over the last axis, without overflow.

    Parameters
    ----------
    logits : ndarray (N, C)

    Returns
    -------
    ndarray (N, C)
        Terms more than 87 (float32) or 708 (float64) below the largest come out as its exp(-87) or exp(-708), not 0.

    Raises
    ------
    ValueError, TypeError
        The shape or dtype does not fit.
    """
    return kernels.softmax(logits)


def softmax_cross_entropy(logits: Array, labels: Array, *, gradient: bool = True) -> CrossEntropy:
    """Cross-entropy of softmax, and its gradient, in one stable pass from the logits.

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
        Whether the largest logit stands at the label (or at the largest target).
    d_logits : ndarray (N, C) or None
        Gradient of the rows' mean loss.

    Raises
    ------
    ValueError
        A shape does not fit, or a label is no class; the message gives its index.
    TypeError
        A dtype does not fit, float labels (N,) among them.
    """
    return CrossEntropy(*kernels.softmax_cross_entropy(logits, labels, gradient))


def adam_update(
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
    scale: float = 1.0,
    clip: float | None = None,
) -> None:
    """One update of Adam (Kingma and Ba 2015, arXiv:1412.6980) in place, one pass over the memory.

    Parameters
    ----------
    parameters, m, v : ndarray (P,)
        Parameters and their two moments (zeros at first); overwritten.
    gradient : ndarray (P,)
    step : int
        1 for the first update.
    learning_rate, beta_1, beta_2, epsilon : float
    weight_decay : float
        AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101): parameters first lose this times the learning rate.
    form : {"keras", "tfjs", "pytorch"}
        Whose arithmetic to follow. Keras adds epsilon to sqrt(v) itself (the paper's "epsilon hat"), the other two to
        the bias-corrected root; these differ from each other in rounding only.
    scale : float
        Factor of the gradient.
    clip : float, optional
        The largest absolute value of the gradient, after scaling.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or name does not fit, `step` is below 1, a number is not finite, an array cannot be written to,
        or two arrays overlap.
    FloatingPointError
        The gradient is not finite, or parameters or moments would not be finite after the update. Nothing has changed
        then. The latter is found as long as the moments are zeros or what earlier updates left, and finite. Of others,
        such as an `m` of 1e30 beside a `v` of 0, an update may be made that overflows.
    """
    kernels.adam(
        parameters,
        gradient,
        m,
        v,
        step,
        checks.number("learning_rate", learning_rate),
        checks.number("beta_1", beta_1, least=0, below=1),
        checks.number("beta_2", beta_2, least=0, below=1),
        checks.number("epsilon", epsilon, least=0),
        checks.number("weight_decay", weight_decay, least=0),
        form,
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
    scale: float = 1.0,
    clip: float | None = None,
) -> None:
    """One update of stochastic gradient descent in place, one pass over the memory.

    Parameters
    ----------
    parameters : ndarray (P,)
        Overwritten.
    gradient : ndarray (P,)
    m : ndarray (P,), optional
        The momentum, zeros at first; overwritten. Needed if `momentum` is not 0.
    learning_rate, momentum : float
    nesterov : bool
    form : {"keras", "pytorch"}
        Whether the rate stands inside the momentum, ``m = momentum m - rate g``, or outside, ``m = momentum m + g``;
        they differ where the rate changes.
    scale, clip
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
    scale: float = 1.0,
    clip: float | None = None,
) -> None:
    """One update of RMSprop (Hinton 2012) in place, one pass over the memory.

    Parameters
    ----------
    parameters, v : ndarray (P,)
        Parameters and the mean of squared gradients (zeros at first); overwritten.
    gradient : ndarray (P,)
    m : ndarray (P,), optional
        The momentum; needed if `momentum` is not 0.
    a : ndarray (P,), optional
        The mean of gradients; needed if `centered`.
    learning_rate, rho, momentum, epsilon : float
    centered : bool
        Divide by the variance instead of the mean square.
    form : {"keras", "pytorch"}
        Whether epsilon stands under the root, and whether the rate stands inside the momentum.
    scale, clip
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
        scale,
        clip,
    )


def norm(x: Array) -> float:
    """The Euclidean norm of x (P,), summed in double in an order that depends on P alone."""
    squares = kernels.sum_of_squares(x)
    if math.isinf(squares) and math.isfinite(largest := float(np.abs(x).max())):  # of float64 beyond 1e154
        return largest * math.sqrt(kernels.sum_of_squares(x / largest))
    return math.sqrt(squares)


def embedding_backward(tokens: Array, d_y: Array, d_table: Array) -> None:
    """Add each row of a gradient to that of its token, ``d_table[tokens[i]] += d_y[i]``, in the order of i.

    Parameters
    ----------
    tokens : ndarray (M,) of integers
    d_y : ndarray (M, D)
    d_table : ndarray (V, D)
        Added to.

    Raises
    ------
    ValueError, TypeError
        A shape or dtype does not fit, a token is no row of `d_table` (the message gives its index), or `d_table`
        overlaps another argument.
    """
    kernels.embedding_backward(tokens, d_y, d_table)


def set_num_threads(count: int) -> None:
    """Set how many threads a kernel may use, for the whole process; 1 to 1024.

    The default is ``OMP_NUM_THREADS`` where that is set. Otherwise it is the number of processors that the process may
    run on, or the CPU quota of its container (Linux control groups), rounded up, if that is smaller. Results do not
    depend on it.
    """
    kernels.set_num_threads(checks.integer("count", count, least=1, most=MOST_THREADS))


def get_num_threads() -> int:
    """How many threads a kernel may use."""
    return kernels.get_num_threads()
