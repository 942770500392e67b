"""`bench loader`: images per second out of a `DataLoader`, ours beside albumentations' own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset

from simgan_aug.bench.material import (
    PEERS,
    Array,
    Peer,
    decoded_image,
    networks_of_ours,
    private_mb,
    scaled,
)
from simgan_aug.bench.table import Ratio, Row, Table

PLAIN, REFERENCE, CACHED = "no transform", "FDA", "ours, from the cache"

_COLUMNS = {"images/s": ".1f", "of no transform": "", "times FDA": "", "MiB a worker": "+.0f"}


def loader(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    backend: str = "torch",
    size: tuple[int, int] = (640, 480),
    images: int = 48,
    workers: int = 2,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Images per second out of a `DataLoader`: without a transform, with ours, with its peers.

    The memory is a worker's own in MiB, over that of one that only decodes; nan where there is no
    /proc to say.

    Args:
        folder: photos; they are scaled to `size` and written as JPEG into `scratch`.
        scratch: an empty folder.
        refiner: a refiner file; None: untrained networks, whose speed is that of trained ones.
        backend: what runs the refiner; see `simgan_aug.backends`.
        size: width and height in px.
        images: of an epoch.
        workers: processes of each loader.
        rounds: epochs of each variant that are counted, after one that is not.
        progress: shows the rounds as they go.
    """
    files = scaled(folder, scratch / "images", size, images)
    refiners = {"ours": refiner} if refiner else networks_of_ours(scratch, files[:16])
    loaders = {
        name: DataLoader(
            _Decoded(files, pipeline),
            num_workers=workers,
            batch_size=None,
            persistent_workers=True,
            multiprocessing_context="spawn",  # nothing is shared with us: memory can be told apart
        )
        for name, pipeline in _pipelines(files, refiners, backend, scratch / "cache").items()
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    memory: dict[str, float] = {}
    for number in progress(iter(range(rounds + 1))):
        for name in sorted(loaders, key=list(loaders).index, reverse=bool(number % 2)):
            rate, memory[name] = _epoch(loaders[name], len(files))
            if number:
                rates[name].append(rate)
    rows = [_row(name, rates, memory) for name in loaders]
    return Table("transform", _COLUMNS, rows, _said(rows, backend))


class _Decoded(Dataset[tuple[int, float]]):
    """Decodes a JPEG, applies a pipeline, and tells now and then what its process holds."""

    def __init__(self, files: list[Path], pipeline: Any) -> None:
        self.files, self.pipeline = files, pipeline

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, float]:
        image = self.pipeline(decoded_image(self.files[index]))
        return int(image[0, 0, 0]), private_mb() if index % 16 == 0 else 0.0


class _Alone:
    """A transform that needs nothing but the image."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Array) -> Array:
        out: Array = self.transform(image=image)["image"]
        return out


def _pipelines(
    files: list[Path], refiners: Mapping[str, Path], backend: str, cache: Path
) -> dict[str, Callable[[Array], Array]]:
    import albumentations as A

    from simgan_aug.transforms.albumentations import Refine

    ours = {name: Refine(path, p=1, backend=backend) for name, path in refiners.items()}
    first = next(iter(refiners.values()))
    ours[CACHED] = Refine(first, p=1, variants=1, cache=cache, backend=backend)
    return (
        {PLAIN: _Alone(A.NoOp(p=1))}
        | {name: _Alone(transform) for name, transform in ours.items()}
        | {name: Peer(name, files[:16]) for name in PEERS}
    )


def _epoch(batches: DataLoader[Any], count: int) -> tuple[float, float]:
    began, memory = time.perf_counter(), 0.0
    for _, held in batches:
        memory = max(memory, held)
    return count / (time.perf_counter() - began), memory


def _row(name: str, rates: Mapping[str, list[float]], memory: Mapping[str, float]) -> Row:
    def against(other: str) -> Ratio:
        return Ratio.of([mine / its for mine, its in zip(rates[name], rates[other], strict=True)])

    return Row(
        name,
        {
            "images/s": statistics.median(rates[name]),
            "of no transform": against(PLAIN),
            "times FDA": against(REFERENCE),
            "MiB a worker": memory[name] - memory[PLAIN],
        },
    )


def _said(rows: Sequence[Row], backend: str) -> list[str]:
    """The cache, and what is quickest where no image comes again."""
    shares = {row.name: cast(Ratio, row.cells["of no transform"]) for row in rows}
    ours = [name for name in shares if name.startswith("ours") and name != CACHED]
    best = max(ours, key=lambda name: shares[name].median)
    return [
        f"Recommended here: {best} on {backend}, {shares[best]} of the rate without a transform; "
        f"where an image comes again, a cache: {shares[CACHED]}."
    ]
