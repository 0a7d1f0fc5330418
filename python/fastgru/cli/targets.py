"""Checks whether a command can write its files, before the command starts.

A check raises the error of writing the file, after the name of the option. `parser.checking` converts it to a
`UsageError`. Otherwise a file that cannot be written would be noticed only after the training.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fastgru import formats
from fastgru._support.files import naming, replaceable
from fastgru.cli.suggestions import did_you_mean
from fastgru.formats.keras.training import SAVE_WITHOUT
from fastgru.formats.kinds import WEIGHTS_ALONE
from fastgru.layers import Dense
from fastgru.models.saving import require_saveable
from fastgru.models.sequential import Sequential

#: The format that stores the state of a training run.
_RESUMABLE = "fastgru"


def require_writable(option: str, path: str) -> None:
    """Raise if `path` is a folder, or if no file can be created in its folder."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{option}: expected a file to write, got the folder {path}; give the name of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{option}: expected a file in an existing folder, got {path}; make the folder {target.parent} first"
        )
    with _about(option):
        folder = replaceable(path).parent
        with naming(folder), tempfile.TemporaryFile(dir=folder):
            pass


def require_ending(option: str, path: str, endings: tuple[str, ...]) -> None:
    """Raise unless `path` ends with one of `endings`."""
    if not path.lower().endswith(endings):
        raise ValueError(
            f"{option}: expected a file name that ends with {', '.join(endings)}, got {path!r}"
            f"{did_you_mean(Path(path).suffix, endings)}"
        )


def require_model_target(option: str, path: str) -> None:
    """Raise if no model can be written to `path`: its folder, its ending or a package that the format needs.

    A minimal model is written beside `path` and removed again.
    """
    require_writable(option, path)
    if path.lower().endswith(WEIGHTS_ALONE):
        raise ValueError(
            f"{option}: expected the name of a model file because {WEIGHTS_ALONE} files contain only weights, got "
            f"{path!r}; use .h5 or .keras"
        )
    if Path(path).suffix:
        endings = tuple(ending for each in formats.KINDS.values() for ending in each)
        require_ending(option, path, endings)
    minimal = Sequential([Dense(1, input_shape=(None, 1))])  # every format supports this model
    with _about(option):
        require_saveable(minimal._network, minimal._compilation, path, compiled=False)


def require_checkpoint_target(option: str, path: str) -> None:
    """Raise if no checkpoint can be written to `path`, which must be a file of fastgru's own format."""
    require_writable(option, path)
    with contextlib.suppress(ValueError):
        if formats.kind_of_name(path) == _RESUMABLE:
            return
    raise ValueError(
        f"{option}: expected a file name that ends with {', '.join(formats.KINDS[_RESUMABLE])} because other files "
        f"cannot store the state of a training run, got {path!r}; use --save for files of other frameworks"
    )


def require_expressible(option: str, path: str, model: Sequential) -> None:
    """Raise if the format of `path` does not support the model or its training configuration.

    The untrained model is written beside `path` and removed again.
    """
    parts = model._network, model._compilation
    try:
        require_saveable(*parts, path)
    except ValueError as error:
        remedy = ""
        with contextlib.suppress(ValueError):
            require_saveable(*parts, path, compiled=False)
            remedy = "; save a .safetensors file and convert it with fastgru convert, which leaves the optimizer out"
        raise ValueError(f"{option}: {path}: {str(error).removesuffix(f'; {SAVE_WITHOUT}')}{remedy}") from None


@contextlib.contextmanager
def _about(option: str) -> Iterator[None]:
    """Context manager in which the messages of errors begin with the option."""
    try:
        yield
    except OSError as error:
        reason = f"{error.filename}: {os.strerror(error.errno)}" if error.errno else str(error)
        raise OSError(f"{option}: {reason}") from None
    except (ImportError, ValueError) as error:
        raise type(error)(f"{option}: {error}") from None
