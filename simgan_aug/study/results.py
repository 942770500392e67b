"""What the finished cells say: a row for each arm, a verdict for each that refines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simgan_aug.audit.growth import Grown
from simgan_aug.study.arms import ORACLE, REFINERS, Arm
from simgan_aug.study.gains import Gain, chosen, gain, gain_over_best
from simgan_aug.study.journal import Cell
from simgan_aug.study.verdict import Verdict, verdict

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One arm."""

    arm: Arm
    scores: tuple[float, ...]
    """The metric by seed."""
    over_raw: Gain | None
    """None: it is raw itself."""
    over_best: Gain | None
    """Over the best baseline; None: it is a baseline, or the oracle."""
    drift: float | None
    """95th percentile of the px that labels have moved, the worst seed; None: not measured."""
    located: str
    """Of how many labels that is told, the seed with the fewest: "12 of 40"."""
    grown: Grown | None
    """Labels that look to reach beyond their boxes, the seed with the largest share; None: not
    measured of all."""
    picked: Mapping[str, int]
    """How often each augmentation was chosen, over seeds and halves."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.scores))


@dataclass(frozen=True)
class Results:
    """All arms that have all of the seeds, and what follows."""

    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    seeds: int


def summarise(
    arms: Sequence[Arm],
    cells: Mapping[tuple[str, int], Cell],
    seeds: int,
    groups: Array,
    halves: Array,
) -> Results:
    """Rows and verdicts of the arms whose cells are all there.

    Args:
        arms: in the order of the table.
        cells: by arm and seed.
        seeds: of each arm.
        groups, halves: of the test images, as in `gains.gain` and `gains.chosen`.
    """
    done = [arm for arm in arms if all((arm.name, seed) in cells for seed in range(seeds))]
    values, picked = {}, {}
    for arm in done:
        mine = [cells[arm.name, seed] for seed in range(seeds)]
        best = [chosen({k: np.array(v) for k, v in c["values"].items()}, halves) for c in mine]
        values[arm.name] = np.stack([each for each, _ in best])
        picked[arm.name] = Counter(name for _, names in best for name in names)
    baselines = {arm.name: values[arm.name] for arm in done if arm.is_baseline}
    rows = []
    for arm in done:
        own, is_raw = values[arm.name], arm.kind == "raw"
        held = bool(baselines) and not arm.is_baseline and arm.kind != ORACLE
        own_cells = [cells[arm.name, seed] for seed in range(seeds)]
        drifts = [cell["drift"] for cell in own_cells]
        known = [each for each in drifts if each is not None]
        seen = [tuple(each) for c in own_cells if (each := c.get("located"))]
        located = "{} of {}".format(*min(seen)) if seen else ""
        grown = [Grown(*c["grown"]) for c in own_cells if c.get("grown")]
        rows.append(
            Row(
                arm,
                tuple(own.mean(1).tolist()),
                None if is_raw or "raw" not in values else gain(own, values["raw"], groups),
                gain_over_best(own, baselines, groups)[1] if held else None,
                max(known, default=None),
                located,
                _worst(grown) if len(grown) == seeds else None,  # it may go on with older cells
                picked[arm.name],
            )
        )
    return Results(tuple(rows), _verdicts(rows, values, list(baselines), groups), seeds)


def _worst(grown: Sequence[Grown]) -> Grown:
    """Of several seeds; one of few labels is no worse than one that is sure."""
    return max(grown, key=lambda each: (each.is_much, each.share))


def judged(arms: Sequence[Arm]) -> list[str]:
    """The arms that a verdict is given of: the default and one's own, else all that refine."""
    own = [arm.name for arm in arms if arm.is_own or arm.kind == "default"]
    return own or [arm.name for arm in arms if arm.kind in REFINERS]


def _verdicts(
    rows: Sequence[Row], values: Mapping[str, Array], baselines: list[str], groups: Array
) -> tuple[Verdict, ...]:
    if "raw" not in values:
        return ()
    oracle = next((row.arm.name for row in rows if row.arm.kind == ORACLE), None)
    found = {row.arm.name: row for row in rows}
    return tuple(
        verdict(name, values, baselines, groups, oracle, found[name].drift, found[name].grown)
        for name in judged([row.arm for row in rows])
    )
