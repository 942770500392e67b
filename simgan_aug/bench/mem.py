"""`bench mem`: the memory that refining takes, of one image and of a loader's worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from simgan_aug.bench.material import decoded_image, private_mb, scaled, untrained
from simgan_aug.bench.rounds import Figures, Work, take_turns
from simgan_aug.bench.table import Row, Table

SIZES = {"640x480": (640, 480), "4K": (3840, 2160), "8K": (7680, 4320)}
DECODES = "a worker that decodes"

_COLUMNS = {"image, MiB": ".1f", "peak, MiB": "+.0f", "afterwards, MiB": "+.0f"}


def mem(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    backends: tuple[str, ...] = ("torch", "openvino"),
    sizes: tuple[str, ...] = tuple(SIZES),
    workspace_mb: int = 1024,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Each case in a process of its own, over one that does the same without refining.

    "peak" is the most that was resident; "afterwards" what the process then shares with no other,
    which is what each worker of a loader costs.

    Args:
        folder: photos.
        scratch: an empty folder.
        refiner: a refiner file; None: an untrained network.
        backends: that are measured.
        sizes: some of `SIZES`.
        workspace_mb: activations held at once; see `ImageRefiner`.
        progress: shows the rounds as they go.
    """
    files = scaled(folder, scratch / "images", SIZES["640x480"], 16)
    refiner = refiner or untrained(scratch / "untrained.safetensors", files)
    cases: dict[str, tuple[str, str]] = {}  # name: what it is held against, what it refines
    variants: dict[str, Callable[[], Work]] = {DECODES: partial(_worker, files[0], None, "")}
    for backend in backends:
        for size in sizes:
            idle = f"{size}, not refined"
            variants[idle] = partial(_image, SIZES[size], None, "", workspace_mb)
            cases[f"{size}, {backend}"] = idle, size
            variants[f"{size}, {backend}"] = partial(
                _image, SIZES[size], refiner, backend, workspace_mb
            )
        cases[f"a worker that refines, {backend}"] = DECODES, "640x480"
        variants[f"a worker that refines, {backend}"] = partial(_worker, files[0], refiner, backend)
    figures = Figures()
    names = list(variants)
    for number in progress(iter(range(len(names)))):  # one at a time: 8K may fill the machine
        name = names[number]
        alone = take_turns({name: variants[name]}, rounds=1, seconds=0)
        figures.values |= alone.values
        figures.peak_mb |= alone.peak_mb
        figures.skipped |= alone.skipped
    rows = [_row(name, *case, figures) for name, case in cases.items()]
    return Table("refining", _COLUMNS, rows, _said(rows))


def _image(size: tuple[int, int], refiner: Path | None, backend: str, workspace_mb: int) -> Work:
    from simgan_aug.inference import ImageRefiner

    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if refiner is None:
        return lambda: private_mb() + 0 * image[0, 0, 0]
    opened = ImageRefiner.load(refiner, max_workspace_mb=workspace_mb, backend=backend)

    def work() -> float:
        opened(image)
        return private_mb()

    return work


def _worker(file: Path, refiner: Path | None, backend: str) -> Work:
    import albumentations as A

    from simgan_aug.transforms.albumentations import Refine

    transform = A.NoOp(p=1) if refiner is None else Refine(refiner, p=1, backend=backend)

    def work() -> float:
        transform(image=decoded_image(file))
        return private_mb()

    return work


def _row(name: str, against: str, size: str, figures: Figures) -> Row:
    if name in figures.skipped:
        return Row(name, skipped=figures.skipped[name])
    width, height = SIZES[size]
    return Row(
        name,
        {
            "image, MiB": width * height * 3 / 2**20,
            "peak, MiB": figures.peak_mb[name] - figures.peak_mb[against],
            "afterwards, MiB": figures.median(name) - figures.median(against),
        },
    )


def _said(rows: Sequence[Row]) -> list[str]:
    workers = [row for row in rows if row.name.startswith("a worker") and not row.skipped]
    least = min(workers, key=lambda row: float(str(row.cells["afterwards, MiB"])))
    backend = least.name.rpartition(", ")[2]
    return [
        f"Recommended here: backend {backend!r} in workers, "
        f"{float(str(least.cells['afterwards, MiB'])):.0f} MiB each; for large images lower "
        "max_workspace_mb."
    ]
