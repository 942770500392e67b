"""What an audit measures of a label, how it is drawn, and how many labels have which value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from simgan_aug.audit import LOW_IS_BAD
from simgan_aug.report.records import Label, Record

BINS = 44
"""Bars of a histogram."""


@dataclass(frozen=True)
class Measure:
    """One number of a label."""

    name: str
    unit: str
    low: float
    high: float
    """Ends of the axis; what lies beyond is counted in the first and the last bar."""
    meaning: str

    @property
    def high_is_bad(self) -> bool:
        """Whether it must not exceed its limit, and not rather reach it."""
        return self.name not in LOW_IS_BAD

    @property
    def logarithmic(self) -> bool:
        """Whether the axis is: of px and levels, which span decades."""
        return self.high_is_bad

    def beyond(self, value: float, limit: float) -> bool:
        """Whether a value is worse than its limit."""
        return value > limit if self.high_is_bad else value < limit

    def place(self, value: float) -> float:
        """Where on the axis a value lies, in [0, 1]."""
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(max(value, self.low)) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)

    def value(self, place: float) -> float:
        """The inverse of `place`."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + (self.high - self.low) * place


MEASURES = (
    Measure("displacement", "px", 0.01, 30, "how far the picture under the box has moved"),
    Measure("local", "px", 0.01, 30, "how far a part of the object has moved"),
    Measure("keypoints", "px", 0.01, 30, "how far the picture under a keypoint has moved"),
    Measure("contour", "", 0, 1, "how much of the outline is still there (F1)"),
    Measure("content", "", 0, 1, "how alike it is after its best tone curve"),
    Measure("contrast", "", 0, 2, "contrast left to the object, as a ratio"),
    Measure("colour", "levels", 0.1, 255, "chroma off the best colour map, of 255"),
)
"""In the order in which they are shown."""

BY_NAME = {measure.name: measure for measure in MEASURES}


@dataclass
class Histogram:
    """How many labels have which value of a measure."""

    measure: Measure
    limit: float | None
    within: list[int] = field(default_factory=lambda: [0] * BINS)
    """By bar, those inside the limit."""
    beyond: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, label: Label) -> None:
        """Count what a label has of it."""
        for value in label.values(self.measure.name):
            if not math.isfinite(value):
                continue
            place = min(int(self.measure.place(value) * BINS), BINS - 1)
            bad = self.limit is not None and self.measure.beyond(value, self.limit)
            (self.beyond if bad else self.within)[place] += 1

    @property
    def total(self) -> int:
        """Values counted."""
        return sum(self.within) + sum(self.beyond)


def histograms(limits: Mapping[str, float]) -> list[Histogram]:
    """An empty one for every measure."""
    return [Histogram(measure, limits.get(measure.name)) for measure in MEASURES]


def severity(label: Label, limits: Mapping[str, float]) -> float:
    """How bad a label is: about 1 at a limit; rejected ones are above all that are not."""
    worst = 0.0
    for measure in MEASURES:
        limit = limits.get(measure.name)
        if limit is None:
            continue
        for value in label.values(measure.name):
            badness = value / max(limit, 1e-9)
            if not measure.high_is_bad:
                badness = (1 - value) / max(1 - limit, 1e-9)
            worst = max(worst, min(badness, 100.0))
    return worst + 100 * bool(label.failures)


def severity_of(record: Record, limits: Mapping[str, float]) -> float:
    """How bad an image is: as its worst label, or as one at a limit if something has appeared,
    or a gate refuses it."""
    found = [severity(label, limits) for label in record.labels]
    return max([*found, float(bool(record.appeared or record.gates))])
