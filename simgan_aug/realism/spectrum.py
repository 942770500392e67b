"""How much detail of each size an image has: its radially averaged power spectrum, in dB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from simgan_aug.errors import ImageError
from simgan_aug.pixels import LUMA, Pixels
from simgan_aug.realism.resampling import (
    Distance,
    Draws,
    Pair,
    centred,
    gaps_of,
    interval,
    labels_of,
)

Array = np.ndarray[Any, Any]

FREQUENCIES = np.arange(1, 33) / 64
"""Cycles per px at which spectra are told, whatever the size of the image."""

TILE = 256
"""Px of the side of a window; a larger image is seen through several, at most 4 x 4."""

QUIET = 1e-2
"""Power, in squared 8-bit levels, added to all: far below what rounding to 8 bits leaves (1/12)."""


def power_spectrum(image: Array) -> Array:
    """Power of the luminance at `FREQUENCIES`, (32,) in dB; NaN below what the image can show.

    White noise of a deviation of s 8-bit levels has 20 log10(s) dB at every frequency, whatever
    the size of the image.

    Args:
        image: (H, W) or (H, W, C), of the kinds `Pixels` takes.

    Raises:
        ImageError: a side of less than 16 px.
    """
    colour = Pixels(image, 3).colour()[0].numpy()
    levels = np.tensordot(np.array(LUMA), colour, 1) * 255  # (H, W)
    if min(levels.shape) < 16:
        raise ImageError(
            f"expected an image of 16 px or more on each side, got {levels.shape[1]}x"
            f"{levels.shape[0]}: it has no spectrum to speak of"
        )
    side = min(TILE, *levels.shape)
    window = np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1])
    power = np.mean([_power(tile, window) for tile in _tiles(levels, side)], axis=0)
    rings = np.round(_radius(side) * side).astype(int)  # a ring for each whole cycle
    total = np.bincount(rings.ravel(), power.ravel())
    count = np.bincount(rings.ravel())
    decibels = 10 * np.log10(total / count + QUIET)
    known = np.interp(FREQUENCIES, np.arange(len(decibels)) / side, decibels)
    # The window smears the mean of the tile over two cycles.
    return np.where(FREQUENCIES * side >= 2, known, np.nan)


def spectrum_distance(
    first: Array,
    second: Array,
    groups: Pair | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Distance:
    """How far two sets of spectra, (N, 32) and (M, 32), lie apart, in dB: mean over frequencies.

    It is the difference of their means, without its sign; that of two samples of one set is not 0.

    Raises:
        DataError: fewer than 8 images, or groups, on a side.
    """
    labels = labels_of(groups, len(first), len(second))
    return interval([spectrum_draws(first, second, labels, resamples, seed)])


def spectrum_draws(
    first: Array, second: Array, labels: Array, resamples: int = 200, seed: int = 0
) -> Draws:
    """The same, as draws; labels (N + M,) as from `labels_of`."""
    gaps = gaps_of(_means, first, second, labels, resamples, seed)
    seen = np.isfinite(gaps)
    values = np.where(seen, gaps, 0).sum(1) / np.maximum(seen.sum(1), 1)
    return centred(float(values[0]), values[1:])


def _means(spectra: Array, weights: Array) -> Array:
    """Weighted means of the images that show a frequency, (R, 32)."""
    shown = np.isfinite(spectra)
    with np.errstate(invalid="ignore"):
        means: Array = (weights @ np.where(shown, spectra, 0)) / (weights @ shown)
    return means


def _tiles(levels: Array, side: int) -> Iterator[Array]:
    for top in _starts(levels.shape[0], side):
        for left in _starts(levels.shape[1], side):
            yield levels[top : top + side, left : left + side]


def _starts(length: int, side: int) -> Array:
    """Evenly spread, both ends covered."""
    return np.linspace(0, length - side, min(4, -(-length // side))).round().astype(int)


def _power(tile: Array, window: Array) -> Array:
    shown = (tile - tile.mean()) * window
    power: Array = np.abs(np.fft.fft2(shown)) ** 2 / (window**2).sum()
    return power


def _radius(side: int) -> Array:
    """Cycles per px of each place of a transform, (side, side)."""
    along = np.fft.fftfreq(side)
    radius: Array = np.hypot(along[:, None], along[None, :])
    return radius
