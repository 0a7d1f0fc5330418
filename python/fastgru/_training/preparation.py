"""Checks the data of `fit`, `evaluate` and `train_on_batch`, and converts it to data sets and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks, inputs
from fastgru._support.samples import Samples, lengths_of
from fastgru._support.sequence_list import ListSamples, SequenceList
from fastgru._support.warn import warn_user
from fastgru._training import data
from fastgru._training.data import ArraySet, Batch, Form, IndexedSet, StreamSet, Unchecked, is_indexed, is_source
from fastgru._training.loop import Trainable
from fastgru._training.options import FitOptions
from fastgru._training.sample_weights import check_weights, classes_in, weigh_classes
from fastgru.losses import Loss

Array = NDArray[Any]

#: The names of the arguments for the parts of a batch or a data set.
_NAMES = ("x", "y", "lengths", "sample_weight")


class Sets(NamedTuple):
    """The data sets of a training run."""

    training: ArraySet | StreamSet
    validation: ArraySet | StreamSet | None
    form: Form | None  # the shapes of the model; None if the first batch of an iterable determines them


class Preparation:
    """Checks data for a network and its loss. Only `batch` changes the network: the first batch builds it.

    Parameters
    ----------
    network : Trainable
    loss : Loss
    class_weight : dict, optional
        Class -> factor of the loss.
    trained_with_lengths : bool
        Whether the current call of `fit` trains with lengths.
    evaluates : bool
        Whether the data is for an evaluation; missing lengths may cause a warning then.
    """

    def __init__(
        self,
        network: Trainable,
        loss: Loss,
        class_weight: dict[int, float] | None = None,
        *,
        trained_with_lengths: bool = False,
        evaluates: bool = False,
    ) -> None:
        self._network = network
        self._loss = loss
        self._class_weight = class_weight
        self._trained_with_lengths = trained_with_lengths
        self._evaluates = evaluates

    # --- Conversion ----------------------------------------------------------------------------------------------

    def _convert(self, given: Unchecked, names: tuple[str, ...], axes: int | None = None) -> Unchecked:
        """Convert arrays of other libraries to NumPy arrays, and lists of sequences to a `SequenceList`."""
        network = self._network
        x = inputs.as_samples(names[0], given.x, axes=axes or network.input_axes, tokens=network.takes_tokens)
        x = as_real_samples(network, names[0], x)
        if isinstance(x, SequenceList) and given.lengths is not None:
            raise ValueError(
                f"{names[2]}: expected None because {names[0]} is a list of sequences, which defines the lengths, got "
                f"lengths"
            )
        if isinstance(x, np.ndarray) and inputs.is_ragged(given.y):
            raise ValueError(
                f"{names[1]}: expected an array because {names[0]} is an array, got arrays of different lengths; pass "
                f"{names[0]} as a list of sequences too"
            )
        return Unchecked(
            x,
            inputs.as_array(names[1], given.y),
            inputs.as_array(names[2], given.lengths),
            inputs.as_array(names[3], given.weights),
        )

    def _unpack(self, name: str, given: Any, names: tuple[str, ...], thirds: Thirds, axes: int | None) -> Unchecked:
        """Unpack and convert a pair, a triple or a dict."""
        found = self._convert(data.unpack(name, given), names, axes)
        if isinstance(given, Mapping) or found.weights is None:
            return found
        steps = found.x.shape[1] if has_steps(self._network, found.x) else None
        if thirds.are_lengths(name, found.weights, steps):
            return found._replace(lengths=found.weights, weights=None)
        return found

    # --- Checks --------------------------------------------------------------------------------------------------

    def _form(self, x: Any) -> Form:
        return self._network.form_for(x.probe() if isinstance(x, SequenceList) else x)

    def _set(self, given: Unchecked, form: Form, names: tuple[str, ...]) -> ArraySet:
        """Return the data set of converted arrays or lists, checked for the shapes of the model and for consistency."""
        if given.y is None:
            raise TypeError(f"{names[1]}: expected targets because {names[0]} is an array, got None")
        if isinstance(given.x, SequenceList):
            return self._set_of_lists(given.x, given, form, names)
        tokens = self._network.takes_tokens
        samples = self._network.samples(names[0], given.x, form)
        shape = _shape_for(given.x, form.output_shape)
        lengths = None
        if given.lengths is not None:
            lengths = lengths_of(names[2], given.lengths, given.x, tokens=tokens)
        if self._evaluates and (self._trained_with_lengths or self._network.trained_with_lengths):
            warn_of_padding(self._network, names[0], given.x, lengths)
        # Targets and weights in padding are ignored, whether it comes from the user's lengths or from a layer.
        counted = self._network.check_values(names[0], samples, lengths)
        if len(shape) < 3:
            counted = None
        y = self._loss.check_targets(names[1], given.y, shape, counted)
        weights = None
        if given.weights is not None:
            weights = check_weights(names[3], given.weights, shape[:-1], counted)
        if self._class_weight is not None:
            weights = weigh_classes(self._class_weight, y, shape, weights, counted)
        return ArraySet(samples, y, lengths, weights)

    def _set_of_lists(self, x: SequenceList, given: Unchecked, form: Form, names: tuple[str, ...]) -> ArraySet:
        """Return the data set if the samples are a list of sequences."""
        samples = list_samples(names[0], x, self._network, form)
        self._network.check_values(names[0], samples, x.lengths)
        by_step = gives_steps(form)
        shape = (len(x), *form.output_shape[1:])
        y: Any = given.y
        if by_step:
            y = inputs.as_steps(names[1], y, x)
            shape = (int(x.lengths.sum()), *form.output_shape[2:])
        checked = self._check_steps(names[1], y, shape) if by_step else self._targets(names[1], y, shape)
        weights: Any = None
        if given.weights is not None:
            weights, elements = given.weights, (shape[0] or 0,)
            if by_step and not _is_flat(weights):
                weights = inputs.as_steps(names[3], weights, x).concatenate()
            elif by_step:
                elements = (len(x),)
            weights = check_weights(names[3], weights, elements, None)
            if by_step and elements == (len(x),):
                weights = np.repeat(weights, x.lengths)
        if self._class_weight is not None:
            weights = weigh_classes(self._class_weight, checked, shape, weights, None)  # type: ignore[arg-type]
        if by_step:
            checked = x.replace(checked)
            weights = None if weights is None else x.replace(weights)
        return ArraySet(samples, checked, x.lengths, weights)

    def _targets(self, name: str, y: Any, shape: tuple[int | None, ...]) -> Any:
        return self._loss.check_targets(name, y, shape, None)  # type: ignore[arg-type]  # sizes are known

    def _check_steps(self, name: str, y: SequenceList, shape: tuple[int | None, ...]) -> Any:
        """Return the checked targets of all steps in one array; an error names the sequence."""
        try:
            return self._targets(name, y.concatenate(), shape)
        except (TypeError, ValueError):
            for index, array in enumerate(y.arrays):
                self._targets(f"{name}[{index}]", array, (len(array), *shape[1:]))
            raise

    # --- Sets and batches ----------------------------------------------------------------------------------------

    def batch(self, given: Unchecked, names: tuple[str, ...] = _NAMES) -> Batch:
        """Return a batch; the first batch builds the network."""
        return self._batch(self._convert(given, names), names)

    def _batch(self, given: Unchecked, names: tuple[str, ...]) -> Batch:
        form = self._form(given.x)
        found = self._set(given, form, names)
        if len(found) == 0:
            raise ValueError(f"{names[0]}: expected at least one sample, got 0")
        if form is not self._network.form:
            self._network.settle(form)
        return found.whole()

    def set_of(
        self, given: Unchecked, steps: int | None, *, steps_name: str
    ) -> tuple[ArraySet | StreamSet, Form | None]:
        """Return the data set of arrays and the shapes of the model, or that of an iterable if there are no targets."""
        if given.x is None or isinstance(given.x, Mapping):
            remedy = "; pass its entries as x, y, lengths, sample_weight" if given.x is not None else ""
            raise TypeError(
                f"x: expected an array, a list of sequences or an iterable of batches, got "
                f"{type(given.x).__name__}{remedy}"
            )
        streams = not inputs.is_array(given.x) and is_source(given.x)
        if streams and (given.y is None or not isinstance(given.x, (list, tuple))):
            for name, value in (("y", given.y), ("lengths", given.lengths), ("sample_weight", given.weights)):
                if value is not None:
                    raise ValueError(
                        f"{name}: expected None because x is an iterable of batches, got {type(value).__name__}"
                    )
            return self._stream("x", given.x, steps, steps_name=steps_name), None
        if steps is not None and steps_name == "steps_per_epoch":
            raise ValueError(f"steps_per_epoch: expected None because x is an array, got {steps}")
        given = self._convert(given, _NAMES)
        form = self._form(given.x)
        return self._set(given, form, _NAMES), form

    def validation(self, given: Any, steps: int | None, form: Form | None) -> tuple[ArraySet | StreamSet, Form | None]:
        """Return the validation data set and the shapes of the model, which arrays determine if `form` is None."""
        axes = self._network.input_axes if form is None else len(form.input_shape)
        least = axes or (2 if self._network.takes_tokens else 3)
        if isinstance(given, Mapping) or (
            isinstance(given, (tuple, list)) and not all(_is_batch(each, least) for each in given)
        ):
            keys = (
                ("'x'", "'y'", "'lengths'", "'sample_weight'") if isinstance(given, Mapping) else ("0", "1", "2", "2")
            )
            names = tuple(f"validation_data[{key}]" for key in keys)
            arrays = self._unpack("validation_data", given, names, Thirds(), axes)
            form = form or self._form(arrays.x)
            return self._set(arrays, form, names), form
        if inputs.is_array(given) or not is_source(given):
            raise TypeError(
                "validation_data: expected (x, y), (x, y, sample_weight), a dict or an iterable of batches, got "
                f"{type(given).__name__}"
            )
        return self._stream("validation_data", given, steps, steps_name="validation_steps"), form

    def _stream(self, name: str, source: Any, steps: int | None, *, steps_name: str) -> StreamSet:
        thirds = Thirds()

        def check(batch: str, given: Any) -> Batch:
            names = tuple(f"{batch}, {part}" for part in _NAMES)
            return self._batch(self._unpack(batch, given, names, thirds, None), names)

        if is_indexed(source):
            return IndexedSet(name, source, check, steps, steps_name=steps_name)
        return StreamSet(name, source, check, steps, steps_name=steps_name)


class Thirds:
    """Decides whether the third element of triples is lengths; the same for all triples of an iterable."""

    def __init__(self) -> None:
        self._lengths: bool | None = None

    def are_lengths(self, name: str, third: Any, steps: int | None) -> bool:
        """Whether `third` is lengths: integers (N,), some above 1 and none above the number of steps.

        Otherwise it is sample weights, as in Keras. The first lengths cause a warning that names the unambiguous form.
        """
        array = np.asarray(third)
        if array.dtype == bool:
            raise TypeError(
                f"{name}: expected sample weights as third element, got a mask; pass a dict with the keys x, y, lengths"
            )
        integers = array.dtype.kind in "iu" and array.ndim == 1 and steps is not None and array.size > 0
        now = integers and int(array.min()) >= 0 and 1 < int(array.max()) <= (steps or 0)
        if self._lengths is None:
            self._lengths = now
            if now:
                warn_user(
                    f"{name}: the third element has integers up to {int(array.max())} and x has {steps} steps, so it "
                    f"is used as lengths; Keras would use it as sample weights. Pass a dict to decide: "
                    f"{{'x': x, 'y': y, 'lengths': lengths}} or {{'x': x, 'y': y, 'sample_weight': weights}}"
                )
        if now and not self._lengths:
            raise ValueError(
                f"{name}: expected sample weights as third element because earlier batches had them, got integers that "
                f"may be lengths; pass batches as dicts with the keys x, y, lengths or x, y, sample_weight"
            )
        return self._lengths and integers


def as_real_samples(network: Trainable, name: str, x: Any) -> Any:
    """Return `x` as an array that the first layer accepts; a list of sequences is checked and returned unchanged."""
    if isinstance(x, SequenceList):
        network.as_samples(name, np.zeros(1, x.dtype))
        return x
    return network.as_samples(name, x)


def has_steps(network: Trainable, x: Any) -> bool:
    """Whether `x` is an array of sequences, (N, T, ...)."""
    return not isinstance(x, (list, tuple, SequenceList)) and len(getattr(x, "shape", ())) >= (
        2 if network.takes_tokens else 3
    )


def warn_of_padding(network: Trainable, name: str, x: Array, lengths: Array | None) -> None:
    """Warn once if a model trained with lengths receives sequences that end in zeros without lengths."""
    if lengths is not None:
        network.lengths_known = True
        return
    if network.lengths_known or network.finds_lengths or not has_steps(network, x):
        return
    if len(x) and x.shape[1] and not x[:, -1].reshape(len(x), -1).any(axis=1).all():
        network.lengths_known = True
        warn_user(
            f"{name}: the model was trained with lengths and some sequences end in zeros, which look like padding, but "
            f"there are no lengths, so padding is used as data; pass lengths=, or a list of sequences"
        )


def list_samples(name: str, x: SequenceList, network: Trainable, form: Form) -> ListSamples:
    """Return the samples of a list of sequences, checked for the shapes of the model."""
    shape = form.input_shape
    if len(shape) < (2 if network.takes_tokens else 3):
        raise ValueError(
            f"{name}: expected an array of shape {checks.dims(shape)} because the model's input has no steps, got a "
            f"list of sequences"
        )

    def make(array: Array) -> Samples:
        return network.samples(name, array, form)

    return ListSamples(name, x, shape[1], make)


def gives_steps(form: Form) -> bool:
    """Whether a model of these shapes has an output for each step of its input."""
    return len(form.output_shape) >= 3 and form.output_shape[1] == form.input_shape[1]


def _is_flat(value: Any) -> bool:
    """Whether `value` has one number for each sample, and is not a list of arrays."""
    return not isinstance(value, (list, tuple)) or not len(value) or np.ndim(value[0]) == 0


def prepare(network: Trainable, loss: Loss, given: Unchecked, validation_data: Any, options: FitOptions) -> Sets:
    """Return the data sets of a call of `fit`, checked."""
    training, form = Preparation(network, loss, options.class_weight).set_of(
        given, options.steps_per_epoch, steps_name="steps_per_epoch"
    )
    validation: ArraySet | StreamSet | None = None
    if validation_data is not None:
        if options.splits:
            raise ValueError(
                f"validation_split: expected 0 because validation_data is given, got {options.describe_split()}"
            )
        lengths = isinstance(training, ArraySet) and training.has_padding
        preparation = Preparation(network, loss, evaluates=True, trained_with_lengths=lengths)
        validation, form = preparation.validation(validation_data, options.validation_steps, form)
    elif options.splits:
        if isinstance(training, StreamSet):
            raise ValueError(
                f"validation_split: expected 0 because x is an iterable of batches, got {options.describe_split()}"
            )
        assert form is not None
        training, validation = _hold_back(training, options.validation_split, loss, form)
    if options.validation_steps is not None and not isinstance(validation, StreamSet):
        raise ValueError(
            f"validation_steps: expected None because validation_data is not an iterable of batches, got "
            f"{options.validation_steps}"
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
    """Split a data set into one for training and one for validation."""
    if not isinstance(split, float):
        outside = split[(split < 0) | (split >= len(arrays))]
        if len(outside):
            raise ValueError(
                f"validation_split: expected indices from 0 to {len(arrays) - 1} because x has {len(arrays)} samples, "
                f"got {outside[0]}"
            )
        return arrays.hold_back(split)
    kept, held = arrays.split(split)
    shape = form.output_shape if not arrays.has_lists_of_steps else (None, *form.output_shape[2:])
    one, other = (classes_in(loss, *part.targets(), shape) for part in (kept, held))
    if len(kept) and len(held) and one is not None and other is not None and (one != other).any():
        parts = (one & ~other, f"{len(held)} held back"), (other & ~one, f"{len(kept)} others")
        missing = " and ".join(
            f"no sample of {_listed(classes)} among the {part}" for classes, part in parts if classes.any()
        )
        warn_user(
            f"validation_split: expected every class in both parts, got {missing}; the last samples are held back, "
            f"as in Keras: shuffle x and y together first, or pass the indices of the samples to hold back"
        )
    return kept, held


def _require_whole_batches(name: str, network: Trainable, batch_size: int, count: int | None) -> None:
    """Raise if the last batch for a stateful layer would be smaller; the count of an iterable is unknown."""
    if network.stateful and count is not None and count > batch_size and count % batch_size:
        layer = next(layer.name for layer in network.layers if layer.stateful)
        raise ValueError(
            f"{name}: expected a divisor of {count}, the number of samples, because {layer} is stateful and needs "
            f"batches of one size, got {batch_size}"
        )


def _listed(classes: NDArray[np.bool_]) -> str:
    """Format the indices of classes for a message."""
    numbers = np.flatnonzero(classes)
    shown = ", ".join(map(str, numbers[:8]))
    return f"class {shown}{', ...' if len(numbers) > 8 else ''}"


def _is_batch(given: Any, axes: int) -> bool:
    """Whether `given` is a batch whose x has at least `axes` axes, and not an array or a list of sequences."""
    pair = isinstance(given, (tuple, list)) and len(given) > 0 and _axes_of(given[0]) >= axes
    return pair or isinstance(given, Mapping)


def _axes_of(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return 1 + (_axes_of(value[0]) if len(value) else 0)
    return len(getattr(value, "shape", ()))


def _shape_for(x: Array, output_shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """Return the shape of the outputs for samples `x`; an axis of unknown size has the size of the time axis."""
    sizes = output_shape[1:]
    if None in sizes:
        sizes = tuple(x.shape[1] if size is None else size for size in sizes)
    return (len(x), *sizes)  # type: ignore[arg-type]  # None has been replaced
