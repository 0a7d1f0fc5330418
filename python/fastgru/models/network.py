"""A linear stack of layers: shapes, memory, and the forward and backward pass."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks, memory, sequences
from fastgru._support.samples import Samples, as_samples, dtype_of_batches, fits, lengths_of
from fastgru._support.seeding import new_generator
from fastgru._support.sequence_list import ListSamples
from fastgru._support.warn import warn_user
from fastgru._training.data import Form
from fastgru._training.loop import Scores, Snapshot
from fastgru.layers import InputLayer, Layer, Rescaling
from fastgru.layers.base import Outputs, Shape, strip_prefix
from fastgru.models.trainable import TrainingPlan, make_plan, trainable_names

Array = NDArray[Any]


#: The number of samples checked at once, which bounds the memory that a check needs.
_ROWS_AT_ONCE = 1024


class Network:
    """A linear stack of layers over a flat buffer of parameters and a flat buffer of gradients.

    It contains no optimizer, reads and writes no files, and does not check for concurrent calls. `fastgru.Sequential`
    does that.

    Parameters
    ----------
    dtype : {"float32", "float64"}, optional
    name : str
    on_new_memory : callable
        Called without arguments after the weights have been moved to new buffers.

    Attributes
    ----------
    layers : list of Layer
    shapes : list of tuple
        The shapes of the input and of each layer's output, with the batch axis. Empty until the model is built.
    parameters, gradient : ndarray (P,)
    dtype : dtype
        The dtype of the weights and of all computations.
    form : Form or None
        The input and output shapes of a built model.
    generator : numpy.random.Generator
        Draws initial weights, the order of samples, and dropout masks.
    trainable : bool
        False freezes all weights, regardless of the layers' ``trainable``.
    raw_head : bool
        Whether scores are the logits before the last activation, because the loss computes that activation.
    """

    def __init__(self, *, dtype: str | None, name: str, on_new_memory: Callable[[], None]) -> None:
        self.layers: list[Layer] = []
        self.name = name
        self.dtype = checks.floating_dtype("dtype", "float32" if dtype is None else dtype)
        self.generator = new_generator()
        self.form: Form | None = None
        self.trained_with_lengths = False
        self.lengths_known = False
        self._steps_trained: int | None = None  # of the last batch with lengths
        self.raw_head = False
        self.parameters: Array = np.empty(0, self.dtype)
        self.gradient: Array = np.empty(0, self.dtype)
        self._on_new_memory = on_new_memory
        self._declared: InputLayer | None = None  # an Input whose shape the next layer receives
        self.shapes: list[Shape] = []
        self._sum: Array = np.empty(0, np.float32)  # gradient of the earlier pieces of a training batch
        self._places: dict[str, tuple[slice, tuple[int, ...]]] = {}  # slice and shape of each weight in the buffers
        self.trainable = True
        self._plan: TrainingPlan | None = None  # None until the first training call
        self._planned_after = 0  # assignments to `trainable` when the plan was made
        self._scored = Scores(np.empty((0, 0), np.float32), None, (0,))  # the last result of `scores` in training

    # --- Topology and memory ---------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return bool(self.shapes) and len(self.shapes) == len(self.layers) + 1

    def draw_from(self, generator: np.random.Generator) -> None:
        """Draw all random numbers from `generator`. Call it before the model is built."""
        if self.built:
            raise ValueError(
                "generator: expected a model without weights because they are drawn from it, got a built model"
            )
        self.generator = generator

    @property
    def input_shape(self) -> Shape:
        """The shape of the input with the batch axis; None means any size. Empty until the model is built."""
        return self.shapes[0] if self.shapes else ()

    @property
    def output_shape(self) -> Shape:
        """The shape of the output with the batch axis; None means any size. Empty until the model is built."""
        return self.shapes[-1] if self.shapes else ()

    def add(self, layer: Layer | InputLayer) -> None:
        """Append a layer. If the first layer has an ``input_shape``, create the weights."""
        if isinstance(layer, InputLayer):
            self._declare(layer)
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a layer of fastgru.layers, got {layer!r}")
        if any(layer is other for other in self.layers):
            raise ValueError(
                f"layer: expected a new layer because layers cannot be shared, got {layer.name} of this model; create "
                f"another one"
            )
        if layer.parameters:
            raise ValueError(
                f"layer: expected a new layer because layers cannot be shared, got {layer.name}, which is already "
                f"built; create another one"
            )
        if layer.given_dtype not in (None, self.dtype.name):
            raise ValueError(
                f"layer: expected a layer of the model's dtype {self.dtype}, got {layer.given_dtype}; pass "
                f"dtype='{layer.given_dtype}' to Sequential"
            )
        names = {other.name for other in self.layers}
        layer.name = layer.given_name or _unused_name(layer.kind(), names)
        if layer.name in names:
            raise ValueError(f"name: expected a different name for each layer, got {layer.name!r} twice")
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
        """Store the input shape, which the next layer receives."""
        if self.layers or self._declared is not None:
            what = self.layers[-1].name if self.layers else "another Input"
            raise ValueError(f"layer: expected an Input only as the first element, got one after {what}")
        self._declared = declared

    def pop(self) -> Layer:
        """Remove and return the last layer. It keeps copies of its weights."""
        if not self.layers:
            raise ValueError(
                "pop: expected a model with layers because it removes the last one, got no layers to remove"
            )
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
        """Remove all weights and shapes, as before `build`."""
        self.shapes, self.form, self._plan, self._places = [], None, None, {}
        self.parameters = self.gradient = np.empty(0, self.dtype)
        self._on_new_memory()

    def build(self, input_shape: Shape) -> None:
        """Create the weights for an input shape with the batch axis."""
        if self.built:
            raise ValueError(f"the model is built already, for input {checks.dims(self.input_shape)}")
        self.allocate(self.shapes_for(input_shape))

    def _build_layer(self, layer: Layer, shape: Shape, *, first: bool) -> Shape:
        if layer.takes_tokens and not first:
            raise ValueError(
                f"{layer.name}: expected to be the first layer because its input is tokens, got a layer before it"
            )
        return layer.build(shape)

    def _require_one_output(self, layer: Layer) -> None:
        if layer.several_outputs:
            raise ValueError(f"{layer.name}: expected to be the last layer because it returns several arrays")

    def shapes_for(self, input_shape: Shape) -> list[Shape]:
        """Return the shapes of the input and of each layer's output, without creating weights."""
        if not self.layers:
            raise ValueError("the model has no layers: add one")
        declared = self.layers[0].input_shape
        if declared is not None and not fits(input_shape[1:], declared):
            raise ValueError(
                f"input_shape: expected {declared} because the first layer has this input_shape, got "
                f"{checks.dims(input_shape[1:], 'T')}"
            )
        shapes = [input_shape]
        for layer in self.layers:
            shapes.append(self._build_layer(layer, shapes[-1], first=layer is self.layers[0]))
        for layer in self.layers[:-1]:
            self._require_one_output(layer)
        return shapes

    def allocate(self, shapes: list[Shape], *, keep: bool = False, initialize: bool = True) -> None:
        """Allocate one flat buffer for the weights of all layers; `keep` the values of existing weights.

        `shapes` are the new shapes of the input and of each layer's output. After an error the network is unchanged,
        because all steps that may fail come before a layer receives its new memory.
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
            raise MemoryError(f"the model's {end:,} parameters need more memory than any machine has")
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
        except BaseException:  # in a custom layer, or Ctrl-C
            for layer, its_weights, its_gradients in bound[::-1]:
                with contextlib.suppress(Exception):  # the layer that failed may fail again
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
        """Whether the input is integer tokens."""
        return bool(self.layers) and self.layers[0].takes_tokens

    @property
    def finds_lengths(self) -> bool:
        """Whether a layer computes lengths from the data: a Masking, or an Embedding with mask_zero."""
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
        """Return `x` as an array of the kind that the first layer expects: integer tokens or real numbers."""
        return as_samples(name, x, tokens=self.takes_tokens)

    def samples(self, name: str, x: Array, form: Form) -> Samples:
        """Check samples that `as_samples` returned against `form`. Return an object with batches for `forward`."""
        converts = bool(self.layers) and self.layers[0].converts_input
        dtype = dtype_of_batches(x, self.dtype, tokens=self.takes_tokens, converts=converts)
        return Samples(name, x, form.input_shape, dtype)

    def form_for(self, x: Array) -> Form:
        """Return the model's shapes for samples `x`; if the model is built, `form`. `settle` applies them."""
        if self.built:
            assert self.form is not None
            return self.form
        shapes = self.shapes_for(self._input_shape_for(x))
        return Form(shapes[0], shapes[-1])

    def settle(self, form: Form) -> None:
        """Create the weights for `form` if the model has none."""
        if not self.built:
            self.build(form.input_shape)

    def check_values(self, name: str, samples: Samples | ListSamples, lengths: Array | None) -> Array | None:
        """Raise the error that the first layer, or the layer after `Rescaling`, would raise for the values of a batch.

        The message contains the index of the sample.

        Returns the lengths of the sequences, including those that the layer computes.
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
        """Return the input shape for samples `x`. The number of steps is None unless a layer depends on it."""
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
                "the model has no weights yet: pass input_shape to its first layer, or call build or fit first"
            )

    # --- Computing -------------------------------------------------------------------------------------------

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Outputs:
        """Return the outputs for a batch (N, ...) in the model's dtype; with `training`, prepare for `backward`."""
        y: Outputs = x
        for layer in self.layers:
            assert not isinstance(y, tuple)
            before, y = y, layer.forward(y, lengths=lengths, training=training)
            lengths = layer.output_lengths(before, lengths)
        return y

    def call(self, x: Any, lengths: Any, *, training: bool) -> Outputs:
        """Check a batch, and return its outputs in new arrays."""
        samples = self.samples("x", x, self.form_for(x))
        lengths = lengths_of("lengths", lengths, x, tokens=self.takes_tokens)
        self.check_values("x", samples, lengths)
        batch = samples.batch(slice(None), lengths)
        y = self.forward(batch, lengths=lengths, training=training)
        if isinstance(y, tuple):
            return tuple(part.copy() for part in y)
        return y.copy() if np.may_share_memory(y, batch) else y

    def scores(self, x: Array, lengths: Array | None, *, training: bool) -> Scores:
        """Return the input of the loss: the outputs, or the logits if the loss computes the last activation itself.

        If possible, the last layer computes valid elements only.
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
        """Return the outputs (M, C) of the model, given the scores (M, C)."""
        if not self.raw_head:
            return scores
        head = self.layers[-1].head
        return head.activate(scores)  # type: ignore[no-any-return]

    def tape_bytes(self, x: Array) -> int:
        """Return how many bytes `scores` stores for `backward` in a training pass on the batch `x`."""
        steps = x.shape[1] if x.ndim > 2 or self.takes_tokens else 0
        return len(x) * sum(layer.tape_elements(steps) for layer in self.layers) * self.dtype.itemsize

    def backward(self, d_scores: Array, *, add: bool = False) -> None:
        """Overwrite `gradient`, or with `add` add to it, given the gradient (M, C) of the last training scores."""
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
        """Return the gradient of all outputs of the last batch, given the gradient of the valid ones."""
        kept, shape = self._scored.kept, self._scored.shape
        everything = d_scores
        if kept is not None:
            everything = np.zeros((self._scored.everything, d_scores.shape[-1]), d_scores.dtype)
            everything[kept] = d_scores
        return everything.reshape(*shape, d_scores.shape[-1])

    def penalty(self) -> float:
        """Return the sum of the regularization penalties."""
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
        """Return the training plan that `fix_trainable` fixed, or before that one for the layers' current state."""
        if self._plan is not None:
            return self._plan
        return make_plan(self.layers if self.trainable else [], self._places, self.parameters.size)

    @property
    def trainable_ranges(self) -> list[slice] | None:
        """Return the slices of the flat buffers with trainable weights; None if all weights are trainable."""
        return self.plan.ranges

    def trainable_views(self, flat: Array) -> dict[str, Array]:
        """Return views of a buffer with the layout of `parameters`, by ``layer/weight``, of trainable weights only."""
        names = self.plan.names
        return {name: view for name, view in self.views(flat).items() if name in names}

    def fix_trainable(self) -> None:
        """Fix which weights are trained until `release_trainable`, if not fixed already. The model must be built.

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
            warn_user("the model does not have any trainable weights, so training changes nothing")

    def note_lengths(self, lengths: Array, steps: int) -> None:
        """Set `trained_with_lengths` if this batch or an earlier one shows that sequences have different lengths.

        Batches of one sequence, or of sequences of one length, have no padding.
        """
        if not self.trained_with_lengths:
            other = self._steps_trained not in (None, steps)
            self.trained_with_lengths = other or bool((lengths < steps).any())
            self._steps_trained = steps

    def warn_of_changed_trainable(self) -> None:
        """Warn if ``trainable`` has changed since `fix_trainable`."""
        if self._plan is None or self._planned_after == Layer.trainable_assignments:
            return
        names = trainable_names(self.layers) if self.trainable else frozenset()
        if names != self._plan.names:
            warn_user(
                "trainable: changed after the first training call since compile(), so that the change has no effect; "
                "call compile() after changing it"
            )

    def release_trainable(self) -> None:
        """Let the next training call fix which weights are trained."""
        self._plan = None

    def get_states(self) -> dict[str, Array]:
        """Return the states of stateful layers by ``layer/name``."""
        states = {}
        for layer in self.layers:
            for name, state in layer.get_states().items():
                states[f"{layer.name}/{name}"] = state
        return states

    @property
    def stateful(self) -> bool:
        """Whether each row of a batch starts from the final state of the same row of the previous batch."""
        return any(layer.stateful for layer in self.layers)

    def snapshot(self) -> Snapshot:
        """Return the state that a training step changes, without the weights and the optimizer state."""
        for layer in self.layers:
            if layer.draws:
                return Snapshot(self.get_states(), self.generator.bit_generator.state)
        return Snapshot(self.get_states(), None)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the state that `snapshot` returned."""
        self.set_states(snapshot.states)
        if snapshot.generator is not None:
            self.generator.bit_generator.state = snapshot.generator

    def set_states(self, states: dict[str, Array]) -> None:
        """Set the states of stateful layers to those that `get_states` returned."""
        unknown = {name.partition("/")[0] for name in states} - {layer.name for layer in self.layers}
        if unknown:
            raise ValueError(f"states: expected states of layers of this model, got {', '.join(sorted(unknown))}")
        for layer in self.layers:
            layer.set_states(strip_prefix(states, f"{layer.name}/"))

    def reset_states(self) -> None:
        """Clear the states of stateful layers."""
        for layer in self.layers:
            layer.reset_states()

    @contextlib.contextmanager
    def with_own_states(self) -> Iterator[None]:
        """Start the block without layer states, and restore the outer states after it."""
        states = self.get_states()
        self.reset_states()
        try:
            yield
        finally:
            self.reset_states()
            self.set_states(states)

    def why_alone(self) -> str | None:
        """Return why a forward pass needs exclusive access to the model, or None if it does not."""
        if not self.built:
            return "the call creates the weights"
        stateful = next((layer.name for layer in self.layers if layer.stateful), None)
        return None if stateful is None else f"{stateful} is stateful"

    # --- Weights ---------------------------------------------------------------------------------------------

    def views(self, flat: Array) -> dict[str, Array]:
        """Return views of a buffer with the layout of `parameters`, by ``layer/weight``."""
        return {name: flat[place].reshape(shape) for name, (place, shape) in self._places.items()}

    def get_weights(self) -> list[Array]:
        """Return copies of all weights in Keras' order."""
        self.require_built()
        return [array.copy() for layer in self.layers for array in layer.parameters.values()]


def _unused_name(kind: str, names: set[str]) -> str:
    number = 0
    while (name := kind if number == 0 else f"{kind}_{number}") in names:
        number += 1
    return name
