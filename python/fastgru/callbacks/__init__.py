"""Callbacks: what `fastgru.Sequential.fit` tells others about its progress, and what they can do about it.

They have Keras' names and arguments. Each can say its state and take it back, so that a training that was killed goes
on as if it had not been.
"""

from fastgru.callbacks.base import Callback
from fastgru.callbacks.checkpoints import ModelCheckpoint
from fastgru.callbacks.learning_rates import LearningRateScheduler, ReduceLROnPlateau
from fastgru.callbacks.reporting import CSVLogger, LambdaCallback
from fastgru.callbacks.stopping import EarlyStopping, TerminateOnNaN

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
