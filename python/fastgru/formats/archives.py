"""Zip archives: untrusted ones are read, whose contents may be at most 16 times as large, and new ones made."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from types import TracebackType

from fastgru._support.files import open_regular
from fastgru.formats.boundary import reading
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
        self._file = open_regular(path)
        try:
            with reading(path, "no zip archive, or a damaged one"):
                self._zip = zipfile.ZipFile(self._file)
                entries = self._zip.infolist()
            self.names = [entry.filename for entry in entries]
            total = sum(entry.file_size for entry in entries)
            if len(set(self.names)) < len(self.names):
                raise ModelFileError(f"{self.path}: an archive with two files of one name")
            if total > os.fstat(self._file.fileno()).st_size * _EXPANSION + _ALLOWANCE:
                raise ModelFileError(
                    f"{self.path}: refused because it would unpack to {total:,} bytes, more than {_EXPANSION} times "
                    f"its size"
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
        """A file of the archive, its checksum compared."""
        if name not in self.names:
            raise ModelFileError(f"{self.path}: expected it to hold {name}, which is missing")
        with reading(self.path, f"{name} in it is damaged"):
            return self._zip.read(name)


def to_bytes(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files, uncompressed and with a date that is always the same: its bytes follow from theirs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
