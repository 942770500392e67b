"""The scale of features, in which distances between two sets are measured."""

from __future__ import annotations

from torch import Tensor


def scale_of(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature of a set, (N, F) to (F,) each.

    A deviation is no less than a tenth of the median one: a feature that is dead in this set is no
    reason to blow another set up.
    """
    spread = points.std(0) + 1e-6
    return points.mean(0), spread.clamp(min=float(spread.median()) / 10)
