"""`simgan-aug refine`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simgan_aug.cli.options import BACKEND, FILE, FOLDER, LIMIT, PLACE, REFINER, console


@click.command()
@click.option("--annotations", type=FILE, multiple=True, help="COCO file; repeatable.")
@click.option("--images", type=PLACE, help="Their folder. [images/ beside it, or its name]")
@click.option("--refiner", type=REFINER, help="refiner.safetensors of a run, or the run.")
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
@click.option(
    "--guard",
    type=click.Choice(["off", "image", "label"]),
    default="off",
    show_default=True,
    help="Blend back what moved a label: the image, or what is under it.",
)
@click.option("--limit", "limits", type=LIMIT, multiple=True, help="Of the guard: local=0.8.")
@click.option("--gate", "gates", multiple=True, help="Of the guard: NAME of a plugin's gate.")
@click.option("--only-labels", is_flag=True, help="Keep what is outside of labels as it was.")
@click.option("--allow-size-mismatch", is_flag=True, help="Images of other sizes than stated.")
@click.option("--max-pixels", type=click.IntRange(min=1), help="Width x height. [178,956,970]")
@click.option("--panoptic", type=FOLDER, help="PNGs of panoptic files. [beside each, its name]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [GPU: 1, else cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@BACKEND
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
    limits: tuple[tuple[str, float], ...],
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
    job = RefineJob(annotations, folder, refiner, out, limits=dict(limits), **options)
    if job.recalled:
        click.echo(
            f"{job.recalled:,} files of {out} are gone, of another size or of another source than "
            "now: made anew"
        )
    total, began = len(job.planned), time.monotonic()
    try:
        for outcome in track(
            job.run(), total, job.present, "images", lambda done: str(done.name), console
        ):
            if outcome.status == "failed":
                console.print(f"set aside: {outcome.error}", markup=False)
    except Interrupted:
        left = len(job.remaining())
        click.echo(f"interrupted: {left} of {total} images left; the same command goes on")
        raise
    summary = job.summary(time.monotonic() - began)
    _show_summary(summary, out)
    for name in job.annotations:
        how = "byte for byte" if options["format"] == "keep" else "with other file_name endings"
        click.echo(f"annotations, {how}: {out}/{name}")
    named = [word for path in annotations for word in ("--annotations", str(path))]
    check = ["simgan-aug", "audit", *named, "--images", str(folder), "--refined", str(out)]
    click.echo(f"did a label move? {shlex.join(check)}")
    shared = job.engine.rank.world > 1  # torchrun would take any other code for a failed rank
    return 3 if summary.failed and not shared else 0


def _show_summary(summary: Any, out: Path | str) -> None:
    """A table of what a refine job did."""
    table = Table(show_header=False)
    table.add_row("refined", f"{summary.refined:,}")
    table.add_row("there before", f"{summary.present:,}")
    table.add_row("set aside", f"{len(summary.failed):,}")
    if summary.guard:
        policy = summary.guard["policy"]
        table.add_row(f"partly taken back (--guard {policy})", f"{summary.guard['blended']:,}")
        table.add_row("left as they were by the guard", f"{summary.guard['kept']:,}")
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
    for _ in track(check.run(), check.files, 0, "files", str, console):
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
    if found.wrong:
        click.echo("to mend it, remove what was changed, and refine again with the same command")
    return 1 if not found.complete else 3 if found.failed else 0
