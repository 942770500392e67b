"""Every distance beside its floor and its ceiling, and how much of the gap refining has closed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simgan_aug.errors import ConfigError, DataError
from simgan_aug.realism.classifier import answer_draws
from simgan_aug.realism.colour import colour_draws
from simgan_aug.realism.mmd import kid_draws
from simgan_aug.realism.resampling import LEAST, Distance, Draws, interval, numbered
from simgan_aug.realism.rounds import Round, draw_rounds
from simgan_aug.realism.sample import (
    Groups,
    Images,
    Sample,
    Source,
    belong,
    draw,
    listed,
    partners,
    see,
)
from simgan_aug.realism.spaces import extractor
from simgan_aug.realism.spectrum import spectrum_draws

Array = np.ndarray[Any, Any]

Progress = Callable[[Iterator[str], int, str], Iterable[str]]
"""Shows long work: gets the items, how many there will be, and their unit; yields the items."""

WARNING = (
    "realism alone rewards labels that have moved as readily as better pictures: "
    "hold the labels to account with simgan-aug audit"
)

UNITS = {
    "classifier accuracy": "share right, chance 0.5",
    "classifier AUC": "share ordered, chance 0.5",
    "KID": "no unit",
    "spectrum": "dB",
    "colour": "8-bit levels",
}
"""What each measure is in; lower is nearer to real in all of them."""


@dataclass(frozen=True)
class Measure:
    """One distance: refined beside the floor that noise sets and the ceiling to come down from."""

    name: str
    unit: str
    floor: Distance
    """Real against real: two halves, no group in both."""
    refined: Distance | None
    """Refined against real; None: no refined images were given."""
    ceiling: Distance
    """Synthetic against real."""
    closed: float | None
    """(ceiling - refined) / (ceiling - floor), in the measure's own unit: 1 is real, 0 unrefined,
    less than 0 further from real than before. None: nothing was refined, or the ceiling's interval
    does not lie above the floor's, so that there is no gap to be told."""


@dataclass(frozen=True)
class Comparison:
    """Realism of synthetic and refined images; `as_json` for a program or a report.

    {"measures": [{"name": "KID", "unit": "...",
                   "floor": {"value": 0.0, "low": -0.1, "high": 0.1},
                   "refined": {...} or null, "ceiling": {...}, "closed": 0.4 or null}],
     "counts": {"synthetic": 1000, "real": 1000, "refined": 1000, "groups": 2400,
                "compared": 480},
     "features": "random", "warning": "..."}
    """

    measures: tuple[Measure, ...]
    """In the order of `UNITS`."""
    counts: Mapping[str, int]
    """Images drawn of each set (refined: 0 if none were given), groups of images that belong
    together (of all sets), and images "compared" on each side of every distance."""
    features: str
    """The feature space of classifier and KID."""

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        plain = [dataclasses.asdict(measure) for measure in self.measures]
        return {
            "measures": plain,
            "counts": dict(self.counts),
            "features": self.features,
            "warning": WARNING,
        }


def compare(
    synthetic: Images,
    real: Images,
    refined: Images | None = None,
    *,
    features: str = "random",
    groups: Groups = "similar",
    limit: int = 1000,
    repeats: int = 5,
    resamples: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """How far synthetic and refined images are from real ones, each distance between equal numbers.

    The real images are halved by groups, `repeats` times: the floor is the distance of the halves,
    the ceiling that of as many synthetic images from one half, and their refined forms are held
    against the same half. Everything is drawn by the seed.

    Args:
        synthetic, real, refined: a folder each, or a list of files or arrays. A refined image is
            known as the form of a synthetic one by its name without its ending; of arrays, by its
            place.
        features: of classifier and KID; see `extractor`.
        groups: images that belong together: "similar" looks for near-duplicates, "folder" takes
            those of one folder (a video each, say), "none" takes each image alone; or, by set
            ("synthetic", "real", "refined"), one group for each image in the order of the list (of
            a folder: of its sorted names). A refined image always belongs to its synthetic one.
        limit: images of a set, drawn by the seed if there are more.
        repeats: halvings of the real images.
        resamples: of the groups in each repeat, for the intervals, which hold what both change.
        seed: of all that is drawn.
        progress: shows the work; see `Progress`.

    Raises:
        DataError: a folder without images, too few images or groups.
        ImageError: an image that cannot be read, or has less than 16 px on a side.
        ConfigError: impossible settings.
    """
    if min(limit, repeats, resamples) < 1:
        raise ConfigError(
            f"limit, repeats and resamples must be 1 or more, got {limit}, {repeats}, {resamples}"
        )
    show = progress or (lambda items, total, unit: items)
    sources = _drawn(synthetic, real, refined, limit, seed)
    samples = _seen(sources, features, show)
    labels = belong(samples, groups)
    rounds = draw_rounds(samples, labels, repeats, np.random.default_rng(seed))
    found = _measured(samples, labels, rounds, resamples, show)
    counts = {name: len(sources.get(name, ())) for name in ("synthetic", "real", "refined")}
    counts["groups"] = len(np.unique(np.concatenate(list(labels.values()))))
    counts["compared"] = len(rounds[0].real)
    if refined is not None:
        counts["paired"] = len(partners(sources["synthetic"], sources["refined"]))
    return Comparison(tuple(_measure(name, found[name]) for name in UNITS), counts, features)


def _drawn(
    synthetic: Images, real: Images, refined: Images | None, limit: int, seed: int
) -> dict[str, list[Source]]:
    """The images of each set; of the refined ones those whose synthetic image was drawn."""
    found = {"synthetic": listed(synthetic), "real": listed(real)}
    if refined is None:
        return {name: draw(sources, limit, seed) for name, sources in found.items()}
    forms = listed(refined)
    pairs = partners(found["synthetic"], forms)
    if pairs:
        found["synthetic"] = [found["synthetic"][row] for row in pairs]
    drawn = {name: draw(sources, limit, seed) for name, sources in found.items()}
    if pairs:
        forms = [forms[row] for row in partners(drawn["synthetic"], forms).values()]
    return drawn | {"refined": draw(forms, limit, seed)}


def _seen(sources: Mapping[str, list[Source]], features: str, show: Progress) -> dict[str, Sample]:
    extract = extractor(features)
    for name, images in sources.items():
        if len(images) < LEAST * (2 if name == "real" else 1):
            needed = f"{2 * LEAST} real images, for two halves" if name == "real" else f"{LEAST}"
            raise DataError(f"expected at least {needed}, got {len(images)} {name} images")
    seen: dict[str, list[Any]] = {name: [] for name in sources}

    def work() -> Iterator[str]:
        for name, images in sources.items():
            for source in images:
                seen[name].append(see(source, extract))
                yield name

    for _ in show(work(), sum(map(len, sources.values())), "images"):
        pass
    return {name: Sample(sources[name], parts) for name, parts in seen.items()}


def _measured(
    samples: Mapping[str, Sample],
    labels: Mapping[str, Array],
    rounds: list[Round],
    resamples: int,
    show: Progress,
) -> dict[str, dict[str, Distance]]:
    """Distances by measure, and in it by what is held against real images."""
    drawn: dict[str, dict[str, list[Draws]]] = {name: {} for name in UNITS}

    def work() -> Iterator[str]:
        for number, rows in enumerate(rounds):
            for role, name in (("floor", "real"), ("refined", "refined"), ("ceiling", "synthetic")):
                picked = getattr(rows, role)
                if picked is None:
                    continue
                sets = (samples[name], picked), (samples["real"], rows.real)
                numbers = numbered([*labels[name][picked], *labels["real"][rows.real]])
                for measure, draws in _distances(*sets, numbers, resamples, number).items():
                    drawn[measure].setdefault(role, []).append(draws)
                yield role

    total = len(rounds) * (2 if rounds[0].refined is None else 3)
    for _ in show(work(), total, "comparisons"):
        pass
    return {
        measure: {role: interval(parts) for role, parts in roles.items()}
        for measure, roles in drawn.items()
    }


def _distances(
    first: tuple[Sample, Array],
    second: tuple[Sample, Array],
    labels: Array,
    resamples: int,
    seed: int,
) -> dict[str, Draws]:
    """Every measure of some rows of two samples."""
    (one, rows), (other, others) = first, second
    options: dict[str, Any] = {"labels": labels, "resamples": resamples, "seed": seed}
    features = one.features[rows], other.features[others]
    accuracy, auc = answer_draws(*features, **options)
    return {
        "classifier accuracy": accuracy,
        "classifier AUC": auc,
        "KID": kid_draws(*features, **options),
        "spectrum": spectrum_draws(one.spectra[rows], other.spectra[others], **options),
        "colour": colour_draws(one.colours[rows], other.colours[others], **options),
    }


def _measure(name: str, found: Mapping[str, Distance]) -> Measure:
    floor, ceiling, refined = found["floor"], found["ceiling"], found.get("refined")
    closed = None
    if refined is not None and ceiling.low > floor.high:
        closed = (ceiling.value - refined.value) / (ceiling.value - floor.value)
    return Measure(name, UNITS[name], floor, refined, ceiling, closed)
