"""`simgan-aug realism`: distances to real images, each beside its floor and its ceiling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from simgan_aug.cli.options import FOLDER, console


@click.command()
@click.option("--synthetic", type=FOLDER, required=True, help="Folder of synthetic images.")
@click.option("--real", type=FOLDER, required=True, help="Folder of real photos.")
@click.option("--refined", type=FOLDER, help="Folder of refined images, named as the synthetic.")
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
def realism(as_json: bool, **settings: Any) -> None:
    """Measure how far synthetic and refined images are from real ones.

    Each distance stands beside its floor (real against real) and its ceiling (synthetic against
    real), with a 95 % interval. None says whether labels still fit: simgan-aug audit does.
    """
    from simgan_aug.progress import track
    from simgan_aug.realism import WARNING, compare

    def shown(items: Iterator[str], total: int, unit: str) -> Iterator[str]:
        return track(items, total, 0, unit, str, console)

    found = compare(progress=shown, **settings)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    Console().print(_table(found))
    counts = ", ".join(f"{found.counts[name]} {name}" for name in ("synthetic", "real", "refined"))
    click.echo(
        f"{counts} images in {found.counts['groups']} groups; {found.counts['compared']} on each "
        f"side of a distance; features: {found.features}"
    )
    click.echo(f"note: {WARNING}")


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
