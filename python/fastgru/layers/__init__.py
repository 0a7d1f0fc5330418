"""The layers of a `fastgru.Sequential`, in Keras' words."""

from fastgru.layers.base import Layer
from fastgru.layers.dense import Dense
from fastgru.layers.gru import GRU

__all__ = ["GRU", "Dense", "Layer"]

#: Name in a saved configuration -> class.
LAYERS: dict[str, type[Layer]] = {"GRU": GRU, "Dense": Dense}
