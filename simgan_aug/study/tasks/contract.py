"""What a task is."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from simgan_aug.coco import Annotation
from simgan_aug.study.augment import Warp
from simgan_aug.study.canvas import Region, Size
from simgan_aug.study.split import Split

Array = np.ndarray[Any, Any]

Targets = dict[str, Tensor]
"""Labels of all canvases of a split, one row each."""


class Task(Protocol):
    """Targets from labels, a network, its loss, and a value for each test image.

    Args:
        classes: names of the categories, in the order of their numbers.
        points: keypoints of a label; 0: none.
        size: of a canvas.

    Raises:
        ConfigError: there is nothing to learn.
    """

    metric: ClassVar[str]
    """The mean of the values, in words."""
    area: ClassVar[int]
    """Px of a canvas, about, if nobody says how large it is to be."""
    batch_size: ClassVar[int]
    """Images of a step, if nobody says how many."""
    turn: ClassVar[float]
    """Radians by which augmentation turns images at most."""
    flip: ClassVar[bool]
    """Whether it mirrors them."""
    maps: ClassVar[bool]
    """Whether masks are needed."""

    def __init__(self, classes: tuple[str, ...], points: int, size: Size) -> None: ...

    @staticmethod
    def views(annotations: list[Annotation], size: Size) -> list[tuple[Region, list[Annotation]]]:
        """Parts of an image, and the labels that count in each."""
        ...

    def network(self) -> nn.Module:
        """A new network; its weights are drawn from torch's generator."""
        ...

    def targets(self, split: Split) -> Targets:
        """What is to be learnt of each canvas."""
        ...

    def loss(self, answers: Tensor, targets: Targets, warp: Warp) -> Tensor:
        """Of a batch whose images have been warped; the targets have not."""
        ...

    def predict(self, answers: Tensor) -> Array:
        """What answers mean, one row an image."""
        ...

    def values(self, predictions: Array, truth: Split) -> Array:
        """A value for each test image, (n,), whose mean is the metric."""
        ...
