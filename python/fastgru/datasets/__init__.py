"""Data sets: MNIST, and synthetic digits in its format."""

from fastgru.datasets import mnist, synthetic
from fastgru.datasets.idx import DataFileError

__all__ = ["DataFileError", "mnist", "synthetic"]
