"""Tapes that are used again: a pass finds the memory of the last one in place."""

from __future__ import annotations

import numpy as np

from fastgru import functional

_NO_SEQUENCES, _NO_KERNEL = np.zeros((0, 0, 1), np.float32), np.zeros((1, 3), np.float32)


class Spares:
    """Tapes that wait for their next pass.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tapes: list[functional.GRUTape] = []

    def take(self) -> functional.GRUTape:
        """A tape, with memory if one is there."""
        try:
            return self._tapes.pop()
        except IndexError:
            return functional.GRUTape()

    def give_back(self, tape: functional.GRUTape) -> None:
        """Keep a tape that nobody needs any more."""
        if len(self._tapes) < self._most:
            # Recording nothing makes it let go of the last x and weights, but not of its memory.
            functional.gru_forward(_NO_SEQUENCES, _NO_KERNEL, _NO_KERNEL, tape=tape)
            self._tapes.append(tape)
