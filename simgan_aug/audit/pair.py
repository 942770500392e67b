"""An image before and after, seen in the ways that the measures look at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from simgan_aug.displacement import structure
from simgan_aug.errors import ImageError
from simgan_aug.pixels import LUMA

Array = np.ndarray[Any, Any]

SMOOTHING = 1.5
"""Px (sigma) under which grain, blur and JPEG blocks are not taken for content."""

BINS = 48
"""Steps of a tone curve."""

LEAST_EDGE = 0.4
"""Weight in [0, 1) of an edge that counts as one."""

SAMPLE = 40_000
"""Pixels of an image from which its curve and its colour map are fitted."""


@dataclass(frozen=True)
class Pair:
    """One image before and after, of one size.

    Args:
        old, new: (H, W) or (H, W, C); uint8, uint16, or floats in [0, 1]. Alpha (a second or a
            fourth channel) is not looked at.

    Raises:
        ImageError: sizes or kinds of the images differ, or are not these.
    """

    old: Array
    new: Array

    def __post_init__(self) -> None:
        """Reject what cannot be compared."""
        for image in (self.old, self.new):
            kind = image.dtype.kind == "f" or image.dtype.name in ("uint8", "uint16")
            if image.ndim not in (2, 3) or not kind or 0 in image.shape:
                raise ImageError(
                    "expected an (H, W) or (H, W, C) image of uint8, uint16 or floats, got "
                    f"{image.dtype} of shape {image.shape}"
                )
            low, high = (0, 1) if image.dtype.kind == "u" else (image.min(), image.max())
            if not (low >= -1e-3 and high <= 1 + 1e-3):
                raise ImageError(
                    f"expected floats in [0, 1], got values from {low:g} to {high:g}; "
                    "divide by the range first"
                )
        if self.old.shape[:2] != self.new.shape[:2]:
            raise ImageError(
                f"expected two images of one size, got {self.old.shape[:2]} before and "
                f"{self.new.shape[:2]} after (height, width)"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.old.shape[0], self.old.shape[1]

    @cached_property
    def structures(self) -> tuple[Array, Array]:
        """Edge directions before and after; see `simgan_aug.displacement.structure`."""
        return structure(self.colours[0]), structure(self.colours[1])

    @cached_property
    def colours(self) -> tuple[Array, Array]:
        """(H, W, C) float32 in 8-bit levels, before and after, without alpha."""
        return _levels(self.old), _levels(self.new)

    @cached_property
    def smooth(self) -> tuple[Array, Array]:
        """`colours` without grain."""
        old, new = (np.atleast_3d(cv2.GaussianBlur(c, (0, 0), SMOOTHING)) for c in self.colours)
        return old, new

    @cached_property
    def expected(self) -> Array:
        """(H, W) luminance after, as the image's best tone curve makes it from that before."""
        old, new = self.grey
        step = max(1, old.size // SAMPLE)
        return apply_curve(*curve(old.ravel()[::step], new.ravel()[::step]), old)

    @cached_property
    def grey(self) -> tuple[Array, Array]:
        """(H, W) float32 luminance in 8-bit levels, without grain, before and after."""
        return _grey(self.smooth[0]), _grey(self.smooth[1])

    @cached_property
    def edges(self) -> tuple[Array, Array]:
        """(H, W) bool: where the thin lines of strong edges run, before and after."""
        before, after = self.structures
        return _thin(before), _thin(after)

    @cached_property
    def off_colour(self) -> Array | None:
        """(H / 2, W / 2) by how many levels the chroma is off the image's best colour map.

        The map is a quadratic of the three channels, and so takes any cast, curve or mixing of
        channels with it. None for images without colour.
        """
        if min(each.shape[2] for each in self.smooth) < 3:
            return None
        old, new = (each[::2, ::2, :3] for each in self.smooth)
        terms = _terms(old)  # (H / 2, W / 2, 10)
        step = max(1, old[..., 0].size // SAMPLE)
        x = terms.reshape(-1, terms.shape[2])[::step].astype(np.float64)
        y = new.reshape(-1, 3)[::step]
        # The normal equations: in doubles the same to 1e-5 levels, and 10 rows instead of 40,000.
        best = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=1e-12)[0]
        off = new - terms @ best.astype(np.float32)
        off -= off.mean(axis=2, keepdims=True)  # of luminance other measures speak
        distance: Array = np.sqrt((cv2.blur(off, (3, 3)) ** 2).sum(axis=2))
        return distance

    @cached_property
    def usual_off_colour(self) -> float:
        """Levels that three quarters of the image do not exceed: no one label is to blame."""
        off = self.off_colour
        return 0.0 if off is None else float(np.percentile(off[::2, ::2], 75))


def curve(old: Array, new: Array) -> tuple[Array, Array]:
    """The mean of the new values for each of some steps of the old: a tone curve of any shape.

    Args:
        old, new: (N,) values of the same pixels.

    Returns:
        Old values, ascending, and what becomes of them.
    """
    order = np.argsort(old, kind="stable")
    steps = np.array_split(order, min(BINS, max(1, len(order) // 8)))
    x = np.array([old[step].mean() for step in steps])
    y = np.array([new[step].mean() for step in steps])
    x, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    return x, np.bincount(index, y) / counts


def apply_curve(x: Array, y: Array, values: Array) -> Array:
    """Values through a curve of straight pieces, float32."""
    return np.interp(values, x, y).astype(np.float32)


def gradient(grey: Array) -> Array:
    """(2, H, W) of an (H, W) image: across and down, in levels a px times 8."""
    return np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)])


def _levels(image: Array) -> Array:
    """(H, W, C) float32 in [0, 255] without alpha."""
    image = np.atleast_3d(image)
    colours = image.shape[2] - (image.shape[2] in (2, 4))
    scale = {"uint8": 1.0, "uint16": 1 / 257}.get(image.dtype.name, 255.0)
    return np.ascontiguousarray(image[..., :colours], dtype=np.float32) * np.float32(scale)


def _grey(colour: Array) -> Array:
    if colour.shape[2] != 3:
        return np.ascontiguousarray(colour.mean(axis=2))
    grey: Array = colour @ np.array(LUMA, dtype=np.float32)
    return np.ascontiguousarray(grey)


def _thin(field: Array) -> Array:
    """Where a structure is strong, and strongest across its edge."""
    weight = np.hypot(field[0], field[1])
    across = np.round(np.arctan2(field[1], field[0]) / 2 / (np.pi / 4)).astype(np.int8) % 4
    padded = np.pad(weight, 1)
    height, width = weight.shape
    thin: Array = np.zeros(weight.shape, dtype=bool)
    for direction, (y, x) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        ahead = padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = padded[1 - y : 1 - y + height, 1 - x : 1 - x + width]
        thin |= (across == direction) & (weight >= ahead) & (weight >= behind)
    thin &= weight > LEAST_EDGE
    return thin


def _terms(colour: Array) -> Array:
    """What a colour map is made of: constant, channels, their squares and products."""
    scaled = colour / np.float32(255)
    red, green, blue = np.moveaxis(scaled, 2, 0)
    parts = [np.ones_like(red), red, green, blue, red * red, green * green, blue * blue]
    return np.stack([*parts, red * green, red * blue, green * blue], axis=2)
