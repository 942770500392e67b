"""How far from real? A distance between two sets of images, needing no downloaded weights.

KID (Binkowski et al., arXiv:1801.01401): the unbiased squared MMD with a cubic kernel, here on
features from random filters of a fixed seed. It ranks; its unit means nothing, so it is printed
beside the floor (real against real) and the ceiling (synthetic against real). It rewards drift of
labels as readily as realism: never read it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.errors import DataError
from simgan_aug.pixels import Pixels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Distance:
    """A KID with an interval by resampling images."""

    value: float
    """Unbiased estimate; it may be slightly negative for equal distributions."""
    low: float
    """2.5th percentile over resampled images."""
    high: float
    """97.5th percentile."""


@torch.no_grad()
def features(images: Sequence[Array], channels: int) -> Tensor:
    """Mean and deviation of random filter responses at three scales, (N, F) float64.

    Args:
        images: (H, W) or (H, W, C), any sizes of 16 px or more, of the kinds `Pixels` takes.
        channels: 1 or 3.
    """
    draws = torch.Generator().manual_seed(0)
    filters = torch.randn((48, channels, 5, 5), generator=draws)
    filters[8:] -= filters[8:].mean(
        dim=(1, 2, 3), keepdim=True
    )  # the first 8 keep level and colour
    filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]
    return torch.stack(
        [_describe(Pixels(image, channels).colour(), filters) for image in images]
    ).double()


def kid(first: Tensor, second: Tensor, resamples: int = 200, seed: int = 0) -> Distance:
    """The distance of two sets of features, (N, F) and (M, F), in deviations of the second.

    Raises:
        DataError: fewer than 8 images on a side.
    """
    if min(len(first), len(second)) < 8:
        raise DataError(
            f"a distance needs 8 images on each side, got {len(first)} and {len(second)}"
        )
    mean, spread = second.mean(0), second.std(0) + 1e-6
    kernel = _cubic(torch.cat([(first - mean) / spread, (second - mean) / spread]))
    rng = np.random.default_rng(seed)
    sides = (np.arange(len(first)), len(first) + np.arange(len(second)))
    drawn = [
        _mmd(kernel, *(np.unique(rng.choice(side, len(side))) for side in sides))
        for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Distance(_mmd(kernel, *sides), float(low), float(high))


def _describe(image: Tensor, filters: Tensor) -> Tensor:
    parts = []
    for _ in range(3):
        response = F.leaky_relu(
            F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), filters), 0.2
        )
        parts += [response.mean(dim=(0, 2, 3)), response.std(dim=(0, 2, 3))]
        if min(image.shape[2:]) >= 4:
            image = F.avg_pool2d(image, 2)
    return torch.cat(parts)


def _cubic(points: Tensor) -> Array:
    product: Array = ((points @ points.T / points.shape[1] + 1) ** 3).numpy()
    return product


def _mmd(kernel: Array, first: Array, second: Array) -> float:
    """Unbiased squared MMD: without the diagonal within a set."""
    within = 0.0
    for side in (first, second):
        block = kernel[np.ix_(side, side)]
        within += (block.sum() - np.trace(block)) / (len(side) * (len(side) - 1))
    return float(within - 2 * kernel[np.ix_(first, second)].mean())
