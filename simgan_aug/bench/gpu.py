"""`bench gpu`: images per second on a CUDA device, and how near that is to what it can do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from simgan_aug.backends.eager import TorchBackend
from simgan_aug.bench.cyclegan import ResNet9
from simgan_aug.bench.device import byte_time, flop_time, flops, require_gpu, ring, seconds
from simgan_aug.bench.material import untrained
from simgan_aug.bench.rounds import Figures, Variant, Work, take_turns
from simgan_aug.bench.table import Ratio, Row, Table
from simgan_aug.configfile import load_preset
from simgan_aug.folders import list_images
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import ResNetRefiner, UnshuffleRefiner

OURS, RESNET = "ours, default", "CycleGAN's resnet_9"

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "the paper's": lambda: ResNetRefiner(3),
    OURS: lambda: UnshuffleRefiner(3, **load_preset("default").of_student().refiner.options),
    "ours, wide": lambda: UnshuffleRefiner(3),
    RESNET: lambda: ResNet9(3),
}

FLOP, BYTE = "one operation of bf16", "one byte"

_COLUMNS = {
    "images/s": ".0f",
    "GFLOP": ".1f",
    "of the roofline": "",
    "resnet_9, compiled / it": "",
}


def gpu(
    folder: Path,
    scratch: Path,
    *,
    size: tuple[int, int] = (640, 480),
    batch: int = 16,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Images per second of networks in bf16, and of the whole path of a refiner with a tone step.

    A network's inputs and outputs lie on the device in float32; the whole path begins with uint8 in
    page-locked memory of the host and ends with uint8 on the device. The roofline is the longer of
    two times: for the arithmetic, and for reading the input and writing the output once, at the
    rates that a product of matrices and a copy reach in the same rounds.

    Args:
        folder: photos, for the tone step.
        scratch: an empty folder.
        size: width and height in px.
        batch: images at once.
        rounds, progress: see `take_turns`.

    Raises:
        Skip: there is no CUDA device.
    """
    require_gpu()
    photos = [folder / name for name in list_images(folder)][:16]
    refiner = untrained(scratch / "refiner.safetensors", photos)
    figures = take_turns(variants_of(refiner, size, batch), rounds=rounds, progress=progress)
    return table_of(figures, size, batch)


def variants_of(refiner: Path, size: tuple[int, int], batch: int) -> dict[str, Variant]:
    """All that takes turns, by the name of its row; the ceilings first."""
    made: dict[str, Variant] = {FLOP: flop_time, BYTE: byte_time}
    for name in NETWORKS:
        for how in ("eager", "compiled"):
            if (name, how) != (RESNET, "eager"):
                made[f"{name}, {how}"] = partial(_network, name, how == "compiled", size, batch)
    for backend in ("torch", "torch-compile"):
        for count in (1, batch):
            made[_path(backend, count)] = partial(_whole, refiner, backend, "bf16", size, count)
    made[_path("torch", batch, "fp32")] = partial(_whole, refiner, "torch", "fp32", size, batch)
    return made


def table_of(figures: Figures, size: tuple[int, int], batch: int) -> Table:
    """What the figures say; they are in seconds an image, and a unit of the ceilings."""
    names = [name for name in figures.values if name not in (FLOP, BYTE)]
    rows = [_row(name, figures, size) for name in names]
    skipped = [Row(name, skipped=why) for name, why in figures.skipped.items()]
    ceilings = (
        f"ceilings: {1e-12 / figures.median(FLOP):.0f} TFLOP/s of bf16, "
        f"{1e-12 / figures.median(BYTE):.2f} TB/s"
    )
    return Table("on the GPU", _COLUMNS, rows + skipped, [ceilings, _advice(figures, batch)])


def _network(name: str, compiled: bool, size: tuple[int, int], batch: int) -> Work:
    require_gpu()
    torch.manual_seed(0)
    network, device = NETWORKS[name]().eval().requires_grad_(False), torch.device("cuda")
    backend = TorchBackend(network, device, "bf16", compiled)
    shapes = [(batch, *shape) for shape in _shapes(network, size)]
    noise = torch.randn(shapes[1], device=device) if len(shapes) > 1 else None
    last = torch.channels_last

    def image() -> Tensor:
        return torch.rand(shapes[0], device=device).mul_(2).sub_(1).contiguous(memory_format=last)

    @torch.no_grad()
    def added(images: Tensor) -> Tensor:
        return backend.added(images, noise, None)

    inputs = ring(image)
    return lambda: seconds(added, inputs) / batch


def _whole(refiner: Path, backend: str, precision: str, size: tuple[int, int], batch: int) -> Work:
    require_gpu()
    refine = ImageRefiner.load(refiner, "cuda", precision=precision, backend=backend)
    width, height = size
    images = [
        torch.randint(256, (batch, height, width, 3), dtype=torch.uint8).pin_memory().movedim(-1, 1)
        for _ in range(4)
    ]

    def refined(each: Tensor) -> Tensor:
        found: Tensor = refine(each.to(refine.device, non_blocking=True))
        return found

    return lambda: seconds(refined, images) / batch


def _shapes(network: nn.Module, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Of one image, and of the noise beside it."""
    width, height = size
    noise = int(getattr(network, "noise_channels", 0))
    return [(3, height, width), *[(noise, height, width)] * bool(noise)]


def _row(name: str, figures: Figures, size: tuple[int, int]) -> Row:
    whole = "whole path" in name
    network = NETWORKS[OURS if whole else name.rpartition(",")[0]]()
    shapes = _shapes(network, size)
    operations = flops(network, [(1, *shape) for shape in shapes])
    read = 3 if whole else 4 * sum(shape[0] for shape in shapes)  # bytes a px
    moved = (read + (3 if whole else 4 * 3)) * math.prod(size)
    measured = zip(*(figures.values[each] for each in (name, FLOP, BYTE)), strict=True)
    shares = [max(operations * flop, moved * byte) / took for took, flop, byte in measured]
    cells = {
        "images/s": 1 / figures.median(name),
        "GFLOP": operations / 1e9,
        "of the roofline": None if name.endswith("fp32") else Ratio.of(shares),
        "resnet_9, compiled / it": None if whole else figures.ratio(f"{RESNET}, compiled", name),
    }
    return Row(name, cells)


def _path(backend: str, batch: int, precision: str = "bf16") -> str:
    return f"{OURS}, whole path, {backend}, batch {batch}, {precision}"


def _advice(figures: Figures, batch: int) -> str:
    """The backend is compiled only where it gains in every round."""
    gain = figures.ratio(_path("torch", batch), _path("torch-compile", batch))
    compiled = gain is not None and gain.low > 1.05
    backend = "torch-compile" if compiled else "torch"
    counts = {count: figures.median(_path(backend, count)) for count in (1, batch)}
    best = min(counts, key=lambda count: counts[count])
    return (
        f"take the backend {backend!r} (compiled is {gain} times as fast), bf16, and batches of "
        f"{best}: {1 / counts[best]:.0f} images/s"
    )
