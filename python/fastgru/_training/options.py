"""The options of `fastgru.Sequential.fit`: all arguments except data and callbacks, checked."""

from __future__ import annotations

import os
import zlib
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._training.data import ArraySet, StreamSet
from fastgru._training.sample_weights import check_class_weight
from fastgru.losses import Loss


@dataclass(kw_only=True)
class FitOptions:
    """Parameters of `fastgru.Sequential.fit`, checked for a model with this loss."""

    loss: InitVar[Loss]
    epochs: int
    batch_size: int
    verbose: int | str
    shuffle: bool
    class_weight: dict[int, float] | None
    initial_epoch: int
    steps_per_epoch: int | None
    validation_split: Any  # after the checks: a float, or an array of indices
    validation_steps: int | None
    validation_batch_size: int | None
    validation_freq: Any  # after the checks: an int, or a frozenset of epochs counted from 1
    resume_from: str | os.PathLike[str] | None

    def __post_init__(self, loss: Loss) -> None:
        self.epochs = checks.integer("epochs", self.epochs, least=0)
        self.batch_size = checks.integer("batch_size", self.batch_size, least=1)
        self.initial_epoch = checks.integer("initial_epoch", self.initial_epoch, least=0)
        self.validation_freq = _check_freq("validation_freq", self.validation_freq)
        self.validation_split = _check_split("validation_split", self.validation_split)
        self.shuffle = checks.flag("shuffle", self.shuffle)
        for name in ("steps_per_epoch", "validation_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                setattr(self, name, checks.integer(name, getattr(self, name), least=1))
        check_verbose(self.verbose)
        if self.resume_from is not None and not isinstance(self.resume_from, (str, os.PathLike)):
            raise TypeError(f"resume_from: expected a path, got {self.resume_from!r}")
        self.class_weight = check_class_weight(self.class_weight, loss)

    def validates(self, epoch: int) -> bool:
        """Whether the model is validated after this epoch, counted from 0."""
        if isinstance(self.validation_freq, int):
            return (epoch + 1) % self.validation_freq == 0
        return epoch + 1 in self.validation_freq

    @property
    def validates_always(self) -> bool:
        """Whether the model is validated after every epoch."""
        return all(self.validates(epoch) for epoch in range(self.initial_epoch, self.epochs))

    @property
    def splits(self) -> bool:
        """Whether some samples are held back for validation."""
        return not isinstance(self.validation_split, float) or self.validation_split > 0

    @property
    def rows_to_validate(self) -> int:
        """Batch size of the validation."""
        return self.batch_size if self.validation_batch_size is None else self.validation_batch_size

    def describe_split(self) -> str:
        """Return `validation_split` as text for messages."""
        split = self.validation_split
        return f"{split:g}" if isinstance(split, float) else f"{len(split)} indices"

    def required_to_resume(self, data: ArraySet | StreamSet) -> dict[str, Any]:
        """Return the options that must be the same in a resumed training run, as JSON values."""
        weights, split = self.class_weight, self.validation_split
        if not isinstance(split, float):
            checksum = zlib.crc32(split.astype(np.int64).tobytes())
            split = f"{len(split)} indices with checksum {checksum:08x}"
        return {
            "batch_size": self.batch_size,
            "samples": data.count,
            "shuffle": self.shuffle if isinstance(data, ArraySet) else None,
            "steps_per_epoch": self.steps_per_epoch,
            "class_weight": None if weights is None else [list(entry) for entry in sorted(weights.items())],
            "validation_split": split,
        }


def check_verbose(value: Any) -> int:
    """Return `verbose` as 0, 1 or 2; "auto" is 1."""
    if isinstance(value, str) and value == "auto":
        return 1
    if not isinstance(value, (int, np.integer)) or value not in (0, 1, 2):
        raise ValueError(f"verbose: expected 0, 1, 2 or 'auto', got {value!r}")
    return int(value)


def _check_freq(name: str, value: Any) -> int | frozenset[int]:
    """Return the interval between validations in epochs, or the epochs to validate after, counted from 1."""
    if isinstance(value, (list, tuple, set, frozenset, range, np.ndarray)):
        return frozenset(checks.integer(name, epoch, least=1) for epoch in value)
    return checks.integer(name, value, least=1)


def _check_split(name: str, value: Any) -> float | NDArray[np.intp]:
    """Return a fraction from 0 to below 1, or the indices of the samples to hold back."""
    if not isinstance(value, (np.ndarray, list, tuple)) or np.ndim(value) == 0:
        return checks.number(name, value, least=0, below=1)
    indices = checks.array(name, value)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a number, or integers (K,), got {indices.dtype} of shape {indices.shape}")
    if len(np.unique(indices)) < len(indices):
        raise ValueError(f"{name}: expected each index once, got duplicates")
    return indices.astype(np.intp)
