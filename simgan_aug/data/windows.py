"""Where the crops of a batch lie in their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from simgan_aug.config import Data

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Windows:
    """One of each image, in whole px; (B,) each."""

    top: Array
    left: Array
    rows: Array
    columns: Array
    is_mirrored: Array
    """Whether it is seen from right to left, (B,) bool."""

    @classmethod
    def drawn(cls, numbers: Array, sizes: Array, config: Data) -> Windows:
        """Windows that become crops when they are resized by a scale drawn for each.

        Args:
            numbers: (B, 4) from [0, 1), for scale, top, left and whether it is mirrored.
            sizes: (B, 2) height and width of the images.
            config: crop, scale, flip.
        """
        scales, *starts, mirrored = numbers.T
        low, high = config.scale
        least = (np.array(config.crop) / sizes).max(1)
        scales = np.maximum(low + (high - low) * scales, least)[:, None]
        sides = np.rint(np.array(config.crop) / scales).astype(np.int64)
        sides = np.minimum(sizes, np.maximum(1, sides))
        top, left = (np.stack(starts, 1) * (sizes - sides + 1)).astype(np.int64).T
        rows, columns = sides.T
        return cls(top, left, rows, columns, (mirrored < 0.5) & config.flip)

    def of(self, images: Sequence[Array]) -> list[Array]:
        """What is seen through them of (H, W, C) each."""
        every = self.top, self.left, self.rows, self.columns, self.is_mirrored
        numbers, seen = (each.tolist() for each in every), []
        for image, top, left, rows, columns, is_mirrored in zip(images, *numbers, strict=True):
            part = image[top : top + rows, left : left + columns]
            # A view from right to left would be copied pixel by pixel, in seven times the time.
            seen.append(cv2.flip(part, 1).reshape(part.shape) if is_mirrored else part)
        return seen
