"""The handful of images by which a run's alarms are told (`simgan_aug.alarms`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from simgan_aug import tone
from simgan_aug.alarms import Handful
from simgan_aug.bank import Bank
from simgan_aug.config import Config
from simgan_aug.data.crops import Crops
from simgan_aug.data.source import Source
from simgan_aug.pixels import Pixels
from simgan_aug.sheet import spaced

Array = np.ndarray[Any, Any]
Box = Sequence[float]

COUNT = 16
"""Images of either side."""

SIDE = 128
"""Px each way: of larger images a window is looked at, around a label."""

LABELS = 8
"""Of an image, at most: a crowd would take long."""

NUMBER = 2**62
"""Of the batch that the discriminator is asked about: none that a run trains on."""


def take_handful(
    synthetic: Source,
    real: Source,
    config: Config,
    bank: Bank | None,
    paired: bool,
) -> Handful:
    """Evenly spaced images of both sides, and one batch as training cuts it.

    Args:
        synthetic, real: what the run trains on.
        config: of the run.
        bank: tones of photos; the image with number i takes the one that seed i draws.
        paired: whether real crops come with their own tone.
    """
    seed, match = config.training.seed, config.tone.match == "before"
    crops = next(Crops(synthetic, config.data, COUNT, seed, bank, match).batches(NUMBER))
    photos = next(Crops(real, config.data, COUNT, seed, own_tone=paired).batches(NUMBER))
    images, labels = take_labelled(synthetic, config, bank, COUNT, LABELS)
    return Handful(
        images=images,
        boxes=labels,
        real=take_photos(real, config, COUNT),
        crops=crops.images,
        reference=crops.reference,
        real_crops=photos.images,
        real_reference=photos.reference,
    )


def take_labelled(
    synthetic: Source, config: Config, bank: Bank | None, count: int, most: int
) -> tuple[list[Array], list[list[Box]]]:
    """Evenly spaced images as a network gets them, or windows of large ones, and their boxes.

    Args:
        synthetic, config, bank: as in `take_handful`.
        count: of images.
        most: labels of an image; 0: none, and windows lie in the middle.
    """
    match, white = config.tone.match == "before", config.data.white
    images, labels = [], []
    chosen = spaced(len(synthetic.images), count)
    for number, (index, every) in enumerate(zip(chosen, synthetic.boxes(chosen), strict=True)):
        image, own = synthetic.images[index], [every[row] for row in spaced(len(every), most)]
        window, inside = _window(image.shape[0], image.shape[1], own)
        pixels = _colour(image[window], white)
        if bank is not None and match:
            whole = _colour(image, white)
            taken = bank.pick(bank.drawn([number]), tone.tones_of(whole[None]))
            curve = tone.tone_curve(tone.histogram(whole), taken[0])
            pixels = tone.apply_curve(pixels, curve)
        images.append(_image(pixels))
        labels.append(inside)
    return images, labels


def take_photos(real: Source, config: Config, count: int) -> list[Array]:
    """Evenly spaced photos, or windows in the middle of large ones, as `take_labelled` gives its.

    Args:
        real, config: as in `take_handful`.
        count: of photos.
    """
    seen = [real.images[index] for index in spaced(len(real.images), count)]
    windows = [image[_window(image.shape[0], image.shape[1], ())[0]] for image in seen]
    return [_image(_colour(window, config.data.white)) for window in windows]


def _window(height: int, width: int, boxes: Sequence[Box]) -> tuple[tuple[slice, slice], list[Box]]:
    """A window around the middle label, or in the middle; and what it shows of the labels."""
    x, y, w, h = boxes[len(boxes) // 2] if boxes else (0, 0, width, height)
    top, left = _start(y + h / 2, height), _start(x + w / 2, width)
    bottom, right = min(height, top + SIDE), min(width, left + SIDE)
    inside: list[Box] = []
    for x, y, w, h in boxes:
        first, last = (max(x, left), max(y, top)), (min(x + w, right), min(y + h, bottom))
        if last[0] > first[0] and last[1] > first[1]:
            size = (last[0] - first[0], last[1] - first[1])
            inside.append((first[0] - left, first[1] - top, *size))
    return (slice(top, bottom), slice(left, right)), inside


def _start(middle: float, length: int) -> int:
    """Where a window of `SIDE` px around a place begins."""
    return max(0, min(math.floor(middle) - SIDE // 2, length - SIDE))


def _colour(image: Array, white: int) -> Tensor:
    """(H, W, C) of a file's dtype -> (C, H, W) in [0, 1]."""
    return Pixels(image, image.shape[2], white=white).colour()[0]


def _image(pixels: Tensor) -> Array:
    """(C, H, W) -> (H, W, C)."""
    image: Array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    return image
