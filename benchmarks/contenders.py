"""The table of contenders."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.problem import TUTORIAL, Problem
from benchmarks.worker import Worker, environment

PEERS = Path(__file__).with_name("peers")
BOTH = ("training", "inference")
#: The reference contender for each form of the reset gate.
REFERENCES = {True: "fastgru", False: "fastgru-before"}
#: Another build of fastgru, installed for another interpreter.
OTHER = "fastgru-other"


@dataclass(frozen=True)
class Contender:
    """A program of `benchmarks/peers` and its options.

    ``way`` is a variant of the program. ``whole`` is False for bare kernels, without head and Adam. ``adam`` is the
    framework whose form of Adam the program has. Problems with more flops than ``most_flops`` or more steps than
    ``most_steps`` are skipped, because they would take too long. A contender with ``slow_start`` compiles for half a
    minute per shape; it runs the tutorial's shapes only, and none with --quick.
    """

    name: str
    title: str
    program: str
    questions: tuple[str, ...] = BOTH
    way: str = ""
    reset_after: bool = True
    whole: bool = True
    adam: str = "keras"
    most_flops: float = float("inf")
    most_steps: float = float("inf")
    slow_start: bool = False
    by_default: bool = True
    env: dict[str, str] = field(default_factory=dict)

    def start(self, threads: int, other_python: str = "") -> Worker:
        """Start its process, which begins to import.

        Parameters
        ----------
        threads : int
            Threads of its library.
        other_python : str
            The interpreter that runs ``fastgru-other``.

        Raises
        ------
        FileNotFoundError
            Node is not installed, or there is no other interpreter.
        """
        if self.program.startswith("tfjs"):
            command = ["node", str(PEERS / "tfjs.mjs"), self.program.partition(" ")[2]]
        else:
            python = other_python if self.name == OTHER else sys.executable
            if not python:
                raise FileNotFoundError("pass --against PYTHON")
            command = [python, "-m", "benchmarks.peers", self.program]
        return Worker(self.name, command, environment(threads, self.env))

    def refusal(self, problem: Problem) -> str:
        """Return the reason why it skips a problem, or an empty text."""
        if problem.question not in self.questions:
            return f"does no {problem.question}"
        if problem.flops() > self.most_flops:
            return f"{problem.flops() / 1e9:.2g} Gflop per run exceed its limit of {self.most_flops / 1e9:.2g}"
        if problem.steps > self.most_steps:
            return f"{problem.steps} steps exceed its limit of {self.most_steps}"
        if self.slow_start and problem.source != TUTORIAL:
            return "compiles for a long time, so only the tutorial's shapes are measured"
        return ""


SGEMMS = {f"sgemm-{size}": size for size in (1024, 2048)}

CONTENDERS = [
    *(
        Contender(name, f"NumPy sgemm {size}", "sgemm", way=str(size))  # in every run
        for name, size in SGEMMS.items()
    ),
    Contender("fastgru", "fastgru", "fastgru_peer"),
    Contender(OTHER, "fastgru, the other build", "fastgru_peer", by_default=False),
    Contender("fastgru-fit", "fastgru, fit", "fastgru_peer", ("training",), way="fit"),
    Contender("fastgru-before", "fastgru, reset before", "fastgru_peer", reset_after=False),
    Contender("fastgru-avx2", "fastgru, AVX2", "fastgru_peer", by_default=False, env={"FASTGRU_ISA": "avx2"}),
    Contender("onednn-lbr", "oneDNN lbr_gru, kernels alone", "onednn", whole=False),
    Contender(
        "onednn-vanilla", "oneDNN vanilla_gru, kernels alone, reset before", "onednn", whole=False, reset_after=False
    ),
    Contender("jax", "JAX, jitted scan", "jax_scan"),
    Contender("jax-unrolled", "JAX, jitted and unrolled", "jax_scan", way="unrolled", most_steps=64),
    Contender("keras", "Keras on TensorFlow, jit_compile", "keras_tensorflow"),
    Contender("pytorch", "PyTorch, eager", "pytorch", adam="pytorch"),
    Contender("pytorch-compile", "PyTorch, torch.compile", "pytorch", way="compile", adam="pytorch", slow_start=True),
    Contender("onnxruntime", "ONNX Runtime", "onnx_runtime", ("inference",)),
    Contender(
        "tfjs-wasm",
        "TensorFlow.js wasm, reset before",
        "tfjs wasm",
        reset_after=False,
        adam="pytorch",
        most_flops=0.5e9,
    ),
    Contender(
        "tfjs-cpu", "TensorFlow.js plain, reset before", "tfjs cpu", reset_after=False, adam="pytorch", most_flops=0.1e9
    ),
]
BY_NAME = {contender.name: contender for contender in CONTENDERS}
