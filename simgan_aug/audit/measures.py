"""What is measured of one label: each a number, or None where it cannot be told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from simgan_aug.audit.pair import Pair, apply_curve, curve, gradient
from simgan_aug.displacement import displacement

Array = np.ndarray[Any, Any]
Box = Sequence[float]

PART = 28.0
"""Px of a side of the parts of a label that are located one by one."""

MOST_PARTS = 5
"""Parts of a label across, and down; of a larger label they are larger."""

SURE = 0.6
"""Match that a part, of which there are many, must have to be believed."""

BAND = 2
"""Px on either side of a mask's outline in which its edge may lie."""

LEAST_OUTLINE = 24
"""Px of an outline that tell anything."""

WINDOW = 3.0
"""Px (sigma) of the windows in which content is compared."""

LEAST_KEPT = 0.25
"""Share of its contrast that a tone curve leaves at least."""

FLAT = 2.0
"""Variance, in levels squared, under which there is no content to compare."""


def local(pair: Pair, box: Box, mask: Array | None) -> float | None:
    """Px that a quarter of the parts of a label have moved: a warp or a scaling moves them apart.

    Args:
        pair: the image.
        box: x, y, width, height in px.
        mask: (H, W) bool; parts that hardly touch it are not looked at.
    """
    found = []
    for part in _parts(box):
        if mask is not None and _share(mask[window(part, pair.size)]) < 0.3:
            continue
        moved = displacement(*pair.structures, part)
        if moved is not None and moved.match >= SURE:
            found.append(moved.distance)
    return sorted(found, reverse=True)[len(found) // 4] if found else None


def contour(pair: Pair, box: Box, mask: Array) -> float | None:
    """F1 of the edges along a mask's outline: those before against those after, a px apart at most.

    None where less than a third of the outline lay on an edge before.
    """
    at = window(box, pair.size, BAND + 2)
    inside = np.ascontiguousarray(mask[at], dtype=np.uint8)
    if not inside.any():
        return None
    length = int((inside - _shrunk(inside, 1)).sum())
    band = (_grown(inside, BAND) - _shrunk(inside, BAND)).astype(bool)
    old, new = pair.old.edges[at], pair.new.edges[at]
    before, after = old & band, new & band
    if length < LEAST_OUTLINE or before.sum() < length / 3:
        return None
    precision = (after & _near(old)).sum() / max(1, after.sum())
    recall = (before & _near(new)).sum() / before.sum()
    return float(2 * precision * recall / max(precision + recall, 1e-6))


def content(pair: Pair, box: Box, mask: Array | None) -> float | None:
    """Similarity of what is under a label with what was, after the label's best tone curve.

    The structure and contrast terms of SSIM (Wang et al. 2004), each window weighed by what is in
    it; 1 for the same, 0 for another picture.
    """
    at = window(box, pair.size)
    old, new = pair.old.grey[at], pair.new.grey[at]
    inside = np.ones(old.shape, bool) if mask is None else mask[at]
    if inside.sum() < 64:
        return None
    old = apply_curve(*curve(old[inside], new[inside]), old)
    weight = inside.astype(np.float32)
    share = _blurred(weight) + 1e-6

    def mean(values: Array) -> Array:
        return _blurred(values * weight) / share

    old_mean, new_mean = mean(old), mean(new)
    common = mean(old * new) - old_mean * new_mean
    spread = np.maximum(mean(old * old) - old_mean**2, 0)
    spread += np.maximum(mean(new * new) - new_mean**2, 0)
    return float((2 * common + FLAT)[inside].sum() / (spread + FLAT)[inside].sum())


def contrast(pair: Pair, box: Box) -> float | None:
    """What is left of the edges under a label, of what the image's tone curve would leave of them.

    A projection, so that added grain does not count. A tone curve is not believed that leaves less
    than `LEAST_KEPT`: where a label is all there is in an image, its fading looks like one. None
    where there were no edges.
    """
    at = window(box, pair.size, 2)
    if not pair.old.grey[at].size:
        return None
    looks = (pair.old.grey, pair.expected, pair.new.grey)
    old, expected, new = (gradient(grey[at]) for grey in looks)
    energy = float((old * old).sum())
    if energy < 4.0 * old[0].size:  # of two levels a px: rounding and grain
        return None
    energy = max(float((expected * expected).sum()), LEAST_KEPT**2 * energy)
    return abs(float((expected * new).sum())) / energy


def colour(pair: Pair, box: Box, mask: Array | None) -> float | None:
    """Levels that a tenth of a label is off its expected chroma, beyond what is usual there."""
    if pair.off_colour is None:
        return None
    rows, columns = window(box, pair.size)
    at = _halved(rows), _halved(columns)
    off = pair.off_colour[at]
    if mask is not None and mask[::2, ::2][at].any():
        off = off[mask[::2, ::2][at]]
    return float(max(0.0, np.percentile(off, 90) - pair.usual_off_colour)) if off.size else None


def window(box: Box, size: tuple[int, int], margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of a box inside an image of a size (height, width); maybe none."""
    return _span(box[1], box[3], size[0], margin), _span(box[0], box[2], size[1], margin)


def _span(start: float, length: float, limit: int, margin: int) -> slice:
    first, last = math.floor(start) - margin, math.ceil(start + length) + margin
    return slice(min(limit, max(0, first)), max(0, min(limit, last)))


def _halved(span: slice) -> slice:
    return slice(span.start // 2, -(-span.stop // 2))


def _parts(box: Box) -> Iterator[Box]:
    x, y, width, height = box
    across, down = (min(MOST_PARTS, max(1, round(side / PART))) for side in (width, height))
    for row in range(down):
        for column in range(across):
            yield (
                x + width * column / across,
                y + height * row / down,
                width / across,
                height / down,
            )


def _share(mask: Array) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _grown(mask: Array, by: int) -> Array:
    grown: Array = cv2.dilate(mask, np.ones((2 * by + 1, 2 * by + 1), np.uint8))
    return grown


def _shrunk(mask: Array, by: int) -> Array:
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    shrunk: Array = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return shrunk


def _near(edges: Array) -> Array:
    """Within a px of an edge."""
    return _grown(edges.astype(np.uint8), 1).astype(bool)


def _blurred(values: Array) -> Array:
    blurred: Array = cv2.GaussianBlur(values, (0, 0), WINDOW)
    return blurred
