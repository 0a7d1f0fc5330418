"""Initializers and regularizers as users type them: names, classes, functions, seeds, own classes, files."""

from __future__ import annotations

import doctest

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, initializers, layers, load_model, regularizers

X = np.random.default_rng(0).normal(size=(8, 5, 2)).astype(np.float32)


def quarter(shape, dtype=None):
    return np.full(shape, 0.25, dtype)


def kernel(initializer):
    fastgru.set_seed(1)
    return (
        Sequential([layers.Dense(3, kernel_initializer=initializer, input_shape=(2,))]).layers[0].parameters["kernel"]
    )


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_a_name_a_class_and_an_object_draw_the_same(name):
    cls = initializers.INITIALIZERS[name]
    expected = kernel(name)
    for same in (cls, cls(), cls.__name__, {"class_name": cls.__name__, "config": cls().get_config()}):
        np.testing.assert_array_equal(kernel(same), expected)
    if hasattr(initializers, name):
        assert getattr(initializers, name) is cls
    assert type(initializers.get(name)) is type(initializers.get(cls.__name__)) is cls


@pytest.mark.parametrize("name", ["GlorotUniform", "HeNormal", "Orthogonal", "RandomNormal", "VarianceScaling"])
def test_a_seed_gives_the_same_weights_each_time(name, tmp_path):
    made = getattr(initializers, name)(seed=3)
    np.testing.assert_array_equal(made((4, 5)), made((4, 5)))
    stack = [layers.Dense(2, kernel_initializer=made, input_shape=(2,)), layers.Dense(2, kernel_initializer=made)]
    model = Sequential(stack)
    one, other = (layer.parameters["kernel"] for layer in model.layers)
    np.testing.assert_array_equal(one, other)
    assert (made((4, 5)) != getattr(initializers, name)(seed=4)((4, 5))).any()
    model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors").layers[1]
    assert repr(loaded.kernel_initializer) == repr(made)
    assert repr(made) in repr(model)
    model.save(tmp_path / "m.keras")
    load_model(tmp_path / "m.keras")


@pytest.mark.peers("tensorflow")
def test_keras_reads_initializers_with_options(tmp_path, keras):
    for made in (
        initializers.GlorotUniform(seed=3),
        initializers.Orthogonal(2.0),
        initializers.VarianceScaling(0.5, "fan_out", "uniform", seed=1),
        initializers.Constant(0.5),
    ):
        model = Sequential([layers.Dense(2, kernel_initializer=made, kernel_regularizer="l2", input_shape=(2,))])
        model.save(tmp_path / "m.keras")
        theirs = keras.models.load_model(tmp_path / "m.keras").layers[0].kernel_initializer
        assert type(theirs).__name__ == type(made).__name__
        assert made.get_config().items() <= theirs.get_config().items()
        if not getattr(made, "seed", None):  # which is not read: the weights are there
            assert repr(load_model(tmp_path / "m.keras").layers[0].kernel_initializer) == repr(made)


def test_a_function_of_shape_and_dtype_is_an_initializer(tmp_path):
    np.testing.assert_array_equal(kernel(quarter), np.full((2, 3), 0.25, np.float32))
    with pytest.raises(ValueError, match=r"initializer: expected numbers of shape \(2, 3\) from <lambda>, got float64"):
        kernel(lambda shape, dtype: np.zeros(3))


class Own(initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return np.full(shape, 0.5)


class Squares(regularizers.Regularizer):
    def penalty(self, weight):
        return float((weight**2).sum())

    def add_gradient(self, weight, gradient):
        gradient += 2 * weight


@pytest.mark.parametrize(
    "options", [{"kernel_initializer": quarter}, {"kernel_initializer": Own()}, {"kernel_regularizer": Squares()}]
)
@pytest.mark.parametrize("name", ["m.safetensors", "m.keras"])
def test_files_refuse_functions_and_own_classes_with_a_way_out(tmp_path, options, name):
    model = Sequential([layers.Dense(3, name="head", input_shape=(2,), **options)])
    (option,) = options
    with pytest.raises(ValueError, match=rf"head: {option}=.* set layer.{option} to one of fastgru's"):
        model.save(tmp_path / name)
    setattr(model.layers[0], option, None if "regularizer" in option else "zeros")
    model.save(tmp_path / name)
    np.testing.assert_array_equal(load_model(tmp_path / name).parameters, model.parameters)


def test_an_own_regularizer_trains_as_the_same_of_the_package():
    found = []
    for regularizer in (
        Squares(),
        regularizers.L2(1.0),
        regularizers.l1_l2(l2=1.0),
        {"class_name": "l2", "config": {"l2": 1}},
    ):
        fastgru.set_seed(1)
        model = Sequential([layers.GRU(3, kernel_regularizer=regularizer, input_shape=(5, 2))])
        model.compile("sgd", "mse")
        model.fit(X, X[:, 0, :1] + np.zeros(3), verbose=0)
        found.append(model.parameters.copy())
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)


@pytest.mark.parametrize("cls", [initializers.Initializer, regularizers.Regularizer])
def test_the_examples_of_own_classes_work(cls):
    (example,) = (each for each in doctest.DocTestFinder().find(cls, globs={}) if each.examples)
    assert doctest.DocTestRunner(verbose=False).run(example, clear_globs=False).failed == 0
    model = Sequential([example.globs["layer"]])
    model.compile("sgd", "mse")
    x = X if cls is initializers.Initializer else X[:, 0]
    model.fit(x, X[:, 0, :1] + np.zeros(4), verbose=0)


def test_the_penalty_of_an_own_class_has_its_gradient():
    globs: dict = {}
    (example,) = (each for each in doctest.DocTestFinder().find(regularizers.Regularizer, globs=globs) if each.examples)
    doctest.DocTestRunner(verbose=False).run(example, clear_globs=False)
    smooth, w = example.globs["Smooth"](), np.array([0.5, -1.5])
    gradient = np.zeros(2)
    smooth.add_gradient(w, gradient)
    step = np.array([1e-6, 0])
    assert gradient[0] == pytest.approx((smooth(w + step) - smooth(w - step)) / 2e-6, rel=1e-8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: initializers.get("xavier"), ValueError, "initializer: expected one of 'glorot_uniform'"),
        (lambda: layers.Dense(2, kernel_initializer=3), ValueError, "kernel_initializer: expected one of"),
        (lambda: initializers.VarianceScaling(mode="fan"), ValueError, "mode: expected one of 'fan_in'"),
        (lambda: initializers.HeNormal(input_axes=0), ValueError, "input_axes: expected None"),
        (lambda: initializers.GlorotUniform(seed=-1), ValueError, "seed: expected an integer of at least 0"),
        (lambda: initializers.xavier_uniform_, AttributeError, "use initializers.GlorotUniform"),
        (lambda: regularizers.get("l3"), ValueError, "regularizer: expected one of 'l1', 'l2'"),
        (
            lambda: layers.Dense(2, bias_regularizer=abs),
            TypeError,
            "bias_regularizer: .* got a function; derive a class",
        ),
        (lambda: regularizers.OrthogonalRegularizer, AttributeError, "derive a class from regularizers.Regularizer"),
    ],
)
def test_what_they_lack_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()
