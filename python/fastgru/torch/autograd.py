"""Kernels in PyTorch's graph: which calls they can serve, and how a pass is recorded, kept and differentiated.

A `Pass` says what is computed; `record` puts it into the graph. It stands on NumPy views of the tensors' memory.
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

from fastgru._support.tape_pool import Spares
from fastgru.functional import GRUTape

Array = NDArray[Any]
P = ParamSpec("P")
T = TypeVar("T")

#: Other subclasses of Tensor (fake, distributed, traced, ...) have no memory that can be read, or mean more than it.
_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


class Pass(Protocol):
    """A pass through kernels, besides its tensors."""

    @property
    def module(self) -> str:
        """Whose pass it is, for messages."""

    @property
    def instead(self) -> str:
        """What to use where the kernels cannot serve, for messages."""

    @property
    def tape_count(self) -> int:
        """How many tapes it fills."""

    @property
    def spares(self) -> Spares:
        """Where its tapes come from."""

    def run(self, tensors: Sequence[Any], tapes: Sequence[GRUTape | None]) -> tuple[Tensor | None, ...]:
        """The results, recorded on `tapes`."""

    def gradients(
        self,
        tensors: Sequence[Any],
        tapes: Sequence[GRUTape],
        wanted: Sequence[bool],
        d_results: Sequence[Tensor | None],
    ) -> tuple[Tensor | None, ...]:
        """Gradients for the tensors, None where none is wanted; at least one of `d_results` is given.

        The tensors are those of `run`; their memory may have moved, so that what tapes hold of it must not be read.
        """


def record(computation: Pass, tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The results of a pass, in PyTorch's graph where a gradient can be asked for."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Recorded.apply(computation, *tensors)  # type: ignore[no-untyped-call, no-any-return]
    with torch.no_grad():
        return computation.run(tensors, [None] * computation.tape_count)


def outside_compiler(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, out of sight of a compiler that looks into all that Python calls between the parts it compiles.

    What ``torch.compiler.disable`` does, but this does not import the compiler, which takes as long as PyTorch itself.
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


# --- What the kernels can serve -----------------------------------------------------------------------------------


def is_plain_call() -> bool:
    """Whether operators do what they say here and now, instead of being recorded, transformed or cast."""
    return not (
        torch.is_autocast_enabled("cpu")
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def is_readable(tensor: Any) -> bool:
    """Whether `tensor` has memory that NumPy can view, with numbers that kernels know."""
    return (
        type(tensor) in _PLAIN_TENSORS
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.dtype in (torch.float32, torch.float64)
        and not tensor.is_neg()  # a minus sign that is not in the memory yet
        and not (tensor.is_inference() and torch.is_grad_enabled())  # it cannot be saved for backward
    )


class _Memory:
    """A tensor's memory in NumPy's terms."""

    __slots__ = ("__array_interface__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # keeps the memory, but no graph, as long as an array stands on this
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
    """The tensor's memory as an array, for as long as the memory stays where it is.

    Not ``Tensor.numpy``, after which PyTorch never again lets the memory be freed or moved, as its FSDP does with
    weights between forward and backward.
    """
    return np.asarray(_Memory(tensor.resolve_neg() if tensor.is_neg() else tensor))


# --- Tapes --------------------------------------------------------------------------------------------------------


class _Recording:
    """The tapes of one pass. They go back to the spares when nothing in PyTorch's graph needs them any more."""

    def __init__(self, computation: Pass) -> None:
        self.spares = computation.spares
        self.tapes = [self.spares.take() for _ in range(computation.tape_count)]
        self.lock = threading.Lock()  # a graph that is retained may be differentiated by several threads at once

    @outside_compiler
    def __del__(self) -> None:
        if not sys.is_finalizing():
            for tape in self.tapes:
                self.spares.give_back(tape)


_recordings: weakref.WeakValueDictionary[int, _Recording] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class _Handle(np.ndarray[Any, np.dtype[np.int64]]):
    """A recording's number, as an array that keeps the recording.

    As a tensor it can be saved for backward. A recording then lives exactly as long as PyTorch keeps its own saved
    tensors: until backward without ``retain_graph`` has used them, or until a hook for saved tensors, such as
    ``torch.utils.checkpoint``'s, takes something else in their place.
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
    """A pass in PyTorch's graph."""

    @staticmethod
    def forward(ctx: Any, computation: Pass, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        recording = _Recording(computation)
        results = computation.run(tensors, recording.tapes)
        ctx.computation = computation
        ctx.set_materialize_grads(False)
        # Backward reads x and the weights again, where they lie then. Saving them makes PyTorch notice if they were
        # written to meanwhile.
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
    """Gradients as they are, which cannot be differentiated.

    In the graph they depend on all that they are computed from: PyTorch asks a node only if it lies on the way to what
    is differentiated by. ``once_differentiable`` would let those pass for constants whose own incoming gradients are
    constants, as after ``output.sum()``: a penalty on them would then train nothing and say nothing.
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
            f"{ctx.computation.module}: expected to be differentiated once, got a derivative of its gradients "
            f"(create_graph=True), which its kernels do not have; use {ctx.computation.instead} for it"
        )


def _gradients(
    ctx: Any, handle: Tensor, tensors: Sequence[Tensor | None], d_results: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients for the tensors of the pass."""
    if all(d is None for d in d_results):
        return (None,) * len(tensors)
    recording = _recordings.get(int(handle.item()))
    if recording is None:  # a hook for saved tensors kept a copy of the number, so that the tapes are gone
        recording = _Recording(ctx.computation)
        ctx.computation.run(tensors, recording.tapes)
    with recording.lock:
        gradients: tuple[Tensor | None, ...] = ctx.computation.gradients(
            tensors, recording.tapes, ctx.needs_input_grad[1:], d_results
        )
    return gradients
