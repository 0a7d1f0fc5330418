from __future__ import annotations

import gzip
import io
import struct
import time
import urllib.request
import zlib

import numpy as np
import pytest
from fastgru import Sequential, layers, set_seed
from fastgru.datasets import DataFileError, idx, mnist, synthetic

FILES = {file.name: file for file in mnist.FILES}


def idx_bytes(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fake_mnist(monkeypatch):
    """Replace MNIST by four tiny files and their checksums; returns name -> gzip bytes."""
    import hashlib

    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (6, 28, 28)), np.arange(6), rng.integers(0, 256, (2, 28, 28)), np.arange(2)]
    raw = {name: idx_bytes(array) for name, array in zip(FILES, arrays, strict=True)}
    table = tuple(mnist._File(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in raw.items())
    monkeypatch.setattr(mnist, "FILES", table)
    monkeypatch.delenv(mnist.DATA_VARIABLE, raising=False)
    return {name: gzip.compress(data) for name, data in raw.items()}


def write(folder, files, suffix=".gz"):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}{suffix}").write_bytes(data if suffix else gzip.decompress(data))
    return folder


@pytest.fixture
def network(monkeypatch, fake_mnist):
    """Replace the network: URL -> bytes to return or exception to raise; other URLs cannot be opened."""
    answers = {f"{mirror}{name}.gz": data for mirror in mnist.MIRRORS for name, data in fake_mnist.items()}
    asked = []

    class Answer(io.BytesIO):
        def __init__(self, data):
            super().__init__(data)
            self.headers = {"Content-Length": str(len(data))}

    def urlopen(url, timeout):
        assert timeout == mnist.TIMEOUT_SECONDS
        asked.append(url)
        if isinstance(answers[url], Exception):
            raise answers[url]
        return Answer(answers[url])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return answers, asked


@pytest.fixture
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache" / "mnist"
    monkeypatch.setattr(mnist, "cache_folder", lambda: folder)
    return folder


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_a_given_folder_is_read(tmp_path, fake_mnist, suffix):
    (x, y), (x_test, y_test) = mnist.load_data(write(tmp_path / "d", fake_mnist, suffix))
    assert (x.shape, x.dtype, y.tolist()) == ((6, 28, 28), np.uint8, [0, 1, 2, 3, 4, 5])
    assert (x_test.shape, y_test.tolist()) == ((2, 28, 28), [0, 1])


def test_the_environment_names_a_folder(tmp_path, fake_mnist, monkeypatch, network):
    monkeypatch.setenv(mnist.DATA_VARIABLE, str(write(tmp_path / "d", fake_mnist)))
    (_, source) = mnist.locate()
    assert source.endswith("(FASTGRU_DATA)")
    assert not network[1]


def test_a_download_is_verified_kept_and_not_repeated(cache, network):
    (x, _), _ = mnist.load_data()
    assert len(network[1]) == 4
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in FILES)
    (again, _), _ = mnist.load_data()
    assert len(network[1]) == 4
    np.testing.assert_array_equal(x, again)


@pytest.mark.parametrize(
    "failure",
    [OSError("unreachable"), b"<html>not found</html>", b"", gzip.compress(b"other bytes"), TimeoutError("timed out")],
    ids=["unreachable", "html", "empty", "other", "timeout"],
)
def test_the_second_mirror_is_used_if_the_first_one_fails(cache, network, failure):
    answers, asked = network
    for name in FILES:
        answers[f"{mnist.MIRRORS[0]}{name}.gz"] = failure
    mnist.load_data()
    assert len(asked) == 8


def test_failing_mirrors_raise_one_error_and_leave_no_file(cache, network):
    answers, _ = network
    for url in answers:
        answers[url] = OSError("unreachable")
    with pytest.raises(
        mnist.DataUnavailableError, match=r"the download failed from all 2 mirrors: unreachable; put the four files"
    ):
        mnist.load_data()
    assert list(cache.iterdir()) == []


def test_an_endless_download_is_aborted(cache, network):
    answers, _ = network
    for url in answers:
        answers[url] = b"\0" * (1 << 20)
    with pytest.raises(mnist.DataUnavailableError, match="expected at most"):
        mnist.load_data()


def test_a_missing_file_is_named(tmp_path, fake_mnist):
    folder = write(tmp_path / "d", fake_mnist)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected t10k-labels-idx1-ubyte or .*\.gz in this folder"):
        mnist.load_data(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "truncated gzip file"),
        (lambda data: data[:50] + b"\xff" * 20 + data[70:], "damaged gzip file"),
        (lambda data: b"", "truncated gzip file"),
        (lambda data: gzip.compress(bytes(100)), "expected 4720 bytes"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1] + b"\7"), r"SHA-256 differs"),
        (lambda data: gzip.compress(bytes(1 << 26)), "expected at most 4720 bytes after decompression"),
    ],
    ids=["truncated", "flipped", "empty", "short", "foreign", "bomb"],
)
def test_a_damaged_file_raises(tmp_path, fake_mnist, damage, message):
    fake_mnist["train-images-idx3-ubyte"] = damage(fake_mnist["train-images-idx3-ubyte"])
    with pytest.raises(DataFileError, match=message):
        mnist.load_data(write(tmp_path / "d", fake_mnist))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an IDX file"),
        (b"\0\0\x0d\1" + bytes(8), "expected an IDX file of unsigned bytes"),
        (b"\0\0\x08\3" + bytes(4), "expected a header of 16 bytes, got 8"),
        (b"\0\0\x08\1" + struct.pack(">I", 5) + bytes(4), r"expected 5 bytes .* shape is \(5,\), got 4"),
        (b"\0\0\x08\3" + struct.pack(">3I", *[2**32 - 1] * 3) + bytes(4), "expected 792281"),
        (b"\0\0\x08\4" + struct.pack(">4I", *[2**32 - 1] * 3, 0), "f: not an array"),
        (b"\0\0\x08\x50" + bytes(4 * 80), "f: not an array"),  # more axes than an array can have
    ],
)
def test_idx_files_with_wrong_headers_raise(data, message):
    with pytest.raises(DataFileError, match=message):
        idx.parse("f", data)


def test_idx_files_are_read():
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(idx.parse("f", idx_bytes(array)), array)
    assert idx.gunzip("f", gzip.compress(b"abc"), 3) == b"abc"
    assert zlib.crc32(idx.gunzip("f", gzip.compress(bytes(10**6)), 10**6)) == zlib.crc32(bytes(10**6))


def test_the_real_mnist_is_read(mnist_folder):
    (x, y), (x_test, y_test) = mnist.load_data(mnist_folder)
    assert x.shape == (60_000, 28, 28)
    assert x_test.shape == (10_000, 28, 28)
    assert np.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_synthetic_digits_are_repeatable_and_in_mnists_format():
    (x, y), (x_test, y_test) = synthetic.load_data(train=2500, test=100, seed=3)
    assert (x.shape, x.dtype) == ((2500, 28, 28), np.uint8)
    assert (y.shape, y.dtype, set(y.tolist())) == ((2500,), np.uint8, set(range(10)))
    again = synthetic.load_data(train=2500, test=100, seed=3)
    np.testing.assert_array_equal(x, again[0][0])
    np.testing.assert_array_equal(x_test, again[1][0])
    other = synthetic.load_data(train=2500, test=100, seed=4)
    assert not np.array_equal(x, other[0][0])
    assert not (x[:, None] == x_test[:50]).all(axis=(2, 3)).any()
    assert synthetic.load_data(train=0, test=0)[0][0].shape == (0, 28, 28)
    assert y_test.shape == (100,)


@pytest.mark.slow
def test_a_linear_model_stays_well_below_the_gru_on_synthetic_digits():
    (x, y), (x_test, y_test) = synthetic.load_data(train=12_000, test=2000)
    set_seed(0)
    linear = Sequential([layers.Rescaling(1 / 255, input_shape=(784,)), layers.Dense(10, activation="softmax")])
    linear.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    linear.fit(x.reshape(-1, 784), y, epochs=12, verbose=0)
    gru = Sequential(
        [layers.Rescaling(1 / 255, input_shape=(28, 28)), layers.GRU(64), layers.Dense(10, activation="softmax")]
    )
    gru.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    begin = time.perf_counter()
    gru.fit(x, y, epochs=8, verbose=0)
    linear_accuracy = linear.evaluate(x_test.reshape(-1, 784), y_test)[1]
    gru_accuracy = gru.evaluate(x_test, y_test)[1]
    print(f"linear {linear_accuracy:.3f}, GRU {gru_accuracy:.3f} in {time.perf_counter() - begin:.1f} s")
    assert linear_accuracy < 0.80
    assert gru_accuracy > 0.92
