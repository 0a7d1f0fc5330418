"""The protocol of a contender's process: JSON lines, requests on standard input and answers on standard output.

The process starts with ``{"versions": ...}``, or ``{"missing": reason}`` if its library is not installed. Then

``{"do": "setup", "data": path, "results": path, "question": ..., "rows": ..., ...}``
    builds the model, runs it once and writes the results (safetensors) for the comparison;
``{"do": "time", "repeats": n}``
    makes n warm-up calls, then n timed ones: ``{"seconds": per problem, "repeat": per call}``;
``{"do": "memory"}``
    returns the peak resident memory so far: ``{"bytes": ...}``;
``{"do": "quit"}``.

Errors are answered with ``{"error": ...}``. tfjs.mjs implements the same protocol.
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
    """A model that is ready to run: its answers, and a call that does the work `repeats` times and waits for its end.

    ``batches`` is the number of problems that a repeat computes.
    """

    answers: dict[str, np.ndarray]
    run: Callable[[int], None]
    batches: int = 1


@dataclass
class Request:
    """The fields of a `setup` request."""

    question: str
    threads: int
    reset_after: bool
    way: str
    data: Arrays

    @property
    def training(self) -> bool:
        return self.question == "training"


def peak_memory() -> int:
    """Return the peak resident memory in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes elsewhere


def serve(program: str) -> None:
    """Answer requests until "quit" or until the parent process has ended.

    Imports ``benchmarks.peers.PROGRAM`` and with it the library. Its ``load(threads)`` returns the versions of the
    library, and a function that makes a `Task` of a `Request`.
    """
    # Libraries may print to standard output; it is reserved for the protocol, and their output goes to standard error.
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
                task = None  # frees its memory before the next one is built
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
        except Exception as error:  # frameworks raise any type; the parent reports it
            reply(error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")


def timed(task: Task, repeats: int) -> float:
    """Return seconds per repeat, after a warm-up."""
    task.run(repeats)
    begin = time.perf_counter()
    task.run(repeats)
    return (time.perf_counter() - begin) / repeats
