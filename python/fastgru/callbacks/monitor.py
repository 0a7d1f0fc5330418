"""Callbacks that watch one entry of the logs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NoReturn

from fastgru._support import checks
from fastgru._support.representation import as_call
from fastgru.callbacks.base import Callback, Logs


class Monitor(Callback):
    """Watches one entry of the logs for the better."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        self.monitor = monitor
        self._automatic = checks.choice("mode", mode, ("auto", "min", "max")) == "auto"
        if self._automatic:  # as the name has it, until there is a model whose metric says so itself
            mode = "max" if monitor.endswith(("accuracy", "acc", "f1_score", "f1", "auc")) else "min"
        self.mode = mode
        self.min_delta = checks.number("min_delta", min_delta, least=0)
        self.forget_best()

    def __repr__(self) -> str:
        return as_call(self, mode="auto" if self._automatic else self.mode)

    def forget_best(self) -> None:
        """Begin anew."""
        self.best = math.inf if self.mode == "min" else -math.inf

    def set_model(self, model: Any) -> None:  # noqa: D102
        super().set_model(model)
        modes = {metric.name: metric.mode for metric in model.metrics}
        mode = modes.get(self.monitor.removeprefix("val_"), self.mode)
        if self._automatic and mode != self.mode:
            self.mode = mode
            self.forget_best()

    def require_possible(self, logs: list[str], *, complete: bool) -> None:  # noqa: D102
        if self.monitor in logs or not complete:
            return
        if self.monitor.startswith("val_") and not any(name.startswith("val_") for name in logs):
            raise ValueError(
                f"monitor: expected an entry of training because there is no validation_data, got {self.monitor!r} in "
                f"{type(self).__name__}"
            )
        self._refuse(logs)

    def _refuse(self, logs: Iterable[str]) -> NoReturn:
        raise ValueError(f"monitor: expected one of {', '.join(map(repr, logs))}, got {self.monitor!r}")

    def watched(self, logs: Logs | None) -> float:
        """The entry that is watched."""
        if not logs or self.monitor not in logs:
            self._refuse(logs or ())
        return float(logs[self.monitor])

    def improved(self, value: float) -> bool:
        """Whether `value` is better than the best so far, by more than min_delta."""
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta
