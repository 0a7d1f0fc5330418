"""The layer: Keras' arguments, variables and configuration, with the kernels in place of the loop over time."""

from __future__ import annotations

import functools
import importlib
import weakref
from typing import Any

import keras

from fastgru._support.tape_pool import Spares
from fastgru.keras.passes import INSTEAD, MODULE, GRUPass

#: Kernels' names for Keras' functions; whatever else a layer uses is left to Keras.
ACTIVATIONS = {keras.activations.tanh: "tanh", keras.activations.relu: "relu", keras.activations.linear: "linear"}
RECURRENT_ACTIVATIONS = {keras.activations.sigmoid: "sigmoid", keras.activations.hard_sigmoid: "hard_sigmoid"}

#: Tapes that a layer keeps for its next passes. They are no attributes, so that Keras tracks and saves none of them.
_spares: weakref.WeakKeyDictionary[GRU, Spares] = weakref.WeakKeyDictionary()
MOST_SPARES = 2


@keras.saving.register_keras_serializable(package="fastgru")
class GRU(keras.layers.GRU):  # type: ignore[misc]
    """A ``keras.layers.GRU`` that runs on fastgru's kernels where it can, and is Keras' own everywhere else.

    All arguments, inputs, outputs, variables and the configuration are those of ``keras.layers.GRU``, and so are all
    errors; only ``dropout`` with ``implementation=1`` works here where Keras 3.15 raises (unless ``use_cudnn=False``).
    Results agree within rounding, both dropouts for the same seed. `fastgru.set_num_threads` says how many threads
    compute; their number never changes a bit of a result.

    Keras' own loop is taken on the JAX backend and on GPUs; for other activations than tanh, relu and linear, and
    other recurrent ones than sigmoid and hard_sigmoid; in other dtypes than float32 and float64, mixed precision
    among them; for masks with holes; with ``use_cudnn=True``; and where PyTorch compiles, traces or transforms.

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
        """What ``keras.layers.RNN.call`` runs between dropout's masks and its own state: the loop over time."""
        [initial_state] = keras.tree.flatten(initial_state)
        mask = keras.ops.cast(keras.tree.flatten(mask)[0], "bool") if mask is not None else None

        def keras_own() -> tuple[Any, Any, list[Any]]:
            last, outputs, states = super(GRU, self).inner_loop(sequences, initial_state, mask, training)
            return last, outputs, keras.tree.flatten(states)

        run = _backends_run()
        if run is None or not self._is_served(training):
            return keras_own()
        x, kernel, recurrent_mask = sequences, self.cell.kernel.value, None
        # Keras' cell does not apply a rate of 1. Its masks are those that RNN.call has drawn for this call.
        if training and 0 < self.dropout < 1:
            x, kernel = self._drop_inputs(x, kernel)
        if training and 0 < self.recurrent_dropout < 1:
            recurrent_mask = keras.ops.stack(self.cell.get_recurrent_dropout_mask(initial_state))
        if self.stateful:
            initial_state = keras.ops.copy(initial_state)  # it is the variable that this call's end writes to
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
        """The masked input, and the kernel for it."""
        masks = self.cell.get_dropout_mask(x[:, 0])
        if not isinstance(masks, list):
            return x * keras.ops.expand_dims(masks, 1), kernel
        # implementation=1, which recurrent_dropout implies, has a mask for each gate: three inputs side by side, of
        # which each gate's columns of the kernel read one.
        x = keras.ops.concatenate([x * keras.ops.expand_dims(mask, 1) for mask in masks], axis=-1)
        gates = keras.ops.split(kernel, 3, axis=1)
        columns = [(gate * self.units, (2 - gate) * self.units) for gate in range(3)]
        rows = [keras.ops.pad(own, ((0, 0), zeros)) for own, zeros in zip(gates, columns, strict=True)]
        return x, keras.ops.concatenate(rows, axis=0)

    def _trackable_children(self, save_type: str = "checkpoint", **options: Any) -> Any:
        """What TensorFlow saves of this layer; a SavedModel could not call the kernels in another process."""
        if save_type == "savedmodel" and self._is_served(False):
            raise ValueError(
                f"{MODULE}: expected not to be in a SavedModel, because its kernels are not TensorFlow's; save the "
                f"model, load it with {INSTEAD} in its place (docs/keras.md says how), and export that"
            )
        return super()._trackable_children(save_type, **options)

    def _is_served(self, training: Any) -> bool:
        """Whether the kernels have what this layer does."""
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
            spares=_spares.setdefault(self, Spares(MOST_SPARES)),
        )

    def _finish(self, mask: Any, outputs: Any, state: Any) -> tuple[Any, Any, list[Any]]:
        """What Keras' loop returns: the output of the last step that was processed, all outputs, and the states."""
        last = state
        if mask is not None:
            # The output of a masked step is that of the step before, and before the first one, zeros.
            final = 0 if self.go_backwards else -1
            seen = mask[:, final] if self.zero_output_for_mask else keras.ops.any(mask, axis=1)
            last = keras.ops.where(seen[:, None], state, keras.ops.zeros_like(state))
        return last, outputs if outputs is not None else last[:, None], [state]


@functools.cache
def _backends_run() -> Any:
    """How Keras' backend runs a pass; None if it is one that is not served."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "torch"):
        return None
    return importlib.import_module(f"fastgru.keras.on_{backend}").run
