"""Keras' files: ``.keras``, ``.h5`` and ``.weights.h5``, of Keras 3 and Keras 2.

`files` reads and writes the files. `weights` and `optimizers` locate the arrays of layers and optimizers in them.
`topology`, `layers`, `masks` and `training` convert configurations to descriptions and back. `dialects` defines the
differences between Keras 3, Keras 2 and TensorFlow.js; `fastgru.formats.tfjs` therefore uses these modules too.
"""

from fastgru.formats.keras.files import is_keras_2, read, read_weights, write, write_h5, write_weights

__all__ = ["is_keras_2", "read", "read_weights", "write", "write_h5", "write_weights"]
