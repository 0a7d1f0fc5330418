"""The Sequential model, and functions that load, create and copy models."""

from fastgru.models.loading import clone_model, load_model, model_from_json
from fastgru.models.sequential import Sequential

__all__ = ["Sequential", "clone_model", "load_model", "model_from_json"]
