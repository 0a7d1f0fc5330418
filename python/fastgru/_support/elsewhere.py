"""Errors for missing names: names of Keras or PyTorch that this package does not have, and misspelt names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from opcode import opmap


def missing(module: str, name: str, table: Mapping[str, str]) -> AttributeError | ImportError:
    """Return the error that a module's ``__getattr__`` raises for a missing name.

    Parameters
    ----------
    module : str
        The ``__name__`` of the module.
    name : str
        The missing name.
    table : mapping
        Name -> remedy, as an imperative: ``{"LSTM": "use layers.GRU"}``.

    Returns
    -------
    AttributeError or ImportError
        The message ends with the remedy of `table`, or with the most similar public name. For
        ``from module import name`` it is an ImportError, because the interpreter replaces the message of an
        AttributeError.

    Examples
    --------
    >>> def __getattr__(name):
    ...     raise missing(__name__, name, {"LSTM": "use layers.GRU"})
    """
    message = f"module {module!r} has no attribute {name!r}"
    remedies = {_folded(each): remedy for each, remedy in table.items()} | dict(table)
    if name in remedies or _folded(name) in remedies:
        message = f"{message}; {remedies.get(name) or remedies[_folded(name)]}"
    elif not name.startswith("_"):
        import difflib  # late, to keep ``import fastgru`` fast

        found = sys.modules[module]
        known = getattr(found, "__all__", None) or [each for each in dir(found) if not each.startswith("_")]
        folded = {_folded(each): each for each in known}
        nearest = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=0.7)
        if nearest:
            message = f"{message}; did you mean {folded[nearest[0]]!r}?"
    if _is_import(2):
        return ImportError(message, name=module)
    # With obj=None, the interpreter adds no second suggestion to the traceback.
    return AttributeError(message, name=name, obj=None)


def _is_import(depth: int) -> bool:
    """Whether the frame `depth` above the caller's executes ``from module import name``."""
    frame = sys._getframe(depth + 1)
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"]


def _folded(name: str) -> str:
    """Return the name in lower case without underscores, so that gru_cell matches GRUCell."""
    return name.replace("_", "").lower()
