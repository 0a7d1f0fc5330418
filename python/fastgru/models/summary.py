"""The table that `Sequential.summary` prints."""

from __future__ import annotations

from collections.abc import Sequence

from fastgru._support import checks
from fastgru.layers import Layer
from fastgru.layers.base import Shape


def summary_lines(
    name: str,
    layers: Sequence[Layer],
    shapes: Sequence[Shape],
    counts: tuple[int, int],
    itemsize: int,
    *,
    line_length: int | None,
    show_trainable: bool,
) -> list[str]:
    """Return the lines of the table.

    Parameters
    ----------
    name : str
        The name of the model.
    layers, shapes : sequence
        The layers to show, and the shapes of their outputs.
    counts : (int, int)
        The numbers of trainable and of frozen values in the whole model.
    itemsize : int
        Bytes of a value.
    line_length : int, optional
        The minimum width of the table in characters.
    show_trainable : bool
        Whether to add a column that shows which layers are trainable.
    """
    header = ["Layer (type)", "Output Shape", "Param #"]
    rows = [
        [f"{layer.name} ({type(layer).__name__})", str(shape), f"{layer.count_params():,}"]
        for layer, shape in zip(layers, shapes, strict=True)
    ]
    if show_trainable:
        header.append("Trainable")
        for row, layer in zip(rows, layers, strict=True):
            row.append(("Y" if layer.trainable else "N") if layer.parameters else "-")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    if line_length is not None:
        least = checks.integer("line_length", line_length, least=1)
        widths[0] += max(0, least - sum(widths) - 2 * (len(widths) - 1))
    lines = [f'Model: "{name}"']
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [f"{row[0]:<{widths[0]}}", f"{row[1]:<{widths[1]}}", f"{row[2]:>{widths[2]}}"]
        lines.append("  ".join([*cells, *(f"{cell:^{widths[3]}}" for cell in row[3:])]).rstrip())
    trainable, frozen = counts
    for kind, count in (
        ("Total params", trainable + frozen),
        ("Trainable params", trainable),
        ("Non-trainable params", frozen),
    ):
        lines.append(f"{kind}: {count:,} ({_readable_bytes(count * itemsize)})")
    return lines


def _readable_bytes(size: float) -> str:
    """Return a number of bytes in the format of Keras."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            break
        size /= 1024
    return f"{size:.2f} {unit}"
