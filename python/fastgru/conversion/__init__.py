"""Conversion between file formats, with a comparison of the outputs of both files.

``fastgru.conversion.runners`` runs both files on the same samples, in their frameworks or in the NumPy reference. It
does not use the code that read and wrote the files.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import formats
from fastgru._support.sequences import valid_steps
from fastgru.conversion import runners
from fastgru.formats.description import Assumption, ModelFileError
from fastgru.formats.keras.training import LOAD_WITHOUT
from fastgru.layers import Embedding, Masking, Rescaling
from fastgru.models.loading import load_model, read_model, warn_of
from fastgru.models.sequential import Sequential

Array = NDArray[Any]

#: The number of samples to compare on, and their steps if the model accepts any number.
_SAMPLES, _STEPS = 8, 20
#: The largest relative difference; kernels and frameworks round a few dozen float32 products differently.
_AGREEMENT = 1e-4
_MOST_OF_A_REASON = 200


@dataclass(frozen=True)
class Comparison:
    """The result of running two files on the same random samples.

    Attributes
    ----------
    source : str
        The program that ran the source file.
    target : str
        The program that ran the target file.
    difference : float
        The largest difference between their outputs.
    largest : float
        The largest absolute output.
    left_behind : str or None
        The reason why the target does not contain the training configuration of the source.
    assumptions : tuple of Assumption
        Assumptions about the source, where neither the file nor an option gives the information. Both files were run
        under these assumptions, so the comparison does not confirm them.
    """

    source: str
    target: str
    difference: float
    largest: float
    left_behind: str | None = None
    assumptions: tuple[Assumption, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the difference is within rounding errors."""
        return bool(self.difference <= _AGREEMENT * max(self.largest, 1.0))


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, source_format: str | None = None, **options: Any
) -> Comparison:
    """Convert a model file to another format, if both files compute the same.

    Parameters
    ----------
    source, target : path
        The formats are detected as in `fastgru.load_model` and `fastgru.Sequential.save`.
    source_format : str, optional
        The format of `source`, one of those that `fastgru.formats` lists.
    **options
        Options of `fastgru.load_model`.

    Returns
    -------
    Comparison

    Raises
    ------
    ModelFileError, ValueError, ImportError, OSError
        `source` cannot be read, the format of `target` does not support the model, or the outputs differ. No file is
        written.

    Warns
    -----
    AssumptionWarning
        `source` does not define the outputs completely, as in `fastgru.load_model`.
    """
    kind = formats.kind_of_file(source) if source_format is None else source_format
    written = formats.kind_of_name(target)
    model, assumptions, not_compiled = load(source, kind, **options)
    warn_of(source, assumptions)
    x = random_samples(model)
    by_source, expected = _run_source(source, kind, model, x)
    with tempfile.TemporaryDirectory() as folder:
        trial = os.path.join(folder, os.path.basename(target))
        unwritten = _save(model, trial)
        by_target, actual = _run_target(trial, written, x)
    compared = Comparison(by_source, by_target, *_difference(actual, expected), not_compiled or unwritten, assumptions)
    if not compared.agrees:
        raise ValueError(
            f"{os.fspath(target)}: not written because its outputs differ from those of {os.fspath(source)} by "
            f"{compared.difference:.1e}, run by {compared.target} and by {compared.source}; please report this as a bug"
        )
    _save(model, target)
    return compared


class Loaded(NamedTuple):
    """A model from a file.

    Attributes
    ----------
    model : Sequential
    assumptions : tuple of Assumption
        The assumptions of the reader, because the file does not define the model completely.
    not_compiled : str or None
        The reason why the model is not compiled although the file has a training configuration; None otherwise.
    """

    model: Sequential
    assumptions: tuple[Assumption, ...]
    not_compiled: str | None


def load(path: str | os.PathLike[str], kind: str | None = None, **options: Any) -> Loaded:
    """Read a model, without optimizer, loss and metrics if these are not supported.

    Parameters
    ----------
    path : path
    kind : str, optional
        The file format, a key of `fastgru.formats.KINDS`; if not given, it is detected.
    **options
        Those of `fastgru.load_model`.
    """
    try:
        return Loaded(*read_model(path, format=kind, **options), None)
    except ModelFileError as error:
        try:
            model, assumptions = read_model(path, format=kind, compile=False, **options)
        except ModelFileError:
            raise error from None
        return Loaded(model, assumptions, str(error).removesuffix(f"; {LOAD_WITHOUT}"))


def _save(model: Sequential, target: str | os.PathLike[str]) -> str | None:
    """Save with optimizer, loss and metrics if the format supports them, else without; returns the reason then."""
    try:
        model.save(target)
    except ValueError as error:
        if model.optimizer is None:
            raise
        model.save(target, include_optimizer=False)  # raises again if the optimizer is not the reason
        return str(error)
    return None


def random_samples(model: Sequential) -> Array:
    """Return random samples (N, ...) for a model, the same ones in each call: float32, float64 or tokens.

    If the model computes lengths itself, the samples have different lengths and end with padding.
    """
    rng = np.random.default_rng(0)
    shape = (_SAMPLES, *(_STEPS if size is None else size for size in model.input_shape[1:]))
    first = model.layers[0]
    padding: float | None = None
    if isinstance(first, Embedding):
        x = rng.integers(min(1, first.input_dim - 1), first.input_dim, shape)  # 0 may be padding
        padding = 0 if first.mask_zero else None
    else:
        numbers = rng.standard_normal(shape)
        if isinstance(first, Rescaling) and first.scale and not first.uint8_only:
            numbers = (numbers - first.offset) / first.scale  # so that the next layer gets numbers near 1
        x = numbers.astype(model.dtype)
        masks = [layer for layer in model.layers if isinstance(layer, Masking)]
        padding = masks[0].mask_value if masks else None
    if padding is not None:
        steps = shape[1]
        x[~valid_steps(np.linspace(1, steps, _SAMPLES).astype(np.int64), steps)] = padding
    return x


def _run_source(path: str | os.PathLike[str], kind: str, model: Sequential, x: Array) -> tuple[str, list[Array]]:
    """Run a file of any origin; returns the name of the runner, and the outputs.

    A framework may fail because of contents besides the model. The NumPy equations are used then.
    """
    if kind == "fastgru":
        return "fastgru", _several(model.predict(x))
    runner, description = runners.runner_for(kind, path), model.describe()
    try:
        return runner.name, _several(runner.run(path, description, x))
    except Exception as error:
        reason = " ".join(str(error).split())[:_MOST_OF_A_REASON]
        name = f"{runners.EQUATIONS.name}, because {runner.name} failed: {type(error).__name__}: {reason}"
        return name, _several(runners.EQUATIONS.run(path, description, x))


def _run_target(path: str | os.PathLike[str], kind: str, x: Array) -> tuple[str, list[Array]]:
    """Run a file of this package, which its framework must accept; returns the name of the runner, and the outputs."""
    model = load_model(path, format=kind)
    if kind == "fastgru":
        return "fastgru", _several(model.predict(x))
    runner = runners.runner_for(kind, path)
    return runner.name, _several(runner.run(path, model.describe(), x))


def _several(outputs: Any) -> list[Array]:
    return [np.asarray(y) for y in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]


def _difference(actual: list[Array], expected: list[Array]) -> tuple[float, float]:
    """The largest difference between outputs, infinite if their shapes differ, and the largest absolute output."""
    largest = max(float(np.abs(y).max(initial=0)) for y in expected)
    if [y.shape for y in actual] != [y.shape for y in expected]:
        return np.inf, largest
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(actual, expected, strict=True)), largest
