"""Numbers that tell a training that has gone wrong, from images before and after refining.

Each is a pure function; None says that it cannot be told. Images are lists of (H, W, C) float32 in
[0, 1] and of any sizes, those after refining as they were before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from simgan_aug.displacement import REACH, locate, structure
from simgan_aug.realism import features
from simgan_aug.realism.scale import scale_of

Array = np.ndarray[Any, Any]
Box = Sequence[float]
"""x, y, width, height in px, as in COCO."""

MARGIN = 4
"""Px at an image's border that do not count: there the padding of convolutions shows."""

DETAIL = 3.0
"""Px (sigma): what is coarser is light, what is finer is texture."""

CELL = 32
"""Px: side of the cells that stand for labels where there are none."""

GRID = 8
"""Cells each way, of whose means an image's layout consists; and px of a cell of `agreement`."""

PERIOD = 4
"""Px after which a checkerboard repeats, or after half as many."""

PROMINENT = 6.0
"""Times the power around it at which a frequency stands out. Changes that know no lattice (tone,
cast, noise, blur, JPEG, another photo's histogram) of 18 handfuls of hands and of COCO photos reach
3.3; stripes of 4 grey levels under noise of 12 reach 12."""

LEAST_WINDOWS = 12
"""Windows of `CELL` px, each channel counted, without which a spectrum is too rough."""

BOXES, CELLS = 95, 75
"""Percentile of the moves that counts: a cell may lie where there is little to go by, so that of
cells a quarter must have moved."""

LEAST_MOVES = 4
"""Labels that can be measured, without which nothing is said of drift."""

CONTRAST = 2 / 255
"""Deviation within a cell below which it is flat."""

LEAST_IMAGES, LEAST_SIDE = 32, 16
"""Images of either side, and px each way of one, without which nothing is said of likeness."""

FURTHEST = 3.0
"""Deviations."""


def mean_change(before: Sequence[Array], after: Sequence[Array]) -> float:
    """Mean absolute change, in grey levels of 255."""
    changes = [np.abs(new - old).mean() for old, new in zip(before, after, strict=True)]
    return 255 * float(np.mean(changes))


def separation(refined: Array, real: Array) -> float:
    """How well logits tell refined patches from real ones: the share of pairs in order.

    The area under the ROC curve: 0.5 for a guess, 1 for no mistake; whatever the loss makes of
    logits, it does not change their order.

    Args:
        refined, real: logits of "refined", of any shapes.
    """
    ascending = np.sort(real, axis=None)
    below = np.searchsorted(ascending, refined.ravel(), "left")
    equal = np.searchsorted(ascending, refined.ravel(), "right") - below
    return float((below + equal / 2).mean() / ascending.size)


def likeness(before: Sequence[Array], after: Sequence[Array]) -> float | None:
    """How alike the change of one image is to that of another: mean correlation of its texture.

    0 for noise and for changes that follow the image; 1 for one pattern added to all. None: fewer
    than two images that are large enough.
    """
    parts = [
        _texture(new - old)
        for old, new in zip(before, after, strict=True)
        if min(old.shape[:2]) >= 2 * MARGIN + PERIOD
    ]
    if len(parts) < 2:
        return None
    height, width = (min(part.shape[axis] for part in parts) for axis in (0, 1))
    rows = np.stack([part[:height, :width].ravel() for part in parts])  # (N, h w C)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1)
    rows = rows[length > 0] / length[length > 0, None]
    if len(rows) < 2:
        return None
    return float(np.median((rows @ rows.T)[np.triu_indices(len(rows), 1)]))


def variety(images: Sequence[Array]) -> float:
    """How much images differ from each other in layout, whatever their grain: a variance."""
    layouts = [cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA) for image in images]
    return float(np.stack(layouts).var(0).mean())


def lattice(before: Sequence[Array], after: Sequence[Array]) -> float | None:
    """Grey levels (of 255, RMS) of what in the change repeats every 2 or 4 px.

    They are counted at the frequencies of 1/4 and 1/2 per px, each way, that stand out of the
    change's spectrum by `PROMINENT`; 0 if none does. None: too few or too small images to tell.
    """
    windows = [
        window
        for old, new in zip(before, after, strict=True)
        for window in _windows((new - old)[MARGIN:-MARGIN, MARGIN:-MARGIN])
    ]
    if len(windows) < LEAST_WINDOWS:
        return None
    shape = np.outer(np.hanning(CELL + 1)[:-1], np.hanning(CELL + 1)[:-1])
    power = (np.abs(np.fft.fft2(np.stack(windows) * shape)) ** 2).mean(0) / shape.sum() ** 2
    steps = range(0, CELL, CELL // PERIOD)
    places = [place for place in itertools.product(steps, steps) if any(place)]
    found = sum(power[p] for p in places if power[p] > PROMINENT * _around(power, p))
    return 255 * math.sqrt(found)


def agreement(before: Sequence[Array], after: Sequence[Array]) -> float | None:
    """Correlation of what was light with what is light: of luminance or a channel, the least.

    1 for the same or any rising tone curve, -1 for a negative. It is taken within cells of `GRID`
    px, and of all cells the median: a backdrop that turns from dark to light inverts nothing, but
    in cells that show what stands before it.
    """
    pairs = [
        [
            (old[..., :3].mean(2), new[..., :3].mean(2)),
            *zip(_channels(old), _channels(new), strict=True),
        ]
        for old, new in zip(before, after, strict=True)
    ]
    found = [
        np.concatenate([_correlations(*p) for p in parts]) for parts in zip(*pairs, strict=True)
    ]
    return min((float(np.median(part)) for part in found if part.size), default=None)


def moves(
    before: Sequence[Array], after: Sequence[Array], boxes: Sequence[Sequence[Box]]
) -> list[float]:
    """Px by which what lies under each box has moved; what is not found again by `REACH`.

    Args:
        before, after: see above.
        boxes: of each image. Those without enough structure to tell are left out.
    """
    found = []
    for old, new, own in zip(before, after, boxes, strict=True):
        fields = structure(old), structure(new)
        for box in own:
            place = locate(*fields, box)
            if place is not None:
                found.append(place.distance if place.is_found else float(REACH))
    return found


def drift(
    before: Sequence[Array], after: Sequence[Array], boxes: Sequence[Sequence[Box]]
) -> float | None:
    """Px that the picture under 1 of 20 boxes has moved by or more; without boxes, a quarter of all
    cells; None: too few can be told."""
    percentile = BOXES
    if not any(boxes):
        boxes = [cells(*image.shape[:2]) for image in before]
        percentile = CELLS
    found = moves(before, after, boxes)
    if len(found) < LEAST_MOVES:
        return None
    # "lower": of few labels the furthest may be a mistake of the measure
    return float(np.percentile(found, percentile, method="lower"))


def unlikeness(after: Sequence[Array], real: Sequence[Array]) -> float | None:
    """How far the mean features of refined images are from those of photos, squared.

    Of random filters (`simgan_aug.realism`), in deviations of the photos' and no further from their
    mean than `FURTHEST` each; the mean of all. Unbiased: 0 for other such photos, on average. (The
    cubic kernel of KID would make it a matter of one or two odd images.) None: fewer than
    `LEAST_IMAGES` of either that are `LEAST_SIDE` px or more each way.
    """
    sides = [[each for each in side if min(each.shape[:2]) >= LEAST_SIDE] for side in (after, real)]
    if min(map(len, sides)) < LEAST_IMAGES:
        return None
    found = [features(side, after[0].shape[2]) for side in sides]
    mean, spread = scale_of(found[1])
    first, second = (((each - mean) / spread).clamp(-FURTHEST, FURTHEST) for each in found)
    apart = (first.mean(0) - second.mean(0)).square()
    chance = first.var(0) / len(first) + second.var(0) / len(second)
    return float((apart - chance).mean())


def cells(height: int, width: int) -> list[Box]:
    """Boxes of `CELL` px that cover an image, to stand for labels where there are none."""
    rows, columns = range(0, height - CELL + 1, CELL), range(0, width - CELL + 1, CELL)
    return [(left, top, CELL, CELL) for top, left in itertools.product(rows, columns)]


def _channels(image: Array) -> list[Array]:
    return list(np.moveaxis(image, 2, 0))


def _texture(change: Array) -> Array:
    """What is neither coarse nor a checkerboard of a change, (H, W, C), without its border.

    The mean of `PERIOD` px each way has nothing left of what `lattice` tells.
    """
    parts = cv2.blur(change, (PERIOD, PERIOD)), cv2.GaussianBlur(change, (0, 0), DETAIL)
    fine: Array = (parts[0] - parts[1]).reshape(change.shape)
    return fine[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _windows(change: Array) -> Iterator[Array]:
    """Square windows of `CELL` px of each channel, less their mean."""
    rows, columns = (range(0, side - CELL + 1, CELL) for side in change.shape[:2])
    for top, left in itertools.product(rows, columns):
        for part in _channels(change[top : top + CELL, left : left + CELL]):
            yield part - part.mean()


def _around(power: Array, place: tuple[int, int]) -> float:
    """The usual power 3 to 5 steps from a frequency: a window smears each over one step.

    All around, or in its row or column if there is more: long edges fill one of these.
    """
    offsets = [
        each for each in itertools.product(range(-5, 6), repeat=2) if max(map(abs, each)) > 2
    ]
    rings = (offsets, [(y, x) for y, x in offsets if not y], [(y, x) for y, x in offsets if not x])
    found = [
        np.median([power[(place[0] + y) % CELL, (place[1] + x) % CELL] for y, x in ring])
        for ring in rings
    ]
    return float(max(found))


def _correlations(old: Array, new: Array) -> Array:
    """Correlation within each cell that has any contrast before and after, (N,)."""
    first, second = _deviations(old), _deviations(new)  # (cells, GRID^2)
    spread = first.std(1), second.std(1)
    told = (spread[0] > CONTRAST) & (spread[1] > CONTRAST)
    products = (first * second).mean(1)
    found: Array = products[told] / (spread[0] * spread[1])[told]
    return found


def _deviations(image: Array) -> Array:
    """What lies in each cell of GRID px, less its mean: (H, W) -> (cells, GRID^2)."""
    rows, columns = (side // GRID for side in image.shape)
    cells = image[: rows * GRID, : columns * GRID].reshape(rows, GRID, columns, GRID)
    flat = cells.swapaxes(1, 2).reshape(-1, GRID * GRID)
    centred: Array = flat - flat.mean(1, keepdims=True)
    return centred
