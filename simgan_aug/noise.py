"""The noise that a refiner sees beside an image: by its seed alone, the same on every device.

It is counted, not drawn one after the other: a value is a hash of its place and of two numbers that
the seed draws, so that a GPU makes it where it is used, in no time, and a CPU as fast as torch's
generator would. (As Philox does: Salmon et al., SC 2011; the hash is "lowbias32",
https://nullprogram.com/blog/2018/07/31/, in whole numbers of 32 bits, in which all devices agree.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from simgan_aug import draws

BITS = 16
"""Of a hash that pick a quantile of the normal distribution; the outermost are 4.3 apart from 0."""


def keys(seeds: Sequence[int]) -> Tensor:
    """What seeds draw for `of_keys`, (N, 2) int32: a factor, which is odd, and an offset."""
    pairs = draws.bits(seeds, draws.NOISE).astype("<u8").view("<i4").reshape(-1, 2)
    numbers = torch.from_numpy(pairs.astype(np.int32))
    numbers[:, 0] |= 1
    return numbers


def of_keys(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of keys, (N, *shape) float32, where they are; products wrap around."""
    factor, offset = keys.unbind(1)
    places = torch.arange(math.prod(shape), dtype=torch.int32, device=keys.device)
    hashed = _hashed(places * factor[:, None] + offset[:, None])
    picked = hashed.bitwise_right_shift_(32 - BITS).bitwise_and_(2**BITS - 1)
    known: Tensor = quantiles(keys.device)
    return known.index_select(0, picked.flatten()).view(-1, *shape)


def _hashed(values: Tensor) -> Tensor:
    """Of whole numbers of 32 bits, in place; lowbias32 has one more step, for other bits."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        values ^= (values >> shift).bitwise_and_(2 ** (32 - shift) - 1)  # a shift without the sign
        values *= factor
    return values


@functools.cache
def quantiles(device: torch.device) -> Tensor:
    """Of the standard normal distribution, in the middle of so many equal parts; kept for good, as
    a recording may read them."""
    middles = (torch.arange(2**BITS, dtype=torch.float64, device="cpu") + 0.5) / 2**BITS
    values: Tensor = torch.special.ndtri(middles).float()
    return values.to(device)
