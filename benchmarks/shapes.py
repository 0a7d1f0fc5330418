"""The measured shapes: the tutorial's, a grid around it, and those of published models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.problem import TUTORIAL, Problem

TUTORIAL_ROWS = (1, 8, 32, 64, 128, 256, 1024)
GRID_UNITS = (16, 32, 64, 128, 256, 512, 1024)
GRID_ROWS = (1, 8, 32, 128, 1024)
QUICK_TRAINING_ROWS = (32, 128, 1024)
QUICK_INFERENCE_ROWS = (128,)

#: Runs above this take seconds in every contender: N=1024 at H=1024, and N=1024 at H=512.
MOST_FLOPS = 100e9

#: Time is linear in T; DeepBench's 1500 and 187 steps are reduced to this.
DEEPBENCH_STEPS = 25

#: N, T, F, H with the source. DeepBench's input is as wide as its state.
PUBLISHED = (
    # xiph/rnnoise, training/rnn_train.py: batch 32, windows of 2000 frames, denoise_gru reads 24 + 48 + 42 features.
    (32, 2000, 114, 96, "RNNoise's denoise_gru"),
    # ARM-software/ML-KWS-for-MCU, train_commands.txt: 10 MFCCs of 40 ms windows of a second's clip, stride 40 ms
    # (25 frames) for GRU1 and 20 ms (49) for GRU2; batch 100 is the training script's default.
    (100, 25, 10, 154, "Hello Edge, arXiv:1711.07128, GRU1"),
    (100, 49, 10, 250, "Hello Edge, arXiv:1711.07128, GRU2"),
    # hidasib/GRU4Rec, paramfiles/rsc15_xe_shared_100_best.py: batch 32, layers [100], an embedding as wide as the
    # state; session-parallel mini-batches go one step at a time.
    (32, 1, 100, 100, "GRU4Rec, rsc15"),
    # baidu-research/DeepBench, code/kernels/rnn_problems.h, training_set: (1024, 32, 1500) and (2816, 32, 187).
    (32, DEEPBENCH_STEPS, 1024, 1024, "DeepBench GRU 1024, steps cut from 1500"),
    (32, DEEPBENCH_STEPS, 2816, 2816, "DeepBench GRU 2816, steps cut from 187"),
)


def tutorial(question: str, rows: int) -> Problem:
    """Return the tutorial's shape: GRU(64) on 28 rows of 28 pixels."""
    return Problem(question, rows, 28, 28, 64, TUTORIAL)


def every(question: str) -> Iterator[Problem]:
    """Yield the shapes of the tutorial, the grid and published models."""
    for rows in TUTORIAL_ROWS:
        yield tutorial(question, rows)
    for units in GRID_UNITS:
        for rows in GRID_ROWS:
            if units != 64:
                yield replace(tutorial(question, rows), units=units, source="grid")
    for rows, steps, features, units, source in PUBLISHED:
        yield Problem(question, rows, steps, features, units, source)


def chosen(
    question: str, batch_sizes: Sequence[int], quick_rows: Sequence[int] | None
) -> tuple[list[Problem], list[str]]:
    """Return the shapes of a run, and a note for each shape that is skipped because it takes too long."""
    if batch_sizes or quick_rows is not None:
        return [tutorial(question, rows) for rows in batch_sizes or quick_rows or ()], []
    kept, notes = [], []
    for problem in every(question):
        if problem.source == "grid" and problem.flops() > MOST_FLOPS:
            notes.append(f"{problem.shape} skipped: {problem.flops() / 1e9:.0f} Gflop per run")
        else:
            kept.append(problem)
    return kept, notes
