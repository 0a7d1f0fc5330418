"""Progress output of training: a progress bar on a terminal, and one line per epoch."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO


def describe(values: dict[str, float]) -> str:
    """Format values as ``loss 0.1234, accuracy 0.9876``, with an exponent below 0.001: ``1.2345e-05``."""
    return ", ".join(
        f"{name} {value:.4e}" if 0 < abs(value) < 1e-3 else f"{name} {value:.4f}" for name, value in values.items()
    )


class Progress:
    """Prints the progress of one call of `fit`.

    Parameters
    ----------
    verbose : {0, 1, 2}
        0 prints nothing, 2 prints a line per epoch. 1 also shows a progress bar if standard error is a terminal.
    epochs : int
    samples : int or None
        Number of samples per epoch; None if it is unknown.
    stream : file, optional
        File for the lines, standard output by default. The bar is drawn on standard error.
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
            from tqdm import tqdm  # late, because importing it takes a fifth of the import time of fastgru

            self._bar = tqdm(
                total=self._samples,
                desc=f"Epoch {epoch + 1}/{self._epochs}",
                unit=" samples",
                leave=False,
                dynamic_ncols=True,
            )

    def wants_update(self) -> bool:
        """Whether there is a bar, and the time until its next update has passed."""
        return self._bar is not None and time.monotonic() >= self._next_refresh

    def update(self, samples: int, values: dict[str, float]) -> None:
        """Set the bar to `samples` processed samples."""
        self._next_refresh = time.monotonic() + 0.1
        self._bar.set_postfix_str(describe(values), refresh=False)
        self._bar.update(samples - self._bar.n)

    def epoch_ends(self, epoch: int, values: dict[str, float], seconds: float, samples: int) -> None:
        """Replace the bar by the line of the epoch."""
        self.close()
        if self._verbose:
            rate = samples / seconds if seconds > 0 else float("inf")
            self._stream.write(
                f"Epoch {epoch + 1}/{self._epochs}: {describe(values)} ({seconds:.2f} s, {rate:,.0f} samples/s)\n"
            )
            self._stream.flush()

    def say(self, message: str) -> None:
        """Print a line."""
        self.close()
        if self._verbose:
            self._stream.write(f"{message}\n")
            self._stream.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
