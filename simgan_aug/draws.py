"""What seeds draw for an image: numbers by seed and purpose, the same everywhere.

They are counted, as in `simgan_aug.noise`: a number is a hash of its seed and of what it is for. To
make a generator of numpy's takes 25 microseconds and more, and three an image were most of what
Python did while a GPU refined it. The hash is splitmix64's, twice (Steele, Lea and Flood,
OOPSLA 2014; https://prng.di.unimi.it/splitmix64.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Bits = np.ndarray[Any, np.dtype[np.uint64]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]

NOISE, TONE, SHARE, CHOICE, VARIANT, STRENGTH, SEED = range(1, 8)
"""Purposes."""

DRAWN = 3
"""Number of what seeds draw, and of the tone step: a seed of another number gives another image."""

_STEP = 0x9E3779B97F4A7C15
_WORD = 2**64
_ADDED, _LAST = np.uint64(_STEP), np.uint64(31)
_ROUNDS = tuple(
    (np.uint64(shift), np.uint64(factor))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
)


def bits(seeds: Sequence[int] | Bits, purpose: int) -> Bits:
    """64 random bits of each seed, (N,); seeds are whole numbers of any size, modulo 2^64."""
    return _mixed(_mixed(_words(seeds)) + np.uint64(purpose * _STEP % _WORD))


def uniforms(seeds: Sequence[int] | Bits, purpose: int) -> Numbers:
    """A number in [0, 1) of each seed, (N,)."""
    return (bits(seeds, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keyed(*parts: Sequence[int] | Bits) -> Bits:
    """A seed for each row of parts, (N,): whole numbers of any size, modulo 2^64, in this order."""
    words = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        words = _mixed(words ^ _words(part))
    return words


def _words(numbers: Sequence[int] | Bits) -> Bits:
    if isinstance(numbers, np.ndarray) and numbers.dtype == np.uint64:
        return numbers
    return np.array([int(number) % _WORD for number in numbers], dtype=np.uint64)


def _mixed(words: Bits) -> Bits:
    """Products and sums wrap around."""
    words = words + _ADDED
    for shift, factor in _ROUNDS:
        words = (words ^ (words >> shift)) * factor
    return words ^ (words >> _LAST)
