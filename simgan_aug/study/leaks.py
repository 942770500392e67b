"""Which test photos have been seen before, whatever they were saved as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug.imagefile import read_image, upright
from simgan_aug.realism.groups import LIKENESS, thumbnail
from simgan_aug.study import canvas

Array = np.ndarray[Any, Any]

LOOKED_AT = 20_000
"""Photos of a folder that are looked at; of more a random part."""

SIDE = 96
"""Px that a photo is scaled to first, at most."""

_ROWS = 1024
"""Photos held against the test photos at a time."""


def pictures(folder: Path, names: Iterable[str]) -> Iterator[Array]:
    """Whole photos, small."""
    for name in names:
        pixels = upright(read_image(folder / name))
        region = (0, 0, pixels.shape[1], pixels.shape[0])
        yield canvas.content(canvas.put(pixels, region, (SIDE, SIDE)), region)


def seen(test: Iterable[Array], photos: Iterable[Array]) -> Array:
    """Which test photos are near-duplicates of one of some others, (n,) bool."""
    known = np.stack([thumbnail(photo) for photo in test])
    found, left = np.zeros(len(known), bool), map(thumbnail, photos)
    while block := list(islice(left, _ROWS)):
        found |= (known @ np.stack(block).T >= LIKENESS).any(1)
    return found
