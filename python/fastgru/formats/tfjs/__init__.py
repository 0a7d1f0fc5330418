"""TensorFlow.js layers models: ``model.json`` and files of weights beside it.

`files` reads and writes them. The JSON holds the topology as Keras describes it (`fastgru.formats.keras.topology`), a
manifest of the weights (`weights`) and, if the optimizer was saved, its state, the loss and the metrics (`training`).
"""

from fastgru.formats.tfjs.files import read, write

__all__ = ["read", "write"]
