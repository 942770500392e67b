"""Tone: match an image to the colour statistics of a real photo.

Histogram matching with a random real photo per image is free and a strong baseline where both sides
show alike content; where ranks differ (dark hands before a lighter backdrop) it can erase an
object. After the network, which has made both sides alike, it adds what one refined form lacks,
the spread of the real photos (examples/study/RESULTS.md). The statistics kept of a photo are its
quantiles per channel, so a checkpoint holds a bank of photos' tones and none of their content. The
curve is monotone per channel and so cannot move an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug import draws

LEVELS = 256
"""Knots of a tone curve; the values of a uint8 image lie exactly on them."""

QUANTILES = 64
"""Quantiles kept per channel of a reference photo."""

SPREAD = 4
"""Levels to either side over which a rank is a mean, twice."""

Levels = np.ndarray[Any, np.dtype[np.uint8]]


def histogram(image: Tensor, seen: Tensor | None = None) -> Tensor:
    """Counts per channel and level: (C, H, W) in [0, 1] -> (C, LEVELS) float32.

    Args:
        seen: (H, W) bool, pixels that count; None, or none of them: all.
    """
    some = seen is not None and bool(seen.any())
    counts = []
    for channel in image:  # one at a time: indices are of 64 bits
        levels = (channel[seen] if some else channel.flatten()) * (LEVELS - 1)
        counts.append(torch.bincount(levels.round().clamp(0, LEVELS - 1).long(), minlength=LEVELS))
    return torch.stack(counts).float()


def quantiles(counts: Tensor) -> Tensor:
    """The tone of a photo: (C, LEVELS) counts -> (C, QUANTILES) values in [0, 1], ascending."""
    share = _summed(counts) / counts.sum(1, keepdim=True)
    middles = torch.arange(QUANTILES, dtype=torch.float32, device=counts.device) + 0.5
    wanted = (middles / QUANTILES).expand(len(counts), -1)
    levels = torch.searchsorted(share.contiguous(), wanted.contiguous()).clamp(max=LEVELS - 1)
    return levels.float() / (LEVELS - 1)


def tones_of(images: Tensor, seen: Tensor | None = None) -> Tensor:
    """The tones of images: (N, C, H, W) in [0, 1] -> (N, C, QUANTILES).

    Args:
        seen: (N, H, W) bool, pixels that count; None, or none of them: all.
    """
    counts = _histograms(images, seen)
    return quantiles(counts.flatten(0, 1)).view(*counts.shape[:2], -1)


def tone_curve(counts: Tensor, reference: Tensor) -> Tensor:
    """The curve that gives an image the tone of a reference, monotone per channel.

    A level maps to the reference's quantile at the level's *middle* rank, so that a large flat area
    (a backdrop) meets the middle of the reference's flat area and not its upper edge. Of ranks it
    is a mean over some levels around: all of a flat area lies on one level or two, where they leap,
    and grain that no eye would see became speckles of a quarter of the range.

    Args:
        counts: (C, LEVELS) histogram of the image.
        reference: (C, QUANTILES) from `quantiles`.

    Returns:
        (C, LEVELS) values in [0, 1].
    """
    total = counts.sum(1, keepdim=True)
    rank = _spread((_summed(counts) - counts / 2) / total)  # (C, LEVELS) in [0, 1]
    position = (rank * QUANTILES - 0.5).clamp(0, QUANTILES - 1)
    below = position.floor().long()
    above = (below + 1).clamp(max=QUANTILES - 1)
    return torch.lerp(reference.gather(1, below), reference.gather(1, above), position - below)


def apply_curve(image: Tensor, curve: Tensor) -> Tensor:
    """An image through a curve: (C, H, W), (C, LEVELS) -> (C, H, W)."""
    position = (image * (LEVELS - 1)).clamp(0, LEVELS - 1).flatten(1)
    nearest = position.round().long()  # the level that the histogram counted it at
    toned = curve.gather(1, nearest) + (position - nearest) * gain(curve).gather(1, nearest)
    return toned.view_as(image)


def matched(
    image: Tensor, reference: Tensor, share: float = 1.0, seen: Tensor | None = None
) -> Tensor:
    """An image in the tone of a reference, in steps of one of `LEVELS` where its curve is steep.

    Args:
        image: (C, H, W) in [0, 1]; or uint8 on a CPU, which stays so.
        reference: (C, QUANTILES) from `quantiles`.
        share: of the way there, in [0, 1]; below 1 a part of each contrast is kept for certain.
        seen: (H, W) bool, pixels whose tone counts; what alpha hides has none.
    """
    if image.dtype == torch.uint8:
        return _levels_matched(image, reference, share, seen)
    if image.device.type == "cpu":
        return _matched_by_tables(image, reference, share, seen)
    curve = _shared(tone_curve(histogram(image, seen), reference), share)
    channels = zip(image, curve, strict=True)  # one at a time: indices are of 64 bits
    return torch.stack([apply_curve(each[None], row[None])[0] for each, row in channels])


def matched_together(
    images: Tensor, references: Tensor, shares: Tensor, seen: Tensor | None = None
) -> Tensor:
    """`matched` for a batch on a GPU, for which nothing there is waited for.

    Args:
        images: (N, C, H, W) in [0, 1].
        references: (N, C, QUANTILES).
        shares: (N,).
        seen: (N, H, W) bool.
    """
    curves = shared_curves(_histograms(images, seen), references, shares)
    of_channels = zip(images.unbind(1), curves.unbind(1), strict=True)
    return torch.stack([apply_curve(each, curve) for each, curve in of_channels], dim=1)


def shared_curves(counts: Tensor, references: Tensor, shares: Tensor) -> Tensor:
    """The curves of a batch, each a share of the way, (N, C, LEVELS).

    Args:
        counts: (N, C, LEVELS) histograms.
        references: (N, C, QUANTILES).
        shares: (N,).
    """
    curves = tone_curve(counts.flatten(0, 1), references.flatten(0, 1))
    wanted = shares[:, None].expand(-1, counts.shape[1]).reshape(-1, 1)
    return _shared(curves, wanted).view_as(counts)


def _histograms(images: Tensor, seen: Tensor | None) -> Tensor:
    """`histogram` of each image, (N, C, LEVELS), on a GPU by a count that needs no look at values.

    Whole numbers add up to the same in any order; where torch refuses a GPU's `histc` all the same
    (`torch.use_deterministic_algorithms`), each image is looked at.
    """
    if not images.is_cuda or torch.are_deterministic_algorithms_enabled():
        masks = [None] * len(images) if seen is None else list(seen)
        count = histogram if images.is_cuda else _histogram
        return torch.stack([count(*each) for each in zip(images, masks, strict=True)])
    channels = images.shape[1]
    bins = channels * LEVELS
    first = torch.arange(0, bins, LEVELS, device=images.device)[:, None, None]  # of each channel
    levels = (images * (LEVELS - 1)).round_().clamp_(0, LEVELS - 1) + first

    def counted(values: Tensor) -> Tensor:
        return torch.stack([torch.histc(each, bins, -0.5, bins - 0.5) for each in values])

    counts = counted(levels)
    if seen is not None:
        some = counted(torch.where(seen[:, None], levels, -1))  # -1 is in no bin
        counts = torch.where(some.sum(1, keepdim=True) > 0, some, counts)
    return counts.view(-1, channels, LEVELS)


def _levels_matched(image: Tensor, reference: Tensor, share: float, seen: Tensor | None) -> Tensor:
    """`matched` and rounded, in a tenth of the time: there is nothing between levels."""
    levels: Levels = image.movedim(0, -1).contiguous().numpy()  # (H, W, C)
    curve = _shared(tone_curve(_counts(levels, seen), reference), share)
    table = (curve * (LEVELS - 1)).round().to(torch.uint8).T.contiguous().numpy()[None]
    return torch.from_numpy(cv2.LUT(levels, table)).view(levels.shape).movedim(-1, 0)


def _matched_by_tables(
    image: Tensor, reference: Tensor, share: float, seen: Tensor | None
) -> Tensor:
    """`matched`, the same bits: levels are indices of 8 bits, looked up in OpenCV's tables."""
    pixels = image.movedim(0, -1).contiguous()  # (H, W, C)
    level = torch.empty(pixels.shape, dtype=torch.uint8, device=pixels.device)
    bands = _bands(pixels)
    for band in bands:
        level[band] = _positions(pixels[band]).round_()
    levels: Levels = level.numpy()
    curve = _shared(tone_curve(_counts(levels, seen), reference), share)
    tables = [table.T.contiguous().numpy()[None] for table in (gain(curve), curve)]
    toned = torch.empty_like(pixels)
    for band in bands:
        position = _positions(pixels[band])
        slope, base = (_looked_up(levels[band], table) for table in tables)
        torch.add(position.sub_(position.round()).mul_(slope), base, out=toned[band])
    return toned.movedim(-1, 0)


def _bands(pixels: Tensor) -> list[slice]:
    """Rows that a processor's cache holds together, with all that is made of them."""
    rows = max(1, 2**16 // pixels[0].numel())
    return [slice(start, start + rows) for start in range(0, len(pixels), rows)]


def _positions(pixels: Tensor) -> Tensor:
    """On the scale of levels."""
    return (pixels * (LEVELS - 1)).clamp_(0, LEVELS - 1)


def _histogram(image: Tensor, seen: Tensor | None) -> Tensor:
    """`histogram` on a CPU, in a third of the time."""
    levels = _positions(image).round_().to(torch.uint8)
    return _counts(levels.movedim(0, -1).contiguous().numpy(), seen)


def _counts(level: Levels, seen: Tensor | None) -> Tensor:
    """`histogram` of levels, (H, W, C) uint8."""
    some = seen is not None and bool(seen.any())
    mask = seen.numpy().view(np.uint8) if seen is not None and some else None
    counts = [
        cv2.calcHist([level], [channel], mask, [LEVELS], [0, LEVELS]).ravel()
        for channel in range(level.shape[2])
    ]
    return torch.from_numpy(np.stack(counts))


def _looked_up(level: Levels, table: np.ndarray[Any, Any]) -> Tensor:
    """(H, W, C) uint8 in a table (1, LEVELS, C) -> (H, W, C)."""
    return torch.from_numpy(cv2.LUT(level, table)).view(level.shape)


def _spread(ranks: Tensor) -> Tensor:
    """Each the mean of those around it, twice: (C, LEVELS) -> the same; 0 below black, 1 above."""
    for _ in range(2):
        below, above = ranks.new_zeros(len(ranks), SPREAD), ranks.new_ones(len(ranks), SPREAD)
        ranks = F.avg_pool1d(torch.cat([below, ranks, above], dim=1), 2 * SPREAD + 1, 1)
    return ranks


def _summed(counts: Tensor) -> Tensor:
    """Up to each level; as integers, whose sums on a GPU torch knows to be the same each time."""
    return counts.long().cumsum(1).to(counts.dtype)


def _shared(curve: Tensor, share: float | Tensor) -> Tensor:
    """A curve that goes a share of the way; or curves, by (C, 1) of them."""
    levels = torch.linspace(0, 1, LEVELS, dtype=curve.dtype, device=curve.device)
    return torch.lerp(levels.expand_as(curve), curve, share)


def gain(curve: Tensor) -> Tensor:
    """How much of what lies between levels passes: 1 at most, or flat areas would leave theirs.

    (C, LEVELS) -> the same.
    """
    rise = curve.diff(dim=1).clamp(max=1 / (LEVELS - 1))
    return torch.minimum(
        F.pad(rise, (1, 0), mode="replicate"), F.pad(rise, (0, 1), mode="replicate")
    )


def pick_shares(ends: tuple[float, float], seeds: Sequence[int]) -> Tensor:
    """The shares of the match that belong to seeds, between two ends, (N,) float32."""
    low, high = ends
    shares = low + (high - low) * draws.uniforms(seeds, draws.SHARE)
    return torch.from_numpy(shares.astype(np.float32))
