"""How fast? Tables of ratios that hold on a machine whose speed drifts.

Each variant lives in long-lived processes of its own; they take turns, in an order that is reversed
every round, and what is reported of each is its median and, against another, the median of the
ratios round by round with their range.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from simgan_aug.checkpoint import Checkpoint, save_checkpoint
from simgan_aug.config import Config, Part
from simgan_aug.folders import list_images
from simgan_aug.networks import UnshuffleRefiner

Array = np.ndarray[Any, Any]

PLAIN, REFERENCE = "no transform", "FDA"


@dataclass(frozen=True)
class Row:
    """One variant of a table."""

    name: str
    rate: float
    """Images per second, the median over rounds."""
    share: tuple[float, float, float]
    """Of the rate without a transform: median, lowest, highest round."""
    ahead: tuple[float, float, float]
    """Times as fast as FDA: median, lowest, highest round."""
    memory_mb: float
    """Private memory of a worker in MiB, over that of one that only decodes; nan where there is no
    /proc to say."""


def loader(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    size: tuple[int, int] = (640, 480),
    images: int = 48,
    workers: int = 2,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> list[Row]:
    """Images per second out of a `DataLoader`: without a transform, with ours, with its peers.

    Args:
        folder: photos; they are scaled to `size` and written as JPEG into `scratch`.
        scratch: an empty folder.
        refiner: a refiner file; None: untrained networks, whose speed is that of trained ones.
        size: width and height in px.
        images: of an epoch.
        workers: processes of each loader.
        rounds: epochs of each variant that are counted, after one that is not.
        progress: shows the rounds as they go.
    """
    files = _scaled(folder, scratch / "images", size, images)
    refiners = {"ours": refiner} if refiner else _untrained(scratch)
    loaders = {
        name: DataLoader(
            _Decoded(files, pipeline),
            num_workers=workers,
            batch_size=None,
            persistent_workers=True,
            multiprocessing_context="spawn",  # nothing is shared with us: memory can be told apart
        )
        for name, pipeline in _pipelines(files, refiners, scratch / "cache").items()
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    memory: dict[str, float] = {}
    for number in progress(iter(range(rounds + 1))):
        for name in sorted(loaders, key=list(loaders).index, reverse=bool(number % 2)):
            rate, memory[name] = _epoch(loaders[name], len(files))
            if number:
                rates[name].append(rate)
    return [_row(name, rates, memory) for name in loaders]


def as_text(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [
        "| transform | images/s | of no transform | times FDA | MiB a worker |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        share, ahead = (
            f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in (row.share, row.ahead)
        )
        lines.append(f"| {row.name} | {row.rate:.1f} | {share} | {ahead} | {row.memory_mb:+.0f} |")
    return "\n".join(lines)


def machine() -> str:
    """What the figures were taken on, for a line below them."""
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "albumentations")]
    known: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    amx = "with AMX" if known.get("amx_bf16") else "without AMX"
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores {amx} ({platform.machine()}), "
        f"{', '.join(versions)}, Python {platform.python_version()}"
    )


class _Decoded(Dataset[tuple[int, float]]):
    """Decodes a JPEG, applies a pipeline, and tells now and then what its process holds."""

    def __init__(self, files: list[Path], pipeline: Any) -> None:
        self.files, self.pipeline = files, pipeline

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, float]:
        with Image.open(self.files[index]) as file:
            image = np.array(file.convert("RGB"))
        image = self.pipeline(image)
        return int(image[0, 0, 0]), private_mb() if index % 16 == 0 else 0.0


class _Peer:
    """A transform of albumentations that takes a random real photo for each image."""

    def __init__(self, name: str, key: str, photos: list[Path]) -> None:
        self.name, self.key, self.photos = name, key, photos
        self._made: tuple[Any, list[Array], np.random.Generator] | None = None

    def __call__(self, image: Array) -> Array:
        import albumentations as A

        if self._made is None:
            decoded = [np.array(Image.open(photo).convert("RGB")) for photo in self.photos]
            make = getattr(A, self.name)
            transform = A.Compose([make(metadata_key=self.key, p=1)])
            self._made = transform, decoded, np.random.default_rng(0)
        transform, photos, rng = self._made
        out: Array = transform(image=image, **{self.key: [photos[rng.integers(len(photos))]]})[
            "image"
        ]
        return out


class _Alone:
    """A transform that needs nothing but the image."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Array) -> Array:
        out: Array = self.transform(image=image)["image"]
        return out


def _pipelines(
    files: list[Path], refiners: Mapping[str, Path], cache: Path
) -> dict[str, Callable[[Array], Array]]:
    import albumentations as A

    from simgan_aug.transforms.albumentations import Refine

    ours = {name: Refine(path, p=1) for name, path in refiners.items()}
    ours["ours, from the cache"] = Refine(
        next(iter(refiners.values())), p=1, variants=1, cache=cache
    )
    peers = {
        "HistogramMatching": "hm_metadata",
        "PixelDistributionAdaptation": "pda_metadata",
        REFERENCE: "fda_metadata",
    }
    return (
        {PLAIN: _Alone(A.NoOp(p=1))}
        | {name: _Alone(transform) for name, transform in ours.items()}
        | {name: _Peer(name, key, files[:16]) for name, key in peers.items()}
    )


def _untrained(scratch: Path) -> dict[str, Path]:
    """The default network, and a light one, with a head that is not zero."""
    forms: dict[str, dict[str, Any]] = {"ours, default": {}, "ours, light": LIGHT}
    paths = {}
    for number, (name, options) in enumerate(forms.items()):
        torch.manual_seed(0)
        network = UnshuffleRefiner(3, **options)
        torch.nn.init.normal_(network.head.weight, std=0.1)
        config = Config(refiner=Part(name="unshuffle", options=dict(options)))
        paths[name] = scratch / f"untrained-{number}.safetensors"
        save_checkpoint(paths[name], Checkpoint(network, 3, None, config, {}))
    return paths


LIGHT: dict[str, Any] = {"factor": 4, "blocks": 1}
"""Options of `unshuffle` for a network of a sixth of the default's arithmetic."""


def _scaled(folder: Path, out: Path, size: tuple[int, int], count: int) -> list[Path]:
    out.mkdir(parents=True)
    files = []
    for number, name in enumerate(islice(cycle(list_images(folder)), count)):
        path = out / f"{number:05d}.jpg"
        with Image.open(folder / name) as file:
            file.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        files.append(path)
    return files


def _epoch(batches: DataLoader[Any], count: int) -> tuple[float, float]:
    began, memory = time.perf_counter(), 0.0
    for _, held in batches:
        memory = max(memory, held)
    return count / (time.perf_counter() - began), memory


def _row(name: str, rates: Mapping[str, list[float]], memory: Mapping[str, float]) -> Row:
    def against(other: str) -> tuple[float, float, float]:
        ratios = [mine / its for mine, its in zip(rates[name], rates[other], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    return Row(
        name,
        statistics.median(rates[name]),
        against(PLAIN),
        against(REFERENCE),
        memory[name] - memory[PLAIN],
    )


def private_mb() -> float:
    """Memory in MiB that this process shares with no other; nan where there is no /proc to say."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return float("nan")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024
