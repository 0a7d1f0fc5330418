"""Where random numbers come from: one generator a model, all derived from the seed of `set_seed`.

NumPy's own global state is neither read nor changed.
"""

from __future__ import annotations

import threading

import numpy as np

from fastgru._support import checks

_lock = threading.Lock()
_root = np.random.SeedSequence()


def set_seed(seed: int) -> None:
    """Make everything random that follows repeatable: initial weights, shuffling, synthetic data.

    Models made after the call, in the same order, get the same weights and see the same batches, bit for bit, on any
    number of threads. Without a call the seed comes from the operating system.

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
    """The next generator of the sequence that the seed started."""
    with _lock:
        (child,) = _root.spawn(1)
    return np.random.Generator(np.random.PCG64(child))
