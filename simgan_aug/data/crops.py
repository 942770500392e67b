"""Training crops of a source, cut anew at every draw.

A batch is a function of the seed and its number alone, so that a resumed run sees what the
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug import tone
from simgan_aug.config import Data
from simgan_aug.data.sources import Source
from simgan_aug.pixels import Pixels
from simgan_aug.training import Batch

Array = np.ndarray[Any, Any]


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


def _unit(pixels: Array) -> Tensor:
    """(H, W, C) of a file's dtype -> (C, H, W) float32 in [0, 1]; weights stay what they are."""
    if pixels.dtype == np.float16:
        return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0)
    return Pixels(pixels, pixels.shape[2]).colour()[0]
