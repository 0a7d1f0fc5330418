"""Data sets of the command line: digits or the user's own arrays, for classification or regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import datasets
from fastgru._support.sequences import valid_steps
from fastgru.cli.parser import UsageError
from fastgru.datasets.arrays import Sequences
from fastgru.datasets.mnist import DataUnavailableError

Array = NDArray[Any]

DIGITS = ("mnist", "synthetic")
TASKS = ("classify", "regress")

#: Larger labels raise before a network is created, because they are probably a mistake.
MOST_CLASSES = 1 << 16

#: The choices of samples for `hold_back`.
CHOICES = ("random", "last")
#: The key of the random numbers that choose them; `fastgru.set_seed` counts its own keys from 0.
_HOLD_BACK = (1 << 32) - 1
#: Minimum and maximum number of pairs of neighbouring sequences to compare.
_LEAST_PAIRS, _MOST_PAIRS = 3, 16


@dataclass(frozen=True)
class Data:
    """A data set and its description.

    Attributes
    ----------
    name, reason : str
        Name of the data set, and the reason why it was chosen.
    task : {"classify", "regress"}
    outputs : int
        Number of classes, or of numbers to predict.
    each_step : bool
        Whether there is a target for each step of a sequence.
    train : Sequences
    test : Sequences or None
    samples : str
        What a sample is called.
    """

    name: str
    reason: str
    task: str
    outputs: int
    each_step: bool
    train: Sequences
    test: Sequences | None
    samples: str


def load(name: str | None, folder: str | None, seed: int, task: str | None = None) -> Data:
    """Return the given data set; without a name, MNIST if it is available, otherwise synthetic digits."""
    if name is not None and name not in DIGITS:
        if folder is not None:
            raise UsageError(f"--data: expected none because the arrays are those of {name}, got a folder")
        return _load_arrays(name, task)
    if task is not None:
        raise UsageError(f"--task: expected none because digits are classes, got {task}")
    if name == "synthetic":
        if folder is not None:
            raise UsageError("--data: expected none because the synthetic digits are made on the spot, got a folder")
        return _digits("synthetic", "as asked for, digits made on the spot", datasets.synthetic.load_data(seed=seed))
    try:
        splits, source = datasets.mnist.locate(folder)
        return _digits("mnist", f"60,000 images of handwritten digits from {source}", splits)
    except DataUnavailableError as error:
        # What was named must be there; only what was merely hoped for has a substitute.
        if name == "mnist":
            raise
        reason = f"digits made on the spot, because {error.reason}"
        return _digits("synthetic", reason, datasets.synthetic.load_data(seed=seed))


def _digits(name: str, reason: str, splits: tuple[tuple[Array, Array], tuple[Array, Array]]) -> Data:
    train, test = splits
    return Data(name, reason, "classify", 10, False, Sequences(*train), Sequences(*test), "images")


# --- A person's own arrays ------------------------------------------------------------------------------------


class _Targets(NamedTuple):
    y: Array
    outputs: int
    each_step: bool


def _load_arrays(path: str, task: str | None) -> Data:
    train, test = datasets.arrays.load_data(path)
    assert train.y is not None
    if task is None:
        task = "regress" if train.y.dtype.kind == "f" else "classify"
    read = _labels if task == "classify" else _numbers
    targets = read(f"{path}: y", train)
    train, outputs = train._replace(y=targets.y), targets.outputs
    if test is not None:
        of_test = read(f"{path}: y_test", test)
        if of_test.each_step != targets.each_step or (task == "regress" and of_test.outputs != outputs):
            raise ValueError(f"{path}: y_test: expected targets as y has, {targets.y.shape}, got {of_test.y.shape}")
        test, outputs = test._replace(y=of_test.y), max(outputs, of_test.outputs)
    rows, steps, features = train.x.shape
    unit = "a step" if targets.each_step else "a sequence"
    numbers = "a number" if outputs == 1 else f"{outputs} numbers"
    wanted = f"one of {outputs} classes {unit}" if task == "classify" else f"{numbers} {unit}"
    reason = f"{rows:,} sequences of {steps} steps of {features} numbers, {train.x.dtype}; {wanted}"
    if test is not None:
        reason += f"; {len(test.x):,} to test"
    return Data(path, reason, task, outputs, targets.each_step, train, test, "sequences")


def _labels(name: str, part: Sequences) -> _Targets:
    """Classes (N,) or (N, T) of int64, 0 in padding."""
    y, (rows, steps) = part.y, part.x.shape[:2]
    assert y is not None
    if y.shape not in ((rows,), (rows, steps)):
        raise ValueError(
            f"{name}: expected shape ({rows},) or ({rows}, {steps}), a class for each sequence or for each step, got "
            f"{y.shape}; for numbers to predict use --task regress"
        )
    counted = _counted(part, each_step=y.ndim == 2)
    wrong = counted & ~((y >= 0) & (y < MOST_CLASSES) & (y == np.floor(y) if y.dtype.kind == "f" else True))
    if wrong.any():
        index = _first(wrong)
        raise ValueError(
            f"{name}: expected classes, whole numbers from 0 to {MOST_CLASSES - 1}, got {y[index]} at index "
            f"{index[0] if len(index) == 1 else index}"
        )
    labels = np.where(counted, y, 0).astype(np.int64)
    classes = int(labels.max()) + 1
    if classes < 2:
        raise ValueError(f"{name}: expected at least two classes, got only 0")
    return _Targets(labels, classes, y.ndim == 2)


def _numbers(name: str, part: Sequences) -> _Targets:
    """Numbers (N,), (N, C) or (N, T, C); (N, T) become (N, T, 1)."""
    given = part.y
    assert given is not None
    y = given[:, :, None] if given.shape == part.x.shape[:2] else given
    wrong = _counted(part, each_step=y.ndim == 3, axes=y.ndim) & ~np.isfinite(y)
    if wrong.any():
        index = _first(wrong)[: given.ndim]
        raise ValueError(f"{name}: expected finite numbers, got {given[index]} at index {index}")
    return _Targets(y, 1 if y.ndim == 1 else y.shape[-1], y.ndim == 3)


def _counted(part: Sequences, *, each_step: bool, axes: int = 2) -> Array:
    """Return the mask of valid targets, for broadcasting: all targets, or those of valid steps."""
    if not each_step or part.lengths is None:
        return np.array(True)
    counted = valid_steps(part.lengths, part.x.shape[1])
    return counted[:, :, None] if axes == 3 else counted


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(wrong)[0])


# --- Samples held back to validate on -------------------------------------------------------------------------


class HeldBack(NamedTuple):
    """The samples that are held back.

    Attributes
    ----------
    rows : ndarray (K,) of integers
        Ascending.
    which : {"random", "last"}
    stratified : bool
        Whether all classes are held back in proportion.
    """

    rows: Array
    which: str
    stratified: bool

    def describe(self, found: Data) -> str:
        """Describe the number of held-back samples, their choice, and the number per class."""
        y = found.train.y
        assert y is not None
        how = "the last ones" if self.which == "last" else "drawn at random"
        counts = None
        if found.task == "classify" and y.ndim == 1:
            everything = np.bincount(y)
            counts = np.bincount(y[self.rows], minlength=len(everything))[everything > 0]
        if self.stratified:
            missing = counts is not None and not counts.min()
            how += (
                " with classes in proportion where they have enough" if missing else " with all classes in proportion"
            )
        text = f"{len(self.rows):,} of {len(y):,} {found.samples} held back, {how}"
        return text if counts is None else f"{text}: {counts.min():,} to {counts.max():,} of each class"


def hold_back(found: Data, fraction: float, seed: int, which: str | None) -> HeldBack:
    """Choose a fraction of the training samples, at least one and not all; the same ones for the same seed.

    Without `which`, they are drawn at random, classes of sequences in proportion. Of other targets the last ones are
    taken where the sequences are overlapping windows of a series: others' neighbours would be trained on.
    """
    x, y, lengths = found.train
    assert y is not None
    count = len(x)
    if count < 2:
        raise ValueError(f"--validation: expected at least two samples to hold one back, got {count}")
    kept = min(max(int(count * (1 - fraction) + 1e-9), 1), count - 1)  # rounded as fit's validation_split is
    stratified = found.task == "classify" and y.ndim == 1 and np.bincount(y).max() > 1
    if which is None:
        which = "last" if not stratified and lengths is None and are_overlapping_windows(x) else "random"
    if which == "last":
        return HeldBack(np.arange(kept, count), which, False)
    # A stream of its own: the model's first weights are those of a training that holds nothing back.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_HOLD_BACK,)))
    order = generator.permutation(count)
    rows = _in_proportion(order, np.asarray(y), count - kept) if stratified else order[kept:]
    return HeldBack(np.sort(rows), which, stratified)


def _in_proportion(order: Array, labels: Array, budget: int) -> Array:
    """The first samples of each class in that order, about `budget`: classes in proportion, by largest remainders.

    Of each class with two samples or more, one is not held back, and one is if `budget` is at least the number of these
    classes. Where many classes are small, this makes more samples than `budget`, or fewer.
    """
    sizes = np.bincount(labels)
    shares = sizes * (budget / len(labels))
    held = np.floor(shares).astype(np.int64)
    if budget >= np.count_nonzero(sizes > 1):
        held[sizes > 1] = np.maximum(held[sizes > 1], 1)
    by_remainder = np.argsort(held - shares, kind="stable")
    for label in by_remainder:
        if held.sum() >= budget:
            break
        held[label] += sizes[label] > 0
    held = np.minimum(held, np.maximum(sizes - 1, 0))
    ordered = labels[order]
    by_class = np.argsort(ordered, kind="stable")  # within a class still in that order
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ranks = np.arange(len(labels)) - starts[ordered[by_class]]
    return np.asarray(order[by_class[ranks < held[ordered[by_class]]]])


def are_overlapping_windows(x: Array) -> bool:
    """Whether sequences repeat the end of the one before, by the same number of steps, as windows of a series do.

    A few pairs are compared, of which two in three must agree: where windows of several series stand one after the
    other, some pairs are of two series. Steps that repeat a constant do not count, nor does an overlap of a single
    step, nor features that are constant within both sequences, such as the number of the series.
    """
    pairs = len(x) - 1
    if pairs < _LEAST_PAIRS:
        return False
    chosen = np.unique(np.linspace(0, pairs - 1, _MOST_PAIRS).astype(np.intp))
    votes: Counter[int] = Counter()
    for row in chosen:
        one, other = np.asarray(x[row]), np.asarray(x[row + 1])
        varying = (one != one[0]).any(axis=0) | (other != other[0]).any(axis=0)
        one, other = one[:, varying], other[:, varying]
        starts = np.flatnonzero((one[1:-1] == other[0]).all(axis=1)) + 1
        votes.update(
            int(s) for s in starts if (one[s] != one[s + 1 :]).any() and np.array_equal(one[s:], other[: len(one) - s])
        )
    return max(votes.values(), default=0) >= max(_LEAST_PAIRS, 2 * len(chosen) / 3)


def pieces(part: Sequences, rows: Array | None = None, size: int = 128) -> Iterator[Sequences]:
    """Yield the sequences in small parts, so that memory-mapped arrays are not loaded as a whole."""
    for begin in range(0, len(part.x) if rows is None else len(rows), size):
        chosen: Any = slice(begin, begin + size) if rows is None else rows[begin : begin + size]
        yield Sequences(*(None if array is None else array[chosen] for array in part))  # type: ignore[arg-type]


def as_dict(part: Sequences) -> dict[str, Array]:
    """Return the arrays by the names of the arguments of `fit`."""
    return {name: array for name, array in part._asdict().items() if array is not None}
