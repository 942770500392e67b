"""Image sources for training: decoded once, held as they were, cropped anew at every draw.

A batch is a function of the seed and its number alone, so that a resumed run sees what the
uninterrupted one would have seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor
from torch.nn import functional as F

from simgan_aug import coco, tone
from simgan_aug.config import Data
from simgan_aug.errors import DataError
from simgan_aug.folders import list_images
from simgan_aug.imagefile import read_image, upright
from simgan_aug.pixels import LUMA, Pixels
from simgan_aug.training import Batch

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
    coco.check_weights(label_weights, labels.categories)
    by_name: dict[str, list[coco.Annotation]] = {name: [] for name in names}
    for image in listed:  # a file may be listed under several ids
        by_name[image.file_name] += labels.by_image.get(image.id, [])
    weights = [
        coco.weight_map(by_name[name], labels.categories, label_weights, *image.shape[:2]).astype(
            np.float16
        )
        for name, image in zip(source.names, source.images, strict=True)
    ]
    return dataclasses.replace(source, weights=weights)


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


class Crops:
    """Random crops of a source, batch by number.

    Args:
        source: decoded images.
        config: crop size, scale, flip.
        batch_size: images a batch.
        seed: of all draws.
        bank: (K, C, Q) tones; each crop gets one of them as its reference.
        own_tone: each crop gets its own image's tone as its reference, as is right for real photos.
        match: match each crop to its reference; the curve is that of its whole image.
    """

    def __init__(
        self,
        source: Source,
        config: Data,
        batch_size: int,
        seed: int,
        bank: Tensor | None = None,
        match: bool = False,
        own_tone: bool = False,
    ) -> None:
        self.source, self.config, self.batch_size, self.seed = source, config, batch_size, seed
        self.bank, self.match, self.own_tone = bank, match, own_tone
        self._histograms: dict[int, Tensor] = {}

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Endless batches from number `start`."""
        number = start
        while True:
            rng = np.random.default_rng([self.seed, number])
            drawn = [self._crop(rng) for _ in range(self.batch_size)]
            images, weights, references = (list(column) for column in zip(*drawn, strict=True))
            yield Batch(
                images=torch.stack(images) * 2 - 1,
                weights=None if weights[0] is None else torch.stack(weights),
                reference=None if references[0] is None else torch.stack(references) * 2 - 1,
            )
            number += 1

    def _crop(self, rng: np.random.Generator) -> tuple[Tensor, Tensor | None, Tensor | None]:
        index = int(rng.integers(len(self.source.images)))
        image = self.source.images[index]
        rows, columns = self._window(image.shape[0], image.shape[1], rng)
        mirrored = self.config.flip and rng.random() < 0.5
        crop = self._cut(image, rows, columns, mirrored)
        weights = None
        if self.source.weights is not None:
            weights = self._cut(self.source.weights[index][..., None], rows, columns, mirrored)
        if self.bank is None:
            own = tone.quantiles(self._histogram(index)) if self.own_tone else None
            return crop, weights, own
        reference = self.bank[int(rng.integers(len(self.bank)))]
        if self.match:
            crop = tone.apply_curve(crop, tone.tone_curve(self._histogram(index), reference))
        return crop, weights, reference

    def _window(self, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """A window of the image that becomes the crop when it is resized by the drawn scale."""
        scale = float(rng.uniform(*self.config.scale))
        scale = max(scale, self.config.crop[0] / height, self.config.crop[1] / width)
        sides = (
            min(length, max(1, round(side / scale)))
            for side, length in zip(self.config.crop, (height, width), strict=True)
        )
        rows, columns = sides
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        return slice(top, top + rows), slice(left, left + columns)

    def _cut(self, image: Array, rows: slice, columns: slice, mirrored: bool) -> Tensor:
        cut = image[rows, columns][:, ::-1] if mirrored else image[rows, columns]
        crop = _unit(cut.copy())  # ascontiguousarray would leave one mirrored pixel as it is
        if crop.shape[1:] != self.config.crop:
            crop = F.interpolate(crop[None], self.config.crop, mode="bilinear", antialias=True)[0]
        return crop

    def _histogram(self, index: int) -> Tensor:
        if index not in self._histograms:
            self._histograms[index] = tone.histogram(_unit(self.source.images[index]))
        return self._histograms[index]


def tone_bank(real: Source, photos: int, seed: int) -> Tensor | None:
    """Tones of `photos` real photos drawn by seed, (K, C, Q).

    None for 0; all of them if there are fewer.
    """
    if not photos:
        return None
    chosen = np.random.default_rng([seed, 1]).permutation(len(real.images))[:photos]
    return torch.stack(
        [tone.quantiles(tone.histogram(_unit(real.images[index]))) for index in sorted(chosen)]
    )


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


def _unit(pixels: Array) -> Tensor:
    """(H, W, C) of a file's dtype -> (C, H, W) float32 in [0, 1]; weights stay what they are."""
    if pixels.dtype == np.float16:
        return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0)
    return Pixels(pixels, pixels.shape[2]).colour()[0]


__all__ = ["Crops", "Source", "read_real", "read_synthetic", "tone_bank"]
