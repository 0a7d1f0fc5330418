"""Callbacks that save the model or the whole training run to files."""

from __future__ import annotations

import contextlib
import os
import string
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru import formats
from fastgru._support import checks
from fastgru._support.files import check_path
from fastgru.callbacks.base import (
    Callback,
    Logs,
    Monitor,
    check_save_freq,
    check_verbose,
    require_numbers,
    require_target,
)

Array = NDArray[Any]


class ModelCheckpoint(Monitor):
    """Save the model to a file after each epoch, after each improvement, or every n batches.

    The ending of the name selects the file format, as in `Sequential.save`. A ``.safetensors`` file contains the whole
    training run: `Sequential.fit` can resume from it, and `load_model` can read it. Files in other formats contain the
    model only.

    Before the first epoch, the untrained model is written to a temporary file. An unknown ending, a missing folder or
    package, or a model that the format does not support therefore raises an error before training.

    The file is written after all other callbacks have been called. It is replaced atomically. No file is written for an
    epoch that `TerminateOnNaN` ends early.

    Parameters
    ----------
    filepath : path
        The file name. It may contain the field ``{epoch}``, counted from 1, and entries of the logs, as in
        ``"{epoch:02d}-{val_loss:.2f}.keras"``. If `save_freq` is a number, it may also contain ``{batch}``. Folders
        whose names contain fields are created.
    monitor : str, default "val_loss"
        The entry of the logs for `save_best_only`.
    verbose : {0, 1}
        Whether to print a line when a file is written.
    save_best_only : bool, default False
        Whether to write a file only if `monitor` has improved.
    save_weights_only : bool, default False
        Whether to write only the weights, with `Sequential.save_weights`, such as to ``"best.weights.h5"``.
    mode : {"auto", "min", "max"}
        Whether smaller or larger values of `monitor` are better. "auto" uses the mode of the metric.
    save_freq : "epoch" or int
        Write a file after each epoch, or after this number of batches. A training run can also be resumed in the middle
        of an epoch.
    initial_value_threshold : float, optional
        With `save_best_only`, the first file is written only if `monitor` is better than this value.
    include_optimizer : bool, default True
        Whether to also save optimizer, loss, metrics and optimizer state. Without them, training cannot be resumed.

    Examples
    --------
    >>> checkpoint = callbacks.ModelCheckpoint("run.safetensors")
    >>> model.fit(x, y, epochs=100, callbacks=[checkpoint])
    >>> model.fit(x, y, epochs=100, callbacks=[checkpoint], resume_from="run.safetensors")  # after an interruption
    """

    writes_training: ClassVar[bool] = True

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        include_optimizer: bool = True,
    ) -> None:
        self.initial_value_threshold = (
            None
            if initial_value_threshold is None
            else checks.number("initial_value_threshold", initial_value_threshold)
        )
        super().__init__(monitor, mode, 0.0)
        check_path(filepath, "filepath")
        self.filepath = os.fspath(filepath)
        self.verbose = check_verbose(verbose)
        self.save_best_only = checks.flag("save_best_only", save_best_only)
        self.save_weights_only = checks.flag("save_weights_only", save_weights_only)
        self.include_optimizer = checks.flag("include_optimizer", include_optimizer)
        self.save_freq = check_save_freq(save_freq)
        self._batches = 0
        self._epoch = 0

    def forget_best(self) -> None:  # noqa: D102
        super().forget_best()
        if self.initial_value_threshold is not None:
            self.best = self.initial_value_threshold

    @property
    def resumable(self) -> bool:  # noqa: D102
        return not self.save_weights_only and self.include_optimizer and self._kind() == "fastgru"

    def watches(self, occasion: str) -> bool:  # noqa: D102
        return occasion == "on_train_batch_end" and self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._epoch = epoch

    # --- Before the first epoch ----------------------------------------------------------------------------------

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:  # noqa: D102
        sometimes = set(sometimes)
        if self.save_freq != "epoch":
            logs = [name for name in logs if not name.startswith("val_")]
        if self.save_best_only:
            super().require_possible(logs, complete=complete, sometimes=sometimes)
        always = [name for name in logs if name not in sometimes or (self.save_best_only and self.monitor in sometimes)]
        if complete:
            self._path(0, dict.fromkeys(always, 0.0))
        self._kind()
        require_target("filepath", self.filepath if self._makes_folders else _without_fields(self.filepath))
        self._stand_in = dict.fromkeys(logs, 0.0)

    @property
    def _makes_folders(self) -> bool:
        """Whether the name of the folder contains fields, so that it depends on the epoch."""
        folder = os.path.dirname(self.filepath)
        return _without_fields(folder) != folder.replace("{{", "{").replace("}}", "}")

    def _kind(self) -> str:
        """Return the format that the ending of the name selects."""
        try:
            if self.save_weights_only:
                return formats.weights_kind(_without_fields(self.filepath))
            return formats.kind_of_name(_without_fields(self.filepath))
        except ValueError as error:
            remedy = "; pass save_weights_only=True" if self.filepath.lower().endswith(".weights.h5") else ""
            message = str(error).replace(", or pass format=", "")
            raise ValueError(f"{message}{remedy}") from None

    def require_saveable(self) -> None:  # noqa: D102
        try:
            path = self._path(0, self._stand_in)
        except ValueError:  # fields for entries that other callbacks will add
            path = _without_fields(self.filepath)
        folder = os.path.dirname(path)
        while self._makes_folders and folder and not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        path = os.path.join(folder, os.path.basename(path))
        if self.save_weights_only:
            self.model.require_saveable(path, weights_only=True)
        else:
            self.model.require_saveable(path, include_optimizer=self.include_optimizer)

    # --- Writing -------------------------------------------------------------------------------------------------

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches += 1
        if self._batches % int(self.save_freq) == 0:
            self._save_if_better(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        if self.save_freq == "epoch":
            self._save_if_better(0, logs)

    def _save_if_better(self, batch: int, logs: Logs | None) -> None:
        reason = ""
        if self.save_best_only:
            value = self.watched(logs)
            if value is None or not self.improved(value):
                return
            reason = f"{self.monitor} improved from {self.best:.5f} to {value:.5f}, "
            self.best = value
        path = self._path(batch, logs)
        if self._makes_folders:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        self._write(path)
        if self.verbose:
            print(f"Epoch {self._epoch + 1}: {reason}saving the {self._contents()} to {path}")

    def _contents(self) -> str:
        return "weights" if self.save_weights_only else "training" if self.resumable else "model"

    def _write(self, path: str) -> None:
        if self.resumable:
            self.model.save_training(path)
            return
        if not np.isfinite(self.model.parameters).all():
            raise FloatingPointError(
                f"{path}: expected finite weights, got NaN or infinity; the existing file is not changed"
            )
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path, include_optimizer=self.include_optimizer)

    def _path(self, batch: int, logs: Logs | None) -> str:
        fields = {"epoch": self._epoch + 1, **(logs or {})}
        if self.save_freq != "epoch":
            fields.setdefault("batch", batch + 1)
        try:
            return self.filepath.format(**fields)
        except (LookupError, ValueError) as error:
            raise ValueError(
                f"filepath: expected fields of {', '.join(fields)}, got {self.filepath!r} ({error!r})"
            ) from None

    # --- State ---------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"best": self.best, "batches": self._batches, "epoch": self._epoch}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("batches", "epoch"), reals=("best",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.best, self._batches, self._epoch = state["best"], state["batches"], state["epoch"]


def _without_fields(text: str) -> str:
    """Return a name with each field replaced by 0."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:  # an invalid format string, for which `ModelCheckpoint._path` raises
        return text
    return "".join(literal + ("" if field is None else "0") for literal, field, _, _ in parts)


class BackupAndRestore(Callback):
    """Back up the training run to a folder, and resume from it when `fit` is called again after an interruption.

    The result of a resumed run is bit-identical to that of an uninterrupted run; see ``resume_from`` of
    `Sequential.fit`. The backup is a ``.safetensors`` file like that of `ModelCheckpoint`. Call `fit` with the same
    data, options and callbacks.

    Parameters
    ----------
    backup_dir : path
        The folder for the backup. It is created if it does not exist. Use a separate folder for each training run.
    save_freq : "epoch" or int
        Back up after each epoch, or after this number of batches.
    double_checkpoint : bool
        Ignored. No second copy is needed because the file is replaced atomically and has a checksum.
    delete_checkpoint : bool, default True
        Whether to delete the backup after training has ended without an error.

    Examples
    --------
    >>> model.fit(x, y, epochs=100, callbacks=[callbacks.BackupAndRestore("backup")])
    """

    writes_training: ClassVar[bool] = True
    _NAME = "backup.safetensors"

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        check_path(backup_dir, "backup_dir")
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = check_save_freq(save_freq)
        self.double_checkpoint = checks.flag("double_checkpoint", double_checkpoint)
        self.delete_checkpoint = checks.flag("delete_checkpoint", delete_checkpoint)
        self._batches = 0

    @property
    def _path(self) -> str:
        return os.path.join(self.backup_dir, self._NAME)

    def watches(self, occasion: str) -> bool:  # noqa: D102
        return occasion == "on_train_batch_end" and self.save_freq != "epoch"

    def find_backup(self) -> str | None:  # noqa: D102
        return self._path if os.path.exists(self._path) else None

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:  # noqa: D102
        if os.path.exists(self.backup_dir) and not os.path.isdir(self.backup_dir):
            raise NotADirectoryError(f"backup_dir: expected a folder, got the file {self.backup_dir}")

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches = 0
        os.makedirs(self.backup_dir, exist_ok=True)

    def require_saveable(self) -> None:  # noqa: D102
        self.model.require_saveable(self._path)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches += 1
        if self._batches % int(self.save_freq) == 0:
            self.model.save_training(self._path)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        if self.save_freq == "epoch":
            self.model.save_training(self._path)

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: D102
        if self.delete_checkpoint:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):  # a folder with other files is not deleted
                os.rmdir(self.backup_dir)

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"batches": self._batches}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("batches",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self._batches = state["batches"]
