"""Replaces values in JSON documents."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

#: Replacement that removes a value.
LEFT_OUT = object()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


def values(scalars=SCALARS, keys=None, max_leaves=6):
    """Strategy for shallow JSON values of these scalars."""
    keys = st.text(max_size=5) if keys is None else keys
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=max_leaves,
    )


def places(value, path=()):
    """Return the paths of all values inside a value; the first path is empty and means the value itself."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    """Return a copy with `new` at the path, or without the value there if `new` is LEFT_OUT."""
    if not path:
        return new
    *before, last = path
    value = copy.deepcopy(value)
    parent = value
    for key in before:
        parent = parent[key]
    if new is LEFT_OUT:
        del parent[last]
    else:
        parent[last] = new
    return value
