"""Keras' files: ``.keras``, ``.h5`` and ``.weights.h5``."""

from __future__ import annotations

import os

from fastgru.formats.description import ModelDescription


def read(path: str | os.PathLike[str]) -> ModelDescription:
    """The model in a file."""
    raise NotImplementedError


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model to a file."""
    raise NotImplementedError
