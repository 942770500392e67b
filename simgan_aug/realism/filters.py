"""Features that need no weights: random filters of a fixed seed, at three scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.pixels import Pixels

Array = np.ndarray[Any, Any]

STRIP = 2**20
"""Px filtered at a time; of a larger image the moments are summed strip by strip."""


def features(images: Sequence[Array], channels: int) -> Tensor:
    """Mean and deviation of random filter responses at three scales, (N, F) float64.

    Args:
        images: (H, W) or (H, W, C), any sizes of 16 px or more, of the kinds `Pixels` takes.
        channels: of them.
    """
    extract = random_filters(channels)
    return torch.stack([extract(image) for image in images])


def random_filters(channels: int) -> Callable[[Array], Tensor]:
    """The function from one image to its features, (F,) float64; see `features`."""
    draws = torch.Generator().manual_seed(0)
    filters = torch.randn((48, channels, 5, 5), generator=draws)
    filters[8:] -= filters[8:].mean(
        dim=(1, 2, 3), keepdim=True
    )  # the first 8 keep level and colour
    filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]

    @torch.no_grad()
    def extract(image: Array) -> Tensor:
        return _describe(Pixels(image, channels).colour(), filters).double()

    return extract


def _describe(image: Tensor, filters: Tensor) -> Tensor:
    parts = []
    for _ in range(3):
        parts += _moments(F.pad(image, (2, 2, 2, 2), mode="replicate"), filters)
        if min(image.shape[2:]) >= 4:
            image = F.avg_pool2d(image, 2)
    return torch.cat(parts)


def _moments(padded: Tensor, filters: Tensor) -> list[Tensor]:
    """Mean and deviation of each filter's response to an image that is padded by 2 px."""
    height, width = padded.shape[2] - 4, padded.shape[3] - 4
    if height * width <= STRIP:
        response = F.leaky_relu(F.conv2d(padded, filters), 0.2)
        return [response.mean(dim=(0, 2, 3)), response.std(dim=(0, 2, 3))]
    total, squares = torch.zeros(2, len(filters), dtype=torch.float64)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = padded[:, :, top : min(top + rows, height) + 4]
        response = F.leaky_relu(F.conv2d(strip, filters), 0.2).double()
        total += response.sum(dim=(0, 2, 3))
        squares += response.square().sum(dim=(0, 2, 3))
    count = height * width
    variance = (squares - total.square() / count).clamp(min=0) / (count - 1)
    return [(total / count).float(), variance.sqrt().float()]
