"""What a whole data set's audit comes to, gathered image by image."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from simgan_aug.audit.growth import Grown
from simgan_aug.audit.image import ImageAudit, LabelAudit
from simgan_aug.audit.limits import LOW_IS_BAD, MEASURES, Limits
from simgan_aug.displacement import REACH

KEPT = 100
"""Worst labels, and new objects, that are kept by name."""


class Totals:
    """Counts and quantiles of labels, by category and over all; and the worst of them.

    It holds four bytes a number, whatever the size of the images: some 30 MB a million labels.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tallies: dict[str, _Tally] = {}
        self._worst: list[_Kept] = []
        self._appeared: list[_Kept] = []
        self._serial = 0
        self.failed: dict[str, str] = {}
        """Images that could not be audited, and why."""
        self.images = 0
        """Images audited."""
        self.appeared = 0
        """Places where something appeared."""
        self.refused = 0
        """Images that a gate refuses."""
        self._refused: dict[str, list[str]] = {}
        self.grown = Grown(0, 0)
        """Labels that look to reach beyond their boxes."""

    def add(self, name: str, found: ImageAudit) -> None:
        """Count an image."""
        self.images += 1
        more = Grown.of(label.growth for label in found.labels)
        self.grown = Grown(self.grown.number + more.number, self.grown.told + more.told)
        for number, label in enumerate(found.labels):
            self._tallies.setdefault(label.category, _Tally()).add(label)
            entry = {"image": name, **msgspec.to_builtins(label)}
            self._keep(self._worst, severity(label, self._limits), (name, number), entry)
        for number, place in enumerate(found.appeared):
            self.appeared += 1
            self._keep(self._appeared, place["score"], (name, number), {"image": name, **place})
        if found.gates:
            self.refused += 1
            if len(self._refused) < KEPT:
                self._refused[name] = found.gates

    def fail(self, name: str, error: str) -> None:
        """Count an image that could not be audited."""
        self.failed[name] = error

    def summary(self) -> dict[str, Any]:
        """As `audit.json` has it: counts, quantiles, the worst."""
        overall = _Tally.sum(self._tallies.values())
        return {
            "counts": {
                "images": self.images,
                "failed": len(self.failed),
                "labels": overall.labels,
                "rejected": overall.rejected,
                "unmeasurable": overall.unmeasurable,
                "grown": self.grown.number,
                "grown_of": self.grown.told,
                "appeared": self.appeared,
                "refused": self.refused,
            },
            "overall": overall.summary(),
            "categories": {name: t.summary() for name, t in sorted(self._tallies.items())},
            "worst": _sorted(self._worst),
            "appeared": _sorted(self._appeared),
            "refused": dict(sorted(self._refused.items())),
            "failed": dict(sorted(self.failed.items())),
        }

    def _keep(
        self, heap: list[_Kept], rank: float, where: tuple[str, int], entry: dict[str, Any]
    ) -> None:
        push = heapq.heappush if len(heap) < KEPT else heapq.heappushpop
        self._serial += 1
        push(heap, (rank, where, self._serial, entry))


def severity(label: LabelAudit, limits: Limits) -> float:
    """How far beyond its limits a label is: 1 at a limit, more beyond it."""
    worst = 0.0
    for measure in MEASURES:
        value, limit = value_of(label, measure), getattr(limits, measure)
        if measure in ("displacement", "keypoints") and measure in label.failures:
            value = REACH if value is None or value <= limit else value  # it is not to be found
        if value is not None:
            low = measure in LOW_IS_BAD
            far = (1 - value, 1 - limit) if low else (value, limit)
            worst = max(worst, far[0] / max(far[1], 1e-9))
    return worst


def value_of(label: LabelAudit, measure: str) -> float | None:
    """The number of a measure that is held against its limit."""
    if measure == "displacement":
        return None if label.displacement is None else float(np.hypot(*label.displacement))
    if measure == "keypoints":
        return max((each for each in label.keypoints if each is not None), default=None)
    value: float | None = getattr(label, measure)
    return value


class _Tally:
    """Labels of a category."""

    def __init__(self) -> None:
        self.labels = self.rejected = self.unmeasurable = 0
        self.values = {measure: array("f") for measure in MEASURES}

    def add(self, label: LabelAudit) -> None:
        self.labels += 1
        self.rejected += bool(label.failures)
        self.unmeasurable += label.is_unmeasurable
        for measure, values in self.values.items():
            if measure == "keypoints":
                values.extend(each for each in label.keypoints if each is not None)
            elif (value := value_of(label, measure)) is not None:
                values.append(value)

    @classmethod
    def sum(cls, tallies: Iterable[_Tally]) -> _Tally:
        whole = cls()
        for tally in tallies:
            whole.labels += tally.labels
            whole.rejected += tally.rejected
            whole.unmeasurable += tally.unmeasurable
            for measure, values in whole.values.items():
                values.extend(tally.values[measure])
        return whole

    def summary(self) -> dict[str, Any]:
        counts = {
            "labels": self.labels,
            "rejected": self.rejected,
            "unmeasurable": self.unmeasurable,
        }
        return counts | {m: _quantiles(v, m in LOW_IS_BAD) for m, v in self.values.items()}


def _quantiles(values: array[float], low_is_bad: bool) -> dict[str, float]:
    """p95 is the value that one in twenty is worse than."""
    if not values:
        return {"measured": 0}
    bad = (50, 5, 0) if low_is_bad else (50, 95, 100)
    middle, far, worst = np.percentile(np.asarray(values), bad)
    told = {"p50": middle, "p95": far, "worst": worst}
    return {"measured": len(values)} | {name: round(float(v), 3) for name, v in told.items()}


def _sorted(heap: list[_Kept]) -> list[dict[str, Any]]:
    return [entry for *_, entry in sorted(heap, key=lambda kept: (-kept[0], *kept[1:3]))]


_Kept = tuple[float, tuple[str, int], int, dict[str, Any]]
"""Rank; image and place in it, which tell ties apart whoever was first; serial number; entry."""
