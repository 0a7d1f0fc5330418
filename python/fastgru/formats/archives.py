"""Zip archives: reads untrusted archives, whose contents may be at most 16 times their size, and makes new ones."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from types import TracebackType

from fastgru._support.files import open_regular
from fastgru.formats.boundary import reading
from fastgru.formats.description import ModelFileError

#: Model archives expand little: weights hardly compress, and configurations are small.
_EXPANSION = 16
_ALLOWANCE = 2**20


class Archive:
    """The files of a zip archive; raises if they would need much more memory than the archive itself.

    Parameters
    ----------
    path : path

    Raises
    ------
    ModelFileError
        The file is not an archive, is damaged, or expands too much.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = open_regular(path)
        try:
            with reading(path, "not a zip archive, or a damaged one"):
                self._zip = zipfile.ZipFile(self._file)
                entries = self._zip.infolist()
            self.names = [entry.filename for entry in entries]
            total = sum(entry.file_size for entry in entries)
            if len(set(self.names)) < len(self.names):
                raise ModelFileError(f"{self.path}: damaged: an archive with two files of the same name")
            if total > os.fstat(self._file.fileno()).st_size * _EXPANSION + _ALLOWANCE:
                raise ModelFileError(
                    f"{self.path}: expected contents of at most {_EXPANSION} times its size because model files expand "
                    f"little, got {total:,} bytes"
                )
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    def read(self, name: str) -> bytes:
        """The contents of a file of the archive, whose checksum is verified."""
        if name not in self.names:
            raise ModelFileError(f"{self.path}: expected a file {name} in the archive, which is missing")
        with reading(self.path, f"{name} in the archive is damaged"):
            return self._zip.read(name)


def to_bytes(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed archive of these files with a constant date, so that equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
