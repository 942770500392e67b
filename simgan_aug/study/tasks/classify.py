"""One category an image: that of its largest label."""

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
from simgan_aug.study.labelled import area
from simgan_aug.study.network import Classifier
from simgan_aug.study.split import Split
from simgan_aug.study.tasks.contract import Targets

Array = np.ndarray[Any, Any]


class Classify:
    """See `contract.Task`."""

    metric: ClassVar[str] = "accuracy"
    area: ClassVar[int] = 96 * 64
    batch_size: ClassVar[int] = 64
    turn: ClassVar[float] = 0.2
    flip: ClassVar[bool] = True
    maps: ClassVar[bool] = False

    def __init__(self, classes: tuple[str, ...], points: int, size: Size) -> None:
        if len(classes) < 2:
            raise ConfigError(
                f"to classify takes two categories or more, got {', '.join(classes)}; take another "
                "task: segment, keypoints or detect"
            )
        self.classes = len(classes)

    @staticmethod
    def views(annotations: list[Annotation], size: Size) -> list[tuple[Region, list[Annotation]]]:
        """The whole image, with its largest label."""
        return [((0, 0, *size), [max(annotations, key=area)])] if annotations else []

    def network(self) -> nn.Module:
        """A small classifier."""
        return Classifier(self.classes)

    def targets(self, split: Split) -> Targets:
        """The category of each image."""
        return {"category": torch.from_numpy(_categories(split))}

    def loss(self, answers: Tensor, targets: Targets, warp: Warp) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(answers, targets["category"])

    def predict(self, answers: Tensor) -> Array:
        """Categories, (B,)."""
        found: Array = answers.argmax(1).numpy()
        return found

    def values(self, predictions: Array, truth: Split) -> Array:
        """1 where the category is right."""
        right: Array = (predictions == _categories(truth)).astype(float)
        return right


def _categories(split: Split) -> Array:
    return np.array([labels[0].category for labels in split.labels], np.int64)
