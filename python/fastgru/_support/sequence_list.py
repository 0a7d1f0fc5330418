"""Lists of sequences of different lengths. They are padded batch by batch, not as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = NDArray[np.intp] | slice


class SequenceList:
    """A list of arrays (T_i, ...) that differ in their first axis only.

    Attributes
    ----------
    arrays : list of ndarray
        The arrays that were passed, not copies.
    lengths : ndarray (N,) of int64
    dtype : dtype
        The dtype of padded batches, which can represent the values of all arrays.
    """

    def __init__(self, name: str, arrays: Sequence[Array]) -> None:
        first = arrays[0]
        for index, array in enumerate(arrays):
            if array.ndim != first.ndim or array.shape[1:] != first.shape[1:]:
                expected = ", ".join(("T", *map(str, first.shape[1:])))
                raise ValueError(
                    f"{name}: expected sequences of shape ({expected}{',' if first.ndim == 1 else ''}) as the one at "
                    f"index 0, got {array.shape} at index {index}"
                )
        self.arrays = list(arrays)
        self.lengths = np.array([len(array) for array in arrays], np.int64)
        self.dtype = np.result_type(*{array.dtype for array in arrays})

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that one padded array of all sequences would have."""
        return (len(self), max(int(self.lengths.max(initial=0)), 1), *self.arrays[0].shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes of a padded batch."""
        return self.arrays[0].ndim + 1

    def probe(self) -> Array:
        """Return an array of shape ``(0, *shape[1:])``, for checks of shape and dtype."""
        return np.empty((0, *self.shape[1:]), self.dtype)

    def part(self, rows: slice) -> SequenceList:
        """Return a list of some of the sequences, without copying arrays."""
        part = copy.copy(self)
        part.arrays, part.lengths = self.arrays[rows], self.lengths[rows]
        return part

    def concatenate(self) -> Array:
        """Return all steps of all sequences in one array, (T_0 + T_1 + ..., ...)."""
        return np.concatenate(self.arrays)

    def replace(self, steps: Array) -> SequenceList:
        """Return sequences of the same lengths with the given steps, in the order of `concatenate`."""
        other = copy.copy(self)
        other.arrays = np.split(steps, np.cumsum(self.lengths)[:-1])
        other.dtype = steps.dtype
        return other

    def pad(self, rows: Rows, steps: int | None = None) -> Array:
        """Pad the sequences `rows` with zeros to `steps` steps, or to the length of the longest of them."""
        numbers = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        chosen = [self.arrays[number] for number in numbers]
        if steps is None:
            steps = max(1, max(map(len, chosen), default=1))
        padded = np.zeros((len(chosen), steps, *self.arrays[0].shape[1:]), self.dtype)
        for row, array in zip(padded, chosen, strict=True):
            row[: len(array)] = array
        return padded


class Converter(Protocol):
    """Converts samples; see `fastgru._support.samples.Samples`."""

    def convert(self, rows: Array, lengths: Array | None = None) -> Array:
        """Convert samples to the dtype of batches."""


class ListSamples:
    """The samples of a `SequenceList`, padded and converted batch by batch.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    sequences : SequenceList
    steps : int or None
        Number of steps of the model's input; None if it accepts any number.
    make : callable
        Returns checked samples for the array of a batch.
    """

    def __init__(
        self, name: str, sequences: SequenceList, steps: int | None, make: Callable[[Array], Converter]
    ) -> None:
        longest = int(sequences.lengths.argmax())
        if steps is not None and sequences.lengths[longest] > steps:
            raise ValueError(
                f"{name}: expected sequences of at most {steps} steps because the model's input has {steps} steps, got "
                f"{sequences.lengths[longest]} at index {longest}"
            )
        make(sequences.probe() if steps is None else np.empty((0, steps, *sequences.shape[2:]), sequences.dtype))
        self._sequences = sequences
        self._steps = steps
        self._make = make

    def __len__(self) -> int:
        return len(self._sequences)

    def part(self, rows: slice) -> ListSamples:
        """Return some of the samples, without copying arrays."""
        part = copy.copy(self)
        part._sequences = self._sequences.part(rows)
        return part

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the samples before the conversion."""
        return self._sequences.dtype

    @property
    def steps(self) -> int:
        """The number of steps to which all samples would be padded."""
        return self._steps or int(self._sequences.lengths.max(initial=0))

    def take(self, indices: Rows) -> Array:
        """Return the samples at `indices` without conversion, padded to the longest of them."""
        return self._sequences.pad(indices, self._steps)

    def convert(self, rows: Array, lengths: Array | None = None) -> Array:
        """Convert an array that `take` returned to the dtype of batches."""
        return self._make(rows).convert(rows, lengths)

    def batch(self, indices: Rows, lengths: Array | None = None) -> Array:
        """Return the samples at `indices`, padded to the longest of them, in the dtype of batches."""
        return self.convert(self.take(indices), lengths)
