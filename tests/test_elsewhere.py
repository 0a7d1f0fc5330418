"""Names that Keras or PyTorch has and this package does not, and misspelt names."""

from __future__ import annotations

import importlib
import re

import pytest
from fastgru import Sequential, layers, models
from fastgru._support.elsewhere import missing

pytestmark = pytest.mark.isa_independent


def test_an_entry_of_the_table_is_in_the_message():
    error = missing(layers.__name__, "LSTM", {"LSTM": "use layers.GRU"})
    assert str(error) == "module 'fastgru.layers' has no attribute 'LSTM'; use layers.GRU"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Dens", "Dense"),
        ("global_max_pooling1d", "GlobalMaxPooling1D"),
        ("TimeDistribute", "TimeDistributed"),
        ("gru", "GRU"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(name, nearest):
    message = f"module 'fastgru.layers' has no attribute '{name}'; did you mean '{nearest}'?"
    assert str(missing(layers.__name__, name, {})) == message


@pytest.mark.parametrize("name", ["Nothing", "__path__", "_private"])
def test_other_names_get_no_suggestion(name):
    assert str(missing(layers.__name__, name, {})) == f"module 'fastgru.layers' has no attribute '{name}'"


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("fastgru", "pad_sequences", "use utils.pad_sequences, which pads as in Keras, or utils.pad_with_lengths"),
        ("fastgru", "Model", "use Sequential, or build the model in Keras and use fastgru.keras.GRU"),
        ("fastgru", "keras", "write import fastgru.keras, which imports its framework"),
        ("fastgru", "Sequental", "did you mean 'Sequential'?"),
        ("fastgru.layers", "LSTM", "use layers.GRU, or build the model in Keras and use fastgru.keras.GRU"),
        ("fastgru.layers", "lstm", "use layers.GRU, or build the model in Keras and use fastgru.keras.GRU"),
        ("fastgru.layers", "TextVectorization", "convert text to integers, and pass them to layers.Embedding"),
        ("fastgru.utils", "plot_model", r"use model.summary()"),
        ("fastgru.datasets", "imdb", "load the data with NumPy"),
    ],
)
def test_names_of_other_packages_say_what_to_use(module, name, message):
    found = importlib.import_module(module)
    if name in vars(found):
        pytest.skip("imported by another test")
    with pytest.raises(AttributeError, match=f"^module '{module}' has no attribute '{name}'; .*{re.escape(message)}"):
        getattr(found, name)


def test_an_import_has_the_message_too():
    with pytest.raises(ImportError, match=r"no attribute 'LSTM'; use layers.GRU"):
        from fastgru.layers import LSTM  # noqa: F401
    with pytest.raises(ImportError, match=r"no attribute 'Sequental'; did you mean 'Sequential'"):
        from fastgru import Sequental  # noqa: F401
    assert not hasattr(layers, "LSTM")


@pytest.mark.parametrize("module", ["", ".layers", ".utils"])
def test_tables_name_what_is_missing_alone(module):
    ours = importlib.import_module(f"fastgru{module}")
    assert not ours._ELSEWHERE.keys() & set(ours.__all__)


def test_attributes_of_keras_models_name_what_to_use():
    with pytest.raises(AttributeError, match=r"no attribute 'export'; use save\('model.onnx'\)"):
        Sequential().export("folder")
    with pytest.raises(AttributeError, match="no attribute 'Model'; use Sequential"):
        models.Model()
