"""The choices of `compile`, checked against the layers and each other."""

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

    Optimizers and metrics keep numbers of one model, so they belong to this object, which lives as long as the model.
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
        """Take the arguments of `Sequential.compile`; nothing changes unless all of them fit."""
        checked = optimizers.get(optimizer)
        loss = None if loss is None else losses.get(loss)
        given = _check_list(metrics)
        if loss is None and given:
            raise ValueError("metrics: expected none because no loss is given, got some; pass loss= as well")
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
        """Make the network give what the loss takes, and return optimizer and loss; raises unless they fit."""
        if self.optimizer is None:
            raise RuntimeError("the model is not compiled: call compile(optimizer, loss) first")
        if self.loss is None:
            raise ValueError(
                "loss: expected one to train and to evaluate with, got None; call compile(optimizer, loss)"
            )
        network.raw_head = takes_raw_head(network, self.loss)  # a layer may have been added since
        if network.layers[-1].several_outputs:
            raise ValueError(
                f"{network.layers[-1].name}: expected a last layer with one output for a loss, got one that returns "
                f"several arrays"
            )
        return self.optimizer, self.loss

    def forget_moments(self) -> None:
        """Reset the optimizer's state, which does not fit weights in new memory."""
        if self.optimizer is not None:
            self.optimizer.set_state(0, {})


def refuse_weights(loss_weights: Any, weighted_metrics: Any) -> None:
    """Raise if `compile` was given weights of losses or weighted metrics, which are not supported."""
    if loss_weights is not None:
        raise ValueError(
            f"loss_weights: expected None because a model has one loss, got {loss_weights!r:.100}; if these are "
            f"metrics, write metrics={loss_weights!r:.100}, else pass sample_weight= to fit"
        )
    if weighted_metrics:
        raise ValueError(
            f"weighted_metrics: expected None because metrics are not weighted, got {weighted_metrics!r:.100}; pass "
            f"metrics= instead"
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
    """What targets are: of a function, and of classes of a user's own, as the last activation implies."""
    if loss.head == ANY_HEAD and loss.kind == "numbers":
        return PROBABILITIES.get(_last_activation(network) or "", "numbers")
    return loss.kind


def takes_raw_head(network: Network, loss: losses.Loss) -> bool:
    """Whether `loss` takes the scores before the last activation; raises if the two do not fit together."""
    if not network.layers:
        raise ValueError("the model has no layers: add one")
    activation = _last_activation(network)
    if loss.head == ANY_HEAD and activation in PROBABILITIES:
        return True
    if loss.head in (None, ANY_HEAD):
        if loss.from_logits and activation in ("softmax", "sigmoid"):
            raise ValueError(
                f"loss: {loss.name} with from_logits=True needs a last layer without activation, got {activation!r}"
            )
        return activation == "linear"
    if activation != loss.head:
        found = repr(activation) if activation else f"a {type(network.layers[-1]).__name__}, which has none"
        raise ValueError(
            f"loss: {loss.name} needs a last layer with activation={loss.head!r}, got {found}; if that gives "
            f"logits, write losses.{type(loss).__name__}(from_logits=True)"
        )
    return True
