"""Damages files for the fuzzer: bytes, JSON trees, zip archives, safetensors, HDF5, protobuf, pickles, PNG and NPY.

Each function takes a `random.Random` and returns new bytes. Functions for a format repair its lengths and checksums, so
that the damage reaches the code behind these checks.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

#: Integers that provoke errors in sizes, signs and products.
INTEGERS = (
    0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32,
    2**40, 2**61, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64,
)  # fmt: skip
_TEXTS = (
    "", "x", "gru", "GRU", "dense", "Dense", "tanh", "softmax", "float32", "float64", "int8", "\0", "../x", "/", "é",
    "\ud800", "x" * 300, "{}", "null", "1",
)  # fmt: skip
_FLOATS = (0.0, -0.0, 0.5, -1.0, 1e-320, 1e38, 1e39, 1e308, float("inf"), float("-inf"), float("nan"))


# --- Bytes ----------------------------------------------------------------------------------------------------------


def edited(random: Random, data: bytes, other: bytes = b"", places: Sequence[int] = ()) -> bytes:
    """Return the bytes after one to four random edits, at one of `places` if given; may insert parts of `other`."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        place = random.choice(places) if places else random.randrange(len(data) + 1)
        _edit(random, content, other or data, min(place, max(len(content) - 1, 0)))
    return bytes(content)


def _edit(random: Random, data: bytearray, other: bytes, place: int) -> None:
    size = len(data)
    length = min(random.choice((1, 2, 4, 8, 16, 16, 32, 64, 256)), size - place)
    match random.randrange(14):
        case 0 | 1 if size:
            data[place] ^= 1 << random.randrange(8)
        case 2 if size:
            data[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        case 3 | 4 | 5:
            _replace_integer(random, data, place)
        case 6 | 7:  # HDF5's structures start at multiples of eight
            place -= place % 8 if random.random() < 0.7 else 0
            data[place : place + length] = bytes([random.choice((0, 0, 0, 0xFF))]) * length
        case 8:
            del data[place:]
        case 9:
            del data[place : place + length]
        case 10:
            data[place:place] = data[place : place + length] * random.choice((1, 1, 2, 20))
        case 11:
            piece = data[place : place + length]
            del data[place : place + length]
            there = random.randrange(len(data) + 1)
            data[there:there] = piece
        case 12:
            begin = random.randrange(len(other)) if other else 0
            data[place : place + length] = other[begin : begin + length]
        case _:
            data[place:place] = random.randbytes(random.choice((1, 2, 4, 8, 64)))


def _replace_integer(random: Random, data: bytearray, place: int) -> None:
    width = random.choice((1, 2, 4, 4, 8, 8))
    if random.random() < 0.7:
        place -= place % width
    order = random.choice(("little", "little", "little", "big"))
    former = int.from_bytes(data[place : place + width], order)
    value = random.choice((*INTEGERS, former + 1, former - 1, former * 2, former + 8, len(data), len(data) - place))
    data[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, order)


# --- Trees of JSON --------------------------------------------------------------------------------------------------


def edited_tree(random: Random, tree: Any) -> Any:
    """Return the tree, changed in place by one to three edits of its structure."""
    box = [tree]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(RecursionError):  # an earlier edit may have made the tree deep
            _edit_tree(random, box)
    return box[0]


def edited_json(random: Random, text: bytes | str) -> bytes:
    """Return JSON after edits of its structure, of the text of numbers, or of its bytes."""
    if random.random() < 0.1:
        return edited(random, text.encode() if isinstance(text, str) else text)
    found = dumped(edited_tree(random, json.loads(text)))
    if random.random() < 0.02:  # nested deeper than any reader supports
        found = found.replace(b"1", b"[" * random.choice((2_000, 200_000)), 1)
    return found


def dumped(tree: Any) -> bytes:
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return all (container, key) pairs of a tree."""
    found, left = [], [tree]
    while left:
        here = left.pop()
        items = list(here.items()) if isinstance(here, dict) else list(enumerate(here))
        for key, value in items:
            found.append((here, key))
            if isinstance(value, (dict, list)):
                left.append(value)
    return found


def _edit_tree(random: Random, box: list[Any]) -> None:
    places = _places(box)
    container, key = random.choice(places)
    value = container[key]
    match random.randrange(10):
        case 0 | 1 | 2:
            container[key] = odd(random, value)
        case 3 if container is not box:
            del container[key]
        case 4:
            there, other = random.choice(places)
            container[key] = copy.deepcopy(there[other])
        case 5 if isinstance(container, list) and container is not box:
            container.insert(key, copy.deepcopy(value))
        case 5 if isinstance(container, dict):
            container[random.choice((key + "_", "class_name", "config", "name", *_TEXTS))] = value
        case 6 if isinstance(container, dict):
            container[random.choice(_TEXTS)] = container.pop(key)
        case 7:
            container[key] = random.choice(([value], {"x": value}, [value, value], str(value)))
        case 8 if isinstance(value, list):
            random.shuffle(value)
        case 9:
            for _ in range(random.choice((10, 100, 200))):  # json.dumps supports a depth of about 1,000
                container[key] = [container[key]]
        case _:
            container[key] = odd(random, value)


def odd(random: Random, value: Any) -> Any:
    """Return an unusual value of the same type, or a value of another type."""
    if isinstance(value, bool) and random.random() < 0.7:
        return not value
    if isinstance(value, (int, float)) and random.random() < 0.7:
        near = () if isinstance(value, float) else (value + 1, value - 1, -value, value * 2, float(value))
        return random.choice((*near, *INTEGERS, *_FLOATS, 2**70))
    if isinstance(value, str) and random.random() < 0.5:
        return random.choice((*_TEXTS, value + "x", value[:-1], value.upper(), value * 2))
    return random.choice((None, True, False, 0, 1, -1, 2**63, 0.5, "", "x", [], {}, [[]], {"": None}, [0], [None]))


# --- Zip archives ---------------------------------------------------------------------------------------------------


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive with valid checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def edited_zip(random: Random, data: bytes, edit: Callable[[Random, str, bytes], bytes]) -> bytes:
    """Return an archive with valid checksums, with one member changed by `edit` (random, name, content)."""
    members = unzipped(data)
    name = random.choice(list(members))
    match random.randrange(12):
        case 0:
            del members[name]
        case 1:
            names = (name + "x", name.upper(), "../" + name, "", "gru", random.choice(list(members)))
            members[random.choice(names)] = members.pop(name)
        case 2:
            members[name] = random.choice((b"", members[random.choice(list(members))]))
        case _:
            members[name] = edit(random, name, members[name])
    return zipped(members, random.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,)))


# --- Safetensors ----------------------------------------------------------------------------------------------------

#: Safetensors' type names -> NumPy's.
_DTYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1",
    "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "|b1",
}  # fmt: skip


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def joined_safetensors(header: Any, body: bytes) -> bytes:
    text = dumped(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def with_checksum(header: dict[str, Any], body: bytes) -> bytes:
    """Return a file of the package with a valid checksum, if one can be computed."""
    try:
        digest = hashlib.sha256(header["__metadata__"]["config"].encode())
        for name in sorted(header.keys() - {"__metadata__"}):
            begin, end = header[name]["data_offsets"]
            shape = tuple(header[name]["shape"])
            digest.update(f"\n{name} {_DTYPES[header[name]['dtype']]} {shape}\n".encode())
            digest.update(body[begin:end])
        header["__metadata__"]["sha256"] = digest.hexdigest()
    except (KeyError, TypeError, AttributeError, ValueError):
        pass  # the reader already rejects the header
    return joined_safetensors(header, body)


def edited_safetensors(random: Random, data: bytes, metadata: str) -> bytes:
    """Return the file with a changed header, changed JSON in that entry of the metadata, or changed tensors."""
    header, body = split_safetensors(data)
    described = header.get("__metadata__", {})
    match random.randrange(8):
        case 0:
            body = edited(random, body)
        case 1:
            header = edited_tree(random, header)
        case 2:
            name = random.choice([name for name in header if name != "__metadata__"])
            header[name] = edited_tree(random, header[name])
        case 3:
            _rename(random, header)
        case _ if metadata in described:
            described[metadata] = edited_json(random, described[metadata]).decode("utf-8", "replace")
        case _:
            header = edited_tree(random, header)
    return with_checksum(header, body) if metadata == "config" else joined_safetensors(header, body)


def _rename(random: Random, header: dict[str, Any]) -> None:
    names = [name for name in header if name != "__metadata__"]
    one, two = random.choice(names), random.choice(names)
    if random.random() < 0.5:
        header[one], header[two] = header[two], header[one]
    else:
        others = (one + "x", "x/" + one, one.replace("0", "1"), one.rpartition("/")[0], "")
        header[random.choice(others)] = header.pop(one)


# --- HDF5 -----------------------------------------------------------------------------------------------------------


def hdf5_of_free_space(random: Random, size: int) -> bytes:
    """Return a root group whose header of `size` bytes contains only free-space messages of 8 bytes."""
    superblock = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    superblock += struct.pack("<4Q", 0, 2**64 - 1, 112 + size, 2**64 - 1) + struct.pack("<QQ24x", 0, 96)
    return superblock + struct.pack("<BBHII4x", 1, 0, random.choice((1, 65535)), 1, size) + bytes(size)


def edited_hdf5(random: Random, content: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> bytes:
    """Return a file with changed arrays, attributes and links; `content` has arrays and attributes by path."""
    import h5py

    arrays, attributes = content
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        victim = random.choice([path for path, array in arrays.items() if array.ndim > 0])
        what = random.randrange(10)
        for path, array in arrays.items():
            if path != victim or what > 4:
                file.create_dataset(path, data=array)
        match what:
            case 0:
                _put_another_array(random, file, victim, arrays[victim])
            case 1:
                file.create_dataset(victim, data=arrays[victim], chunks=True, compression=random.choice((None, "gzip")))
            case 2:
                links = h5py.SoftLink(random.choice(list(arrays))), h5py.SoftLink("/x"), h5py.ExternalLink("x.h5", "/")
                file[victim] = random.choice(links)
            case 3:
                file.create_group(victim)
            case 4:
                file.create_dataset(victim, shape=(2**20, 2**20), dtype="f4")  # without stored data
            case _:
                pass
        for path, values in attributes.items():
            if path == victim and what < 5:
                continue
            here = file[path] if path in file else file.require_group(path or "/")
            for name, value in values.items():
                changed = _odd_attribute(random, value) if what > 4 and random.random() < 0.5 else value
                with contextlib.suppress(ValueError):  # the text contains NUL, which terminates HDF5's texts
                    here.attrs[name] = changed
    return buffer.getvalue()


def _put_another_array(random: Random, file: Any, path: str, array: Any) -> None:
    """Return an array of another shape or type, a number, or a text."""
    kinds = ("f8", "i4", "S3", "f2", ">f4", "u1", "?")
    other = random.choice((array[:-1], array[None], array.astype(random.choice(kinds)), 1.0, "text"))
    file.create_dataset(path, data=other)


def _odd_attribute(random: Random, value: Any) -> Any:
    if isinstance(value, str):
        return _odd_attribute(random, value.encode())
    if isinstance(value, bytes) and value[:1] == b"{" and random.random() < 0.8:
        return edited_json(random, value)
    if isinstance(value, bytes):
        return random.choice((b"", value + b"x", value.decode("latin-1"), 1, edited(random, value) + b"."))
    return random.choice((value[:-1], value[::-1], b"", 1.0, "text", [1, 2]))


# --- Protobuf -------------------------------------------------------------------------------------------------------


def edited_message(random: Random, message: Any) -> bytes:
    """Return a protobuf message with one to three changed fields at any depth."""
    for _ in range(random.choice((1, 1, 2, 3))):
        messages = [message]
        for here in messages:
            for field, value in here.ListFields():
                if field.message_type is not None:
                    messages += value if field.is_repeated else [value]
        try:
            _edit_field(random, random.choice(messages), messages)
        except (ValueError, TypeError, OverflowError):
            continue  # the field does not accept the value
    return message.SerializeToString()


def _edit_field(random: Random, message: Any, messages: list[Any]) -> None:
    present = [field for field, _ in message.ListFields()]
    fields = present if present and random.random() < 0.8 else message.DESCRIPTOR.fields
    field = random.choice(fields)
    if random.random() < 0.15:
        message.ClearField(field.name)
        return
    value = getattr(message, field.name)
    if field.is_repeated:
        if not value or random.random() < 0.3:
            if field.message_type is not None:
                alike = [other for other in messages if other.DESCRIPTOR is field.message_type]
                added = value.add()
                if alike:
                    _copy(random.choice(alike), added)
            else:
                value.append(random.choice((0, 1, -1, 2**31, "x", b"x", 0.5)))
        elif random.random() < 0.5:
            del value[random.randrange(len(value))]
        elif field.message_type is None:
            place = random.randrange(len(value))
            value[place] = _odd_scalar(random, value[place])
        else:
            _copy(random.choice(list(value)), value[random.randrange(len(value))])
    elif field.message_type is not None:
        alike = [other for other in messages if other.DESCRIPTOR is field.message_type]
        if alike:
            _copy(random.choice(alike), value)
    else:
        setattr(message, field.name, _odd_scalar(random, value))


def _copy(source: Any, target: Any) -> None:
    target.ParseFromString(source.SerializeToString())  # CopyFrom fails if one message is part of the other


def _odd_scalar(random: Random, value: Any) -> Any:
    if isinstance(value, bytes):
        return edited(random, value)
    if isinstance(value, str):
        if value[:1] == "{":
            return edited_json(random, value).decode("utf-8", "replace")
        return random.choice((*_TEXTS, value + "x", value[:-1], "Gru", "GRU", "MatMul", "Transpose", "Identity", "x"))
    if isinstance(value, float):
        return random.choice(_FLOATS)
    return random.choice((value + 1, value - 1, *INTEGERS))


# --- Pickles --------------------------------------------------------------------------------------------------------


def edited_pickle(random: Random, data: bytes) -> bytes:
    """Return a pickle with changed but complete instructions."""
    found = list(pickletools.genops(data))
    starts = [place for _, _, place in found] + [len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(starts)]
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(pieces))
        match random.randrange(7):
            case 0:
                del pieces[place]
            case 1:
                pieces.insert(place, random.choice(pieces))
            case 2:
                pieces[place] = random.choice(pieces)
            case 3:
                pieces[place] = edited(random, pieces[place])
            case _:
                _replace_argument(random, pieces)
        if not pieces:
            break
    return b"".join(pieces)


def _replace_argument(random: Random, pieces: list[bytes]) -> None:
    """Replace an integer or a name."""
    integers = [place for place, piece in enumerate(pieces) if piece[:1] in (b"K", b"M", b"J", b"\x8a")]
    names = [place for place, piece in enumerate(pieces) if piece[:1] in (b"c", b"X")]
    if integers and random.random() < 0.7:
        value = random.choice(INTEGERS)
        if -(2**31) <= value < 2**31:
            pieces[random.choice(integers)] = b"J" + struct.pack("<i", value)
        else:
            number = value.to_bytes(9, "little", signed=True)
            pieces[random.choice(integers)] = b"\x8a" + bytes([len(number)]) + number
    elif names:
        others = (
            b"cos\nsystem\n",
            b"ctorch\nLongStorage\n",
            b"ctorch\nHalfStorage\n",
            b"X\0\0\0\0",
            b"N",
            b"}",
            b"]",
            b")",
        )
        pieces[random.choice(names)] = random.choice(others)


# --- PNG and NPY ----------------------------------------------------------------------------------------------------


def edited_png(random: Random, data: bytes) -> bytes:
    """Return an image with changed chunks and valid lengths and checksums."""
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append([data[place + 4 : place + 8], data[place + 8 : place + 8 + length]])
        place += 12 + length
    chunk = random.choice(chunks)
    match random.randrange(6):
        case 0:
            chunks.insert(random.randrange(len(chunks) + 1), list(chunk))
        case 1:
            chunks.remove(chunk)
        case 2:
            chunk[0] = random.choice((b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"IHDR", b"IEND"))
        case _:
            chunk[1] = edited(random, chunk[1])
    packed = [
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in chunks
    ]
    return data[:8] + b"".join(packed)


_NPY_TYPES = ("<f8", ">f4", "|O", "|u1", "<U3", "<i8", "|V4", "<f2", "|b1", "<c8", "<M8[s]", "x")


def edited_npy(random: Random, data: bytes) -> bytes:
    """Return an array file with changed text in its header and a valid header length."""
    length = int.from_bytes(data[8:10], "little")
    text, body = data[10 : 10 + length].decode("latin-1").rstrip(), data[10 + length :]
    for _ in range(random.choice((1, 1, 2))):
        words = random.choice(
            (
                ("(", random.choice(("((", "[", "(-1, ", "(0, ", "(2**9,", f"({random.choice(INTEGERS)}, "))),
                ("<f4", random.choice(_NPY_TYPES)),
                ("False", random.choice(("True", "None", "1", "[]"))),
                ("'shape'", random.choice(("'shapes'", "b'shape'", "'descr'"))),
                (text, edited(random, text.encode()).decode("latin-1")),
            )
        )
        text = text.replace(*words)
    header = text.encode("latin-1", "replace")[:60000] + b"\n"
    version = random.choice((b"\1\0",) * 9 + (b"\2\0", b"\3\0", b"\0\0"))
    width = 2 if version == b"\1\0" else 4
    return data[:6] + version + len(header).to_bytes(width, "little") + header + body
