"""`simgan-aug study`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simgan_aug.cli.options import FILE, FOLDER, console
from simgan_aug.errors import SimganAugError


@click.command()
@click.option("--synthetic", type=FILE, required=True, help="COCO file of the synthetic images.")
@click.option("--images", type=FOLDER, help="Their folder. [images/ beside it, or its name]")
@click.option("--real-train", type=FOLDER, required=True, help="Real photos; labels never read.")
@click.option("--real-test", type=FILE, help="COCO file to score on. [none: realism only]")
@click.option("--real-test-images", type=FOLDER, help="Its folder. [as with --images]")
@click.option("--real-labels", type=FILE, help="COCO file of --real-train, for the oracle only.")
@click.option(
    "--task",
    type=click.Choice(["classify", "segment", "keypoints", "detect"]),
    default="classify",
    show_default=True,
)
@click.option(
    "--arms",
    multiple=True,
    help="raw, jitter, colour, fda, hm, pda, paper, default, mixed, strength, oracle; or "
    "NAME=DIR, NAME=refiner.safetensors, NAME=config.toml, 'NAME=cmd:COMMAND {out}'. [all]",
)
@click.option("--seeds", type=int, default=3, show_default=True, help="Of each arm.")
@click.option("--size", type=(int, int), help="Width and height a probe sees. [from the data]")
@click.option("--steps", type=int, default=400, show_default=True, help="Of a probe.")
@click.option("--batch-size", type=int, help="Images of a step. [64, or 32 but to classify]")
@click.option("--forms", type=int, default=4, show_default=True, help="Of an image, if drawn.")
@click.option("--refiner-steps", type=int, help="Of each training. [as its config says]")
@click.option("--config", type=FILE, help="TOML that the arm `default` trains. [our default]")
@click.option(
    "--limit",
    type=int,
    default=3000,
    show_default=True,
    help="Images of a side; refiners learn from all.",
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of them.")
@click.option(
    "--groups",
    type=click.Choice(["similar", "folder", "none"]),
    default="similar",
    show_default=True,
    help="Test photos that count as one: near-duplicates, those of a folder, or none.",
)
@click.option("--features", default="random", show_default=True, help="As of realism.")
@click.option("--only-labels", is_flag=True, help="Undo what arms do outside of labels.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the study.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
def study(**options: Any) -> None:
    """Ask whether refining helps: one table, one verdict.

    A small network learns the task from the images of each arm and is scored on labelled real
    photos. The same command goes on after an interruption; arms and seeds may be added. In a
    COMMAND, {annotations} {images} {real} {out} {seed} are filled in.
    """
    from simgan_aug.progress import Interrupted, track
    from simgan_aug.study import Settings, Study

    with console.status("reading"):
        made = Study(Settings(**options))
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    left = made.pending
    if len(left) < len(made.cells):
        click.echo(f"{len(made.cells) - len(left)} of {len(made.cells)} cells are done", err=True)
    try:
        for _ in track(made.run(), made.total, 0, "parts", str, console):
            pass
    except Interrupted:
        done = len(made.cells) - len(made.pending)
        click.echo(f"interrupted: {done} of {len(made.cells)} cells done; the same command goes on")
        raise
    except SimganAugError:
        _say(made, options["out"])
        raise
    _say(made, options["out"])


def _say(made: Any, out: Path) -> None:
    click.echo(made.table())
    names = ["table.md", "plot.svg", "arms.png"] if made.material.is_scored else ["table.md"]
    click.echo(f"study: {', '.join(str(out / name) for name in names)}")
