"""The history of refined images (paper, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from simgan_aug.errors import ConfigError


class HistoryBuffer:
    """Refined images of earlier steps, so that the discriminator does not forget them.

    Of a discriminator batch of b refined images, b/2 come from the current refiner and b/2 from the
    buffer; after the step b/2 random entries are replaced by newly refined images. Until the buffer
    is full, new images are added instead of replacing old ones.

    Args:
        capacity: images held (B in the paper); 0 turns the history off.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ConfigError(f"a history holds 0 images or more, got {capacity}")
        self.capacity = capacity
        self.images: Tensor | None = None
        """(capacity, C, H, W) in channels_last memory, allocated at the first batch."""
        self.size = 0

    def mix(self, refined: Tensor, generator: torch.Generator) -> Tensor:
        """The discriminator's refined half-and-half batch; the buffer turns over by b/2.

        Args:
            refined: (B, C, H, W) from the current refiner, without gradient.
            generator: draws which entries are used and which are replaced; on the CPU.
        """
        half = len(refined) // 2
        if self.size < half or half == 0:
            self._add(refined[half:], generator)
            return refined
        chosen = torch.randperm(self.size, generator=generator)[:half]
        chosen = chosen.to(refined.device, non_blocking=True)
        mixed = torch.cat([refined[: len(refined) - half], self._held()[chosen]])
        self._add(refined[len(refined) - half :], generator)
        return mixed

    def restore(self, images: Tensor | None, size: int) -> None:
        """Hold what another held: its images, of which so many are filled."""
        self.images, self.size = None if images is None else _laid_out(images.clone()), size

    def _held(self) -> Tensor:
        assert self.images is not None
        return self.images[: self.size]

    def _add(self, fresh: Tensor, generator: torch.Generator) -> None:
        if not self.capacity:
            return
        if self.images is None:
            self.images = _laid_out(fresh.new_zeros((self.capacity, *fresh.shape[1:])))
        room = min(self.capacity - self.size, len(fresh))
        self.images[self.size : self.size + room] = fresh[:room]
        self.size += room
        rest = fresh[room:][: self.size]
        replaced = torch.randperm(self.size, generator=generator)[: len(rest)]
        self.images[replaced.to(fresh.device, non_blocking=True)] = rest


def _laid_out(images: Tensor) -> Tensor:
    """As convolutions want them, whatever a file has made of it: a resumed run computes alike."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
