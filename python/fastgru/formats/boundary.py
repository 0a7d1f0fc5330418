"""Errors of readers: every exception that a damaged or foreign file causes becomes one that names the file.

Libraries raise almost anything for a damaged file: OSError for an offset that cannot be sought, AssertionError,
struct.error, zlib.error, RecursionError. No list of them is complete, so that all are taken for the file's.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import BinaryIO

from fastgru._support.files import open_regular
from fastgru.formats.description import ModelFileError, UnsaidError

#: What the system fails with, and not because of what a file holds.
_SYSTEM = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EIO, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
        errno.ETIMEDOUT,
    }
)  # fmt: skip
_MOST_CHARACTERS = 2000


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str | None = None) -> Iterator[None]:
    """Within, every exception is the file's: it is raised as a `ModelFileError` that names the file.

    Arguments of the caller have to be checked outside. These exceptions stay what they are: of the system (permissions,
    failing disks), of memory, which readers take only where the file holds as many bytes, and of missing packages.

    Parameters
    ----------
    path : path
    what : str, optional
        What is wrong then, in words that go before the exception's own.
    """
    try:
        yield
    except UnsaidError as error:
        raise UnsaidError(f"{os.fspath(path)}: {error.problem}", error.options) from error
    except (ModelFileError, ImportError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SYSTEM:
            raise
        words = [os.fspath(path), *([what] if what else []), _reason(error)[:_MOST_CHARACTERS]]
        raise ModelFileError(": ".join(words)) from error


@contextlib.contextmanager
def model_file(path: str | os.PathLike[str], what: str | None = None) -> Iterator[BinaryIO]:
    """A regular file, open to be read; what cannot be opened is an OSError, and within holds what `reading` says."""
    with open_regular(path) as file, reading(path, what):
        yield file


def _reason(error: Exception) -> str:
    match error:
        case KeyError():
            return f"expected an entry {error}, which is missing"
        case RecursionError():
            return "damaged: it is nested too deeply"
        case ValueError() if str(error):
            return str(error)
        case TypeError() if ": expected " in str(error):  # of this package's checks, which name an argument
            return str(error)
        case OSError(errno=None) if str(error):  # of fastgru._support.files
            return str(error)
    return f"damaged, or not what it claims to be: {type(error).__name__}: {error}"
