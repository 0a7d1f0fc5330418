"""Options of a benchmark run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders import CONTENDERS, SGEMMS


@dataclass(frozen=True)
class Options:
    """The command line's options; empty tuples mean the question's defaults."""

    threads: int
    rounds: int
    quick: bool = False
    contenders: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    epochs: int = 10
    seeds: tuple[int, ...] = (0,)
    other_python: str = ""

    def names(self, question: str) -> list[str]:
        """Return the contenders of a question: the named ones, or all that run by default."""
        return [
            contender.name
            for contender in CONTENDERS
            if question in contender.questions
            and contender.name not in SGEMMS
            and (contender.name in self.contenders if self.contenders else contender.by_default)
            and not (self.quick and contender.slow_start and not self.contenders)
        ]
