"""Reads files, and replaces them atomically: a reader sees either the old or the new contents.

Only regular files and links to them are supported: opening a FIFO would block, and writing would replace a device by a
file. A writer locks its temporary file. The operating system releases the lock if the writer dies. The next writer in
the folder removes temporary files that are no longer locked.
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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: Name of a temporary file: the start of the target's name, the machine that writes it, and a random number.
_TEMPORARY = re.compile(r"\..{0,32}\.([0-9a-f]{8})-[0-9a-f]{8}\.fastgru\.(?:tmp|trial)", re.DOTALL)
#: On network file systems, locks of other machines may be invisible. Writing a file takes less than a day.
_STALE_SECONDS = 24 * 3600
#: Maximum time to wait for a folder's lock, because another program may hold it for any time.
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
    """Raise if `path` is not the name of a file; `open` would accept an int as an open file descriptor.

    Parameters
    ----------
    path : object
    argument : str
        Name of the caller's argument, for the message.
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
    """Make errors of the operating system name `path`; they name no file or a temporary file otherwise."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def replaceable(path: str | os.PathLike[str]) -> Path:
    """Return the file that writing to `path` creates or replaces. A link is kept, and its target is replaced.

    Raises
    ------
    OSError
        The folder does not exist, or `path` is neither a regular file nor a link to one.
    """
    check_path(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _require_regular(path, os.stat(path))
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: expected an existing folder for {target.name}, got none; create it")
    return target


def _require_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    error = IsADirectoryError if stat.S_ISDIR(status.st_mode) else OSError
    raise error(f"{os.fspath(path)}: expected a regular file or a link to one, got {kind}; give the name of a file")


# --- Reading ------------------------------------------------------------------------------------------------------


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading.

    Raises
    ------
    OSError
        The file cannot be opened, or is neither a regular file nor a link to one.
    """
    check_path(path)
    _require_regular(path, os.stat(path))  # first, because opening a device can have side effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_all(file: BinaryIO) -> bytes:
    """Read an open file into memory, at most its size in bytes.

    A file that is truncated meanwhile gives fewer bytes. With a memory map, reading would end the process by SIGBUS.
    """
    file.seek(0)
    return file.read(os.fstat(file.fileno()).st_size)


# --- Writing ------------------------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` through a temporary file in the same folder.

    The file is flushed to disk before it is renamed, and the folder afterwards, so that a power failure cannot leave
    half a file under the name. If anything fails, the old file is unchanged and the temporary file is removed.
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
        folder, descriptor = _locked_folder(target)
        try:
            yield folder / os.path.basename(os.fspath(path))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """Create a temporary folder next to `target`, and return it with a descriptor that locks it."""
    while True:
        folder = target.with_name(f".{target.name[:32]}.{_machine()}-{secrets.token_hex(4)}.fastgru.trial")
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(folder, os.fstat(descriptor)):
            return folder, descriptor
        os.close(descriptor)  # removed as stale before it was locked


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Create a locked temporary file next to `target`. It is removed if the block raises."""
    while True:
        name = f".{target.name[:32]}.{_machine()}-{secrets.token_hex(4)}.fastgru.tmp"
        temporary = target.with_name(name)
        mode = 0o600 if target.exists() else 0o666  # the contents of a private file must never be readable to others
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            try:
                with contextlib.suppress(OSError):  # the file system has no locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_at(temporary, os.fstat(descriptor)):
                    continue  # another writer removed it as stale before it was locked
                yield file, temporary
                return
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise


def _is_at(path: Path, status: os.stat_result) -> bool:
    """Whether `path` is the name of the open file with that status."""
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
    """Remove the temporary files, and the folders of `trial_name`, in a folder whose writers have died.

    A file is removed if its name has the form that `write_atomically` uses, it belongs to this user, and it is not
    locked. On network file systems the lock of a process on another machine may be invisible, so files of other
    machines are removed after a day. On file systems without locks no file is removed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith((".fastgru.tmp", ".fastgru.trial"))]
    except OSError:
        return
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found:
            with contextlib.suppress(OSError):  # the file is locked, or there are no locks
                _remove_unlocked(folder / name, found[1])


def _remove_unlocked(path: Path, machine: str) -> None:
    is_folder = path.name.endswith(".trial")
    access = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
    descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        own = is_folder or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
        own = own and status.st_uid == os.geteuid()
        if not own or (machine != _machine() and time.time() - status.st_mtime < _STALE_SECONDS):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, status):
            shutil.rmtree(path) if is_folder else os.unlink(path)
    finally:
        os.close(descriptor)


@functools.cache
def _machine() -> str:
    """Return eight hexadecimal digits that identify this machine."""
    try:
        identity = Path("/etc/machine-id").read_bytes()
    except OSError:
        identity = b""
    return hashlib.sha256(os.uname().nodename.encode() + b"\0" + identity).hexdigest()[:8]


# --- Several files that belong together -----------------------------------------------------------------------------


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Lock a folder against other callers of this function, and wait for them.

    Yields
    ------
    bool
        Whether it is locked. Some file systems have no locks for folders, and another program may hold the lock.
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
