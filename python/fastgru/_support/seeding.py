"""Random numbers: one generator per model, all derived from the seed of `set_seed`.

NumPy's global random state is neither read nor changed.
"""

from __future__ import annotations

import threading

import numpy as np

from fastgru._support import checks

_lock = threading.Lock()
_root = np.random.SeedSequence()


def set_seed(seed: int) -> None:
    """Set the seed of all random numbers: initial weights, shuffling, dropout, synthetic data.

    Models created after the call, in the same order, get the same weights and see the same batches. Results are
    bit-identical for any number of threads. Without a call the operating system provides the seed.

    Parameters
    ----------
    seed : int
        At least 0.
    """
    global _root
    root = np.random.SeedSequence(checks.integer("seed", seed, least=0))
    with _lock:
        _root = root


def new_generator() -> np.random.Generator:
    """Return the next generator of the sequence that the seed defines."""
    with _lock:
        (child,) = _root.spawn(1)
    return np.random.Generator(np.random.PCG64(child))
