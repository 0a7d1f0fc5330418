"""The command line: ``python -m tests.campaign``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fastgru import _native

from campaign import plan, scheduler, table

_EPILOG = """exit status: 0 without findings; 1 with findings; 2 if a task did nothing, was skipped or did not end"""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the exit also ends the tasks
    arguments = _parser().parse_args()
    if arguments.task is not None:
        scheduler.work(json.loads(arguments.task))
        return 0
    if arguments.replay is not None:
        return _replay(arguments.replay)
    planned = plan.chosen(plan.tasks(_native.available()), arguments.only)
    if not arguments.long and arguments.only is None:
        planned = [task for task in planned if task.share > 0]
    budget = {} if arguments.long else plan.seconds(planned, arguments.minutes, arguments.jobs)
    _announce(arguments, planned)
    with _folders() as (scratch, memory):
        reports = scheduler.run_all(
            planned,
            budget,
            seed=arguments.seed,
            keep=Path(arguments.findings).absolute(),
            scratch=scratch,
            memory=memory,
            jobs=arguments.jobs,
        )
    text = table.markdown(reports, "long" if arguments.long else "short", arguments.seed)
    print(text)
    if arguments.out is not None:
        Path(arguments.out).write_text(text + "\n")
    return table.status(reports)


def _announce(arguments: argparse.Namespace, planned: list[plan.Task]) -> None:
    if arguments.long:
        minutes = sum(task.count * task.milliseconds for task in planned) / 60_000 / arguments.jobs
        form = f"the long form, estimated at {minutes:.0f} minutes"
    else:
        form = f"the short form, {arguments.minutes:g} minutes"
    print(f"campaign: {form}; {len(planned)} tasks by {arguments.jobs} jobs", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    """Create two temporary folders: one on disk and one in memory, if the system has such a place."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="fastgru-campaign-") as on_disk,
        tempfile.TemporaryDirectory(prefix="fastgru-campaign-", dir=memory) as in_memory,
    ):
        yield Path(on_disk), Path(in_memory)


def _replay(file: Path) -> int:
    file = file / "finding.json" if file.is_dir() else file
    content = json.loads(file.read_text())
    if content["isa"] != _native.ISA:
        os.environ["FASTGRU_ISA"] = content["isa"]
        os.execv(sys.executable, [sys.executable, "-m", "tests.campaign", "--replay", str(file)])
    with _folders() as (scratch, memory):
        report = scheduler.replay(content, file.parent, scratch, memory)
    for finding in report.findings:
        print(f"{finding.kind}\n{finding.detail}")
    if not report.findings:
        print(f"no finding any more: {content['part']} {content['subject']}, case {content['number']}")
    return table.FOUND if report.findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__, epilog=_EPILOG)
    parser.add_argument("--minutes", type=float, default=3.0, help="the time budget of the short form (3)")
    parser.add_argument("--long", action="store_true", help="run the long form: all cases, without a time limit")
    parser.add_argument("--only", help="parts to run, as part or part:subject, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parallel processes (all processors)")
    parser.add_argument("--out", metavar="FILE", help="also write the table to a file")
    parser.add_argument("--findings", default="build/campaign", metavar="FOLDER", help="folder for findings")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the case of a finding again")
    parser.add_argument("--task", help=argparse.SUPPRESS)  # internal: run one task in its own process
    return parser
