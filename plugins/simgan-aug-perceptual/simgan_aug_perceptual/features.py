"""What is taken of the network: early features place by place, late ones of a whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.errors import ImageError
from simgan_aug.losses import blur
from simgan_aug.pixels import Pixels
from simgan_aug_perceptual.network import network

EARLY = 2
"""Block whose features `perceptual` takes: the last one at a quarter of what it is shown."""

UNIT = 24.0
"""What they are divided by: two pictures then differ about as much as in pixels, and a weight of
the pixels' term (lambda) is one to begin with."""

SIZE = 224
"""Px that an image is scaled to for `imagenet`, whatever its shape, as the network was trained."""


def perceptual(images: Tensor) -> Tensor:
    """psi: early features of the image at half its size; (B, 24, H/8, W/8) float32.

    They hold shapes more than tone. Grain is all that such a network sees of a smooth rendered
    area, and so the image is blurred first: the refiner is free to add some.

    Args:
        images: (B, C, H, W) in [-1, 1] of 1 or 3 channels, any size; gradient flows to them.

    Raises:
        ImageError: another number of channels.
        CheckpointError: the weights are not those that this plugin was made for.
    """
    smooth = F.avg_pool2d(blur(_colour(images)), 2, ceil_mode=True)
    return network(images.device).features(smooth, EARLY).float() / UNIT


def imagenet() -> Callable[[np.ndarray[Any, Any]], Tensor]:
    """The space: a function from an image, (H, W) or (H, W, C), to (1280,) float64."""
    known = network(torch.device("cpu"))

    @torch.no_grad()
    def extract(image: np.ndarray[Any, Any]) -> Tensor:
        colour = Pixels(image, 3).colour() * 2 - 1
        scaled = F.interpolate(colour, (SIZE, SIZE), mode="bilinear", antialias=True)
        return known.pooled(scaled)[0].double()

    return extract


def _colour(images: Tensor) -> Tensor:
    """Grey images as three equal channels."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ImageError(
            f"expected (B, C, H, W) with 1 or 3 channels, got {tuple(images.shape)}; take another "
            "regularization.features for images of other channels"
        )
    return images.float().expand(-1, 3, -1, -1)
