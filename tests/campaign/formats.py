"""All file formats that the package writes: how to write a model, and how to read it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastgru import Sequential, load_model
from models import classifier


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name : str
        Name of the file.
    write : callable
        (model, path)
    read : callable
        (path) -> the weights, as bytes.
    """

    name: str
    write: Callable[[Sequential, Path], None]
    read: Callable[[Path], bytes]

    def files(self, folder: Path) -> set[str]:
        """Return the names of the model's files in the folder."""
        names = {self.name}
        if self.name == "model.json":
            manifest = json.loads((folder / self.name).read_text())["weightsManifest"]
            names |= {name for group in manifest for name in group["paths"]}
        return names


def get(subject: str) -> Format:
    if subject == "weights.h5":
        return Format("model.weights.h5", Sequential.save_weights, _read_weights)
    names = {"native": "model.safetensors", "tfjs": "model.json", "rtneural": "model.rtneural.json"}
    whole = subject not in ("tfjs", "rtneural")  # formats without this package's optimizer state
    return Format(
        names.get(subject, f"model.{subject}"),
        lambda model, path: model.save(path, include_optimizer=whole),
        lambda path: weights(load_model(path)),
    )


SUBJECTS = ("native", "keras", "h5", "weights.h5", "pt", "torch.safetensors", "onnx", "tfjs", "rtneural")


def weights(model: Sequential) -> bytes:
    return b"".join(np.ascontiguousarray(array).tobytes() for array in model.get_weights())


def _read_weights(path: Path) -> bytes:
    model = make_model("weights.h5", seed=99)
    model.load_weights(path)
    return weights(model)


def make_model(subject: str, *, seed: int, units: int = 32, features: int = 16) -> Sequential:
    """Return a compiled model that the subject's format supports."""
    options: dict[str, Any] = {"tfjs": {"reset_after": False}, "rtneural": {"return_sequences": True}}.get(subject, {})
    return classifier(units, classes=4, input_shape=(6, features), optimizer="adam", seed=seed, **options)
