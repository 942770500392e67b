"""The networks of the probes: small, of plain convolutions, trained from scratch in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Sequential):
    """Four convolutions at half the size each, and a linear layer.

    Args:
        classes: of the answer.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(
            _half(3, 32, 5),
            _half(32, 64),
            _half(64, 128),
            _half(128, 128),
            nn.AdaptiveAvgPool2d((2, 3)),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class Pyramid(nn.Module):
    """Down to a sixteenth of the size and up again, as U-Net (arXiv:1505.04597) does.

    Args:
        outputs: channels of the answer.
        fine: whether the answer has half of the image's size, else a quarter.
    """

    def __init__(self, outputs: int, fine: bool) -> None:
        super().__init__()
        self.fine = fine
        self.down = nn.ModuleList([_half(3, 24, 5), _half(24, 48), _half(48, 96), _half(96, 96)])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(96, 96, 1), nn.ReLU())
        up = [_same(96 + 96, 96), _same(96 + 48, 48)] + ([_same(48 + 24, 32)] if fine else [])
        self.up = nn.ModuleList(up)
        self.last = nn.Conv2d(32 if fine else 48, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Answers for (B, 3, H, W), (B, outputs, h, w)."""
        seen = []
        for layer in self.down:
            images = layer(images)
            seen.append(images)
        images = images + self.whole(images)  # each place knows what the whole image shows
        for layer, skip in zip(self.up, seen[-2::-1], strict=False):
            larger = F.interpolate(images, size=skip.shape[2:], mode="nearest")
            images = layer(torch.cat([larger, skip], 1))
        found: Tensor = self.last(images)
        return found


def _half(inputs: int, outputs: int, kernel: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _same(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
