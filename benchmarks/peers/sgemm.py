"""NumPy's float32 matrix product: what this machine can do, and the measure of all others."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.serve import Request, Task


def load(threads):
    """OpenBLAS takes its threads from the environment."""
    return {"numpy": np.__version__}, build


def build(request: Request) -> Task:
    """A product of two square matrices, of the size that `way` says."""
    size = int(request.way)
    rng = np.random.default_rng(0)
    a, b = rng.random((2, size, size), np.float32)
    c = np.empty_like(a)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            np.matmul(a, b, out=c)

    return Task({}, run)
