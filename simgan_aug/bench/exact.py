"""`bench exact`: how far apart the images of one refiner are, run one way and another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from simgan_aug import checkpoint
from simgan_aug.backends import backend_of
from simgan_aug.backends.openvino import GRAPH
from simgan_aug.bench.material import decoded_image, scaled, untrained
from simgan_aug.bench.rounds import Skip
from simgan_aug.bench.table import Row, Table
from simgan_aug.bench.ways import WAYS
from simgan_aug.errors import DependencyError
from simgan_aug.export import openvino_graph
from simgan_aug.inference import ImageRefiner

TILES = "torch fp32, in tiles"

COLUMNS = {"at most": ".0f", "mean": ".3f", "allowed": ""}

ALLOWED = {"fp32": "1", "bf16": "1", "int8": "3, mean 0.15"}


def exact(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    size: tuple[int, int] = (640, 480),
    images: int = 16,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Grey levels between each way's images and those of torch in fp32, before the tone step.

    Args:
        folder: photos; they are scaled to `size`, and int8 is quantized by half of them.
        scratch: an empty folder.
        refiner: a refiner file; None: the default network, untrained, with weights that change an
            image as much as a trained one's do.
        size: width and height in px.
        images: that are compared.
        progress: shows the images as they go.
    """
    files = scaled(folder, scratch / "images", size, images)
    file = refiner or untrained(scratch / "default.safetensors", files)
    loaded = checkpoint.load(file)
    whole = backend_of("torch", loaded.network, "cpu", "fp32")
    how = (loaded.network, loaded.channels, loaded.bank, "never")
    reference = ImageRefiner(*how, backend=whole)
    others = {TILES: ImageRefiner(*how, backend=whole, max_workspace_mb=16)}
    decoded = [decoded_image(path) for path in files]
    with contextlib.suppress(DependencyError):
        openvino_graph(loaded, scratch, "int8", decoded[::2])
    skipped = {}
    for way in WAYS[1:]:
        try:
            others[str(way)] = way.refiner(file, scratch / GRAPH, tone=False)
        except (Skip, DependencyError) as why:
            skipped[str(way)] = str(why)
    apart: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
    for seed in progress(iter(range(len(files)))):
        expected = reference(decoded[seed], seed=seed).astype(np.int16)
        for name, other in others.items():
            levels = np.abs(other(decoded[seed], seed=seed) - expected)
            apart[name].append((float(levels.max()), float(levels.mean())))
    rows = [
        Row(name, skipped=skipped[name]) if name in skipped else _row(name, apart[name])
        for name in (TILES, *map(str, WAYS[1:]))
    ]
    return Table("against torch fp32, whole", COLUMNS, rows, [_says(rows)])


def _row(name: str, apart: list[tuple[float, float]]) -> Row:
    most, mean = max(a for a, _ in apart), sum(b for _, b in apart) / len(apart)
    allowed = "0" if name == TILES else ALLOWED[name.rpartition(" ")[2]]
    return Row(name, {"at most": most, "mean": mean, "allowed": allowed})


def _says(rows: list[Row]) -> str:
    within = [row.name for row in rows if not row.skipped and _is_within(row)]
    return f"within what is allowed: {', '.join(within) or 'none'}"


def _is_within(row: Row) -> bool:
    most, _, mean = str(row.cells["allowed"]).partition(", mean ")
    found = {name: float(row.cells[name]) for name in ("at most", "mean")}  # type: ignore[arg-type]
    return found["at most"] <= float(most) and found["mean"] <= float(mean or most)
