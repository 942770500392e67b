"""`simgan-aug train`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from simgan_aug.cli.options import FILE, FOLDER, console, follow


@click.command()
@click.option("--synthetic", type=FILE, help="COCO file of the synthetic images.")
@click.option("--images", type=FOLDER, help="Their folder. [images/ beside it, or its name]")
@click.option("--real", type=FOLDER, help="Folder of real photos; labels are never read.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option("--preset", help="default, paper-eyes or paper-hands.")
@click.option("--config", "config_file", type=FILE, help="TOML file; states what differs.")
@click.option("--steps", type=click.IntRange(min=1), help="Adversarial steps.")
@click.option("--seed", type=click.IntRange(min=0), help="Of all draws.")
@click.option("--channels", type=click.Choice(["1", "3"]), help="Convert all images to this.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--licence", default="", help="Of the data, noted in the refiner file.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
def train(
    synthetic: Path | None,
    images: Path | None,
    real: Path | None,
    out: Path,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a refiner: a COCO file, a folder of real photos, and nothing more.

    Ctrl-C saves; --resume --out RUN goes on.
    """
    from simgan_aug.coco import image_folder
    from simgan_aug.run import REFINER, Inputs, Run, read_info

    device, licence = settings.pop("device"), settings.pop("licence")
    if resume:
        info = read_info(out)
        config, inputs = _resumed(info, synthetic, images, real, settings)
        licence = licence or str(info.get("licence", ""))
    else:
        if synthetic is None or real is None:
            raise click.UsageError("--synthetic and --real are needed, but for --resume")
        config = _configured(**settings)
        inputs = Inputs(annotations=synthetic, images=images or image_folder(synthetic), real=real)
    with console.status("decoding images"):
        run = Run(config, inputs, out, device=device, resume=resume, licence=licence)
    for line in _sources(run):
        click.echo(line, err=True)
    follow(run, out)
    click.echo(f"refiner: {out / REFINER}")
    click.echo(f"samples: {out / 'samples'}")
    options = {"--annotations": inputs.annotations, "--images": inputs.images}
    options |= {"--refiner": out / REFINER, "--out": "REFINED"}
    words = [str(word) for option in options.items() for word in option]
    click.echo(f"next:    {shlex.join(['simgan-aug', 'refine', *words])}")


def _configured(
    preset: str | None,
    config_file: Path | None,
    channels: str | None,
    steps: int | None,
    seed: int | None,
) -> Any:
    """The config of a new run: a preset or a file, and what the options change."""
    from simgan_aug.config import load_config, load_preset
    from simgan_aug.run import check_parts

    if preset and config_file:
        raise click.UsageError("take --preset or --config; a file can name its preset itself")
    config = load_config(config_file) if config_file else load_preset(preset or "default")
    training = dataclasses.replace(
        config.training,
        steps=config.training.steps if steps is None else steps,
        seed=config.training.seed if seed is None else seed,
    )
    data = dataclasses.replace(config.data, channels=int(channels or config.data.channels))
    config = dataclasses.replace(config, data=data, training=training)
    check_parts(config, str(config_file or f"preset {preset or 'default'}"))
    return config


def _resumed(
    info: dict[str, Any],
    synthetic: Path | None,
    images: Path | None,
    real: Path | None,
    settings: dict[str, Any],
) -> tuple[Any, Any]:
    """Config and inputs of a run that goes on; its data may have moved."""
    from simgan_aug.config import parse
    from simgan_aug.run import Inputs

    steps = settings.pop("steps")
    fixed = [name for name, value in settings.items() if value is not None]
    if fixed:
        raise click.UsageError(
            f"--resume keeps the run's settings; leave out --{', --'.join(fixed)}"
        )
    config = parse(info["config"], source="run.json")
    if steps:
        config = dataclasses.replace(
            config, training=dataclasses.replace(config.training, steps=steps)
        )
    moved = {"annotations": synthetic, "images": images, "real": real}
    inputs = {name: moved[name] or Path(path) for name, path in info["inputs"].items()}
    return config, Inputs(**inputs)


def _sources(run: Any) -> Iterator[str]:
    """What a run has read, and what of it a user would want to know."""
    parts = []
    for name, source in (("synthetic", run.synthetic), ("real", run.real)):
        part = "" if len(source.images) == source.listed else f" of {source.listed:,}"
        parts.append(f"{len(source.images):,}{part} {name} images")
        if part:
            yield f"note: of the {name} images a random part is used (data.memory_mb)"
        small = sum(source.is_smaller(run.config.data.crop))
        if small:
            crop = "x".join(map(str, run.config.data.crop))
            yield f"note: {small} {name} images are smaller than data.crop ({crop}): enlarged"
    yield f"{' and '.join(parts)}, {run.synthetic.channels} channel(s), on {run.device}"
