"""All readers of the package: sound files, how to damage them, and the errors that they may raise."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import fastgru
import numpy as np
from fastgru import ModelFileError, Sequential, callbacks, layers, load_model
from fastgru.datasets import idx
from fastgru.datasets.idx import DataFileError
from models import classifier

from campaign import mutations

#: The files of an input by name; the first one is read.
Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes
    ----------
    read : callable
        Reads the file or folder at a path.
    refusals : tuple of exception classes
        Exceptions that it may raise for a damaged file.
    bases : list of Files
        Sound files.
    damage : callable
        (random, base) -> Files, with valid checksums. The fuzzer also edits bytes without repairing checksums.
    folder : bool
        Whether it reads the folder instead of the first file.
    certain : bool
        Whether all inputs come from `damage`, without edits of bytes.
    """

    read: Callable[[Path], Any]
    refusals: tuple[type[Exception], ...]
    bases: list[Files]
    damage: Callable[[Random, Files], Files]
    folder: bool = False
    certain: bool = False

    def damaged(self, random: Random) -> Files:
        base = random.choice(self.bases)
        if self.certain or random.random() < 0.65:
            return self.damage(random, base)
        name = random.choice(list(base))
        other = random.choice(self.bases)
        return base | {name: mutations.edited(random, base[name], next(iter(other.values())))}


def get(subject: str) -> Reader:
    return _READERS[subject]()


# --- Sound files ------------------------------------------------------------------------------------------------------


def _saved(name: str, *models: Sequential, **options: Any) -> list[Files]:
    """Return the files of the saved models."""
    found = []
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            write = model.save_weights if name.endswith(".weights.h5") else model.save
            write(Path(folder) / name, **options)
            names = sorted((file.name for file in Path(folder).iterdir()), key=lambda each: each != name)
            found.append({each: (Path(folder) / each).read_bytes() for each in names})
    return found


def _simple(**options: Any) -> Sequential:
    """The smallest trained model."""
    model = classifier(2, input_shape=(3, 3), optimizer="adam", seed=0, **options)
    model.train_on_batch(np.ones((2, 3, 3), np.float32), np.array([0, 1]))
    return model


def _rich(**options: Any) -> Sequential:
    """Return a model of several types of layers, not compiled."""
    fastgru.set_seed(1)
    return Sequential(
        [
            layers.Embedding(5, 2, input_shape=(4,)),
            layers.Bidirectional(layers.GRU(2, return_sequences=True, **options)),
            layers.Dropout(0.25),
            layers.GRU(3, **options),
            layers.Dense(2, activation="tanh"),
        ]
    )


# --- Model files ------------------------------------------------------------------------------------------------------


def _model_reader(bases: list[Files], damage: Callable[[Random, Files], Files], **options: Any) -> Reader:
    return Reader(lambda path: load_model(path, **options), (ModelFileError,), bases, damage)


def _first(edit: Callable[[Random, bytes], bytes]) -> Callable[[Random, Files], Files]:
    """Damage the first file only."""

    def damage(random: Random, base: Files) -> Files:
        name = next(iter(base))
        return base | {name: edit(random, base[name])}

    return damage


def _native() -> Reader:
    bases = _saved("model.safetensors", _simple(), _simple(stateful=True, reset_after=False), _rich())
    return _model_reader(bases, _first(lambda random, data: mutations.edited_safetensors(random, data, "config")))


def _torch_safetensors() -> Reader:
    bases = _saved("model.torch.safetensors", _simple(), _rich())
    header, body = mutations.split_safetensors(bases[0]["model.torch.safetensors"])
    header.pop("__metadata__")  # PyTorch users often write files without a description
    bases.append({"model.safetensors": mutations.joined_safetensors(header, body)})
    return _model_reader(bases, _first(lambda random, data: mutations.edited_safetensors(random, data, "fastgru")))


def _pt() -> Reader:
    def edit(random: Random, name: str, content: bytes) -> bytes:
        if name.endswith(".pkl") and random.random() < 0.9:
            return mutations.edited_pickle(random, content)
        return mutations.edited_json(random, content) if name.endswith(".json") else mutations.edited(random, content)

    bases = _saved("model.pt", _simple(), _rich())
    for base in list(bases):
        members = mutations.unzipped(base["model.pt"])
        bases.append({"model.pt": mutations.zipped({n: m for n, m in members.items() if not n.endswith(".json")})})
    return _model_reader(bases, _first(lambda random, data: mutations.edited_zip(random, data, edit)))


def _legacy_pt() -> Reader:
    """Return files of PyTorch before 1.6: five pickles, followed by the storages."""
    from fastgru.formats.torch import pickles
    from fastgru.formats.torch.pickles import Call, Global, Persistent

    rng = np.random.default_rng(0)
    shapes = {"gru.weight_ih_l0": (6, 3), "gru.weight_hh_l0": (6, 2), "fc.weight": (2, 2), "fc.bias": (2,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    state_dict = {}
    for key, (name, array) in enumerate(arrays.items()):
        identity = ("storage", Global("torch", "FloatStorage"), str(key), "cpu", array.size)
        strides = tuple(stride // 4 for stride in array.strides)
        hooks = Call(Global("collections", "OrderedDict"), ())
        view = (Persistent(identity), 0, array.shape, strides, False, hooks)
        state_dict[name] = Call(Global("torch._utils", "_rebuild_tensor_v2"), view)
    keys = b"\x80\x02](" + b"".join(pickles.dump(str(key))[2:-1] for key in range(len(arrays))) + b"e."
    system = {"protocol_version": 1001, "little_endian": True}
    pickled = [pickles.dump(value) for value in (0x1950A86A20F9469CFC6C, 1001, system, state_dict)] + [keys]
    storages = [struct.pack("<q", array.size) + array.tobytes() for array in arrays.values()]

    def damage(random: Random, _: Files) -> Files:
        pieces, stored = list(pickled), list(storages)
        if random.random() < 0.8:
            place = random.choice((0, 1, 2, 3, 3, 3, 4))
            pieces[place] = mutations.edited_pickle(random, pieces[place])
        else:
            place = random.randrange(len(stored))
            stored[place] = mutations.edited(random, stored[place])
        return {"model.pt": b"".join(pieces + stored)}

    return _model_reader([{"model.pt": b"".join(pickled + storages)}], damage)


def _keras() -> Reader:
    def edit(random: Random, name: str, content: bytes) -> bytes:
        return (mutations.edited_json if name.endswith(".json") else mutations.edited)(random, content)

    bases = _saved("model.keras", _simple(), _rich())
    return _model_reader(bases, _first(lambda random, data: mutations.edited_zip(random, data, edit)))


def _hdf5_damage(bases: list[Files]) -> Callable[[Random, Files], Files]:
    """Edit bytes, which HDF5's first format does not protect by checksums, or sometimes change a sound file."""
    contents = [_hdf5_content(next(iter(base.values()))) for base in bases]
    # Most bytes of such a file are zeros that are never read, so edits are limited to the others.
    places = {
        data: [place for place in range(0, len(data), 8) if any(data[place : place + 8])]
        for data in (next(iter(base.values())) for base in bases)
    }

    def damage(random: Random, base: Files) -> Files:
        name, data = next(iter(base.items()))
        if random.random() < 0.02:
            return {name: mutations.hdf5_of_free_space(random, 2**24)}
        if random.random() < 0.2:
            return {name: mutations.edited_hdf5(random, random.choice(contents))}
        if random.random() < 0.3:
            place = random.choice(places[data])
            return {name: data[:place] + bytes(16) + data[place + 16 :]}
        return {name: mutations.edited(random, data, places=places[data])}

    return damage


def _with_texts_in_the_heap(base: Files) -> Files:
    """Return the same file with variable-length text attributes in HDF5's global heaps, as Keras writes them."""
    import h5py

    name, data = next(iter(base.items()))
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        for key, value in list(file.attrs.items()):
            if isinstance(value, bytes):
                file.attrs[key] = value.decode()
    return {name: buffer.getvalue()}


def _hdf5_content(data: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    import h5py

    arrays, attributes = {}, {}
    with h5py.File(io.BytesIO(data), "r") as file:

        def visit(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[path] = item[()]
            attributes[path] = dict(item.attrs)

        visit("", file)
        file.visititems(visit)
    return arrays, attributes


def _h5() -> Reader:
    bases = _saved("model.h5", _simple(), _rich())
    bases.append(_with_texts_in_the_heap(bases[0]))
    return _model_reader(bases, _hdf5_damage(bases))


def _weights_h5() -> Reader:
    bases = _saved("model.weights.h5", _simple()) + _saved("model.h5", _simple())
    model = _simple()
    start = model.parameters.copy()

    def read(path: Path) -> None:
        model.parameters[...] = start
        try:
            model.load_weights(path)
        except BaseException:
            assert np.array_equal(model.parameters, start), "refused, but the model has changed"
            raise

    return Reader(read, (ModelFileError,), bases, _hdf5_damage(bases))


def _tfjs() -> Reader:
    bases = _saved("model.json", _simple(reset_after=False), _rich(reset_after=False), include_optimizer=False)
    trained = _simple(reset_after=False)
    trained.compile(fastgru.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    bases += _saved("model.json", trained)

    def damage(random: Random, base: Files) -> Files:
        if random.random() < 0.85:
            return base | {"model.json": mutations.edited_json(random, base["model.json"])}
        shard = next(name for name in base if name != "model.json")
        return base | {shard: mutations.edited(random, base[shard])}

    return _model_reader(bases, damage)


def _onnx() -> Reader:
    import onnx

    bases = _saved("model.onnx", _simple(), _rich(), include_optimizer=False)
    for base in list(bases):  # other programs write files without a description
        message = onnx.ModelProto.FromString(base["model.onnx"])
        message.ClearField("metadata_props")
        bases.append({"model.onnx": message.SerializeToString()})
    return _model_reader(
        bases, _first(lambda random, data: mutations.edited_message(random, onnx.ModelProto.FromString(data)))
    )


def _rtneural() -> Reader:
    fastgru.set_seed(0)
    model = Sequential([layers.GRU(2, input_shape=(3, 2), return_sequences=True), layers.Dense(1, activation="tanh")])
    return _model_reader(_saved("model.rtneural.json", model), _first(mutations.edited_json))


class _OtherTrainingError(Exception):
    """Raised if the file is sound, but belongs to another training run."""


def _resume() -> Reader:
    """Read a training state; a damaged one must leave the model unchanged."""
    x, y = np.ones((4, 3, 3), np.float32), np.array([0, 1, 0, 1])

    def told(path: Path) -> list[callbacks.Callback]:
        return [callbacks.EarlyStopping("loss", patience=9), callbacks.ModelCheckpoint(path, save_freq=1)]

    def fit(model: Sequential, path: Path, resume: Path | None) -> None:
        model.fit(x, y, batch_size=2, epochs=1, verbose=0, callbacks=told(path), resume_from=resume)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        fit(_simple(), path, None)
        base = path.read_bytes()
    model = _simple()
    start = model.parameters.copy()

    def read(path: Path) -> None:
        model.parameters[...] = start
        try:
            fit(model, path.with_name("written.safetensors"), path)
        except ValueError as error:
            assert np.array_equal(model.parameters, start), "refused, but the model has changed"
            if str(error).startswith(("resume_from:", "callbacks:")):
                raise _OtherTrainingError from error
            raise

    def edit(random: Random, data: bytes) -> bytes:
        if random.random() < 0.4:
            return mutations.edited_safetensors(random, data, "config")
        header, body = mutations.split_safetensors(data)  # the state only
        config = json.loads(header["__metadata__"]["config"])
        config["training"] = mutations.edited_tree(random, config["training"])
        header["__metadata__"]["config"] = mutations.dumped(config).decode()
        return mutations.with_checksum(header, body)

    return Reader(read, (ModelFileError, _OtherTrainingError), [{"run.safetensors": base}], _first(edit))


# --- Data -------------------------------------------------------------------------------------------------------------


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 2)).astype(np.float32)
    return {"x": x, "y": np.array([0, 1, 1]), "lengths": np.array([4, 0, 2])}


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _npz() -> Reader:
    members = {f"{name}.npy": _npy_bytes(array) for name, array in _arrays().items()}
    tests = {f"{name}_test.npy": _npy_bytes(array[:2]) for name, array in _arrays().items()}

    def edit(random: Random, _: str, content: bytes) -> bytes:
        return (mutations.edited_npy if random.random() < 0.7 else mutations.edited)(random, content)

    bases = [{"data.npz": mutations.zipped(content)} for content in (members, members | tests)]
    damage = _first(lambda random, data: mutations.edited_zip(random, data, edit))
    return Reader(fastgru.datasets.arrays.load_data, (DataFileError,), bases, damage)


def _npy_folder() -> Reader:
    base = {f"{name}.npy": _npy_bytes(array) for name, array in _arrays().items()}

    def damage(random: Random, base: Files) -> Files:
        name = random.choice(list(base))
        return base | {name: mutations.edited_npy(random, base[name])}

    return Reader(fastgru.datasets.arrays.load_data, (DataFileError,), [base], damage, folder=True)


def _predict_npy() -> Reader:
    from fastgru.cli import images

    bases = [{"x.npy": _npy_bytes(array)} for array in (_arrays()["x"], _arrays()["x"][0])]
    return Reader(
        lambda path: images.read_samples(path, None, 2), (images.InputFileError,), bases, _first(mutations.edited_npy)
    )


def _png() -> Reader:
    from fastgru.cli import images
    from PIL import Image

    rng = np.random.default_rng(0)
    bases = []
    for mode, shape in (("L", (4, 3)), ("RGB", (4, 3, 3)), ("RGBA", (4, 3, 4)), ("1", (4, 3)), ("P", (4, 3))):
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        picture = Image.fromarray(pixels if mode not in ("1", "P") else pixels[..., :3]).convert(mode)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        bases.append({"picture.png": buffer.getvalue()})
    return Reader(
        lambda path: images.read_samples(path, None, 3), (images.InputFileError,), bases, _first(mutations.edited_png)
    )


def _idx() -> Reader:
    base = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + bytes(24)
    return Reader(
        lambda path: idx.parse(path.name, path.read_bytes()),
        (DataFileError,),
        [{"images": base}, {"images": struct.pack(">HBBI", 0, 8, 1, 5) + bytes(5)}],
        _first(mutations.edited),
    )


def _gzip() -> Reader:
    bases = [{"images.gz": gzip.compress(bytes(range(200)) * 3, mtime=0)}, {"images.gz": gzip.compress(b"", mtime=0)}]
    return Reader(
        lambda path: idx.gunzip(path.name, path.read_bytes(), 600),
        (DataFileError,),
        bases,
        _first(mutations.edited),
    )


_READERS: dict[str, Callable[[], Reader]] = {
    "native": _native,
    "resume": _resume,
    "torch.safetensors": _torch_safetensors,
    "pt": _pt,
    "legacy.pt": _legacy_pt,
    "keras": _keras,
    "h5": _h5,
    "weights.h5": _weights_h5,
    "tfjs": _tfjs,
    "onnx": _onnx,
    "rtneural": _rtneural,
    "npz": _npz,
    "npy folder": _npy_folder,
    "predict npy": _predict_npy,
    "png": _png,
    "idx": _idx,
    "gzip": _gzip,
}
