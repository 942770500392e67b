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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug import tone
from simgan_aug.bank import Bank
from simgan_aug.config import Data
from simgan_aug.data.decoded import THREADS, ahead
from simgan_aug.data.resident import Resident
from simgan_aug.data.source import Source
from simgan_aug.data.windows import Windows
from simgan_aug.devices import uploaded
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

_WINDOW, _REFERENCE, _IMAGE, _PLACE = slice(1, 5), 5, [0, 6], 7
"""Which of a row's draws decide what."""

_NUMBERS = 8
"""Draws of a row: of all rows of a batch at once, as a generator for each would take longer than
all else that is done for it."""


@dataclass(frozen=True)
class _Rows:
    """Crops to be: their draws, and the images that they have hit."""

    numbers: Array
    """(B, _NUMBERS) from [0, 1)."""
    indices: Array
    """(B,) int64."""


class _Read(NamedTuple):
    """An image that a row has hit."""

    image: Array
    weights: Array | None
    """(H, W, 1)."""
    counts: Tensor | None
    """Histogram of the whole image, where one is asked for."""


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
        bank: tones of photos; each crop gets one of them as its reference, by the tone of its whole
            image.
        own_tone: each crop gets its own image's tone as its reference, as is right for real photos.
        match: match each crop to its reference; the curve is that of its whole image.
        candidates: crops drawn for each row of a batch, one after the other.
        resident: the source on a device, where crops are then cut, the same ones, and batches are;
            it cannot `match`.
    """

    def __init__(
        self,
        source: Source,
        config: Data,
        batch_size: int,
        seed: int,
        bank: Bank | None = None,
        match: bool = False,
        own_tone: bool = False,
        candidates: int = 1,
        resident: Resident | None = None,
    ) -> None:
        self.source, self.config, self.batch_size, self.seed = source, config, batch_size, seed
        self.bank, self.match, self.own_tone = bank, match and bank is not None, own_tone
        self.candidates = candidates
        self._resident = resident
        self._histograms: dict[int, Tensor] = {}

    def batches(self, start: int = 0, rows: slice | None = None) -> Batches:
        """Endless batches from number `start`; of each these rows alone, None: all."""
        wanted = range(self.batch_size)[rows or slice(None)]
        return Batches(self._batches(start, wanted))

    def _batches(self, start: int, wanted: range) -> Iterator[Batch]:
        coming = (self._rows(number, wanted) for number in itertools.count(start))
        if self._resident is not None:
            return self._cut_there(coming, self._resident)
        return self._cut_here(coming)

    def _cut_there(self, coming: Iterator[_Rows], resident: Resident) -> Iterator[Batch]:
        levels = np.arange(256, dtype=np.uint8)[None, None, :, None]
        # Looked up, for a GPU's own division rounds otherwise.
        shades = self._unit(levels).flatten().mul(2).sub_(1).to(resident.device)
        for rows in coming:
            windows = self._windows(rows, resident.sizes[rows.indices])
            weights = resident.weights(rows.indices, windows)
            read = map(self._read, rows.indices.tolist()) if self._is_counted else ()
            reference = self._references(rows, list(read))
            if reference is not None:
                reference = uploaded(reference * 2 - 1, resident.device)
            yield Batch(
                images=shades[resident.images(rows.indices, windows).long()].movedim(-1, 1),
                weights=None if weights is None else weights.movedim(-1, 1),
                reference=reference,
            )

    def _cut_here(self, coming: Iterator[_Rows]) -> Iterator[Batch]:
        hits, turns = itertools.tee(coming)
        indices = (index for rows in hits for index in rows.indices.tolist())
        held = self.source.is_held
        read = map(self._read, indices) if held else ahead(self._read, indices, self._ahead)
        for rows in turns:
            yield self._batch(rows, list(itertools.islice(read, len(rows.indices))))

    def _rows(self, number: int, wanted: range) -> _Rows:
        """These rows of a batch."""
        shape = (self.batch_size, self.candidates, _NUMBERS)
        drawn = np.random.default_rng([self.seed, number]).random(shape)
        numbers = drawn[list(wanted)].reshape(-1, _NUMBERS)
        return _Rows(numbers, self.source.drawn(self._deciding(number, numbers)))

    @property
    def _is_counted(self) -> bool:
        """Whether the tones of whole images are asked for."""
        return self.own_tone or self.match or (self.bank is not None and self.bank.chooses)

    def _deciding(self, number: int, numbers: Array) -> Array:
        """What decides on the images of rows, (B, 2)."""
        if self.config.reuse == 1 or len(self.source.images) <= POOL:
            return numbers[:, _IMAGE]
        # An endless row of images drawn at random; the batch looks at POOL of them.
        oldest = number * self.batch_size // self.config.reuse % 2**62
        places = oldest + (numbers[:, _PLACE] * POOL).astype(np.int64)
        entries = [[self.seed, place, _NO_ROW] for place in places.tolist()]
        return np.array([np.random.default_rng(entry).random(2) for entry in entries])

    @property
    def _ahead(self) -> int:
        """Images decoded before they are needed."""
        room = AHEAD_BYTES // max(1, self.source.images[0].nbytes)
        return max(THREADS, min(AHEAD * self.batch_size, room))

    def _read(self, index: int) -> _Read:
        """An image, decoded if need be, and what belongs to it."""
        image, weights = self.source.images[index], self.source.weights
        return _Read(
            image,
            None if weights is None else weights[index][..., None],
            self._counted(index, image) if self._is_counted else None,
        )

    def _batch(self, rows: _Rows, read: Sequence[_Read]) -> Batch:
        windows = self._windows(rows, np.array([each.image.shape[:2] for each in read]))
        images = self._sized(windows.of([each.image for each in read]))
        weights = [each.weights for each in read if each.weights is not None]
        reference = self._references(rows, read)
        if reference is not None and self.match:
            images = _matched(images, read, reference)
        return Batch(
            images=images.mul(2).sub_(1),
            weights=self._sized(windows.of(weights)) if weights else None,
            reference=None if reference is None else reference * 2 - 1,
        )

    def _windows(self, rows: _Rows, sizes: Array) -> Windows:
        return Windows.drawn(rows.numbers[:, _WINDOW], sizes, self.config)

    def _sized(self, cuts: Sequence[Array]) -> Tensor:
        """(H, W, C) each, in the size of a crop: (B, C, h, w) in [0, 1]."""
        if all(cut.shape[:2] == self.config.crop for cut in cuts):
            return self._unit(np.stack(cuts))  # at once, which is faster
        sized = []
        for cut in cuts:
            crop = self._unit(cut[None])
            if cut.shape[:2] != self.config.crop:
                crop = F.interpolate(crop, self.config.crop, mode="bilinear", antialias=True)
            sized.append(crop)
        return torch.cat(sized)

    def _references(self, rows: _Rows, read: Sequence[_Read]) -> Tensor | None:
        """A tone of the bank for each row, or its own; (B, C, Q) in [0, 1]."""
        if self.bank is None and not self.own_tone:
            return None
        own = None
        if self._is_counted:
            counts = _counts(read)
            own = tone.quantiles(counts.flatten(0, 1)).view(*counts.shape[:2], -1)
        if self.bank is None:
            return own
        numbers = rows.numbers[:, _REFERENCE]
        if not self.bank.chooses:
            return self.bank.tones[(numbers * len(self.bank)).astype(np.int64)]
        return self.bank.pick(self.bank.drawn((numbers * 2**53).astype(np.uint64)), own)

    def _counted(self, index: int, image: Array) -> Tensor:
        """Histogram of a whole image, (C, LEVELS)."""
        known = self._histograms.get(index)
        if known is None:
            if len(self._histograms) > TONES:
                self._histograms.clear()
            known = self._histograms[index] = tone.histogram(self._unit(image[None])[0])
        return known

    def _unit(self, pixels: Array) -> Tensor:
        """(B, H, W, C) of a file -> (B, C, H, W) float32 in [0, 1]; weights stay weights."""
        if pixels.dtype == np.float16:
            return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 1)
        return Pixels(pixels, pixels.shape[3], white=self.config.white).colour()


def _counts(read: Sequence[_Read]) -> Tensor:
    """Histograms of whole images, (B, C, LEVELS)."""
    return torch.stack([each.counts for each in read if each.counts is not None])


def _matched(crops: Tensor, read: Sequence[_Read], reference: Tensor) -> Tensor:
    curves = tone.tone_curve(_counts(read).flatten(0, 1), reference.flatten(0, 1))
    return tone.apply_curve(crops.flatten(0, 1), curves).view(crops.shape)
