"""The command line: each command reads its options, calls one function, and says what came of it.

Exit codes: 0 done; 1 the work failed (a loss is not finite, the disk is full, a result is damaged);
2 the user can mend it; 3 done, but images were set aside; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simgan_aug.errors import (
    ConfigError,
    OutputError,
    SimganAugError,
    TrainingError,
    is_out_of_memory,
)

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

_console = Console(stderr=True, highlight=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="simgan-aug")
def cli() -> None:
    """Make synthetic training images look real without moving their labels."""


@cli.command()
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
    with _console.status("decoding images"):
        run = Run(config, inputs, out, device=device, resume=resume, licence=licence)
    for line in _sources(run):
        click.echo(line, err=True)
    _follow(run, out)
    click.echo(f"refiner: {out / REFINER}")
    click.echo(f"samples: {out / 'samples'}")
    options = {"--annotations": inputs.annotations, "--images": inputs.images}
    options |= {"--refiner": out / REFINER, "--out": "REFINED"}
    words = [str(word) for option in options.items() for word in option]
    click.echo(f"next:    {shlex.join(['simgan-aug', 'refine', *words])}")


@cli.command()
@click.option("--annotations", type=FILE, multiple=True, help="COCO file; repeatable.")
@click.option("--images", type=PLACE, help="Their folder. [images/ beside it, or its name]")
@click.option("--refiner", type=FILE, help="refiner.safetensors of a run.")
@click.option("--out", type=PLACE, help="New folder for the result, or s3://...")
@click.option("--verify", type=PLACE, help="Only hold a result against its hashes.")
@click.option("--strength", default=1.0, show_default=True, help="0: unchanged, 1: all of it.")
@click.option(
    "--format",
    type=click.Choice(["keep", "png", "jpeg", "webp"]),
    default="keep",
    show_default=True,
    help="Of the images; other than keep changes the endings of file_name.",
)
@click.option("--quality", default=95, show_default=True, help="Of JPEG and WebP.")
@click.option("--seed", default=0, show_default=True, help="Of noise and reference photos.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "copy", "skip"]),
    default="stop",
    show_default=True,
    help="An image that fails: end, copy it as it is, or leave it out.",
)
@click.option("--allow-size-mismatch", is_flag=True, help="Images of other sizes than stated.")
@click.option("--max-pixels", type=click.IntRange(min=1), help="Width x height. [178,956,970]")
@click.option("--panoptic", type=FOLDER, help="PNGs of panoptic files. [beside each, its name]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [GPU: 1, else cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option(
    "--engine", type=click.Choice(["local", "torchrun", "ray"]), default="local", show_default=True
)
def refine(
    annotations: tuple[Path, ...],
    images: Path | str | None,
    refiner: Path | None,
    out: Path | str | None,
    verify: Path | str | None,
    max_pixels: int | None,
    **options: Any,
) -> int:
    """Refine a COCO data set; annotations are copied byte for byte.

    The images land in OUT/images, each annotation file in OUT, last of all. The same command
    after an interruption, however rude, goes on.

    Exit codes: 0 all refined; 3 done, but images were set aside (see OUT/report.json; under
    torchrun it is 0); 1 the work failed, or --verify found damage; 2 a mistake that you can mend;
    130 interrupted.
    """
    if verify is not None:
        return _verify(verify)
    if not annotations or refiner is None or out is None:
        raise click.UsageError("--annotations, --refiner and --out are needed, but for --verify")
    from simgan_aug.coco import image_folder
    from simgan_aug.dataset import RefineJob
    from simgan_aug.progress import Interrupted, track

    if max_pixels is not None:
        options["max_pixels"] = max_pixels
    folder = images or image_folder(annotations[0])
    job = RefineJob(annotations, folder, refiner, out, **options)
    total, began = len(job.planned), time.monotonic()
    try:
        for outcome in track(
            job.run(), total, job.present, "images", lambda done: str(done.name), _console
        ):
            if outcome.status == "failed":
                _console.print(f"set aside: {outcome.error}", markup=False)
    except Interrupted:
        left = len(job.remaining())
        click.echo(f"interrupted: {left} of {total} images left; the same command goes on")
        raise
    summary = job.summary(time.monotonic() - began)
    _show_summary(summary, out)
    for name in job.annotations:
        how = "byte for byte" if options["format"] == "keep" else "with other file_name endings"
        click.echo(f"annotations, {how}: {out}/{name}")
    shared = job.engine.rank.world > 1  # torchrun would take any other code for a failed rank
    return 3 if summary.failed and not shared else 0


@cli.command()
@click.option("--refiner", type=FILE, required=True, help="refiner.safetensors of a run.")
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


@cli.command()
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
        distribution = f"{plugin.distribution} {plugin.version}"
        # As Text, for what a plugin says may look like markup.
        row = (plugin.name, distribution, "\n".join(offered), plugin.error)
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@cli.group()
def bench() -> None:
    """Measure speed on this machine, in ratios that can be trusted."""


@bench.command("loader")
@click.option("--images", type=FOLDER, help="Photos. [examples/data/hands/real]")
@click.option("--refiner", type=FILE, help="Refiner file. [untrained networks, as fast]")
@click.option("--size", type=(int, int), default=(640, 480), show_default=True, help="Px.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--count", type=click.IntRange(min=1), default=48, show_default=True, help="Images.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def bench_loader(images: Path | None, as_json: bool, **settings: Any) -> None:
    """Images per second out of a DataLoader, ours beside albumentations' own.

    Each variant keeps its workers; they take turns, in an order reversed every round.
    """
    import tempfile

    from simgan_aug import bench as bench_module
    from simgan_aug.demo import shipped
    from simgan_aug.progress import track

    settings["images"] = settings.pop("count")
    rounds: int = settings["rounds"] + 1

    def shown(numbers: Iterator[int]) -> Iterator[int]:
        return track(numbers, rounds, 0, "rounds", lambda _: "", _console)

    with tempfile.TemporaryDirectory(prefix="simgan-bench-") as scratch:
        folder = images or shipped() / "real"
        rows = bench_module.loader(folder, Path(scratch), progress=shown, **settings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    click.echo(bench_module.as_text(rows))
    click.echo(bench_module.machine())


@cli.command()
@click.option("--data", type=FOLDER, help="The hands sample. [examples/data/hands]")
@click.option("--out", type=FOLDER, default=Path("demo-run"), show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=800, show_default=True)
def demo(data: Path | None, out: Path, steps: int) -> None:
    """Train on the shipped hands, refine them, show the result."""
    from simgan_aug import demo as show

    for line in show.run(data, out, steps, _follow):
        click.echo(line)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns its exit code and shows no traceback for a user's mistake."""
    from simgan_aug.progress import Interrupted

    warnings.showwarning = _show_warning  # type: ignore[assignment]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(cli.main(args=arguments, prog_name="simgan-aug", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SimganAugError as error:
        click.echo(f"error: {error}", err=True)
        return 1 if isinstance(error, (TrainingError, OutputError)) else 2
    except (Interrupted, KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        return 1
    except OSError as error:  # a name too long, no right to look
        click.echo(f"error: {error.filename or 'the system'}: {error.strerror or error}", err=True)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        click.echo(f"error: out of memory: {MEMORY_ADVICE}", err=True)
        return 1


def _show_summary(summary: Any, out: Path | str) -> None:
    """A table of what a refine job did."""
    table = Table(show_header=False)
    table.add_row("refined", f"{summary.refined:,}")
    table.add_row("there before", f"{summary.present:,}")
    table.add_row("set aside", f"{len(summary.failed):,}")
    for note, count in summary.notes.items():
        table.add_row(Text(note), f"{count:,}")
    if summary.refined:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in summary.stages.items())
        table.add_row("images a second", f"{summary.rate:.1f}")
        table.add_row("share of the work", shares)
        table.add_row("bottleneck", summary.bottleneck)
    Console().print(table)
    click.echo(f"images: {out}/images")
    for error in list(summary.failed.values())[:10]:
        click.echo(f"set aside: {error}")
    if len(summary.failed) > 10:
        click.echo(f"and {len(summary.failed) - 10} more: {out}/report.json")


def _verify(out: Path | str) -> int:
    """Hold a result against its hashes; returns the exit code."""
    from simgan_aug.dataset.verify import Verification
    from simgan_aug.progress import track

    check = Verification(out)
    for _ in track(check.run(), check.count, 0, "images", str, _console):
        pass
    found = check.verdict
    for name, what in list(found.wrong.items())[:20]:
        click.echo(f"{what}: {out}/{name}")
    for name in found.unknown[:20]:
        click.echo(f"not of this job: {out}/{name}")
    for error in list(found.failed.values())[:20]:
        click.echo(f"set aside: {error}")
    click.echo(
        f"{found.files:,} files: {len(found.wrong):,} missing or changed; {found.left:,} images "
        f"still to do, {len(found.failed):,} set aside, {len(found.unknown):,} files unknown"
    )
    return 1 if not found.complete else 3 if found.failed else 0


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


def _follow(run: Any, out: Path) -> None:
    """Show a run's steps until it ends or the user ends it."""
    from simgan_aug.progress import Interrupted, track

    def describe(step: Any) -> str:
        losses = " ".join(f"{name[:3]} {value:.3f}" for name, value in step.losses.items())
        return f"{step.phase}: {losses}"

    try:
        for _ in track(run.steps(), run.total, run.state.step, "steps", describe, _console):
            pass
    except Interrupted:
        again = shlex.join(["simgan-aug", "train", "--resume", "--out", str(out)])
        click.echo(f"saved after step {run.state.step}; go on with: {again}")
        raise


def _show_warning(message: Any, *_: Any) -> None:
    click.echo(f"warning: {message}", err=True)


if __name__ == "__main__":
    sys.exit(main())
