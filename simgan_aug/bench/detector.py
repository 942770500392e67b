"""A detector's training step, which refinement is to go on beside."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Targets = list[dict[str, Tensor]]
"""Of each image, `boxes` (N, 4) in px, left, top, right and bottom, and `labels` (N,)."""


def detector_name() -> str:
    """Which one it is here."""
    found = (
        "Faster R-CNN R50" if _torchvision() else "a stand-in for a detector, shaped as ResNet-50"
    )
    return f"step of {found}"


def detector(size: tuple[int, int]) -> nn.Module:
    """Untrained; from images (B, 3, H, W) in [0, 1] and `Targets` to a loss.

    Args:
        size: width and height in px.
    """
    models = _torchvision()
    return _FasterRCNN(models, size) if models else StandIn()


class StandIn(nn.Module):
    """The convolutions of ResNet-50, and one number a cell: as much work as a detector's backbone.

    He et al., "Deep residual learning for image recognition", arXiv:1512.03385, table 1.
    """

    def __init__(self, stages: tuple[int, ...] = (3, 4, 6, 3), features: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_normed(nn.Conv2d(3, features, 7, 2, 3)), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, 1))
        inputs = features
        for number, blocks in enumerate(stages):
            inner = features * 2**number
            for block in range(blocks):
                layers.append(_Bottleneck(inputs, inner, 2 if number and not block else 1))
                inputs = 4 * inner
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 1))

    def forward(self, images: Tensor, targets: Targets) -> Tensor:
        """How wrong the number of boxes is that it counts in each image."""
        counted = cast(Tensor, self.layers(images)).float().sum((1, 2, 3))
        return F.mse_loss(counted, counted.new_tensor([len(each["boxes"]) for each in targets]))


class _FasterRCNN(nn.Module):
    def __init__(self, models: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = models.detection.fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=2,
            min_size=min(size),
            max_size=max(size),
        )

    def forward(self, images: Tensor, targets: Targets) -> Tensor:
        losses: dict[str, Tensor] = self.model(list(images), targets)
        return torch.stack(list(losses.values())).sum()


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normed(nn.Conv2d(inputs, inner, 1)),
            nn.ReLU(),
            *_normed(nn.Conv2d(inner, inner, 3, stride, 1)),
            nn.ReLU(),
            *_normed(nn.Conv2d(inner, 4 * inner, 1)),
        )
        self.beside: nn.Module = nn.Identity()
        if stride != 1 or inputs != 4 * inner:
            self.beside = nn.Sequential(*_normed(nn.Conv2d(inputs, 4 * inner, 1, stride)))

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.layers(images) + self.beside(images))


def _normed(layer: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return layer, nn.BatchNorm2d(layer.out_channels)


def _torchvision() -> Any:
    """Its models; None where it cannot be imported, as when it was built for another torch."""
    try:
        from torchvision import models
    except (ImportError, OSError, RuntimeError):
        return None
    return models
