"""The selection of trainable weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastgru.layers import Layer
from fastgru.regularizers import Regularizer

Array = NDArray[Any]


class TrainingPlan(NamedTuple):
    """The weights that a training run changes, given the layers' ``trainable``.

    Attributes
    ----------
    names : frozenset of str
        The trainable weights as ``layer/weight``.
    ranges : list of slice, or None
        Their places in the flat buffers. None if all weights are trainable, so that one pass updates the whole buffer.
    frozen : list of slice
        The places of the frozen weights.
    first : int
        The index of the first layer with trainable weights. Layers before it need no backward pass.
    penalties : list of (Regularizer, ndarray, ndarray)
        Regularizer, weight and gradient of the trainable weights with a regularizer. As in Keras, frozen weights add
        nothing to the loss.
    """

    names: frozenset[str]
    ranges: list[slice] | None
    frozen: list[slice]
    first: int
    penalties: list[tuple[Regularizer, Array, Array]]


def trainable_names(layers: Sequence[Layer]) -> frozenset[str]:
    """Return the trainable weights as ``layer/weight``."""
    return frozenset(f"{layer.name}/{name}" for layer in layers for name in layer.trainable_parameters())


def make_plan(layers: Sequence[Layer], places: dict[str, tuple[slice, tuple[int, ...]]], size: int) -> TrainingPlan:
    """Return the plan for layers whose weights are at `places` in buffers of `size` elements."""
    names = trainable_names(layers)
    trained = [any(f"{layer.name}/{name}" in names for name in layer.parameters) for layer in layers]
    starts = [*(place.start for place, _ in places.values()), size]
    ranges: dict[bool, list[slice]] = {True: [], False: []}
    before = None
    for name, (start, stop) in zip(places, pairwise(starts), strict=True):
        kind = name in names
        if kind is before:
            start = ranges[kind].pop().start
        ranges[kind].append(slice(start, stop))
        before = kind
    return TrainingPlan(
        names,
        ranges[True] if ranges[False] else None,
        ranges[False],
        trained.index(True) if True in trained else len(trained),
        [entry for layer in layers if layer.trainable for entry in layer.penalties()],
    )
