"""Labels drawn over a picture: boxes, outlines, keypoints, and arrows to where the picture went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simgan_aug.report.charts import path
from simgan_aug.report.markup import Markup, element, number
from simgan_aug.report.records import Label, Record
from simgan_aug.report.shapes import Point, Shape, outlines

LEAST_ARROW = 0.05
"""Px of a displacement that is drawn."""

FACTORS = (1, 2, 5, 10, 20)
"""How much longer than the displacement its arrow may be."""

Window = tuple[float, float, float, float]


def overlay(
    record: Record, shapes: Mapping[str, Shape], size: tuple[int, int], window: Window | None = None
) -> Markup:
    """An SVG to lie over a picture, in px of the image.

    Args:
        record: its labels, in the order in which they are numbered.
        shapes: annotations by the id of their label.
        size: width and height of the image in px.
        window: x, y, width, height of the part that is shown; None: all of it, with numbers and
            arrows.
    """
    frame = window or (0, 0, *size)
    unit = max(frame[2], frame[3]) / 100
    parts: list[Markup] = []
    for label in record.labels:
        parts.append(_drawn(label, shapes.get(str(label.id)), size, unit))
    for found in record.appeared:
        parts.append(_box(found.bbox, "appeared"))
    if window is None:
        factor = arrow_factor(record.labels, size)
        parts += [_arrow(label, factor, unit) for label in record.labels]
        numbered = [*enumerate(record.labels, start=1)]
        # The worst on top of all.
        parts += [_number(each, n, unit) for n, each in reversed(numbered) if each.failures]
    view = " ".join(f"{side:g}" for side in frame)
    return element(
        "svg", parts, viewbox=view, class_="overlay", aria_hidden="true", preserveAspectRatio="none"
    )


def arrow_factor(labels: Sequence[Label], size: tuple[int, int]) -> int:
    """How much longer than displacements the arrows are: the longest a fifth of the image."""
    longest = max((v for label in labels for v in label.values("displacement")), default=0.0)
    fitting = [factor for factor in FACTORS if factor * longest <= min(size) / 5]
    return fitting[-1] if fitting else 1


def _drawn(label: Label, shape: Shape | None, size: tuple[int, int], unit: float) -> Markup:
    outline = outlines(shape, size[1], size[0]) if shape is not None else []
    points = shape.points if shape is not None else []
    return element(
        "g",
        _box(label.bbox or [], "box") if label.bbox else None,
        [path(part, "outline", closed=True) for part in outline if len(part) > 1],
        [_point(at, unit) for at in points],
        class_=label.state,
    )


def _box(bbox: Sequence[float], kind: str) -> Markup:
    if not _is_box(bbox):
        return Markup("")
    sides = dict(zip(("x", "y", "width", "height"), bbox, strict=True))
    sides |= {"width": max(0.0, bbox[2]), "height": max(0.0, bbox[3])}
    return element("rect", class_=kind, **{key: f"{value:g}" for key, value in sides.items()})


def _point(at: Point, unit: float) -> Markup:
    return element("circle", cx=f"{at[0]:g}", cy=f"{at[1]:g}", r=f"{unit * 0.9:.3g}", class_="key")


def _number(label: Label, place: int, unit: float) -> Markup:
    if not _is_box(label.bbox or []):
        return Markup("")
    x, y = (label.bbox or [0, 0])[:2]
    side = 5.5 * unit
    left, top = max(0.0, x), max(0.0, y)
    plate = element("rect", class_="plate", **_sides(left, top, side * 1.1, side))
    said = element(
        "text",
        place,
        x=f"{left + side * 0.55:.4g}",
        y=f"{top + side * 0.76:.4g}",
        font_size=f"{side * 0.75:.3g}",
        text_anchor="middle",
        class_="number",
    )
    return element("g", plate, said, class_="plate-of")


def _arrow(label: Label, factor: int, unit: float) -> Markup:
    if label.displacement is None or len(label.displacement) < 2 or not _is_box(label.bbox or []):
        return Markup("")
    dx, dy = (step * factor for step in label.displacement[:2])
    length = math.hypot(dx, dy)
    if not LEAST_ARROW * factor <= length < math.inf:
        return Markup("")
    x, y, width, height = label.bbox or [0, 0, 0, 0]
    start = (x + width / 2, y + height / 2)
    tip = (start[0] + dx, start[1] + dy)
    head = min(3 * unit, length)
    along, across = (dx / length * head, dy / length * head), (-dy / length, dx / length)
    base = (tip[0] - along[0], tip[1] - along[1])
    wings = [
        (base[0] + side * across[0] * head / 2, base[1] + side * across[1] * head / 2)
        for side in (1, -1)
    ]
    said = f"moved {number(dx / factor)}, {number(dy / factor)} px"
    return element(
        "g",
        element("title", said),
        path([start, base], "shaft"),
        path([wings[0], tip, wings[1]], "head", closed=True),
        class_=f"arrow {label.state}",
    )


def _sides(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    sides = {"x": x, "y": y, "width": width, "height": height}
    return {key: f"{value:.4g}" for key, value in sides.items()}


def _is_box(bbox: Sequence[float]) -> bool:
    return len(bbox) == 4 and all(math.isfinite(value) for value in bbox)
