"""The demo: train on the shipped hands, refine them, audit the labels, write the report."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug.configfile import load_config
from simgan_aug.dataset import AuditJob, refine
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.files import write_atomically
from simgan_aug.folders import check_writable, list_images
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.preview import preview_folders
from simgan_aug.realism import features, kid
from simgan_aug.report import Report
from simgan_aug.run import REFINER, Inputs, Run
from simgan_aug.sheet import save_png

SHIPPED = Path("examples/data/hands")
MARK = "demo.txt"
"""Marks a folder as a demo's own."""


def run(
    data: Path | None, out: Path, steps: int, follow: Callable[[Run, Path], None]
) -> Iterator[str]:
    """The whole demo; yields lines to print. OUT of an earlier demo is replaced.

    Args:
        data: folder of the hands sample; None: `SHIPPED`, here or beside the package's source.
        out: folder for the run, the refined data set, sheet.png, report.html and numbers.json.
        steps: adversarial steps.
        follow: shows a run's progress until it ends.
    """
    began, data = time.monotonic(), data or shipped()
    annotations, images, real = (data / name for name in ("synthetic.json", "synthetic", "real"))
    inputs = Inputs(annotations=annotations, images=images, real=real)
    config = load_config(data / "demo.toml")
    config = dataclasses.replace(config, training=config.training.of_steps(steps))
    _clear(out)
    job = Run(
        config, inputs, out / "run", licence="CC BY 2.0 and CC BY-SA 4.0; see examples/data/hands"
    )
    sides = len(job.synthetic.images), len(job.real.images)
    yield f"training {job.total} steps on {sides[0]} rendered and {sides[1]} real hands"
    follow(job, out / "run")
    refiner = out / "run" / REFINER
    done = refine([annotations], images, refiner, out / "refined")
    yield f"refined {done.refined} images in {done.seconds:.1f} s: {out / 'refined'}"
    picture = preview_folders(ImageRefiner.load(refiner), images, real)
    save_png(picture, out / "sheet.png")
    numbers = _numbers(real, images, out / "refined" / "images")
    numbers |= _audited(annotations, images, out / "refined")
    Report(out / "refined", title="Hands, refined").write(out / "report.html")
    numbers["seconds"] = round(time.monotonic() - began, 1)
    write_atomically(out / "numbers.json", (json.dumps(numbers, indent=2) + "\n").encode())
    yield from _report(numbers)
    yield f"look at {out / 'report.html'}; then try your own: simgan-aug train --help"


def _numbers(photos: Path, images: Path, refined: Path) -> dict[str, Any]:
    synthetic, after = _images(images), _images(refined)
    target = features(_images(photos), 3)
    change = np.mean(
        [np.abs(a.astype(int) - b).mean() for a, b in zip(synthetic, after, strict=True)]
    )
    distances = {
        "synthetic to real": kid(features(synthetic, 3), target),
        "refined to real": kid(features(after, 3), target),
        "real to real": kid(target[::2], target[1::2]),
    }
    rounded = {name: [round(v, 3) for v in dataclasses.astuple(d)] for name, d in distances.items()}
    return {"distance": rounded, "mean_change_grey_levels": round(float(change), 2)}


def _audited(annotations: Path, images: Path, refined: Path) -> dict[str, Any]:
    """How far labels have moved; writes the audit."""
    job = AuditJob([annotations], images, refined)
    for _ in job.run():
        pass
    summary = job.summary()
    counts = {name: summary["counts"][name] for name in ("labels", "rejected")}
    return {"labels": {**counts, "moved_px": summary["overall"]["displacement"]}}


def _report(numbers: dict[str, Any]) -> Iterator[str]:
    labels, moved = numbers["labels"], numbers["labels"]["moved_px"]
    yield f"labels: {labels['rejected']} of {labels['labels']} beyond a limit of the audit"
    if moved["measured"]:
        px = ", ".join(f"{name} {moved[name]:.2f}" for name in ("p50", "p95", "worst"))
        yield f"the picture under a label has moved by, px: {px}"
    yield "distance (KID, random features; range over resampled images; lower is nearer):"
    for name, (value, low, high) in numbers["distance"].items():
        yield f"  {name:18} {value:8.3f}  [{low:.3f}, {high:.3f}]"
    yield f"mean change: {numbers['mean_change_grey_levels']} grey levels"
    yield f"whole demo: {numbers['seconds']} s"


def _images(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [read_image(folder / name).pixels for name in list_images(folder)]


def shipped() -> Path:
    """The folder of the hands sample: here, or beside the package's source.

    Raises:
        DataError: it is in neither.
    """
    beside = Path(__file__).parents[1] / SHIPPED
    for folder in (SHIPPED, beside):
        if (folder / "synthetic.json").is_file():
            return folder
    raise DataError(
        f"the hands sample is not in {SHIPPED}: run this in a clone of the repository, or say "
        "--data DIR"
    )


def _clear(out: Path) -> None:
    """Remove what an earlier demo has written, and nothing else."""
    check_writable(out)
    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ConfigError(f"{out} is not empty and not of an earlier demo; choose another --out")
    for name in ("run", "refined"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("sheet.png", "report.html", "numbers.json"):
        (out / name).unlink(missing_ok=True)
    write_atomically(out / MARK, b"simgan-aug demo may replace what it has written here\n")
