"""Warnings that show the user's line."""

from __future__ import annotations

import sys
import warnings


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning that names the innermost line outside of this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastgru":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
