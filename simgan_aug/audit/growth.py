"""How far what a label holds reaches beyond its box since, in px.

A refiner that wants thicker strokes or longer arms may leave every edge where it was, and paint on
beyond it: nothing has moved (`simgan_aug.displacement`), but the box no longer holds all that looks
like the object. So the pixels of the object are told from those around it by their colour, before
and after; a strip along a side of the box, most of which looked like what is around and now looks
like the object, is what has grown.

Colour tells an object from a plain backdrop for sure, and from a photo of a street often enough for
a share of many labels, not for each of them (`examples/study/STUDY.md`): it can be told of a third
of COCO's labels, 14% of these look as if they had grown after FDA, 0 to 4% after any other change
of appearance; of those that have, by 8 px, 35%.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from simgan_aug.audit.pair import Pair

Array = np.ndarray[Any, Any]

BLURRED = 2
"""Px beyond a side that are of both, the object and what is around."""

LEAST_SIDE = 8
"""Px of a box."""

LEAST_OBJECT, LEAST_AROUND = 40, 100
"""Pixels from which a colour is known."""

SAMPLE = 4096
"""Pixels by which the direction is found that tells colours apart."""

BINS = 24
"""Of a histogram."""

FLOOR = 0.02
"""Of a histogram, shared by all bins: no colour is out of the question."""

SURE = 0.6
"""Likelihood, of those of the object and around it together, from which a pixel is the object's."""

TOLD, MISTAKEN = 0.8, 0.2
"""Shares of the object's pixels, at least, and of those around, at most, that look like the
object; else nothing can be told, before or after."""

MOST_OF_IT = 0.25
"""Share of a row along a side that looks like the object, beyond what does so all around."""

GROWN = 2.0
"""Px from which a label has grown: an ellipse blurred by 6 px (sigma) reaches it too."""

MOST_GROWN, LEAST_GROWN = 0.2, 5
"""Share of labels that may have grown, and the number of them from which a share is told. Of hands
1 to 3% have where trainings went well, 10 to 13% where rims of flesh were painted, 14% where a
histogram was matched to another photo; of digits with strokes painted on, all."""

SURELY = 1.64
"""Deviations: a share is above a limit if one of 20 like it, or fewer, comes of what lies on it."""


class Grown(NamedTuple):
    """Labels that have grown, and of how many that can be told."""

    number: int
    told: int

    @classmethod
    def of(cls, every: Iterable[float | None]) -> Grown:
        """Of labels by the px that each reaches beyond its box; None: it cannot be told."""
        told = [px for px in every if px is not None]
        return cls(sum(px >= GROWN for px in told), len(told))

    @property
    def share(self) -> float:
        """Of those that can be told."""
        return self.number / max(1, self.told)

    @property
    def is_much(self) -> bool:
        """Whether more than `MOST_GROWN` have, and not by chance: the score test of a share."""
        chance = math.sqrt(MOST_GROWN * (1 - MOST_GROWN) / max(1, self.told))
        return self.number >= LEAST_GROWN and self.share > MOST_GROWN + SURELY * chance

    def __str__(self) -> str:
        """Such as "12 of 40"."""
        return f"{self.number} of {self.told}"


def grown(
    before: Iterable[Array], after: Iterable[Array], boxes: Iterable[Sequence[Sequence[float]]]
) -> Grown:
    """How many labels look to reach beyond their boxes since, by `GROWN` px or more.

    Args:
        before, after: images as `simgan_aug.audit.pair.View` takes them.
        boxes: of all labels of each image.
    """
    every: list[float | None] = []
    for old, new, some in zip(before, after, boxes, strict=True):
        every += growths(Pair.of(old, new), some)
    return Grown.of(every)


def growths(pair: Pair, boxes: Sequence[Sequence[float]]) -> Iterator[float | None]:
    """`growth` of all labels of an image, by their boxes; what is under others does not count."""
    taken = np.zeros(pair.size, bool)
    for box in boxes:
        left, top, right, bottom = _corners(box, pair.size)
        taken[top:bottom, left:right] = True
    for box in boxes:
        yield growth(pair, box, taken)


def growth(pair: Pair, box: Sequence[float], taken: Array | None = None) -> float | None:
    """Px that what is under a box looks to reach beyond it since, on the side where it is most.

    Args:
        pair: the image.
        box: x, y, width, height in px.
        taken: (H, W) bool, where labels lie, which are nobody's surroundings.

    Returns:
        0 for what has not grown. None: it cannot be told, since the object has not colours of its
        own, before or after; or since box or surroundings are too small.
    """
    left, top, right, bottom = _corners(box, pair.size)
    if min(right - left, bottom - top) < LEAST_SIDE:
        return None
    span = max(right - left, bottom - top)  # as far around as it is large
    x, y = max(0, left - span), max(0, top - span)
    part = np.s_[y : bottom + span, x : right + span]
    before, after = pair.old.smooth[part], pair.new.smooth[part]
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
    return float(rows)


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
    some, others = (_few(colour, which) for which in (inside, around))
    spread = sum(np.atleast_2d(np.cov(each.T)) for each in (some, others))
    spread = spread + 4 * np.eye(colour.shape[2])  # levels squared, of rounding
    direction = np.linalg.solve(spread, some.mean(0) - others.mean(0))
    values = colour @ (direction / (np.linalg.norm(direction) + 1e-12)).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    place = ((values - low) * (0.999 * BINS / (high - low + 1e-3))).astype(np.uint8)
    mine, theirs = (_histogram(place[which]) for which in (inside, around))
    likeness: Array = (mine / (mine + theirs))[place]
    return likeness


def _few(colour: Array, which: Array) -> Array:
    """(N, C) float64: the colours of about `SAMPLE` pixels, evenly spaced."""
    places = np.flatnonzero(which)
    every = max(1, len(places) // SAMPLE)
    few: Array = colour.reshape(-1, colour.shape[2])[places[::every]]
    return few.astype(np.float64)


def _histogram(places: Array) -> Array:
    counts = np.bincount(places, minlength=BINS) / len(places)
    smooth = np.convolve(np.pad(counts, 2, "edge"), np.array([1, 2, 3, 2, 1]) / 9, "valid")
    return (smooth + FLOOR / BINS).astype(np.float32)


def _run(rows: Array) -> int:
    """How many at the beginning are true."""
    return int(np.argmin(np.append(rows, False)))


def _corners(box: Sequence[float], size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole px inside an image of a size (height, width)."""
    x, y, width, height = box
    left, right = (min(size[1], max(0, round(at))) for at in (x, x + width))
    top, bottom = (min(size[0], max(0, round(at))) for at in (y, y + height))
    return left, top, right, bottom
