"""Keras on TensorFlow with jit_compile=True, its fastest setting."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.serve import Request, Task


def load(threads):
    """Set TensorFlow's pool of threads within operations, which XLA's code uses."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return {"keras": keras.__version__, "tensorflow": tf.__version__}, build


def make_model(request: Request) -> keras.Model:
    """Return the tutorial's model with logits as output, which makes the loss cheaper and exact."""
    data = request.data
    layers = [keras.Input(data["x"].shape[1:]), keras.layers.GRU(data["recurrent_kernel"].shape[0])]
    weights = [data["kernel"], data["recurrent_kernel"], data["bias"]]
    if request.training:
        layers.append(keras.layers.Dense(data["head_bias"].size))
        weights += [data["head_kernel"], data["head_bias"]]
    model = keras.Sequential(layers)
    model.set_weights(weights)
    return model


def build(request: Request) -> Task:
    keras.backend.clear_session()
    model = make_model(request)
    x, labels = tf.constant(request.data["x"]), tf.constant(request.data["labels"])
    if not request.training:
        forward = tf.function(model, jit_compile=True)  # `predict` takes milliseconds per call

        def infer(repeats: int) -> None:
            for _ in range(repeats):
                forward(x).numpy()

        return Task({"state": forward(x).numpy()}, infer)

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-7), loss=loss_of, jit_compile=True)

    @tf.function(jit_compile=True)
    def gradients():
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(x))
        return tape.gradient(loss, model.trainable_variables)

    names = ("d_kernel", "d_recurrent_kernel", "d_bias", "d_head_kernel", "d_head_bias")
    answers = dict(zip(names, (gradient.numpy() for gradient in gradients()), strict=True))
    # The function that `fit` calls per batch, without callbacks and input pipeline: Keras' step, compiled by XLA.
    model.optimizer.build(model.trainable_variables)
    train_step = tf.function(model.train_step, jit_compile=True)

    def step() -> float:
        return float(train_step((x, labels))["loss"])

    def run(repeats: int) -> None:
        for _ in range(repeats):
            logs = train_step((x, labels))
        logs["loss"].numpy()

    # Keras returns the mean loss since the last reset of the metrics.
    means = np.array([step() for _ in range(3)])
    answers["losses_keras"] = np.diff(means * np.arange(1, 4), prepend=0)
    return Task(answers, run)
