"""Image sources for training: decoded once, held as they were."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image as PilImage

from simgan_aug import coco
from simgan_aug.config import Data
from simgan_aug.errors import DataError
from simgan_aug.folders import list_images
from simgan_aug.geometry import check_weights, weight_map
from simgan_aug.imagefile import read_image, upright
from simgan_aug.pixels import LUMA

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Source:
    """Decoded images of one side."""

    images: list[Array]
    """(H, W, C) each, in the dtype of their files, C alike for all."""
    names: list[str]
    """Of the files, relative to their folder."""
    weights: list[Array] | None
    """(H, W) float16 each: how much the change of a pixel counts; None: 1 everywhere."""
    fingerprint: str
    """Of the listing they were taken from: SHA-256 of the annotation file, or of names and
    sizes."""
    listed: int
    """How many images there were to take from."""

    @property
    def channels(self) -> int:
        """Colour channels of all images."""
        return int(self.images[0].shape[2])

    def is_smaller(self, crop: tuple[int, int]) -> list[bool]:
        """Which images have to be enlarged to fill a crop of this height and width."""
        return [image.shape[0] < crop[0] or image.shape[1] < crop[1] for image in self.images]


def read_synthetic(
    annotations: Path, folder: Path, config: Data, label_weights: Mapping[str, float], seed: int
) -> Source:
    """The images of a COCO file, with the weight of each pixel where weights are given.

    Raises:
        DataError: no images, one that is missing or unreadable, mixed channels, a segmentation that
            cannot be decoded.
        ConfigError: a weight for a category that the file does not have.
    """
    listed = coco.read_images(annotations)
    if not listed:
        raise DataError(f"{annotations}: lists no images")
    names = list(dict.fromkeys(image.file_name for image in listed))
    fingerprint = hashlib.sha256(annotations.read_bytes()).hexdigest()
    coco.check_present(listed, folder)
    source = _read(
        names, config, seed, fingerprint, lambda n: read_image(coco.inside(folder, n)).pixels
    )
    stated = {image.file_name: image for image in listed}
    for name, pixels in zip(source.names, source.images, strict=True):
        coco.check_size(stated[name], *pixels.shape[:2])
    if not label_weights:
        return source
    labels = coco.read_labels(annotations)
    check_weights(label_weights, labels.categories)
    by_name: dict[str, list[coco.Annotation]] = {name: [] for name in names}
    for image in listed:  # a file may be listed under several ids
        by_name[image.file_name] += labels.by_image.get(image.id, [])
    weights = [
        weight_map(by_name[name], labels.categories, label_weights, *image.shape[:2]).astype(
            np.float16
        )
        for name, image in zip(source.names, source.images, strict=True)
    ]
    return dataclasses.replace(source, weights=weights)


def read_boxes(annotations: Path, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """The boxes in some of the images of a COCO file, x, y, width, height in px; of no use, none.

    Nothing but boxes is read: of a large file that is a small part.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    with contextlib.suppress(DataError):  # training needs no labels; odd ones do not stop it
        raw = coco.read(annotations, _Boxes)
        by_id = {image.id: image.file_name for image in raw.images if image.file_name in found}
        for label in raw.annotations:
            known = isinstance(label.image_id, (int, str, float)) and label.image_id in by_id
            if known and _is_box(label.bbox):
                found[by_id[label.image_id]].append(label.bbox)
    return found


def read_real(folder: Path, config: Data, synthetic: Source, seed: int) -> Source:
    """The images below a folder, upright; labels, if there are any, are never read.

    Raises:
        DataError: no images, one that is unreadable, mixed channels, or others than the
            synthetic ones.
    """
    names = list_images(folder)
    try:
        sizes = "\n".join(f"{name}\t{(folder / name).stat().st_size}" for name in names)
    except OSError as error:  # a link to nowhere
        raise DataError(f"{error.filename}: cannot read the image: {error.strerror}") from None
    shorter = (
        int(np.median([min(image.shape[:2]) for image in synthetic.images]))
        if config.match_size
        else None
    )
    fingerprint = hashlib.sha256(sizes.encode("utf-8", "surrogateescape")).hexdigest()
    source = _read(
        names,
        config,
        seed,
        fingerprint,
        lambda name: _shrunk(upright(read_image(folder / name)), shorter),
    )
    if source.channels != synthetic.channels:
        raise DataError(
            f"the synthetic images have {synthetic.channels} channel(s), those in {folder} "
            f"{source.channels}: set data.channels to 1 or 3"
        )
    return source


class _Box(msgspec.Struct, frozen=True, gc=False):
    image_id: Any = None
    bbox: Any = None


class _Boxes(msgspec.Struct):
    images: list[coco.CocoImage]
    annotations: list[_Box] = []


def _is_box(bbox: Any) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return False
    return all(isinstance(side, (int, float)) and abs(side) < math.inf for side in bbox)


def _read(
    names: Sequence[str],
    config: Data,
    seed: int,
    fingerprint: str,
    decode: Callable[[str], Array],
) -> Source:
    """Decode in a random order until the memory is full; kept in the order of the listing."""
    room = config.memory_mb * 2**20
    decoded: dict[int, Array] = {}
    for index in np.random.default_rng([seed, 0]).permutation(len(names)):
        pixels = decode(names[index])
        decoded[int(index)] = pixels if pixels.ndim == 3 else pixels[..., None]
        grown = 3 if config.channels == 3 and pixels.ndim == 2 else 1  # grey held as RGB
        room -= pixels.nbytes * grown
        if room <= 0:
            break
    order = sorted(decoded)
    taken = [names[index] for index in order]
    images = _same_channels([decoded[index] for index in order], taken, config.channels)
    return Source(images, taken, None, fingerprint, len(names))


def _same_channels(images: list[Array], names: list[str], channels: int) -> list[Array]:
    colours = [3 if image.shape[2] >= 3 else 1 for image in images]
    if not channels and len(set(colours)) > 1:
        grey = names[colours.index(1)]
        raise DataError(
            f"{colours.count(1)} of {len(images)} images are grey (such as {grey}), the others in "
            "colour: set data.channels to 3 or 1 (--channels) to convert them"
        )
    wanted = channels or colours[0]
    kinds = {image.dtype for image in images}
    if len(kinds) > 1:
        raise DataError("images of 8 and of 16 bits are mixed; convert them to one kind")
    return [
        _converted(image, colour, wanted) for image, colour in zip(images, colours, strict=True)
    ]


def _converted(image: Array, colour: int, wanted: int) -> Array:
    image = image[..., :colour]
    if colour == wanted:
        return image
    if wanted == 3:
        return np.repeat(image, 3, axis=2)
    grey: Array = (image @ np.array(LUMA)).round().astype(image.dtype)[..., None]
    return grey


def _shrunk(pixels: Array, shorter: int | None) -> Array:
    """The image with its shorter side at most `shorter` px."""
    height, width = pixels.shape[:2]
    if shorter is None or min(height, width) <= shorter:
        return pixels
    factor = shorter / min(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if pixels.dtype == np.uint8:
        return np.array(PilImage.fromarray(pixels).resize(size, PilImage.Resampling.LANCZOS))
    grown = PilImage.fromarray(pixels.astype(np.float32)).resize(size, PilImage.Resampling.LANCZOS)
    return np.array(grown).round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
