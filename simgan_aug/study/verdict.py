"""The answer in one line: refining helped, made no difference that can be told, or hurt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simgan_aug.audit import Limits
from simgan_aug.audit.growth import Grown
from simgan_aug.study.gains import Gain, gain, gain_over_best

Array = np.ndarray[Any, Any]

HELPED, NOTHING, HURT = "refining helped", "no difference", "refining hurt"
UNTOLD = "no verdict"
"""Of one seed, which says nothing about others."""


@dataclass(frozen=True)
class Verdict:
    """What came of one refining arm."""

    arm: str
    word: str
    """`HELPED`, `NOTHING`, `HURT` or `UNTOLD`."""
    baseline: str
    """The best arm that has not learnt anything."""
    over_best: Gain
    closed: float | None
    """Share of the gap between raw and oracle; None: no oracle, or no gap to be told."""
    moved: float | None
    """Px that labels have moved (95th percentile), if that is beyond the audit's limit."""
    grown: Grown | None
    """Labels that look to reach beyond their boxes, if they are many."""

    def __str__(self) -> str:
        """The line."""
        line = f"{self.word}: {said(self.over_best)} over the best baseline ({self.baseline})"
        if self.closed is not None:
            line += f"; {self.closed:.0%} of the gap from raw to oracle closed"
        if self.moved is not None:
            line += (
                f"; BUT labels have moved (p95 {self.moved:.1f} px): a gain with labels that no "
                "longer fit is none, see simgan-aug audit"
            )
        if self.grown is not None:
            line += (
                f"; BUT {self.grown} labels that this can be told of look larger than their "
                "boxes: no gain for a detector, look at the pictures"
            )
        return line


def verdict(
    arm: str,
    values: Mapping[str, Array],
    baselines: list[str],
    groups: Array,
    oracle: str | None = None,
    drift: float | None = None,
    grown: Grown | None = None,
) -> Verdict:
    """Hold an arm against the best of the baselines.

    Args:
        arm: its name.
        values: by arm, (S, n), as in `gains.gain`; of "raw" too.
        baselines: names of those that have not learnt anything.
        groups: as in `gains.gain`.
        oracle: name of what was trained on real labels.
        drift: 95th percentile of the px that labels have moved.
        grown: labels that look to reach beyond their boxes.
    """
    best, over = gain_over_best(values[arm], {name: values[name] for name in baselines}, groups)
    word = HELPED if over.low > 0 else HURT if over.high < 0 else NOTHING
    word = word if np.isfinite(over.low) else UNTOLD
    closed = None
    if oracle is not None:
        gap = gain(values[oracle], values["raw"], groups)
        if gap.low > 0:
            closed = gain(values[arm], values["raw"], groups).value / gap.value
    moved = drift if drift is not None and drift > Limits().displacement else None
    larger = grown if grown is not None and grown.is_much else None
    return Verdict(arm, word, best, over, closed, moved, larger)


def said(found: Gain) -> str:
    """A gain with its interval: +0.11 [0.06, 0.15]."""
    if not np.isfinite(found.low):
        return f"{found.value:+.3f} [one seed: no interval]"
    return f"{found.value:+.3f} [{found.low:.3f}, {found.high:.3f}]"
