"""A layer applied to each step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from fastgru._support import checks, sequences
from fastgru.layers.base import LAYERS, Array, Layer, Outputs, Shape


class TimeDistributed(Layer):
    """Apply a layer to each step of a sequence, as Keras' ``TimeDistributed``.

    The wrapped layer processes (N, ...) for each of the T steps of (N, T, ...). ``TimeDistributed(Dense(8))`` and
    ``Dense(8)`` compute the same, because `Dense` processes each step separately. Use the wrapper for layers that
    process whole sequences: ``TimeDistributed(GRU(8))`` maps (N, S, T, F), S sequences of T steps in each sample, to
    (N, S, 8).

    With `lengths`, steps after the end of a sequence are padding. `Dense`, `Activation` and `Dropout` compute outputs
    from the padding, as in Keras. Other layers do not process padding, and their outputs there are zeros. The next
    layer receives the same lengths.

    Parameters
    ----------
    layer : Layer
        A layer with one output. `Embedding`, `Masking` and stateful layers are not supported.
    input_shape : tuple, optional
        (T, ...), for the first layer of a model.
    name, dtype, trainable
        As in `Layer`.

    Notes
    -----
    The weights are those of `layer`.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a layer of fastgru.layers, got {layer!r}")
        super().__init__(input_shape=input_shape, name=name, dtype=dtype or layer.given_dtype, trainable=trainable)
        if layer.parameters:
            raise ValueError(
                f"layer: expected a new layer because layers cannot be shared, got {layer.name}, which is already "
                f"built; create another one"
            )
        kind = type(layer).__name__
        if layer.takes_tokens or layer.finds_padding:
            raise ValueError(
                f"layer: expected a layer that computes no lengths, got {kind}; put it before TimeDistributed"
            )
        if layer.several_outputs:
            raise ValueError(f"layer: expected a layer with one output, got {kind} with several outputs")
        if any(each.stateful for each in (layer, *layer.layers_within())):
            raise ValueError("layer: expected stateful=False because states belong to samples, not to steps, got True")
        self.layer = layer
        self._shape: tuple[int, ...] = ()  # of the input, in training
        self._rows: Array | None = None  # indices of the steps that are not padding, in training
        self._steps_within = 0

    def layers_within(self) -> list[Layer]:  # noqa: D102
        return [self.layer, *self.layer.layers_within()]

    @property
    def works_on_each_step(self) -> bool:  # type: ignore[override]  # noqa: D102
        return self.layer.works_on_each_step

    @property
    def head(self) -> Any:  # noqa: D102
        return self.layer.head

    @property
    def draws(self) -> bool:  # noqa: D102
        return self.layer.draws

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) < 3:
            raise ValueError(f"{self.name}: expected input of shape (N, T, ...), got {input_shape}")
        self.layer.name = f"{self.name}/{self.layer.kind()}"
        batch, steps, *sizes = input_shape
        self._steps_within = sizes[0] or 0
        _, *outputs = self.layer.build((batch, *sizes))
        return (batch, steps, *outputs)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return self.layer.weight_shapes()

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:  # noqa: D102
        return self.layer.initial_weights(rng)

    def bind(self, weights: dict[str, Array], gradients: dict[str, Array], generator: np.random.Generator) -> None:  # noqa: D102
        super().bind(weights, gradients, generator)
        self.layer.bind(weights, gradients, generator)

    def penalties(self) -> list[Any]:  # noqa: D102
        return self.layer.penalties() if self.trainable else []

    def trainable_parameters(self) -> list[str]:  # noqa: D102
        return self.layer.trainable_parameters() if self.trainable else []

    def gradients_changed(self) -> None:  # noqa: D102
        self.layer.gradients_changed()

    def tape_elements(self, steps: int) -> int:  # noqa: D102
        return steps * self.layer.tape_elements(self._steps_within)

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Outputs:  # noqa: D102
        if self.works_on_each_step:
            return self.layer.forward(x, lengths=lengths, training=training)
        count = x.shape[0] * x.shape[1]
        rows = None
        if lengths is not None and (lengths < x.shape[1]).any():
            rows = np.flatnonzero(sequences.valid_steps(lengths, x.shape[1]))
        if training:
            self._shape, self._rows = x.shape, rows
        samples = x.reshape(count, *x.shape[2:])
        y = self.layer.forward(samples if rows is None else samples[rows], training=training)
        assert not isinstance(y, tuple)
        return _spread(y, rows, x.shape[:2])

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if self.works_on_each_step:
            return self.layer.backward(d_y, input_gradient=input_gradient)
        if not self._shape:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        d_rows = d_y.reshape(d_y.shape[0] * d_y.shape[1], *d_y.shape[2:])
        d_x = self.layer.backward(d_rows if self._rows is None else d_rows[self._rows], input_gradient=input_gradient)
        return None if d_x is None else _spread(d_x, self._rows, self._shape[:2])

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, name: str | None = None) -> Self:  # noqa: D102
        inner = options["layer"]
        kind = LAYERS[checks.choice("class_name", inner["class_name"], LAYERS)]
        return cls(**{**options, "layer": kind.from_options(inner["config"])}, name=name)

    def options(self) -> dict[str, Any]:  # noqa: D102
        found: dict[str, Any] = {
            "layer": {"class_name": type(self.layer).__name__, "config": self.layer.options()},
        }
        return found if self.trainable else {**found, "trainable": False}


def _spread(y: Array, rows: Array | None, shape: tuple[int, ...]) -> Array:
    """Return samples as steps of sequences: all samples, or samples at `rows` and zeros elsewhere."""
    if rows is not None:
        everything = np.zeros((shape[0] * shape[1], *y.shape[1:]), y.dtype)
        everything[rows] = y
        y = everything
    return y.reshape(*shape, *y.shape[1:])
