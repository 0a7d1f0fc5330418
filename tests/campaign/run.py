"""The input and the report of a task of the campaign."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastgru import _native

#: Number of findings of one kind whose files are kept.
MOST_KEPT = 3


@dataclasses.dataclass
class Finding:
    """A fault. Findings of the same `kind` are counted together."""

    kind: str
    detail: str
    count: int = 1
    replays: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Report:
    """A row of the table."""

    part: str
    subject: str
    cases: int = 0
    done: str = ""
    worst: str = ""
    seconds: float = 0.0
    skipped: str | None = None
    wanted: int | None = None
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        content = json.loads(text)
        content["findings"] = [Finding(**finding) for finding in content["findings"]]
        return cls(**content)


class Run:
    """A running task.

    Parameters
    ----------
    part, subject : str
        The module, and the subject to test.
    seed : int
        The seed, the part, the subject and the number of a case determine the case.
    seconds : float
        The time budget.
    count : int or None
        Number of cases; None for as many as the time allows.
    scratch : Path
        A folder for this task only.
    memory : Path
        A second folder, in memory if possible, where flushing files is fast.
    keep : Path
        The folder for the files of findings.
    only : int or None
        The case to run, to replay a finding.
    started : float or None
        Start of the time budget (`time.monotonic`); default: now. The start of the process counts too.
    """

    def __init__(
        self,
        part: str,
        subject: str,
        *,
        seed: int,
        seconds: float,
        count: int | None,
        scratch: Path,
        memory: Path,
        keep: Path,
        only: int | None = None,
        started: float | None = None,
    ) -> None:
        self.part, self.subject, self.seed, self.count = part, subject, seed, count
        self.scratch, self.memory, self.keep, self.only = scratch, memory, keep, only
        self.counts: Counter[str] = Counter()
        self.report = Report(part, subject, wanted=count)
        self._started = time.monotonic() if started is None else started
        self._deadline = self._started + seconds
        self._findings: dict[str, Finding] = {}

    def cases(self, least: int = 1) -> Iterator[int]:
        """Yield the numbers of the cases to run, until the number or the time limit is reached; at least `least`."""
        if self.only is not None:
            self.report.cases = 1
            yield self.only
            return
        while self.wants_more(self.report.cases, least):
            yield self.report.cases
            self.report.cases += 1

    def wants_more(self, cases: int, least: int = 1) -> bool:
        if self.count is not None and cases >= self.count:
            return False
        return cases < least or time.monotonic() < self._deadline

    def elapsed(self) -> float:
        """The fraction of the time budget that is used."""
        return (time.monotonic() - self._started) / max(self._deadline - self._started, 1e-9)

    def random(self, number: int) -> random.Random:
        return random.Random(f"{self.seed} {self.part} {self.subject} {number}")

    def found(self, kind: str, detail: str, number: int, files: Iterable[Path] = (), *, count: int = 1) -> None:
        """Report a fault in the case of that number; the files of the first ones of a kind are kept."""
        finding = self._findings.setdefault(kind, Finding(kind, detail, 0))
        finding.count += count
        if len(finding.replays) >= MOST_KEPT:
            return
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.part} {self.subject} {self.seed} {number}")
        folder = self.keep / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.is_file():
                shutil.copy(file, folder)
        content = {"part": self.part, "subject": self.subject, "seed": self.seed, "number": number}
        content["isa"] = _native.ISA
        (folder / "finding.json").write_text(json.dumps(content | {"kind": kind, "detail": detail}, indent=2) + "\n")
        finding.replays.append(str(folder / "finding.json"))

    def skip(self, reason: str) -> None:
        self.report.skipped = reason

    def finish(self) -> Report:
        self.report.findings = list(self._findings.values())
        self.report.seconds = time.monotonic() - self._started
        if not self.report.done:
            self.report.done = counted(self.counts)
        return self.report


def counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())
