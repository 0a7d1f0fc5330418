"""PyTorch's GRU on this package's kernels: `GRU` in place of ``torch.nn.GRU``, and `accelerate` for finished models.

>>> import torch, fastgru.torch
>>> gru = fastgru.torch.GRU(28, 64, num_layers=2, bidirectional=True, batch_first=True)
>>> outputs, h_n = gru(torch.randn(32, 28, 28))

Arguments, parameters, ``state_dict`` and results are PyTorch's. A kernel's inputs are NumPy views of the tensors, its
outputs are written to where the tensors lie. docs/torch.md says what is left to PyTorch.
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
from fastgru._support.tape_pool import Spares
from fastgru.torch.autograd import is_plain_call, is_readable, outside_compiler, record, view

__all__ = ["GRU", "accelerate"]

Array = NDArray[Any]
ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)


class GRU(torch.nn.GRU):
    """A ``torch.nn.GRU`` that runs on fastgru's kernels where it can, and is PyTorch's own everywhere else.

    All arguments, inputs, outputs, parameters and attributes are those of ``torch.nn.GRU``, and so are all errors.
    Results agree within rounding, dropout for the same seed of PyTorch's generator. `fastgru.set_num_threads` says
    how many threads compute; their number never changes a bit of a result.

    PyTorch's own forward pass is taken on other devices and for other dtypes than float32 and float64; for empty
    inputs; under autocast, ``torch.export``, ``torch.jit`` and ``torch.func``'s transforms; with forward-mode
    derivatives; with tensor subclasses and dispatch modes. ``torch.compile`` leaves this module out, as it does every
    ``torch.nn.GRU``: between the parts that it compiles, the kernels run.

    Raises
    ------
    RuntimeError
        A gradient is differentiated again, or several are asked for at once (``is_grads_batched``): the kernels have
        first derivatives only.
    """

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Run the GRU, as ``torch.nn.GRU`` does.

        Parameters
        ----------
        input : Tensor (T, N, F), (N, T, F) with ``batch_first``, or (T, F); or PackedSequence
        hx : Tensor (layers * directions, N, H), or (layers * directions, H) for one sequence, optional
            Zeros if not given.

        Returns
        -------
        output : Tensor (T, N, directions * H), (N, T, directions * H) or (T, directions * H); or PackedSequence
            The last layer's states at every step.
        h_n : Tensor
            Every layer's and direction's last state, in the shape of `hx`.
        """
        # What torch.export reads. torch.compile stops at this module as at torch.nn.GRU, and calls it as it is.
        if torch.compiler.is_compiling():
            return super().forward(input, hx)
        if isinstance(input, torch.fx.Proxy):
            # torch.fx looks into modules unless they are PyTorch's own; this one is to stay whole like torch.nn.GRU.
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
        """Whether kernels can work on these arguments; those that are wrong get PyTorch's error from its own pass."""
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        if not is_readable(x) or x.numel() == 0 or x.shape[-1] != self.input_size:
            return False
        if x.dim() not in ((2,) if packed else (2, 3)):
            return False
        if hx is None:
            return True
        rows: tuple[int, ...] = ()  # without a batch, states have no axis for it
        if packed:
            rows = (int(input.batch_sizes[0]),)
        elif x.dim() == 3:
            rows = (x.shape[0 if self.batch_first else 1],)
        shape = (self.num_layers * (2 if self.bidirectional else 1), *rows, self.hidden_size)
        return is_readable(hx) and hx.dtype == x.dtype and hx.shape == shape

    def _has_its_shapes(self) -> bool:
        """Whether the weights have the shapes they were made with; of others PyTorch says what is wrong with them."""
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
        """The stack of layers on a batch, or on a packed sequence's data (sum of `batch_sizes`, F)."""
        directions = 2 if self.bidirectional else 1
        a_layer = len(weights) // self.num_layers
        spares = _spares.setdefault(self, Spares(self.num_layers * directions))
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
                # Between layers the time axis comes first, as in PyTorch: dropout draws its mask in that order.
                reads_batch_first=batch_first and layer == 0,
                writes_batch_first=batch_first and last,
                spares=spares,
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
        """What ``torch.jit.script`` compiles in place of this module: a ``torch.nn.GRU`` with the same parameters."""
        plain = torch.nn.GRU.__new__(torch.nn.GRU)
        plain.__setstate__(self.__getstate__())  # type: ignore[no-untyped-call]
        return plain


def accelerate(module: ModuleT) -> ModuleT:
    """Make every ``torch.nn.GRU`` of a model a `GRU`, in place.

    The modules stay the same objects: parameters, hooks, optimizers, shared modules, tied weights and other references
    to them go on. Subclasses of ``torch.nn.GRU``, those that ``torch.nn.utils.parametrize`` makes among them, are
    left as they are, because what they add is not known.

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
        `module` is no ``torch.nn.Module``.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    for part in module.modules():
        if type(part) is torch.nn.GRU:
            part.__class__ = GRU  # it has no state of its own
    return module


# --- One layer ----------------------------------------------------------------------------------------------------


#: Each module's spare tapes. They are no attributes of it, so that neither copies nor pickles of it hold them.
_spares: weakref.WeakKeyDictionary[GRU, Spares] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _LayerPass:
    """A pass through one layer, besides its tensors: x, h0 (directions, N, H) or None, and each direction's weights."""

    directions: int
    has_bias: bool
    lengths: Array | None
    reads_batch_first: bool
    writes_batch_first: bool
    spares: Spares

    module = "fastgru.torch.GRU"
    instead = "torch.nn.GRU"

    @property
    def tape_count(self) -> int:
        return self.directions

    def run(self, tensors: Sequence[Any], tapes: Sequence[functional.GRUTape | None]) -> tuple[Tensor, Tensor]:
        """The outputs, and the last states (directions, N, H)."""
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
        """The gradients for x, h0 and weights."""
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
                # Not PyTorch's addition, after which its threads would hold the processors that the next kernel needs.
                np.add(d_x, found.x, out=d_x)
        d_h0 = torch.from_numpy(_stacked(d_initial)) if h0_wanted else None
        return d_input, d_h0, *d_weights

    def _halves(self, outputs: Tensor) -> list[Array]:
        """Each direction's part of the outputs, (N, T, H)."""
        array = _batch_major(view(outputs), self.writes_batch_first)
        units = array.shape[2] // self.directions
        return [array[:, :, units * direction : units * (direction + 1)] for direction in range(self.directions)]

    def _by_direction(self, weights: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
        count = 4 if self.has_bias else 2
        return (weights[count * direction : count * (direction + 1)] for direction in range(self.directions))


def _time_major(like: Tensor, rows: int, steps: int, features: int, *, batch_first: bool) -> Tensor:
    """A new tensor of sequences with the memory layout of ``torch.nn.GRU``'s: steps before rows, whatever its shape.

    With `batch_first` the shape is (N, T, F) and the strides are those of a transposed (T, N, F), so that
    ``y.transpose(0, 1).view(-1, F)`` works as it does there. It is no view: those of a custom function may not be
    changed in place.
    """
    shape, strides = (steps, rows, features), (rows * features, features, 1)
    if batch_first:
        shape, strides = (rows, steps, features), (features, rows * features, 1)
    return like.new_empty_strided(shape, strides)


def _destination(d_x: Array | None, *, first: bool) -> bool | Array:
    """Where a direction writes its part of the input's gradient (N, T, F): the second one's is added later."""
    if d_x is None or first:
        return d_x if d_x is not None else False
    return np.empty_like(d_x)


def _batch_major(array: Array, batch_first: bool) -> Array:
    """Sequences as the kernels count their axes, (N, T, ...); and back."""
    return array if batch_first else array.swapaxes(0, 1)


def _stacked(states: Sequence[Array]) -> Array:
    """Each direction's states (N, H) as (directions, N, H)."""
    # reshape, because the strides of np.newaxis are 0, which nn.GRU's are not.
    return states[0].reshape(1, *states[0].shape) if len(states) == 1 else np.stack(states)


def _arrays(weights: Sequence[Tensor]) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """One direction's weights where they lie: kernel (3H, F), recurrent_kernel (3H, H) and two biases (3H,)."""
    kernel, recurrent_kernel, *biases = (view(weight) for weight in weights)
    return kernel, recurrent_kernel, (biases[0], biases[1]) if biases else None
