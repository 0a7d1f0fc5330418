"""Data sets: MNIST, synthetic digits in the same format, and your own arrays."""

from fastgru.datasets import arrays, mnist, synthetic
from fastgru.datasets.idx import DataFileError

__all__ = ["DataFileError", "arrays", "mnist", "synthetic"]
