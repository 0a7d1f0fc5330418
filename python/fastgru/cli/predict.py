"""``fastgru predict``: apply a saved model to images and arrays, and print the outputs or write them to a file."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import datasets
from fastgru._support import checks
from fastgru._support.files import write_atomically
from fastgru._support.sequences import valid_steps
from fastgru.cli import images
from fastgru.cli.options import (
    add_json,
    add_scaling,
    add_state_dict_options,
    existing,
    load_model,
    model_file,
    print_json,
    scaled,
)
from fastgru.cli.parser import checking
from fastgru.cli.targets import require_ending, require_writable
from fastgru.datasets.arrays import Sequences
from fastgru.layers import Head
from fastgru.models.sequential import Sequential

Array = NDArray[Any]

#: The label of steps after the end of a sequence.
_NO_LABEL = -1


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "predict",
        help="apply a saved model to images or arrays",
        description="Apply the model in MODEL to each input, and print or write its outputs.",
    )
    command.add_argument("model", metavar="MODEL", type=model_file, help="a model file of any supported format")
    inputs = command.add_argument_group("data")
    inputs.add_argument(
        "inputs",
        metavar="IMAGE|ARRAYS",
        nargs="+",
        type=existing,
        help="an image such as PNG; a .npy file of shape (T, F) or (N, T, F); or an .npz file or a folder of .npy "
        "files with x and optionally lengths",
    )
    inputs.add_argument(
        "--invert", action="store_true", help="invert images: use it for black on white; MNIST is white on black"
    )
    add_scaling(inputs, "default: the input is not scaled")
    output = command.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="FILE",
        help=f"write labels and outputs to FILE ({' or '.join(_WRITERS)}) instead of printing them; needs one input",
    )
    add_json(output, "print one line of JSON with all outputs for each sample")
    add_state_dict_options(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Predict on one input after the other."""
    out = arguments.out
    with checking():
        _require_out(out, arguments.inputs)
    model = load_model(arguments.model, arguments)
    if len(model.input_shape) != 3 or len(model.output_shape) not in (2, 3) or model.layers[-1].several_outputs:
        raise ValueError(
            f"{arguments.model}: expected a model with input (N, T, F) and output (N, C) or (N, T, C), got input "
            f"{checks.dims(model.input_shape)} and output {checks.dims(model.output_shape)}"
        )
    for path in arguments.inputs:
        part = _read(path, model, invert=arguments.invert)
        used = scaled(arguments.model, model, arguments.divide_by, {path: part.x.dtype})
        try:
            outputs = used.predict(part.x, lengths=part.lengths)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None
        answers = Answers(_kind(model), outputs, part.lengths if outputs.ndim == 3 else None)
        if out is not None:
            _require_finite(path, answers)
            write_atomically(out, _WRITERS[Path(out).suffix.lower()](answers))
            print(f"Saved: {out} ({len(outputs):,} samples)", flush=True)
        else:
            _print(path, answers, as_json=arguments.json)


def _require_out(out: str | None, inputs: list[str]) -> None:
    if out is None:
        return
    require_ending("--out", out, tuple(_WRITERS))
    if len(inputs) > 1:
        raise ValueError(f"--out: expected one input because one file is written, got {len(inputs)} inputs")
    require_writable("--out", out)


def _read(path: str, model: Sequential, *, invert: bool) -> Sequences:
    target = Path(path)
    if target.suffix.lower() == ".npz" or (target.is_dir() and target.suffix.lower() != ".png"):
        if invert:
            raise ValueError(f"--invert: expected images or .npy files, got {path}")
        return datasets.arrays.load_inputs(target)
    _, steps, features = model.input_shape
    assert features is not None
    return Sequences(images.read_samples(target, steps, features, invert=invert))


# --- Outputs -------------------------------------------------------------------------------------


def _kind(model: Sequential) -> str:
    """The meaning of the outputs.

    "probabilities" or "logits" of classes, the "probability" or "logit" of the positive class, or "numbers".
    """
    head = model.layers[-1]
    activation = head.activation if isinstance(head, Head) else None
    if activation == "softmax":
        return "probabilities"
    if model.output_shape[-1] == 1:
        if activation == "sigmoid":
            return "probability"
        if model.loss is not None and model.loss.asks:
            return "logit"
    return "logits" if model.loss is not None and model.loss.classifies else "numbers"


@dataclass(frozen=True)
class Answers:
    """The outputs of a model, and the labels that follow from them.

    Attributes
    ----------
    kind : str
        See `_kind`.
    outputs : ndarray (N, C) or (N, T, C)
    lengths : ndarray (N,) or None
        The steps of each sequence that count; None if all do, or if there is one output per sequence.
    """

    kind: str
    outputs: Array
    lengths: Array | None

    @property
    def labels(self) -> Array | None:
        """Classes (N,) or (N, T); None if the outputs are numbers."""
        match self.kind:
            case "numbers":
                return None
            case "probability" | "logit":
                labels = (self.outputs[..., 0] > (0.5 if self.kind == "probability" else 0)).astype(np.int64)
            case _:
                labels = self.outputs.argmax(axis=-1)
        counted = self.counted
        return labels if counted is None else np.where(counted, labels, _NO_LABEL)

    @property
    def counted(self) -> Array | None:
        """Mask (N, T) of the steps that are not padding; None if there is no padding."""
        return None if self.lengths is None else valid_steps(self.lengths, self.outputs.shape[1])

    def places(self) -> Iterator[tuple[int, ...]]:
        """The index of each sample, or (sample, step) if there is an output for each step, without padding."""
        for sample in range(len(self.outputs)):
            if self.outputs.ndim == 2:
                yield (sample,)
            else:
                steps = self.outputs.shape[1] if self.lengths is None else int(self.lengths[sample])
                for step in range(steps):
                    yield sample, step


def _describe(kind: str, output: Array, label: int | None) -> str:
    match kind:
        case "probabilities":
            return f"{label} ({output[label]:.1%})"
        case "probability":
            return f"{label} ({output[0] if label else 1 - output[0]:.1%})"
        case "logits":
            return f"{label} (logit {output[label]:.4g})"
        case "logit":
            return f"{label} (logit {output[0]:.4g})"
        case _:
            return ", ".join(f"{value:.6g}" for value in output)


def _print(path: str, answers: Answers, *, as_json: bool) -> None:
    labels, outputs = answers.labels, answers.outputs
    for place in answers.places():
        name = path if len(outputs) == 1 else f"{path}[{place[0]}]"
        output = outputs[place]
        if not np.isfinite(output).all():
            raise ValueError(_not_finite(name))
        label = None if labels is None else int(labels[place])
        step = {} if len(place) == 1 else {"step": place[1]}
        if as_json:
            answer = {} if label is None else {"label": label}
            print_json(input=name, **step, **answer, outputs=[float(value) for value in output])
        else:
            at = f" step {place[1]}" if step else ""
            print(f"{name}{at}: {_describe(answers.kind, output, label)}")


def _not_finite(name: str) -> str:
    return f"{name}: the model's outputs are not finite; check this input for NaN and infinity"


def _require_finite(path: str, answers: Answers) -> None:
    wrong = ~np.isfinite(answers.outputs).all(axis=-1)
    if answers.counted is not None:
        wrong &= answers.counted
    if wrong.any():
        raise ValueError(_not_finite(f"{path}[{np.argwhere(wrong)[0][0]}]"))


# --- Files ----------------------------------------------------------------------------------------------------


def _to_csv(answers: Answers) -> bytes:
    """One line per sample or step; each number has the fewest digits that give the same bits when read."""
    labels, outputs = answers.labels, answers.outputs
    header = ["sample"] if outputs.ndim == 2 else ["sample", "step"]
    header += [] if labels is None else ["label"]
    lines = [",".join([*header, *(f"output_{number}" for number in range(outputs.shape[-1]))])]
    for place in answers.places():
        row = [*place] if labels is None else [*place, labels[place]]
        lines.append(",".join(map(str, [*row, *outputs[place]])))
    return ("\n".join(lines) + "\n").encode()


def _to_npz(answers: Answers) -> bytes:
    """Arrays ``outputs``, ``labels`` (of classes; -1 in padding) and ``lengths`` (if given)."""
    found = {"outputs": answers.outputs, "labels": answers.labels, "lengths": answers.lengths}
    arrays: dict[str, Any] = {name: array for name, array in found.items() if array is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


_WRITERS = {".csv": _to_csv, ".npz": _to_npz}
