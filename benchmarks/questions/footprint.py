"""How long does an import take, and how much disk space does an installation need?"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from benchmarks.harness import Crew, log
from benchmarks.options import Options
from benchmarks.report import Result
from benchmarks.worker import ROOT, environment

TITLE = "Footprint: import in a fresh process, and installed size"
COLUMNS = ("package", "imports", "import, s", "own size, MB", "with dependencies, MB", "wheel, MB")
#: Distribution -> the module that a program imports from it; all depend on NumPy.
PACKAGES = {
    "numpy": "numpy",
    "fastgru": "fastgru",
    "onnxruntime": "onnxruntime",
    "jax": "jax",
    "torch": "torch",
    "tensorflow-cpu": "keras",
}
ROUNDS, QUICK_ROUNDS = 3, 1
MEGABYTE = 1e6


def import_seconds(statement: str, env: dict[str, str], rounds: int) -> float:
    """Return the median over fresh processes, including the interpreter's start. The first run only fills the disk
    cache and is not counted.
    """
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], env=env, check=True, capture_output=True, timeout=120)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def own_bytes(distribution: metadata.Distribution) -> int:
    """Return the size of the installed files, without compiled Python."""
    paths = (Path(str(file.locate())) for file in distribution.files or ())
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def closure(name: str, seen: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """Return the distribution and all its installed dependencies, without extras."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return seen
    try:
        seen[key] = metadata.distribution(name)
    except metadata.PackageNotFoundError:  # for another platform or Python
        return seen
    for requirement in seen[key].requires or ():
        needed, _, marker = requirement.partition(";")
        if "extra" not in marker:
            closure(re.match(r"[\w.-]+", needed)[0], seen)
    return seen


def wheel_bytes(name: str) -> int:
    """Return the size of the newest wheel in dist/, or 0."""
    wheels = sorted((ROOT / "dist").glob(f"{name}-*.whl"), key=lambda path: path.stat().st_mtime)
    return wheels[-1].stat().st_size if wheels else 0


def run(options: Options, crew: Crew) -> Result:
    """Measure every installed package."""
    env = environment(options.threads, {"KERAS_BACKEND": "tensorflow"})
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    table, rows, notes = [], [], []
    bare = import_seconds("pass", env, rounds)
    for name, module in PACKAGES.items():
        log(f"footprint of {name}")
        try:
            distribution = metadata.distribution(name)
            seconds = import_seconds(f"import {module}", env, rounds) - bare
        except (metadata.PackageNotFoundError, subprocess.SubprocessError) as error:
            notes.append(f"{name} skipped: {error}")
            rows.append({"package": name, "skipped": str(error)})
            continue
        own, wheel = own_bytes(distribution), wheel_bytes(name)
        total = sum(own_bytes(needed) for needed in closure(name, {}).values())
        sizes = [f"{size / MEGABYTE:,.1f}" if size else "" for size in (own, total, wheel)]
        table.append((f"{name} {distribution.version}", module, f"{seconds:.2f}", *sizes))
        rows.append({"package": name, "import_seconds": seconds, "bytes": own, "total_bytes": total, "wheel": wheel})
    notes.append(f"A bare Python starts in {bare:.3f} s, which is subtracted.")
    if not wheel_bytes("fastgru"):
        notes.append("fastgru's wheel skipped: none in dist/ (pip wheel --no-deps -w dist .)")
    return Result("footprint", TITLE, COLUMNS, table, rows, notes)
