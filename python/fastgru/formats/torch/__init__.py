"""PyTorch's state_dicts: `nn.GRU`, `nn.Linear` and `nn.Embedding` in a chain.

A state_dict has names and arrays, not what is done with them. Files that `write` made (`files`) describe that beside
the state_dict; of others it is inferred by `chains`, which lists what it assumes. A stack of k layers in one `nn.GRU`
is k layers here, and the other way (`modules`, `parts`).
"""

from fastgru.formats.torch.files import read, write

__all__ = ["read", "write"]
