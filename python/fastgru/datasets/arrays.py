"""A person's own sequences: arrays in one .npz file, or in a folder of .npy files that are memory-mapped.

Files come from anywhere, so nothing in them is trusted: Python objects (pickles) are never read, and no memory is taken
for an array before its header has been held against the bytes that are there.
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

#: An archive may always expand to so many bytes, and beyond that to so many times its own size. Deflate reaches a
#: thousandfold, which bombs are made of; an array comes near that only where nearly all of it is the same.
_ALWAYS_ALLOWED = 1 << 30
_MOST_EXPANSION = 100
_ENCRYPTED = 0x1
_SHOWN_NAMES = 8


class Sequences(NamedTuple):
    """N sequences, and what belongs to them."""

    x: Array  # (N, T, F), real numbers
    y: Array | None = None  # (N,), (N, ...) or (N, T, ...), any numbers
    lengths: Array | None = None  # (N,) of int64, from 0 to T


def load_data(path: str | os.PathLike[str]) -> tuple[Sequences, Sequences | None]:
    """Sequences and their targets from an .npz file or a folder of .npy files.

    Parameters
    ----------
    path : path
        What `numpy.savez` wrote, or a folder that holds ``x.npy``, ``y.npy`` and so on. The arrays, others being
        ignored:

        - ``x`` (N, T, F), real numbers of any dtype, which are not scaled,
        - ``y`` (N,) or (N, C), numbers; with a target for each step (N, T) or (N, T, C). Where C is T, (N, T) is a
          target for each step; for T numbers a sequence, give x one step more that ``lengths`` leave out,
        - ``lengths`` (N,), optional: how many steps of each sequence count,
        - ``x_test``, ``y_test``, ``lengths_test``, optional: the same for other sequences.

        Files in a folder are mapped into memory, so that they can be larger than it. They must not become shorter
        while they are in use: the operating system ends a process that reads beyond the end (SIGBUS). To replace one,
        write another file and rename it.

    Returns
    -------
    train : Sequences
    test : Sequences or None
        Those of ``x_test``.

    Raises
    ------
    DataFileError
        The file is none of these, is damaged, lacks an array, or an array's dtype or shape does not fit; the message
        names the file and the array.
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
    """Only ``x`` and ``lengths`` of what `load_data` reads; the file need not hold more."""
    with _opened(Path(path)) as source:
        return _read_part(source, "", targets=False)


# --- Where arrays lie -----------------------------------------------------------------------------------------


class _Source(Protocol):
    path: Path

    def names(self) -> Set[str]:
        """Names of the arrays there are."""

    def header(self, name: str) -> Header:
        """Shape and dtype; they have been held against the bytes that are there."""

    def read(self, name: str) -> Array:
        """The array, once its header has been looked at."""


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    if path.is_dir():
        yield _Folder(path)
        return
    if path.suffix.lower() != ".npz":
        path.stat()  # an OSError of its own where there is nothing
        raise DataFileError(f"{path}: expected an .npz file, or a folder with x.npy and others")
    if path.exists() and not path.is_file():
        raise DataFileError(f"{path}: expected a file, got something else")  # reading a pipe could wait for ever
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
                raise DataFileError(f"{path}: damaged: it has two arrays called {name}")
            self._members[name] = member
        wanted = [member for name, member in self._members.items() if name in NAMES]
        for member in wanted:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataFileError(
                    f"{path}: {member.filename}: expected what numpy.savez writes, got another compression"
                )
            if member.flag_bits & _ENCRYPTED:
                raise DataFileError(
                    f"{path}: {member.filename}: expected what numpy.savez writes, got an encrypted file"
                )
        size = path.stat().st_size
        expanded = sum(member.file_size for member in wanted)
        if expanded > max(_ALWAYS_ALLOWED, _MOST_EXPANSION * size):
            raise DataFileError(
                f"{path}: its {size:,} bytes claim to expand to {expanded:,}, more than {_MOST_EXPANSION} times as "
                f"many; if that is true, write it with numpy.savez, which does not compress"
            )

    def names(self) -> Set[str]:
        return self._members.keys()

    def header(self, name: str) -> Header:
        member = self._members[name]
        with self._reading(name) as file:
            return read_header(file, member.file_size)

    def read(self, name: str) -> Array:
        with self._reading(name) as file:  # to its end, so that zipfile compares the checksum
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


# --- What they must be ----------------------------------------------------------------------------------------


def _read_part(source: _Source, suffix: str, *, targets: bool = True, require_lengths: bool = False) -> Sequences:
    """x, y and lengths, or with the suffix ``_test`` those; shapes are looked at before arrays are read."""
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
            raise fail(y_name, f"expected {steps} steps because {x_name} has as many, got shape {y_shape}")
        y = source.read(y_name)
    if lengths_name in source.names():
        lengths_shape, _ = source.header(lengths_name)
        if lengths_shape != (rows,):  # before any memory is taken for it
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
    raise DataFileError(f"{source.path}: expected an array called {name}, got {shown or 'none'}")


def _require_alike(path: Path, train: Sequences, test: Sequences) -> None:
    """Raise unless the test sequences could have been among the others."""
    if test.x.shape[2] != train.x.shape[2]:
        raise DataFileError(
            f"{path}: x_test: expected {train.x.shape[2]} numbers a step because x has as many, got {test.x.shape[2]}"
        )
    if (test.x.dtype == np.uint8) != (train.x.dtype == np.uint8):
        raise DataFileError(
            f"{path}: x_test: expected {train.x.dtype} as x is, got {test.x.dtype}; bytes are not scaled by themselves"
        )
    assert train.y is not None
    assert test.y is not None
    if test.y.dtype.kind != train.y.dtype.kind and "f" in (test.y.dtype.kind, train.y.dtype.kind):
        raise DataFileError(f"{path}: y_test: expected {train.y.dtype} as y is, got {test.y.dtype}")
    if test.y.ndim != train.y.ndim:
        raise DataFileError(f"{path}: y_test: expected {train.y.ndim} axes as y has, got shape {test.y.shape}")
