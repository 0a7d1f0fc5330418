"""Runs tasks in parallel, each in its own process, so that a crash or a hang is one finding."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from campaign.plan import Task
from campaign.run import Finding, Report, Run

ROOT = Path(__file__).parents[2]
#: Time after its budget when a task is killed.
PATIENCE_SECONDS = 180.0


def run_all(
    tasks: list[Task], budget: dict[Task, float], *, seed: int, keep: Path, scratch: Path, memory: Path, jobs: int
) -> list[Report]:
    """Yield the reports of all tasks in order; tasks without a `budget` run until they have their number of cases."""
    waiting, running = list(enumerate(tasks)), []
    reports: dict[int, Report] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, task = waiting.pop(0)
                # Without a budget the time limit is four times the estimate for the cases.
                seconds = budget.get(task, 60 + 4 * task.count * task.milliseconds / 1000)
                count = None if task in budget else task.count
                folders = scratch / str(number), memory / str(number)
                running.append((number, _Process(task, seed, seconds, count, keep, *folders)))
            time.sleep(0.05)
            for number, process in list(running):
                if (report := process.poll()) is not None:
                    running.remove((number, process))
                    reports[number] = report
                    _progress(len(reports), len(tasks), report)
    finally:
        for _, process in running:
            process.kill()
    return [reports[number] for number in sorted(reports)]


def _progress(done: int, count: int, report: Report) -> None:
    found = sum(finding.count for finding in report.findings)
    outcome = f"skipped: {report.skipped}" if report.skipped else report.done
    print(
        f"campaign: {done}/{count} {report.part} {report.subject}: {outcome}; {found} findings, {report.seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )


class _Process:
    """A task in its own process, which is the leader of a process group for its children."""

    def __init__(
        self, task: Task, seed: int, seconds: float, count: int | None, keep: Path, scratch: Path, memory: Path
    ) -> None:
        scratch.mkdir()
        memory.mkdir()
        self._task, self._result = task, scratch / "report.json"
        content = {
            "part": task.part, "subject": task.subject, "seed": seed, "seconds": seconds, "count": count,
            "keep": str(keep), "scratch": str(scratch), "memory": str(memory),
            "started": time.monotonic(),
        }  # fmt: skip
        environment = dict(os.environ)
        if task.isa is not None:
            environment["FASTGRU_ISA"] = task.isa
        self._log = scratch / "log.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.campaign", "--task", json.dumps(content)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started = time.monotonic()
        self._patience = seconds + PATIENCE_SECONDS

    def poll(self) -> Report | None:
        status = self._process.poll()
        waited = time.monotonic() - self._started
        if status is None and waited < self._patience:
            return None
        self.kill()
        if status == 0 and self._result.exists():
            return Report.from_json(self._result.read_text())
        how = f"did not end within {waited:.0f} s" if status is None else f"ended with status {status}"
        log = self._log.read_text(errors="replace").strip()
        report = Report(self._task.part, self._task.subject, seconds=waited)
        report.findings = [Finding(f"the task {how}", log[-2000:])]
        return report

    def kill(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def work(content: dict[str, Any]) -> None:
    """Run one task in this process and write its report."""
    run = Run(
        content["part"],
        content["subject"],
        seed=content["seed"],
        seconds=content["seconds"],
        count=content["count"],
        scratch=Path(content["scratch"]),
        memory=Path(content["memory"]),
        keep=Path(content["keep"]),
        started=content["started"],
    )
    try:
        _part(run).run(run)
    except ImportError as error:  # a package for a file format is not installed
        run.skip(str(error))
    (run.scratch / "report.json").write_text(run.finish().to_json())


def replay(content: dict[str, Any], files: Path, scratch: Path, memory: Path) -> Report:
    """Run the case of a finding again, in this process."""
    number = content["number"]
    run = Run(
        content["part"], content["subject"], seed=content["seed"], seconds=60, count=1, scratch=scratch,
        memory=memory, keep=scratch / "kept", only=number,
    )  # fmt: skip
    part = _part(run)
    if hasattr(part, "replay"):
        part.replay(run, number, files)
    else:
        part.run(run)
    return run.finish()


def _part(run: Run) -> Any:
    return importlib.import_module(f"campaign.{run.part}")
