"""Checks of what files hold and of what they can express, in the same words for all kinds of files.

All of them raise ValueError. What goes wrong while a file is read becomes a `ModelFileError` that names the file in
`fastgru.formats.boundary`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

_MOST_CHARACTERS = 200


# --- What a file holds --------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, where: str = "") -> Any:
    """The value of a JSON text, which stands at `where` in the file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: invalid JSON: {error}".removeprefix(": ")) from None


def require(holds: bool, expected: str, got: Any) -> None:
    """Raise an error with what was expected and what came, unless it holds."""
    if not holds:
        raise ValueError(f"{expected}, got {got!r:.{_MOST_CHARACTERS}}")


def require_object(where: str, value: Any) -> dict[str, Any]:
    """`value`, which must be an object of JSON."""
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
    """Refuse options that this package does not have, unless they are null or their value does nothing.

    Parameters
    ----------
    where : str
        The layer or the argument, for the message.
    config : mapping
        The options in the file.
    known : container of str
        The options that are read elsewhere, or change no result.
    neutral : mapping
        Option -> the values with which it does nothing.
    of : str, optional
        What has the options, where `where` does not say it.
    """
    for option, value in config.items():
        if option in known or value is None:
            continue
        if not any(value is each or value == each for each in neutral.get(option, ())):
            raise unsupported(where, f"{option}={value!r}{of and f' of {of}'}", "fastgru")


# --- What a file can express ----------------------------------------------------------------------------------------


def unsupported(where: str, what: str, by: str, reason: str = "", remedy: str = "") -> ValueError:
    """The error for something that a kind of file, or this package, does not have.

    Parameters
    ----------
    where : str
        The layer or the argument.
    what : str
        What came: ``option=value``, or the name of a class.
    by : str
        The framework that does not have it.
    reason : str, optional
        What it has instead or why, as a relative clause.
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
    """Refuse options of a layer with other values than the only ones that a framework has.

    Parameters
    ----------
    where, by : str
        As `unsupported` takes them.
    config : mapping
        The layer's options; one that is left out fits.
    fixed : mapping
        Option -> the only value.
    hints : mapping, optional
        Option -> reason and remedy, as `unsupported` takes them, where the value alone does not explain it.
    """
    for option, value in fixed.items():
        if config.get(option, value) != value:
            usual = f"which has {option}={value!r}", "make the layer with that"
            reason, remedy = (hints or {}).get(option, usual)
            raise unsupported(where, f"{option}={config[option]!r}", by, reason, remedy)


@contextlib.contextmanager
def with_remedy(remedy: str) -> Iterator[None]:
    """Within, every ValueError ends with what the caller can do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None
