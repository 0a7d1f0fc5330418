"""What a layer is to a model."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru import checks
from fastgru.initializers import INITIALIZERS, initialize

Array = NDArray[Any]
#: A shape whose first axis, the batch, may be any size: None.
Shape = tuple[int | None, ...]


class Layer(ABC):
    """A part of a `fastgru.Sequential`.

    The model owns the memory: it tells the layer its input's shape with `build`, then gives it views of its own flat
    buffers of parameters and gradients with `bind`. A layer never replaces these arrays, it writes into them.

    Attributes
    ----------
    name : str
    weights, gradients : dict of str to ndarray
        By name, in Keras' order. Empty until the model is built.
    """

    #: Weight name -> name of the attribute that holds its initializer, in Keras' order.
    initializers: ClassVar[dict[str, str]]

    def __init__(self, *, input_shape: tuple[int, ...] | None, name: str | None) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"name: expected a non-empty string without '/', got {name!r}")
        self.given_name = name
        self.name = name or ""
        self.input_shape = None if input_shape is None else checks.shape("input_shape", input_shape)
        self.weights: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}

    @classmethod
    def kind(cls) -> str:
        """The layer's name in lower case with underscores, which unnamed layers are numbered after."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def build(self, input_shape: Shape) -> Shape:
        """Check the input's shape, remember it, and return the output's; allocates nothing."""

    @abstractmethod
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights, in Keras' order; after `build`."""

    @abstractmethod
    def forward(self, x: Array, *, training: bool) -> Array:
        """The layer's output; with `training`, what `backward` needs is kept."""

    @abstractmethod
    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:
        """Overwrite `gradients`, and return the input's gradient where it is wanted."""

    def tape_elements(self, steps: int) -> int:
        """How many numbers a row of `steps` steps leaves for `backward`, where that is worth counting."""
        return 0

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again, as JSON can hold them."""

    def bind(self, weights: dict[str, Array], gradients: dict[str, Array]) -> None:
        """Take the model's memory."""
        self.weights, self.gradients = weights, gradients

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:
        """New weights from the layer's initializers."""
        return {
            name: initialize(getattr(self, self.initializers[name]), rng, shape)
            for name, shape in self.weight_shapes().items()
        }

    def _set_initializers(self, **names: str) -> None:
        for argument, name in names.items():
            setattr(self, argument, checks.choice(argument, name, INITIALIZERS))

    def count_params(self) -> int:
        """The number of trainable parameters."""
        return sum(int(np.prod(shape)) for shape in self.weight_shapes().values())
