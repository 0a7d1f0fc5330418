"""The fully connected layer."""

from __future__ import annotations

from typing import Any, ClassVar

from fastgru import checks, functional
from fastgru.layers.base import Array, Layer, Shape

ACTIVATIONS = ("linear", "softmax")


class Dense(Layer):
    """A fully connected layer, ``activation(x @ kernel + bias)``, with Keras 3's arguments and defaults.

    Input (N, F), output (N, units).

    Parameters
    ----------
    units : int
        The size of the output.
    activation : {"linear", "softmax"}, optional
        None means linear.
    use_bias : bool
    kernel_initializer, bias_initializer : str
        One of "glorot_uniform", "glorot_normal", "orthogonal", "zeros".
    input_shape : tuple, optional
        (F,), which the first layer of a model may give.
    name : str, optional

    Notes
    -----
    Weights, in Keras' order: kernel (F, units) and, with `use_bias`, bias (units,).
    """

    initializers: ClassVar[dict[str, str]] = {"kernel": "kernel_initializer", "bias": "bias_initializer"}

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        bias_initializer: str = "zeros",
        input_shape: tuple[int, ...] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.units = checks.integer("units", units, least=1)
        self.activation = checks.choice("activation", "linear" if activation is None else activation, ACTIVATIONS)
        self.use_bias = checks.flag("use_bias", use_bias)
        self._set_initializers(kernel_initializer=kernel_initializer, bias_initializer=bias_initializer)
        self.features = 0
        self._x: Array | None = None
        self._probabilities: Array | None = None

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 2 or input_shape[1] is None:
            advice = "; set return_sequences=False on the GRU before it" if len(input_shape) == 3 else ""
            raise ValueError(f"{self.name}: expected input of shape (N, F), got {checks.dims(input_shape)}{advice}")
        self.features = input_shape[1]
        return (input_shape[0], self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.features, self.units)}
        if self.use_bias:
            shapes["bias"] = (self.units,)
        return shapes

    def logits(self, x: Array, *, training: bool) -> Array:
        """The output before the activation, which a loss from logits takes."""
        self._x = x if training else None
        return functional.dense_forward(x, self.weights["kernel"], self.weights.get("bias"))

    def forward(self, x: Array, *, training: bool) -> Array:  # noqa: D102
        y = self.logits(x, training=training)
        if self.activation == "linear":
            return y
        y = functional.softmax(y)
        self._probabilities = y if training else None
        return y

    def backward_from_logits(self, d_logits: Array, *, input_gradient: bool) -> Array | None:
        """`backward` for the gradient of what `logits` returned."""
        if self._x is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        return functional.dense_backward(
            self._x,
            self.weights["kernel"],
            d_logits,
            input_gradient=input_gradient,
            out=(self.gradients["kernel"], self.gradients.get("bias")),
        ).x

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if self.activation == "softmax":
            p = self._probabilities
            if p is None:
                raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
            d_y = p * (d_y - (d_y * p).sum(axis=-1, keepdims=True))
        return self.backward_from_logits(d_y, input_gradient=input_gradient)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        names = "units activation use_bias kernel_initializer bias_initializer"
        return {name: getattr(self, name) for name in names.split()}
