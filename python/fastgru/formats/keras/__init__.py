"""Keras' files: ``.keras``, ``.h5`` and ``.weights.h5``, of Keras 3 and Keras 2.

`files` reads and writes them; `weights` and `optimizers` find the arrays of layers and of optimizers in them.
`topology`, `layers`, `masks` and `training` turn configurations into descriptions and back. `dialects` has the
differences between Keras 3, Keras 2 and TensorFlow.js, so that `fastgru.formats.tfjs` uses these modules too.
"""

from fastgru.formats.keras.files import is_keras_2, read, read_weights, write, write_h5, write_weights

__all__ = ["is_keras_2", "read", "read_weights", "write", "write_h5", "write_weights"]
