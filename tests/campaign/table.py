"""The table of a campaign, and the exit status."""

from __future__ import annotations

import platform
import time

import fastgru
from fastgru import _native

from campaign.run import Report

FOUND, INCOMPLETE = 1, 2


def status(reports: list[Report]) -> int:
    """Return 0, `FOUND`, or `INCOMPLETE`: a task that tested nothing must not count as one without findings."""
    if any(report.findings for report in reports):
        return FOUND
    return INCOMPLETE if not reports or any(_incomplete(report) for report in reports) else 0


def _incomplete(report: Report) -> str | None:
    if report.skipped:
        return f"skipped: {report.skipped}"
    if report.cases == 0:
        return "did nothing"
    if report.wanted is not None and report.cases < report.wanted:
        return f"only {report.cases:,} of {report.wanted:,}"
    return None


def markdown(reports: list[Report], form: str, seed: int) -> str:
    """Return the table, followed by each finding with the command that replays it."""
    lines = [
        f"fastgru {fastgru.__version__}, {form} form, seed {seed}, {', '.join(_native.available())} on {_processor()}, "
        f"{time.strftime('%Y-%m-%d')}",
        "",
        "| part | subject | done | findings | worst | seconds |",
        "| --- | --- | --- | ---: | --- | ---: |",
    ]
    for report in reports:
        found = sum(finding.count for finding in report.findings)
        done = "; ".join(filter(None, (report.done, _incomplete(report))))
        lines.append(
            f"| {report.part.replace('_', ' ')} | {report.subject} | {done} | {found:,} | {report.worst} "
            f"| {report.seconds:.0f} |"
        )
    found = [(report, finding) for report in reports for finding in report.findings]
    if found:
        lines += ["", "Findings:", ""]
    for report, finding in found:
        lines.append(f"- {report.part} {report.subject}: {finding.count:,} x {finding.kind}")
        lines += [f"      {line}" for line in finding.detail.splitlines()[-12:]]
        lines += [f"      python -m tests.campaign --replay {path}" for path in finding.replays[:1]]
    return "\n".join(lines)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
