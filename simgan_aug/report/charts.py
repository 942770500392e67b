"""Plots as inline SVG: axes, a limit, and what the mouse rests on in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simgan_aug.report.markup import Markup, element, number, plural
from simgan_aug.report.measures import BINS, Histogram, Measure

WIDTH, HEIGHT = 380, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 22, 36
"""Px of a plot's margins, in its own units."""

INNER, TALL = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def histogram(data: Histogram) -> Markup:
    """How many labels have which value; those beyond the limit in another colour."""
    measure, beyond = data.measure, sum(data.beyond)
    top = max(a + b for a, b in zip(data.within, data.beyond, strict=True))
    said = f"{measure.name} of {plural(data.total, 'value')}, {beyond:,} of them beyond the limit"
    bars = [_bar(data, place, top) for place in range(BINS)]
    parts = [_counts_axis(top), _value_axis(measure), *bars, _limit(data)]
    return element(
        "svg", *parts, viewbox=f"0 0 {WIDTH} {HEIGHT}", class_="chart", role="img", aria_label=said
    )


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers, about `count` of them, from one value to another."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def text(x: float, y: float, said: str, anchor: str = "middle", kind: str = "tick") -> Markup:
    """Words in a plot."""
    return element("text", said, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", class_=kind, **{key: f"{value:.1f}" for key, value in ends.items()})


def rect(
    x: float, y: float, width: float, height: float, kind: str, title: str | None = None
) -> Markup:
    """A rectangle that says what it is when the mouse rests on it."""
    sides = {"x": x, "y": y, "width": width, "height": height}
    said = element("title", title) if title is not None else None
    return element("rect", said, class_=kind, **{k: f"{v:.1f}" for k, v in sides.items()})


def path(points: Sequence[tuple[float, float]], kind: str, closed: bool = False) -> Markup:
    """A line through points."""
    steps = " ".join(f"{x:.6g},{y:.6g}" for x, y in points)
    return element("path", d=f"M{steps}{'Z' if closed else ''}", class_=kind)


def _bar(data: Histogram, place: int, top: int) -> Markup:
    within, beyond, wide = data.within[place], data.beyond[place], INNER / BINS
    if not within + beyond:
        return Markup("")
    left, floor = LEFT + place * wide, TOP + TALL
    # A bar of one label among thousands must be seen: it is what the page is made for.
    highs = [max(3.0, count / top * TALL) if count else 0.0 for count in (within, beyond)]
    start, end = data.measure.value(place / BINS), data.measure.value((place + 1) / BINS)
    title = f"{_range(data.measure, place, start, end)}: {plural(within + beyond, 'value')}"
    if beyond:
        title += f", {beyond:,} beyond the limit"
    return element(
        "g",
        element("title", title),
        rect(left, TOP, wide, TALL, "hit"),
        rect(left + 0.5, floor - highs[0], wide - 1, highs[0], "bar") if within else None,
        rect(left + 0.5, floor - sum(highs), wide - 1, highs[1], "bar bad") if beyond else None,
        class_="column",
    )


def _range(measure: Measure, place: int, start: float, end: float) -> str:
    unit = f" {measure.unit}" if measure.unit else ""
    if place == 0 and measure.logarithmic:
        return f"up to {number(end)}{unit}"
    if place == BINS - 1:
        return f"{number(start)}{unit} and more"
    return f"{number(start)} to {number(end)}{unit}"


def _counts_axis(top: int) -> Markup:
    ticks = [tick for tick in nice_ticks(0, top, 3) if tick == int(tick)]
    marks = []
    for tick in ticks:
        y = TOP + TALL - tick / top * TALL
        marks += [line(LEFT, y, WIDTH - RIGHT, y, "grid")]
        marks += [text(LEFT - 6, y + 3.5, f"{int(tick):,}", "end")]
    return element("g", marks)


def _value_axis(measure: Measure) -> Markup:
    floor = TOP + TALL
    marks = [line(LEFT, floor, WIDTH - RIGHT, floor, "axis")]
    for value, named in _ticks(measure):
        x = LEFT + measure.place(value) * INNER
        marks.append(line(x, floor, x, floor + (5 if named else 3), "axis"))
        if named:
            marks.append(text(x, floor + 16, number(value)))
    unit = measure.unit or ("ratio" if measure.name == "contrast" else "similarity")
    return element("g", marks, text(LEFT + INNER / 2, HEIGHT - 5, unit))


def _ticks(measure: Measure) -> list[tuple[float, bool]]:
    """Places of an axis that are marked, and which of them are named."""
    if not measure.logarithmic:
        return [(value, True) for value in nice_ticks(measure.low, measure.high, 5)]
    powers = range(math.floor(math.log10(measure.low)), math.ceil(math.log10(measure.high)) + 1)
    marks = [(10.0**power * step, step == 1) for power in powers for step in range(1, 10)]
    return [mark for mark in marks if measure.low * 0.999 <= mark[0] <= measure.high * 1.001]


def _limit(data: Histogram) -> Markup:
    if data.limit is None:
        return Markup("")
    x = LEFT + data.measure.place(data.limit) * INNER
    anchor = "start" if x < WIDTH / 2 else "end"
    unit = f" {data.measure.unit}" if data.measure.unit else ""
    said = f"limit {number(data.limit)}{unit}"
    return element(
        "g",
        line(x, TOP - 6, x, TOP + TALL, "limit"),
        text(x + (5 if anchor == "start" else -5), TOP - 8, said, anchor, "limit-text"),
    )
