"""The loop of `Sequential.predict`, over arrays, lists of sequences and iterables of batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._support import inputs
from fastgru._support.samples import lengths_of
from fastgru._support.sequence_list import SequenceList
from fastgru._training.data import is_indexed, is_source
from fastgru._training.preparation import Thirds, as_real_samples, gives_steps, has_steps, list_samples, warn_of_padding
from fastgru.callbacks.dispatch import Callbacks
from fastgru.models.network import Network

Array = NDArray[Any]


class _Part(NamedTuple):
    """A batch for the network."""

    x: Array
    lengths: Array | None
    listed: bool  # whether outputs of each step are returned as a list of arrays


def predict(network: Network, x: Any, batch_size: int, lengths: Any, steps: int | None, callbacks: Callbacks) -> Any:
    """Return the outputs for all samples; see `Sequential.predict`."""
    count: int | None = None
    if isinstance(x, Mapping):
        raise TypeError("x: expected samples or an iterable of batches, got a dict; pass its entries as x and lengths")
    if not inputs.is_array(x) and not isinstance(x, (list, tuple)) and is_source(x):
        if lengths is not None:
            raise ValueError(
                "lengths: expected None because x is an iterable of batches, got lengths; pass batches as dicts with "
                "the keys x and lengths"
            )
        parts = _of_stream(network, x)
    else:
        parts, count = _of_samples(network, "x", x, batch_size, lengths)
        count = count if steps is None else min(count, steps * batch_size)
    found: list[_Outputs] = []
    several = False
    callbacks.tell("on_predict_begin", {})
    for number, part in enumerate(itertools.islice(parts, steps)):
        callbacks.tell("on_predict_batch_begin", number, {})
        y = network.forward(part.x, lengths=part.lengths)
        several = isinstance(y, tuple)
        outputs = y if isinstance(y, tuple) else (y,)
        found = found or [_Outputs(network, count) for _ in outputs]
        for each, output in zip(found, outputs, strict=True):
            each.add(output, part)
        callbacks.tell("on_predict_batch_end", number, {"outputs": y})
    callbacks.tell("on_predict_end", {})
    if not found:
        raise ValueError("x: expected at least one batch, got none; an iterator can be used only once")
    return tuple(each.result() for each in found) if several else found[0].result()


class _Outputs:
    """Collects an output of the network, in an array if the number of samples is known, else in a list."""

    def __init__(self, network: Network, count: int | None) -> None:
        assert network.form is not None
        self._by_step = network.layers[-1].several_outputs or gives_steps(network.form)
        self._count = count
        self._filled = 0
        self._array: Array | None = None
        self._batches: list[tuple[Array, _Part]] = []

    def add(self, output: Array, part: _Part) -> None:
        """Add the output of a batch."""
        if self._count is None or (part.listed and self._is_by_step(output)):
            self._batches.append((output, part))
            return
        if self._array is None:
            self._array = np.empty((self._count, *output.shape[1:]), output.dtype)
        self._array[self._filled : self._filled + len(output)] = output
        self._filled += len(output)

    def _is_by_step(self, output: Array) -> bool:
        return self._by_step and output.ndim >= 3

    def result(self) -> Array | list[Array]:
        """Return all outputs: an array, or a list of arrays, one per sequence, with its valid steps."""
        if self._array is not None:
            return self._array
        arrays = [output for output, _ in self._batches]
        listed = any(part.listed for _, part in self._batches) or len({array.shape[1:] for array in arrays}) > 1
        if not listed or not self._is_by_step(arrays[0]):
            return np.concatenate(arrays)
        return [
            output[row, : output.shape[1] if part.lengths is None else part.lengths[row]].copy()
            for output, part in self._batches
            for row in range(len(output))
        ]


def _of_samples(
    network: Network, name: str, x: Any, batch_size: int | None, lengths: Any
) -> tuple[Iterator[_Part], int]:
    """Return the batches of samples, and the number of samples."""
    tokens = network.takes_tokens
    x = as_real_samples(network, name, inputs.as_samples(name, x, axes=network.input_axes, tokens=tokens))
    lengths = inputs.as_array("lengths", lengths)
    if isinstance(x, SequenceList):
        if lengths is not None:
            raise ValueError(
                f"lengths: expected None because {name} is a list of sequences, which defines the lengths, got lengths"
            )
        samples: Any = list_samples(name, x, network, network.form_for(x.probe()))
        lengths = x.lengths
    else:
        samples = network.samples(name, x, network.form_for(x))
        lengths = lengths_of("lengths", lengths, x, tokens=tokens)
        if network.trained_with_lengths:
            warn_of_padding(network, name, x, lengths)
    network.check_values(name, samples, lengths)
    size = batch_size or max(len(samples), 1)

    def parts() -> Iterator[_Part]:
        for begin in range(0, max(len(samples), 1), size):
            rows = slice(begin, begin + size)
            some = None if lengths is None else lengths[rows]
            yield _Part(samples.batch(rows, some), some, isinstance(x, SequenceList))

    return parts(), len(samples)


def _of_stream(network: Network, source: Any) -> Iterator[_Part]:
    """Yield the batches of an iterable: x, (x, y), (x, y, sample_weight), or dicts with x and optionally lengths."""
    if is_indexed(source):
        size = getattr(source, "num_batches", None)
        source = map(source.__getitem__, range(len(source) if size is None else size))
    thirds = Thirds()
    for number, given in enumerate(source):
        name = f"x, batch {number + 1}"
        x, lengths = given, None
        if isinstance(given, Mapping):
            if "x" not in given:
                raise ValueError(f"{name}: expected the key x, got {', '.join(map(str, given))}")
            x, lengths = given["x"], given.get("lengths")
        elif isinstance(given, tuple) or (isinstance(given, list) and _begins_with_x(network, given)):
            if not given:
                raise ValueError(f"{name}: expected x, (x, y) or a dict, got an empty tuple")
            x = given[0]
            if len(given) == 3 and has_steps(network, x) and thirds.are_lengths(name, given[2], x.shape[1]):
                lengths = given[2]
        yield from _of_samples(network, name, x, None, lengths)[0]


def _begins_with_x(network: Network, given: list[Any]) -> bool:
    """Whether a list is [x, ...] rather than a list of sequences."""
    return bool(given) and len(getattr(given[0], "shape", ())) == len(network.input_shape)
