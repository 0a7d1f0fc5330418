"""Files of every kind: opening them to be read, and replacing them so that a reader sees the old one or the new one.

Only regular files, and links to them, are read and replaced: a FIFO would block, and a device would be replaced by a
file. A writer holds a lock on its temporary file, which the kernel releases when the writer dies: the next writer in
the folder takes the locks of the files that others left, and removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: A temporary file: the beginning of the target's name, the machine that writes it, and a random number.
_TEMPORARY = re.compile(r"\..{0,32}\.([0-9a-f]{8})-[0-9a-f]{8}\.fastgru\.tmp", re.DOTALL)
#: Locks of other machines may be invisible on a network's file system; no file takes a day to be written.
_STALE_SECONDS = 24 * 3600
#: Another program may lock a folder for as long as it likes.
_PATIENCE_SECONDS = 10.0
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


# --- Names --------------------------------------------------------------------------------------------------------


def check_path(path: object, argument: str = "path") -> None:
    """Refuse what is no name of a file; `open` would take a number for a file that is open already.

    Parameters
    ----------
    path : object
    argument : str
        What the caller calls it, for the message.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{argument}: expected a str or an os.PathLike, got {type(path).__name__}")
    name = os.fspath(path)
    if not name:
        raise ValueError(f"{argument}: expected the name of a file, got an empty one")
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a name of type str, got {type(name).__name__}")
    if "\0" in name:
        raise ValueError(f"{argument}: expected the name of a file, which cannot have a NUL character, got {name!r}")


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors of the operating system name `path`: a full disk names no file, and a temporary file means nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def replaceable(path: str | os.PathLike[str]) -> Path:
    """The file that writing to `path` creates or replaces; a link stays, and what it points to is replaced.

    Raises
    ------
    OSError
        There is no folder to write to, or `path` is something else than a regular file or a link to one.
    """
    check_path(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _require_regular(path, os.stat(path))
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: expected a folder to write {target.name} to, there is none")
    return target


def _require_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    error = IsADirectoryError if stat.S_ISDIR(status.st_mode) else OSError
    raise error(f"{os.fspath(path)}: expected a regular file or a link to one, got {kind}; give the name of a file")


# --- Reading ------------------------------------------------------------------------------------------------------


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to be read.

    Raises
    ------
    OSError
        It cannot be opened, or is something else than a regular file or a link to one.
    """
    check_path(path)
    _require_regular(path, os.stat(path))  # opening a device can have effects of its own
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_all(file: BinaryIO) -> bytes:
    """The contents of an open file, no more than its size says, read into memory.

    A file that is cut while it is read gives fewer bytes. Mapped into memory, it would end the process with SIGBUS.
    """
    file.seek(0)
    return file.read(os.fstat(file.fileno()).st_size)


# --- Writing ------------------------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` through a temporary file in the same folder.

    The file is flushed to the disk before it takes the name, and the folder after, so that not even a power cut leaves
    half a file under the name. If anything fails, what was there before is still there, and the temporary file is not.
    Temporary files that killed processes have left in the folder are removed.

    Raises
    ------
    OSError
        The file cannot be written; the error names `path`.
    """
    target = replaceable(path)
    remove_stale(target.parent)
    with naming(path):
        with _temporary(target) as (file, temporary):
            file.write(data)
            file.flush()
            if target.exists():
                os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            os.fsync(file.fileno())
            os.replace(temporary, target)
        _sync_folder(target.parent)


@contextlib.contextmanager
def trial_name(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name like that of `path` in a temporary folder beside it, to test whether `path` can be written.

    What is written there is removed afterwards. `path` itself is neither created nor changed.

    Raises
    ------
    OSError
        Nothing can be written beside `path`; the error names `path`.
    """
    target = replaceable(path)
    with naming(path):
        folder = tempfile.mkdtemp(prefix=f".{target.name[:32]}.", suffix=".fastgru.tmp", dir=target.parent)
        try:
            yield Path(folder) / os.path.basename(os.fspath(path))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside `target`, locked; it is removed if what is done with it fails."""
    while True:
        name = f".{target.name[:32]}.{_machine()}-{secrets.token_hex(4)}.fastgru.tmp"
        temporary = target.with_name(name)
        mode = 0o600 if target.exists() else 0o666  # what is private is never readable to others
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            try:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_at(temporary, os.fstat(descriptor)):
                    continue  # removed as stale before it was locked
                yield file, temporary
                return
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise


def _is_at(path: Path, status: os.stat_result) -> bool:
    """Whether the open file of that status is the one that `path` names."""
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- Temporary files of killed processes -----------------------------------------------------------------------------


def remove_stale(folder: Path) -> None:
    """Remove the temporary files in a folder whose writers have died.

    A file goes if its name is one that `write_atomically` makes up, it belongs to this user, and nobody holds its lock.
    On a network's file system the lock of a process on another machine may be invisible, so files of other machines go
    when they are a day old. Where there are no locks, all files stay.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".fastgru.tmp")]
    except OSError:
        return
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found:
            with contextlib.suppress(OSError):  # also if its lock is held, or there are none
                _remove_unlocked(folder / name, found[1])


def _remove_unlocked(path: Path, machine: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        if not own or (machine != _machine() and time.time() - status.st_mtime < _STALE_SECONDS):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, status):
            os.unlink(path)
    finally:
        os.close(descriptor)


@functools.cache
def _machine() -> str:
    """Eight hexadecimal digits that tell this machine from others."""
    try:
        identity = Path("/etc/machine-id").read_bytes()
    except OSError:
        identity = b""
    return hashlib.sha256(os.uname().nodename.encode() + b"\0" + identity).hexdigest()[:8]


# --- Several files that belong together -----------------------------------------------------------------------------


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Lock a folder against others that do the same; waits for these.

    Yields
    ------
    bool
        Whether it is locked: some file systems have no locks for folders, and another program may hold this one.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _lock(descriptor, time.monotonic() + _PATIENCE_SECONDS)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        except OSError:
            return False
        else:
            return True
