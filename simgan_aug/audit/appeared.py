"""Structure outside of all labels that was not there before, and looks like an object."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from simgan_aug.audit.pair import Pair, gradient

Array = np.ndarray[Any, Any]

POOL = 4.0
"""Px (sigma) over which new structure is gathered."""

LEAST_SIDE = 10
"""Px of a side of what can be an object."""


class Appeared(NamedTuple):
    """Where something has appeared."""

    bbox: tuple[int, int, int, int]
    """x, y, width, height in px."""
    score: float
    """How strong its edges are; 1 is as strong as the image's own strong ones."""


def appeared(pair: Pair, labels: Array, limit: float) -> list[Appeared]:
    """Places outside of the labels with more new structure than `limit`, the strongest first.

    Args:
        pair: the image.
        labels: (H, W) bool, where labels lie, which have measures of their own.
        limit: of the score.
    """
    score = novelty(pair)
    score[labels] = 0
    strong = (score > limit).astype(np.uint8)
    count, places, boxes, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    found = []
    for number in range(1, count):
        x, y, width, height = (int(value) for value in boxes[number, :4])
        if min(width, height) >= LEAST_SIDE:
            inside = places[y : y + height, x : x + width] == number
            peak = float(score[y : y + height, x : x + width][inside].max())
            found.append(Appeared((x, y, width, height), round(peak, 3)))
    return sorted(found, key=lambda place: -place.score)


def novelty(pair: Pair) -> Array:
    """(H, W) float32: edges that the image's tone curve does not make of those before.

    In units of the image's own strong edges, and beyond what is usual in it: grain, blur and JPEG
    add as much everywhere.
    """
    expected, old, new = (gradient(g) for g in (pair.expected, pair.old.grey, pair.new.grey))
    change = np.minimum(((new - expected) ** 2).sum(0), ((new - old) ** 2).sum(0))
    fresh = cv2.GaussianBlur(change, (0, 0), POOL)
    own = cv2.GaussianBlur((expected**2).sum(0), (0, 0), POOL)
    strong = float(np.percentile(own[::2, ::2], 95))
    usual = float(np.percentile(fresh[::2, ::2], 75))
    score: Array = np.sqrt(np.maximum(fresh - 2 * usual - own, 0) / (strong + 16.0))
    return score
