"""`simgan-aug train`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from simgan_aug.cli.options import FILE, FOLDER, ORIGIN, console, follow

SIDES = ("synthetic", "real")

SHORT = 0.5
"""Share of the way to the tone of a photo, below which a user is told of it."""


@click.command()
@click.option("--synthetic", type=ORIGIN, multiple=True, help="COCO file of the synthetic images.")
@click.option("--images", type=FOLDER, multiple=True, help="Its folder. [images/ beside it, ...]")
@click.option(
    "--real", type=ORIGIN, multiple=True, help="Folder of real photos; no labels are read."
)
@click.option("--synthetic-weight", type=float, multiple=True, help="See above.")
@click.option("--real-weight", type=float, multiple=True, help="See above.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option("--preset", help="default, wide, paper-eyes, paper-hands, a plugin's.")
@click.option("--config", type=FILE, help="TOML file; states what differs.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="Adversarial steps; a student's are in proportion."
)
@click.option("--seed", type=click.IntRange(min=0), help="Of all draws.")
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    help="1, 3: convert all images; 4: the alpha of RGBA is a channel as others are.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--licence", default="", help="Of the data, noted in the refiner file.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
def train(
    synthetic: tuple[str, ...],
    images: tuple[Path, ...],
    real: tuple[str, ...],
    out: Path,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a refiner: a COCO file, a folder of real photos, and nothing more.

    --synthetic and --real may be given several times, and each may be a COCO file, a folder, a
    quoted glob ('renders/**/*.png'), WebDataset shards ('shards-{000..009}.tar') or SCHEME:PLACE of
    a plugin's image source. All images are drawn alike, or, by a --synthetic-weight or
    --real-weight for each place in order, the places.

    Ctrl-C saves; --resume --out RUN goes on. On many GPUs: torchrun --nproc-per-node 8
    -m simgan_aug.cli train ...
    """
    from simgan_aug.errors import DivergenceError
    from simgan_aug.ranks import join
    from simgan_aug.run import REFINER, Inputs, Run, read_info

    device, licence = settings.pop("device"), settings.pop("licence")
    if resume:
        info = read_info(out)
        config, inputs = _resumed(info, synthetic, images, real, settings)
        licence = licence or str(info.get("licence", ""))
    else:
        if not synthetic or not real:
            raise click.UsageError("--synthetic and --real are needed, but for --resume")
        weights = {f"{side}_weights": settings.pop(f"{side}_weight") for side in SIDES}
        config = _configured(**settings)
        inputs = Inputs.of(synthetic, images, real, **weights)
    ranks = join(device)
    with console.status("decoding images"):
        run = Run(config, inputs, out, device=device, resume=resume, licence=licence, ranks=ranks)
    if not ranks.leads:
        try:
            follow(run, out)
        except DivergenceError:  # of all ranks alike: the first one says it
            raise click.exceptions.Exit(1) from None
        return
    for line in _sources(run, config.data.crop):
        click.echo(line, err=True)
    if run.keeps_earlier:
        click.echo(
            f"note: {out / REFINER} stays as it is until a student has learned anew", err=True
        )
    follow(run, out)
    click.echo(f"refiner: {out / REFINER}")
    click.echo(f"samples: {out / 'samples'}")
    for origin in inputs.synthetic_origins:
        if origin.kind == "coco":
            options = {"--annotations": origin.where, "--images": origin.folders()[0]}
            options |= {"--refiner": out / REFINER, "--out": "REFINED"}
            words = [str(word) for option in options.items() for word in option]
            click.echo(f"next:    {shlex.join(['simgan-aug', 'refine', *words])}")
            break  # each COCO file is refined into a folder of its own


def _configured(
    preset: str | None,
    config: Path | None,
    channels: str | None,
    steps: int | None,
    seed: int | None,
) -> Any:
    """The config of a new run: a preset or a file, and what the options change."""
    from simgan_aug.configfile import load_config, load_preset
    from simgan_aug.run import check_parts

    if preset and config:
        raise click.UsageError("take --preset or --config; a file can name its preset itself")
    given = load_config(config) if config else load_preset(preset or "default")
    training = given.training if steps is None else given.training.of_steps(steps)
    training = dataclasses.replace(training, seed=training.seed if seed is None else seed)
    data = dataclasses.replace(given.data, channels=int(channels or given.data.channels))
    changed = dataclasses.replace(given, data=data, training=training)
    check_parts(changed, str(config or f"preset {preset or 'default'}"))
    return changed


def _resumed(
    info: dict[str, Any],
    synthetic: tuple[str, ...],
    images: tuple[Path, ...],
    real: tuple[str, ...],
    settings: dict[str, Any],
) -> tuple[Any, Any]:
    """Config and inputs of a run that goes on; its data may have moved."""
    from simgan_aug.configfile import parse
    from simgan_aug.run import Inputs

    steps = settings.pop("steps")
    fixed = [name for name, value in settings.items() if value not in (None, ())]
    if fixed:
        raise click.UsageError(
            "--resume keeps the run's settings; leave out --"
            + ", --".join(name.replace("_", "-") for name in fixed)
        )
    config = parse(info["config"], "run.json", is_whole=True)
    if steps:
        config = dataclasses.replace(config, training=config.training.of_steps(steps))
    return config, Inputs.from_builtins(info["inputs"]).moved(synthetic, images, real)


def _sources(run: Any, asked: tuple[int, int]) -> Iterator[str]:
    """What a run has read, and what of it a user would want to know.

    Args:
        asked: size of a crop.
    """
    for folder in run.inputs.taken_for_both:
        yield (
            f"warning: the images of {folder} are taken for synthetic ones and for photos too: "
            "keep --synthetic and --real apart"
        )
    crop = _size(run.config.data.crop)
    if run.config.data.crop != asked:
        yield f"note: crops are {crop}, the median image of a side (data.crop: {_size(asked)})"
    reach = 1.0 if run.bank is None else run.bank.reach
    if reach < SHORT and run.config.tone.match == "after":
        yield (
            f"note: synthetic images and photos hardly differ in tone: it goes {reach:.0%} of "
            "tone.share to a photo's (tone.choice = 'any': all of it)"
        )
    parts = []
    for name, source in (("synthetic", run.synthetic), ("real", run.real)):
        parts.append(f"{len(source.images):,} {name} images")
        if not source.is_held:
            yield (
                f"note: the {name} images do not fit into data.memory_mb "
                f"({run.config.data.memory_mb:,}): decoded as they are drawn; data.reuse saves some"
            )
        smaller = source.is_smaller(run.config.data.crop)
        if smaller.any():
            known = len(smaller)
            seen = f" of {known:,} looked at" if known < len(source.images) else ""
            yield (
                f"note: {smaller.sum():,} {name} images{seen} are smaller than data.crop ({crop}): "
                "enlarged"
            )
    yield f"{' and '.join(parts)}, {run.synthetic.channels} channel(s), on {run.device}"


def _size(crop: tuple[int, int]) -> str:
    """Height by width."""
    return "x".join(map(str, crop))
