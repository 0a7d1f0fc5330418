"""Layers in a row: their shapes and memory, and the passes forward and backward through them."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks, memory, sequences
from fastgru._support.samples import Samples, as_samples, dtype_of_batches, fits, lengths_of
from fastgru._support.seeding import new_generator
from fastgru._support.sequence_list import ListSamples
from fastgru._training.data import Form
from fastgru._training.loop import Scores, Snapshot
from fastgru.layers import InputLayer, Layer, Rescaling
from fastgru.layers.base import Outputs, Shape, strip_prefix
from fastgru.models.trainable import TrainingPlan, make_plan, trainable_names

Array = NDArray[Any]


#: How many samples are looked at together where all are.
_ROWS_AT_ONCE = 1024


class Network:
    """Layers in a row over one flat buffer of parameters and one of gradients.

    It knows neither the optimizer nor files, and does not check for concurrent calls; `fastgru.Sequential` does that.

    Parameters
    ----------
    dtype : {"float32", "float64"}, optional
    name : str
    on_new_memory : callable
        Called without arguments when the weights have been laid into new buffers.

    Attributes
    ----------
    layers : list of Layer
    shapes : list of tuple
        Of the input and of each layer's output, with the batch axis; empty until the model is built.
    parameters, gradient : ndarray (P,)
    dtype : dtype
        Of the weights and of all that is computed.
    form : Form or None
        What the model is, once it has weights.
    generator : numpy.random.Generator
        Draws weights, orders of samples and dropout.
    trainable : bool
        False freezes all weights, whatever the layers say.
    raw_head : bool
        Whether scores are what comes before the last activation, because the loss takes that in itself.
    """

    def __init__(self, *, dtype: str | None, name: str, on_new_memory: Callable[[], None]) -> None:
        self.layers: list[Layer] = []
        self.name = name
        self.dtype = checks.floating_dtype("dtype", "float32" if dtype is None else dtype)
        self.generator = new_generator()
        self.form: Form | None = None
        self.trained_with_lengths = False
        self.lengths_known = False
        self.raw_head = False
        self.parameters: Array = np.empty(0, self.dtype)
        self.gradient: Array = np.empty(0, self.dtype)
        self._on_new_memory = on_new_memory
        self._declared: InputLayer | None = None  # until the first layer has its shape
        self.shapes: list[Shape] = []
        self._sum: Array = np.empty(0, np.float32)  # of a batch's earlier pieces, while it is trained on
        self._places: dict[str, tuple[slice, tuple[int, ...]]] = {}  # of each weight in the flat buffers
        self.trainable = True
        self._plan: TrainingPlan | None = None  # None until a training begins
        self._planned_after = 0  # assignments to `trainable` when the plan was made
        self._scored = Scores(np.empty((0, 0), np.float32), None, (0,))  # what `scores` returned last in training

    # --- Topology and memory ---------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return bool(self.shapes) and len(self.shapes) == len(self.layers) + 1

    def draw_from(self, generator: np.random.Generator) -> None:
        """Take all random numbers from that generator. Before weights are made."""
        if self.built:
            raise ValueError("generator: expected it before the weights are made, got it after that")
        self.generator = generator

    @property
    def input_shape(self) -> Shape:
        """With the batch axis, None where any size will do; empty until the model is built."""
        return self.shapes[0] if self.shapes else ()

    @property
    def output_shape(self) -> Shape:
        """With the batch axis; empty until the model is built."""
        return self.shapes[-1] if self.shapes else ()

    def add(self, layer: Layer | InputLayer) -> None:
        """Append a layer. If the first one knows its ``input_shape``, the weights are made at once."""
        if isinstance(layer, InputLayer):
            self._declare(layer)
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a layer of fastgru.layers, got {layer!r}")
        if any(layer is other for other in self.layers):
            raise ValueError(f"layer: {layer.name} is in this model already, and layers cannot be shared")
        if layer.parameters:
            raise ValueError(f"layer: {layer.name} belongs to another model already, and layers cannot be shared")
        if layer.given_dtype not in (None, self.dtype.name):
            raise ValueError(
                f"layer: expected a layer of the model's dtype {self.dtype}, got {layer.given_dtype}; pass "
                f"dtype='{layer.given_dtype}' to Sequential"
            )
        names = {other.name for other in self.layers}
        layer.name = layer.given_name or _unused_name(layer.kind(), names)
        if layer.name in names:
            raise ValueError(f"name: expected a name no other layer has, got {layer.name!r} twice")
        expected = self.output_shape if self.layers else None
        if self._declared is not None:
            expected = (None, *self._declared.shape)
        if expected and layer.input_shape is not None and (None, *layer.input_shape) != expected:
            raise ValueError(
                f"{layer.name}: expected input_shape {checks.dims(expected[1:], 'T')} because the "
                f"{'layer before' if self._declared is None else 'Input'} gives that, got {layer.input_shape}"
            )
        shapes: list[Shape] = []
        if self.built:
            self._require_one_output(self.layers[-1])
            shapes = [*self.shapes, self._build_layer(layer, self.output_shape, first=False)]
        given = layer.input_shape
        if self._declared is not None:
            layer.input_shape = self._declared.shape
        self.layers.append(layer)
        first = self.layers[0].input_shape
        try:
            if shapes:
                self.allocate(shapes, keep=True)
            elif first is not None:
                self.build((None, *first))
        except BaseException:
            self.layers.pop()
            layer.input_shape = given
            raise
        self._declared = None

    def _declare(self, declared: InputLayer) -> None:
        """Take the shape of the input, which the first layer is then given."""
        if self.layers or self._declared is not None:
            what = self.layers[-1].name if self.layers else "another Input"
            raise ValueError(f"layer: expected an Input only as the first element, got one after {what}")
        self._declared = declared

    def pop(self) -> Layer:
        """Remove the last layer, which keeps copies of its weights."""
        if not self.layers:
            raise ValueError("the model has no layers to remove")
        layer = self.layers.pop()
        try:
            if self.shapes and self.layers:
                self.allocate(self.shapes[:-1], keep=True)
            else:
                self._clear()
        except BaseException:
            self.layers.append(layer)
            raise
        copies = [
            {name: array.copy() for name, array in arrays.items()} for arrays in (layer.parameters, layer.gradients)
        ]
        layer.bind(copies[0], copies[1], new_generator())
        return layer

    def _clear(self) -> None:
        """Have no weights, as before `build`."""
        self.shapes, self.form, self._plan, self._places = [], None, None, {}
        self.parameters = self.gradient = np.empty(0, self.dtype)
        self._on_new_memory()

    def build(self, input_shape: Shape) -> None:
        """Make the weights for inputs of that shape, batch axis included."""
        if self.built:
            raise ValueError(f"the model is built already, for input {checks.dims(self.input_shape)}")
        self.allocate(self.shapes_for(input_shape))

    def _build_layer(self, layer: Layer, shape: Shape, *, first: bool) -> Shape:
        if layer.takes_tokens and not first:
            raise ValueError(
                f"{layer.name}: expected to be the first layer because it takes tokens, got another before"
            )
        return layer.build(shape)

    def _require_one_output(self, layer: Layer) -> None:
        if layer.several_outputs:
            raise ValueError(f"{layer.name}: expected to be the last layer because it returns several arrays")

    def shapes_for(self, input_shape: Shape) -> list[Shape]:
        """Of the input and of each layer's output; the model stays without weights."""
        if not self.layers:
            raise ValueError("the model has no layers: add one")
        declared = self.layers[0].input_shape
        if declared is not None and not fits(input_shape[1:], declared):
            raise ValueError(
                f"input_shape: expected {declared} because the first layer says so, got "
                f"{checks.dims(input_shape[1:], 'T')}"
            )
        shapes = [input_shape]
        for layer in self.layers:
            shapes.append(self._build_layer(layer, shapes[-1], first=layer is self.layers[0]))
        for layer in self.layers[:-1]:
            self._require_one_output(layer)
        return shapes

    def allocate(self, shapes: list[Shape], *, keep: bool = False, initialize: bool = True) -> None:
        """Lay the weights of all layers into one flat buffer; `keep` the values of those that have some.

        `shapes` are those of the input and of each layer's output, which the network has from then on. After an error
        the network is as it was, because what may fail comes before a layer is given its new memory.
        """
        before = self.generator.bit_generator.state
        try:
            self._allocate(shapes, keep=keep, initialize=initialize)
        except BaseException:
            self.generator.bit_generator.state = before
            raise

    def _allocate(self, shapes: list[Shape], *, keep: bool, initialize: bool) -> None:
        old = {layer.name: dict(layer.parameters) for layer in self.layers} if keep else {}
        line = memory.LINE // self.dtype.itemsize
        places: list[tuple[Layer, str, slice, tuple[int, ...]]] = []
        end = 0
        for layer in self.layers:
            for name, shape in layer.weight_shapes().items():
                size = int(np.prod(shape, dtype=object))
                places.append((layer, name, slice(end, end + size), shape))
                end += -(-size // line) * line
        if end * self.dtype.itemsize > sys.maxsize - memory.LINE:
            raise MemoryError(f"the model's {end:,} parameters are more than any memory holds")
        parameters, gradient = memory.zeros(end, self.dtype), memory.zeros(end, self.dtype)
        weights: dict[str, dict[str, Array]] = {layer.name: {} for layer in self.layers}
        gradients: dict[str, dict[str, Array]] = {layer.name: {} for layer in self.layers}
        for layer, name, place, shape in places:
            weights[layer.name][name] = parameters[place].reshape(shape)
            gradients[layer.name][name] = gradient[place].reshape(shape)
        for layer in self.layers:
            new = weights[layer.name]
            if old.get(layer.name):
                values = old[layer.name]
            elif initialize:
                values = layer.initial_weights(self.generator)
            else:
                values = {}
            for name, value in values.items():
                new[name][...] = value
        states = {name: state.astype(self.dtype) for name, state in self.get_states().items()}
        bound: list[tuple[Layer, dict[str, Array], dict[str, Array]]] = []
        try:
            for layer in self.layers:
                bound.append((layer, layer.parameters, layer.gradients))
                layer.set_dtype(self.dtype)
                layer.bind(weights[layer.name], gradients[layer.name], self.generator)
        except BaseException:  # of a user's own layer, or Ctrl-C
            for layer, its_weights, its_gradients in bound[::-1]:
                with contextlib.suppress(Exception):  # the one that failed may fail again
                    layer.bind(its_weights, its_gradients, self.generator)
            raise
        self.parameters, self.gradient = parameters, gradient
        self._places = {f"{layer.name}/{name}": (place, shape) for layer, name, place, shape in places}
        self._plan = None
        self.shapes = shapes
        self.form = Form(self.input_shape, self.output_shape)
        self._on_new_memory()
        self.set_states(states)

    @property
    def takes_tokens(self) -> bool:
        """Whether the input is integers."""
        return bool(self.layers) and self.layers[0].takes_tokens

    @property
    def finds_lengths(self) -> bool:
        """Whether a layer finds the lengths in the data: a Masking, or an Embedding with mask_zero."""
        return any(layer.finds_padding for layer in self.layers)

    @property
    def input_axes(self) -> int | None:
        """The number of axes of the input, with the batch axis; None if it is unknown."""
        if self.built:
            return len(self.input_shape)
        declared = self.layers[0].input_shape if self.layers else None
        if declared is not None:
            return len(declared) + 1
        return 2 if self.takes_tokens else None

    def as_samples(self, name: str, x: Any) -> Array:
        """`x` as an array of what the first layer takes: integers for an `Embedding`, else any real numbers."""
        return as_samples(name, x, tokens=self.takes_tokens)

    def samples(self, name: str, x: Array, form: Form) -> Samples:
        """Samples that `as_samples` returned, checked against `form`, for batches that `forward` takes."""
        converts = bool(self.layers) and self.layers[0].converts_input
        dtype = dtype_of_batches(x, self.dtype, tokens=self.takes_tokens, converts=converts)
        return Samples(name, x, form.input_shape, dtype)

    def form_for(self, x: Array) -> Form:
        """The model's shapes for samples `x`, `form` itself if the model is built; nothing changes before `settle`."""
        if self.built:
            assert self.form is not None
            return self.form
        shapes = self.shapes_for(self._input_shape_for(x))
        return Form(shapes[0], shapes[-1])

    def settle(self, form: Form) -> None:
        """Make the weights for that form if there are none."""
        if not self.built:
            self.build(form.input_shape)

    def check_values(self, name: str, samples: Samples | ListSamples, lengths: Array | None) -> Array | None:
        """Raise what the first layer, or the one after `Rescaling`, would for the values of some batch.

        The message gives the number of the sample.

        Returns the lengths of the sequences, those that the layer finds among them.
        """
        scaling: list[Rescaling] = []
        for layer in self.layers:
            if not isinstance(layer, Rescaling):
                break
            scaling.append(layer)
        if type(layer).check_input is Layer.check_input:
            return lengths
        found: list[Array] = []
        for begin in range(0, max(len(samples), 1), _ROWS_AT_ONCE):
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            x = samples.batch(rows)
            for each in scaling:
                x = each.forward(x)
            part = layer.check_input(name, x, None if lengths is None else lengths[rows], begin)
            if part is not None:
                found.append(part)
        return np.concatenate(found) if found else None

    def _input_shape_for(self, x: Array) -> Shape:
        """What to build the model for, given samples: sequences of any length, unless a layer joins their steps."""
        shape: Shape = (None, *x.shape[1:])
        if x.ndim < (2 if self.takes_tokens else 3):
            return shape
        inputs = self.shapes_for(shape)
        joined = any(layer.joins_steps and len(given) > 2 for layer, given in zip(self.layers, inputs, strict=False))
        return shape if joined else (None, None, *shape[2:])

    def require_built(self) -> None:
        """Raise unless the weights exist."""
        if not self.built:
            raise ValueError(
                "the model has no weights yet: give its first layer an input_shape, or call build or fit first"
            )

    # --- Computing -------------------------------------------------------------------------------------------

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Outputs:
        """Outputs for one batch (N, ...) in the model's dtype; with `training`, layers keep what backward needs."""
        y: Outputs = x
        for layer in self.layers:
            assert not isinstance(y, tuple)
            before, y = y, layer.forward(y, lengths=lengths, training=training)
            lengths = layer.output_lengths(before, lengths)
        return y

    def call(self, x: Any, lengths: Any, *, training: bool) -> Outputs:
        """Check a user's batch, and return the outputs in new arrays."""
        samples = self.samples("x", x, self.form_for(x))
        lengths = lengths_of("lengths", lengths, x, tokens=self.takes_tokens)
        self.check_values("x", samples, lengths)
        batch = samples.batch(slice(None), lengths)
        y = self.forward(batch, lengths=lengths, training=training)
        if isinstance(y, tuple):
            return tuple(part.copy() for part in y)
        return y.copy() if np.may_share_memory(y, batch) else y

    def scores(self, x: Array, lengths: Array | None, *, training: bool) -> Scores:
        """What the loss takes: the outputs, or where it takes the last activation in itself, what comes before that.

        The head computes the elements that count alone, where it can leave out others.
        """
        for layer in self.layers[:-1] if self.raw_head else self.layers:
            y = layer.forward(x, lengths=lengths, training=training)
            assert not isinstance(y, tuple)
            lengths = layer.output_lengths(x, lengths)
            x = y
        shape = x.shape[:-1]
        head = self.layers[-1].head
        kept = None if lengths is None else sequences.valid_elements(lengths, shape)
        if self.raw_head:
            values = head.logits(x, training=training, rows=kept)
        else:
            values = x.reshape(int(np.prod(shape)), x.shape[-1])
            values = values if kept is None else values[kept]
        scores = Scores(values, kept, shape, head.activation if self.raw_head else None)
        if training:
            self._scored = scores
        return scores

    def outputs(self, scores: Array) -> Array:
        """What the model gives (M, C), from its scores (M, C)."""
        if not self.raw_head:
            return scores
        head = self.layers[-1].head
        return head.activate(scores)  # type: ignore[no-any-return]

    def tape_bytes(self, x: Array) -> int:
        """What `scores` leaves in memory for `backward` when it trains on the batch `x`."""
        steps = x.shape[1] if x.ndim > 2 or self.takes_tokens else 0
        return len(x) * sum(layer.tape_elements(steps) for layer in self.layers) * self.dtype.itemsize

    def backward(self, d_scores: Array, *, add: bool = False) -> None:
        """Overwrite `gradient`, or with `add` add to it, given that (M, C) of the last `scores` in training."""
        if add:
            if self._sum.shape != self.gradient.shape or self._sum.dtype != self.dtype:
                self._sum = np.empty_like(self.gradient)
            np.copyto(self._sum, self.gradient)
            self.backward(d_scores)
            np.add(self._sum, self.gradient, out=self.gradient)
            for layer in self.layers:
                layer.gradients_changed()
            return
        last, first = len(self.layers) - 1, self.plan.first
        d_y: Array | None = d_scores
        if not self.raw_head:
            d_y, last = self._spread(d_scores), last + 1
        elif last >= first:
            head = self.layers[-1].head
            d_y = head.backward_from_logits(d_scores, input_gradient=last > first)
        for index in range(last - 1, first - 1, -1):
            assert d_y is not None
            d_y = self.layers[index].backward(d_y, input_gradient=index > first)

    def _spread(self, d_scores: Array) -> Array:
        """The gradient for all of the last batch's outputs, given that of those that count."""
        kept, shape = self._scored.kept, self._scored.shape
        everything = d_scores
        if kept is not None:
            everything = np.zeros((self._scored.everything, d_scores.shape[-1]), d_scores.dtype)
            everything[kept] = d_scores
        return everything.reshape(*shape, d_scores.shape[-1])

    def penalty(self) -> float:
        """What the regularizers add to the loss."""
        penalties = self.plan.penalties
        return sum([regularizer.penalty(weight) for regularizer, weight, _ in penalties]) if penalties else 0.0

    def complete_gradient(self) -> None:
        """Set the gradient of frozen weights to 0, and add the regularizers' gradient."""
        plan = self.plan
        for place in plan.frozen:
            self.gradient[place] = 0
        for regularizer, weight, gradient in plan.penalties:
            regularizer.add_gradient(weight, gradient)

    # --- Frozen weights --------------------------------------------------------------------------------------

    def set_trainable(self, value: bool) -> None:
        """Set `trainable` of the network and of all layers."""
        self.trainable = checks.flag("trainable", value)
        for layer in self.layers:
            layer.trainable = value

    @property
    def plan(self) -> TrainingPlan:
        """What is trained: as decided by `fix_trainable`, or before that as the layers say now."""
        if self._plan is not None:
            return self._plan
        return make_plan(self.layers if self.trainable else [], self._places, self.parameters.size)

    @property
    def trainable_ranges(self) -> list[slice] | None:
        """Where the trainable weights lie in the flat buffers; None if all weights are trainable."""
        return self.plan.ranges

    def trainable_views(self, flat: Array) -> dict[str, Array]:
        """The parts of a buffer as flat as `parameters` that belong to the trainable weights, by ``layer/weight``."""
        names = self.plan.names
        return {name: view for name, view in self.views(flat).items() if name in names}

    def fix_trainable(self) -> None:
        """Decide what is trained until `release_trainable`, unless it is decided already. After the weights are made.

        Warns
        -----
        UserWarning
            No weight is trainable.
        """
        if self._plan is not None:
            return
        self._plan = self.plan
        self._planned_after = Layer.trainable_assignments
        if not self._plan.names:
            warnings.warn("the model does not have any trainable weights, so training changes nothing", stacklevel=2)

    def warn_of_changed_trainable(self) -> None:
        """Warn if ``trainable`` has changed since it was decided what is trained."""
        if self._plan is None or self._planned_after == Layer.trainable_assignments:
            return
        names = trainable_names(self.layers) if self.trainable else frozenset()
        if names != self._plan.names:
            warnings.warn(
                "trainable: changed since the model was first trained after compile(), and the change has no effect; "
                "call compile() after changing it",
                stacklevel=4,
            )

    def release_trainable(self) -> None:
        """Let the next training decide anew what is trained."""
        self._plan = None

    def get_states(self) -> dict[str, Array]:
        """What stateful layers carry from batch to batch, by ``layer/name``."""
        states = {}
        for layer in self.layers:
            for name, state in layer.get_states().items():
                states[f"{layer.name}/{name}"] = state
        return states

    @property
    def stateful(self) -> bool:
        """Whether each row of a batch goes on from the states of the same row of the batch before it."""
        return any(layer.stateful for layer in self.layers)

    def snapshot(self) -> Snapshot:
        """What training on a batch changes besides the weights and the optimizer."""
        for layer in self.layers:
            if layer.draws:
                return Snapshot(self.get_states(), self.generator.bit_generator.state)
        return Snapshot(self.get_states(), None)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what `snapshot` returned."""
        self.set_states(snapshot.states)
        if snapshot.generator is not None:
            self.generator.bit_generator.state = snapshot.generator

    def set_states(self, states: dict[str, Array]) -> None:
        """Carry on with what `get_states` returned."""
        unknown = {name.partition("/")[0] for name in states} - {layer.name for layer in self.layers}
        if unknown:
            raise ValueError(f"states: expected those of layers of this model, got {', '.join(sorted(unknown))}")
        for layer in self.layers:
            layer.set_states(strip_prefix(states, f"{layer.name}/"))

    def reset_states(self) -> None:
        """Forget what stateful layers carry from batch to batch."""
        for layer in self.layers:
            layer.reset_states()

    @contextlib.contextmanager
    def with_own_states(self) -> Iterator[None]:
        """A pass that begins without states, and leaves those of the call around it as they were."""
        states = self.get_states()
        self.reset_states()
        try:
            yield
        finally:
            self.reset_states()
            self.set_states(states)

    def why_alone(self) -> str | None:
        """Why a pass forward cannot share the model with another thread, if it cannot."""
        if not self.built:
            return "the call makes the weights"
        stateful = next((layer.name for layer in self.layers if layer.stateful), None)
        return None if stateful is None else f"{stateful} is stateful"

    # --- Weights ---------------------------------------------------------------------------------------------

    def views(self, flat: Array) -> dict[str, Array]:
        """Of a buffer as flat as `parameters`: what belongs to each weight, by ``layer/weight``."""
        return {name: flat[place].reshape(shape) for name, (place, shape) in self._places.items()}

    def get_weights(self) -> list[Array]:
        """Copies of all weights in Keras' order."""
        self.require_built()
        return [array.copy() for layer in self.layers for array in layer.parameters.values()]


def _unused_name(kind: str, names: set[str]) -> str:
    number = 0
    while (name := kind if number == 0 else f"{kind}_{number}") in names:
        number += 1
    return name
