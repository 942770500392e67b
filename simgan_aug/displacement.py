"""How far the picture under a label has moved, in px, whatever became of its light and colour.

What is compared is structure: the direction of edges, which no tone curve, colour cast or inversion
changes, each weighed by its strength among its neighbours, so that contrast does not count either.
The place where the old structure fits the new one best, to a fraction of a pixel, says how far it
moved. Where there is no structure, or none that fits, there is no answer, which is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from simgan_aug.errors import ImageError

Array = np.ndarray[Any, Any]

MARGIN = 4
"""Px around a box that count too: a contour lies on it."""

REACH = 12
"""Px that a displacement may have in x and in y; a larger one is not found."""

NEIGHBOURHOOD = 8.0
"""Px (sigma) of the neighbours among which an edge is strong or weak."""

LEAST_MATCH = 0.25
"""Correlation in [-1, 1] below which nothing in reach is the old picture."""

LEAST_DROP = 0.03
"""By how much the correlation with itself must fall, two px aside in every direction: along a
straight edge, or without any, it does not, and no displacement can be told."""


ALIKE = 0.02
"""Of correlation: by how little a repeating picture, moved by its period, differs from itself."""

LEAST_WEIGHT = 1e-3
"""Weight in [0, 1) of edges that are more than the rounding of a flat image."""

LEAST_ENERGY = 1e-4
"""Of a picture's energy: a place with less of it cannot be the same picture."""


class Displacement(NamedTuple):
    """Where a picture lies now, from where it lay."""

    x: float
    """Px to the right."""
    y: float
    """Px downwards."""
    match: float
    """How well it fits there: correlation of structure, 1 for the same."""

    @property
    def distance(self) -> float:
        """Px in all."""
        return math.hypot(self.x, self.y)

    @property
    def is_found(self) -> bool:
        """Whether it is the old picture that lies there, and not just what fits least badly."""
        within = max(abs(self.x), abs(self.y)) < REACH - 0.5
        return self.match >= LEAST_MATCH and within


def structure(image: Array, sigma: float = 1.0) -> Array:
    """Edge directions of an image, each weighed by its strength among its neighbours.

    Args:
        image: (H, W) or (H, W, C), of any dtype and range.
        sigma: px of the smoothing before.

    Returns:
        (2, H, W) float32, cosine and sine of twice the angle (an edge has no sign), times a weight
        in [0, 1).
    """
    smooth = np.atleast_3d(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma))
    across = np.stack([cv2.Sobel(part, cv2.CV_32F, 1, 0) for part in np.moveaxis(smooth, 2, 0)])
    down = np.stack([cv2.Sobel(part, cv2.CV_32F, 0, 1) for part in np.moveaxis(smooth, 2, 0)])
    cosine = (across * across - down * down).sum(0)  # (H, W)
    sine = 2 * (across * down).sum(0)
    energy = (across * across + down * down).sum(0)
    around = cv2.GaussianBlur(energy, (0, 0), NEIGHBOURHOOD)
    floor = 1e-6 * float(np.ptp(smooth)) ** 2 + 1e-12  # what a flat image's rounding leaves
    weight = energy / (energy + around / 2 + floor)
    length = np.maximum(np.hypot(cosine, sine), 1e-20)
    return np.stack([cosine / length * weight, sine / length * weight]).astype(np.float32)


def displacement(old: Array, new: Array, box: Sequence[float]) -> Displacement | None:
    """How far the picture under a box has moved from one image to another.

    Args:
        old, new: `structure` of the image before and after, of one size.
        box: x, y, width, height in px, as in COCO.

    Returns:
        None where it cannot be told: too little structure, or nothing in reach that fits.

    Raises:
        ImageError: the images differ in size.
    """
    best = locate(old, new, box)
    return best if best is not None and best.is_found else None


def locate(old: Array, new: Array, box: Sequence[float]) -> Displacement | None:
    """Where the picture under a box fits best, however badly: `is_found` says whether it is there.

    Args:
        old, new, box: as in `displacement`.

    Returns:
        None where there was too little structure to be found again.
    """
    if old.shape != new.shape:
        raise ImageError(f"expected two images of one size, got {old.shape[1:]}, {new.shape[1:]}")
    rows, columns = _span(box[1], box[3], old.shape[1]), _span(box[0], box[2], old.shape[2])
    template = np.ascontiguousarray(old[:, rows, columns])
    if min(template.shape[1:]) < 2 * MARGIN:
        return None
    if float((template * template).mean()) < LEAST_WEIGHT**2:
        return None
    if not _is_distinct(template, _around(old, rows, columns, 2)):
        return None
    fits = _correlation(template, _around(new, rows, columns, REACH))
    y, x = _peak(fits)
    row, column = fits[y], fits[:, x]
    return Displacement(
        x - REACH + _vertex(row, x), y - REACH + _vertex(column, y), float(fits[y, x])
    )


def _span(start: float, length: float, limit: int) -> slice:
    """A side of a box with its margin, inside the image."""
    return slice(
        max(0, math.floor(start) - MARGIN), min(limit, max(0, math.ceil(start + length) + MARGIN))
    )


def _around(field: Array, rows: slice, columns: slice, reach: int) -> Array:
    """A window of a field and `reach` px around it; nothing beyond the image."""
    wanted = [(side.start - reach, side.stop + reach) for side in (rows, columns)]
    inside = [slice(max(0, a), b) for a, b in wanted]
    beyond = [
        (max(0, -a), max(0, b - limit))
        for (a, b), limit in zip(wanted, field.shape[1:], strict=True)
    ]
    return np.pad(field[:, *inside], ((0, 0), *beyond))  # what is inside only: it may be small


def _correlation(template: Array, window: Array) -> Array:
    """How well a template fits at each place of a window, in [-1, 1]: (2R + 1, 2R + 1)."""
    products = sum(
        cv2.matchTemplate(part, mine, cv2.TM_CCORR)
        for part, mine in zip(window, template, strict=True)
    )
    height, width = template.shape[1:]
    squares = (window * window).sum(0, dtype=np.float64)
    every = cv2.boxFilter(squares, -1, (width, height), anchor=(0, 0), normalize=False)
    energy = every[: window.shape[1] - height + 1, : window.shape[2] - width + 1]
    own = float((template * template).sum())
    # Where there is next to nothing, rounding would be divided by nothing, and fit best.
    scale = own * np.maximum(energy, LEAST_ENERGY * own)
    found: Array = products / np.sqrt(np.maximum(scale, 1e-20))
    return found


def _is_distinct(template: Array, window: Array) -> bool:
    """Whether a picture looks like itself in one place only, two px around."""
    fits = _correlation(template, window)  # (5, 5)
    ring = np.concatenate([fits[0], fits[-1], fits[1:-1, 0], fits[1:-1, -1]])
    return bool(fits[2, 2] > 0.5 and fits[2, 2] - ring.max() >= LEAST_DROP)


def _peak(fits: Array) -> tuple[int, int]:
    """Where a picture fits best; of places where a repeating one fits alike, the nearest."""
    tops = (fits >= cv2.dilate(fits, np.ones((3, 3), np.uint8))) & (fits >= fits.max() - ALIKE)
    rows, columns = np.nonzero(tops)
    middle = (len(fits) - 1) / 2
    nearest = int(np.hypot(rows - middle, columns - middle).argmin())
    return int(rows[nearest]), int(columns[nearest])


def _vertex(values: Array, place: int) -> float:
    """By how much the top of the parabola through the highest value and its neighbours is off it.

    At an end there are no two neighbours, and nothing can be said.
    """
    if not 0 < place < len(values) - 1:
        return 0.0
    before, top, after = (float(value) for value in values[place - 1 : place + 2])
    bend = before - 2 * top + after
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / bend))
