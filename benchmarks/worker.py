"""Starts, queries and stops a contender's process."""

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
    """The process returned an error, died, or timed out."""


class MissingError(WorkerError):
    """The contender's library is not installed."""


def environment(threads: int, extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a worker: the same number of threads for all libraries.

    Between turns the threads of OpenBLAS and OpenMP spin for a while before they sleep (GNU's for some milliseconds).
    Their settings are not changed, because spinning makes them fast within a measurement. The pause between contenders
    waits for its end.
    """
    given = dict(os.environ)
    # Without this variable OpenBLAS chooses the kernels for this processor, so that NumPy's sgemm runs at full speed.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "FASTGRU_ISA"):
        given.pop(name, None)
    names = ("BENCHMARK_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    given |= dict.fromkeys(names, str(threads))
    given |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return given | (extra or {})


class Worker:
    """A process that follows the protocol of `benchmarks.peers.serve`."""

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
        """Pass lines to `receive` through a queue, which allows a timeout; an empty line marks the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def hello(self, timeout: float) -> None:
        """Wait until the library is imported."""
        self.versions = self.receive(timeout)["versions"]

    def send(self, **request: Any) -> None:
        """Send a request without waiting, so that several workers can run at the same time."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerError(f"the process died: {self._last_words()}") from None

    def receive(self, timeout: float) -> dict[str, Any]:
        """Return the answer.

        Raises
        ------
        MissingError
            The library is not installed.
        WorkerError
            The request timed out or failed, or the process died.
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
        """Call `send`, then `receive`."""
        self.send(**request)
        return self.receive(timeout)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1][-300:]}" if lines else "")

    def stop(self) -> None:
        """Stop the process: ask it to quit, then kill it."""
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
            except OSError:  # the process died without reading a request
                pass
        self._errors.close()
