"""ONNX files: any model of this package out, graphs made of GRU nodes and the few operators around them in.

A file written here (`files`, `export`) is an ordinary graph for any runtime. Beside it, in the metadata, stands the
model's configuration; `read` believes it only if the graph made from it is the very graph in the file. Everything else
is understood from the graph itself (`reader`, with the operators in `layers` and `moves`).

Training is not exported: losses, optimizers and their moments stay behind.
"""

from fastgru.formats.onnx.files import read, signature, write

__all__ = ["read", "signature", "write"]
