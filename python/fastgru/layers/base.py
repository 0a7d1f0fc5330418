"""Base class of layers."""

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
#: A shape whose first axis, the batch, is None: any size.
Shape = tuple[int | None, ...]
#: What a layer returns: one array, or several, depending on its options.
Outputs = Array | tuple[Array, ...]


class Layer(ABC):
    """A layer of a `fastgru.Sequential`. It can also be called alone, as a function.

    The model owns the memory. It passes the input shape to `build`, then views of its flat buffers of parameters and
    gradients to `bind`. A layer writes into these arrays and never replaces them.

    Attributes
    ----------
    name : str
    weights, gradients : dict of str to ndarray
        By name, in Keras' order. Empty until the layer is built.
    """

    #: Weight name -> name of the attribute that holds its initializer, in Keras' order.
    initializers: ClassVar[dict[str, str]] = {}
    #: Weight name -> name of the attribute that holds its regularizer.
    regularizers: ClassVar[dict[str, str]] = {}
    #: Whether the input contains integers, as that of `Embedding`.
    takes_tokens: ClassVar[bool] = False
    #: Whether the output size depends on the number of steps of the input, which must then be known.
    joins_steps: ClassVar[bool] = False
    #: Whether each row of a batch starts from the final state of the same row of the previous batch.
    stateful: bool = False

    def __init__(self, *, input_shape: tuple[int | None, ...] | None = None, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"name: expected a non-empty string without '/', got {name!r}")
        self.given_name = name
        self.name = name or ""
        self.input_shape = None if input_shape is None else checks.shape("input_shape", input_shape)
        self.weights: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.generator: np.random.Generator | None = None  # the model's, for dropout
        self._built = False  # by a call outside a model

    def __repr__(self) -> str:
        return as_call(self, self._shown)

    def _shown(self) -> dict[str, Any]:
        """Return the arguments in a `repr` that differ from the attributes of the same name."""
        # A Bidirectional gives its directions names with a slash, which the constructor does not accept.
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
        """Class name in lower case with underscores: the base of default names."""
        return kind_name(cls.__name__)

    # --- Properties of a layer -----------------------------------------------------------------------------------

    @abstractmethod
    def build(self, input_shape: Shape) -> Shape:
        """Check and store the input's shape, and return the (first) output's; allocates nothing."""

    def layers_within(self) -> list[Layer]:
        """Return the layers inside this one."""
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
        """Return the shapes of the weights, in Keras' order; after `build`."""
        return {}

    def check_input(self, name: str, x: Array, lengths: Array | None, first: int) -> Array | None:
        """Raise the errors that `forward` would raise for the values of `x`, before training starts.

        Parameters
        ----------
        name : str
            Name of the argument, for the message.
        x : ndarray
        lengths : ndarray, optional
        first : int
            Index of the first row's sample.

        Returns
        -------
        ndarray or None
            The lengths of x's sequences, if the layer computes them.
        """
        del name, x, first
        return lengths

    def output_lengths(self, x: Array, lengths: Array | None) -> Array | None:
        """Return the lengths of the output's sequences, given the input and its lengths."""
        del x
        return lengths

    def tape_elements(self, steps: int) -> int:
        """Return how many numbers `backward` needs per row of `steps` steps; 0 if negligible."""
        del steps
        return 0

    @property
    def several_outputs(self) -> bool:
        """Whether `forward` returns a tuple; such a layer must be the last."""
        return False

    @property
    def draws(self) -> bool:
        """Whether a training pass draws random numbers from `generator`."""
        return False

    # --- Computation ---------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Outputs:
        """Compute the output for a batch.

        Parameters
        ----------
        x : ndarray (N, ...)
        lengths : ndarray (N,) of int64, optional
            Number of valid steps of each sequence; later steps are padding.
        training : bool
            Whether to apply dropout and to keep what `backward` needs. Without it, several threads may call the layer:
            it must not change, except for the states of a stateful layer.
        """

    @abstractmethod
    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:
        """Overwrite `gradients`, and return the input's gradient if it is wanted."""

    def gradients_changed(self) -> None:  # noqa: B027
        """Called when code other than `backward` has changed `gradients`."""

    def reset_states(self) -> None:  # noqa: B027
        """Clear the states that are carried from batch to batch."""

    def get_states(self) -> dict[str, Array]:
        """Return the states that are carried from batch to batch, by name; empty if there are none."""
        return {}

    def set_states(self, states: dict[str, Array]) -> None:
        """Set the states that `get_states` returned."""
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
        """Set the memory of weights and gradients, and the random generator; the model owns them."""
        self.weights, self.gradients, self.generator = weights, gradients, generator

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:
        """Return new weights from the layer's initializers."""
        return {
            name: initializers.initialize(getattr(self, self.initializers[name]), rng, shape)
            for name, shape in self.weight_shapes().items()
        }

    def get_weights(self) -> list[Array]:
        """Return copies of the weights, in Keras' order."""
        return [weight.copy() for weight in self.weights.values()]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Set the weights, in the order of `get_weights`; checks all shapes before it changes anything."""
        copy_weights(list(self.weights.items()), weights)

    def count_params(self) -> int:
        """Return the number of trainable parameters."""
        return sum(int(np.prod(shape)) for shape in self.weight_shapes().values())

    def penalties(self) -> list[tuple[Regularizer, Array, Array]]:
        """Return regularizer, weight and gradient of each weight that has a regularizer."""
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
    """Return an inverted dropout mask: 0 with probability `rate`, otherwise ``1 / (1 - rate)``."""
    drawn = rng.random(shape, dtype=np.float32)
    return np.asarray((drawn >= np.float32(rate)) * dtype.type(1 / (1 - rate)))


def strip_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the entries whose names start with `prefix`, without the prefix."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def copy_weights(targets: Sequence[tuple[str, Array]], weights: Sequence[Array]) -> None:
    """Copy `weights` into the arrays of `targets`, after checking all of them."""
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
