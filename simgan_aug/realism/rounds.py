"""Which images are held against which: halves of the real ones, and as many of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from simgan_aug.errors import DataError
from simgan_aug.realism.resampling import LEAST
from simgan_aug.realism.sample import Sample, partners

Array = np.ndarray[Any, Any]


class Round(NamedTuple):
    """Rows of each sample that are compared, as many of each."""

    real: Array
    """One half of the real images, which all else is held against."""
    floor: Array
    """Of the other half."""
    ceiling: Array
    """Of the synthetic images."""
    refined: Array | None
    """Forms of the same synthetic images, where they are known by name."""


def draw_rounds(
    samples: Mapping[str, Sample],
    labels: Mapping[str, Array],
    repeats: int,
    rng: np.random.Generator,
) -> list[Round]:
    """The rows of each repeat, all of equal number, group after group.

    Args:
        samples: "synthetic", "real" and maybe "refined".
        labels: the groups of their images, numbers that they share.
        repeats: how many.
        rng: what is drawn from.

    Raises:
        DataError: fewer than 8 groups on a side.
    """
    pairs: dict[int, int] = {}
    if "refined" in samples:
        pairs = partners(samples["synthetic"].sources, samples["refined"].sources)
    for name, rows in labels.items():
        _check(name, rows, LEAST * (2 if name == "real" else 1))
    halves = [_halves(labels["real"], rng) for _ in range(repeats)]
    count = min(len(half) for pair in halves for half in pair)
    count = min([count] + [len(rows) for name, rows in labels.items() if name != "real"])
    rounds = []
    for one, other in halves:
        ceiling = _by_group(labels["synthetic"], rng)[:count]
        refined = None
        if pairs:
            refined = np.array([pairs[row] for row in ceiling.tolist()])
        elif "refined" in samples:
            refined = _by_group(labels["refined"], rng)[:count]
        drawn = Round(one[:count], other[:count], ceiling, refined)
        for name, picked in zip(("real", "real", "synthetic", "refined"), drawn, strict=True):
            if picked is not None:
                _check(name, labels[name][picked], LEAST)
        rounds.append(drawn)
    return rounds


def _check(name: str, labels: Array, least: int) -> None:
    count = len(np.unique(labels))
    if count < least:
        raise DataError(
            f"expected at least {least} groups of {name} images, got {len(labels)} images in "
            f"{count}: those of one group are no independent evidence; give more images, or say "
            "which belong together (groups)"
        )


def _halves(labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows of two halves without a group in common, each in an order by groups."""
    halves: tuple[list[int], list[int]] = ([], [])
    for group in rng.permutation(np.unique(labels)):
        min(halves, key=len).extend(np.flatnonzero(labels == group).tolist())
    return np.array(halves[0], dtype=np.int64), np.array(halves[1], dtype=np.int64)


def _by_group(labels: Array, rng: np.random.Generator) -> Array:
    """All rows, group after group, the groups in a random order."""
    places = rng.permutation(int(labels.max()) + 1)
    rows: Array = np.argsort(places[labels], kind="stable")
    return rows
