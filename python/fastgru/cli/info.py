"""``fastgru info``: describe a model file, or what fastgru runs on."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import fastgru
from fastgru import _native, conversion, formats
from fastgru.cli.options import add_json, add_state_dict_options, as_options, model_file, print_json, state_dict_options
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import ModelFileError, list_assumptions
from fastgru.layers import Layer
from fastgru.models.sequential import Sequential


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "info",
        help="describe a model file, or what fastgru runs on",
        description="With MODEL, describe the model in that file: its layers, weights and compilation, and the "
        "progress of the training if it is a checkpoint. Without MODEL, print the version, the instruction set and the "
        "number of threads.",
    )
    command.add_argument("model", metavar="MODEL", nargs="?", type=model_file, help="a model file of any format")
    command.add_argument(
        "--from",
        dest="source_format",
        choices=formats.KINDS,
        help="the format of MODEL, for files whose contents do not show it (default: detected)",
    )
    add_json(command.add_argument_group("output"), "print one line of JSON")
    add_state_dict_options(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Describe the file, or the machine."""
    if arguments.model is None:
        _describe_machine(as_json=arguments.json)
        return
    facts = describe_file(arguments.model, arguments.source_format, state_dict_options(arguments))
    if arguments.json:
        print_json(**facts)
    else:
        print("\n".join(_lines(facts)))


# --- The machine ----------------------------------------------------------------------------------------------


def _describe_machine(*, as_json: bool) -> None:
    facts = {
        "version": fastgru.__version__,
        "isa": _native.ISA,
        "reason": _native.REASON,
        "available": _native.available(),
        "compiler": _native.kernels.__compiler__,
        "threads": fastgru.get_num_threads(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    if as_json:
        print_json(**facts)
        return
    print(f"fastgru {facts['version']}")
    print(f"instruction set: {facts['isa']} ({facts['reason']})")
    print(f"threads: {facts['threads']} of {facts['processors']} processors")
    print(f"kernels built with: {facts['compiler']}")
    print(f"Python {facts['python']}, NumPy {facts['numpy']}, {facts['platform']}")


# --- A file ---------------------------------------------------------------------------------------------------


def describe_file(path: str, kind: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a model file as JSON values.

    Parameters
    ----------
    path : str
    kind : str or None
        The file format, a key of `fastgru.formats.KINDS`; None: detected.
    options : dict
        Those of `fastgru.load_model`.
    """
    kind = formats.kind_of_file(path) if kind is None else kind
    loaded = conversion.load(path, kind, **options)
    model = loaded.model
    if not model.built:
        raise ModelFileError(f"{path}: expected a model with weights, got one that was never built")
    return {
        "file": path,
        "format": kind,
        "file_bytes": _file_bytes(path),
        "name": model.name,
        "dtype": str(model.dtype),
        "input_shape": model.input_shape,
        "output_shape": model.output_shape,
        "layers": [_layer(*each) for each in zip(model.layers, model._network.shapes[1:], strict=True)],
        "parameters": model.count_params(),
        "compiled": _compilation(model),
        "not_compiled_because": loaded.not_compiled,
        "training": _training(path, kind),
        "assumptions": list_assumptions(loaded.assumptions, as_options) if loaded.assumptions else [],
    }


def _file_bytes(path: str) -> int:
    """The size of a file, or of all files in a folder of TensorFlow.js."""
    target = Path(path)
    return sum(each.stat().st_size for each in target.iterdir()) if target.is_dir() else target.stat().st_size


def _layer(layer: Layer, output_shape: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "class": type(layer).__name__,
        "output_shape": output_shape,
        "parameters": layer.count_params(),
        "weights": {name: list(array.shape) for name, array in layer.parameters.items()},
        "config": layer.options(),
    }


def _compilation(model: Sequential) -> dict[str, Any] | None:
    if model.optimizer is None or model.loss is None:
        return None
    step, states = model.optimizer.get_state()
    return {
        "optimizer": type(model.optimizer).__name__,
        "optimizer_config": model.optimizer.get_config(),
        "learning_rate": model.optimizer.rate,
        "updates": step,
        "optimizer_states": sorted(states),
        "loss": model.loss.name,
        "loss_config": model.loss.get_config(),
        "metrics": [metric.name for metric in model.metrics],
    }


def _training(path: str, kind: str) -> dict[str, Any] | None:
    """Return the progress of the training run in a checkpoint; None if the file is not a checkpoint."""
    if kind != "fastgru":
        return None
    config, _ = native.load(path)
    if "training" not in config:
        return None
    with reading(path, "the state of the training is damaged"):
        state = config["training"]
        best = {each["class_name"]: each["state"].get("best") for each in state["callbacks"]}
        return {
            "epochs_done": state["epoch"],
            "batches_done_in_epoch": state["batch"],
            "last_epoch": {name: values[-1] for name, values in state["history"] if values},
            "best": {name: value for name, value in best.items() if value is not None and np.isfinite(value)},
        }


# --- Text -----------------------------------------------------------------------------------------------------


def _lines(facts: dict[str, Any]) -> list[str]:
    """Format the result of `describe_file` as text."""
    lines = [f"File: {facts['file']} ({facts['format']}, {facts['file_bytes']:,} bytes)"]
    shapes = f"input {facts['input_shape']}, output {facts['output_shape']}"
    lines.append(f'Model "{facts["name"]}", {facts["dtype"]}: {shapes}')
    lines += _table(facts["layers"])
    size = facts["parameters"] * np.dtype(facts["dtype"]).itemsize
    lines.append(f"Total: {facts['parameters']:,} parameters, {size:,} bytes")
    lines.append(_describe_compilation(facts))
    if facts["training"] is not None:
        lines.append(_describe_training(facts["training"]))
    return [*lines, *facts["assumptions"]]


def _table(layers: list[dict[str, Any]]) -> list[str]:
    rows = [("Layer (type)", "Output shape", "Parameters", "Weights")]
    for layer in layers:
        weights = ", ".join(f"{name} {tuple(shape)}" for name, shape in layer["weights"].items())
        rows.append(
            (f"{layer['name']} ({layer['class']})", str(layer["output_shape"]), f"{layer['parameters']:,}", weights)
        )
    name, shape, count = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:<{name}}  {row[1]:<{shape}}  {row[2]:>{count}}  {row[3]}".rstrip() for row in rows]


def _describe_compilation(facts: dict[str, Any]) -> str:
    found = facts["compiled"]
    if found is None:
        reason = facts["not_compiled_because"]
        return "Not compiled" + ("" if reason is None else f" because the file cannot be read with it: {reason}")
    schedule = found["optimizer_config"]["learning_rate"]
    of = f" of {schedule['class_name']}" if isinstance(schedule, dict) and "class_name" in schedule else ""
    rate = f"learning rate {found['learning_rate']:.6g}{of}"
    text = f"Compiled: optimizer {found['optimizer']} ({rate}), loss {found['loss']}"
    if found["metrics"]:
        text += f", metrics {', '.join(found['metrics'])}"
    return f"{text}; {found['updates']:,} updates done"


def _describe_training(training: dict[str, Any]) -> str:
    count = training["epochs_done"]
    text = f"Checkpoint: {count:,} {'epoch' if count == 1 else 'epochs'} done"
    if training["batches_done_in_epoch"]:
        text += f" and {training['batches_done_in_epoch']:,} batches of the next one"
    values = ", ".join(f"{name} {value:.4g}" for name, value in training["last_epoch"].items())
    best = "".join(f"; best value of {name} {value:.4g}" for name, value in training["best"].items())
    return text + (f"; last epoch: {values}" if values else "") + best
