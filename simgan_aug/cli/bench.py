"""`simgan-aug bench`: one command a table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from simgan_aug.cli.options import FOLDER, REFINER, console

_IMAGES = click.option("--images", type=FOLDER, help="Photos. [examples/data/hands/real]")
_REFINER = click.option("--refiner", type=REFINER, help="Refiner file. [untrained, as fast]")
_SIZE = click.option("--size", type=(int, int), default=(640, 480), show_default=True, help="Px.")
_COUNT = click.option(
    "--count", type=click.IntRange(min=1), default=48, show_default=True, help="Images."
)
_BACKEND = click.option("--backend", default="torch", show_default=True, help="Of the refiner.")
_ROUNDS = click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="For a program.")


@click.group()
def bench() -> None:
    """Measure speed on this machine, in ratios that can be trusted."""


@bench.command("loader")
@_IMAGES
@_REFINER
@_SIZE
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@_COUNT
@_BACKEND
@_ROUNDS
@_JSON
def bench_loader(images: Path | None, as_json: bool, count: int, **settings: Any) -> None:
    """Images per second out of a DataLoader, ours beside albumentations' own.

    Each variant keeps its workers; they take turns, in an order reversed every round.
    """
    from simgan_aug.bench.loader import loader

    with _place(images, settings["rounds"] + 1) as (folder, scratch, shown):
        _tell(loader(folder, scratch, images=count, progress=shown, **settings), as_json)


@bench.command("train")
@click.option("--data", type=FOLDER, help="Hands sample. [examples/data/hands]")
@_ROUNDS
@_JSON
def bench_train(data: Path | None, as_json: bool, rounds: int) -> None:
    """A step of the default training, against the same step written plainly in float32."""
    from simgan_aug.bench.train import train

    with _place(data, rounds) as (folder, scratch, shown):
        _tell(train(data or folder.parent, scratch, rounds=rounds, progress=shown), as_json)


@bench.command("refine")
@_IMAGES
@_REFINER
@_BACKEND
@_SIZE
@_COUNT
@_ROUNDS
@_JSON
def bench_refine(images: Path | None, as_json: bool, count: int, **settings: Any) -> None:
    """The whole refine job, against the slower of JPEG alone and of the refiner alone."""
    from simgan_aug.bench.refine import refine

    with _place(images, settings["rounds"]) as (folder, scratch, shown):
        _tell(refine(folder, scratch, images=count, progress=shown, **settings), as_json)


@bench.command("cache")
@_IMAGES
@_REFINER
@_SIZE
@_COUNT
@_ROUNDS
@_JSON
def bench_cache(images: Path | None, as_json: bool, count: int, **settings: Any) -> None:
    """The second epoch from a cache, against no refiner."""
    from simgan_aug.bench.cache import cache

    with _place(images, settings["rounds"]) as (folder, scratch, shown):
        _tell(cache(folder, scratch, images=count, progress=shown, **settings), as_json)


@bench.command("mem")
@_IMAGES
@_REFINER
@click.option("--workspace-mb", type=click.IntRange(min=1), default=1024, show_default=True)
@_JSON
def bench_mem(images: Path | None, as_json: bool, **settings: Any) -> None:
    """Memory of refining images of three sizes, and of a loader's worker."""
    from simgan_aug.bench.mem import mem

    with _place(images, 12) as (folder, scratch, shown):
        _tell(mem(folder, scratch, progress=shown, **settings), as_json)


@bench.command("cpu")
@_IMAGES
@_REFINER
@_SIZE
@_ROUNDS
@_JSON
def bench_cpu(images: Path | None, as_json: bool, **settings: Any) -> None:
    """CPU time of an image on one thread, ours by backend beside its peers.

    Each variant keeps a process; they take turns, in an order reversed every round.
    """
    from simgan_aug.bench.cpu import cpu

    with _place(images, settings["rounds"]) as (folder, scratch, shown):
        _tell(cpu(folder, scratch, progress=shown, **settings), as_json)


@bench.command("start")
@_IMAGES
@_REFINER
@_SIZE
@_ROUNDS
@_JSON
def bench_start(images: Path | None, as_json: bool, **settings: Any) -> None:
    """CPU time and memory from the start of a process to its first image."""
    from simgan_aug.bench.start import start

    with _place(images, settings["rounds"]) as (folder, scratch, shown):
        _tell(start(folder, scratch, progress=shown, **settings), as_json)


@bench.command("exact")
@_IMAGES
@_REFINER
@_SIZE
@click.option("--count", type=click.IntRange(min=2), default=16, show_default=True, help="Images.")
@_JSON
def bench_exact(images: Path | None, as_json: bool, count: int, **settings: Any) -> None:
    """Grey levels between backends and precisions: how far apart their images are."""
    from simgan_aug.bench.exact import exact

    with _place(images, count) as (folder, scratch, shown):
        _tell(exact(folder, scratch, images=count, progress=shown, **settings), as_json)


@bench.command("gpu")
@_IMAGES
@_SIZE
@click.option("--batch", type=click.IntRange(min=2), default=16, show_default=True, help="Images.")
@_ROUNDS
@_JSON
def bench_gpu(images: Path | None, as_json: bool, **settings: Any) -> None:
    """Images per second on a GPU, and the share of what it can do at best.

    The paper's network, ours and CycleGAN's, as they are and compiled, and the whole path of ours.
    """
    from simgan_aug.bench.gpu import gpu

    with _place(images, settings["rounds"]) as (folder, scratch, shown):
        _tell_or_skip(lambda: gpu(folder, scratch, progress=shown, **settings), as_json)


@bench.command("loop")
@_IMAGES
@_REFINER
@_SIZE
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Images.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@_ROUNDS
@_JSON
def bench_loop(images: Path | None, as_json: bool, **settings: Any) -> None:
    """Whether a detector's training on a GPU notices that all of its images are refined."""
    from simgan_aug.bench.loop import loop

    with _place(images, settings["rounds"]) as (folder, scratch, shown):
        _tell_or_skip(lambda: loop(folder, scratch, progress=shown, **settings), as_json)


@contextmanager
def _place(images: Path | None, rounds: int) -> Iterator[tuple[Path, Path, Any]]:
    """The photos, a folder that is removed, and what shows the rounds."""
    from simgan_aug.demo import shipped
    from simgan_aug.progress import track

    def shown(numbers: Iterator[int]) -> Iterator[int]:
        return track(numbers, rounds, 0, "rounds", lambda _: "", console)

    with tempfile.TemporaryDirectory(prefix="simgan-bench-") as scratch:
        yield images or shipped() / "real", Path(scratch), shown


def _tell(table: Any, as_json: bool) -> None:
    """Print a table, as the last thing that a command does."""
    click.echo(json.dumps(table.as_builtins(), indent=2) if as_json else table.as_text())


def _tell_or_skip(made: Callable[[], Any], as_json: bool) -> None:
    """A table, or in one line why there can be none here."""
    from simgan_aug.bench.rounds import Skip

    try:
        table = made()
    except Skip as why:
        click.echo(json.dumps({"skipped": str(why)}) if as_json else f"skipped: {why}")
    else:
        _tell(table, as_json)
