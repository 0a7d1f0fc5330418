"""A chain of layers that knows how it is trained: optimizer, loss and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastgru import losses, optimizers
from fastgru import metrics as _metrics
from fastgru._support import usage
from fastgru.layers import Head
from fastgru.models.network import Chain


class Compiled(Chain):
    """A chain, and what `compile` chose for it.

    Attributes
    ----------
    optimizer : Optimizer or None
    loss : Loss or None
    metrics : list of Metric
    """

    def __init__(
        self, layers: Iterable[Any] | None = None, *, dtype: str | None = None, name: str = "sequential"
    ) -> None:
        super().__init__(layers, dtype=dtype, name=name)
        self.loss: losses.Loss | None = None
        self.metrics: list[_metrics.Metric] = []

    @usage.alone("compile replaces the optimizer", outermost=True)
    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss = "categorical_crossentropy",
        metrics: Iterable[str | _metrics.Metric] | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            "adam", "adamw", "sgd", "rmsprop", or one of `fastgru.optimizers`.
        loss : str or Loss
            "categorical_crossentropy" or "sparse_categorical_crossentropy" (either takes integer labels as well as
            one-hot targets), "binary_crossentropy", "mean_squared_error" ("mse"), "mean_absolute_error" ("mae"),
            "huber", or one of `fastgru.losses`. Cross-entropies are computed from what comes before the last layer's
            softmax or sigmoid, unless they say ``from_logits=True``.
        metrics : iterable, optional
            "accuracy", "top_k_accuracy", "binary_accuracy", "mae", "mse", "f1_score", or some of `fastgru.metrics`,
            objects that no other model is compiled with.

        A model with a loss, metric or schedule of a class of your own cannot be saved: a file holds names, no code.
        """
        checked = optimizers.get(optimizer)
        loss = losses.get(loss)
        if isinstance(metrics, (str, _metrics.Metric)):
            raise TypeError(f"metrics: expected a list, got {metrics!r}; write metrics=[{metrics!r}]")
        if metrics is not None and (isinstance(metrics, (Mapping, bytes)) or not isinstance(metrics, Iterable)):
            raise TypeError(f"metrics: expected a list, got {type(metrics).__name__}")
        given = [] if metrics is None else list(metrics)
        for metric in given:
            if isinstance(metric, _metrics.Metric):
                metric.require_free(self)
        chosen = [_metrics.get(metric, loss) for metric in given]
        names = [metric.name for metric in chosen]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: expected different ones, got {', '.join(names)}")
        raw = self._takes_raw_head(loss)
        checked.belong_to(self)
        for metric in chosen:
            metric.belong_to(self)
        if self.optimizer is not None and self.optimizer is not checked:
            self.optimizer.leave()
        self.optimizer, self.loss, self.metrics, self._raw_head = checked, loss, chosen, raw

    def _takes_raw_head(self, loss: losses.Loss) -> bool:
        """Whether `loss` takes the last activation in itself; raises where they do not go together."""
        if not self.layers:
            raise ValueError("the model has no layers: add one")
        head = self.layers[-1]
        activation = head.activation if isinstance(head, Head) else None
        if loss.head is None:
            if loss.from_logits and activation in ("softmax", "sigmoid"):
                raise ValueError(
                    f"loss: {loss.name} with from_logits=True needs a last layer without activation, got {activation!r}"
                )
            return activation == "linear"
        if activation != loss.head:
            found = repr(activation) if activation else f"a {type(head).__name__}, which has none"
            raise ValueError(
                f"loss: {loss.name} needs a last layer with activation={loss.head!r}, got {found}; if that gives "
                f"logits, write losses.{type(loss).__name__}(from_logits=True)"
            )
        return True

    def _compiled(self) -> tuple[optimizers.Optimizer, losses.Loss]:
        if self.optimizer is None or self.loss is None:
            raise RuntimeError("the model is not compiled: call compile(optimizer, loss, metrics) first")
        self._raw_head = self._takes_raw_head(self.loss)  # a layer may have been added since
        if self.layers[-1].several_outputs:
            raise ValueError(
                f"{self.layers[-1].name}: expected a last layer with one output for a loss, got one that returns "
                f"several arrays"
            )
        return self.optimizer, self.loss
