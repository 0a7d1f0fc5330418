"""The training and evaluation loops.

The module does not import models. `fastgru.Sequential` passes its network, which implements the protocol `Trainable`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgru import losses
from fastgru._support import checks
from fastgru._support.samples import Samples
from fastgru._support.sequence_list import ListSamples
from fastgru._training import diagnosis
from fastgru._training.data import ArraySet, Batch, Form, StreamSet
from fastgru._training.options import FitOptions
from fastgru._training.progress import Progress
from fastgru.callbacks import History
from fastgru.callbacks.dispatch import Callbacks
from fastgru.layers import Layer
from fastgru.losses import Loss, LossResult
from fastgru.metrics import Metric
from fastgru.optimizers import Optimizer

Array = NDArray[Any]

#: Maximum size in bytes of a tape that is still in a last-level cache when the backward pass starts, beside other data.
CACHED_TAPE = 5_000_000
#: Entries of `asked` that older files of 0.1.0 lack.
_ASKED_LATER = {"validation_split"}
#: Minimum number of rows per piece; with fewer rows, the kernels lose more throughput than the cached tape gains.
LEAST_ROWS = 128


class Scores(NamedTuple):
    """The inputs of the loss for the elements of a batch: its samples, or the valid steps if outputs are sequences.

    Scores are the outputs of the network, or the inputs of its last activation if the loss includes that activation.

    Attributes
    ----------
    values : ndarray (M, C)
    kept : ndarray (M,) of integers, or None
        Flat indices of these elements among all elements; None if no element is left out.
    shape : tuple of int
        Shape of all elements, (N,) or (N, T, ...).
    activation : str or None
        The last activation, if it has not been applied; None if scores are the outputs.
    """

    values: Array
    kept: NDArray[np.intp] | None
    shape: tuple[int, ...]
    activation: str | None = None

    @property
    def everything(self) -> int:
        """Number of all elements, including padding."""
        return math.prod(self.shape)

    def pick(self, array: Array) -> Array:
        """Return the values of an array (N, ...) or (N, T, ...) that belong to the elements."""
        if self.kept is None and len(self.shape) == 1:
            return array
        flat = array.reshape(self.everything, *array.shape[len(self.shape) :])
        return flat if self.kept is None else flat[self.kept]

    def place(self, element: int) -> tuple[int, ...]:
        """Return the index of an element: (sample,) or (sample, step, ...)."""
        number = element if self.kept is None else int(self.kept[element])
        return tuple(int(i) for i in np.unravel_index(number, self.shape))


class Snapshot(NamedTuple):
    """State that a training step changes besides parameters and optimizer; it is restored if the step fails.

    Attributes
    ----------
    states : dict of str to ndarray
        The states of stateful layers.
    generator : dict or None
        The state of the random generator; None if no layer uses one.
    """

    states: dict[str, Array]
    generator: Any


class Trainable(Protocol):
    """A network that the loops of this module train."""

    parameters: Array
    gradient: Array
    layers: list[Layer]
    form: Form | None
    trained_with_lengths: bool  # whether it was trained on sequences of different lengths
    lengths_known: bool  # whether the user has passed lengths to an evaluation, or has been warned

    @property
    def takes_tokens(self) -> bool:
        """Whether the input consists of integer tokens."""

    @property
    def finds_lengths(self) -> bool:
        """Whether a layer computes lengths from the data."""

    @property
    def input_axes(self) -> int | None:
        """Number of axes of the input, with the batch axis; None if it is unknown."""

    @property
    def stateful(self) -> bool:
        """Whether each row of a batch continues from the states of the same row of the previous batch."""

    def note_lengths(self, lengths: Array, steps: int) -> None:
        """Set `trained_with_lengths` if this batch or an earlier one shows that sequences have different lengths."""

    def as_samples(self, name: str, x: Any) -> Array:
        """Return `x` as an array of numbers that the network accepts."""

    def samples(self, name: str, x: Array, form: Form) -> Samples:
        """Return the samples of an array that `as_samples` returned, for gathering batches."""

    def form_for(self, x: Array) -> Form:
        """Return the shapes of the network for samples `x`; if it is built, `form`. Changes nothing."""

    def settle(self, form: Form) -> None:
        """Create the weights for these shapes, unless they exist."""

    def check_values(self, name: str, samples: Samples | ListSamples, lengths: Array | None) -> Array | None:
        """Raise if the first layer would raise for a value in any batch; returns the lengths of the sequences."""

    def scores(self, x: Array, lengths: Array | None, *, training: bool) -> Scores:
        """Return the inputs of the loss, without padding."""

    def outputs(self, scores: Array) -> Array:
        """Convert scores (M, C) to outputs of the model (M, C)."""

    def tape_bytes(self, x: Array) -> int:
        """Return the bytes that `scores` keeps for `backward` when it trains on the batch `x`."""

    def backward(self, d_scores: Array, *, add: bool = False) -> None:
        """Write `gradient`, or with `add` add to it, given the gradient (M, C) of the last training `scores`."""

    def views(self, flat: Array) -> dict[str, Array]:
        """Return a view of each weight, by name, in a flat buffer laid out as `parameters`."""

    def trainable_views(self, flat: Array) -> dict[str, Array]:
        """Return a view of each trainable weight, by name, in a flat buffer laid out as `parameters`."""

    def snapshot(self) -> Snapshot:
        """Return the state that a training step changes besides `parameters` and the optimizer."""

    def restore(self, snapshot: Snapshot) -> None:
        """Restore a state that `snapshot` returned."""

    def penalty(self) -> float:
        """Return the sum of the regularizers' penalties."""

    def complete_gradient(self) -> None:
        """Set the gradient of frozen weights to 0, and add the regularizers' gradient."""

    def fix_trainable(self) -> None:
        """Determine which weights are trainable, unless this was done before."""

    @property
    def trainable_ranges(self) -> list[slice] | None:
        """Ranges of the trainable weights in the flat buffers; None if all weights are trainable."""


class Tally:
    """Running mean of the loss and values of the metrics, independent of the batch size; resets `metrics`."""

    def __init__(self, network: Trainable, loss: Loss, metrics: Sequence[Metric]) -> None:
        self._network = network
        self._loss = loss
        self._metrics = metrics
        self.reset()

    def reset(self) -> None:
        """Discard all elements, and reset the metrics."""
        self._sum = 0.0
        self._count = 0
        for metric in self._metrics:
            metric.reset_state()

    def add(self, scores: Array, targets: Array, result: LossResult, total: float, penalty: float) -> None:
        """Add M elements, given their scores (M, C), the result of the loss, and the sum of its weighted values."""
        self._sum += total + penalty * len(scores)
        self._count += len(scores)
        outputs = None
        for metric in self._metrics:
            if metric.on_scores:
                metric.update(scores, targets, result)
            else:
                outputs = self._network.outputs(scores) if outputs is None else outputs
                metric.update(outputs, targets, result)

    def values(self) -> dict[str, float]:
        """Return ``loss`` and the metrics by name; the loss of no elements is NaN."""
        values = {"loss": self._sum / self._count if self._count else math.nan}
        for metric in self._metrics:
            values[metric.name] = metric.result()
        return values

    def get_state(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {"sum": self._sum, "count": self._count, "metrics": [metric.get_state() for metric in self._metrics]}

    def require_sound(self, state: dict[str, Any]) -> None:
        """Raise if `state` is damaged: `get_state` cannot have returned it."""
        checks.real("tally.sum", state["sum"])
        checks.integer("tally.count", state["count"], least=0)
        for metric, saved in zip(self._metrics, state["metrics"], strict=True):
            metric.require_sound(saved)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `get_state` returned."""
        self._sum, self._count = state["sum"], state["count"]
        for metric, saved in zip(self._metrics, state["metrics"], strict=True):
            metric.set_state(saved)


def _weighted_loss(loss: Loss, batch: Batch, scores: Scores, *, gradient: bool) -> tuple[Array, LossResult, Array]:
    """Return the targets of the elements, the result of the loss, and its values multiplied by the sample weights.

    The gradient of the result, computed with `gradient` only, is that of the mean of the weighted values.
    """
    targets = scores.pick(batch.y)
    result = loss.compute(scores.values, targets, activation=scores.activation, gradient=gradient)
    if batch.weights is None:
        return targets, result, result.values
    axes = len(scores.shape) - batch.weights.ndim
    weights = scores.pick(np.broadcast_to(np.expand_dims(batch.weights, tuple(range(-axes, 0))), scores.shape))
    if result.d_scores is not None:
        result = result._replace(d_scores=result.d_scores * weights[:, None].astype(result.d_scores.dtype))
    return targets, result, result.values * weights


def train_step(network: Trainable, loss: Loss, optimizer: Optimizer, batch: Batch, tally: Tally) -> None:
    """Train on one batch, and add it to `tally`.

    Raises
    ------
    FloatingPointError
        The loss, its gradient or the updated parameters are not finite. Parameters, optimizer, states, random generator
        and `tally` are unchanged then. The message states the cause and names the sample.
    """
    network.fix_trainable()
    before = network.snapshot()
    penalty = network.penalty()
    updating = False
    try:
        if not math.isfinite(penalty):
            raise FloatingPointError(f"the regularizers' penalty is {penalty}")
        found = _find_gradient(network, loss, batch)
        updating = True
        ranges = network.trainable_ranges
        if ranges is None or ranges:  # as in Keras, the optimizer counts no update if all weights are frozen
            optimizer.update(network.parameters, network.gradient, ranges=ranges, views=network.trainable_views)
    except BaseException as error:
        # A KeyboardInterrupt during the update is raised after it, so the batch has been trained on.
        if isinstance(error, Exception) or not updating:
            network.restore(before)
        if isinstance(error, FloatingPointError):
            raise FloatingPointError(_explain(network, loss, batch, before, error)) from None
        raise
    if batch.lengths is not None:
        network.note_lengths(batch.lengths, batch.x.shape[1])
    for each in found:
        tally.add(*each, penalty)


def _explain(network: Trainable, loss: Loss, batch: Batch, before: Snapshot, error: FloatingPointError) -> str:
    """Return the cause of an error of a training step, and the remedy."""
    what, remedy = str(error), "lower the learning rate, or scale x and y to numbers near 1"
    if losses.registered_name(loss) is None:
        own = loss.name if isinstance(loss, losses.LossFunctionWrapper) else type(loss).__name__
        remedy += f", or correct {own} if it returned that"
    weights = network.views(network.parameters)
    cause = diagnosis.find_cause(batch, network.parameters.dtype, weights, before.states)
    if cause is not None:
        what, remedy = f"{what} because {cause[0]}", cause[1]
    return f"{what}; the weights are those before this batch; {remedy}"


def _find_gradient(network: Trainable, loss: Loss, batch: Batch) -> list[tuple[Array, Array, LossResult, float]]:
    """Write the gradient; returns the arguments of `Tally.add` for each piece of the batch."""
    everything = counted = 0
    found: list[tuple[Array, Array, LossResult, float]] = []
    for rows in pieces(network, batch.x):
        piece = batch.rows(rows) if len(batch.x) > rows.stop - rows.start else batch
        scores = network.scores(piece.x, piece.lengths, training=True)
        targets, result, values = _weighted_loss(loss, piece, scores, gradient=True)
        total = float(values.sum())
        if not math.isfinite(total) and not np.isfinite(values).all():  # the sum of finite values may overflow
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise FloatingPointError(_describe_loss(values[bad], scores.place(bad), piece, rows))
        d_scores = result.d_scores
        assert d_scores is not None
        if piece is not batch:
            # Rescale the gradient of the piece's mean to that of a mean over all elements of the batch, with padding.
            # The number of valid elements is known after the last piece only, and is corrected for below.
            everything = len(batch.x) * (scores.everything // len(piece.x))
            d_scores = d_scores * d_scores.dtype.type(len(values) / everything)
        network.backward(d_scores, add=rows.start > 0)
        found.append((scores.values, targets, LossResult(result.values, None, result.correct), total))
        counted += len(values)
    if everything > counted:
        network.gradient *= network.gradient.dtype.type(everything / max(counted, 1))
    network.complete_gradient()
    return found


def _describe_loss(value: float, place: tuple[int, ...], piece: Batch, rows: slice) -> str:
    sample, *step = place
    where = f"sample {rows.start + sample} of the batch" + (f", step {step[0]}," if step else "")
    number = "" if piece.samples is None else f" (sample {piece.samples[sample]} of x)"
    return f"the loss of {where} is {value}{number}"


def pieces(network: Trainable, x: Array) -> list[slice]:
    """Return the parts of a batch to train on one after another, so that their tapes fit into the caches.

    The parts depend on the shape of the batch only. The batches of a stateful network are not divided, because each row
    belongs to a row of the previous batch.
    """
    if len(x) < 2 * LEAST_ROWS or network.stateful:
        return [slice(0, len(x))]
    count = -(-network.tape_bytes(x) // CACHED_TAPE)
    if count <= 1 or len(x) < count * LEAST_ROWS:
        return [slice(0, len(x))]
    edges = [len(x) * index // count for index in range(count + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def evaluate(
    network: Trainable,
    loss: Loss,
    data: ArraySet | StreamSet,
    batch_size: int,
    metrics: Sequence[Metric],
    callbacks: Callbacks,
    steps: int | None = None,
) -> dict[str, float]:
    """Return loss and metrics of a data set, or of its first `steps` batches."""
    tally = Tally(network, loss, metrics)
    penalty = network.penalty()
    watched = callbacks.watch("on_test_batch_end")
    callbacks.tell("on_test_begin", {})
    for number, batch in enumerate(itertools.islice(data.in_order(batch_size), steps)):
        callbacks.tell("on_test_batch_begin", number, {})
        scores = network.scores(batch.x, batch.lengths, training=False)
        targets, result, values = _weighted_loss(loss, batch, scores, gradient=False)
        tally.add(scores.values, targets, result, float(values.sum()), penalty)
        if watched:
            callbacks.tell("on_test_batch_end", number, tally.values())
    found = tally.values()
    callbacks.tell("on_test_end", dict(found))
    return found


class Run:
    """A training run: the state besides the weights on which the next update depends.

    Parameters
    ----------
    tally : Tally
    history : History
    callbacks : Callbacks
    generator : numpy.random.Generator
        The generator of the model, for the order of samples and for dropout.
    asked : dict
        The options that must be the same in a resumed run, as JSON values.
    write : callable (run, path)
        Writes the model and the run to a file.
    initial_epoch : int
        The first epoch of a run that is not resumed.
    """

    def __init__(
        self,
        tally: Tally,
        history: History,
        callbacks: Callbacks,
        generator: np.random.Generator,
        asked: dict[str, Any],
        write: Callable[[Run, str | os.PathLike[str]], None],
        initial_epoch: int = 0,
    ) -> None:
        self.tally = tally
        self.history = history
        self.callbacks = callbacks
        self.initial_epoch = initial_epoch
        self.epoch = initial_epoch  # the current or next epoch
        self.batch = 0  # number of completed batches of this epoch
        self.stopped = False
        self.checked = False  # whether `require_saveable` has passed
        self.last_logs: dict[str, Any] = {}  # logs of the last epoch of this call of fit
        self._generator = generator
        self._before_epoch: dict[str, Any] | None = None  # state of the generator before the epoch's order was drawn
        self._asked = asked
        self._write = write
        self._due: list[str | os.PathLike[str]] = []

    def draw_order(self, data: ArraySet | StreamSet, *, shuffle: bool) -> None:
        """Draw the order of an epoch; for an epoch that is resumed, draw the same order as before."""
        if self.batch == 0 or self._before_epoch is None:
            self._before_epoch = dict(self._generator.bit_generator.state)
            data.shuffle(self._generator if shuffle else None)
            return
        now = self._generator.bit_generator.state
        self._generator.bit_generator.state = self._before_epoch
        data.shuffle(self._generator if shuffle else None)
        self._generator.bit_generator.state = now

    # --- Files ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Request that the next `write_due` writes the run to `path`.

        A file written between the calls of two callbacks would contain the state of one callback after the event, and
        that of the other before it.
        """
        self._due.append(path)

    def write_due(self) -> None:
        """Write the files that `save` requested."""
        due, self._due = self._due, []
        for path in due:
            self._write(self, path)

    def forget_due(self) -> None:
        """Cancel the requests of `save`."""
        self._due = []

    def require_saveable(self) -> None:
        """Raise if a callback will write files of a format that does not support the model, which must be built."""
        self.callbacks.require_saveable()
        self.checked = True

    def tell(self, occasion: str, *arguments: Any) -> None:
        """Call a method of all callbacks, then write the files that they requested."""
        self.callbacks.tell(occasion, *arguments)
        self.write_due()

    # --- State ---------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return the state as numbers, strings, lists, dicts and arrays."""
        return {
            "initial_epoch": self.initial_epoch,
            "epoch": self.epoch,
            "batch": self.batch,
            "stopped": self.stopped,
            "generator_before_epoch": self._before_epoch,
            "tally": self.tally.get_state(),
            **self.history.get_epochs(),
            "asked": self._asked,
            "callbacks": self.callbacks.get_state(),
        }

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:
        """Raise if `state` is damaged; nothing changes. Training with a damaged state would raise later.

        `require_same` checks whether the state belongs to this training run. `weights` are the weights in the file.
        """
        self.history.require_sound_epochs(state)
        # Resuming reads a stream from its beginning; with a number that is too large, that would take for ever.
        initial = checks.integer("initial_epoch", state.get("initial_epoch", 0), least=0)
        checks.integer("epoch", state["epoch"], least=initial, most=initial + len(state["epochs_done"]))
        checks.integer("batch", state["batch"], least=0)
        checks.flag("stopped", state["stopped"])
        if state["generator_before_epoch"] is not None:
            np.random.PCG64().state = state["generator_before_epoch"]
        json.dumps(state["asked"])  # no arrays, which cannot be compared as a whole
        if self._asked.keys() - _ASKED_LATER != state["asked"].keys() - _ASKED_LATER:
            raise ValueError(f"asked: expected {', '.join(self._asked)}, got {', '.join(state['asked'])}")
        self.tally.require_sound(state["tally"])
        self.callbacks.require_sound(state["callbacks"], weights)

    def require_same(self, state: dict[str, Any]) -> None:
        """Raise ValueError if `state` comes from a run with other data, batches or callbacks."""
        for name, ours in self._asked.items():
            if name in _ASKED_LATER and name not in state["asked"]:
                continue
            theirs = state["asked"][name]
            if theirs != ours:
                raise ValueError(
                    f"resume_from: expected {name}={theirs} as in the run to resume, got {ours}; pass the same value"
                )
        initial = state.get("initial_epoch", 0)
        if self.initial_epoch not in (0, initial, state["epoch"]):
            raise ValueError(
                f"initial_epoch: expected 0 because resume_from continues with epoch {state['epoch']}, got "
                f"{self.initial_epoch}; pass only one of the two"
            )
        self.callbacks.require_same(state["callbacks"])

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `get_state` returned."""
        self.tally.set_state(state["tally"])
        self.history.set_epochs(state)
        self.initial_epoch = state.get("initial_epoch", 0)  # older files of 0.1.0 lack it
        self.epoch, self.batch, self.stopped = state["epoch"], state["batch"], state["stopped"]
        self._before_epoch = state["generator_before_epoch"]
        self.callbacks.set_state(state["callbacks"])


def fit(
    network: Trainable,
    loss: Loss,
    optimizer: Optimizer,
    data: ArraySet | StreamSet,
    run: Run,
    options: FitOptions,
    validate: Callable[[], dict[str, float]] | None,
) -> None:
    """Train until `options.epochs` epochs are complete; the callbacks receive the logs of each epoch.

    `validate` returns the loss and the metrics of the validation, by name.

    Raises
    ------
    FloatingPointError
        As in `train_step`; the message also names epoch and batch.
    """
    callbacks = run.callbacks
    progress = Progress(1 if options.verbose == "auto" else int(options.verbose), options.epochs, data.count)
    callbacks.stop_training = run.stopped
    data.pass_over(run.epoch - run.initial_epoch)
    whole = True
    try:
        # A resumed epoch that was stopped between two batches must still be completed.
        while whole and run.epoch < options.epochs and not (callbacks.stop_training and run.batch == 0):
            epoch = run.epoch
            begin = time.perf_counter()
            whole, samples = _train_epoch(network, loss, optimizer, data, run, options, progress)
            seconds = time.perf_counter() - begin
            logs = run.tally.values()
            if validate is not None and options.validates(epoch):
                logs |= {f"val_{name}": value for name, value in validate().items()}
            run.history.seconds.append(seconds)
            progress.epoch_ends(epoch, logs, seconds, samples)
            callbacks.tell("on_epoch_end", epoch, logs, write=whole)
            run.last_logs = logs
            run.stopped = callbacks.stop_training
            if whole:
                run.epoch, run.batch = epoch + 1, 0
                run.write_due()
            else:  # files saved after complete epochs are kept, even if a callback requests to save now
                run.forget_due()
    finally:
        progress.close()


def _train_epoch(
    network: Trainable,
    loss: Loss,
    optimizer: Optimizer,
    data: ArraySet | StreamSet,
    run: Run,
    options: FitOptions,
    progress: Progress,
) -> tuple[bool, int]:
    """Train on the remaining batches of an epoch.

    Returns
    -------
    whole : bool
        False if a loss that is not finite has ended the epoch.
    samples : int
        Number of samples of the epoch that have been trained on.
    """
    run.draw_order(data, shuffle=options.shuffle)
    samples = run.batch * options.batch_size
    if run.batch == 0:
        run.tally.reset()
        run.tell("on_epoch_begin", run.epoch, {})
    elif run.callbacks.stop_training:  # a callback stopped the epoch before the interruption
        return True, samples
    progress.epoch_begins(run.epoch)
    for batch in data.batches(options.batch_size, run.batch):
        if not run.checked:  # the model has been built by the first batch of an iterable
            run.require_saveable()
        if not _train_batch(network, loss, optimizer, batch, run, progress):
            return False, samples
        samples += len(batch.x)
        if progress.wants_update():
            progress.update(samples, run.tally.values())
        if run.callbacks.stop_training:
            break
    return True, samples


def _train_batch(
    network: Trainable, loss: Loss, optimizer: Optimizer, batch: Batch, run: Run, progress: Progress
) -> bool:
    """Train on the next batch; returns False if the loss is not finite and a callback handles this."""
    callbacks = run.callbacks
    if callbacks.watch("on_train_batch_begin"):
        run.tell("on_train_batch_begin", run.batch, {})
    try:
        train_step(network, loss, optimizer, batch, run.tally)
    except FloatingPointError as error:
        message = f"training stopped in epoch {run.epoch + 1}, batch {run.batch + 1}: {error}"
        if not callbacks.stops_at_nan():
            raise FloatingPointError(message) from None
        progress.say(message)
        callbacks.stop_training = True
        return False
    run.batch += 1
    if callbacks.watch("on_train_batch_end"):
        callbacks.tell("on_train_batch_end", run.batch - 1, run.tally.values())
    run.stopped = callbacks.stop_training
    run.write_due()
    return True
