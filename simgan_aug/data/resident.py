"""Images of a side in the memory of a GPU, where crops are cut without the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_aug.config import Data
from simgan_aug.data.source import Source
from simgan_aug.data.windows import Windows
from simgan_aug.devices import uploaded

Array = np.ndarray[Any, Any]

PART = 8
"""A side may take one part in so many of the memory that is free before a training."""


class Resident:
    """A side on a device: images in uint8 of any sizes, and their weights."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self.device = device
        self.sizes = np.array([image.shape[:2] for image in source.images])
        """(N, 2) height and width."""
        self._images = _Plane(source.images, source.channels, self.sizes, device)
        self._weights = None
        if source.weights is not None:
            self._weights = _Plane(source.weights, 1, self.sizes, device)

    @classmethod
    def of(cls, source: Source, config: Data, device: torch.device) -> Resident | None:
        """A side on a GPU; None where crops are to be cut on the processor.

        That is: it is no GPU, or too full; the side is not held in memory, or not in uint8; some
        crops would have to be resized; or they are to be compared with each other (`alike`), which
        rounds otherwise on a GPU.
        """
        if device.type != "cuda" or not source.is_held:
            return None
        if config.scale != (1, 1) or config.alike > 1 or source.is_smaller(config.crop).any():
            return None
        if any(image.dtype != np.uint8 for image in source.images):
            return None
        planes = [source.images, *([] if source.weights is None else [source.weights])]
        taken = sum(array.nbytes for plane in planes for array in plane)
        free, _ = torch.cuda.mem_get_info(device)
        return cls(source, device) if taken * PART <= free else None

    def images(self, indices: Array, windows: Windows) -> Tensor:
        """Windows of one size of these images, (B, h, w, C) uint8."""
        return self._images.cut(indices, windows)

    def weights(self, indices: Array, windows: Windows) -> Tensor | None:
        """The same of their weights, (B, h, w, 1) float32; None: there are none."""
        return None if self._weights is None else self._weights.cut(indices, windows).float()


class _Plane:
    """Arrays of all images, one after the other."""

    def __init__(
        self, arrays: Sequence[Array], channels: int, sizes: Array, device: torch.device
    ) -> None:
        ends = sizes.prod(1).cumsum()
        self._starts, self._widths = ends - sizes.prod(1), sizes[:, 1]
        dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        self._pixels = torch.empty(int(ends[-1]), channels, dtype=dtype, device=device)
        for start, end, array in zip(self._starts.tolist(), ends.tolist(), arrays, strict=True):
            # torch warns of what it could not write to
            pixels = np.require(array.reshape(-1, channels), requirements=["C", "W"])
            self._pixels[start:end] = torch.from_numpy(pixels)

    def cut(self, indices: Array, windows: Windows) -> Tensor:
        """(B, h, w, C), in the dtype of the arrays."""
        width, mirrored = self._widths[indices], windows.is_mirrored
        corner = windows.top * width + windows.left + mirrored * (windows.columns - 1)
        steps = np.stack([self._starts[indices] + corner, width, np.where(mirrored, -1, 1)])
        device = self._pixels.device
        first, down, across = uploaded(torch.from_numpy(steps), device)[:, :, None, None]
        sides = int(windows.rows[0]), int(windows.columns[0])
        row, column = (torch.arange(side, device=device) for side in sides)
        return self._pixels[first + row[:, None] * down + column * across]
