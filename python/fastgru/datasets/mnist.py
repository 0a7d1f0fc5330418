"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 bytes (LeCun, Cortes, Burges).

The data are not part of this package. They are read from a folder, or downloaded once into the user's cache folder. In
both cases the SHA-256 checksums of the decompressed files are compared with those of the original files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._support.files import write_atomically
from fastgru.datasets import idx
from fastgru.datasets.idx import DataFileError

DATA_VARIABLE = "FASTGRU_DATA"

#: Mirrors in the order of preference. The original site is often unavailable.
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
TIMEOUT_SECONDS = 10.0

Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class _File(NamedTuple):
    name: str
    size: int
    sha256: str


FILES = (
    _File(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _File(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    _File(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _File(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


class DataUnavailableError(OSError):
    """MNIST was not found on this machine and cannot be downloaded. The message lists the attempts.

    Attributes
    ----------
    reason : str
        The message without the remedy.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}; put the four files into a folder, and pass the folder with --data, path= or {DATA_VARIABLE}"
        )


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Load MNIST, with Keras' return value.

    Parameters
    ----------
    path : path, optional
        A folder with the four files under their usual names, as ``.gz`` or decompressed. The default is the folder in
        the environment variable ``FASTGRU_DATA``, or else the user's cache folder. Missing files are downloaded there.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images (60000, 28, 28) and (10000, 28, 28), labels (60000,) and (10000,), all uint8.

    Raises
    ------
    FileNotFoundError
        A file is missing in the folder of `path` or ``FASTGRU_DATA``.
    DataFileError
        A file is damaged or is not a file of MNIST.
    DataUnavailableError
        No folder was given, the cache folder does not contain MNIST, and no download succeeded.
    """
    return locate(path)[0]


def locate(path: str | os.PathLike[str] | None = None) -> tuple[tuple[Split, Split], str]:
    """Return the result of `load_data`, and the place where the data were found, for messages."""
    named = path if path is not None else os.environ.get(DATA_VARIABLE) or None
    if named is not None:
        source = os.fspath(named) if path is not None else f"{os.fspath(named)} ({DATA_VARIABLE})"
        return _read_folder(Path(named)), source
    cache = cache_folder()
    if not all(_find(cache, file) for file in FILES):
        _download(cache)
    return _read_folder(cache), os.fspath(cache)


def cache_folder() -> Path:
    """Return the folder of downloaded files."""
    from platformdirs import user_cache_path

    return user_cache_path("fastgru") / "mnist"


def _find(folder: Path, file: _File) -> Path | None:
    for name in (file.name, f"{file.name}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def _read_folder(folder: Path) -> tuple[Split, Split]:
    arrays = []
    for file in FILES:
        found = _find(folder, file)
        if found is None:
            raise FileNotFoundError(f"{folder}: expected {file.name} or {file.name}.gz in this folder, found neither")
        arrays.append(idx.parse(os.fspath(found), _verified(os.fspath(found), found.read_bytes(), file)))
    x_train, y_train, x_test, y_test = arrays
    return (x_train, y_train), (x_test, y_test)


def _verified(name: str, data: bytes, file: _File) -> bytes:
    """Return the decompressed bytes. Raises if they are not those of the original file."""
    if name.endswith(".gz"):
        data = idx.gunzip(name, data, file.size)
    if len(data) != file.size:
        raise DataFileError(f"{name}: expected {file.size} bytes after decompression, got {len(data)}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataFileError(f"{name}: its contents are not those of MNIST's {file.name} (SHA-256 differs)")
    return data


def _download(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataUnavailableError(f"the cache folder for MNIST cannot be created: {error}") from None
    for file in FILES:
        if _find(folder, file):
            continue
        failures = []
        for mirror in MIRRORS:
            url = f"{mirror}{file.name}.gz"
            try:
                data = _fetch(url, file)
                _verified(url, data, file)
                write_atomically(folder / f"{file.name}.gz", data)
                break
            except (OSError, DataFileError) as error:  # URLError and time-outs are OSErrors
                failures.append(str(error))
        else:
            causes = "; ".join(dict.fromkeys(failures))
            raise DataUnavailableError(
                f"MNIST is not in {folder}, and the download failed from all {len(MIRRORS)} mirrors: {causes}"
            )


def _fetch(url: str, file: _File) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen

    from tqdm import tqdm

    # A gzip file is hardly larger than its contents, so a longer response is another file.
    most = file.size + 65_536
    data = bytearray()
    try:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            with tqdm(total=total or None, unit="B", unit_scale=True, desc=file.name, disable=None) as bar:
                while part := answer.read(1 << 16):
                    data += part
                    bar.update(len(part))
                    if len(data) > most:
                        raise DataFileError(f"{url}: expected at most {most} bytes, got more")
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
    return bytes(data)
