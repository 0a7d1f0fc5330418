"""Disk full: a save without enough space leaves the old file intact and no other file, and its error names the file.

Uses a small file system in memory, filled so that the save fails at a random byte or at the first. If mounting is not
permitted, a limit for the size of a file (RLIMIT_FSIZE) replaces it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastgru import callbacks

from campaign import formats
from campaign.run import Run

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000
_PAGE = 4096
_SIZE = 2 << 20
_INODES = 16
#: Prefix of the files that fill the file system.
_FILLER = "filler"


@dataclass(frozen=True)
class Writer:
    """A writer of files: `write` (number of the model, path) writes model 0 or 1."""

    subject: str
    name: str
    write: Callable[[int, Path], None]


def run(run: Run) -> None:
    check(run, [*(_saving(subject) for subject in formats.SUBJECTS), _training()])


def _saving(subject: str) -> Writer:
    kind = formats.get(subject)
    models = [formats.make_model(subject, seed=seed, units=units) for seed, units in ((1, 16), (2, 48))]
    return Writer(subject, kind.name, lambda number, path: kind.write(models[number], path))


def _training() -> Writer:
    def write(number: int, path: Path) -> None:
        model = formats.make_model("native", seed=number, units=(16, 48)[number])
        x, y = np.zeros((4, 6, 16), np.float32), np.zeros(4, np.int64)
        model.fit(x, y, epochs=1, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)])

    return Writer("ModelCheckpoint", "run.safetensors", write)


def check(run: Run, writers: list[Writer]) -> None:
    """Run each writer on a full disk, repeatedly."""
    disk = _mounted(run.scratch / "disk")
    how = "a small tmpfs"
    if isinstance(disk, str):
        how, disk = f"RLIMIT_FSIZE, because {disk}", _limited(run.scratch / "folder")
    failed = 0
    for number in run.cases(least=len(writers)):
        failed += _case(run, disk, writers[number % len(writers)], number)
    run.report.done = f"{failed:,} saves without room, {len(writers)} formats ({how})"
    if failed == 0:
        run.skip("no save ran out of room")


def _case(run: Run, disk: _Disk, writer: Writer, number: int) -> bool:
    """Whether the save failed, as it should without enough space."""
    for file in disk.folder.iterdir():
        file.unlink()
    path = disk.folder / writer.name
    writer.write(1, path)
    needed = sum(file.stat().st_size for file in disk.folder.iterdir())
    for file in disk.folder.iterdir():
        file.unlink()
    writer.write(0, path)
    before = _contents(disk.folder)
    random = run.random(number)
    room = random.choice([-1, 0, random.randrange(needed)])
    with disk.full(room):
        try:
            writer.write(1, path)
        except OSError as error:
            caught: BaseException | None = error
        except Exception as error:
            caught = error
            run.found(f"{writer.subject}: {type(error).__name__} instead of an OSError", repr(error), number)
        else:
            caught = None
        after = _contents(disk.folder)
    if caught is None:
        return False  # there was enough space in whole pages
    # The name of the file, or of TensorFlow.js' weights file beside it, but not that of a temporary file.
    if isinstance(caught, OSError) and str(path.parent / path.stem) not in str(caught):
        run.found(f"{writer.subject}: the error does not name the file", repr(caught), number)
    if after.get(path.name) != before[path.name]:
        run.found(f"{writer.subject}: the old file is not whole", f"room for {room} of {needed} bytes", number)
    if after.keys() != before.keys():
        left = sorted(after.keys() ^ before.keys())
        run.found(f"{writer.subject}: files were left behind or are missing", str(left), number)
    return True


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(_FILLER)}


# --- Full disks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Disk:
    """A folder, and a context in which that many bytes can be written to it; -1: not even a new file."""

    folder: Path
    full: Callable[[int], contextlib.AbstractContextManager[None]]


def _mounted(folder: Path) -> _Disk | str:
    """Mount a small file system that only this process sees, until it ends; returns the reason if that fails."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [
        lambda: libc.unshare(_CLONE_NEWNS),
        lambda: libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None),
        lambda: libc.mount(
            b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), f"size={_SIZE},nr_inodes={_INODES}".encode()
        ),
    ]
    for step in steps:
        if step() != 0:
            return f"mounting is refused ({errno.errorcode[ctypes.get_errno()]})"

    @contextlib.contextmanager
    def full(room: int) -> Iterator[None]:
        fillers = [folder / f"{_FILLER}{number}" for number in range(_INODES if room < 0 else 1)]
        try:
            with contextlib.suppress(OSError):
                for filler in fillers:
                    filler.touch()
            if room >= 0:
                free = os.statvfs(folder).f_bavail * _PAGE
                with fillers[0].open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, max(free - room // _PAGE * _PAGE, 1))
            yield
        finally:
            for filler in fillers:
                filler.unlink(missing_ok=True)

    return _Disk(folder, full)


def _limited(folder: Path) -> _Disk:
    """Return a folder in which no file may become larger than a limit."""
    folder.mkdir()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # makes writing fail with EFBIG

    @contextlib.contextmanager
    def full(room: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(room, 0), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return _Disk(folder, full)
