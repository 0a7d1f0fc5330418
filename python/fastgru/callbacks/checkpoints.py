"""Callbacks that write the model or the whole training to files."""

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
    """Write the model to a file after each epoch, after the best ones, or every so many batches.

    The ending of the name decides the format, as in `Sequential.save`. A ``.safetensors`` file holds the whole
    training: `Sequential.fit` can resume from it, and `load_model` reads it. Files of other formats hold the model.
    Before the first epoch, the untrained model is written to a temporary file, so that an unknown ending, a missing
    folder or package, or a model that the format does not support raises an error then.

    The file is written after all other callbacks have been called. It is replaced atomically. An epoch that
    `TerminateOnNaN` ends early is not written.

    Parameters
    ----------
    filepath : path
        May contain ``{epoch}``, counted from 1, and entries of the logs: ``"{epoch:02d}-{val_loss:.2f}.keras"``; with a
        number of batches as `save_freq` also ``{batch}``. Folders that contain such fields are created.
    monitor : str
        An entry of the logs, for `save_best_only`.
    verbose : {0, 1}
        Whether to print a line when a file is written.
    save_best_only : bool
        Whether to write only if `monitor` has improved.
    save_weights_only : bool
        Whether to write the weights alone, by `Sequential.save_weights`: ``"best.weights.h5"``.
    mode : {"auto", "min", "max"}
        Whether smaller or larger values of `monitor` are better; "auto" takes the metric's own direction.
    save_freq : "epoch" or int
        Write after each epoch, or after every so many batches, from which a training can be resumed within an epoch.
    initial_value_threshold : float, optional
        With `save_best_only`, the value of `monitor` that must be improved on.
    include_optimizer : bool
        Whether the file has the optimizer, the loss and the metrics. Without them a training cannot be resumed.
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
        """Whether the folder's name has fields, so that it depends on the epoch."""
        folder = os.path.dirname(self.filepath)
        return _without_fields(folder) != folder.replace("{{", "{").replace("}}", "}")

    def _kind(self) -> str:
        """The format that the ending of the name asks for."""
        try:
            if self.save_weights_only:
                return formats.weights_kind(_without_fields(self.filepath))
            return formats.kind_of_name(_without_fields(self.filepath))
        except ValueError as error:
            remedy = "; pass save_weights_only=True" if self.filepath.lower().endswith(".weights.h5") else ""
            message = str(error).removeprefix("path: ").replace(", or format=", "")
            raise ValueError(f"filepath: {message}{remedy}") from None

    def require_saveable(self) -> None:  # noqa: D102
        try:
            path = self._path(0, self._stand_in)
        except ValueError:  # of entries that other callbacks will add
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
            raise FloatingPointError(f"{path}: expected finite weights, got others; the file is left as it was")
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
    """A name with 0 for each of its fields."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:  # no format, which `ModelCheckpoint._path` refuses
        return text
    return "".join(literal + ("" if field is None else "0") for literal, field, _, _ in parts)


class BackupAndRestore(Callback):
    """Back up the training to a folder, and resume from there if the same program runs again after an interruption.

    A resumed training has the same bits as one that was not interrupted: see ``resume_from`` of `Sequential.fit`. The
    file is that of `ModelCheckpoint` with a ``.safetensors`` name. Call `fit` with the same data, options and
    callbacks.

    Parameters
    ----------
    backup_dir : path
        The folder for the backup, which is created if it does not exist. Use it for this training alone.
    save_freq : "epoch" or int
        Back up after each epoch, or after every so many batches.
    double_checkpoint : bool
        Ignored: the file is replaced atomically and has a checksum, so that no second copy is needed.
    delete_checkpoint : bool
        Whether to delete the backup when the training has ended.
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
            with contextlib.suppress(OSError):  # a folder that holds other files stays
                os.rmdir(self.backup_dir)

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"batches": self._batches}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("batches",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self._batches = state["batches"]
