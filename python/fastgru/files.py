"""Writing files so that a reader sees the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` through a temporary file in the same folder.

    The file is flushed to the disk before it takes the name, and the folder after, so that not even a power cut leaves
    half a file under the name. If anything fails, what was there before is still there, and the temporary file is not.
    """
    path = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: expected a folder to write {path.name} to, there is none")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:32]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_path(path: object) -> None:
    """Refuse what is no name of a file; `open` would take a number for a file that is open already."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a str or an os.PathLike, got {type(path).__name__}")
    if not os.fspath(path):
        raise ValueError("path: expected the name of a file, got an empty one")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
