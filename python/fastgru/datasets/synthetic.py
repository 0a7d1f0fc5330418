"""Synthetic digits: images in MNIST's format, generated from a seed without a download.

Each digit consists of strokes through control points. For each image, the points are moved slightly and connected by
smooth curves. The curves are slanted, rotated, scaled, shifted, and drawn with a random width, pressure and noise. The
same seed gives the same bytes with the same version of NumPy.

A linear classifier is much less accurate than a GRU on these images (tests/test_datasets.py measures both).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks

Array = NDArray[Any]
Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]

SIDE = 28
_POINTS = 112  # per image, distributed over the strokes
_TOGETHER = 2000  # images generated at once; bounds the memory, and determines the order of random numbers

#: Digit -> variants: control points (x to the right, y down, in [0, 1]), and strokes as indices of points.
_WAYS: dict[int, list[tuple[list[tuple[float, float]], list[list[int]]]]] = {
    0: [
        (
            [(0.5, 0.1), (0.25, 0.25), (0.2, 0.52), (0.3, 0.8), (0.5, 0.9), (0.72, 0.78), (0.8, 0.5), (0.72, 0.22)],
            [[0, 1, 2, 3, 4, 5, 6, 7, 0]],
        )
    ],
    1: [
        ([(0.52, 0.1), (0.5, 0.5), (0.48, 0.9)], [[0, 1, 2]]),
        ([(0.33, 0.28), (0.52, 0.1), (0.52, 0.5), (0.5, 0.9)], [[0, 1], [1, 2, 3]]),
    ],
    2: [
        (
            [(0.24, 0.28), (0.48, 0.1), (0.74, 0.28), (0.6, 0.55), (0.24, 0.88), (0.5, 0.86), (0.8, 0.86)],
            [[0, 1, 2, 3, 4], [4, 5, 6]],
        ),
        (
            [(0.26, 0.25), (0.5, 0.1), (0.72, 0.3), (0.5, 0.65), (0.26, 0.84), (0.34, 0.7), (0.56, 0.84), (0.82, 0.82)],
            [[0, 1, 2, 3, 4, 5, 6, 7]],
        ),
    ],
    3: [
        (
            [(0.26, 0.2), (0.52, 0.1), (0.72, 0.28), (0.46, 0.47), (0.75, 0.67), (0.52, 0.9), (0.24, 0.8)],
            [[0, 1, 2, 3], [3, 4, 5, 6]],
        )
    ],
    4: [
        ([(0.55, 0.1), (0.2, 0.6), (0.82, 0.58), (0.64, 0.32), (0.6, 0.92)], [[0, 1], [1, 2], [3, 4]]),
        (
            [(0.28, 0.12), (0.24, 0.48), (0.5, 0.54), (0.72, 0.44), (0.72, 0.1), (0.68, 0.92)],
            [[0, 1, 2, 3], [4, 3, 5]],
        ),
    ],
    5: [
        (
            [(0.76, 0.12), (0.34, 0.12), (0.3, 0.45), (0.56, 0.4), (0.76, 0.64), (0.54, 0.89), (0.24, 0.8)],
            [[0, 1], [1, 2], [2, 3, 4, 5, 6]],
        )
    ],
    6: [
        (
            [(0.64, 0.1), (0.38, 0.34), (0.27, 0.66), (0.48, 0.9), (0.73, 0.7), (0.52, 0.5), (0.3, 0.66)],
            [[0, 1, 2, 3, 4, 5, 6]],
        )
    ],
    7: [
        ([(0.22, 0.14), (0.78, 0.14), (0.56, 0.5), (0.42, 0.9)], [[0, 1], [1, 2, 3]]),
        ([(0.22, 0.14), (0.78, 0.14), (0.54, 0.5), (0.4, 0.9), (0.34, 0.52), (0.7, 0.48)], [[0, 1], [1, 2, 3], [4, 5]]),
    ],
    8: [
        (
            [(0.5, 0.47), (0.28, 0.28), (0.5, 0.1), (0.72, 0.28), (0.26, 0.7), (0.5, 0.9), (0.75, 0.7)],
            [[0, 1, 2, 3, 0, 4, 5, 6, 0]],
        )
    ],
    9: [
        (
            [(0.7, 0.32), (0.46, 0.5), (0.28, 0.3), (0.5, 0.1), (0.68, 0.62), (0.6, 0.92)],
            [[0, 1, 2, 3, 0], [0, 4, 5]],
        )
    ],
}


def load_data(*, train: int = 60_000, test: int = 10_000, seed: int = 0) -> tuple[Split, Split]:
    """Generate digits in the shapes of `fastgru.datasets.mnist.load_data`.

    Parameters
    ----------
    train, test : int
        The numbers of training and test images. No image is in both sets.
    seed : int, default 0
        The seed of the random numbers.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images (N, 28, 28) and labels (N,), uint8.
    """
    checks.integer("train", train, least=0)
    checks.integer("test", test, least=0)
    train_seed, test_seed = np.random.SeedSequence(checks.integer("seed", seed, least=0)).spawn(2)
    return make_digits(train, train_seed), make_digits(test, test_seed)


def make_digits(count: int, seed: int | np.random.SeedSequence) -> Split:
    """Generate `count` images (count, 28, 28) and labels (count,), uint8. All digits have the same probability."""
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for begin in range(0, count, _TOGETHER):
        chunk = slice(begin, min(begin + _TOGETHER, count))
        images[chunk] = _draw(_place(_write(labels[chunk], rng), rng), rng)
    return images, labels


def _catmull_rom(strokes: list[list[int]], points: int) -> Array:
    """Return the matrix (_POINTS, points) from control points to points along the strokes, smooth in each stroke."""
    pieces = [(stroke, i) for stroke in strokes for i in range(len(stroke) - 1)]
    matrix = np.zeros((_POINTS, points))
    for row in range(_POINTS):
        position = row * len(pieces) / _POINTS
        stroke, i = pieces[int(position)]
        t = position % 1.0
        closed = stroke[0] == stroke[-1]
        before = stroke[i - 1] if i else (stroke[-2] if closed else stroke[0])
        after = stroke[i + 2] if i + 2 < len(stroke) else (stroke[1] if closed else stroke[-1])
        weights = 0.5 * np.array(
            [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
        )
        for index, weight in zip((before, stroke[i], stroke[i + 1], after), weights, strict=True):
            matrix[row, index] += weight
    return matrix


@functools.cache
def _curves() -> dict[int, list[tuple[Array, Array]]]:
    return {
        digit: [(np.array(points), _catmull_rom(strokes, len(points))) for points, strokes in ways]
        for digit, ways in _WAYS.items()
    }


def _write(labels: Array, rng: np.random.Generator) -> Array:
    """Return points (N, _POINTS, 2) along the strokes of each digit, in the unit square."""
    result = np.empty((len(labels), _POINTS, 2))
    chance = rng.random(len(labels))
    for digit, ways in _curves().items():
        for number, (points, curve) in enumerate(ways):
            chosen = np.flatnonzero((labels == digit) & ((chance * len(ways)).astype(int) == number))
            moved = points + rng.normal(0.0, 0.045, (len(chosen), *points.shape))
            result[chosen] = curve @ moved
    return result


def _place(points: Array, rng: np.random.Generator) -> Array:
    """Slant, rotate, scale and shift the points. The result is in pixels."""
    count = len(points)
    slant = rng.normal(0.1, 0.22, count)
    turn = rng.normal(0.0, 0.16, count)
    size = rng.uniform(14.0, 22.0, count)[:, None] * rng.uniform(0.8, 1.15, (count, 2))
    sine, cosine = np.sin(turn), np.cos(turn)
    centred = points - 0.5
    x = centred[..., 0] - slant[:, None] * centred[..., 1]
    y = centred[..., 1]
    turned = np.stack([cosine[:, None] * x - sine[:, None] * y, sine[:, None] * x + cosine[:, None] * y], axis=-1)
    return turned * size[:, None, :] + (SIDE - 1) / 2 + rng.normal(0.0, 1.6, (count, 1, 2))


def _draw(points: Array, rng: np.random.Generator) -> Array:
    """Return uint8 images (N, 28, 28): ink on the nearest pixels, blurred by the width of the pen, with noise."""
    count = len(points)
    points = np.clip(points, 0.0, SIDE - 1.001)
    corner = points.astype(np.int64)
    fraction = points - corner
    first = (np.arange(count)[:, None] * SIDE + corner[..., 1]) * SIDE + corner[..., 0]
    ink = np.zeros(count * SIDE * SIDE)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - right - fraction[..., 0]) * np.abs(1 - down - fraction[..., 1])
            ink += np.bincount((first + down * SIDE + right).ravel(), share.ravel(), len(ink))
    picture = ink.reshape(count, SIDE, SIDE).astype(np.float32)

    # Ink saturates where points are dense, because a pen draws one line.
    np.minimum(picture, 1.0, out=picture)
    width = rng.uniform(0.55, 1.15, count).astype(np.float32)
    taps = np.exp(-0.5 * (np.arange(3, dtype=np.float32) / width[:, None]) ** 2)
    taps /= taps[:, :1] + 2 * taps[:, 1:].sum(axis=1, keepdims=True)
    for axis in (1, 2):
        picture = _blur(picture, taps, axis)
    pressure = rng.uniform(1.6, 3.2, count).astype(np.float32) * width
    picture *= 255.0 * pressure[:, None, None]
    grain = rng.integers(-16, 17, picture.shape, dtype=np.int8)
    picture += grain * (picture > 8.0)
    return np.clip(picture, 0.0, 255.0).astype(np.uint8)


def _blur(picture: Array, taps: Array, axis: int) -> Array:
    """Convolve each image along one axis with its five symmetric taps. Pixels outside are zero."""
    result = picture * taps[:, 0, None, None]
    for distance in (1, 2):
        weighted = picture * taps[:, distance, None, None]
        here, there = [slice(None)] * 3, [slice(None)] * 3
        here[axis], there[axis] = slice(distance, None), slice(None, -distance)
        result[tuple(here)] += weighted[tuple(there)]
        result[tuple(there)] += weighted[tuple(here)]
    return result
