"""PyTorch: nn.GRU with a fused Adam, eager or under torch.compile."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.peers.serve import Arrays, Request, Task


def load(threads):
    """Set the threads within an operation; operations do not run in parallel here."""
    torch.set_num_threads(threads)
    return {"torch": torch.__version__}, build


def to_rows(columns: np.ndarray) -> torch.Tensor:
    """Convert Keras' z, r, h columns to PyTorch's r, z, n rows."""
    z, r, n = np.split(columns, 3, axis=-1)
    return torch.from_numpy(np.concatenate([r, z, n], axis=-1).T.copy())


def to_columns(rows: torch.Tensor) -> np.ndarray:
    """And back."""
    r, z, n = np.split(rows.numpy(), 3, axis=0)
    return np.concatenate([z, r, n], axis=0).T


class Network(torch.nn.Module):
    """A GRU, and a head on its last state."""

    def __init__(self, data: Arrays) -> None:
        super().__init__()
        features, units = data["kernel"].shape[0], data["recurrent_kernel"].shape[0]
        self.gru = torch.nn.GRU(features, units, batch_first=True)
        self.head = torch.nn.Linear(units, data["head_bias"].size)
        with torch.no_grad():
            self.gru.weight_ih_l0.copy_(to_rows(data["kernel"]))
            self.gru.weight_hh_l0.copy_(to_rows(data["recurrent_kernel"]))
            self.gru.bias_ih_l0.copy_(to_rows(data["bias"][:1])[:, 0])
            self.gru.bias_hh_l0.copy_(to_rows(data["bias"][1:])[:, 0])
            self.head.weight.copy_(torch.from_numpy(data["head_kernel"].T.copy()))
            self.head.bias.copy_(torch.from_numpy(data["head_bias"]))

    def state(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[1][0]

    def loss(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.head(self.state(x)), labels)

    def gradients(self) -> Arrays:
        """Return the gradients in Keras' layout."""
        gru, head = self.gru, self.head
        biases = [to_columns(bias.grad[:, None])[0] for bias in (gru.bias_ih_l0, gru.bias_hh_l0)]
        return {
            "d_kernel": to_columns(gru.weight_ih_l0.grad),
            "d_recurrent_kernel": to_columns(gru.weight_hh_l0.grad),
            "d_bias": np.stack(biases),
            "d_head_kernel": head.weight.grad.numpy().T.copy(),
            "d_head_bias": head.bias.grad.numpy().copy(),
        }


def compiler(way: str):
    """Return torch.compile or the identity. By default Dynamo runs nn.GRU in eager mode; allow_rnn compiles it."""
    if way != "compile":
        return lambda function: function
    torch._dynamo.reset()  # otherwise the second shape is compiled as a dynamic one
    torch._dynamo.config.allow_rnn = True
    return torch.compile


def build(request: Request) -> Task:
    network = Network(request.data)
    x = torch.from_numpy(request.data["x"])
    compiled = compiler(request.way)
    if not request.training:
        forward = compiled(network.state)

        def infer(repeats: int) -> None:
            with torch.inference_mode():
                for _ in range(repeats):
                    forward(x)

        with torch.inference_mode():
            return Task({"state": forward(x).numpy()}, infer)

    labels = torch.from_numpy(request.data["labels"].astype(np.int64))
    loss_of = compiled(network.loss)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, labels)
        loss.backward()
        optimizer.step()
        return loss

    def run(repeats: int) -> None:
        for _ in range(repeats):
            step()

    first = step().item()
    gradients = network.gradients()
    return Task(gradients | {"losses_pytorch": np.array([first, step().item(), step().item()])}, run)
