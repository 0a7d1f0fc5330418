"""The callback that writes logs for TensorBoard."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.files import check_path
from fastgru.callbacks.base import Callback, Logs, require_numbers

Array = NDArray[Any]

#: Parameters of Keras' callback that are not supported -> (the accepted value, remedy for all others).
_UNSUPPORTED = {
    "write_images": (False, "use histogram_freq, which writes histograms of the weights"),
    "profile_batch": (0, "profile the process with a tool such as py-spy or perf"),
    "embeddings_freq": (0, "save the Embedding's weights with ModelCheckpoint"),
    "embeddings_metadata": (None, "leave it out"),
}


_numbers = itertools.count()


class TensorBoard(Callback):
    """Write losses, metrics and the learning rate for TensorBoard, with the same names as Keras.

    The folder ``train`` receives entries such as ``epoch_loss``, ``epoch_accuracy`` and ``epoch_learning_rate``. The
    folder ``validation`` receives the entries of the validation, and ``evaluation_loss_vs_iterations``. The callback
    needs the extra ``tensorboard`` (tensorboardX).

    Parameters
    ----------
    log_dir : path, default "logs"
        The folder for the logs. It is created if it does not exist.
    histogram_freq : int, default 0
        The number of epochs between histograms of the weights; 0 writes none.
    write_graph : bool
        Ignored. There is no graph of operations.
    write_images : bool
        Not supported: must be False.
    write_steps_per_second : bool, default False
        Whether to write the number of training batches per second.
    update_freq : "epoch", "batch" or int
        "batch" or a number n: also write ``batch_loss`` and the metrics after each batch, or after every n batches.
    profile_batch, embeddings_freq, embeddings_metadata
        Not supported: must have their default values.

    Raises
    ------
    ImportError
        tensorboardX is not installed; raised before the first epoch.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        check_path(log_dir, "log_dir")
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = checks.integer("histogram_freq", histogram_freq, least=0)
        self.write_graph = checks.flag("write_graph", write_graph)
        self.write_images = write_images
        self.write_steps_per_second = checks.flag("write_steps_per_second", write_steps_per_second)
        if not isinstance(update_freq, str) or update_freq not in ("epoch", "batch"):
            update_freq = checks.integer("update_freq", update_freq, least=1)
        self.update_freq = update_freq
        self.profile_batch = profile_batch
        self.embeddings_freq = embeddings_freq
        self.embeddings_metadata = embeddings_metadata
        for name, (default, remedy) in _UNSUPPORTED.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}: expected {default!r} because fastgru does not support it, got {getattr(self, name)!r}; "
                    f"{remedy}"
                )
        self._writers: dict[str, Any] = {}
        self._training = False
        self._batches = 0  # since the beginning of the training run
        self._began = self._epoch_began = 0.0
        self._batches_before = 0

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:  # noqa: D102
        _writer_class()

    def watches(self, occasion: str) -> bool:  # noqa: D102
        return occasion in ("on_train_batch_begin", "on_train_batch_end") and (
            self.update_freq != "epoch" or self.write_steps_per_second
        )

    def _write(self, part: str, prefix: str, values: dict[str, float], step: int, suffix: str = "") -> None:
        if part not in self._writers:
            # tensorboardX names files by the second, so that a second run in the same second would replace the file.
            ending = f".{os.getpid()}.{next(_numbers)}.v2"
            self._writers[part] = _writer_class()(os.path.join(self.log_dir, part), filename_suffix=ending)
        for name, value in values.items():
            self._writers[part].add_scalar(f"{prefix}{name}{suffix}", value, step)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches = 0
        self._training = True
        self._write("train", "", {}, 0)  # creates the folder, or raises, before the first epoch

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._training = False
        self._close()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches_before, self._epoch_began = self._batches, time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches += 1
        if self.update_freq == "epoch" or self._batches % (1 if self.update_freq == "batch" else int(self.update_freq)):
            return
        values = dict(logs or {})
        if self.write_steps_per_second:
            values["steps_per_second"] = 1 / max(time.perf_counter() - self._began, 1e-9)
        self._write("train", "batch_", values, self._batches)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        logs = logs or {}
        rate = self.model.optimizer.learning_rate
        if isinstance(rate, float):
            rates = {"learning_rate": rate}
        else:
            rates = {"learning_rate": float(rate(self.model.optimizer.get_state()[0]))}
        train = {name: value for name, value in logs.items() if not name.startswith("val_")} | rates
        if self.write_steps_per_second:
            seconds = max(time.perf_counter() - self._epoch_began, 1e-9)
            train["steps_per_second"] = (self._batches - self._batches_before) / seconds
        self._write("train", "epoch_", train, epoch)
        validation = {name[4:]: value for name, value in logs.items() if name.startswith("val_")}
        if validation:
            self._write("validation", "epoch_", validation, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for layer in self.model.layers:
                for name, weight in layer.parameters.items():
                    self._writers["train"].add_histogram(f"{layer.name}/{name}/histogram", weight, epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_test_end(self, logs: Logs | None = None) -> None:  # noqa: D102
        step = self.model.optimizer.get_state()[0]
        self._write("validation", "evaluation_", dict(logs or {}), step, "_vs_iterations")
        if not self._training:
            self._close()

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"batches": self._batches}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("batches",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self._batches = self._batches_before = state["batches"]
        self._epoch_began = time.perf_counter()


def _writer_class() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError(f"TensorBoard needs tensorboardX: pip install tensorboardX ({error})") from None
    return SummaryWriter
