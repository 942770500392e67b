"""Boxes, by a small centre detector (CenterNet, arXiv:1904.07850)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError
from simgan_aug.study.augment import Warp
from simgan_aug.study.average_precision import jackknife
from simgan_aug.study.canvas import Region, Size
from simgan_aug.study.network import Pyramid
from simgan_aug.study.split import Label, Split
from simgan_aug.study.tasks.contract import Targets

Array = np.ndarray[Any, Any]

MOST = 32
"""Boxes of an image that are learnt, the largest first, and boxes that are said of one."""


class Detect:
    """See `contract.Task`."""

    metric: ClassVar[str] = "AP50"
    area: ClassVar[int] = 128 * 96
    batch_size: ClassVar[int] = 32
    turn: ClassVar[float] = 0.0  # the box of a turned object is not its turned box
    flip: ClassVar[bool] = True
    maps: ClassVar[bool] = False

    def __init__(self, classes: tuple[str, ...], points: int, size: Size) -> None:
        if not classes:
            raise ConfigError("detect: the synthetic images have no labels")
        self.classes, self.size = len(classes), size

    @staticmethod
    def views(annotations: list[Annotation], size: Size) -> list[tuple[Region, list[Annotation]]]:
        """The whole image, with all boxes; without any too."""
        boxed = [a for a in annotations if a.bbox and len(a.bbox) == 4 and min(a.bbox[2:]) > 0]
        return [((0, 0, *size), boxed)]

    def network(self) -> nn.Module:
        """Logits of centres for each category, log sides and offset, in cells."""
        network = Pyramid(self.classes + 4, fine=False)
        with torch.no_grad():
            bias = network.last.bias
            assert bias is not None
            bias.zero_()
            bias[: self.classes] = -2.2  # most places are no centre
        return network

    def targets(self, split: Split) -> Targets:
        """Boxes, (N, M, 4) in px, and categories, (N, M); -1: none."""
        boxes = torch.zeros(len(split), MOST, 4)
        categories = torch.full((len(split), MOST), -1)
        for row, labels in enumerate(split.labels):
            known = [label for label in labels if label.box is not None]
            known.sort(key=lambda label: -label.box[2] * label.box[3] if label.box else 0.0)
            for place, label in enumerate(known[:MOST]):
                boxes[row, place] = torch.tensor(label.box)
                categories[row, place] = label.category
        return {"boxes": boxes, "categories": categories}

    def loss(self, answers: Tensor, targets: Targets, warp: Warp) -> Tensor:
        """Focal loss of the centres, and L1 of log sides and offsets at them."""
        high, wide = answers.shape[2:]
        cell = answers.new_tensor([self.size[0] / wide, self.size[1] / high])
        boxes = warp.boxes(targets["boxes"])
        sides = boxes[..., 2:] / cell
        middle = boxes[..., :2] / cell + sides / 2  # (B, M, 2) in cells
        inside = (middle >= 0) & (middle < middle.new_tensor([wide, high]))
        counted = (targets["categories"] >= 0) & inside.all(-1)
        place = middle.floor().clamp(min=0)
        place = torch.minimum(place, place.new_tensor([wide - 1, high - 1]))
        heat = self._heat(targets["categories"].clamp(min=0), place, sides, counted, (high, wide))
        focal = _focal(answers[:, : self.classes], heat)
        index = (place[..., 1] * wide + place[..., 0]).long()  # (B, M)
        shapes = answers[:, self.classes :].flatten(2).mT  # (B, cells, 4)
        said = shapes.gather(1, index[..., None].expand(-1, -1, 4))
        wanted = torch.cat([sides.clamp(min=1e-2).log(), middle - place], -1)
        off = ((said - wanted).abs().sum(-1) * counted).sum()
        return (focal + off) / counted.sum().clamp(min=1)

    def predict(self, answers: Tensor) -> Array:
        """(B, `MOST`, 6): category, score, and x, y, width, height in px."""
        high, wide = answers.shape[2:]
        cell = answers.new_tensor([self.size[0] / wide, self.size[1] / high])
        scores = answers[:, : self.classes].sigmoid()
        tops = scores * (scores == F.max_pool2d(scores, 3, stride=1, padding=1))
        best, index = tops.flatten(1).topk(min(MOST, tops[0].numel()))  # (B, M)
        category, place = index // (high * wide), index % (high * wide)
        shapes = answers[:, self.classes :].flatten(2).mT
        shape = shapes.gather(1, place[..., None].expand(-1, -1, 4))
        middle = torch.stack([place % wide, place // wide], -1) + shape[..., 2:]
        sides = shape[..., :2].clamp(max=8).exp()
        boxes = torch.cat([(middle - sides / 2) * cell, sides * cell], -1)
        found: Array = torch.cat([category[..., None], best[..., None], boxes], -1).double().numpy()
        return found

    def values(self, predictions: Array, truth: Split) -> Array:
        """Pseudo-values of the AP50, whose mean it is; see `average_precision.jackknife`."""
        crowds = _boxes(truth.crowds) if truth.crowds else None
        return jackknife(list(predictions), _boxes(truth.labels), crowds)

    def _heat(
        self,
        categories: Tensor,
        place: Tensor,
        sides: Tensor,
        counted: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """1 at centres, less around them, (B, classes, h, w)."""
        spread = (sides.amin(-1) / 6).clamp(min=0.5)  # (B, M), in cells
        across = torch.arange(shape[1], device=place.device) - place[..., :1]
        down = torch.arange(shape[0], device=place.device) - place[..., 1:]
        squares = down.square()[..., :, None] + across.square()[..., None, :]
        blobs = (-squares / (2 * spread.square())[..., None, None]).exp()
        blobs = blobs * counted[..., None, None]  # (B, M, h, w)
        heat = blobs.new_zeros(len(blobs), self.classes, *shape)
        index = categories[..., None, None].expand_as(blobs)
        return heat.scatter_reduce(1, index, blobs, "amax")


def _boxes(sides: Sequence[Sequence[Label]]) -> list[Array]:
    """Of each image, (G, 5): category, x, y, width, height."""
    found = [[[each.category, *each.box] for each in labels if each.box] for labels in sides]
    return [np.array(each, float).reshape(-1, 5) for each in found]


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Equation 1 of CenterNet with alpha 2 and beta 4, summed."""
    share = logits.sigmoid()
    hit = (1 - share).square() * F.logsigmoid(logits)
    miss = (1 - heat) ** 4 * share.square() * F.logsigmoid(-logits)
    return -torch.where(heat == 1, hit, miss).sum()
