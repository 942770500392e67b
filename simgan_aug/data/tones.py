"""The bank of a run: tones of some of its photos, and how its synthetic images share them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from simgan_aug import tone
from simgan_aug.bank import SIDE, Bank, reach
from simgan_aug.config import Tone
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
    photos = _some(real, config.photos, seed, white)
    tones = torch.cat([tone.tones_of(photo.colour()) for photo in photos])
    if config.choice == "any":
        return Bank(tones)
    images = _some(synthetic, RENDERS, seed, white)
    renders = torch.cat([tone.tones_of(image.thinned(SIDE).colour()) for image in images])
    return Bank(tones, reach=reach(renders, tones)).balanced(renders)


def _some(source: Source, count: int, seed: int, white: int) -> Iterator[Pixels]:
    """Some images of a source."""
    chosen = source.some(count, np.random.default_rng([seed, 1]))
    return (Pixels(source.images[index], source.channels, white=white) for index in chosen)
