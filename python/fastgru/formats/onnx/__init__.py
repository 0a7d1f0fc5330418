"""ONNX files: writes any model, and reads graphs of GRU nodes and the operators that exporters place around them.

A file that fastgru wrote (`files`, `export`) is an ordinary graph for any runtime. Its metadata contain the
configuration of the model. `read` uses it only if exporting this configuration gives the graph in the file. Other files
are read by interpreting the graph (`reader`, with the operators in `layers` and `moves`).

The loss, the optimizer and its state are not exported.
"""

from fastgru.formats.onnx.files import read, signature, write

__all__ = ["read", "signature", "write"]
