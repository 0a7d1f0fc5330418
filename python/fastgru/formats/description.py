"""Format-independent description of a model, which connects all file formats with `fastgru.Sequential`.

A reader converts a file to a `ModelDescription`, a writer converts one to a file. `fastgru.Sequential` converts models
to descriptions and back. Formats do not depend on models or on each other. One exception: TensorFlow.js uses Keras'
tables, because it has the same layers and options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from fastgru._native import kernels
from fastgru.formats.checks import require_object, require_text, unsupported

Array = NDArray[Any]

#: Class -> its weights in Keras' order.
WEIGHTS = {
    "GRU": ("kernel", "recurrent_kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "Embedding": ("embeddings",),
}
#: Activations of a Dense and of an Activation layer.
ACTIVATIONS = ("linear", "softmax", "sigmoid", "tanh", "relu")
#: Activations of a GRU's candidate.
GRU_ACTIVATIONS = kernels.ACTIVATIONS
#: Classes of layers that reduce a sequence to one vector.
_WITHOUT_STEPS = ("Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "LastStep")
#: Classes of layers that process each step separately, so that TimeDistributed has no effect.
_ON_EACH_STEP = ("Activation", "Dense", "Dropout", "Rescaling")


class ModelFileError(ValueError):
    """A file is not a model, is damaged, or is not supported; the message names the file and the reason."""


class AmbiguousFileError(ModelFileError):
    """A file does not define the model's outputs: there is no usual choice, and no option was given.

    Attributes
    ----------
    problem : str
    options : mapping
        An example of options that define them.
    """

    def __init__(self, problem: str, options: Mapping[str, Any]) -> None:
        super().__init__(problem, options)  # so that pickle can create the exception again
        self.problem, self.options = problem, options

    def text(self, written: Callable[[Mapping[str, Any]], str]) -> str:
        """Return the problem and the options to pass; `written` converts options to text."""
        return f"{self.problem}: pass {written(self.options)}, or the options that describe forward()"

    def __str__(self) -> str:
        return self.text(as_arguments)


@dataclass(frozen=True)
class Assumption:
    """An assumption that a reader made because the file does not determine the model.

    Attributes
    ----------
    what : str
    options : mapping
        Options of the reader that state the same explicitly.
    alternatives : tuple of (mapping, str)
        Options for other models, and their meaning. None: there is no such option.
    """

    what: str
    options: Mapping[str, Any]
    alternatives: tuple[tuple[Mapping[str, Any], str], ...]

    def text(self, written: Callable[[Mapping[str, Any]], str]) -> str:
        """Return the assumption and the options to pass otherwise; `written` converts options to text."""
        if not self.alternatives:
            return f"{self.what}; otherwise the model is not supported: no option describes its forward()"
        others = " or ".join(f"{written(options)} ({meaning})" for options, meaning in self.alternatives)
        return f"{self.what}; otherwise pass {others}"


def as_arguments(options: Mapping[str, Any]) -> str:
    """Format options as arguments of a Python call."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


class AssumptionWarning(UserWarning):
    """A model was read under assumptions that affect its outputs.

    Attributes
    ----------
    assumptions : tuple of Assumption
    """

    def __init__(self, message: str, assumptions: Sequence[Assumption] = ()) -> None:
        super().__init__(message)
        self.assumptions = tuple(assumptions)


def list_assumptions(
    assumptions: Sequence[Assumption], written: Callable[[Mapping[str, Any]], str] = as_arguments
) -> list[str]:
    """Return lines of text: each assumption with the alternative options, and the options that confirm all of them."""
    options: dict[str, Any] = {}
    for assumption in assumptions:
        options |= assumption.options
    return [
        "Assumptions, because a state_dict contains the weights of modules but not how forward() uses them:",
        *(f"- {assumption.text(written)}" for assumption in assumptions),
        f"If forward() does exactly this, pass {written(options)}",
    ]


@dataclass
class LayerDescription:
    """A layer of `fastgru.layers`.

    Attributes
    ----------
    class_name : str
        A class of `fastgru.layers`.
    name : str
        Unique in the model.
    config : dict
        What the layer's ``get_config`` returns; missing options have their defaults.
    weights : dict of str to ndarray
        By the layer's names, in Keras' order and layout. A GRU has ``kernel (F, 3H)``, ``recurrent_kernel (H, 3H)``
        and ``bias``, gates in the order z, r, h; of a Bidirectional ``forward/kernel`` and so on.
    """

    class_name: str
    name: str
    config: dict[str, Any]
    weights: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def from_json(cls, entry: Any) -> LayerDescription:
        """Return the layer of an entry from `to_json`, without weights; the entry comes from a file."""
        entry = require_object("layer", entry)
        class_name, name = (require_text(key, entry.get(key)) for key in ("class_name", "name"))
        return cls(class_name, name, require_object("config", entry.get("config")))

    def to_json(self) -> dict[str, Any]:
        """Return everything except the weights."""
        return {"class_name": self.class_name, "name": self.name, "config": self.config}

    @property
    def parts(self) -> dict[str, LayerDescription]:
        """Return the layers that it consists of, by the prefix of their weights' names.

        A Bidirectional has a GRU under ``forward/`` and one under ``backward/``; a TimeDistributed has the parts of the
        layer within. Any other layer is its only part.
        """
        if self.class_name == "TimeDistributed":
            return self.within.parts
        if self.class_name != "Bidirectional":
            return {"": self}
        prefixes = {"forward/": "layer", "backward/": "backward_layer"}
        return {
            prefix: LayerDescription(
                "GRU",
                self.name,
                self.config[key]["config"],
                {name.removeprefix(prefix): a for name, a in self.weights.items() if name.startswith(prefix)},
            )
            for prefix, key in prefixes.items()
        }

    @property
    def within(self) -> LayerDescription:
        """The layer within a TimeDistributed, with the same name and weights."""
        inner = self.config["layer"]
        return LayerDescription(inner["class_name"], self.name, inner["config"], self.weights)

    @property
    def unwrapped(self) -> LayerDescription:
        """The layer itself, or the one within a TimeDistributed that changes nothing: around Dense, for example."""
        if self.class_name != "TimeDistributed":
            return self
        inner = self.within.unwrapped
        if not self.config.get("trainable", True):
            inner = replace(inner, config={**inner.config, "trainable": False})
        return inner if inner.class_name in _ON_EACH_STEP else self

    @property
    def forward(self) -> LayerDescription:
        """The forward GRU of a Bidirectional; any other layer is returned unchanged."""
        return next(iter(self.parts.values()))

    @property
    def is_recurrent(self) -> bool:
        """Whether it is a GRU or a Bidirectional."""
        return self.class_name in ("GRU", "Bidirectional")

    @property
    def makes_mask(self) -> bool:
        """Whether it computes a mask from its input."""
        return self.class_name == "Masking" or bool(self.config.get("mask_zero"))

    @property
    def returns_steps(self) -> bool:
        """Whether it is recurrent and returns the outputs of all steps."""
        return self.is_recurrent and bool(self.forward.config.get("return_sequences"))

    @property
    def outputs(self) -> int:
        """Number of arrays that the layer returns: 1, or more with states or unmerged directions."""
        parts = self.parts
        merged = 1 if self.config.get("merge_mode", "concat") is not None else len(parts)
        return merged + (len(parts) if self.forward.config.get("return_state") else 0)

    @property
    def weight_names(self) -> list[str]:
        """Return the names of its weights, in Keras' order."""
        return [
            f"{prefix}{name}"
            for prefix, part in self.parts.items()
            for name in WEIGHTS.get(part.class_name, ())
            if name != "bias" or part.config.get("use_bias", True)
        ]

    @property
    def trainable_names(self) -> list[str]:
        """The names of the weights that training changes."""
        if not self.config.get("trainable", True):
            return []
        return [
            f"{prefix}{name}"
            for prefix, part in self.parts.items()
            if part.config.get("trainable", True)
            for name in part.weights
        ]

    def output_axes(self, axes: int) -> int:
        """Return the number of axes of its output, given that of its input; both include the batch axis."""
        if self.class_name == "Embedding":
            return axes + 1
        if self.class_name == "TimeDistributed":
            return 1 + self.within.output_axes(axes - 1)
        if self.class_name == "Reshape":
            return 1 + len(self.config["target_shape"])
        if self.class_name == "RepeatVector":
            return 3
        if self.is_recurrent:
            return 3 if self.returns_steps else 2
        return 2 if self.class_name in _WITHOUT_STEPS else axes


def kind_name(class_name: str) -> str:
    """Convert a class to lower case with underscores, as Keras does: ``last_step``, ``global_max_pooling1d``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()
    return words.replace("_1_d", "1d").replace("1_d", "1d")


def numbered_name(class_name: str, before: Sequence[LayerDescription]) -> str:
    """Return a default name for a layer whose file contains no name: ``gru``, then ``gru_1`` and so on."""
    name = kind_name(class_name)
    count = sum(layer.class_name == class_name for layer in before)
    return f"{name}_{count}" if count else name


def bidirectional_config(directions: Iterable[dict[str, Any]], merge_mode: str | None = "concat") -> dict[str, Any]:
    """Return the configuration of a Bidirectional, given those of its GRUs, the forward one first."""
    layer, backward_layer = ({"class_name": "GRU", "config": config} for config in directions)
    return {"layer": layer, "backward_layer": backward_layer, "merge_mode": merge_mode}


@dataclass
class TrainingDescription:
    """Training configuration and optimizer state of a model.

    Attributes
    ----------
    optimizer : dict
        ``class_name`` and ``config`` as in `fastgru.optimizers`.
    loss : dict
        ``name``, as in Keras, and ``config`` as in `fastgru.losses`.
    metrics : list of str
        Names that `fastgru.Sequential.compile` accepts.
    step : int
        Number of updates.
    moments : dict of str to dict of str to ndarray
        The optimizer's states by name (``m``, ``v``), each by ``layer/weight``. Empty if the file contains none;
        training then starts with new states.
    """

    optimizer: dict[str, Any]
    loss: dict[str, Any]
    metrics: list[str] = field(default_factory=list)
    step: int = 0
    moments: dict[str, dict[str, Array]] = field(default_factory=dict)


@dataclass
class ModelDescription:
    """A sequence of layers.

    Attributes
    ----------
    layers : list of LayerDescription
    input_shape : tuple of int or None, or None
        Without the batch axis; None for axes of any size. None instead of a tuple: the model has not been built and
        has no weights.
    name : str
    dtype : {"float32", "float64"}
    training : TrainingDescription or None
    assumptions : tuple of Assumption
        Assumptions of the reader; empty if the file defines the model completely.
    """

    layers: list[LayerDescription]
    input_shape: tuple[int | None, ...] | None
    name: str = "sequential"
    dtype: str = "float32"
    training: TrainingDescription | None = None
    assumptions: tuple[Assumption, ...] = ()

    @property
    def built_shape(self) -> tuple[int | None, ...]:
        """Return `input_shape` of a model with weights, which every file format requires."""
        if self.input_shape is None:
            raise ValueError(f"{self.name}: expected a model with weights, got one that has not been built: call build")
        return self.input_shape

    def require_float32(self, by: str, reason: str) -> None:
        """Raise for another dtype, which `by` does not support for that reason."""
        if self.dtype != "float32":
            raise unsupported(self.name, f"dtype={self.dtype!r}", by, reason, "train with dtype='float32'")

    def weights(self) -> dict[str, Array]:
        """Return all weights by ``layer/weight``."""
        return {f"{layer.name}/{name}": array for layer in self.layers for name, array in layer.weights.items()}

    def trainable_weights(self) -> dict[str, Array]:
        """The weights that training changes, by ``layer/weight``."""
        return {f"{layer.name}/{name}": layer.weights[name] for layer in self.layers for name in layer.trainable_names}
