"""PyTorch state_dicts of `nn.GRU`, `nn.Linear` and `nn.Embedding` in a sequence.

A state_dict holds names and arrays, but not how `forward` uses them. `files` writes a description of the model beside
the state_dict. For other files, `chains` infers the model and lists its assumptions. An `nn.GRU` of k layers becomes k
layers, and is written as one module again (`modules`, `parts`).
"""

from fastgru.formats.torch.files import read, write

__all__ = ["read", "write"]
