"""Training crops of a source, cut anew at every draw.

Each row of a batch is a function of the seed, the batch's number and the row's alone, so that a
resumed run sees what the uninterrupted one would have seen, and each process of several its share.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug import tone
from simgan_aug.config import Data
from simgan_aug.data.decoded import THREADS, ahead
from simgan_aug.data.source import Source
from simgan_aug.errors import DataError
from simgan_aug.pixels import Pixels
from simgan_aug.training import Batch

Array = np.ndarray[Any, Any]

AHEAD = 4
"""Batches whose images are decoded before they are needed, while they fit into `AHEAD_BYTES`."""

AHEAD_BYTES = 2**28

POOL = 512
"""Images that crops are drawn from at a time where `data.reuse` asks for that."""

TONES = 2**14
"""Histograms of whole images that are kept, 3 KiB each in colour."""


_NO_ROW = 2**31

_NUMBERS = 8
"""Draws of a row, at most."""


class _Uniforms:
    """The draws of a row, of numbers from [0, 1) that are drawn for all rows of a batch at once: a
    generator for each would take longer than all else that is done for it."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers = iter(numbers)

    def random(self) -> float:
        return next(self._numbers)

    def integers(self, high: int, /) -> int:
        return int(self.random() * high)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()


@dataclass(frozen=True)
class _Row:
    """One crop to be: its draws, and the image that they have hit."""

    rng: _Uniforms
    index: int
    image: Array
    weights: Array | None


class _Window(NamedTuple):
    rows: slice
    columns: slice
    is_mirrored: bool

    def of(self, image: Array) -> Array:
        """What is seen through it of (H, W, C)."""
        seen = image[self.rows, self.columns]
        # A view from right to left would be copied pixel by pixel, in seven times the time.
        return cv2.flip(seen, 1).reshape(seen.shape) if self.is_mirrored else seen


class Batches(Iterator[Batch]):
    """Batches, of which some can be made before their turn: what cannot be read shows then."""

    def __init__(self, coming: Iterator[Batch]) -> None:
        self._coming, self._ready = coming, deque[Batch]()
        self._error: DataError | None = None

    def fetch(self, count: int) -> None:
        """Make the next ones.

        Raises:
            DataError: an image cannot be read; names it.
        """
        while len(self._ready) < count:
            if self._error is not None:
                raise self._error
            self._ready.append(next(self._coming))

    def prepare(self, count: int) -> None:
        """Make them while a GPU works; what cannot be read shows when it is fetched."""
        try:
            self.fetch(count)
        except DataError as error:
            self._error = error

    def __next__(self) -> Batch:
        """The next batch; raises as `fetch`."""
        self.fetch(1)
        return self._ready.popleft()


class Crops:
    """Random crops of a source, batch by number.

    Args:
        source: where they come from.
        config: crop size, scale, flip, reuse.
        batch_size: images a batch.
        seed: of all draws.
        bank: (K, C, Q) tones; each crop gets one of them as its reference.
        own_tone: each crop gets its own image's tone as its reference, as is right for real photos.
        match: match each crop to its reference; the curve is that of its whole image.
        candidates: crops drawn for each row of a batch, one after the other.
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
        candidates: int = 1,
    ) -> None:
        self.source, self.config, self.batch_size, self.seed = source, config, batch_size, seed
        self.bank, self.match, self.own_tone = bank, match, own_tone
        self.candidates = candidates
        self._histograms: dict[int, Tensor] = {}

    def batches(self, start: int = 0, rows: slice | None = None) -> Batches:
        """Endless batches from number `start`; of each these rows alone, None: all."""
        wanted = range(self.batch_size)[rows or slice(None)]
        return Batches(self._batches(start, wanted))

    def _batches(self, start: int, wanted: range) -> Iterator[Batch]:
        hits = (hit for number in itertools.count(start) for hit in self._hits(number, wanted))
        rows = map(self._row, hits) if self.source.is_held else ahead(self._row, hits, self._ahead)
        while True:
            yield self._batch(list(itertools.islice(rows, len(wanted) * self.candidates)))

    def _hits(self, number: int, wanted: range) -> Iterator[tuple[_Uniforms, int]]:
        """The draws of these rows, and the image that each has hit."""
        shape = (self.batch_size, self.candidates, _NUMBERS)
        drawn = np.random.default_rng([self.seed, number]).random(shape)
        for numbers in drawn[list(wanted)].reshape(-1, _NUMBERS).tolist():
            yield self._hit(number, _Uniforms(numbers))

    def _hit(self, number: int, rng: _Uniforms) -> tuple[_Uniforms, int]:
        if self.config.reuse == 1 or len(self.source.images) <= POOL:
            return rng, self.source.draw(rng)
        # An endless row of images drawn at random; the batch looks at POOL of them.
        oldest = number * self.batch_size // self.config.reuse
        place = oldest + rng.integers(POOL)
        return rng, self.source.draw(np.random.default_rng([self.seed, place, _NO_ROW]))

    def _row(self, hit: tuple[_Uniforms, int]) -> _Row:
        image, weights = self.source.images[hit[1]], self.source.weights
        return _Row(*hit, image, None if weights is None else weights[hit[1]])

    @property
    def _ahead(self) -> int:
        """Images decoded before they are needed."""
        room = AHEAD_BYTES // max(1, self.source.images[0].nbytes)
        return max(THREADS, min(AHEAD * self.batch_size, room))

    def _batch(self, rows: Sequence[_Row]) -> Batch:
        windows = [self._window(row.image.shape[0], row.image.shape[1], row.rng) for row in rows]
        images = self._cut([row.image for row in rows], windows)  # (B, C, h, w) in [0, 1]
        weights = [row.weights[..., None] for row in rows if row.weights is not None]
        reference = self._references(rows)
        if reference is not None and self.bank is not None and self.match:
            images = self._matched(images, rows, reference)
        return Batch(
            images=images.mul(2).sub_(1),
            weights=self._cut(weights, windows) if weights else None,
            reference=None if reference is None else reference * 2 - 1,
        )

    def _window(self, height: int, width: int, rng: _Uniforms) -> _Window:
        """A window of the image that becomes the crop when it is resized by the drawn scale."""
        scale = rng.uniform(*self.config.scale)
        scale = max(scale, self.config.crop[0] / height, self.config.crop[1] / width)
        sides = (
            min(length, max(1, round(side / scale)))
            for side, length in zip(self.config.crop, (height, width), strict=True)
        )
        rows, columns = sides
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        mirrored = self.config.flip and rng.random() < 0.5
        return _Window(slice(top, top + rows), slice(left, left + columns), mirrored)

    def _cut(self, images: Sequence[Array], windows: Sequence[_Window]) -> Tensor:
        """A window of each (H, W, C), in the size of a crop: (B, C, h, w) in [0, 1]."""
        cuts = [w.of(image) for image, w in zip(images, windows, strict=True)]
        if all(cut.shape[:2] == self.config.crop for cut in cuts):
            return self._unit(np.stack(cuts))  # at once, which is faster
        sized = []
        for cut in cuts:
            crop = self._unit(cut[None])
            if cut.shape[:2] != self.config.crop:
                crop = F.interpolate(crop, self.config.crop, mode="bilinear", antialias=True)
            sized.append(crop)
        return torch.cat(sized)

    def _references(self, rows: Sequence[_Row]) -> Tensor | None:
        """A tone of the bank for each row, or its own; (B, C, Q) in [0, 1]."""
        if self.bank is not None:
            return self.bank[[row.rng.integers(len(self.bank)) for row in rows]]
        if not self.own_tone:
            return None
        counts = self._counts(rows)
        return tone.quantiles(counts.flatten(0, 1)).view(*counts.shape[:2], -1)

    def _matched(self, crops: Tensor, rows: Sequence[_Row], reference: Tensor) -> Tensor:
        curves = tone.tone_curve(self._counts(rows).flatten(0, 1), reference.flatten(0, 1))
        return tone.apply_curve(crops.flatten(0, 1), curves).view(crops.shape)

    def _counts(self, rows: Sequence[_Row]) -> Tensor:
        """Histograms of the whole images, (B, C, LEVELS)."""
        if len(self._histograms) > TONES:
            self._histograms.clear()
        for row in rows:
            if row.index not in self._histograms:
                self._histograms[row.index] = tone.histogram(self._unit(row.image[None])[0])
        return torch.stack([self._histograms[row.index] for row in rows])

    def _unit(self, pixels: Array) -> Tensor:
        """(B, H, W, C) of a file -> (B, C, H, W) float32 in [0, 1]; weights stay weights."""
        if pixels.dtype == np.float16:
            return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 1)
        return Pixels(pixels, pixels.shape[3], white=self.config.white).colour()


def tone_bank(real: Source, photos: int, seed: int, white: int = 0) -> Tensor | None:
    """Tones of `photos` real photos drawn by seed, (K, C, Q).

    None for 0; all of them if there are fewer. `white` is that of `Data`.
    """
    if not photos:
        return None
    chosen = real.some(photos, np.random.default_rng([seed, 1]))
    channels = real.channels
    seen = (Pixels(real.images[index], channels, white=white).colour()[0] for index in chosen)
    return torch.stack([tone.quantiles(tone.histogram(photo)) for photo in seen])
