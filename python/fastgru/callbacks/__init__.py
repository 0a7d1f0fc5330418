"""Callbacks of `fastgru.Sequential.fit`, `evaluate` and `predict`, with Keras' names and parameters.

A checkpoint of a training run contains the state of each callback: `Callback.get_state` returns it, and
`Callback.set_state` restores it. A resumed run is bit-identical to an uninterrupted one.
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
