"""Previews: synthetic over refined over real, as people would rather look than read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simgan_aug.errors import ImageError
from simgan_aug.folders import list_images
from simgan_aug.imagefile import read_image, upright
from simgan_aug.inference import ImageRefiner
from simgan_aug.pixels import Pixels, to_display
from simgan_aug.sheet import sheet, spaced

Array = np.ndarray[Any, Any]


def preview(
    refiner: ImageRefiner,
    synthetic: Sequence[Array],
    real: Sequence[Array] = (),
    columns: int = 8,
    strength: float = 1.0,
    seed: int = 0,
) -> Image.Image:
    """A sheet of some synthetic images, evenly spaced, over their refined forms, over real photos.

    A fourth channel that is refined has rows of its own.

    Args:
        refiner: what refines them.
        synthetic, real: images of any sizes; without real ones there are two rows.
        columns: images a row.
        strength, seed: as in `ImageRefiner`.
    """
    shown = _spaced(synthetic, columns)
    rows = {"synthetic": shown, "refined": refiner(shown, seed=seed, strength=strength)}
    if len(real):
        rows["real"] = _spaced(real, columns)
    if refiner.channels == 4:  # below colours what is none
        fourths = {
            name: [image[..., 3] for image in row if image.shape[2:] == (4,)]
            for name, row in rows.items()
        }
        rows |= {f"{name}, channel 4": row for name, row in fourths.items() if row}
    white = refiner.white
    return sheet({name: [to_display(image, white) for image in row] for name, row in rows.items()})


def preview_folders(
    refiner: ImageRefiner, images: Path, real: Path | None, columns: int = 8, **shown: Any
) -> Image.Image:
    """The same of image files below folders.

    Raises:
        DataError: a folder is missing or empty, or one of its images unreadable or not taken.
    """
    photos = [upright(read_image(path)) for path in _paths(real, columns)] if real else []
    renders = []
    for path in _paths(images, columns):
        renders.append(read_image(path).pixels)
        try:
            Pixels(renders[-1], refiner.channels)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
    return preview(refiner, renders, photos, columns, **shown)


def _paths(folder: Path, count: int) -> list[Path]:
    return [folder / name for name in _spaced(list_images(folder), count)]


def _spaced(items: Sequence[Any], count: int) -> list[Any]:
    return [items[index] for index in spaced(len(items), count)]
