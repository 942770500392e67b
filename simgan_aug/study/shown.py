"""The table, the plot and the sheet of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug.audit.growth import GROWN
from simgan_aug.report.charts import line, nice_ticks, text
from simgan_aug.report.markup import Markup, element, number
from simgan_aug.study.arms import Arm
from simgan_aug.study.gains import LEVEL, Gain
from simgan_aug.study.results import Results, Row
from simgan_aug.study.verdict import said

Array = np.ndarray[Any, Any]

WIDTH, LEFT, RIGHT, TOP, TALL = 760, 130, 60, 56, 30
"""Px of the plot, its margins, and of a row."""

STYLE = (
    "text{font:13px sans-serif;fill:#1c2127}.tick{font-size:11px;fill:#5b6672}"
    ".title{font-weight:bold}.grid{stroke:#dbe0e5}.zero{stroke:#5b6672}"
    ".whisker{stroke:#1f5fbf;stroke-width:2}.seed{fill:#7a9fd0}.mean{fill:#1f5fbf}"
    ".oracle .whisker{stroke:#1a7f4b}.oracle .mean,.oracle .seed{fill:#1a7f4b}"
    ".baseline .whisker{stroke:#5b6672}.baseline .mean{fill:#5b6672}.baseline .seed{fill:#c3cad1}"
)


def table(results: Results, metric: str, notes: Sequence[str]) -> str:
    """The study as Markdown: verdicts, a row for each arm, and how to read it.

    Args:
        results: of the arms that are finished.
        metric: in words.
        notes: one paragraph each.
    """
    head = (
        "arm", metric, "by seed", "over raw", "over the best baseline", "drift p95, px (labels)",
        "grown", "augmentation chosen",
    )  # fmt: skip
    lines = ["# Did refining help?", ""]
    lines += [f"**{each.arm}**: {each}.\n" for each in results.verdicts]
    lines += [_cells(head), _cells(["---"] * len(head))]
    lines += [_cells(_row(row)) for row in results.rows]
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def legend(results: Results) -> list[str]:
    """How to read the table."""
    return [*_intervals(results.seeds), *_limits([row.arm for row in results.rows])]


def _intervals(seeds: int) -> list[str]:
    if seeds == 1:
        return ["One seed says nothing about others: no intervals, no verdict; say --seeds 3."]
    return [
        f"Intervals: {LEVEL:.0%}, paired by seed and test image; {seeds} seeds by Student's t, "
        "test images (near-duplicates as one) likewise, both parts added (Banerjee). More seeds "
        "narrow them: the same command with a larger --seeds goes on.",
        "The best baseline is not known for sure, so the interval over it holds for each of them: "
        "its lower end is the least of all; its upper end too, of those widened for being several.",
    ]


def _limits(arms: Sequence[Arm]) -> list[str]:
    """What the table does not hold."""
    lines = [
        "Every arm: the same network, steps, seeds and geometry, and two augmentations, light and "
        "strong; one is chosen on one half of the test photos and scored on the other, and the "
        "reverse. jitter chooses among four, which favours this baseline.",
        "drift: how far pictures under labels have moved, in px of the files, and how many labels "
        "could be located. It is found on the probe's images, of whose px less than a quarter "
        "counts as 0. No gain counts where labels no longer fit.",
        "grown: how many labels look to reach beyond their boxes, of how many that can be told: "
        f"{GROWN:g} px of the probe's images or more along a side have taken the object's colours. "
        "Shadows count too; photos of streets hide some of it.",
    ]
    fixed = [
        arm.name
        for arm in arms
        if arm.kind in ("refiner", "folder")
        or (arm.kind == "command" and "{seed}" not in arm.source)
    ]
    if fixed:
        lines.append(
            f"{', '.join(fixed)}: made once for all seeds, so that its intervals hold the noise of "
            "probes, not that of making it again."
        )
    if [arm.name for arm in arms if arm.is_baseline] == ["raw"]:
        lines.append(
            "raw is the only baseline: whether jitter, colour, fda, hm or pda do as well has not "
            "been asked (--arms)."
        )
    return lines


def plot(results: Results, metric: str) -> str:
    """Gains over raw with their intervals, one row an arm, as a standalone SVG."""
    rows = [row for row in results.rows if row.over_raw is not None]
    gains = [row.over_raw for row in rows if row.over_raw is not None]
    low = min([0.0, *(_finite(g.low, g.value) for g in gains)])
    high = max([low + 1e-3, *(_finite(g.high, g.value) for g in gains)])
    pad, bottom = 0.04 * (high - low), TOP + TALL * len(rows)
    raw = next((row.mean for row in results.rows if row.arm.kind == "raw"), 0.0)

    def x(value: float) -> float:
        share = (value - low + pad) / (high - low + 2 * pad)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts = [text(10, 20, f"{metric}: gain over raw ({raw:.3f}), {LEVEL:.0%}", "start", "title")]
    parts += [text(10, 38, str(each)[:110], "start", "tick") for each in results.verdicts[:1]]
    for tick in nice_ticks(low, high, 6):
        parts.append(line(x(tick), TOP - 6, x(tick), bottom, "zero" if tick == 0 else "grid"))
        parts.append(text(x(tick), bottom + 16, f"{tick:+.3g}" if tick else "0"))
    parts += [_whisker(row, TOP + TALL * (place + 0.5), raw, x) for place, row in enumerate(rows)]
    svg = element(
        "svg",
        element("style", Markup(STYLE)),
        element("rect", width=WIDTH, height=bottom + 26, fill="#fff"),
        parts,
        xmlns="http://www.w3.org/2000/svg",
        viewbox=f"0 0 {WIDTH} {bottom + 26}",
        role="img",
        aria_label="; ".join(f"{row.arm.name} {row.mean:.3f}" for row in results.rows),
    )
    return f"{svg}\n"


def proxies(rows: Mapping[str, Sequence[Mapping[str, Any]]], notes: Sequence[str]) -> str:
    """Realism by arm, as Markdown, marked as what it is.

    Args:
        rows: by arm, measures as `realism.Comparison.as_json` has them.
        notes: one paragraph each.
    """
    first = next(iter(rows.values()), [])
    names = [f"{each['name']} ({each['unit']})" for each in first]
    lines = ["# Nearer to real?", ""]
    lines += ["**proxies: realism, no labels; does not say that labels are true**", ""]
    lines += [_cells(["arm", *names]), _cells(["---"] * (len(names) + 1))]
    for role in ("floor", "ceiling"):
        label = {"floor": "real to real (floor)", "ceiling": "raw (ceiling)"}[role]
        lines.append(_cells([label, *(_distance(each[role]) for each in first)]))
    for arm, measures in rows.items():
        lines.append(_cells([arm, *(_refined(each) for each in measures)]))
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def strips(folder: Path, names: Sequence[str]) -> dict[str, list[Array]]:
    """The rows of the sheet: the picture of each arm that has one."""
    from simgan_aug.imagefile import read_image

    paths = {name: folder / f"{name}.png" for name in names}
    return {name: [read_image(path).pixels] for name, path in paths.items() if path.exists()}


def _row(row: Row) -> list[str]:
    chosen = ", ".join(f"{name} {count}" for name, count in row.picked.items())
    return [
        row.arm.name,
        f"{row.mean:.3f}",
        " ".join(f"{score:.3f}" for score in row.scores),
        "" if row.over_raw is None else said(row.over_raw),
        "" if row.over_best is None else said(row.over_best),
        _drift(row),
        "" if row.grown is None else str(row.grown),
        chosen,
    ]


def _drift(row: Row) -> str:
    said = "" if row.drift is None else f"{row.drift:.2f}"
    return f"{said} ({row.located})".strip() if row.located else said


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _whisker(row: Row, y: float, raw: float, x: Any) -> Markup:
    found = row.over_raw
    assert found is not None
    kind = "oracle" if row.arm.kind == "oracle" else "baseline" if row.arm.is_baseline else "arm"
    ends = _finite(found.low, found.value), _finite(found.high, found.value)
    return element(
        "g",
        element("title", f"{row.arm.name}: {said(found)}"),
        text(LEFT - 10, y + 4, row.arm.name, "end", "name"),
        line(x(ends[0]), y, x(ends[1]), y, "whisker"),
        [_dot(x(score - raw), y, 2.5, "seed") for score in row.scores],
        _dot(x(found.value), y, 4.5, "mean"),
        text(WIDTH - 8, y + 4, f"{row.mean:.3f}", "end", "value"),
        class_=kind,
    )


def _dot(x: float, y: float, radius: float, kind: str) -> Markup:
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, class_=kind)


def _finite(value: float, other: float) -> float:
    return value if np.isfinite(value) else other


def _distance(found: Mapping[str, float]) -> str:
    return f"{number(found['value'])} [{number(found['low'])}, {number(found['high'])}]"


def _refined(measure: Mapping[str, Any]) -> str:
    closed = measure["closed"]
    share = "" if closed is None else f"; {closed:.0%} closed"
    return _distance(measure["refined"]) + share


__all__ = ["Gain", "legend", "plot", "proxies", "strips", "table"]
