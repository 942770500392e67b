"""How far what a label holds reaches beyond its box since, in px.

A refiner that wants thicker strokes or longer arms may leave every edge where it was, and paint on
beyond it: nothing has moved (`simgan_aug.displacement`), but the box no longer holds all that looks
like the object. So the pixels of the object are told from those around it by their colour, before
and after; a strip along a side of the box, most of which looked like what is around and now looks
like the object, is what has grown.

Colour tells an object from a plain backdrop for sure, and from a photo of a street often enough for
a share of many labels, not for each of them (`examples/study/STUDY.md`): it can be told of half of
COCO's labels, 20% of these look as if they had grown after FDA, 7% after a match of histograms, 0
to 3% after any other change of light; of those that have, by 8 px, 40%.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from simgan_aug.errors import ImageError

Array = np.ndarray[Any, Any]

SMOOTHING = 1.5
"""Px (sigma) under which grain and JPEG blocks are no colour."""

BLURRED = 2
"""Px beyond a side that are of both, the object and what is around."""

LEAST_SIDE = 8
"""Px of a box."""

LEAST_OBJECT, LEAST_AROUND = 40, 100
"""Pixels from which a colour is known."""

BINS = 24
"""Of a histogram."""

FLOOR = 0.02
"""Of a histogram, shared by all bins: no colour is out of the question."""

SURE = 0.6
"""Likelihood, of those of the object and around it together, from which a pixel is the object's."""

TOLD, MISTAKEN = 0.8, 0.3
"""Shares of the object's pixels, at least, and of those around, at most, that look like the
object; else nothing can be told, before or after."""

MOST_OF_IT = 0.25
"""Share of a row along a side that looks like the object, beyond what does so all around."""

GROWN = 4.0
"""Px from which a label has grown: shadows and blur are less."""

MOST_GROWN, LEAST_GROWN = 0.2, 5
"""Share of labels that may have grown, and the number of them from which a share is told. Of hands
0 to 3% have where trainings went well, 10 to 13% where rims of flesh were painted, or where a
histogram was matched to another photo; of digits with strokes painted on, 99%."""


class Grown(NamedTuple):
    """Labels that have grown, and of how many that can be told."""

    number: int
    told: int

    @property
    def share(self) -> float:
        """Of those that can be told."""
        return self.number / max(1, self.told)

    @property
    def is_much(self) -> bool:
        """Whether they are more than light, shadows and chance make of labels that have not."""
        return self.number >= LEAST_GROWN and self.share > MOST_GROWN

    def __str__(self) -> str:
        """Such as "12 of 40"."""
        return f"{self.number} of {self.told}"


def grown(
    before: Iterable[Array], after: Iterable[Array], boxes: Iterable[Sequence[Sequence[float]]]
) -> Grown:
    """How many labels look to reach beyond their boxes since, by `GROWN` px or more.

    Args:
        before, after: images as `growth` takes them.
        boxes: of all labels of each image.
    """
    told = []
    for old, new, some in zip(before, after, boxes, strict=True):
        told += [px for px in growths(old, new, some) if px is not None]
    return Grown(sum(px >= GROWN for px in told), len(told))


def growth(
    old: Array, new: Array, box: Sequence[float], taken: Array | None = None
) -> float | None:
    """Px that what is under a box looks to reach beyond it since, on the side where it is most.

    Args:
        old, new: (H, W, C) before and after; uint8, or floats in [0, 1].
        box: x, y, width, height in px.
        taken: (H, W) bool, where other labels lie, which are nobody's surroundings.

    Returns:
        0 for what has not grown. None: it cannot be told, since the object has not colours of its
        own, before or after; or since box or surroundings are too small.

    Raises:
        ImageError: the images differ in shape, or are no (H, W, C).
    """
    if old.ndim != 3 or old.shape != new.shape:
        raise ImageError(
            f"expected two (H, W, C) images of one shape, got {old.shape} and {new.shape}"
        )
    left, top, right, bottom = _corners(box, old.shape[:2])
    if min(right - left, bottom - top) < LEAST_SIDE:
        return None
    span = max(right - left, bottom - top)  # as far around as it is large
    x, y = max(0, left - span), max(0, top - span)
    part = np.s_[y : bottom + span, x : right + span]
    before, after = (_levels(each[part]) for each in (old, new))
    inside, around = np.zeros(before.shape[:2], bool), np.ones(before.shape[:2], bool)
    left, top, right, bottom = left - x, top - y, right - x, bottom - y
    inside[top:bottom, left:right] = True
    near = np.s_[max(0, top - BLURRED) : bottom + BLURRED, max(0, left - BLURRED) : right + BLURRED]
    around[near] = False
    if taken is not None:
        around &= ~taken[part]
    taken_on = _taken_on(before, after, inside, around)
    if taken_on is None:
        return None
    least = MOST_OF_IT + float(taken_on[around].mean())  # waves all over are nobody's growth
    strips = (
        taken_on[:top, left:right][::-1],
        taken_on[bottom:, left:right],
        taken_on[top:bottom, :left].T[::-1],
        taken_on[top:bottom, right:].T,
    )
    rows = max(_run(strip[BLURRED:].mean(1) > least) for strip in strips)
    return float(rows + BLURRED) if rows else 0.0


def growths(old: Array, new: Array, boxes: Sequence[Sequence[float]]) -> Iterator[float | None]:
    """`growth` of each of the boxes of an image; what is under another one does not count."""
    owners = np.zeros(old.shape[:2], np.uint16)
    windows = [_corners(box, old.shape[:2]) for box in boxes]
    for left, top, right, bottom in windows:
        owners[top:bottom, left:right] += 1
    for box, (left, top, right, bottom) in zip(boxes, windows, strict=True):
        others = owners > 0
        others[top:bottom, left:right] = owners[top:bottom, left:right] > 1
        yield growth(old, new, box, others)


def _levels(image: Array) -> Array:
    """(H, W, C) float32 in [0, 255] without grain."""
    scale = np.float32(255 if image.dtype.kind == "f" else 1)
    return np.atleast_3d(cv2.GaussianBlur(image.astype(np.float32) * scale, (0, 0), SMOOTHING))


def _taken_on(before: Array, after: Array, inside: Array, around: Array) -> Array | None:
    """(H, W) bool: what looked like the surroundings and now looks like the object."""
    if around.sum() < LEAST_AROUND or inside.sum() < LEAST_OBJECT:
        return None
    first = _likeness(before, inside, around)
    if (first[around] > 0.5).mean() > MISTAKEN:
        return None
    thing, rest = inside & (first > SURE), around & (first < 0.5)  # a box holds backdrop, too
    if thing.sum() < LEAST_OBJECT or rest.sum() < LEAST_AROUND:
        return None
    was, is_now = _likeness(before, thing, rest), _likeness(after, thing, rest)
    for seen in (was, is_now):
        if (seen[thing] > 0.5).mean() < TOLD or (seen[rest] > 0.5).mean() > MISTAKEN:
            return None
    found: Array = (is_now > SURE) & (was < 1 - SURE) & around
    return found


def _likeness(colour: Array, inside: Array, around: Array) -> Array:
    """(H, W) in [0, 1]: how much more likely a pixel is one of those inside than one around.

    By histograms along the direction of colours that tells them apart best (Fisher).
    """
    some, others = colour[inside].astype(np.float64), colour[around].astype(np.float64)
    spread = sum(np.atleast_2d(np.cov(each.T)) for each in (some, others))
    spread = spread + 4 * np.eye(colour.shape[2])  # levels squared, of rounding
    direction = np.linalg.solve(spread, some.mean(0) - others.mean(0))
    values = colour @ (direction / (np.linalg.norm(direction) + 1e-12)).astype(np.float32)
    edges = np.linspace(values.min(), values.max() + 1e-3, BINS + 1)
    place = np.clip(np.searchsorted(edges, values, "right") - 1, 0, BINS - 1)
    mine, theirs = (_histogram(place[which]) for which in (inside, around))
    likeness: Array = (mine / (mine + theirs))[place]
    return likeness


def _histogram(places: Array) -> Array:
    counts = np.bincount(places, minlength=BINS) / len(places)
    smooth = np.convolve(np.pad(counts, 2, "edge"), np.array([1, 2, 3, 2, 1]) / 9, "valid")
    return smooth + FLOOR / BINS


def _run(rows: Array) -> int:
    """How many at the beginning are true."""
    return int(np.argmin(np.append(rows, False)))


def _corners(box: Sequence[float], size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole px inside an image of a size (height, width)."""
    x, y, width, height = box
    left, right = (min(size[1], max(0, round(at))) for at in (x, x + width))
    top, bottom = (min(size[0], max(0, round(at))) for at in (y, y + height))
    return left, top, right, bottom
