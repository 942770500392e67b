"""Which photo a synthetic crop meets: of a few, the one whose layout is most like its own.

A critic that is shown hands beside whatever else photos hold asks for content, and a refiner that
cannot move a label paints it beside the label. Richter et al. match crops for that
(arXiv:2105.04619, "sampling matching patches"), by the features of a network; here a thumbnail
does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.batch import Batch

SIDE = 8
"""Of the thumbnail, px."""

_FAINT = 0.1
"""Contrast of a thumbnail, of a range of 2, below which it has no layout to speak of."""


def most_alike(synthetic: Batch, real: Batch) -> Batch:
    """Of the candidates for each synthetic image, the one that is most like it.

    What is bright on one side may be dark on the other: the correlation of brightness counts
    whatever its sign.

    Args:
        synthetic: B images.
        real: N B images, the N candidates for an image one after the other.

    Returns:
        B real images.
    """
    count = len(synthetic.images)
    if len(real.images) == count:
        return real
    candidates = layouts(real.images).view(count, -1, SIDE**2)
    likeness = (candidates * layouts(synthetic.images)[:, None]).sum(2).abs()
    first = torch.arange(count, device=likeness.device) * likeness.shape[1]
    return real.picked(first + likeness.argmax(1))


def layouts(images: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> (B, SIDE * SIDE): thumbnails without colour, mean and contrast."""
    seen = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), SIDE).flatten(1)
    seen -= seen.mean(1, keepdim=True)
    return seen / (seen.square().sum(1, keepdim=True).sqrt() + _FAINT)
