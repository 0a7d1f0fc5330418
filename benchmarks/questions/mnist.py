"""How long does a whole program take that reads MNIST, trains the tutorial's model, and tests it?

TensorFlow.js would take most of a day. It trains on the first images only, and its time is extrapolated.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import PEERS
from benchmarks.harness import COOL_DOWN_SECONDS, Crew, log
from benchmarks.options import Options
from benchmarks.report import Result, duration
from benchmarks.worker import environment

DATA_VARIABLE = "FASTGRU_DATA"
COLUMNS = ("contender", "how", "wall time, median", "times fastgru's", "test accuracy by seed", "mean")
IMAGES = 60_000
#: Number of images for TensorFlow.js: at most half a minute for each backend.
TFJS_IMAGES = {"tfjs-wasm": 3200, "tfjs-cpu": 640}
MOST_SECONDS = 3600

#: Data folder, epochs, seed, threads -> seconds, accuracy or None, and the method.
Measure = Callable[[str, int, int, int], dict[str, Any]]


def program(command: list[str], env: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """Return the wall time of a process from start to end, and the JSON of its last line."""
    time.sleep(COOL_DOWN_SECONDS)
    begin = time.perf_counter()
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=MOST_SECONDS)
    return time.perf_counter() - begin, json.loads(done.stdout.splitlines()[-1])


def fastgru(data: str, epochs: int, seed: int, threads: int) -> dict[str, Any]:
    """Run the package's command."""
    command = [sys.executable, "-m", "fastgru", "train", "mnist", "--json", "--data", data, "--epochs", str(epochs)]
    seconds, result = program([*command, "--seed", str(seed)], environment(threads))
    return {"seconds": seconds, "accuracy": result["accuracy"], "how": "whole"}


def keras(data: str, epochs: int, seed: int, threads: int) -> dict[str, Any]:
    """Run `fit` with jit_compile=True."""
    command = [sys.executable, str(PEERS / "mnist_keras.py"), data, str(epochs), str(seed)]
    seconds, result = program(command, environment(threads))
    return {"seconds": seconds, "accuracy": result["accuracy"], "how": "whole"}


def tfjs(backend: str) -> Measure:
    """Run the tutorial's own code."""
    images = TFJS_IMAGES[f"tfjs-{backend}"]

    def measure(data: str, epochs: int, _seed: int, threads: int) -> dict[str, Any]:
        command = ["node", str(PEERS / "mnist_tfjs.mjs"), backend, data, str(images)]
        _, result = program(command, environment(threads))
        seconds = result["seconds"] * epochs * IMAGES / images
        return {"seconds": seconds, "accuracy": None, "how": f"EXTRAPOLATED from {images:,} images of one epoch"}

    return measure


CONTENDERS = {"fastgru": fastgru, "keras": keras, "tfjs-wasm": tfjs("wasm"), "tfjs-cpu": tfjs("cpu")}


def run(options: Options, crew: Crew) -> Result:
    """Run one round per seed, with all contenders in each; extrapolated ones run in the first round only."""
    epochs = 1 if options.quick else options.epochs
    title = f"MNIST: the whole job as a process, batch 32, epochs: {epochs}"
    data = os.environ.get(DATA_VARIABLE, "")
    if not Path(data, "train-images-idx3-ubyte.gz").is_file() or not data:
        note = f"skipped: no MNIST here; set {DATA_VARIABLE} to a folder with its four .gz files"
        return Result("mnist", title, COLUMNS, [], [], [note])
    names = [name for name in CONTENDERS if not options.contenders or name in options.contenders]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    notes = []
    seeds = options.seeds[:1] if options.quick else options.seeds
    for seed in seeds:
        for name in list(runs):
            if runs[name] and runs[name][-1]["accuracy"] is None:
                continue
            log(f"mnist with {name}, seed {seed}")
            try:
                runs[name].append(CONTENDERS[name](data, epochs, seed, options.threads) | {"seed": seed})
            except subprocess.CalledProcessError as error:
                words = error.stderr.strip().splitlines() or ["failed without a message"]
                notes.append(f"{name} skipped: {words[-1][:300]}")
                del runs[name]
            except (OSError, subprocess.TimeoutExpired) as error:
                notes.append(f"{name} skipped: {str(error)[:300]}")
                del runs[name]
    medians = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    table = []
    for name, found in runs.items():
        accuracies = [run["accuracy"] for run in found if run["accuracy"] is not None]
        times = f"{medians[name] / medians['fastgru']:.1f}" if "fastgru" in medians else ""
        by_seed = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
        mean = f"{statistics.mean(accuracies):.2%}" if accuracies else ""
        table.append((name, found[0]["how"], duration(medians[name]), times, by_seed, mean))
    return Result(
        "mnist", title, COLUMNS, table, [{"contender": name, "runs": found} for name, found in runs.items()], notes
    )
