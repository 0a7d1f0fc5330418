"""The examples run as users run them: as processes in their own folder, whose last line reports the result."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastgru import Sequential, optimizers

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def test_the_examples_are_found():
    assert [example.stem for example in EXAMPLES] == ["adding", "bidirectional", "forecasting", "tagging", "text"]


@pytest.mark.slow
@each_example
def test_it_learns_reports_and_plots(example, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with matplotlib: pip install matplotlib")
    command = [sys.executable, "-W", "error", str(example), "--quick", "--seed", "0", "--plot"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.match(r"Result: test .*\d\.\d", result.stdout.splitlines()[-1])
    (picture,) = tmp_path.iterdir()
    assert picture.name == f"{example.stem}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@each_example
def test_it_fails_if_nothing_is_learnt(example, monkeypatch, capsys):
    """The exit code depends on the result: with an optimizer that does nothing it is 1."""
    fit = Sequential.fit
    monkeypatch.setattr(Sequential, "fit", lambda self, *data, **how: fit(self, *data, **{**how, "epochs": 1}))
    monkeypatch.setattr(optimizers.Optimizer, "update", lambda self, parameters, gradient, **kwargs: None)
    monkeypatch.setattr(sys, "argv", [str(example), "--quick"])
    spec = importlib.util.spec_from_file_location(f"example_{example.stem}", example)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("Result: test ")


@each_example
def test_it_needs_nothing_but_numpy_beside_fastgru(example):
    imported = set(re.findall(r"^(?:import|from) (\w+)", example.read_text(), re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"fastgru", "numpy"}
