"""The name that a user probably meant: the nearest option, command, choice or file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

#: Below this similarity (0 to 1) two names have little in common, and a suggestion would mislead.
_LEAST_SIMILARITY = 0.6
#: A folder may hold millions of files; looking at this many takes a few milliseconds.
_MOST_FILES = 5000


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`, or None if no name is similar.

    An unambiguous beginning counts as similar (``--learn`` for ``--learning-rate``), and so do the initials of the
    parts of a name (``--lr``). Case is ignored, ``_`` is the same as ``-``, and leading dashes do not count.
    """
    known = {_bare(name): name for name in sorted(names)}
    bare = _bare(word)
    found = [name for name in known if bare and name.startswith(bare)]
    if len(found) != 1:
        found = [name for name in known if "-" in name and "".join(part[:1] for part in name.split("-")) == bare]
        found = found or difflib.get_close_matches(bare, known, n=1, cutoff=_LEAST_SIMILARITY)
    return known[found[0]] if found else None


def nearest_file(path: str, names: Iterable[str]) -> str | None:
    """The file of `names` that is most similar to `path`, or None if no name is similar.

    Only what stands before the first dot has to be similar, because files of one kind share their endings.
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
    """``; did you mean --units?`` for the end of a message; empty if no name is similar."""
    name = nearest(word, names)
    return "" if name is None else f"; did you mean {name}?"


def did_you_mean_file(path: str, endings: tuple[str, ...] = ("",), *, folders: bool = False) -> str:
    """As `did_you_mean`, with the names that `nearby_files` finds."""
    name = nearest_file(path, nearby_files(path, endings, folders=folders))
    return "" if name is None else f"; did you mean {name}?"


def nearby_files(path: str, endings: tuple[str, ...] = ("",), *, folders: bool = False) -> list[str]:
    """The files in the folder of `path`, written as `path` is; `folders` includes folders."""
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
