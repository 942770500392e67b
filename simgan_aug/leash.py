"""How tightly labels are held: the weight of contours, turned during training towards a drift.

No one weight fits: what leaves one pair of data as it is lets another paint a second hand beside
the first. Held tightly from the start, colours settle wrongly (a dark hand takes the backdrop's);
so the weight begins low, and grows as far as what is measured asks for (examples/study/RESULTS.md).
What is measured is what comes out, with the tone of photos where images are small enough to be held
whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from simgan_aug.alarms.measures import Array, Box, drift

LOOKS = 40
"""A training has as many, over which the weight grows; a long one has more."""

EVERY = 25
"""Steps between two looks, at most."""

RANGE = (0.02, 4.0)
"""Of the weight. Held more tightly, colours no longer reach where they belong; and where the tone
of a photo alone moves more than the target, tightness is no cure."""

QUICKEST = (0.9, 1.22)
"""Factors on the weight at one look: it grows from 0.1 to 1 within 300 steps, and falls slowly."""

FROM = 1.0
"""A weight from which it grows more slowly."""

SLOWLY = (1.08, 1.12)
"""At one look: to 4 within 450 steps; and within 325, where that would be too late. At 1.22 one
training of eleven was torn down on the way."""

TIGHT = 0.8
"""Share of a training by which a leash that has to be tight is to be so: of ten, the two that were
the last to be so had moved labels furthest (examples/study/RESULTS.md)."""


def between_looks(steps: int) -> int:
    """Steps between two looks of a training of so many adversarial steps.

    A short one is looked at more often, so that its weight has grown as far when it ends: with a
    look every 25 steps, a training of 500 moved labels by 1.8 px (examples/study/RESULTS.md).
    """
    return min(EVERY, max(1, steps // LOOKS))


Refine = Callable[[nn.Module, list[Array], int], list[Array]]
"""A network, images (H, W, C) in [0, 1] and a seed -> the images it makes of them."""


@dataclass(frozen=True, kw_only=True)
class Leash:
    """Measures how far labels have moved in the same images throughout a run, and turns a weight.

    Args:
        images: as the network gets them, (H, W, C) float32 in [0, 1], of any sizes.
        boxes: of the labels in each, x, y, width, height in px.
        refine: how a network refines images.
        target: px that 1 of 20 labels may move.
    """

    images: list[Array]
    boxes: Sequence[Sequence[Box]]
    refine: Refine
    target: float

    def turn(
        self, weight: float, network: nn.Module, seed: int, left: float = math.inf
    ) -> tuple[float, float | None]:
        """The weight to go on with, and the px that were measured; None: it could not be told.

        Args:
            weight: of contours, now.
            network: as it trains; neither its weights nor its mode are changed.
            seed: of the noise.
            left: looks until the leash is to be tight, if it has to be.
        """
        measured = drift(self.images, self.refine(network, self.images, seed), self.boxes)
        if measured is None:
            return weight, None
        return turned(weight, measured, self.target, left), measured


def looks_left(steps: int, of: int) -> float:
    """Looks until a leash is to be tight, after so many adversarial steps of so many in all."""
    return (TIGHT * of - steps) / between_looks(of)


def turned(weight: float, measured: float, target: float, left: float = math.inf) -> float:
    """A weight that is raised where labels drift further than the target, and lowered elsewhere.

    Args:
        weight: now.
        measured, target: px.
        left: looks until the weight is to be at its limit, if it has to be.
    """
    least, most = QUICKEST
    if weight >= FROM:
        in_time = (RANGE[1] / weight) ** (1 / max(1, left))
        most = min(SLOWLY[1], max(SLOWLY[0], in_time))
    factor = min(most, max(least, math.sqrt(measured / target)))
    return min(RANGE[1], max(RANGE[0], weight * factor))
