"""The options of `fastgru.formats.torch.read`, which state how `forward` uses the modules of a state_dict.

Types and values are checked before a file is opened, and names of modules once these are known. The errors are errors
of arguments, so they are TypeError or ValueError and not `ModelFileError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fastgru._support import checks
from fastgru.formats.description import ACTIVATIONS

#: What the module after the last GRU may receive -> the layer that computes it; None: the GRU itself does.
POOLINGS = {
    "last_state": None,
    "last_step": "LastStep",
    "mean": "GlobalAveragePooling1D",
    "max": "GlobalMaxPooling1D",
}


@dataclass(frozen=True)
class ReadOptions:
    """The options; None if one is not given.

    Attributes
    ----------
    return_sequences : bool or None
    pooling : str or None
    activations : dict of str to str, list of str, or None
    order : list of str or None
    """

    return_sequences: bool | None
    pooling: str | None
    activations: dict[str, str] | list[str] | None
    order: list[str] | None

    @classmethod
    def checked(cls, *, return_sequences: Any, pooling: Any, activations: Any, order: Any) -> ReadOptions:
        """The options as `fastgru.formats.torch.read` takes them.

        Raises
        ------
        TypeError, ValueError
            An option has a type or a value that is not supported for any file.
        """
        if return_sequences is not None:
            return_sequences = checks.flag("return_sequences", return_sequences)
        if pooling is not None:
            checks.choice("pooling", pooling, POOLINGS)
            if return_sequences:
                raise ValueError(
                    f"pooling: expected None because return_sequences=True keeps all steps, got {pooling!r}"
                )
        return cls(return_sequences, pooling, _checked_activations(activations), _checked_order(order))

    def require_nothing(self) -> None:
        """Raise if an option is given for a file that stores the description of its model."""
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if given:
            raise ValueError(
                f"{', '.join(given)}: expected none because the file describes its model, got some; leave them out"
            )

    def activations_of(self, modules: Sequence[str], linears: Sequence[str]) -> dict[str, str]:
        """Name of a module -> the given activation after it; `linears` are the names of the Linear modules in order."""
        given = self.activations
        if isinstance(given, list):
            if len(given) != len(linears):
                raise ValueError(
                    f"activations: expected {len(linears)}, one for each of the Linear modules {listed(linears)}, got "
                    f"{len(given)}, {listed(given)}"
                )
            return dict(zip(linears, given, strict=True))
        for name in given or ():
            if name not in modules:
                raise ValueError(f"activations: expected names of the modules {listed(modules)}, got {name!r}")
        return given or {}

    def require_order_of(self, modules: Sequence[str]) -> None:
        """Raise if `order` does not name each module once."""
        if self.order is not None and sorted(self.order) != sorted(modules):
            raise ValueError(f"order: expected each of the modules {listed(modules)} once, got {listed(self.order)}")


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, for messages."""
    return f"{', '.join(map(repr, names)):.500}" or "none"


def _checked_activations(given: Any) -> dict[str, str] | list[str] | None:
    if given is None:
        return None
    if isinstance(given, Mapping):
        for name in given:
            if not isinstance(name, str):
                raise TypeError(f"activations: expected names of modules, got {name!r}")
        return {name: _checked_activation(activation) for name, activation in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        return [_checked_activation(activation) for activation in given]
    raise TypeError(
        f"activations: expected a mapping of modules' names to activations, or a sequence of activations, got {given!r}"
    )


def _checked_activation(given: Any) -> str:
    return checks.choice("activations", "linear" if given is None else given, ACTIVATIONS)


def _checked_order(given: Any) -> list[str] | None:
    if given is None:
        return None
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise TypeError(f"order: expected a sequence of modules' names, got {given!r}")
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"order: expected names of modules, got {name!r}")
    return list(given)
