"""The HDF5 reader returns the same as h5py, and terminates quickly for any bytes."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import shutil
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from fastgru import ModelFileError, Sequential, layers, load_model
from fastgru.formats.hdf5 import Reader, UnreadableError, indexes, storage, to_bytes
from fastgru.formats.hdf5.storage import SIGNATURE, Storage, lookup3

pytestmark = pytest.mark.isa_independent

h5py = pytest.importorskip("h5py", reason="needs h5py: pip install h5py")

#: Time limit for a small file; the machine may be busy.
SECONDS = 1.0
LOAD = """
import sys
import fastgru
from fastgru import Sequential, layers
path, compile = sys.argv[1], sys.argv[2] == "compile"
try:
    if path.endswith(".weights.h5"):
        Sequential([layers.GRU(3, input_shape=(None, 2)), layers.Dense(2)]).load_weights(path)
    else:
        fastgru.load_model(path, compile=compile)
except fastgru.ModelFileError as error:
    print(error)
"""


def compiled():
    model = Sequential([layers.GRU(3, input_shape=(None, 2)), layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


# --- Valid files --------------------------------------------------------------------------------------------------


def array(number):
    dtype = ("<f4", "<f8", ">f4", "<f2", "<i8", "|u1", ">i2")[number % 7]
    return (np.arange(number % 5 * 3).reshape(-1, 3) * 7 - 5 * (number % 2)).astype(dtype)


@pytest.mark.parametrize("members", [0, 1, 9, 200])
@pytest.mark.parametrize("track_order", [False, True], ids=["", "in order"])
@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
def test_files_of_every_version_read_as_with_h5py(libver, track_order, members):
    """Few members are stored in messages, many in heaps with B-trees; older files have symbol tables."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver, track_order=track_order) as file:
        group = file.create_group("group", track_order=track_order)
        for number in range(members):
            group.create_dataset(f"{'inner/' * (number % 3)}array {number}", data=array(number))
            group.attrs[f"texts {number}"] = ["a", "bc" * number, "größe"]
            file.attrs[f"text {number}"] = "ü" * number
            file.attrs[f"fixed {number}"] = np.array([b"ab", b"c" * (number % 90 + 1)])
        file.attrs["long"] = "[" * 300_000
        file.attrs["number"] = 3.0
        file.attrs["none"] = h5py.Empty("S1")
    data = buffer.getvalue()
    reader = Reader(data)
    with h5py.File(io.BytesIO(data)) as file:
        assert reader.members("") == sorted(file)
        assert reader.members("group") == sorted(file["group"])
        assert reader.members("group/inner") == sorted(file["group"].get("inner", ()))
    for number in range(members):
        found = reader.array(f"group/{'inner/' * (number % 3)}array {number}")
        assert found.dtype == array(number).dtype
        np.testing.assert_array_equal(found, array(number), strict=True)
        assert reader.texts("group", f"texts {number}", 3) == ["a", "bc" * number, "größe"]
        assert reader.text("", f"text {number}") == "ü" * number
        assert reader.texts("", f"fixed {number}", 2) == ["ab", "c" * (number % 90 + 1)]
    assert reader.text("", "long") == "[" * 300_000
    assert reader.text("", "none") is None
    assert reader.text("", "missing") is None
    assert reader.text("missing", "missing") is None
    with pytest.raises(UnreadableError, match="expected text as number, got float64"):
        reader.text("", "number")


def test_b_trees_of_several_levels():
    for libver in ("earliest", "latest"):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", libver=libver) as file:
            target = file.create_dataset("target", data=np.arange(3.0))
            group = file.create_group("group")
            for number in range(4000):
                group[f"some name {number}"] = target
        reader = Reader(buffer.getvalue())
        assert reader.members("group") == sorted(f"some name {number}" for number in range(4000))
        np.testing.assert_array_equal(reader.array("group/some name 3999"), np.arange(3.0))


def test_written_files_can_be_read():
    arrays = {f"layers/gru_{number}/cell/vars/{weight}": array(number) for number in range(40) for weight in range(3)}
    attributes = {"": {"config": "x" * 100_000, "names": [f"layer {number}" for number in range(40)]}}
    reader = Reader(to_bytes(arrays, attributes))
    for path, expected in arrays.items():
        np.testing.assert_array_equal(reader.array(path), expected, strict=True)
    assert reader.text("", "config") == "x" * 100_000
    assert reader.texts("", "names", 40) == attributes[""]["names"]


def test_the_checksum_is_jenkins_lookup3():
    """The values of the author's lookup3.c, with a seed of 0."""
    assert lookup3(memoryview(b"")) == 0xDEADBEEF
    assert lookup3(memoryview(b"Four score and seven years ago")) == 0x17770551


def test_a_flipped_bit_in_a_checked_header_is_found():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        file.attrs["name"] = "value"
        for number in range(20):
            file[f"array {number}"] = np.arange(3.0)
    data = bytearray(buffer.getvalue())
    data[data.index(b"OHDR") + 20] ^= 1
    with pytest.raises(UnreadableError, match="the checksum of an object's header does not match"):
        Reader(bytes(data)).members("")


def test_a_text_with_many_references_is_read_once():
    """A million characters with ten thousand references would expand to ten gigabytes."""
    text = "x" * 1_000_000
    data = bytearray(to_bytes({}, {}))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["texts"] = [text] + ["y"] * 3000
    data = bytearray(buffer.getvalue())
    reference = len(text).to_bytes(4, "little")
    place = next(
        place
        for place in range(len(data))
        if data[place : place + 4] == reference and data[place + 12 : place + 16] == b"\1\0\0\0"
    )
    for number in range(1, 3001):
        data[place + 16 * number : place + 16 * (number + 1)] = data[place : place + 16]
    found = Reader(bytes(data)).texts("", "texts", 3001)
    assert len(found) == 3001
    assert len(set(map(id, found))) == 1


# --- Damaged files ------------------------------------------------------------------------------------------------


def in_file(path, data):
    """Store HDF5 bytes as an .h5 file, or inside an existing .keras file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, data if name == "model.weights.h5" else content)
    else:
        path.write_bytes(data)


def heap_of_zeros(data):
    """The first object of a global heap collection has a header of zeros, so that a search cannot pass it."""
    place = data.index(b"GCOL") + 16
    return data[:place] + bytes(16) + data[place + 16 :]


@pytest.mark.parametrize("how", ["compile", "without"])
@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model.weights.h5"])
def test_zeros_in_the_global_heap_raise_one_error_quickly(name, how, tmp_path):
    """The HDF5 library has an endless loop in C, so the test runs in its own process."""
    path = tmp_path / name
    if name.endswith(".weights.h5"):
        compiled().save_weights(path)
    else:
        compiled().save(path)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:  # weights of Keras 3 have no texts; those of others may have
        file.attrs["layer_names"] = ["gru", "dense"]
        file.create_group("model_weights").attrs["layer_names"] = ["gru", "dense"]
    in_file(path, heap_of_zeros(path.read_bytes() if name == "model.h5" else buffer.getvalue()))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path, how], timeout=30, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert str(path) in done.stdout
    if name != "model.keras":  # in which the text is not asked for
        assert "a text is missing in the global heap" in done.stdout


def everything(reader, names):
    """Read everything that may be in a file, with any result."""
    waiting = [""]
    for _ in range(100):
        if not waiting:
            break
        path = waiting.pop()
        acts = [
            lambda path=path: waiting.extend(f"{path}/{name}" for name in reader.members(path)),
            lambda path=path: reader.array(path),
            *(lambda path=path, name=name: reader.texts(path, name, 9) for name in names),
        ]
        for act in acts:
            with contextlib.suppress(UnreadableError):
                act()


def soon(data):
    begin = time.process_time()
    with contextlib.suppress(UnreadableError):
        everything(Reader(data), ["model_config", "names"])
    assert time.process_time() - begin < SECONDS


@pytest.fixture(scope="module", params=["earliest", "v108", "latest"])
def small(request):
    """Return a small file with all structures of its version."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=request.param, track_order=request.param == "latest") as file:
        file.attrs["model_config"] = "{}" * 300
        for number in range(12):
            file.attrs[f"names {number}" if number else "names"] = ["a", "bc"]
            file[f"group/{number}"] = np.arange(3.0, dtype=np.float32)
    return buffer.getvalue()


@pytest.mark.slow
def test_any_references_between_structures_terminate(small):
    """Replace every address in the file by every other: cycles, overlaps, structures of a wrong type."""
    signatures = (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF")
    targets = {place for place in range(len(small)) if small[place : place + 4] in signatures} | {0, 96, 8}
    places = [
        place
        for place in range(len(small) - 7)
        if int.from_bytes(small[place : place + 8], "little") in targets - {0, 8}
    ]
    pairs = list(itertools.product(places, sorted(targets)))
    assert len(pairs) > 100
    for place, target in random.Random(0).sample(pairs, min(len(pairs), 250)):
        soon(small[:place] + target.to_bytes(8, "little") + small[place + 8 :])


def mutated(draw, data):
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place, size = draw.randrange(len(content)), draw.choice((1, 2, 4, 8, 16, 64))
        match draw.randrange(6):
            case 0:
                content[place] ^= 1 << draw.randrange(8)
            case 1:
                content[place : place + size] = bytes(len(content[place : place + size]))
            case 2:
                content[place : place + size] = b"\xff" * len(content[place : place + size])
            case 3:
                other = draw.randrange(len(content))
                content[place : place + size] = content[other : other + size]
            case 4:
                place -= place % 8
                content[place : place + 8] = draw.choice((0, 1, 96, 2**31, 2**63, len(content))).to_bytes(8, "little")
            case 5:
                del content[max(place, 100) :]
    return bytes(content)


@pytest.mark.slow
def test_any_damage_raises_at_most_one_error(small):
    draw = random.Random(1)
    for _ in range(300):
        soon(mutated(draw, small))


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model.weights.h5"])
def test_damaged_models_raise_one_error_quickly_and_change_no_model(name, tmp_path):
    model, draw = compiled(), random.Random(2)
    path = tmp_path / name
    weights = name.endswith(".weights.h5")
    model.save_weights(path) if weights else model.save(path)
    original = path.read_bytes()
    backup, refused = shutil.copy(path, tmp_path / "backup"), 0
    for _ in range(100):
        if path.suffix == ".keras":
            shutil.copy(backup, path)
            with zipfile.ZipFile(path) as archive:
                in_file(path, mutated(draw, archive.read("model.weights.h5")))
        else:
            path.write_bytes(mutated(draw, original))
        before, begin, message = model.parameters.tobytes(), time.process_time(), None
        try:
            model.load_weights(path) if weights else load_model(path)
        except ModelFileError as error:
            message = str(error)
        assert time.process_time() - begin < SECONDS
        assert message is None or (message.startswith(str(path)) and model.parameters.tobytes() == before)
        refused += message is not None
    assert refused > 10


# --- Work limits --------------------------------------------------------------------------------------------------


def old_file(*members, free=0):
    """Return a file of the oldest version: a root group with members at given offsets, and free-space objects."""
    object_size = 16 + 8 * free
    names = b"ab" * 50_000 + b"\0"
    table = 136 + 32 + len(names)
    objects = table + 8 + 40 * len(members)
    superblock = SIGNATURE + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    end = objects + 40 + object_size * len(members)
    superblock += struct.pack("<4Q", 0, 2**64 - 1, end, 2**64 - 1) + struct.pack("<QQ24x", 0, 96)
    root = struct.pack("<BBHII4x", 1, 0, 1, 1, 24) + struct.pack("<HHB3xQQ", 0x11, 16, 0, objects, 136)
    heap = b"HEAP" + bytes(4) + struct.pack("<QQQ", len(names), 0, 168)
    entries = b"".join(struct.pack("<QQ24x", begin, objects + 48 + object_size * n) for n, begin in enumerate(members))
    tree = b"TREE\0\0" + struct.pack("<H16xQQQ", 1, 0, table, 0)
    header = struct.pack("<BBHII4x", 1, 0, min(free, 65535), 1, 8 * free) + bytes(8 * free)
    found = superblock + root + heap + names + b"SNOD\1\0" + struct.pack("<H", len(members)) + entries + tree
    return found + header * len(members)


def test_a_header_has_at_most_its_number_of_messages(monkeypatch):
    works = []
    monkeypatch.setattr(Storage, "spend", lambda self, what, work: works.append(work))
    reader = Reader(old_file(99_990, free=4_000_000))
    with pytest.raises(UnreadableError, match="expected 65535 messages"):
        reader.has("ababababab")
    assert len(works) <= 65536 + 10


@pytest.mark.slow
def test_all_headers_of_a_file_share_one_work_limit(monkeypatch):
    """Each is within the limit, their sum is not."""
    places = range(99_700, 99_800)
    data = old_file(*places, free=60_000)
    reader, messages = Reader(data), itertools.count()
    spend = Storage.spend

    def counted(self, what, work):
        next(messages)
        spend(self, what, work)

    monkeypatch.setattr(Storage, "spend", counted)
    with pytest.raises(UnreadableError, match="take more work than those of a model"):
        all(reader.has(("ab" * 50_000)[place:]) for place in places)
    assert 2**20 < next(messages) < 2**20 + len(data) // 32 + 10


def test_only_a_small_part_of_a_file_is_hashed(monkeypatch):
    hashed = []
    monkeypatch.setattr(storage, "lookup3", lambda data: hashed.append(len(data)) or lookup3(data))
    size = 2**25
    superblock = SIGNATURE + bytes([2, 8, 8, 0]) + struct.pack("<4Q", 0, 2**64 - 1, 62 + size, 48)
    superblock += struct.pack("<I", lookup3(memoryview(superblock)))
    reader = Reader(superblock + b"OHDR\2\2" + struct.pack("<I", size) + bytes(size + 4))
    with pytest.raises(UnreadableError, match="take more work than those of a model"):
        reader.members("")
    assert sum(hashed) < size // 4


def test_names_that_overlap_take_no_more_memory_than_the_file():
    with pytest.raises(UnreadableError, match="names of members of a group overlap"):
        Reader(old_file(*range(1000))).members("")


def test_objects_of_a_heap_that_overlap_are_refused():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        for number in range(50):
            file.create_group(f"member {number}")
    data = buffer.getvalue()
    heap = indexes.FractalHeap(Storage(data), data.index(b"FRHP"))
    with pytest.raises(UnreadableError, match="overlap"):
        [heap.message(memoryview(b"\0" + struct.pack("<IH", 30, 100))) for _ in data]


def test_texts_that_overlap_are_refused():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["text"] = "x" * 1000
    data = buffer.getvalue()
    found = Storage(data)
    with pytest.raises(UnreadableError, match="texts in the global heap overlap"):
        [found.text(struct.pack("<IQI", size, data.index(b"GCOL"), 1)) for size in range(1000, 0, -1)]
