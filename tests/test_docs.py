"""The code in the documentation runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import fastgru
import numpy as np
import pytest
from fastgru import datasets

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page", ["quickstart.md", "guide.md", "data.md", "sequences.md", "training.md", "deployment.md", "formats.md"]
)
def test_the_code_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    blocks = python_blocks(DOCS / page)
    assert blocks
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}  # as in a program: classes that a page defines have a module
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.slow
@pytest.mark.peers("sklearn")
def test_the_code_on_the_page_of_scikit_learn_runs():
    rng = np.random.default_rng(0)
    namespace = {name: rng.normal(size=(6, 5, 4)) for name in ("X_train", "X_test")}
    blocks = re.findall(r"^```py\n(.*?)^```$", (DOCS / "sklearn.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "sklearn.md", "exec"), namespace)


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


def test_the_api_reference_has_every_public_module():
    listed = re.findall(r"^   (fastgru[\w.]*)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    names = [*dir(fastgru), "keras", "sklearn", "torch"]
    modules = {f"fastgru.{name}" for name in names if (ROOT / "python/fastgru" / name).is_dir()}
    modules |= {f"fastgru.{name}" for name in names if (ROOT / "python/fastgru" / f"{name}.py").is_file()}
    modules |= {f"fastgru.datasets.{name}" for name in fastgru.datasets.__all__ if name.islower()}
    assert sorted(listed) == sorted({"fastgru", *modules})


def test_the_site_has_every_page():
    text = (DOCS / "index.md").read_text()
    listed = re.findall(r"^([\w/-]+)$", "".join(re.findall(r"^```{toctree}$(.*?)^```$", text, re.M | re.S)), re.M)
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert sorted(listed) == sorted({*pages, "decisions/README"})


def slugs(path):
    """Return the anchors of a page's headings, as repository browsers and the site generate them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


REPOSITORY_PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md"]


@pytest.mark.parametrize(
    "name", [*REPOSITORY_PAGES, *(f"docs/{path.relative_to(DOCS)}" for path in DOCS.rglob("*.md"))]
)
def test_links_in_the_repository_lead_somewhere(name):
    page = ROOT / name
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in slugs(file), (target, anchor)


def test_the_check_of_the_sites_links_finds_what_is_broken(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">fine</a><a href="#top">fine</a><a href="https://example.org/x">fine</a>'
        '<a href="c.html">1</a><a href="b.html#there">2</a><a href="http://x y">3</a><a href="../..">4</a>'
        '<script src="https://example.org/x.js"></script><link rel="icon" href="gone.svg">'
    )
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "c.css").write_text('@import "https://example.org/x.css"; a { background: url(x.png) }')
    ran = subprocess.run(
        [sys.executable, DOCS / "check_links.py", tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == [
        "2 pages, 7 links, 7 problems",
        "a.html: c.html leads to no file",
        "a.html: b.html#there leads to no anchor",
        "a.html: http://x y is not the address of a host",
        "a.html: ../.. leads to no file",
        "a.html: gone.svg leads to no file",
        "a.html: loads https://example.org/x.js from another host",
        'c.css: loads @import "https://example.org/x.css',
    ]


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
