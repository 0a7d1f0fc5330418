"""The plot of ``fastgru train --plot``."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support.files import write_atomically
from fastgru.callbacks import History
from fastgru.cli.targets import require_ending, require_writable

Array = NDArray[Any]


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """Counts (classes, classes): samples of the class of the row that were predicted as that of the column."""
    return np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes * classes).reshape(
        classes, classes
    )


FORMATS = (".png", ".pdf", ".svg", ".jpg")

#: A confusion matrix of more classes would have less than one pixel per class; its size grows with their square.
_MOST_DRAWN = 500
#: Larger confusion matrices are drawn without numbers, which would be too small to read.
_MOST_LABELLED = 25
#: Points in a scatter plot; more would hide each other and make the file large.
_MOST_POINTS = 5000


def require_plottable(option: str, path: str) -> None:
    """Raise if no plot can be written to `path`: its folder, its ending or Matplotlib."""
    require_ending(option, path, FORMATS)
    require_writable(option, path)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError(f"{option}: plots need Matplotlib: pip install matplotlib") from None


def plot_training(
    path: str | os.PathLike[str],
    history: History,
    title: str,
    *,
    metric: str,
    watched: str,
    outputs: Array,
    targets: Array,
) -> None:
    """Draw loss and metric by epoch, and the predictions against the targets, to an image file.

    Parameters
    ----------
    path : path
        Its ending decides the format, one of `FORMATS`.
    history : History
    title : str
    metric : str
        The entry of the history to draw beside the loss.
    watched : str
        The label of the validation values.
    outputs : ndarray (..., C)
        The outputs of the model.
    targets : ndarray
        Classes (...), drawn as a confusion matrix, or numbers (..., C), drawn as points; (...) if C is 1.
    """
    from matplotlib.figure import Figure  # unlike pyplot, this changes no global state

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    figure.suptitle(title)
    loss_axes, metric_axes, panel = figure.subplots(1, 3)
    epochs = np.array(history.epoch) + 1
    for axes, name in ((loss_axes, "loss"), (metric_axes, metric)):
        for key, label in ((name, "training"), (f"val_{name}", watched)):
            if key in history.history:
                axes.plot(epochs, history.history[key], marker="o", markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name.replace("_", " "))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if metric == "accuracy":
        if outputs.shape[-1] > _MOST_DRAWN:
            panel.set_axis_off()
        else:
            predicted = outputs.argmax(axis=-1).reshape(-1)
            _draw_confusion(panel, confusion_matrix(targets.reshape(-1), predicted, outputs.shape[-1]))
    else:
        _draw_numbers(panel, targets.reshape(-1), outputs.reshape(-1))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format=Path(path).suffix[1:].lower())
    write_atomically(path, drawn.getvalue())


def _draw_confusion(axes: Any, confusion: Array) -> None:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(confusion) > _MOST_LABELLED:
        return
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(confusion)))
    axes.set_yticks(range(len(confusion)))


def _draw_numbers(axes: Any, true: Array, predicted: Array) -> None:
    step = -(-len(true) // _MOST_POINTS)
    axes.scatter(true[::step], predicted[::step], s=6, alpha=0.4)
    axes.axline((float(true.mean()),) * 2, slope=1.0, color="black", linewidth=0.8)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.grid(alpha=0.3)
