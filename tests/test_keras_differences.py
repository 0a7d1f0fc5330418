"""Every public callable that has a counterpart in Keras 3: its parameters, defaults and return types.

The deliberate differences are the rows of docs/keras-differences.md, which is compared with what introspection finds: a
difference without a row fails, and so does a row without a difference.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastgru
import keras_api
import numpy as np
import pytest
from keras_api import Difference

HEADING = "## Parameters, defaults and return types"
PAGE = Path(__file__).parent.parent / "docs" / "keras-differences.md"

pytestmark = pytest.mark.peers("keras", "tensorflow")


class Row(NamedTuple):
    """A row of the page. Its first cell has one or more patterns of places in code marks."""

    places: tuple[str, ...]
    keras: str
    fastgru: str

    def shows(self, difference: Difference) -> bool:
        """Whether the row names this difference, with what either package has."""
        values = difference.keras, difference.fastgru
        return any(fnmatch.fnmatchcase(difference.place, place) for place in self.places) and all(
            cell in ("any", value) for cell, value in zip((self.keras, self.fastgru), values, strict=True)
        )


def rows() -> list[Row]:
    """The rows of the second table of the page: name, Keras 3, fastgru, reason."""
    found = []
    for line in PAGE.read_text().partition(HEADING)[2].splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0].startswith("`"):
            names, theirs, ours, reason = cells
            assert reason, f"no reason: {line}"
            found.append(Row(tuple(_expand(names)), theirs.strip("`"), ours.strip("`")))
    return found


def _expand(names: str) -> Iterator[str]:
    """The places of a cell: ```layers.*(a, b)``` is two."""
    for place, parameters in re.findall(r"`([\w.*]+)\(([\w*, ]*)\)`", names):
        for parameter in parameters.split(","):
            yield f"{place}({parameter.strip()})".replace("[", "[[]")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within Keras
@pytest.mark.filterwarnings("ignore::UserWarning:keras")
def test_the_table_of_differences_is_complete_and_has_no_stale_row(keras, tmp_path):
    found = [difference for pair in keras_api.pairs(keras) for difference in keras_api.differences_of(pair)]
    found += return_types(keras, tmp_path)
    table = rows()
    missing = [" | ".join(difference) for difference in found if not any(row.shows(difference) for row in table)]
    stale = [row for row in table if not any(row.shows(difference) for difference in found)]
    assert not missing, "differences without a row:\n" + "\n".join(missing)
    assert not stale, f"rows that show no difference: {stale}"


# --- Return types ------------------------------------------------------------------------------------------------


def kind(value: Any) -> str:
    """The type of a value in words for both packages: tensors and arrays are arrays, all floating numbers floats."""
    if value is None:
        return "None"
    if isinstance(value, (bool, int, str)):
        return type(value).__name__
    if isinstance(value, (float, np.floating)):
        return "float"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {' and '.join(sorted({kind(each) for each in value}))}"
    if isinstance(value, dict):
        return "dict"
    if inspect.isroutine(value):
        return "function"
    if hasattr(value, "__array__") and type(value).__name__ != "Variable":
        return "array"
    return type(value).__name__.lstrip("_")


class Subject:
    """What the calls below need, made by one of the packages."""

    x = np.linspace(-1, 1, 8 * 4 * 3, dtype=np.float32).reshape(8, 4, 3)
    y = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1)

    def __init__(self, package: Any, folder: Path) -> None:
        self.package = package
        self.folder = folder

    def find(self, path: str) -> Any:
        return keras_api.find(self.package, path)

    def model(self, *metrics: str) -> Any:
        layers = self.package.layers
        made = self.package.Sequential([layers.Input((4, 3)), layers.GRU(2), layers.Dense(1)])
        made.compile("sgd", "mse", metrics=list(metrics) or None)
        return made

    def path(self, name: str) -> str:
        return str(self.folder / f"{self.package.__name__}-{name}")

    def saved(self, name: str) -> str:
        """A file of the model, or with ``.weights.h5`` of its weights."""
        path, model = self.path(name), self.model()
        model.save_weights(path) if ".weights." in name else model.save(path)
        return path

    def make(self, path: str) -> Any:
        """An object of a class."""
        return self.find(path)(*ARGUMENTS.get(path.rpartition(".")[2], lambda layers: ())(self.package.layers))


#: Arguments of the classes that need some.
ARGUMENTS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "Activation": lambda layers: ("relu",),
    "Bidirectional": lambda layers: (layers.GRU(2),),
    "Constant": lambda layers: (0.5,),
    "CosineDecay": lambda layers: (0.1, 10),
    "Dense": lambda layers: (2,),
    "Dropout": lambda layers: (0.1,),
    "Embedding": lambda layers: (5, 2),
    "GRU": lambda layers: (2,),
    "Permute": lambda layers: ((2, 1),),
    "RepeatVector": lambda layers: (2,),
    "Rescaling": lambda layers: (0.5,),
    "Reshape": lambda layers: ((-1,),),
    "SpatialDropout1D": lambda layers: (0.1,),
    "TimeDistributed": lambda layers: (layers.Dense(1),),
}
#: Calls of functions, and of methods of Sequential.
CALLS: dict[str, Callable[[Subject], Any]] = {
    "Input": lambda s: s.find("Input")((4, 3)),
    "Sequential.add": lambda s: s.model().add(s.find("layers").Dense(1)),
    "Sequential.build": lambda s: s.find("Sequential")([s.find("layers").GRU(2)]).build((None, 4, 3)),
    "Sequential.compile": lambda s: s.model().compile("sgd", "mse"),
    "Sequential.count_params": lambda s: s.model().count_params(),
    "Sequential.evaluate": lambda s: (
        s.model().evaluate(s.x, s.y, verbose=0),
        s.model("mae").evaluate(s.x, s.y, verbose=0),
        s.model().evaluate(s.x, s.y, verbose=0, return_dict=True),
    ),
    "Sequential.fit": lambda s: s.model().fit(s.x, s.y, verbose=0),
    "Sequential.from_config": lambda s: s.find("Sequential").from_config(s.model().get_config()),
    "Sequential.get_config": lambda s: s.model().get_config(),
    "Sequential.get_layer": lambda s: s.model().get_layer(index=1),
    "Sequential.get_weights": lambda s: s.model().get_weights(),
    "Sequential.load_weights": lambda s: s.model().load_weights(s.saved("a.weights.h5")),
    "Sequential.pop": lambda s: s.model().pop(),
    "Sequential.predict": lambda s: s.model().predict(s.x, verbose=0),
    "Sequential.predict_on_batch": lambda s: s.model().predict_on_batch(s.x),
    "Sequential.reset_metrics": lambda s: s.model().reset_metrics(),
    "Sequential.save": lambda s: s.model().save(s.path("a.keras")),
    "Sequential.save_weights": lambda s: s.model().save_weights(s.path("a.weights.h5")),
    "Sequential.set_weights": lambda s: s.model().set_weights(s.model().get_weights()),
    "Sequential.summary": lambda s: s.model().summary(),
    "Sequential.test_on_batch": lambda s: (
        s.model().test_on_batch(s.x, s.y),
        s.model("mae").test_on_batch(s.x, s.y),
        s.model().test_on_batch(s.x, s.y, return_dict=True),
    ),
    "Sequential.to_json": lambda s: s.model().to_json(),
    "Sequential.train_on_batch": lambda s: (
        s.model().train_on_batch(s.x, s.y),
        s.model("mae").train_on_batch(s.x, s.y),
        s.model().train_on_batch(s.x, s.y, return_dict=True),
    ),
    "initializers.get": lambda s: s.find("initializers").get("glorot_uniform"),
    "layers.ReLU": lambda s: s.find("layers").ReLU(),
    "layers.Softmax": lambda s: s.find("layers").Softmax(),
    "losses.get": lambda s: s.find("losses").get("mse"),
    "metrics.get": lambda s: s.find("metrics").get("mae"),
    "models.clone_model": lambda s: s.find("models").clone_model(s.model()),
    "models.load_model": lambda s: s.find("models").load_model(s.saved("b.keras")),
    "models.model_from_json": lambda s: s.find("models").model_from_json(s.model().to_json()),
    "optimizers.get": lambda s: s.find("optimizers").get("adam"),
    "regularizers.get": lambda s: s.find("regularizers").get("l2"),
    "utils.normalize": lambda s: s.find("utils").normalize(s.x),
    "utils.pad_sequences": lambda s: s.find("utils").pad_sequences([[1], [2, 3]]),
    "utils.set_random_seed": lambda s: s.find("utils").set_random_seed(0),
    "utils.split_dataset": lambda s: s.find("utils").split_dataset(s.x, 0.5),
    "utils.timeseries_dataset_from_array": lambda s: s.find("utils").timeseries_dataset_from_array(s.y, s.y, 2),
    "utils.to_categorical": lambda s: s.find("utils").to_categorical([0, 1]),
}


def input_shape(layer: Any) -> tuple[int | None, ...]:
    return (None, 4) if type(layer).__name__ in ("Embedding", "RepeatVector") else (None, 4, 3)


def built(layer: Any) -> Any:
    layer.build(input_shape(layer))
    return layer


def updated(metric: Any) -> Any:
    metric.update_state(np.array([[0.0], [1.0]], np.float32), np.array([[0.2], [0.7]], np.float32))
    return metric


#: Calls of methods of other classes, by the name of the method.
METHODS: dict[str, Callable[[Any], Any]] = {
    "build": lambda each: each.build(input_shape(each)),
    "call": lambda each: each.call(np.array([[0.0], [1.0]]), np.array([[0.2], [0.7]])),
    "count_params": lambda each: built(each).count_params(),
    "exclude_from_weight_decay": lambda each: each.exclude_from_weight_decay(var_names=["bias"]),
    "from_config": lambda each: type(each).from_config(each.get_config()),
    "get_config": lambda each: each.get_config(),
    "get_weights": lambda each: built(each).get_weights(),
    "reset_state": lambda each: each.reset_state(),
    "result": lambda each: updated(each).result(),
    "set_weights": lambda each: built(each).set_weights(each.get_weights()),
    "update_state": lambda each: each.update_state(np.zeros((2, 1)), np.zeros((2, 1))),
}
#: Callables that are not called: what fit calls, abstract classes, what needs a download or one batch size.
NOT_CALLED = (
    *("callbacks.*.on_*", "callbacks.*.set_*", "datasets.mnist.load_data"),
    *("layers.Layer.*", "losses.Loss.*", "metrics.Metric.*", "layers.*.reset_states"),
)


def returned(place: str, subject: Subject) -> str:
    """The type that a callable returns."""
    if place in CALLS:
        return kind(CALLS[place](subject))
    owner, _, method = place.rpartition(".")
    return kind(METHODS[method](subject.make(owner)))


def called(keras) -> list[str]:
    places = [pair.place for pair in keras_api.pairs(keras) if not inspect.isclass(pair.ours)]
    return [place for place in places if not any(fnmatch.fnmatchcase(place, each) for each in NOT_CALLED)]


def return_types(keras, folder: Path) -> Iterator[Difference]:
    """Where the types that Keras and fastgru return differ."""
    for place in called(keras):
        types = [returned(place, Subject(package, folder)) for package in (keras, fastgru)]
        if types[0] != types[1]:
            yield Difference(f"{place}()", *types)
