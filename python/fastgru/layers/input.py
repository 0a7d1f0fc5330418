"""The declaration of a model's input."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru._support import checks
from fastgru._support.representation import as_call


class InputLayer:
    """The shape of a model's input, as the first element of a `fastgru.Sequential`.

    It sets the ``input_shape`` of the next layer, so that the weights are created immediately. As in Keras, it is not
    an element of the model's ``layers``.

    Parameters
    ----------
    shape : tuple of int or None
        The shape without the batch axis: (T, F) for sequences, (T,) for tokens. T may be None for sequences of any
        length.
    batch_size : int, optional
        Checked but not enforced. A stateful layer compares the sizes of successive batches itself.
    dtype : dtype, optional
        A numeric dtype. Checked but not enforced: data is converted to the model's dtype batch by batch.
    sparse, ragged : None or False
        Sparse and ragged inputs are not supported.
    batch_shape : tuple of int or None, optional
        The shape with the batch axis, instead of `shape` and `batch_size`: (N, T, F). N may be None for any size.
    input_tensor : None
        Tensors of other frameworks are not supported.
    optional : False
        Optional inputs are not supported.
    name : str, optional

    Examples
    --------
    >>> model = Sequential([layers.Input((28, 28)), layers.GRU(64), layers.Dense(10, activation="softmax")])
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Any = None,
        input_tensor: None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> None:
        if (shape is None) == (batch_shape is None):
            found = "neither" if shape is None else "both"
            raise ValueError(f"shape: expected one of shape and batch_shape, got {found}; pass shape=(T, F)")
        if batch_shape is not None:
            if batch_size is not None:
                raise ValueError("batch_size: expected None because batch_shape contains it, got both; leave one out")
            sizes = checks.shape("batch_shape", batch_shape)
            if not sizes:
                raise ValueError("batch_shape: expected the batch axis first, got ()")
            batch_size, shape = sizes[0], sizes[1:]
        elif isinstance(shape, (int, np.integer)) and not isinstance(shape, (bool, np.bool_)):
            shape = (shape,)
        self.shape = checks.shape("shape", shape)
        self.batch_size = None if batch_size is None else checks.integer("batch_size", batch_size, least=1)
        self.dtype = None if dtype is None else _checked_dtype(dtype)
        for option, value in (("sparse", sparse), ("ragged", ragged), ("optional", optional), ("tensor", input_tensor)):
            if value is not None and value is not False:
                raise ValueError(f"{option}: expected none because inputs are NumPy arrays, got {value!r:.100}")
        self.sparse = self.ragged = self.batch_shape = self.input_tensor = None
        self.optional = False
        self.name = name

    def __repr__(self) -> str:
        return as_call(self)


def _checked_dtype(dtype: Any) -> str:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in "biuf":
        raise ValueError(f"dtype: expected a numeric dtype such as 'float32' or 'int32', got {dtype!r}")
    return str(found.name)


def Input(  # noqa: N802 - a function with this name in Keras too
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: None = None,
    optional: bool = False,
) -> InputLayer:
    """Return an `InputLayer`: the shape of a model's input, as the first element of a `fastgru.Sequential`.

    Parameters
    ----------
    shape, batch_size, dtype, sparse, ragged, batch_shape, name, tensor, optional
        As in `InputLayer`, where `tensor` is called ``input_tensor``.

    Returns
    -------
    InputLayer

    Examples
    --------
    >>> model = Sequential([Input((28, 28)), layers.GRU(64), layers.Dense(10, activation="softmax")])
    """
    return InputLayer(shape, batch_size, dtype, sparse, ragged, batch_shape, tensor, optional, name)
