"""Markers select the right tests: `peers` those that need other frameworks, `quick` some cases of all others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import peers
import pytest

pytestmark = pytest.mark.isa_independent

TESTS = Path(__file__).parent
PYPROJECT = TESTS.parent / "pyproject.toml"

#: A module that cannot be imported without a framework, and one in which only some tests need a framework.
WHOLE = 'import peers\nsklearn = peers.require("sklearn")\ndef test_it(): assert sklearn.here\n'
SOME = """
import importlib.util
import pytest

@pytest.fixture
def both(torch): return torch

def test_neither(): assert importlib.util.find_spec("torch") is None
def test_by_a_fixture(both): assert both.here
@pytest.mark.peers("onnx")
def test_by_hand():
    import onnx
    assert onnx.here
def test_not_marked():
    import onnx
def test_after_it(torch): assert torch.here
@pytest.mark.slow
def test_for_long(): pass
@pytest.mark.parametrize("case", [*range(7), pytest.param(7, marks=pytest.mark.peers("onnx"))])
def test_cases(case): pass
"""
PEERS = {"test_whole.py::test_it", "test_some.py::test_by_a_fixture", "test_some.py::test_by_hand"}
PEERS |= {"test_some.py::test_after_it", "test_some.py::test_cases[7]"}
OTHERS = {
    f"test_some.py::{test}" for test in ("test_neither", "test_for_long", *(f"test_cases[{n}]" for n in range(7)))
}


def outcomes(folder, *arguments):
    """Return the outcome of each test by name, and the output."""
    for name, content in {"test_whole.py": WHOLE, "test_some.py": SOME}.items():
        (folder / name).write_text(content)
    shutil.copy(TESTS / "conftest.py", folder)
    command = [sys.executable, "-m", "pytest", "-c", str(PYPROJECT), "--rootdir", str(folder), "-vv"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", *arguments, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)
    found = dict(re.findall(r"^(\S+\.py::\S+) (PASSED|FAILED|SKIPPED|ERROR)", result.stdout, re.MULTILINE))
    return found, result.stdout


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Fake frameworks, independent of those that are installed."""
    (tmp_path / "site").mkdir()
    for name in ("torch", "onnx", "sklearn"):
        (tmp_path / "site" / f"{name}.py").write_text("here = True\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "tests").mkdir()
    return tmp_path / "tests"


@pytest.mark.slow
def test_a_test_without_the_marker_finds_no_framework(stand_ins):
    found, output = outcomes(stand_ins)
    assert found.pop("test_some.py::test_not_marked") == "FAILED", output
    assert found == dict.fromkeys(PEERS | OTHERS, "PASSED"), output


@pytest.mark.slow
def test_the_marker_selects_tests_that_need_a_framework(stand_ins):
    found, output = outcomes(stand_ins, "-m", "peers")
    assert found == dict.fromkeys(PEERS, "PASSED"), output


@pytest.mark.slow
def test_the_others_are_run_without_a_skip(stand_ins):
    (stand_ins.parent / "site" / "sklearn.py").write_text("raise RuntimeError('imported')")
    found, output = outcomes(stand_ins, "-m", "not peers")
    assert found == dict.fromkeys(OTHERS, "PASSED") | {"test_some.py::test_not_marked": "FAILED"}, output


@pytest.mark.slow
def test_quick_selects_some_cases_of_fast_tests_without_frameworks(stand_ins):
    found, output = outcomes(stand_ins, "-m", "quick")
    quick = ("test_neither", "test_not_marked", "test_cases[0]", "test_cases[3]", "test_cases[6]")
    assert found.keys() == {f"test_some.py::{test}" for test in quick}, output


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", True), ("peers", True), ("slow", True), ("not isa_independent", True), ("not peers or slow", True),
        ("somebody's", True), ("not peers", False), ("quick", False), ("not peers and slow", False),
        ("quick or not peers", False),
    ],
)  # fmt: skip
def test_expressions_that_may_select_a_test_with_the_marker(expression, expected):
    assert peers.may_be_selected(expression) == expected


def test_frameworks_are_skipped_in_one_place():
    """Otherwise a test would be skipped without a marker."""
    names = "|".join(peers.INSTALL)
    skipping = re.compile(rf'(?:importorskip|find_spec)\("(?:{names}|fastgru\.(?:torch|keras|sklearn))\b')
    files = [path for path in TESTS.glob("*.py") if path != Path(__file__)]
    assert len(files) > 50
    assert [path.name for path in files if skipping.search(path.read_text())] == []
