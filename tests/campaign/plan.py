"""The tasks of the campaign: their work in the short and the long form, and the cost of a case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A part of the campaign on one subject, run in its own process.

    Attributes
    ----------
    part : str
        The module ``campaign.<part>``.
    subject : str
    share : float
        Share of the short form's time, relative to the other tasks; 0: the long form only.
    count : int
        Cases in the long form.
    milliseconds : float
        Approximate cost of a case, to estimate the time of the long form.
    isa : str or None
        The instruction set, if not the best.
    """

    part: str
    subject: str
    share: float
    count: int
    milliseconds: float
    isa: str | None = None

    @property
    def name(self) -> str:
        return f"{self.part} {self.subject}"


#: Subject of kills -> milliseconds per kill, including the fork and the check.
_KILLS = {
    "native": 12,
    "keras": 35,
    "h5": 35,
    "weights.h5": 25,
    "pt": 15,
    "torch.safetensors": 12,
    "onnx": 25,
    "tfjs": 20,
    "rtneural": 25,
    "ModelCheckpoint": 60,
}
#: Reader -> milliseconds per input.
_READERS = {
    "native": 0.6,
    "resume": 1.2,
    "torch.safetensors": 0.6,
    "pt": 1.9,
    "legacy.pt": 0.9,
    "keras": 4.0,
    "h5": 6.0,
    "weights.h5": 4.4,
    "tfjs": 0.9,
    "onnx": 1.7,
    "rtneural": 0.5,
    "npz": 0.8,
    "npy folder": 0.8,
    "predict npy": 0.4,
    "png": 0.4,
    "idx": 0.12,
    "gzip": 0.12,
}


def tasks(isas: list[str]) -> list[Task]:
    """Return all tasks; `isas` are the instruction sets that this CPU supports, best first."""
    planned = [Task("planted", "faults", 1.5, 1, 15_000)]
    planned += [Task("kills", subject, 1, 1000, cost) for subject, cost in _KILLS.items()]
    planned += [
        Task("disk_full", "every format", 1.5, 500, 40),
        Task("resume", "killed trainings", 4, 100, 1500),
    ]
    planned += [Task("fuzz", subject, 1.3 if cost > 1 else 1, 100_000, cost) for subject, cost in _READERS.items()]
    planned += [Task("bits", isa, 2.5, 1000, 200, isa) for isa in isas]
    planned += [Task("gradients", isa, 1.5, 1000, 60, isa) for isa in isas]
    planned += [
        Task("leaks", "training steps", 2.5, 20_000, 1.0),
        Task("leaks", "saves", 2.5, 2_000, 40),
        Task("sanitizers", "address and undefined behaviour", 0, len(isas), 600_000),
        Task("sanitizers", "threads", 0, len(isas), 120_000),
    ]
    return planned


def chosen(planned: list[Task], only: str | None) -> list[Task]:
    """Return the tasks that `only` names, as ``part`` or ``part:subject``, separated by commas."""
    if only is None:
        return planned
    found = []
    for name in only.split(","):
        part, _, subject = name.strip().partition(":")
        matching = [task for task in planned if task.part == part and subject in ("", task.subject)]
        if not matching:
            known = ", ".join(dict.fromkeys(task.part for task in planned))
            raise SystemExit(f"--only: expected parts of {known}, or part:subject, got {name!r}")
        found += [task for task in matching if task not in found]
    return found


def seconds(planned: list[Task], minutes: float, jobs: int) -> dict[Task, float]:
    """Return the time budget of each task, so that all take `minutes` with that many jobs."""
    total = sum(task.share for task in planned)
    return {task: task.share / total * minutes * 60 * jobs for task in planned if task.share > 0}
