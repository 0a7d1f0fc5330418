"""Sequences from files: arrays in an .npz file, or in a folder of .npy files, which are memory-mapped.

Files are not trusted. Python objects (pickles) are never read. Memory for an array is allocated only after its header
has been compared with the size of the file.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgru._support import sequences
from fastgru.datasets.idx import DataFileError
from fastgru.datasets.npy import Header, read_header

Array = NDArray[Any]

NAMES = ("x", "y", "lengths", "x_test", "y_test", "lengths_test")

#: The number of bytes to which any archive may expand, and the maximum ratio of larger ones. Deflate reaches a ratio
#: of about 1000, which decompression bombs use; arrays reach it only if nearly all their elements are equal.
_ALWAYS_ALLOWED = 1 << 30
_MOST_EXPANSION = 100
_ENCRYPTED = 0x1
_SHOWN_NAMES = 8


class Sequences(NamedTuple):
    """N sequences with their targets and lengths."""

    x: Array  # (N, T, F), real numbers
    y: Array | None = None  # (N,), (N, ...) or (N, T, ...), any numbers
    lengths: Array | None = None  # (N,) of int64, from 0 to T


def load_data(path: str | os.PathLike[str]) -> tuple[Sequences, Sequences | None]:
    """Load sequences and their targets from an .npz file or a folder of .npy files.

    Parameters
    ----------
    path : path
        A file that `numpy.savez` wrote, or a folder with the files ``x.npy``, ``y.npy`` and so on. Other arrays than
        these are ignored:

        - ``x`` (N, T, F): real numbers of any dtype, which are not scaled.
        - ``y`` (N,) or (N, C), or for targets at each step (N, T) or (N, T, C): numbers. If C equals T, (N, T) are
          targets at each step. For T targets per sequence, add a padding step to x and pass ``lengths``.
        - ``lengths`` (N,), optional: the number of valid steps of each sequence.
        - ``x_test``, ``y_test``, ``lengths_test``, optional: the same for test sequences.

        Files in a folder are memory-mapped, so that they can be larger than memory. They must not become shorter while
        they are in use, because the operating system ends a process that reads beyond the end (SIGBUS). To replace a
        file, write another file and rename it.

    Returns
    -------
    train : Sequences
    test : Sequences or None
        The test sequences, or None without ``x_test``.

    Raises
    ------
    DataFileError
        The file has another format or is damaged, an array is missing, or an array has the wrong dtype or shape. The
        message names the file and the array.
    OSError
        The file cannot be read.
    """
    with _opened(Path(path)) as source:
        train = _read_part(source, "")
        if not {"x_test", "y_test", "lengths_test"} & source.names():
            return train, None
        test = _read_part(source, "_test", require_lengths=train.lengths is not None)
        _require_alike(source.path, train, test)
        return train, test


def load_inputs(path: str | os.PathLike[str]) -> Sequences:
    """Load only ``x`` and ``lengths`` from a file for `load_data`. Other arrays may be missing."""
    with _opened(Path(path)) as source:
        return _read_part(source, "", targets=False)


# --- Files and folders ----------------------------------------------------------------------------------------


class _Source(Protocol):
    path: Path

    def names(self) -> Set[str]:
        """Return the names of the arrays."""

    def header(self, name: str) -> Header:
        """Return shape and dtype, which have been compared with the size of the file."""

    def read(self, name: str) -> Array:
        """Read the array. Call `header` first."""


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    if path.is_dir():
        yield _Folder(path)
        return
    if path.suffix.lower() != ".npz":
        path.stat()  # raises OSError if nothing exists at path
        raise DataFileError(f"{path}: expected an .npz file, or a folder with x.npy and others")
    if path.exists() and not path.is_file():
        raise DataFileError(
            f"{path}: expected a regular file, got another kind of file"
        )  # reading a pipe could wait for ever
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # a damaged archive can make zipfile raise almost anything
            raise DataFileError(f"{path}: not an .npz file: {error}") from None
        with archive:
            yield _Archive(path, archive)


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in self._members and name in NAMES:
                raise DataFileError(f"{path}: damaged: it contains two arrays with the name {name}")
            self._members[name] = member
        wanted = [member for name, member in self._members.items() if name in NAMES]
        for member in wanted:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataFileError(
                    f"{path}: {member.filename}: expected a file of numpy.savez, got another compression"
                )
            if member.flag_bits & _ENCRYPTED:
                raise DataFileError(f"{path}: {member.filename}: expected a file of numpy.savez, got an encrypted file")
        size = path.stat().st_size
        expanded = sum(member.file_size for member in wanted)
        if expanded > max(_ALWAYS_ALLOWED, _MOST_EXPANSION * size):
            raise DataFileError(
                f"{path}: its {size:,} bytes would expand to {expanded:,}, more than {_MOST_EXPANSION} times as many; "
                f"if the file is valid, write it with numpy.savez, which does not compress"
            )

    def names(self) -> Set[str]:
        return self._members.keys()

    def header(self, name: str) -> Header:
        member = self._members[name]
        with self._reading(name) as file:
            return read_header(file, member.file_size)

    def read(self, name: str) -> Array:
        with self._reading(name) as file:  # reads to the end, so that zipfile checks the CRC
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    @contextmanager
    def _reading(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self._archive.open(self._members[name]) as file:
                yield file
        except MemoryError:
            raise
        except Exception as error:  # as above
            raise DataFileError(f"{self.path}: {name}: {_reason(error)}") from None


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Set[str]:
        return {entry.name.removesuffix(".npy") for entry in self.path.iterdir() if _is_array(entry)}

    def header(self, name: str) -> Header:
        with self._file(name).open("rb") as file:
            try:
                return read_header(file, os.fstat(file.fileno()).st_size)
            except Exception as error:  # a damaged header can make NumPy raise almost anything
                raise DataFileError(f"{self._file(name)}: {_reason(error)}") from None

    def read(self, name: str) -> Array:
        return np.asarray(np.load(self._file(name), mmap_mode="r", allow_pickle=False))

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npy"


def _is_array(entry: Path) -> bool:
    return entry.suffix == ".npy" and entry.is_file()


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DataFileError) else f"not an array of numbers, or damaged: {error}"


# --- Checks ---------------------------------------------------------------------------------------------------


def _read_part(source: _Source, suffix: str, *, targets: bool = True, require_lengths: bool = False) -> Sequences:
    """Read x, y and lengths, or those with the suffix ``_test``. Shapes are checked before arrays are read."""
    x_name, y_name, lengths_name = f"x{suffix}", f"y{suffix}", f"lengths{suffix}"
    _require_present(source, x_name)
    if targets:
        _require_present(source, y_name)
    if require_lengths:
        _require_present(source, lengths_name)

    def fail(name: str, message: str) -> DataFileError:
        return DataFileError(f"{source.path}: {name}: {message}")

    shape, _ = source.header(x_name)
    if len(shape) != 3:
        raise fail(x_name, f"expected shape (N, T, F), sequences of T steps of F numbers, got {shape}")
    if 0 in shape:
        raise fail(x_name, f"expected at least one sequence, step and number, got shape {shape}")
    rows, steps = shape[:2]

    y = lengths = None
    if targets:
        y_shape, _ = source.header(y_name)
        if y_shape[:1] != (rows,):
            raise fail(y_name, f"expected {rows} targets because {x_name} has {rows} sequences, got shape {y_shape}")
        if len(y_shape) > 3 or 0 in y_shape:
            raise fail(y_name, f"expected shape (N,), (N, C), (N, T) or (N, T, C), got {y_shape}")
        if len(y_shape) == 3 and y_shape[1] != steps:
            raise fail(y_name, f"expected {steps} steps as in {x_name}, got shape {y_shape}")
        y = source.read(y_name)
    if lengths_name in source.names():
        lengths_shape, _ = source.header(lengths_name)
        if lengths_shape != (rows,):  # checked before memory is allocated
            raise fail(lengths_name, f"expected shape ({rows},), one for each sequence, got {lengths_shape}")
        try:
            lengths = sequences.check_lengths(lengths_name, source.read(lengths_name), rows, steps)
        except (ValueError, TypeError) as error:
            raise DataFileError(f"{source.path}: {error}") from None
    return Sequences(source.read(x_name), y, lengths)


def _require_present(source: _Source, name: str) -> None:
    if name in source.names():
        return
    found = sorted(source.names())
    shown = ", ".join(repr(other[:40]) for other in found[:_SHOWN_NAMES]) + (", ..." if found[_SHOWN_NAMES:] else "")
    raise DataFileError(f"{source.path}: expected an array with the name {name}, got {shown or 'none'}")


def _require_alike(path: Path, train: Sequences, test: Sequences) -> None:
    """Raise if the test sequences have another format than the training sequences."""
    if test.x.shape[2] != train.x.shape[2]:
        raise DataFileError(
            f"{path}: x_test: expected {train.x.shape[2]} numbers per step as in x, got {test.x.shape[2]}"
        )
    if (test.x.dtype == np.uint8) != (train.x.dtype == np.uint8):
        raise DataFileError(
            f"{path}: x_test: expected {train.x.dtype} as in x, got {test.x.dtype}; convert both to one dtype"
        )
    assert train.y is not None
    assert test.y is not None
    if test.y.dtype.kind != train.y.dtype.kind and "f" in (test.y.dtype.kind, train.y.dtype.kind):
        raise DataFileError(f"{path}: y_test: expected {train.y.dtype} as in y, got {test.y.dtype}")
    if test.y.ndim != train.y.ndim:
        raise DataFileError(f"{path}: y_test: expected {train.y.ndim} axes as in y, got shape {test.y.shape}")
