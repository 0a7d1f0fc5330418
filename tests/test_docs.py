"""The code in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from fastgru import datasets

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["guide.md", "formats.md"])
def test_the_code_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    blocks = python_blocks(DOCS / page)
    assert blocks
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.slow
@pytest.mark.peers("sklearn")
def test_the_code_in_the_readme_runs_on_small_data(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 28, 28), np.uint8), np.arange(200) % 10
    monkeypatch.setattr(datasets.mnist, "load_data", lambda: ((images, labels), (images, labels)))
    monkeypatch.chdir(tmp_path)
    namespace = {
        "signals": rng.normal(size=(30, 9, 12)).astype(np.float32),
        "lengths": rng.integers(1, 10, 30),
        "tags": rng.integers(0, 5, (30, 9)),
        "labels": np.arange(30) % 3,
    }
    blocks = python_blocks(ROOT / "README.md")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.safetensors", "run.safetensors"]


def test_where_to_add_what_names_files_and_lists_that_exist():
    text = (DOCS / "design.md").read_text()
    rows = text[text.index("## Where to add what") :].split("\n## ")[0].splitlines()
    files = [path for folder in ("python", "cpp", "tests", "docs") for path in (ROOT / folder).rglob("*.*")]
    files.append(ROOT / "CMakeLists.txt")
    found = 0
    for name, names in re.findall(r"`([\w./]+\.(?:py|pyi|hpp|cpp|md|txt))`(?: \(([^)]*)\))?", "\n".join(rows)):
        if "NAME" in name or name[0] == ".":
            continue
        matching = [path for path in files if path.as_posix().endswith(f"/{name}")]
        assert matching, name
        for each in re.findall(r"`([A-Z_]{3,}|[a-z_]+)`", names):
            assert any(each in path.read_text() for path in matching), (name, each)
            found += 1
    assert found > 20
