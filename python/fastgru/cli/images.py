"""Reads the inputs of ``fastgru predict``: images and .npy arrays."""

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

#: Images with more pixels raise before they are decoded; they are too large as input of a GRU.
_MOST_PIXELS = 1 << 24


class InputFileError(ValueError):
    """An input file is not supported or is damaged; the message gives the reason."""


def read_samples(path: Path, steps: int | None, features: int, *, invert: bool = False) -> Array:
    """Read samples (N, T, F): uint8 from an image, any numbers from a .npy file of shape (T, F) or (N, T, F).

    Parameters
    ----------
    path : Path
    steps, features : int
        T and F of the model; T is None if the model accepts any number of steps.
    invert : bool
        Invert the brightness: black on white becomes white on black, as in MNIST.

    Raises
    ------
    InputFileError
        The file is neither an image nor a .npy file, is damaged, or has a wrong shape.
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
            f"{path}: expected one or more samples of shape {one} because that is the model's input, got {came}"
        )
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
        except Exception as error:  # NumPy may raise any type for a damaged header
            raise InputFileError(f"{path}: not a .npy file of numbers: {error}") from None
    return array if array.ndim else array[np.newaxis]


def _read_picture(path: Path) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputFileError(f"{path}: reading images needs Pillow: pip install pillow, or pass a .npy file") from None
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about large images, which raise below
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    raise InputFileError(
                        f"{path}: expected at most {_MOST_PIXELS:,} pixels, got {picture.width} x {picture.height}"
                    )
                return _grey(picture)
        except InputFileError:
            raise
        except UnidentifiedImageError:
            raise InputFileError(f"{path}: neither an image nor a .npy file") from None
        except Exception as error:  # decoders may raise any type for a damaged image
            raise InputFileError(f"{path}: damaged image: {error}") from None


def _grey(picture: Any) -> Array:
    """Return the brightness of a Pillow image as uint8; 16 bits are scaled to 8, transparent pixels become black."""
    if picture.mode.startswith("I"):
        return (np.asarray(picture, np.uint32) >> 8).clip(0, 255).astype(np.uint8)
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"), np.uint16)
        alpha = rgba[..., 3]
        grey = np.asarray(picture.convert("RGBA").convert("L"), np.uint16)
        return (grey * alpha // 255).astype(np.uint8)
    return np.asarray(picture.convert("L"))
