"""An image before and after, seen in the ways that the measures look at it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from simgan_aug.displacement import structure
from simgan_aug.errors import ImageError
from simgan_aug.pixels import LUMA, all_bits

Array = np.ndarray[Any, Any]

SMOOTHING = 1.5
"""Px (sigma) under which grain, blur and JPEG blocks are not taken for content."""

BINS = 48
"""Steps of a tone curve."""

LEAST_EDGE = 0.4
"""Weight in [0, 1) of an edge that counts as one."""

LEVELS = 8.0
"""Levels that a step of an image's tone curve has at most."""

STRIP = 256
"""Rows that are mapped at a time."""

SAMPLE = 40_000
"""Pixels of an image from which its curve and its colour map are fitted."""


@dataclass(frozen=True)
class View:
    """One image, seen in the ways that the measures look at it; each way is computed once.

    Args:
        image: (H, W) or (H, W, C); uint8, uint16, or floats in [0, 1].
        white: level of uint16 that counts as white; 0: that of all bits that the image uses.
        has_alpha: whether a second or a fourth channel is alpha, which is not looked at.

    Raises:
        ImageError: another kind of image.
    """

    image: Array
    white: int = 0
    has_alpha: bool = True

    @cached_property
    def whole(self) -> View:
        """The same, without alpha: each channel counts."""
        return View(self.image, self.white, has_alpha=False)

    def __post_init__(self) -> None:
        """Reject what cannot be compared."""
        image = self.image
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
        if not self.white and image.dtype.name == "uint16":
            object.__setattr__(self, "white", all_bits(int(image.max())))

    @cached_property
    def structure(self) -> Array:
        """Edge directions; see `simgan_aug.displacement.structure`."""
        return structure(self._levels)

    @cached_property
    def edges(self) -> Array:
        """(H, W) bool: where the thin lines of strong edges run."""
        return _thin(self.structure)

    @cached_property
    def smooth(self) -> Array:
        """(H, W, C) float32 in 8-bit levels, without alpha and without grain."""
        return np.atleast_3d(cv2.GaussianBlur(self._levels, (0, 0), SMOOTHING))

    @cached_property
    def grey(self) -> Array:
        """(H, W) float32 luminance in 8-bit levels, without grain."""
        return _grey(self.smooth)

    @cached_property
    def colour(self) -> Array | None:
        """(H / 2, W / 2, 3) of `smooth`; None for an image without colour."""
        smooth = self.smooth
        return np.ascontiguousarray(smooth[::2, ::2, :3]) if smooth.shape[2] >= 3 else None

    @property
    def _levels(self) -> Array:
        """(H, W, C) float32 in [0, 255], without alpha."""
        image = np.atleast_3d(self.image)
        colours = image.shape[2] - (self.has_alpha and image.shape[2] in (2, 4))
        scale = {"uint8": 1.0, "uint16": 255 / max(1, self.white)}.get(image.dtype.name, 255.0)
        return np.ascontiguousarray(image[..., :colours], dtype=np.float32) * np.float32(scale)


@dataclass(frozen=True)
class Pair:
    """An image before and after.

    Raises:
        ImageError: the images differ in size.
    """

    old: View
    new: View

    @classmethod
    def of(cls, old: Array | View, new: Array) -> Pair:
        """An image, seen before or not, and what has become of it, with the same white.

        Alpha that varied and has changed is none: no refiner changes it but one that is shown four
        channels.

        Raises:
            ImageError: the images differ in size, or are none.
        """
        view = old if isinstance(old, View) else View(old)
        image, last = view.image, view.image[..., -1]
        alike = (image.shape, image.dtype) == (new.shape, new.dtype)
        may_have = view.has_alpha and alike and image.shape[2:] in ((2,), (4,))
        if may_have and last.min() < last.max() and not np.array_equal(last, new[..., -1]):
            view = view.whole
        return cls(view, View(new, view.white, view.has_alpha))

    def __post_init__(self) -> None:
        """Reject what cannot be compared."""
        old, new = (view.image.shape[:2] for view in (self.old, self.new))
        if old != new:
            raise ImageError(
                f"expected two images of one size, got {old} before and {new} after (height, width)"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.old.image.shape[0], self.old.image.shape[1]

    @property
    def structures(self) -> tuple[Array, Array]:
        """Edge directions before and after."""
        return self.old.structure, self.new.structure

    @cached_property
    def expected(self) -> Array:
        """(H, W) luminance after, as the image's best tone curve makes it from that before."""
        old, new = self.old.grey, self.new.grey
        step = _step(old)
        few = slice(None, None, step)
        return apply_curve(*curve(old[few, few].ravel(), new[few, few].ravel(), LEVELS), old)

    @cached_property
    def off_colour(self) -> Array | None:
        """(H / 2, W / 2) by how many levels the chroma is off the image's best colour map.

        The map is a quadratic of the three channels, and so takes any cast, curve or mixing of
        channels with it. None for images without colour.
        """
        old, new = self.old.colour, self.new.colour
        if old is None or new is None:
            return None
        few = slice(None, None, _step(old[..., 0]))
        x = _terms(old[few, few]).reshape(-1, 10).astype(np.float64)
        # The normal equations: in doubles the same to 1e-5 levels, and 10 rows instead of 40,000.
        best = np.linalg.lstsq(x.T @ x, x.T @ new[few, few].reshape(-1, 3), rcond=1e-12)[0]
        off = new - _mapped(old, best.astype(np.float32))
        off -= off.mean(axis=2, keepdims=True)  # of luminance other measures speak
        distance: Array = np.sqrt((cv2.blur(off, (3, 3)) ** 2).sum(axis=2))
        return distance

    @cached_property
    def usual_off_colour(self) -> float:
        """Levels that three quarters of the image do not exceed: no one label is to blame."""
        off = self.off_colour
        return 0.0 if off is None else float(np.percentile(off[::2, ::2], 75))


def curve(old: Array, new: Array, width: float = math.inf) -> tuple[Array, Array]:
    """The mean of the new values for each of some steps of the old: a tone curve of any shape.

    Args:
        old, new: (N,) values of the same pixels.
        width: levels that a step has at most, so that few dark pixels have one of their own.

    Returns:
        Old values, ascending, and what becomes of them.
    """
    count = min(BINS, max(1, len(old) // 8))
    ends = np.quantile(old, np.linspace(0, 1, count + 1))[1:-1]
    if width < math.inf:
        ends = np.union1d(ends, np.arange(old.min(), old.max(), width))
    at = np.searchsorted(ends, old, side="right")
    counts = np.bincount(at)
    sums = (np.bincount(at, values) for values in (old, new))
    x, y = (total[counts > 0] / counts[counts > 0] for total in sums)
    return x, y


def apply_curve(x: Array, y: Array, values: Array) -> Array:
    """Values through a curve of straight pieces, float32."""
    return np.interp(values, x, y).astype(np.float32)


def gradient(grey: Array) -> Array:
    """(2, H, W) of an (H, W) image: across and down, in levels a px times 8."""
    return np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)])


def _step(image: Array) -> int:
    """Every how many-th row and column leaves about `SAMPLE` pixels."""
    return max(1, round(math.sqrt(image.size / SAMPLE)))


def _grey(colour: Array) -> Array:
    if colour.shape[2] < 3:
        return np.ascontiguousarray(colour.mean(axis=2))
    grey: Array = colour[..., :3] @ np.array(LUMA, dtype=np.float32)
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


def _mapped(colour: Array, best: Array) -> Array:
    """What a colour map makes of an image, some rows at a time: its terms are many."""
    parts = [_terms(colour[row : row + STRIP]) @ best for row in range(0, len(colour), STRIP)]
    return np.concatenate(parts)


def _terms(colour: Array) -> Array:
    """What a colour map is made of: constant, channels, their squares and products."""
    scaled = colour / np.float32(255)
    red, green, blue = np.moveaxis(scaled, 2, 0)
    parts = [np.ones_like(red), red, green, blue, red * red, green * green, blue * blue]
    return np.stack([*parts, red * green, red * blue, green * blue], axis=2)
