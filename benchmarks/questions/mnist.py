"""How long does the whole job take: a program that reads MNIST, trains the tutorial's model, and tests it?

TensorFlow.js would take the better part of a day: it trains on the first images only, and its time is extrapolated.
"""

from __future__ import annotations

import json
import os
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
COLUMNS = ("contender", "how", "wall time", "test accuracy")
IMAGES = 60_000
#: How many images TensorFlow.js gets: half a minute or less for each backend.
TFJS_IMAGES = {"tfjs-wasm": 3200, "tfjs-cpu": 640}
MOST_SECONDS = 3600


def program(command: list[str], env: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """Wall time of a process from start to end, and the JSON of its last line."""
    time.sleep(COOL_DOWN_SECONDS)
    begin = time.perf_counter()
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=MOST_SECONDS)
    return time.perf_counter() - begin, json.loads(done.stdout.splitlines()[-1])


def fastgru(data: str, epochs: int, options: Options) -> dict[str, Any]:
    """The package's own command."""
    command = [sys.executable, "-m", "fastgru", "train", "mnist", "--json", "--data", data, "--epochs", str(epochs)]
    seconds, result = program([*command, "--seed", str(options.seed)], environment(options.threads))
    return {"seconds": seconds, "accuracy": result["accuracy"], "how": "whole"}


def keras(data: str, epochs: int, options: Options) -> dict[str, Any]:
    """`fit` with jit_compile=True."""
    command = [sys.executable, str(PEERS / "mnist_keras.py"), data, str(epochs), str(options.seed)]
    seconds, result = program(command, environment(options.threads))
    return {"seconds": seconds, "accuracy": result["accuracy"], "how": "whole"}


def tfjs(backend: str) -> Callable[[str, int, Options], dict[str, Any]]:
    """The tutorial's own code."""
    images = TFJS_IMAGES[f"tfjs-{backend}"]

    def measure(data: str, epochs: int, options: Options) -> dict[str, Any]:
        command = ["node", str(PEERS / "mnist_tfjs.mjs"), backend, data, str(images)]
        _, result = program(command, environment(options.threads))
        seconds = result["seconds"] * epochs * IMAGES / images
        return {"seconds": seconds, "accuracy": None, "how": f"EXTRAPOLATED from {images:,} images of one epoch"}

    return measure


CONTENDERS = {"fastgru": fastgru, "keras": keras, "tfjs-wasm": tfjs("wasm"), "tfjs-cpu": tfjs("cpu")}


def run(options: Options, crew: Crew) -> Result:
    """Once each, one after the other: a job is long enough to need no rounds."""
    epochs = 1 if options.quick else options.epochs
    title = f"MNIST: the whole job as a process, batch 32, epochs: {epochs}"
    data = os.environ.get(DATA_VARIABLE, "")
    if not Path(data, "train-images-idx3-ubyte.gz").is_file() or not data:
        note = f"skipped: no MNIST here; set {DATA_VARIABLE} to a folder with its four .gz files"
        return Result("mnist", title, COLUMNS, [], [], [note])
    table, rows, notes = [], [], []
    for name, measure in CONTENDERS.items():
        if options.contenders and name not in options.contenders:
            continue
        log(f"mnist with {name}")
        try:
            row = measure(data, epochs, options)
        except subprocess.CalledProcessError as error:
            row = {"skipped": (error.stderr.strip().splitlines() or ["failed without a word"])[-1][:300]}
        except (OSError, subprocess.TimeoutExpired) as error:
            row = {"skipped": str(error)[:300]}
        rows.append({"contender": name} | row)
        if "skipped" in row:
            notes.append(f"{name} skipped: {row['skipped']}")
            continue
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        table.append((name, row["how"], duration(row["seconds"]), accuracy))
    return Result("mnist", title, COLUMNS, table, rows, notes)
