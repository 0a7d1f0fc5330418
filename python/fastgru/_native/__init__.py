"""The compiled kernels: one module per instruction set, of which one is chosen at import.

The default is the best instruction set that this CPU supports. The environment variable ``FASTGRU_ISA`` selects
another; importing raises if the CPU does not support it.

Attributes
----------
kernels : module
    The chosen module. All modules have the same functions.
ISA : str
    Its instruction set: ``"avx512"``, ``"avx2"``, ``"baseline"`` or ``"neon"``.
REASON : str
    Why this instruction set was chosen.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fastgru._native._cpu_features import supported

__all__ = ["ISA", "REASON", "available", "kernels"]

ISA_VARIABLE = "FASTGRU_ISA"


def available() -> list[str]:
    """Return the instruction sets that this CPU supports and this installation contains, best first."""
    return [isa for isa in supported() if util.find_spec(f"{__name__}._{isa}") is not None]


def _refuse(message: str) -> NoReturn:
    """Raise; in the command ``fastgru``, which cannot catch errors of its own imports, exit with one line."""
    program = sys.argv[0] if sys.argv else ""
    if Path(program).name == "fastgru" or (program == "-m" and "fastgru" in sys.orig_argv):
        sys.exit(f"fastgru: {message}")
    raise RuntimeError(message)


def _choose() -> tuple[str, str]:
    choices = available()
    asked = os.environ.get(ISA_VARIABLE, "")
    if asked:
        if asked not in choices:
            _refuse(
                f"{ISA_VARIABLE}: expected one of {', '.join(choices) or 'no instruction set'} because this "
                f"CPU or installation supports no other, got {asked!r}; unset {ISA_VARIABLE}"
            )
        return asked, f"{ISA_VARIABLE}={asked} is set"
    if not choices:
        _refuse(f"this installation has no kernels for this CPU, which supports {', '.join(supported())}")
    return choices[0], f"the best that this CPU supports: {', '.join(choices)}"


ISA, REASON = _choose()

if TYPE_CHECKING:
    from fastgru._native import _baseline as kernels
else:
    kernels: Any = import_module(f"{__name__}._{ISA}")
