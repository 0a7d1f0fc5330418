"""Keras' files: written files load bit-identically, Keras 3 and Keras 2 read them, and their files are read here.

The first part needs h5py alone. Keras 2 is ``tf-keras``, which stands beside Keras 3.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, initializers, layers, load_model, losses, optimizers, regularizers, schedules
from fastgru.formats.description import ModelFileError
from fastgru.formats.keras import dialects
from fastgru.formats.keras import layers as keras_layers
from fastgru.formats.keras import training as keras_training
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_damage import places, replaced, values

h5py = pytest.importorskip("h5py", reason="needs h5py: pip install h5py")

#: Predictions in float32 by two computations in different orders.
RTOL = 1e-5
ENDINGS = (".keras", ".h5")
DTYPES = ("float32", "float64")
ROWS = 3

#: Warnings of both versions of Keras about their own formats, and about NumPy 2.
pytestmark = [
    pytest.mark.isa_independent,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Layer '.*' .* was passed an input with a mask attached:UserWarning"),
]


# --- Random models --------------------------------------------------------------------------------------------


class Chain:
    """Random layers as calls with Keras' names, which create a model in each library.

    Parameters
    ----------
    seed : int
    hard_sigmoid : str
        Name of the gates' other activation; some files have none.
    """

    def __init__(self, seed, *, hard_sigmoid=None, dtype="float32"):
        rng = self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.gates = ["sigmoid", *([hard_sigmoid] if hard_sigmoid else [])]
        self.tokens = rng.random() < 0.3
        self.masked = rng.random() < 0.4
        self.steps = int(rng.choice([1, 2, 5]))
        self.features = int(rng.choice([1, 3, 8]))
        self.any_length = rng.random() < 0.5
        self.calls = []
        if self.tokens:
            self.add("Embedding", input_dim=7, output_dim=self.features, mask_zero=self.masked)
        elif self.masked:
            self.add("Masking", mask_value=0.0)
        for _ in range(int(rng.integers(1, 4))):
            self.add_recurrent()
            if rng.random() < 0.2:
                self.add("Dropout", rate=0.25)
        self.add_head()

    def add(self, name, **options):
        self.calls.append((name, options))

    def flip(self):
        return bool(self.rng.random() < 0.5)

    def pick(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def add_recurrent(self):
        options = {
            "units": self.pick(1, 4, 5, 9),
            "activation": self.pick("tanh", "relu", "linear"),
            "recurrent_activation": self.pick(*self.gates),
            "use_bias": self.flip(),
            "reset_after": self.flip(),
            "return_sequences": True,
            "zero_output_for_mask": self.flip(),
            "kernel_regularizer": self.pick(None, "l2", ("L1L2", {"l1": 0.25, "l2": 0.5})),
            "recurrent_initializer": self.pick("orthogonal", "glorot_normal", ("RandomUniform", {"minval": -0.5})),
        }
        merge = self.pick("concat", "sum", "mul", "ave", "none")
        if merge == "none":
            self.add("GRU", go_backwards=self.flip() and not self.masked, **options)
        else:
            self.add(f"Bidirectional {merge}", **options)

    def add_head(self):
        if self.rng.random() < 0.3:
            self.add("Activation", activation=self.pick("linear", "softmax", "sigmoid", "tanh", "relu"))
            self.add_recurrent()
        end = self.pick("last", "Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "steps")
        if end == "last" or (self.masked and end in ("GlobalMaxPooling1D", "Flatten")):
            self.calls[-1 if "units" in self.calls[-1][1] else -2][1]["return_sequences"] = False
        elif end != "steps" and not (end == "Flatten" and self.any_length):
            self.add(end)
        self.add("Dense", units=3, activation=self.pick("linear", "softmax", "sigmoid", "tanh", "relu"))

    @property
    def input_shape(self):
        steps = None if self.any_length else self.steps
        return (steps,) if self.tokens else (steps, self.features)

    def __repr__(self):
        return f"input {self.input_shape}, " + ", ".join(f"{name}({options})" for name, options in self.calls)

    def layers(self, kind, regularizers, initializers, **more):
        """Return the layers, given the modules of a library."""
        made = []
        for name, options in self.calls:
            options = dict(options)
            for key, module in (("kernel_regularizer", regularizers), ("recurrent_initializer", initializers)):
                if isinstance(options.get(key), tuple):
                    class_name, arguments = options[key]
                    options[key] = getattr(module, class_name)(**arguments)
            name, _, merge = name.partition(" ")
            if merge:
                made.append(kind.Bidirectional(kind.GRU(**options, **more), merge_mode=merge, **more))
            else:
                made.append(getattr(kind, name)(**options, **more))
        return made

    def fastgru(self):
        fastgru.set_seed(1)
        model = Sequential(self.layers(layers, regularizers, initializers), dtype=self.dtype)
        model.build((None, *self.input_shape))
        return model

    def keras(self, keras):
        kinds = keras.layers, keras.regularizers, keras.initializers
        first = keras.Input(self.input_shape, dtype="int32" if self.tokens else self.dtype)
        return keras.Sequential([first, *self.layers(*kinds, dtype=self.dtype)])

    def x(self):
        """Return samples; some end early, if the model computes a mask."""
        rng = np.random.default_rng(0)
        shape = (ROWS, self.steps) if self.tokens else (ROWS, self.steps, self.features)
        x = rng.integers(1, 7, shape).astype(np.int32) if self.tokens else rng.uniform(-1, 1, shape).astype(self.dtype)
        if self.masked:
            x[np.arange(self.steps) >= np.array([self.steps, 1, max(self.steps - 1, 1)])[:, None]] = 0
        return x


def assert_same_outputs(ours, theirs, dtype, what):
    rtol = RTOL if dtype == "float32" else 1e-12
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= rtol * max(1.0, np.abs(theirs).max()), what


OPTIMIZERS = {
    "Adam": lambda o, s: o.Adam(0.01),
    "Adam, cosine, clipped": lambda o, s: o.Adam(s.CosineDecay(0.02, 40), beta_1=0.8, global_clipnorm=0.5),
    "AdamW": lambda o, s: o.AdamW(0.01, weight_decay=0.1),
    "Adam, amsgrad, weight decay": lambda o, s: o.Adam(0.01, amsgrad=True, weight_decay=0.1, clipnorm=0.5),
    "AdamW, amsgrad": lambda o, s: o.AdamW(0.01, weight_decay=0.1, amsgrad=True),
    "SGD": lambda o, s: o.SGD(0.1),
    "SGD, weight decay": lambda o, s: o.SGD(s.PolynomialDecay(0.1, 9), momentum=0.9, weight_decay=0.1),
    "RMSprop, weight decay": lambda o, s: o.RMSprop(0.01, weight_decay=0.1),
    "SGD, momentum": lambda o, s: o.SGD(s.ExponentialDecay(0.05, 3, 0.5, staircase=True), momentum=0.9, nesterov=True),
    "RMSprop": lambda o, s: o.RMSprop(0.01, clipvalue=0.25),
    "RMSprop, momentum, centered": lambda o, s: o.RMSprop(0.001, momentum=0.5, centered=True, epsilon=1e-4),
}
LOSSES = {
    "softmax": lambda kind: kind.CategoricalCrossentropy(label_smoothing=0.125),
    "logits": lambda kind: kind.SparseCategoricalCrossentropy(from_logits=True),
    "sigmoid": lambda kind: kind.BinaryCrossentropy(label_smoothing=0.25),
    "numbers": lambda kind: kind.MeanAbsoluteError(),
    "squares": lambda kind: kind.MeanSquaredError(),
}
HEADS = {"softmax": "softmax", "sigmoid": "sigmoid"}


def small(kind, head, *, one_way=False, **first):
    """Layers that Keras trains in about a second; the softmax in two directions takes longer."""
    if one_way or head != "softmax":
        return [kind.GRU(3, **first), kind.Dense(3, HEADS.get(head))]
    return [
        kind.Bidirectional(kind.GRU(4, return_sequences=True, kernel_regularizer="l2"), **first),
        kind.GRU(3),
        kind.Dense(3, HEADS.get(head)),
    ]


def training_data(head):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (6, 2, 2)).astype(np.float32)
    classes = rng.integers(0, 3, 6)
    return x, classes if head == "logits" else np.eye(3, dtype=np.float32)[classes]


def compiled(optimizer="Adam", head="softmax", *, steps=3, dtype="float32"):
    """Return a partly trained model."""
    fastgru.set_seed(2)
    model = Sequential(small(layers, head, input_shape=(None, 2)), dtype=dtype)
    model.compile(OPTIMIZERS[optimizer](optimizers, schedules), LOSSES[head](losses))
    x, y = training_data(head)
    for _ in range(steps):
        model.train_on_batch(x.astype(dtype), y)
    return model


def curve(model, head, steps=3, dtype="float32"):
    x, y = training_data(head)
    return [float(np.ravel(model.train_on_batch(x.astype(dtype), y))[0]) for _ in range(steps)]


# --- Round trips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seed", range(12))
def test_a_model_round_trips_bit_identically(seed, ending, tmp_path):
    chain = Chain(
        seed, hard_sigmoid="hard_sigmoid" if ending == ".keras" else "hard_sigmoid_tfjs", dtype=DTYPES[seed % 2]
    )
    model = chain.fastgru()
    model.save(tmp_path / f"model{ending}")
    found = load_model(tmp_path / f"model{ending}")
    assert [(type(each), each.name) for each in found.layers] == [(type(each), each.name) for each in model.layers]
    for one, other in zip(found.layers, model.layers, strict=True):
        one, other = (json.dumps(layer.options(), sort_keys=True) for layer in (one, other))
        assert one == other.replace('"uniform"', '"random_uniform"'), chain
    assert found.dtype == model.dtype
    np.testing.assert_array_equal(found.predict(chain.x()), model.predict(chain.x()), err_msg=repr(chain))
    found.save(tmp_path / f"again{ending}")
    assert (tmp_path / f"again{ending}").read_bytes() == (tmp_path / f"model{ending}").read_bytes()


#: Every optimizer, and every loss with one of them.
TRAININGS = list(zip(OPTIMIZERS, [*LOSSES, "logits", "sigmoid", *LOSSES][: len(OPTIMIZERS)], strict=True))


def forget_states(path, *, step):
    """Change a file to that of a Keras version whose optimizer creates its states in the first update."""
    with h5py.File(path, "r+") as file:
        states = file["optimizer_weights"]
        for name in states.attrs["weight_names"]:
            if name != b"Adam/iter:0":
                del states[name]
        states["Adam/iter:0"][()] = step


def test_an_optimizer_that_was_not_used_has_no_states(tmp_path):
    compiled(steps=0).save(tmp_path / "model.h5")
    forget_states(tmp_path / "model.h5", step=0)
    found = load_model(tmp_path / "model.h5")
    assert found.optimizer.step == 0
    assert curve(found, "softmax") == curve(compiled(steps=0), "softmax")


def test_states_are_not_missing_after_updates(tmp_path):
    compiled().save(tmp_path / "model.h5")
    forget_states(tmp_path / "model.h5", step=3)
    with pytest.raises(ModelFileError, match=r"optimizer: expected the state m of .*, which is missing"):
        load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("optimizer", "head"), TRAININGS)
def test_training_continues_bit_identically(optimizer, head, ending, tmp_path):
    for dtype, steps in (("float32", 3), ("float64", 0)):
        model = compiled(optimizer, head, steps=steps, dtype=dtype)
        model.save(tmp_path / f"model{ending}")
        found = load_model(tmp_path / f"model{ending}")
        assert found.optimizer.get_config() == model.optimizer.get_config()
        assert found.optimizer.step == steps
        assert (found.loss.name, found.loss.get_config()) == (model.loss.name, model.loss.get_config())
        assert curve(found, head, dtype=dtype) == curve(model, head, dtype=dtype)


@pytest.mark.parametrize(
    ("loss", "head", "metrics"),
    [
        ("sparse_categorical_crossentropy", "softmax", ["accuracy"]),
        ("categorical_crossentropy", "softmax", ["acc", "categorical_accuracy"]),
        ("binary_crossentropy", "sigmoid", ["binary_accuracy"]),
        ("mse", None, ["mae", "mean_squared_error"]),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_metrics_keep_their_names(ending, loss, head, metrics, tmp_path):
    model = Sequential([layers.GRU(2, input_shape=(3, 2)), layers.Dense(3, head)])
    model.compile("adam", loss, metrics=metrics)
    model.save(tmp_path / f"model{ending}")
    assert [metric.name for metric in load_model(tmp_path / f"model{ending}").metrics] == metrics


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5", "x.keras"])
def test_weights_files_round_trip(name, tmp_path):
    model, other = compiled(steps=2), compiled(steps=0)
    assert not np.array_equal(model.parameters, other.parameters)
    (model.save if name == "x.keras" else model.save_weights)(tmp_path / name)
    other.load_weights(tmp_path / name)
    np.testing.assert_array_equal(other.parameters, model.parameters)


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5"])
def test_weights_of_another_model_are_refused_and_change_nothing(name, tmp_path):
    compiled().save_weights(tmp_path / name)
    for build in (
        [layers.GRU(4), layers.Dense(3)],
        [layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.GRU(3)],
        [layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.GRU(3), layers.Dense(2)],
        [layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.GRU(3), layers.Dense(3, use_bias=False)],
    ):
        model = Sequential(build)
        model.build((None, None, 2))
        before = model.parameters.copy()
        with pytest.raises(ModelFileError, match=name):
            model.load_weights(tmp_path / name)
        np.testing.assert_array_equal(model.parameters, before)


def test_the_file_name_decides_the_format(tmp_path):
    with pytest.raises(ValueError, match=r"filepath: .*save_weights"):
        compiled().save(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError, match=r"filepath: expected a name that ends in .safetensors, .weights.h5 or .h5"):
        compiled().save_weights(tmp_path / "x.bin")
    compiled().save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ModelFileError, match="the file contains weights only"):
        load_model(tmp_path / "x.weights.h5")


def test_h5py_is_required_for_writing_only(monkeypatch, tmp_path):
    code = "import sys, fastgru; sys.exit('h5py' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    model = compiled()
    model.save(tmp_path / "model.keras")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install h5py"):
        model.save(tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras").parameters, model.parameters)


# --- What is not supported --------------------------------------------------------------------------------------


def gru_and_dense(gru=None, dense="softmax", **options):
    first = {"input_shape": (3, 2)}
    return [layers.GRU(2, **first, **(gru or {})), layers.Dense(3, dense, **options)]


def trained(optimizer="adam", loss="categorical_crossentropy", metrics=None, dense="softmax"):
    model = Sequential(gru_and_dense(dense=dense))
    model.compile(optimizer, loss, metrics=metrics)
    return model


def untrained(*chain):
    model = Sequential(chain)
    model.build((None, 3, 2))
    return model


def tokens(*chain):
    model = Sequential(chain)
    model.build((None, 4))
    return model


UNSUPPORTED = {
    "another hard_sigmoid": (
        lambda ending: untrained(
            layers.GRU(2, name="g", recurrent_activation="hard_sigmoid_tfjs" if ending == ".keras" else "hard_sigmoid")
        ),
        "g: recurrent_activation='hard_sigmoid(_tfjs)?' is not supported by Keras [23]",
    ),
    "stateful": (lambda _: untrained(layers.GRU(2, name="g", stateful=True)), "g: stateful=True is not supported"),
    "padding first": (
        lambda _: untrained(layers.Masking(), layers.GRU(2, name="g", go_backwards=True, return_sequences=True)),
        "g: expected go_backwards=False after a mask",
    ),
    "largest of all": (
        lambda _: untrained(layers.Masking(), layers.GlobalMaxPooling1D(name="m")),
        "m: expected no mask before it",
    ),
    "a mask behind a mask": (
        lambda _: untrained(layers.Masking(), layers.GRU(2, return_sequences=True), layers.Masking(name="m")),
        "m: expected no mask before it because Keras replaces a mask",
    ),
    "a mask behind a Dense layer with one": (
        lambda _: untrained(layers.Masking(), layers.Dense(2), layers.Masking(name="m"), layers.GRU(2)),
        "m: expected no mask before it because Keras replaces a mask",
    ),
    "a mask behind that of tokens": (
        lambda _: tokens(layers.Embedding(5, 2, mask_zero=True), layers.Masking(name="m"), layers.GRU(2)),
        "m: expected no mask before it because Keras replaces a mask",
    ),
    "padding for Flatten": (
        lambda _: untrained(layers.Masking(-1.0, name="m"), layers.Flatten(), layers.Dense(3)),
        "m: expected mask_value=0.0 before a Flatten layer .*, got -1.0",
    ),
    "padding for Dense": (
        lambda _: untrained(layers.Masking(-1.0, name="m"), layers.Dropout(0.5), layers.Dense(3)),
        "m: expected mask_value=0.0 before a Dense layer .*, got -1.0",
    ),
    "padding at the end": (
        lambda _: untrained(layers.Masking(-1.0, name="m")),
        "m: expected mask_value=0.0 before the end of the model .*, got -1.0",
    ),
    "PyTorch's Adam": (
        lambda _: trained(optimizers.Adam(form="pytorch")),
        "optimizer: Adam with form='pytorch' is not supported by Keras",
    ),
    "PyTorch's SGD": (
        lambda _: trained(optimizers.SGD(form="pytorch", momentum=0.5)),
        "optimizer: SGD with form='pytorch' is not supported by Keras",
    ),
    "a cycle": (
        lambda _: trained(optimizers.Adam(schedules.OneCycle(0.1, 10))),
        "learning_rate: OneCycle is not supported by Keras",
    ),
    "smoothed integers": (
        lambda _: trained(loss=losses.SparseCategoricalCrossentropy(label_smoothing=0.1)),
        "loss: label_smoothing=0.1 of sparse_categorical_crossentropy is not supported",
    ),
    "F1": (lambda _: trained(metrics=["f1_score"]), "metrics: f1_score is not supported by Keras"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_options_are_named(name, ending, tmp_path):
    build, message = UNSUPPORTED[name]
    with pytest.raises(ValueError, match=message):
        build(ending).save(tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())


#: Padding that is 0, or that later layers do not read.
SAYABLE_MASKS = {
    "recurrent": lambda kind: [kind.Masking(-1.0), kind.Dropout(0.5), kind.GRU(2)],
    "steps": lambda kind: [kind.Masking(-1.0), kind.Bidirectional(kind.GRU(2, return_sequences=True)), kind.Dense(3)],
    "mean": lambda kind: [kind.Masking(-1.0), kind.GlobalAveragePooling1D()],
    "zeros": lambda kind: [kind.Masking(0.0), kind.Dense(3), kind.GRU(2)],
    "flat zeros": lambda kind: [kind.Masking(0.0), kind.Flatten(), kind.Dense(3)],
    "states": lambda kind: [kind.GRU(2, return_sequences=True), kind.Masking(0.0), kind.GRU(2)],
}


def with_layer(path, place, class_name, **options):
    """Insert a Keras layer without weights into a file."""
    entry = {"class_name": class_name, "config": {"name": "new", **options}}
    changed_config(path, lambda config: config["config"]["layers"].insert(place, entry))


def changed_config(path, change):
    """Change the model's configuration in a file."""
    if path.suffix == ".keras":
        config, *rest = parts_of(path)
        change(config)
        write_parts(path, config, *rest)
    else:
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)


RELU = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("class_name", "options", "activation"),
    [("ReLU", RELU, "relu"), ("Softmax", {"axis": -1}, "softmax"), ("Activation", {"activation": "tanh"}, "tanh")],
)
def test_an_activation_layer_is_merged_into_the_dense_layer_before_it(
    class_name, options, activation, ending, tmp_path
):
    path = tmp_path / f"model{ending}"
    untrained(layers.Masking(), layers.GRU(2), layers.Dense(3)).save(path)
    with_layer(path, 4, class_name, **options)
    assert load_model(path).layers[-1].activation == activation


@pytest.mark.parametrize(
    ("class_name", "options", "message"),
    [
        ("ReLU", {**RELU, "max_value": 6.0}, "max_value=6.0 is not supported by fastgru"),
        ("ReLU", {**RELU, "negative_slope": 0.1}, "negative_slope=0.1 is not supported by fastgru"),
        ("ReLU", {**RELU, "threshold": 1.0}, "threshold=1.0 is not supported by fastgru"),
        ("Softmax", {"axis": 1}, "axis=1 is not supported by fastgru"),
        ("Softmax", {"axis": None}, "axis='all axes' is not supported by fastgru"),
        ("Softmax", {"axis": -1}, "expected no mask before it because Keras' layer skips masked elements"),
        ("Softmax", {"axis": -1, "other": 3}, "other=3 is not supported by fastgru"),
    ],
)
def test_layers_that_are_more_than_an_activation_raise(class_name, options, message, tmp_path):
    path = tmp_path / "model.keras"
    untrained(layers.Masking(), layers.Dense(3), layers.GRU(2)).save(path)
    with_layer(path, 3, class_name, **options)
    with pytest.raises(ModelFileError, match=f"new: {message}"):
        load_model(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", SAYABLE_MASKS)
def test_other_masks_are_written_and_read(name, ending, tmp_path):
    model = untrained(*SAYABLE_MASKS[name](layers))
    model.save(tmp_path / f"model{ending}")
    found = load_model(tmp_path / f"model{ending}")
    assert [type(layer) for layer in found.layers] == [type(layer) for layer in model.layers]


@pytest.mark.parametrize(
    ("place", "mask_value", "message"),
    [(2, 0.0, "new: expected no mask before it"), (1, -1.0, "new: expected mask_value=0.0 before a Dense layer")],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_masks_with_another_meaning_in_keras_raise(place, mask_value, message, ending, tmp_path):
    path = tmp_path / f"model{ending}"
    first = [layers.Masking()] if place == 2 else []
    untrained(*first, layers.Dense(2), layers.GRU(2)).save(path)
    with_layer(path, place, "Masking", mask_value=mask_value)
    with pytest.raises(ModelFileError, match=f"model{ending}: {message}"):
        load_model(path)


# --- Hostile files --------------------------------------------------------------------------------------------


def parts_of(path):
    """Return the model, the metadata and the arrays of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        config, metadata = (json.loads(archive.read(name)) for name in ("config.json", "metadata.json"))
        return config, metadata, archive.read("model.weights.h5")


def write_parts(path, config, metadata, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", data)


KERNEL = "layers/gru/cell/vars/0"
KERNEL_H5 = "model_weights/gru/gru/gru_cell/kernel:0"


def replace_by(make):
    """Replace the object at a path of an HDF5 file."""

    def change(file, path):
        old = file[path][()]
        del file[path]
        make(file, path, old)

    return change


def virtual(file, path, old):
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[...] = h5py.VirtualSource("/etc/hostname", "x", old.shape)
    file.create_virtual_dataset(path, layout)


def huge(file, path, old):
    space = h5py.h5s.create_simple((2**40, old.shape[1]))
    h5py.h5d.create(file.id, path.encode(), h5py.h5t.NATIVE_FLOAT, space)


def external(file, path, old):
    file.create_dataset(path, old.shape, old.dtype, external=[("/etc/hostname", 0, old.nbytes)])


def ring(file, path, old):
    del old
    file[path] = file["/"]


HDF5_CHANGES = {
    "missing": (replace_by(lambda file, path, old: None), "gru"),
    "compressed": (
        replace_by(lambda file, path, old: file.create_dataset(path, data=old, compression="gzip")),
        "stored in one piece",
    ),
    "chunked": (
        replace_by(lambda file, path, old: file.create_dataset(path, data=old, chunks=(1, 2))), "stored in one piece",
    ),
    "virtual": (replace_by(virtual), "stored in one piece"),
    "external": (replace_by(external), "stored in one piece"),
    "huge": (replace_by(huge), "the size of the file, got more"),
    "soft link": (
        replace_by(lambda file, path, old: file.__setitem__(path, h5py.SoftLink("/elsewhere"))), "link to elsewhere",
    ),
    "external link": (
        replace_by(lambda file, path, old: file.__setitem__(path, h5py.ExternalLink("/etc/hostname", "/x"))),
        "link to elsewhere",
    ),
    "ring": (replace_by(ring), "expected an array"),
    "text": (replace_by(lambda file, path, old: file.create_dataset(path, data=b"weights")), "expected numbers"),
    "texts": (replace_by(lambda file, path, old: file.create_dataset(path, data=["a", "b"])), "expected numbers"),
    "integers": (replace_by(lambda file, path, old: file.create_dataset(path, data=old.astype(int))), "float32"),
    "float64": (replace_by(lambda file, path, old: file.create_dataset(path, data=old.astype(float))), "float32"),
    "no rows": (replace_by(lambda file, path, old: file.create_dataset(path, data=old[:0])), "shapes"),
    "transposed": (replace_by(lambda file, path, old: file.create_dataset(path, data=old.T)), "shapes"),
    "no space": (replace_by(lambda file, path, old: file.create_dataset(path, data=h5py.Empty("f4"))), "expected numb"),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", HDF5_CHANGES)
def test_hostile_hdf5(name, ending, tmp_path):
    change, message = HDF5_CHANGES[name]
    path = tmp_path / f"model{ending}"
    Sequential(gru_and_dense()).save(path)
    config, metadata, data = parts_of(path) if ending == ".keras" else (None, None, path.read_bytes())
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        change(file, KERNEL if ending == ".keras" else KERNEL_H5)
    if ending == ".keras":
        write_parts(path, config, metadata, buffer.getvalue())
    else:
        path.write_bytes(buffer.getvalue())
    with pytest.raises(ModelFileError, match=f"model{ending}: .*{message}"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model_weights/gru", {"weight_names": np.array(["x" * 8] * 7000, dtype="S8")}, "at most 6 texts"),
        ("model_weights/gru", {"weight_names": ["../x", "../y", "../z"]}, "expected kernel"),
        ("model_weights/gru", {"weight_names": np.arange(3)}, "expected text"),
        ("/", {"model_config": "[" * 10**5}, "invalid JSON"),
        ("/", {"model_config": b"\xff\xfe"}, "expected UTF-8 as model_config"),
        ("/", {"model_config": 3.0}, "expected text"),
        ("/", {"model_config": "{}"}, "class_name"),
        ("/", {"keras_version": "4.0"}, "keras_version: expected 2 or 3"),
        ("/", {"training_config": "[1]"}, "training configuration: expected an object"),
    ],
)
def test_hostile_attributes(name, change, message, tmp_path):
    path = tmp_path / "model.h5"
    trained().save(path)
    with h5py.File(path, "r+") as file:
        for attribute, value in change.items():
            del file[name].attrs[attribute]
            file[name].attrs[attribute] = value
    with pytest.raises(ModelFileError, match=f"model.h5: .*{message}"):
        load_model(path)


def test_many_names_for_one_array_are_refused(tmp_path):
    chain = [layers.GRU(16, return_sequences=True, use_bias=False, name=f"g{number}") for number in range(30)]
    model = Sequential(chain)
    model.build((None, 3, 16))
    model.save(tmp_path / "model.keras")
    config, metadata, data = parts_of(tmp_path / "model.keras")
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(data)) as old, h5py.File(buffer, "w") as file:
        for number in range(30):
            inner = f"layers/gru_{number}/cell/vars" if number else "layers/gru/cell/vars"
            for name in ("0", "1"):
                if number:
                    file[f"{inner}/{name}"] = file[f"layers/gru/cell/vars/{name}"]
                else:
                    file[f"{inner}/{name}"] = old[f"{inner}/{name}"][()]
    write_parts(tmp_path / "model.keras", config, metadata, buffer.getvalue())
    with pytest.raises(ModelFileError, match=r"expected arrays of at most .* bytes, the size of the file, got more"):
        load_model(tmp_path / "model.keras")


def test_decompression_bombs_and_foreign_files(tmp_path):
    path = tmp_path / "model.keras"
    trained().save(path)
    config, metadata, data = parts_of(path)
    for parts, message in (
        ((config, metadata, b"\0" * 10**8), "expected contents of at most 16 times its size"),
        (("[" * 10**5, metadata, data), "invalid JSON"),
        (("{", metadata, data), "invalid JSON"),
        (([], metadata, data), "the model: expected an object"),
        ((config, {"keras_version": 3}, data), "keras_version"),
        ((config, metadata, b"PK"), "expected an HDF5 file, got something else"),
        ((config, metadata, data[: len(data) // 2]), "damaged"),
    ):
        write_parts(path, *parts)
        with pytest.raises(ModelFileError, match=f"model.keras: .*{message}"):
            load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../config.json", "{}")
    with pytest.raises(ModelFileError, match="neither Keras' nor PyTorch's"):
        load_model(path)


# --- Any other damage -----------------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
JSON = values(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["GRU", "", "linear", "../x", "float64"]),
    keys=st.sampled_from(["class_name", "config", "x"]),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Return the bytes of valid files by file extension, of partly trained models."""
    folder = tmp_path_factory.mktemp("valid")
    found = {}
    for ending in ENDINGS:
        compiled().save(folder / f"model{ending}")
        found[ending] = (folder / f"model{ending}").read_bytes()
    return found


def load_or_refuse(path):
    """Return a model or one of the documented errors; any other error fails the test."""
    try:
        model = load_model(path)
    except (ModelFileError, OSError, ImportError):  # the file may look like a format that needs an extra package
        return
    assert isinstance(model, Sequential)


@FUZZ
@given(data=st.data(), ending=st.sampled_from(ENDINGS))
def test_any_bytes_anywhere(data, ending, valid, tmp_path):
    content = bytearray(valid[ending])
    begin = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "splice"])):
        case "flip":
            content[begin] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[begin:]
        case "splice":
            content[begin : begin + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    load_or_refuse(path)


@FUZZ
@given(data=st.data(), ending=st.sampled_from(ENDINGS))
def test_any_json_anywhere(data, ending, valid, tmp_path):
    path = tmp_path / f"model{ending}"
    path.write_bytes(valid[ending])

    def change(config):
        place = data.draw(st.sampled_from(list(places(config))))
        return replaced(config, place, data.draw(JSON))

    if ending == ".keras":
        config, metadata, arrays = parts_of(path)
        write_parts(path, change(config), metadata, arrays)
    else:
        with h5py.File(path, "r+") as file:
            name = data.draw(st.sampled_from(["model_config", "training_config"]))
            file.attrs[name] = json.dumps(change(json.loads(file.attrs[name])))
    load_or_refuse(path)


# --- Keras 3 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20, 26))
def test_models_of_keras_3_predict_the_same_here(seed, keras, tmp_path):
    chain = Chain(seed, hard_sigmoid="hard_sigmoid", dtype=DTYPES[seed % 4 == 3])
    theirs = chain.keras(keras)
    x = chain.x()
    expected = theirs(x)
    for ending in ENDINGS:  # includes Keras 3's own .h5, with its own names
        theirs.save(tmp_path / f"model{ending}")
        assert_same_outputs(load_model(tmp_path / f"model{ending}").predict(x), expected, chain.dtype, repr(chain))
    theirs.save_weights(tmp_path / "model.weights.h5")
    ours = chain.fastgru()
    ours.load_weights(tmp_path / "model.weights.h5")
    assert_same_outputs(ours.predict(x), expected, chain.dtype, repr(chain))


@pytest.mark.parametrize("seed", range(40, 46))
def test_models_from_here_predict_the_same_in_keras_3(seed, keras, tmp_path):
    chain = Chain(seed, hard_sigmoid="hard_sigmoid", dtype=DTYPES[seed % 4 == 3])
    ours = chain.fastgru()
    x = chain.x()
    expected = ours.predict(x)
    ours.save(tmp_path / "model.keras")
    theirs = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in theirs.layers] == [layer.name for layer in ours.layers]
    assert_same_outputs(expected, theirs(x), chain.dtype, repr(chain))
    theirs = chain.keras(keras)
    ours.save_weights(tmp_path / "model.weights.h5")
    theirs.load_weights(tmp_path / "model.weights.h5")
    assert_same_outputs(expected, theirs(x), chain.dtype, repr(chain))
    if "hard_sigmoid" not in repr(chain):  # Keras 3 uses its own also for Keras 2's files
        ours.save(tmp_path / "model.h5")
        theirs = keras.models.load_model(tmp_path / "model.h5")
        assert_same_outputs(expected, theirs(x), chain.dtype, repr(chain))


@pytest.mark.filterwarnings("ignore:.*lengths and masks end here:UserWarning")
@pytest.mark.parametrize("name", SAYABLE_MASKS)
def test_masks_are_those_of_keras_3(name, keras, tmp_path):
    ours = untrained(*SAYABLE_MASKS[name](layers))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 2)).astype(np.float32)
    x[1, 1:] = getattr(ours.layers[0], "mask_value", 0)
    ours.save(tmp_path / "model.keras")
    theirs = keras.models.load_model(tmp_path / "model.keras")
    assert_same_outputs(ours.predict(x), theirs(x), "float32", name)


@pytest.mark.slow
@pytest.mark.parametrize("biased", ["layer", "backward_layer"])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_directions_with_and_without_biases(ending, biased, keras, tmp_path):
    def model(kind, reshape):
        forward = kind.GRU(4, use_bias=biased == "layer")
        backward = kind.GRU(4, go_backwards=True, use_bias=biased == "backward_layer")
        return [*reshape, kind.Bidirectional(forward, backward_layer=backward), kind.Dense(3)]

    x = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    theirs = keras.Sequential(model(keras.layers, [keras.Input((7, 3))]))
    theirs.set_weights([np.random.default_rng(1).normal(size=w.shape, scale=0.3) for w in theirs.get_weights()])
    theirs.save(tmp_path / f"theirs.{ending}")
    ours = fastgru.load_model(tmp_path / f"theirs.{ending}", compile=False)
    expected = theirs.predict(x, verbose=0)
    np.testing.assert_allclose(ours.predict(x), expected, rtol=1e-5, atol=1e-6)

    ours.save(tmp_path / f"ours.{ending}", include_optimizer=False)
    back = keras.saving.load_model(tmp_path / f"ours.{ending}", compile=False)
    np.testing.assert_allclose(back.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.set_weights([np.zeros_like(w) for w in theirs.get_weights()])
    theirs.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(theirs.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge_mode", [None, "state"])
def test_several_outputs(merge_mode, keras, tmp_path):
    def build(kind):
        if merge_mode == "state":
            return kind.GRU(3, return_sequences=True, return_state=True)
        return kind.Bidirectional(kind.GRU(3, return_sequences=True), merge_mode=None)

    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2)).astype(np.float32)
    inputs = keras.Input((4, 2))
    theirs = keras.Model(inputs, build(keras.layers)(inputs))
    theirs.save(tmp_path / "theirs.keras")
    ours = load_model(tmp_path / "theirs.keras")
    ours.save(tmp_path / "ours.keras")
    back = keras.models.load_model(tmp_path / "ours.keras")
    for found, expected, again in zip(ours.predict(x), theirs(x), back(x), strict=True):
        assert_same_outputs(found, expected, "float32", "here")
        assert_same_outputs(found, again, "float32", "back")


def functional(keras, *, masked):
    """A Functional model of Keras with layers that are converted to others here."""
    kind = keras.layers
    inputs = keras.Input((4, 2))
    y = kind.Masking()(inputs) if masked else inputs
    y = kind.RNN(kind.GRUCell(3, reset_after=False), return_sequences=True)(y)
    y = kind.TimeDistributed(kind.Dense(3, use_bias=False))(y)
    y = kind.ReLU()(kind.Dense(2)(y))
    y = kind.GRU(4, return_sequences=True)(y)
    y = kind.Dense(2)(y)
    return keras.Model(inputs, kind.Activation("softmax")(y))


@pytest.mark.parametrize("masked", [False, True])
def test_a_functional_chain(masked, keras, tmp_path):
    theirs = functional(keras, masked=masked)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2)).astype(np.float32)
    for ending in ENDINGS:
        theirs.save(tmp_path / f"model{ending}")
        ours = load_model(tmp_path / f"model{ending}")
        assert [type(layer).__name__ for layer in ours.layers][-5:] == [
            "GRU",
            "TimeDistributed",
            "Dense",
            "GRU",
            "Dense",
        ]
        assert ours.layers[-3].activation == "relu"
        assert ours.layers[-1].activation == "softmax"
        assert_same_outputs(ours.predict(x), theirs(x), "float32", ending)


@pytest.mark.parametrize("number", [1, 2])
def test_weights_files_of_wrapped_layers(number, keras, tmp_path):
    """RNN becomes GRU; Keras names groups of weights after the wrapper."""
    kind = keras.layers
    theirs = keras.Sequential([keras.Input((4, 2))])
    for size in range(3, 3 + number):
        theirs.add(kind.RNN(kind.GRUCell(size), return_sequences=True))
        theirs.add(kind.TimeDistributed(kind.Dense(size)))
    theirs.save(tmp_path / "model.keras")
    theirs.save_weights(tmp_path / "model.weights.h5")
    ours = load_model(tmp_path / "model.keras")
    expected = ours.parameters.copy()
    for name in ("model.weights.h5", "model.keras"):
        ours.parameters[...] = 0
        ours.load_weights(tmp_path / name)
        np.testing.assert_array_equal(ours.parameters, expected)


def test_weights_files_with_wrapped_and_plain_layers_raise(keras, tmp_path):
    """The file does not contain their order."""
    theirs = functional(keras, masked=False)
    theirs.save(tmp_path / "model.keras")
    theirs.save_weights(tmp_path / "model.weights.h5")
    ours = load_model(tmp_path / "model.keras")
    with pytest.raises(ModelFileError, match="got other arrays"):
        ours.load_weights(tmp_path / "model.weights.h5")


def models_with_none(keras):
    """Models with options of None, where Keras accepts it, and their meaning."""
    kind = keras.layers
    off = dict.fromkeys(("return_sequences", "return_state", "go_backwards", "stateful"))
    inputs, tokens = keras.Input((4, 2)), keras.Input((4,))
    yield [inputs, kind.GRU(3, activation=None, use_bias=None, **off), kind.Dense(2, activation=None, use_bias=None)]
    yield [inputs, kind.GRU(3, reset_after=None, kernel_initializer=None, kernel_regularizer=None), kind.ReLU()]
    yield [tokens, kind.Embedding(7, 3, mask_zero=None, embeddings_regularizer=None), kind.GRU(2)]
    yield [inputs, kind.Bidirectional(kind.GRU(2, use_bias=None, reset_after=None)), kind.Dense(2)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_options_of_none_have_keras_meaning(keras, ending, tmp_path):
    rng = np.random.default_rng(0)
    for inputs, *stack in models_with_none(keras):
        theirs = keras.Sequential([inputs, *stack])
        theirs.set_weights([rng.normal(size=weight.shape).astype(np.float32) for weight in theirs.get_weights()])
        theirs.save(tmp_path / f"model{ending}")
        x = rng.integers(0, 7, (3, 4)) if len(inputs.shape) == 2 else rng.normal(size=(3, 4, 2)).astype(np.float32)
        assert_same_outputs(load_model(tmp_path / f"model{ending}").predict(x), theirs(x), "float32", ending)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("gone", [False, True])
def test_optional_entries_may_be_null_or_missing(keras, gone, ending, tmp_path):
    """Keras generates missing layer names, and uses the defaults for objects without a configuration."""
    kind = keras.layers
    theirs = keras.Sequential([keras.Input((4, 2)), kind.GRU(3), kind.Dropout(0.5), kind.Dense(2), kind.ReLU()])
    path = tmp_path / f"model{ending}"
    theirs.save(path)

    def change(config):
        _, gru, dropout, dense, relu = config["config"]["layers"]
        for inner, key in (
            (dropout["config"], "name"), (relu["config"], "name"), (relu["config"], "max_value"),
            (gru["config"]["bias_initializer"], "config"), (gru["config"], "kernel_initializer"),
            (dense["config"], "activation"), (config["config"], "name"), (gru["config"], "dtype"),
        ):  # fmt: skip
            if not gone:
                inner[key] = None
            elif inner is not config["config"]:  # Keras 3 wants a model's name
                del inner[key]

    changed_config(path, change)
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    again = keras.models.load_model(path, compile=False)
    model = load_model(path)
    assert_same_outputs(model.predict(x), again(x), "float32", ending)
    assert len({layer.name for layer in model.layers}) == len(model.layers)


def foreign_models(keras):
    """Unsupported models of Keras, and what the message names."""
    kind = keras.layers

    def chain(*layers_):
        return keras.Sequential([keras.Input((4, 2)), *layers_])

    def graph(build):
        inputs = keras.Input((4, 2), name="in")
        return keras.Model(inputs, build(inputs))

    norm = keras.constraints.MaxNorm(2)
    return {
        "LSTM": (chain(kind.LSTM(2, name="l")), "l: expected a layer of .*, got LSTM"),
        "constraint": (chain(kind.GRU(2, kernel_constraint=norm, name="g")), "g: kernel_constraint="),
        "activity": (chain(kind.Dense(2, activity_regularizer="l2", name="d")), "d: activity_regularizer="),
        "activation": (chain(kind.GRU(2, activation="elu", name="g")), "g: expected one of .*, got 'elu'"),
        "gate": (chain(kind.GRU(2, recurrent_activation="tanh", name="g")), "g: expected .* got 'tanh'"),
        "dtype": (chain(kind.GRU(2, dtype="mixed_float16", name="g")), "g: expected float32 or float64 as dtype"),
        "two dtypes": (chain(kind.GRU(2, dtype="float64", name="g"), kind.Dense(2)), "dtype: expected the same"),
        "orthogonal": (
            chain(kind.Dense(2, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(), name="d")),
            "d: expected L1, L2 or L1L2 as kernel_regularizer",
        ),
        "keepdims": (
            chain(kind.GlobalAveragePooling1D(keepdims=True, name="p")), "p: keepdims=True",
        ),
        "another activation": (chain(kind.GRU(2), kind.Activation("elu", name="a")), "a: expected one of .* got 'elu'"),
        "a branch": (graph(lambda x: kind.Add(name="a")([x, kind.Dense(2)(x)])), "a: "),
        "state without outputs": (
            graph(lambda x: kind.GRU(2, return_state=True, name="g")(x)[0]), "g: expected all of its outputs",
        ),
        "state as input": (
            graph(lambda x: kind.GRU(2, name="g")(x, initial_state=kind.GRU(2)(x))), "g: expected a call without",
        ),
        "another mask": (
            graph(lambda x: kind.GRU(2, name="g")(kind.Masking()(x), mask=keras.ops.any(x != 3, axis=-1))), "not_equal",
        ),
        "nested": (chain(keras.Sequential([kind.GRU(2)], name="s")), "s: expected a layer of .*, got Sequential"),
        "optimizer": (
            chain(kind.GRU(2)), "optimizer: expected one of .*, got 'Nadam'", {"optimizer": "nadam"},
        ),
        "EMA": (
            chain(kind.GRU(2)), "optimizer: use_ema=True", {"optimizer": keras.optimizers.SGD(use_ema=True)},
        ),
        "loss": (chain(kind.GRU(2)), "loss: expected one of .*, got 'dice'", {"loss": "dice"}),
        "reduction": (
            chain(kind.GRU(2)), "loss: reduction='sum'", {"loss": keras.losses.MeanSquaredError(reduction="sum")},
        ),
        "metric": (
            chain(kind.GRU(2)), "metrics: expected some of .*, got '?mean", {"metrics": [keras.metrics.MeanIoU(2)]},
        ),
        "metric's option": (
            chain(kind.GRU(2)), "metrics: curve='PR'", {"metrics": [keras.metrics.AUC(curve="PR")]},
        ),
    }  # fmt: skip


def test_unsupported_parts_of_a_file_are_named(keras, tmp_path):
    for model, message, *training in foreign_models(keras).values():
        if training:
            model.compile(**{"optimizer": "sgd", "loss": "mse", **training[0]})
        model.save(tmp_path / "model.keras")
        with pytest.raises(ModelFileError, match=f"model.keras: .*{message}"):
            load_model(tmp_path / "model.keras")


def keras_curve(model, head, steps=3):
    x, y = training_data(head)
    model.run_eagerly = True  # avoids seconds of graph construction
    found = []
    for _ in range(steps):
        model.reset_metrics()
        found.append(float(np.ravel(model.train_on_batch(x, y))[0]))
    return found


def keras_compiled(keras, optimizer, head, *, steps=3):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((None, 2)), *small(keras.layers, head)])
    optimizer = OPTIMIZERS[optimizer](keras.optimizers, keras.optimizers.schedules)
    model.compile(optimizer, LOSSES[head](keras.losses))
    keras_curve(model, head, steps)
    return model


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop"])
def test_keras_3_trains_a_model_of_keras_2_that_is_compiled_again(optimizer, keras, tmp_path):
    ours = compiled(optimizer, "numbers")
    ours.save(tmp_path / "model.h5")
    theirs = keras.models.load_model(tmp_path / "model.h5", compile=False)
    theirs.compile("sgd", LOSSES["numbers"](keras.losses))
    ours.compile("sgd", LOSSES["numbers"](losses))
    np.testing.assert_allclose(keras_curve(theirs, "numbers"), curve(ours, "numbers"), rtol=2e-5)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "RMSprop"])
def test_training_begins_as_in_keras_3(optimizer, ending, keras, tmp_path):
    theirs = keras_compiled(keras, optimizer, "numbers", steps=0)
    theirs.save(tmp_path / f"model{ending}")
    ours = load_model(tmp_path / f"model{ending}")
    assert ours.optimizer.step == 0
    np.testing.assert_allclose(curve(ours, "numbers"), keras_curve(theirs, "numbers"), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "head"), TRAININGS)
def test_training_continues_as_in_keras_3(optimizer, head, keras, tmp_path):
    theirs = keras_compiled(keras, optimizer, head)
    for ending in ENDINGS:
        theirs.save(tmp_path / f"theirs{ending}")
    expected = keras_curve(theirs, head)
    for ending in ENDINGS:
        ours = load_model(tmp_path / f"theirs{ending}")
        assert ours.optimizer.step == 3
        np.testing.assert_allclose(curve(ours, head), expected, rtol=2e-5, err_msg=ending)
    ours.optimizer.learning_rate = (
        1e-3 if not isinstance(ours.optimizer.learning_rate, schedules.Schedule) else (ours.optimizer.learning_rate)
    )
    ours.save(tmp_path / "ours.keras")
    back = keras.models.load_model(tmp_path / "ours.keras")
    assert int(back.optimizer.iterations) == 6
    np.testing.assert_allclose(keras_curve(back, head), curve(ours, head), rtol=2e-5)


# --- Keras 2 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60, 64))
def test_models_of_keras_2_predict_the_same_in_both(seed, keras_2, tmp_path):
    chain = Chain(seed, hard_sigmoid="hard_sigmoid", dtype=DTYPES[seed % 4 == 3])
    theirs = chain.keras(keras_2)
    x = chain.x()
    expected = theirs(x)
    theirs.save(tmp_path / "model.keras")
    theirs.save(tmp_path / "model.h5")
    for ending in ENDINGS:
        ours = load_model(tmp_path / f"model{ending}")
        assert_same_outputs(ours.predict(x), expected, chain.dtype, repr(chain))
    ours.save(tmp_path / "ours.h5")
    back = keras_2.models.load_model(tmp_path / "ours.h5")
    assert_same_outputs(ours.predict(x), back(x), chain.dtype, repr(chain))
    theirs.save_weights(tmp_path / "weights.h5")
    ours.set_weights([weight * 0 for weight in ours.get_weights()])
    ours.load_weights(tmp_path / "weights.h5")
    assert_same_outputs(ours.predict(x), expected, chain.dtype, repr(chain))
    ours.save_weights(tmp_path / "ours_alone.h5")
    back.load_weights(tmp_path / "ours_alone.h5")
    assert_same_outputs(ours.predict(x), back(x), chain.dtype, repr(chain))


def keras_2_optimizer(keras_2, name, *, legacy):
    kind = keras_2.optimizers
    return OPTIMIZERS[name](kind.legacy if legacy else kind, kind.schedules)


#: TensorFlow 2.11 introduced AdamW, and new optimizers under the old names.
KERAS_2_TRAININGS = [
    (*training, legacy)
    for training in TRAININGS
    for legacy in (False, True)
    if not (legacy and ("AdamW" in training[0] or "weight decay" in training[0]))
]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "head", "legacy"), KERAS_2_TRAININGS)
def test_training_continues_as_in_keras_2(optimizer, head, legacy, keras_2, tmp_path):
    keras_2.utils.set_random_seed(3)
    theirs = keras_2.Sequential([keras_2.Input((None, 2)), *small(keras_2.layers, head, one_way=True)])
    theirs.compile(keras_2_optimizer(keras_2, optimizer, legacy=legacy), LOSSES[head](keras_2.losses))
    keras_curve(theirs, head)
    theirs.save(tmp_path / "theirs.h5")
    ours = load_model(tmp_path / "theirs.h5")
    assert ours.optimizer.step == 3
    np.testing.assert_allclose(curve(ours, head), keras_curve(theirs, head), rtol=2e-5)
    ours.save(tmp_path / "ours.h5")
    back = keras_2.models.load_model(tmp_path / "ours.h5")
    assert int(back.optimizer.iterations) == 6
    np.testing.assert_allclose(keras_curve(back, head), curve(ours, head), rtol=2e-5)


@pytest.mark.parametrize("dialect", [dialects.KERAS_3, dialects.KERAS_2, dialects.TFJS], ids=lambda d: d.name)
def test_options_that_a_dialect_lacks_are_never_written(dialect):
    """An activation or a loss that this package may support in the future."""
    model = Sequential([layers.GRU(2, input_shape=(None, 3), reset_after=False), layers.Dense(1)])
    model.compile("sgd", "mse")
    description = model.describe()
    gru, training = description.layers[0], description.training
    gru.config["recurrent_activation"] = "softsign"
    with pytest.raises(ValueError, match=r"^gru: recurrent_activation='softsign' is not supported by"):
        keras_layers.layer_to_config(dialect, gru, "float32")
    training.loss["name"] = "cosine"
    with pytest.raises(ValueError, match=r"^loss: cosine is not supported by"):
        keras_training._written_loss(dialect, training.loss)
