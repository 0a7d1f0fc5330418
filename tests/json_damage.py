"""Values in JSON, and what may stand in their place."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

#: In the place of a value: nothing.
LEFT_OUT = object()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


def values(scalars=SCALARS, keys=None, max_leaves=6):
    """Any JSON of these scalars, not deep."""
    keys = st.text(max_size=5) if keys is None else keys
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=max_leaves,
    )


def places(value, path=()):
    """The paths to all values within one, which has the empty path and is the first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    """A copy with `new` at the path, or without what stands there if that is LEFT_OUT."""
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
