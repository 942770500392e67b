"""What several commands share: kinds of options, the console, a run that is followed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from rich.console import Console

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class _Place(click.Path):
    """A folder, or the address of one in an object store, which stays a string."""

    def convert(self, value: Any, *context: Any) -> Any:
        """A path, unless it is an address."""
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, *context)


PLACE = _Place(path_type=Path, file_okay=False)

MEMORY_ADVICE = "lower training.batch_size, data.crop, training.history or data.memory_mb"

console = Console(stderr=True, highlight=False)


def follow(run: Any, out: Path) -> None:
    """Show a run's steps until it ends or the user ends it."""
    from simgan_aug.progress import Interrupted, track

    def describe(step: Any) -> str:
        losses = " ".join(f"{name[:3]} {value:.3f}" for name, value in step.losses.items())
        return f"{step.phase}: {losses}"

    try:
        for _ in track(run.steps(), run.total, run.state.step, "steps", describe, console):
            pass
    except Interrupted:
        again = shlex.join(["simgan-aug", "train", "--resume", "--out", str(out)])
        click.echo(f"saved after step {run.state.step}; go on with: {again}")
        raise
