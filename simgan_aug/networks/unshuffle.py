"""The fast default refiner: a residual network on pixel-unshuffled input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.errors import ConfigError
from simgan_aug.networks.contract import TONE_LEVELS, check_between, tone_levels
from simgan_aug.networks.resnet import ResidualBlock, is_plain, is_traced, rectified, reflected

_BAND = 4096
"""Blocks of pixels that the map takes at a time on a CPU, some 2 MiB."""


class UnshuffleRefiner(nn.Module):
    """Adds to each pixel what a network at 1/factor of the resolution proposes.

    A head draws it for the block of pixels together, and a map for each pixel (`PixelMap`), which a
    head that knows blocks alone would have to spell out pixel by pixel. Both are zero at the start,
    so that an untrained refiner is the identity; no layer normalises, so that a tile with its halo
    equals the whole. Pixel-unshuffle: Shi et al., arXiv:1609.05158. What is added is smoothed by
    3x3 binomial weights, which let nothing of 2 px period pass: blocks of pixels would leave a
    checkerboard. Noise at the input lets the refiner add grain; without it, it has to repaint
    structure to imitate grain, and that moves labels.

    Args:
        channels: of the image.
        factor: 2 or 4, the side of the block of pixels that becomes channels.
        features: channels inside.
        blocks: residual blocks of two 3x3 convolutions each.
        noise_channels: channels of standard normal noise beside the image; 0: none.
        takes_reference: also see the tone (quantiles) of a real photo.
        max_change: grey levels (of 255) that the network may change a pixel by; 0: no bound.
        pixel_features: features of the map for each pixel; 0: there is none.
    """

    recordable = True

    def __init__(
        self,
        channels: int = 3,
        factor: int = 2,
        features: int = 64,
        blocks: int = 2,
        noise_channels: int = 1,
        takes_reference: bool = False,
        max_change: float = 0,
        pixel_features: int = 0,
    ) -> None:
        super().__init__()
        if factor not in (2, 4):
            raise ConfigError(f"factor must be 2 or 4, got {factor}")
        for name, value, high in (
            ("channels", channels, 64),
            ("features", features, 1024),
            ("blocks", blocks, 64),
        ):
            check_between(name, value, 1, high)
        check_between("noise_channels", noise_channels, 0, 16)
        check_between("max_change", max_change, 0, 255)
        check_between("pixel_features", pixel_features, 0, 256)
        self.multiple = factor
        self.noise_channels = noise_channels
        self.takes_reference = takes_reference
        self.receptive_field = factor * (4 + 4 * blocks)
        shown = channels + noise_channels
        self.bytes_per_pixel = 4 * (5 * features // factor**2 + 4 * shown + 2 * pixel_features)
        self.change_limit = max_change
        self._limit = max_change * 2 / 255  # in units of [-1, 1]
        inputs = shown * factor**2
        self.first = nn.Conv2d(inputs, features, 3, padding="same", padding_mode="reflect")
        self.tone = nn.Linear(channels * TONE_LEVELS, features) if takes_reference else None
        self.blocks = nn.Sequential(*(ResidualBlock(features, 3, "reflect") for _ in range(blocks)))
        self.head = nn.Conv2d(features, channels * factor**2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.pixels = (
            PixelMap(shown, channels, features, pixel_features, factor) if pixel_features else None
        )

    def forward(
        self, images: Tensor, noise: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape; outside of [-1, 1] only by what was added.

        Args:
            images: any height and width.
            noise: (B, noise_channels, H, W), standard normal.
            reference: (B, C, Q), quantiles of a real photo per channel, in [-1, 1].
        """
        change = self.core(self.fold(images, noise), reference)
        return images + self.unfold(change, images)

    def fold(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """What `core` takes: blocks of pixels as channels.

        (B, C, H, W) -> (B, (C + noise_channels) f f, H/f, W/f)
        """
        parts = [images] if noise is None else [images, noise]
        aligned = all(side % self.multiple == 0 for side in images.shape[2:])
        if aligned and min(images.shape[2:]) > self.multiple and is_plain():
            return _folded_at_once(parts, self.multiple)
        inputs = images if noise is None else torch.cat(parts, dim=1)
        return _unshuffle(_pad(inputs, self.multiple), self.multiple)

    def core(self, folded: Tensor, reference: Tensor | None = None) -> Tensor:
        """All of the arithmetic: (B, inputs f f, H/f, W/f) -> (B, C f f, H/f, W/f)."""
        weight = _blocks_first(self.first.weight.transpose(0, 1), self.multiple).transpose(0, 1)
        features = F.conv2d(reflected(folded, 1), weight, self.first.bias)
        if self.tone is not None and reference is not None:
            features = features + self.tone(tone_levels(reference))[:, :, None, None]
        features = self.blocks(rectified(features))
        weight = _blocks_first(self.head.weight, self.multiple)
        bias = _blocks_first(cast(Tensor, self.head.bias), self.multiple)
        if self.pixels is None:
            return F.conv2d(features, weight, bias)
        return cast(Tensor, self.pixels(folded, features, weight, bias))

    def unfold(self, change: Tensor, images: Tensor) -> Tensor:
        """What is added to images, from what `core` gives: (B, C f f, H/f, W/f) -> (B, C, H, W)."""
        height, width = images.shape[2:]
        change = _shuffle(change, self.multiple)[:, :, :height, :width].to(images.dtype)
        change = _smoothed(change)
        if self._limit:
            change = self._limit * torch.tanh(change / self._limit)
        return change


class PixelMap(nn.Module):
    """A layer at full resolution: each pixel through one map, which what lies around it shifts.

    R relu(P pixel + Q features), with P and R the same for all pixels. A white backdrop that is to
    be green, and skin that is to stay, are a matter of single pixels; so is grain that depends on
    brightness. It is computed where blocks of pixels are channels, by 1x1 convolutions.

    Args:
        inputs, outputs: channels of a pixel, as it is seen and as it is drawn.
        around: features of a block of pixels.
        features: of a pixel.
        factor: side of a block.
    """

    GAIN = 4.0
    """On what is drawn: a weight moves by its rate a step at most, and here a few have to move as
    far as many do in a head (equalized learning rates: Karras et al., arXiv:1710.10196, section
    4.1)."""

    def __init__(self, inputs: int, outputs: int, around: int, features: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.seen = nn.Conv2d(inputs, features, 1)
        self.around = nn.Conv2d(around, features * factor**2, 1, bias=False)
        nn.init.normal_(self.around.weight, std=0.02)
        self.drawn = nn.Conv2d(features, outputs, 1, bias=False)
        nn.init.zeros_(self.drawn.weight)

    def forward(self, folded: Tensor, around: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """What a head draws for blocks of pixels, and the map for each pixel.

        Args:
            folded: (B, inputs f f, H/f, W/f).
            around: (B, around, H/f, W/f).
            weight: of the head, a 1x1 convolution, (outputs f f, around, 1, 1).
            bias: of the head, (outputs f f).

        Returns:
            (B, outputs f f, H/f, W/f).
        """
        if around.dtype == torch.float32 and around.device.type == "cpu" and not is_traced():
            return self._by_bands(folded, around, weight, bias)
        seen, drawn, level = self._at_each_of(self.factor**2)
        hidden = rectified(F.conv2d(folded, seen, level) + self.around(around))
        return F.conv2d(around, weight, bias) + F.conv2d(hidden, drawn)

    def _by_bands(self, folded: Tensor, around: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The same by a row of a block at a time, as most of what a whole block is multiplied with
        is zero, and by as many blocks as a processor's cache holds: in half of the time."""
        seen, drawn, level = self._at_each_of(self.factor)
        seen, drawn, head, shift = (
            each.flatten(1).T for each in (seen, drawn, weight, self.around.weight)
        )
        level = level.repeat(self.factor)
        bands = zip(*(torch.split(_rows(each), _BAND) for each in (folded, around)), strict=True)
        made = []
        for pixels, features in bands:
            hidden = torch.addmm(level, features, shift).view(-1, seen.shape[1])
            hidden = rectified(hidden.addmm_(pixels.reshape(-1, len(seen)), seen))
            blocks = torch.addmm(bias, features, head).view(-1, drawn.shape[1])
            made.append(blocks.addmm_(hidden, drawn))
        batch, _, height, width = folded.shape
        return torch.cat(made).view(batch, height, width, -1).movedim(-1, 1)

    def _at_each_of(self, places: int) -> tuple[Tensor, Tensor, Tensor]:
        """P, R and the bias of P for some pixels of a block together."""
        seen, drawn = (
            _at_each_place(weight, places)
            for weight in (self.seen.weight, self.GAIN * self.drawn.weight)
        )
        return seen, drawn, cast(Tensor, self.seen.bias).repeat(places)


def _rows(images: Tensor) -> Tensor:
    """A row for each place: (B, C, H, W) -> (B H W, C)."""
    return images.movedim(1, -1).reshape(-1, images.shape[1])


def _at_each_place(weight: Tensor, places: int) -> Tensor:
    """The same weights at each of some pixels: (O, I, 1, 1) -> (O places, I places, 1, 1)."""
    # Not torch.kron, which OpenVINO does not convert.
    apart = torch.eye(places, dtype=weight.dtype, device=weight.device)
    blocks = apart[:, None, :, None] * weight[None, :, None, :, 0, 0]
    return blocks.flatten(2).flatten(0, 1)[:, :, None, None]


def _smoothed(images: Tensor) -> Tensor:
    """By 1/4, 1/2, 1/4 each way; the border repeats its edge."""
    if images.dtype == torch.float32 and images.device.type == "cpu" and is_plain():
        return _smoothed_by_opencv(images)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2] + padded[..., 2:]) / 4 + padded[..., 1:-1] / 2
    return (rows[..., :-2, :] + rows[..., 2:, :]) / 4 + rows[..., 1:-1, :] / 2


def _smoothed_by_opencv(images: Tensor) -> Tensor:
    """The same bits in a fourth of the time: these weights multiply without rounding."""
    weights = np.array([0.25, 0.5, 0.25], np.float32)
    smoothed = torch.empty_like(images, memory_format=torch.channels_last)
    for image, out in zip(images.movedim(1, -1).contiguous(), smoothed.movedim(1, -1), strict=True):
        cv2.sepFilter2D(
            image.numpy(), -1, weights, weights, out.numpy(), borderType=cv2.BORDER_REPLICATE
        )
    return smoothed


def _folded_at_once(parts: Sequence[Tensor], factor: int) -> Tensor:
    """What `fold` makes of images and noise of whole blocks, moved once; the same bits."""
    batch, _, height, width = parts[0].shape
    rows, columns = height // factor, width // factor
    channels = sum(part.shape[1] for part in parts)
    together = parts[0].new_empty(batch, height, width, channels)
    start = 0
    for part in parts:
        stop = start + part.shape[1]
        together[..., start:stop] = part.movedim(1, -1)
        start = stop
    pieces = together.view(batch, rows, factor, columns, factor * channels)
    return pieces.transpose(2, 3).flatten(3).movedim(-1, 1)


def _unshuffle(images: Tensor, factor: int) -> Tensor:
    """Blocks of pixels as channels: (B, C, H, W) -> (B, f f C, H/f, W/f).

    As `F.pixel_unshuffle`, but the place in the block comes before the channel: in channels_last
    memory that moves whole pieces of a row and is several times as fast.
    """
    batch, channels, height, width = images.shape
    rows, columns = height // factor, width // factor
    pieces = images.movedim(1, -1).reshape(batch, rows, factor, columns, factor * channels)
    return torch.cat(pieces.unbind(2), dim=-1).movedim(-1, 1)


def _shuffle(images: Tensor, factor: int) -> Tensor:
    """The reverse of `_unshuffle`."""
    batch, _, rows, columns = images.shape
    blocks = images.movedim(1, -1).reshape(batch, rows, columns, factor, factor, -1)
    if torch.compiler.is_compiling():
        # torch 2.13 fails to compile the transposition, else faster (pytorch issue 187337).
        turned = torch.stack(blocks.unbind(3), 2)
    else:
        turned = blocks.transpose(2, 3)
    return turned.reshape(batch, rows * factor, columns * factor, -1).movedim(-1, 1)


def _blocks_first(weight: Tensor, factor: int) -> Tensor:
    """Reorder a weight's first axis from `F.pixel_unshuffle`'s order, in which files hold it."""
    # Not as a transposed view, of which torch 2.11 compiles no convolution for a CPU.
    return torch.cat(weight.view(-1, factor**2, *weight.shape[1:]).unbind(1))


def _pad(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom to a multiple, and to two blocks at least: the convolutions reflect."""
    height, width = images.shape[2:]
    down, right = (
        max(2 * multiple, -(-side // multiple) * multiple) - side for side in (height, width)
    )
    if not down and not right:
        return images
    # Reflection needs more pixels than it adds; the smallest images repeat their edge instead.
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, down), mode=mode)
