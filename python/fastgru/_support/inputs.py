"""Conversion of users' data: arrays of other libraries become NumPy arrays, and lists become sequences.

No library is imported. Arrays are recognized by the protocols that they implement, ``__array__`` and ``__dlpack__``.
PyTorch's tensors are recognized by the module of their class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.sequence_list import SequenceList

Array = NDArray[Any]

#: Devices of the DLPack protocol whose memory the CPU can read: the CPU, and host memory pinned by CUDA and ROCm.
_READABLE = (1, 3, 11)


def is_array(value: Any) -> bool:
    """Whether `as_array` converts `value` to an array; False for lists, numbers and iterables of batches."""
    if isinstance(value, (np.ndarray, np.generic)):
        return True
    return not isinstance(value, type) and (hasattr(value, "__array__") or hasattr(value, "__dlpack__"))


def as_array(name: str, value: Any) -> Any:
    """Convert an array of another library to a NumPy array, if possible without a copy; other values are returned.

    Raises
    ------
    TypeError
        The library cannot convert it, for example because it is in the memory of another device.
    """
    if value is None or isinstance(value, np.ndarray) or not is_array(value):
        return value
    if _is_torch_tensor(value):
        return _from_torch(name, value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        if hasattr(value, "__array__"):
            array = np.asarray(value)
        else:
            device = value.__dlpack_device__()
            if device[0] not in _READABLE:
                raise TypeError(f"its memory belongs to the device {device}")
            array = np.from_dlpack(value)
    except Exception as error:  # other libraries may raise any type
        raise TypeError(
            f"{name}: expected data that NumPy can read, got {kind}: {error}; copy it to the CPU and convert it to a "
            f"NumPy array"
        ) from error
    if array.dtype == object and array.ndim:  # columns of pandas' extension dtypes
        plain = _plain(array)
        return array if plain is None else plain
    return array


def _plain(array: Array) -> Array | None:
    """Convert an array of Python numbers to a numeric array; returns None if an element is not a number."""
    try:
        plain = np.asarray(array.tolist())
    except (TypeError, ValueError):
        return None
    return plain if plain.dtype.kind in "biuf" and plain.shape == array.shape else None


def _is_torch_tensor(value: Any) -> bool:
    return any(cls.__module__.partition(".")[0] == "torch" and cls.__name__ == "Tensor" for cls in type(value).__mro__)


def _from_torch(name: str, tensor: Any) -> Array:
    own = checks.last_name(name)
    if tensor.device.type != "cpu":
        raise TypeError(
            f"{name}: expected a tensor on the CPU because fastgru runs on CPUs, got one on {tensor.device}; pass "
            f"{own}.cpu()"
        )
    try:
        return tensor.detach().resolve_conj().resolve_neg().numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name}: expected a dense tensor of a dtype that NumPy supports, got {tensor.dtype} with layout "
            f"{tensor.layout} ({error}); pass {own}.float() or {own}.to_dense()"
        ) from None


def as_samples(name: str, value: Any, *, axes: int | None, tokens: bool) -> Any:
    """Convert samples to an array or a list of sequences; other values are returned.

    Nested lists of numbers become an array if their lengths are equal. Lists of arrays (T_i, F), or (T_i,) for tokens,
    and nested lists of different lengths become a `SequenceList`.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    value : object
    axes : int or None
        Number of axes of the model's input, with the batch axis; None if it is unknown.
    tokens : bool
        Whether the first layer is an `Embedding`.
    """
    value = as_array(name, value)
    if isinstance(value, np.ndarray):
        if value.dtype != object or value.ndim != 1:
            return value
        value = list(value)
    if not isinstance(value, (list, tuple)) or not len(value):
        return value
    if all(isinstance(element, (list, tuple)) or np.isscalar(element) for element in value):
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            pass
        else:
            return array
    if type(value).__name__ == "PackedSequence":  # PyTorch's, a tuple
        own = checks.last_name(name)
        raise TypeError(
            f"{name}: expected an array or a list of sequences, got a PackedSequence; pass "
            f"torch.nn.utils.rnn.unpack_sequence({own})"
        )
    elements = [_element(f"{name}[{index}]", element) for index, element in enumerate(value)]
    most = max(element.ndim for element in elements)
    has_steps = tokens or (axes or 3) >= 3
    if len(elements) == 1 and axes is not None and most == axes:
        return elements[0]  # Keras accepts the only input of a model in a list
    if most == 0 or not has_steps:
        return _stack(name, elements)
    if not tokens and most == 1:
        if all(element.shape == elements[0].shape for element in elements) and axes is None:
            return _stack(name, elements)
        raise ValueError(
            f"{name}: expected sequences of shape (T, F) because the model has steps and features, got shape "
            f"{elements[0].shape} at index 0; with one feature per step, pass arrays of shape (T, 1): "
            f"a.reshape(-1, 1)"
        )
    if axes is not None and most >= axes:
        raise ValueError(
            f"{name}: expected a list of sequences with {axes - 1} axes each because the model's input has {axes}, got "
            f"shape {elements[0].shape} at index 0; pass batches as an iterator, iter(batches), and arrays of one "
            f"length as one array"
        )
    return SequenceList(name, elements)


def _element(name: str, value: Any) -> Array:
    try:
        array = np.asarray(as_array(name, value))
    except ValueError:
        raise ValueError(f"{name}: expected an array, got lists of different lengths") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


def _stack(name: str, arrays: list[Array]) -> Array:
    shapes = [array.shape for array in arrays]
    other = next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise ValueError(
            f"{name}: expected arrays of the same shape because the model's input has no steps, got {shapes[0]} at "
            f"index 0 and {shapes[other]} at index {other}"
        )
    return np.stack(arrays)


def is_ragged(value: Any) -> bool:
    """Whether `value` is a list of arrays or lists of different lengths."""
    if not isinstance(value, (list, tuple)) or not all(hasattr(element, "__len__") for element in value):
        return False
    return len({len(element) for element in value}) > 1


def as_steps(name: str, value: Any, x: SequenceList) -> SequenceList:
    """Convert `value` to one array (T_i, ...) for each sequence of `x`, with the same number of steps."""
    value = as_array(name, value)
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or not len(value):
        raise TypeError(
            f"{name}: expected a list of {len(x)} arrays because x is a list of sequences, got {type(value).__name__}"
        )
    if type(value).__name__ == "PackedSequence":  # PyTorch's, a tuple
        own = checks.last_name(name)
        raise TypeError(
            f"{name}: expected an array or a list of sequences, got a PackedSequence; pass "
            f"torch.nn.utils.rnn.unpack_sequence({own})"
        )
    elements = [_element(f"{name}[{index}]", element) for index, element in enumerate(value)]
    if elements[0].ndim == 0:
        raise ValueError(
            f"{name}: expected a list of arrays, one for each step of each sequence, because the model's outputs are "
            f"sequences, got numbers"
        )
    if len(elements) != len(x):
        raise ValueError(
            f"{name}: expected {len(x)} arrays because x is a list of {len(x)} sequences, got {len(value)}"
        )
    for index, (element, steps) in enumerate(zip(elements, x.lengths, strict=True)):
        if element.ndim == 0 or len(element) != steps:
            raise ValueError(
                f"{name}: expected {steps} steps at index {index} because x[{index}] has {steps} steps, got shape "
                f"{element.shape}"
            )
    return SequenceList(name, elements)
