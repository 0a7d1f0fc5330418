"""A pass of Keras' GRU through the kernels, on NumPy arrays; the backend modules add it to their graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import functional
from fastgru._support.sequences import valid_steps
from fastgru._support.tape_pool import TapePool

Array = NDArray[Any]

MODULE, INSTEAD = "fastgru.keras.GRU", "keras.layers.GRU"


@dataclass(frozen=True)
class GRUPass:
    """The options of a pass. Its arrays: x, initial state, kernel, recurrent kernel and bias (or None)."""

    activation: str
    recurrent_activation: str
    reset_after: bool
    go_backwards: bool
    return_sequences: bool
    zero_output_for_mask: bool
    tape_pool: TapePool

    def forward(
        self,
        arrays: Sequence[Array | None],
        mask: Array | None,
        recurrent_mask: Array | None,
        tape: functional.GRUTape | None,
    ) -> tuple[Array | None, Array]:
        """Return outputs in Keras' order (None without `return_sequences`), and the last state.

        `mask` (N, T) marks valid steps; `recurrent_mask` (3, N, H) is the mask of recurrent dropout.
        """
        x, initial_state, kernel, recurrent_kernel, bias = arrays
        assert x is not None
        assert kernel is not None
        assert recurrent_kernel is not None
        outputs, state = functional.gru_forward(
            x,
            kernel,
            recurrent_kernel,
            bias,
            initial_state,
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            reset_after=self.reset_after,
            go_backwards=self.go_backwards,
            lengths=mask.sum(axis=1, dtype=np.int64) if mask is not None else None,
            padded_outputs="zeros" if self.zero_output_for_mask else "repeat",
            output_order="input" if self._flipped(mask) else "processing",
            recurrent_mask=recurrent_mask,
            return_sequences=self.return_sequences,
            tape=tape,
        )
        if outputs is not None and self._flipped(mask):
            outputs = np.ascontiguousarray(outputs[:, ::-1])
        return outputs, state

    def backward(
        self,
        tape: functional.GRUTape,
        d_outputs: Array | None,
        d_state: Array | None,
        mask: Array | None,
        *,
        input_gradient: bool,
        inputs: tuple[Array, Array, Array] | None = None,
    ) -> tuple[Array | None, ...]:
        """Return gradients for the arrays; `inputs` are x and the weights if their memory has moved."""
        if d_outputs is not None and self._flipped(mask):
            d_outputs = d_outputs[:, ::-1]
        found = functional.gru_backward(tape, d_outputs, d_state, input_gradient=input_gradient, inputs=inputs)
        return found.x, found.initial_state, found.kernel, found.recurrent_kernel, found.bias

    def _flipped(self, mask: Array | None) -> bool:
        """Whether the outputs are in reversed input order, with the padding first, as in Keras."""
        return self.go_backwards and mask is not None


def has_holes(mask: Array) -> bool:
    """Whether a masked step (False) precedes a valid one."""
    return not np.array_equal(mask, valid_steps(mask.sum(axis=1), mask.shape[1]))
