"""The Sequential model, and functions that load, create and copy models."""

from fastgru._support.elsewhere import missing
from fastgru.models.loading import clone_model, load_model, model_from_json
from fastgru.models.sequential import Sequential

__all__ = ["Sequential", "clone_model", "load_model", "model_from_json"]

_ELSEWHERE = {
    "Functional": "use Sequential; a model here is one chain of layers",
    "Model": "use Sequential; a model here is one chain of layers",
    "save_model": "use model.save(path)",
}


def __getattr__(name: str) -> None:
    raise missing(__name__, name, _ELSEWHERE)
