"""A GRU layer for Keras 3 models, on the TensorFlow and the PyTorch backend.

>>> import keras, fastgru.keras
>>> model = keras.Sequential([keras.Input((28, 28)), fastgru.keras.GRU(64), keras.layers.Dense(10)])

The page "Keras" of the documentation lists the cases that use Keras' own implementation.
"""

from fastgru.keras.layer import GRU

__all__ = ["GRU"]
