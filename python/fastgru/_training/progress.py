"""What training prints: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO


def describe(values: dict[str, float]) -> str:
    """``loss 0.1234, accuracy 0.9876``, and ``1.2345e-05`` for what would be 0.0000."""
    return ", ".join(
        f"{name} {value:.4e}" if 0 < abs(value) < 1e-3 else f"{name} {value:.4f}" for name, value in values.items()
    )


class Progress:
    """Reports one `fit`.

    Parameters
    ----------
    verbose : {0, 1, 2}
        Nothing; a bar on a terminal and a line an epoch elsewhere; a line an epoch everywhere.
    epochs : int
    samples : int or None
        How many there are in an epoch, if that is known.
    stream : file, optional
        Where lines go; standard output if not given. The bar goes to standard error.
    """

    def __init__(self, verbose: int, epochs: int, samples: int | None, stream: TextIO | None = None) -> None:
        self._verbose = verbose
        self._epochs = epochs
        self._samples = samples
        self._stream = stream if stream is not None else sys.stdout
        self._bar: Any = None
        self._next_refresh = 0.0

    def epoch_begins(self, epoch: int) -> None:
        """Start the bar of an epoch, counted from 0."""
        if self._verbose == 1 and sys.stderr.isatty():
            from tqdm import tqdm  # not at import: it costs a fifth of fastgru's own import time

            self._bar = tqdm(
                total=self._samples,
                desc=f"Epoch {epoch + 1}/{self._epochs}",
                unit=" samples",
                leave=False,
                dynamic_ncols=True,
            )

    def wants_update(self) -> bool:
        """Whether there is a bar, and it is old enough to be drawn again."""
        return self._bar is not None and time.monotonic() >= self._next_refresh

    def update(self, samples: int, values: dict[str, float]) -> None:
        """Move the bar to `samples` done."""
        self._next_refresh = time.monotonic() + 0.1
        self._bar.set_postfix_str(describe(values), refresh=False)
        self._bar.update(samples - self._bar.n)

    def epoch_ends(self, epoch: int, values: dict[str, float], seconds: float, samples: int) -> None:
        """Replace the bar by a line."""
        self.close()
        if self._verbose:
            rate = samples / seconds if seconds > 0 else float("inf")
            self._stream.write(
                f"Epoch {epoch + 1}/{self._epochs}: {describe(values)} ({seconds:.2f} s, {rate:,.0f} samples/s)\n"
            )
            self._stream.flush()

    def say(self, message: str) -> None:
        """A line of its own."""
        self.close()
        if self._verbose:
            self._stream.write(f"{message}\n")
            self._stream.flush()

    def close(self) -> None:
        """Take the bar away, also when training ends early."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
