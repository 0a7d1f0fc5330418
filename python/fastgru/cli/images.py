"""Reading what ``fastgru predict`` is given: PNG pictures and .npy arrays."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support.files import open_regular
from fastgru.datasets.npy import read_header

Array = NDArray[Any]

#: A picture with more pixels than this is no input of a GRU, and is refused before it is decoded.
_MOST_PIXELS = 1 << 24


class InputFileError(ValueError):
    """A file to predict on cannot be used; the message says why."""


def read_samples(path: Path, steps: int | None, features: int, *, invert: bool = False) -> Array:
    """The samples (N, T, F) in a file: uint8 from a PNG, any numbers from a .npy file of (T, F) or (N, T, F).

    Parameters
    ----------
    path : Path
    steps, features : int
        T and F of the model; T may be None for any.
    invert : bool
        Turn black on white into white on black, which is what MNIST is.

    Raises
    ------
    InputFileError
        The file is neither, is damaged, or its shape does not fit.
    OSError
        The file cannot be read.
    """
    samples = _read_npy(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    if samples.ndim == 2:
        samples = samples[np.newaxis]
    if samples.ndim != 3 or samples.shape[2] != features or steps not in (None, samples.shape[1]):
        one = f"({'T' if steps is None else steps}, {features})"
        came = samples.shape[1:] if len(samples) == 1 else samples.shape
        raise InputFileError(
            f"{path}: expected one sample of shape {one}, or N of them, because that is the model's input, got {came}"
        )
    if invert:
        if samples.dtype != np.uint8:
            raise InputFileError(f"{path}: expected bytes to invert, got {samples.dtype}")
        samples = 255 - samples
    return samples


def _read_npy(path: Path) -> Array:
    with open_regular(path) as file:
        try:
            read_header(file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            array: Array = np.load(file, allow_pickle=False)
        except Exception as error:  # a damaged header can make NumPy raise almost anything
            raise InputFileError(f"{path}: not a .npy file of numbers: {error}") from None
    return array if array.ndim else array[np.newaxis]


def _read_picture(path: Path) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputFileError(
            f"{path}: reading pictures needs Pillow: pip install 'fastgru[images]' (a .npy file needs nothing)"
        ) from None
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about large pictures, which are refused below
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    raise InputFileError(f"{path}: {picture.width} x {picture.height} pixels are too many")
                return _grey(picture)
        except InputFileError:
            raise
        except UnidentifiedImageError:
            raise InputFileError(f"{path}: neither a picture nor a .npy file") from None
        except Exception as error:  # a damaged picture can make a decoder raise almost anything
            raise InputFileError(f"{path}: damaged picture: {error}") from None


def _grey(picture: Any) -> Array:
    """The brightness of a Pillow picture as bytes; 16 bits are scaled to 8, what is transparent is black."""
    if picture.mode.startswith("I"):
        return (np.asarray(picture, np.uint32) >> 8).clip(0, 255).astype(np.uint8)
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"), np.uint16)
        alpha = rgba[..., 3]
        grey = np.asarray(picture.convert("RGBA").convert("L"), np.uint16)
        return (grey * alpha // 255).astype(np.uint8)
    return np.asarray(picture.convert("L"))
