"""KID (Binkowski et al., arXiv:1801.01401): the unbiased squared MMD with a cubic kernel.

It ranks; its unit means nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_aug.realism.resampling import Distance, Draws, Pair, interval, labels_of, resample
from simgan_aug.realism.scale import scale_of

Array = np.ndarray[Any, Any]


def kid(
    first: Tensor,
    second: Tensor,
    resamples: int = 200,
    seed: int = 0,
    groups: Pair | None = None,
) -> Distance:
    """The distance of two sets of features, (N, F) and (M, F), in deviations of the second.

    Args:
        first, second: features, one row an image.
        resamples: for the interval.
        seed: of the resamples.
        groups: of the first and the second set, one for each image. Two images of one group are
            never compared with each other, within a set or across, for they are no independent
            pair and would bias the estimate; and it is groups that are resampled.

    Raises:
        DataError: fewer than 8 images, or groups, on a side.
    """
    labels = labels_of(groups, len(first), len(second))
    return interval([kid_draws(first, second, labels, resamples, seed)])


def kid_draws(
    first: Tensor, second: Tensor, labels: Array, resamples: int = 200, seed: int = 0
) -> Draws:
    """The same, as draws; labels (N + M,) as from `labels_of`."""
    mean, spread = scale_of(second)
    points = torch.cat([(first - mean) / spread, (second - mean) / spread])
    kernel = ((points @ points.T / points.shape[1] + 1) ** 3).numpy()
    apart = (labels[:, None] != labels[None, :]).astype(np.float64)
    # Each image once however often it was drawn: a copy of itself is no independent pair.
    rng = np.random.default_rng(seed)
    kept = resample(labels, len(first), resamples, rng) > 0
    weights = np.vstack([np.ones(len(labels)), kept])  # the first row is the estimate itself
    values = _mmd(kernel * apart, apart, weights, len(first))
    return Draws(float(values[0]), values[1:])


def _mmd(kernel: Array, apart: Array, weights: Array, first: int) -> Array:
    """Unbiased squared MMD of weighted images, (R,): means over pairs of different groups."""
    sides = slice(None, first), slice(first, None)

    def mean(rows: slice, columns: slice) -> Array:
        one, other = weights[:, rows], weights[:, columns]
        with np.errstate(invalid="ignore"):  # a draw without any pair is left out later
            ratio: Array = ((one @ kernel[rows, columns]) * other).sum(1) / (
                (one @ apart[rows, columns]) * other
            ).sum(1)
        return ratio

    gap: Array = mean(sides[0], sides[0]) + mean(sides[1], sides[1]) - 2 * mean(*sides)
    return gap
