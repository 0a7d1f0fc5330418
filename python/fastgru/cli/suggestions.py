"""Suggestions for misspelt names: the most similar option, command, choice or file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

#: With less similarity (0 to 1), a suggestion would mislead.
_LEAST_SIMILARITY = 0.6
#: A folder may hold millions of files; looking at this many takes a few milliseconds.
_MOST_FILES = 5000


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the most similar of `names`, or None if no name is similar.

    An unambiguous prefix is similar (``--learn`` for ``--learning-rate``), and so are the initials of the parts of a
    name (``--lr``). Case and leading dashes are ignored, and ``_`` equals ``-``.
    """
    known = {_bare(name): name for name in sorted(names)}
    bare = _bare(word)
    found = [name for name in known if bare and name.startswith(bare)]
    if len(found) != 1:
        found = [name for name in known if "-" in name and "".join(part[:1] for part in name.split("-")) == bare]
        found = found or difflib.get_close_matches(bare, known, n=1, cutoff=_LEAST_SIMILARITY)
    return known[found[0]] if found else None


def nearest_file(path: str, names: Iterable[str]) -> str | None:
    """Return the file of `names` that is most similar to `path`, or None if no name is similar.

    Only the parts before the first dot are compared, because files of one format have the same ending.
    """
    stems: dict[str, list[str]] = {}
    for name in sorted(names):
        stems.setdefault(_stem(name), []).append(name)
    found = nearest(_stem(path), stems)
    return None if found is None else difflib.get_close_matches(path, stems[found], n=1, cutoff=0.0)[0]


def _bare(name: str) -> str:
    return name.lower().replace("_", "-").lstrip("-")


def _stem(path: str) -> str:
    return os.path.basename(path).partition(".")[0]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``; did you mean --units?`` for the end of a message, or an empty string if no name is similar."""
    name = nearest(word, names)
    return "" if name is None else f"; did you mean {name}?"


def did_you_mean_file(path: str, endings: tuple[str, ...] = ("",), *, folders: bool = False) -> str:
    """Return the suggestion of `did_you_mean` for the files that `nearby_files` returns."""
    name = nearest_file(path, nearby_files(path, endings, folders=folders))
    return "" if name is None else f"; did you mean {name}?"


def nearby_files(path: str, endings: tuple[str, ...] = ("",), *, folders: bool = False) -> list[str]:
    """Return the files in the folder of `path`, with the folder as in `path`; `folders` includes folders."""
    folder, _ = os.path.split(path)
    found = []
    try:
        with os.scandir(folder or os.curdir) as entries:
            for entry, _ in zip(entries, range(_MOST_FILES), strict=False):
                if entry.name.startswith("."):
                    continue
                if folders if entry.is_dir() else entry.name.lower().endswith(endings):
                    found.append(os.path.join(folder, entry.name))
    except OSError:
        pass
    return found
