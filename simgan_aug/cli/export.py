"""`simgan-aug export`."""

from __future__ import annotations

from pathlib import Path

import click

from simgan_aug.cli.options import FOLDER


@click.command()
@click.argument("refiner", type=click.Path())
@click.option(
    "--to", type=click.Choice(["onnx", "openvino", "torch-export"]), required=True, help="Format."
)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option("--size", type=(int, int), help="Px. [openvino: any; else 640 480]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="bf16 and int8 are for openvino.",
)
@click.option("--calibrate", type=FOLDER, help="Your images: for int8, and to compare by. [noise]")
def export(
    refiner: str,
    to: str,
    out: Path,
    size: tuple[int, int] | None,
    precision: str,
    calibrate: Path | None,
) -> None:
    """Write a refiner's network for another engine, held against torch first.

    REFINER is a refiner.safetensors, or the name under which a plugin ships one. What openvino
    writes goes back as --backend OUT. Where the images differ by more than one grey level (bf16:
    two; int8: three, or .15 in the mean), nothing is written.
    """
    from simgan_aug import export as job
    from simgan_aug.exported import NAME

    told = job.export(refiner, to, out, size=size, precision=precision, images=calibrate)
    seen = f"{told.parity.images} images" if told.parity.images else "noise"
    click.echo(
        f"apart from torch in fp32, on {seen}: {told.parity.most:.0f} grey levels at most, "
        f"{told.parity.mean:.3f} in the mean"
    )
    for name in (*told.files, NAME):
        click.echo(out / name)
    if to == "openvino":
        click.echo(f"use it: --backend {out}, or Refine(..., backend={str(out)!r})")
