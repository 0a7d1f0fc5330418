"""Tapes that are used again: a pass finds the memory of the last one in place."""

from __future__ import annotations

from fastgru._native import kernels


class Spares:
    """Tapes that wait for their next pass.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tapes: list[kernels.GRUTape] = []

    def take(self) -> kernels.GRUTape:
        """A tape, with memory if one is there."""
        try:
            return self._tapes.pop()
        except IndexError:
            return kernels.GRUTape()

    def give_back(self, tape: kernels.GRUTape) -> None:
        """Keep a tape that nobody needs any more."""
        if len(self._tapes) < self._most:
            tape.clear()
            self._tapes.append(tape)
