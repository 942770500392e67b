"""The bank of a run: tones of some of its photos, and how its synthetic images share them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from simgan_aug import tone
from simgan_aug.bank import COLOURS, SIDE, Bank, reach
from simgan_aug.config import Tone
from simgan_aug.data.decoded import ahead
from simgan_aug.data.source import Source
from simgan_aug.pixels import Pixels

RENDERS = 256
"""Synthetic images by which it is told how often each photo is taken, and how far a match goes."""


def tone_bank(
    real: Source, synthetic: Source, config: Tone, seed: int, white: int = 0
) -> Bank | None:
    """Tones of real photos drawn by seed, all if there are fewer than are asked for.

    Args:
        real: whose photos they are.
        synthetic: the images that are to take them.
        config: how many, and which of them an image takes; 0 photos: there is no bank.
        seed: of the photos, and of the synthetic images that are looked at.
        white: that of `Data`.
    """
    if not config.photos:
        return None

    def tones(side: Source, count: int, looked: Callable[[Pixels], Pixels]) -> Tensor:
        """(K, C, Q), of some images of a side, of which few are held at once."""
        channels = side.channels

        def of_one(index: int) -> Tensor:
            image = looked(Pixels(side.images[index], channels, white=white))
            return tone.tones_of(image.colour()[:, :COLOURS])

        chosen = side.some(count, np.random.default_rng([seed, 1]))
        return torch.cat(list(ahead(of_one, chosen, 2)))

    known = tones(real, config.photos, lambda photo: photo)
    if config.choice == "any":
        return Bank(known)
    renders = tones(synthetic, RENDERS, lambda image: image.thinned(SIDE))
    return Bank(known, reach=reach(renders, known)).balanced(renders)
