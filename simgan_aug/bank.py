"""The bank: tones of real photos, and which of them an image takes.

In the tone of any other scene no scene is more real: a white sky in the tone of a kitchen is
orange. It should take that of a photo that is like it. Where all renders look alike (hands before a
backdrop), no photo is more like one of them than like another, and what helps is that each is seen
in many tones. One rule does both: of all ways to hand out photos' tones to synthetic images, every
photo as often as any other, that which changes the images least, but for a tolerance. That is
optimal transport with an entropy (Cuturi, NeurIPS 2013, https://arxiv.org/abs/1306.0895): a photo
is taken with a probability that falls with its distance from the image, and rises with a bias of
its own, without which a tone that no render is near would never be seen.

A photo's tone is that of one scene, and a bank holds few: where both sides have the same tones, to
take one would still change images as much as one half of the photos differs from the other. So a
match goes as far as the two sides differ by more than that: the whole way where by twice as much.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simgan_aug import draws
from simgan_aug.tone import LEVELS

TOLERANCE = 10
"""Levels: photos whose tones are closer to an image, root mean square, are about as likely."""

COLOURS = 3
"""Channels that have a tone, at most: a fourth is depth or infrared, and that of another scene is
not this one's."""

SIDE = 64
"""Px each way, about, of the pixels that tell the tone of an image: of more every third, fifth
and so on is looked at."""

ENOUGH = 2
"""Times that two sides are to differ by what halves of one do, root mean square, for a match to go
the whole way."""

FEW, BLOCKS = 8, 8
"""Images that a side is to have for that to be told, and blocks that it is cut into."""

_ROUNDS, _EVEN = 1000, 0.01
"""Of Sinkhorn's algorithm, at most; and how evenly photos are to be taken for it to end before."""

_TINY = 1e-300


@dataclass(frozen=True)
class Bank:
    """Tones of real photos, of which an image takes one."""

    tones: Tensor
    """(K, C, Q) in [0, 1], from `simgan_aug.tone.quantiles`, of an image's first C channels."""
    bias: Tensor | None = None
    """(K,) float32, of the logarithm of each one's chance; None: any is as likely, whatever the
    image."""
    reach: float = 1.0
    """How far a match goes, in [0, 1], from `reach`."""

    def __len__(self) -> int:
        """Photos."""
        return len(self.tones)

    @property
    def chooses(self) -> bool:
        """Whether it matters what an image's own tone is."""
        return self.bias is not None

    @property
    def channels(self) -> int:
        """First channels of an image that have a tone."""
        return self.tones.shape[1]

    def to(self, device: torch.device) -> Bank:
        """The same on a device."""
        bias = None if self.bias is None else self.bias.to(device)
        return Bank(self.tones.to(device), bias, self.reach)

    def drawn(self, seeds: Sequence[int] | draws.Bits) -> Tensor:
        """What seeds draw for `pick`: (N,) numbers of photos, or (N, K) float64, of each photo what
        is added to the logarithm of its chance (Gumbel's trick: the largest sum is drawn, so that
        images that are nearly alike take the same photo by the same seed, nearly always)."""
        if self.bias is None:
            rows = (draws.uniforms(seeds, draws.TONE) * len(self)).astype(np.int64)
            return torch.from_numpy(rows)
        words = draws.bits(seeds, draws.TONE)
        photos = np.arange(len(self), dtype=np.uint64)
        keys = draws.keyed(np.repeat(words, len(photos)), np.tile(photos, len(words)))
        numbers = draws.uniforms(keys, draws.TONE).reshape(len(words), len(photos))
        return torch.from_numpy(-np.log(-np.log1p(-numbers) + _TINY))

    def pick(self, drawn: Tensor, images: Tensor | None) -> Tensor:
        """The tones that images take, (N, C, Q), waiting for nothing.

        Args:
            drawn: from `drawn`.
            images: (N, C, Q), the images' own tones, of C channels or more; None will do where
                there is no bias.
        """
        rows = drawn
        if self.chooses:
            assert images is not None
            rows = (self.logits(images[:, : self.channels]) + drawn).argmax(1)
        return self.tones.index_select(0, rows)  # an index would wake all threads

    def logits(self, images: Tensor) -> Tensor:
        """How likely images are to take each tone, as logarithms but for a constant of each image.

        (N, C, Q) -> (N, K) float64; of a bank with a bias.
        """
        assert self.bias is not None
        return self.bias - self._costs(images)

    def balanced(self, images: Tensor) -> Bank:
        """The same with the bias by which images take all photos as often: Sinkhorn's algorithm.

        Args:
            images: (N, C, Q), tones of synthetic images; the bias is 0 in the mean.
        """
        costs, bias = self._costs(images), torch.zeros(len(self), dtype=torch.float64, device="cpu")
        for _ in range(_ROUNDS):
            taken = torch.log_softmax(bias - costs, dim=1).logsumexp(0)
            uneven = taken - math.log(len(images) / len(self))  # 0 where one has its share
            bias -= uneven
            if uneven.abs().max() < _EVEN:
                break
        return Bank(self.tones, (bias - bias.mean()).float(), self.reach)

    def change(self, images: Tensor) -> float:
        """How much images would change if each took the mean of the tones that it may take: the
        mean square of levels, of (N, C, Q)."""
        wanted = self.logits(images).softmax(1) @ self._known
        return float((wanted - _levels(images)).square().mean())

    def _costs(self, images: Tensor) -> Tensor:
        """What it costs images to take tones, (N, K) float64.

        In units of twice the squared tolerance, the mean square by which their quantiles differ: it
        is how much a whole match would change the image (Wasserstein's distance, squared, by
        channel).
        """
        own, known = _levels(images), self._known
        # By no product of matrices, which torch refuses a GPU where it is to be deterministic.
        apart = torch.cdist(own, known, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.square() / (known.shape[1] * 2 * TOLERANCE**2)

    @functools.cached_property
    def _known(self) -> Tensor:
        return _levels(self.tones)


def reach(images: Tensor, tones: Tensor) -> float:
    """How far a match is to go, by how much more two sides differ than halves of each.

    Args:
        images: (N, C, Q), tones of synthetic images, as they follow on each other.
        tones: (K, C, Q), those of photos, likewise.

    Returns:
        0 where they differ by no more, 1 where by `ENOUGH` times as much, in between as their
        squares; 1, too, where a side has less than `FEW`, which tell nothing.
    """
    if min(len(images), len(tones)) < FEW:
        return 1.0
    sides = [_halves(images), _halves(tones)]

    def change(some: Tensor, others: Tensor) -> float:
        return Bank(others).balanced(some).change(some)

    between = sum(change(*pair) for pair in itertools.product(*sides))
    within = sum(change(*pair) for side in sides for pair in itertools.permutations(side))
    if not within:
        return float(between > 0)
    return min(1.0, max(0.0, between / within - 1) / (ENOUGH**2 - 1))


def _halves(side: Tensor) -> list[Tensor]:
    """Every other block of it, and the others: frames of a video follow on each other, and belong
    into one half; places or days do too, and belong into both."""
    blocks = side.chunk(BLOCKS)
    return [torch.cat(blocks[start::2]) for start in (0, 1)]


def _levels(tones: Tensor) -> Tensor:
    """(N, C, Q) in [0, 1] -> (N, C * Q) float64, whole: sums of squares are the same in any
    order."""
    return (tones.double() * (LEVELS - 1)).round().flatten(1)
