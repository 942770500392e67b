"""The page: one file that holds all it shows, written as a stream, a picture at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from importlib import metadata, resources

from simgan_aug.report import sections, tables
from simgan_aug.report.cards import Card, card
from simgan_aug.report.facts import Facts
from simgan_aug.report.gallery import Gallery
from simgan_aug.report.markup import Markup, element, joined, plural

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""With it the browser itself fetches nothing, whatever the names in a data set may say."""

CHIPS = 12
"""Categories that a gallery can be filtered by, the most frequent ones."""

PARTS = (
    "distributions",
    "categories",
    "realism",
    "training",
    "samples",
    "failed",
    "provenance",
)
"""Sections below the pictures, in order."""

KEYS = (
    ("j k", "next, previous"),
    ("← →", "divider"),
    ("f", "flip"),
    ("l", "labels"),
    ("enter", "enlarge"),
    ("+ −", "zoom"),
    ("esc", "close"),
)


def page(
    facts: Facts, gallery: Gallery, cards: Iterable[Card], side: int, title: str
) -> Iterator[bytes]:
    """The parts of the page in order, as UTF-8.

    Args:
        facts: all but the pictures.
        gallery: where pixels come from.
        cards: those of the gallery; each is read when its turn comes.
        side: px of the longer side of a picture at most.
        title: of the page.
    """
    before = [sections.tiles(facts), sections.remarks(facts)]
    after = [
        sections.distributions(facts),
        tables.table(facts),
        sections.realism(facts),
        sections.training(facts),
        sections.sheets(facts, 2 * side),
        tables.failures(facts),
        tables.provenance(facts),
    ]
    yield _encoded("<!doctype html>", '<html lang="en">', _head(title), "<body>")
    yield _encoded(_banner(facts, title, after, bool(gallery.cards)), "<main>", *before)
    if gallery.cards:
        yield _encoded('<section id="pictures" aria-labelledby="pictures-title">')
        yield _encoded(_gallery_head(facts, gallery), '<div class="cards">')
        limits = facts.audit.limits if facts.audit is not None else {}
        for place, each in enumerate(cards):
            pair = gallery.pair(each)
            yield _encoded(card(each, pair, place, side, gallery.categories, limits))
        yield _encoded("</div></section>")
    yield _encoded(*after, "</main>", _footer(), _dialog(), _script(), "</body></html>")


def _encoded(*parts: str) -> bytes:
    return ("\n".join(part for part in parts if part) + "\n").encode()


def _head(title: str) -> Markup:
    style = resources.files("simgan_aug.report").joinpath("page.css").read_text("utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(style)),
    )


def _script() -> Markup:
    content = resources.files("simgan_aug.report").joinpath("page.js").read_text("utf-8")
    return element("script", Markup(content))


def _banner(facts: Facts, title: str, after: list[Markup], pictures: bool) -> Markup:
    present = ["pictures"] * pictures + [n for n, s in zip(PARTS, after, strict=True) if s]
    links = [element("a", name, href=f"#{name}") for name in present]
    kind = {"run": "training run", "refined": "refined data set", "audit": "audit"}[facts.kind]
    return element(
        "header",
        element("p", f"simgan-aug report · {kind}", class_="kind"),
        element("h1", title),
        element("p", str(facts.where), class_="where"),
        element("nav", links, aria_label="Parts of this page"),
        class_="banner",
    )


def _gallery_head(facts: Facts, gallery: Gallery) -> Markup:
    worst = facts.audit is not None
    title = "Pictures, worst first" if worst else "Pictures"
    legend = [("passed", "passed"), ("rejected", "rejected"), ("unmeasurable", "not measurable")]
    legend += [("new", "appeared"), ("arrow", "where the picture went")]
    shown = legend if worst else [("plain", "label")]
    keys = [(element("kbd", key), f" {what}") for key, what in KEYS]
    return joined(
        [
            element("h2", title, id="pictures-title"),
            element(
                "div",
                _filters(gallery, worst),
                element("button", "labels", type="button", id="toggle-labels", aria_pressed="true"),
                element("p", plural(len(gallery.cards), "picture"), id="count", aria_live="polite"),
                class_="toolbar",
            ),
            element("p", [element("span", s, class_=k) for k, s in shown], class_="legend"),
            element("p", [element("span", key) for key in keys], class_="keys"),
        ]
    )


def _filters(gallery: Gallery, worst: bool) -> list[Markup]:
    rejected = sum(each.is_rejected for each in gallery.cards)
    states = [("all", f"all {len(gallery.cards)}"), ("rejected", f"rejected {rejected}")]
    groups = []
    if worst:
        groups.append(
            element(
                "div",
                [_chip("state", value, said, value == "all") for value, said in states],
                class_="chips", role="group", aria_label="Show pictures by verdict",
            )
        )  # fmt: skip
    if len(gallery.categories) > 1:
        listed = list(gallery.categories.items())[:CHIPS]
        chips = [_chip("category", str(n), name or "no category", False) for name, n in listed]
        groups.append(
            element(
                "div",
                _chip("category", "", "every category", True), chips,
                class_="chips", role="group", aria_label="Show pictures by category",
            )
        )  # fmt: skip
    return groups


def _chip(group: str, value: str, said: str, pressed: bool) -> Markup:
    return element(
        "button",
        said,
        type="button",
        class_="chip",
        aria_pressed="true" if pressed else "false",
        data_group=group,
        data_value=value,
    )


def _dialog() -> Markup:
    """An enlarged picture; empty until one is asked for."""
    buttons = [
        element("button", said, type="button", data_do=do, title=f"key {key}", aria_label=name)
        for do, said, key, name in (
            ("previous", "‹", "k", "previous picture"),
            ("next", "›", "j", "next picture"),
            ("flip", "flip", "f", "flip before and after"),
            ("out", "−", "−", "smaller"),
            ("in", "+", "+", "larger"),
            ("close", "×", "esc", "close"),
        )
    ]
    bar = element(
        "div",
        element("h2", "", id="enlarged-name"),
        element("span", "", id="enlarged-place"),
        element("span", buttons, class_="buttons"),
        class_="bar",
    )
    view = element("div", "", id="enlarged-view")
    return element("dialog", bar, view, id="enlarged", aria_labelledby="enlarged-name")


def _footer() -> Markup:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    version = metadata.version("simgan-aug")
    said = f"Made by simgan-aug {version} on {made}. This file holds all that it shows."
    return element("footer", said)
