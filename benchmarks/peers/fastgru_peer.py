"""fastgru itself, the reference of every comparison."""

from __future__ import annotations

import fastgru
import numpy as np
from fastgru import Sequential, _native, functional, layers, optimizers

from benchmarks.peers.serve import Request, Task

#: `fit` is timed over this many samples per call, because the overhead of an epoch is shared by its batches; over fewer
#: if they would need more memory than this.
RESIDENT_SAMPLES, RESIDENT_BYTES = 4096, 2**26


def load(threads):
    """Load the kernels of FASTGRU_ISA or the best ones."""
    return {"fastgru": fastgru.__version__, "isa": _native.ISA, "compiler": _native.kernels.__compiler__}, build


def build(request: Request) -> Task:
    """Return the task of the question; "fit" trains through `Sequential.fit` with the data in memory."""
    fastgru.set_num_threads(request.threads)
    if not request.training:
        return inference(request)
    return fitting(request) if request.way == "fit" else stepping(request)


def gru_weights(request: Request) -> dict[str, np.ndarray]:
    """Return the GRU's weights; with reset_after=False there is one bias."""
    data = request.data
    bias = data["bias"] if request.reset_after else data["bias"][0]
    return {"kernel": data["kernel"], "recurrent_kernel": data["recurrent_kernel"], "bias": bias}


def inference(request: Request) -> Task:
    """Return the task of a forward pass to the last state."""
    x, weights = request.data["x"], gru_weights(request)

    def forward() -> np.ndarray:
        return functional.gru_forward(x, **weights, reset_after=request.reset_after, return_sequences=False)[1]

    def run(repeats: int) -> None:
        for _ in range(repeats):
            forward()

    return Task({"state": forward()}, run)


def make_model(request: Request, adam: str = "keras") -> Sequential:
    """Return a GRU and a softmax head with the given weights and form of Adam."""
    data = request.data
    gru = layers.GRU(
        data["recurrent_kernel"].shape[0], input_shape=data["x"].shape[1:], reset_after=request.reset_after
    )
    model = Sequential([gru, layers.Dense(data["head_bias"].size, activation="softmax")])
    model.set_weights([*gru_weights(request).values(), data["head_kernel"], data["head_bias"]])
    model.compile(optimizers.Adam(form=adam), "categorical_crossentropy", metrics=["accuracy"])
    return model


def gradients(model: Sequential) -> dict[str, np.ndarray]:
    """Return copies of the last step's gradients."""
    gru, head = (layer.gradients for layer in model.layers)
    named = {f"d_{name}": value for name, value in gru.items()}
    named |= {f"d_head_{name}": value for name, value in head.items()}
    return {name: value.copy() for name, value in named.items()}


def stepping(request: Request) -> Task:
    """Return the task of `train_on_batch`, whose answers are the reference for every peer."""
    x, labels = request.data["x"], request.data["labels"]
    model = make_model(request)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            model.train_on_batch(x, labels)

    answers = kernels_alone(request)
    for adam in ("keras", "pytorch"):
        answers |= three_steps(make_model(request, adam), request, adam)
    return Task(answers, run)


def fitting(request: Request) -> Task:
    """Return the task of `fit` over an epoch of the same batch."""
    x, labels = request.data["x"], request.data["labels"]
    rows = len(x)
    batches = max(1, min(RESIDENT_SAMPLES // rows, RESIDENT_BYTES // x.nbytes))
    many_x, many_labels = np.tile(x, (batches, 1, 1)), np.tile(labels, batches)
    model = make_model(request)

    def run(repeats: int) -> None:
        model.fit(many_x, many_labels, batch_size=rows, epochs=repeats, verbose=0)

    return Task(three_steps(make_model(request), request, "keras"), run, batches)


def three_steps(model: Sequential, request: Request, adam: str) -> dict[str, np.ndarray]:
    """Return the losses of three steps, and the gradients of the first."""
    x, labels = request.data["x"], request.data["labels"]
    fit = request.way == "fit"

    def step() -> float:
        if fit:
            return model.fit(x, labels, batch_size=len(x), shuffle=False, verbose=0).history["loss"][0]
        return model.train_on_batch(x, labels)[0]

    first = step()
    found = gradients(model)
    return found | {f"losses_{adam}": np.array([first, step(), step()])}


def kernels_alone(request: Request) -> dict[str, np.ndarray]:
    """Return the reference for a peer without loss and head: gradients of sum(state * d_state)."""
    tape = functional.GRUTape()
    _, state = functional.gru_forward(
        request.data["x"], **gru_weights(request), reset_after=request.reset_after, return_sequences=False, tape=tape
    )
    found = functional.gru_backward(tape, d_state=request.data["d_state"], input_gradient=False)
    return {
        "state": state,
        "kernels_d_kernel": found.kernel,
        "kernels_d_recurrent_kernel": found.recurrent_kernel,
        "kernels_d_bias": found.bias,
    }
