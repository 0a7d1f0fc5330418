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
from importlib import import_module, util
from typing import TYPE_CHECKING, Any

from fastgru._native._cpu_features import supported

__all__ = ["ISA", "REASON", "available", "kernels"]

ISA_VARIABLE = "FASTGRU_ISA"


def available() -> list[str]:
    """Instruction sets that this CPU can run and this installation has, best first."""
    return [isa for isa in supported() if util.find_spec(f"{__name__}._{isa}") is not None]


def _choose() -> tuple[str, str]:
    choices = available()
    asked = os.environ.get(ISA_VARIABLE, "")
    if asked:
        if asked not in choices:
            raise RuntimeError(
                f"{ISA_VARIABLE}={asked} was asked for, but this CPU runs {', '.join(choices) or 'none of them'}"
            )
        return asked, f"{ISA_VARIABLE}={asked} was asked for"
    if not choices:
        raise ImportError(f"no kernels for this CPU: it runs {', '.join(supported())}")
    return choices[0], f"the best of what this CPU runs: {', '.join(choices)}"


ISA, REASON = _choose()

if TYPE_CHECKING:
    from fastgru._native import _baseline as kernels
else:
    kernels: Any = import_module(f"{__name__}._{ISA}")
