"""The reliability campaign (tests/campaign) reports faults, and reports a run that tested nothing as incomplete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import plan, table
from campaign.run import Finding, Report

pytestmark = pytest.mark.isa_independent

ROOT = Path(__file__).parents[1]


def campaign(*arguments):
    command = [sys.executable, "-m", "tests.campaign", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_every_planted_fault_is_found(tmp_path):
    result = campaign("--only", "planted", "--minutes", "0.1", "--findings", str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| planted | faults | 18 of 18 found | 0 |" in result.stdout


@pytest.mark.slow
def test_a_kept_input_is_read_again(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"damaged")
    content = {"part": "fuzz", "subject": "predict npy", "seed": 0, "number": 5, "isa": "baseline"}
    (tmp_path / "finding.json").write_text(json.dumps(content))
    result = campaign("--replay", str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "no finding any more: fuzz predict npy, case 5\n"


def test_an_unknown_part_is_refused():
    result = campaign("--only", "nothing")
    assert result.returncode != 0
    assert "expected parts of planted, kills" in result.stderr


@pytest.mark.parametrize(
    ("change", "status", "shown"),
    [
        ({}, 0, "| 10 inputs |"),
        ({"findings": [Finding("KeyError", "where")]}, table.FOUND, "1 x KeyError"),
        ({"cases": 0}, table.INCOMPLETE, "did nothing"),
        ({"skipped": "needs h5py"}, table.INCOMPLETE, "skipped: needs h5py"),
        ({"wanted": 11}, table.INCOMPLETE, "only 10 of 11"),
    ],
)
def test_the_exit_status_reports_findings_and_incomplete_runs(change, status, shown):
    report = Report(**{"part": "fuzz", "subject": "h5", "cases": 10, "done": "10 inputs"} | change)
    whole = Report("bits", "avx2", cases=1, done="1 gru")
    assert table.status([whole, report]) == status
    assert shown in table.markdown([whole, report], "short", 0)
    assert Report.from_json(report.to_json()) == report


def test_a_missing_report_is_not_success():
    assert table.status([]) == table.INCOMPLETE


def test_the_time_is_divided_among_tasks():
    tasks = plan.tasks(["avx2", "baseline"])
    seconds = plan.seconds(tasks, 3, 2)
    assert sum(seconds.values()) == pytest.approx(360)
    assert {task.part for task in tasks} - {task.part for task in seconds} == {"sanitizers"}
