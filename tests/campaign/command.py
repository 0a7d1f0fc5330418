"""The command line: ``python -m tests.campaign``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from fastgru import _native

from campaign import plan, scheduler, table

_EPILOG = """exit status: 0 without findings; 1 with findings; 2 if a task did nothing, was skipped or did not end"""


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.task is not None:
        scheduler.work(json.loads(arguments.task))
        return 0
    if arguments.replay is not None:
        return _replay(arguments.replay)
    planned = plan.chosen(plan.tasks(_native.available()), arguments.only)
    if not arguments.long and arguments.only is None:
        planned = [task for task in planned if task.share > 0]
    keep = Path(arguments.findings).absolute()
    with tempfile.TemporaryDirectory(prefix="fastgru-campaign-") as scratch:
        options = {"seed": arguments.seed, "keep": keep, "scratch": Path(scratch), "jobs": arguments.jobs}
        if arguments.long:
            estimate = sum(task.count * task.milliseconds for task in planned) / 1000 / arguments.jobs
            _say(f"the long form: {len(planned)} tasks, about {estimate / 60:.0f} minutes by {arguments.jobs} jobs")
            reports = scheduler.run_all(planned, None, **options)
        else:
            budget = plan.seconds(planned, arguments.minutes, arguments.jobs)
            _say(f"the short form: {len(budget)} tasks, {arguments.minutes:g} minutes by {arguments.jobs} jobs")
            reports = scheduler.run_all(planned, budget, **options)
    text = table.markdown(reports, "long" if arguments.long else "short", arguments.seed)
    print(text)
    if arguments.out is not None:
        Path(arguments.out).write_text(text + "\n")
    return table.status(reports)


def _replay(file: Path) -> int:
    file = file / "finding.json" if file.is_dir() else file
    content = json.loads(file.read_text())
    with tempfile.TemporaryDirectory(prefix="fastgru-campaign-") as scratch:
        report = scheduler.replay(content, file.parent, Path(scratch))
    for finding in report.findings:
        print(f"{finding.kind}\n{finding.detail}")
    if not report.findings:
        print(f"no finding any more: {content['part']} {content['subject']}, case {content['number']}")
    return 1 if report.findings else 0


def _say(message: str) -> None:
    print(f"campaign: {message}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__, epilog=_EPILOG)
    parser.add_argument("--minutes", type=float, default=3.0, help="the time budget of the short form (3)")
    parser.add_argument("--long", action="store_true", help="the long form: all cases, however long they take")
    parser.add_argument("--only", help="parts to run, as part or part:subject, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="all cases follow from it (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (all processors)")
    parser.add_argument("--out", metavar="FILE", help="write the table to a file as well")
    parser.add_argument("--findings", default="build/campaign", metavar="FOLDER", help="where findings are kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the case of a finding again")
    parser.add_argument("--task", help=argparse.SUPPRESS)  # one task, in a process of its own
    return parser
