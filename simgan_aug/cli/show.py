"""Commands that show something: `preview`, `plugins`, `demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simgan_aug.cli.options import FILE, FOLDER, REFINER, follow
from simgan_aug.errors import ConfigError


@click.command()
@click.option(
    "--refiner", type=REFINER, required=True, help="refiner.safetensors of a run, or the run."
)
@click.option("--images", type=FOLDER, required=True, help="Folder of synthetic images.")
@click.option("--real", type=FOLDER, help="Folder of real photos, for the third row.")
@click.option("--out", type=FILE, required=True, help="PNG file to write.")
@click.option("--columns", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--strength", default=1.0, show_default=True, help="0: unchanged, 1: all of it.")
@click.option("--seed", default=0, show_default=True, help="Of noise and reference photos.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
def preview(
    refiner: Path, images: Path, real: Path | None, out: Path, device: str, **shown: Any
) -> None:
    """Draw a sheet: synthetic over refined over real."""
    from simgan_aug.inference import ImageRefiner
    from simgan_aug.preview import preview_folders
    from simgan_aug.sheet import save_png

    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out must name a .png file, got {out}")
    save_png(preview_folders(ImageRefiner.load(refiner, device), images, real, **shown), out)
    click.echo(f"sheet: {out}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def plugins(as_json: bool) -> None:
    """List installed plugins, their parts, and what is wrong with them."""
    from simgan_aug import plugins as registry

    found = registry.plugins()
    if as_json:
        rows = [{k: v for k, v in vars(plugin).items() if k != "module"} for plugin in found]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("plugin", "distribution", "parts", "error")
    for plugin in found:
        offered = [f"{kind}: {', '.join(names)}" for kind, names in plugin.parts.items() if names]
        observed = [hook for hook in plugin.hooks if not hook.startswith("simgan_register_")]
        offered += [hook.removeprefix("simgan_").replace("_", " ") for hook in observed]
        distribution = f"{plugin.distribution} {plugin.version}"
        listed = "" if plugin.error else "\n".join(offered)  # one that is left out offers nothing
        # As Text, for what a plugin says may look like markup; folded, as names are long.
        row = (plugin.name, distribution, listed, plugin.error)
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


@click.command()
@click.option("--data", type=FOLDER, help="The hands sample. [examples/data/hands]")
@click.option("--out", type=FOLDER, default=Path("demo-run"), show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=800, show_default=True)
def demo(data: Path | None, out: Path, steps: int) -> None:
    """Train on the shipped hands, refine them, show the result."""
    from simgan_aug import demo as show

    for line in show.run(data, out, steps, follow):
        click.echo(line)
