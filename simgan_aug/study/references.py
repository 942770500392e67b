"""Forms by methods that learn nothing: each image made like a real photo, or like all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np

from simgan_aug.study import canvas
from simgan_aug.study.forms import CHUNK, Making
from simgan_aug.study.split import Split

Array = np.ndarray[Any, Any]

Referring = Callable[[Array, Array], Array]
"""(image, real photo) -> the image changed."""


def referred(kind: str, split: Split, photos: Split, count: int, seed: int) -> Making:
    """Forms that refer to a real photo each: "fda", "hm" or "pda".

    Args:
        kind: which.
        split: synthetic canvases.
        photos: real ones; each image and form is given one of them at random.
        count: forms of each image.
        seed: of all draws.
    """
    references = [
        np.ascontiguousarray(canvas.content(image, view.region))
        for image, view in zip(photos.images, photos.views, strict=True)
    ]
    forms = np.repeat(split.images[None], count, 0)
    for number in range(count):
        change = _referring(kind, seed * 1000 + number)
        picked = np.random.default_rng([seed, number]).integers(len(references), size=len(split))
        for row, view in enumerate(split.views):
            part = canvas.content(forms[number, row], view.region)
            part[:] = change(np.ascontiguousarray(part), references[int(picked[row])])
            if row % CHUNK == 0:
                yield
    return forms


def coloured(split: Split, photos: Split) -> Making:
    """One form, whose channels have mean and deviation of all real photos."""
    (mean, spread), (wanted, wide) = (_levels(split), _levels(photos))
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


def _levels(split: Split) -> tuple[Array, Array]:
    """Mean and deviation of each channel, bars left out."""
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for image, view in zip(split.images, split.views, strict=True):
        levels = canvas.content(image, view.region).reshape(-1, 3).astype(float)
        sums, squares, count = (
            sums + levels.sum(0),
            squares + (levels**2).sum(0),
            count + len(levels),
        )
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))
