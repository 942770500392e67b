"""Images that belong together: near-duplicates, such as video frames or forms of one image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from simgan_aug.pixels import Pixels

Array = np.ndarray[Any, Any]

SIDE = 24
"""Px of a thumbnail's side."""

LIKENESS = 0.98
"""Correlation of two thumbnails from which their images belong together."""

_ROWS = 256
"""Images held against all earlier ones at a time."""


def thumbnail(image: Array) -> Array:
    """A small grey image, (576,) float32, without its level and contrast; of a flat image, zeros.

    Light, colour, noise and compression hardly change it, a shift by a few percent of the width
    does.

    Args:
        image: (H, W) or (H, W, C), of the kinds `Pixels` takes.
    """
    grey = Pixels(image, 3).colour()[0].mean(0).numpy()
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    # Below a quarter of a level it is rounding, not structure.
    structure: Array = small / length if length > SIDE / 1000 else 0 * small
    return structure.astype(np.float32)


def near_duplicates(thumbnails: Array, likeness: float = LIKENESS) -> Array:
    """A group for each image, (N,): those alike, and those alike to one of them, and so on.

    Args:
        thumbnails: (N, 576), from `thumbnail`.
        likeness: correlation from which two belong together.
    """
    labels = np.arange(len(thumbnails))
    for top in range(0, len(thumbnails), _ROWS):
        block = thumbnails[top : top + _ROWS] @ thumbnails[: top + _ROWS].T >= likeness
        for row, alike in enumerate(block, start=top):
            _merge(labels, np.append(np.flatnonzero(alike[:row]), row))
    return labels


def joined(labels: Array, pairs: Iterable[tuple[int, int]]) -> Array:
    """The groups after some images, told by their places, have been found to belong together."""
    labels = labels.copy()
    for pair in pairs:
        _merge(labels, np.array(pair))
    return labels


def _merge(labels: Array, places: Array) -> None:
    """One group of all the groups that some images are in; numbers stay those of a first image."""
    found = np.unique(labels[places])
    if len(found) > 1:
        labels[np.isin(labels, found[1:])] = found[0]
