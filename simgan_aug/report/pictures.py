"""Pictures for a page: found under the names they may have, shrunk, and embedded as data."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from simgan_aug.coco import inside
from simgan_aug.errors import DataError, ImageError
from simgan_aug.formats.holds import ENDINGS
from simgan_aug.imagefile import SUFFIXES, read_image
from simgan_aug.pixels import to_display

Array = np.ndarray[Any, Any]

LOSSLESS_PIXELS = 128 * 128
"""What a picture may have to be embedded without loss; a larger one becomes a JPEG."""

PICTURE_BYTES = 150_000
"""What a JPEG may take: of noise, quality and then size give way, so that a page can be mailed."""

CLOSE_UP = 192
"""Px of the longer side of a close-up at most."""


@dataclass
class Pair:
    """An image before and after, as far as both could be read."""

    name: str
    before: Array | None = None
    """(H, W, 3) uint8."""
    after: Array | None = None
    problems: list[str] = field(default_factory=list)
    """Why a side is missing, or is not shown as it is."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px of what labels refer to."""
        shown = self.before if self.before is not None else self.after
        return (shown.shape[1], shown.shape[0]) if shown is not None else (3, 2)


class CloseUp(NamedTuple):
    """A piece of an image, before and after."""

    window: tuple[int, int, int, int]
    """x, y, width, height in px of the image."""
    before: Array
    after: Array
    difference: Array
    """After less before, per channel, on mid-grey: grey is no change."""


def read_shown(folder: Path, name: str) -> Array:
    """An image as (H, W, 3) uint8, raw as its labels see it, never turned.

    Raises:
        DataError: there is none of that name, it is unreadable, or of no kind that can be shown.
    """
    return to_display(read_image(find(folder, name)).pixels)


def find(folder: Path, name: str) -> Path:
    """Where an image lies: below a folder or its `images`, perhaps with another format's ending.

    Raises:
        DataError: nowhere, or the name leads out of the folder.
    """
    for place in (folder, folder / "images"):
        for each in _names(name):
            path = inside(place, each)
            if os.path.isfile(path):
                return path
    raise ImageError(f"{folder}: no image {name!r} in it")


def close_up(pair: Pair, bbox: Sequence[float]) -> CloseUp | None:
    """The surroundings of a box in both images; None where they are not two of one size."""
    if pair.before is None or pair.after is None or pair.before.shape != pair.after.shape:
        return None
    window = _window(bbox, *pair.size)
    if window is None:
        return None
    x, y, width, height = window
    old, new = (
        shrunk(side[y : y + height, x : x + width], CLOSE_UP) for side in (pair.before, pair.after)
    )
    difference = (new.astype(np.int16) - old + 128).clip(0, 255).astype(np.uint8)
    return CloseUp(window, old, new, difference)


def shrunk(pixels: Array, side: int) -> Array:
    """A picture whose longer side is at most `side` px; smaller ones stay as they are."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def data_uri(pixels: Array, side: int) -> str:
    """A picture as an address that holds it: lossless where that is small, else JPEG of quality 90.

    Args:
        pixels: (H, W, 3) uint8.
        side: px of its longer side at most.
    """
    image = Image.fromarray(np.ascontiguousarray(shrunk(pixels, side)))
    if image.width * image.height <= LOSSLESS_PIXELS:
        return _address("webp", _saved(image, "WEBP", lossless=True))
    for quality in (90, 80, 70, 60):
        content = _saved(image, "JPEG", quality=quality, subsampling=0)
        if len(content) <= PICTURE_BYTES:
            return _address("jpeg", content)
    return data_uri(pixels, max(image.size) * 3 // 4)


def read_pair(name: str, images: Path | None, refined: Path | None) -> Pair:
    """Both sides of an image; what cannot be read is said, never raised."""
    pair = Pair(name)
    for side, folder in (("before", images), ("after", refined)):
        if folder is None:
            continue
        try:
            setattr(pair, side, read_shown(folder, name))
        except (DataError, OSError, MemoryError) as error:
            pair.problems.append(f"{side}: {error or type(error).__name__}")
    both = [shown.shape for shown in (pair.before, pair.after) if shown is not None]
    if len(set(both)) == 2:
        sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in both)
        pair.problems.append(f"before and after differ in size: {sizes}")
    return pair


def _names(name: str) -> Iterator[str]:
    """A name, and those it has when a data set was written in another format, or was before."""
    yield name
    stem, ending = os.path.splitext(name)
    known = ending.lower() in SUFFIXES
    for endings in ENDINGS.values():
        for each in endings:
            yield (stem if known else name) + each
    if known:
        yield stem


def _window(bbox: Sequence[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """A box with some room around it, inside the image."""
    if len(bbox) != 4 or not all(np.isfinite(bbox)):
        return None
    x, y, w, h = bbox
    room = max(12.0, 0.2 * max(w, h))
    left, top = max(0, int(x - room)), max(0, int(y - room))
    right, bottom = min(width, int(x + w + room)), min(height, int(y + h + room))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format=kind, **options)
    return target.getvalue()
