"""`bench cpu`: what refining an image costs on one thread, ours by backend beside its peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from simgan_aug import checkpoint
from simgan_aug.backends.openvino import GRAPH
from simgan_aug.bench.cyclegan import ResNet9
from simgan_aug.bench.material import PEERS, Peer, decoded_image, networks_of_ours, scaled
from simgan_aug.bench.rounds import Figures, Variant, Work, take_turns
from simgan_aug.bench.table import Cell, Row, Table
from simgan_aug.bench.ways import WAYS, Way, inputs_of, plain, quantize
from simgan_aug.checkpoint import Checkpoint
from simgan_aug.devices import keep_freed_memory
from simgan_aug.networks.contract import condition

JPEG, RESNET, CEILING = "JPEG decode", "resnet_9", "ceiling"

COLUMNS = {
    "ms": ".1f",
    "times JPEG decode": "",
    **{f"{peer} / it": "" for peer in reversed(PEERS)},
    "resnet_9 / it": "",
    "torch fp32 / it": "",
    "of the ceiling": "",
}

IMAGES = 16

Maker = Callable[[], Checkpoint]


def cpu(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    size: tuple[int, int] = (640, 480),
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """CPU time of one image on one thread: decoding it, albumentations' peers, and ours each way.

    "network" is what a backend takes alone; "whole" is all that a transform pays in a loader's
    worker, with noise and tone step. The ceiling is a convolution of 256 channels in the same
    library and precision.

    Args:
        folder: photos; they are scaled to `size` and written as JPEG into `scratch`.
        scratch: an empty folder.
        refiner: a refiner file; None: untrained networks, whose speed is that of trained ones.
        size: width and height in px; multiples of 4, for resnet_9.
        rounds: that are counted.
        progress: shows the rounds as they go.
    """
    files = scaled(folder, scratch / "images", size, IMAGES)
    refiners = {"ours": refiner} if refiner else networks_of_ours(scratch, files)
    makers: dict[str, Maker] = {name: partial(checkpoint.load, refiners[name]) for name in refiners}
    makers |= {RESNET: partial(plain, ResNet9), CEILING: partial(plain, Wide)}
    variants = _variants(makers, refiners, files, scratch / "int8", size)
    figures = take_turns(variants, rounds=rounds, progress=progress)
    flops = {name: _flops(make().network, size) for name, make in makers.items()}
    flops[CEILING] = _flops(Wide(), Wide.size)
    rows = [_row(name, figures, flops) for name in variants if not name.startswith(CEILING)]
    says = [_recommended(figures, name) for name in refiners]
    return Table(f"{size[0]}x{size[1]}, one thread", COLUMNS, rows, says)


def _variants(
    makers: Mapping[str, Maker],
    refiners: Mapping[str, Path],
    files: list[Path],
    scratch: Path,
    size: tuple[int, int],
) -> dict[str, Variant]:
    """All that is measured, by name."""
    graphs = {name: scratch / name / GRAPH for name in makers}
    quantize({graphs[name]: make for name, make in makers.items()}, files[:4])
    variants: dict[str, Variant] = {JPEG: partial(_decode, files)}
    variants |= {name: partial(_peer, name, files) for name in PEERS}
    for way in WAYS:
        for name, make in makers.items():
            side = Wide.size if name == CEILING else size
            network = partial(_network, way, make, graphs[name], side)
            if name not in refiners:
                variants[f"{name}, {way}"] = network
                continue
            variants[f"{name}, {way}, network"] = network
            whole = partial(_whole, way, refiners[name], graphs[name], files)
            variants[f"{name}, {way}, whole"] = whole
    return variants


def _row(name: str, figures: Figures, flops: Mapping[str, float]) -> Row:
    if name in figures.skipped:
        return Row(name, skipped=figures.skipped[name])
    whose, _, way = name.removesuffix(", network").removesuffix(", whole").rpartition(", ")
    cells: dict[str, Cell] = {"ms": figures.median(name) * 1e3}
    cells["times JPEG decode"] = figures.ratio(name, JPEG)
    for peer in PEERS:
        cells[f"{peer} / it"] = figures.ratio(peer, name)
    if name.endswith("network"):
        cells["resnet_9 / it"] = figures.ratio(f"{RESNET}, {way}", name)
    if whose in flops:
        cells["torch fp32 / it"] = figures.ratio(name.replace(way, str(WAYS[0])), name)
        if not name.endswith("whole"):
            rate = figures.ratio(f"{CEILING}, {way}", name)
            share = flops[whose] / flops[CEILING]
            cells["of the ceiling"] = rate and rate.times(share)
    return Row(name, cells)


def _recommended(figures: Figures, name: str) -> str:
    """The fastest way here, and the fastest that every image of torch's agrees with."""
    took = {
        way: figures.median(f"{name}, {way}, whole")
        for way in WAYS
        if f"{name}, {way}, whole" in figures.values
    }
    best = min(took, key=lambda way: took[way])
    exact = min((way for way in took if way.precision != "int8"), key=lambda way: took[way])
    said = f"{name}: fastest within one grey level: --backend {exact.backend}, {exact.precision}"
    if best != exact:
        said = (
            f"{said}; {took[exact] / took[best]:.1f} times as fast, if simgan-aug export accepts "
            f"it for your refiner and images: {best.precision} in {best.backend}"
        )
    return said


class Wide(nn.Module):
    """Little but convolutions of 256 channels, which libraries are best at."""

    size = (64, 64)

    def __init__(self) -> None:
        super().__init__()
        channels = [3, *[256] * 9, 3]
        self.layers = nn.Sequential(
            *(nn.Conv2d(inside, outside, 3, padding=1) for inside, outside in pairwise(channels))
        )

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.layers(images))


def _flops(network: nn.Module, size: tuple[int, int]) -> float:
    """Operations of a network for an image of this width and height."""
    images, noise, reference = inputs_of(network, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images, **condition(network, noise, reference))
    return float(counter.get_total_flops())


def _decode(files: list[Path]) -> Work:
    turn = cycle(files)
    return lambda: _done(decoded_image(next(turn)))


def _peer(name: str, files: list[Path]) -> Work:
    peer, turn = Peer(name, files), cycle([decoded_image(file) for file in files])
    return lambda: _done(peer(next(turn)))


def _whole(way: Way, file: Path, graph: Path, files: list[Path]) -> Work:
    keep_freed_memory()  # as a transform does in a loader's worker
    refiner = way.refiner(file, graph)
    again = cycle([*enumerate(decoded_image(file) for file in files)])

    def work() -> None:
        seed, image = next(again)
        refiner(image, seed=seed)

    return work


def _network(way: Way, make: Callable[[], Checkpoint], graph: Path, size: tuple[int, int]) -> Work:
    keep_freed_memory()
    network = make().network
    backend, inputs = way.backend_of(network, graph), inputs_of(network, size)

    @torch.no_grad()
    def work() -> None:
        backend.added(*inputs)

    return work


def _done(_: object) -> None:
    """Of work, which returns no measure of its own."""
