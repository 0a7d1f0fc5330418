"""Reuses tapes, so that a pass does not allocate memory for its tape."""

from __future__ import annotations

from fastgru._native import kernels


class TapePool:
    """Unused tapes.

    Parameters
    ----------
    most : int
        Maximum number of unused tapes to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tapes: list[kernels.GRUTape] = []

    def take(self) -> kernels.GRUTape:
        """Return an unused tape with its memory, or a new one."""
        try:
            return self._tapes.pop()
        except IndexError:
            return kernels.GRUTape()

    def give_back(self, tape: kernels.GRUTape) -> None:
        """Return a tape to the pool."""
        if len(self._tapes) < self._most:
            tape.clear()
            self._tapes.append(tape)
