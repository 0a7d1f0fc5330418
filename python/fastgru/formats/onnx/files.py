"""Reading and writing of ONNX files: the graph, and fastgru's description of the model in the metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from fastgru._native._cpu_features import __version__
from fastgru._support.files import read_all, write_atomically
from fastgru.formats.boundary import model_file
from fastgru.formats.description import Array, LayerDescription, ModelDescription
from fastgru.formats.onnx import export, reader
from fastgru.formats.onnx.signatures import Given, Signature
from fastgru.formats.onnx.tensors import Budget, to_array
from fastgru.formats.onnx.values import F, N, T
from fastgru.formats.scaling import FORMAT_VERSION, dividing_bytes

#: The version of the ONNX file format for the operators of `export.OPSET`; newer programs read it.
_IR_VERSION = 7
_METADATA = "fastgru"
#: The maximum size of a protobuf.
_MOST_BYTES = 2**31
#: Maximum memory for reading, as a multiple of the size of the file: arrays are unpacked, transposed and sliced.
_EXPANSION = 8
_ALLOWANCE = 2**20


def write(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write the model as an ONNX graph.

    Parameters
    ----------
    path : path
    description : ModelDescription

    Raises
    ------
    ValueError
        ONNX, or ONNX Runtime, does not support a feature of the model.
    ImportError
        The package onnx is not installed.

    Notes
    -----
    Inputs: ``x`` (N, T, F) of float32, or tokens (N, T) of int64; ``lengths`` (N,) of int64, which is optional;
    ``<layer>/state`` (N, H) for each stateful layer, zeros if not given. Outputs: ``output`` (or ``output_0``,
    ``output_1`` and so on if the last layer returns several) and ``<layer>/next_state``. A model that begins with
    Rescaling takes the bytes of images as float32 numbers from 0 to 255.
    """
    onnx = _onnx()
    model = onnx.helper.make_model(
        export.graph(description),
        opset_imports=[onnx.helper.make_opsetid("", export.OPSET)],
        ir_version=_IR_VERSION,
        producer_name="fastgru",
        producer_version=__version__,
        doc_string="x is (N, T, ...); lengths (N,) is the number of valid steps of each row, all steps by default.",
    )
    onnx.helper.set_model_props(model, {_METADATA: json.dumps(_topology(description), sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))


def read(path: str | os.PathLike[str]) -> ModelDescription:
    """Read the model that a graph computes.

    Weights must be in the file. A graph that fastgru's layers cannot compute raises an error that names the node, for
    example a GRU whose initial states are not zeros.

    Raises
    ------
    ModelFileError
        The file is not an ONNX model, is damaged, or computes something that fastgru does not support.
    ImportError
        The package onnx is not installed.
    OSError
        The file cannot be read.
    """
    return _read(path)[0]


def signature(path: str | os.PathLike[str]) -> Signature:
    """Return the inputs and outputs of a graph that `read` supports, for programs that run ONNX files.

    Notes
    -----
    Raises the same errors as `read`.
    """
    return _read(path)[1]


def _read(path: str | os.PathLike[str]) -> tuple[ModelDescription, Signature]:
    onnx = _onnx()
    with model_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise ValueError(f"expected at most 2 GiB because of the ONNX format, got {size:,} bytes")
        data = read_all(file)
        model = onnx.ModelProto.FromString(data)
        budget = Budget(_EXPANSION * len(data) + _ALLOWANCE)
        arrays = _initializers(model.graph)
        own = _own(model, arrays)
        found = (own, _own_signature(model.graph)) if own is not None else reader.read_graph(model, arrays, budget)
        if _divided_bytes(model):
            found[0].layers = dividing_bytes(found[0].layers)
        return found


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
    except ImportError:
        raise ImportError("ONNX files need the package onnx: pip install onnx") from None
    return onnx


def _initializers(graph: Any) -> dict[str, Array]:
    """Return the constant arrays of a graph by name."""
    if graph.sparse_initializer:
        raise ValueError("it has sparse tensors, which are not supported by fastgru")
    arrays: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in arrays:
            raise ValueError(f"it has two tensors with the name {tensor.name!r}")
        arrays[tensor.name] = to_array(tensor)
    return arrays


# --- Files that fastgru wrote -------------------------------------------------------------------------------------


def _topology(description: ModelDescription) -> dict[str, Any]:
    """Return a description as JSON values, without weights, optimizer, loss and metrics."""
    return {
        "format_version": FORMAT_VERSION,
        "name": description.name,
        "dtype": description.dtype,
        "input_shape": description.input_shape,
        "layers": [layer.to_json() for layer in description.layers],
    }


def _own(model: Any, arrays: dict[str, Array]) -> ModelDescription | None:
    """Return the description in the metadata if exporting it gives the graph in the file, otherwise None."""
    text = _metadata(model.metadata_props)
    if text is None:
        return None
    try:
        stored = json.loads(text)
        if stored["dtype"] not in ("float32", "float64"):
            return None
        layers = [LayerDescription.from_json(entry) for entry in stored["layers"]]
        for layer in layers:
            layer.weights = export.weights_of(layer, arrays)
        described = ModelDescription(layers, tuple(stored["input_shape"]), stored["name"], stored["dtype"])
        same = export.graph(described) == model.graph
    except Exception:  # damaged contents may cause any error, see fastgru.formats.boundary
        return None  # another program has changed the file, so the graph is read instead
    return described if same else None


def _own_signature(graph: Any) -> Signature:
    """Return the signature of a graph that fastgru wrote."""
    inputs = {given.name: given for given in map(Given.of, graph.input)}
    # Outputs with a slash in their names are the next states of stateful layers.
    names = [output.name for output in graph.output if "/" not in output.name]
    shapes = {output.name: len(output.type.tensor_type.shape.dim) for output in graph.output}
    outputs: dict[str, tuple[str, ...]] = {name: (N, T, F) if shapes[name] == 3 else (N, F) for name in names}
    return Signature(inputs[export.INPUT], inputs.get(export.LENGTHS), False, outputs)


def _divided_bytes(model: Any) -> bool:
    """Whether format version 1 of this package wrote the file, in which models divided uint8 input by 255."""
    text = _metadata(model.metadata_props)
    if text is None or model.producer_name != "fastgru":
        return False
    try:
        return "format_version" not in json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False  # another program has changed the file


def _metadata(properties: Iterable[Any]) -> str | None:
    return next((entry.value for entry in properties if entry.key == _METADATA), None)
