"""Forms by methods that learn nothing: each image made like a real photo, or like all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np

from simgan_aug.imagefile import read_image
from simgan_aug.pixels import to_display
from simgan_aug.study import canvas
from simgan_aug.study.forms import CHUNK, Making, gathered
from simgan_aug.study.split import Split, canvases

Array = np.ndarray[Any, Any]

Referring = Callable[[Array, Array], Array]
"""(image, real photo) -> the image changed."""

MOST = 640 * 480
"""Px of a file that a change is found at; that of a larger one is scaled up from so many."""


def referred(kind: str, split: Split, images: Path, photos: Split, count: int, seed: int) -> Making:
    """Forms that refer to a real photo each: "fda", "hm" or "pda".

    Args:
        kind: which.
        split: synthetic canvases; crops are cut from whole images that have been changed, for it is
            whole photos that these are made like.
        images: folder of their files.
        photos: real ones; each image and form is given one of them at random.
        count: forms of each image.
        seed: of all draws.
    """
    references = photos.pictures(photos.images)

    def form(number: int) -> Iterator[Array]:
        change = _referring(kind, seed * 1000 + number)
        picked = np.random.default_rng([seed, number]).integers(len(references), size=len(split))
        left = iter(references[int(place)] for place in picked)
        if all(view.is_whole for view in split.views):
            return _inside(split, change, left)
        return canvases(split.views, split.size, lambda name: _whole(images / name, change, left))

    return (yield from gathered([form(number) for number in range(count)], split))


def coloured(split: Split, images: Path, photos: Split) -> Making:
    """One form, whose channels have mean and deviation of all real photos.

    Args:
        split, images, photos: as in `referred`; the levels are those of whole images.
    """
    (mean, spread), (wanted, wide) = _levels(_wholes(split, images)), _levels(_wholes(photos))
    forms = split.images[None].copy()
    for row, view in enumerate(split.views):
        part = canvas.content(forms[0, row], view.region)
        levels = (part - mean) / np.maximum(spread, 1e-6) * wide + wanted
        part[:] = levels.clip(0, 255).round().astype(np.uint8)
        if row % CHUNK == 0:
            yield
    return forms


def _referring(kind: str, seed: int) -> Referring:
    """One of albumentations' own transforms, or `_adapted`."""
    if kind == "pda":
        rng = np.random.default_rng(seed)
        return lambda image, photo: _adapted(image, photo, rng.uniform(0.25, 1))
    key = f"{kind}_metadata"
    host = {"fda": A.FDA, "hm": A.HistogramMatching}[kind]
    pipeline = A.Compose([host(metadata_key=key, p=1)], seed=seed)

    def change(image: Array, photo: Array) -> Array:
        changed: Array = pipeline(image=image, **{key: [photo]})["image"]
        return changed

    return change


def _adapted(image: Array, photo: Array, blend: float) -> Array:
    """The principal axes of an image's colours turned to those of a photo.

    What albumentations' PixelDistributionAdaptation means to do; that of 2.0.8 takes levels in
    [0, 1] for levels up to 255, so that it blends every image with black.
    """
    (mean, axes), (wanted, others) = (_axes(each.reshape(-1, 3) / 255) for each in (image, photo))
    others = others * np.where((axes * others).sum(1) < 0, -1, 1)[:, None]  # an axis has no sign
    turned = (image / 255 - mean) @ axes.T @ others + wanted
    mixed = (1 - blend) * image + blend * 255 * turned
    adapted: Array = mixed.clip(0, 255).round().astype(np.uint8)
    return adapted


def _axes(levels: Array) -> tuple[Array, Array]:
    """Mean, and principal axes as rows, the longest first, of (N, 3)."""
    mean = levels.mean(0)
    _, vectors = np.linalg.eigh(np.cov((levels - mean).T))
    return mean, vectors.T[::-1]


def _inside(split: Split, change: Referring, photos: Iterator[Array]) -> Iterator[Array]:
    """Canvases, of which what is picture is made like the next photo."""
    for image, view in zip(split.images, split.views, strict=True):
        made = image.copy()
        part = canvas.content(made, view.region)
        part[:] = change(np.ascontiguousarray(part), next(photos))
        yield made


def _whole(path: Path, change: Referring, photos: Iterator[Array]) -> Array:
    """A file's image made like the next photo."""
    image = to_display(read_image(path).pixels)
    scale = min(1.0, (MOST / (image.shape[0] * image.shape[1])) ** 0.5)
    if scale == 1:
        return change(image, next(photos))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    off = change(small, next(photos)).astype(np.float32) - small
    made: Array = (image + cv2.resize(off, image.shape[1::-1])).clip(0, 255).round()
    return made.astype(np.uint8)


def _wholes(split: Split, images: Path | None = None) -> Iterator[Array]:
    """Whole images, small, bars left out."""
    if images is None or all(view.is_whole for view in split.views):
        yield from split.pictures(split.images)
        return
    for name, size in dict.fromkeys((view.name, view.whole) for view in split.views):
        region = (0, 0, *size)
        yield canvas.content(
            canvas.put(read_image(images / name).pixels, region, split.size), region
        )


def _levels(images: Iterable[Array]) -> tuple[Array, Array]:
    """Mean and deviation of each channel."""
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for image in images:
        levels = image.reshape(-1, 3).astype(float)
        sums, squares, count = (
            sums + levels.sum(0),
            squares + (levels**2).sum(0),
            count + len(levels),
        )
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))
