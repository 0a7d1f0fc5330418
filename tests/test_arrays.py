"""Users' array files: valid ones are read unchanged, and all others raise one clear error."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from fastgru.datasets import DataFileError, arrays

X = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
Y = np.arange(6)
GOOD = {"x": X, "y": Y, "lengths": np.array([4, 3, 2, 1, 0, 4])}


def npy(array, **options):
    data = io.BytesIO()
    np.lib.format.write_array(data, np.asarray(array), **options)
    return data.getvalue()


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(f"{name}.npy", data)
    return path


def put(path, contents, kind):
    """Write arrays as an .npz file, stored or compressed, or as a folder."""
    if kind == "folder":
        path.mkdir()
        for name, array in contents.items():
            np.save(path / f"{name}.npy", array, allow_pickle=True)
        return path
    path = path.with_suffix(".npz")
    (np.savez if kind == "stored" else np.savez_compressed)(path, **contents)
    return path


KINDS = ("stored", "deflated", "folder")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "x",
    [X, X.astype(np.float64), (X > 0).astype(np.uint8), (X > 0), X.astype("f2"), X.astype(">f4"), np.asfortranarray(X)],
)
def test_arrays_are_read_unchanged(tmp_path, kind, x):
    path = put(tmp_path / "d", {**GOOD, "x": x, "x_test": x[:2], "y_test": Y[:2], "lengths_test": Y[:2]}, kind)
    train, test = arrays.load_data(path)
    for found, expected in [
        (train, (x, Y, GOOD["lengths"])),
        (test, (x[:2], Y[:2], Y[:2])),
        (arrays.load_inputs(path)._replace(y=Y), (x, Y, GOOD["lengths"])),
    ]:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert type(one) is np.ndarray
    assert train.x.dtype == x.dtype


def test_folders_are_memory_mapped(tmp_path):
    train, test = arrays.load_data(put(tmp_path / "d", GOOD, "folder"))
    assert isinstance(train.x.base, np.memmap)
    assert not train.x.flags.writeable
    assert test is None


def test_inputs_need_no_targets(tmp_path):
    assert arrays.load_inputs(put(tmp_path / "d", {"x": X}, "stored")).y is None


WRONG = [
    ({"y": None}, "expected an array with the name y, got 'lengths', 'x'"),
    ({"x": None}, "expected an array with the name x, got 'lengths', 'y'"),
    ({"x": X[0]}, "x: expected shape (N, T, F), sequences of T steps of F numbers, got (4, 3)"),
    ({"x": X[:0], "y": Y[:0]}, "x: expected at least one sequence, step and number, got shape (0, 4, 3)"),
    ({"x": X.astype(complex)}, "expected numbers, got complex128"),
    ({"y": Y[:5]}, "y: expected 6 targets because x has 6 sequences, got shape (5,)"),
    ({"y": np.int64(1)}, "y: expected 6 targets"),
    ({"y": np.zeros((6, 5, 2))}, "y: expected 4 steps as in x, got shape (6, 5, 2)"),
    ({"y": np.zeros((6, 4, 2, 2))}, "y: expected shape (N,), (N, C), (N, T) or (N, T, C), got (6, 4, 2, 2)"),
    ({"y": np.zeros((6, 0))}, "y: expected shape (N,), (N, C), (N, T) or (N, T, C), got (6, 0)"),
    ({"y": np.array(["a"] * 6)}, "expected numbers, got <U1"),
    ({"y": np.array([{}] * 6)}, "expected numbers, got Python objects, which are not read"),
    ({"y": np.zeros(6, [("a", object)])}, "expected numbers, got Python objects"),
    ({"lengths": np.full(6, 5)}, "lengths: expected lengths from 0 to 4 because x has 4 steps, got 5 at index 0"),
    ({"lengths": np.full(6, 2.0)}, "lengths: expected integers, got float64"),
    ({"lengths": Y[:5]}, "lengths: expected shape (6,), one for each sequence, got (5,)"),
    ({"x_test": X}, "expected an array with the name y_test"),
    ({"y_test": Y}, "expected an array with the name x_test"),
    ({"x_test": X, "y_test": Y}, "expected an array with the name lengths_test"),
    ({"x_test": X[:, :, :2], "y_test": Y, "lengths_test": Y // 2}, "x_test: expected 3 numbers per step as in x"),
    ({"x_test": X.astype("u1"), "y_test": Y, "lengths_test": Y // 2}, "x_test: expected float32 as in x, got uint8"),
    ({"x_test": X, "y_test": Y * 0.5, "lengths_test": Y // 2}, "y_test: expected int64 as in y, got float64"),
    ({"x_test": X, "y_test": np.zeros((6, 4), int), "lengths_test": Y // 2}, "y_test: expected 1 axes as in y"),
]


@pytest.mark.parametrize("kind", ["stored", "folder"])
@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_arrays_that_do_not_fit_are_named(tmp_path, kind, change, message):
    contents = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    path = put(tmp_path / "d", contents, kind)
    with pytest.raises(DataFileError) as caught:
        arrays.load_data(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def refuse(path, message):
    with pytest.raises(DataFileError) as caught:
        arrays.load_data(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def header(shape, descr="<f4", version=1):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (header((10**6, 10**6, 10**6)), "damaged: expected 4,000,000,000,000,000,000 bytes"),
        (header((1 << 40, 1, 1)) + bytes(100), "got 100"),
        (header((1, 2, 3)) + bytes(20), "damaged: expected 24 bytes for float32 of shape (1, 2, 3), got 20"),
        (header((1, 2, 3)) + bytes(28), "damaged: expected 24 bytes for float32 of shape (1, 2, 3), got 28"),
        (header((-1, -2, 3)) + bytes(24), "damaged"),
        (header((1, 2, 3), version=3) + bytes(24), "expected version 1.0 or 2.0 of NumPy's format, got (3, 0)"),
        (header((1, 2, 3), descr="|O") + b"cos\nsystem\n(S'false'\ntR.", "expected numbers, got Python objects"),
        (header("abc"), "not an array of numbers, or damaged"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not an array of numbers, or damaged"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': (      \n", "not an array of numbers, or damaged"),
        (b"", "not an array of numbers, or damaged"),
        (b"hello", "not an array of numbers, or damaged"),
    ],
)
def test_headers_are_checked_against_the_file_size_before_allocation(tmp_path, x, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.npy").write_bytes(x)
    (folder / "y.npy").write_bytes(npy(Y))
    tracemalloc.start()
    refuse(archive(tmp_path / "d.npz", [("x", x), ("y", npy(Y))]), message)
    with pytest.raises(DataFileError) as caught:
        arrays.load_data(folder)
    assert message in str(caught.value)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000


def test_a_second_header_version_is_read(tmp_path):
    path = archive(tmp_path / "d.npz", [("x", npy(X, version=(2, 0))), ("y", npy(Y))])
    np.testing.assert_array_equal(arrays.load_data(path)[0].x, X)


def test_archives_that_expand_too_far_are_refused(tmp_path, monkeypatch):
    zeros = np.zeros((100, 1000, 10), np.float32)
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=zeros, y=np.arange(100))
    assert path.stat().st_size * 100 < zeros.nbytes
    arrays.load_data(path)  # 4 MB are within the limit
    monkeypatch.setattr(arrays, "_ALWAYS_ALLOWED", 1 << 20)
    refuse(path, "would expand to 4,001,")
    np.savez(path, x=zeros, y=np.arange(100))
    arrays.load_data(path)


def test_files_that_are_not_archives(tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"PK\x03\x04 and no more")
    refuse(path, "not an .npz file")
    path.write_bytes(npy(X))
    refuse(path, "not an .npz file")
    refuse(archive(path, [("x", npy(X)), ("y", npy(Y))], zipfile.ZIP_BZIP2), "x.npy: expected a file of numpy.savez")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, [("x", npy(X)), ("y", npy(Y)), ("x", npy(X))])
    refuse(path, "damaged: it contains two arrays with the name x")
    np.savez(path, X, Y)
    refuse(path, "expected an array with the name x, got 'arr_0', 'arr_1'")
    np.savez(path, **{f"\x1b[31m{i}": Y for i in range(20)})
    refuse(path, r"got '\x1b[31m0', ")

    archive(path, [("x", npy(X)), ("y", npy(Y))])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the encryption flag in the directory
    path.write_bytes(data)
    refuse(path, "x.npy: expected a file of numpy.savez, got an encrypted file")


def test_other_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        arrays.load_data(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError):
        arrays.load_data(tmp_path / "none")
    (tmp_path / "x.npy").write_bytes(npy(X))
    refuse(tmp_path / "x.npy", "expected an .npz file, or a folder with x.npy and others")
    os.mkfifo(tmp_path / "pipe.npz")  # opening it would block until there is a writer
    refuse(tmp_path / "pipe.npz", "expected a regular file, got another kind of file")
    os.mkfifo(tmp_path / "y.npy")
    refuse(tmp_path, "expected an array with the name y, got 'x'")


@pytest.mark.parametrize("compress", [False, True])
def test_any_flipped_byte_is_found_or_harmless(tmp_path, compress):
    """Damage raises a DataFileError, or changes no number."""
    path = put(tmp_path / "d", GOOD, "deflated" if compress else "stored")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        damaged = bytearray(data)
        place = rng.integers(len(data))
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged if rng.random() < 0.8 else damaged[:place])
        try:
            train, _ = arrays.load_data(path)
        except DataFileError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(train.x, X)
            np.testing.assert_array_equal(train.y, Y)
    assert len(refused) > 100
    assert all(message.startswith(f"{path}: ") for message in refused)
