"""Images of a side in the memory of a GPU, where crops are cut without the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_aug.data.source import Source
from simgan_aug.data.windows import Windows
from simgan_aug.devices import uploaded

Array = np.ndarray[Any, Any]

PART = 4
"""A side may take one part in so many of the memory that is free."""


class Resident:
    """A side on a device, whatever the sizes of its images; what is cut is what a CPU would cut.

    Args:
        source: of images in uint8.
        device: where they are to be.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self.device = device
        self.sizes = np.array([image.shape[:2] for image in source.images])
        """(N, 2) height and width."""
        self._images = _Plane(source.images, source.channels, self.sizes, device)
        self._weights = None
        if source.weights is not None:
            self._weights = _Plane(source.weights, 1, self.sizes, device)

    @classmethod
    def of(cls, source: Source, device: torch.device) -> Resident | None:
        """A side on a GPU; None: it is no GPU, or the side is larger than `PART` says, or is not
        held in memory, or not in uint8."""
        if device.type != "cuda" or not source.is_held:
            return None
        if any(image.dtype != np.uint8 for image in source.images):
            return None
        planes = [source.images, *([] if source.weights is None else [source.weights])]
        taken = sum(array.nbytes for plane in planes for array in plane)
        free, _ = torch.cuda.mem_get_info(device)
        return cls(source, device) if taken * PART <= free else None

    def images(self, indices: Array, windows: Windows) -> Tensor:
        """Windows of one size of these images, (B, C, h, w) uint8 in channels_last memory."""
        return self._images.cut(indices, windows)

    def weights(self, indices: Array, windows: Windows) -> Tensor | None:
        """The same of their weights, (B, 1, h, w) float32; None: there are none."""
        return None if self._weights is None else self._weights.cut(indices, windows).float()


class _Plane:
    """Arrays of all images, one after the other."""

    def __init__(
        self, arrays: Sequence[Array], channels: int, sizes: Array, device: torch.device
    ) -> None:
        counts = sizes.prod(1) * channels
        ends = np.cumsum(counts)
        self._starts, self._widths, self._channels = ends - counts, sizes[:, 1], channels
        dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        self._values = torch.empty(int(ends[-1]), dtype=dtype, device=device)
        for start, end, array in zip(self._starts.tolist(), ends.tolist(), arrays, strict=True):
            flat = np.require(array, requirements=["C", "W"]).reshape(-1)  # torch writes, it fears
            self._values[start:end] = torch.from_numpy(flat)

    def cut(self, indices: Array, windows: Windows) -> Tensor:
        """(B, C, h, w), in the dtype of the arrays."""
        width, channels = self._widths[indices], self._channels
        mirrored = windows.is_mirrored
        first = windows.top * width + windows.left + mirrored * (windows.columns - 1)
        steps = [
            self._starts[indices] + first * channels,  # of the crop's first pixel
            width * channels,  # from row to row
            np.where(mirrored, -channels, channels),  # from column to column
        ]
        device = self._values.device
        placed = uploaded(torch.from_numpy(np.stack(steps)), device)[:, :, None, None, None]
        sides = int(windows.rows[0]), int(windows.columns[0]), channels
        row, column, channel = (torch.arange(side, device=device) for side in sides)
        places = placed[0] + row[:, None, None] * placed[1] + column[:, None] * placed[2] + channel
        return self._values[places].movedim(-1, 1)
