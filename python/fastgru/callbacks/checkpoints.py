"""The callback that writes a training to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.files import check_path
from fastgru.callbacks.base import Logs, Monitor, check_verbose, require_numbers, require_target

Array = NDArray[Any]


class ModelCheckpoint(Monitor):
    """Write the training to a file as it goes, whole: `Sequential.fit` can go on from it, and `load_model` reads it.

    The file is written when all callbacks have been told of the epoch or batch, and holds what each made of it. An
    epoch that `TerminateOnNaN` ends early is not written.

    Parameters
    ----------
    filepath : path
        May hold ``{epoch}``, counted from 1, and entries of the logs: ``"{epoch:02d}-{val_loss:.3f}.safetensors"``. The
        file is replaced atomically.
    monitor : str
        An entry of the logs, for `save_best_only`.
    verbose : {0, 1}
        Whether to print when a file is written.
    save_best_only : bool
        Whether to write after the best epochs only.
    save_weights_only : bool
        False: weights alone are not enough to go on from. `Sequential.get_weights` has them.
    mode : {"auto", "min", "max"}
        Which way is better.
    save_freq : "epoch" or int
        Write after each epoch, or after every so many batches, which also makes a resumed training continue within an
        epoch.
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
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        check_path(filepath, "filepath")
        self.filepath = os.fspath(filepath)
        self.verbose = check_verbose(verbose)
        self.save_best_only = checks.flag("save_best_only", save_best_only)
        self.save_weights_only = checks.flag("save_weights_only", save_weights_only)
        if self.save_weights_only:
            raise ValueError("save_weights_only: expected False because a training cannot go on from weights, got True")
        if save_freq != "epoch":
            save_freq = checks.integer("save_freq", save_freq, least=1)
            if self.save_best_only:
                raise ValueError("save_freq: expected 'epoch' because save_best_only is True, got a number of batches")
        self.save_freq = save_freq
        self._batches = 0
        self._epoch = 0

    def watches_batches(self) -> bool:  # noqa: D102
        return self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._epoch = epoch

    def require_possible(self, logs: list[str], *, complete: bool) -> None:  # noqa: D102
        if self.save_best_only:
            super().require_possible(logs, complete=complete)
        if self.save_freq != "epoch":
            logs = [name for name in logs if not name.startswith("val_")]
        if complete:
            self._path(dict.fromkeys(logs, 0.0))
        require_target("filepath", self.filepath)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches += 1
        if self._batches % int(self.save_freq) == 0:
            self._save(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        if self.save_freq != "epoch":
            return
        if self.save_best_only:
            value = self.watched(logs)
            if not self.improved(value):
                return
            self.best = value
        self._save(logs)

    def _save(self, logs: Logs | None) -> None:
        path = self._path(logs)
        self.model.save_training(path)
        if self.verbose:
            print(f"Epoch {self._epoch + 1}: ModelCheckpoint has written {path}")

    def _path(self, logs: Logs | None) -> str:
        try:
            return self.filepath.format(epoch=self._epoch + 1, **(logs or {}))
        except (LookupError, ValueError) as error:
            names = ", ".join(["epoch", *(logs or ())])
            raise ValueError(f"filepath: expected fields of {names}, got {self.filepath!r} ({error!r})") from None

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"best": self.best, "batches": self._batches, "epoch": self._epoch}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("batches", "epoch"), reals=("best",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.best, self._batches, self._epoch = state["best"], state["batches"], state["epoch"]
