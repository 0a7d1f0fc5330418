"""The loader of the compiled modules, the stubs, and the installed package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fastgru
import pytest
from fastgru import _native


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *command], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_the_best_instruction_set_is_chosen():
    result = run("-c", "from fastgru import _native; print(_native.ISA)", FASTGRU_ISA="")
    assert result.stdout.strip() == _native.available()[0]


@pytest.mark.parametrize("isa", _native.available())
def test_an_instruction_set_can_be_forced(isa):
    result = run("-m", "fastgru", "info", FASTGRU_ISA=isa)
    assert result.returncode == 0
    assert f"instruction set: {isa} (FASTGRU_ISA={isa} is set)" in result.stdout


def test_an_unsupported_instruction_set_raises_at_import():
    result = run("-c", "import fastgru", FASTGRU_ISA="avx1024")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: FASTGRU_ISA: expected one of ")
    assert last.endswith(", got 'avx1024'; unset FASTGRU_ISA")


def test_an_unsupported_instruction_set_is_one_line_on_the_command_line():
    result = run("-m", "fastgru", "info", FASTGRU_ISA="avx1024")
    assert result.returncode == 1
    assert result.stderr.startswith("fastgru: FASTGRU_ISA: expected one of ")
    assert len(result.stderr.splitlines()) == 1


def test_every_module_has_the_same_functions():
    program = "import fastgru._native._{} as m; print(sorted(n for n in dir(m) if n != '__name__'))"
    listings = set()
    for isa in _native.available():
        result = run("-c", program.format(isa))
        assert result.returncode == 0, result.stderr
        listings.add(result.stdout)
    assert len(listings) == 1


def test_the_version_is_defined_once():
    assert fastgru.__version__ == importlib.metadata.version("fastgru")


def test_import_loads_no_heavy_packages():
    program = "import fastgru, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run("-c", program).stdout.split())
    assert not loaded & {"tqdm", "platformdirs", "safetensors", "matplotlib", "PIL", "urllib3", "torch", "tensorflow"}


def test_the_installation_holds_types_and_licences_but_no_sources():
    distribution = importlib.metadata.distribution("fastgru")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable installation lists neither types nor licences: its package is the source tree")
    files = [Path(str(file)) for file in distribution.files or ()]
    names = {file.name for file in files}
    assert {"py.typed", "_baseline.pyi", "LICENSE", "Eigen-MPL-2.0.txt", "pybind11-BSD-3-Clause.txt"} <= names
    assert not {file.suffix for file in files} & {".cpp", ".hpp", ".txt.in", ".cmake"}
    assert not any(file.name == "CMakeLists.txt" for file in files)


INTERPRETERS = next((n for n in ("_interpreters", "_xxsubinterpreters") if importlib.util.find_spec(n)), None)
IN_A_SUBINTERPRETER = """
import {interpreters} as interpreters
{first}
interpreter = interpreters.create()
interpreters.run_string(interpreter, '''
import sys
try:
    import {module}
except ImportError as error:
    print(error, flush=True)
print("numpy" in sys.modules, flush=True)
''')
interpreters.destroy(interpreter)
import fastgru, numpy
print(fastgru.functional.norm(numpy.ones(4)))
"""


@pytest.mark.skipif(INTERPRETERS is None, reason="this Python has no module of interpreters")
@pytest.mark.parametrize("module", ["fastgru", "fastgru.functional", "fastgru._native", "fastgru.torch"])
@pytest.mark.parametrize("first", ["", "import fastgru", "import numpy"])
def test_subinterpreters_raise_at_once(first, module):
    # The import hung.
    result = subprocess.run(
        [sys.executable, "-c", IN_A_SUBINTERPRETER.format(interpreters=INTERPRETERS, first=first, module=module)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    refusal, numpy_imported, norm = result.stdout.splitlines()
    assert refusal.startswith("fastgru: expected the main interpreter of the process because NumPy does not support")
    assert "got a sub-interpreter; import fastgru in the main interpreter" in refusal
    assert (numpy_imported, norm) == ("False", "2.0")


COMPILER = shutil.which("c++")
PARALLEL = """
#include "runtime/parallel.hpp"
void call(int& result) {{
  fastgru::Items items(3);
  fastgru::parallel{items}(2, 1e6, nullptr, [&](fastgru::Team& team) {body} {{
    items.run(team, [&](std::ptrdiff_t item) {item} {{ result += static_cast<int>(item); }});
  }});
}}
"""


def compiled(tmp_path, **qualifiers):
    source = tmp_path / "parallel.cpp"
    source.write_text(PARALLEL.format(**qualifiers))
    include = Path(__file__).parents[1] / "cpp"
    command = [COMPILER, "-std=c++17", "-fsyntax-only", f"-I{include}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("items", ["", "_items"])
def test_a_parallel_body_that_may_throw_does_not_compile(tmp_path, items):
    # An exception would leave the pool busy, or other threads waiting at a barrier.
    assert compiled(tmp_path, items=items, body="noexcept", item="noexcept") == (0, "")
    status, errors = compiled(tmp_path, items=items, body="", item="noexcept")
    assert status != 0
    assert "a parallel body must be noexcept" in errors
    status, errors = compiled(tmp_path, items=items, body="noexcept", item="")
    assert status != 0
    assert "an item's body must be noexcept" in errors
