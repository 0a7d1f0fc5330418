"""The optimizer, loss and metrics that `compile` sets, and their checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastgru import losses, optimizers
from fastgru import metrics as _metrics
from fastgru.losses.base import ANY_HEAD, PROBABILITIES
from fastgru.models.network import Network


@dataclass(eq=False)
class Compilation:
    """The optimizer, loss and metrics of one model; None and empty until `choose` is called.

    Optimizers and metrics store values of one model. They belong to this object, which exists as long as the model.
    """

    optimizer: optimizers.Optimizer | None = None
    loss: losses.Loss | None = None
    metrics: list[_metrics.Metric] = field(default_factory=list)

    def choose(
        self,
        network: Network,
        optimizer: Any,
        loss: Any,
        metrics: Iterable[Any] | None,
    ) -> None:
        """Check and store the arguments of `Sequential.compile`. After an error nothing has changed."""
        checked = optimizers.get(optimizer)
        loss = None if loss is None else losses.get(loss)
        given = _check_list(metrics)
        if loss is None and given:
            raise ValueError("metrics: expected none because no loss is given, got metrics; pass loss= as well")
        for metric in given:
            if isinstance(metric, _metrics.Metric):
                metric.require_free(self)
        raw = loss is not None and takes_raw_head(network, loss)
        chosen = []
        if loss is not None:
            kind = kind_of_targets(network, loss)
            chosen = [_metrics.for_loss(metric, loss, kind) for metric in given]
        names = [metric.name for metric in chosen]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: expected metrics of different names, got {', '.join(names)}; pass name=")
        checked.belong_to(self)
        for metric in chosen:
            metric.belong_to(self)
        if self.optimizer is not None and self.optimizer is not checked:
            self.optimizer.leave()
        self.optimizer, self.loss, self.metrics, network.raw_head = checked, loss, chosen, raw
        network.release_trainable()

    def connect(self, network: Network) -> tuple[optimizers.Optimizer, losses.Loss]:
        """Set the scores that the network computes for the loss, and return optimizer and loss."""
        if self.optimizer is None:
            raise RuntimeError("the model is not compiled: call compile(optimizer, loss) first")
        if self.loss is None:
            raise ValueError(
                "loss: expected a loss for training and evaluation, got None; call compile(optimizer, loss)"
            )
        network.raw_head = takes_raw_head(network, self.loss)  # a layer may have been added after compile
        if network.layers[-1].several_outputs:
            raise ValueError(
                f"{network.layers[-1].name}: expected a last layer with one output for a loss, got one that returns "
                f"several arrays"
            )
        return self.optimizer, self.loss

    def forget_moments(self) -> None:
        """Reset the optimizer state, because weights in new memory have another layout."""
        if self.optimizer is not None:
            self.optimizer.set_state(0, {})


def refuse_weights(loss_weights: Any, weighted_metrics: Any) -> None:
    """Raise ValueError if `compile` received loss_weights or weighted_metrics, which are not supported."""
    if loss_weights is not None:
        raise ValueError(
            f"loss_weights: expected None because a model has one loss, got {loss_weights!r:.100}; pass metrics by "
            f"keyword, as metrics={loss_weights!r:.100}, or sample_weight= to fit"
        )
    if weighted_metrics:
        raise ValueError(
            f"weighted_metrics: expected None because weighted metrics are not supported, got "
            f"{weighted_metrics!r:.100}; pass metrics= instead"
        )


def _check_list(metrics: Iterable[Any] | None) -> list[Any]:
    if isinstance(metrics, (str, _metrics.Metric)) or callable(metrics):
        raise TypeError(f"metrics: expected a list, got {metrics!r}; write metrics=[{metrics!r}]")
    if metrics is not None and (isinstance(metrics, (Mapping, bytes)) or not isinstance(metrics, Iterable)):
        raise TypeError(f"metrics: expected a list, got {type(metrics).__name__}")
    return [] if metrics is None else list(metrics)


def _last_activation(network: Network) -> str | None:
    head = network.layers[-1].head
    return None if head is None else head.activation


def kind_of_targets(network: Network, loss: losses.Loss) -> str:
    """Return the kind of targets. For functions and custom losses, the last activation determines it."""
    if loss.head == ANY_HEAD and loss.kind == "numbers":
        return PROBABILITIES.get(_last_activation(network) or "", "numbers")
    return loss.kind


def takes_raw_head(network: Network, loss: losses.Loss) -> bool:
    """Return whether `loss` computes the last activation itself. Raises if loss and activation do not match."""
    if not network.layers:
        raise ValueError("the model has no layers: add one")
    activation = _last_activation(network)
    if loss.head == ANY_HEAD and activation in PROBABILITIES:
        return True
    if loss.head in (None, ANY_HEAD):
        if loss.from_logits and activation in ("softmax", "sigmoid"):
            raise ValueError(
                f"loss: expected a last layer without activation because {loss.name} has from_logits=True, got "
                f"activation={activation!r}"
            )
        return activation == "linear"
    if activation != loss.head:
        found = repr(activation) if activation else f"a {type(network.layers[-1]).__name__}, which has none"
        raise ValueError(
            f"loss: {loss.name} needs a last layer with activation={loss.head!r}, got {found}; if its outputs are "
            f"logits, pass losses.{type(loss).__name__}(from_logits=True)"
        )
    return True
