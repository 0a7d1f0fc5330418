"""Keras' GRU in TensorFlow's graph: ``tf.numpy_function`` calls the kernels on views of the tensors' memory.

A gradient function receives tensors only, so a pass stores its tape under a number, which is a tensor. It is unknown
whether TensorFlow will call the gradient function. Therefore only the latest tapes are kept, and a missing tape is
recorded again.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fastgru._support.tape_pool import TapePool
from fastgru.functional import GRUTape
from fastgru.keras.passes import INSTEAD, MODULE, GRUPass

Array = NDArray[Any]
T = TypeVar("T")

#: Maximum number of tapes per layer that are kept until their gradient is computed. If a training step calls a layer
#: more often, the first passes are run again. Without a bound, passes without a gradient would fill the memory.
MOST_WAITING = 4

_NOT_RECORDED = -1
_numbers = itertools.count()
#: The tapes that wait for their gradient. Each layer has its own tape pool, which is the key.
_waiting: weakref.WeakKeyDictionary[TapePool, dict[int, GRUTape]] = weakref.WeakKeyDictionary()


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
    given = [tensor.value() if isinstance(tensor, tf.Variable) else tensor for tensor in tensors if tensor is not None]
    masks = [recurrent_mask] if recurrent_mask is not None else []
    readable = all(isinstance(t, tf.Tensor) and t.dtype in (tf.float32, tf.float64) for t in given + masks)
    if not readable or any(t.dtype != given[0].dtype for t in given + masks) or tf.config.list_physical_devices("GPU"):
        return keras_own()
    if mask is None:
        return finish(*_in_graph(gru, given, None, recurrent_mask, training))
    prefixes = tf.sequence_mask(tf.reduce_sum(tf.cast(mask, tf.int32), axis=1), tf.shape(mask)[1])
    without_holes = tf.reduce_all(tf.equal(mask, prefixes))
    return tf.cond(without_holes, lambda: finish(*_in_graph(gru, given, mask, recurrent_mask, training)), keras_own)  # type: ignore[no-any-return]


def _in_graph(gru: GRUPass, tensors: Sequence[Any], mask: Any, recurrent_mask: Any, training: bool) -> tuple[Any, Any]:
    """Run the pass as TensorFlow operations with a gradient."""
    dtype = tensors[0].dtype
    masks = [tensor for tensor in (mask, recurrent_mask) if tensor is not None]  # they have no gradient

    def forward(*arrays: Array) -> tuple[Array, ...]:
        tape = gru.tape_pool.take() if training else None
        outputs, state = gru.forward(*_split(arrays), tape)
        number = _keep(tape, gru.tape_pool) if tape is not None else _NOT_RECORDED
        return *([outputs] if outputs is not None else []), state, np.array(number, np.int64)

    def backward(number: Array, *arrays: Array) -> list[Array]:
        d_outputs = arrays[0] if gru.return_sequences else None
        d_state, *arrays_of_pass = arrays[gru.return_sequences :]
        pass_arrays, mask_array, recurrent_mask_array = _split(arrays_of_pass)
        tape = _waiting.get(gru.tape_pool, {}).pop(int(number), None)
        if tape is None:
            tape = gru.tape_pool.take()
            gru.forward(pass_arrays, mask_array, recurrent_mask_array, tape)
        found = gru.backward(tape, d_outputs, d_state, mask_array, input_gradient=True)
        gru.tape_pool.give_back(tape)
        return [gradient for gradient in found if gradient is not None]

    def _split(arrays: Sequence[Array]) -> tuple[list[Array | None], Array | None, Array | None]:
        pass_arrays: list[Array | None] = list(arrays[: len(tensors)])
        pass_arrays += [None] * (5 - len(tensors))  # no bias
        return (
            pass_arrays,
            arrays[len(tensors)] if mask is not None else None,
            arrays[-1] if recurrent_mask is not None else None,
        )

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def operation(*tensors: Any) -> Any:
        result_types = [dtype] * (1 + gru.return_sequences) + [tf.int64]
        *results, number = tf.numpy_function(forward, [*tensors, *masks], result_types)
        batch, units = tensors[0].shape[0], tensors[3].shape[0]
        shapes = [(batch, tensors[0].shape[1], units)] * gru.return_sequences + [(batch, units)]
        for result, shape in zip(results, shapes, strict=True):
            result.set_shape(shape)

        def gradient(*d_results: Any) -> Any:
            @tf.custom_gradient  # type: ignore[untyped-decorator]
            def derivatives(*arguments: Any) -> Any:
                found = tf.numpy_function(backward, [number, *arguments, *masks], [dtype] * len(tensors))
                for d_tensor, tensor in zip(found, tensors, strict=True):
                    d_tensor.set_shape(tensor.shape)
                return tuple(found), _refuse

            return derivatives(*d_results, *tensors)

        return tuple(results), gradient

    results = operation(*tensors)
    return (results[0] if gru.return_sequences else None), results[-1]


def _keep(tape: GRUTape, tape_pool: TapePool) -> int:
    """Store a tape for the gradient function, and return its number."""
    number = next(_numbers)
    waiting = _waiting.setdefault(tape_pool, {})
    waiting[number] = tape
    if len(waiting) > MOST_WAITING:
        del waiting[next(iter(waiting))]
    return number


def _refuse(*_: Any) -> Any:
    """Raise as the gradient of gradients, which TensorFlow would otherwise treat as constants."""
    raise RuntimeError(
        f"{MODULE}: expected first derivatives because its kernels have no others, got a derivative of its gradients; "
        f"use {INSTEAD} for it"
    )
