"""How an image is cut into tiles that a network can refine one by one, to the same result."""

from __future__ import annotations

import math
from typing import NamedTuple

Box = tuple[slice, slice]
"""Rows and columns."""


class Tile(NamedTuple):
    """A part of an image."""

    place: Box
    """Where its result goes."""
    inner: Box
    """Where that lies in what the network gives."""
    seen: Box
    """What of the image the network sees: its place and a halo."""


def whole(height: int, width: int) -> list[Tile]:
    """One tile, the image itself."""
    box = (slice(0, height), slice(0, width))
    return [Tile(box, box, box)]


def tiled(height: int, width: int, margin: int, budget: int, multiple: int) -> list[Tile]:
    """Tiles that cover an image, each place once, in rows from the top left.

    Args:
        height, width: px of the image.
        margin: px of halo, cut off at the border of the image.
        budget: px that a tile and its halo may have, unless the halo leaves nothing: a place is 16
            px or `multiple` at least.
        multiple: px of the grid on which tiles begin.
    """
    side = max(math.isqrt(budget) - 2 * margin, 16, multiple) // multiple * multiple
    across = [_span(left, side, margin, width) for left in range(0, width, side)]
    down = [_span(top, side, margin, height) for top in range(0, height, side)]
    return [Tile(*zip(rows, columns, strict=True)) for rows in down for columns in across]


def _span(start: int, side: int, margin: int, length: int) -> tuple[slice, slice, slice]:
    """One axis of a tile: in the result, inside the tile, and of the image with its halo."""
    stop = min(start + side, length)
    first, last = max(0, start - margin), min(length, stop + margin)
    return slice(start, stop), slice(start - first, stop - first), slice(first, last)
