"""The GRU layer."""

from __future__ import annotations

from typing import Any, ClassVar

from fastgru import checks, functional
from fastgru.layers.base import Array, Layer, Shape

ACTIVATIONS = ("tanh", "relu", "linear")
RECURRENT_ACTIVATIONS = ("sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs")


class GRU(Layer):
    """Gated recurrent unit (Cho et al. 2014), with Keras 3's arguments and defaults.

    Input (N, T, F); output (N, H), the state after the last step, or (N, T, H) with `return_sequences`. The equations
    are in `fastgru.functional.gru_forward`.

    Parameters
    ----------
    units : int
        H, the size of the state.
    activation : {"tanh", "relu", "linear"}
        Of the candidate.
    recurrent_activation : {"sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs"}
        Of the gates. ``hard_sigmoid`` is that of Keras 3, clip(x / 6 + 0.5); ``hard_sigmoid_tfjs``, TensorFlow.js'
        default, is clip(0.2 x + 0.5).
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str
        One of "glorot_uniform", "glorot_normal", "orthogonal", "zeros".
    return_sequences : bool
        Return every step's state.
    go_backwards : bool
        Read the input from its last step to its first; outputs stay in the order of processing.
    reset_after : bool
        Apply the reset gate after the recurrent product (Keras' default, cuDNN, PyTorch) or before (TensorFlow.js).
    input_shape : tuple, optional
        (T, F), which the first layer of a model may give; T may be None.
    name : str, optional

    Notes
    -----
    Weights, in Keras' order: kernel (F, 3H), recurrent_kernel (H, 3H), and with `use_bias` bias, (2, 3H) if
    `reset_after`, else (3H,).
    """

    initializers: ClassVar[dict[str, str]] = {
        "kernel": "kernel_initializer",
        "recurrent_kernel": "recurrent_initializer",
        "bias": "bias_initializer",
    }

    def __init__(
        self,
        units: int,
        *,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        recurrent_initializer: str = "orthogonal",
        bias_initializer: str = "zeros",
        return_sequences: bool = False,
        go_backwards: bool = False,
        reset_after: bool = True,
        input_shape: tuple[int, ...] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.units = checks.integer("units", units, least=1)
        self.activation = checks.choice("activation", activation, ACTIVATIONS)
        self.recurrent_activation = checks.choice("recurrent_activation", recurrent_activation, RECURRENT_ACTIVATIONS)
        self.use_bias = checks.flag("use_bias", use_bias)
        self.return_sequences = checks.flag("return_sequences", return_sequences)
        self.go_backwards = checks.flag("go_backwards", go_backwards)
        self.reset_after = checks.flag("reset_after", reset_after)
        self._set_initializers(
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
        )
        self.features = 0
        self._tape = functional.GRUTape()

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 3 or input_shape[2] is None:
            raise ValueError(
                f"{self.name}: expected input of shape (N, T, F) with F known, got {checks.dims(input_shape)}"
            )
        self.features = input_shape[2]
        rows, steps, _ = input_shape
        return (rows, steps, self.units) if self.return_sequences else (rows, self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        columns = 3 * self.units
        shapes: dict[str, tuple[int, ...]] = {
            "kernel": (self.features, columns),
            "recurrent_kernel": (self.units, columns),
        }
        if self.use_bias:
            shapes["bias"] = (2, columns) if self.reset_after else (columns,)
        return shapes

    def forward(self, x: Array, *, training: bool) -> Array:  # noqa: D102
        outputs, state = functional.gru_forward(
            x,
            self.weights["kernel"],
            self.weights["recurrent_kernel"],
            self.weights.get("bias"),
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            reset_after=self.reset_after,
            go_backwards=self.go_backwards,
            return_sequences=self.return_sequences,
            tape=self._tape if training else None,
        )
        return state if outputs is None else outputs

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        gradients = self.gradients
        return functional.gru_backward(
            self._tape,
            d_outputs=d_y if self.return_sequences else None,
            d_state=None if self.return_sequences else d_y,
            input_gradient=input_gradient,
            out=(gradients["kernel"], gradients["recurrent_kernel"], gradients.get("bias")),
        ).x

    def tape_elements(self, steps: int) -> int:  # noqa: D102
        return 5 * (steps + 1) * self.units  # n, z, r, q and h

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        names = "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer "
        names += "bias_initializer return_sequences go_backwards reset_after"
        return {name: getattr(self, name) for name in names.split()}
