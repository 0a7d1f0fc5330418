"""The layer: Keras' arguments, variables and configuration, with kernels instead of the loop over time."""

from __future__ import annotations

import functools
import importlib
import weakref
from typing import Any

import keras

from fastgru._support.tape_pool import TapePool
from fastgru.keras.passes import INSTEAD, MODULE, GRUPass

#: Keras' functions and their names in the kernels; with other functions Keras' own loop runs.
ACTIVATIONS = {keras.activations.tanh: "tanh", keras.activations.relu: "relu", keras.activations.linear: "linear"}
RECURRENT_ACTIVATIONS = {keras.activations.sigmoid: "sigmoid", keras.activations.hard_sigmoid: "hard_sigmoid"}

#: Unused tapes of each layer. They are not attributes, so that Keras neither tracks nor saves them.
_tape_pools: weakref.WeakKeyDictionary[GRU, TapePool] = weakref.WeakKeyDictionary()
MOST_TAPES = 2


@keras.saving.register_keras_serializable(package="fastgru")
class GRU(keras.layers.GRU):  # type: ignore[misc]
    """A ``keras.layers.GRU`` that runs on fastgru's kernels if they support the call, and on Keras' otherwise.

    All arguments, inputs, outputs, variables, errors and the configuration are those of ``keras.layers.GRU``. One
    exception: ``dropout`` with ``implementation=1`` works here; Keras 3.15 raises unless ``use_cudnn=False``. Results
    agree within rounding; dropout agrees for the same seed. `fastgru.set_num_threads` sets the number of threads.
    Results are bit-identical for any number of threads.

    Keras' own loop runs on the JAX backend and on GPUs; for other activations than tanh, relu and linear, and other
    recurrent activations than sigmoid and hard_sigmoid; in other dtypes than float32 and float64, including mixed
    precision; for masks with holes; with ``use_cudnn=True``; and when PyTorch compiles, traces or transforms.

    Raises
    ------
    RuntimeError
        A gradient is differentiated again: the kernels have first derivatives only.
    """

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(units, **options)
        if keras.backend.backend() == "tensorflow" and self._is_served(False):
            self.supports_jit = False  # XLA cannot call Python

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        """Run the loop over time. ``keras.layers.RNN.call`` calls this after it has drawn dropout's masks."""
        [initial_state] = keras.tree.flatten(initial_state)
        mask = keras.ops.cast(keras.tree.flatten(mask)[0], "bool") if mask is not None else None

        def keras_own() -> tuple[Any, Any, list[Any]]:
            last, outputs, states = super(GRU, self).inner_loop(sequences, initial_state, mask, training)
            return last, outputs, keras.tree.flatten(states)

        run = _backends_run()
        if run is None or not self._is_served(training):
            return keras_own()
        x, kernel, recurrent_mask = sequences, self.cell.kernel.value, None
        # Keras' cell does not apply a rate of 1. RNN.call has drawn the masks for this call.
        if training and 0 < self.dropout < 1:
            x, kernel = self._drop_inputs(x, kernel)
        if training and 0 < self.recurrent_dropout < 1:
            recurrent_mask = keras.ops.stack(self.cell.get_recurrent_dropout_mask(initial_state))
        if self.stateful:
            initial_state = keras.ops.copy(initial_state)  # the variable itself is overwritten at the end of this call
        bias = self.cell.bias.value if self.cell.bias is not None else None
        return run(
            self._pass(),
            [x, initial_state, kernel, self.cell.recurrent_kernel.value, bias],
            mask,
            recurrent_mask,
            functools.partial(self._finish, mask),
            keras_own,
            training=bool(training),
        )

    def _drop_inputs(self, x: Any, kernel: Any) -> tuple[Any, Any]:
        """Return the masked input, and the kernel for it."""
        masks = self.cell.get_dropout_mask(x[:, 0])
        if not isinstance(masks, list):
            return x * keras.ops.expand_dims(masks, 1), kernel
        # implementation=1, which recurrent_dropout implies, has one mask per gate. The three masked inputs are
        # concatenated, and each gate's columns of the kernel are nonzero for one of them.
        x = keras.ops.concatenate([x * keras.ops.expand_dims(mask, 1) for mask in masks], axis=-1)
        gates = keras.ops.split(kernel, 3, axis=1)
        columns = [(gate * self.units, (2 - gate) * self.units) for gate in range(3)]
        rows = [keras.ops.pad(own, ((0, 0), zeros)) for own, zeros in zip(gates, columns, strict=True)]
        return x, keras.ops.concatenate(rows, axis=0)

    def _trackable_children(self, save_type: str = "checkpoint", **options: Any) -> Any:
        """Return what TensorFlow saves of this layer; raise for a SavedModel, which could not call the kernels."""
        if save_type == "savedmodel" and self._is_served(False):
            raise ValueError(
                f"{MODULE}: expected not to be saved in a SavedModel because its kernels are not TensorFlow "
                f"operations; save the model, load it with {INSTEAD} in its place (see docs/keras.md), and export that"
            )
        return super()._trackable_children(save_type, **options)

    def _is_served(self, training: Any) -> bool:
        """Whether the kernels support the options of this layer."""
        if self.activation not in ACTIVATIONS or self.recurrent_activation not in RECURRENT_ACTIVATIONS:
            return False
        if self.use_cudnn is True or not isinstance(training, bool | None):
            return False
        return not training or self.cell.implementation == 1 or self.dropout < 1

    def _pass(self) -> GRUPass:
        return GRUPass(
            activation=ACTIVATIONS[self.activation],
            recurrent_activation=RECURRENT_ACTIVATIONS[self.recurrent_activation],
            reset_after=self.reset_after,
            go_backwards=self.go_backwards,
            return_sequences=self.return_sequences,
            zero_output_for_mask=self.zero_output_for_mask,
            tape_pool=_tape_pools.setdefault(self, TapePool(MOST_TAPES)),
        )

    def _finish(self, mask: Any, outputs: Any, state: Any) -> tuple[Any, Any, list[Any]]:
        """Return what Keras' loop returns: the output of the last processed step, all outputs, and the states."""
        last = state
        if mask is not None:
            # The output of a masked step is that of the step before, or zeros if there is none.
            final = 0 if self.go_backwards else -1
            seen = mask[:, final] if self.zero_output_for_mask else keras.ops.any(mask, axis=1)
            last = keras.ops.where(seen[:, None], state, keras.ops.zeros_like(state))
        return last, outputs if outputs is not None else last[:, None], [state]


@functools.cache
def _backends_run() -> Any:
    """Return the function that runs a pass on Keras' backend; None if the backend is not supported."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "torch"):
        return None
    return importlib.import_module(f"fastgru.keras.on_{backend}").run
