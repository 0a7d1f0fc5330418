"""Data sets: MNIST, synthetic digits in the same format, and arrays from files."""

from fastgru._support.elsewhere import missing
from fastgru.datasets import arrays, mnist, synthetic
from fastgru.datasets.idx import DataFileError

__all__ = ["DataFileError", "arrays", "mnist", "synthetic"]

_OWN = "load the data with NumPy and pass the arrays to fit"
#: Name in Keras or PyTorch -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(("imdb", "reuters"), f"{_OWN}: tokens (N, T) as integers, padded by utils.pad_with_lengths"),
    **dict.fromkeys(("boston_housing", "california_housing", "cifar10", "cifar100", "fashion_mnist"), _OWN),
    "MNIST": "use datasets.mnist",
}


def __getattr__(name: str) -> object:
    raise missing(__name__, name, _ELSEWHERE)
