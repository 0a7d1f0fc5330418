"""Location of the layers' weights in Keras' HDF5 files: by number in Keras 3, by name in Keras 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastgru.formats.description import Array, LayerDescription
from fastgru.formats.hdf5 import Reader
from fastgru.formats.keras.dialects import KERAS_2, VERSIONS

#: Class -> groups below the layer in which Keras 3 stores its arrays.
_STORED: dict[str, tuple[str, ...]] = {
    "GRU": ("cell/",),
    "RNN": ("cell/",),
    "Dense": ("",),
    "TimeDistributed": ("layer/",),
    "Embedding": ("",),
    "Bidirectional": ("forward_layer/cell/", "backward_layer/cell/"),
}
#: The groups of a bidirectional GRU.
_MOST_WEIGHTS = 6
#: Class -> the wrapper from which such a layer may have been read, and the wrapper's name in a weights file.
_WRAPPERS = {"Dense": ("TimeDistributed", "time_distributed"), "GRU": ("RNN", "rnn")}


# --- Keras 3: by the classes and order of layers --------------------------------------------------------------------


def _places(layers: Iterable[LayerDescription], classes: Iterable[str]) -> Iterator[tuple[LayerDescription, list[str]]]:
    """Yield each layer with weights, and the groups of its arrays; layers of a class are numbered."""
    used: dict[str, int] = {}
    for layer, class_name in zip(layers, classes, strict=True):
        if class_name in _STORED:  # Keras numbers all layers of these classes, also those without weights
            number = used.get(class_name, 0)
            used[class_name] = number + 1
            name = "time_distributed" if class_name == "TimeDistributed" else class_name.lower()
            name = f"{name}_{number}" if number else name
            yield layer, [f"layers/{name}/{inner}vars" for inner in _inner_groups(layer, class_name)]


def _inner_groups(layer: LayerDescription, class_name: str) -> tuple[str, ...]:
    """Return the groups of the arrays below a layer of this class."""
    if layer.class_name == "TimeDistributed":
        inner = layer.within
        return tuple(f"layer/{group}" for group in _inner_groups(inner, inner.class_name))
    return _STORED.get(class_name, ())


def stored_weights(layers: list[LayerDescription], classes: list[str]) -> dict[str, Array]:
    """Return the arrays of all layers by path."""
    arrays: dict[str, Array] = {}
    for layer, groups in _places(layers, classes):
        for group, names in zip(groups, _weights_of(layer), strict=True):
            arrays |= {f"{group}/{number}": layer.weights[name] for number, name in enumerate(names)}
    return arrays


def load_stored(file: Reader, layers: list[LayerDescription], classes: list[str]) -> None:
    """Load each layer's weights from the groups of its class and number."""
    for layer, groups in _places(layers, classes):
        for group, names in zip(groups, _weights_of(layer), strict=True):
            if file.members(group) != sorted(str(number) for number in range(len(names))):
                raise ValueError(f"{layer.name}: expected {', '.join(names)} in {group}, got other arrays")
            for number, name in enumerate(names):
                layer.weights[name] = file.array(f"{group}/{number}")


def classes_in(file: Reader, layers: list[LayerDescription]) -> list[str]:
    """Return the classes under which a weights file stores the layers.

    A layer that was read from a wrapper has the class of the inner layer. If the file has both layers of that class and
    wrappers, their order is unknown. The class is then kept, and the remaining arrays raise in `refuse_more`.
    """
    called = {
        inner: wrapper
        for inner, (wrapper, stored) in _WRAPPERS.items()
        if file.has(f"layers/{stored}") and not file.has(f"layers/{inner.lower()}")
    }
    return [called.get(layer.class_name, layer.class_name) for layer in layers]


def refuse_more(file: Reader, layers: list[LayerDescription], classes: list[str]) -> None:
    """Raise if a file contains weights of more layers."""
    expected = {group for _, groups in _places(layers, classes) for group in groups}
    for name in file.members("layers"):
        for inner in {part for parts in _STORED.values() for part in parts}:
            group = f"layers/{name}/{inner}vars"
            if group not in expected and file.members(group):
                raise ValueError(f"expected the weights of the model's layers, got more of them in {group}")


def _weights_of(layer: LayerDescription) -> list[list[str]]:
    """Return the names of a layer's weights for each group: a Bidirectional has one group per direction."""
    names = [[f"{prefix}{name}" for name in part.weight_names] for prefix, part in layer.parts.items()]
    return [group for group in names if group]


# --- Keras 2: by the names of layers and weights ------------------------------------------------------------------


def keras_2_path(layer: LayerDescription, weight: str) -> str:
    """Return Keras 2's name of a weight."""
    direction, _, name = weight.rpartition("/")
    parts = [layer.name]
    if direction:
        parts.append(f"{direction}_{layer.name}")
    if layer.is_recurrent:
        parts.append("gru_cell")
    return "/".join([*parts, f"{name}:0"])


def named_weights(layers: list[LayerDescription], root: str) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Return the arrays of all layers by path below `root`, and the attributes that list them."""
    arrays: dict[str, Array] = {}
    attributes: dict[str, dict[str, Any]] = {
        root: {
            "layer_names": [layer.name for layer in layers],
            "backend": "tensorflow",
            "keras_version": VERSIONS[KERAS_2.name],
        }
    }
    for layer in layers:
        paths = {name: keras_2_path(layer, name) for name in layer.weight_names}
        arrays |= {f"{root}{layer.name}/{path}": layer.weights[name] for name, path in paths.items()}
        attributes[f"{root}{layer.name}"] = {"weight_names": list(paths.values())}
    return arrays, attributes


def load_named(file: Reader, layers: list[LayerDescription]) -> dict[str, str]:
    """Load each layer's weights from the group of its name; returns their paths by ``layer/weight``."""
    paths: dict[str, str] = {}
    for layer in layers:
        found = _load_group(file, f"model_weights/{layer.name}", layer)
        paths |= {f"{layer.name}/{name}": path for name, path in found.items()}
    return paths


def load_in_order(file: Reader, root: str, layers: list[LayerDescription]) -> None:
    """Load the weights in order: each layer with weights from the next group with weights."""
    names = file.texts(root, "layer_names", len(layers) + 1) or []
    groups = [f"{root}/{name}" for name in names]
    groups = [group for group in groups if file.texts(group, "weight_names", _MOST_WEIGHTS)]
    weighty = [layer for layer in layers if layer.weight_names]
    if len(groups) != len(weighty):
        raise ValueError(f"expected the weights of {len(weighty)} layers, got those of {len(groups)}")
    for group, layer in zip(groups, weighty, strict=True):
        _load_group(file, group, layer)


def _load_group(file: Reader, group: str, layer: LayerDescription) -> dict[str, str]:
    names = layer.weight_names
    paths = file.texts(group, "weight_names", _MOST_WEIGHTS) or []
    if len(paths) != len(names):
        raise ValueError(f"{layer.name}: expected {len(names)} arrays in {group}, got {len(paths)}")
    for name, path in zip(names, paths, strict=True):
        if path.split("/")[-1].removesuffix(":0") != name.split("/")[-1]:
            raise ValueError(f"{layer.name}: expected {name} in {group}, got {path!r}")
        layer.weights[name] = file.array(f"{group}/{path}")
    return dict(zip(names, paths, strict=True))
