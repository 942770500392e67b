"""The two networks of CUT as its authors publish them (arXiv:2007.15651, appendix C.1).

Written anew from the paper and from what the authors' code computes. Both normalise by instance:
what a pixel becomes depends on the whole image. So neither declares a receptive field, and images
that do not fit into memory at once cannot be refined in tiles.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.networks.contract import check_between

GRID = 4
"""Px: two halvings."""


class CutResNet(nn.Module):
    """7x7 convolution, two halvings, residual blocks, two doublings, 7x7 convolution, tanh.

    Layers have the authors' numbers (`layers.0` to `layers.30` with 9 blocks), so that the five of
    their contrastive term are 0, 4, 8, 12 and 16. Sides that are no multiple of 4 px are padded
    right and below.

    Args:
        channels: of the image.
        features: of the first layer; 4 times as many inside.
        blocks: residual blocks of two 3x3 convolutions each.
    """

    def __init__(self, channels: int = 3, features: int = 64, blocks: int = 9) -> None:
        super().__init__()
        check_between("channels", channels, 1, 64)
        check_between("features", features, 1, 512)
        check_between("blocks", blocks, 1, 64)
        self.bytes_per_pixel = 4 * 8 * features
        wide = 4 * features
        self.layers = nn.Sequential(
            _Reflected(3),
            *_normalised(nn.Conv2d(channels, features, 7)),
            *_normalised(nn.Conv2d(features, 2 * features, 3, padding=1)),
            _halved(),
            *_normalised(nn.Conv2d(2 * features, wide, 3, padding=1)),
            _halved(),
            *(_Residual(wide) for _ in range(blocks)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_normalised(nn.Conv2d(wide, 2 * features, 3, padding=1)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_normalised(nn.Conv2d(2 * features, features, 3, padding=1)),
            _Reflected(3),
            nn.Conv2d(features, channels, 7),
            nn.Tanh(),
        )
        start(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape, in [-1, 1]."""
        height, width = images.shape[2:]
        refined = self.layers(_padded(images))
        return cast(Tensor, refined[:, :, :height, :width]).to(images.dtype)


class CutPatchGAN(nn.Module):
    """Convolutions of 4x4, each followed by a halving but for the last two.

    With 3 halvings each logit sees 84 px (70 in pix2pix, which halves by stride; blurring before it
    widens the patch), with 2 it sees 40, and the statistics of the image beside it.

    Args:
        channels: of the image.
        features: of the first layer; doubled by each further one, up to 8 times as many.
        halvings: 1 to 5; images are to have 3 * 2^halvings px each way, or more.
    """

    def __init__(self, channels: int = 3, features: int = 64, halvings: int = 3) -> None:
        super().__init__()
        check_between("channels", channels, 1, 64)
        check_between("features", features, 1, 512)
        check_between("halvings", halvings, 1, 5)
        widths = [features * min(2**level, 8) for level in range(halvings + 1)]
        layers: list[nn.Module] = [_conv4(channels, features), nn.LeakyReLU(0.2), _halved()]
        for inputs, outputs in pairwise(widths):
            layers += [_conv4(inputs, outputs), _Normalised(), nn.LeakyReLU(0.2), _halved()]
        self.layers = nn.Sequential(*layers[:-1], _conv4(widths[-1], 1))
        self.least = 3 * 2**halvings
        start(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, 1, h, w) logits; small images repeat their edges."""
        down, right = (max(0, self.least - side) for side in images.shape[2:])
        if down or right:
            images = F.pad(images, (0, right, 0, down), mode="replicate")
        return cast(Tensor, self.layers(images))


def start(network: nn.Module) -> None:
    """First weights, as the authors': Xavier's normal ones with a gain of 0.02, biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_normal_(layer.weight, gain=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class _Reflected(nn.ReflectionPad2d):
    """In the precision that maps have; autocast would pad in float32, and what follows casts."""

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return super().forward(maps)


class _Normalised(nn.Module):
    """Each channel of each image to mean 0 and deviation 1 (instance normalisation)."""

    def forward(self, maps: Tensor) -> Tensor:
        # It forgets the memory layout, in which all else is several times as fast on a CPU.
        return F.instance_norm(maps).contiguous(memory_format=torch.channels_last)


class _Residual(nn.Module):
    """Two 3x3 convolutions; nothing after the addition."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Reflected(1),
            *_normalised(nn.Conv2d(features, features, 3)),
            _Reflected(1),
            nn.Conv2d(features, features, 3),
            _Normalised(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return cast(Tensor, maps + self.layers(maps))


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, _Normalised(), nn.ReLU()


def _halved() -> nn.Module:
    """Every second px after a blur by 1/4, 1/2, 1/4 each way (Zhang, arXiv:1904.11486)."""
    return nn.Sequential(_Reflected(1), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2))


def _conv4(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, padding=1)


def _padded(images: Tensor) -> Tensor:
    """To multiples of `GRID`, and to two of them at least: the blocks reflect."""
    height, width = images.shape[2:]
    down, right = (max(2 * GRID, -(-side // GRID) * GRID) - side for side in (height, width))
    # Reflection needs more pixels than it adds; the smallest images repeat their edge instead.
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, down), mode=mode) if down or right else images
