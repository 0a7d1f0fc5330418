"""Models, and fifty training steps, compared with PyTorch with the same weights and batches.

`nn.GRU` of any depth and direction is a stack of `layers.GRU` or `layers.Bidirectional`; its packed sequences are
`lengths=` here, with ``zero_output_for_mask=True``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastgru
import numpy as np
import peers
import pytest
from fastgru import Sequential, layers, losses, optimizers, schedules

torch = peers.require("torch")

ROWS, T, F, H, C = 7, 6, 4, 5, 3
STEPS = 50


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread: two of PyTorch's would wait for each other longer than these sizes take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torch_order(array):
    """Convert Keras' z, r, h columns to PyTorch's r, z, n rows."""
    z, r, n = np.split(array, 3, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(np.concatenate([r, z, n], axis=-1).T))


class Peer(torch.nn.Module):
    """`nn.GRU` and a linear layer, on the last states or on every step."""

    def __init__(self, depth, bidirectional, each_step):
        super().__init__()
        self.gru = torch.nn.GRU(F, H, depth, batch_first=True, bidirectional=bidirectional)
        self.head = torch.nn.Linear(H * (1 + bidirectional), C)
        self.each_step = each_step
        self.double()

    def forward(self, x, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, states = self.gru(packed)
        if self.each_step:
            outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=T)
            return self.head(outputs)
        last = torch.cat([states[-2], states[-1]], dim=-1) if self.gru.bidirectional else states[-1]
        return self.head(last)


def ours(depth, bidirectional, each_step):
    stack = []
    for number in range(depth):
        sequences = each_step or number + 1 < depth
        gru = layers.GRU(
            H,
            return_sequences=sequences,
            zero_output_for_mask=True,
            bias_initializer=fastgru.initializers.RandomNormal(),
        )
        stack.append(layers.Bidirectional(gru) if bidirectional else gru)
    model = Sequential([*stack, layers.Dense(C)], dtype="float64")
    model.build((None, T, F))
    return model


def copy_weights(chain, peer):
    """Convert GRUs and a Dense layer to PyTorch."""
    *stack, dense = chain
    with torch.no_grad():
        for number, layer in enumerate(stack):
            directions = {"forward/": "", "backward/": "_reverse"} if peer.gru.bidirectional else {"": ""}
            for prefix, suffix in directions.items():
                for name, array in (
                    ("weight_ih", layer.parameters[f"{prefix}kernel"]),
                    ("weight_hh", layer.parameters[f"{prefix}recurrent_kernel"]),
                    ("bias_ih", layer.parameters[f"{prefix}bias"][0]),
                    ("bias_hh", layer.parameters[f"{prefix}bias"][1]),
                ):
                    getattr(peer.gru, f"{name}_l{number}{suffix}").copy_(torch_order(array))
        peer.head.weight.copy_(torch.from_numpy(dense.parameters["kernel"].T))
        peer.head.bias.copy_(torch.from_numpy(dense.parameters["bias"]))


def data(each_step, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (ROWS, T, F))
    lengths = rng.integers(1, T + 1, ROWS)  # PyTorch does not support empty sequences
    lengths[seed % ROWS] = T
    y = rng.integers(0, C, (ROWS, T) if each_step else ROWS)
    return x, y, lengths


architectures = pytest.mark.parametrize("each_step", [False, True])
depths = pytest.mark.parametrize("depth", [1, 3])
directions = pytest.mark.parametrize("bidirectional", [False, True])


@architectures
@depths
@directions
def test_outputs_of_packed_sequences(depth, bidirectional, each_step):
    model, peer = ours(depth, bidirectional, each_step), Peer(depth, bidirectional, each_step)
    copy_weights(model.layers, peer)
    x, _, lengths = data(each_step)
    expected = peer(torch.from_numpy(x), torch.from_numpy(lengths)).detach().numpy()
    np.testing.assert_allclose(model.predict(x, lengths=lengths), expected, rtol=1e-12, atol=1e-13)


# --- Training ------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """Return an optimizer in both libraries; PyTorch's schedule advances with it."""

    mine: Callable[[], Any]
    theirs: Callable[[Any], Any]
    schedule: Callable[[Any], Any] | None = None
    clip: float | None = None


JOBS = {
    "Adam": Job(
        lambda: optimizers.Adam(0.02, epsilon=1e-4, form="pytorch"),
        lambda parameters: torch.optim.Adam(parameters, 0.02, eps=1e-4),
    ),
    "AdamW, one cycle": Job(
        lambda: optimizers.AdamW(
            schedules.OneCycle(0.02, STEPS), weight_decay=0.1, beta_2=0.95, epsilon=1e-4, form="pytorch"
        ),
        lambda parameters: torch.optim.AdamW(parameters, 0.02, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-4),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.02, STEPS, cycle_momentum=False, anneal_strategy="cos"
        ),
    ),
    "SGD, Nesterov, exponential": Job(
        lambda: optimizers.SGD(schedules.ExponentialDecay(0.1, 1, 0.97), momentum=0.9, nesterov=True, form="pytorch"),
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97),
    ),
    "RMSprop, centered": Job(
        lambda: optimizers.RMSprop(0.003, rho=0.9, momentum=0.5, epsilon=1e-2, centered=True, form="pytorch"),
        lambda parameters: torch.optim.RMSprop(parameters, 0.003, alpha=0.9, momentum=0.5, eps=1e-2, centered=True),
    ),
    "Adam, clipped values": Job(
        lambda: optimizers.Adam(0.02, epsilon=1e-4, form="pytorch", clipvalue=0.01),
        lambda parameters: torch.optim.Adam(parameters, 0.02, eps=1e-4),
        clip=0.01,
    ),
}


@pytest.mark.slow
@architectures
@directions
@pytest.mark.parametrize("name", JOBS)
def test_fifty_steps_of_training(name, bidirectional, each_step):
    job = JOBS[name]
    fastgru.set_seed(1)
    model, peer = ours(2, bidirectional, each_step), Peer(2, bidirectional, each_step)
    copy_weights(model.layers, peer)
    model.compile(job.mine(), losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer = job.theirs(peer.parameters())
    schedule = job.schedule(optimizer) if job.schedule else None
    found, expected = [], []
    for step in range(STEPS):
        x, y, lengths = data(each_step, seed=step)
        found.append(model.train_on_batch(x, y, lengths=lengths))

        counted = np.arange(T) < lengths[:, None] if each_step else np.ones(ROWS, bool)
        scores = peer(torch.from_numpy(x), torch.from_numpy(lengths))
        loss = torch.nn.functional.cross_entropy(scores[torch.from_numpy(counted)], torch.from_numpy(y[counted]))
        optimizer.zero_grad()
        loss.backward()
        if job.clip is not None:
            torch.nn.utils.clip_grad_value_(peer.parameters(), job.clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        expected.append(loss.item())
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert expected[-1] != pytest.approx(expected[0], rel=1e-3)


@pytest.mark.parametrize("name", ["Adam", "RMSprop, centered"])
def test_repeated_tokens(name):
    """Keras on TensorFlow does not add up the parts of a token's gradient, so it cannot be the reference here."""
    job = JOBS[name]
    model = Sequential([layers.Embedding(5, F), layers.GRU(H), layers.Dense(C)], dtype="float64")
    model.build((None, T))
    embedding, peer = torch.nn.Embedding(5, F).double(), Peer(1, False, False)
    embedding.load_state_dict({"weight": torch.from_numpy(model.layers[0].parameters["embeddings"].copy())})
    copy_weights(model.layers[1:], peer)
    model.compile(job.mine(), losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer = job.theirs([*embedding.parameters(), *peer.parameters()])
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(STEPS):
        x, y = rng.integers(0, 5, (ROWS, T)), rng.integers(0, C, ROWS)
        found.append(model.train_on_batch(x, y))
        scores = peer(embedding(torch.from_numpy(x)), torch.full((ROWS,), T))
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    tokens = embedding.weight.detach().numpy()
    np.testing.assert_allclose(model.layers[0].parameters["embeddings"], tokens, rtol=1e-8, atol=1e-10)


def test_the_norm_is_clipped_where_pytorch_clips_it():
    """PyTorch divides by the norm plus 1e-6, hence the tolerance."""
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=20)
    tensor = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    tensor.grad = torch.from_numpy(gradient.copy())
    torch.nn.utils.clip_grad_norm_([tensor], 0.5)
    parameters = np.zeros(20)
    optimizers.SGD(1.0, global_clipnorm=0.5).update(parameters, gradient)
    np.testing.assert_allclose(-parameters, tensor.grad.numpy(), rtol=1e-6)
