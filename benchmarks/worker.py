"""A contender's process, seen from outside: started, asked, timed out, stopped."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class WorkerError(Exception):
    """The process answered with an error, died, or took too long."""


class MissingError(WorkerError):
    """The contender's library is not here."""


def environment(threads: int, extra: dict[str, str] | None = None) -> dict[str, str]:
    """What every worker gets: the same number of threads, whatever its library calls them.

    Between turns OpenBLAS' and OpenMP's threads spin for a while before they sleep (GNU's for some milliseconds).
    Their waiting is left as it is, because within a measurement spinning is what makes them fast; the pause between
    contenders is there to see it end.
    """
    given = dict(os.environ)
    # OpenBLAS then chooses its kernels for this processor itself, so that NumPy's sgemm is measured at its best.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "FASTGRU_ISA"):
        given.pop(name, None)
    names = ("BENCHMARK_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    given |= dict.fromkeys(names, str(threads))
    given |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return given | (extra or {})


class Worker:
    """One process; requests and answers as in `benchmarks.peers.serve`."""

    def __init__(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self.name = name
        self.versions: dict[str, str] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `stop`
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Hand the lines over to `receive`, which can then time out; an empty one is the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def hello(self, timeout: float) -> None:
        """Wait until the library is imported."""
        self.versions = self.receive(timeout)["versions"]

    def send(self, **request: Any) -> None:
        """Ask without waiting, so that several workers can work on their answers at once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerError(f"the process died: {self._last_words()}") from None

    def receive(self, timeout: float) -> dict[str, Any]:
        """The answer.

        Raises
        ------
        MissingError
            The library is not here.
        WorkerError
            There is none in time, or the process died, or it says what went wrong.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(f"no answer within {timeout:.0f} s") from None
        if not line:
            raise WorkerError(f"the process died: {self._last_words()}")
        answer = json.loads(line)
        if "missing" in answer:
            raise MissingError(answer["missing"])
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """`send` and `receive`."""
        self.send(**request)
        return self.receive(timeout)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1][-300:]}" if lines else "")

    def stop(self) -> None:
        """End the process, politely if it listens."""
        try:
            self.send(do="quit")
            self._process.wait(timeout=2)
        except (WorkerError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # a request that a dead process never read
                pass
        self._errors.close()
