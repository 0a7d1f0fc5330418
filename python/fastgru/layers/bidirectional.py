"""A GRU in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fastgru._support import checks
from fastgru.layers import keras_options
from fastgru.layers.base import Array, Layer, Outputs, Shape, strip_prefix
from fastgru.layers.gru import GRU

MERGES = ("concat", "sum", "mul", "ave")


class Bidirectional(Layer):
    """Run one GRU forwards and another backwards over each sequence, as Keras' ``Bidirectional``.

    Both outputs are in the order of the input. Output t of the forward GRU depends on the steps up to t. Output t of
    the backward GRU depends on step t and later ones. With `lengths`, both are zeros in padding, regardless of the
    layers' `zero_output_for_mask`. Without `return_sequences` the outputs are the last states.

    Parameters
    ----------
    layer : GRU
        The forward GRU. The backward GRU has the same arguments and its own weights. If `layer` has
        ``return_state=True``, both last states are also returned, the forward one first.
    merge_mode : {"concat", "sum", "mul", "ave"} or None
        How to merge the two outputs, each (N, T, H) or (N, H): concatenate them along the last axis, add, multiply or
        average them. None returns both as a tuple; in a model, only the last layer may use None.
    weights : None
        Not supported. Call `set_weights` after the model is built.
    backward_layer : GRU, optional
        The backward GRU. Its ``go_backwards`` must be the opposite of that of `layer`.
    input_shape : tuple, optional
        (T, F), for the first layer of a model. By default the ``input_shape`` of `layer`.
    name, dtype, trainable
        As in `Layer`.

    Notes
    -----
    The weights are those of the forward layer, named ``forward/kernel`` and so on, then those of the backward layer,
    named ``backward/kernel`` and so on.

    Examples
    --------
    >>> layer = layers.Bidirectional(layers.GRU(16, return_sequences=True))
    >>> layer(np.zeros((4, 10, 3))).shape
    (4, 10, 32)
    """

    def __init__(
        self,
        layer: GRU,
        merge_mode: str | None = "concat",
        weights: None = None,
        backward_layer: GRU | None = None,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        if not isinstance(layer, GRU):
            raise TypeError(f"layer: expected a GRU, got {layer!r}")
        super().__init__(
            input_shape=input_shape or layer.input_shape,
            name=name,
            dtype=dtype or layer.given_dtype,
            trainable=trainable,
        )
        keras_options.require_neutral(weights=weights)
        if merge_mode is not None:
            checks.choice("merge_mode", merge_mode, MERGES)
        self.merge_mode = merge_mode
        self.forward_layer = layer
        self.backward_layer = _reversed(layer) if backward_layer is None else _checked(layer, backward_layer)
        for direction in self._directions.values():
            if direction.parameters:
                raise ValueError(
                    f"layer: expected a new layer because layers cannot be shared, got {direction.name}, which is "
                    f"already built; create another one"
                )
        self.stateful = layer.stateful
        self._halves: tuple[Array, Array] | None = None

    def _shown(self) -> dict[str, Any]:
        backward: GRU | None = self.backward_layer
        if type(backward) is GRU and backward.options() == _reversed(self.forward_layer).options():
            backward = None
        return {**super()._shown(), "layer": self.forward_layer, "backward_layer": backward}

    @property
    def _directions(self) -> dict[str, GRU]:
        return {"forward": self.forward_layer, "backward": self.backward_layer}

    def layers_within(self) -> list[Layer]:  # noqa: D102
        return list(self._directions.values())

    @property
    def several_outputs(self) -> bool:  # noqa: D102
        return self.merge_mode is None or self.forward_layer.return_state

    @property
    def draws(self) -> bool:  # noqa: D102
        return any(layer.draws for layer in self._directions.values())

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        for direction, layer in self._directions.items():
            layer.name = f"{self.name}/{direction}"
            shape = layer.build(input_shape)
        return (*shape[:-1], 2 * self.forward_layer.units) if self.merge_mode == "concat" else shape

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {
            f"{direction}/{name}": shape
            for direction, layer in self._directions.items()
            for name, shape in layer.weight_shapes().items()
        }

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:  # noqa: D102
        return {
            f"{direction}/{name}": array
            for direction, layer in self._directions.items()
            for name, array in layer.initial_weights(rng).items()
        }

    def bind(self, weights: dict[str, Array], gradients: dict[str, Array], generator: np.random.Generator) -> None:  # noqa: D102
        super().bind(weights, gradients, generator)
        for direction, layer in self._directions.items():
            layer.bind(strip_prefix(weights, f"{direction}/"), strip_prefix(gradients, f"{direction}/"), generator)

    def penalties(self) -> list[Any]:  # noqa: D102
        return [entry for layer in self._directions.values() for entry in layer.penalties()] if self.trainable else []

    def trainable_parameters(self) -> list[str]:  # noqa: D102
        if not self.trainable:
            return []
        return [
            f"{direction}/{name}"
            for direction, layer in self._directions.items()
            for name in layer.trainable_parameters()
        ]

    def output_lengths(self, x: Array, lengths: Array | None) -> Array | None:  # noqa: D102
        return self.forward_layer.output_lengths(x, lengths)

    def tape_elements(self, steps: int) -> int:  # noqa: D102
        return sum(layer.tape_elements(steps) for layer in self._directions.values())

    def forward(
        self,
        x: Array,
        *,
        lengths: Array | None = None,
        training: bool = False,
        initial_state: Sequence[Array] | None = None,
    ) -> Outputs:
        """Return the merged output, or both with ``merge_mode=None``. With `return_state`, also return both states.

        Parameters
        ----------
        x : ndarray (N, T, F)
            The sequences.
        lengths : ndarray (N,), optional
            The number of valid steps of each sequence. Later steps are padding.
        training : bool
            Whether to apply dropout, and to record what `backward` needs.
        initial_state : pair of ndarray (N, H), optional
            States of the forward and the backward GRU. Default: zeros, or the last states of the previous batch if
            stateful.
        """
        merged = self._merged_in_place(x)
        halves, states = [], []
        for number, (layer, begin) in enumerate(
            zip(self._directions.values(), _pair("initial_state", initial_state), strict=True)
        ):
            placement: dict[str, Any] = {}
            if layer.return_sequences:
                placement = {"output_order": "input", "padded_outputs": "zeros"}
            if merged is not None:
                placement["out"] = merged[:, :, number * layer.units : (number + 1) * layer.units]
            outputs, state = layer.run(x, lengths=lengths, training=training, initial_state=begin, **placement)
            halves.append(state if outputs is None else outputs)
            states.append(state)
        y = (merged,) if merged is not None else self._merge(*halves, training=training)
        if self.forward_layer.return_state:
            y = (*y, *states)
        return y if self.several_outputs else y[0]

    def _merged_in_place(self, x: Array) -> Array | None:
        """Return an output array that the kernels can write into, one half each, or None."""
        layer = self.forward_layer
        if not layer.return_sequences or self.merge_mode != "concat" or 0 in x.shape[:2]:
            return None
        return np.empty((*x.shape[:2], 2 * layer.units), self.parameters["forward/kernel"].dtype)

    def _merge(self, one: Array, other: Array, *, training: bool) -> tuple[Array, ...]:
        if training and self.merge_mode == "mul":
            self._halves = one, other
        match self.merge_mode:
            case "concat":
                return (np.concatenate([one, other], axis=-1),)
            case "sum":
                return (np.asarray(one + other),)
            case "mul":
                return (np.asarray(one * other),)
            case "ave":
                return (np.asarray((one + other) * one.dtype.type(0.5)),)
            case _:
                return one, other

    def backward(
        self,
        d_y: Array | tuple[Array, Array],
        *,
        input_gradient: bool,
        d_states: Sequence[Array] | None = None,
    ) -> Array | None:
        """Overwrite `gradients`. Return the gradient of the input if `input_gradient` is True, else None.

        Parameters
        ----------
        d_y : ndarray, or pair of ndarray with ``merge_mode=None``
            Gradient of the output.
        input_gradient : bool
            Whether to compute the gradient of the input.
        d_states : pair of ndarray (N, H), optional
            Gradients of the two last states, with `return_state`.
        """
        total: Array | None = None
        for layer, d_half, d_state in zip(
            self._directions.values(), self._split(d_y), _pair("d_states", d_states), strict=True
        ):
            d_x = layer.backward(d_half, input_gradient=input_gradient, d_state=d_state)
            if total is None:
                total = d_x
            elif d_x is not None:
                total += d_x
        return total

    def _split(self, d_y: Any) -> tuple[Array, Array]:
        match self.merge_mode:
            case "concat":
                units = self.forward_layer.units
                return d_y[..., :units], d_y[..., units:]
            case "sum":
                return d_y, d_y
            case "mul":
                if self._halves is None:
                    raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
                one, other = self._halves
                return d_y * other, d_y * one
            case "ave":
                half = d_y * d_y.dtype.type(0.5)
                return half, half
            case _:
                one, other = d_y
                return one, other

    def reset_states(self) -> None:  # noqa: D102
        for layer in self._directions.values():
            layer.reset_states()

    def get_states(self) -> dict[str, Array]:  # noqa: D102
        return {
            f"{direction}/{name}": state
            for direction, layer in self._directions.items()
            for name, state in layer.get_states().items()
        }

    def set_states(self, states: dict[str, Array]) -> None:  # noqa: D102
        for direction, layer in self._directions.items():
            layer.set_states(strip_prefix(states, f"{direction}/"))

    def options(self) -> dict[str, Any]:  # noqa: D102
        found = {
            "layer": _entry(self.forward_layer),
            "backward_layer": _entry(self.backward_layer),
            "merge_mode": self.merge_mode,
        }
        return found if self.trainable else {**found, "trainable": False}

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, name: str | None = None) -> Self:  # noqa: D102
        for which in ("layer", "backward_layer"):
            checks.choice(which, options[which].get("class_name", "GRU"), ("GRU",))
        forward, backward = (GRU(**options[which]["config"]) for which in ("layer", "backward_layer"))
        more = {key: value for key, value in options.items() if key not in ("layer", "backward_layer", "merge_mode")}
        return cls(forward, options["merge_mode"], backward_layer=backward, name=name, **more)


def _pair(name: str, arrays: Any) -> Sequence[Array | None]:
    """Return one array per direction, or None for both."""
    if arrays is None:
        return (None, None)
    if not isinstance(arrays, (tuple, list)) or len(arrays) != 2:
        raise TypeError(f"{name}: expected a pair of arrays (forward, backward), got {_what(arrays)}")
    return arrays


def _what(value: Any) -> str:
    name = type(value).__name__
    return f"{name} of {len(value)}" if isinstance(value, (tuple, list)) else name


def _entry(layer: GRU) -> dict[str, Any]:
    return {"class_name": type(layer).__name__, "config": layer.options()}


def _reversed(layer: GRU) -> GRU:
    options = layer.options()
    return GRU(**{**options, "go_backwards": not options["go_backwards"]})


def _checked(forward: GRU, backward: GRU) -> GRU:
    if not isinstance(backward, GRU):
        raise TypeError(f"backward_layer: expected a GRU, got {backward!r}")
    if backward is forward:
        raise ValueError(
            "backward_layer: expected a different object than layer because each GRU has its own weights, got the same"
        )
    if backward.go_backwards == forward.go_backwards:
        raise ValueError(
            f"backward_layer: expected go_backwards={not forward.go_backwards} because layer has the opposite, got the "
            f"same"
        )
    for name in ("units", "return_sequences", "return_state", "stateful"):
        if getattr(backward, name) != getattr(forward, name):
            raise ValueError(
                f"backward_layer: expected {name}={getattr(forward, name)} as in layer, got {getattr(backward, name)}"
            )
    return backward
