"""Results as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness import Row


@dataclass
class Result:
    """The result of a question: a table, and rows for programs."""

    question: str
    title: str
    columns: Sequence[str]
    table: list[Sequence[str]]
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def to_markdown(self) -> str:
        """Return a heading, a table with its first two columns left-aligned, and notes."""
        rules = ["---" if index < 2 else "---:" for index in range(len(self.columns))]
        lines = [f"## {self.title}", ""]
        if self.table:
            lines += [f"| {' | '.join(cells)} |" for cells in (self.columns, rules, *self.table)]
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*lines, ""])


def duration(seconds: float) -> str:
    """Format a duration in s, ms or us."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def skips(rows: Sequence[Row]) -> list[str]:
    """Return a note for each contender and reason, with the shapes that were skipped."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.skipped:
            reasons.setdefault((row.contender, row.skipped), []).append(row.problem.shape)
    shapes = {row.problem.shape for row in rows}
    return [
        f"{contender} skipped{'' if len(where) == len(shapes) else ' at ' + ', '.join(where)}: {reason}"
        for (contender, reason), where in reasons.items()
    ]


SPEED_COLUMNS = (
    *("shape", "contender", "time", "samples/s", "of fastgru's speed", "GFLOP/s", "share of sgemm", "spread", "error"),
)


def speed_result(question: str, title: str, rows: list[Row]) -> Result:
    """Return the table of a question about speed: figures relative to fastgru's of the same shape."""
    base = {row.problem.shape: row.median for row in rows if row.contender == "fastgru" and not row.skipped}
    table = []
    for row in rows:
        if row.skipped:
            continue
        fastgru = base.get(row.problem.shape)
        source = "" if row.problem.source in ("tutorial", "grid") else f" ({row.problem.source})"
        table.append(
            [
                row.problem.shape + source,
                row.title,
                duration(row.median),
                f"{row.samples_per_second:,.0f}" if row.samples_per_second else "",
                f"{fastgru / row.median:.2f}" if fastgru and row.samples_per_second else "",
                f"{row.flops_per_second / 1e9:.1f}",
                f"{row.share_of_sgemm:.2f}",
                f"{row.spread:.0%}",
                f"{row.error:.0e}" if row.error else "",
            ]
        )
    return Result(question, title, SPEED_COLUMNS, table, [row.to_json() for row in rows], skips(rows))
