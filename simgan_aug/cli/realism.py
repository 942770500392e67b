"""`simgan-aug realism`: distances to real images, each beside its floor and its ceiling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from simgan_aug.cli.options import ORIGIN, console


@click.command()
@click.option("--synthetic", type=ORIGIN, required=True, help="Folder of synthetic images.")
@click.option("--real", type=ORIGIN, required=True, help="Folder of real photos.")
@click.option("--refined", type=ORIGIN, help="Folder of refined images, named as the synthetic.")
@click.option(
    "--features",
    default="random",
    show_default=True,
    help="random, a plugin's space, a feature transform, or ARCHITECTURE:FILE, as "
    "resnet18:weights.safetensors.",
)
@click.option(
    "--groups",
    type=click.Choice(["similar", "folder", "none"]),
    default="similar",
    show_default=True,
    help="What belongs together: near-duplicates, the images of a folder, or nothing.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Of each."
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def realism(synthetic: str, real: str, refined: str | None, as_json: bool, **settings: Any) -> None:
    """Measure how far synthetic and refined images are from real ones.

    Each distance stands beside its floor (real against real) and its ceiling (synthetic against
    real), with a 95 % interval. None says whether labels still fit: simgan-aug audit does.

    In place of a folder: whatever else train takes, SCHEME:PLACE of a plugin's source too.
    """
    from simgan_aug.dataset.plan import INFO
    from simgan_aug.dataset.storage import IMAGES
    from simgan_aug.progress import track
    from simgan_aug.realism import WARNING, compare

    def shown(items: Iterator[str], total: int, unit: str) -> Iterator[str]:
        return track(items, total, 0, unit, str, console)

    if refined and (Path(refined) / INFO).exists() and (Path(refined) / IMAGES).is_dir():
        refined = str(Path(refined) / IMAGES)  # what refine has written
    images = _images(synthetic), _images(real), _images(refined) if refined else None
    found = compare(*images, progress=shown, **settings)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    Console().print(_table(found))
    counts = ", ".join(f"{found.counts[name]} {name}" for name in ("synthetic", "real", "refined"))
    click.echo(
        f"{counts} images in {found.counts['groups']} groups; {found.counts['compared']} on each "
        f"side of a distance; features: {found.features}"
    )
    if refined and not found.counts["paired"]:
        click.echo("note: no refined image is named as a synthetic one: they count as another set")
    click.echo(f"note: {WARNING}")


def _images(where: str) -> Any:
    """What lies at a place: a folder as it is, of all others each image."""
    from simgan_aug.data.listings import Origin, list_origin
    from simgan_aug.imagefile import decode_image, upright
    from simgan_aug.realism import Named

    origin = Origin(where=where)
    if origin.kind == "folder":
        return origin.where
    listing = list_origin(origin)

    def read(index: int) -> Any:
        return upright(decode_image(listing.content(index), listing.title(index)))

    return [Named(name, partial(read, index)) for index, name in enumerate(listing.names)]


def _table(found: Any) -> Table:
    table = Table("measure", "floor", "refined", "ceiling", "gap closed", box=SIMPLE)
    for measure in found.measures:
        closed = "cannot\nbe told" if measure.closed is None else f"{measure.closed:.0%}"
        table.add_row(
            f"{measure.name}\n{measure.unit}",
            _cell(measure.floor),
            _cell(measure.refined),
            _cell(measure.ceiling),
            "-" if measure.refined is None else closed,
        )
    return table


def _cell(distance: Any) -> str:
    """The value, and its interval below."""
    if distance is None:
        return "-"
    return f"{_short(distance.value)}\n{_short(distance.low)} to {_short(distance.high)}"


def _short(value: float) -> str:
    """Two decimals below a hundred, whole numbers above."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
