"""The parts of a page beside the gallery and its tables: numbers, plots, sample sheets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simgan_aug.audit.growth import Grown
from simgan_aug.errors import DataError
from simgan_aug.imagefile import read_image
from simgan_aug.pixels import to_display
from simgan_aug.report import charts, curves
from simgan_aug.report.facts import Facts
from simgan_aug.report.markup import Markup, element, joined, plural, section
from simgan_aug.report.pictures import data_uri

SHEETS = 5
"""Sample sheets that are embedded."""

WARNING = (
    "Realism alone rewards moved labels: a picture whose objects have drifted to where real ones "
    "lie scores better. Read it beside the drifts, never instead of them."
)


def tiles(facts: Facts) -> Markup:
    """The numbers that matter most."""
    found: list[tuple[str, str, str]] = []
    if facts.audit is not None:
        counts = facts.audit.counts
        labels, rejected = counts.get("labels", 0), counts.get("rejected", 0)
        share = f"rejected, {rejected / labels:.1%} of {labels:,} labels" if labels else "rejected"
        found.append((f"{rejected:,}", share, "bad" if rejected else "good"))
        found.append((f"{counts.get('unmeasurable', 0):,}", "labels not measurable", ""))
        found.append((f"{counts.get('appeared', 0):,}", "things appeared", ""))
        grown = Grown(counts.get("grown", 0), counts.get("grown_of", 0))
        if grown.told:
            said = f"of {grown.told:,} labels (that can be told) look larger than their boxes"
            found.append((f"{grown.number:,}", said, "bad" if grown.is_much else ""))
        found.append((f"{counts.get('images', 0):,}", "images audited", ""))
    result = facts.result
    for key, said in (("refined", "images refined"), ("images", "images in all")):
        if isinstance(result.get(key), int) and (key == "refined" or facts.audit is None):
            found.append((f"{result[key]:,}", said, ""))
    if facts.failed:
        found.append((f"{len(facts.failed):,}", "images failed", "bad"))
    if facts.kind == "run":
        if facts.metrics:
            found.append((f"{facts.metrics[-1]['step']:,}", "steps trained", ""))
        found.append((f"{len(facts.alarms):,}", "alarms", "bad" if facts.alarms else "good"))
    boxes = [
        element("div", element("strong", value), element("span", said), class_=f"tile {kind}")
        for value, said, kind in found
    ]
    return element("div", boxes, class_="tiles") if boxes else Markup("")


def remarks(facts: Facts) -> Markup:
    """What the guard did, alarms, and what is missing."""
    items: list[Markup] = [
        element(
            "li", element("b", f"Alarm at step {alarm.step:,}: {alarm.name}. "), alarm.message,
            class_="bad",
        )
        for alarm in facts.alarms
    ]  # fmt: skip
    guard = facts.result.get("guard")
    if isinstance(guard, dict):
        items.append(element("li", _guarded(guard)))
    notes = facts.result.get("notes")
    if isinstance(notes, dict):
        items += [element("li", f"{plural(n, 'image')}: {note}") for note, n in notes.items()]
    items += [element("li", note) for note in facts.notes]
    return element("ul", items, class_="remarks") if items else Markup("")


def distributions(facts: Facts) -> Markup:
    """A histogram of every measure that was taken."""
    plots = [
        element(
            "figure",
            element("figcaption", element("b", data.measure.name), f": {data.measure.meaning}"),
            charts.histogram(data),
        )
        for data in facts.histograms
        if data.total
    ]
    if not plots:
        return Markup("")
    hint = (
        "Every audited label counts. What is beyond its limit is red; hover over a bar to read it."
    )
    inner = element("p", hint, class_="hint"), element("div", plots, class_="plots")
    return section("distributions", "Distributions", inner)


def realism(facts: Facts) -> Markup:
    """Floor, refined and ceiling of every measure, and what they do not say."""
    if facts.realism is None:
        return Markup("")
    plots = [
        element(
            "figure",
            element(
                "figcaption",
                element("b", measured.name),
                f" ({measured.unit})" if measured.unit else "",
                "" if measured.closed is None else f": {measured.closed:.0%} of the gap closed",
            ),
            curves.realism_bars(measured),
        )
        for measured in facts.realism.measures
    ]
    counts = ", ".join(f"{count:,} {name}" for name, count in facts.realism.counts.items())
    features = f"Features: {facts.realism.features}. " if facts.realism.features else ""
    said = f"{features}{counts and f'Images: {counts}. '}Lower is nearer to real."
    warning = element("p", WARNING, class_="warning")
    inner = warning, element("p", said, class_="hint"), element("div", plots, class_="plots")
    return section("realism", "Realism", inner)


def training(facts: Facts) -> Markup:
    """A curve for every loss."""
    plots = [
        element(
            "figure",
            element("figcaption", element("b", name)),
            curves.curve(name, facts.metrics, facts.alarms),
        )
        for name in curves.losses_of(facts.metrics)
    ]
    if not plots:
        return Markup("")
    hint = (
        "The line is the mean of neighbouring steps, the shade behind it their range. "
        "Shaded: the phases before the last one."
    )
    inner = element("p", hint, class_="hint"), element("div", plots, class_="plots")
    return section("training", "Training", inner)


def sheets(facts: Facts, side: int) -> Markup:
    """Sample sheets that training has drawn, the last one first."""
    if not facts.sheets:
        return Markup("")
    last = [path for path in facts.sheets if path.stem == "last"]
    steps = [path for path in facts.sheets if path.stem != "last"]
    spaced = {round(n * (len(steps) - 1) / max(1, SHEETS - 2)) for n in range(SHEETS - 1)}
    chosen = [*last, *(steps[place] for place in sorted(spaced, reverse=True) if steps)]
    figures: list[Markup] = []
    for path in chosen:
        try:
            shown = data_uri(to_display(read_image(path).pixels), side)
        except (DataError, OSError) as error:
            figures.append(element("p", str(error), class_="problem"))
            continue
        alt = f"sheet {path.stem}: synthetic over refined over real"
        picture = element("img", src=shown, alt=alt, class_="sheet")
        figures.append(element("figure", element("figcaption", path.stem), picture))
    earlier = element("details", element("summary", "earlier sheets"), figures[1:])
    return section("samples", "Samples", figures[:1], earlier if figures[1:] else None)


def _guarded(guard: Mapping[str, Any]) -> Markup:
    said = f"of {guard.get('images')} images {guard.get('blended')} were blended with what they "
    said += f"were before, {guard.get('kept')} left as they were."
    return joined([element("b", f"Guard, policy {guard.get('policy')}: "), said])
