"""Sources of batches: arrays, iterables of batches, and objects that return batches by index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._support.samples import Samples
from fastgru._support.sequence_list import ListSamples, SequenceList

Array = NDArray[Any]


class Form(NamedTuple):
    """The input and output shapes of a model, with the batch axis. The data determines them for an unbuilt model."""

    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]


class Batch(NamedTuple):
    """A batch of samples with targets."""

    x: Array  # (N, ...)
    y: Array  # (N, ...), in the form that the loss requires
    lengths: Array | None = None  # (N,) of int64
    weights: Array | None = None  # (N,) or (N, T)
    samples: NDArray[np.intp] | None = None  # (N,), indices of the samples in the data set; None if it has no indices
    given: Array | None = None  # x before the conversion to the model's dtype; None if no conversion was needed

    def rows(self, part: slice) -> Batch:
        """Return a batch of some of the rows, as views."""
        return Batch(*(None if array is None else array[part] for array in self))  # type: ignore[arg-type]


class Unchecked(NamedTuple):
    """The unchecked arguments for a data set or a batch."""

    x: Any
    y: Any = None
    lengths: Any = None
    weights: Any = None


def unpack(name: str, given: Any) -> Unchecked:
    """Unpack a pair, a triple or a dict.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    given : tuple or dict
        ``(x, y)``, ``(x, y, sample_weight)``, or a dict with ``x``, ``y`` and optionally ``lengths`` and
        ``sample_weight``.
    """
    if isinstance(given, Mapping):
        unknown = given.keys() - {"x", "y", "lengths", "sample_weight"}
        if unknown or not {"x", "y"} <= given.keys():
            raise ValueError(
                f"{name}: expected the keys x, y and optionally lengths, sample_weight, got "
                f"{', '.join(map(str, given))}"
            )
        return Unchecked(given["x"], given["y"], given.get("lengths"), given.get("sample_weight"))
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise TypeError(
            f"{name}: expected (x, y), (x, y, sample_weight) or a dict with x, y, lengths, sample_weight, got "
            f"{type(given).__name__}{f' of {len(given)}' if isinstance(given, (tuple, list)) else ''}"
        )
    return Unchecked(given[0], given[1], None, given[2] if len(given) == 3 else None)


class ArraySet:
    """A data set of checked arrays.

    Parameters
    ----------
    samples : Samples or ListSamples
    y, lengths, weights : ndarray, SequenceList or None
        As in `Batch`, for all samples. Values for each step are a `SequenceList` if the samples are one.
    rows : ndarray of integers, optional
        Indices of the samples that belong to the data set; all samples by default.
    """

    def __init__(
        self,
        samples: Samples | ListSamples,
        y: Array | SequenceList,
        lengths: Array | None,
        weights: Array | SequenceList | None,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self._samples = samples
        self._rest = (y, lengths, weights)
        self._rows = rows
        self._order: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self._samples) if self._rows is None else len(self._rows)

    @property
    def count(self) -> int | None:
        """Number of samples per epoch."""
        return len(self)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the samples before the conversion."""
        return self._samples.dtype

    def steps(self, batch_size: int) -> int | None:
        """Return the number of batches per epoch."""
        return -(-len(self) // batch_size)

    def split(self, fraction: float) -> tuple[ArraySet, ArraySet]:
        """Return two data sets; the second one has the last `fraction` of the samples."""
        kept = int(len(self) * (1 - fraction) + 1e-9)  # rounding makes 10 * (1 - 0.9) slightly less than 1
        parts = []
        for rows in (slice(0, kept), slice(kept, None)):
            rest: Any = [
                array.part(rows) if isinstance(array, SequenceList) else None if array is None else array[rows]
                for array in self._rest
            ]
            parts.append(ArraySet(self._samples.part(rows), *rest))
        return parts[0], parts[1]

    def hold_back(self, rows: NDArray[np.intp]) -> tuple[ArraySet, ArraySet]:
        """Return two data sets; the second one has the samples `rows`. No array is copied."""
        kept = np.ones(len(self._samples), bool)
        kept[rows] = False
        others = self._samples.part(slice(None))  # the two data sets must not share a batch buffer
        return ArraySet(self._samples, *self._rest, np.flatnonzero(kept)), ArraySet(others, *self._rest, rows)

    @property
    def has_padding(self) -> bool:
        """Whether some of its sequences are shorter than others, or than the array."""
        lengths = self._rest[1]
        return lengths is not None and len(lengths) > 0 and int(lengths.min()) < self._samples.steps

    @property
    def has_lists_of_steps(self) -> bool:
        """Whether the targets are a list of arrays, one for each sequence."""
        return isinstance(self._rest[0], SequenceList)

    def targets(self) -> tuple[Array, Array | None]:
        """Return targets and lengths of all samples; of a `SequenceList`, the targets of all steps, without lengths."""
        y, lengths, _ = self._rest
        if isinstance(y, SequenceList):
            return y.concatenate(), None
        if self._rows is None:
            return y, lengths
        return y[self._rows], None if lengths is None else lengths[self._rows]

    def shuffle(self, generator: np.random.Generator | None) -> None:
        """Draw the order of the next epoch; without a generator, keep the order of the arrays."""
        count = len(self)
        order = np.arange(count) if generator is None else generator.permutation(count)
        self._order = order if self._rows is None else self._rows[order]

    def pass_over(self, epochs: int) -> None:
        """No-op: arrays have no read position."""

    def batches(self, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch in the drawn order, starting with batch `first`. Batches share their memory."""
        order = self._order
        assert order is not None
        for begin in range(first * batch_size, len(order), batch_size):
            yield self._gather(order[begin : begin + batch_size])

    def _gather(self, chosen: NDArray[np.intp]) -> Batch:
        return self._take(chosen, chosen)

    def _take(self, rows: NDArray[np.intp] | slice, numbers: NDArray[np.intp] | None = None) -> Batch:
        given = self._samples.take(rows)
        y, lengths, weights = self._rest
        y = _at(y, rows, given)
        lengths = None if lengths is None else lengths[rows]
        weights = None if weights is None else _at(weights, rows, given)
        x = self._samples.convert(given, lengths)
        return Batch(x, y, lengths, weights, numbers, None if x is given else given)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all batches in the order of the arrays."""
        for begin in range(0, len(self), batch_size):
            rows = slice(begin, begin + batch_size)
            if self._rows is not None:
                yield self._gather(self._rows[rows])
                continue
            yield self._take(rows)

    def whole(self) -> Batch:
        """Return all samples in one batch."""
        return self._take(slice(None))


def _at(values: Array | SequenceList, rows: NDArray[np.intp] | slice, x: Array) -> Array:
    """The values at `rows`, padded like the samples `x` if they are a list of sequences."""
    return values.pad(rows, x.shape[1]) if isinstance(values, SequenceList) else values[rows]


class StreamSet:
    """A data set of batches from an iterable of the user. Each batch is checked when it is read.

    Parameters
    ----------
    name, steps_name : str
        Names of the arguments, for messages.
    source : iterable
        Yields the batches of one epoch per iteration, in a form that `unpack` supports.
    check : callable
        Converts the name of a batch and an item of `source` to a `Batch`; raises if the item is invalid.
    steps : int or None
        Number of batches per epoch; the next epoch continues the same iterator. None: an epoch is one iteration.
    """

    def __init__(
        self,
        name: str,
        source: Iterable[Any],
        check: Callable[[str, Any], Batch],
        steps: int | None,
        *,
        steps_name: str,
    ) -> None:
        self._name = name
        self._source = source
        self._check = check
        self._steps = steps
        self._steps_name = steps_name
        self._running: Iterator[Any] | None = None
        self._epochs_before = 0

    @property
    def count(self) -> int | None:
        """Number of samples per epoch, which is unknown."""
        return None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the samples, which is unknown."""
        return None

    def steps(self, batch_size: int) -> int | None:
        """Return the number of batches per epoch, or None if it is unknown."""
        del batch_size
        return self._steps

    def shuffle(self, generator: np.random.Generator | None) -> None:
        """No-op: the iterable determines the order."""

    def pass_over(self, epochs: int) -> None:
        """With `steps`, skip the batches of this number of epochs, which an earlier training run has used."""
        self._epochs_before = epochs

    def batches(self, batch_size: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting with batch `first`; the iterable determines their size."""
        del batch_size
        number = -1
        for number, given in enumerate(self._source if self._steps is None else self._next_steps()):
            if number >= first:
                name = f"{self._name}, batch {number + 1}"
                yield self._check(name, given)
        if number < 0:
            raise ValueError(
                f"{self._name}: expected at least one batch per epoch, got none; an iterator is exhausted after one "
                f"epoch, so pass an object that can be iterated over repeatedly, or pass {self._steps_name}"
            )

    def in_order(self, batch_size: int = 0) -> Iterator[Batch]:
        """Yield all batches of an epoch."""
        yield from self.batches(batch_size)

    def _next_steps(self) -> Iterator[Any]:
        assert self._steps is not None
        for _ in range(self._epochs_before):
            for number in range(self._steps):
                self._next(number)
        self._epochs_before = 0
        for number in range(self._steps):
            yield self._next(number)

    def _next(self, number: int) -> Any:
        """Return the next batch; `number` is its index in the epoch."""
        if self._running is not None:
            try:
                return next(self._running)
            except StopIteration:
                pass  # the source may be iterable repeatedly
        self._running = iter(self._source)
        try:
            return next(self._running)
        except StopIteration:
            raise ValueError(
                f"{self._name}: expected {self._steps} batches because {self._steps_name}={self._steps}, got {number}"
            ) from None


class IndexedSet(StreamSet):
    """A data set of batches from an object with ``__len__`` and ``__getitem__``, such as Keras' ``PyDataset``.

    With shuffling, the order of the batches is drawn for each epoch. The object's method ``on_epoch_end`` is called
    after each epoch. With `steps`, an epoch consists of the first `steps` batches of this order.
    """

    _order: NDArray[np.intp] | None = None

    def _size(self) -> int:
        size = getattr(self._source, "num_batches", None)
        size = len(self._source) if size is None else int(size)  # type: ignore[arg-type]
        if self._steps is not None and self._steps > size:
            raise ValueError(
                f"{self._name}: expected {self._steps} batches because {self._steps_name}={self._steps}, got {size}"
            )
        return size

    def steps(self, batch_size: int) -> int | None:
        del batch_size
        return self._steps or self._size()

    def shuffle(self, generator: np.random.Generator | None) -> None:
        """Draw the order of the batches of the next epoch."""
        self._order = np.arange(self._size()) if generator is None else generator.permutation(self._size())

    def pass_over(self, epochs: int) -> None:
        """Call the object's `on_epoch_end` for the epochs of an earlier training run."""
        for _ in range(epochs):
            self._end_epoch()

    def batches(self, batch_size: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting with batch `first`."""
        del batch_size
        order = np.arange(self._size()) if self._order is None else self._order
        for number in order[first : self._steps].tolist():
            name = f"{self._name}, batch {number + 1}"
            yield self._check(name, self._source[number])  # type: ignore[index]
        if not len(order):
            raise ValueError(f"{self._name}: expected at least one batch per epoch, got none")
        self._end_epoch()

    def _end_epoch(self) -> None:
        if hasattr(self._source, "on_epoch_end"):
            self._source.on_epoch_end()


def is_source(value: Any) -> bool:
    """Whether `value` is an iterable of batches, or returns batches by index.

    Raises
    ------
    TypeError
        `value` is a PyTorch ``Dataset``, which returns single samples.
    """
    names = {f"{cls.__module__}.{cls.__name__}" for cls in type(value).__mro__}
    if "torch.utils.data.dataset.Dataset" in names:
        raise TypeError(
            f"x: expected batches, got {type(value).__name__}, a data set of single samples; pass "
            f"torch.utils.data.DataLoader(dataset, batch_size=32)"
        )
    return isinstance(value, Iterable) or is_indexed(value)


def is_indexed(value: Any) -> bool:
    """Whether `value` returns batches by index, such as Keras' ``PyDataset`` or ``Sequence``; False for a list."""
    if isinstance(value, (list, tuple, str, bytes, Mapping)) or not hasattr(value, "__getitem__"):
        return False
    sized = hasattr(value, "__len__") or getattr(value, "num_batches", None) is not None
    return sized and (hasattr(value, "on_epoch_end") or not hasattr(value, "__iter__"))
