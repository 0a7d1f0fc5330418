"""The compiled kernels: one module per instruction set, one of them chosen at import.

The best that this CPU can run, unless the environment variable ``FASTGRU_ISA`` names another; what it names
and the CPU lacks is refused, never replaced.

Attributes
----------
kernels : module
    The chosen module. All of them have the same functions.
ISA : str
    Its instruction set: ``"avx512"``, ``"avx2"``, ``"baseline"`` or ``"neon"``.
REASON : str
    Why this one.
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
    """Instruction sets that this CPU can run and this installation has, best first."""
    return [isa for isa in supported() if util.find_spec(f"{__name__}._{isa}") is not None]


def _refuse(message: str) -> NoReturn:
    """Raise; but as the command ``fastgru``, which cannot catch what its own import raises, exit with one line."""
    program = sys.argv[0] if sys.argv else ""
    if Path(program).name == "fastgru" or (program == "-m" and "fastgru" in sys.orig_argv):
        sys.exit(f"fastgru: {message}")
    raise RuntimeError(message)


def _choose() -> tuple[str, str]:
    choices = available()
    asked = os.environ.get(ISA_VARIABLE, "")
    if asked:
        if asked not in choices:
            _refuse(f"{ISA_VARIABLE}={asked} was asked for, but this CPU runs {', '.join(choices) or 'none of them'}")
        return asked, f"{ISA_VARIABLE}={asked} was asked for"
    if not choices:
        _refuse(f"this installation has no kernels for this CPU, which runs {', '.join(supported())}")
    return choices[0], f"the best of what this CPU runs: {', '.join(choices)}"


ISA, REASON = _choose()

if TYPE_CHECKING:
    from fastgru._native import _baseline as kernels
else:
    kernels: Any = import_module(f"{__name__}._{ISA}")
