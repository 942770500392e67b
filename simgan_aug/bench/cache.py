"""`bench cache`: the second epoch from a cache, against no refiner at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from simgan_aug.bench.material import decoded_image, scaled, untrained
from simgan_aug.bench.rounds import Figures, Work, take_turns
from simgan_aug.bench.table import Ratio, Row, Table

PLAIN, MEMORY, FOLDER = "no refiner", "cache in memory", "cache in a folder"

_COLUMNS = {"CPU ms an image": ".2f", "of the rate": "", "peak MiB": "+.0f"}


def cache(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    size: tuple[int, int] = (640, 480),
    images: int = 48,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Epochs of decoding and `Refine(p=1, variants=1)`, in one process, from the second on.

    The rate is that of `Refine(p=0)`, which decodes alone, in CPU time; memory the peak over its.

    Args:
        folder: photos; they are scaled to `size` and written as JPEG into `scratch`.
        scratch: an empty folder.
        refiner: a refiner file; None: an untrained network.
        size: width and height in px.
        images: of an epoch.
        rounds: epochs that are counted; the caches are filled before.
        progress: shows the rounds as they go.
    """
    files = scaled(folder, scratch / "images", size, images)
    refiner = refiner or untrained(scratch / "untrained.safetensors", files[:16])
    variants = {
        PLAIN: partial(_epoch, files, refiner, None, p=0),
        MEMORY: partial(_epoch, files, refiner, "memory"),
        FOLDER: partial(_epoch, files, refiner, scratch / "cache"),
        "no cache": partial(_epoch, files, refiner, None),
    }
    figures = take_turns(variants, rounds=rounds, seconds=0, progress=progress)
    rows = [_row(name, images, figures) for name in variants]
    return Table("epoch 2", _COLUMNS, rows, _said(figures))


def _epoch(files: Sequence[Path], refiner: Path, cache: str | Path | None, p: int = 1) -> Work:
    from simgan_aug.transforms.albumentations import Refine

    # Also where nothing is refined afterwards: the heap of each process has grown alike.
    Refine(refiner, p=1)(image=decoded_image(files[0]))
    transform = Refine(refiner, p=p, variants=int(cache is not None), cache=cache)

    def work() -> None:
        for file in files:
            transform(image=decoded_image(file))

    return work


def _row(name: str, images: int, figures: Figures) -> Row:
    cells: dict[str, float | Ratio | None] = {
        "CPU ms an image": 1000 * figures.median(name) / images,
        "of the rate": None if name == PLAIN else figures.ratio(PLAIN, name),
        "peak MiB": figures.peak_mb[name] - figures.peak_mb[PLAIN],
    }
    return Row(name, cells)


def _said(figures: Figures) -> list[str]:
    best = min((MEMORY, FOLDER), key=figures.median)
    return [
        f"Recommended here: {best}: the second epoch runs at {figures.ratio(PLAIN, best)} of the "
        "rate without a refiner. Memory holds an image's bytes once more; a folder is shared."
    ]
