"""Writing of HDF5 files with h5py, which is imported when it is needed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"Keras files need the package h5py: pip install h5py ({error})") from None
    return h5py


def to_bytes(
    arrays: Mapping[str, Array], attributes: Mapping[str, Mapping[str, str | Sequence[str]]] | None = None
) -> bytes:
    """An HDF5 file with arrays and attributes at the given paths; equal contents give equal bytes."""
    h5py = _h5py()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file.create_dataset(path, data=array)
        for path, values in (attributes or {}).items():
            group = file.require_group(path or "/")
            for name, value in values.items():
                group.attrs[name] = value.encode() if isinstance(value, str) else _encoded(value)
    return buffer.getvalue()


def _encoded(texts: Sequence[str]) -> Array:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1)}")
