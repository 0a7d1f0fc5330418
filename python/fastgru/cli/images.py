"""Input files of ``fastgru predict``: PNG images and .npy arrays."""

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

#: The maximum number of pixels. Larger images are not decoded, because they are no input of a GRU.
_MOST_PIXELS = 1 << 24


class InputFileError(ValueError):
    """A file to predict on is invalid. The message contains the reason."""


def read_samples(path: Path, steps: int | None, features: int, *, invert: bool = False) -> Array:
    """Return the samples (N, T, F) in a file: uint8 from a PNG, any numbers from a .npy file (T, F) or (N, T, F).

    Parameters
    ----------
    path : Path
    steps, features : int
        T and F of the model. None for T means any number of steps.
    invert : bool
        Whether to invert the image. MNIST has white digits on black.

    Raises
    ------
    InputFileError
        The file has another format, is damaged, or contains samples of the wrong shape.
    OSError
        The file cannot be read.
    """
    samples = _read_npy(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    if samples.ndim == 2:
        samples = samples[np.newaxis]
    if samples.ndim != 3 or samples.shape[2] != features or steps not in (None, samples.shape[1]):
        one = f"({'T' if steps is None else steps}, {features})"
        came = samples.shape[1:] if len(samples) == 1 else samples.shape
        raise InputFileError(f"{path}: expected one sample of shape {one}, the model's input, or N of them, got {came}")
    if invert:
        if samples.dtype != np.uint8:
            raise InputFileError(f"{path}: expected uint8 because --invert needs bytes, got {samples.dtype}")
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
            f"{path}: reading images needs Pillow: pip install 'fastgru[images]', or pass a .npy file"
        ) from None
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about large images, which raise an error below
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    raise InputFileError(f"{path}: the image is too large: {picture.width} x {picture.height} pixels")
                return _grey(picture)
        except InputFileError:
            raise
        except UnidentifiedImageError:
            raise InputFileError(f"{path}: neither an image nor a .npy file") from None
        except Exception as error:  # a damaged image can make a decoder raise almost anything
            raise InputFileError(f"{path}: damaged image: {error}") from None


def _grey(picture: Any) -> Array:
    """Return the brightness of a Pillow image as bytes. 16 bits are scaled to 8; transparent pixels are black."""
    if picture.mode.startswith("I"):
        return (np.asarray(picture, np.uint32) >> 8).clip(0, 255).astype(np.uint8)
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"), np.uint16)
        alpha = rgba[..., 3]
        grey = np.asarray(picture.convert("RGBA").convert("L"), np.uint16)
        return (grey * alpha // 255).astype(np.uint8)
    return np.asarray(picture.convert("L"))
