"""What training takes at a time from either side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from simgan_aug.devices import uploaded


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of either side with what belongs to them."""

    images: Tensor
    """(B, C, H, W) in [-1, 1]."""
    weights: Tensor | None = None
    """(B, 1, H, W), how much a pixel's change counts; None: 1 everywhere."""
    reference: Tensor | None = None
    """(B, C, Q) in [-1, 1]: of a synthetic image the tone it is to take, of a real one its own."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device, images in channels_last memory."""
        weights, reference = (
            None if t is None else uploaded(t, device) for t in (self.weights, self.reference)
        )
        images = uploaded(self.images, device).contiguous(memory_format=torch.channels_last)
        return Batch(images=images, weights=weights, reference=reference)

    def rows(self, start: int, stop: int) -> Batch:
        """Some of its images, one after the other."""
        return self.picked(slice(start, stop))

    def picked(self, rows: slice | Tensor) -> Batch:
        """The images of these rows; of indices in their order."""
        weights, reference = (
            None if t is None else t[rows] for t in (self.weights, self.reference)
        )
        return Batch(images=self.images[rows], weights=weights, reference=reference)
