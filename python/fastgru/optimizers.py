"""Optimizers: each updates a model's flat buffer of parameters in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import checks, functional

Array = NDArray[Any]

FORMS = ("keras", "tfjs", "pytorch")


class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Parameters
    ----------
    learning_rate : float
        Above 0.
    beta_1, beta_2 : float
        Decay of the moments, from 0 to below 1.
    epsilon : float
        At least 0.
    form : {"keras", "tfjs", "pytorch"}
        Whose arithmetic to follow; see `fastgru.functional.adam_update`. PyTorch's own epsilon is 1e-8.

    Attributes
    ----------
    step : int
        Updates so far.
    m, v : ndarray or None
        The moments, as flat as the parameters; None before the first update.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *,
        form: str = "keras",
    ) -> None:
        self.learning_rate = checks.number("learning_rate", learning_rate, above=0)
        self.beta_1 = checks.number("beta_1", beta_1, least=0, below=1)
        self.beta_2 = checks.number("beta_2", beta_2, least=0, below=1)
        self.epsilon = checks.number("epsilon", epsilon, least=0)
        self.form = checks.choice("form", form, FORMS)
        self.step = 0
        self.m: Array | None = None
        self.v: Array | None = None

    def update(self, parameters: Array, gradient: Array) -> None:
        """Move `parameters` (P,), in place, against `gradient` (P,)."""
        if self.m is None or self.v is None:
            self.m, self.v = np.zeros_like(parameters), np.zeros_like(parameters)
        functional.adam_update(
            parameters,
            gradient,
            self.m,
            self.v,
            step=self.step + 1,
            learning_rate=self.learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            form=self.form,
        )
        self.step += 1

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same optimizer again."""
        return {name: getattr(self, name) for name in ("learning_rate", "beta_1", "beta_2", "epsilon", "form")}

    def get_state(self) -> tuple[int, dict[str, Array]]:
        """The number of updates, and the moments by name."""
        if self.m is None or self.v is None:
            return 0, {}
        return self.step, {"m": self.m, "v": self.v}

    def set_state(self, step: int, moments: dict[str, Array]) -> None:
        """Go on from what `get_state` returned; the arrays are copied."""
        self.step = checks.integer("step", step, least=0)
        self.m = moments["m"].copy() if moments else None
        self.v = moments["v"].copy() if moments else None


def get(optimizer: str | Adam) -> Adam:
    """The optimizer of that name with its defaults, or the one given."""
    if isinstance(optimizer, Adam):
        return optimizer
    if optimizer == "adam":
        return Adam()
    raise ValueError(f"optimizer: expected 'adam' or a fastgru.optimizers.Adam, got {optimizer!r}")
