"""`simgan-aug audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simgan_aug.cli.options import FILE, LIMIT, PLACE, console


@click.command()
@click.option("--annotations", type=FILE, multiple=True, required=True, help="COCO file.")
@click.option("--images", type=PLACE, help="The originals. [images/ beside it, or its name]")
@click.option("--refined", type=PLACE, required=True, help="The same refined; or OUT of refine.")
@click.option("--out", type=FILE, help="JSON file. [audit.json in OUT of refine, else here]")
@click.option("--limit", "limits", type=LIMIT, multiple=True, help="Such as displacement=0.8.")
@click.option("--gate", "gates", multiple=True, help="NAME of a plugin's gate, asked, too.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [cores]")
def audit(
    annotations: tuple[Path, ...],
    images: Path | str | None,
    refined: Path | str,
    out: Path | None,
    limits: tuple[tuple[str, float], ...],
    **options: Any,
) -> int:
    """Say of every label how far the picture under it has moved.

    Measured of each label: displacement of its box, of its parts and its keypoints (px); edges
    along its outline; content, contrast and colour beyond a change of light; and what has appeared
    beside labels. Of all labels together: whether they look larger than their boxes. The same
    command after an interruption goes on.

    Exit codes: 0 all pass; 3 some label or image does not, or could not be audited, or many labels
    look larger; 1 the work failed; 2 a mistake that you can mend; 130 interrupted.
    """
    from simgan_aug.coco import image_folder
    from simgan_aug.dataset import AuditJob
    from simgan_aug.progress import Interrupted, track

    folder = images or image_folder(annotations[0])
    job = AuditJob(annotations, folder, refined, out, limits=dict(limits), **options)
    total = len(job.planned)
    try:
        for _ in track(job.run(), total, job.present, "images", lambda o: str(o.name), console):
            pass
    except Interrupted:
        left = total - job.totals.images - len(job.totals.failed)
        click.echo(f"interrupted: {left} of {total} images left; the same command goes on")
        raise
    summary = job.summary()
    _show(summary)
    if job.totals.grown.is_much:
        click.echo(
            f"{job.totals.grown} labels that this can be told of look larger than their boxes: "
            "look at the pictures; a detector would learn boxes that are too small"
        )
    click.echo(f"audit: {job.out}; every label: {job.lines}")
    counts = summary["counts"]
    failed = any(counts[name] for name in ("rejected", "failed", "appeared", "refused"))
    return 3 if failed or job.totals.grown.is_much else 0


def _show(summary: dict[str, Any]) -> None:
    """A table by category, and the worst labels."""
    table = Table("category", "labels", "failed", "untold", "moved px: p50", "p95", "worst")
    rows = [*summary["categories"].items()]
    if len(rows) != 1:
        rows.insert(0, ("all", summary["overall"]))
    for name, row in rows:
        counts = [f"{row[key]:,}" for key in ("labels", "rejected", "unmeasurable")]
        moved = row["displacement"]
        px = [f"{moved[key]:.2f}" if key in moved else "-" for key in ("p50", "p95", "worst")]
        table.add_row(*map(Text, (name or "(none)", *counts, *px)))
    Console().print(table)
    for label in [each for each in summary["worst"] if each["failures"]][:10]:
        click.echo(f"{label['image']}: {label['category']} {label['id']}: {_said(label)}")
    for place in summary["appeared"][:5]:
        click.echo(f"{place['image']}: something new at {place['bbox']}, strength {place['score']}")
    for name, reasons in list(summary["refused"].items())[:10]:
        click.echo(f"{name}: {'; '.join(reasons)}")
    for error in list(summary["failed"].values())[:10]:
        click.echo(f"not audited: {error}")
    counts = summary["counts"]
    click.echo(
        f"{counts['images']:,} images, {counts['labels']:,} labels: {counts['rejected']:,} "
        f"beyond a limit, {counts['unmeasurable']:,} with too little structure to tell; "
        f"{counts['appeared']:,} new objects; {counts['failed']:,} images not audited"
        + (f"; {counts['refused']:,} refused by a gate" if counts["refused"] else "")
    )
    if not counts["labels"] and counts["images"] > counts["failed"]:
        click.echo("note: there are no labels: only what is new beside them could be looked for")


def _said(label: dict[str, Any]) -> str:
    """What failed, and by how much."""
    parts = []
    for measure in label["failures"]:
        value = label[measure]
        if measure == "displacement":
            value = "lost" if value is None else f"{value[0]:+.2f}, {value[1]:+.2f} px"
        elif measure == "keypoints":
            value = ", ".join("?" if each is None else f"{each:.2f}" for each in value) + " px"
        parts.append(f"{measure} {value}")
    return "; ".join(parts)
