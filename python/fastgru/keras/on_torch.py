"""Keras' GRU in PyTorch's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgru._support.tape_pool import TapePool
from fastgru.functional import GRUTape
from fastgru.keras.passes import INSTEAD, MODULE, GRUPass, has_holes
from fastgru.torch.autograd import is_plain_call, is_readable, outside_compiler, record, view

Array = NDArray[Any]
T = TypeVar("T")


@outside_compiler
def run(
    gru: GRUPass,
    tensors: Sequence[Any],
    mask: Any,
    recurrent_mask: Any,
    finish: Callable[[Any, Any], T],
    keras_own: Callable[[], T],
    *,
    training: bool,
) -> T:
    """Return `finish` of the outputs (None if they are not returned) and the last state, or else `keras_own()`."""
    del training  # PyTorch itself knows whether a gradient may be needed
    given = [tensor for tensor in (*tensors, recurrent_mask) if tensor is not None]
    if not is_plain_call() or not all(is_readable(tensor) for tensor in given) or given[0].numel() == 0:
        return keras_own()
    mask_array = view(mask) if mask is not None else None
    if any(tensor.dtype != given[0].dtype for tensor in given) or (mask_array is not None and has_holes(mask_array)):
        return keras_own()
    outputs, state = record(
        _TorchPass(gru, mask_array, view(recurrent_mask) if recurrent_mask is not None else None), tensors
    )
    return finish(outputs, state)


@dataclass(frozen=True)
class _TorchPass:
    """The pass with the interface of `fastgru.torch.autograd.Pass`."""

    gru: GRUPass
    mask: Array | None
    recurrent_mask: Array | None

    module = MODULE
    instead = INSTEAD
    tape_count = 1

    @property
    def tape_pool(self) -> TapePool:
        return self.gru.tape_pool

    def run(self, tensors: Sequence[Any], tapes: Sequence[GRUTape | None]) -> tuple[Tensor | None, Tensor]:
        arrays = [view(tensor) if tensor is not None else None for tensor in tensors]
        outputs, state = self.gru.forward(arrays, self.mask, self.recurrent_mask, tapes[0])
        return torch.from_numpy(outputs) if outputs is not None else None, torch.from_numpy(state)

    def gradients(
        self,
        tensors: Sequence[Any],
        tapes: Sequence[GRUTape],
        wanted: Sequence[bool],
        d_results: Sequence[Tensor | None],
    ) -> tuple[Tensor | None, ...]:
        d_outputs, d_state = (view(d) if d is not None else None for d in d_results)
        x, _, kernel, recurrent_kernel, _ = tensors
        inputs = view(x), view(kernel), view(recurrent_kernel)
        found = self.gru.backward(tapes[0], d_outputs, d_state, self.mask, input_gradient=wanted[0], inputs=inputs)
        return tuple(
            torch.from_numpy(gradient) if gradient is not None and asked else None
            for gradient, asked in zip(found, wanted, strict=True)
        )
