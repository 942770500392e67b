"""HTML and SVG in which every string is escaped, unless it says that it is markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias


class Markup(str):
    """Text that is markup; all other text is taken for what a data set says, and escaped."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"

_VOID = frozenset({"img", "input", "meta", "link", "br", "col"})


def element(name: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """One element with what is in it.

    Args:
        name: of the element, ours, never from a data set.
        children: text, which is escaped, `Markup`, which is not, or lists of them; None is nothing.
        attributes: a trailing underscore is dropped and the others become hyphens (`class_`,
            `data_at`); True is an attribute without a value, False and None are none.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{joined(children)}</{name}>")


def joined(children: Child) -> Markup:
    """Children in order, escaped where they are no markup."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, (str, int, float)):
        return Markup(html.escape(_printable(str(children))))
    return Markup("".join(joined(child) for child in children))


def section(name: str, title: str, *children: Child) -> Markup:
    """A part of the page that the navigation leads to."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, children, id=name, aria_labelledby=f"{name}-title")


def number(value: float, digits: int = 3) -> str:
    """A number as people read it: three digits that count, no exponent, a true minus."""
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}" if abs(value) >= 1e-4 else f"{value:.0e}"
    return ("0" if text == "-0" else text).replace("-", "\N{MINUS SIGN}")


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 label", "1,204 labels"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    name = "viewBox" if name == "viewbox" else name
    return f" {name}" if value is True else f' {name}="{html.escape(_printable(str(value)))}"'


def _printable(text: str) -> str:
    """Text that UTF-8 and HTML can hold: a file's name may have lone surrogates and controls."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in whole)
