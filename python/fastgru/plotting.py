"""The picture that ``fastgru train --plot`` draws."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru.training import History

Array = NDArray[Any]


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """Counts (classes, classes): how often samples of the row's class were taken for the column's."""
    return np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes * classes).reshape(
        classes, classes
    )


FORMATS = (".png", ".pdf", ".svg", ".jpg")


def require_plottable(path: str) -> None:
    """Raise what a plot into `path` would fail with, before anything long begins."""
    if not path.lower().endswith(FORMATS):
        raise ValueError(f"--plot: expected a file name that ends with {', '.join(FORMATS)}, got {path!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'fastgru[plot]'") from None


def plot_training(path: str | os.PathLike[str], history: History, confusion: Array, title: str) -> None:
    """Draw loss and accuracy by epoch, and the confusion matrix, into an image file.

    Parameters
    ----------
    path : path
        Its suffix chooses the format: .png, .pdf, .svg.
    history : History
        With validation values.
    confusion : ndarray (C, C)
    title : str
    """
    from matplotlib.figure import Figure  # no pyplot: nothing global changes

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    figure.suptitle(title)
    loss_axes, accuracy_axes, confusion_axes = figure.subplots(1, 3)
    epochs = np.array(history.epoch) + 1
    for axes, name in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        for key, label in ((name, "training"), (f"val_{name}", "test")):
            if key in history.history:
                axes.plot(epochs, history.history[key], marker="o", markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()

    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    confusion_axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            confusion_axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    confusion_axes.set_xticks(range(len(confusion)))
    confusion_axes.set_yticks(range(len(confusion)))
    confusion_axes.set_xlabel("predicted")
    confusion_axes.set_ylabel("true")
    figure.savefig(path, dpi=120)
