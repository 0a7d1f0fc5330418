"""Errors for names that Keras or PyTorch has and this package does not, and for misspelt names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from opcode import opmap


def missing(module: str, name: str, table: Mapping[str, str]) -> AttributeError | ImportError:
    """The error of a module's ``__getattr__`` for a name that the module does not have.

    Parameters
    ----------
    module : str
        The module's name, its ``__name__``.
    name : str
        The name that was looked up.
    table : mapping
        Name -> what to use instead, as an imperative: ``{"LSTM": "use layers.GRU"}``.

    Returns
    -------
    AttributeError or ImportError
        With the entry of `table`, or else with the nearest of the module's public names. An ImportError for
        ``from module import name``, because the interpreter replaces the message of an AttributeError there.

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
        import difflib  # late, so that fastgru is imported fast

        found = sys.modules[module]
        known = getattr(found, "__all__", None) or [each for each in dir(found) if not each.startswith("_")]
        folded = {_folded(each): each for each in known}
        nearest = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=0.7)
        if nearest:
            message = f"{message}; did you mean {folded[nearest[0]]!r}?"
    if _is_import(2):
        return ImportError(message, name=module)
    # With an object of its own, the interpreter adds no second suggestion to the traceback.
    return AttributeError(message, name=name, obj=None)


def _is_import(depth: int) -> bool:
    """Whether the frame `depth` above the caller's executes ``from module import name``."""
    frame = sys._getframe(depth + 1)
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"]


def _folded(name: str) -> str:
    """The name without what differs between styles: global_max_pooling1d and GlobalMaxPooling1D are the same."""
    return name.replace("_", "").lower()
