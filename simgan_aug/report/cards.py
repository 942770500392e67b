"""The gallery: a card for every picture, with a divider between before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simgan_aug.report.markup import Markup, element, number, plural
from simgan_aug.report.measures import BY_NAME
from simgan_aug.report.overlay import LEAST_ARROW, arrow_factor, overlay
from simgan_aug.report.pictures import Array, CloseUp, Pair, close_up, data_uri
from simgan_aug.report.records import Label, Record
from simgan_aug.report.shapes import Shape

Limits = Mapping[str, float]

LISTED = 6
"""Rejected labels of a card that are listed."""

SMALL = 200
"""Px of the longer side below which a picture is shown with its pixels."""


@dataclass
class Card:
    """One picture of the gallery, without its pixels."""

    record: Record
    shapes: dict[str, Shape] = field(default_factory=dict)
    """Annotations by the id of their label."""

    @property
    def categories(self) -> list[str]:
        """The categories of its labels, each once."""
        return list(dict.fromkeys(label.category or "" for label in self.record.labels))

    @property
    def is_rejected(self) -> bool:
        """Whether a label of it is, or a gate refuses it."""
        return bool(self.record.gates) or any(label.failures for label in self.record.labels)


def card(
    of: Card, pair: Pair, place: int, side: int, categories: Mapping[str, int], limits: Limits
) -> Markup:
    """The HTML of one.

    Args:
        of: what it shows.
        pair: its pixels.
        place: its number on the page, from 0.
        side: px of the longer side that is embedded.
        categories: number of each category on the page.
        limits: by measure.
    """
    record = of.record
    head = element(
        "header", element("h3", record.image, title=record.image), _badge(record), class_="head"
    )
    body: list[Markup] = [element("p", problem, class_="problem") for problem in pair.problems]
    if pair.before is not None or pair.after is not None:
        body += [_stage(of, pair, side), _tools(pair)]
    body += [_labels(record, pair, limits), _close_up(of, pair)]
    return element(
        "article",
        head,
        body,
        class_="card",
        id=f"picture-{place}",
        aria_label=record.image,
        data_rejected=of.is_rejected,
        data_categories=" ".join(str(categories[name]) for name in of.categories),
    )


def _stage(of: Card, pair: Pair, side: int) -> Markup:
    width, height = pair.size
    small = " small" if max(width, height) <= SMALL else ""
    parts = []
    for name, pixels in (("before", pair.before), ("after", pair.after)):
        if pixels is not None:
            alt = f"{name} refining: {pair.name}"
            parts.append(element("img", src=data_uri(pixels, side), alt=alt, class_=name))
    parts.append(overlay(of.record, of.shapes, (width, height)))
    if len(parts) == 3:
        parts += [element("span", name, class_=f"tag {name}") for name in ("before", "after")]
        parts.append(element("span", element("i"), class_="divider", aria_hidden="true"))
        parts.append(
            element(
                "input",
                type="range",
                min=0,
                max=100,
                value=50,
                class_="slider",
                aria_label=f"Divider between before and after of {pair.name}",
            )
        )
        small += " pair"
    ratio = f"--ratio:{width / height:.5g}"
    return element("div", parts, class_=f"stage{small}", style=ratio)


def _tools(pair: Pair) -> Markup:
    flip = element("button", "flip", type="button", class_="flip", title="key f or space")
    zoom = element("button", "enlarge", type="button", class_="enlarge", title="key enter")
    both = pair.before is not None and pair.after is not None
    size = element("span", f"{pair.size[0]}×{pair.size[1]} px", class_="size")
    return element("div", flip if both else None, zoom, size, class_="tools")


def _badge(record: Record) -> Markup:
    counts = Counter(label.state for label in record.labels)
    if counts["rejected"]:
        return element("span", f"{counts['rejected']} rejected", class_="badge bad")
    if record.gates:
        return element("span", "refused by a gate", class_="badge bad")
    if record.appeared:
        return element("span", f"{len(record.appeared)} appeared", class_="badge new")
    if counts["passed"]:
        return element("span", "passed", class_="badge good")
    said = "not measurable" if counts["unmeasurable"] else plural(counts["plain"], "label")
    return element("span", said, class_="badge")


def _labels(record: Record, pair: Pair, limits: Limits) -> Markup:
    """The rejected ones with what is wrong, the others counted."""
    bad = [(n, label) for n, label in enumerate(record.labels, 1) if label.state == "rejected"]
    items = [_item(place, label, limits) for place, label in bad[:LISTED]]
    if len(bad) > LISTED:
        items.append(element("li", f"and {len(bad) - LISTED} more rejected"))
    if rest := _others([label for label in record.labels if label.state != "rejected"]):
        items.append(element("li", rest, class_="rest"))
    if record.appeared:
        said = f"{plural(len(record.appeared), 'thing')} appeared that was not there before"
        items.append(element("li", said, class_="appeared"))
    items += [element("li", reason, class_="rejected") for reason in record.gates]
    drawn = max((v for label in record.labels for v in label.values("displacement")), default=0)
    factor = arrow_factor(record.labels, pair.size)
    if drawn >= LEAST_ARROW and factor > 1 and pair.size != (3, 2):
        items.append(element("li", f"arrows are drawn {factor} times as long", class_="hint"))
    return element("ul", items, class_="labels") if items else Markup("")


def _item(place: int, label: Label, limits: Limits) -> Markup:
    said = [element("b", place), " ", element("span", label.category or "label", class_="category")]
    if label.displacement is not None and len(label.displacement) > 1:
        dx, dy = label.displacement[:2]
        far = number(label.values("displacement")[0])
        said.append(f" moved {far} px ({_signed(dx)}, {_signed(dy)})")
    elif "displacement" in label.failures:
        said.append(" is gone: nothing near is like it")
    facts = [_failure(label, name, limits) for name in label.failures if name != "displacement"]
    if facts:
        said.append("; " + "; ".join(facts))
    return element("li", said, class_="rejected")


def _failure(label: Label, name: str, limits: Limits) -> str:
    measure, values = BY_NAME.get(name), label.values(name)
    if measure is None or not values:
        return name
    worst = max(values) if measure.high_is_bad else min(values)
    unit = f" {measure.unit}" if measure.unit else ""
    limit = f" (limit {number(limits[name])})" if name in limits else ""
    return f"{name} {number(worst)}{unit}{limit}"


def _others(labels: Sequence[Label]) -> str:
    counts = Counter(label.state for label in labels)
    said = []
    if counts["passed"]:
        farthest = max((v for label in labels for v in label.values("displacement")), default=0.0)
        said.append(f"{plural(counts['passed'], 'label')} passed, moved {farthest:.2f} px at most")
    if counts["unmeasurable"]:
        said.append(f"{counts['unmeasurable']} not measurable")
    if counts["plain"]:
        kinds = Counter(label.category or "label" for label in labels).most_common(4)
        said.append(", ".join(f"{n} × {name}" if n > 1 else name for name, n in kinds))
    return "; ".join(said)


def _close_up(of: Card, pair: Pair) -> Markup:
    """The worst label from near, before, after, and what differs."""
    worst = next((label for label in of.record.labels if label.bbox), None)
    if worst is None or worst.state == "plain":
        return Markup("")
    found = close_up(pair, worst.bbox or [])
    if found is None:
        return Markup("")
    lone = Record(labels=[worst])
    drawn = overlay(lone, of.shapes, pair.size, found.window)
    sides = (("before", found.before), ("after", found.after), ("difference", found.difference))
    return element(
        "div", [_piece(name, found, pixels, drawn) for name, pixels in sides], class_="near"
    )


def _piece(name: str, found: CloseUp, pixels: Array, drawn: Markup) -> Markup:
    width, height = found.window[2:]
    small = " small" if max(width, height) <= SMALL else ""
    picture = element("img", src=data_uri(pixels, max(pixels.shape)), alt=f"{name}, from near")
    over = drawn if name != "difference" else None
    ratio = f"--ratio:{width / height:.5g}"
    inner = element("div", picture, over, class_=f"piece{small}", style=ratio)
    return element("figure", inner, element("figcaption", name))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
