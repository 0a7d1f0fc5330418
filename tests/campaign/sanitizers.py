"""Sanitizers for each instruction set.

AddressSanitizer and UndefinedBehaviorSanitizer run the tests of the kernels and bindings. ThreadSanitizer runs a C++
program of kernels and thread pool. They need GCC or Clang, and the packages of the build. Before each, a small faulty
program shows that the sanitizer works on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fastgru
from fastgru import _native

from campaign.run import Run
from campaign.scheduler import ROOT

#: Instruction set -> compiler flags of CMakeLists.txt.
_FLAGS = {"avx512": "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma", "avx2": "-mavx2 -mfma"}
#: Tests of every kernel and binding, without those of other frameworks and of training.
_TESTS = (
    "activations", "bad_input", "dense", "edges", "gru_kernels", "lengths", "optimizers", "padding",
    "softmax_cross_entropy", "stateful", "weight_layouts",
)  # fmt: skip
_SECONDS = 1800
_TSAN_SECONDS = 60

_FAULTS = {
    "address,undefined": "int main(int n, char**) { int* a = new int[n]; return a[n + 3]; }",
    "thread": "#include <thread>\nint x; int main() { std::thread t([] { x = 1; }); x = 2; t.join(); return 0; }",
}


def run(run: Run) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None or platform.system() != "Linux":
        run.skip("needs Linux and g++")
        return
    if run.subject == "threads":
        _threads(run, compiler)
    else:
        _addresses(run, compiler)


def _require_found(run: Run, compiler: str, sanitizer: str) -> bool:
    """Whether the sanitizer detects a faulty program; if not, report it, because it would detect nothing."""
    source, program = run.scratch / "fault.cpp", run.scratch / "fault"
    source.write_text(_FAULTS[sanitizer])
    _call([compiler, f"-fsanitize={sanitizer}", "-g", "-pthread", str(source), "-o", str(program)])
    result = subprocess.run(_same_addresses([str(program)]), capture_output=True, text=True, timeout=60, check=False)
    if result.returncode == 0:
        run.found(f"-fsanitize={sanitizer} does not find a fault", result.stderr[-2000:], 0)
    return result.returncode != 0


# --- AddressSanitizer and UndefinedBehaviorSanitizer ------------------------------------------------------------------


def _addresses(run: Run, compiler: str) -> None:
    missing = [name for name in ("cmake", "ninja") if shutil.which(name) is None]
    missing += [] if importlib.util.find_spec("pybind11") else ["pybind11"]
    if missing or _eigen() is None:
        run.skip(f"needs what the build needs (CONTRIBUTING.md): {', '.join(missing) or 'cmeel-eigen'} is missing")
        return
    if not _require_found(run, compiler, "address,undefined"):
        return
    site = _built(run)
    # libstdc++ must be loaded together with libasan, which otherwise aborts at the first C++ exception.
    libraries = [_call([compiler, f"-print-file-name={name}"]).strip() for name in ("libasan.so", "libstdc++.so")]
    own = {"", *(str(folder) for folder in (ROOT, ROOT / "python", ROOT / "tests"))}
    paths = [str(site), *(path for path in sys.path if path not in own)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    # -S: without .pth files, which may point to an editable installation.
    pytest = [sys.executable, "-S", "-m", "pytest", "-q", "-p", "no:faulthandler", "-p", "no:cacheprovider"]
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in _TESTS]
    done = []
    for number, isa in enumerate(_native.available()):
        result = subprocess.run(
            [*pytest, "-k", "not absurd", *tests], cwd=ROOT, env=environment | {"FASTGRU_ISA": isa},
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
        passed = re.search(r"(\d+) passed", result.stdout)
        done.append(f"{isa}: {passed[1] if passed else 0} tests")
        run.report.cases += 1
        if result.returncode != 0 or passed is None:
            text = result.stdout[-3000:] + result.stderr[-3000:]
            run.found(f"{isa}: {_summary(text)}", text, number)
    run.report.done = ", ".join(done)


def _built(run: Run) -> Path:
    """Build the package with the sanitizers into a folder, for the instruction sets that this CPU supports."""
    build = ROOT / "build" / "campaign-asan"
    pybind11 = _call([sys.executable, "-m", "pybind11", "--cmakedir"]).strip()
    _call(
        [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11}", f"-DCMAKE_PREFIX_PATH={';'.join(filter(None, sys.path))}",
            "-DSKBUILD_PROJECT_NAME=fastgru", f"-DSKBUILD_PROJECT_VERSION={fastgru.__version__}",
            f"-DSKBUILD_PROJECT_VERSION_FULL={fastgru.__version__}", "-DFASTGRU_SANITIZE=address,undefined",
            "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1 -g1",
        ]
    )  # fmt: skip
    targets = ["_cpu_features", *(f"_{isa}" for isa in _native.available())]
    _call(["cmake", "--build", str(build), "--target", *targets])
    site = run.scratch / "site"
    shutil.copytree(ROOT / "python" / "fastgru", site / "fastgru", ignore=shutil.ignore_patterns("*.so"))
    for module in build.glob("*.so"):
        shutil.copy(module, site / "fastgru" / "_native")
    return site


# --- ThreadSanitizer --------------------------------------------------------------------------------------------------


def _threads(run: Run, compiler: str) -> None:
    eigen = _eigen()
    if eigen is None:
        run.skip("needs Eigen's headers: pip install cmeel-eigen==3.4.1")
        return
    if not _require_found(run, compiler, "thread"):
        return
    sources = [Path(__file__).with_name("concurrent_kernels.cpp")]
    sources += [path for part in ("kernels", "runtime") for path in sorted((ROOT / "cpp" / part).glob("*.cpp"))]
    done = []
    for number, isa in enumerate(_native.available()):
        program = run.scratch / isa
        _call(
            [
                compiler, "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-ffp-contract=off",
                *_FLAGS.get(isa, "").split(), f"-I{ROOT / 'cpp'}", "-isystem", str(eigen), *map(str, sources),
                "-pthread", "-o", str(program),
            ]
        )  # fmt: skip
        result = subprocess.run(
            _same_addresses([str(program), str(_TSAN_SECONDS)]), capture_output=True, text=True, timeout=_SECONDS,
            check=False,
        )  # fmt: skip
        done.append(f"{isa}: {result.stdout.strip()}")
        run.report.cases += 1
        if result.returncode != 0:
            run.found(f"{isa}: {_summary(result.stderr)}", result.stdout + result.stderr[-4000:], number)
    run.report.done = ", ".join(done)


def _eigen() -> Path | None:
    for folder in [*sys.path, "/usr/include"]:
        for inner in ("cmeel.prefix/include/eigen3", "eigen3"):
            if (Path(folder) / inner / "Eigen").is_dir():
                return Path(folder) / inner
    return None


def _same_addresses(command: list[str]) -> list[str]:
    """Return a command without address randomization: GCC's ThreadSanitizer does not support that of newer kernels."""
    setarch = shutil.which("setarch")
    return [setarch, "-R", *command] if setarch else command


def _summary(text: str) -> str:
    found = re.search(r"SUMMARY: (.+)|runtime error: (.+)", text)
    return (found[1] or found[2]) if found else "failed"


def _call(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout
