"""From one kind of model file to another, and the proof that both say the same.

Both files are run on the same samples by `fastgru.judges`, not by the code that read and wrote them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import formats, judges
from fastgru.layers import Embedding
from fastgru.model import Sequential, load_model

Array = NDArray[Any]

#: Samples that both sides are run on, and their steps where the model takes any number.
_SAMPLES, _STEPS = 8, 20
#: Kernels, frameworks and equations differ by the roundings of a few dozen float32 products.
_AGREEMENT = 1e-4


@dataclass(frozen=True)
class Comparison:
    """What came of running two files on the same random samples.

    Attributes
    ----------
    source, target : str
        Who ran each.
    difference : float
        The largest difference between their outputs.
    largest : float
        The largest of the outputs.
    left_behind : str or None
        Why the target does not say how the model is trained, where it could but for this model.
    """

    source: str
    target: str
    difference: float
    largest: float
    left_behind: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the difference is rounding."""
        return self.difference <= _AGREEMENT * max(self.largest, 1.0)


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, source_format: str | None = None, **options: Any
) -> Comparison:
    """Write the model in one file to another of another kind, and compare what they compute.

    Parameters
    ----------
    source, target : path
        Their kinds are found as `fastgru.load_model` and `fastgru.Sequential.save` find them.
    source_format : str, optional
        The kind of `source`, a key of `fastgru.formats.KINDS`.
    **options
        As `fastgru.load_model` takes them.

    Returns
    -------
    Comparison

    Raises
    ------
    ModelFileError, ValueError, ImportError, OSError
        `source` cannot be read, or `target` cannot say what the model is; nothing is written then.
    """
    model = load_model(source, format=source_format, **options)
    left_behind = _save(model, target)
    x = random_samples(model)
    kind = formats.kind_of_file(source) if source_format is None else source_format
    by_source, expected = _run(source, kind, model, x)
    written = formats.kind_of_name(target)
    by_target, actual = _run(target, written, load_model(target, format=written), x)
    difference = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(actual, expected, strict=True))
    largest = max(float(np.abs(b).max(initial=0)) for b in expected)
    return Comparison(by_source, by_target, difference, largest, left_behind)


def _save(model: Sequential, target: str | os.PathLike[str]) -> str | None:
    """Save with the training if the file can say it, else without it; why not, if so."""
    try:
        model.save(target)
    except ValueError as error:
        if model.optimizer is None:
            raise
        model.save(target, include_optimizer=False)  # raises once more if the training was not the reason
        return str(error)
    return None


def random_samples(model: Sequential) -> Array:
    """Samples (N, ...) of the kind that the model takes, the same ones each time; float32 or tokens."""
    rng = np.random.default_rng(0)
    shape = (_SAMPLES, *(_STEPS if size is None else size for size in model.input_shape[1:]))
    first = model.layers[0]
    if isinstance(first, Embedding):
        return rng.integers(min(1, first.input_dim - 1), first.input_dim, shape)  # 0 may be padding
    return rng.standard_normal(shape).astype(model.dtype)


def _run(path: str | os.PathLike[str], kind: str, model: Sequential, x: Array) -> tuple[str, list[Array]]:
    """Who ran the file on the samples, and what came."""
    if kind == "fastgru":
        return "fastgru", _several(model.predict(x))
    judge = judges.judge_of(kind)
    return judge.name, _several(judge.run(path, model.describe(), x))


def _several(outputs: Any) -> list[Array]:
    return [np.asarray(y) for y in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]
