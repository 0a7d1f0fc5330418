"""Checks of the data of `fit`, `evaluate` and `train_on_batch`, which make sets and batches of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._support.samples import Samples, lengths_of
from fastgru._training import data
from fastgru._training.data import ArraySet, Batch, Form, StreamSet, Unchecked
from fastgru._training.loop import Trainable
from fastgru._training.options import FitOptions
from fastgru._training.sample_weights import check_weights, classes_in, weigh_classes
from fastgru.losses import Loss

Array = NDArray[Any]

#: What a batch or a whole set is made of, by the names of the arguments.
_NAMES = ("x", "y", "lengths", "sample_weight")


class Sets(NamedTuple):
    """The data of a training."""

    training: ArraySet | StreamSet
    validation: ArraySet | StreamSet | None
    form: Form | None  # what the model will be; None where batches of an iterable decide that


class Preparation:
    """Checks data for one network and its loss. Only `batch` changes the network: the first batch decides its form.

    Parameters
    ----------
    network : Trainable
    loss : Loss
    class_weight : dict, optional
        Factors of the losses by class.
    """

    def __init__(self, network: Trainable, loss: Loss, class_weight: dict[int, float] | None = None) -> None:
        self._network = network
        self._loss = loss
        self._class_weight = class_weight

    def _check(
        self, given: Unchecked, form: Form, names: tuple[str, ...]
    ) -> tuple[Samples, Array, Array | None, Array | None]:
        """Samples, targets, lengths and weights, checked against a model of that form and each other."""
        tokens = self._network.takes_tokens
        samples = Samples(names[0], given.x, form.input_shape, form.dtype, tokens=tokens)
        if given.y is None:
            raise TypeError(f"{names[1]}: expected targets because {names[0]} is an array, got None")
        shape = _shape_for(given.x, form.output_shape)
        lengths = None
        if given.lengths is not None:
            lengths = lengths_of(names[2], given.lengths, given.x, tokens=tokens)
        # What targets and weights hold in padding does not matter, whoever says what that is.
        counted = self._network.check_values(names[0], samples, lengths)
        if len(shape) < 3:
            counted = None
        y = self._loss.check_targets(names[1], given.y, shape, counted)
        weights = None
        if given.weights is not None:
            weights = check_weights(names[3], given.weights, shape[:-1], counted)
        if self._class_weight is not None:
            weights = weigh_classes(self._class_weight, y, shape, weights, counted)
        return samples, y, lengths, weights

    def batch(self, given: Unchecked, names: tuple[str, ...] = _NAMES) -> Batch:
        """A batch; the first one of all decides what the network is."""
        form = self._network.form_for(names[0], given.x, decide_dtype=True)
        samples, y, lengths, weights = self._check(given, form, names)
        if len(samples) == 0:
            raise ValueError(f"{names[0]}: expected at least one sample, got 0")
        if form is not self._network.form:
            self._network.settle(form, decide_dtype=True)
        return Batch(samples.batch(slice(None)), y, lengths, weights)

    def set_of(
        self, given: Unchecked, steps: int | None, *, decide_dtype: bool, steps_name: str
    ) -> tuple[ArraySet | StreamSet, Form | None]:
        """A set of arrays and what they make of the model, or an iterable of batches where no y stands beside x."""
        if given.y is None and not isinstance(given.x, np.ndarray) and isinstance(given.x, Iterable):
            for name, value in (("lengths", given.lengths), ("sample_weight", given.weights)):
                if value is not None:
                    raise ValueError(f"{name}: expected none because x is an iterable of batches, got some")
            return self._stream("x", given.x, steps, steps_name=steps_name), None
        if steps is not None and steps_name == "steps_per_epoch":
            raise ValueError("steps_per_epoch: expected none because x is an array, got a number")
        form = self._network.form_for("x", given.x, decide_dtype=decide_dtype)
        return ArraySet(*self._check(given, form, _NAMES)), form

    def validation(self, given: Any, steps: int | None, form: Form | None) -> tuple[ArraySet | StreamSet, Form | None]:
        """The set to validate on, and what the model will be, which arrays decide if the data to train on does not."""
        if isinstance(given, Mapping) or (isinstance(given, (tuple, list)) and not all(map(_is_batch, given))):
            keys = ("'x'", "'y'", "'lengths'", "'sample_weight'") if isinstance(given, Mapping) else ("0", "1", "", "2")
            names = tuple(f"validation_data[{key}]" for key in keys)
            arrays = data.unpack("validation_data", given)
            form = form or self._network.form_for(names[0], arrays.x, decide_dtype=True)
            return ArraySet(*self._check(arrays, form, names)), form
        if isinstance(given, np.ndarray) or not isinstance(given, Iterable):
            raise TypeError(
                "validation_data: expected (x, y), (x, y, sample_weight), a dict or an iterable of batches, got "
                f"{type(given).__name__}"
            )
        return self._stream("validation_data", given, steps, steps_name="validation_steps"), form

    def _stream(self, name: str, source: Iterable[Any], steps: int | None, *, steps_name: str) -> StreamSet:
        def check(batch: str, given: Unchecked) -> Batch:
            return self.batch(given, tuple(f"{batch}, {part}" for part in _NAMES))

        return StreamSet(name, source, check, steps, steps_name=steps_name)


def prepare(network: Trainable, loss: Loss, given: Unchecked, validation_data: Any, options: FitOptions) -> Sets:
    """Check all data of a call of `fit`, which must call this function itself: a warning counts the stack frames."""
    training, form = Preparation(network, loss, options.class_weight).set_of(
        given, options.steps_per_epoch, decide_dtype=True, steps_name="steps_per_epoch"
    )
    validation: ArraySet | StreamSet | None = None
    if validation_data is not None:
        if options.splits:
            raise ValueError("validation_split: expected 0 because validation_data is given, got both")
        validation, form = Preparation(network, loss).validation(validation_data, options.validation_steps, form)
    elif options.splits:
        if isinstance(training, StreamSet):
            raise ValueError("validation_split: expected 0 because x is an iterable of batches, got some")
        assert form is not None
        training, validation = _hold_back(training, options.validation_split, loss, form)
    if options.validation_steps is not None and not isinstance(validation, StreamSet):
        raise ValueError(
            "validation_steps: expected none because validation_data is no iterable of batches, got a number"
        )
    if training.count == 0 or (validation is not None and validation.count == 0):
        part = f" after validation_split={options.describe_split()}" if options.splits else ""
        raise ValueError(f"x: expected at least one sample to train and to validate on, got {len(given.x)}{part}")
    _require_whole_batches("batch_size", network, options.batch_size, training.count)
    if validation is not None:
        name = "batch_size" if options.validation_batch_size is None else "validation_batch_size"
        _require_whole_batches(name, network, options.rows_to_validate, validation.count)
    return Sets(training, validation, form)


def _hold_back(arrays: ArraySet, split: float | NDArray[np.intp], loss: Loss, form: Form) -> tuple[ArraySet, ArraySet]:
    """Data to train on, and to validate on."""
    if not isinstance(split, float):
        outside = split[(split < 0) | (split >= len(arrays))]
        if len(outside):
            raise ValueError(
                f"validation_split: expected indices from 0 to {len(arrays) - 1} because x has {len(arrays)} samples, "
                f"got {outside[0]}"
            )
        return arrays.hold_back(split)
    kept, held = arrays.split(split)
    one, other = (classes_in(loss, *part.targets(), form.output_shape) for part in (kept, held))
    if len(kept) and len(held) and one is not None and other is not None and (one != other).any():
        parts = (one & ~other, f"{len(held)} held back"), (other & ~one, f"{len(kept)} others")
        missing = " and ".join(
            f"no sample of {_listed(classes)} among the {part}" for classes, part in parts if classes.any()
        )
        warnings.warn(
            f"validation_split: expected every class in both parts, got {missing}; the last samples are held back, "
            f"as in Keras: shuffle x and y together before, or pass the indices of the samples to hold back",
            UserWarning,
            stacklevel=5,  # the line that calls fit
        )
    return kept, held


def _require_whole_batches(name: str, network: Trainable, batch_size: int, count: int | None) -> None:
    """Raise if a stateful layer would get a last batch of fewer rows; not known of an iterable."""
    if network.stateful and count is not None and count > batch_size and count % batch_size:
        layer = next(layer.name for layer in network.layers if layer.stateful)
        raise ValueError(
            f"{name}: expected a divisor of {count}, the number of samples, because {layer} is stateful and "
            f"batches of other sizes have other rows, got {batch_size}"
        )


def _listed(classes: NDArray[np.bool_]) -> str:
    """Numbers of classes for a message."""
    numbers = np.flatnonzero(classes)
    shown = ", ".join(map(str, numbers[:8]))
    return f"class {shown}{', ...' if len(numbers) > 8 else ''}"


def _is_batch(given: Any) -> bool:
    """Whether it is a batch of its own, and no array."""
    pair = isinstance(given, (tuple, list)) and len(given) > 0 and isinstance(given[0], np.ndarray)
    return pair or isinstance(given, Mapping)


def _shape_for(x: Array, output_shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of the outputs for samples `x`; an axis that any size will do for is the steps'."""
    sizes = output_shape[1:]
    if None in sizes:
        sizes = tuple(x.shape[1] if size is None else size for size in sizes)
    return (len(x), *sizes)  # type: ignore[arg-type]  # None has been replaced
