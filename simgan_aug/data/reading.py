"""Images of several listings under one numbering: decoded, checked, and made alike."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PilImage

from simgan_aug.coco import CocoImage, check_size
from simgan_aug.config import Data
from simgan_aug.data.decoded import THREADS, ahead
from simgan_aug.data.listings import Listing
from simgan_aug.errors import DataError
from simgan_aug.geometry import weight_map
from simgan_aug.imagefile import decode_image, upright
from simgan_aug.labels import Labels, decoded
from simgan_aug.pixels import LUMA

Array = np.ndarray[Any, Any]


class Mixed(DataError):
    """An image is not of the kind of those before it."""


class Reader:
    """Decodes images by number; does so in any thread.

    Args:
        listings: where they are, numbered one after the other.
        config: `channels` is used.
        upright: turn images as their orientation tag says, as is right for photos; sizes that a
            COCO file states are then not held against them.
        shorter: shrink images whose shorter side has more px to it.
        labels: of each listing, for `weight`.
        label_weights: how much a label's pixels count, by category.
    """

    def __init__(
        self,
        listings: Sequence[Listing],
        config: Data,
        *,
        upright: bool = False,
        shorter: int | None = None,
        labels: Sequence[Labels] = (),
        label_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.listings, self.config = listings, config
        self.starts = [0, *accumulate(len(listing.names) for listing in listings)]
        self._upright, self._shorter = upright, shorter
        self.labels, self._label_weights = labels, label_weights or {}
        self._kind: tuple[int, np.dtype[Any]] | None = None

    def __len__(self) -> int:
        """How many images there are."""
        return self.starts[-1]

    @property
    def is_weighted(self) -> bool:
        """Whether there are weights by label."""
        return bool(self._label_weights)

    def stated(self) -> Array | None:
        """(N, 2) height and width of all images as COCO files state them; None: not of all."""
        stated = [listing.stated for listing in self.listings if listing.stated is not None]
        if self._upright or len(stated) < len(self.listings):
            return None
        sizes = np.concatenate(stated)
        return None if np.isnan(sizes).any() else sizes

    def find(self, index: int) -> tuple[int, int]:
        """The number of the listing that an image is in, and the image's number there."""
        place = bisect_right(self.starts, index) - 1
        return place, index - self.starts[place]

    def title(self, index: int) -> str:
        """Where an image lies."""
        place, number = self.find(index)
        return self.listings[place].title(number)

    def image(self, index: int) -> Array:
        """An image, (H, W, C), in the channels asked for, else of the first image; without alpha.

        Raises:
            DataError: it is missing, unreadable, of another size than stated, or (`Mixed`) of
                another kind than the first.
        """
        place, number = self.find(index)
        listing = self.listings[place]
        file = decode_image(listing.content(number), self.title(index), quiet=False)
        pixels = upright(file) if self._upright else file.pixels
        if listing.stated is not None and not self._upright:
            height, width = (None if np.isnan(s) else float(s) for s in listing.stated[number])
            stated = CocoImage(0, self.title(index), width, height)
            check_size(stated, *pixels.shape[:2])
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        pixels = pixels[..., : self._colours(pixels, index)]
        channels = self._settled(pixels, index)
        return _converted(_shrunk(pixels, self._shorter), channels)

    def weight(self, index: int, images: Sequence[Array]) -> Array:
        """How much the change of each pixel of an image counts, (H, W) float16.

        Args:
            index: of the image.
            images: looked at for a size that is not stated.

        Raises:
            DataError: a label cannot be decoded.
        """
        place, number = self.find(index)
        listing, labels = self.listings[place], self.labels[place]
        stated = (np.nan, np.nan) if listing.stated is None else listing.stated[number]
        height, width = map(float, stated)
        if not (height.is_integer() and width.is_integer()):
            height, width = images[index].shape[:2]
        try:
            found = decoded(labels.of(listing.names[number]))
            made = weight_map(
                found, labels.categories, self._label_weights, int(height), int(width)
            )
        except DataError as error:
            raise DataError(f"{self.title(index)}: {error}") from None
        return made.astype(np.float16)

    def _colours(self, pixels: Array, index: int) -> int:
        """How many channels of an image, (H, W, C), are seen; the rest is alpha."""
        present = pixels.shape[2]
        if self.config.channels != ALL:
            return 3 if present >= 3 else 1
        if present != ALL:
            raise DataError(
                f"{self.title(index)}: has {present} channel(s), and data.channels = {ALL} "
                f"(--channels) takes images of {ALL}, such as RGBA whose alpha is depth or infrared"
            )
        return ALL

    def _settled(self, pixels: Array, index: int) -> int:
        """The channels that images are to have; the first image says what all are."""
        colours = pixels.shape[2]
        if self._kind is None:
            self._kind = (colours, pixels.dtype)
        if not self.config.channels and colours != self._kind[0]:
            kinds = "is grey, others are in colour" if colours == 1 else "is in colour, others grey"
            raise Mixed(f"{self.title(index)}: {kinds}{CHANNELS}")
        if pixels.dtype != self._kind[1]:
            bits = 8 * pixels.dtype.itemsize, 8 * self._kind[1].itemsize
            raise DataError(
                f"{self.title(index)}: has {bits[0]} bits a channel, others have {bits[1]}: images "
                "of 8 and of 16 bits are mixed; convert them to one kind"
            )
        return self.config.channels or self._kind[0]


ALL = 4
"""Of `Data.channels`: no channel is alpha."""

CHANNELS = ": set data.channels to 3 or 1 (--channels) to convert them"


class Looked(NamedTuple):
    """What some images are like."""

    sizes: Array
    """Height and width in px, (N, 2)."""
    bytes: float
    """Mean length, decoded, with weights."""
    highest: int
    """Level of any, if they have 16 bits; else 0."""


def look(
    reader: Reader, images: Sequence[Array], weights: Sequence[Array] | None, indices: Sequence[int]
) -> Looked:
    """Decode some images with their weights.

    Raises:
        DataError: as `Reader.image`; of grey images among others it says how many there are.
    """

    def looked(index: int) -> tuple[int, int, int, int] | None:
        try:
            image = images[index]
        except Mixed:
            return None
        more = 0 if weights is None else weights[index].nbytes
        highest = int(image.max()) if image.dtype == np.uint16 else 0
        return image.shape[0], image.shape[1], image.nbytes + more, highest

    rows = [looked(indices[0]), *ahead(looked, indices[1:], 2 * THREADS)]  # the first settles all
    others = [index for index, row in zip(indices, rows, strict=True) if row is None]
    if others:
        raise _mixed(reader, images[indices[0]].shape[2], indices, others)
    found = np.array(rows)
    return Looked(found[:, :2], float(found[:, 2].mean()), int(found[:, 3].max()))


def _mixed(
    reader: Reader, colours: int, indices: Sequence[int], others: Sequence[int]
) -> DataError:
    first_is_grey = colours == 1
    grey = len(indices) - len(others) if first_is_grey else len(others)
    example = reader.title(indices[0] if first_is_grey else others[0])
    return DataError(
        f"{grey} of {len(indices)} images are grey (such as {example}), the others in colour"
        f"{CHANNELS}"
    )


def _converted(image: Array, wanted: int) -> Array:
    if image.shape[2] == wanted:
        return np.ascontiguousarray(image)  # not a view that holds an alpha in memory
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
    if pixels.dtype == np.uint8 and pixels.shape[2] < ALL:  # of four Pillow weighs by the last
        shown = PilImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        made = np.array(shown.resize(size, PilImage.Resampling.LANCZOS))
        return made if made.ndim == 3 else made[..., None]
    return _stacked(pixels, size)


def _stacked(pixels: Array, size: tuple[int, int]) -> Array:
    """Resized channel by channel, as Pillow has no deep colour."""
    channels = [
        np.array(PilImage.fromarray(channel).resize(size, PilImage.Resampling.LANCZOS))
        for channel in np.moveaxis(pixels.astype(np.float32), 2, 0)
    ]
    limit = np.iinfo(pixels.dtype).max
    made: Array = np.stack(channels, axis=2).round().clip(0, limit).astype(pixels.dtype)
    return made
