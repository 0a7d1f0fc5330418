"""The GRU layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastgru import functional
from fastgru._native import kernels
from fastgru._support import checks
from fastgru._support.samples import as_samples, convert
from fastgru.formats.description import GRU_ACTIVATIONS
from fastgru.layers import keras_options
from fastgru.layers.base import Array, Layer, Outputs, Shape, keep_mask

RECURRENT_ACTIVATIONS = kernels.RECURRENT_ACTIVATIONS


class GRU(Layer):
    """Gated recurrent unit (Cho et al. 2014), with Keras 3's arguments and defaults.

    The input has the shape (N, T, F). The output is the state after the last step, (N, H), or with `return_sequences`
    the outputs of all steps, (N, T, H). See `fastgru.functional.gru_forward` for the equations.

    Parameters
    ----------
    units : int
        Number of units H, the size of the state.
    activation : {"tanh", "relu", "linear"}, optional
        Activation of the candidate; None means linear.
    recurrent_activation : {"sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs"}
        Activation of the gates. ``hard_sigmoid`` is clip(x / 6 + 0.5, 0, 1) as in Keras 3. ``hard_sigmoid_tfjs`` is
        clip(0.2 x + 0.5, 0, 1), the default of TensorFlow.js.
    use_bias : bool
        Whether the layer has a bias.
    kernel_initializer, recurrent_initializer, bias_initializer : str or initializer
        See `fastgru.initializers`. Defaults: "glorot_uniform", "orthogonal", "zeros".
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or regularizer, optional
        See `fastgru.regularizers`.
    activity_regularizer, kernel_constraint, recurrent_constraint, bias_constraint : None
        Not supported.
    dropout : float
        Fraction of the input features to drop in training, from 0 to below 1. The same features are dropped in all
        steps of a sequence.
    recurrent_dropout : float
        Fraction of the state's units to drop in training, from 0 to below 1, in the recurrent products only (Gal and
        Ghahramani 2016). As in Keras 3, each gate has its own mask, the same in all steps, and ``z * h`` is not masked.
        With both dropouts, Keras also draws three masks for the input; this layer draws one for all gates.
    seed : int, optional
        Ignored. All random numbers come from the model's generator. `fastgru.utils.set_random_seed` seeds it.
    return_sequences : bool
        Whether to return the outputs of all steps.
    return_state : bool
        Whether to also return the last state, as a second array. In a model, only the last layer may return it.
    go_backwards : bool
        Read each sequence from its last step to its first. Outputs are in the order of processing. With `lengths`, the
        outputs of padding come after them, so that `lengths` remain valid for the next layer. In Keras they come before
        them.
    stateful : bool
        Start each batch with the final states of the previous batch, row by row, until `reset_states`. All batches must
        then have the same number of rows. Gradients do not flow between batches.
    unroll, use_cudnn : bool
        Ignored: they do not change the result.
    reset_after : bool
        Apply the reset gate after the recurrent product (Keras' default, cuDNN, PyTorch) or before (TensorFlow.js).
    zero_output_for_mask : bool
        With `lengths`: the outputs after the end of a sequence. True sets them to zeros, as in PyTorch and ONNX. False
        repeats the last output, as Keras does by default. The state is that of the last valid step, or the initial
        state if a length is 0.
    input_shape : tuple, optional
        (T, F), for the first layer of a model; T may be None for sequences of any length.
    name, dtype, trainable
        As in `Layer`.

    Notes
    -----
    The weights, in Keras' order, are kernel (F, 3H), recurrent_kernel (H, 3H) and, with `use_bias`, bias. The bias has
    the shape (2, 3H) with `reset_after`, otherwise (3H,).

    Examples
    --------
    >>> layer = layers.GRU(16, return_sequences=True)
    >>> layer(np.zeros((4, 10, 3))).shape
    (4, 10, 16)
    """

    initializers: ClassVar[dict[str, str]] = {
        "kernel": "kernel_initializer",
        "recurrent_kernel": "recurrent_initializer",
        "bias": "bias_initializer",
    }
    regularizers: ClassVar[dict[str, str]] = {
        "kernel": "kernel_regularizer",
        "recurrent_kernel": "recurrent_regularizer",
        "bias": "bias_regularizer",
    }

    def __init__(
        self,
        units: int,
        activation: str | None = "tanh",
        recurrent_activation: str = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: str | bool = "auto",
        *,
        zero_output_for_mask: bool = False,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
            unroll=unroll,
            use_cudnn=use_cudnn,
        )
        self.units = checks.integer("units", units, least=1)
        self.activation = checks.choice("activation", "linear" if activation is None else activation, GRU_ACTIVATIONS)
        self.recurrent_activation = checks.choice("recurrent_activation", recurrent_activation, RECURRENT_ACTIVATIONS)
        self.use_bias = checks.flag("use_bias", use_bias)
        self.dropout = checks.number("dropout", dropout, least=0, below=1)
        self.recurrent_dropout = checks.number("recurrent_dropout", recurrent_dropout, least=0, below=1)
        self.return_sequences = checks.flag("return_sequences", return_sequences)
        self.return_state = checks.flag("return_state", return_state)
        self.go_backwards = checks.flag("go_backwards", go_backwards)
        self.stateful = checks.flag("stateful", stateful)
        self.reset_after = checks.flag("reset_after", reset_after)
        self.zero_output_for_mask = checks.flag("zero_output_for_mask", zero_output_for_mask)
        self._set_initializers(
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
        )
        self._set_regularizers(
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
        )
        self.features = 0
        self._tape = functional.GRUTape()
        self._input_mask: Array | None = None
        self._carried: Array | None = None  # final states of the previous batch, if stateful

    @property
    def several_outputs(self) -> bool:  # noqa: D102
        return self.return_state

    @property
    def draws(self) -> bool:  # noqa: D102
        return self.dropout > 0 or self.recurrent_dropout > 0

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 3 or input_shape[2] is None:
            advice = "; a GRU before it needs return_sequences=True" if len(input_shape) == 2 else ""
            raise ValueError(
                f"{self.name}: expected input of shape (N, T, F) with F known, got {checks.dims(input_shape)}{advice}"
            )
        batch, steps, features = input_shape
        assert features is not None
        self.features = features
        return (batch, steps, self.units) if self.return_sequences else (batch, self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        gates = 3 * self.units
        shapes: dict[str, tuple[int, ...]] = {
            "kernel": (self.features, gates),
            "recurrent_kernel": (self.units, gates),
        }
        if self.use_bias:
            shapes["bias"] = (2, gates) if self.reset_after else (gates,)
        return shapes

    def output_lengths(self, x: Array, lengths: Array | None) -> Array | None:  # noqa: D102
        del x
        return lengths if self.return_sequences else None

    def tape_elements(self, steps: int) -> int:  # noqa: D102
        return 5 * (steps + 1) * self.units  # n, z, r, q and h

    def forward(
        self,
        x: Array,
        *,
        lengths: Array | None = None,
        training: bool = False,
        initial_state: Array | None = None,
    ) -> Outputs:
        """Return the outputs of all steps or of the last one. With `return_state`, also return the last state.

        Parameters
        ----------
        x : ndarray (N, T, F)
            The sequences.
        lengths : ndarray (N,), optional
            The number of valid steps of each sequence. Later steps are padding.
        training : bool
            Whether to apply dropout, and to record what `backward` needs.
        initial_state : ndarray (N, H), optional
            Default: zeros, or the states of the previous batch if stateful.
        """
        outputs, state = self.run(x, lengths=lengths, training=training, initial_state=initial_state)
        result = state if outputs is None else outputs
        return (result, state) if self.return_state else result

    def run(
        self,
        x: Array,
        *,
        lengths: Array | None,
        training: bool,
        initial_state: Array | None = None,
        **placement: Any,
    ) -> tuple[Array | None, Array]:
        """Return outputs (None without `return_sequences`) and last state; `placement`: options of `gru_forward`."""
        placement = {"padded_outputs": "zeros" if self.zero_output_for_mask else "repeat", **placement}
        recurrent_mask = None
        if training:
            self._input_mask, recurrent_mask = self._draw_masks(len(x), x.dtype) if self.draws else (None, None)
            if self._input_mask is not None:
                x = x * self._input_mask[:, None, :]
        if initial_state is None and self.stateful:
            initial_state = self._carried_states(len(x))
        elif initial_state is not None:
            initial_state = self._as_states("initial_state", initial_state)
        weights = self.parameters
        outputs, state = functional.gru_forward(
            x,
            weights["kernel"],
            weights["recurrent_kernel"],
            weights.get("bias"),
            initial_state,
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            reset_after=self.reset_after,
            go_backwards=self.go_backwards,
            lengths=lengths,
            recurrent_mask=recurrent_mask,
            return_sequences=self.return_sequences,
            tape=self._tape if training else None,
            **placement,
        )
        if self.stateful:
            self._carried = state.copy()
        return outputs, state

    def _draw_masks(self, rows: int, dtype: np.dtype[Any]) -> tuple[Array | None, Array | None]:
        inputs = recurrent = None
        assert self.generator is not None
        if self.dropout:
            inputs = keep_mask(self.generator, self.dropout, (rows, self.features), dtype)
        if self.recurrent_dropout:
            recurrent = keep_mask(self.generator, self.recurrent_dropout, (3, rows, self.units), dtype)
        return inputs, recurrent

    def _carried_states(self, rows: int) -> Array | None:
        if self._carried is None:
            return None
        if len(self._carried) != rows:
            raise ValueError(
                f"{self.name}: expected {len(self._carried)} rows because it is stateful and the previous batch had "
                f"{len(self._carried)}, got {rows}; call reset_states() between batches of different sizes"
            )
        return self._carried

    def reset_states(self) -> None:  # noqa: D102
        self._carried = None

    def get_states(self) -> dict[str, Array]:  # noqa: D102
        return {} if self._carried is None else {"state": self._carried}

    def set_states(self, states: dict[str, Array]) -> None:  # noqa: D102
        if not self.stateful or states.keys() - {"state"}:
            super().set_states(states)
            return
        state = states.get("state")
        if state is not None:
            state = self._as_states("state", state)
            if state.ndim != 2 or state.shape[1] != self.units:
                raise ValueError(f"{self.name}: expected states of shape (N, {self.units}), got {state.shape}")
        self._carried = state

    def _as_states(self, name: str, states: Any) -> Array:
        """Return real numbers in the dtype of the weights; no copy if they already have it."""
        dtype = self.parameters["recurrent_kernel"].dtype
        array = as_samples(name, states)
        return array if array.dtype == dtype else convert(name, array, np.empty(array.shape, dtype))

    def backward(self, d_y: Array | None, *, input_gradient: bool, d_state: Array | None = None) -> Array | None:
        """Overwrite `gradients`. Return the gradient of the input if `input_gradient` is True, else None.

        Parameters
        ----------
        d_y : ndarray
            Gradient of the first output.
        input_gradient : bool
            Whether to compute the gradient of the input.
        d_state : ndarray (N, H), optional
            Gradient of the last state, with `return_state`.
        """
        if not self.return_sequences:
            if d_state is None or d_y is None:
                d_y, d_state = None, d_y if d_state is None else d_state
            else:
                d_y, d_state = None, np.asarray(d_y + d_state)
        gradients = self.gradients
        d_x = functional.gru_backward(
            self._tape,
            d_outputs=d_y,
            d_state=d_state,
            input_gradient=input_gradient,
            out=(gradients["kernel"], gradients["recurrent_kernel"], gradients.get("bias")),
        ).x
        if d_x is not None and self._input_mask is not None:
            d_x *= self._input_mask[:, None, :]
        return d_x

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copies, without what is recorded for `backward`."""
        return {name: value for name, value in self.__dict__.items() if name != "_tape"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _tape=functional.GRUTape())
