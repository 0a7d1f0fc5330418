"""Planted faults: the campaign must find each of them, or a table without findings would mean nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import fastgru
import numpy as np
from fastgru import Sequential

from campaign import bits, disk_full, formats, fuzz, gradients, kills, leaks, resume
from campaign.disk_full import Writer
from campaign.formats import Format
from campaign.readers import Files, Reader
from campaign.run import Run


def run(run: Run) -> None:
    found = 0
    for number, (expected, plant) in enumerate(PLANTED):
        inner = Run(
            run.part,
            plant.__name__,
            seed=run.seed,
            seconds=20,
            count=None,
            scratch=run.scratch / str(number),
            memory=run.memory / str(number),
            keep=run.scratch / "kept",
        )
        inner.scratch.mkdir()
        inner.memory.mkdir()
        plant(inner)
        kinds = [finding.kind for finding in inner.finish().findings]
        if any(expected in kind for kind in kinds):
            found += 1
        else:
            run.found(f"a planted fault is not found: {plant.__name__}", f"expected {expected!r}, got {kinds}", number)
    run.report.cases = len(PLANTED)
    run.report.done = f"{found} of {len(PLANTED)} found"


# --- Readers ----------------------------------------------------------------------------------------------------------


def _reading(run: Run, fault: Callable[[], object], *, inputs: int = 2, **limits: float) -> None:
    """Fuzz a reader that accepts its sound file only."""
    run.count = inputs

    def read(path: Path) -> None:
        if path.read_bytes() != b"sound":
            fault()

    def damage(random: object, base: Files) -> Files:
        return {"file": b"damaged"}

    fuzz.check(run, Reader(read, (ValueError,), [{"file": b"sound"}], damage, certain=True), **limits)


def a_reader_that_raises_a_key_error(run: Run) -> None:
    _reading(run, lambda: {}["missing"])


def a_reader_that_hangs_in_c(run: Run) -> None:
    _reading(run, lambda: sum(iter(int, 1)), inputs=1)


def a_reader_that_waits_for_ever(run: Run) -> None:
    _reading(run, lambda: os.read(os.pipe()[0], 1), inputs=1, wall_seconds=0.5)


def a_reader_that_aborts(run: Run) -> None:
    _reading(run, os.abort)


def a_reader_that_takes_memory(run: Run) -> None:
    _reading(run, lambda: np.ones(300 << 20, np.uint8), most_memory=100 << 20)


def a_reader_that_hides_a_memory_error(run: Run) -> None:
    def ask() -> None:
        try:
            np.ones(1 << 40, np.uint8)
        except MemoryError:
            raise ValueError("damaged") from None

    _reading(run, ask)


# --- Writers ----------------------------------------------------------------------------------------------------------


def _write_in_place(content: bytes, path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for begin in range(0, len(content), len(content) // 4):
            file.write(content[begin : begin + len(content) // 4])
            time.sleep(0.0002)


def _write_through_a_file_that_stays(content: bytes, path: Path) -> None:
    temporary = path.with_name(f"{time.monotonic_ns()}.tmp")
    temporary.write_bytes(content)
    time.sleep(0.0005)
    temporary.replace(path)


def _killing(run: Run, write: Callable[[bytes, Path], None]) -> None:
    run.count = 50
    native = formats.get("native")
    models = [formats.make_model("native", seed=seed, units=8) for seed in (1, 2)]
    contents = {}
    for model in models:
        native.write(model, run.scratch / native.name)
        contents[id(model)] = (run.scratch / native.name).read_bytes()

    def planted(model: Sequential, path: Path) -> None:
        write(contents[id(model)], path)

    kills.kill_saves(run, Format(native.name, planted, native.read), models)


def a_save_in_place(run: Run) -> None:
    _killing(run, _write_in_place)


def a_save_that_leaves_files(run: Run) -> None:
    _killing(run, _write_through_a_file_that_stays)


def a_save_that_fails(run: Run) -> None:
    parent = os.getpid()

    def write(content: bytes, path: Path) -> None:
        if os.getpid() != parent:
            raise OSError("planted")
        path.write_bytes(content)

    _killing(run, write)


def _without_room(run: Run, write: Callable[[bytes, Path], None]) -> None:
    run.count = 20
    contents = b"old" * 10_000, b"new" * 30_000
    disk_full.check(run, [Writer("planted", "file", lambda number, path: write(contents[number], path))])


def a_write_in_place_without_room(run: Run) -> None:
    _without_room(run, _write_in_place)


def a_write_that_leaves_half_a_file_without_room(run: Run) -> None:
    _without_room(run, _write_through_a_file_that_stays)


def an_error_without_the_name_of_the_file(run: Run) -> None:
    def write(content: bytes, path: Path) -> None:
        try:
            temporary = path.with_name("temporary")
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(error.errno, os.strerror(error.errno)) from None

    _without_room(run, write)


# --- Numbers ----------------------------------------------------------------------------------------------------------


def a_training_that_draws_other_numbers_when_resumed(run: Run) -> None:
    def train(folder: Path) -> None:
        (folder / "run.safetensors").touch()
        time.sleep(0.05)
        (folder / "model.safetensors").write_bytes(os.urandom(8))

    run.count = 2
    resume.check(run, [train])


def a_bit_that_depends_on_the_threads(run: Run) -> None:
    bits.on_threads(run, 0, "planted", lambda: {"sum": np.array([1.0 + (fastgru.get_num_threads() == 7) * 1e-16 * 4])})


def a_gradient_that_is_a_little_wrong(run: Run) -> None:
    x = np.linspace(0.5, 1.5, 100)
    wrong = 2 * x * (1 + 1e-12)
    gradients.compare(run, 0, run.random(0), "planted", lambda x: (x * x).sum(), [x], [("x", 0, wrong)], bound=1e-14)


def a_step_that_keeps_objects(run: Run) -> None:
    run.count = 1000
    kept: list[list[int]] = []
    leaks.check(run, lambda number: kept.append([number]), "steps")


def a_step_that_keeps_memory(run: Run) -> None:
    run.count = 1000
    kept: list[np.ndarray] = []
    leaks.check(run, lambda number: kept.append(np.ones(10_000, np.uint8)), "steps")


def a_save_that_keeps_files_open(run: Run) -> None:
    run.count = 200
    leaks.check(run, lambda number: os.open(os.devnull, os.O_RDONLY), "saves")


#: Text that the kind of the finding must contain -> the fault.
PLANTED: list[tuple[str, Callable[[Run], None]]] = [
    ("KeyError", a_reader_that_raises_a_key_error),
    ("processor time", a_reader_that_hangs_in_c),
    ("no end within", a_reader_that_waits_for_ever),
    ("SIGABRT", a_reader_that_aborts),
    ("more memory than", a_reader_that_takes_memory),
    ("asked for more than 8 GB", a_reader_that_hides_a_memory_error),
    ("the file ", a_save_in_place),
    ("stale files remain", a_save_that_leaves_files),
    ("ended by itself", a_save_that_fails),
    ("the old file is not whole", a_write_in_place_without_room),
    ("files were left behind", a_write_that_leaves_half_a_file_without_room),
    ("does not name the file", an_error_without_the_name_of_the_file),
    ("differs from that of a training never killed", a_training_that_draws_other_numbers_when_resumed),
    ("threads", a_bit_that_depends_on_the_threads),
    ("gradient for x is wrong", a_gradient_that_is_a_little_wrong),
    ("objects grows", a_step_that_keeps_objects),
    ("memory grows", a_step_that_keeps_memory),
    ("files grows", a_save_that_keeps_files_open),
]
