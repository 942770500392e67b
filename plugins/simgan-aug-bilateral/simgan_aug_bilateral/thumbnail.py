"""What both refiners see of an image: a thumbnail, a pooled noise, the tone of a real photo."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.errors import ConfigError
from simgan_aug.networks.contract import TONE_LEVELS, check_between, tone_levels

STRIP = 2**16
"""Px coloured at once: more is done in strips of rows, so that a large image costs no more."""


class Thumbnail(nn.Module):
    """Features of a whole image, at one resolution for every image size; no layer normalises.

    Args:
        channels: of the image, 1 or 3.
        cells: height and width of the features; the thumbnail has 8 px for each.
        features: channels of the features.
        noise_channels: of the noise, of which one number a channel is seen; see `pooled`.
        takes_reference: also see the tone (quantiles) of a real photo.
    """

    def __init__(
        self, channels: int, cells: int, features: int, noise_channels: int, takes_reference: bool
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ConfigError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
        check_between("features", features, 1, 256)
        check_between("noise_channels", noise_channels, 0, 16)
        self.side = 8 * cells
        widths = (channels, features, features, features)
        self.layers = nn.Sequential()
        for inputs, outputs in itertools.pairwise(widths):
            self.layers.extend([nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()])
        extra = noise_channels + (channels * TONE_LEVELS if takes_reference else 0)
        self.near = nn.Conv2d(features, features, 1)
        self.whole = nn.Linear(features + extra, features)

    def forward(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """(B, C, H, W), (B, n, H, W), (B, C, Q) -> (B, features, cells, cells)."""
        found = self.layers(F.adaptive_avg_pool2d(images, self.side))
        known = [found.mean((2, 3))]
        if noise is not None:
            known.append(pooled(noise))
        if reference is not None:
            known.append(tone_levels(reference))
        whole = self.whole(torch.cat(known, dim=1))
        return F.relu(self.near(found) + whole[:, :, None, None])


def pooled(noise: Tensor) -> Tensor:
    """A number for each channel of noise, as standard normal as it: (B, n, H, W) -> (B, n)."""
    return noise.mean((2, 3)) * math.sqrt(noise.shape[2] * noise.shape[3])


def by_strips(colour: Callable[[Tensor, int], Tensor], images: Tensor) -> Tensor:
    """What a function of some rows of all images and the number of their first makes of them."""
    batch, _, height, width = images.shape
    rows = max(1, STRIP // (batch * width))
    starts = range(0, height, rows)
    strips = [colour(images[:, :, start : start + rows], start) for start in starts]
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)
