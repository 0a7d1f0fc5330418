"""Models: layers in a row, trained, run, saved and loaded."""

from fastgru.models.sequential import Sequential, load_model

__all__ = ["Sequential", "load_model"]
