"""Intervals: what a measure becomes when groups of images that belong together are drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simgan_aug.errors import DataError

Array = np.ndarray[Any, Any]

Pair = tuple[Sequence[Hashable], Sequence[Hashable]]
"""Groups of the first and of the second set, one for each image; one group may be in both."""

LEAST = 8
"""Images, and groups of them, that a set must have to say anything."""


@dataclass(frozen=True)
class Distance:
    """A measure with an interval by resampling images, or groups of them."""

    value: float
    """The estimate; an unbiased one may be slightly negative for equal distributions."""
    low: float
    """2.5th percentile over resampled images."""
    high: float
    """97.5th percentile."""


class Draws(NamedTuple):
    """A measure, and what it is on resampled images."""

    value: float
    drawn: Array
    """(R,)."""


def interval(parts: Sequence[Draws]) -> Distance:
    """The mean of a measure over repeats, and the percentiles of all their draws together."""
    drawn = np.concatenate([part.drawn for part in parts])
    low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
    return Distance(float(np.mean([part.value for part in parts])), float(low), float(high))


def centred(value: float, drawn: Array) -> Draws:
    """Draws of a measure that cannot be negative, less what resampling alone adds to it."""
    return Draws(value, np.maximum(drawn - drawn.mean() + value, 0.0))


def labels_of(groups: Pair | None, first: int, second: int) -> Array:
    """Groups as numbers, (N + M,), of the first set and then the second; None: each image its own.

    Raises:
        DataError: fewer than 8 images or groups on a side, or not one group for each image.
    """
    if min(first, second) < LEAST:
        raise DataError(f"a distance needs {LEAST} images on each side, got {first} and {second}")
    if groups is None:
        return np.arange(first + second)
    if (len(groups[0]), len(groups[1])) != (first, second):
        raise DataError(
            f"expected one group for each of {first} and {second} images, "
            f"got {len(groups[0])} and {len(groups[1])}"
        )
    labels = numbered([*groups[0], *groups[1]])
    counts = [len(np.unique(side)) for side in (labels[:first], labels[first:])]
    if min(counts) < LEAST:
        raise DataError(
            f"a distance needs {LEAST} groups of images on each side, got {counts[0]} and "
            f"{counts[1]}: with fewer, nothing can be told; give more images, or finer groups"
        )
    return labels


def numbered(groups: Sequence[Hashable]) -> Array:
    """Groups as numbers in the order of their first image."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def gaps_of(
    means: Callable[[Array, Array], Array],
    first: Array,
    second: Array,
    labels: Array,
    resamples: int,
    seed: int,
) -> Array:
    """How far the means of two sets lie apart, value by value, (1 + R, F): as they are, and drawn.

    Args:
        means: of the rows of a set, (N, F), under weights, (1 + R, N).
        first, second: (N, F) and (M, F).
        labels: (N + M,) as from `labels_of`.
        resamples, seed: R draws of groups.
    """
    drawn = resample(labels, len(first), resamples, np.random.default_rng(seed))
    weights = np.vstack([np.ones(len(labels)), drawn])
    one, other = weights[:, : len(first)], weights[:, len(first) :]
    gaps: Array = np.abs(means(first, one) - means(second, other))
    return gaps


def resample(labels: Array, first: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each image is drawn, (R, N + M): as often as its group, groups with replacement.

    Those in the first set only, in the second only, and in both are drawn apart, so that no side
    is ever empty.
    """
    sides = np.unique(labels[:first]), np.unique(labels[first:])
    shared = np.intersect1d(*sides)
    strata = [np.setdiff1d(side, shared) for side in sides] + [shared]
    counts = np.zeros((resamples, int(labels.max()) + 1))
    for row in counts:
        for stratum in strata:
            if len(stratum):
                np.add.at(row, rng.choice(stratum, len(stratum)), 1)
    drawn: Array = counts[:, labels]
    return drawn
