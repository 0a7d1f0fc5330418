"""Base class of layers."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import initializers, regularizers
from fastgru._support import checks
from fastgru._support.representation import as_call, package_class
from fastgru._support.samples import as_samples, convert, dtype_of_batches, lengths_of
from fastgru._support.seeding import new_generator
from fastgru.formats.description import LayerDescription, kind_name
from fastgru.layers import keras_options
from fastgru.layers.input import InputLayer
from fastgru.layers.variables import Variable, copy_weights
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
    dtype : dtype
        The dtype of weights, computations and outputs.
    trainable : bool
        Whether training changes the weights. See `fastgru.Sequential` for when a change takes effect.
    weights : list of Variable
        The weights in Keras' order. Empty until the layer is built.
    parameters, gradients : dict of str to ndarray
        The arrays of the weights and of their gradients by name, in the same order.
    """

    #: Weight name -> name of the attribute that holds its initializer, in Keras' order.
    initializers: ClassVar[dict[str, str]] = {}
    #: Weight name -> name of the attribute that holds its regularizer.
    regularizers: ClassVar[dict[str, str]] = {}
    #: Number of assignments to `trainable` of any layer, so that a model can tell that nothing has changed.
    trainable_assignments: ClassVar[int] = 0
    #: Whether the input contains integers, as that of `Embedding`.
    takes_tokens: ClassVar[bool] = False
    #: Whether `forward` takes any real dtype that the layer's own holds exactly, and converts it itself.
    converts_input: ClassVar[bool] = False
    #: Whether the output size depends on the number of steps of the input, which must then be known.
    joins_steps: ClassVar[bool] = False
    #: Whether it computes each step of a sequence by itself, so that it takes (N, F) and (N, T, F) alike.
    works_on_each_step: ClassVar[bool] = False
    #: Whether it finds lengths in the values of its input.
    finds_padding: bool = False
    #: Whether each row of a batch starts from the final state of the same row of the previous batch.
    stateful: bool = False

    def __init__(
        self,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"name: expected a non-empty string without '/', got {name!r}")
        self.given_name = name
        self.name = name or ""
        self.input_shape = None if input_shape is None else checks.shape("input_shape", input_shape)
        self._trainable = checks.flag("trainable", trainable)
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.generator: np.random.Generator | None = None  # the model's, for dropout
        self.dtype = checks.floating_dtype("dtype", "float32" if dtype is None else dtype)  # or that of its model
        self.given_dtype = None if dtype is None else self.dtype.name
        self._built = False  # by a call outside a model

    def __repr__(self) -> str:
        return as_call(self, self._shown)

    def _shown(self) -> dict[str, Any]:
        """Return the arguments in a `repr` that differ from the attributes of the same name."""
        # A Bidirectional gives its directions names with a slash, which the constructor does not accept.
        parameters = inspect.signature(type(self)).parameters
        defaults = {name: parameters[name].default for name in parameters if name in keras_options.NAMES}
        name = self.given_name if "/" in self.name else self.name or None
        return {**defaults, "name": name, "dtype": self.given_dtype}

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; assigning it sets it for the layers within, too."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = checks.flag("trainable", value)
        Layer.trainable_assignments += 1
        for layer in self.layers_within():
            layer.trainable = value

    @property
    def built(self) -> bool:
        """Whether the shape of the input is known and the weights exist."""
        return self._built or bool(self.parameters)

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

    def set_dtype(self, dtype: np.dtype[Any]) -> None:
        """Compute in the dtype of the model, as do the layers that this one consists of."""
        self.dtype = dtype
        for layer in self.layers_within():
            layer.set_dtype(dtype)

    def options(self) -> dict[str, Any]:
        """Return the arguments of the constructor but name and input_shape, as JSON can hold them.

        File formats use these names and values. `get_config` returns the same in Keras' form. The value of an argument
        is the attribute of its name, or the configuration of that. ``trainable`` is left out where it is True. A class
        that is derived from one of this package's has the options of that one.
        """
        parameters = inspect.signature(package_class(type(self))).parameters
        without = keras_options.NAMES | {"input_shape", "name", "dtype", "trainable"}
        values = {name: getattr(self, name) for name in parameters if name not in without}
        found = {name: _as_config(value) for name, value in values.items()}
        return found if self.trainable else {**found, "trainable": False}

    def get_config(self) -> dict[str, Any]:
        """Return the configuration in Keras 3's form, from which `from_config` makes the same layer without weights.

        ``keras.layers.GRU.from_config(layer.get_config())`` makes Keras' layer, where Keras has the class and the
        values. A class that is derived from one of this package's has the configuration of that one.
        """
        cls = package_class(type(self))
        if inspect.isabstract(cls):
            raise NotImplementedError(
                f"{self.name or type(self).__name__}: get_config is not defined because {type(self).__name__} is not "
                f"derived from a layer with a configuration; define get_config and from_config"
            )
        class_name = cls.__name__
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        description = LayerDescription(class_name, self.name or self.kind(), self.options())
        return configs.layer_to_config(description, self.dtype.name)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the layer that a configuration describes, which `get_config` returned here or in Keras 3.

        Raises
        ------
        ValueError
            The configuration has options that this package does not support.
        """
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        description = configs.layer_from_config(package_class(cls).__name__, config)
        if description.class_name != package_class(cls).__name__:
            raise ValueError(f"config: expected that of a {cls.__name__}, got a {description.class_name}")
        return cls.from_options(description.config, name=description.name)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, name: str | None = None) -> Self:
        """Return the layer with these options, which `options` returned; some may be left out."""
        return cls(**options, name=name)

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

    @property
    def head(self) -> Any:
        """The `Head` whose activation a loss may compute together with its own, if this is a model's last layer."""
        return None

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
        if isinstance(x, InputLayer):
            raise TypeError(
                "x: expected a NumPy array because layers are called on data, got an Input; write Sequential([Input("
                "...), layer, ...]), or build a functional model in Keras with fastgru.keras.GRU"
            )
        if mask is not None:
            if lengths is not None:
                raise ValueError("mask: expected None because lengths are given, got both")
            lengths = mask
        x = as_samples("x", x, tokens=self.takes_tokens)
        if not self.built:
            self._build_alone((None, *x.shape[1:]))
        lengths = lengths_of("lengths", lengths, x, tokens=self.takes_tokens)
        to = dtype_of_batches(x, self.dtype, tokens=self.takes_tokens, converts=self.converts_input)
        if to is not None and to != x.dtype:  # NumPy takes None for float64 in comparisons
            x = convert("x", x, np.empty(x.shape, to), lengths)
        return self.forward(x, lengths=lengths, training=training, **more)

    def _build_alone(self, input_shape: Shape) -> None:
        self.name = self.name or self.kind()
        self.build(input_shape)
        generator = new_generator()
        weights = {name: np.empty(shape, self.dtype) for name, shape in self.weight_shapes().items()}
        for name, value in self.initial_weights(generator).items():
            weights[name][...] = value
        self.bind(weights, {name: np.zeros_like(weight) for name, weight in weights.items()}, generator)

    # --- Weights -------------------------------------------------------------------------------------------------

    def bind(self, weights: dict[str, Array], gradients: dict[str, Array], generator: np.random.Generator) -> None:
        """Set the memory of weights and gradients, and the random generator; the model owns them."""
        self.parameters, self.gradients, self.generator = weights, gradients, generator
        self._built = True

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:
        """Return new weights from the layer's initializers."""
        return {
            name: initializers.initialize(getattr(self, self.initializers[name]), rng, shape)
            for name, shape in self.weight_shapes().items()
        }

    @property
    def weights(self) -> list[Variable]:
        """The weights, in Keras' order."""
        return [Variable(self, name) for name in self.parameters]

    @property
    def variables(self) -> list[Variable]:
        """The same as `weights`."""
        return self.weights

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that training changes."""
        return [variable for variable in self.weights if variable.trainable]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The same as `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training does not change."""
        return [variable for variable in self.weights if not variable.trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The same as `non_trainable_weights`."""
        return self.non_trainable_weights

    def trainable_parameters(self) -> list[str]:
        """Return the names of the weights that training changes."""
        return list(self.parameters) if self.trainable else []

    def get_weights(self) -> list[Array]:
        """Return copies of the weights, in Keras' order."""
        return [weight.copy() for weight in self.parameters.values()]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Set the weights, in the order of `get_weights`; checks all shapes before it changes anything."""
        copy_weights(list(self.parameters.items()), weights)

    def count_params(self) -> int:
        """Return the number of values in the weights, trainable or not."""
        return sum(int(np.prod(shape)) for shape in self.weight_shapes().values())

    def penalties(self) -> list[tuple[Regularizer, Array, Array]]:
        """Return regularizer, weight and gradient of each trainable weight that has a regularizer."""
        found: list[tuple[Regularizer, Array, Array]] = []
        if not self.trainable:
            return found
        for name, attribute in self.regularizers.items():
            regularizer = getattr(self, attribute)
            if regularizer is not None and name in self.parameters:
                found.append((regularizer, self.parameters[name], self.gradients[name]))
        return found

    def _set_initializers(self, **given: Any) -> None:
        for argument, value in given.items():
            setattr(self, argument, initializers.of_argument(argument, value))

    def _set_regularizers(self, **given: Any) -> None:
        for argument, value in given.items():
            setattr(self, argument, regularizers.of_argument(argument, value))


def _as_config(value: Any) -> Any:
    """An option as JSON can hold it: initializers and regularizers as class and configuration."""
    if isinstance(value, regularizers.L1L2):  # L1 and L2 are such
        return {"class_name": "L1L2", "config": {"l1": value.l1, "l2": value.l2}}
    if isinstance(value, (initializers.Initializer, Regularizer)):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    return value.get_config() if hasattr(value, "get_config") else value


def keep_mask(rng: np.random.Generator, rate: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an inverted dropout mask: 0 with probability `rate`, otherwise ``1 / (1 - rate)``."""
    drawn = rng.random(shape, dtype=np.float32)
    return np.asarray((drawn >= np.float32(rate)) * dtype.type(1 / (1 - rate)))


def strip_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the entries whose names start with `prefix`, without the prefix."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


#: Name in a saved configuration -> class; `fastgru.layers` adds all of them.
LAYERS: dict[str, type[Layer]] = {}
