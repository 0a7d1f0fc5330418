"""Keras 3's GRU layer on this package's kernels, for the TensorFlow and the PyTorch backend.

>>> import keras, fastgru.keras
>>> model = keras.Sequential([keras.Input((28, 28)), fastgru.keras.GRU(64), keras.layers.Dense(10)])

docs/keras.md says what is left to Keras' own layer.
"""

from fastgru.keras.layer import GRU

__all__ = ["GRU"]
