"""Callbacks of `fastgru.Sequential.fit`, `evaluate` and `predict`, with Keras' names and parameters.

Each callback returns its state by `get_state` and takes it back by `set_state`, so that a resumed training continues
exactly where it was interrupted.
"""

from fastgru.callbacks.base import Callback
from fastgru.callbacks.checkpoints import BackupAndRestore, ModelCheckpoint
from fastgru.callbacks.history import History
from fastgru.callbacks.learning_rates import LearningRateScheduler, ReduceLROnPlateau
from fastgru.callbacks.reporting import CSVLogger, LambdaCallback
from fastgru.callbacks.stopping import EarlyStopping, TerminateOnNaN
from fastgru.callbacks.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
