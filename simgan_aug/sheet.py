"""Sheets of pictures: rows of images with their names, as they are, no contrast stretched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simgan_aug.files import write_atomically

_LABEL = 16  # px above each row
_GAP = 2


def sheet(rows: Mapping[str, Sequence[np.ndarray[Any, Any]]], cell: int = 192) -> Image.Image:
    """Rows of images, each under its name.

    Args:
        rows: (H, W, 3) uint8 images by row name; rows may differ in length and images in size.
        cell: px that the longer side of an image is shown with at most; smaller ones are shown
            enlarged by a whole factor.
    """
    shown = {name: [_fit(image, cell) for image in images] for name, images in rows.items()}
    width = max((sum(i.width + _GAP for i in images) for images in shown.values()), default=0)
    heights = [max((image.height for image in images), default=0) for images in shown.values()]
    canvas = Image.new(
        "RGB", (max(width, 120) + _GAP, sum(h + _LABEL + _GAP for h in heights) + _GAP), "white"
    )
    draw, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(), 0
    for (name, images), height in zip(shown.items(), heights, strict=True):
        draw.text((_GAP, top + 2), name, fill="black", font=font)
        left = _GAP
        for image in images:
            canvas.paste(image, (left, top + _LABEL))
            left += image.width + _GAP
        top += height + _LABEL + _GAP
    return canvas


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    target = io.BytesIO()
    picture.save(target, format="PNG")
    write_atomically(path, target.getvalue())


def spaced(count: int, wanted: int) -> list[int]:
    """Numbers of so many wanted of `count` items, evenly spaced: which of many to look at."""
    return [int(index) for index in np.linspace(0, count - 1, min(wanted, count))]


def _fit(pixels: np.ndarray[Any, Any], cell: int) -> Image.Image:
    image = Image.fromarray(pixels)
    longer = max(image.size)
    if longer > cell:
        image.thumbnail((cell, cell))
        return image
    factor = max(1, cell // longer)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
