"""Keypoints of one instance, in a crop around its box."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError
from simgan_aug.study.augment import Warp
from simgan_aug.study.canvas import Region, Size
from simgan_aug.study.network import Pyramid
from simgan_aug.study.split import Split
from simgan_aug.study.tasks.contract import Targets

Array = np.ndarray[Any, Any]

AROUND = 1.25
"""Sides of a crop, in sides of the box."""

NEAR = 0.1
"""Parts of the box's longer side within which a keypoint counts as found."""

SPREAD = 1.0
"""Deviation of the blobs that are learnt, in cells of 2 px."""


class Keypoints:
    """See `contract.Task`."""

    metric: ClassVar[str] = "PCK at 10% of the box"
    area: ClassVar[int] = 96 * 96
    batch_size: ClassVar[int] = 32
    turn: ClassVar[float] = 0.2
    flip: ClassVar[bool] = False  # left would become right
    maps: ClassVar[bool] = False

    def __init__(self, classes: tuple[str, ...], points: int, size: Size) -> None:
        if not points:
            raise ConfigError("keypoints: no label of the synthetic images has any")
        self.points, self.size = points, size

    @staticmethod
    def views(annotations: list[Annotation], size: Size) -> list[tuple[Region, list[Annotation]]]:
        """A crop around each label that has a box and a visible keypoint."""
        found = []
        for each in annotations:
            flags = each.keypoints[2::3] if isinstance(each.keypoints, list) else []
            box = each.bbox or []
            is_box = len(box) == 4 and min(box[2:]) >= 2 and np.isfinite(box).all()
            if is_box and any(isinstance(flag, (int, float)) and flag > 0 for flag in flags):
                region = _region(box, size)
                if min(region[2:]) >= 2:
                    found.append((region, [each]))
        return found

    def network(self) -> nn.Module:
        """A map of logits for each keypoint."""
        return Pyramid(self.points, fine=True)

    def targets(self, split: Split) -> Targets:
        """x, y and visibility of each keypoint, (N, K, 3)."""
        return {"points": torch.from_numpy(self._points(split)).float()}

    def loss(self, answers: Tensor, targets: Targets, warp: Warp) -> Tensor:
        """Cross entropy between where the map looks and a blob around the keypoint."""
        points, visible = warp.points(targets["points"][..., :2]), targets["points"][..., 2] > 0
        high, wide = answers.shape[2:]
        cell = points.new_tensor([self.size[0] / wide, self.size[1] / high])
        places = points / cell - 0.5  # (B, K, 2)
        inside = (places > -0.5) & (places < places.new_tensor([wide, high]) - 0.5)
        counted = visible & inside.all(-1)
        across = torch.arange(wide, device=places.device) - places[..., :1]  # (B, K, w)
        down = torch.arange(high, device=places.device) - places[..., 1:]
        squares = down.square()[..., :, None] + across.square()[..., None, :]
        blobs = (-squares.flatten(2) / (2 * SPREAD**2)).softmax(2)
        losses = -(blobs * answers.flatten(2).log_softmax(2)).sum(2)  # (B, K)
        return (losses * counted).sum() / counted.sum().clamp(min=1)

    def predict(self, answers: Tensor) -> Array:
        """x and y in px, (B, K, 2): the centre of mass around the highest place."""
        high, wide = answers.shape[2:]
        shares = answers.flatten(2).softmax(2).view_as(answers)
        top = shares.flatten(2).argmax(2)
        rows, columns = torch.arange(high)[:, None], torch.arange(wide)[None, :]
        near_row = (rows - (top // wide)[..., None, None]).abs() <= 2
        near_column = (columns - (top % wide)[..., None, None]).abs() <= 2
        kept = shares * (near_row & near_column)
        kept = kept / kept.sum((2, 3), keepdim=True)
        x, y = (kept * columns).sum((2, 3)), (kept * rows).sum((2, 3))
        cell = torch.tensor([self.size[0] / wide, self.size[1] / high])
        found: Array = ((torch.stack([x, y], -1) + 0.5) * cell).numpy()
        return found

    def values(self, predictions: Array, truth: Split) -> Array:
        """The share of an instance's keypoints that are found."""
        points = self._points(truth)
        boxes = np.array([labels[0].box for labels in truth.labels], float)
        off = np.hypot(*np.moveaxis(predictions - points[..., :2], -1, 0))  # (n, K)
        near = off <= NEAR * boxes[:, 2:].max(1)[:, None]
        visible = points[..., 2] > 0
        found: Array = (near & visible).sum(1) / visible.sum(1)
        return found

    def _points(self, split: Split) -> Array:
        """(N, K, 3)."""
        points = np.zeros((len(split), self.points, 3))
        for row, labels in enumerate(split.labels):
            known = labels[0].points[: self.points]
            points[row, : len(known)] = known
        return points


def _region(box: list[float], size: Size) -> Region:
    """A crop around a box, within the image."""
    ends = []
    for start, length, limit in zip(box[:2], box[2:], size, strict=True):
        edge = (AROUND - 1) / 2 * length
        low = max(0, min(limit, int(np.floor(start - edge))))
        high = max(low, min(limit, int(np.ceil(start + length + edge))))
        ends.append((low, high - low))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]
