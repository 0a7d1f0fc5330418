"""PyTorch's GRU on this package's kernels: `GRU` replaces ``torch.nn.GRU``, and `accelerate` converts existing models.

>>> import torch, fastgru.torch
>>> gru = fastgru.torch.GRU(28, 64, num_layers=2, bidirectional=True, batch_first=True)
>>> outputs, h_n = gru(torch.randn(32, 28, 28))

Arguments, parameters, ``state_dict`` and results are those of PyTorch. Kernels read and write the memory of the
tensors through NumPy views. docs/torch.md lists the cases in which PyTorch's own kernels run.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastgru import functional
from fastgru._support.tape_pool import TapePool
from fastgru.torch.autograd import is_plain_call, is_readable, outside_compiler, record, view

__all__ = ["GRU", "accelerate"]

Array = NDArray[Any]
ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)


class GRU(torch.nn.GRU):
    """A ``torch.nn.GRU`` that runs on fastgru's kernels if they support the call, and on PyTorch's otherwise.

    All arguments, inputs, outputs, parameters, attributes and errors are those of ``torch.nn.GRU``. Results agree
    within rounding; dropout agrees for the same seed of PyTorch's generator. `fastgru.set_num_threads` sets the number
    of threads. Results are bit-identical for any number of threads.

    PyTorch's own forward pass runs on other devices and for other dtypes than float32 and float64; for empty inputs;
    under autocast, ``torch.export``, ``torch.jit`` and the transforms of ``torch.func``; with forward-mode derivatives;
    with tensor subclasses and dispatch modes. ``torch.compile`` skips this module, as it does every ``torch.nn.GRU``:
    the kernels run between the compiled parts.

    Raises
    ------
    RuntimeError
        A gradient is differentiated again, or several are computed at once (``is_grads_batched``): the kernels have
        first derivatives only.
    """

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Run the GRU, like ``torch.nn.GRU``.

        Parameters
        ----------
        input : Tensor (T, N, F), (N, T, F) with ``batch_first``, or (T, F); or PackedSequence
        hx : Tensor (layers * directions, N, H), or (layers * directions, H) for one sequence, optional
            Default: zeros.

        Returns
        -------
        output : Tensor (T, N, directions * H), (N, T, directions * H) or (T, directions * H); or PackedSequence
            The states of the last layer at every step.
        h_n : Tensor
            The last state of every layer and direction, in the shape of `hx`.
        """
        # torch.export traces this branch. torch.compile skips this module, like torch.nn.GRU, and calls it unchanged.
        if torch.compiler.is_compiling():
            return super().forward(input, hx)
        if isinstance(input, torch.fx.Proxy):
            # torch.fx traces into modules outside PyTorch; this one must stay one node, like torch.nn.GRU.
            tracer: Any = input.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), {})  # type: ignore[no-any-return]
        return self._forward(input, hx)

    @outside_compiler
    def _forward(self, input: Any, hx: Tensor | None) -> tuple[Any, Tensor]:
        if not is_plain_call() or not self._can_read(input, hx):
            return super().forward(input, hx)
        self._update_flat_weights()
        weights: list[Any] = self._flat_weights
        x = input.data if isinstance(input, PackedSequence) else input
        if not all(is_readable(weight) and weight.dtype == x.dtype for weight in weights) or not self._has_its_shapes():
            return super().forward(input, hx)

        if isinstance(input, PackedSequence):
            initial = self.permute_hidden(hx, input.sorted_indices) if hx is not None else None
            data, h_n = self._run_layers(input.data, initial, weights, input.batch_sizes)
            output = PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            return output, self.permute_hidden(h_n, input.unsorted_indices)
        if input.dim() == 2:
            batch_axis = 0 if self.batch_first else 1
            initial = hx.unsqueeze(1) if hx is not None else None
            outputs, h_n = self._run_layers(input.unsqueeze(batch_axis), initial, weights)
            return outputs.squeeze(batch_axis), h_n.squeeze(1)
        return self._run_layers(input, hx, weights)

    def _can_read(self, input: Any, hx: Any) -> bool:
        """Whether the kernels support these arguments. For wrong arguments PyTorch's own pass raises its error."""
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        if not is_readable(x) or x.numel() == 0 or x.shape[-1] != self.input_size:
            return False
        if x.dim() not in ((2,) if packed else (2, 3)):
            return False
        if hx is None:
            return True
        rows: tuple[int, ...] = ()  # without a batch, states have no batch axis
        if packed:
            rows = (int(input.batch_sizes[0]),)
        elif x.dim() == 3:
            rows = (x.shape[0 if self.batch_first else 1],)
        shape = (self.num_layers * (2 if self.bidirectional else 1), *rows, self.hidden_size)
        return is_readable(hx) and hx.dtype == x.dtype and hx.shape == shape

    def _has_its_shapes(self) -> bool:
        """Whether the weights have their original shapes; PyTorch raises for other shapes."""
        rows, inputs = 3 * self.hidden_size, self.input_size
        a_layer = len(self._flat_weights) // self.num_layers
        biases = [(rows,), (rows,)] if self.bias else []
        for layer in range(self.num_layers):
            expected = [(rows, inputs), (rows, self.hidden_size), *biases]
            for index in range(a_layer):
                weight: Any = self._flat_weights[layer * a_layer + index]
                if weight.shape != expected[index % len(expected)]:
                    return False
            inputs = self.hidden_size * (2 if self.bidirectional else 1)
        return True

    def _run_layers(
        self, x: Tensor, hx: Tensor | None, weights: Sequence[Tensor], batch_sizes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run all layers on a batch, or on the data (sum of `batch_sizes`, F) of a packed sequence."""
        directions = 2 if self.bidirectional else 1
        a_layer = len(weights) // self.num_layers
        tape_pool = _tape_pools.setdefault(self, TapePool(self.num_layers * directions))
        initial = torch.split(hx, directions) if hx is not None else (None,) * self.num_layers
        dropout = self.dropout if self.training else 0.0
        batch_first = self.batch_first and batch_sizes is None
        lengths = None
        if batch_sizes is not None:
            x, lengths = pad_packed_sequence(PackedSequence(x, batch_sizes))
        states = []
        for layer in range(self.num_layers):
            last = layer == self.num_layers - 1
            layer_pass = _LayerPass(
                directions=directions,
                has_bias=self.bias,
                lengths=lengths.numpy() if lengths is not None else None,
                # Between layers the time axis comes first, as in PyTorch, because dropout draws its mask in that order.
                reads_batch_first=batch_first and layer == 0,
                writes_batch_first=batch_first and last,
                tape_pool=tape_pool,
            )
            x, state = record(layer_pass, [x, initial[layer], *weights[layer * a_layer : (layer + 1) * a_layer]])
            states.append(state)
            if lengths is not None and batch_sizes is not None and (last or dropout):
                x = pack_padded_sequence(x, lengths).data
            if dropout and not last:
                x = torch.nn.functional.dropout(x, dropout)
                if batch_sizes is not None:
                    x, _ = pad_packed_sequence(PackedSequence(x, batch_sizes))
        return x, torch.cat(states) if len(states) > 1 else states[0]

    def __prepare_scriptable__(self) -> torch.nn.GRU:
        """Return a ``torch.nn.GRU`` with the same parameters, which ``torch.jit.script`` compiles instead."""
        plain = torch.nn.GRU.__new__(torch.nn.GRU)
        plain.__setstate__(self.__getstate__())  # type: ignore[no-untyped-call]
        return plain


def accelerate(module: ModuleT) -> ModuleT:
    """Convert every ``torch.nn.GRU`` of a model to a `GRU`, in place.

    The modules stay the same objects, so parameters, hooks, optimizers, shared modules, tied weights and other
    references remain valid. Subclasses of ``torch.nn.GRU`` are not converted, because their additions are unknown. That
    includes classes made by ``torch.nn.utils.parametrize``.

    Parameters
    ----------
    module : torch.nn.Module
        The model, which may be a ``torch.nn.GRU`` itself.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    TypeError
        `module` is not a ``torch.nn.Module``.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    for part in module.modules():
        if type(part) is torch.nn.GRU:
            part.__class__ = GRU  # safe, because GRU adds no state
    return module


# --- One layer ----------------------------------------------------------------------------------------------------


#: Unused tapes of each module. They are not attributes, so that copies and pickles of a module do not contain them.
_tape_pools: weakref.WeakKeyDictionary[GRU, TapePool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _LayerPass:
    """A pass through one layer. Its tensors: x, h0 (directions, N, H) or None, and the weights of each direction."""

    directions: int
    has_bias: bool
    lengths: Array | None
    reads_batch_first: bool
    writes_batch_first: bool
    tape_pool: TapePool

    module = "fastgru.torch.GRU"
    instead = "torch.nn.GRU"

    @property
    def tape_count(self) -> int:
        return self.directions

    def run(self, tensors: Sequence[Any], tapes: Sequence[functional.GRUTape | None]) -> tuple[Tensor, Tensor]:
        """Return the outputs, and the last states (directions, N, H)."""
        x, h0, *weights = tensors
        x_array = _batch_major(view(x), self.reads_batch_first)
        initial = view(h0) if h0 is not None else [None] * self.directions
        rows, steps = x_array.shape[:2]
        units = weights[1].shape[1]
        outputs = _time_major(x, rows, steps, self.directions * units, batch_first=self.writes_batch_first)
        halves = self._halves(outputs)
        states = []
        for direction, (tape, half, own) in enumerate(zip(tapes, halves, self._by_direction(weights), strict=True)):
            _, state = functional.gru_forward(
                x_array,
                *_arrays(own),
                initial_state=initial[direction],
                weight_layout="torch",
                go_backwards=direction == 1,
                lengths=self.lengths,
                padded_outputs="zeros",
                output_order="input",
                out=half,
                tape=tape,
            )
            states.append(state)
        return outputs, torch.from_numpy(_stacked(states))

    def gradients(
        self,
        tensors: Sequence[Any],
        tapes: Sequence[functional.GRUTape],
        wanted: Sequence[bool],
        d_results: Sequence[Tensor | None],
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients for x, h0 and weights."""
        x, _, *weights = tensors
        x_array = _batch_major(view(x), self.reads_batch_first)
        d_outputs, d_states = d_results
        x_wanted, h0_wanted, *weights_wanted = wanted
        d_halves = self._halves(d_outputs) if d_outputs is not None else [None] * self.directions
        d_input, d_x = None, None
        if x_wanted:
            d_input = _time_major(x, *x_array.shape, batch_first=self.reads_batch_first)
            d_x = _batch_major(view(d_input), self.reads_batch_first)
        d_initial: list[Array] = []
        d_weights: list[Tensor | None] = []
        for direction, (tape, d_half, own) in enumerate(zip(tapes, d_halves, self._by_direction(weights), strict=True)):
            found = functional.gru_backward(
                tape,
                d_half,
                view(d_states[direction]) if d_states is not None else None,
                input_gradient=_destination(d_x, first=not d_initial),
                inputs=(x_array, view(own[0]), view(own[1])),
            )
            d_initial.append(found.initial_state)
            for array in (found.kernel, found.recurrent_kernel, *(found.bias if found.bias is not None else ())):
                asked = weights_wanted[len(d_weights)]
                d_weights.append(torch.from_numpy(array) if asked else None)
            if d_x is not None and found.x is not None and found.x is not d_x:
                # NumPy adds: after an addition in PyTorch its threads would occupy the processors of the next kernel.
                np.add(d_x, found.x, out=d_x)
        d_h0 = torch.from_numpy(_stacked(d_initial)) if h0_wanted else None
        return d_input, d_h0, *d_weights

    def _halves(self, outputs: Tensor) -> list[Array]:
        """Return the part of the outputs of each direction, (N, T, H)."""
        array = _batch_major(view(outputs), self.writes_batch_first)
        units = array.shape[2] // self.directions
        return [array[:, :, units * direction : units * (direction + 1)] for direction in range(self.directions)]

    def _by_direction(self, weights: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
        count = 4 if self.has_bias else 2
        return (weights[count * direction : count * (direction + 1)] for direction in range(self.directions))


def _time_major(like: Tensor, rows: int, steps: int, features: int, *, batch_first: bool) -> Tensor:
    """Return a new tensor of sequences with the memory layout of ``torch.nn.GRU``: the time axis before the batch axis.

    With `batch_first` the shape is (N, T, F) and the strides are those of a transposed (T, N, F), so that
    ``y.transpose(0, 1).view(-1, F)`` works as with PyTorch. The tensor is not a view, because PyTorch does not allow
    changing views that a custom function returns in place.
    """
    shape, strides = (steps, rows, features), (rows * features, features, 1)
    if batch_first:
        shape, strides = (rows, steps, features), (features, rows * features, 1)
    return like.new_empty_strided(shape, strides)


def _destination(d_x: Array | None, *, first: bool) -> bool | Array:
    """Return where a direction writes its part of the input gradient (N, T, F); the second part is added later."""
    if d_x is None or first:
        return d_x if d_x is not None else False
    return np.empty_like(d_x)


def _batch_major(array: Array, batch_first: bool) -> Array:
    """Convert sequences to the axes of the kernels, (N, T, ...), or back."""
    return array if batch_first else array.swapaxes(0, 1)


def _stacked(states: Sequence[Array]) -> Array:
    """Stack the states (N, H) of each direction to (directions, N, H)."""
    # reshape, because np.newaxis makes strides of 0, unlike nn.GRU.
    return states[0].reshape(1, *states[0].shape) if len(states) == 1 else np.stack(states)


def _arrays(weights: Sequence[Tensor]) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """Return views of one direction's weights: kernel (3H, F), recurrent_kernel (3H, H) and two biases (3H,)."""
    kernel, recurrent_kernel, *biases = (view(weight) for weight in weights)
    return kernel, recurrent_kernel, (biases[0], biases[1]) if biases else None
