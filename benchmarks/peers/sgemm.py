"""NumPy's float32 matrix product, the measure of this machine's speed."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.serve import Request, Task


def load(threads):
    """Nothing to set: OpenBLAS reads the threads from the environment."""
    return {"numpy": np.__version__}, build


def build(request: Request) -> Task:
    """Return the task: a product of two square matrices of the size `way`."""
    size = int(request.way)
    rng = np.random.default_rng(0)
    a, b = rng.random((2, size, size), np.float32)
    c = np.empty_like(a)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            np.matmul(a, b, out=c)

    return Task({}, run)
