"""Tone: give an image the colour statistics of a real photo.

The mean and the covariance of the colours are moved to those of the photo by the linear map that
changes colours least (Pitié and Kokaram, "The linear Monge-Kantorovitch linear colour mapping for
example-based colour transfer", CVMP 2007, section 3). After the network, which has made both sides
alike, it adds what one refined form lacks, the spread of the real photos; matching the histogram of
each channel does so as well, but tears flat areas into steps and skin into colours
(examples/study/RESULTS.md). The map is the same everywhere, affine, and turns no contrast around,
so it cannot move an edge. A checkpoint holds these few numbers of each photo and none of its
content.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SAMPLE = 2**16
"""Pixels, on a grid of odd steps, that the tone of an image is taken from."""

LEVELS = 4095
"""Steps of [0, 1] that are told apart; their sums are exact, in whatever order they are taken."""

FLOOR = 1e-4
"""Variance that every colour has at least, of a range of 1: 2.5 levels of 255."""

GAIN = 3.0
"""Contrast in a colour is raised so many times at most, and lowered so many."""


def tone_of(image: Tensor, seen: Tensor | None = None) -> Tensor:
    """The tone of an image: (C, H, W) in [0, 1] -> (C, 1 + C) float32.

    The mean of each channel, and beside it the symmetric root of the covariance of the channels,
    in which a grey image has its standard deviation.

    Args:
        seen: (H, W) bool, pixels that count; None, or none of them: all.
    """
    step = 1
    while image.shape[1] * image.shape[2] > SAMPLE * step**2:
        step += 2
    colours = image[:, ::step, ::step].flatten(1)
    if seen is not None:
        shown = seen[::step, ::step].flatten()
        if bool(shown.any()):
            colours = colours[:, shown]
        elif bool(seen.any()):  # a detail between the grid's points
            colours = image[:, seen]
    levels = (colours.clamp(0, 1) * LEVELS).round().double()  # (C, pixels)
    mean = levels.sum(1, keepdim=True) / levels.shape[1]
    covariance = (levels @ levels.T / levels.shape[1] - mean @ mean.T) / LEVELS**2
    root = _root(covariance + FLOOR * torch.eye(len(levels)).to(covariance))
    return torch.cat([mean / LEVELS, root], dim=1).float()


def transport(source: Tensor, target: Tensor, share: float = 1.0) -> Tensor:
    """The affine map from one tone to another, (C, 1 + C): what is added, then a matrix.

    The matrix is symmetric and positive: no contrast is turned around.

    Args:
        source, target: (C, 1 + C) from `tone_of`.
        share: of the way there, in [0, 1].
    """
    start, goal = source.double(), target.double()
    spread, inverse = start[:, 1:], torch.linalg.inv(start[:, 1:])
    matrix = inverse @ _root(spread @ goal[:, 1:] @ goal[:, 1:] @ spread) @ inverse
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    matrix = (vectors * values.clamp(1 / GAIN, GAIN)) @ vectors.T
    matrix = torch.lerp(torch.eye(len(matrix)).to(matrix), matrix, share)
    mean = start[:, :1]
    return torch.cat([torch.lerp(mean, goal[:, :1], share) - matrix @ mean, matrix], 1).float()


def recoloured(image: Tensor, change: Tensor) -> Tensor:
    """An image through a map: (C, H, W) in [0, 1], (C, 1 + C) from `transport` -> the same."""
    colours = change[:, :1, None]
    # Channel by channel: what a pixel becomes does not depend on how a product is cut into blocks.
    for channel, column in zip(image, change[:, 1:].T, strict=True):
        colours = torch.addcmul(colours, channel[None], column[:, None, None])
    return colours.clamp_(0, 1)


def matched(
    image: Tensor, reference: Tensor, share: float = 1.0, seen: Tensor | None = None
) -> Tensor:
    """An image in the tone of a reference.

    Args:
        image: (C, H, W) in [0, 1].
        reference: (C, 1 + C) from `tone_of`.
        share: of the way there, in [0, 1].
        seen: (H, W) bool, pixels whose tone counts; what alpha hides has none.
    """
    return recoloured(image, transport(tone_of(image, seen), reference, share))


def pick(bank: Tensor, seed: int) -> Tensor:
    """The reference that belongs to a seed: (K, C, 1 + C) -> (C, 1 + C)."""
    return bank[int(_draws(seed).integers(len(bank)))]


def pick_share(shares: tuple[float, float], seed: int) -> float:
    """The share of the match that belongs to a seed, between two ends."""
    return float(_draws(seed, 1).uniform(*shares))


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric, positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _draws(seed: int, stream: int = 0) -> np.random.Generator:
    """Apart from the noise of the same seed."""
    return np.random.default_rng([seed % 2**64, 0x746F6E65 + stream])
