"""A chart of training speeds relative to fastgru's; requires Matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.problem import TUTORIAL

ROWS = (32, 128, 1024)


def speeds(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Return samples per second by contender's title and batch size, for the tutorial's shapes."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        problem = row["problem"]
        if problem["source"] == TUTORIAL and problem["rows"] in ROWS and row["samples_per_second"]:
            found.setdefault(row["title"], {})[problem["rows"]] = row["samples_per_second"]
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> str:
    """Write grouped bars, one group per batch size; returns why there is no chart, or an empty text."""
    found = speeds(rows)
    base = found.get("fastgru")
    if not base:
        return "fastgru's training at N=32, 128 or 1024 was not measured"
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        return str(error)
    figure, axes = plt.subplots(figsize=(12, 5), layout="constrained")
    axes.set_prop_cycle(color=mpl.colormaps["tab20"].colors)
    width = 0.85 / len(found)
    for index, (title, values) in enumerate(found.items()):
        groups = [group for group, batch in enumerate(ROWS) if batch in values and batch in base]
        heights = [values[ROWS[group]] / base[ROWS[group]] for group in groups]
        axes.bar([group + index * width for group in groups], heights, width, label=title)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xticks([group + 0.425 - width / 2 for group in range(len(ROWS))], [f"N = {batch}" for batch in ROWS])
    axes.set_ylabel("samples/s, fastgru = 1")
    axes.set_title("Training GRU(64), T = 28, F = 28")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return ""
