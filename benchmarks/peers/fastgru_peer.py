"""fastgru itself, and the reference of every comparison."""

from __future__ import annotations

import fastgru
import numpy as np
from fastgru import Sequential, _native, functional, layers, optimizers

from benchmarks.peers.serve import Request, Task

#: `fit` is timed over this many samples a call, as an epoch's overheads are spread over its batches; over fewer where
#: they would take more memory than this.
RESIDENT_SAMPLES, RESIDENT_BYTES = 4096, 2**26


def load(threads):
    """The kernels are those of FASTGRU_ISA or the best."""
    return {"fastgru": fastgru.__version__, "isa": _native.ISA, "compiler": _native.kernels.__compiler__}, build


def build(request: Request) -> Task:
    """A task for the question; "fit" trains through `Sequential.fit` with the data in memory."""
    fastgru.set_num_threads(request.threads)
    if not request.training:
        return inference(request)
    return fitting(request) if request.way == "fit" else stepping(request)


def gru_weights(request: Request) -> dict[str, np.ndarray]:
    """The GRU's weights; before the reset there is but one bias."""
    data = request.data
    bias = data["bias"] if request.reset_after else data["bias"][0]
    return {"kernel": data["kernel"], "recurrent_kernel": data["recurrent_kernel"], "bias": bias}


def inference(request: Request) -> Task:
    """Forward, last state."""
    x, weights = request.data["x"], gru_weights(request)

    def forward() -> np.ndarray:
        return functional.gru_forward(x, **weights, reset_after=request.reset_after, return_sequences=False)[1]

    def run(repeats: int) -> None:
        for _ in range(repeats):
            forward()

    return Task({"state": forward()}, run)


def make_model(request: Request, adam: str = "keras") -> Sequential:
    """GRU and softmax head with the given weights, and that form of Adam."""
    data = request.data
    gru = layers.GRU(
        data["recurrent_kernel"].shape[0], input_shape=data["x"].shape[1:], reset_after=request.reset_after
    )
    model = Sequential([gru, layers.Dense(data["head_bias"].size, activation="softmax")])
    model.set_weights([*gru_weights(request).values(), data["head_kernel"], data["head_bias"]])
    model.compile(optimizers.Adam(form=adam), "categorical_crossentropy", metrics=["accuracy"])
    return model


def gradients(model: Sequential) -> dict[str, np.ndarray]:
    """Copies of the last step's gradients."""
    gru, head = (layer.gradients for layer in model.layers)
    named = {f"d_{name}": value for name, value in gru.items()}
    named |= {f"d_head_{name}": value for name, value in head.items()}
    return {name: value.copy() for name, value in named.items()}


def stepping(request: Request) -> Task:
    """`train_on_batch`; its answers are the reference for every peer."""
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
    """`fit` over an epoch of the same batch."""
    x, labels = request.data["x"], request.data["labels"]
    rows = len(x)
    batches = max(1, min(RESIDENT_SAMPLES // rows, RESIDENT_BYTES // x.nbytes))
    many_x, many_labels = np.tile(x, (batches, 1, 1)), np.tile(labels, batches)
    model = make_model(request)

    def run(repeats: int) -> None:
        model.fit(many_x, many_labels, batch_size=rows, epochs=repeats, verbose=0)

    return Task(three_steps(make_model(request), request, "keras"), run, batches)


def three_steps(model: Sequential, request: Request, adam: str) -> dict[str, np.ndarray]:
    """The losses of three steps, and the first one's gradients."""
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
    """What a peer without loss and head is compared with: gradients of sum(state * d_state)."""
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
