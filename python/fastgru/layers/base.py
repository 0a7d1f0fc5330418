"""What a layer is to a model."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru import initializers, regularizers
from fastgru._support import checks
from fastgru._support.representation import as_call, package_class
from fastgru._support.samples import lengths_of, natural_dtype, require_samples
from fastgru._support.seeding import new_generator
from fastgru.formats.description import kind_name
from fastgru.regularizers import Regularizer

Array = NDArray[Any]
#: A shape whose first axis, the batch, may be any size: None.
Shape = tuple[int | None, ...]
#: What a layer returns: an array, or where it was asked for more than one, several.
Outputs = Array | tuple[Array, ...]


class Layer(ABC):
    """A part of a `fastgru.Sequential`, or a function of its own when it is called.

    The model owns the memory: it tells the layer its input's shape with `build`, then gives it views of its own flat
    buffers of parameters and gradients with `bind`. A layer never replaces these arrays, it writes into them.

    Attributes
    ----------
    name : str
    weights : dict of str to ndarray
        The weights by name, in Keras' order. Empty until the layer is built.
    gradients : dict of str to ndarray
        The gradients of the weights, by name.
    """

    #: Weight name -> name of the attribute that holds its initializer, in Keras' order.
    initializers: ClassVar[dict[str, str]] = {}
    #: Weight name -> name of the attribute that holds its regularizer.
    regularizers: ClassVar[dict[str, str]] = {}
    #: Whether the input is integers, as an `Embedding` takes.
    takes_tokens: ClassVar[bool] = False
    #: Whether its output is as wide as the input has steps, whose number must be known then.
    joins_steps: ClassVar[bool] = False
    #: Whether each row of a batch goes on from the states that the same row of the batch before it ended with.
    stateful: bool = False

    def __init__(self, *, input_shape: tuple[int | None, ...] | None = None, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"name: expected a non-empty string without '/', got {name!r}")
        self.given_name = name
        self.name = name or ""
        self.input_shape = None if input_shape is None else checks.shape("input_shape", input_shape)
        self.weights: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.generator: np.random.Generator | None = None  # of the model, for dropout
        self._built = False  # by a call, as a layer of its own

    def __repr__(self) -> str:
        return as_call(self, self._shown)

    def _shown(self) -> dict[str, Any]:
        """The arguments in a `repr` that are not the attributes of the same name."""
        # A Bidirectional gives its directions names with a slash, which the constructor refuses.
        return {"name": self.given_name if "/" in self.name else self.name or None}

    @property
    def trainable(self) -> bool:
        """True; layers cannot be frozen."""
        return True

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not checks.flag("trainable", value):
            raise NotImplementedError("trainable: expected True because layers cannot be frozen here, got False")

    @classmethod
    def kind(cls) -> str:
        """The layer's name in lower case with underscores, which unnamed layers are numbered after."""
        return kind_name(cls.__name__)

    # --- What a layer says of itself -----------------------------------------------------------------------------

    @abstractmethod
    def build(self, input_shape: Shape) -> Shape:
        """Check the input's shape, remember it, and return the (first) output's; allocates nothing."""

    def layers_within(self) -> list[Layer]:
        """The layers that this one consists of, where it has some."""
        return []

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again, as JSON can hold them.

        Each is the attribute of its name; of one that has a configuration of its own, that. A class derived from one of
        this package's has that one's.
        """
        parameters = inspect.signature(package_class(type(self))).parameters
        values = {name: getattr(self, name) for name in parameters if name not in ("input_shape", "name")}
        return {name: value.get_config() if hasattr(value, "get_config") else value for name, value in values.items()}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights, in Keras' order; after `build`."""
        return {}

    def check_input(self, name: str, x: Array, lengths: Array | None, first: int) -> Array | None:
        """Raise what `forward` would for the values of `x`, before anything is trained; some layers look at them.

        Parameters
        ----------
        name : str
            The argument's name, for the message.
        x : ndarray
        lengths : ndarray, optional
        first : int
            The number of the first row's sample.

        Returns
        -------
        ndarray or None
            The lengths of x's sequences, where the layer finds them.
        """
        del name, x, first
        return lengths

    def output_lengths(self, x: Array, lengths: Array | None) -> Array | None:
        """The lengths of the output's sequences, given the input and those of its sequences."""
        del x
        return lengths

    def tape_elements(self, steps: int) -> int:
        """How many numbers a row of `steps` steps leaves for `backward`, where that is worth counting."""
        del steps
        return 0

    @property
    def several_outputs(self) -> bool:
        """Whether `forward` returns a tuple. No other layer can follow then."""
        return False

    @property
    def draws(self) -> bool:
        """Whether a pass in training draws random numbers from `generator`."""
        return False

    # --- Computing -----------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Outputs:
        """The output for a batch.

        Parameters
        ----------
        x : ndarray (N, ...)
        lengths : ndarray (N,) of int64, optional
            How many steps of each sequence count; the rest is padding.
        training : bool
            Whether dropout drops, and what `backward` needs is kept. Without, the layer must not change, but for the
            states that a stateful one carries: several threads may call it then.
        """

    @abstractmethod
    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:
        """Overwrite `gradients`, and return the input's gradient where it is wanted."""

    def gradients_changed(self) -> None:  # noqa: B027
        """Be told that others than `backward` have written to `gradients`."""

    def reset_states(self) -> None:  # noqa: B027
        """Forget what is carried from batch to batch."""

    def get_states(self) -> dict[str, Array]:
        """What is carried from batch to batch, by name; empty where nothing is."""
        return {}

    def set_states(self, states: dict[str, Array]) -> None:
        """Carry on with what `get_states` returned."""
        if states:
            raise ValueError(f"{self.name}: expected no states, got {', '.join(states)}")

    def __call__(
        self, x: Array, *, lengths: Any = None, mask: Any = None, training: bool = False, **more: Any
    ) -> Outputs:
        """`forward` for a layer on its own, which is built by the first call; returns new arrays.

        `mask` is Keras' word for `lengths`. `backward` may follow a call with `training`.
        """
        if mask is not None:
            if lengths is not None:
                raise ValueError("mask: expected None because lengths are given, got both")
            lengths = mask
        require_samples("x", x, tokens=self.takes_tokens)
        if not self.weights and not self._built:
            self._build_alone((None, *x.shape[1:]), natural_dtype(x))
        lengths = lengths_of("lengths", lengths, x, tokens=self.takes_tokens)
        return self.forward(x, lengths=lengths, training=training, **more)

    def _build_alone(self, input_shape: Shape, dtype: np.dtype[Any]) -> None:
        self.name = self.name or self.kind()
        self.build(input_shape)
        generator = new_generator()
        weights = {name: np.empty(shape, dtype) for name, shape in self.weight_shapes().items()}
        for name, value in self.initial_weights(generator).items():
            weights[name][...] = value
        self.bind(weights, {name: np.zeros_like(weight) for name, weight in weights.items()}, generator)
        self._built = True

    # --- Weights -------------------------------------------------------------------------------------------------

    def bind(self, weights: dict[str, Array], gradients: dict[str, Array], generator: np.random.Generator) -> None:
        """Take the model's memory and its source of random numbers."""
        self.weights, self.gradients, self.generator = weights, gradients, generator

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:
        """New weights from the layer's initializers."""
        return {
            name: initializers.initialize(getattr(self, self.initializers[name]), rng, shape)
            for name, shape in self.weight_shapes().items()
        }

    def get_weights(self) -> list[Array]:
        """Copies of the weights, in Keras' order."""
        return [weight.copy() for weight in self.weights.values()]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Copy in what `get_weights` returns; all shapes are checked before anything changes."""
        copy_weights(list(self.weights.items()), weights)

    def count_params(self) -> int:
        """The number of trainable parameters."""
        return sum(int(np.prod(shape)) for shape in self.weight_shapes().values())

    def penalties(self) -> list[tuple[Regularizer, Array, Array]]:
        """Regularizer, weight and gradient of each weight that has a regularizer."""
        found = []
        for name, attribute in self.regularizers.items():
            regularizer = getattr(self, attribute)
            if regularizer is not None and name in self.weights:
                found.append((regularizer, self.weights[name], self.gradients[name]))
        return found

    def _set_initializers(self, **given: Any) -> None:
        for argument, value in given.items():
            setattr(self, argument, initializers.get(argument, value))

    def _set_regularizers(self, **given: Any) -> None:
        for argument, value in given.items():
            setattr(self, argument, regularizers.get(argument, value))


def keep_mask(rng: np.random.Generator, rate: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Inverted dropout: 0 with probability `rate`, else ``1 / (1 - rate)``."""
    drawn = rng.random(shape, dtype=np.float32)
    return np.asarray((drawn >= np.float32(rate)) * dtype.type(1 / (1 - rate)))


def strip_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The entries whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def copy_weights(targets: Sequence[tuple[str, Array]], weights: Sequence[Array]) -> None:
    """Copy `weights` into the arrays of `targets`, if all of them fit."""
    if len(weights) != len(targets):
        raise ValueError(f"weights: expected {len(targets)} arrays, got {len(weights)}")
    arrays = [checks.array("weights", given) for given in weights]
    for (name, target), array in zip(targets, arrays, strict=True):
        if array.shape != target.shape:
            raise ValueError(f"weights: expected shape {target.shape} for {name}, got {array.shape}")
        if not np.can_cast(array.dtype, target.dtype, "same_kind"):
            raise TypeError(f"weights: expected {target.dtype} for {name}, got {array.dtype}")
    for (_, target), array in zip(targets, arrays, strict=True):
        target[...] = array
