"""Data preparation as in ``keras.utils``: labels, padding, windows of time series, and the random seed."""

from fastgru._support.elsewhere import missing
from fastgru._support.seeding import set_seed as set_random_seed
from fastgru._support.sequences import pad_with_lengths
from fastgru.utils.arrays import normalize, split_dataset, to_categorical
from fastgru.utils.padding import pad_sequences
from fastgru.utils.windows import TimeSeriesDataset, timeseries_dataset_from_array

__all__ = [
    "TimeSeriesDataset",
    "normalize",
    "pad_sequences",
    "pad_with_lengths",
    "set_random_seed",
    "split_dataset",
    "timeseries_dataset_from_array",
    "to_categorical",
]

# Pickles and messages name the public module.
pad_with_lengths.__module__ = __name__

_BATCHES = "pass an iterable of batches (x, y) to fit"
_ELSEWHERE = {
    "PyDataset": _BATCHES,
    "Sequence": _BATCHES,
    "Progbar": "fit prints its own progress; pass verbose=1",
    "custom_object_scope": "load_model supports fastgru's layers only; create the model and call load_weights",
    "get_custom_objects": "load_model supports fastgru's layers only; create the model and call load_weights",
    "register_keras_serializable": "load_model supports fastgru's layers only; create the model and call load_weights",
    "get_file": "download the file by other means and load it with numpy",
    "image_dataset_from_directory": "load the images with another package and pass arrays to fit",
    "plot_model": "use model.summary()",
    "model_to_dot": "use model.summary()",
    "clear_session": "delete the model; fastgru has no global session",
}


def __getattr__(name: str) -> object:
    raise missing(__name__, name, _ELSEWHERE)
