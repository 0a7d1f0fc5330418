"""Names that Keras or PyTorch has and this package does not, and misspelt names."""

from __future__ import annotations

import pytest
from fastgru import layers
from fastgru._support.elsewhere import missing

pytestmark = pytest.mark.isa_independent


def test_an_entry_of_the_table_is_in_the_message():
    error = missing(layers.__name__, "LSTM", {"LSTM": "use layers.GRU"})
    assert str(error) == "module 'fastgru.layers' has no attribute 'LSTM'; use layers.GRU"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Dens", "Dense"), ("global_max_pooling1d", "GlobalMaxPooling1D"), ("Embeding", "Embedding"), ("gru", "GRU")],
)
def test_a_misspelt_name_gets_the_nearest(name, nearest):
    message = f"module 'fastgru.layers' has no attribute '{name}'; did you mean '{nearest}'?"
    assert str(missing(layers.__name__, name, {})) == message


@pytest.mark.parametrize("name", ["Nothing", "__path__", "_private"])
def test_other_names_get_no_suggestion(name):
    assert str(missing(layers.__name__, name, {})) == f"module 'fastgru.layers' has no attribute '{name}'"
