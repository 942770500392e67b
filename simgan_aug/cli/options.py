"""What several commands share: kinds of options, the console, a run that is followed."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any

import click
from rich.console import Console

FILE = click.Path(path_type=Path, dir_okay=False)
REFINER = click.Path(path_type=Path)  # a file, the folder of a run, or a plugin's name
FOLDER = click.Path(path_type=Path, file_okay=False)
ORIGIN = click.Path(path_type=str)  # what images come from: a path, or an address


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

BACKEND = click.option(
    "--backend",
    default="torch",
    show_default=True,
    metavar="NAME|FOLDER",
    help="torch, torch-compile, openvino, or what simgan-aug export has written.",
)

MEMORY_ADVICE = "lower training.batch_size, data.crop, training.history or data.memory_mb"

console = Console(stderr=True, highlight=False)


def follow(run: Any, out: Path) -> None:
    """Show a run's steps until it ends or the user ends it; and each alarm when it begins.

    Of several ranks the first shows it.
    """
    from simgan_aug.progress import Interrupted, Wish, track

    here = console if run.ranks.leads else Console(quiet=True)
    wish = Wish(here, (signal.SIGINT, signal.SIGTERM))

    def describe(step: Any) -> str:
        totals = {name: value for name, value in step.losses.items() if "/" not in name}
        losses = " ".join(f"{name[:3]} {value:.3f}" for name, value in totals.items())
        return f"{step.phase}: {losses}"

    def warn(text: str) -> None:
        here.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    ringing: set[str] = set()
    told, shown = 0, (run.total, run.state.number, "steps", describe, here)
    steps = run.steps(stop=lambda: wish.given)
    try:
        for step in track(steps, *shown, place=lambda step: step.number, wish=wish):
            for back in run.rollbacks[told:]:
                warn(
                    f"diverged: {back.reason}; went back to step {back.step}, on with "
                    f"{back.rate:g} of the learning rates"
                )
            told = len(run.rollbacks)
            for alarm in run.alarms:
                if alarm.name not in ringing:
                    warn(f"step {step.number}: {alarm.name}: {alarm.message}")
            ringing = {alarm.name for alarm in run.alarms}
    except Interrupted:
        if not run.ranks.leads:
            raise
        again = shlex.join(["simgan-aug", "train", "--resume", "--out", str(out)])
        click.echo(f"saved after step {run.state.number}; go on with: {again}")
        raise
