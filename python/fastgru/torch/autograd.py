"""Kernels in PyTorch's autograd graph: which calls they support, and how a pass is recorded and differentiated.

A `Pass` defines the computation; `record` adds it to the graph. Kernels use NumPy views of the tensors' memory.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from fastgru._support.tape_pool import TapePool
from fastgru.functional import GRUTape

Array = NDArray[Any]
P = ParamSpec("P")
T = TypeVar("T")

#: Other subclasses of Tensor (fake, distributed, traced, ...) have no readable memory, or additional semantics.
_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


class Pass(Protocol):
    """A pass through kernels, without its tensors."""

    @property
    def module(self) -> str:
        """Name of the module, for messages."""

    @property
    def instead(self) -> str:
        """Name of the module to use if the kernels do not support a call, for messages."""

    @property
    def tape_count(self) -> int:
        """Number of tapes that the pass records."""

    @property
    def tape_pool(self) -> TapePool:
        """The pool that provides the tapes."""

    def run(self, tensors: Sequence[Any], tapes: Sequence[GRUTape | None]) -> tuple[Tensor | None, ...]:
        """Return the results, and record the pass on `tapes`."""

    def gradients(
        self,
        tensors: Sequence[Any],
        tapes: Sequence[GRUTape],
        wanted: Sequence[bool],
        d_results: Sequence[Tensor | None],
    ) -> tuple[Tensor | None, ...]:
        """Return gradients for the tensors, None if not wanted; at least one of `d_results` is given.

        The tensors are those of `run`. Their memory may have moved: memory that tapes reference must not be read.
        """


def record(computation: Pass, tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Return the results of a pass, recorded in PyTorch's graph if a gradient may be needed."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Recorded.apply(computation, *tensors)  # type: ignore[no-untyped-call, no-any-return]
    with torch.no_grad():
        return computation.run(tensors, [None] * computation.tape_count)


def outside_compiler(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` hidden from a compiler that traces the calls between its compiled parts.

    Like ``torch.compiler.disable``, but without importing the compiler, which takes as long as importing PyTorch.
    """
    hidden: Callable[P, T] | None = None

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal hidden
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if hidden is None:
            hidden = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return hidden(*args, **kwargs)

    return call


# --- What the kernels support -------------------------------------------------------------------------------------


def is_plain_call() -> bool:
    """Whether operators run immediately and unchanged: not recorded, transformed or cast."""
    return not (
        torch.is_autocast_enabled("cpu")
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def is_readable(tensor: Any) -> bool:
    """Whether `tensor` has memory that NumPy can view, in a dtype that the kernels support."""
    return (
        type(tensor) in _PLAIN_TENSORS
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.dtype in (torch.float32, torch.float64)
        and not tensor.is_neg()  # the sign is not yet applied to the memory
        and not (tensor.is_inference() and torch.is_grad_enabled())  # it cannot be saved for backward
    )


class _Memory:
    """A tensor's memory with NumPy's array interface."""

    __slots__ = ("__array_interface__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # keeps the memory alive, but not the graph
        size = tensor.element_size()
        self.__array_interface__ = {
            "version": 3,
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": tuple(size * stride for stride in tensor.stride()),
            "typestr": _TYPES[tensor.dtype],
        }


_TYPES = {torch.float32: np.dtype(np.float32).str, torch.float64: np.dtype(np.float64).str, torch.bool: "|b1"}


def view(tensor: Tensor) -> Array:
    """Return the tensor's memory as an array, valid as long as the memory does not move.

    ``Tensor.numpy`` is not used, because PyTorch then never frees or moves the memory, as its FSDP does with weights
    between forward and backward.
    """
    return np.asarray(_Memory(tensor.resolve_neg() if tensor.is_neg() else tensor))


# --- Tapes --------------------------------------------------------------------------------------------------------


class _Recording:
    """The tapes of one pass. They return to the pool when PyTorch's graph no longer needs them."""

    def __init__(self, computation: Pass) -> None:
        self.tape_pool = computation.tape_pool
        self.tapes = [self.tape_pool.take() for _ in range(computation.tape_count)]
        self.lock = threading.Lock()  # several threads may differentiate a retained graph at the same time

    @outside_compiler
    def __del__(self) -> None:
        if not sys.is_finalizing():
            for tape in self.tapes:
                self.tape_pool.give_back(tape)


_recordings: weakref.WeakValueDictionary[int, _Recording] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class _Handle(np.ndarray[Any, np.dtype[np.int64]]):
    """A recording's number, as an array that references the recording.

    As a tensor it can be saved for backward. A recording then lives exactly as long as PyTorch's own saved tensors:
    until backward without ``retain_graph`` has used them, or until a hook for saved tensors replaces them, such as
    that of ``torch.utils.checkpoint``.
    """

    recording: _Recording

    @staticmethod
    def of(recording: _Recording) -> Tensor:
        number = next(_numbers)
        _recordings[number] = recording
        handle = np.array(number, np.int64).view(_Handle)
        handle.recording = recording
        return torch.from_numpy(handle)


# --- The graph ----------------------------------------------------------------------------------------------------


class _Recorded(torch.autograd.Function):
    """A pass in PyTorch's autograd graph."""

    @staticmethod
    def forward(ctx: Any, computation: Pass, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        recording = _Recording(computation)
        results = computation.run(tensors, recording.tapes)
        ctx.computation = computation
        ctx.set_materialize_grads(False)
        # Backward reads x and the weights at their current address. Saving them makes PyTorch raise if they were
        # changed in place meanwhile.
        ctx.save_for_backward(_Handle.of(recording), *tensors)
        return results

    @staticmethod
    @outside_compiler
    def backward(ctx: Any, *d_results: Tensor | None) -> tuple[Tensor | None, ...]:
        batched = any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in d_results)
        if batched or torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                f"{ctx.computation.module}: expected one gradient at a time, got a batch of them (is_grads_batched, "
                f"vectorize=True); use {ctx.computation.instead} for it"
            )
        handle, *tensors = ctx.saved_tensors
        with torch.no_grad():
            gradients = _gradients(ctx, handle, tensors, d_results)
        if torch.is_grad_enabled():  # create_graph=True
            gradients = _FirstDerivatives.apply(ctx.computation, gradients, *tensors, *d_results)  # type: ignore[no-untyped-call]
        return None, *gradients


class _FirstDerivatives(torch.autograd.Function):
    """Identity of gradients that raises if it is differentiated.

    In the graph the gradients depend on everything that they are computed from, because PyTorch calls a node only on a
    path to the differentiated tensors. ``once_differentiable`` would treat gradients as constants if their incoming
    gradients are constant, as after ``output.sum()``. A gradient penalty would then silently train nothing.
    """

    @staticmethod
    def forward(
        ctx: Any, computation: Pass, gradients: tuple[Tensor | None, ...], *sources: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.computation = computation
        return gradients

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"{ctx.computation.module}: expected first derivatives because its kernels have no others, got a "
            f"derivative of its gradients (create_graph=True); use {ctx.computation.instead} for it"
        )


def _gradients(
    ctx: Any, handle: Tensor, tensors: Sequence[Tensor | None], d_results: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return the gradients for the tensors of the pass."""
    if all(d is None for d in d_results):
        return (None,) * len(tensors)
    recording = _recordings.get(int(handle.item()))
    if recording is None:  # a hook for saved tensors kept a copy of the number only, and the tapes are gone
        recording = _Recording(ctx.computation)
        ctx.computation.run(tensors, recording.tapes)
    with recording.lock:
        gradients: tuple[Tensor | None, ...] = ctx.computation.gradients(
            tensors, recording.tapes, ctx.needs_input_grad[1:], d_results
        )
    return gradients
