"""`simgan-aug new-plugin`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from simgan_aug.cli.options import FOLDER


@click.command("new-plugin")
@click.argument("name")
@click.option("--out", type=FOLDER, help="Folder to write, a new one. [NAME]")
def new_plugin(name: str, out: Path | None) -> None:
    """Write a plugin that works, with a refiner to make your own.

    NAME is that of the distribution, such as simgan-aug-grain: its refiner is then
    called "grain". The plugin is a small network, the function that offers it, tests
    that hold it to the contract, and a config to train it with.
    """
    from simgan_aug.new_plugin import write_plugin

    out = out or Path(name)
    names = write_plugin(name, out)
    folder = shlex.quote(str(out))
    click.echo(f"plugin:  {out} (the refiner {names.part!r} is in {names.module}.py)")
    click.echo(f"next:    pip install -e {shlex.quote(f'{out}[test]')}")
    click.echo(f"         python -m pytest {folder}")
    click.echo(
        f"         simgan-aug train --config {shlex.quote(str(out / 'train.toml'))} "
        "--synthetic ann.json --real photos/ --out run/"
    )
