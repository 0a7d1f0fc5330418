"""What a run of the benchmarks was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders import CONTENDERS, SGEMMS


@dataclass(frozen=True)
class Options:
    """The command line's options; empty tuples mean the question's own choice."""

    threads: int
    rounds: int
    quick: bool = False
    contenders: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    epochs: int = 10
    seeds: tuple[int, ...] = (0,)
    other_python: str = ""

    def names(self, question: str) -> list[str]:
        """The contenders of a question: those that were named, or all that are not to be asked for."""
        return [
            contender.name
            for contender in CONTENDERS
            if question in contender.questions
            and contender.name not in SGEMMS
            and (contender.name in self.contenders if self.contenders else contender.by_default)
            and not (self.quick and contender.slow_start and not self.contenders)
        ]
