"""The protocol of a contender's process: requests in JSON lines on standard input, answers on standard output.

First the process says ``{"versions": ...}`` or, where its library is missing, ``{"missing": reason}``. Then

``{"do": "setup", "data": path, "results": path, "question": ..., "rows": ..., ...}``
    builds the model, runs it once and writes the results (safetensors) to be compared;
``{"do": "time", "repeats": n}``
    makes n calls to warm up, then n timed ones: ``{"seconds": for the problem once, "repeat": for a call}``;
``{"do": "memory"}``
    tells the peak of resident memory so far: ``{"bytes": ...}``;
``{"do": "quit"}``.

What goes wrong is answered with ``{"error": ...}``. tfjs.mjs speaks the same.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Arrays = Mapping[str, np.ndarray]


@dataclass
class Task:
    """A model that is ready to run: its answers, and a call that does the work `repeats` times and waits for the end.

    ``batches`` is how often a single repeat does the problem's work.
    """

    answers: dict[str, np.ndarray]
    run: Callable[[int], None]
    batches: int = 1


@dataclass
class Request:
    """What `setup` asks for."""

    question: str
    threads: int
    reset_after: bool
    way: str
    data: Arrays

    @property
    def training(self) -> bool:
        return self.question == "training"


def peak_memory() -> int:
    """Bytes of resident memory at most so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes elsewhere


def serve(program: str) -> None:
    """Answer requests until told to quit, or until the parent has gone.

    ``benchmarks.peers.PROGRAM`` is imported here, with the library that it stands for; its ``load(threads)`` returns
    the versions of what is measured, and a function that makes a `Task` of a `Request`.
    """
    # Libraries print to standard output at will: the protocol keeps it for itself, and they get standard error.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(**values: Any) -> None:
        replies.write(json.dumps(values) + "\n")

    threads = int(os.environ["BENCHMARK_THREADS"])
    try:
        versions, build = import_module(f"benchmarks.peers.{program}").load(threads)
    except (ImportError, OSError, RuntimeError) as error:
        reply(missing=" ".join(str(error).split()))
        return
    reply(versions=versions)
    task = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if message["do"] == "quit":
                return
            if message["do"] == "memory":
                reply(bytes=peak_memory())
            elif message["do"] == "setup":
                task = None  # the last one's memory is free before the next one is built
                data = load_file(message["data"])
                request = Request(
                    message["question"], message["threads"] or threads, message["reset_after"], message["way"], data
                )
                task = build(request)
                save_file(
                    {name: np.ascontiguousarray(value) for name, value in task.answers.items()}, message["results"]
                )
                reply(results=message["results"])
            else:
                repeat = timed(task, message["repeats"])
                reply(seconds=repeat / task.batches, repeat=repeat)
        except Exception as error:  # whatever a framework raises is the parent's to report
            reply(error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")


def timed(task: Task, repeats: int) -> float:
    """Seconds a repeat, warm."""
    task.run(repeats)
    begin = time.perf_counter()
    task.run(repeats)
    return (time.perf_counter() - begin) / repeats
