"""`bench loop`: does a detector's training notice that its images are refined?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simgan_aug.bench.detector import Targets, detector, detector_name
from simgan_aug.bench.device import require_gpu
from simgan_aug.bench.material import untrained
from simgan_aug.bench.rounds import Figures, turns_here
from simgan_aug.bench.table import Row, Table
from simgan_aug.data import RefinedLoader
from simgan_aug.folders import list_images

PLAIN = "not refined"
ASIDE, COMPILED = "refined beside it, torch", "refined beside it, torch-compile"
INLINE = "refined before it, torch"

NOTICED = 1.02
"""Times as long as without: what a training does not notice."""

_COLUMNS = {"ms a step": ".1f", "times not refined": ""}


def loop(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    size: tuple[int, int] = (640, 480),
    batch: int = 4,
    steps: int = 20,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """A detector's training step in bf16, its images refined (all of them) or not.

    They come as uint8 in page-locked memory, decoded already: the loader's own work is left out.
    "Beside" is on a stream and in a thread of its own, as `RefinedLoader` does; "before" is not.
    All are steps of one detector in one process: two of them differ by more than refining costs.

    Args:
        folder: photos, for the tone step.
        scratch: an empty folder.
        refiner: a refiner file; None: an untrained one, whose speed is that of a trained one.
        size: width and height in px.
        batch: images a step.
        steps: of one measurement.
        rounds, progress: see `take_turns`.

    Raises:
        Skip: there is no CUDA device.
    """
    require_gpu()
    photos = [folder / name for name in list_images(folder)][:16]
    refiner = refiner or untrained(scratch / "refiner.safetensors", photos)
    torch.manual_seed(0)
    device = torch.device("cuda")
    step = step_of(detector(size).to(device).train(), device)
    refined = partial(RefinedLoader, refiner=refiner, p=1)
    ways: dict[str, Callable[[Any], Any]] = {
        PLAIN: iter,
        ASIDE: refined,
        COMPILED: partial(refined, backend="torch-compile"),
        INLINE: partial(refined, prefetch=False),
    }
    loaders = {name: iter(way(endless(size, batch, pinned=True))) for name, way in ways.items()}
    works = {name: partial(_trained, step, loader, steps) for name, loader in loaders.items()}
    return table_of(turns_here(works, rounds, progress))


def table_of(figures: Figures) -> Table:
    """What the figures say, which are seconds a step."""
    rows = [
        Row(
            name,
            {
                "ms a step": 1000 * figures.median(name),
                "times not refined": figures.ratio(name, PLAIN),
            },
        )
        for name in figures.values
    ]
    return Table(detector_name(), _COLUMNS, rows, [_advice(figures)])


def endless(size: tuple[int, int], batch: int, pinned: bool) -> Iterator[tuple[Tensor, Targets]]:
    """Random images, (B, 3, H, W) uint8, and five boxes on each; a few batches, over and over."""
    width, height = size
    batches = []
    for _ in range(4):
        images = torch.randint(256, (batch, 3, height, width), dtype=torch.uint8)
        corner = torch.rand(batch, 5, 2) * torch.tensor(size) / 2
        boxes = torch.cat([corner, corner + torch.tensor(size) / 4], dim=-1)
        targets = [{"boxes": each, "labels": torch.ones(5, dtype=torch.long)} for each in boxes]
        batches.append((images.pin_memory() if pinned else images, targets))
    return itertools.cycle(batches)


def step_of(model: nn.Module, device: torch.device) -> Callable[[tuple[Tensor, Targets]], Tensor]:
    """One step of training on a batch as it comes from a loader; the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # so small that nothing diverges

    def step(batch: tuple[Tensor, Targets]) -> Tensor:
        images = batch[0].to(device, non_blocking=True).float().div_(255)
        targets = [
            {name: value.to(device, non_blocking=True) for name, value in each.items()}
            for each in batch[1]
        ]
        with torch.autocast(device.type, torch.bfloat16):
            loss: Tensor = model(images, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def _trained(step: Callable[[Any], Tensor], batches: Iterator[Any], steps: int) -> float:
    """Seconds a step."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for batch in itertools.islice(batches, steps):
        step(batch)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def _advice(figures: Figures) -> str:
    best = min((ASIDE, COMPILED), key=figures.median)
    backend, ratio = best.rpartition(", ")[2], figures.ratio(best, PLAIN)
    assert ratio is not None
    notices = "does not notice" if ratio.median <= NOTICED else "notices"
    return (
        f"take a RefinedLoader with the backend {backend!r}: this training {notices} it "
        f"({ratio} times as long)"
    )
