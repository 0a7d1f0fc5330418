"""python -m benchmarks [QUESTION ...]: measure and print Markdown; --out also writes Markdown, JSON and a chart."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import chart, machine
from benchmarks.contenders import BY_NAME, OTHER, SGEMMS
from benchmarks.harness import Crew, log
from benchmarks.options import Options
from benchmarks.questions import (
    dropin,
    footprint,
    inference,
    keras_layer,
    memory,
    mnist,
    pauses,
    scaling,
    toolbox,
    training,
)
from benchmarks.report import Result

QUESTIONS = {
    "training": training,
    "inference": inference,
    "mnist": mnist,
    "scaling": scaling,
    "pauses": pauses,
    "toolbox": toolbox,
    "dropin": dropin,
    "keras-layer": keras_layer,
    "memory": memory,
    "footprint": footprint,
}
QUICK = ("training", "inference", "footprint")
ROUNDS, QUICK_ROUNDS = 15, 5


def parse(arguments: Sequence[str] | None) -> tuple[list[str], Options, Path | None]:
    """Return the questions, the options, and the output folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare fastgru with other libraries.")
    choices = f"one or more of {', '.join(QUESTIONS)}"
    parser.add_argument("questions", nargs="*", help=f"{choices}; default: all, with --quick {', '.join(QUICK)}")
    parser.add_argument("--quick", action="store_true", help="run for two minutes: few shapes, few rounds")
    parser.add_argument("--threads", type=int, default=machine.available_processors(), help="threads per library")
    parser.add_argument("--rounds", type=int, help=f"measurements per contender ({ROUNDS}, quick {QUICK_ROUNDS})")
    named = [name for name in BY_NAME if name not in SGEMMS]
    parser.add_argument("--contenders", default="", help=f"comma-separated, of {', '.join(named)}; sgemm always runs")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=(), help="measure the tutorial's shape only, at these"
    )
    parser.add_argument(
        "--against",
        default="",
        metavar="PYTHON",
        help="compare training and inference of this build with the one installed for that interpreter",
    )
    parser.add_argument("--epochs", type=int, default=10, help="epochs of mnist (10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of mnist, one run each (0 1 2)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write results.json, results.md and training.png")
    given = parser.parse_args(arguments)
    questions = given.questions or list(QUICK if given.quick else QUESTIONS)
    contenders = tuple(name for name in given.contenders.split(",") if name)
    for name, known in [*((q, QUESTIONS) for q in questions), *((c, named) for c in contenders)]:
        if name not in known:
            parser.error(f"expected one of {', '.join(known)}, got {name!r}")
    for name in ("threads", "rounds", "epochs"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name}: expected at least 1")
    if given.against:
        if not Path(given.against).is_file():
            parser.error(f"--against: expected a Python interpreter, got {given.against!r}, which is not a file")
        questions = given.questions or ["training", "inference"]
        contenders = contenders or ("fastgru", OTHER)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    options = Options(
        given.threads,
        rounds,
        given.quick,
        contenders,
        tuple(given.batch_sizes),
        given.epochs,
        tuple(given.seeds),
        given.against,
    )
    return questions, options, given.out


def facts(values: dict[str, object]) -> str:
    """One line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def write(folder: Path, text: str, about: dict[str, object], results: list[Result]) -> None:
    """Write the results as Markdown, as JSON and as a chart."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text)
    questions = {result.question: {"rows": result.rows, "notes": result.notes} for result in results}
    (folder / "results.json").write_text(json.dumps(about | {"questions": questions}, indent=1) + "\n")
    trained = [row for result in results if result.question == "training" for row in result.rows]
    if trained:
        reason = chart.draw(trained, folder / "training.png")
        log(f"chart skipped: {reason}" if reason else f"chart: {folder / 'training.png'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all questions in turn."""
    questions, options, out = parse(arguments)
    described = machine.describe(options.threads)
    machine.restrict(options.threads)
    with Crew(options.threads, options.other_python) as crew:
        results = [QUESTIONS[question].run(options, crew) for question in questions]
        versions = dict(crew.versions)
    head = ["# fastgru's benchmarks", "", facts(described), ""]
    head += [facts(versions), ""] if versions else []
    head += [
        f"Speeds: medians of {options.rounds} interleaved rounds; spread is the interquartile range over them.",
        "",
    ]
    text = "\n".join([*head, *(result.to_markdown() for result in results)])
    print(text)
    if out is not None:
        write(out, text, {"machine": described, "versions": versions, "rounds": options.rounds}, results)


if __name__ == "__main__":
    main()
