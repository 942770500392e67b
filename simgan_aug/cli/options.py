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


class _Limit(click.ParamType[Any]):
    """NAME=NUMBER."""

    name = "NAME=NUMBER"

    def convert(self, value: Any, *context: Any) -> Any:
        """A pair."""
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).partition("=")
        try:
            return name.strip(), float(number)
        except ValueError:
            self.fail(f"expected NAME=NUMBER, such as displacement=0.5; got {value!r}")


LIMIT = _Limit()

MEMORY_ADVICE = "lower training.batch_size, data.crop, training.history or data.memory_mb"

console = Console(stderr=True, highlight=False)


def follow(run: Any, out: Path) -> None:
    """Show a run's steps until it ends or the user ends it; and each alarm when it begins."""
    from simgan_aug.progress import Interrupted, track

    def describe(step: Any) -> str:
        losses = " ".join(f"{name[:3]} {value:.3f}" for name, value in step.losses.items())
        return f"{step.phase}: {losses}"

    ringing: set[str] = set()
    try:
        for step in track(run.steps(), run.total, run.state.step, "steps", describe, console):
            for alarm in run.alarms:
                if alarm.name not in ringing:
                    text = f"step {step.number}: {alarm.name}: {alarm.message}"
                    console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)
            ringing = {alarm.name for alarm in run.alarms}
    except Interrupted:
        again = shlex.join(["simgan-aug", "train", "--resume", "--out", str(out)])
        click.echo(f"saved after step {run.state.step}; go on with: {again}")
        raise
