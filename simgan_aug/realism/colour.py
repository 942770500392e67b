"""Which levels and colours a set of images has, whatever it shows where."""

from __future__ import annotations

from typing import Any

import numpy as np

from simgan_aug.pixels import Pixels
from simgan_aug.realism.resampling import (
    Distance,
    Draws,
    Pair,
    centred,
    gaps_of,
    interval,
    labels_of,
)

Array = np.ndarray[Any, Any]

_LEVELS, _GAPS = 255, 510
"""Steps of a channel, and of a difference of two."""


def colours(image: Array) -> Array:
    """The distribution of an image's levels, as cumulative shares, (2295,) float32.

    Of red, green and blue (255 steps each), and of red - green, green - blue and blue - red (510
    each), in which grey and coloured images differ even where their channels do not.

    Args:
        image: (H, W) or (H, W, C), of the kinds `Pixels` takes.
    """
    channels = np.rint(Pixels(image, 3).colour()[0].numpy() * 255).astype(np.int64)
    channels = channels.reshape(3, -1)
    gaps = channels - np.roll(channels, -1, axis=0) + 255
    return np.concatenate(
        [_cumulative(part, _LEVELS) for part in channels] + [_cumulative(p, _GAPS) for p in gaps]
    ).astype(np.float32)


def colour_distance(
    first: Array,
    second: Array,
    groups: Pair | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Distance:
    """How far two sets of `colours`, (N, 2295) and (M, 2295), lie apart, in 8-bit levels.

    The Wasserstein distance of the sets' distributions, each image counting the same: the mean over
    the channels, plus the mean over their differences (which are divided by the root of 2, so that
    they are a direction of unit length). A shift of all channels by ten levels is ten levels.

    Raises:
        DataError: fewer than 8 images, or groups, on a side.
    """
    labels = labels_of(groups, len(first), len(second))
    return interval([colour_draws(first, second, labels, resamples, seed)])


def colour_draws(
    first: Array, second: Array, labels: Array, resamples: int = 200, seed: int = 0
) -> Draws:
    """The same, as draws; labels (N + M,) as from `labels_of`."""
    gaps = gaps_of(_means, first, second, labels, resamples, seed)
    split = 3 * _LEVELS
    values = gaps[:, :split].sum(1) / 3 + gaps[:, split:].sum(1) / 3 / 2**0.5
    return centred(float(values[0]), values[1:])


def _cumulative(levels: Array, steps: int) -> Array:
    """Share of the pixels at most at each level but the last, where it is 1."""
    counts = np.bincount(levels, minlength=steps + 1)
    return counts.cumsum()[:-1] / len(levels)


def _means(shares: Array, weights: Array) -> Array:
    means: Array = (weights @ shares) / weights.sum(1, keepdims=True)
    return means
