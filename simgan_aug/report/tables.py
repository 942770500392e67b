"""Tables: labels by category, images that failed, and what a result was made of."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from simgan_aug.report.facts import Facts
from simgan_aug.report.markup import Markup, element, joined, section
from simgan_aug.report.measures import BY_NAME
from simgan_aug.report.records import Summary

LISTED = 200
"""Failed images, and entries of a file, that are listed."""


def table(facts: Facts) -> Markup:
    """Categories, a row each; the columns sort."""
    if facts.audit is None or not facts.audit.categories:
        return Markup("")
    columns = [column for column in _COLUMNS if _is_known(column, facts.audit.overall)]
    heads = [
        element(
            "th",
            element("button", title, element("i", aria_hidden="true"), type="button"),
            scope="col",
            aria_sort="none",
        )
        for title, _, _ in (("category", "", ""), *columns)
    ]
    rows = [_row(name, of, columns) for name, of in facts.audit.categories.items()]
    foot = _row("all", facts.audit.overall, columns)
    whole = element(
        "table",
        element("caption", "Px for displacement, local and keypoints; p95 is the 95th percentile"),
        element("thead", element("tr", heads)),
        element("tbody", rows),
        element("tfoot", foot),
    )
    inner = element(
        "div", whole, class_="scroll", tabindex=0, role="region", aria_label="Labels by category"
    )
    return section("categories", "By category", inner)


def failures(facts: Facts) -> Markup:
    """Images that could not be refined or audited."""
    if not facts.failed:
        return Markup("")
    shown = list(facts.failed.items())[:LISTED]
    rows = [
        element("tr", element("th", name, scope="row"), element("td", why)) for name, why in shown
    ]
    left = len(facts.failed) - len(shown)
    more = element("p", f"and {left:,} more", class_="hint") if left else None
    inner = element("div", element("table", element("tbody", rows)), class_="scroll failed")
    return section("failed", "Failed images", inner, more)


def provenance(facts: Facts) -> Markup:
    """What the result was made of, file by file."""
    parts: list[Markup] = [
        element("details", element("summary", name), _tree(content), open=name == "run.json")
        for name, content in facts.provenance.items()
    ]
    return section("provenance", "Provenance", parts) if parts else Markup("")


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("labels", "labels", ""),
    ("rejected", "rejected", ""),
    ("not measurable", "unmeasurable", ""),
    ("displacement, median", "displacement", "p50"),
    ("displacement, p95", "displacement", "p95"),
    ("displacement, worst", "displacement", "worst"),
    ("local, worst", "local", "worst"),
    ("keypoints, worst", "keypoints", "worst"),
    ("contour, worst", "contour", "worst"),
    ("content, worst", "content", "worst"),
    ("contrast, worst", "contrast", "worst"),
    ("colour, worst", "colour", "worst"),
)
"""Title, field of a summary, and which of its numbers."""


def _is_known(column: tuple[str, str, str], of: Summary) -> bool:
    return _cell(column, of) is not None


def _cell(column: tuple[str, str, str], of: Summary) -> float | None:
    found = getattr(of, column[1])
    value: float | None = found.get(column[2]) if isinstance(found, Mapping) else found
    return value


def _row(name: str, of: Summary, columns: list[tuple[str, str, str]]) -> Markup:
    cells = [element("th", name, scope="row", data_value=name)]
    for column in columns:
        value = _cell(column, of)
        shown = "\N{EN DASH}" if value is None else _cell_text(column[1], value)
        bad = "bad" if column[1] == "rejected" and value else None
        cells.append(element("td", shown, data_value="" if value is None else value, class_=bad))
    return element("tr", cells)


def _cell_text(field: str, value: float) -> str:
    measure = BY_NAME.get(field)
    digits = 0 if measure is None else 1 if measure.unit == "levels" else 2
    return f"{value:,.{digits}f}"


def _tree(content: Any) -> Markup:
    """Nested values as nested lists of terms; long lists of plain values in one line."""
    if isinstance(content, dict) and content:
        shown = itertools.islice(content.items(), LISTED)
        terms = [(element("dt", str(key)), element("dd", _tree(value))) for key, value in shown]
        return joined([element("dl", terms), _rest(len(content))])
    if isinstance(content, list) and any(isinstance(item, (dict, list)) for item in content):
        items = [element("li", _tree(item)) for item in content[:LISTED]]
        return joined([element("ol", items), _rest(len(content))])
    return element("code", ", ".join(_plain(content)) or "none")


def _rest(count: int) -> Markup | None:
    return element("p", f"and {count - LISTED:,} more", class_="hint") if count > LISTED else None


def _plain(content: Any) -> Iterator[str]:
    for item in content if isinstance(content, (list, dict)) else [content]:
        yield item if isinstance(item, str) else json.dumps(item)
