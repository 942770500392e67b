"""What arms make of the synthetic images: forms, (V, N, H, W, 3), and how a probe is shown them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simgan_aug.audit import growth
from simgan_aug.audit.growth import Grown
from simgan_aug.displacement import REACH, locate, structure
from simgan_aug.errors import DataError, ImageError
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.study import canvas
from simgan_aug.study.probe import Feed
from simgan_aug.study.split import Split, canvases

Array = np.ndarray[Any, Any]

Making = Generator[None, None, Array]
"""Yields a sign of life every `CHUNK` canvases; returns the forms."""

CHUNK = 16
DRIFT_SAMPLE = 300
"""Canvases whose labels are located."""

RESOLVED = 0.25
"""Px of a canvas; less is what light, noise and scaling make of one that has not moved."""


def from_folder(split: Split, folder: Path) -> Making:
    """One form, from a folder with an image of the same name for each synthetic one.

    Raises:
        DataError: images are missing.
    """
    best = folder_of(split, folder)
    made = canvases(split.views, split.size, lambda name: read_image(best / name).pixels)
    return (yield from gathered([made], split))


def folder_of(split: Split, folder: Path) -> Path:
    """A folder, or `images` in it: whichever has an image for each synthetic one.

    Raises:
        DataError: neither has; says how many are missing, and which.
    """
    names = {view.name for view in split.views}
    places = [folder, folder / "images"]
    missing = {place: [name for name in names if not (place / name).is_file()] for place in places}
    best = min(places, key=lambda place: len(missing[place]))
    if missing[best]:
        raise DataError(
            f"{folder}: expected an image of the same name for each of {len(names)} synthetic "
            f"ones, {len(missing[best])} are missing, the first is {min(missing[best])!r}"
        )
    return best


def refined(split: Split, images: Path, refiner: ImageRefiner, count: int, seed: int) -> Making:
    """Forms by a refiner, at the size of the files, each with seeds of its own.

    Raises:
        ImageError: it does not take an image.
    """

    def form(number: int) -> Iterator[Array]:
        names = [name for name, _ in groupby(view.name for view in split.views)]
        refined = _refined(names, images, refiner, seed, number)
        return canvases(split.views, split.size, lambda name: _next(refined, name))

    return (yield from gathered([form(number) for number in range(count)], split))


def kept_outside(forms: Array, split: Split) -> Array:
    """The forms with everything outside of labels as it was."""
    if split.maps is None:
        raise ValueError("read this split with maps=True")
    for form in forms:
        np.copyto(form, split.images, where=(split.maps == 0)[..., None])
    return forms


def plain(forms: Array) -> Feed:
    """Each epoch the next form of every image."""
    return lambda rows, epoch: forms[epoch % len(forms), rows]


def mixed(forms: Array, raw: Array, seed: int) -> Feed:
    """Each image as it is or refined, drawn anew every epoch."""

    def feed(rows: Array, epoch: int) -> Array:
        refined = np.random.default_rng([seed, epoch, 1]).random(len(raw))[rows] < 0.5
        shown = forms[epoch % len(forms), rows]
        return np.where(refined[:, None, None, None], shown, raw[rows])

    return feed


def of_strength(forms: Array, raw: Array, seed: int) -> Feed:
    """Each image between what it is and its refined form, drawn anew every epoch."""

    def feed(rows: Array, epoch: int) -> Array:
        strength = np.random.default_rng([seed, epoch, 2]).random(len(raw))[rows]
        before = raw[rows].astype(np.float32)
        change = forms[epoch % len(forms), rows] - before
        blend: Array = (before + change * strength[:, None, None, None]).round().astype(np.uint8)
        return blend

    return feed


def gathered(parts: Sequence[Iterator[Array]], split: Split) -> Making:
    """The canvases of each part, in one array."""
    forms = np.empty((len(parts), *split.images.shape), np.uint8)
    for form, part in zip(forms, parts, strict=True):
        for row, made in enumerate(part):
            form[row] = made
            if row % CHUNK == 0:
                yield
    return forms


class Drift(NamedTuple):
    """How far the pictures under labels have moved."""

    px: float | None
    """Of the files, the 95th percentile; None: no label could be located."""
    located: int
    """Labels with a picture that can be told from what is around it."""
    labels: int
    """Of the canvases that were looked at."""


def drift(split: Split, form: Array) -> Drift:
    """How far the pictures under the labels of some canvases have moved.

    It is found on canvases, on which less than `RESOLVED` px cannot be told from 0. A label whose
    picture is not to be found any more counts as moved by `REACH`.
    """
    shifts, count = [], 0
    for row in _looked_at(split):
        before, after = structure(split.images[row]), structure(form[row])
        region = split.views[row].region
        scale = canvas.frame(region, split.size)[2] / region[2]
        count += len(split.labels[row])
        for label in split.labels[row]:
            place = None if label.box is None else locate(before, after, label.box)
            if place is not None:
                moved = place.distance if place.is_found else float(REACH)
                shifts.append(moved / scale if moved > RESOLVED else 0.0)
    return Drift(float(np.percentile(shifts, 95)) if shifts else None, len(shifts), count)


def grown(split: Split, form: Array) -> Grown:
    """How many labels of some canvases look to reach beyond their boxes since."""
    rows = _looked_at(split)
    kept = split.rows(rows)
    boxes = []
    for view, labels in zip(kept.views, kept.labels, strict=True):
        left, top, _, _ = canvas.frame(view.region, split.size)
        some = [label.box for label in labels if label.box is not None]
        boxes.append([(x - left, y - top, width, height) for x, y, width, height in some])
    return growth.grown(kept.pictures(kept.images), kept.pictures(form[rows]), boxes)


def _looked_at(split: Split) -> Array:
    """The canvases whose labels are held against those of before."""
    return np.arange(0, len(split), -(-len(split) // DRIFT_SAMPLE))


def _refined(
    names: Iterable[str], images: Path, refiner: ImageRefiner, seed: int, number: int
) -> Iterator[tuple[str, Array]]:
    """Names and refined images in order; images of one shape are refined together."""
    left, row = iter(names), 0
    while chunk := list(islice(left, CHUNK)):
        pixels: Any = [read_image(images / name).pixels for name in chunk]
        if len({(each.shape, each.dtype) for each in pixels}) == 1 and pixels[0].ndim == 3:
            pixels = np.stack(pixels)
        seeds = [(seed * 1009 + number) * 1_000_003 + row + place for place in range(len(chunk))]
        try:
            refined = refiner(pixels, seed=seeds)
        except ImageError as error:
            raise ImageError(
                f"{images / chunk[0]} or one of the {CHUNK} after it: {error}"
            ) from None
        yield from zip(chunk, refined, strict=True)
        row += len(chunk)


def _next(refined: Iterator[tuple[str, Array]], name: str) -> Array:
    made, pixels = next(refined)
    assert made == name, "views come in the order of their names"
    return pixels
