"""How much memory does a process need to train the tutorial's model?"""

from __future__ import annotations

from benchmarks.contenders import BY_NAME
from benchmarks.harness import HELLO_SECONDS, SETUP_SECONDS, TIME_SECONDS, Crew, log
from benchmarks.options import Options
from benchmarks.problem import Problem, write_data
from benchmarks.report import Result
from benchmarks.shapes import tutorial
from benchmarks.worker import WorkerError

TITLE = "Memory: peak resident memory of a process that trains at N=128"
COLUMNS = ("contender", "program", "after import, MB", "after training, MB")
STEPS = 3
MEGABYTE = 1e6


def peaks(name: str, problem: Problem, crew: Crew) -> tuple[float, float]:
    """Return peak bytes after the import of the library and after some steps, in a new process."""
    contender = BY_NAME[name]
    worker = contender.start(crew.threads)
    try:
        worker.hello(HELLO_SECONDS)
        imported = worker.ask(TIME_SECONDS, do="memory")["bytes"]
        worker.ask(
            SETUP_SECONDS,
            do="setup",
            data=str(crew.folder / "memory.safetensors"),
            results=str(crew.folder / "memory-results.safetensors"),
            reset_after=contender.reset_after,
            way=contender.way,
            **problem.to_message(),
        )
        worker.ask(TIME_SECONDS, do="time", repeats=STEPS)
        return imported, worker.ask(TIME_SECONDS, do="memory")["bytes"]
    finally:
        worker.stop()


def run(options: Options, crew: Crew) -> Result:
    """Measure the contenders one after the other."""
    problem = tutorial("training", 128)
    write_data(problem, crew.folder / "memory.safetensors")
    table, rows, notes = [], [], []
    for name in options.names("training"):
        log(f"memory of {name}")
        try:
            imported, trained = peaks(name, problem, crew)
        except (WorkerError, OSError) as error:
            notes.append(f"{name} skipped: {error}")
            rows.append({"contender": name, "skipped": str(error)})
            continue
        title = BY_NAME[name].title
        table.append((name, title, f"{imported / MEGABYTE:,.0f}", f"{trained / MEGABYTE:,.0f}"))
        rows.append({"contender": name, "imported_bytes": imported, "trained_bytes": trained})
    return Result("memory", TITLE, COLUMNS, table, rows, notes)
