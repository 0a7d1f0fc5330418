"""Custom layers and other classes that are derived from those of this package."""

from __future__ import annotations

import copy
import re

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, formats, layers

pytestmark = pytest.mark.isa_independent


class Sized(layers.GRU):
    """A class with its own constructor, whose arguments are not attributes."""

    def __init__(self, size, **options):
        super().__init__(size, **options)


class Half(layers.Dropout):
    """A class with a constructor without arguments."""

    def __init__(self):
        super().__init__(0.5)


X = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)


def own_model():
    stack = [
        Half(),
        layers.Bidirectional(Sized(3, return_sequences=True)),
        Sized(2),
        layers.Dense(1),
    ]
    model = Sequential(stack)
    model.build((None, None, 3))
    return model


def plain_model():
    stack = [
        layers.Dropout(0.5),
        layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        layers.GRU(2),
        layers.Dense(1),
    ]
    model = Sequential(stack)
    model.build((None, None, 3))
    return model


def test_configurations_are_those_of_the_packages_classes():
    assert Half().options() == {"rate": 0.5}
    assert Sized(3, dropout=0.5).options() == layers.GRU(3, dropout=0.5).options()
    both = layers.Bidirectional(Sized(3))
    assert both.backward_layer.options() == layers.GRU(3, go_backwards=True).options()
    described = own_model().describe()
    assert [layer.class_name for layer in described.layers] == ["Half", "Bidirectional", "Sized", "Dense"]
    for own, plain in zip(described.layers[::2], plain_model().describe().layers[::2], strict=True):
        assert own.config == plain.config


@pytest.mark.parametrize("name", ["m.h5", "m.weights.h5"])
def test_weights_are_saved_and_loaded(tmp_path, name):
    model, plain = own_model(), plain_model()
    model.save_weights(tmp_path / name)
    for other in (own_model(), plain):
        other.load_weights(tmp_path / name)
        np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_weights_that_a_file_format_does_not_store_raise(tmp_path):
    class Scaled(layers.Dense):
        def weight_shapes(self):
            return {**super().weight_shapes(), "scale": (1,)}

        def initial_weights(self, rng):
            return {name: np.ones(shape) for name, shape in self.weight_shapes().items()}

    model = Sequential([Scaled(2, input_shape=(3,), name="head")])
    with pytest.raises(ValueError, match=r"head: Dense is not supported by a file of weights, .* not kernel, bias, sc"):
        model.save_weights(tmp_path / "m.weights.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "write",
    [
        *(lambda model, path, kind=kind: model.save(path, format=kind) for kind in formats.KINDS),
        lambda model, path: copy.deepcopy(model),
        lambda model, path: model.fit(X, X[:, 0, :1], callbacks=fastgru.callbacks.ModelCheckpoint(path), verbose=0),
    ],
    ids=[*formats.KINDS, "copy", "checkpoint"],
)
@pytest.mark.parametrize("stack", ["plain", "within"])
def test_copying_and_saving_such_layers_raises(tmp_path, write, stack):
    gru = Sized(3, input_shape=(None, 3))
    model = Sequential([gru if stack == "plain" else layers.Bidirectional(gru, name="sized"), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="sized: Sized is not supported by copies and files of models, which contain"):
        write(model, tmp_path / "file")
    assert not list(tmp_path.iterdir())


# --- Attributes of models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("metrics", r"set it with compile\("),
        ("layers", r"append a layer with add\("),
        ("parameters", r"model.parameters\[...\] = values"),
    ],
)
def test_assigning_a_read_only_attribute_names_the_remedy(name, remedy):
    class Model(Sequential):
        def __init__(self):
            super().__init__([layers.Dense(1)])
            setattr(self, name, [])

    with pytest.raises(AttributeError, match=rf"^{name}: expected no assignment .*{remedy}"):
        Model()


def test_a_model_without_a_call_of_its_constructor_raises():
    class Model(Sequential):
        def __init__(self):
            self.name = "n"
            super().__init__()

    for use in (Model, lambda: Sequential.__new__(Sequential).layers):
        with pytest.raises(
            AttributeError, match=r"expected super\(\).__init__\(\) before any use .*super\(\).__init__\(\) first"
        ):
            use()


def test_a_subclass_may_redefine_a_read_only_attribute():
    class Model(Sequential):
        metrics = ()

    model = Model([layers.Dense(1)])
    model.metrics = model.own = [1]
    assert model.metrics == model.own == [1]
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'nothing'"):
        _ = model.nothing


# --- A failure changes nothing ----------------------------------------------------------------------------------------


class Raising(fastgru.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        raise MemoryError("no more")


class Unbound(layers.Dense):
    def bind(self, weights, gradients, generator):
        raise MemoryError("no more")


class OtherShape(fastgru.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return np.zeros((7, 7))


@pytest.mark.parametrize("failure", ["initializer", "shape", "bind"])
def test_a_failure_leaves_a_model_that_trains(failure):
    def made(fail):
        fastgru.set_seed(1)
        model = Sequential([layers.GRU(3, input_shape=(None, 3), stateful=True), layers.Dense(3)])
        model.predict(X, batch_size=8)
        if fail:
            wrong = {"initializer": Raising(), "shape": OtherShape(), "bind": "zeros"}[failure]
            layer = (Unbound if failure == "bind" else layers.Dense)(3, kernel_initializer=wrong)
            with pytest.raises((MemoryError, ValueError), match=r"no more|shape"):
                model.add(layer)
        model.compile("sgd", "mse")
        assert model.dtype == model.parameters.dtype == np.float32
        for layer in model.layers:
            for array in layer.parameters.values():
                assert np.shares_memory(array, model.parameters)
        before = model.parameters.copy()
        model.fit(X, X[:, 0], batch_size=8, epochs=2, verbose=0)
        assert (model.parameters != before).any()
        return model

    np.testing.assert_array_equal(made(fail=True).parameters, made(fail=False).parameters)


# --- Writers and layers -----------------------------------------------------------------------------------------------

SMALLEST = {
    "GRU": lambda **more: layers.GRU(2, **more),
    "Bidirectional": lambda **more: layers.Bidirectional(layers.GRU(2), **more),
    "Dense": lambda **more: layers.Dense(2, **more),
    "Embedding": lambda **more: layers.Embedding(6, 2, **more),
    "Activation": lambda **more: layers.Activation("tanh", **more),
    "Masking": lambda **more: layers.Masking(**more),
    "Dropout": lambda **more: layers.Dropout(0.5, **more),
    "Permute": lambda **more: layers.Permute((2, 1), **more),
    "RepeatVector": lambda **more: layers.RepeatVector(2, **more),
    "Reshape": lambda **more: layers.Reshape((3, 4), **more),
    "SpatialDropout1D": lambda **more: layers.SpatialDropout1D(0.5, **more),
    "TimeDistributed": lambda **more: layers.TimeDistributed(layers.Dense(2), **more),
    "Rescaling": lambda **more: layers.Rescaling(0.5, 1, **more),
}


@pytest.mark.peers("onnx")
@pytest.mark.parametrize("name", [*layers.LAYERS, "Own"])
@pytest.mark.parametrize("kind", [kind for kind in formats.KINDS if kind != "fastgru"])
def test_every_writer_writes_a_layer_or_names_it_in_an_error(tmp_path, kind, name):
    make = SMALLEST.get(name) or getattr(layers, name, layers.LastStep)
    shapes = [(None,)] if name == "Embedding" else [(4, 3), (None, 3), (None, None)]
    for number, shape in enumerate(shapes):
        for after in ([], [layers.GRU(2), layers.Dense(2)], [layers.Dense(2)]):
            try:
                model = Sequential([make(input_shape=shape, name="first"), *after])
            except ValueError:  # such layers do not follow each other
                continue
            if not model.built:
                continue
            description = model.describe()
            if name == "Own":
                description.layers[0].class_name = name
            path = tmp_path / f"{number}-{len(after)}"
            refused = _refusal(formats.write, path, description, kind)
            assert refused or name != "Own"
            assert bool(refused) != path.exists()
            if refused:
                assert re.search(r" is not supported by |expected a (layer with weights|GRU or a Dense)", refused)


def _refusal(function, *arguments):
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return ""
