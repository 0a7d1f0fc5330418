"""TensorFlow.js layers models: ``model.json``, and beside it files of weights.

`files` reads and writes them. The JSON holds the topology in Keras' words (`fastgru.formats.keras.topology`), a
manifest of weights (`weights`) and, for models saved with their optimizer, how they are trained (`training`).
"""

from fastgru.formats.tfjs.files import read, write

__all__ = ["read", "write"]
