"""The augmentations that arms choose from: the same geometry, more or less photometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.pixels import LUMA
from simgan_aug.study.canvas import Size

Array = np.ndarray[Any, Any]

ZOOM, SHIFT = 0.15, 0.1
"""Geometry of all policies: zoom by up to so much, shifts in parts of a side."""


class Policy(NamedTuple):
    """How far light and colour are jittered; 0: not at all."""

    name: str
    gain: float = 0.0
    tint: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    noise: float = 0.0
    blur: float = 0.0

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Jitter (B, 3, H, W) in [0, 1]; the result may lie beyond.

        Args:
            images: a batch.
            draws: on the CPU, so that every device draws alike.
        """
        if not any(self[1:]):
            return images

        def uniform(extent: float, channels: int = 1) -> Tensor:
            drawn = torch.rand(len(images), channels, 1, 1, generator=draws) * 2 - 1
            return (drawn * extent).to(images.device)

        if self.gamma:
            images = images.clamp(1e-4, 1) ** uniform(self.gamma).exp()
        grey = (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        images = grey + (images - grey) * (1 + uniform(self.saturation))
        images = images * (1 + uniform(self.gain)) * (1 + uniform(self.tint, 3))
        images = images + uniform(self.shift)
        if self.blur:
            soft = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
            images = images + (soft - images) * uniform(self.blur).abs()
        if self.noise:
            grain = torch.randn(images.shape, generator=draws).to(images.device)
            images = images + grain * uniform(self.noise).abs()
        return images


SEARCH = (Policy("light"), Policy("strong", gain=0.25, tint=0.1, shift=0.1, saturation=0.3))
"""What every arm chooses from."""

JITTER = (
    Policy("colour", gain=0.4, tint=0.3, shift=0.2, gamma=0.5, saturation=0.8),
    Policy("heavy", gain=0.5, tint=0.5, shift=0.3, gamma=0.8, saturation=1, noise=0.08, blur=1),
)
"""What the arm "jitter" chooses from besides."""


@dataclass(frozen=True)
class Warp:
    """Zoom, turn, shift and flip of each image of a batch."""

    forward: Tensor
    """(B, 2, 3): from px before to px after."""
    back: Tensor
    """(B, 2, 3): from px after to px before."""
    size: Size

    def to(self, device: torch.device) -> Warp:
        """The same on another device."""
        return Warp(self.forward.to(device), self.back.to(device), self.size)

    def images(self, batch: Tensor, mode: str = "bilinear") -> Tensor:
        """Warp (B, C, H, W); what comes from outside repeats the border."""
        half = self.back.new_tensor([self.size[0] / 2, self.size[1] / 2])
        linear = self.back[:, :, :2] * half / half[:, None]  # in halves of a side
        middle = (self.back[:, :, :2] @ half + self.back[:, :, 2]) / half - 1
        theta = torch.cat([linear, middle[:, :, None]], 2).to(batch)
        grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
        return F.grid_sample(batch, grid, mode=mode, padding_mode="border", align_corners=False)

    def points(self, points: Tensor) -> Tensor:
        """Where points, (B, M, 2) in px, lie after."""
        return points @ self.forward[:, :, :2].mT + self.forward[:, None, :, 2]

    def boxes(self, boxes: Tensor) -> Tensor:
        """Upright boxes around warped ones, (B, M, 4): x, y, width, height."""
        left, top, right, bottom = (
            boxes[..., 0],
            boxes[..., 1],
            boxes[..., 0] + boxes[..., 2],
            boxes[..., 1] + boxes[..., 3],
        )
        corners = torch.stack([left, top, right, top, left, bottom, right, bottom], -1)
        flat = corners.reshape(len(corners), -1, 2)
        moved = self.points(flat).reshape(len(corners), -1, 4, 2)
        low, high = moved.amin(2), moved.amax(2)
        return torch.cat([low, high - low], -1)


def draw_warp(count: int, size: Size, turn: float, flip: bool, draws: torch.Generator) -> Warp:
    """Warps for a batch.

    Args:
        count: images.
        size: of them.
        turn: radians, at most.
        flip: whether half of them are mirrored.
        draws: on the CPU.
    """

    def uniform(extent: float) -> Tensor:
        return (torch.rand(count, generator=draws) * 2 - 1) * extent

    angle, zoom = uniform(turn), 1 + uniform(ZOOM)
    mirror = torch.where(torch.rand(count, generator=draws) < (0.5 if flip else 0.0), -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    linear = torch.stack([cos * mirror, -sin, sin * mirror, cos], 1).view(count, 2, 2)
    middle = torch.tensor([size[0] / 2, size[1] / 2])
    shift = torch.stack([uniform(SHIFT) * size[0], uniform(SHIFT) * size[1]], 1)
    offset = middle + shift - linear @ middle
    inverse = torch.linalg.inv(linear)
    back = torch.cat([inverse, -(inverse @ offset[:, :, None])], 2)
    return Warp(torch.cat([linear, offset[:, :, None]], 2), back, size)
