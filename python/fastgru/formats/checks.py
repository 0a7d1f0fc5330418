"""Checks of the contents of files and of what formats support, with the same messages for all formats.

All checks raise ValueError. `fastgru.formats.boundary` turns errors of readers into `ModelFileError`, which names the
file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

_MOST_CHARACTERS = 200


# --- Contents of files --------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, where: str = "") -> Any:
    """Parse a JSON text; `where` is its place in the file, for the message."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: invalid JSON: {error}".removeprefix(": ")) from None


def require(holds: bool, expected: str, got: Any) -> None:
    """Raise an error with the expected and the actual value unless the condition holds."""
    if not holds:
        raise ValueError(f"{expected}, got {got!r:.{_MOST_CHARACTERS}}")


def require_object(where: str, value: Any) -> dict[str, Any]:
    """`value`, which must be a JSON object."""
    require(isinstance(value, dict), f"{where}: expected an object".removeprefix(": "), value)
    return value  # type: ignore[no-any-return]


def require_list(where: str, value: Any) -> list[Any]:
    """`value`, which must be a list."""
    require(isinstance(value, list), f"{where}: expected a list", value)
    return value  # type: ignore[no-any-return]


def require_text(where: str, value: Any) -> str:
    """`value`, which must be a string."""
    require(isinstance(value, str), f"{where}: expected a string", value)
    return value  # type: ignore[no-any-return]


def refuse_other_options(
    where: str,
    config: Mapping[str, Any],
    known: Container[str],
    neutral: Mapping[str, Iterable[Any]],
    *,
    of: str = "",
) -> None:
    """Raise for options that fastgru does not support, unless they are null or have no effect.

    Parameters
    ----------
    where : str
        The layer or the argument, for the message.
    config : mapping
        The options in the file.
    known : container of str
        The options that the caller reads, or that change no result.
    neutral : mapping
        Option -> the values that have no effect.
    of : str, optional
        The object that has the options, if `where` does not name it.
    """
    for option, value in config.items():
        if option in known or value is None:
            continue
        if not any(value is each or value == each for each in neutral.get(option, ())):
            raise unsupported(where, f"{option}={value!r}{of and f' of {of}'}", "fastgru")


# --- Features of formats ----------------------------------------------------------------------------------------


def unsupported(where: str, what: str, by: str, reason: str = "", remedy: str = "") -> ValueError:
    """The error for a feature that a file format, or fastgru, does not support.

    Parameters
    ----------
    where : str
        The layer or the argument.
    what : str
        The feature: ``option=value``, or the name of a class.
    by : str
        The framework that does not support it.
    reason : str, optional
        The reason, or what the framework supports instead, as a relative clause.
    remedy : str, optional
        An imperative.
    """
    return ValueError(f"{where}: {what} is not supported by {by}{reason and f', {reason}'}{remedy and f': {remedy}'}")


def require_options(
    where: str,
    by: str,
    config: Mapping[str, Any],
    fixed: Mapping[str, Any],
    hints: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Raise for options of a layer whose value differs from the only one that a framework supports.

    Parameters
    ----------
    where, by : str
        Those of `unsupported`.
    config : mapping
        The options of the layer; a missing option has the supported value.
    fixed : mapping
        Option -> the only value.
    hints : mapping, optional
        Option -> the `reason` and `remedy` of `unsupported`, if the value alone does not explain the error.
    """
    for option, value in fixed.items():
        if config.get(option, value) != value:
            usual = f"which has {option}={value!r}", "make the layer with this value"
            reason, remedy = (hints or {}).get(option, usual)
            raise unsupported(where, f"{option}={config[option]!r}", by, reason, remedy)


@contextlib.contextmanager
def with_remedy(remedy: str) -> Iterator[None]:
    """Context manager that appends a remedy to the message of every ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None
