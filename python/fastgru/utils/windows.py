"""Windows of a time series, without copying the series."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.seeding import new_generator

Array = NDArray[Any]


class TimeSeriesDataset:
    """Batches of windows of a time series, the result of `timeseries_dataset_from_array`.

    Pass it to `fit`, `evaluate` or `predict`. Each iteration yields all batches: ``(x, y)``, or `x` without targets.

    Attributes
    ----------
    x : ndarray (windows, steps, ...)
        All windows, in order: a read-only view of the series.
    y : ndarray (windows, ...) or None
        The targets of the windows: a view.
    """

    def __init__(self, x: Array, y: Array | None, batch_size: int | None, generator: np.random.Generator | None):
        self.x, self.y = x, y
        self._batch_size = batch_size
        self._generator = generator

    def __repr__(self) -> str:
        return (
            f"<TimeSeriesDataset of {len(self.x)} windows of {self.x.shape[1]} steps, "
            f"{'not in batches' if self._batch_size is None else f'{len(self)} batches of {self._batch_size}'}>"
        )

    def __len__(self) -> int:
        return -(-len(self.x) // (self._batch_size or 1))

    def __iter__(self) -> Iterator[Any]:
        order = None if self._generator is None else self._generator.permutation(len(self.x))
        for begin in range(0, len(self.x), self._batch_size or 1):
            rows: Any = slice(begin, begin + (self._batch_size or 1))
            rows = rows if order is None else order[rows]
            parts = [part[rows] for part in (self.x, self.y) if part is not None]
            if self._batch_size is None:
                parts = [part[0] for part in parts]
            yield tuple(parts) if self.y is not None else parts[0]


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> TimeSeriesDataset:
    """Create batches of sliding windows over a time series, with Keras' arguments and defaults.

    The series is not copied. Batches are views of it; with `shuffle`, each batch is a copy.

    Parameters
    ----------
    data : array_like (T, ...)
        The series, with time as the first axis. (T, F) yields windows (sequence_length, F), the input of a GRU. Pass a
        series of single numbers as ``data[:, None]``.
    targets : array_like or None
        ``targets[i]`` is the target of the window that begins at step i. To predict the step after each window, pass
        ``data[sequence_length:]``. With None, batches contain `x` only.
    sequence_length : int
        The number of steps in a window.
    sequence_stride : int, default 1
        The distance between the first steps of adjacent windows.
    sampling_rate : int, default 1
        The distance between adjacent steps of a window in the series.
    batch_size : int or None, default 128
        The number of windows in a batch. None yields single windows, without a batch axis.
    shuffle : bool, default False
        Whether to shuffle the windows for each iteration.
    seed : int, optional
        The seed for shuffling. If not given, the seed of `set_random_seed` is used.
    start_index, end_index : int, optional
        Use only ``data[start_index:end_index]``, and the targets of these steps.

    Returns
    -------
    TimeSeriesDataset

    Raises
    ------
    ValueError
        The series is shorter than a window, or an argument is out of range.

    Examples
    --------
    >>> train = timeseries_dataset_from_array(series[:-24], series[24:, 0], 24, end_index=800)
    >>> model.fit(train, epochs=5)
    """
    series = checks.array("data", data)
    if series.ndim == 0 or not len(series):
        raise ValueError(f"data: expected a series of at least one step, got shape {series.shape}")
    length = checks.integer("sequence_length", sequence_length, least=1)
    stride = checks.integer("sequence_stride", sequence_stride, least=1)
    rate = checks.integer("sampling_rate", sampling_rate, least=1)
    if batch_size is not None:
        batch_size = checks.integer("batch_size", batch_size, least=1)
    start = checks.integer("start_index", 0 if start_index is None else start_index, least=0, most=len(series) - 1)
    end = checks.integer("end_index", len(series) if end_index is None else end_index, least=1, most=len(series))
    span = (length - 1) * rate + 1
    count = end - start - span + 1
    if count < 1:
        raise ValueError(
            f"sequence_length: expected windows of at most {max(end - start, 0)} steps, the length of the series "
            f"between start_index and end_index, got windows of {span} steps"
        )
    y = None
    if targets is not None:
        y = checks.array("targets", targets)
        if y.ndim == 0:
            raise ValueError("targets: expected an array, got a single number")
        y = y[start:end]
        count = min(count, len(y))
        if count < 1:
            raise ValueError(
                f"targets: expected more than {start} targets because start_index is {start}, got {len(targets)}"
            )
        y = y[:count:stride]
    views = np.lib.stride_tricks.sliding_window_view(series[start:end], span, axis=0)[:count:stride]
    generator = None
    if checks.flag("shuffle", shuffle):
        generator = new_generator() if seed is None else np.random.default_rng(checks.integer("seed", seed, least=0))
    return TimeSeriesDataset(np.moveaxis(views[..., ::rate], -1, 1), y, batch_size, generator)
