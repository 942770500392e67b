"""Where a part of an image lies on the small canvas that a probe sees: scaled, not stretched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from simgan_aug.pixels import to_display

Array = np.ndarray[Any, Any]

Size = tuple[int, int]
"""Width and height in px."""

Region = tuple[int, int, int, int]
"""x, y, width and height in px."""

BAR = 128
"""Level of what of a canvas an image of another shape leaves free."""

GRAIN = 8
"""Px that the sides of a canvas are multiples of, if nobody says how large it is to be."""


class View(NamedTuple):
    """A part of an image that a probe is shown."""

    name: str
    """Of the file, relative to its folder."""
    region: Region
    whole: Size
    """Of the image in the file."""

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the image."""
        return self.region == (0, 0, *self.whole)


def fitting(sizes: Sequence[Size], area: int) -> Size:
    """A canvas of the usual shape of some images, of at most about `area` px, and no larger."""
    width, height = np.median(np.array(sizes, float), axis=0)
    scale = min(1.0, float(area / (width * height)) ** 0.5)
    sides = [max(2 * GRAIN, GRAIN * round(scale * side / GRAIN)) for side in (width, height)]
    return int(sides[0]), int(sides[1])


def frame(region: Region, size: Size) -> Region:
    """Where on a canvas a part of an image lies."""
    scale = min(size[0] / region[2], size[1] / region[3])
    width, height = (
        max(1, min(side, round(scale * length)))
        for side, length in zip(size, region[2:], strict=True)
    )
    return (size[0] - width) // 2, (size[1] - height) // 2, width, height


def put(image: Array, region: Region, size: Size) -> Array:
    """A part of an image on a canvas, (H, W, 3) uint8.

    Args:
        image: as a file has it: (H, W) or (H, W, C), uint8 or uint16.
        region: of the image.
        size: of the canvas.
    """
    x, y, width, height = region
    part = image[y : y + height, x : x + width]
    plain = part.dtype == np.uint8 and part.shape[2:] == (3,)
    shown = part if plain else to_display(part)
    left, top, wide, high = frame(region, size)
    canvas = np.full((size[1], size[0], 3), BAR, np.uint8)
    canvas[top : top + high, left : left + wide] = _scaled(shown, (wide, high))
    return canvas


def put_map(values: Array, region: Region, size: Size) -> Array:
    """A part of a map of categories on a canvas, (H, W) uint8; 0 where the canvas is free."""
    x, y, width, height = region
    left, top, wide, high = frame(region, size)
    canvas = np.zeros((size[1], size[0]), np.uint8)
    part = values[y : y + height, x : x + width]
    for value in np.unique(part[part > 0]):
        share = _scaled((part == value).astype(np.float32), (wide, high))
        canvas[top : top + high, left : left + wide][share >= 0.5] = value
    return canvas


def points_on(points: Array, region: Region, size: Size) -> Array:
    """Points of an image, (M, 2) x and y in px, on its canvas."""
    left, top, wide, high = frame(region, size)
    scale = np.array([wide / region[2], high / region[3]])
    found: Array = (points - np.array(region[:2])) * scale + np.array([left, top])
    return found


def content(canvas: Array, region: Region) -> Array:
    """What of a canvas is image, without bars; a view that can be written to."""
    left, top, wide, high = frame(region, (canvas.shape[1], canvas.shape[0]))
    inner: Array = canvas[top : top + high, left : left + wide]
    return inner


def _scaled(image: Array, size: Size) -> Array:
    if (image.shape[1], image.shape[0]) == size:
        return image
    smaller = size[0] < image.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    found: Array = cv2.resize(np.ascontiguousarray(image), size, interpolation=how)
    return found
