"""Data of the command line: digits or arrays from files, for classification or regression."""

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

#: The maximum number of classes. Larger labels are probably a mistake, and would need a huge output layer.
MOST_CLASSES = 1 << 16

#: The ways in which `hold_back` can choose samples.
CHOICES = ("random", "last")
#: The key of the random numbers of `hold_back`. `fastgru.set_seed` counts its keys from 0.
_HOLD_BACK = (1 << 32) - 1
#: The minimum and maximum number of pairs of neighbouring sequences to compare.
_LEAST_PAIRS, _MOST_PAIRS = 3, 16


@dataclass(frozen=True)
class Data:
    """A data set and its description.

    Attributes
    ----------
    name, reason : str
        The name of the data set, and why it was chosen.
    task : {"classify", "regress"}
    outputs : int
        The number of classes, or of numbers to predict.
    each_step : bool
        Whether there is a target for each step of a sequence.
    train : Sequences
    test : Sequences or None
    samples : str
        The word for samples in messages, such as "images".
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
    """Load the data set `name`. Without a name, load MNIST if available, otherwise synthetic digits."""
    if name is not None and name not in DIGITS:
        if folder is not None:
            raise UsageError(f"--data: expected none because the arrays are in {name}, got a folder")
        return _load_arrays(name, task)
    if task is not None:
        raise UsageError(f"--task: expected none because digits are classes, got {task}")
    if name == "synthetic":
        if folder is not None:
            raise UsageError("--data: expected none because synthetic digits are generated, got a folder")
        return _digits("synthetic", "as requested, generated digits", datasets.synthetic.load_data(seed=seed))
    try:
        splits, source = datasets.mnist.locate(folder)
        return _digits("mnist", f"60,000 images of handwritten digits from {source}", splits)
    except DataUnavailableError as error:
        # A data set that the user named must exist. Only the default has a substitute.
        if name == "mnist":
            raise
        reason = f"generated digits, because {error.reason}"
        return _digits("synthetic", reason, datasets.synthetic.load_data(seed=seed))


def _digits(name: str, reason: str, splits: tuple[tuple[Array, Array], tuple[Array, Array]]) -> Data:
    train, test = splits
    return Data(name, reason, "classify", 10, False, Sequences(*train), Sequences(*test), "images")


# --- Arrays from files ----------------------------------------------------------------------------------------


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
            raise ValueError(
                f"{path}: y_test: expected targets like those in y, {targets.y.shape}, got {of_test.y.shape}"
            )
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
    """Return int64 classes (N,) or (N, T), with 0 in padding."""
    y, (rows, steps) = part.y, part.x.shape[:2]
    assert y is not None
    if y.shape not in ((rows,), (rows, steps)):
        raise ValueError(
            f"{name}: expected shape ({rows},) or ({rows}, {steps}), a class for each sequence or for each step, got "
            f"{y.shape}; pass --task regress to predict numbers"
        )
    counted = _counted(part, each_step=y.ndim == 2)
    wrong = counted & ~((y >= 0) & (y < MOST_CLASSES) & (y == np.floor(y) if y.dtype.kind == "f" else True))
    if wrong.any():
        index = _first(wrong)
        raise ValueError(
            f"{name}: expected classes, integers from 0 to {MOST_CLASSES - 1}, got {y[index]} at index "
            f"{index[0] if len(index) == 1 else index}"
        )
    labels = np.where(counted, y, 0).astype(np.int64)
    classes = int(labels.max()) + 1
    if classes < 2:
        raise ValueError(f"{name}: expected at least two classes, got only class 0")
    return _Targets(labels, classes, y.ndim == 2)


def _numbers(name: str, part: Sequences) -> _Targets:
    """Return numbers (N,), (N, C) or (N, T, C). (N, T) is reshaped to (N, T, 1)."""
    given = part.y
    assert given is not None
    y = given[:, :, None] if given.shape == part.x.shape[:2] else given
    wrong = _counted(part, each_step=y.ndim == 3, axes=y.ndim) & ~np.isfinite(y)
    if wrong.any():
        index = _first(wrong)[: given.ndim]
        raise ValueError(f"{name}: expected finite numbers, got {given[index]} at index {index}")
    return _Targets(y, 1 if y.ndim == 1 else y.shape[-1], y.ndim == 3)


def _counted(part: Sequences, *, each_step: bool, axes: int = 2) -> Array:
    """Return a mask of valid targets, to be broadcast to them. With targets at each step, padding is not valid."""
    if not each_step or part.lengths is None:
        return np.array(True)
    counted = valid_steps(part.lengths, part.x.shape[1])
    return counted[:, :, None] if axes == 3 else counted


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(wrong)[0])


# --- Samples held back for validation -------------------------------------------------------------------------


class HeldBack(NamedTuple):
    """The samples held back for validation.

    Attributes
    ----------
    rows : ndarray (K,) of integers
        The indices of the samples, in ascending order.
    which : {"random", "last"}
    stratified : bool
        Whether the samples are stratified by class.
    """

    rows: Array
    which: str
    stratified: bool

    def describe(self, found: Data) -> str:
        """Return a sentence with the number of samples, how they were chosen, and the number of each class."""
        y = found.train.y
        assert y is not None
        how = "the last ones" if self.which == "last" else "drawn at random"
        counts = None
        if found.task == "classify" and y.ndim == 1:
            everything = np.bincount(y)
            counts = np.bincount(y[self.rows], minlength=len(everything))[everything > 0]
        if self.stratified:
            missing = counts is not None and not counts.min()
            how += ", stratified by class as far as possible" if missing else ", stratified by class"
        text = f"{len(self.rows):,} of {len(y):,} {found.samples} held back, {how}"
        return text if counts is None else f"{text}: {counts.min():,} to {counts.max():,} of each class"


def hold_back(found: Data, fraction: float, seed: int, which: str | None) -> HeldBack:
    """Choose a fraction of the training samples, at least one and not all. The same seed chooses the same samples.

    Without `which`, the samples are drawn at random, stratified if each sequence has a class. For other targets, the
    last samples are chosen if the sequences are overlapping windows of a series. Random samples would overlap with
    training samples there.
    """
    x, y, lengths = found.train
    assert y is not None
    count = len(x)
    if count < 2:
        raise ValueError(f"--validation: expected at least two samples, one of them for validation, got {count}")
    kept = min(max(int(count * (1 - fraction) + 1e-9), 1), count - 1)  # rounded as in validation_split of fit
    stratified = found.task == "classify" and y.ndim == 1 and np.bincount(y).max() > 1
    if which is None:
        which = "last" if not stratified and lengths is None and are_overlapping_windows(x) else "random"
    if which == "last":
        return HeldBack(np.arange(kept, count), which, False)
    # A separate random stream, so that the initial weights do not depend on the validation samples.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_HOLD_BACK,)))
    order = generator.permutation(count)
    rows = _in_proportion(order, np.asarray(y), count - kept) if stratified else order[kept:]
    return HeldBack(np.sort(rows), which, stratified)


def _in_proportion(order: Array, labels: Array, budget: int) -> Array:
    """Return the first samples of each class in `order`, about `budget` of them, stratified by largest remainders.

    Of each class with two samples or more, at least one is not held back. If `budget` is at least the number of these
    classes, at least one is held back. If many classes are small, the result contains more or fewer samples than
    `budget`.
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
    by_class = np.argsort(ordered, kind="stable")  # stable, so that the order within a class does not change
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ranks = np.arange(len(labels)) - starts[ordered[by_class]]
    return np.asarray(order[by_class[ranks < held[ordered[by_class]]]])


def are_overlapping_windows(x: Array) -> bool:
    """Return whether each sequence begins with the end of the previous one, as windows of a series do.

    A few pairs of neighbours are compared, and two thirds of them must overlap by the same number of steps. The others
    may belong to two different series. Overlaps of constant steps or of a single step are ignored. Features that are
    constant within both sequences, such as the number of the series, are also ignored.
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
    """Yield the sequences, or those at `rows`, a few at a time, so that memory-mapped arrays are not loaded whole."""
    for begin in range(0, len(part.x) if rows is None else len(rows), size):
        chosen: Any = slice(begin, begin + size) if rows is None else rows[begin : begin + size]
        yield Sequences(*(None if array is None else array[chosen] for array in part))  # type: ignore[arg-type]


def as_dict(part: Sequences) -> dict[str, Array]:
    """Return the arrays by the names of the arguments of `fit`."""
    return {name: array for name, array in part._asdict().items() if array is not None}
