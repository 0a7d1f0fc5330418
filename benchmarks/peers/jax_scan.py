"""JAX: the training step in one jitted function, with a scan over time; the variant "unrolled" unrolls it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.serve import Request, Task

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7


def load(threads):
    """Nothing to set: XLA uses as many threads as the process has processors."""
    return {"jax": jax.__version__}, build


def last_state(weights, x, unroll):
    """Compute the last state. One large product of all inputs before the scan replaces T small ones."""
    x_gates = jnp.swapaxes(x, 0, 1) @ weights["kernel"] + weights["bias"][0]
    initial = jnp.zeros((x.shape[0], weights["recurrent_kernel"].shape[0]), x.dtype)

    def step(h, x_t):
        x_z, x_r, x_h = jnp.split(x_t, 3, axis=-1)
        h_z, h_r, h_h = jnp.split(h @ weights["recurrent_kernel"] + weights["bias"][1], 3, axis=-1)
        z, r = jax.nn.sigmoid(x_z + h_z), jax.nn.sigmoid(x_r + h_r)
        return z * h + (1 - z) * jnp.tanh(x_h + r * h_h), None

    return jax.lax.scan(step, initial, x_gates, unroll=unroll)[0]


def loss_of(weights, x, labels, unroll):
    logits = last_state(weights, x, unroll) @ weights["head_kernel"] + weights["head_bias"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


@partial(jax.jit, donate_argnums=(0, 1, 2, 3), static_argnames="unroll")
def train_step(weights, m, v, count, x, labels, unroll):
    """Run forward, loss, backward and Adam; new weights and moments reuse the memory of the old ones."""
    loss, gradients = jax.value_and_grad(loss_of)(weights, x, labels, unroll)
    count = count + 1
    rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
    m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, v, gradients)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, m, v)
    return weights, m, v, count, loss


def build(request: Request) -> Task:
    x, labels = jnp.asarray(request.data["x"]), jnp.asarray(request.data["labels"])
    names = ("kernel", "recurrent_kernel", "bias", "head_kernel", "head_bias")
    weights = {name: jnp.array(request.data[name]) for name in names}
    unroll = x.shape[1] if request.way == "unrolled" else 1
    if not request.training:
        forward = jax.jit(partial(last_state, unroll=unroll))

        def infer(repeats: int) -> None:
            for _ in range(repeats):
                forward(weights, x).block_until_ready()

        return Task({"state": np.asarray(forward(weights, x))}, infer)

    gradients = jax.jit(jax.grad(partial(loss_of, unroll=unroll)))(weights, x, labels)
    answers = {f"d_{name}": np.asarray(value) for name, value in gradients.items()}
    state = (weights, *({name: jnp.zeros_like(w) for name, w in weights.items()} for _ in "mv"), jnp.zeros(()))

    def step():
        nonlocal state
        *state, loss = train_step(*state, x, labels, unroll)
        return loss

    def run(repeats: int) -> None:
        for _ in range(repeats):
            loss = step()
        loss.block_until_ready()

    answers["losses_keras"] = np.array([float(step()) for _ in range(3)])
    return Task(answers, run)
