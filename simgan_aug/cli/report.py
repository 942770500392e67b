"""`simgan-aug report`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from simgan_aug.cli.options import FILE, FOLDER, console
from simgan_aug.errors import ConfigError


@click.command()
@click.argument("source", metavar="RUN|DIR|AUDIT", type=click.Path(path_type=Path))
@click.option("--out", type=FILE, required=True, help="HTML file to write.")
@click.option("--audit", type=FILE, help="JSON of `audit`. [audit.json in DIR or beside it]")
@click.option("--images", type=FOLDER, help="Folder of the originals. [the audit's, the run's]")
@click.option("--realism", type=FILE, help="JSON of distances to real.")
@click.option(
    "--count", type=click.IntRange(min=1), default=24, show_default=True, help="Pictures."
)
@click.option(
    "--max-side", type=click.IntRange(16, 4096), default=640, show_default=True, help="Of them, px."
)
@click.option("--title", help="Of the page. [the name of RUN, DIR or AUDIT]")
@click.option("--device", default="auto", show_default=True, help="Of a run's refiner.")
def report(source: Path, out: Path, **options: Any) -> None:
    """Show a run, a refined data set or an audit as one self-contained page.

    RUN is what `train` has written, DIR what `refine` has, AUDIT what `audit` has. The page needs
    no network and may be sent by mail; the worst drifts come first.
    """
    from simgan_aug.progress import track
    from simgan_aug.report import Report

    if out.suffix.lower() not in (".html", ".htm"):  # before the work
        raise ConfigError(f"--out must name a .html file, got {out}")
    with console.status("reading"):
        made = Report(source, **options)
    total = len(made.gallery.cards)

    def follow(cards: Iterator[Any]) -> Iterator[Any]:
        return track(cards, total, 0, "pictures", lambda card: str(card.record.image), console)

    made.write(out, follow)
    for note in made.facts.notes:
        click.echo(f"note: {note}")
    click.echo(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
