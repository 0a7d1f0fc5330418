"""Zip archives from strangers: what they hold is bounded by what they weigh."""

from __future__ import annotations

import os
import zipfile
import zlib
from types import TracebackType

from fastgru.formats.description import ModelFileError

#: Archives of models are stored, not compressed, or hardly: weights are noise, configurations are small.
_EXPANSION = 16
_ALLOWANCE = 2**20


class Archive:
    """The files of a zip archive, which is refused at once if they would take much more memory than it.

    Parameters
    ----------
    path : path

    Raises
    ------
    ModelFileError
        It is no archive, is damaged, or is a bomb.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise ModelFileError(f"{self.path}: no zip archive, or a damaged one: {error}") from None
        entries = self._zip.infolist()
        self.names = [entry.filename for entry in entries]
        total, most = sum(entry.file_size for entry in entries), os.path.getsize(path) * _EXPANSION + _ALLOWANCE
        try:
            if len(set(self.names)) < len(self.names):
                raise ModelFileError(f"{self.path}: an archive with two files of one name")
            if total > most:
                raise ModelFileError(
                    f"{self.path}: refused because it would unpack to {total:,} bytes, more than {_EXPANSION} times "
                    f"its size"
                )
        except ModelFileError:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """A file of the archive, its checksum compared."""
        try:
            return self._zip.read(name)
        except KeyError:
            raise ModelFileError(f"{self.path}: expected it to hold {name}, which is missing") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ModelFileError(f"{self.path}: {name} in it is damaged: {error}") from None
