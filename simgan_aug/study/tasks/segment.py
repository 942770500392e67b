"""A category for each pixel."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError
from simgan_aug.study.augment import Warp
from simgan_aug.study.canvas import Region, Size
from simgan_aug.study.network import Pyramid
from simgan_aug.study.split import CROWD, Split
from simgan_aug.study.tasks.contract import Targets

Array = np.ndarray[Any, Any]


class Segment:
    """See `contract.Task`."""

    metric: ClassVar[str] = "IoU of an image, mean"
    area: ClassVar[int] = 96 * 64
    batch_size: ClassVar[int] = 32
    turn: ClassVar[float] = 0.2
    flip: ClassVar[bool] = True
    maps: ClassVar[bool] = True

    def __init__(self, classes: tuple[str, ...], points: int, size: Size) -> None:
        if len(classes) > 254:
            raise ConfigError(f"segment takes up to 254 categories, got {len(classes)}")
        self.classes, self.size = len(classes), size

    @staticmethod
    def views(annotations: list[Annotation], size: Size) -> list[tuple[Region, list[Annotation]]]:
        """The whole image, with all that has an outline or a box; without labels too."""
        return [((0, 0, *size), [a for a in annotations if a.segmentation or a.bbox])]

    def network(self) -> nn.Module:
        """Logits of background and categories."""
        return Pyramid(self.classes + 1, fine=True)

    def targets(self, split: Split) -> Targets:
        """The map of each image, (N, 1, H, W)."""
        return {"map": torch.from_numpy(_maps(split))[:, None]}

    def loss(self, answers: Tensor, targets: Targets, warp: Warp) -> Tensor:
        """Cross entropy of each pixel."""
        maps = warp.images(targets["map"].float(), "nearest")[:, 0].long()  # (B, H, W)
        return F.cross_entropy(self._whole(answers), maps, ignore_index=CROWD)

    def predict(self, answers: Tensor) -> Array:
        """Maps, (B, H, W) uint8."""
        found: Array = self._whole(answers).argmax(1).to(torch.uint8).numpy()
        return found

    def values(self, predictions: Array, truth: Split) -> Array:
        """Intersection over union, mean over the categories that an image has or is said to have.

        An image that has none and is said to have none counts 1.
        """
        maps, ious = _maps(truth), []
        for category in range(1, self.classes + 1):
            said, is_there = (predictions == category) & (maps != CROWD), maps == category
            union = (said | is_there).sum((1, 2))
            shared = (said & is_there).sum((1, 2))
            ious.append(np.where(union > 0, shared / np.maximum(union, 1), np.nan))
        known = np.isfinite(ious)
        total = np.where(known, ious, 0).sum(0)
        values: Array = np.where(known.any(0), total / np.maximum(known.sum(0), 1), 1.0)
        return values

    def _whole(self, answers: Tensor) -> Tensor:
        return F.interpolate(answers, size=self.size[::-1], mode="bilinear", align_corners=False)


def _maps(split: Split) -> Array:
    if split.maps is None:
        raise ValueError("read this split with maps=True")
    return split.maps
