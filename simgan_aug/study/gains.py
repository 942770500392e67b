"""How much better is one arm than another? Paired by seed and test image, with honest intervals.

Two things vary: the seed (three of them, say) and the test image (hundreds). A bootstrap over three
seeds is far too narrow, so the two parts are kept apart: the variance between seeds with Student's
t of so few, the variance between (groups of) test images with that of so many, and both are added
as Banerjee (Sankhya A 23, 1961) has it, an interval that holds the truth at least as often as it
says. The noise of a single probe is in both parts, which makes it wider still.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEVEL = 0.95
"""Of all intervals, two-sided."""


@dataclass(frozen=True)
class Gain:
    """A difference of means, and where the true one lies with the confidence of `LEVEL`."""

    value: float
    low: float
    high: float


def gain(values: Array, base: Array, groups: Array, share: float = (1 - LEVEL) / 2) -> Gain:
    """How far an arm is above another one.

    Args:
        values, base: (S, n), a value for each seed and test image; of the same seeds and images.
        groups: (n,), equal for test images that belong together, such as frames of a video.
        share: of all cases in which the true gain may lie above `high`, and as many below `low`.

    Returns:
        An interval without ends where there is one seed, or one group, only.
    """
    gaps = np.asarray(values, float) - np.asarray(base, float)
    mean, (seeds, count) = float(gaps.mean()), gaps.shape
    sums = np.bincount(groups, gaps.mean(0) - mean)[np.unique(groups)]
    half = np.inf
    if seeds > 1 and len(sums) > 1:
        by_seed = gaps.mean(1).var(ddof=1) / seeds
        by_image = (sums**2).sum() / count**2 * len(sums) / (len(sums) - 1)
        parts = (by_seed, seeds - 1), (by_image, len(sums) - 1)
        half = sum(variance * student(degrees, share) ** 2 for variance, degrees in parts) ** 0.5
    return Gain(mean, mean - half, mean + half)


def gain_over_best(
    values: Array, baselines: Mapping[str, Array], groups: Array
) -> tuple[str, Gain]:
    """How far an arm is above the best of several others, and the name of that one.

    Which of them is best in truth is not known. So the lower end is the least of all lower ends,
    and the upper end the least of all upper ends, which are widened for being several.
    """
    edge = (1 - LEVEL) / 2
    plain = {name: gain(values, base, groups) for name, base in baselines.items()}
    wide = [gain(values, base, groups, edge / len(plain)) for base in baselines.values()]
    best = min(plain, key=lambda name: plain[name].value)
    low, high = min(each.low for each in plain.values()), min(each.high for each in wide)
    return best, Gain(plain[best].value, low, high)


def chosen(values: Mapping[str, Array], halves: Array) -> tuple[Array, tuple[str, str]]:
    """The values of the augmentation that is best on the *other* half of the test images.

    Args:
        values: by augmentation, (n,) each.
        halves: (n,) bool.

    Returns:
        (n,), and what was chosen for either half.
    """
    names, result = list(values), np.empty(len(halves))
    picked = []
    for half in (False, True):
        best = max(names, key=lambda name: values[name][halves != half].mean())
        result[halves == half] = values[best][halves == half]
        picked.append(best)
    return result, (picked[0], picked[1])


def halved(groups: Array, seed: int = 0) -> Array:
    """Two halves of the test images, (n,) bool, no group in both."""
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]  # large ones first, to come out even
    second, loads = set(), [0, 0]
    for row in order:
        half = int(loads[1] < loads[0])
        loads[half] += int(sizes[row])
        if half:
            second.add(names[row])
    found: Array = np.isin(groups, list(second))
    return found


@functools.cache
def student(degrees: int, share: float) -> float:
    """The value that Student's t of so many degrees of freedom exceeds in this share of cases.

    With t = sqrt(degrees) tan(angle), the angle has the density cos(angle)^(degrees - 1).
    """
    angles = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(angles) ** (degrees - 1)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = float(np.interp(1 - 2 * share, total / total[-1], angles))
    return float(degrees**0.5 * np.tan(angle))
