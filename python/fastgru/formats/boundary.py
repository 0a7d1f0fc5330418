"""Errors of readers: exceptions that the contents of a file cause become `ModelFileError` with the name of the file.

Libraries raise many types of exceptions for damaged files: OSError for an offset that cannot be sought, AssertionError,
struct.error, zlib.error, RecursionError. No list of types is complete, so all exceptions are attributed to the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import BinaryIO

from fastgru._support.files import open_regular
from fastgru.formats.description import AmbiguousFileError, ModelFileError

#: Errors of the operating system that the contents of a file do not cause.
_SYSTEM = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EIO, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
        errno.ETIMEDOUT,
    }
)  # fmt: skip
_MOST_CHARACTERS = 2000


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str | None = None) -> Iterator[None]:
    """Context manager that raises exceptions as `ModelFileError` with the name of the file.

    Check the arguments of the caller outside of it. Some exceptions are not changed: errors of the operating system
    (permissions, failing disks), MemoryError, because readers allocate no more than the file holds, and ImportError.

    Parameters
    ----------
    path : path
    what : str, optional
        The problem of the file, which precedes the message of the exception.
    """
    try:
        yield
    except AmbiguousFileError as error:
        raise AmbiguousFileError(f"{os.fspath(path)}: {error.problem}", error.options) from error
    except (ModelFileError, ImportError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SYSTEM:
            raise
        words = [os.fspath(path), *([what] if what else []), _reason(error)[:_MOST_CHARACTERS]]
        raise ModelFileError(": ".join(words)) from error


@contextlib.contextmanager
def model_file(path: str | os.PathLike[str], what: str | None = None) -> Iterator[BinaryIO]:
    """Open a regular file for reading, within `reading`; raises OSError if it cannot be opened."""
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
