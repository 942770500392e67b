"""One side of a run, as training sees it: images by number, and which of them to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Box = Sequence[float]


def _no_boxes(indices: Sequence[int]) -> list[list[Box]]:
    return [[] for _ in indices]


@dataclass(frozen=True)
class Source:
    """The images of one side, by number."""

    images: Sequence[Array]
    """(H, W, C) each, in the dtype of their files, C alike for all; decoded when asked for."""
    names: Sequence[str]
    """Of the files, relative to their place."""
    weights: Sequence[Array] | None = None
    """(H, W) float16 each: how much the change of a pixel counts; None: 1 everywhere."""
    fingerprint: str = ""
    """Of the listing they were taken from: SHA-256 of the annotation file, or of names and (if all
    are held) sizes; of several places, of theirs and their weights."""
    shares: Sequence[tuple[int, float]] = ()
    """Of each place in order, how many images it has and how often it is drawn from; (): every
    image is as likely as any other."""
    sizes: Array | None = None
    """(K, 2) height and width in px, of all images or, if they are many, of some; None: look."""
    shorter: int | None = None
    """Median of the shorter sides, in px, of a sample if they are many; None: look."""
    boxes: Callable[[Sequence[int]], list[list[Box]]] = _no_boxes
    """Of the labels in some images, by number: x, y, width, height in px."""
    highest: int = 0
    """Level found in images of 16 bits, all or some if they are many; 0: they have 8."""
    is_held: bool = True
    """Whether all images are in memory."""

    @property
    def channels(self) -> int:
        """Colour channels of all images."""
        return int(self.images[0].shape[2])

    def known_sizes(self) -> Array:
        """`sizes`, looked for if need be."""
        if self.sizes is not None:
            return self.sizes
        return np.array([image.shape[:2] for image in self.images])

    def is_smaller(self, crop: tuple[int, int]) -> Array:
        """Which images, of those whose size is known, are enlarged to fill a crop, (K,) bool."""
        smaller: Array = np.any(self.known_sizes() < np.array(crop), axis=1)
        return smaller

    def drawn(self, numbers: Array) -> Array:
        """The numbers of images at random, (B,) int64; of each, (B, 2) from [0, 1) decide."""
        if not self.shares:
            return _whole(numbers[:, 0], len(self.images))
        counts, weights = np.array(self.shares).T
        ends = np.cumsum(weights)
        places = np.searchsorted(ends[:-1], numbers[:, 0] * ends[-1], "right")
        firsts = (np.cumsum(counts) - counts).astype(np.int64)
        within = _whole(numbers[:, 1], counts[places])
        hit: Array = firsts[places] + within
        return hit

    def some(self, count: int, rng: np.random.Generator) -> list[int]:
        """The numbers of so many different images at random, ascending; all if there are fewer."""
        total = len(self.images)
        if not self.shares or count >= total:
            return sorted(rng.permutation(total)[:count].tolist())
        odds = np.concatenate([np.full(n, weight / n) for n, weight in self.shares])
        return sorted(rng.choice(total, count, replace=False, p=odds / odds.sum()).tolist())


def _whole(numbers: Array, ends: Array | int) -> Array:
    """From [0, 1) to whole numbers below the ends."""
    whole: Array = (numbers * ends).astype(np.int64)
    return whole
