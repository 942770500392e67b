"""Training curves, one plot for each loss, and realism between its floor and its ceiling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from simgan_aug.report.charts import (
    HEIGHT,
    INNER,
    LEFT,
    RIGHT,
    TALL,
    TOP,
    WIDTH,
    line,
    nice_ticks,
    path,
    rect,
    text,
)
from simgan_aug.report.markup import Markup, element, number
from simgan_aug.report.records import Alarm, Interval, Measured

COLUMNS = 110
"""Pieces of a curve; of the steps in one the mean is drawn, and the range behind it."""

Line = dict[str, Any]


def losses_of(metrics: Sequence[Line]) -> list[str]:
    """Names of the losses, in the order in which they first come."""
    names = dict.fromkeys(key for entry in metrics for key in entry)
    return [name for name in names if any(_is_loss(name, entry) for entry in metrics)]


def curve(name: str, metrics: Sequence[Line], alarms: Sequence[Alarm]) -> Markup:
    """One loss over the steps, its phases shaded, alarms as lines."""
    known = [entry for entry in metrics if _is_loss(name, entry)]
    steps = np.array([entry["step"] for entry in known], dtype=float)
    values = np.array([entry[name] for entry in known], dtype=float)
    first, last = float(metrics[0]["step"]), float(metrics[-1]["step"])
    low, high = _ends(values)

    def x(step: float) -> float:
        return LEFT + (step - first) / max(last - first, 1) * INNER

    def y(value: float) -> float:
        return TOP + TALL - (min(max(value, low), high) - low) / (high - low) * TALL

    groups = np.array_split(np.arange(len(known)), min(COLUMNS, len(known)))
    middle = [(x(steps[g].mean()), y(values[g].mean())) for g in groups]
    above = [(x(steps[g].mean()), y(values[g].max())) for g in groups]
    below = [(x(steps[g].mean()), y(values[g].min())) for g in groups]
    said = f"{name} from step {first:,.0f} to {last:,.0f}, at last {number(values[-1])}"
    parts = [
        _phases(metrics, x),
        _axes((low, high), (first, last), x, y),
        path(above + below[::-1], "spread", closed=True),
        path(middle, "curve") if len(middle) > 1 else None,
        element(
            "circle", cx=f"{middle[-1][0]:.1f}", cy=f"{middle[-1][1]:.1f}", r=2.5, class_="end"
        ),
        [_hit(steps[g], values[g], x) for g in groups],
        [_alarm(alarm, x) for alarm in alarms if first <= alarm.step <= last],
    ]
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", *parts, viewbox=box, class_="chart", role="img", aria_label=said)


def realism_bars(measured: Measured) -> Markup:
    """Floor, refined and ceiling of one measure, with their intervals, on one axis."""
    rows = [
        ("real to real (floor)", measured.floor, "floor"),
        ("refined to real", measured.refined, "refined"),
        ("synthetic to real (ceiling)", measured.ceiling, "ceiling"),
    ]
    present = [found for _, found, _ in rows if found is not None]
    low = min([0.0, *(_low(found) for found in present)])
    high = max([low + 1e-9, *(_high(found) for found in present)]) * 1.02
    bottom = 26 + 40 * len(rows)

    def x(value: float) -> float:
        return 10 + (value - low) / (high - low) * (WIDTH - 20)

    parts: list[Markup] = []
    for tick in nice_ticks(low, high, 4):
        parts += [
            line(x(tick), 8, x(tick), bottom - 16, "grid"),
            text(x(tick), bottom, number(tick)),
        ]
    for place, (name, found, kind) in enumerate(rows):
        parts.append(_row(20 + 40 * place, name, found, kind, x))
    words = [f"{name} {number(found.value)}" for name, found, _ in rows if found is not None]
    return element(
        "svg",
        parts,
        viewbox=f"0 0 {WIDTH} {bottom + 8}",
        class_="chart",
        role="img",
        aria_label=f"{measured.name}: {', '.join(words)}",
    )


def _row(top: float, name: str, found: Interval | None, kind: str, x: Any) -> Markup:
    said = text(10, top, name, "start", "name")
    if found is None:
        return element("g", said, text(WIDTH - 10, top, "not measured", "end"))
    middle = top + 13
    exact = f"{number(found.value)} [{number(_low(found))}, {number(_high(found))}]"
    return element(
        "g",
        element("title", f"{name}: {exact}"),
        said,
        text(WIDTH - 10, top, exact, "end", "value"),
        rect(x(min(0.0, found.value)), middle - 5, abs(x(found.value) - x(0)), 10, f"bar {kind}"),
        line(x(_low(found)), middle, x(_high(found)), middle, "whisker"),
        [line(x(e), middle - 4, x(e), middle + 4, "whisker") for e in (_low(found), _high(found))],
    )


def _low(found: Interval) -> float:
    return found.value if found.low is None else found.low


def _high(found: Interval) -> float:
    return found.value if found.high is None else found.high


def _is_loss(name: str, entry: Line) -> bool:
    value = entry.get(name)
    if name in ("step", "time", "seconds") or isinstance(value, bool):
        return False
    return isinstance(value, (int, float)) and math.isfinite(value)


def _ends(values: Any) -> tuple[float, float]:
    """The range to draw: outliers of the first steps must not flatten the rest."""
    low, high = float(values.min()), float(values.max())
    if len(values) > 50:
        high = min(high, float(np.percentile(values, 99)) * 1.25 + 1e-12)
    low = min(low, 0.0) if low > -0.5 * abs(high) else low
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _axes(values: tuple[float, float], steps: tuple[float, float], x: Any, y: Any) -> Markup:
    floor, marks = TOP + TALL, []
    for tick in nice_ticks(*values, 3):
        marks += [line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")]
        marks += [text(LEFT - 6, y(tick) + 3.5, number(tick), "end")]
    for tick in nice_ticks(*steps, 4):
        marks += [line(x(tick), floor, x(tick), floor + 5, "axis")]
        marks += [text(x(tick), floor + 16, f"{tick:,.0f}")]
    marks += [line(LEFT, floor, WIDTH - RIGHT, floor, "axis")]
    return element("g", marks, text(LEFT + INNER / 2, HEIGHT - 5, "step"))


def _phases(metrics: Sequence[Line], x: Any) -> Markup:
    """Shades for all phases but the last, each with its name."""
    spans = [
        (str(name), list(entries))
        for name, entries in itertools.groupby(metrics, key=lambda entry: entry.get("phase", ""))
    ]
    shades = []
    for place, (name, entries) in enumerate(spans[:-1]):
        left, right = x(entries[0]["step"]), x(spans[place + 1][1][0]["step"])
        kind = "phase odd" if place % 2 else "phase"
        shades.append(rect(left, TOP, right - left, TALL, kind, f"phase: {name}"))
        if right - left > 6 * len(name):
            shades.append(text((left + right) / 2, TOP - 6, name))
    return element("g", shades)


def _hit(steps: Any, values: Any, x: Any) -> Markup:
    wide = INNER / COLUMNS
    said = f"step {steps[0]:,.0f}" + (f" to {steps[-1]:,.0f}" if len(steps) > 1 else "")
    said += f": {number(values.mean())}"
    if len(values) > 1:
        said += f" ({number(values.min())} to {number(values.max())})"
    return rect(x(steps.mean()) - wide / 2, TOP, wide, TALL, "hit", said)


def _alarm(alarm: Alarm, x: Any) -> Markup:
    said = f"step {alarm.step:,}: {alarm.name}: {alarm.message}"
    place = x(alarm.step)
    return element(
        "g",
        element("title", said),
        line(place, TOP, place, TOP + TALL, "limit"),
        path([(place - 4, TOP - 6), (place + 4, TOP - 6), (place, TOP)], "flag", closed=True),
    )
